//! Open directories and what is in them: a target directory and what is beneath it is opened one component after the other, never
//! through a link.
//!
//! A name that reaches this module has one component and was checked (`names`). What stands under it may still be a symbolic
//! link that somebody planted; so on Unix everything is done by a descriptor of the directory that holds the name, with
//! `O_NOFOLLOW` (open(2)), and a rename elsewhere cannot move the work out of the tree. Where there are no such calls (`plain`),
//! every component is looked at before it is used, which a race could still outwit; tests run both.

#[cfg(any(test, not(unix)))]
mod plain;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
pub use plain::{Directory, make_private, settle_mode, unmark};
#[cfg(unix)]
pub use unix::{Directory, make_private, settle_mode, unmark};

use crate::platform::sync_directory;
use filetime::FileTime;
use relay_proto::file::Timestamp;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The permission bit that a file of this program carries while it is unfinished: the sticky bit, which means nothing on a regular file
/// (inode(7)), costs nothing to set, and is not found on files of anybody else.
#[cfg(any(test, unix))]
pub const MARK: u32 = 0o1000;

/// What stands under a name. Links are not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub kind: FoundKind,
    /// Bytes.
    pub size: u64,
    /// When it was modified; none when the protocol cannot say it.
    pub modified: Option<Timestamp>,
    /// Whether anybody may execute it. None where the system has no such mark.
    pub executable: Option<bool>,
    /// Who may do what with it, without the special bits. None where the system has no such permissions.
    pub mode: Option<u32>,
    /// Whose it is: the numbers of a user and a group. None where the system has no such numbers.
    pub owner: Option<(u32, u32)>,
    /// How many names it has.
    pub links: u64,
    /// Whether it carries the mark of this program's unfinished files.
    pub is_marked: bool,
}

/// Whose a file is, and who may do what with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// The permissions, without the special bits.
    pub mode: u32,
    /// The numbers of its user and its group, where there are such.
    pub owner: Option<(u32, u32)>,
}

impl Found {
    /// Whose it is, and who may do what with it. None where the system has no permissions.
    #[must_use]
    pub fn rights(&self) -> Option<Rights> {
        self.mode.map(|mode| Rights { mode, owner: self.owner })
    }
}

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A link, a device, a pipe, a socket.
    Other,
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

/// Makes a directory and those above it that are not there, each of which survives a power cut from then on. Returns those that were
/// made, the outermost first.
///
/// # Errors
/// The system's. What was made is gone again.
pub fn make_directories(path: &Path) -> io::Result<Vec<PathBuf>> {
    let is_missing = |place: &&Path| !place.as_os_str().is_empty() && !place.is_dir();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    let mut made = Vec::new();
    for place in missing.into_iter().rev() {
        let created = match fs::create_dir(place) {
            // Somebody else was faster, or the path leads back (`new/..`).
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && place.is_dir() => continue,
            Err(error) => Err(error),
            Ok(()) => {
                made.push(place.to_owned());
                sync_directory(directory_of(place))
            }
        };
        if let Err(error) = created {
            unmake_directories(&made);
            return Err(error);
        }
    }
    Ok(made)
}

/// Removes directories that were made, the innermost first, as far as nothing is in them.
pub fn unmake_directories(made: &[PathBuf]) {
    for place in made.iter().rev() {
        if fs::remove_dir(place).is_err() {
            return;
        }
    }
}

impl Directory {
    /// Gives the open `file`, which should be called `part`, the name `name`; what had it is replaced.
    ///
    /// # Errors
    /// The system's, and that `part` does not stand for this file any more: then `name` is what it was.
    pub fn give_name(&self, file: &File, part: impl AsRef<OsStr>, name: impl AsRef<OsStr>) -> io::Result<()> {
        let (part, name) = (part.as_ref(), name.as_ref());
        let lost = || {
            let part = crate::show::path(Path::new(part));
            io::Error::other(format!(
                "{part} is not the file any more that was written; somebody took it away"
            ))
        };
        if !self.is_still(file, part)? {
            return Err(lost());
        }
        self.rename(part, name)?;
        // Between looking and renaming another one may have been put there.
        if self.is_still(file, name)? { Ok(()) } else { Err(lost()) }
    }
}

/// Walks to directories beneath one directory and keeps the last way open, for neighbours come one after the other.
#[derive(Debug)]
pub struct Walker {
    root: Arc<Directory>,
    /// The components of the last way. The first ones and the last one are open; however deep a tree is, it takes few descriptors.
    way: Vec<(String, Option<Arc<Directory>>)>,
}

