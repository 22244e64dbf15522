//! What to do about a page of the listing: which entries are wanted, which are here already, which cannot be saved. Directories are
//! made on the way. Waits for the disk; runs in the blocking pool.

use super::names::{Cases, SafePath};
use super::select::Selection;
use crate::beneath::{Directory, Found, FoundKind, Rights, Walker, file_time, split};
use crate::failure::copy_of;
use crate::part_file::sweep;
use crate::unfinished::{Wish, claim};
use relay_proto::chunk::CHUNK_LEN;
use relay_proto::file::{Entry, EntryKind, Page, Timestamp};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Files up to so many bytes are fetched one behind the other on one pipe; larger ones get a download of their own. A multiple of
/// a chunk.
pub const SMALL: u64 = 4 * CHUNK_LEN;

/// A listed file that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where it goes.
    pub path: SafePath,
    /// Bytes, as listed.
    pub size: u64,
    /// Modification time, as listed.
    pub modified: Timestamp,
    /// Whether anybody may execute it, as listed.
    pub executable: bool,
    /// Whose the file is that it replaces, and who may do what with it.
    pub replaces: Option<Rights>,
    /// Whether a file of this size is here, whose content is to be compared before anything is fetched.
    pub compare: bool,
    /// How often it was begun and came to nothing.
    pub failed: u32,
}

/// What a page amounts to.
#[derive(Debug, Default)]
pub struct Sifted {
    /// To be fetched, or compared.
    pub items: Vec<Item>,
    /// Here already, by size and time.
    pub same: Vec<Item>,
    /// Directories that are wanted, with their times.
    pub directories: Vec<(SafePath, Timestamp)>,
    /// What cannot be saved.
    pub bad: Vec<Bad>,
}

/// An entry that cannot be saved.
#[derive(Debug, PartialEq, Eq)]
pub struct Bad {
    /// Its path, or its name as listed when that is no path.
    pub name: String,
    /// Why, for people.
    pub why: String,
    /// It is beneath a directory that cannot be had, which was told before.
    pub is_told: bool,
    /// As what it is counted.
    pub kind: BadKind,
}

/// As what an entry is counted that cannot be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadKind {
    /// It cannot be saved here.
    Failed,
    /// The origin cannot read it.
    Unreadable,
    /// It is a link to a directory.
    Linked,
}

/// Sifts one page after the other, in the listing's order.
pub struct Sifter {
    selection: Selection,
    /// Whether content is compared instead of time.
    checksum: bool,
    root: Arc<Directory>,
    walker: Walker,
    cases: Cases,
    /// Whether the file system tells names apart that differ only in case; asked when it matters.
    tells_cases_apart: Option<bool>,
    /// A directory that could not be had, and why; what is beneath it is not tried.
    blocked: Option<(String, String)>,
    /// The last name that was listed.
    last: Option<String>,
}

impl Sifter {
    /// A sifter that begins at the listing's begin.
    #[must_use]
    pub fn new(root: Arc<Directory>, selection: Selection, checksum: bool) -> Sifter {
        let walker = Walker::new(Arc::clone(&root));
        Sifter {
            selection,
            checksum,
            root,
            walker,
            cases: Cases::default(),
            tells_cases_apart: None,
            blocked: None,
            last: None,
        }
    }

    /// What to do about the entries of a page of all that begins with `prefix`.
    pub fn sift(&mut self, page: &Page, prefix: &str) -> Sifted {
        let mut sifted = Sifted::default();
        for entry in &page.entries {
            self.entry(entry, prefix, &mut sifted);
        }
        sifted
    }

