//! `NAME.part`: where a file grows until it is whole. Nothing here touches the final name but the last rename.
//!
//! Everything is done in the open directory that both names are in, and the file is known by what it is, not by its name: one that was
//! taken away or exchanged meanwhile is never renamed.

use crate::beneath::{
    Directory, Found, FoundKind, directory_of, file_time, make_directories, settle_mode, unmake_directories,
    unmark,
};
use crate::failure::Failure;
use crate::platform;
use crate::unfinished::{Claim, Names, Unclaimed, Wish, claim};
use relay_proto::file::Timestamp;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A `.part` file of this run alone.
#[derive(Debug)]
pub struct PartFile {
    target: PathBuf,
    name: OsString,
    directory: Arc<Directory>,
    names: Names,
    path: PathBuf,
    journal: PathBuf,
    file: File,
    is_locked: bool,
    /// The directories that were made for it, the outermost first.
    made: Vec<PathBuf>,
}

impl PartFile {
    /// Opens or creates the part file of `target`, and the directory it is in, and locks it against other clients.
    ///
    /// # Errors
    /// [`Failure::InUse`] when another client has it, [`Failure::Local`] when it cannot be had.
    pub fn open(target: &Path) -> Result<PartFile, Failure> {
        let parent = directory_of(target);
        let made = make_directories(parent).map_err(|e| Failure::local("create the directory", parent, e))?;
        match PartFile::claimed(target, true) {
            Ok(Some(part)) => Ok(PartFile { made, ..part }),
            Ok(None) => Err(Failure::local("write", target, io::ErrorKind::NotFound.into())),
            Err(failure) => {
                unmake_directories(&made);
                Err(failure)
            }
        }
    }

    /// The part file that an earlier run left for `target`, locked against other clients.
    ///
    /// # Errors
    /// As [`PartFile::open`].
    pub fn find(target: &Path) -> Result<Option<PartFile>, Failure> {
        if directory_of(target).is_dir() { PartFile::claimed(target, false) } else { Ok(None) }
    }

    fn claimed(target: &Path, create: bool) -> Result<Option<PartFile>, Failure> {
        let (directory, name) = place(target)?;
        let private = replaced(&directory, &name).is_some();
        let wish = Wish { create, private, journal: true };
        match claim(&directory, &name, wish) {
            Ok(claimed) => Ok(claimed.map(|claim| PartFile::of(target, name, directory, claim))),
            Err(Unclaimed::InUse(part)) => Err(Failure::InUse(target.with_file_name(part))),
            Err(Unclaimed::System(part, error)) => {
                Err(Failure::local("write", &target.with_file_name(part), error))
            }
        }
    }

    fn of(target: &Path, name: OsString, directory: Directory, claim: Claim) -> PartFile {
        let Claim { file, names, is_locked, .. } = claim;
        PartFile {
            target: target.to_owned(),
            name,
            directory: Arc::new(directory),
            path: target.with_file_name(&names.part),
            journal: target.with_file_name(&names.journal),
            names,
            file,
            is_locked,
            made: Vec::new(),
        }
    }

    /// The part file of `target` over another file.
    #[cfg(test)]
    pub fn over(target: &Path, file: File) -> PartFile {
        let (directory, name) = place(target).unwrap();
        let [names, _] = Names::of(&name);
        PartFile::of(target, name, directory, Claim { file, names, was_there: false, is_locked: true })
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

    /// Where its journal is, or would be; for messages.
    #[must_use]
    pub fn journal_path(&self) -> &Path {
        &self.journal
    }

    /// Where it is; for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that it is in.
    #[must_use]
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// What it and its journal are called there.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Forgets what is in it.
    ///
    /// # Errors
    /// [`Failure::Local`].
    pub fn clear(&self) -> Result<(), Failure> {
        self.file.set_len(0).map_err(|e| Failure::local("write", &self.path, e))
    }

    /// Whether a later run finds it. Without locks none does, for it could not tell it from one that is being written.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.is_locked
    }

    /// Gives back the room that was asked for and not used, and leaves nothing behind when nothing came, or nobody could go on with it.
    /// Nobody may write meanwhile.
    ///
    /// # Errors
    /// The system's.
    pub fn release(&self) -> io::Result<()> {
        if !self.is_kept() {
            self.names.remove_journals(&self.directory);
        } else if self.file.metadata()?.len() > 0 {
            return platform::release(&self.file);
        }
        if self.directory.look(&self.names.journal)?.is_none()
            && self.directory.is_still(&self.file, &self.names.part)?
        {
            self.directory.remove(&self.names.part)?;
            unmake_directories(&self.made);
        }
        Ok(())
    }

