//! Chunks: which bytes of a file belong to which, and what follows each chunk on the wire.

use crate::digest::ChunkHash;
use crate::limits::MAX_SIZE;
use serde::{Deserialize, Serialize};

pub use crate::limits::CHUNK_LEN;

/// How many chunks a file of `size` bytes has: none when it is empty.
#[must_use]
pub fn chunk_count(size: u64) -> u64 {
    size.div_ceil(CHUNK_LEN)
}

/// The length of chunk `index` of a file of `size` bytes; 0 beyond its end.
#[must_use]
pub fn chunk_len(size: u64, index: u64) -> u64 {
    size.saturating_sub(index.saturating_mul(CHUNK_LEN)).min(CHUNK_LEN)
}

/// Chunks `first` to `end`, the last one excluded; never backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkRange {
    first: u64,
    end: u64,
}

impl ChunkRange {
    /// All chunks of a file of `size` bytes.
    #[must_use]
    pub fn whole(size: u64) -> ChunkRange {
        ChunkRange { first: 0, end: chunk_count(size) }
    }

    /// The chunks from `first` up to but without `end`; `None` when that runs backwards.
    #[must_use]
    pub fn new(first: u64, end: u64) -> Option<ChunkRange> {
        (first <= end).then_some(ChunkRange { first, end })
    }

    /// The first chunk.
    #[must_use]
    pub fn first(self) -> u64 {
        self.first
    }

    /// The chunk after the last one.
    #[must_use]
    pub fn end(self) -> u64 {
        self.end
    }

    /// How many chunks.
    #[must_use]
    pub fn len(self) -> u64 {
        self.end - self.first
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.first == self.end
    }

    /// How many bytes of a file of `size` bytes these chunks hold.
    #[must_use]
    pub fn bytes(self, size: u64) -> u64 {
        let at = |chunk: u64| chunk.saturating_mul(CHUNK_LEN).min(size);
        at(self.end) - at(self.first)
    }
}

/// A range as a request asks for it: from chunk `first`, up to but without chunk `end` or to the end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedRange {
    /// The first chunk.
    pub first: u64,
    /// The chunk after the last one; none: all to the end. More than the file has means the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
}

impl AskedRange {
    /// The chunks of a file of `size` bytes that this asks for, or `None` when it asks for nothing that is there.
    #[must_use]
    pub fn of(self, size: u64) -> Option<ChunkRange> {
        let count = chunk_count(size);
        let end = self.end.unwrap_or(count).min(count);
        (self.first < end).then_some(ChunkRange { first: self.first, end })
    }
}

/// Whether the origin could keep its promise for a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkState {
    /// The bytes are the file's and the hash is theirs.
    Good,
    /// The file changed while it was sent: the chunk's bytes mean nothing, and nothing follows them.
    Changed,
    /// The origin could not read: the chunk's bytes mean nothing, and nothing follows them.
    ReadError,
}

/// What follows each chunk's bytes: one byte of state and 32 of hash. The hash of a chunk that is not good is all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Whether the chunk is good.
    pub state: ChunkState,
    /// The chunk's hash.
    pub hash: ChunkHash,
}

/// Bytes of a [`Trailer`].
pub const TRAILER_LEN: usize = 33;

impl Trailer {
    /// The trailer of a chunk that cannot be had.
    #[must_use]
    pub fn bad(state: ChunkState) -> Trailer {
        Trailer { state, hash: ChunkHash::ZERO }
    }

    /// The trailer's bytes.
    #[must_use]
    pub fn encode(self) -> [u8; TRAILER_LEN] {
        let mut bytes = [0; TRAILER_LEN];
        let (state, hash) = bytes.split_at_mut(1);
        state.copy_from_slice(&[match self.state {
            ChunkState::Good => 0,
            ChunkState::Changed => 1,
            ChunkState::ReadError => 2,
        }]);
        hash.copy_from_slice(self.hash.as_bytes());
        bytes
    }

    /// Reads a trailer.
    ///
    /// # Errors
    /// The state byte, when it is none.
    pub fn decode(bytes: &[u8; TRAILER_LEN]) -> Result<Trailer, u8> {
        let [state, hash @ ..] = *bytes;
        let state = match state {
            0 => ChunkState::Good,
            1 => ChunkState::Changed,
            2 => ChunkState::ReadError,
            other => return Err(other),
        };
        Ok(Trailer { state, hash: ChunkHash::from_bytes(hash) })
    }
}

const _: () = assert!(MAX_SIZE / CHUNK_LEN < u64::MAX / CHUNK_LEN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometry() {
        for (size, count, last) in [
            (0, 0, 0),
            (1, 1, 1),
            (CHUNK_LEN - 1, 1, CHUNK_LEN - 1),
            (CHUNK_LEN, 1, CHUNK_LEN),
            (CHUNK_LEN + 1, 2, 1),
            (MAX_SIZE, 1 << 33, CHUNK_LEN - 1),
        ] {
            assert_eq!(chunk_count(size), count);
            if count > 0 {
                assert_eq!(chunk_len(size, count - 1), last);
            }
            assert_eq!(chunk_len(size, count), 0);
            assert_eq!(ChunkRange::whole(size).bytes(size), size);
        }
    }

    #[test]
    fn asked_ranges() {
        let size = 3 * CHUNK_LEN + 5;
        let ask = |first, end| AskedRange { first, end }.of(size);
        assert_eq!(ask(0, None), Some(ChunkRange::whole(size)));
        assert_eq!(ask(1, Some(3)).map(|r| r.bytes(size)), Some(2 * CHUNK_LEN));
        assert_eq!(ask(3, Some(u64::MAX)).map(|r| r.bytes(size)), Some(5));
        assert_eq!(ask(4, None), None);
        assert_eq!(ask(2, Some(2)), None);
        assert_eq!(ask(u64::MAX, None), None);
        assert_eq!(AskedRange { first: 0, end: None }.of(0), None);
    }

    #[test]
    fn trailers() {
        for state in [ChunkState::Good, ChunkState::Changed, ChunkState::ReadError] {
            let trailer = Trailer { state, hash: ChunkHash::from_bytes([7; 32]) };
            assert_eq!(Trailer::decode(&trailer.encode()), Ok(trailer));
        }
        assert_eq!(Trailer::decode(&[3; TRAILER_LEN]), Err(3));
    }
}
