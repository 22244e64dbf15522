//! Resolving first and comparing then, for systems without directory descriptors.

use super::{Entry, Facts, NameKind, OpenDirectory};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

pub(super) fn open(root: &Path, name: &[u8]) -> io::Result<Entry> {
    let path = resolve(root, name)?;
    let metadata = fs::metadata(&path)?;
    if metadata.is_dir() {
        return Ok(Entry::Directory);
    }
    if !metadata.is_file() {
        return Ok(Entry::Other);
    }
    let file = open_resolved(&path)?;
    let metadata = file.metadata()?;
    Ok(if metadata.is_file() { Entry::File(file, metadata) } else { Entry::Other })
}

pub(super) fn metadata(root: &Path, name: &[u8]) -> io::Result<Metadata> {
    fs::metadata(resolve(root, name)?)
}

pub(super) fn enter(root: &Path, directory: &[u8]) -> io::Result<OpenDirectory> {
    let path = resolve(root, directory)?;
    // Says now whether it may be read.
    fs::read_dir(&path)?;
    Ok(OpenDirectory::Path(path))
}

pub(super) fn visit(
    directory: &Path,
    visit: &mut dyn FnMut(&OsStr, NameKind) -> ControlFlow<()>,
) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if visit(&entry.file_name(), NameKind::of(kind)).is_break() {
            break;
        }
    }
    Ok(())
}

pub(super) fn facts(directory: &Path, name: &[u8]) -> io::Result<Facts> {
    fs::symlink_metadata(directory.join(path_of(name)?)).map(|metadata| Facts::of(&metadata))
}

fn resolve(root: &Path, name: &[u8]) -> io::Result<PathBuf> {
    let name = path_of(name)?;
    // Drive letters, alternate streams and device names are paths of their own on Windows.
    if cfg!(windows) && name.to_str().is_none_or(|name| name.split('/').any(is_special_on_windows)) {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    let path = fs::canonicalize(root.join(name))?;
    if path.starts_with(root) { Ok(path) } else { Err(io::ErrorKind::CrossesDevices.into()) }
}

#[cfg(unix)]
fn path_of(name: &[u8]) -> io::Result<&Path> {
    use std::os::unix::ffi::OsStrExt;
    Ok(Path::new(OsStr::from_bytes(name)))
}

#[cfg(not(unix))]
fn path_of(name: &[u8]) -> io::Result<&Path> {
    str::from_utf8(name).map(Path::new).map_err(|_| io::ErrorKind::InvalidFilename.into())
}

/// Names that Windows does not take for the file of that name ("Naming Files, Paths, and Namespaces").
fn is_special_on_windows(component: &str) -> bool {
    let stem = component.split('.').next().unwrap_or_default().trim_end();
    let is_numbered_port = stem.len() == 4
        && ["COM", "LPT"].iter().any(|port| stem.get(..3).is_some_and(|s| s.eq_ignore_ascii_case(port)));
    component.contains([':', '"', '<', '>', '|', '?', '*'])
        || component.ends_with(['.', ' '])
        || is_numbered_port
        || ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"]
            .iter()
            .any(|name| stem.eq_ignore_ascii_case(name))
}

#[cfg(unix)]
fn open_resolved(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

#[cfg(not(unix))]
fn open_resolved(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::is_special_on_windows;

    #[test]
    fn knows_the_names_that_windows_treats_apart() {
        for name in ["c:", "a:b", "NUL", "nul.txt", "Com1", "lpt9.log", "aux .x", "dot.", "space ", "a?"] {
            assert!(is_special_on_windows(name), "{name}");
        }
        for name in ["com", "com10", "null", "console", "a b", "naïve.txt", "prn1"] {
            assert!(!is_special_on_windows(name), "{name}");
        }
    }
}
