//! One open file as a source of chunks: it reads them, hashes them, and notices when the file is no longer what it was.
//!
//! Everything here may wait for a disk; callers use the blocking pool, but for [`Source::state`], which asks what the
//! system holds in memory anyway.

use super::index::HashIndex;
use crate::platform::{page_cache, positioned};
use crate::root::{FileMeta, ServedFile};
use relay_proto::chunk::{CHUNK_LEN, ChunkState, TRAILER_LEN, Trailer, chunk_len};
use relay_proto::digest::{ChunkHash, ChunkHasher};
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

/// A piece that is read and hashed while it is in the processor's cache, in bytes.
const PIECE: usize = 64 * 1024;

/// An open file whose chunks are wanted.
pub(super) struct Source {
    served: ServedFile,
    /// The latest state that still has the content that was promised.
    promised: Mutex<FileMeta>,
    index: Arc<HashIndex>,
}

/// A chunk, or the rest of one, with its trailer behind it.
pub(super) struct Loaded {
    pub(super) bytes: Vec<u8>,
    pub(super) state: ChunkState,
}

impl Source {
    pub(super) fn new(served: ServedFile, index: Arc<HashIndex>) -> Source {
        let promised = Mutex::new(served.meta);
        Source { served, promised, index }
    }

    /// The file's size in bytes, as promised.
    pub(super) fn size(&self) -> u64 {
        self.served.meta.size
    }

    pub(super) fn file(&self) -> &File {
        &self.served.file
    }

    /// The length of a chunk in bytes, as promised.
    pub(super) fn chunk_len(&self, chunk: u64) -> usize {
        // At most a chunk's 1 MiB, so it fits every usize.
        usize::try_from(chunk_len(self.served.meta.size, chunk)).unwrap_or(0)
    }

    /// Whether the file was left alone for long enough that every further change would show.
    pub(super) fn is_settled(&self) -> bool {
        self.index.is_settled(&self.served.meta.identity)
    }

    /// The chunk's hash, if it was computed before.
    pub(super) fn known(&self, chunk: u64) -> Option<ChunkHash> {
        self.index.get(&self.served.meta.identity, chunk)
    }

    /// Whether the chunk can be sent without waiting for a disk.
    pub(super) fn is_cached(&self, chunk: u64) -> bool {
        page_cache::is_cached(self.file(), chunk * CHUNK_LEN, self.chunk_len(chunk) as u64)
    }

    /// Whether the file still has the content that was promised.
    ///
    /// An unlink moves the change time, too, and takes a link away; the content stays. Any other new change time is a
    /// change, because a writer can set the modification time back. (A writer who does that and unlinks the file between
    /// two looks is not seen; where the hash came from the index, the client sees it.)
    pub(super) fn state(&self) -> ChunkState {
        let now = match self.served.meta_now() {
            Ok(now) => now,
            Err(error) => {
                tracing::warn!(%error, "the state of an open file cannot be had");
                return ChunkState::ReadError;
            }
        };
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        if now.identity == promised.identity {
            return ChunkState::Good;
        }
        let same = |meta: &FileMeta| (meta.size, meta.modified);
        if now.links < promised.links && same(&now) == same(&promised) {
            *promised = now;
            return ChunkState::Good;
        }
        ChunkState::Changed
    }

    /// Reads a chunk without its first `skip` bytes into `buffer`, followed by its trailer. A hash that is `known` is not
    /// computed again; with `skip` it must be known. What cannot be read is zeros.
    pub(super) fn load(&self, chunk: u64, skip: usize, known: Option<ChunkHash>, buffer: Vec<u8>) -> Loaded {
        let mut bytes = buffer;
        let len = self.chunk_len(chunk).saturating_sub(skip);
        bytes.resize(len + TRAILER_LEN, 0);
        let (body, place) = bytes.split_at_mut(len);
        let hash = match known {
            Some(hash) => self.read(chunk * CHUNK_LEN + skip as u64, body).and_then(|()| self.checked(hash)),
            None => self.read_and_hash(chunk, body),
        };
        let trailer = trailer(hash);
        if trailer.state != ChunkState::Good {
            body.fill(0);
        }
        place.copy_from_slice(&trailer.encode());
        Loaded { bytes, state: trailer.state }
    }

