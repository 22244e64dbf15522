//! Hashes of chunks and of files, by BLAKE3.
//!
//! A chunk of 1 MiB is an aligned subtree of BLAKE3's tree, and its hash is that subtree's chaining value; the chunks'
//! hashes therefore merge into the file's hash, which is what `b3sum` prints. The only chunk of a file that has just
//! one has the file's hash itself, and an empty file has no chunk. (The BLAKE3 paper, sections 2.1 and 2.4.)

use crate::limits::CHUNK_LEN;
use alloc::string::String;
use alloc::vec::Vec;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// The hash of one chunk. Where it stands in its file is part of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkHash([u8; 32]);

impl ChunkHash {
    /// All zeros: stands where there is no hash.
    pub const ZERO: ChunkHash = ChunkHash([0; 32]);

    /// A hash from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> ChunkHash {
        ChunkHash(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash of `chunk`, which is number `index` of a file of `file_size` bytes.
    #[must_use]
    pub fn of(chunk: &[u8], index: u64, file_size: u64) -> ChunkHash {
        let mut hasher = ChunkHasher::new(index, file_size);
        hasher.update(chunk);
        hasher.finish()
    }
}

impl fmt::Debug for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

/// Hashes one chunk piece by piece.
pub struct ChunkHasher {
    hasher: blake3::Hasher,
    is_whole_file: bool,
}

impl ChunkHasher {
    /// A hasher for chunk `index` of a file of `file_size` bytes.
    #[must_use]
    pub fn new(index: u64, file_size: u64) -> ChunkHasher {
        let mut hasher = blake3::Hasher::new();
        // BLAKE3 panics at an offset that is not a multiple of its own chunks, which saturating would come to.
        hasher.set_input_offset(index.min(u64::MAX / CHUNK_LEN) * CHUNK_LEN);
        ChunkHasher { hasher, is_whole_file: index == 0 && file_size <= CHUNK_LEN }
    }

    /// Takes the next bytes of the chunk, which must not be more than it has.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The hash of all bytes taken; of none, wherever they would have stood, the hash of the empty file.
    #[must_use]
    pub fn finish(self) -> ChunkHash {
        // No chunk is empty, but the file may have been cut since its size was read. BLAKE3 has no chaining value for
        // an empty subtree and no root beyond the beginning, and panics when it is asked for one.
        if self.hasher.count() == 0 {
            return ChunkHash(*blake3::hash(&[]).as_bytes());
        }
        if self.is_whole_file {
            return ChunkHash(*self.hasher.finalize().as_bytes());
        }
        ChunkHash(self.hasher.finalize_non_root())
    }
}

/// The hash of a whole file: what `b3sum` prints. Its text form is `b3:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileHash([u8; 32]);

impl FileHash {
    /// A hash from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> FileHash {
        FileHash(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash of the file whose chunks have these hashes, in order.
    #[must_use]
    pub fn of_chunks(hashes: &[ChunkHash]) -> FileHash {
        match hashes {
            [] => FileHash(*blake3::hash(&[]).as_bytes()),
            [only] => FileHash(only.0),
            _ => FileHash(merge(hashes)),
        }
    }

    /// The 64 hex digits alone, as `b3sum` prints them.
    #[must_use]
    pub fn to_hex(self) -> String {
        String::from(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

/// Merges at least two chunks' hashes into the root. Each level pairs neighbours, and one left over goes up unchanged; that is
/// BLAKE3's tree, whose left subtrees are full, and needs no recursion.
fn merge(hashes: &[ChunkHash]) -> [u8; 32] {
    let mut level: Vec<[u8; 32]> = hashes.iter().map(|hash| hash.0).collect();
    loop {
        if let [left, right] = level.as_slice() {
            return *merge_subtrees_root(left, right, Mode::Hash).as_bytes();
        }
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => merge_subtrees_non_root(left, right, Mode::Hash),
                [alone, ..] => *alone,
                [] => [0; 32],
            })
            .collect();
    }
}

impl fmt::Display for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b3:{}", self.to_hex())
    }
}

impl fmt::Debug for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a file's hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a hash is written b3: and 64 hex digits, as in b3:af1349b9…")]
pub struct HashTextError;

impl FromStr for FileHash {
    type Err = HashTextError;

    fn from_str(text: &str) -> Result<FileHash, HashTextError> {
        let hex = text.strip_prefix("b3:").ok_or(HashTextError)?;
        blake3::Hash::from_hex(hex).map(|hash| FileHash(*hash.as_bytes())).map_err(|_| HashTextError)
    }
}

impl TryFrom<String> for FileHash {
    type Error = HashTextError;

    fn try_from(text: String) -> Result<FileHash, HashTextError> {
        text.parse()
    }
}

impl From<FileHash> for String {
    fn from(hash: FileHash) -> String {
        alloc::format!("{hash}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes by chunks and as a whole; both must agree.
    fn check(size: usize) {
        let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let hashes: Vec<ChunkHash> = bytes
            .chunks(CHUNK_LEN as usize)
            .enumerate()
            .map(|(index, chunk)| ChunkHash::of(chunk, index as u64, size as u64))
            .collect();
        assert_eq!(FileHash::of_chunks(&hashes).as_bytes(), blake3::hash(&bytes).as_bytes(), "{size} bytes");
    }

    #[test]
    fn chunk_hashes_merge_into_blake3() {
        let mib = CHUNK_LEN as usize;
        for size in [
            0,
            1,
            1024,
            mib - 1,
            mib,
            mib + 1,
            2 * mib,
            2 * mib + 1,
            3 * mib,
            4 * mib + 7,
            5 * mib,
            7 * mib + 1,
        ] {
            check(size);
        }
    }

    /// A file may be cut short while it is read, and a peer may name any place; neither may panic.
    #[test]
    fn every_place_has_a_hash() {
        let empty = ChunkHash(*blake3::hash(&[]).as_bytes());
        for index in [0, 1, 2, 1 << 33, u64::MAX / CHUNK_LEN, u64::MAX / CHUNK_LEN + 1, u64::MAX] {
            for file_size in [0, 1, CHUNK_LEN, CHUNK_LEN + 1, crate::limits::MAX_SIZE, u64::MAX] {
                assert_eq!(ChunkHash::of(&[], index, file_size), empty, "chunk {index} of {file_size}");
                assert_ne!(ChunkHash::of(b"x", index, file_size), empty, "chunk {index} of {file_size}");
            }
        }
    }

    #[test]
    fn text_form() {
        let hash = FileHash::of_chunks(&[]);
        assert_eq!(
            alloc::format!("{hash}"),
            "b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        assert_eq!(alloc::format!("{hash}").parse(), Ok(hash));
        for bad in ["", "b3:", "af13", "b3:zz", "sha256:00"] {
            assert_eq!(bad.parse::<FileHash>(), Err(HashTextError));
        }
    }
}
