//! A directory that is open: its names, and what each of them is, without following a link.

use super::NameKind;
#[cfg(any(test, not(unix)))]
use super::canonical;
#[cfg(unix)]
use super::components;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::ops::ControlFlow;
#[cfg(any(test, not(unix)))]
use std::path::PathBuf;

/// An open directory. What stands in it is looked up from here, so the way to it is walked once.
#[derive(Debug)]
pub(crate) enum OpenDirectory {
    #[cfg(unix)]
    Descriptor(rustix::fs::Dir),
    #[cfg(any(test, not(unix)))]
    Path(PathBuf),
}

/// What a directory's own file system says of one of its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// A link is a link here.
    pub(crate) kind: NameKind,
    /// In bytes.
    pub(crate) size: u64,
    /// Seconds since 1970 and nanoseconds.
    pub(crate) modified: (i64, u32),
    /// Whether anybody may execute it.
    pub(crate) executable: bool,
}

impl OpenDirectory {
    /// Shows each name to `visit`, in the directory's own order, without `.` and `..`, until `visit` has seen enough.
    pub(crate) fn visit(
        &mut self,
        visit: &mut dyn FnMut(&OsStr, NameKind) -> ControlFlow<()>,
    ) -> io::Result<()> {
        match self {
            #[cfg(unix)]
            OpenDirectory::Descriptor(names) => components::visit(names, visit),
            #[cfg(any(test, not(unix)))]
            OpenDirectory::Path(path) => canonical::visit(path, visit),
        }
    }

    /// What stands under a name of this directory.
    pub(crate) fn facts(&self, name: &[u8]) -> io::Result<Facts> {
        match self {
            #[cfg(unix)]
            OpenDirectory::Descriptor(names) => components::facts(names, name),
            #[cfg(any(test, not(unix)))]
            OpenDirectory::Path(path) => canonical::facts(path, name),
        }
    }
}

impl Facts {
    #[cfg(unix)]
    pub(crate) fn of(metadata: &Metadata) -> Facts {
        use std::os::unix::fs::MetadataExt;
        Facts {
            kind: NameKind::of(metadata.file_type()),
            size: metadata.size(),
            modified: (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or(0)),
            executable: metadata.mode() & 0o111 != 0,
        }
    }

    #[cfg(not(unix))]
    pub(crate) fn of(metadata: &Metadata) -> Facts {
        Facts {
            kind: NameKind::of(metadata.file_type()),
            size: metadata.len(),
            modified: metadata.modified().map_or((0, 0), since_1970),
            executable: false,
        }
    }
}

/// Seconds since 1970, negative before, and the nanoseconds of that second.
#[cfg(any(test, not(unix)))]
pub(crate) fn since_1970(time: std::time::SystemTime) -> (i64, u32) {
    let whole = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(std::time::SystemTime::UNIX_EPOCH) {
        Ok(after) => (whole(after), after.subsec_nanos()),
        Err(error) => {
            let before = error.duration();
            match before.subsec_nanos() {
                0 => (-whole(before), 0),
                nanos => (-whole(before) - 1, 1_000_000_000 - nanos),
            }
        }
    }
}
