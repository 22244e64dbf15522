//! Under which names a file is kept until it is whole, and whether what stands there is this program's own.
//!
//! `NAME.part`, and beside it `NAME.part.journal`. Other programs use such names, too, so what is found there is touched only when it is
//! this program's: it carries [`MARK`](crate::beneath::MARK), or a journal beside it says so where neither does, or its name is one that nobody else makes.
//! Otherwise, and for names that the ending would make too long, a name with a hash in it takes its place, which is the same in
//! every run. A file with several links is never written to, whosesoever it is.
//!
//! Runs are kept apart by a lock on the part file. Where the file system has none, nobody can tell an unfinished file that was left from
//! one that is being written: then a run takes none but those that it made itself, and makes them only where nothing is.

use crate::beneath::{Directory, Found, FoundKind, make_private};
use crate::platform::{Lock, try_lock};
use relay_chain::chain::random_bits;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};

/// The longest name of a file, in bytes (`NAME_MAX`; where it counts other units, no name of so many bytes is longer).
const MAX_COMPONENT: usize = 255;
/// What stands behind the name of a file that is not whole.
const PART: &str = ".part";
/// What stands behind the name of its journal.
const JOURNAL: &str = ".part.journal";
/// What stands behind the name of a journal that is being made.
const NEW_JOURNAL: &str = ".part.journal.new";
/// How every journal begins.
const JOURNAL_BEGINS: &[u8] = b"{\"relay_journal\":";
/// Bytes of a long name that its short form keeps.
const KEPT: usize = 180;

/// The names of one unfinished file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The file.
    pub part: OsString,
    /// Its journal.
    pub journal: OsString,
    /// A journal that is being made.
    pub new_journal: OsString,
    /// Nobody else makes such names.
    is_own: bool,
}

impl Names {
    /// The names for a file that will be called `name`: the first ones that are free or this program's are used.
    #[must_use]
    pub fn of(name: &OsStr) -> [Names; 2] {
        let first = if name.len() + NEW_JOURNAL.len() <= MAX_COMPONENT {
            Names::behind(name, false)
        } else {
            Names::behind(&hashed(name, &[0]), true)
        };
        [first, Names::behind(&hashed(name, &[1]), true)]
    }

    /// Names that no other run has, for where there are no locks.
    fn of_this_run(name: &OsStr) -> io::Result<Names> {
        Ok(Names::behind(&hashed(name, &random_bits()?.to_le_bytes()), true))
    }

    fn behind(stem: &OsStr, is_own: bool) -> Names {
        let with = |suffix: &str| {
            let mut name = stem.to_owned();
            name.push(suffix);
            name
        };
        Names { part: with(PART), journal: with(JOURNAL), new_journal: with(NEW_JOURNAL), is_own }
    }

    /// Whether a file under the journal's name, or the new journal's, is this program's; none when there is none.
    ///
    /// # Errors
    /// The system's.
    pub fn owns_journal(&self, directory: &Directory, name: &OsStr) -> io::Result<Option<bool>> {
        // A directory is in no danger: a journal that cannot be written is only told.
        let found = directory.look(name)?.filter(|found| found.kind != FoundKind::Directory);
        let Some(found) = found else { return Ok(None) };
        let is_ours = found.kind == FoundKind::File
            && found.links <= 1
            && (self.is_own || found.is_marked || begins_as_journal(directory, name));
        Ok(Some(is_ours))
    }

    fn owns_part(&self, directory: &Directory, found: &Found) -> io::Result<bool> {
        let is_ours = self.is_own || found.is_marked || self.has_unmarked_journal(directory)?;
        Ok(found.links <= 1 && is_ours)
    }

    /// Whether there is a journal, and the file system keeps no marks: it has not kept the journal's, so the part file has none either.
    fn has_unmarked_journal(&self, directory: &Directory) -> io::Result<bool> {
        let is_marked = directory.look(&self.journal)?.is_some_and(|found| found.is_marked);
        Ok(!is_marked && self.owns_journal(directory, &self.journal)? == Some(true))
    }

