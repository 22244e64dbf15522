//! The connections of an attempt: which are started, tried again, added, and given up. How many help is for [`super::growth`] to
//! find out, and [`super::fate`] keeps what became of each route.
//!
//! As long as one connection works or is being built, the attempt goes on: what fails beside it is tried again after pauses, and a
//! route that cannot help is left out. When none is left, the attempt has failed.

use super::fate::{RouteFate, blame, is_last, no_route};
use super::growth::{Change, Growth};
use super::worker::{Phase, Shared, Standing, Told, Worker};
use crate::cli::Connections as Wanted;
use crate::event::RouteShare;
use crate::failure::Failure;
use crate::retry::{may_change, pause_after};
use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Abortable, Aborted};
use futures_util::stream::FuturesUnordered;
use relay_chain::requests::AnswerError;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

/// The most connections of a run.
const MAX_CONNECTIONS: usize = 64;
/// Fewer missing chunks than this for each connection are not worth another one, unless it was asked for.
const MIN_SHARE: u64 = 2;

/// The connections of an attempt.
pub(super) struct Connections<'s> {
    shared: &'s Shared<'s>,
    fates: &'s mut [RouteFate],
    running: FuturesUnordered<Abortable<Job<'s>>>,
    slots: BTreeMap<usize, Slot>,
    growth: Vec<Growth>,
    next_id: usize,
}

type Job<'s> = Pin<Box<dyn Future<Output = (usize, Result<(), Failure>)> + 's>>;

struct Slot {
    route: usize,
    told: Rc<Told>,
    /// How often it failed since it brought something.
    failed: u32,
    /// What its route had brought when it began.
    before: u64,
    has_stood: bool,
    abort: AbortHandle,
}