/// Directories of a way that are kept open, beside the last one.
const KEPT_OPEN: usize = 16;

impl Walker {
    /// Begins at `root`.
    #[must_use]
    pub fn new(root: Arc<Directory>) -> Walker {
        Walker { root, way: Vec::new() }
    }

    /// The directory `path` beneath the root, components separated by `/`; the empty path is the root. Those that are not there are
    /// made when `create` says so.
    ///
    /// # Errors
    /// The system's; something that is no directory, a link included, is [`io::ErrorKind::NotADirectory`].
    pub fn directory(&mut self, path: &str, create: bool) -> io::Result<Arc<Directory>> {
        let components: Vec<&str> = path.split('/').filter(|component| !component.is_empty()).collect();
        let common =
            self.way.iter().zip(&components).take_while(|((held, _), wanted)| held == *wanted).count();
        self.way.truncate(common);
        // What is not open any more is opened again from the last one that is.
        while self.way.last().is_some_and(|(_, directory)| directory.is_none()) {
            self.way.pop();
        }
        for component in components.into_iter().skip(self.way.len()) {
            let next = Arc::new(self.last().child(component, create)?);
            if self.way.len() > KEPT_OPEN
                && let Some((_, before)) = self.way.last_mut()
            {
                *before = None;
            }
            self.way.push((component.to_owned(), Some(next)));
        }
        Ok(Arc::clone(self.last()))
    }

    fn last(&self) -> &Arc<Directory> {
        self.way.last().and_then(|(_, directory)| directory.as_ref()).unwrap_or(&self.root)
    }
}

/// Whether an open file has several names, so that what is done to it is done to files elsewhere, too.
#[cfg(unix)]
#[must_use]
pub fn has_other_names(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|meta| meta.nlink() > 1)
}

/// Whether an open file has several names: nothing tells that here.
#[cfg(not(unix))]
#[must_use]
pub fn has_other_names(_file: &File) -> bool {
    false
}