    /// Removes the journals, where they are this program's. A failure harms nobody: a journal without its part file says nothing.
    pub fn remove_journals(&self, directory: &Directory) {
        for name in [&self.journal, &self.new_journal] {
            if self.owns_journal(directory, name).is_ok_and(|owned| owned == Some(true)) {
                let _ = directory.remove(name);
            }
        }
    }
}

/// The beginning of a name and a hash of all of it, which `salt` makes another one.
fn hashed(name: &OsStr, salt: &[u8]) -> OsString {
    let text = name.to_string_lossy();
    let mut end = text.len().min(KEPT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(salt).update(name.as_encoded_bytes());
    let hash = hasher.finalize().to_hex();
    let (kept, hash) = (text.get(..end).unwrap_or_default(), hash.get(..16).unwrap_or_default());
    OsString::from(format!("{kept}~{hash}"))
}

fn begins_as_journal(directory: &Directory, name: &OsStr) -> bool {
    let mut begins = [0; JOURNAL_BEGINS.len()];
    let read = directory.read(name).and_then(|mut file| file.read_exact(&mut begins));
    read.is_ok() && begins == *JOURNAL_BEGINS
}

/// Whether a listed name is one that unfinished files have; a file of such a name could take the place of another one that is being written.
#[must_use]
pub fn is_unfinished(name: &str) -> bool {
    let lower = name.to_lowercase();
    [PART, JOURNAL, NEW_JOURNAL].iter().any(|ending| lower.ends_with(ending))
}

/// A file that is not whole yet: open, this program's, and no other run's.
#[derive(Debug)]
pub struct Claim {
    /// The open file.
    pub file: File,
    /// What it and its journal are called.
    pub names: Names,
    /// An earlier run left it.
    pub was_there: bool,
    /// Whether it is locked, so that a later run can go on with it.
    pub is_locked: bool,
}

/// Why no unfinished file can be had.
#[derive(Debug)]
pub enum Unclaimed {
    /// Another run has it.
    InUse(OsString),
    /// The system's error about this name.
    System(OsString, io::Error),
}

/// What is wanted of [`claim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// It is made when it is not there.
    pub create: bool,
    /// Nobody but its owner may read it, for it will replace a file that has its own permissions.
    pub private: bool,
    /// It will have a journal.
    pub journal: bool,
}

/// The unfinished file of what will be called `name`; none when there is none and none is to be made.
///
/// # Errors
/// Why it cannot be had.
pub fn claim(directory: &Directory, name: &OsStr, wish: Wish) -> Result<Option<Claim>, Unclaimed> {
    claim_by(directory, name, wish, try_lock)
}

type Locking = fn(&File) -> io::Result<Lock>;

fn claim_by(
    directory: &Directory,
    name: &OsStr,
    wish: Wish,
    lock: Locking,
) -> Result<Option<Claim>, Unclaimed> {
    let candidates = Names::of(name);
    let last = candidates[1].part.clone();
    let mut has_locks = true;
    for names in candidates {
        let part = names.part.clone();
        match try_claim(directory, names, wish, lock)
            .map_err(|error| Unclaimed::System(part.clone(), error))?
        {
            Tried::Claimed(claim) => return Ok(Some(claim)),
            Tried::InUse => return Err(Unclaimed::InUse(part)),
            Tried::Unlocked => has_locks = false,
            Tried::Nothing => {}
        }
    }
    if wish.create && !has_locks {
        let own = Names::of_this_run(name).and_then(|names| try_claim(directory, names, wish, lock));
        if let Tried::Claimed(claim) = own.map_err(|error| Unclaimed::System(last.clone(), error))? {
            return Ok(Some(claim));
        }
    }
    if wish.create {
        let error = io::Error::other("something that is not this program's stands in its place");
        return Err(Unclaimed::System(last, error));
    }
    Ok(None)
}

enum Tried {
    Claimed(Claim),
    InUse,
    /// It was there, and without locks nobody knows whether another run is writing it.
    Unlocked,
    /// It is not there, or somebody else's.
    Nothing,
}

