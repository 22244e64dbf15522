//! One component after the other, for Unix systems without `openat2`.

use super::{Entry, NameKind, classify};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::Errno;
use std::ffi::{CString, OsStr};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// As many links as Linux follows in one walk (path_resolution(7)).
const MAX_LINKS: u32 = 40;
/// Directories held open by one walk.
const MAX_DEPTH: usize = 128;

#[cfg(any(target_os = "linux", target_os = "android"))]
const STEP: OFlags = OFlags::PATH;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const STEP: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

pub(super) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

pub(super) fn open(root: &OwnedFd, name: &[u8]) -> io::Result<Entry> {
    classify(File::from(walk(root, name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?))
}

pub(super) fn metadata(root: &OwnedFd, name: &[u8]) -> io::Result<Metadata> {
    File::from(walk(root, name, STEP)?).metadata()
}

pub(super) fn open_directory(root: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(walk(root, name, OFlags::RDONLY | OFlags::DIRECTORY)?)
}

/// Reads a whole directory; a name whose kind the file system does not tell is asked for it.
pub(super) fn visit(directory: OwnedFd, visit: &mut dyn FnMut(&OsStr, NameKind)) -> io::Result<()> {
    let mut names = Dir::new(directory)?;
    while let Some(entry) = names.read() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => match statat(names.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                // Gone since the directory was read.
                Err(_) => continue,
            },
            known => known,
        };
        visit(OsStr::from_bytes(name.to_bytes()), name_kind(kind));
    }
    Ok(())
}

fn name_kind(kind: FileType) -> NameKind {
    match kind {
        FileType::RegularFile => NameKind::File,
        FileType::Directory => NameKind::Directory,
        FileType::Symlink => NameKind::Link,
        _ => NameKind::Other,
    }
}

/// Walks to `name` and opens it with `flags`. No step follows a link by itself, so none can be exchanged under the walk.
fn walk(root: &OwnedFd, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut held: Vec<OwnedFd> = Vec::new();
    let mut pending: Vec<CString> = Vec::new();
    push_components(&mut pending, name)?;
    let mut links = MAX_LINKS;
    loop {
        let here: BorrowedFd<'_> = held.last().map_or(root.as_fd(), AsFd::as_fd);
        let Some(component) = pending.pop() else {
            return openat(here, ".", flags, Mode::empty());
        };
        if component.as_bytes() == b".." {
            held.pop().ok_or(Errno::XDEV)?;
            continue;
        }
        match readlinkat(here, component.as_c_str(), Vec::new()) {
            Ok(target) => {
                links = links.checked_sub(1).ok_or(Errno::LOOP)?;
                push_components(&mut pending, target.as_bytes())?;
            }
            // The answer for what is no link (readlink(2)).
            Err(Errno::INVAL) if pending.is_empty() => {
                return openat(here, component.as_c_str(), flags, Mode::empty());
            }
            Err(Errno::INVAL) if held.len() < MAX_DEPTH => {
                let step = STEP | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                let next = openat(here, component.as_c_str(), step, Mode::empty())?;
                held.push(next);
            }
            Err(Errno::INVAL) => return Err(Errno::NAMETOOLONG),
            Err(error) => return Err(error),
        }
    }
}

/// Puts a relative path's components on the stack, the first on top.
fn push_components(pending: &mut Vec<CString>, path: &[u8]) -> Result<(), Errno> {
    if path.starts_with(b"/") {
        return Err(Errno::XDEV);
    }
    for component in path.split(|&byte| byte == b'/').rev() {
        if !matches!(component, b"" | b".") {
            pending.push(CString::new(component).map_err(|_| Errno::INVAL)?);
        }
    }
    Ok(())
}
