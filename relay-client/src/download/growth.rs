//! How many connections a route should have: more while they bring more, fewer when they do not. It measures, and starts and
//! ends none itself.

use relay_proto::chunk::CHUNK_LEN;
use std::time::Duration;
use tokio::time::Instant;

/// The most connections of a route that `auto` comes to.
pub const MAX_AUTO: usize = 16;
/// Whether more connections bring more.
#[derive(Default)]
pub(super) struct Growth {
    /// How many bytes had come at the steps of the measurement that runs.
    steps: Vec<(Instant, u64)>,
    /// With how many connections.
    measured: usize,
    /// With how many connections, and at how many bytes a second, it was before the last ones were added.
    before: Option<(usize, f64)>,
    /// Nothing changes before that.
    rests_until: Option<Instant>,
    rests: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// So many more.
    Add(usize),
    /// Only so many stay.
    Leave(usize),
}

/// The least time between two steps of a measurement. Less than the pause between two looks, so that no look comes too early.
const STEP: Duration = Duration::from_millis(200);
/// How long it is measured, at least, before it is said that connections bring nothing. That they bring much shows sooner.
const WINDOW: Duration = Duration::from_millis(1500);
/// Connections that bring so much more in a step than in the one before have only begun.
const BEGINNING: f64 = 1.15;
/// A chain that is built faster leads over short links, where one connection brings all there is.
const LONG_PATH: Duration = Duration::from_millis(20);
/// When more connections brought nothing, they are tried again only after so long, then twice as long, and so on.
const FIRST_REST: Duration = Duration::from_secs(3);
/// More connections must bring so much more to be kept.
const MIN_GAIN: f64 = 1.1;
/// More connections hardly take anything away: when they bring less than so much of what came before, it is the path that was
/// faster then, as it is until TCP meets the first losses, and what they bring is found out from here on.
const SLOWER: f64 = 0.9;
/// Added connections that bring at least so much of what the ones before them bring are held back each on its own. TCP's
/// beginning brings more than what follows it, so that those before seem to have brought up to twice as much.
const SHARE: f64 = 0.5;
/// From one connection to so many: where one is held back on its own, each step costs as long as it takes to see what it brought.
const FIRST_STEP: usize = 4;
/// Connections are not added for what comes sooner anyway. Seconds.
const MIN_LEFT: f64 = 4.0;

impl Growth {
    /// `building`: connections that do not work yet. `left`: chunks that more connections could bring.
    pub(super) fn look(
        &mut self,
        working: usize,
        building: usize,
        walk: Duration,
        came: u64,
        left: u64,
    ) -> Change {
        let is_resting = self.rests_until.is_some_and(|until| Instant::now() < until);
        // One that is late, or pauses after a failure, is not waited for; once it works the measurement begins again.
        let is_settling = building > 0 && self.before.is_some_and(|(count, _)| working <= count);
        if std::mem::replace(&mut self.measured, working) != working {
            self.steps.clear();
        }
        if is_resting || working == 0 || is_settling || walk < LONG_PATH {
            self.steps.clear();
            return Change::None;
        }
        if self.steps.last().is_some_and(|(at, _)| at.elapsed() < STEP.max(walk)) {
            return Change::None;
        }
        self.steps.push((Instant::now(), came));
        // What comes in the first step says little.
        let steps = self.steps.get(1..).unwrap_or_default();
        let (Some(&first), Some(&[before_last, last_but_one, last])) = (steps.first(), steps.last_chunk())
        else {
            return Change::None;
        };
        let (measured, window) = (first.0.elapsed(), WINDOW.max(walk * 4));
        if measured < window * 2 && rate(last_but_one, last) > BEGINNING * rate(before_last, last_but_one) {
            return Change::None;
        }
        let mut rate_now = rate(before_last, last);
        let mut wanted = if working == 1 { FIRST_STEP } else { working * 2 };
        if let Some((count, before)) = self.before {
            let ratio = working as f64 / count as f64;
            let each_helps = |rate: f64| rate / before.max(1.0) > SHARE * ratio;
            if !each_helps(rate_now) {
                if measured < window {
                    return Change::None;
                }
                rate_now = rate(first, last);
            }
            let gain = rate_now / before.max(1.0);
            // A step from one connection is not held against the path: what one brings in its beginning is no measure.
            let is_large = ratio > 2.0 && count > 1;
            let is_slower = gain < SLOWER && !is_large;
            if gain < MIN_GAIN && !is_slower {
                self.rest();
                return Change::Leave(count);
            }
            if each_helps(rate_now) {
                // Each connection is held back on its own, so that many more will help.
                wanted = working * 4;
            } else if is_large {
                // Somewhere on this large step the path was full.
                self.rest();
                return Change::Leave((count as f64 * gain).ceil() as usize);
            }
        }
        self.steps.clear();
        let more = wanted.min(MAX_AUTO).saturating_sub(working + building);
        if more == 0 {
            // There are as many as there may be, and a later dip is not their fault.
            self.before = None;
            return Change::None;
        }
        // A route that has stopped is not helped by more of it, and what they take the other routes cannot bring.
        if rate_now <= 0.0 || left as f64 * CHUNK_LEN as f64 / rate_now < MIN_LEFT {
            return Change::None;
        }
        self.before = Some((working, rate_now));
        Change::Add(more)
    }

