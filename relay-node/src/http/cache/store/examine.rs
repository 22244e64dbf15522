//! Looks again at what is stored: a piece now and then while the node runs, or all of it at once.
//!
//! A piece that was found right may be damaged later, on the disk or by another program, and hits that go out within the kernel
//! do not look. What is found here to be another than was stored is thrown away, and fetched anew by who asks next.

use super::directory::MARKER;
use super::{Entry, Key, KeyId, Store, StoreError};
use crate::http::seals::{PIECE, Seals};
use crate::record::logged_name;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How far a walk through the entries is. It holds at most one file open.
#[derive(Debug, Default)]
pub struct Round {
    place: usize,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    id: KeyId,
    number: u64,
    key: String,
    file: Arc<File>,
    seals: Arc<Seals>,
    next: u64,
}

/// What [`verify`] found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Entries that were looked at.
    pub entries: u64,
    /// Of these, those that were not what was stored.
    pub thrown_away: u64,
    /// Of these, those that the system would not read just now. They stay.
    pub unreadable: u64,
}

impl Store {
    /// Reads and hashes one piece of one entry, and goes to the next. Blocks.
    pub fn examine_on(&self, round: &mut Round) {
        let Some(open) = round.open.take().or_else(|| self.open_next(round)) else { return };
        if !self.holds(open.id, open.number) {
            return;
        }
        match open.seals.check_again(&open.file, open.next) {
            Ok(()) if open.next + PIECE < open.seals.length() => {
                round.open = Some(Open { next: open.next + PIECE, ..open });
            }
            Ok(()) => {}
            Err(error) if is_damage(&error) => self.throw_away(open.id, open.number, &open.key, &error),
            Err(error) => tracing::debug!(%error, "a cache entry cannot be looked at"),
        }
    }

    /// A small body is looked at by that alone.
    fn open_next(&self, round: &mut Round) -> Option<Open> {
        round.place = round.place.wrapping_add(1);
        let (id, number) = self.index().at(round.place)?;
        match self.open_by_number(id, number) {
            Ok(entry) => {
                self.remember_seals(id, &entry);
                let (file, seals) = entry.in_file()?;
                let (file, seals) = (Arc::clone(file), Arc::clone(seals));
                Some(Open { id, number, key: entry.head().key.clone(), file, seals, next: 0 })
            }
            Err(error) => {
                if is_damage(&error) && self.holds(id, number) {
                    self.throw_away(id, number, &id.to_string(), &error);
                }
                None
            }
        }
    }

    fn open_by_number(&self, id: KeyId, number: u64) -> io::Result<Entry> {
        let record = self.read_record(id, number)?;
        let key = Key::new(record.key());
        if key.id() != id {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it belongs to another key"));
        }
        self.open_entry(&key, number, &record)
    }

    fn examine_whole(&self, id: KeyId, number: u64) -> io::Result<()> {
        let entry = self.open_by_number(id, number)?;
        let Some((file, seals)) = entry.in_file() else { return Ok(()) };
        (0..seals.length()).step_by(CHUNK).try_for_each(|place| seals.check_again(file, place))
    }
}

/// [`PIECE`], as a step.
const CHUNK: usize = PIECE as usize;

/// Looks at all that is stored in `dir`, which no other process may use meanwhile, and throws away what is not as it was stored.
/// `bad` hears of each entry that is thrown away. Blocks.
///
/// # Errors
/// A directory that is no cache, is in use, or cannot be read.
pub fn verify(dir: &Path, mut bad: impl FnMut(&str)) -> Result<Verified, StoreError> {
    if !dir.join(MARKER).is_file() {
        return Err(StoreError::NoCache { dir: dir.display().to_string() });
    }
    let store = Store::open(dir, u64::MAX, 0)?;
    let all: Vec<(KeyId, u64)> = {
        let index = store.index();
        index.keys.iter().flat_map(|(id, rows)| rows.iter().map(|row| (*id, row.number))).collect()
    };
    let mut found = Verified::default();
    for (id, number) in all {
        found.entries += 1;
        let Err(error) = store.examine_whole(id, number) else { continue };
        if is_damage(&error) {
            let key = store.read_record(id, number).map_or_else(|_| id.to_string(), |it| it.key().to_owned());
            bad(&format!("{}: {error}", logged_name(&key)));
            store.throw_away(id, number, &key, &error);
            found.thrown_away += 1;
        } else {
            found.unreadable += 1;
        }
    }
    Ok(found)
}

/// Whether it tells of the entry, and not of what the process may have just now.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::InvalidData | Kind::UnexpectedEof | Kind::NotFound)
}
