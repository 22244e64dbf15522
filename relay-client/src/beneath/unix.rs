//! By descriptors: every Unix.

use super::{Found, FoundKind, MARK, Rights, has_other_names};
use crate::platform::has_no_locks;
use relay_proto::file::Timestamp;
use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, flock, fstat,
    mkdirat, openat, renameat, statat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
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
    pub fn open(path: &Path) -> io::Result<Directory> {
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
        match flock(&self.fd, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if has_no_locks(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether its path still leads to it.
    ///
    /// # Errors
    /// The system's, but that nothing is there.
    pub fn is_still_there(&self) -> io::Result<bool> {
        let open = fstat(&self.fd)?;
        match rustix::fs::stat(&self.path) {
            Ok(named) => Ok((open.st_dev, open.st_ino) == (named.st_dev, named.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A directory in it; made when it is not there and `create` says so.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotADirectory`] for everything else that stands there, a link included.
    pub fn child(&self, name: impl AsRef<OsStr>, create: bool) -> io::Result<Directory> {
        let name = name.as_ref();
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

    /// Makes a file that is not there, marked as an unfinished one. Nobody but its owner may read a `private` one.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::AlreadyExists`] for whatever stands there, a link included.
    pub fn create_new(&self, name: impl AsRef<OsStr>, private: bool) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(if private { 0o600 } else { 0o666 }) | Mode::SVTX;
        Ok(File::from(openat(&self.fd, name.as_ref(), flags, mode)?))
    }

    /// Opens a file that is there, to read and write it.
    ///
    /// # Errors
    /// The system's, and that something else than a regular file stands there.
    pub fn open_file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        regular(File::from(openat(&self.fd, name.as_ref(), flags, Mode::empty())?))
    }

    /// Opens a file to read it.
    ///
    /// # Errors
    /// The system's, and that something else than a regular file stands there.
    pub fn read(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        regular(File::from(openat(&self.fd, name.as_ref(), flags, Mode::empty())?))
    }

    /// What stands under a name.
    ///
    /// # Errors
    /// The system's, but that nothing is there.
    pub fn look(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Found>> {
        match statat(&self.fd, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(found(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What an open file is.
    ///
    /// # Errors
    /// The system's.
    pub fn found(&self, file: &File) -> io::Result<Found> {
        Ok(found(&fstat(file)?))
    }

    /// Whether `name` still stands for the open file.
    ///
    /// # Errors
    /// The system's.
    pub fn is_still(&self, file: &File, name: impl AsRef<OsStr>) -> io::Result<bool> {
        let open = fstat(file)?;
        match statat(&self.fd, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok((open.st_dev, open.st_ino) == (named.st_dev, named.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Renames within the directory; what had the name is replaced.
    ///
    /// # Errors
    /// The system's.
    pub fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(renameat(&self.fd, from.as_ref(), &self.fd, to.as_ref())?)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name.as_ref(), AtFlags::empty())?)
    }

    /// Sets the modification time of a file or a directory in it.
    ///
    /// # Errors
    /// The system's.
    pub fn set_time(&self, name: impl AsRef<OsStr>, time: Timestamp) -> io::Result<()> {
        let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let modified = Timespec { tv_sec: time.seconds(), tv_nsec: time.nanoseconds().into() };
        let times = Timestamps { last_access: omitted, last_modification: modified };
        Ok(utimensat(&self.fd, name.as_ref(), &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Lets those execute a finished file who may read it, or nobody.
    ///
    /// # Errors
    /// The system's.
    pub fn set_executable(&self, name: impl AsRef<OsStr>, executable: bool) -> io::Result<()> {
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

/// Lets those execute an open file who may read it, or nobody. One with several names is left alone: the others are somebody else's.
pub(super) fn set_executable(file: &File, executable: bool) -> io::Result<()> {
    let mode = mode_of(file)?;
    let wanted = marked(mode & !MARK, executable);
    if wanted != mode && has_other_names(file) {
        return Ok(());
    }
    set_mode(file, mode, wanted)
}

/// Gives a finished file its owner, group and permissions: those of the file that it `replaces`, else those that it was made with; and the
/// right to be executed is given or taken where `executable` says so. It keeps the mark of unfinished files. Where it cannot get the
/// group, neither the group that it has nor others may do more than both the old group and others might.
///
/// # Errors
/// The system's.
pub fn settle_mode(file: &File, replaces: Option<Rights>, executable: Option<bool>) -> io::Result<()> {
    let mode = mode_of(file)?;
    let wanted = match replaces {
        Some(rights) if !give_to(file, rights.owner)? => without_group(rights.mode),
        Some(rights) => rights.mode,
        None => mode,
    } & 0o777;
    let wanted = executable.map_or(wanted, |executable| marked(wanted, executable));
    set_mode(file, mode, wanted | mode & MARK)
}

/// Gives a file to its owner and group. Only a privileged process may give it to another owner; returns whether it has the group.
fn give_to(file: &File, owner: Option<(u32, u32)>) -> io::Result<bool> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let Some((user, group)) = owner else { return Ok(true) };
    let now = file.metadata()?;
    if (now.uid(), now.gid()) == (user, group) || fchown(file, Some(user), Some(group)).is_ok() {
        return Ok(true);
    }
    Ok(now.gid() == group || fchown(file, None, Some(group)).is_ok())
}

/// Permissions for a file that has another group than the one that they were meant for.
fn without_group(mode: u32) -> u32 {
    let both = mode & (mode >> 3) & 0o7;
    mode & 0o700 | both << 3 | both
}

/// Takes what group and others may do from an unfinished file.
///
/// # Errors
/// The system's.
pub fn make_private(file: &File) -> io::Result<()> {
    let mode = mode_of(file)?;
    set_mode(file, mode, mode & !0o077)
}

/// Takes the mark of unfinished files from one that has its name.
///
/// # Errors
/// The system's.
pub fn unmark(file: &File) -> io::Result<()> {
    let mode = mode_of(file)?;
    set_mode(file, mode, mode & !MARK)
}

fn mode_of(file: &File) -> io::Result<u32> {
    use std::os::unix::fs::PermissionsExt;
    Ok(file.metadata()?.permissions().mode() & 0o7777)
}

fn marked(mode: u32, executable: bool) -> u32 {
    if executable { mode | (mode & 0o444) >> 2 } else { mode & !0o111 }
}

fn set_mode(file: &File, mode: u32, wanted: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
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
        mode: Some(stat.st_mode as u32 & 0o777),
        owner: Some((stat.st_uid, stat.st_gid)),
        links: stat.st_nlink as u64,
        is_marked: kind == FoundKind::File && stat.st_mode as u32 & MARK != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_may_do_more_for_want_of_the_old_group() {
        for (mode, without) in
            [(0o660, 0o600), (0o664, 0o644), (0o640, 0o600), (0o604, 0o600), (0o755, 0o755), (0o600, 0o600)]
        {
            assert_eq!(without_group(mode), without, "{mode:o}");
        }
    }

    /// Without privileges there may be no other group to give a file to.
    #[test]
    fn the_owner_and_the_group_stay() {
        use std::os::unix::fs::{MetadataExt, chown};
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        fs::write(place.path().join("old"), "old").unwrap();
        if chown(place.path().join("old"), Some(1000), Some(1234)).is_err() {
            return;
        }
        fs::set_permissions(place.path().join("old"), std::os::unix::fs::PermissionsExt::from_mode(0o660))
            .unwrap();
        let rights = directory.look("old").unwrap().unwrap().rights();
        let file = directory.create_new("new", true).unwrap();
        settle_mode(&file, rights, None).unwrap();
        let meta = file.metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (1000, 1234, 0o660));
    }
}