impl<'s> Connections<'s> {
    /// Goes on with the chain whose origin answered first.
    pub(super) fn new(
        shared: &'s Shared<'s>,
        fates: &'s mut [RouteFate],
        standing: Standing<'s>,
    ) -> Connections<'s> {
        let mut connections = Connections::none(shared, fates);
        let route = shared.authority.route;
        connections.spawn(route, Phase::Working, |worker| Box::pin(worker.go_on(standing)));
        connections
    }

    fn none(shared: &'s Shared<'s>, fates: &'s mut [RouteFate]) -> Connections<'s> {
        let growth = fates.iter().map(|_| Growth::default()).collect();
        let (running, slots) = (FuturesUnordered::new(), BTreeMap::new());
        Connections { shared, fates, running, slots, growth, next_id: 0 }
    }

    /// Adds the connections that are wanted from the beginning, on all routes, as far as there is work for them.
    pub(super) fn start_all(&mut self) {
        for route in 0..self.fates.len() {
            let fate = self.fates.get(route);
            // It was asked first and failed a moment ago.
            if fate.is_some_and(|fate| !fate.is_gone && fate.failure.is_some()) {
                self.add_later(route, 0, false);
            }
        }
        // Each route gets one before any gets another: there may be fewer than all of them want.
        for wanted in 1..=self.shared.plan.connections.at_first() {
            for route in 0..self.fates.len() {
                let has_failed = self.fates.get(route).is_none_or(|fate| fate.failure.is_some());
                let has_enough = has_failed || self.of(route).count() >= wanted;
                if !has_enough && self.has_work_for_more(self.shared.queue.free()) {
                    self.add(route);
                }
            }
        }
    }

    /// Whether one more connection is worth it, with so many chunks that it may bring.
    fn has_work_for_more(&self, chunks: u64) -> bool {
        let least = match self.shared.plan.connections {
            Wanted::Auto => MIN_SHARE * (self.slots.len() as u64 + 1),
            Wanted::Fixed(_) => self.slots.len() as u64,
        };
        self.slots.len() < MAX_CONNECTIONS && chunks >= least
    }

    fn add(&mut self, route: usize) {
        if self.fates.get(route).is_none_or(|fate| fate.is_gone) {
            return;
        }
        let tells = self.of(route).count() == 0;
        self.spawn(route, Phase::Dialling, |worker| Box::pin(worker.join(Duration::ZERO, tells)));
    }

    /// Whether a connection that has failed so often in turn is tried once more. While others go on there is no hurry to give up.
    fn may_try_again(&self, failed: u32) -> bool {
        self.shared.plan.retry.retries.is_none_or(|most| failed < most)
    }

    /// Adds a connection after a pause.
    fn add_later(&mut self, route: usize, failed: u32, has_stood: bool) {
        let tells = self.of(route).count() == 0;
        let pause = pause_after(failed);
        let id = self.spawn(route, Phase::Pausing, |worker| Box::pin(worker.join(pause, tells)));
        if let Some(slot) = self.slots.get_mut(&id) {
            (slot.failed, slot.has_stood) = (failed + 1, has_stood);
        }
    }

    fn spawn(
        &mut self,
        route: usize,
        phase: Phase,
        work: impl FnOnce(Worker<'s>) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + 's>>,
    ) -> usize {
        let id = self.next_id;
        self.next_id += 1;
        let told = Rc::new(Told::new(phase));
        let worker = Worker::new(self.shared, id, route, Rc::clone(&told));
        let work = work(worker);
        let job: Job<'s> = Box::pin(async move { (id, work.await) });
        let (abort, registration) = AbortHandle::new_pair();
        self.running.push(Abortable::new(job, registration));
        let before = self.brought(route);
        self.slots.insert(id, Slot { route, told, failed: 0, before, has_stood: false, abort });
        self.shared.verifiers.serve(self.slots.len());
        id
    }

    fn of(&self, route: usize) -> impl Iterator<Item = &Slot> {
        self.slots.values().filter(move |slot| slot.route == route)
    }

    fn brought(&self, route: usize) -> u64 {
        self.shared.brought.borrow().get(route).copied().unwrap_or_default()
    }

    /// Waits until a connection has ended, and does what follows from that.
    ///
    /// # Errors
    /// Why the attempt cannot go on.
    pub(super) async fn next(&mut self) -> Result<(), Failure> {
        loop {
            match self.running.next().await {
                Some(Ok((id, ended))) => {
                    let Some(slot) = self.slots.remove(&id) else { continue };
                    return match ended {
                        Ok(()) => self.go_on(),
                        Err(failure) => self.lost(slot, failure),
                    };
                }
                Some(Err(Aborted)) => {}
                // The last one that ended has ended the attempt.
                None => std::future::pending().await,
            }
        }
    }

    fn lost(&mut self, mut slot: Slot, failure: Failure) -> Result<(), Failure> {
        let route = slot.route;
        if matches!(failure, Failure::Local { .. } | Failure::Usage(_)) {
            return Err(failure);
        }
        slot.has_stood |= slot.told.phase.get() == Phase::Working;
        let others = self.of(route).filter(|other| other.told.phase.get() != Phase::Pausing).count();
        if others > 0 && !(slot.has_stood && may_change(&failure)) {
            // Tunnels and busy nodes let only so many in, and the name may stand for another file by now. Those that are in are enough,
            // and find out for themselves when they cannot go on.
            if let Some(growth) = self.growth.get_mut(route) {
                growth.rest();
            }
            return Ok(());
        }
        let is_changed = matches!(failure, Failure::Broken { error: AnswerError::Changed, .. });
        if is_changed && route == self.shared.authority.route {
            // The version that is fetched is no more; another attempt finds out what is.
            return Err(failure);
        }
        if may_change(&failure) {
            self.try_later(&slot, failure, others)
        } else {
            self.drop_route(route, failure)
        }
    }

    /// Tries a failed connection again after a pause, as long as that makes sense; `others` of its route go on.
    ///
    /// # Errors
    /// Why the attempt cannot go on.
    fn try_later(&mut self, slot: &Slot, failure: Failure, others: usize) -> Result<(), Failure> {
        let route = slot.route;
        let failed = if self.brought(route) > slot.before { 0 } else { slot.failed };
        // A version of another size is not waited for: the next attempt finds out which size is right.
        let again = self.may_try_again(failed) && !matches!(failure, Failure::OtherVersion { .. });
        if others == 0 && (self.is_alive() || self.has_untried(route)) {
            let pause = again.then(|| pause_after(failed));
            self.shared.reporter.route_lost(self.shared.plan.label(route), &failure, pause);
        }
        if let Some(fate) = self.fates.get_mut(route) {
            fate.fail(failure);
        }
        if again {
            self.add_later(route, failed, slot.has_stood);
        }
        self.go_on()
    }

    /// A chunk that this route brought is in its place.
    pub(super) fn bore(&mut self, route: usize) {
        if let Some(fate) = self.fates.get_mut(route) {
            fate.bore();
        }
    }

    /// A route is of no use any more: its chunks are damaged, it has another file, or it refuses for good.
    ///
    /// # Errors
    /// Why the attempt cannot go on.
    pub(super) fn drop_route(&mut self, route: usize, failure: Failure) -> Result<(), Failure> {
        for slot in self.slots.values().filter(|slot| slot.route == route) {
            slot.abort.abort();
        }
        self.slots.retain(|_, slot| slot.route != route);
        // Several of its chunks may have been with the verifiers.
        let is_new = self.fates.get(route).is_some_and(|fate| !fate.is_gone);
        if is_new && !is_last(self.fates, route) {
            self.shared.reporter.route_lost(self.shared.plan.label(route), &failure, None);
        }
        blame(self.fates, route, failure);
        self.go_on()
    }

    /// Whether a connection works or is being built.
    fn is_alive(&self) -> bool {
        self.slots.values().any(|slot| slot.told.phase.get() != Phase::Pausing)
    }

    /// The first origin's hashes did not come. Without them and without a connection to it, other origins could go on no further, while
    /// another attempt can begin with one of them.
    ///
    /// # Errors
    /// Why the attempt cannot go on.
    pub(super) fn without_hashes(&self, failure: Failure) -> Result<(), Failure> {
        let is_home = |slot: &Slot| !slot.told.is_elsewhere.get() && slot.told.phase.get() != Phase::Pausing;
        if self.slots.values().any(is_home) { Ok(()) } else { Err(failure) }
    }

    /// Whether a route besides this one has not been tried in this attempt.
    fn has_untried(&self, besides: usize) -> bool {
        (0..self.fates.len()).any(|route| route != besides && self.is_untried(route))
    }

    fn is_untried(&self, route: usize) -> bool {
        self.fates.get(route).is_some_and(|fate| !fate.is_gone && fate.failure.is_none())
            && self.of(route).count() == 0
            && !self.shared.plan.is_stream()
    }

    fn go_on(&mut self) -> Result<(), Failure> {
        if self.is_alive() {
            return Ok(());
        }
        for route in 0..self.fates.len() {
            if self.is_untried(route) {
                self.add(route);
            }
        }
        if self.is_alive() { Ok(()) } else { Err(no_route(self.fates)) }
    }

    /// Adds connections to routes over long paths while they bring more.
    pub(super) fn adapt(&mut self) {
        if self.shared.plan.connections != Wanted::Auto || self.shared.plan.is_stream() {
            return;
        }
        for route in 0..self.fates.len() {
            let (working, walk) = self.working(route);
            let building = self.of(route).count().saturating_sub(working);
            let came = self.shared.came.borrow().get(route).copied().unwrap_or_default();
            let left = self.shared.queue.left();
            let Some(growth) = self.growth.get_mut(route) else { continue };
            match growth.look(working, building, walk, came, left) {
                Change::None => {}
                Change::Add(more) => (0..more).for_each(|_| {
                    if self.has_work_for_more(left) {
                        self.add(route);
                    }
                }),
                Change::Leave(count) => self.retire_to(route, count),
            }
        }
    }

    /// How many connections of a route work, and how long its chain takes to build when nothing is lost meanwhile.
    fn working(&self, route: usize) -> (usize, Duration) {
        let working = || self.of(route).filter(|slot| slot.told.phase.get() == Phase::Working);
        let shortest = working().map(|slot| slot.told.walk.get()).min();
        (working().count(), shortest.unwrap_or_default())
    }

    fn retire_to(&self, route: usize, count: usize) {
        let of_route = self.slots.iter().filter(|(_, slot)| slot.route == route);
        of_route.skip(count).for_each(|(id, _)| self.shared.queue.retire(*id));
    }

    /// What each route has brought and how many connections it has.
    pub(super) fn shares(&self) -> Vec<RouteShare> {
        if self.fates.len() < 2 && self.slots.len() < 2 {
            return Vec::new();
        }
        let routes = 0..self.fates.len();
        routes
            .map(|route| RouteShare {
                route: route + 1,
                bytes: self.brought(route),
                connections: self.working(route).0,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::authority::Authority;
    use super::super::queue::Queue;
    use super::*;
    use crate::plan::{Plan, Target};
    use crate::progress::Reporter;
    use crate::verify::{Sink, Verifiers};
    use relay_proto::chunk::CHUNK_LEN;
    use relay_proto::file::{FileFacts, Size, Timestamp};
    use relay_proto::route::Route;
    use std::cell::RefCell;
    use std::sync::Arc;

    /// One route and no retries.
    fn plan() -> Plan {
        let route = Route::parse(b"f\n127.0.0.1 9\n").unwrap();
        Plan {
            retry: crate::retry::RetryLimits { retries: Some(0), max_time: None },
            ..Plan::plain(vec![route], Target::File("f".into()))
        }
    }

    /// What the connections of a file of four chunks share.
    fn shared<'a>(
        plan: &'a Plan,
        reporter: &'a Reporter,
        verifiers: &'a Verifiers,
        brought: &'a RefCell<Vec<u64>>,
    ) -> Shared<'a> {
        let version = FileFacts {
            size: Size::try_from(4 * CHUNK_LEN).unwrap(),
            modified: Timestamp::new(1, 2).unwrap(),
            entity_tag: "a".to_owned().try_into().unwrap(),
            executable: false,
        };
        Shared {
            plan,
            reporter,
            verifiers,
            sink: Arc::new(Sink::stream(Box::new(std::io::sink()))),
            path: "f".into(),
            version,
            queue: Queue::new(std::iter::once(0..4), 1),
            authority: Authority::new(0),
            anew: Box::leak(Box::default()),
            brought,
            came: RefCell::new(vec![0]),
        }
    }

    #[tokio::test]
    async fn connections_are_shared_out_among_the_routes() {
        let plan = Plan { connections: Wanted::Fixed(16), ..self::plan() };
        let (reporter, brought) = (Reporter::silent(), RefCell::new(vec![0; 6]));
        let (verifiers, _) = Verifiers::new(false);
        let queue = Queue::new(std::iter::once(0..1000), 1);
        let shared = Shared { queue, ..shared(&plan, &reporter, &verifiers, &brought) };
        let mut fates: Vec<RouteFate> = (0..6).map(|_| RouteFate::default()).collect();
        fates[2].is_gone = true;
        let mut connections = Connections::none(&shared, &mut fates);
        connections.start_all();
        let counts: Vec<usize> = (0..6).map(|route| connections.of(route).count()).collect();
        assert_eq!(counts, [13, 13, 0, 13, 13, 12]);
    }

    /// A connection that has no more to do may be the last one at work, for others may have failed meanwhile; then its route begins
    /// again, however few retries there are.
    #[tokio::test]
    async fn when_the_last_connection_ends_in_peace_the_attempt_goes_on() {
        let (plan, reporter, brought) = (plan(), Reporter::silent(), RefCell::new(vec![0]));
        let (verifiers, _) = Verifiers::new(false);
        let shared = shared(&plan, &reporter, &verifiers, &brought);
        let mut fates = [RouteFate::default()];
        let mut connections = Connections::none(&shared, &mut fates);
        connections.spawn(0, Phase::Working, |worker| {
            Box::pin(async {
                drop(worker);
                Ok(())
            })
        });
        connections.next().await.unwrap();
        assert!(connections.is_alive(), "nothing is at work, and nobody would ever say so");
    }

    /// A lost packet in one chain's handshake does not make the path longer.
    #[tokio::test]
    async fn the_shortest_walk_tells_how_long_the_path_is() {
        let (plan, reporter, brought) = (plan(), Reporter::silent(), RefCell::new(vec![0]));
        let (verifiers, _) = Verifiers::new(false);
        let shared = shared(&plan, &reporter, &verifiers, &brought);
        let mut fates = [RouteFate::default()];
        let mut connections = Connections::none(&shared, &mut fates);
        for walk in [90, 1090, 300] {
            let id = connections.spawn(0, Phase::Working, |_| Box::pin(std::future::pending()));
            connections.slots[&id].told.walk.set(Duration::from_millis(walk));
        }
        connections.spawn(0, Phase::Dialling, |_| Box::pin(std::future::pending()));
        assert_eq!(connections.working(0), (3, Duration::from_millis(90)));
    }
}
