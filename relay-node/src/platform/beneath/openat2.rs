//! The kernel's own walk: `openat2(2)`, Linux 5.6.

use super::{Entry, Reach, classify};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;

/// How often a walk is tried again that a rename elsewhere in the tree disturbed (openat2(2), `EAGAIN`).
const DISTURBED_WALKS: u32 = 16;

/// Whether this kernel, and the sandbox around the process, know the call.
pub(super) fn works(root: &OwnedFd) -> bool {
    walk(root, b"", OFlags::PATH | OFlags::DIRECTORY, Reach::Anywhere).is_ok()
}

pub(super) fn open(root: &OwnedFd, name: &[u8], reach: Reach) -> io::Result<Entry> {
    // Without O_NONBLOCK the opening of a named pipe would wait for a writer.
    classify(File::from(walk(root, name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, reach)?))
}

/// Whether a name leads onto another mount, or out, as far as the kernel can tell from its memory.
pub(super) fn leaves_mount(root: &OwnedFd, name: &[u8]) -> bool {
    let inside = inside(Reach::OwnMount) | ResolveFlags::CACHED;
    openat2(root, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside)
        .is_err_and(|e| e == Errno::XDEV)
}

/// With `RESOLVE_CACHED` (Linux 5.12) the kernel gives up where it would have to ask a disk; what lies on another mount is not
/// opened here, for opening itself may ask a server.
pub(super) fn open_cached(root: &OwnedFd, name: &[u8]) -> Option<io::Result<Entry>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    Some(walk_cached(root, name, flags)?.and_then(|file| classify(File::from(file))))
}

pub(super) fn metadata_cached(root: &OwnedFd, name: &[u8]) -> Option<io::Result<Metadata>> {
    Some(walk_cached(root, name, OFlags::PATH)?.and_then(|file| File::from(file).metadata()))
}

fn walk_cached(root: &OwnedFd, name: &[u8], flags: OFlags) -> Option<io::Result<OwnedFd>> {
    let inside = inside(Reach::OwnMount) | ResolveFlags::CACHED;
    match openat2(root, name, flags | OFlags::CLOEXEC, Mode::empty(), inside) {
        Ok(file) => Some(Ok(file)),
        Err(Errno::AGAIN | Errno::INTR | Errno::INVAL | Errno::XDEV) => None,
        Err(error) => Some(Err(error.into())),
    }
}

pub(super) fn metadata(root: &OwnedFd, name: &[u8], reach: Reach) -> io::Result<Metadata> {
    File::from(walk(root, name, OFlags::PATH, reach)?).metadata()
}

pub(super) fn open_directory(root: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(walk(root, name, OFlags::RDONLY | OFlags::DIRECTORY, Reach::Anywhere)?)
}

fn inside(reach: Reach) -> ResolveFlags {
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    if reach == Reach::OwnMount { inside | ResolveFlags::NO_XDEV } else { inside }
}

fn walk(root: &OwnedFd, name: &[u8], flags: OFlags, reach: Reach) -> Result<OwnedFd, Errno> {
    let name = if name.is_empty() { b"." } else { name };
    let inside = inside(reach);
    let mut tries = DISTURBED_WALKS;
    loop {
        match openat2(root, name, flags | OFlags::CLOEXEC, Mode::empty(), inside) {
            Err(Errno::AGAIN | Errno::INTR) if tries > 0 => tries -= 1,
            done => return done,
        }
    }
}
