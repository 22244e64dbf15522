//! Which chunks are still to be fetched, and which connection fetches which of them.
//!
//! Every connection takes a segment from the front when it runs low, as long as what it brings in about half a second. So a slow
//! one never holds much, and the file grows from its beginning. Once nothing is left to take, a connection that is
//! done fetches chunks once more that a slower one would bring only later; whoever is first counts.
//!
//! No chunk is here that nobody asked about: memory grows with the connections and the gaps, not with the file.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

/// A connection of this attempt.
pub type WorkerId = usize;

/// Chunks of the first segment, before anything is known of a connection's pace.
pub const FIRST_SEGMENT: u64 = 8;
/// The same when several connections share the work, or are going to.
const FIRST_SHARED_SEGMENT: u64 = 2;
/// The most chunks of a segment.
const MAX_SEGMENT: u64 = 64;
/// How long a segment should take.
const SEGMENT_TIME: Duration = Duration::from_millis(500);
/// Chunks are fetched twice only when that brings them so much sooner.
const WORTHWHILE: Duration = Duration::from_millis(200);

/// The chunks that are not here yet.
pub struct Queue {
    inner: RefCell<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    /// Runs that nobody fetches, in order.
    free: VecDeque<Range<u64>>,
    workers: BTreeMap<WorkerId, Work>,
    /// How many connections are wanted from the beginning.
    expected: usize,
    /// Chunks that two connections were asked for, and whether one of them has brought it.
    twice: BTreeMap<u64, bool>,
}

struct Work {
    /// What was asked for and has not come, in the order of the requests.
    runs: VecDeque<Range<u64>>,
    pace: Pace,
    /// Takes nothing more.
    is_retired: bool,
}

/// How fast a connection brings chunks.
struct Pace {
    /// How long it took to build the chain, which is a few round trips.
    walk: Duration,
    chunk: Option<Duration>,
    last: Instant,
}

impl Pace {
    fn came(&mut self) {
        let took = self.last.elapsed();
        self.last = Instant::now();
        self.chunk = Some(self.chunk.map_or(took, |before| (before * 3 + took) / 4));
    }

    fn segment(&self, is_alone: bool) -> u64 {
        let Some(chunk) = self.chunk else {
            return if is_alone { FIRST_SEGMENT } else { FIRST_SHARED_SEGMENT };
        };
        let chunks = SEGMENT_TIME.max(self.walk).as_secs_f64() / chunk.as_secs_f64().max(1e-6);
        (chunks as u64).clamp(1, MAX_SEGMENT)
    }

    /// How many chunks come while a request and its answer travel; with fewer asked for, a long path runs empty.
    fn on_its_way(&self) -> u64 {
        let chunks = self.chunk.map_or(0.0, |chunk| self.walk.as_secs_f64() / chunk.as_secs_f64().max(1e-6));
        (chunks as u64).min(MAX_SEGMENT)
    }

    /// How long `chunks` more will take, as it looks now; one that has stopped looks slower and slower.
    fn needs(&self, chunks: u64) -> Duration {
        let one = self.chunk.unwrap_or_default().max(self.last.elapsed());
        one.saturating_mul(u32::try_from(chunks).unwrap_or(u32::MAX))
    }
}

impl Work {
    fn outstanding(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }
}

impl Queue {
    /// A queue of these runs of chunks, in order and apart. So many connections are `expected` from the beginning, and the first one
    /// leaves work to the others before they stand.
    #[must_use]
    pub fn new(missing: impl IntoIterator<Item = Range<u64>>, expected: usize) -> Queue {
        let free = missing.into_iter().filter(|run| !run.is_empty()).collect();
        Queue { inner: RefCell::new(Inner { free, expected, ..Inner::default() }), changed: Notify::new() }
    }

    /// Ready once something has changed that a waiting connection may want to know.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Lets the waiting connections look again.
    pub fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// A connection whose chain took `walk` to build takes part.
    pub fn enter(&self, id: WorkerId, walk: Duration) {
        let pace = Pace { walk, chunk: None, last: Instant::now() };
        let work = Work { runs: VecDeque::new(), pace, is_retired: false };
        self.inner.borrow_mut().workers.insert(id, work);
    }