    fn entry(&mut self, entry: &Entry, prefix: &str, sifted: &mut Sifted) {
        let path = match SafePath::of(entry.name.as_str(), prefix) {
            Ok(path) => path,
            Err(_) if !self.wants_name(entry, prefix) => return,
            Err(why) => {
                let why = format!("its name cannot be used here: {why}");
                let (name, kind) = (entry.name.to_string(), BadKind::Failed);
                return sifted.bad.push(Bad { name, why, is_told: false, kind });
            }
        };
        let is_told = self.is_blocked(path.as_str());
        let name = path.to_string();
        let mut bad_as = |kind, why: String| sifted.bad.push(Bad { name: name.clone(), why, is_told, kind });
        let mut bad = |why| bad_as(BadKind::Failed, why);
        // In order nothing is listed twice, so no two threads ever write under one name.
        if self.last.as_deref().is_some_and(|last| !is_behind(path.as_str(), last)) {
            return bad("it is listed out of order".to_owned());
        }
        self.last = Some(path.as_str().to_owned());
        if !self.wants(entry.kind, path.as_str()) {
            return;
        }
        if entry.unreadable {
            return bad_as(BadKind::Unreadable, "the origin cannot read this directory".to_owned());
        }
        if entry.linked {
            return bad_as(BadKind::Linked, "it is a link to a directory, which is not followed; fetch it by its own name, or leave it out with --exclude".to_owned());
        }
        if self.cases.collides(&path) && !self.tells_cases_apart() {
            return bad("another name differs from it only in case, and the file system here does not tell them apart".to_owned());
        }
        match entry.kind {
            EntryKind::Directory => match self.directory(path.as_str(), true) {
                Ok(_) => sifted.directories.push((path, entry.modified)),
                Err(why) => bad(why),
            },
            EntryKind::File => {
                let item = Item {
                    path,
                    size: entry.size.bytes(),
                    modified: entry.modified,
                    executable: entry.executable,
                    replaces: None,
                    compare: false,
                    failed: 0,
                };
                match self.file(item) {
                    Ok(Sorted::Same(item)) => sifted.same.push(item),
                    Ok(Sorted::Wanted(item)) => sifted.items.push(item),
                    Err(why) => bad(why),
                }
            }
        }
    }

    fn wants(&self, kind: EntryKind, path: &str) -> bool {
        match kind {
            EntryKind::File => self.selection.wants_file(path),
            EntryKind::Directory => self.selection.wants_directory(path),
        }
    }

    /// Whether an entry is wanted whose name cannot be used here. What lies outside of what was asked for cannot be excluded.
    fn wants_name(&self, entry: &Entry, prefix: &str) -> bool {
        entry.name.as_str().strip_prefix(prefix).is_none_or(|path| self.wants(entry.kind, path))
    }

    /// Looks at what is here under a file's name.
    fn file(&mut self, item: Item) -> Result<Sorted, String> {
        let (parent, name) = split(item.path.as_str());
        let directory = self.directory(parent, true)?;
        let found = directory.look(name).map_err(|error| error.to_string())?;
        Ok(match found {
            Some(Found { kind: FoundKind::Directory, .. }) => {
                return Err("a directory stands here under its name".to_owned());
            }
            Some(
                found @ Found { kind: FoundKind::File, size, modified, executable, links, is_marked, .. },
            ) => {
                let replaces = found.rights();
                let is_otherwise_marked = executable.is_some_and(|here| here != item.executable);
                if size != item.size {
                    Sorted::Wanted(Item { replaces, ..item })
                } else if self.checksum {
                    Sorted::Wanted(Item { replaces, compare: true, ..item })
                } else if is_kept_as(&directory, item.modified, modified) {
                    if is_otherwise_marked && links > 1 {
                        // Its other names are somebody else's, and keep what they have.
                        return Ok(Sorted::Wanted(Item { replaces, ..item }));
                    }
                    if is_marked || is_otherwise_marked {
                        // A mark that cannot be set does not spoil the file.
                        let _ = directory.set_executable(name, item.executable);
                    }
                    if item.size > SMALL {
                        sweep(&directory, name.as_ref());
                    }
                    Sorted::Same(item)
                } else {
                    Sorted::Wanted(Item { replaces, ..item })
                }
            }
            _ => Sorted::Wanted(item),
        })
    }

    /// A directory beneath the target; why not, once it was found out, is not asked again for all that is in it.
    fn directory(&mut self, path: &str, create: bool) -> Result<Arc<Directory>, String> {
        if let Some((_, why)) = self.blocked.as_ref().filter(|_| self.is_blocked(path)) {
            return Err(why.clone());
        }
        self.walker.directory(path, create).map_err(|error| {
            let why = blockade(path, &error);
            self.blocked = Some((path.to_owned(), why.clone()));
            why
        })
    }

