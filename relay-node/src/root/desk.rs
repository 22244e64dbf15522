//! Who lists when: pages are made by a few threads of their own, one peer after the other.
//!
//! A page costs the node far more than the request for it, so no number of requests may take more than about the machine's
//! cores, and what opens and reads files never waits behind them. A peer with a thousand requests has one turn when a peer with one has
//! one. What nobody waits for any more is not begun, and what is begun ends. A page whose directory does not answer costs a thread; that is
//! replaced, up to a limit, and the place is remembered.

use super::hung::Hung;
use crate::platform::priority;
use relay_proto::text::clean;
use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most requests that wait; further ones are turned away.
const MOST_WAITING: usize = 1_024;
/// A page that has shown no sign of life for so long stands before a disk that does not answer.
const NO_SIGN_OF_LIFE: Duration = Duration::from_secs(3);
/// The most threads that stand before such disks and are replaced.
const MOST_STUCK: usize = 16;
/// How long a thread waits for something to do before it ends.
const IDLE: Duration = Duration::from_secs(10);
/// The longest place that is logged, in bytes.
const LOGGED_PLACE: usize = 256;

/// The threads that make pages, and what waits for them.
pub(super) struct Desk {
    state: Mutex<State>,
    changed: Condvar,
    /// The most threads that make pages at once, those that are stuck not counted.
    at_work: usize,
    /// How long a page may show no sign of life.
    silence: Duration,
    hung: Arc<Hung>,
    /// Called by a thread that has nothing to do; it waits on while this returns true.
    tidy: Box<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("at_work", &self.at_work).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    /// The peers that wait, in the order of their turns, each with its requests.
    waiting: VecDeque<(Option<IpAddr>, VecDeque<Job>)>,
    count: usize,
    /// Threads that are not stuck, and how many of them have nothing to do.
    threads: usize,
    idle: usize,
    running: Vec<Arc<Task>>,
    stuck: usize,
    most_at_work: usize,
}

struct Job {
    task: Arc<Task>,
    run: Box<dyn FnOnce(&Task) + Send>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.task.fmt(f)
    }
}

/// What a thread and whoever waits for it tell each other.
#[derive(Debug)]
pub(super) struct Task {
    began: Instant,
    /// Nobody waits any more.
    abandoned: AtomicBool,
    /// It showed no sign of life for too long.
    silent: AtomicBool,
    /// Another thread works in place of its own.
    replaced: AtomicBool,
    /// When it last showed one, in milliseconds since `began`.
    alive: AtomicU64,
    /// Where it looks.
    place: Mutex<Vec<u8>>,
}

/// A request that waits or is worked on. Dropped, it is abandoned.
#[derive(Debug)]
pub(super) struct Ticket(Arc<Task>);

/// As many wait as may.
#[derive(Debug)]
pub(super) struct Crowded;

