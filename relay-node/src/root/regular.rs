//! Names that stood for a regular file when they were last looked at.
//!
//! A pipe must not even be opened: its writer would go on and then find nobody there. So the kind of a name is looked at first, and
//! what was a regular file a moment ago is spared that look. Forgetting is harmless; two names that share a place take turns.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// How many names are known.
const PLACES: usize = 16 * 1024;

/// The names, by their hashes.
pub(super) struct Regular {
    hasher: RandomState,
    places: Box<[AtomicU64]>,
}

impl Default for Regular {
    fn default() -> Regular {
        Regular { hasher: RandomState::new(), places: (0..PLACES).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl std::fmt::Debug for Regular {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Regular").finish_non_exhaustive()
    }
}

impl Regular {
    /// The name stands for a regular file.
    pub(super) fn note(&self, name: &[u8]) {
        self.set(name, |hash| hash);
    }

    /// The name stands for something else.
    pub(super) fn forget(&self, name: &[u8]) {
        self.set(name, |_| 0);
    }

    /// Whether it is known to.
    pub(super) fn knows(&self, name: &[u8]) -> bool {
        let hash = self.hash(name);
        self.place(hash).is_some_and(|place| place.load(Ordering::Relaxed) == hash)
    }

    fn set(&self, name: &[u8], value: impl FnOnce(u64) -> u64) {
        let hash = self.hash(name);
        if let Some(place) = self.place(hash) {
            place.store(value(hash), Ordering::Relaxed);
        }
    }

    fn place(&self, hash: u64) -> Option<&AtomicU64> {
        self.places.get(usize::try_from(hash % PLACES as u64).unwrap_or(0))
    }

    /// Never 0, which stands for no name.
    fn hash(&self, name: &[u8]) -> u64 {
        self.hasher.hash_one(name) | 1 << 63
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_was_noted_and_nothing_else() {
        let regular = Regular::default();
        assert!(!regular.knows(b"a"));
        regular.note(b"a");
        assert!(regular.knows(b"a") && !regular.knows(b"b"));
        regular.forget(b"a");
        assert!(!regular.knows(b"a"));
    }
}
