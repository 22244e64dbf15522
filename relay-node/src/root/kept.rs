//! Walks between two of their pages, so that the next page goes on where the last one ended, whichever connection asks for it.
//!
//! None is needed: without it the next page begins a new walk. So they are bounded, the oldest go first, and none stays for long.

use super::page::ListQuery;
use super::walk::Walk;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most that all kept walks take, in bytes.
const MOST_BYTES: usize = 32 << 20;
/// The most walks that are kept.
const MOST_WALKS: usize = 64;
/// How long a walk waits for the request for its next page.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(30);

/// The walks that wait, the oldest first.
#[derive(Debug, Default)]
pub(super) struct KeptWalks(Mutex<VecDeque<Kept>>);

#[derive(Debug)]
struct Kept {
    walk: Walk,
    bytes: usize,
    since: Instant,
}

impl KeptWalks {
    /// A walk that is at that place.
    pub(super) fn take(&self, query: ListQuery<'_>) -> Option<Walk> {
        let mut kept = self.kept();
        forget_old(&mut kept);
        let place = kept.iter().rposition(|kept| kept.walk.is_at(query))?;
        kept.remove(place).map(|kept| kept.walk)
    }

    /// Keeps a walk for a while.
    pub(super) fn put(&self, walk: Walk) {
        let bytes = walk.bytes();
        let mut kept = self.kept();
        kept.push_back(Kept { walk, bytes, since: Instant::now() });
        while kept.len() > MOST_WALKS || kept.iter().map(|kept| kept.bytes).sum::<usize>() > MOST_BYTES {
            kept.pop_front();
        }
    }

    /// Forgets those that wait for too long. Whether others still wait.
    pub(super) fn tidy(&self) -> bool {
        let mut kept = self.kept();
        forget_old(&mut kept);
        if kept.is_empty() {
            kept.shrink_to_fit();
        }
        !kept.is_empty()
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget_old(kept: &mut VecDeque<Kept>) {
    while kept.front().is_some_and(|kept| kept.since.elapsed() > KEPT_FOR) {
        kept.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_is_found_by_where_it_is_and_only_so_many_are_kept() {
        let kept = KeptWalks::default();
        let query = ListQuery { prefix: b"a/", recursive: true, ..ListQuery::default() };
        let first = ListQuery { after: Some(b"a/1"), ..query };
        for number in 0..MOST_WALKS + 1 {
            let after = format!("a/{number}");
            kept.put(Walk::new(ListQuery { after: Some(after.as_bytes()), ..query }));
        }
        assert!(kept.take(ListQuery { after: Some(b"a/0"), ..query }).is_none(), "the oldest is forgotten");
        assert!(kept.take(ListQuery { recursive: false, ..first }).is_none());
        assert!(kept.take(ListQuery { prefix: b"a", ..first }).is_none());
        assert!(kept.take(ListQuery { any_bytes: true, ..first }).is_none());
        assert!(kept.take(query).is_none());
        assert!(kept.take(first).is_some());
        assert!(kept.take(first).is_none(), "it is walked by one at a time");
        kept.kept().iter_mut().for_each(|kept| kept.since -= 2 * KEPT_FOR);
        assert!(!kept.tidy());
    }
}