    /// Whether a path is that of a directory that could not be had, or beneath it.
    fn is_blocked(&self, path: &str) -> bool {
        self.blocked.as_ref().is_some_and(|(blocked, _)| Path::new(path).starts_with(blocked))
    }

    /// Asks the file system, with a file of its own that is gone again afterwards.
    fn tells_cases_apart(&mut self) -> bool {
        let root = &self.root;
        *self.tells_cases_apart.get_or_insert_with(|| {
            let Some(probe) = Probe::of(root, ".Relay-Case") else { return true };
            let other = probe.name.to_ascii_lowercase();
            !root.is_still(&probe.file, other).unwrap_or(false)
        })
    }
}

/// The coarsest times that a file system in use keeps, in seconds (FAT's).
const COARSEST: u64 = 2;

/// Whether a file that was given the time `wanted` has the time `found`. File systems that keep coarse times are asked how coarse, with
/// a file of its own that is gone again afterwards.
fn is_kept_as(directory: &Directory, wanted: Timestamp, found: Option<Timestamp>) -> bool {
    let Some(found) = found else { return false };
    if found == wanted {
        return true;
    }
    if wanted.seconds().abs_diff(found.seconds()) > COARSEST {
        return false;
    }
    let kept = || {
        let probe = Probe::of(directory, ".Relay-Time")?;
        filetime::set_file_handle_times(&probe.file, None, Some(file_time(wanted))).ok()?;
        directory.found(&probe.file).ok()?.modified
    };
    kept() == Some(found)
}

/// A file for asking the file system something; gone when it is dropped.
struct Probe<'a> {
    directory: &'a Directory,
    file: File,
    name: OsString,
}