impl Task {
    /// Shows a sign of life, and where it comes from if that is elsewhere; returns whether somebody waits still.
    pub(super) fn go_on(&self, place: Option<&[u8]>) -> bool {
        self.alive.store(self.now(), Ordering::Relaxed);
        if let Some(place) = place {
            place.clone_into(&mut self.place.lock().unwrap_or_else(PoisonError::into_inner));
        }
        !self.abandoned.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_silent(&self, limit: Duration) -> bool {
        let silence = self.now().saturating_sub(self.alive.load(Ordering::Relaxed));
        u128::from(silence) >= limit.as_millis()
    }

    fn place(&self) -> Vec<u8> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Ticket {
    /// Whether the page stands before a disk that does not answer.
    pub(super) fn is_silent(&self) -> bool {
        self.0.silent.load(Ordering::Relaxed)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.abandoned.store(true, Ordering::Relaxed);
    }
}

impl Desk {
    /// A desk with as many threads as the machine has cores, when they are needed.
    pub(super) fn new(hung: Arc<Hung>, tidy: Box<dyn Fn() -> bool + Send + Sync>) -> Desk {
        let at_work = std::thread::available_parallelism().map_or(1, usize::from);
        Desk {
            state: Mutex::default(),
            changed: Condvar::new(),
            at_work,
            silence: NO_SIGN_OF_LIFE,
            hung,
            tidy,
        }
    }

    /// Has `run` run when it is the peer's turn.
    pub(super) fn submit(
        self: &Arc<Self>,
        peer: Option<IpAddr>,
        run: impl FnOnce(&Task) + Send + 'static,
    ) -> Result<Ticket, Crowded> {
        let task = Arc::new(Task {
            began: Instant::now(),
            abandoned: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            replaced: AtomicBool::new(false),
            alive: AtomicU64::new(0),
            place: Mutex::default(),
        });
        let mut state = self.state();
        if state.count >= MOST_WAITING {
            state.forget_abandoned();
        }
        if state.count >= MOST_WAITING {
            return Err(Crowded);
        }
        state.push(peer, Job { task: Arc::clone(&task), run: Box::new(run) });
        self.staff(&mut state);
        Ok(Ticket(task))
    }

    /// Looks for pages that stand before a disk that does not answer, and has others made meanwhile. Whoever waits for one calls
    /// this once in a while.
    pub(super) fn tend(self: &Arc<Self>) {
        let mut state = self.state();
        let silent = |task: &&Arc<Task>| task.is_silent(self.silence) && !task.silent.load(Ordering::Relaxed);
        let silent: Vec<_> = state.running.iter().filter(silent).map(Arc::clone).collect();
        for task in silent {
            let place = task.place();
            tracing::warn!(
                place = clean(&String::from_utf8_lossy(&place), LOGGED_PLACE),
                "a directory does not answer; it is left alone for a while"
            );
            self.hung.note(&place);
            task.silent.store(true, Ordering::Relaxed);
            if state.stuck < MOST_STUCK {
                task.replaced.store(true, Ordering::Relaxed);
                state.stuck += 1;
                state.threads -= 1;
            }
        }
        self.staff(&mut state);
    }

    /// The most threads that made pages at the same time so far.
    pub(super) fn most_at_work(&self) -> usize {
        self.state().most_at_work
    }

    /// Sees to it that what waits is taken by a thread.
    fn staff(self: &Arc<Self>, state: &mut State) {
        if state.count == 0 {
            return;
        }
        if state.idle == 0 && state.threads < self.at_work {
            let desk = Arc::clone(self);
            let started = std::thread::Builder::new().name("list".to_owned()).spawn(move || desk.work());
            match started {
                Ok(_) => state.threads += 1,
                Err(error) => tracing::error!(%error, "cannot start a thread that lists"),
            }
        }
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread does.
    fn work(&self) {
        priority::lower();
        while let Some(job) = self.next() {
            let Job { task, run } = job;
            // Whoever waits finds that nothing comes, and answers that.
            drop(catch_unwind(AssertUnwindSafe(|| run(&task))));
            let mut state = self.state();
            state.running.retain(|running| !Arc::ptr_eq(running, &task));
            if task.silent.load(Ordering::Relaxed) {
                self.hung.forget(&task.place());
            }
            if task.replaced.load(Ordering::Relaxed) {
                state.stuck -= 1;
                if state.threads >= self.at_work {
                    return;
                }
                state.threads += 1;
            }
        }
    }

    /// The next page to make; none when there has been none for a while.
    fn next(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            while let Some(job) = state.pop() {
                if !job.task.abandoned.load(Ordering::Relaxed) {
                    job.task.go_on(None);
                    state.running.push(Arc::clone(&job.task));
                    state.most_at_work = state.most_at_work.max(state.running.len() - state.stuck);
                    return Some(job);
                }
            }
            state.idle += 1;
            let waited = self.changed.wait_timeout(state, IDLE);
            let (after, end) = waited.unwrap_or_else(PoisonError::into_inner);
            state = after;
            state.idle -= 1;
            if end.timed_out() && state.count == 0 {
                drop(state);
                let stays = (self.tidy)();
                state = self.state();
                if !stays && state.count == 0 {
                    state.threads -= 1;
                    return None;
                }
            }
        }
    }
}

impl State {
    fn push(&mut self, peer: Option<IpAddr>, job: Job) {
        self.count += 1;
        match self.waiting.iter_mut().find(|(other, _)| *other == peer) {
            Some((_, jobs)) => jobs.push_back(job),
            None => self.waiting.push_back((peer, VecDeque::from([job]))),
        }
    }

    /// The first request of the peer whose turn it is, which then goes to the end of the row.
    fn pop(&mut self) -> Option<Job> {
        let (peer, mut jobs) = self.waiting.pop_front()?;
        let job = jobs.pop_front();
        if !jobs.is_empty() {
            self.waiting.push_back((peer, jobs));
        }
        self.count -= usize::from(job.is_some());
        job
    }

    fn forget_abandoned(&mut self) {
        for (_, jobs) in &mut self.waiting {
            jobs.retain(|job| !job.task.abandoned.load(Ordering::Relaxed));
        }
        self.waiting.retain(|(_, jobs)| !jobs.is_empty());
        self.count = self.waiting.iter().map(|(_, jobs)| jobs.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const PATIENCE: Duration = Duration::from_secs(120);

    fn desk(at_work: usize) -> Arc<Desk> {
        Arc::new(Desk { at_work, ..Desk::new(Arc::default(), Box::new(|| false)) })
    }

    /// A page that waits for its end to be said, and says when it begins.
    fn held(desk: &Arc<Desk>, begun: &mpsc::Sender<()>) -> (Ticket, mpsc::Sender<()>) {
        let (end, ended) = mpsc::channel::<()>();
        let begun = begun.clone();
        let ticket = desk.submit(None, move |task| {
            task.go_on(Some(b"place"));
            begun.send(()).unwrap();
            let _ = ended.recv_timeout(PATIENCE);
        });
        (ticket.unwrap(), end)
    }

    #[test]
    fn a_peer_with_one_request_does_not_wait_for_one_with_many() {
        let desk = desk(1);
        let (begun, begins) = mpsc::channel();
        let (_first, end) = held(&desk, &begun);
        begins.recv_timeout(PATIENCE).unwrap();
        let (order, seen) = mpsc::channel();
        let tickets: Vec<_> = [1, 1, 1, 1, 2, 3, 3]
            .map(|peer| {
                let order = order.clone();
                desk.submit(Some([127, 0, 0, peer].into()), move |_| order.send(peer).unwrap()).unwrap()
            })
            .into();
        end.send(()).unwrap();
        let seen: Vec<u8> = (0..7).map(|_| seen.recv_timeout(PATIENCE).unwrap()).collect();
        assert_eq!(seen, [1, 2, 3, 1, 3, 1, 1]);
        assert_eq!(desk.most_at_work(), 1);
        drop(tickets);
    }

    #[test]
    fn what_nobody_waits_for_is_not_begun_and_only_so_many_wait() {
        let desk = desk(1);
        let (begun, begins) = mpsc::channel();
        let (first, end) = held(&desk, &begun);
        begins.recv_timeout(PATIENCE).unwrap();
        let wait = || desk.submit(None, |_| panic!("nobody waits for this"));
        let waiting: Vec<_> = std::iter::from_fn(|| wait().ok()).collect();
        assert_eq!(waiting.len(), MOST_WAITING);
        drop(waiting);
        let (done, is_done) = mpsc::channel();
        let _last = desk.submit(None, move |_| done.send(()).unwrap()).unwrap();
        end.send(()).unwrap();
        is_done.recv_timeout(PATIENCE).unwrap();
        drop(first);
        assert_eq!(desk.state().count, 0);
    }

    #[test]
    fn a_silent_page_is_replaced_up_to_a_limit_and_its_place_is_remembered() {
        let desk =
            Desk { at_work: 1, silence: Duration::ZERO, ..Desk::new(Arc::default(), Box::new(|| false)) };
        let desk = Arc::new(desk);
        let (begun, begins) = mpsc::channel();
        let mut held: Vec<_> = (0..MOST_STUCK + 2).map(|_| held(&desk, &begun)).collect();
        for (ticket, _) in held.iter().take(MOST_STUCK + 1) {
            begins.recv_timeout(PATIENCE).unwrap();
            assert!(!ticket.is_silent());
            desk.tend();
            assert!(ticket.is_silent());
            assert_eq!(desk.hung.find(b"place/x").as_deref(), Some(&b"place"[..]));
        }
        // The last one waits: all threads that may be stuck are.
        assert!(begins.try_recv().is_err());
        let state = desk.state();
        assert_eq!((state.stuck, state.threads, state.count), (MOST_STUCK, 1, 1));
        drop(state);
        held[0].1.send(()).unwrap();
        held[MOST_STUCK].1.send(()).unwrap();
        begins.recv_timeout(PATIENCE).unwrap();
        assert_eq!(desk.hung.find(b"place/x"), None);
        held.clear();
    }
}