/// A path's directory and its last component.
#[must_use]
pub fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Makes sure that files that were just written are on the disk: with one call for all of them where the system has one, for a
/// sync of each of thousands of small files would take longer than everything else. Returns which of them are not, and why.
///
/// `syncfs` (syncfs(2)) writes back a whole file system, and since Linux 5.8 fails when any of it could not be written; then, and for
/// files on another file system, each file is asked.
pub fn sync_all(files: &[&File], place: &Directory) -> Vec<(usize, io::Error)> {
    let alone: Vec<usize> = if place.sync_file_system().is_ok() {
        (0..files.len())
            .filter(|at| files.get(*at).is_none_or(|file| !place.shares_file_system(file)))
            .collect()
    } else {
        (0..files.len()).collect()
    };
    let sync = |at: usize| Some((at, files.get(at)?.sync_all().err()?));
    alone.into_iter().filter_map(sync).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same questions to both ways.
    macro_rules! both_ways {
        ($($name:ident: $check:ident;)*) => {
            mod by_paths { use super::*; type Way = plain::Directory; $(#[test] fn $name() { super::$check(|p| { make_directories(p)?; Way::open(p) }); })* }
            #[cfg(unix)]
            mod by_descriptors { use super::*; type Way = unix::Directory; $(#[test] fn $name() { super::$check(|p| { make_directories(p)?; Way::open(p) }); })* }
        };
    }

    /// What both ways offer, so that a check can be written once.
    trait Way: Sized {
        fn child(&self, name: &str, create: bool) -> io::Result<Self>;
        fn create_new(&self, name: &str, private: bool) -> io::Result<File>;
        fn open_file(&self, name: &str) -> io::Result<File>;
        fn look(&self, name: &str) -> io::Result<Option<Found>>;
        fn read(&self, name: &str) -> io::Result<File>;
        fn rename(&self, from: &str, to: &str) -> io::Result<()>;
        fn set_time(&self, name: &str, time: Timestamp) -> io::Result<()>;
        fn set_executable(&self, name: &str, executable: bool) -> io::Result<()>;
        fn is_still(&self, file: &File, name: &str) -> io::Result<bool>;
    }

    macro_rules! way {
        ($type:ty) => {
            impl Way for $type {
                fn child(&self, name: &str, create: bool) -> io::Result<Self> {
                    <$type>::child(self, name, create)
                }
                fn create_new(&self, name: &str, private: bool) -> io::Result<File> {
                    <$type>::create_new(self, name, private)
                }
                fn open_file(&self, name: &str) -> io::Result<File> {
                    <$type>::open_file(self, name)
                }
                fn look(&self, name: &str) -> io::Result<Option<Found>> {
                    <$type>::look(self, name)
                }
                fn read(&self, name: &str) -> io::Result<File> {
                    <$type>::read(self, name)
                }
                fn rename(&self, from: &str, to: &str) -> io::Result<()> {
                    <$type>::rename(self, from, to)
                }
                fn set_time(&self, name: &str, time: Timestamp) -> io::Result<()> {
                    <$type>::set_time(self, name, time)
                }
                fn set_executable(&self, name: &str, executable: bool) -> io::Result<()> {
                    <$type>::set_executable(self, name, executable)
                }
                fn is_still(&self, file: &File, name: &str) -> io::Result<bool> {
                    <$type>::is_still(self, file, name)
                }
            }
        };
    }
    way!(plain::Directory);
    #[cfg(unix)]
    way!(unix::Directory);

    both_ways! {
        makes_and_finds: check_makes_and_finds;
        a_file_in_the_way_of_a_directory: check_in_the_way;
        links_are_not_followed: check_links;
        a_name_that_was_taken: check_taken;
    }

    fn check_makes_and_finds<W: Way>(open: impl Fn(&Path) -> io::Result<W>) {
        let place = tempfile::tempdir().unwrap();
        let root = open(&place.path().join("new/target")).unwrap();
        assert_eq!(root.child("sub", false).err().map(|e| e.kind()), Some(io::ErrorKind::NotFound));
        let sub = root.child("sub", true).unwrap();
        assert_eq!(sub.look("f").unwrap(), None);
        let time = Timestamp::new(-7, 250_000_000).unwrap();
        fs::write(place.path().join("new/target/sub/f"), "abc").unwrap();
        drop(sub.create_new("f.part", true).unwrap());
        assert_eq!(
            sub.create_new("f.part", true).err().map(|e| e.kind()),
            Some(io::ErrorKind::AlreadyExists)
        );
        let found = sub.look("f.part").unwrap().unwrap();
        assert_eq!((found.is_marked, found.links, found.mode), (cfg!(unix), 1, cfg!(unix).then_some(0o600)));
        sub.rename("f.part", "f").unwrap();
        assert!(sub.read("f").unwrap().metadata().unwrap().is_file());
        sub.set_time("f", time).unwrap();
        sub.set_executable("f", true).unwrap();
        let found = sub.look("f").unwrap().unwrap();
        assert_eq!((found.kind, found.size, found.modified), (FoundKind::File, 0, Some(time)));
        assert_eq!(found.executable, cfg!(unix).then_some(true));
        sub.set_executable("f", false).unwrap();
        assert_eq!(sub.look("f").unwrap().unwrap().executable, cfg!(unix).then_some(false));
        assert_eq!(root.look("sub").unwrap().unwrap().kind, FoundKind::Directory);
        root.set_time("sub", time).unwrap();
        assert_eq!(root.look("sub").unwrap().unwrap().modified, Some(time));
    }

    fn check_in_the_way<W: Way>(open: impl Fn(&Path) -> io::Result<W>) {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("f"), "").unwrap();
        let root = open(place.path()).unwrap();
        for create in [false, true] {
            assert_eq!(root.child("f", create).err().map(|e| e.kind()), Some(io::ErrorKind::NotADirectory));
        }
        fs::create_dir(place.path().join("d")).unwrap();
        drop(root.create_new("d.part", false).unwrap());
        assert!(root.rename("d.part", "d").is_err());
        assert!(open(&place.path().join("f")).is_err());
    }

    #[cfg(unix)]
    fn check_links<W: Way>(open: impl Fn(&Path) -> io::Result<W>) {
        use std::os::unix::fs::symlink;
        let place = tempfile::tempdir().unwrap();
        let (target, outside) = (place.path().join("target"), place.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "p").unwrap();
        let root = open(&target).unwrap();
        symlink(&outside, target.join("d")).unwrap();
        symlink(outside.join("precious"), target.join("f")).unwrap();
        symlink(outside.join("precious"), target.join("g.part")).unwrap();
        symlink(outside.join("nothing"), target.join("h.part")).unwrap();
        for create in [false, true] {
            assert_eq!(root.child("d", create).err().map(|e| e.kind()), Some(io::ErrorKind::NotADirectory));
        }
        for name in ["g.part", "h.part", "f"] {
            assert!(root.create_new(name, false).is_err() && root.open_file(name).is_err(), "{name}");
        }
        assert!(root.read("f").is_err());
        assert_eq!(root.look("f").unwrap().unwrap().kind, FoundKind::Other);
        // A rename replaces the link, not what it leads to.
        drop(root.create_new("f.part", false).unwrap());
        root.rename("f.part", "f").unwrap();
        assert_eq!(root.look("f").unwrap().unwrap().kind, FoundKind::File);
        assert_eq!(fs::read(outside.join("precious")).unwrap(), b"p");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[cfg(not(unix))]
    fn check_links<W: Way>(_open: impl Fn(&Path) -> io::Result<W>) {}

    fn check_taken<W: Way>(open: impl Fn(&Path) -> io::Result<W>) {
        let place = tempfile::tempdir().unwrap();
        let root = open(place.path()).unwrap();
        let file = root.create_new("f.part", false).unwrap();
        assert!(root.is_still(&file, "f.part").unwrap());
        if cfg!(unix) {
            root.rename("f.part", "f").unwrap();
            assert!(!root.is_still(&file, "f.part").unwrap());
            drop(root.create_new("f.part", false).unwrap());
            assert!(!root.is_still(&file, "f.part").unwrap());
        }
    }

    #[test]
    fn walks_share_their_way() {
        let place = tempfile::tempdir().unwrap();
        let root = Arc::new(Directory::open(place.path()).unwrap());
        let mut walker = Walker::new(Arc::clone(&root));
        assert!(Arc::ptr_eq(&walker.directory("", false).unwrap(), &root));
        let deep = walker.directory("a/b/c", true).unwrap();
        assert!(Arc::ptr_eq(&walker.directory("a/b/c", false).unwrap(), &deep));
        assert!(place.path().join("a/b/c").is_dir());
        assert!(walker.directory("a/x", false).is_err());
        walker.directory("a/b/d", true).unwrap();
        assert!(place.path().join("a/b/d").is_dir());
        assert_eq!(split("a/b"), ("a", "b"));
        assert_eq!(split("b"), ("", "b"));
    }

    #[test]
    fn a_deep_way_takes_few_descriptors_and_is_found_again() {
        let place = tempfile::tempdir().unwrap();
        let root = Arc::new(Directory::open(place.path()).unwrap());
        let mut walker = Walker::new(Arc::clone(&root));
        // Longer than any path may be.
        let names: Vec<String> = (0..40).map(|level| format!("{level:0>200}")).collect();
        let path = |levels: usize| names[..levels].join("/");
        drop(walker.directory(&path(40), true).unwrap().create_new("deepest", false).unwrap());
        let open = walker.way.iter().filter(|(_, directory)| directory.is_some()).count();
        assert!(open <= KEPT_OPEN + 2, "{open}");
        drop(walker.directory(&path(30), false).unwrap().create_new("deep", false).unwrap());
        walker.directory(&path(2), false).unwrap();
        let mut another = Walker::new(root);
        assert!(another.directory(&path(40), false).unwrap().look("deepest").unwrap().is_some());
        assert!(another.directory(&path(30), false).unwrap().look("deep").unwrap().is_some());
    }

    /// As a run may, that failed and removes the directory which it had made.
    #[cfg(unix)]
    #[test]
    fn a_directory_that_was_removed_and_made_again_is_another_one() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("target");
        fs::create_dir(&path).unwrap();
        let directory = Directory::open(&path).unwrap();
        assert!(directory.lock().unwrap() && directory.is_still_there().unwrap());
        fs::remove_dir(&path).unwrap();
        assert!(!directory.is_still_there().unwrap());
        fs::create_dir(&path).unwrap();
        assert!(!directory.is_still_there().unwrap());
    }

    #[test]
    fn directories_are_made_and_unmade() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        let made = make_directories(&path("a/b/c")).unwrap();
        assert_eq!(made, [path("a"), path("a/b"), path("a/b/c")]);
        assert_eq!(make_directories(&path("a/b/../d")).unwrap(), [path("a/b/../d")]);
        unmake_directories(&made);
        assert!(!path("a/b").exists() && path("a/d").is_dir());
        fs::write(path("file"), "").unwrap();
        assert!(make_directories(&path("file/x")).is_err());
        assert!(path("new").symlink_metadata().is_err());
    }

    #[test]
    fn what_cannot_be_synced_is_told() {
        let place = tempfile::tempdir().unwrap();
        let root = Directory::open(place.path()).unwrap();
        let good = root.create_new("f.part", false).unwrap();
        assert!(sync_all(&[&good, &good], &root).is_empty());
        #[cfg(unix)]
        {
            // A device that takes no sync, on another file system than the directory.
            let null = fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
            let lost: Vec<usize> = sync_all(&[&good, &null], &root).into_iter().map(|(at, _)| at).collect();
            assert_eq!(lost, [1]);
        }
    }
}