    /// A connection has gone; what it had not brought is free again.
    pub fn leave(&self, id: WorkerId) {
        self.inner.borrow_mut().leave(id);
        self.wake();
    }

    /// A connection shall end once it has brought what it was asked for.
    pub fn retire(&self, id: WorkerId) {
        if let Some(work) = self.inner.borrow_mut().workers.get_mut(&id) {
            work.is_retired = true;
        }
        self.wake();
    }

    /// Whether a connection shall end once it has brought what it was asked for.
    #[must_use]
    pub fn is_retired(&self, id: WorkerId) -> bool {
        self.inner.borrow().workers.get(&id).is_some_and(|work| work.is_retired)
    }

    /// A connection was asked for this run already.
    pub fn adopt(&self, id: WorkerId, run: Range<u64>) {
        let mut inner = self.inner.borrow_mut();
        inner.remove(&run);
        if let Some(work) = inner.workers.get_mut(&id) {
            work.runs.push_back(run);
        }
    }

    /// What a connection shall ask for next: nothing while enough is on its way. `before`: only chunks below this one.
    #[must_use]
    pub fn claim(&self, id: WorkerId, before: u64) -> Option<Range<u64>> {
        let mut inner = self.inner.borrow_mut();
        let is_alone = inner.sharers() == 1;
        let work = inner.workers.get(&id).filter(|work| !work.is_retired)?;
        let (segment, outstanding) = (work.pace.segment(is_alone), work.outstanding());
        let fair = if is_alone { segment } else { inner.fair_share(segment) };
        if outstanding >= (2 * fair).max(work.pace.on_its_way()) {
            return None;
        }
        let taken = inner.take(fair, before);
        let run =
            taken.or_else(|| if outstanding == 0 { inner.double(id, segment, before) } else { None })?;
        if let Some(work) = inner.workers.get_mut(&id) {
            if work.runs.is_empty() {
                work.pace.last = Instant::now();
            }
            work.runs.push_back(run.clone());
        }
        Some(run)
    }

    /// A connection has brought this chunk. Returns whether it is the first to do so.
    pub fn received(&self, id: WorkerId, index: u64) -> bool {
        self.inner.borrow_mut().received(id, index)
    }

    /// A chunk came damaged: somebody has to bring it again.
    pub fn give_back(&self, index: u64) {
        self.inner.borrow_mut().give_back(index);
        self.wake();
    }

    /// How many chunks have not come, but for the next one of each connection: those that another connection could bring.
    #[must_use]
    pub fn left(&self) -> u64 {
        let inner = self.inner.borrow();
        let waiting = inner.workers.values().map(|work| work.outstanding().saturating_sub(1));
        inner.free_len() + waiting.sum::<u64>()
    }

    /// How many chunks nobody has been asked for.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.inner.borrow().free_len()
    }
}

impl Inner {
    fn free_len(&self) -> u64 {
        self.free.iter().map(|run| run.end - run.start).sum()
    }

    /// How many connections share the work, now or soon.
    fn sharers(&self) -> usize {
        self.workers.len().max(self.expected).max(1)
    }

    /// Near the end the segments get shorter, so that all connections end at about the same time.
    fn fair_share(&self, most: u64) -> u64 {
        let parts = 2 * self.sharers() as u64;
        let mut free = 0;
        for run in &self.free {
            free += run.end - run.start;
            // A file that was resumed often has many gaps, and most of the time the first few say enough.
            if free >= most * parts {
                return most;
            }
        }
        free.div_ceil(parts).max(1)
    }

    fn take(&mut self, len: u64, before: u64) -> Option<Range<u64>> {
        let run = self.free.front_mut().filter(|run| run.start < before)?;
        let end = run.end.min(run.start.saturating_add(len)).min(before);
        let taken = run.start..end;
        run.start = end;
        if run.is_empty() {
            self.free.pop_front();
        }
        Some(taken)
    }

