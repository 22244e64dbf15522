//! By paths, for systems without calls that take an open directory. Every component is looked at before it is used; who can exchange
//! a directory in that moment is not kept out.

#[cfg(not(unix))]
use super::Rights;
use super::{Found, FoundKind, file_time};
use crate::platform;
use filetime::FileTime;
use relay_proto::file::Timestamp;
use std::ffi::OsStr;
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
    pub fn open(path: &Path) -> io::Result<Directory> {
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
    pub fn child(&self, name: impl AsRef<OsStr>, create: bool) -> io::Result<Directory> {
        let path = self.path.join(name.as_ref());
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

    /// Makes a file that is not there. What marks there are depends on the system.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::AlreadyExists`] for whatever stands there, a link included.
    pub fn create_new(&self, name: impl AsRef<OsStr>, private: bool) -> io::Result<File> {
        let mut options = platform::open_no_follow();
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(
            &mut options,
            super::MARK | if private { 0o600 } else { 0o666 },
        );
        let _ = private;
        options.create_new(true).open(self.path.join(name.as_ref()))
    }

    /// Opens a file that is there, to read and write it.
    ///
    /// # Errors
    /// The system's, and that something else than a regular file stands there.
    pub fn open_file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        platform::open_no_follow().open(self.regular_or_none(name)?)
    }

    /// Opens a file to read it.
    ///
    /// # Errors
    /// The system's, and that something else than a regular file stands there.
    pub fn read(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        File::open(self.regular_or_none(name)?)
    }

    fn regular_or_none(&self, name: impl AsRef<OsStr>) -> io::Result<PathBuf> {
        let name = name.as_ref();
        match self.look(name)? {
            Some(found) if found.kind != FoundKind::File => Err(io::Error::other("it is not a regular file")),
            _ => Ok(self.path.join(name)),
        }
    }

    /// What stands under a name.
    ///
    /// # Errors
    /// The system's, but that nothing is there.
    pub fn look(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Found>> {
        match fs::symlink_metadata(self.path.join(name.as_ref())) {
            Ok(meta) => Ok(Some(found(&meta))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether `name` still stands for the open file.
    ///
    /// # Errors
    /// The system's.
    pub fn is_still(&self, file: &File, name: impl AsRef<OsStr>) -> io::Result<bool> {
        platform::is_still(file, &self.path.join(name.as_ref()))
    }

    /// Renames within the directory; what had the name is replaced.
    ///
    /// # Errors
    /// The system's.
    pub fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> io::Result<()> {
        fs::rename(self.path.join(from.as_ref()), self.path.join(to.as_ref()))
    }

    /// Sets the modification time of a file or a directory in it.
    ///
    /// # Errors
    /// The system's.
    pub fn set_time(&self, name: impl AsRef<OsStr>, time: Timestamp) -> io::Result<()> {
        filetime::set_file_mtime(self.path.join(name.as_ref()), file_time(time))
    }

    /// Lets those execute a file who may read it, or nobody, where there is such a mark.
    ///
    /// # Errors
    /// The system's.
    pub fn set_executable(&self, name: impl AsRef<OsStr>, executable: bool) -> io::Result<()> {
        #[cfg(unix)]
        return super::unix::set_executable(&self.read(name)?, executable);
        #[cfg(not(unix))]
        {
            let _ = (name, executable);
            Ok(())
        }
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

    /// What an open file is.
    ///
    /// # Errors
    /// The system's.
    pub fn found(&self, file: &File) -> io::Result<Found> {
        Ok(found(&file.metadata()?))
    }

    /// An open directory can be neither removed nor renamed here.
    ///
    /// # Errors
    /// None.
    pub fn is_still_there(&self) -> io::Result<bool> {
        Ok(true)
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
    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        fs::remove_file(self.path.join(name.as_ref()))
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

/// Gives a finished file its permissions, where there are any.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn settle_mode(_file: &File, _replaces: Option<Rights>, _executable: Option<bool>) -> io::Result<()> {
    Ok(())
}

/// Takes what others may do from an unfinished file, where there are permissions.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn make_private(_file: &File) -> io::Result<()> {
    Ok(())
}

/// Takes the mark of unfinished files from one that has its name, where there is any.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn unmark(_file: &File) -> io::Result<()> {
    Ok(())
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
    let (mode, owner, links) = {
        use std::os::unix::fs::MetadataExt;
        (Some(meta.mode()), Some((meta.uid(), meta.gid())), meta.nlink())
    };
    // Links to files are rare here, and nothing tells of them without another call.
    #[cfg(not(unix))]
    let (mode, owner, links) = (None::<u32>, None, 1);
    Found {
        kind,
        size: meta.len(),
        modified: Timestamp::new(time.unix_seconds(), time.nanoseconds()),
        executable: mode.map(|mode| mode & 0o111 != 0),
        mode: mode.map(|mode| mode & 0o777),
        owner,
        links,
        is_marked: meta.is_file() && mode.is_some_and(|mode| mode & 0o1000 != 0),
    }
}
