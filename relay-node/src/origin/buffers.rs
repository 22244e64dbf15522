//! The large buffers that all answers of a node share: a fixed number, and nobody ever waits for one.
//!
//! A buffer is held while its bytes are written, which with a slow reader takes minutes. If others waited for it, slow readers
//! would hold them up; so who gets none does without, piece by piece (see `body`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Large buffers, unless told otherwise: two each for this many answers at once, which is more than a machine has cores.
const COUNT: usize = 32;
/// Of those that nobody has, so many are kept for the next ones.
const MOST_IDLE: usize = 4;

/// The shared buffers.
#[derive(Debug)]
pub struct Buffers {
    count: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    idle: Vec<Vec<u8>>,
}

/// A buffer for a chunk, which goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers::new(COUNT)
    }
}

impl Buffers {
    /// At most `count` buffers of a chunk each.
    #[must_use]
    pub fn new(count: usize) -> Buffers {
        Buffers { count, state: Mutex::default() }
    }

    /// A buffer with any content, unless all are taken.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Buffer> {
        let mut state = self.state();
        if state.taken >= self.count {
            return None;
        }
        state.taken += 1;
        Some(Buffer { bytes: state.idle.pop().unwrap_or_default(), home: Arc::clone(self) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut state = self.home.state();
        state.taken -= 1;
        if state.idle.len() < MOST_IDLE {
            state.idle.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_and_no_more() {
        let buffers = Arc::new(Buffers::new(6));
        for _ in 0..3 {
            let mut taken: Vec<Buffer> = std::iter::from_fn(|| buffers.try_take()).collect();
            assert_eq!(taken.len(), 6);
            taken.iter_mut().for_each(|buffer| buffer.bytes.resize(100, 1));
            drop(taken.pop());
            assert!(buffers.try_take().is_some_and(|buffer| buffer.bytes.len() == 100));
            drop(taken);
            let state = buffers.state();
            assert_eq!((state.taken, state.idle.len()), (0, MOST_IDLE));
        }
    }
}