    fn remove(&mut self, taken: &Range<u64>) {
        let pieces = self.free.drain(..).flat_map(|run| {
            let before = run.start..run.end.min(taken.start);
            let after = run.start.max(taken.end)..run.end;
            [before, after].into_iter().filter(|piece| piece.start < piece.end)
        });
        self.free = pieces.collect::<Vec<_>>().into();
    }

    fn put(&mut self, run: Range<u64>) {
        if run.is_empty() {
            return;
        }
        let at = self.free.partition_point(|other| other.start < run.start);
        self.free.insert(at, run);
    }

    /// Chunks from the end of what the slowest other connection still has to bring.
    fn double(&mut self, id: WorkerId, segment: u64, before: u64) -> Option<Range<u64>> {
        let own = &self.workers.get(&id)?.pace;
        let begins = own.walk / 2;
        let one = own.chunk.unwrap_or(SEGMENT_TIME);
        let candidates = self.workers.iter().filter(|(other, _)| **other != id);
        let candidates = candidates.filter_map(|(_, work)| {
            let (tail, position) = self.tail(work, before)?;
            Some((work.pace.needs(position), tail, work.pace.needs(1)))
        });
        let (finish, tail, their_one) = candidates.max_by_key(|(finish, _, _)| *finish)?;
        let gain = finish.checked_sub(begins + one).filter(|gain| *gain >= WORTHWHILE)?;
        let len = (gain.as_secs_f64() / (one + their_one).as_secs_f64()) as u64;
        let len = len.clamp(1, segment.min(tail.end - tail.start));
        let run = tail.end - len..tail.end;
        self.twice.extend(run.clone().map(|index| (index, false)));
        Some(run)
    }

    /// The last chunks of a connection's work that nobody else was asked for, and how many it has to bring until then.
    fn tail(&self, work: &Work, before: u64) -> Option<(Range<u64>, u64)> {
        let mut position = work.outstanding();
        for run in work.runs.iter().rev() {
            let is_single = |index: &u64| *index < before && !self.twice.contains_key(index);
            if let Some(last) = run.clone().rev().find(is_single) {
                let first = run.clone().rev().skip_while(|index| *index > last).take_while(is_single).last();
                let skipped = run.end - 1 - last;
                return Some((first.unwrap_or(last)..last + 1, position - skipped));
            }
            position -= run.end - run.start;
        }
        None
    }

    fn received(&mut self, id: WorkerId, index: u64) -> bool {
        if let Some(work) = self.workers.get_mut(&id) {
            work.pace.came();
            if let Some(run) = work.runs.front_mut() {
                run.start = index + 1;
                if run.is_empty() {
                    work.runs.pop_front();
                }
            }
        }
        self.twice.get_mut(&index).is_none_or(|came| !std::mem::replace(came, true))
    }

    fn is_asked(&self, index: u64) -> bool {
        self.workers.values().any(|work| work.runs.iter().any(|run| run.contains(&index)))
    }

    fn give_back(&mut self, index: u64) {
        let is_asked = self.is_asked(index);
        match self.twice.get_mut(&index) {
            Some(came) if is_asked => *came = false,
            _ => {
                self.twice.remove(&index);
                self.put(index..index + 1);
            }
        }
    }

    fn leave(&mut self, id: WorkerId) {
        let Some(work) = self.workers.remove(&id) else { return };
        for run in work.runs {
            let mut from = run.start;
            let doubled: Vec<u64> = self.twice.range(run.clone()).map(|(index, _)| *index).collect();
            for index in doubled {
                self.put(from..index);
                from = index + 1;
                let has_come = self.twice.get(&index) == Some(&true);
                if !has_come {
                    self.twice.remove(&index);
                    if !self.is_asked(index) {
                        self.put(index..index + 1);
                    }
                }
            }
            self.put(from..run.end);
        }
    }
}

#[cfg(test)]
mod tests;
