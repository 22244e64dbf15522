//! How often one connection is at this node at the same time.
//!
//! A route may lead through a node more than once, and a small `open` whose hops all name the same node would cost it two
//! descriptors for each of them. All of those carry the id of their connection, so they can be counted. The id proves nothing: who
//! invents one for each visit has to connect for each of them himself.

use relay_proto::hop::ConnectionId;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The connections that are here now.
#[derive(Debug)]
pub struct Visits {
    most: usize,
    here: Mutex<HashMap<ConnectionId, usize>>,
}

/// One visit, which ends when this is dropped.
#[derive(Debug)]
pub struct Visit {
    visits: Arc<Visits>,
    id: ConnectionId,
}

impl Visits {
    /// At most `most` visits of one connection at once.
    #[must_use]
    pub fn new(most: usize) -> Arc<Visits> {
        Arc::new(Visits { most, here: Mutex::default() })
    }

    /// How many there may be.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most
    }

    /// One more visit of this connection, if it may have one.
    #[must_use]
    pub fn enter(self: &Arc<Visits>, id: ConnectionId) -> Option<Visit> {
        let mut here = self.here();
        let count = here.entry(id).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Visit { visits: Arc::clone(self), id })
    }

    fn here(&self) -> MutexGuard<'_, HashMap<ConnectionId, usize>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.visits.here().entry(self.id) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_visits_and_no_memory_of_those_that_are_over() {
        let visits = Visits::new(2);
        let (one, other) = (ConnectionId::new(1), ConnectionId::new(2));
        let held = [visits.enter(one).unwrap(), visits.enter(one).unwrap()];
        assert!(visits.enter(one).is_none());
        assert!(visits.enter(other).is_some());
        drop(held);
        assert!(visits.here().is_empty());
        assert!(visits.enter(one).is_some());
    }
}