fn try_claim(directory: &Directory, names: Names, wish: Wish, lock: Locking) -> io::Result<Tried> {
    if wish.journal && names.owns_journal(directory, &names.journal)? == Some(false) {
        return Ok(Tried::Nothing);
    }
    loop {
        let opened = if wish.create { make(directory, &names, wish)? } else { existing(directory, &names)? };
        let (file, was_there) = match opened {
            Opened::Fresh(file) => (file, false),
            Opened::Existing(file) => (file, true),
            Opened::Foreign => return Ok(Tried::Nothing),
            Opened::Absent if wish.create => continue,
            Opened::Absent => return Ok(Tried::Nothing),
        };
        let is_locked = match lock(&file)? {
            Lock::Had => true,
            Lock::Taken => return Ok(Tried::InUse),
            Lock::Unknown if was_there => return Ok(Tried::Unlocked),
            Lock::Unknown => false,
        };
        if wish.private && was_there {
            // What it will replace may have been made private since. Permissions that the file system cannot hold are none.
            let _ = make_private(&file);
        }
        // Between opening and locking, another run may have finished this file and given it its final name.
        if directory.is_still(&file, &names.part)? {
            return Ok(Tried::Claimed(Claim { file, names, was_there, is_locked }));
        }
    }
}

enum Opened {
    Fresh(File),
    Existing(File),
    Foreign,
    Absent,
}

