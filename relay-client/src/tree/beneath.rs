//! The target directory and what is beneath it: opened one component after the other, never through a link.
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
pub use plain::{Directory, set_executable};
#[cfg(unix)]
pub use unix::{Directory, set_executable};

use relay_proto::file::Timestamp;
use std::fs::File;
use std::io;
use std::sync::Arc;

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

/// Walks to directories beneath one directory and keeps the last way open, for neighbours come one after the other.
#[derive(Debug)]
pub struct Walker {
    root: Arc<Directory>,
    way: Vec<(String, Arc<Directory>)>,
}

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
        for component in components.into_iter().skip(common) {
            let here = self.way.last().map_or(&self.root, |(_, directory)| directory);
            let next = Arc::new(here.child(component, create)?);
            self.way.push((component.to_owned(), next));
        }
        Ok(Arc::clone(self.way.last().map_or(&self.root, |(_, directory)| directory)))
    }
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
    use std::fs;
    use std::path::Path;

    /// The same questions to both ways.
    macro_rules! both_ways {
        ($($name:ident: $check:ident;)*) => {
            mod by_paths { use super::*; type Way = plain::Directory; $(#[test] fn $name() { super::$check(|p| Way::open(p, true)); })* }
            #[cfg(unix)]
            mod by_descriptors { use super::*; type Way = unix::Directory; $(#[test] fn $name() { super::$check(|p| Way::open(p, true)); })* }
        };
    }

    /// What both ways offer, so that a check can be written once.
    trait Way: Sized {
        fn child(&self, name: &str, create: bool) -> io::Result<Self>;
        fn create(&self, name: &str) -> io::Result<File>;
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
                fn create(&self, name: &str) -> io::Result<File> {
                    <$type>::create(self, name)
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
        drop(sub.create("f.part").unwrap());
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
        drop(root.create("d.part").unwrap());
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
        assert!(root.create("g.part").is_err() && root.create("h.part").is_err() && root.read("f").is_err());
        assert_eq!(root.look("f").unwrap().unwrap().kind, FoundKind::Other);
        // A rename replaces the link, not what it leads to.
        drop(root.create("f.part").unwrap());
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
        let file = root.create("f.part").unwrap();
        assert!(root.is_still(&file, "f.part").unwrap());
        if cfg!(unix) {
            root.rename("f.part", "f").unwrap();
            assert!(!root.is_still(&file, "f.part").unwrap());
            drop(root.create("f.part").unwrap());
            assert!(!root.is_still(&file, "f.part").unwrap());
        }
    }

    #[test]
    fn walks_share_their_way() {
        let place = tempfile::tempdir().unwrap();
        let root = Arc::new(Directory::open(place.path(), true).unwrap());
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
    fn what_cannot_be_synced_is_told() {
        let place = tempfile::tempdir().unwrap();
        let root = Directory::open(place.path(), true).unwrap();
        let good = root.create("f.part").unwrap();
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
