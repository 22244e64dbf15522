//! Which keys have answers that no two requests could share, so that nobody waits for another's fetch in vain. (Varnish
//! calls it "hit-for-miss".) It is remembered for [`REMEMBERED`], of the [`MOST_KEYS`] keys that were asked for of late, and
//! forgotten as soon as an answer can be shared.

use super::key::{Key, KeyId};
use quick_cache::sync::Cache as Lately;
use std::time::{Duration, SystemTime};

/// For how long it is believed.
pub const REMEMBERED: Duration = Duration::from_secs(120);

/// Of how many keys.
pub const MOST_KEYS: usize = 8192;

/// Why an answer is for one request only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It may not, or cannot, be kept.
    NotKept,
    /// It is kept, and confirmed for each request.
    NotFresh,
}

/// What is remembered.
#[derive(Debug)]
pub struct Unshared {
    keys: Lately<KeyId, (Why, SystemTime)>,
}

impl Default for Unshared {
    fn default() -> Self {
        Self { keys: Lately::new(MOST_KEYS) }
    }
}

impl Unshared {
    /// Notes what became of a key's latest answer; `None`: it can be shared.
    pub fn note(&self, key: &Key, why: Option<Why>, now: SystemTime) {
        match why {
            Some(why) => self.keys.insert(key.id(), (why, now)),
            None => drop(self.keys.remove(&key.id())),
        }
    }

    /// Why nobody should wait for another's fetch of this key.
    pub fn why(&self, key: &Key, now: SystemTime) -> Option<Why> {
        let (why, since) = self.keys.get(&key.id())?;
        // A clock that was set back makes nothing last longer.
        now.duration_since(since).is_ok_and(|past| past < REMEMBERED).then_some(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_forgotten_after_a_while_or_when_it_is_no_longer_true() {
        let (unshared, key, start) =
            (Unshared::default(), Key::new("http://a/"), SystemTime::UNIX_EPOCH + REMEMBERED);
        unshared.note(&key, Some(Why::NotKept), start);
        assert_eq!(unshared.why(&key, start), Some(Why::NotKept));
        assert_eq!(unshared.why(&Key::new("http://b/"), start), None);
        assert_eq!(unshared.why(&key, start + REMEMBERED), None);
        assert_eq!(unshared.why(&key, start - REMEMBERED), None, "the clock was set back");
        unshared.note(&key, None, start);
        assert_eq!(unshared.why(&key, start), None);
    }

    #[test]
    fn it_stays_bounded() {
        let unshared = Unshared::default();
        for number in 0..3 * MOST_KEYS {
            unshared.note(&Key::new(number.to_string()), Some(Why::NotFresh), SystemTime::UNIX_EPOCH);
        }
        assert!(unshared.keys.len() <= MOST_KEYS);
    }
}