impl<'a> Probe<'a> {
    fn of(directory: &'a Directory, name: &str) -> Option<Probe<'a>> {
        let wish = Wish { create: true, private: false, journal: false };
        let claim = claim(directory, name.as_ref(), wish).ok()??;
        Some(Probe { directory, file: claim.file, name: claim.names.part })
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        let _ = self.directory.remove(&self.name);
    }
}

/// The order of a listing: depth first, and within a directory the byte order of names.
pub(crate) fn is_behind(name: &str, other: &str) -> bool {
    name.split('/').gt(other.split('/'))
}

enum Sorted {
    Same(Item),
    Wanted(Item),
}

/// Why nothing can be saved in a directory.
pub fn blockade(path: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotADirectory => {
            format!("something that is no directory, or a symbolic link, stands here as {path} or above it")
        }
        _ => format!("the directory {path} cannot be had here: {}", copy_of(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_proto::file::{RequestedName, Size};
    use std::fs;

    struct Fixture {
        place: tempfile::TempDir,
        sifter: Sifter,
    }

    impl Fixture {
        fn new(checksum: bool) -> Fixture {
            let place = tempfile::tempdir().unwrap();
            let target = place.path().join("target");
            fs::create_dir(&target).unwrap();
            let root = Arc::new(Directory::open(&target).unwrap());
            let selection = Selection::of(&[], &["skipped".to_owned()]).unwrap();
            Fixture { sifter: Sifter::new(root, selection, checksum), place }
        }

        fn sift(&mut self, entries: &[(&str, EntryKind, u64)]) -> Sifted {
            let entries = entries.iter().map(|(name, kind, size)| Entry {
                name: RequestedName::try_from(*name).unwrap(),
                kind: *kind,
                size: Size::try_from(*size).unwrap(),
                modified: Timestamp::new(77, 5).unwrap(),
                executable: false,
                linked: false,
                unreadable: false,
            });
            self.sifter.sift(&Page { entries: entries.collect(), ..Page::default() }, "d/")
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.place.path().join("target").join(name)
        }
    }

    fn paths(items: &[Item]) -> Vec<&str> {
        items.iter().map(|item| item.path.as_str()).collect()
    }

    use EntryKind::{Directory as Dir, File as Regular};

    #[test]
    fn sorts_what_is_listed() {
        let mut fixture = Fixture::new(false);
        fs::create_dir(fixture.path("in-the-way")).unwrap();
        fs::write(fixture.path("file"), "no directory").unwrap();
        for (name, seconds) in [("same", 77), ("other-time", 78)] {
            fs::write(fixture.path(name), "123").unwrap();
            filetime::set_file_mtime(fixture.path(name), filetime::FileTime::from_unix_time(seconds, 5))
                .unwrap();
        }
        let sifted = fixture.sift(&[
            ("d/../out", Regular, 3),
            ("d/../skipped", Regular, 3),
            ("d/empty", Dir, 0),
            ("d/file", Dir, 0),
            ("d/file/beneath/x", Regular, 3),
            ("d/in-the-way", Regular, 3),
            ("d/new/deep/f", Regular, 3),
            ("d/new/deep/f", Regular, 3),
            ("d/new/deep/e", Regular, 3),
            ("d/other-time", Regular, 3),
            ("d/same", Regular, 3),
            ("d/skipped/x", Regular, 3),
            ("elsewhere", Regular, 3),
        ]);
        assert_eq!(paths(&sifted.same), ["same"]);
        assert_eq!(paths(&sifted.items), ["new/deep/f", "other-time"]);
        assert_eq!(sifted.directories.len(), 1);
        assert!(fixture.path("empty").is_dir() && !fixture.path("skipped").exists());
        let bad: Vec<(&str, bool)> = sifted.bad.iter().map(|bad| (bad.name.as_str(), bad.is_told)).collect();
        let expected =
            ["d/../out", "file", "file/beneath/x", "in-the-way", "new/deep/f", "new/deep/e", "elsewhere"];
        assert_eq!(bad, expected.map(|name| (name, name == "file/beneath/x")));
        assert_eq!(fs::read(fixture.path("file")).unwrap(), b"no directory");
    }

    #[cfg(unix)]
    #[test]
    fn other_names_of_a_file_keep_their_mark() {
        use std::os::unix::fs::PermissionsExt;
        let mut fixture = Fixture::new(false);
        fs::write(fixture.path("a"), "123").unwrap();
        fs::set_permissions(fixture.path("a"), fs::Permissions::from_mode(0o755)).unwrap();
        filetime::set_file_mtime(fixture.path("a"), filetime::FileTime::from_unix_time(77, 5)).unwrap();
        let outside = fixture.place.path().join("outside");
        fs::hard_link(fixture.path("a"), &outside).unwrap();
        let sifted = fixture.sift(&[("d/a", Regular, 3)]);
        assert_eq!(paths(&sifted.items), ["a"]);
        assert_eq!(fs::metadata(&outside).unwrap().permissions().mode() & 0o777, 0o755);
        fs::remove_file(&outside).unwrap();
        fixture.sifter.last = None;
        assert_eq!(paths(&fixture.sift(&[("d/a", Regular, 3)]).same), ["a"]);
    }

    #[test]
    fn a_checksum_is_asked_for_what_could_be_the_same() {
        let mut fixture = Fixture::new(true);
        fs::write(fixture.path("a"), "123").unwrap();
        fs::write(fixture.path("b"), "1234").unwrap();
        let sifted = fixture.sift(&[("d/a", Regular, 3), ("d/b", Regular, 3), ("d/c", Regular, 3)]);
        let compare: Vec<bool> = sifted.items.iter().map(|item| item.compare).collect();
        assert_eq!(compare, [true, false, false]);
    }

    #[test]
    fn names_that_the_file_system_does_not_tell_apart() {
        let mut fixture = Fixture::new(false);
        let names = [("d/Makefile", Regular, 1), ("d/makefile", Regular, 1)];
        fixture.sifter.tells_cases_apart = Some(false);
        let sifted = fixture.sift(&names);
        assert_eq!(paths(&sifted.items), ["Makefile"]);
        assert!(sifted.bad[0].why.contains("only in case"), "{:?}", sifted.bad);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_file_system_is_asked_about_cases() {
        let mut fixture = Fixture::new(false);
        let sifted = fixture.sift(&[("d/Makefile", Regular, 1), ("d/makefile", Regular, 1)]);
        assert_eq!(sifted.items.len(), 2);
        assert_eq!(fs::read_dir(fixture.path("")).unwrap().count(), 0);
    }
}
