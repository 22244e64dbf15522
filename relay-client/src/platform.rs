//! What not every system has, each with a plain fallback.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::Path;

/// Writes all of `bytes` at `offset`, without moving any cursor, so that several threads can write one file.
///
/// # Errors
/// The system's.
#[cfg(unix)]
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

/// Writes all of `bytes` at `offset`. The cursor moves, which nobody uses.
///
/// # Errors
/// The system's.
#[cfg(windows)]
pub fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = bytes.get(n..).unwrap_or_default();
                offset += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Standard output, without a buffer. Where somebody has made it non-blocking, a write waits until there is room.
///
/// # Errors
/// No descriptor is left.
#[cfg(unix)]
pub fn standard_output() -> io::Result<impl Write + Send> {
    use std::os::fd::AsFd;
    if output_was_closed() {
        return Err(rustix::io::Errno::BADF.into());
    }
    Ok(Patient(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
}

/// Standard output.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn standard_output() -> io::Result<impl Write + Send> {
    Ok(io::stdout())
}

/// Whether this process was started without a standard output (`>&-`). By the time of `main` the standard library has opened the
/// null device in its place, which would take everything and keep nothing.
#[cfg(target_os = "linux")]
fn output_was_closed() -> bool {
    OUTPUT_WAS_CLOSED.load(std::sync::atomic::Ordering::Relaxed)
}

/// Whether this process was started without a standard output: here that cannot be told any more.
#[cfg(all(unix, not(target_os = "linux")))]
fn output_was_closed() -> bool {
    false
}

#[cfg(target_os = "linux")]
static OUTPUT_WAS_CLOSED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Looks before the standard library does: the loader calls what stands in this section before `main` (gABI, "Initialization and
/// Termination Functions").
#[cfg(target_os = "linux")]
#[used]
#[expect(
    unsafe_code,
    reason = "the section takes functions without arguments of the C calling convention, and this is one"
)]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_OUTPUT: extern "C" fn() = look_at_output;

/// Asks the kernel and stores one bit; nothing here needs a runtime, or can fail.
#[cfg(target_os = "linux")]
extern "C" fn look_at_output() {
    let is_closed = rustix::io::fcntl_getfd(rustix::stdio::stdout()).is_err();
    OUTPUT_WAS_CLOSED.store(is_closed, std::sync::atomic::Ordering::Relaxed);
}

/// A file that may be non-blocking, and is written to as if it were not.
#[cfg(unix)]
struct Patient(File);

#[cfg(unix)]
impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        use rustix::event::{PollFd, PollFlags, poll};
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
            match poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None) {
                Err(error) if error != rustix::io::Errno::INTR => return Err(error.into()),
                _ => {}
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads exactly `bytes.len()` bytes at `offset`.
///
/// # Errors
/// The system's; [`io::ErrorKind::UnexpectedEof`] when the file is shorter.
#[cfg(unix)]
pub fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Reads exactly `bytes.len()` bytes at `offset`. The cursor moves, which nobody uses.
///
/// # Errors
/// The system's; [`io::ErrorKind::UnexpectedEof`] when the file is shorter.
#[cfg(windows)]
pub fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                bytes = bytes.get_mut(n..).unwrap_or_default();
                offset += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What became of locking a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// It is locked until it is closed.
    Had,
    /// Another run has it.
    Taken,
    /// The file system has no locks: whether another run has it is not known.
    Unknown,
}

/// Locks an open file against this program's other runs until it is closed.
///
/// # Errors
/// The system's.
pub fn try_lock(file: &File) -> io::Result<Lock> {
    match file.try_lock() {
        Ok(()) => Ok(Lock::Had),
        Err(TryLockError::WouldBlock) => Ok(Lock::Taken),
        Err(TryLockError::Error(error)) if has_no_locks(&error) => Ok(Lock::Unknown),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether this is what a file system says that has no locks (flock(2); NFS says `ENOLCK` when its lock manager is not there).
#[cfg(unix)]
#[must_use]
pub fn has_no_locks(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|e| [Errno::NOTSUP, Errno::NOSYS, Errno::INVAL, Errno::BADF, Errno::NOLCK].contains(&e))
}

/// Whether this is what a file system says that has no locks.
#[cfg(not(unix))]
#[must_use]
pub fn has_no_locks(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

/// Options for opening a file of ours to read and write, which refuse a symbolic link that somebody put in its place.
#[must_use]
pub fn open_no_follow() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.custom_flags(i32::try_from(flags.bits()).unwrap_or(0));
    }
    options
}

