//! Opening files strictly beneath one directory, whatever links or renames say in the meantime.
//!
//! Three ways, from the best to the most portable; which one serves is decided once, when the directory is opened:
//!
//! 1. `openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_MAGICLINKS`, where the kernel itself keeps the walk inside
//!    (Linux 5.6, openat2(2)).
//! 2. One component after the other, each opened without following links; links are read and walked by hand, and `..`
//!    in them goes back along the descriptors already held, never through the kernel (every Unix).
//! 3. Resolving to the canonical path and comparing that with the directory's (elsewhere). A rename between the
//!    comparison and the opening is not caught there.
//!
//! Names are bytes, relative, `/`-separated and already checked by the caller; this module never trusts that check for
//! staying inside. An absolute link is refused even when it leads inside. The empty name is the directory itself.

#[cfg(any(test, not(unix)))]
mod canonical;
#[cfg(unix)]
mod components;
mod directory;
#[cfg(all(target_os = "linux", not(relay_plain)))]
mod openat2;

#[cfg(any(test, not(unix)))]
pub(crate) use directory::since_1970;
pub(crate) use directory::{Facts, OpenDirectory};

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

/// Whether the system's names are any bytes, and not text.
pub(crate) const NAMES_ARE_BYTES: bool = cfg!(unix);

/// One directory and the way in which names beneath it are resolved.
#[derive(Debug)]
pub(crate) struct RootDirectory {
    method: Method,
    #[cfg_attr(all(unix, not(test)), expect(dead_code, reason = "only the canonical method asks for it"))]
    path: PathBuf,
    #[cfg(unix)]
    directory: std::os::fd::OwnedFd,
}

/// See the module's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    #[cfg(all(target_os = "linux", not(relay_plain)))]
    Openat2,
    #[cfg(unix)]
    Components,
    #[cfg(any(test, not(unix)))]
    Canonical,
}

/// What a name turned out to be.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A regular file, open for reading, with what the system says about the open file.
    File(File, Metadata),
    Directory,
    /// A device, a pipe, a socket: nothing that may be read.
    Other,
}

/// How far a name may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Only on the mount of the document root, where nothing is asked that may never answer.
    OwnMount,
    /// Onto every mount beneath the document root.
    Anywhere,
}

/// What a directory says about one of its names, without following a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NameKind {
    File,
    Directory,
    Link,
    Other,
}

