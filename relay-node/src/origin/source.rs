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
    /// What the index holds of the file is not believed.
    anew: bool,
}

impl Source {
    /// `anew`: every chunk is hashed when it is asked for, whatever the index holds.
    pub(super) fn new(served: ServedFile, index: Arc<HashIndex>, anew: bool) -> Source {
        let promised = Mutex::new(served.meta);
        Source { served, promised, index, anew }
    }

    /// Whether every chunk is hashed when it is asked for.
    pub(super) fn is_anew(&self) -> bool {
        self.anew
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
        if self.anew { None } else { self.index.get(&self.served.meta.identity, chunk) }
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

    /// Fills `bytes` with a chunk, followed by its trailer. A hash that is `known` is not computed again. What cannot be read
    /// is zeros.
    pub(super) fn load(&self, chunk: u64, known: Option<ChunkHash>, bytes: &mut Vec<u8>) -> ChunkState {
        let len = self.chunk_len(chunk);
        bytes.resize(len + TRAILER_LEN, 0);
        let (body, place) = bytes.split_at_mut(len);
        let mut progress = self.begin(chunk, 0, known);
        let mut read = Ok(());
        for piece in body.chunks_mut(PIECE) {
            read = read.and_then(|()| self.read_next(&mut progress, piece));
        }
        let trailer = read.map_or_else(Trailer::bad, |()| self.end(progress));
        if trailer.state != ChunkState::Good {
            body.fill(0);
        }
        place.copy_from_slice(&trailer.encode());
        trailer.state
    }

    /// The trailer of a chunk whose hash was computed before.
    pub(super) fn known_trailer(&self, chunk: u64) -> Option<Trailer> {
        self.known(chunk).map(|hash| trailer(self.checked(hash)))
    }

    /// The trailer of a chunk, which is read for that.
    pub(super) fn computed_trailer(&self, chunk: u64) -> Trailer {
        self.hashed(chunk)
    }

    /// Begins to read a chunk from its byte `skip` on. With `skip` its hash must be `known`.
    pub(super) fn begin(&self, chunk: u64, skip: usize, known: Option<ChunkHash>) -> Progress {
        let hash = match known {
            Some(hash) => Hash::Known(hash),
            // Asked before the first byte is read, for that is when the content must have been settled.
            None => Hash::Growing {
                hasher: Box::new(ChunkHasher::new(chunk, self.size())),
                is_settled: self.is_settled(),
            },
        };
        let left = self.chunk_len(chunk).saturating_sub(skip);
        Progress { chunk, offset: chunk * CHUNK_LEN + skip as u64, left, hash }
    }

    /// Reads the next piece into `piece`, which becomes as long as that is.
    pub(super) fn read_piece(
        &self,
        mut progress: Progress,
        mut piece: Vec<u8>,
    ) -> Result<(Progress, Vec<u8>), ChunkState> {
        piece.resize(progress.left.min(PIECE), 0);
        self.read_next(&mut progress, &mut piece)?;
        Ok((progress, piece))
    }

    /// The trailer of a chunk of which everything was read.
    pub(super) fn end(&self, progress: Progress) -> Trailer {
        let chunk = progress.chunk;
        let (hash, is_new) = match progress.hash {
            Hash::Known(hash) => (hash, false),
            Hash::Growing { hasher, is_settled } => (hasher.finish(), is_settled),
        };
        let checked = self.checked(hash);
        if let (Ok(hash), true) = (checked, is_new) {
            self.index.put(&self.served.meta.identity, chunk, hash);
        }
        trailer(checked)
    }

    /// A chunk's hash, without keeping its bytes.
    fn hashed(&self, chunk: u64) -> Trailer {
        let mut progress = self.begin(chunk, 0, None);
        let mut buffer = vec![0; progress.left.min(PIECE)];
        while progress.left > 0 {
            buffer.truncate(progress.left);
            if let Err(bad) = self.read_next(&mut progress, &mut buffer) {
                return Trailer::bad(bad);
            }
        }
        self.end(progress)
    }

    fn read_next(&self, progress: &mut Progress, piece: &mut [u8]) -> Result<(), ChunkState> {
        self.read(progress.offset, piece)?;
        progress.take(piece);
        Ok(())
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

/// A chunk that is being read, and hashed where that is needed.
pub(super) struct Progress {
    chunk: u64,
    /// Where the next piece starts in the file.
    offset: u64,
    left: usize,
    hash: Hash,
}

enum Hash {
    Known(ChunkHash),
    Growing { hasher: Box<ChunkHasher>, is_settled: bool },
}

impl Progress {
    /// Bytes of the chunk that are still to be read.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    fn take(&mut self, piece: &[u8]) {
        if let Hash::Growing { hasher, .. } = &mut self.hash {
            hasher.update(piece);
        }
        self.offset += piece.len() as u64;
        self.left = self.left.saturating_sub(piece.len());
    }
}
