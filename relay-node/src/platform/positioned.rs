//! Reading and writing at a place in a file, whatever others do with it meanwhile.

#[cfg(all(target_os = "linux", not(relay_plain)))]
use super::page_cache::lives_in_memory;
use std::fs::File;
use std::io;

/// Reads what the system has in memory at once. `None` where it would have to wait for the disk, or cannot tell.
#[cfg(all(target_os = "linux", not(relay_plain)))]
pub(crate) fn read_at_once(file: &File, buffer: &mut [u8], offset: u64) -> Option<usize> {
    use rustix::io::{ReadWriteFlags, preadv2};
    let mut buffers = [io::IoSliceMut::new(buffer)];
    match preadv2(file, &mut buffers, offset, ReadWriteFlags::NOWAIT) {
        Err(rustix::io::Errno::OPNOTSUPP) if lives_in_memory(file) => read_at(file, buffer, offset).ok(),
        // Any other error is told by the read that may wait.
        result => result.ok(),
    }
}

#[cfg(any(not(target_os = "linux"), relay_plain))]
pub(crate) fn read_at_once(_: &File, _: &mut [u8], _: u64) -> Option<usize> {
    None
}

/// Reads up to `buffer.len()` bytes at `offset`; 0 at the file's end.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match std::os::unix::fs::FileExt::read_at(file, buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(windows)]
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}

/// Fills `buffer` from `offset` on; fewer bytes than that means that the file ends there.
pub(crate) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read_at(file, rest, offset.saturating_add(filled as u64))? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Writes all of `bytes` at `offset`.
#[cfg(unix)]
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
pub(crate) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => {
                bytes = bytes.get(written..).unwrap_or_default();
                offset += written as u64;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::read_up_to;
    use std::io::Write;

    #[test]
    fn reads_what_is_there() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let check = |offset, len, expected: &[u8]| {
            let mut buffer = vec![0; len];
            let read = read_up_to(&file, &mut buffer, offset).unwrap();
            assert_eq!(&buffer[..read], expected);
        };
        check(0, 4, b"0123");
        check(8, 4, b"89");
        check(10, 4, b"");
        check(1 << 40, 4, b"");
        check(3, 0, b"");
    }

    #[test]
    #[cfg(all(target_os = "linux", not(relay_plain)))]
    fn files_in_memory_are_read_at_once() {
        let Ok(mut file) = tempfile::tempfile_in("/dev/shm") else { return };
        if !super::lives_in_memory(&file) {
            return;
        }
        file.write_all(b"0123456789").unwrap();
        let mut buffer = [0; 4];
        assert_eq!(super::read_at_once(&file, &mut buffer, 3), Some(4));
        assert_eq!(&buffer, b"3456");
    }
}
