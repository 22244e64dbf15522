//! `NAME.part`: where a file grows until it is whole. Nothing here touches the final name but the last rename.

use crate::failure::Failure;
use crate::platform;
use filetime::FileTime;
use relay_proto::file::Timestamp;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A locked `.part` file.
#[derive(Debug)]
pub struct PartFile {
    target: PathBuf,
    path: PathBuf,
    journal: PathBuf,
    file: File,
}

/// `path` with `suffix` behind its name.
#[must_use]
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

impl PartFile {
    /// Opens or creates the part file of `target`, and the directory it is in, and locks it against other clients.
    ///
    /// # Errors
    /// [`Failure::InUse`] when another client has it, [`Failure::Local`] when it cannot be had.
    pub fn open(target: &Path) -> Result<PartFile, Failure> {
        let path = with_suffix(target, ".part");
        let directory = directory_of(target);
        fs::create_dir_all(directory).map_err(|e| Failure::local("create the directory", directory, e))?;
        loop {
            let file = platform::open_no_follow().create(true).open(&path);
            let file = file.map_err(|e| Failure::local("write", &path, e))?;
            let meta = file.metadata().map_err(|e| Failure::local("look at", &path, e))?;
            if !meta.is_file() {
                return Err(Failure::local("write", &path, io::Error::other("it is not a regular file")));
            }
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(Failure::InUse(path)),
                // A file system without locks is no reason not to save anything.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
                Err(TryLockError::Error(error)) => return Err(Failure::local("lock", &path, error)),
            }
            // Between opening and locking, another client may have finished this file and given it its final name.
            if platform::is_still(&file, &path).map_err(|e| Failure::local("look at", &path, e))? {
                let journal = with_suffix(&path, ".journal");
                return Ok(PartFile { target: target.to_owned(), path, journal, file });
            }
        }
    }

    /// Whether an earlier run left a part file for `target`.
    #[must_use]
    pub fn is_there(target: &Path) -> bool {
        with_suffix(target, ".part").symlink_metadata().is_ok()
    }

    /// The part file of `target` over another file.
    #[cfg(test)]
    pub fn over(target: &Path, file: File) -> PartFile {
        let path = with_suffix(target, ".part");
        PartFile { target: target.to_owned(), journal: with_suffix(&path, ".journal"), path, file }
    }

    /// Another handle to the open file.
    ///
    /// # Errors
    /// The system has no more descriptors.
    pub fn try_clone(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Another handle to the open file.
    ///
    /// # Errors
    /// [`Failure::Local`] when the system has no more descriptors.
    pub fn file(&self) -> Result<File, Failure> {
        self.try_clone().map_err(|e| Failure::local("open", &self.path, e))
    }

    /// Where its journal is, or would be.
    #[must_use]
    pub fn journal_path(&self) -> &Path {
        &self.journal
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets what is in it.
    ///
    /// # Errors
    /// [`Failure::Local`].
    pub fn clear(&self) -> Result<(), Failure> {
        self.file.set_len(0).map_err(|e| Failure::local("write", &self.path, e))
    }

    /// Gives back the room that was asked for and not used. Nobody may write meanwhile.
    ///
    /// # Errors
    /// The system's.
    pub fn release(&self) -> io::Result<()> {
        platform::release(&self.file)
    }

    /// Asks for room for `size` bytes. Nobody may write meanwhile.
    ///
    /// # Errors
    /// [`Failure::Local`] when there is none.
    pub fn reserve(&self, size: u64) -> Result<(), Failure> {
        platform::reserve(&self.file, size).map_err(|e| Failure::local("make room for", &self.path, e))
    }

    /// Gives the file its length and time, makes sure that it is on the disk, and then its final name.
    ///
    /// # Errors
    /// [`Failure::Local`]. The part file stays.
    pub fn finish(self, size: u64, modified: Timestamp) -> Result<(), Failure> {
        self.file.set_len(size).map_err(|e| Failure::local("write", &self.path, e))?;
        set_time(&self.file, modified);
        self.file.sync_all().map_err(|e| Failure::local("write", &self.path, e))?;
        fs::rename(&self.path, &self.target)
            .map_err(|e| Failure::local("rename the download to", &self.target, e))?;
        // A journal without its part file says nothing; a failure to remove it harms nobody.
        let _ = fs::remove_file(&self.journal);
        let directory = directory_of(&self.target);
        platform::sync_directory(directory).map_err(|e| Failure::local("sync", directory, e))
    }
}

/// A time that the file system cannot hold does not spoil the file.
fn set_time(file: &File, modified: Timestamp) {
    let _ = filetime::set_file_handle_times(file, None, Some(file_time(modified)));
}

/// A time of the protocol as one of the file system.
#[must_use]
pub fn file_time(time: Timestamp) -> FileTime {
    FileTime::from_unix_time(time.seconds(), time.nanoseconds())
}

/// The directory that `path` is in.
#[must_use]
pub fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_client_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("file");
        let first = PartFile::open(&target).unwrap();
        assert!(matches!(PartFile::open(&target), Err(Failure::InUse(_))));
        drop(first);
        PartFile::open(&target).unwrap();
    }

    #[test]
    fn the_final_name_appears_with_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("new").join("file");
        let part = PartFile::open(&target).unwrap();
        part.clear().unwrap();
        part.reserve(3).unwrap();
        platform::write_all_at(&part.file, b"abc", 0).unwrap();
        assert!(!target.exists());
        part.finish(3, Timestamp::new(-5, 250_000_000).unwrap()).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"abc");
        let time = FileTime::from_last_modification_time(&fs::metadata(&target).unwrap());
        assert_eq!((time.unix_seconds(), time.nanoseconds()), (-5, 250_000_000));
        assert!(!with_suffix(&target, ".part").exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_planted_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (target, outside) = (directory.path().join("file"), directory.path().join("outside"));
        fs::write(&outside, "precious").unwrap();
        std::os::unix::fs::symlink(&outside, with_suffix(&target, ".part")).unwrap();
        assert!(matches!(PartFile::open(&target), Err(Failure::Local { .. })));
        assert_eq!(fs::read(&outside).unwrap(), b"precious");
    }
}
