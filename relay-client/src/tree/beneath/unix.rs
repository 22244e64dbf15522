//! By descriptors: every Unix.

use super::{Found, FoundKind};
use relay_proto::file::Timestamp;
use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, flock, fstat,
    mkdirat, openat, renameat, statat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    fd: OwnedFd,
    device: u64,
}

const STEP: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Directory {
    /// Opens a directory by the path that the user gave, whose links are the user's own.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path, create: bool) -> io::Result<Directory> {
        if create {
            fs::create_dir_all(path)?;
        }
        Directory::of(path.to_owned(), rustix::fs::open(path, STEP, Mode::empty())?)
    }

    fn of(path: PathBuf, fd: OwnedFd) -> io::Result<Directory> {
        let device = device_of(&fstat(&fd)?);
        Ok(Directory { path, fd, device })
    }

    /// How it is called in messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path for those who know only paths. Where the system offers one that leads through the open directory, nobody can exchange a
    /// component of it (proc(5), `/proc/self/fd`).
    #[must_use]
    pub fn path_of(&self, name: &str) -> PathBuf {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            let through = PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()));
            if through.is_dir() {
                return through.join(name);
            }
        }
        self.path.join(name)
    }

    /// Locks it against other clients until it is dropped. False when another one has it.
    ///
    /// # Errors
    /// The system's; a file system without locks is none.
    pub fn lock(&self) -> io::Result<bool> {
        match flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) | Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL | Errno::BADF | Errno::NOLCK) => {
                Ok(true)
            }
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A directory in it; made when it is not there and `create` says so.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotADirectory`] for everything else that stands there, a link included.
    pub fn child(&self, name: &str, create: bool) -> io::Result<Directory> {
        let step = || openat(&self.fd, name, STEP | OFlags::NOFOLLOW, Mode::empty());
        let opened = match step() {
            Err(Errno::NOENT) if create => match mkdirat(&self.fd, name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => step(),
                Err(error) => Err(error),
            },
            opened => opened,
        };
        // Which of the two a link gives depends on the system.
        let opened = opened.map_err(|errno| if errno == Errno::LOOP { Errno::NOTDIR } else { errno });
        Directory::of(self.path.join(name), opened?)
    }

    /// Opens a file to write it, made when it is not there, its content untouched otherwise.
    ///
    /// # Errors
    /// The system's, and that something else than a regular file stands there.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&self.fd, name, flags, Mode::from_raw_mode(0o666))?);
        regular(file)
    }

    /// Opens a file to read it.
    ///
    /// # Errors
    /// The system's, and that something else than a regular file stands there.
    pub fn read(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        regular(File::from(openat(&self.fd, name, flags, Mode::empty())?))
    }

    /// What stands under a name.
    ///
    /// # Errors
    /// The system's, but that nothing is there.
    pub fn look(&self, name: &str) -> io::Result<Option<Found>> {
        match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(found(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether `name` still stands for the open file.
    ///
    /// # Errors
    /// The system's.
    pub fn is_still(&self, file: &File, name: &str) -> io::Result<bool> {
        let open = fstat(file)?;
        match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok((open.st_dev, open.st_ino) == (named.st_dev, named.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Renames within the directory; what had the name is replaced.
    ///
    /// # Errors
    /// The system's.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.fd, from, &self.fd, to)?)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name, AtFlags::empty())?)
    }

    /// Sets the modification time of a file or a directory in it.
    ///
    /// # Errors
    /// The system's.
    pub fn set_time(&self, name: &str, time: Timestamp) -> io::Result<()> {
        let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let modified = Timespec { tv_sec: time.seconds(), tv_nsec: time.nanoseconds().into() };
        let times = Timestamps { last_access: omitted, last_modification: modified };
        Ok(utimensat(&self.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Lets those execute a file who may read it, or nobody.
    ///
    /// # Errors
    /// The system's.
    pub fn set_executable(&self, name: &str, executable: bool) -> io::Result<()> {
        set_executable(&self.read(name)?, executable)
    }

    /// Writes back the whole file system that the directory is on.
    ///
    /// # Errors
    /// The system's, and where there is no such call.
    #[cfg(target_os = "linux")]
    pub fn sync_file_system(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.fd)?)
    }

    /// There is no such call here.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(target_os = "linux"))]
    pub fn sync_file_system(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether syncing this directory's file system writes `file` back, too.
    #[must_use]
    pub fn shares_file_system(&self, file: &File) -> bool {
        cfg!(target_os = "linux") && fstat(file).is_ok_and(|stat| device_of(&stat) == self.device)
    }

    /// Makes the names in it survive a power cut.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }
}

/// Lets those execute an open file who may read it, or nobody.
///
/// # Errors
/// The system's.
pub fn set_executable(file: &File, executable: bool) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    let wanted = if executable { mode | (mode & 0o444) >> 2 } else { mode & !0o111 };
    if wanted == mode { Ok(()) } else { file.set_permissions(fs::Permissions::from_mode(wanted)) }
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

#[allow(
    clippy::unnecessary_cast,
    clippy::cast_sign_loss,
    reason = "the fields' types differ from system to system"
)]
fn device_of(stat: &Stat) -> u64 {
    stat.st_dev as u64
}

#[allow(
    clippy::unnecessary_cast,
    clippy::cast_possible_wrap,
    clippy::useless_conversion,
    reason = "the fields' types differ from system to system"
)]
fn found(stat: &Stat) -> Found {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FoundKind::File,
        FileType::Directory => FoundKind::Directory,
        _ => FoundKind::Other,
    };
    let nanoseconds = u32::try_from(stat.st_mtime_nsec as i64).ok();
    Found {
        kind,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: nanoseconds.and_then(|n| Timestamp::new(stat.st_mtime as i64, n)),
        executable: Some(stat.st_mode & 0o111 != 0),
    }
}