/// Whether `path` still leads to the open `file`, and not to another one that took its name meanwhile.
///
/// # Errors
/// The system's, except that nothing is there.
#[cfg(unix)]
pub fn is_still(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let open = file.metadata()?;
    match path.symlink_metadata() {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether `path` still leads to the open `file`: where an open file cannot be renamed, it does.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn is_still(_file: &File, _path: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Whether this path leads to the null device, which takes every byte at once and keeps none (null(4)).
#[cfg(unix)]
#[must_use]
pub fn is_null(path: &Path) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let device = |path| {
        let meta = std::fs::metadata(path).ok()?;
        meta.file_type().is_char_device().then(|| meta.rdev())
    };
    device(path).is_some_and(|number| device(Path::new("/dev/null")) == Some(number))
}

/// Whether this path leads to the null device: here nobody asks, and it is written to as any other.
#[cfg(not(unix))]
#[must_use]
pub fn is_null(_path: &Path) -> bool {
    false
}

/// Asks the file system for room for a file of `len` bytes, so that a full disk is known at the start. When there is none,
/// nothing stays allocated beyond the file's end. Nobody may write to the file meanwhile.
///
/// A file system in memory is only asked whether it has the room: to allocate there is to fill with zeros, which takes about as long
/// as the writing that follows.
///
/// # Errors
/// Only that there is no room; a file system that cannot promise room is no error.
#[cfg(target_os = "linux")]
pub fn reserve(file: &File, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate, fstatfs};
    use rustix::io::Errno;
    if fstatfs(file).is_ok_and(|system| system.f_type == TMPFS_MAGIC) {
        return check_room(file, len);
    }
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, len) {
        Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
            // Some file systems allocate what there is before they say that it is not enough.
            let _ = release(file);
            Err(errno.into())
        }
        _ => Ok(()),
    }
}

/// Whether the file system has room for the rest of a file of `len` bytes.
#[cfg(target_os = "linux")]
fn check_room(file: &File, len: u64) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let system = rustix::fs::fstatvfs(file)?;
    let missing = len.saturating_sub(file.metadata()?.blocks() * 512);
    // Without a size limit all counts are 0 (tmpfs(5)).
    let is_limited = system.f_blocks > 0;
    if is_limited && system.f_bavail.saturating_mul(system.f_frsize) < missing {
        return Err(rustix::io::Errno::NOSPC.into());
    }
    Ok(())
}

/// What statfs(2) calls a tmpfs.
#[cfg(target_os = "linux")]
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// Promises nothing.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn reserve(_file: &File, _len: u64) -> io::Result<()> {
    Ok(())
}

/// Gives back what was allocated beyond the end of `file`, for which setting the length that it has is enough. Nobody may
/// write to it meanwhile.
///
/// # Errors
/// The system's.
pub fn release(file: &File) -> io::Result<()> {
    file.set_len(file.metadata()?.len())
}

/// Makes a rename in `directory` survive a power cut, where directories can be synced.
///
/// # Errors
/// The system's.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

/// Whether whoever started this process had it ignore `signal`, as nohup(1) does; a process that was started keeps that (execve(2)).
#[cfg(target_os = "linux")]
#[must_use]
pub fn is_ignored(signal: i32) -> bool {
    // A mask in hexadecimal, the lowest bit for signal 1 (proc_pid_status(5)).
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    u32::try_from(signal - 1).is_ok_and(|bit| mask.checked_shr(bit).is_some_and(|mask| mask & 1 == 1))
}

/// Whether a signal is ignored: here nobody can tell without asking the kernel in an unsafe way.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn is_ignored(_signal: i32) -> bool {
    false
}

/// With fewer descriptors a run ends somewhere in the middle: the runtime takes nine, and a transfer about as many again.
#[cfg(unix)]
const FEWEST_DESCRIPTORS: u64 = 32;

/// Raises the soft limit of descriptors to the hard one (getrlimit(2), `RLIMIT_NOFILE`).
///
/// # Errors
/// That even that is too little, and what to do about it.
#[cfg(unix)]
pub fn raise_descriptors() -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    match if raised.is_ok() { maximum } else { current } {
        Some(limit) if limit < FEWEST_DESCRIPTORS => Err(format!(
            "this process may open only {limit} files at once, and {FEWEST_DESCRIPTORS} are needed; raise the limit (ulimit -n 256)"
        )),
        _ => Ok(()),
    }
}

/// How many descriptors this process may have, where that is limited.
#[cfg(unix)]
#[must_use]
pub fn descriptors() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// There is no such limit here.
#[cfg(not(unix))]
#[must_use]
pub fn descriptors() -> Option<u64> {
    None
}

/// Whether the process or the system has no descriptor left (open(2), `EMFILE` and `ENFILE`).
#[must_use]
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    #[cfg(unix)]
    return rustix::io::Errno::from_io_error(error)
        .is_some_and(|e| [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].contains(&e));
    #[cfg(not(unix))]
    {
        let _ = error;
        false
    }
}

/// There is no such limit here.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn raise_descriptors() -> Result<(), String> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn only_the_null_device_is_it() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        assert!(is_null(Path::new("/dev/null")) && is_null(&link));
        for other in ["/dev/full", "/dev/zero", "/dev/null/no", "/"] {
            assert!(!is_null(Path::new(other)), "{other}");
        }
    }

    #[test]
    fn what_was_reserved_is_given_back() {
        let file = tempfile::tempfile().unwrap();
        write_all_at(&file, b"abc", 0).unwrap();
        reserve(&file, 8 << 20).unwrap();
        release(&file).unwrap();
        let meta = file.metadata().unwrap();
        assert_eq!(meta.len(), 3);
        assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
    }
}
