//! What is stored, in memory: which entries each key has, how much they take, and which of them goes next.

use crate::http::cache::entry::Entry;
use crate::http::cache::key::KeyId;
use crate::http::seals::Seals;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The entries and their sizes.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) keys: HashMap<KeyId, Vec<Row>>,
    /// Every entry once, the next to be looked at for eviction first.
    queue: VecDeque<(KeyId, u64)>,
    /// Entries whose files are not in their places yet.
    pub(super) arriving: HashMap<u64, Arc<Entry>>,
    pub(super) entries: usize,
    pub(super) stored: u64,
    pub(super) reserved: u64,
}

/// One entry.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) number: u64,
    pub(super) size: u64,
    pub(super) used: bool,
    pub(super) touched: Duration,
    /// Of a large body, once it was written or opened by this process: which of its pieces were checked.
    pub(super) seals: Option<Arc<Seals>>,
}

impl Index {
    pub(super) fn add(&mut self, id: KeyId, number: u64, size: u64, touched: Duration) {
        self.keys.entry(id).or_default().push(Row { number, size, used: false, touched, seals: None });
        self.queue.push_back((id, number));
        self.entries += 1;
        self.stored += size;
        // What was removed otherwise than by eviction still stands in the queue.
        if self.queue.len() > 2 * self.entries + 64 {
            let keys = &self.keys;
            self.queue.retain(|(id, number)| {
                keys.get(id).is_some_and(|rows| rows.iter().any(|row| row.number == *number))
            });
        }
    }

    pub(super) fn row(&mut self, id: KeyId, number: u64) -> Option<&mut Row> {
        self.keys.get_mut(&id)?.iter_mut().find(|row| row.number == number)
    }

    pub(super) fn forget(&mut self, id: KeyId, number: u64) -> bool {
        let Some(rows) = self.keys.get_mut(&id) else { return false };
        let Some(place) = rows.iter().position(|row| row.number == number) else { return false };
        let row = rows.remove(place);
        if rows.is_empty() {
            self.keys.remove(&id);
        }
        self.entries -= 1;
        self.stored -= row.size;
        true
    }

    /// One of those that are in their places, by a number that goes up from one call to the next.
    pub(super) fn at(&self, place: usize) -> Option<(KeyId, u64)> {
        let (id, number) = *self.queue.get(place.checked_rem(self.queue.len())?)?;
        let is_there = self.keys.get(&id)?.iter().any(|row| row.number == number);
        (is_there && !self.arriving.contains_key(&number)).then_some((id, number))
    }

    /// Second chance: what was used since the last look goes to the end of the queue instead.
    pub(super) fn evict_one(&mut self) -> Option<(KeyId, u64)> {
        loop {
            let (id, number) = self.queue.pop_front()?;
            match self.row(id, number) {
                None => {}
                Some(row) if row.used => {
                    row.used = false;
                    self.queue.push_back((id, number));
                }
                Some(_) => {
                    self.forget(id, number);
                    return Some((id, number));
                }
            }
        }
    }
}
