//! Places beneath the document root that did not answer: a mount whose server is gone holds every thread that looks into it.
//! So a place is remembered for a while, and whoever asks for something in there is told at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a place is left alone after something there did not answer.
const LEFT_ALONE: Duration = Duration::from_secs(30);
/// The most places that are remembered; the oldest are forgotten.
const MOST_PLACES: usize = 64;

/// The places that do not answer.
#[derive(Debug, Default)]
pub(super) struct Hung {
    /// Whether there may be any, so that nobody has to wait for the lock as long as all is well.
    any: AtomicBool,
    places: Mutex<Vec<Place>>,
}

#[derive(Debug)]
struct Place {
    path: Vec<u8>,
    until: Instant,
}

impl Hung {
    /// Remembers a place. Never the document root itself: one slow look would take everything away.
    pub(super) fn note(&self, path: &[u8]) {
        if path.is_empty() {
            return;
        }
        let mut places = self.places();
        places.retain(|place| !is_beneath_or_at(&place.path, path));
        if places.len() >= MOST_PLACES {
            places.remove(0);
        }
        places.push(Place { path: path.to_owned(), until: Instant::now() + LEFT_ALONE });
        self.any.store(true, Ordering::Release);
    }

    /// The place has answered after all.
    pub(super) fn forget(&self, path: &[u8]) {
        self.places().retain(|place| place.path != path);
    }

    /// The remembered place in which a name lies.
    pub(super) fn find(&self, name: &[u8]) -> Option<Vec<u8>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let now = Instant::now();
        let mut places = self.places();
        places.retain(|place| place.until > now);
        self.any.store(!places.is_empty(), Ordering::Release);
        places.iter().find(|place| is_beneath_or_at(name, &place.path)).map(|place| place.path.clone())
    }

    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_beneath_or_at(name: &[u8], place: &[u8]) -> bool {
    name.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_hung_place_is_known_and_nothing_else() {
        let hung = Hung::default();
        assert_eq!(hung.find(b"a/b"), None);
        hung.note(b"");
        hung.note(b"a/b/c");
        hung.note(b"a/b");
        for name in ["a/b", "a/b/c", "a/b/c/d"] {
            assert_eq!(hung.find(name.as_bytes()).as_deref(), Some(&b"a/b"[..]), "{name}");
        }
        for name in ["a", "a/bc", "b/a/b", ""] {
            assert_eq!(hung.find(name.as_bytes()), None, "{name}");
        }
        hung.forget(b"a/b");
        assert_eq!(hung.find(b"a/b/c"), None);
    }

    #[test]
    fn only_so_many_are_kept_and_only_for_a_while() {
        let hung = Hung::default();
        for number in 0..MOST_PLACES + 1 {
            hung.note(format!("{number}").as_bytes());
        }
        assert_eq!((hung.find(b"0"), hung.places().len()), (None, MOST_PLACES));
        assert!(hung.find(b"1").is_some());
        hung.places().iter_mut().for_each(|place| place.until = Instant::now());
        assert_eq!(hung.find(b"1"), None);
        assert!(!hung.any.load(Ordering::Acquire));
    }
}
