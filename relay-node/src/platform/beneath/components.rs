//! One component after the other, for Unix systems without `openat2`.

use super::{Entry, Facts, NameKind, OpenDirectory, classify};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{CString, OsStr};
use std::fs::{File, Metadata};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// As many links as Linux follows in one walk (path_resolution(7)).
const MAX_LINKS: u32 = 40;
/// Directories held open by one walk, the deepest ones: for the `..` of links, which hardly go further back.
const MOST_HELD: usize = 128;

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

/// The names of an open directory, if they may be looked up.
pub(super) fn names_of(directory: OwnedFd) -> io::Result<OpenDirectory> {
    statat(&directory, c".", AtFlags::empty())?;
    Ok(OpenDirectory::Descriptor(Dir::new(directory)?))
}

/// Reads a directory from its start; a name whose kind the file system does not tell is asked for it.
pub(super) fn visit(
    names: &mut Dir,
    visit: &mut dyn FnMut(&OsStr, NameKind) -> ControlFlow<()>,
) -> io::Result<()> {
    names.rewind();
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
        if visit(OsStr::from_bytes(name.to_bytes()), name_kind(kind)).is_break() {
            break;
        }
    }
    Ok(())
}

pub(super) fn facts(directory: &Dir, name: &[u8]) -> io::Result<Facts> {
    let stat = statat(directory.fd()?, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(Facts {
        kind: name_kind(FileType::from_raw_mode(stat.st_mode)),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        executable: stat.st_mode & 0o111 != 0,
    })
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
    let mut held: VecDeque<OwnedFd> = VecDeque::new();
    let mut forgotten = false;
    let mut pending: Vec<CString> = Vec::new();
    push_components(&mut pending, name)?;
    let mut links = MAX_LINKS;
    loop {
        let here: BorrowedFd<'_> = held.back().map_or(root.as_fd(), AsFd::as_fd);
        let Some(component) = pending.pop() else {
            return openat(here, ".", flags, Mode::empty());
        };
        if component.as_bytes() == b".." {
            held.pop_back().ok_or(Errno::XDEV)?;
            // Where it leads is not known any more.
            if held.is_empty() && forgotten {
                return Err(Errno::LOOP);
            }
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
            Err(Errno::INVAL) => {
                let step = STEP | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                let next = openat(here, component.as_c_str(), step, Mode::empty())?;
                held.push_back(next);
                if held.len() > MOST_HELD {
                    held.pop_front();
                    forgotten = true;
                }
            }
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
