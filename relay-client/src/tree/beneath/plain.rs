//! By paths, for systems without calls that take an open directory. Every component is looked at before it is used; who can exchange
//! a directory in that moment is not kept out.

use super::{Found, FoundKind};
use crate::part_file::file_time;
use crate::platform;
use filetime::FileTime;
use relay_proto::file::Timestamp;
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

/// A directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Opens a directory by the path that the user gave, whose links are the user's own.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path, create: bool) -> io::Result<Directory> {
        if create {
            fs::create_dir_all(path)?;
        }
        if fs::metadata(path)?.is_dir() {
            Ok(Directory { path: path.to_owned() })
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    /// A directory in it; made when it is not there and `create` says so.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotADirectory`] for everything else that stands there, a link included.
    pub fn child(&self, name: &str, create: bool) -> io::Result<Directory> {
        let path = self.path.join(name);
        if create {
            match fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        if fs::symlink_metadata(&path)?.is_dir() {
            Ok(Directory { path })
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    /// Opens a file to write it, made when it is not there, its content untouched otherwise.
    ///
    /// # Errors
    /// The system's, and that something else than a regular file stands there.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let path = self.regular_or_none(name)?;
        platform::open_no_follow().create(true).open(path)
    }

    /// Opens a file to read it.
    ///
    /// # Errors
    /// The system's, and that something else than a regular file stands there.
    pub fn read(&self, name: &str) -> io::Result<File> {
        File::open(self.regular_or_none(name)?)
    }

    fn regular_or_none(&self, name: &str) -> io::Result<PathBuf> {
        match self.look(name)? {
            Some(found) if found.kind != FoundKind::File => Err(io::Error::other("it is not a regular file")),
            _ => Ok(self.path.join(name)),
        }
    }

    /// What stands under a name.
    ///
    /// # Errors
    /// The system's, but that nothing is there.
    pub fn look(&self, name: &str) -> io::Result<Option<Found>> {
        match fs::symlink_metadata(self.path.join(name)) {
            Ok(meta) => Ok(Some(found(&meta))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether `name` still stands for the open file.
    ///
    /// # Errors
    /// The system's.
    pub fn is_still(&self, file: &File, name: &str) -> io::Result<bool> {
        platform::is_still(file, &self.path.join(name))
    }

    /// Renames within the directory; what had the name is replaced.
    ///
    /// # Errors
    /// The system's.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    /// Sets the modification time of a file or a directory in it.
    ///
    /// # Errors
    /// The system's.
    pub fn set_time(&self, name: &str, time: Timestamp) -> io::Result<()> {
        filetime::set_file_mtime(self.path.join(name), file_time(time))
    }

    /// Lets those execute a file who may read it, or nobody, where there is such a mark.
    ///
    /// # Errors
    /// The system's.
    pub fn set_executable(&self, name: &str, executable: bool) -> io::Result<()> {
        set_executable(&self.read(name)?, executable)
    }
}

/// What only the program asks for; tests have the other way's.
#[cfg(not(unix))]
impl Directory {
    /// How it is called in messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path for those who know only paths.
    #[must_use]
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Locks nothing: directories have no locks here, and part files have their own.
    ///
    /// # Errors
    /// None.
    pub fn lock(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    /// There is no such call here.
    ///
    /// # Errors
    /// Always.
    pub fn sync_file_system(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never.
    #[must_use]
    pub fn shares_file_system(&self, _file: &File) -> bool {
        false
    }

    /// Directories cannot be synced here.
    ///
    /// # Errors
    /// None.
    pub fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets those execute an open file who may read it, or nobody, where there is such a mark.
///
/// # Errors
/// The system's.
pub fn set_executable(file: &File, executable: bool) -> io::Result<()> {
    #[cfg(unix)]
    return super::unix::set_executable(file, executable);
    #[cfg(not(unix))]
    {
        let _ = (file, executable);
        Ok(())
    }
}

fn found(meta: &Metadata) -> Found {
    let kind = if meta.is_file() {
        FoundKind::File
    } else if meta.is_dir() {
        FoundKind::Directory
    } else {
        FoundKind::Other
    };
    let time = FileTime::from_last_modification_time(meta);
    #[cfg(unix)]
    let executable = Some(std::os::unix::fs::MetadataExt::mode(meta) & 0o111 != 0);
    #[cfg(not(unix))]
    let executable = None;
    Found {
        kind,
        size: meta.len(),
        modified: Timestamp::new(time.unix_seconds(), time.nanoseconds()),
        executable,
    }
}
