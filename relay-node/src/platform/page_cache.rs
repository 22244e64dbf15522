//! Whether a part of a file is in memory, so that sending it cannot wait for a disk.

use std::fs::File;

/// Whether `len` bytes from `offset` on are, as far as samples tell, in the page cache. False where nobody can say.
#[cfg(all(target_os = "linux", not(relay_plain)))]
pub(crate) fn is_cached(file: &File, offset: u64, len: u64) -> bool {
    /// The kernel reads ahead and evicts in larger runs than this, so gaps between samples are rare; one costs a wait.
    const SAMPLE_EVERY: usize = 128 * 1024;
    let end = offset.saturating_add(len);
    for at in (offset..end).step_by(SAMPLE_EVERY).chain(end.checked_sub(1)) {
        match sample(file, at) {
            Ok(_) => {}
            // Who cannot be asked for one place cannot be asked for any.
            Err(rustix::io::Errno::OPNOTSUPP) => return lives_in_memory(file),
            Err(_) => return false,
        }
    }
    true
}

/// Reads one byte unless that would wait (preadv2(2), `RWF_NOWAIT`).
#[cfg(all(target_os = "linux", not(relay_plain)))]
fn sample(file: &File, at: u64) -> rustix::io::Result<usize> {
    let mut byte = [0];
    let mut buffers = [std::io::IoSliceMut::new(&mut byte)];
    rustix::io::preadv2(file, &mut buffers, at, rustix::io::ReadWriteFlags::NOWAIT)
}

/// Some kernels' memory file systems cannot be asked, but have nothing to wait for either.
#[cfg(all(target_os = "linux", not(relay_plain)))]
pub(super) fn lives_in_memory(file: &File) -> bool {
    /// `TMPFS_MAGIC`, statfs(2).
    const TMPFS: i128 = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|system| i128::from(system.f_type) == TMPFS)
}

/// Whether the part is in memory: this system cannot say.
#[cfg(any(not(target_os = "linux"), relay_plain))]
pub(crate) fn is_cached(_: &File, _: u64, _: u64) -> bool {
    false
}

#[cfg(test)]
#[cfg(all(target_os = "linux", not(relay_plain)))]
mod tests {
    use super::is_cached;
    use std::io::Write;

    #[test]
    fn tells_cold_from_hot() {
        // In the crate's own directory, for a file system in memory has no cold files.
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let len = 2 << 20;
        file.write_all(&vec![7; len]).unwrap();
        file.sync_all().unwrap();
        assert!(is_cached(&file, 0, len as u64));
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        if super::lives_in_memory(&file) {
            return;
        }
        assert!(!is_cached(&file, 0, len as u64));
        assert!(!is_cached(&file, 1 << 20, 1 << 20));
    }
}