impl RootDirectory {
    /// Opens the directory and chooses the best method that works in it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::open_with(path, None)
    }

    fn open_with(path: &Path, forced: Option<Method>) -> io::Result<Self> {
        let path = std::fs::canonicalize(path)?;
        #[cfg(unix)]
        let directory = components::open_root(&path)?;
        #[cfg(not(unix))]
        if !std::fs::metadata(&path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let method = forced.unwrap_or_else(|| {
            #[cfg(all(target_os = "linux", not(relay_plain)))]
            return if openat2::works(&directory) { Method::Openat2 } else { Method::Components };
            #[cfg(all(unix, any(not(target_os = "linux"), relay_plain)))]
            return Method::Components;
            #[cfg(not(unix))]
            return Method::Canonical;
        });
        Ok(Self {
            method,
            path,
            #[cfg(unix)]
            directory,
        })
    }

    /// Opens what stands under `name`. Never waits for the other end of a pipe or for a device. What leads further than `reach`
    /// is `CrossesDevices`, as is what leads out; that says the best method alone, the others go anywhere.
    #[cfg_attr(
        any(not(target_os = "linux"), relay_plain),
        expect(unused_variables, reason = "only the first method asks")
    )]
    pub(crate) fn open_beneath(&self, name: &[u8], reach: Reach) -> io::Result<Entry> {
        match self.method {
            #[cfg(all(target_os = "linux", not(relay_plain)))]
            Method::Openat2 => openat2::open(&self.directory, name, reach),
            #[cfg(unix)]
            Method::Components => components::open(&self.directory, name),
            #[cfg(any(test, not(unix)))]
            Method::Canonical => canonical::open(&self.path, name),
        }
    }

    /// The same, answered from the system's memory alone; `None` when that is not enough, or cannot be known.
    #[cfg_attr(
        any(not(target_os = "linux"), relay_plain),
        expect(unused_variables, reason = "only the first method asks")
    )]
    pub(crate) fn open_beneath_cached(&self, name: &[u8]) -> Option<io::Result<Entry>> {
        match self.method {
            #[cfg(all(target_os = "linux", not(relay_plain)))]
            Method::Openat2 => openat2::open_cached(&self.directory, name),
            #[cfg(unix)]
            Method::Components => None,
            #[cfg(any(test, not(unix)))]
            Method::Canonical => None,
        }
    }

    /// What the system says about `name`, links followed, without opening it for reading where that is possible.
    #[cfg_attr(
        any(not(target_os = "linux"), relay_plain),
        expect(unused_variables, reason = "only the first method asks")
    )]
    pub(crate) fn metadata_beneath(&self, name: &[u8], reach: Reach) -> io::Result<Metadata> {
        match self.method {
            #[cfg(all(target_os = "linux", not(relay_plain)))]
            Method::Openat2 => openat2::metadata(&self.directory, name, reach),
            #[cfg(unix)]
            Method::Components => components::metadata(&self.directory, name),
            #[cfg(any(test, not(unix)))]
            Method::Canonical => canonical::metadata(&self.path, name),
        }
    }

    /// The same, answered from the system's memory alone; `None` when that is not enough, or cannot be known.
    #[cfg_attr(
        any(not(target_os = "linux"), relay_plain),
        expect(unused_variables, reason = "only the first method asks")
    )]
    pub(crate) fn metadata_beneath_cached(&self, name: &[u8]) -> Option<io::Result<Metadata>> {
        match self.method {
            #[cfg(all(target_os = "linux", not(relay_plain)))]
            Method::Openat2 => openat2::metadata_cached(&self.directory, name),
            #[cfg(unix)]
            Method::Components => None,
            #[cfg(any(test, not(unix)))]
            Method::Canonical => None,
        }
    }

    /// Where a name leaves the document root's own mount: the beginning of it that does, or else the directory that it is in. Never
    /// waits.
    pub(crate) fn way_out(&self, name: &[u8]) -> Vec<u8> {
        let ends = name.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        let last = ends.clone().next_back().unwrap_or(name.len());
        let mut beginnings = ends.chain([name.len()]).filter_map(|end| name.get(..end));
        let leaves = |beginning: &&[u8]| match self.method {
            #[cfg(all(target_os = "linux", not(relay_plain)))]
            Method::Openat2 => openat2::leaves_mount(&self.directory, beginning),
            #[cfg(unix)]
            Method::Components => beginning.len() == last,
            #[cfg(any(test, not(unix)))]
            Method::Canonical => beginning.len() == last,
        };
        beginnings.find(leaves).or(name.get(..last)).unwrap_or_default().to_vec()
    }

    /// Opens a directory for its names. One whose names may be read but not looked up is refused, too.
    pub(crate) fn enter(&self, directory: &[u8]) -> io::Result<OpenDirectory> {
        match self.method {
            #[cfg(all(target_os = "linux", not(relay_plain)))]
            Method::Openat2 => components::names_of(openat2::open_directory(&self.directory, directory)?),
            #[cfg(unix)]
            Method::Components => {
                components::names_of(components::open_directory(&self.directory, directory)?)
            }
            #[cfg(any(test, not(unix)))]
            Method::Canonical => canonical::enter(&self.path, directory),
        }
    }
}

impl NameKind {
    fn of(kind: fs::FileType) -> NameKind {
        match kind {
            kind if kind.is_symlink() => NameKind::Link,
            kind if kind.is_file() => NameKind::File,
            kind if kind.is_dir() => NameKind::Directory,
            _ => NameKind::Other,
        }
    }
}

/// Sorts an open file into what may be read and what may not.
#[cfg(unix)]
fn classify(file: File) -> io::Result<Entry> {
    let metadata = file.metadata()?;
    Ok(match metadata.file_type() {
        kind if kind.is_file() => Entry::File(file, metadata),
        kind if kind.is_dir() => Entry::Directory,
        _ => Entry::Other,
    })
}

#[cfg(test)]
impl RootDirectory {
    /// Every method that can be tried on this machine.
    pub(crate) fn all_methods(path: &Path) -> Vec<Self> {
        let methods = [
            #[cfg(all(target_os = "linux", not(relay_plain)))]
            Method::Openat2,
            #[cfg(unix)]
            Method::Components,
            Method::Canonical,
        ];
        methods.into_iter().map(|method| Self::open_with(path, Some(method)).unwrap()).collect()
    }

    pub(crate) fn method(&self) -> Method {
        self.method
    }
}