    /// Asks for room for `size` bytes. Nobody may write meanwhile.
    ///
    /// # Errors
    /// [`Failure::Local`] when there is none.
    pub fn reserve(&self, size: u64) -> Result<(), Failure> {
        platform::reserve(&self.file, size).map_err(|e| Failure::local("make room for", &self.path, e))
    }

    /// Gives the file its length, permissions and time, makes sure that it is on the disk, and then its final name. It keeps the
    /// permissions of a file that it replaces, and may be executed when that one or the origin's may. Returns whether it replaced one.
    ///
    /// # Errors
    /// [`Failure::Local`]. The part file stays, unless the directory is no longer where it was: then the file has its name there.
    pub fn finish(self, size: u64, modified: Timestamp, executable: bool) -> Result<bool, Failure> {
        self.file.set_len(size).map_err(|e| Failure::local("write", &self.path, e))?;
        let replaced = replaced(&self.directory, &self.name);
        // Permissions that the file system cannot hold do not spoil the file.
        let _ =
            settle_mode(&self.file, replaced.and_then(|found| found.rights()), executable.then_some(true));
        set_time(&self.file, modified);
        self.file.sync_all().map_err(|e| Failure::local("write", &self.path, e))?;
        self.directory
            .give_name(&self.file, &self.names.part, &self.name)
            .map_err(|e| Failure::local("rename the download to", &self.target, e))?;
        let _ = unmark(&self.file);
        self.names.remove_journals(&self.directory);
        let parent = directory_of(&self.target);
        self.directory.sync().map_err(|e| Failure::local("sync", parent, e))?;
        if !self.directory.is_still_there().map_err(|e| Failure::local("look at", parent, e))? {
            let moved = "its directory was moved or removed meanwhile; the whole file is in that directory, if it still is anywhere";
            return Err(Failure::local("find", &self.target, io::Error::other(moved)));
        }
        Ok(replaced.is_some())
    }
}

/// Removes what a run left of `name` that ended between giving the file its name and clearing up: journals, and the mark.
pub fn sweep(directory: &Directory, name: &OsStr) {
    if directory.look(name).is_ok_and(|found| found.is_some_and(|found| found.is_marked)) {
        let _ = directory.read(name).and_then(|file| unmark(&file));
    }
    for names in Names::of(name) {
        if directory.look(&names.part).is_ok_and(|found| found.is_none()) {
            names.remove_journals(directory);
        }
    }
}

/// The most links that lead one to the next (Linux's limit, path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Where a file goes that is saved under `path`: where a symbolic link of this name leads to, whether something is there or not. So the
/// link stays, and what it leads to is replaced whole.
///
/// # Errors
/// That the links lead nowhere, for people.
pub fn followed(mut path: PathBuf) -> Result<PathBuf, String> {
    for _ in 0..MAX_LINKS {
        let Ok(leads_to) = path.read_link() else { return Ok(path) };
        path = directory_of(&path).join(leads_to);
    }
    Err(format!("the symbolic link {} leads in a circle", crate::show::path(&path)))
}

/// The directory that `target` is in, open, and its name there.
///
/// # Errors
/// [`Failure::Local`].
pub fn place(target: &Path) -> Result<(Directory, OsString), Failure> {
    let parent = directory_of(target);
    let no_name = || Failure::local("write", target, io::Error::other("it names no file"));
    let name = target.file_name().map(OsStr::to_owned).ok_or_else(no_name)?;
    let directory = Directory::open(parent).map_err(|e| Failure::local("open the directory", parent, e))?;
    Ok((directory, name))
}

/// The file that has the final name now.
fn replaced(directory: &Directory, name: &OsStr) -> Option<Found> {
    directory.look(name).ok().flatten().filter(|found| found.kind == FoundKind::File)
}

