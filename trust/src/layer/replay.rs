//! When a layer may be used, and that it is used once.
//!
//! A layer is good for a short time around its stamp, and for that long it is remembered. Each `who` has a bounded share of the
//! memory: one that is full refuses, so nobody can make a node forget what others sent. The caller gives the time, appends what
//! was admitted to a file before he dials on, and reads that file when he starts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// How far a client's clock and a node's may differ.
pub const ALLOWED_DIFFERENCE: Duration = Duration::from_secs(120);

/// A layer that was admitted. Its line in the file: until when it is remembered (seconds since 1970), its hash, whose it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    until: u64,
    hash: [u8; 32],
    who: String,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.until, blake3::Hash::from_bytes(self.hash).to_hex(), self.who)
    }
}

impl FromStr for Seen {
    type Err = SeenError;

    fn from_str(line: &str) -> Result<Seen, SeenError> {
        let mut fields = line.splitn(3, ' ');
        let mut field = || fields.next().ok_or(SeenError);
        let until = field()?.parse().map_err(|_| SeenError)?;
        let hash = blake3::Hash::from_hex(field()?).map_err(|_| SeenError)?;
        let who = field()?.to_owned();
        Ok(Seen { until, hash: *hash.as_bytes(), who })
    }
}

/// A line that is none: the last one may have been cut by a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a line of seen layers")]
pub struct SeenError;

/// The layers that were admitted and could come again.
#[derive(Debug)]
pub struct Replays {
    share: usize,
    hashes: HashSet<[u8; 32]>,
    /// In the order in which they are forgotten.
    ends: BTreeMap<(u64, [u8; 32]), String>,
    shares: HashMap<String, usize>,
    /// What was stamped so early may have been forgotten already. It never goes back, even when the clock does.
    forgotten: u64,
}

/// Why a layer is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// It came before.
    #[error("the layer was used before")]
    Again,
    /// It may have come before.
    #[error("the layer is older than this node's memory; was its clock set back?")]
    Forgotten,
    /// Too many of this `who`'s layers are remembered.
    #[error("too many connections of the same caller within a few minutes; wait a little")]
    Full,
}

impl Replays {
    /// A memory that keeps at most `share` layers of each `who`.
    #[must_use]
    pub fn new(share: usize) -> Replays {
        Replays { share, hashes: HashSet::new(), ends: BTreeMap::new(), shares: HashMap::new(), forgotten: 0 }
    }

    /// Takes in what an earlier life admitted. It counts for its `who`'s share.
    pub fn restore(&mut self, seen: Seen) {
        if self.hashes.insert(seen.hash) {
            *self.shares.entry(seen.who.clone()).or_default() += 1;
            self.ends.insert((seen.until, seen.hash), seen.who);
        }
    }

    /// Admits the layer with this hash, stamped `at`, of `who`; once, and only after its signature and the rules held. What this
    /// gives must be on the disk before the next hop is dialled.
    ///
    /// # Errors
    /// When it came before, or that cannot be known.
    pub fn admit(
        &mut self,
        hash: [u8; 32],
        at: u64,
        who: &str,
        now: SystemTime,
    ) -> Result<Seen, ReplayError> {
        self.forget(seconds(now));
        let until = at.saturating_add(2 * ALLOWED_DIFFERENCE.as_secs());
        if until <= self.forgotten {
            return Err(ReplayError::Forgotten);
        }
        if self.hashes.contains(&hash) {
            return Err(ReplayError::Again);
        }
        if self.shares.get(who).is_some_and(|used| *used >= self.share) {
            return Err(ReplayError::Full);
        }
        let seen = Seen { until, hash, who: who.to_owned() };
        self.restore(seen.clone());
        Ok(seen)
    }

    /// What is remembered at this time, so that the file can be written anew without the rest.
    pub fn remembered(&mut self, now: SystemTime) -> impl Iterator<Item = Seen> {
        self.forget(seconds(now));
        self.ends.iter().map(|((until, hash), who)| Seen { until: *until, hash: *hash, who: who.clone() })
    }

    fn forget(&mut self, now: u64) {
        self.forgotten = self.forgotten.max(now);
        while let Some(entry) = self.ends.first_entry() {
            let (until, hash) = *entry.key();
            if until > self.forgotten {
                break;
            }
            let who = entry.remove();
            self.hashes.remove(&hash);
            if let Some(used) = self.shares.get_mut(&who) {
                *used -= 1;
                if *used == 0 {
                    self.shares.remove(&who);
                }
            }
        }
    }
}

/// Why a layer's time is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimeError {
    /// The clocks differ too much, or the layer is old.
    #[error("the client's clock and this node's differ by {} ({})", humantime::format_duration(*difference), if *ahead { "the client's is ahead" } else { "the client's is behind, or the layer is old" })]
    Clock {
        /// By how much.
        difference: Duration,
        /// Whether the client's shows a later time.
        ahead: bool,
    },
    /// It was stamped before the node can be sure to remember.
    #[error("this machine started anew; try again in {wait} seconds")]
    Started {
        /// How long to wait, in seconds.
        wait: u64,
    },
}

