//! Which chunks are in their place.

use crate::journal::Entry;
use relay_proto::chunk::{chunk_count, chunk_len};
use relay_proto::digest::ChunkHash;
use std::ops::Range;

/// Which chunks are in their place, verified and written, with their hashes; zeros stand for those that are not. Grows with the
/// chunks that came, not with the size that was claimed.
#[derive(Default)]
pub(super) struct Placed {
    hashes: Vec<ChunkHash>,
    count: u64,
}

impl Placed {
    pub(super) fn set(&mut self, index: u64, hash: ChunkHash) {
        let Ok(at) = usize::try_from(index) else { return };
        if self.hashes.len() <= at {
            self.hashes.resize(at + 1, ChunkHash::ZERO);
        }
        if let Some(slot) = self.hashes.get_mut(at) {
            self.count += u64::from(*slot == ChunkHash::ZERO);
            *slot = hash;
        }
    }

    pub(super) fn has(&self, index: u64) -> bool {
        let hash = usize::try_from(index).ok().and_then(|index| self.hashes.get(index));
        hash.is_some_and(|hash| *hash != ChunkHash::ZERO)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn is_whole(&self, size: u64) -> bool {
        self.count == chunk_count(size) && self.hashes.len() as u64 == self.count
    }

    /// The hashes of all chunks, once all are there.
    pub(super) fn hashes(&self) -> &[ChunkHash] {
        &self.hashes
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        let all = (0_u64..).zip(self.hashes.iter().copied());
        all.filter(|(_, hash)| *hash != ChunkHash::ZERO).collect()
    }

    pub(super) fn bytes(&self, size: u64) -> u64 {
        self.entries().iter().map(|(index, _)| chunk_len(size, *index)).sum()
    }

    /// The runs of chunks of a file of `size` bytes that are not in their place.
    pub(super) fn missing(&self, size: u64) -> Vec<Range<u64>> {
        let mut runs = Vec::new();
        let mut from = 0;
        for (index, _) in self.entries() {
            runs.push(from..index);
            from = index + 1;
        }
        runs.push(from..chunk_count(size));
        runs.retain(|run| !run.is_empty());
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_proto::chunk::CHUNK_LEN;

    #[test]
    fn what_is_missing() {
        let size = 6 * CHUNK_LEN + 1;
        let mut placed = Placed::default();
        assert_eq!(placed.missing(size), std::slice::from_ref(&(0..7)));
        let hash = ChunkHash::from_bytes([1; 32]);
        for (index, expected) in [(3, vec![0..3, 4..7]), (0, vec![1..3, 4..7]), (6, vec![1..3, 4..6])] {
            placed.set(index, hash);
            assert_eq!(placed.missing(size), expected);
        }
        assert_eq!(placed.bytes(size), 2 * CHUNK_LEN + 1);
        assert!(!placed.is_whole(size));
        (0..7).for_each(|index| placed.set(index, hash));
        assert!(placed.is_whole(size) && placed.missing(size).is_empty());
        assert!(Placed::default().is_whole(0));
    }
}
