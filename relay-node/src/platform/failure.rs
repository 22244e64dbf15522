//! What the system's error numbers mean to a server of files.

use std::io;

/// Why the error means "there is no such file for you", or `None` when it means something else.
pub(crate) fn absence(error: &io::Error) -> Option<&'static str> {
    use io::ErrorKind as Kind;
    let reason = match error.kind() {
        Kind::NotFound => "does not exist",
        Kind::NotADirectory => "a part of its path is not a directory",
        Kind::IsADirectory => "is a directory",
        Kind::CrossesDevices => "leads out of the document root",
        Kind::InvalidFilename | Kind::InvalidInput => "is no file name here",
        _ if has_too_many_links(error) => "a symbolic link in its path may not be followed",
        _ if has_no_device(error) => "is not a regular file",
        _ => return None,
    };
    Some(reason)
}

/// Whether the node's user may not read it.
pub(crate) fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Whether somebody holds a lease on the file, and is being asked to give it up (fcntl(2), `F_SETLEASE`).
pub(crate) fn is_leased(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Whether the process or the system has no descriptor left.
#[cfg(unix)]
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    is_any(error, &[rustix::io::Errno::MFILE, rustix::io::Errno::NFILE])
}

#[cfg(unix)]
fn has_too_many_links(error: &io::Error) -> bool {
    is_any(error, &[rustix::io::Errno::LOOP])
}

/// Opening a socket or a device without a driver.
#[cfg(unix)]
fn has_no_device(error: &io::Error) -> bool {
    is_any(error, &[rustix::io::Errno::NXIO, rustix::io::Errno::NODEV])
}

#[cfg(unix)]
fn is_any(error: &io::Error, numbers: &[rustix::io::Errno]) -> bool {
    numbers.iter().any(|number| error.raw_os_error() == Some(number.raw_os_error()))
}

#[cfg(not(unix))]
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    /// Windows' `ERROR_TOO_MANY_OPEN_FILES`.
    const TOO_MANY_OPEN_FILES: i32 = 4;
    error.raw_os_error() == Some(TOO_MANY_OPEN_FILES)
}

#[cfg(not(unix))]
fn has_too_many_links(_: &io::Error) -> bool {
    false
}

#[cfg(not(unix))]
fn has_no_device(_: &io::Error) -> bool {
    false
}