fn make(directory: &Directory, names: &Names, wish: Wish) -> io::Result<Opened> {
    match directory.create_new(&names.part, wish.private) {
        Ok(file) => Ok(Opened::Fresh(file)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => existing(directory, names),
        Err(error) => Err(error),
    }
}

fn existing(directory: &Directory, names: &Names) -> io::Result<Opened> {
    let Some(found) = directory.look(&names.part)? else { return Ok(Opened::Absent) };
    if found.kind != FoundKind::File || !names.owns_part(directory, &found)? {
        return Ok(Opened::Foreign);
    }
    match directory.open_file(&names.part) {
        // What was looked at may have been exchanged meanwhile.
        Ok(file) if names.owns_part(directory, &directory.found(&file)?)? => Ok(Opened::Existing(file)),
        Ok(_) => Ok(Opened::Foreign),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Opened::Absent),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Opened::Foreign),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    const PLAIN: Wish = Wish { create: true, private: false, journal: true };

    fn open(place: &Path) -> Directory {
        Directory::open(place).unwrap()
    }

    fn part(directory: &Directory, name: &str) -> OsString {
        claim(directory, OsStr::new(name), PLAIN).unwrap().unwrap().names.part
    }

    #[test]
    fn names_fit_and_differ() {
        for len in [1, 200, 238, 239, 250, 251, 255] {
            for letter in ["a", "ü", "語"] {
                let name = letter.repeat(len / letter.len());
                let [first, second] = Names::of(OsStr::new(&name));
                for names in [&first, &second] {
                    for one in [&names.part, &names.journal, &names.new_journal] {
                        assert!(one.len() <= MAX_COMPONENT, "{len} {letter}: {}", one.len());
                        assert!(is_unfinished(one.to_str().unwrap()));
                    }
                }
                assert_ne!(first.part, second.part);
                assert_eq!(Names::of(OsStr::new(&name)), [first, second]);
            }
        }
        let long = |last: &str| Names::of(OsStr::new(&format!("{}{last}", "x".repeat(250))));
        assert_ne!(long("a")[0].part, long("b")[0].part);
    }

    #[test]
    fn what_is_its_own_is_found_again() {
        let place = tempfile::tempdir().unwrap();
        let directory = open(place.path());
        assert!(claim(&directory, OsStr::new("f"), Wish { create: false, ..PLAIN }).unwrap().is_none());
        assert_eq!(part(&directory, "f"), "f.part");
        let again = claim(&directory, OsStr::new("f"), Wish { create: false, ..PLAIN }).unwrap().unwrap();
        assert_eq!((again.names.part.to_str(), again.was_there), (Some("f.part"), cfg!(unix)));
        let other = claim(&directory, OsStr::new("f"), PLAIN);
        assert!(matches!(other, Err(Unclaimed::InUse(_))));
    }

    #[test]
    fn without_locks_no_two_runs_share_a_file() {
        let place = tempfile::tempdir().unwrap();
        let directory = open(place.path());
        let take = |create| {
            claim_by(&directory, OsStr::new("f"), Wish { create, ..PLAIN }, |_| Ok(Lock::Unknown)).unwrap()
        };
        assert!(take(false).is_none());
        let mut taken: Vec<Claim> = (0..5).map(|_| take(true).unwrap()).collect();
        assert!(taken.iter().all(|claim| !claim.was_there && !claim.is_locked));
        // Nor is what an ended run left gone on with: nobody knows that it has ended.
        taken.truncate(4);
        assert!(take(false).is_none());
        taken.push(take(true).unwrap());
        let names: std::collections::BTreeSet<_> = taken.iter().map(|claim| &claim.names.part).collect();
        assert_eq!((names.len(), taken.len()), (5, 5));
    }

    #[test]
    fn a_journal_says_whose_a_part_is() {
        let place = tempfile::tempdir().unwrap();
        let directory = open(place.path());
        fs::write(place.path().join("f.part"), "12345").unwrap();
        fs::write(place.path().join("f.part.journal"), "{\"relay_journal\":1,").unwrap();
        assert_eq!(part(&directory, "f"), "f.part");
    }

    /// The journal stayed when its part file was removed, and then somebody else used the name.
    #[cfg(unix)]
    #[test]
    fn a_journal_that_is_marked_does_not_speak_for_an_unmarked_part() {
        let place = tempfile::tempdir().unwrap();
        let directory = open(place.path());
        let [first, second] = Names::of(OsStr::new("f"));
        let mut journal = directory.create_new(&first.journal, false).unwrap();
        io::Write::write_all(&mut journal, b"{\"relay_journal\":1,").unwrap();
        fs::write(place.path().join("f.part"), "precious").unwrap();
        assert_eq!(part(&directory, "f"), second.part);
        assert_eq!(fs::read(place.path().join("f.part")).unwrap(), b"precious");
    }

    #[test]
    fn what_is_somebody_elses_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let directory = open(place.path());
        let at = |name: &str| place.path().join(name);
        fs::write(at("report.part"), "precious").unwrap();
        fs::write(at("other.part.journal"), "a diary").unwrap();
        fs::create_dir(at("dir.part")).unwrap();
        for name in ["report", "other", "dir"] {
            let taken = part(&directory, name);
            assert_eq!(taken, Names::of(OsStr::new(name))[1].part, "{name}");
            // And found there again.
            assert_eq!(part(&directory, name), taken, "{name}");
        }
        assert_eq!(fs::read(at("report.part")).unwrap(), b"precious");
        Names::of(OsStr::new("other"))[0].remove_journals(&directory);
        assert_eq!(fs::read(at("other.part.journal")).unwrap(), b"a diary");
    }

    #[cfg(unix)]
    #[test]
    fn what_was_left_open_to_all_is_made_private() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let directory = open(place.path());
        assert_eq!(part(&directory, "f"), "f.part");
        fs::set_permissions(place.path().join("f.part"), fs::Permissions::from_mode(0o1644)).unwrap();
        let claimed = claim(&directory, OsStr::new("f"), Wish { private: true, ..PLAIN }).unwrap().unwrap();
        assert_eq!(claimed.file.metadata().unwrap().permissions().mode() & 0o7777, 0o1600);
    }

    #[cfg(unix)]
    #[test]
    fn neither_links_nor_files_with_several_are_written_to() {
        let place = tempfile::tempdir().unwrap();
        let directory = open(place.path());
        let at = |name: &str| place.path().join(name);
        // One of its own that somebody has given a second name.
        assert_eq!(part(&directory, "f"), "f.part");
        fs::write(at("f.part"), "kept").unwrap();
        fs::hard_link(at("f.part"), at("backup")).unwrap();
        fs::write(at("outside"), "precious").unwrap();
        std::os::unix::fs::symlink(at("outside"), at("g.part")).unwrap();
        for name in ["f", "g"] {
            assert_eq!(part(&directory, name), Names::of(OsStr::new(name))[1].part);
        }
        assert_eq!(fs::read(at("backup")).unwrap(), b"kept");
        assert_eq!(fs::read(at("outside")).unwrap(), b"precious");
    }
}
