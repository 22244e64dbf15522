//! How many log lines about single requests one peer brings about: a few a second; further ones are left out and counted.
//!
//! A connection's own line in the access log is not among them. What is decided here is only whether a line is written.

use relay_link::shares::counted_as;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines a second, in the long run.
const LINES_A_SECOND: u32 = 20;
/// Lines at once, for a peer that was quiet before.
const BURST: u32 = 200;
/// The most peers that are told apart; others share one budget while there are so many.
const MOST_PEERS: usize = 65_536;
/// From so many on those who have been quiet are looked for and forgotten.
const SWEEP_FROM: usize = 1_024;

/// The budgets of all peers that wrote lately.
#[derive(Debug, Default)]
pub struct LineBudgets {
    peers: Mutex<Peers>,
}

#[derive(Debug, Default)]
struct Peers {
    budgets: HashMap<IpAddr, Arc<Mutex<Budget>>>,
    others: Arc<Mutex<Budget>>,
    sweep_at: usize,
}

/// One peer's budget; without one, as by default, every line is written.
#[derive(Debug, Clone, Default)]
pub struct PeerLines(Option<(IpAddr, Arc<Mutex<Budget>>)>);

#[derive(Debug)]
struct Budget {
    left: u32,
    since: Instant,
    left_out: u64,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { left: BURST, since: Instant::now(), left_out: 0 }
    }
}

impl LineBudgets {
    /// The budget of this peer, which all its connections share.
    #[must_use]
    pub fn of(&self, peer: IpAddr) -> PeerLines {
        let peer = counted_as(peer);
        let mut peers = lock(&self.peers);
        if peers.budgets.len() >= peers.sweep_at.max(SWEEP_FROM) && !peers.budgets.contains_key(&peer) {
            let now = Instant::now();
            peers.budgets.retain(|_, budget| Arc::strong_count(budget) > 1 || !lock(budget).is_full(now));
            peers.sweep_at = peers.budgets.len() * 2;
        }
        let is_known = peers.budgets.contains_key(&peer) || peers.budgets.len() < MOST_PEERS;
        let budget = if is_known { peers.budgets.entry(peer).or_default() } else { &mut peers.others };
        PeerLines(Some((peer, Arc::clone(budget))))
    }
}

impl PeerLines {
    /// Whether one more line may be written. It says before that how many could not be, if there were any.
    #[must_use]
    pub fn may_write(&self) -> bool {
        let Some((_, budget)) = &self.0 else { return true };
        let is_within = lock(budget).take(Instant::now());
        if is_within {
            self.tell();
        }
        is_within
    }

    /// Says how many lines were left out since this was said last.
    pub fn tell(&self) {
        let Some((peer, budget)) = &self.0 else { return };
        let left_out = std::mem::take(&mut lock(budget).left_out);
        if left_out > 0 {
            tracing::info!(%peer, lines = left_out, "further lines about this peer's requests were left out");
        }
    }
}

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let is_within = self.left > 0;
        if is_within {
            self.left -= 1;
        } else {
            self.left_out += 1;
        }
        is_within
    }

    fn refill(&mut self, now: Instant) {
        let each = Duration::from_secs(1) / LINES_A_SECOND;
        let due = now.saturating_duration_since(self.since).as_nanos() / each.as_nanos();
        let due = u32::try_from(due).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(due).min(BURST);
        self.since = if self.left == BURST { now } else { self.since + each * due };
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left == BURST && self.left_out == 0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_lines_a_second_and_the_rest_is_counted() {
        let start = Instant::now();
        let mut budget = Budget { left: BURST, since: start, left_out: 0 };
        let written = |budget: &mut Budget, at: Duration, asked: u32| {
            (0..asked).filter(|_| budget.take(start + at)).count()
        };
        assert_eq!(written(&mut budget, Duration::ZERO, BURST + 30), BURST as usize);
        assert_eq!(std::mem::take(&mut budget.left_out), 30);
        let each = Duration::from_secs(1) / LINES_A_SECOND;
        assert_eq!(written(&mut budget, each - Duration::from_nanos(1), 3), 0);
        assert_eq!(std::mem::take(&mut budget.left_out), 3);
        assert_eq!(written(&mut budget, each, 3), 1);
        assert_eq!(budget.left_out, 2);
        budget.left_out = 0;
        assert!(!budget.is_full(start + Duration::from_secs(1)));
        assert!(budget.is_full(start + Duration::from_secs(60)));
        assert_eq!(written(&mut budget, Duration::from_secs(60), BURST * 2), BURST as usize);
    }

    #[test]
    fn peers_have_budgets_of_their_own_that_outlive_their_connections() {
        let budgets = LineBudgets::default();
        let ip = |number: u32| IpAddr::from(number.to_be_bytes());
        while budgets.of(ip(1)).may_write() {}
        assert!(budgets.of(ip(2)).may_write());
        assert!(PeerLines::default().may_write());
        for number in 0..u32::try_from(SWEEP_FROM).unwrap() * 4 {
            let _ = budgets.of(ip(number + 10));
        }
        assert!(lock(&budgets.peers).budgets.len() <= SWEEP_FROM * 2);
    }
}