    /// The trailer of a chunk whose hash was computed before.
    pub(super) fn known_trailer(&self, chunk: u64) -> Option<Trailer> {
        self.known(chunk).map(|hash| trailer(self.checked(hash)))
    }

    /// The trailer of a chunk, which is read for that.
    pub(super) fn computed_trailer(&self, chunk: u64) -> Trailer {
        trailer(self.hash(chunk))
    }

    /// What stands for a chunk, or the rest of one, that cannot be had: zeros, and a trailer that says why.
    pub(super) fn missing(&self, chunk: u64, skip: usize, state: ChunkState) -> Loaded {
        let mut bytes = vec![0; self.chunk_len(chunk).saturating_sub(skip)];
        bytes.extend_from_slice(&Trailer::bad(state).encode());
        Loaded { bytes, state }
    }

    /// Fills `body` with a chunk's bytes and returns their hash.
    fn read_and_hash(&self, chunk: u64, body: &mut [u8]) -> Result<ChunkHash, ChunkState> {
        let mut hashing = self.start_hashing(chunk);
        for piece in body.chunks_mut(PIECE) {
            self.read(hashing.offset, piece)?;
            hashing.take(piece);
        }
        self.finish_hashing(hashing)
    }

    /// A chunk's hash, without keeping its bytes.
    fn hash(&self, chunk: u64) -> Result<ChunkHash, ChunkState> {
        let mut hashing = self.start_hashing(chunk);
        let mut left = self.chunk_len(chunk);
        let mut buffer = vec![0; left.min(PIECE)];
        while left > 0 {
            buffer.truncate(left);
            self.read(hashing.offset, &mut buffer)?;
            hashing.take(&buffer);
            left -= buffer.len();
        }
        self.finish_hashing(hashing)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ChunkState> {
        match positioned::read_up_to(self.file(), buffer, offset) {
            Ok(read) if read == buffer.len() => Ok(()),
            Ok(_) => Err(ChunkState::Changed),
            Err(error) => {
                tracing::warn!(%error, offset, "an open file cannot be read");
                Err(ChunkState::ReadError)
            }
        }
    }

    fn start_hashing(&self, chunk: u64) -> Hashing {
        Hashing {
            chunk,
            offset: chunk * CHUNK_LEN,
            hasher: ChunkHasher::new(chunk, self.served.meta.size),
            // Asked before the first byte is read, for that is when the content must have been settled.
            is_settled: self.is_settled(),
        }
    }

    fn finish_hashing(&self, hashing: Hashing) -> Result<ChunkHash, ChunkState> {
        let hash = self.checked(hashing.hasher.finish())?;
        if hashing.is_settled {
            self.index.put(&self.served.meta.identity, hashing.chunk, hash);
        }
        Ok(hash)
    }

    /// `hash`, if the file still has the content that was promised.
    fn checked(&self, hash: ChunkHash) -> Result<ChunkHash, ChunkState> {
        match self.state() {
            ChunkState::Good => Ok(hash),
            bad => Err(bad),
        }
    }
}

fn trailer(hash: Result<ChunkHash, ChunkState>) -> Trailer {
    hash.map_or_else(Trailer::bad, |hash| Trailer { state: ChunkState::Good, hash })
}

/// A chunk that is being read and hashed.
struct Hashing {
    chunk: u64,
    /// Where the next piece starts in the file.
    offset: u64,
    hasher: ChunkHasher,
    is_settled: bool,
}

impl Hashing {
    fn take(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
        self.offset += piece.len() as u64;
    }
}