/// Whether a layer that was stamped `at` may be used `now`. After the machine started anew, when it may have lost what it had
/// seen, `started` is when; what was stamped before that and the allowed difference is refused.
///
/// # Errors
/// What is wrong with the time, and how long to wait or which clock is off.
pub fn check_time(at: u64, now: SystemTime, started: Option<SystemTime>) -> Result<(), TimeError> {
    let now = seconds(now);
    let difference = Duration::from_secs(at.abs_diff(now));
    if difference > ALLOWED_DIFFERENCE {
        return Err(TimeError::Clock { difference, ahead: at > now });
    }
    if let Some(started) = started {
        let safe = seconds(started).saturating_add(ALLOWED_DIFFERENCE.as_secs());
        if at < safe {
            return Err(TimeError::Started { wait: safe - at });
        }
    }
    Ok(())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_795_824_000;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn hash(number: u8) -> [u8; 32] {
        [number; 32]
    }

    #[test]
    fn a_layer_is_admitted_once_as_long_as_it_could_be_used() {
        let mut replays = Replays::new(10);
        let stamp = START;
        for received in [START - 120, START + 119] {
            let mut replays = Replays::new(10);
            replays.admit(hash(1), stamp, "anna", at(received)).unwrap();
            for again in received..=START + 120 {
                assert_eq!(check_time(stamp, at(again), None), Ok(()));
                assert_eq!(replays.admit(hash(1), stamp, "ben", at(again)), Err(ReplayError::Again));
            }
            assert!(check_time(stamp, at(START + 121), None).is_err());
        }
        replays.admit(hash(1), stamp, "anna", at(START)).unwrap();
        assert_eq!(replays.remembered(at(START + 239)).count(), 1);
        assert_eq!(replays.remembered(at(START + 240)).count(), 0);
    }

    #[test]
    fn a_full_share_refuses_and_forgets_nothing() {
        let mut replays = Replays::new(2);
        replays.admit(hash(1), START, "anna", at(START)).unwrap();
        for number in 2..100 {
            let _ = replays.admit(hash(number), START, "flood", at(START));
        }
        assert_eq!(replays.admit(hash(100), START, "flood", at(START)), Err(ReplayError::Full));
        assert_eq!(replays.admit(hash(1), START, "anna", at(START)), Err(ReplayError::Again));
        replays.admit(hash(101), START, "anna", at(START)).unwrap();
        assert_eq!(replays.remembered(at(START)).count(), 4);
        // Its share is its own again when it could not be replayed any more.
        replays.admit(hash(102), START + 240, "flood", at(START + 240)).unwrap();
    }

    #[test]
    fn another_life_remembers() {
        let mut before = Replays::new(10);
        let seen = before.admit(hash(1), START, "anna", at(START)).unwrap();
        before.admit(hash(2), START, "a b", at(START)).unwrap();
        let file: String = before.remembered(at(START)).map(|seen| format!("{seen}\n")).collect();
        assert_eq!(seen.to_string().parse(), Ok(seen));
        let mut after = Replays::new(1);
        for line in file.lines() {
            after.restore(line.parse().unwrap());
        }
        assert_eq!(after.admit(hash(1), START, "anna", at(START + 9)), Err(ReplayError::Again));
        assert_eq!(after.admit(hash(3), START, "anna", at(START + 9)), Err(ReplayError::Full));
        for cut in 0..file.lines().next().unwrap().len() - 5 {
            assert_eq!(file[..cut].parse::<Seen>(), Err(SeenError), "{cut}");
        }
    }

    /// A clock that was set forward made the node forget; when it is set back, what was forgotten must not come again.
    #[test]
    fn a_clock_that_goes_back_lets_nothing_in_again() {
        let mut replays = Replays::new(10);
        replays.admit(hash(1), START, "anna", at(START)).unwrap();
        assert_eq!(replays.remembered(at(START + 3600)).count(), 0);
        assert_eq!(replays.admit(hash(1), START, "anna", at(START + 5)), Err(ReplayError::Forgotten));
    }

    #[test]
    fn the_error_names_the_difference_or_the_wait() {
        assert_eq!(check_time(START, at(START - 120), None), Ok(()));
        assert_eq!(check_time(START, at(START + 120), None), Ok(()));
        let off = |stamp| check_time(stamp, at(START), None).unwrap_err().to_string();
        assert_eq!(
            off(START + 3600),
            "the client's clock and this node's differ by 1h (the client's is ahead)"
        );
        assert_eq!(
            off(START - 125),
            "the client's clock and this node's differ by 2m 5s (the client's is behind, or the layer is old)"
        );
        off(u64::MAX);
        off(0);
        let started = Some(at(START - 100));
        let wait = check_time(START, at(START), started);
        assert_eq!(wait, Err(TimeError::Started { wait: 20 }));
        assert_eq!(check_time(START + 20, at(START + 20), started), Ok(()));
    }
}