/// A time that the file system cannot hold does not spoil the file.
fn set_time(file: &File, modified: Timestamp) {
    let _ = filetime::set_file_handle_times(file, None, Some(file_time(modified)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use filetime::FileTime;
    use std::fs;

    const TIME: (i64, u32) = (-5, 250_000_000);

    fn finish(part: PartFile, executable: bool) -> Result<bool, Failure> {
        part.clear().unwrap();
        part.reserve(3).unwrap();
        platform::write_all_at(&part.file, b"abc", 0).unwrap();
        part.finish(3, Timestamp::new(TIME.0, TIME.1).unwrap(), executable)
    }

    fn names(place: &Path) -> Vec<OsString> {
        let mut names: Vec<OsString> =
            fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

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
        assert!(!target.exists());
        finish(part, false).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"abc");
        let time = FileTime::from_last_modification_time(&fs::metadata(&target).unwrap());
        assert_eq!((time.unix_seconds(), time.nanoseconds()), TIME);
        assert_eq!(names(directory_of(&target)), ["file"]);
    }

    #[test]
    fn a_long_name_is_finished_too() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["x".repeat(251), "x".repeat(255), "ü".repeat(127)] {
            let target = directory.path().join(name);
            finish(PartFile::open(&target).unwrap(), false).unwrap();
            assert_eq!(fs::read(&target).unwrap(), b"abc");
        }
        assert_eq!(names(directory.path()).len(), 3);
    }

    #[test]
    fn a_part_that_another_one_took_is_never_renamed() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("file");
        fs::write(&target, "old").unwrap();
        for other in [None, Some("half of it")] {
            let part = PartFile::open(&target).unwrap();
            let path = part.path().to_owned();
            fs::remove_file(&path).unwrap();
            if let Some(other) = other {
                fs::write(&path, other).unwrap();
            }
            let failure = finish(part, false).unwrap_err();
            assert!(failure.to_string().contains("not the file any more"), "{failure}");
            assert_eq!(fs::read(&target).unwrap(), b"old");
            assert_eq!(fs::read(&path).ok(), other.map(|other| other.as_bytes().to_vec()));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_that_was_moved_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let (before, after) = (directory.path().join("before"), directory.path().join("after"));
        let part = PartFile::open(&before.join("file")).unwrap();
        fs::rename(&before, &after).unwrap();
        let failure = finish(part, false).unwrap_err();
        assert!(failure.to_string().contains("was moved or removed"), "{failure}");
        assert_eq!(fs::read(after.join("file")).unwrap(), b"abc");
    }

    #[test]
    fn nothing_stays_of_what_never_came() {
        let directory = tempfile::tempdir().unwrap();
        let part = PartFile::open(&directory.path().join("a/b/file")).unwrap();
        part.release().unwrap();
        assert_eq!(names(directory.path()), [""; 0]);
        let part = PartFile::open(&directory.path().join("a/b/file")).unwrap();
        platform::write_all_at(&part.file, b"abc", 0).unwrap();
        part.release().unwrap();
        assert_eq!(names(&directory.path().join("a/b")), ["file.part"]);
    }

    #[test]
    fn a_journal_without_its_file_is_swept() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("file");
        fs::write(&target, "abc").unwrap();
        let journal = |name: &str| fs::write(directory.path().join(name), "{\"relay_journal\":1").unwrap();
        journal("file.part.journal");
        journal("file.part.journal.new");
        journal("other.part.journal");
        fs::write(directory.path().join("mine.part.journal"), "a diary").unwrap();
        for name in ["file", "mine"] {
            sweep(&Directory::open(directory.path()).unwrap(), name.as_ref());
        }
        assert_eq!(names(directory.path()), ["file", "mine.part.journal", "other.part.journal"]);
    }

    #[cfg(unix)]
    mod unix {
        use super::*;
        use std::os::unix::fs::PermissionsExt;

        fn mode(path: &Path) -> u32 {
            fs::metadata(path).unwrap().permissions().mode() & 0o7777
        }

        #[test]
        fn permissions_stay_and_the_mark_comes_along() {
            let directory = tempfile::tempdir().unwrap();
            let target = directory.path().join("file");
            let plain = {
                fs::write(directory.path().join("probe"), "").unwrap();
                mode(&directory.path().join("probe"))
            };
            for (before, executable, after) in [
                (None, false, plain),
                (None, true, plain | (plain & 0o444) >> 2),
                (Some(0o600), false, 0o600),
                (Some(0o600), true, 0o700),
                (Some(0o755), false, 0o755),
                (Some(0o440), false, 0o440),
            ] {
                let _ = fs::remove_file(&target);
                if let Some(before) = before {
                    fs::write(&target, "old").unwrap();
                    fs::set_permissions(&target, fs::Permissions::from_mode(before)).unwrap();
                }
                let part = PartFile::open(&target).unwrap();
                assert!(before.is_none() || mode(part.path()) & 0o077 == 0, "a secret lies open");
                assert_eq!(finish(part, executable).unwrap(), before.is_some());
                assert_eq!(mode(&target), after, "{before:?} {executable}");
            }
        }

        #[test]
        fn a_planted_link_is_not_followed() {
            let directory = tempfile::tempdir().unwrap();
            let (target, outside) = (directory.path().join("file"), directory.path().join("outside"));
            fs::write(&outside, "precious").unwrap();
            std::os::unix::fs::symlink(&outside, directory.path().join("file.part")).unwrap();
            finish(PartFile::open(&target).unwrap(), false).unwrap();
            assert_eq!(fs::read(&target).unwrap(), b"abc");
            assert_eq!(fs::read(&outside).unwrap(), b"precious");
        }
    }
}
