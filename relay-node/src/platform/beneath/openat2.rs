//! The kernel's own walk: `openat2(2)`, Linux 5.6.

use super::{Entry, classify};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;

/// How often a walk is tried again that a rename elsewhere in the tree disturbed (openat2(2), `EAGAIN`).
const DISTURBED_WALKS: u32 = 16;

/// Whether this kernel, and the sandbox around the process, know the call.
pub(super) fn works(root: &OwnedFd) -> bool {
    walk(root, b"", OFlags::PATH | OFlags::DIRECTORY).is_ok()
}

pub(super) fn open(root: &OwnedFd, name: &[u8]) -> io::Result<Entry> {
    // Without O_NONBLOCK the opening of a named pipe would wait for a writer.
    classify(File::from(walk(root, name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?))
}

/// With `RESOLVE_CACHED` (Linux 5.12) the kernel gives up where it would have to ask a disk.
pub(super) fn open_cached(root: &OwnedFd, name: &[u8]) -> Option<io::Result<Entry>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::CACHED;
    match openat2(root, name, flags, Mode::empty(), inside) {
        Ok(file) => Some(classify(File::from(file))),
        Err(Errno::AGAIN | Errno::INTR | Errno::INVAL) => None,
        Err(error) => Some(Err(error.into())),
    }
}

pub(super) fn metadata(root: &OwnedFd, name: &[u8]) -> io::Result<Metadata> {
    File::from(walk(root, name, OFlags::PATH)?).metadata()
}

pub(super) fn open_directory(root: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(walk(root, name, OFlags::RDONLY | OFlags::DIRECTORY)?)
}

fn walk(root: &OwnedFd, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let name = if name.is_empty() { b"." } else { name };
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut tries = DISTURBED_WALKS;
    loop {
        match openat2(root, name, flags | OFlags::CLOEXEC, Mode::empty(), inside) {
            Err(Errno::AGAIN | Errno::INTR) if tries > 0 => tries -= 1,
            done => return done,
        }
    }
}