    /// It is as it should be, for a while: paths change, and a measurement may have been off.
    pub(super) fn rest(&mut self) {
        self.rests_until = Some(Instant::now() + FIRST_REST * 2_u32.pow(self.rests.min(7)));
        self.rests += 1;
        self.before = None;
        self.steps.clear();
    }
}

/// Bytes a second between two steps of a measurement.
fn rate((since, from): (Instant, u64), (until, to): (Instant, u64)) -> f64 {
    to.saturating_sub(from) as f64 / (until - since).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets a path that brings `rate(connections)` bytes a second be looked at for so long; how many it comes to.
    async fn settle(seconds: u64, walk: Duration, rate: impl Fn(usize) -> f64) -> usize {
        let (connections, _) = settle_from(seconds, walk, |n, _| rate(n)).await;
        connections
    }

    /// The same where the rate depends on the seconds since the beginning, too; and the most connections that there were.
    async fn settle_from(seconds: u64, walk: Duration, rate: impl Fn(usize, f64) -> f64) -> (usize, usize) {
        let (mut growth, mut connections, mut came) = (Growth::default(), 1_usize, 0.0);
        let (mut most, begin) = (1, Instant::now());
        for _ in 0..seconds * 4 {
            match growth.look(connections, 0, walk, came as u64, 1 << 20) {
                Change::None => {}
                Change::Add(more) => connections += more,
                Change::Leave(count) => connections = count,
            }
            let tick = Duration::from_millis(250);
            tokio::time::advance(tick).await;
            most = most.max(connections);
            came += rate(connections, begin.elapsed().as_secs_f64()) * tick.as_secs_f64();
        }
        (connections, most)
    }

    #[tokio::test(start_paused = true)]
    async fn connections_grow_while_they_bring_more() {
        let long = Duration::from_millis(90);
        for seconds in [5, 13, 25] {
            assert_eq!(settle(seconds, long, |n| 1e6 * n as f64).await, MAX_AUTO);
            assert_eq!(settle(seconds, long, |n| 1e6 * n.min(4) as f64).await, 4);
            assert_eq!(settle(seconds, long, |_| 1e7).await, 1);
        }
        assert_eq!(settle(100, Duration::from_millis(3), |n| 1e6 * n as f64).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_helps_much_is_seen_soon() {
        assert_eq!(settle(4, Duration::from_millis(90), |n| 1e6 * n as f64).await, MAX_AUTO);
        assert_eq!(settle(6, Duration::from_millis(450), |n| 1e6 * n as f64).await, MAX_AUTO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_most_connections_stay_when_the_path_is_slower_for_a_while() {
        let dip = |seconds: f64| if (8.0..12.0).contains(&seconds) { 0.48 } else { 1.0 };
        let rate = |n: usize, seconds: f64| 1e6 * n as f64 * dip(seconds);
        assert_eq!(settle_from(13, Duration::from_millis(90), rate).await, (MAX_AUTO, MAX_AUTO));
    }

    /// Until the first losses one connection is as fast as many.
    #[tokio::test(start_paused = true)]
    async fn a_beginning_without_losses_is_no_measure() {
        let long = Duration::from_millis(90);
        let lossy = |n: usize, seconds: f64| if seconds < 1.3 { 5e6 } else { 1e6 * n as f64 };
        assert_eq!(settle_from(7, long, lossy).await, (MAX_AUTO, MAX_AUTO));
        // A path that became slower for all.
        let slower = |_, seconds: f64| if seconds < 1.3 { 5e6 } else { 2e6 };
        assert_eq!(settle_from(7, long, slower).await, (4, 8));
    }

    /// One connection that doubles its rate in each quarter of a second until the path is full.
    #[tokio::test(start_paused = true)]
    async fn a_slow_start_is_not_taken_for_a_gain() {
        for full in [1e6, 4e6, 16e6, 64e6] {
            let rate = |_, seconds: f64| (1e5 * 2_f64.powf(seconds * 4.0)).min(full);
            let (connections, most) = settle_from(13, Duration::from_millis(90), rate).await;
            assert_eq!((connections, most), (1, FIRST_STEP), "{full}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_that_has_stopped_gets_no_more() {
        assert_eq!(settle(20, Duration::from_millis(90), |_| 0.0).await, 1);
    }

    /// The handshake of one may be lost again and again; the others tell enough.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_late_is_not_waited_for() {
        let (mut growth, mut connections, mut came) = (Growth::default(), 1_usize, 0);
        for _ in 0..16 {
            let building = usize::from(connections > 1);
            let working = connections - building;
            if let Change::Add(more) =
                growth.look(working, building, Duration::from_millis(90), came, 1 << 20)
            {
                connections += more;
            }
            tokio::time::advance(Duration::from_millis(250)).await;
            came += 250_000 * working as u64;
        }
        assert_eq!(connections, MAX_AUTO);
    }
}
