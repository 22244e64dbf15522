//! What follows a head: chunks with their trailers, or the trailers alone.
//!
//! Into a socket a chunk goes within the kernel, once its hash is known: from the index, or because it was read for that in
//! the blocking pool while the chunk before it was sent. Reading twice costs less than copying: the second time nobody
//! touches the bytes, and a slow reader holds no memory.
//!
//! Otherwise the chunk is read into memory: for a stream that is no plain socket, for a file that changed a moment ago (only then are
//! the bytes that are sent surely those that were hashed), and where sending would wait for a disk. It comes into a large
//! buffer, one chunk ahead of the one that is being written, as long as there are such buffers: all answers share a
//! few ([`super::buffers`]). Without one a chunk is read, hashed and written in small pieces, which is slower and never waits
//! for another reader.

use super::buffers::{Buffer, Buffers};
use super::outlet::Outlet;
use super::source::Source;
use super::{OriginError, OriginRecord};
use relay_proto::chunk::{CHUNK_LEN, ChunkRange, ChunkState, Trailer};
use relay_proto::digest::ChunkHash;
use std::sync::Arc;
use tokio::io::AsyncWrite;
use tokio::task::{JoinHandle, spawn_blocking};

/// Trailers that are known are written together, so many bytes of them at once.
const TRAILER_BATCH: usize = 16 * 1024;
/// What stands for bytes that cannot be had.
static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// Sends the chunks of a range; after a chunk that is not good nothing follows.
pub(super) async fn send_chunks<S: AsyncWrite + Unpin + 'static>(
    outlet: &mut Outlet<'_, S>,
    source: &Arc<Source>,
    buffers: &Arc<Buffers>,
    chunks: ChunkRange,
) -> Result<(), OriginError> {
    let reader = ReadAhead { source, buffers, by_kernel: outlet.can_send_files() };
    let mut next = (!chunks.is_empty()).then(|| reader.start(chunks.first()));
    let mut chunk = chunks.first();
    while let Some(coming) = next.take() {
        let supply = ReadAhead::finish(coming).await;
        if chunk + 1 < chunks.end() {
            next = Some(reader.start(chunk + 1));
        }
        let state = match supply {
            Supply::InFile(hash) => {
                let more_follows = matches!(next, Some(Coming::Here(Supply::InFile(_))));
                send_from_file(outlet, source, chunk, hash, more_follows).await?
            }
            Supply::InMemory(buffer, state) => {
                outlet.write_all(&buffer.bytes).await?;
                state
            }
            Supply::InPieces(known) => send_in_pieces(outlet, source, chunk, 0, known).await?,
            Supply::Missing(state) => send_missing(outlet, source.chunk_len(chunk), state).await?,
        };
        if state != ChunkState::Good {
            note_broken(outlet.record, state);
            break;
        }
        chunk += 1;
    }
    Ok(())
}

/// Sends the trailers of a range's chunks as their hashes are known or computed; after one that is not good nothing follows.
pub(super) async fn send_hashes<S: AsyncWrite + Unpin + 'static>(
    outlet: &mut Outlet<'_, S>,
    source: &Arc<Source>,
    chunks: ChunkRange,
) -> Result<(), OriginError> {
    let mut pending = Vec::new();
    for chunk in chunks.first()..chunks.end() {
        let trailer = if let Some(trailer) = source.known_trailer(chunk) {
            trailer
        } else {
            // Computing takes a while, in which the client should see what is there already.
            outlet.write_all(&pending).await?;
            pending.clear();
            let job = Arc::clone(source);
            let done = spawn_blocking(move || job.computed_trailer(chunk)).await;
            done.unwrap_or_else(|_| Trailer::bad(ChunkState::ReadError))
        };
        pending.extend_from_slice(&trailer.encode());
        if trailer.state != ChunkState::Good {
            note_broken(outlet.record, trailer.state);
            break;
        }
        if pending.len() >= TRAILER_BATCH {
            outlet.write_all(&pending).await?;
            pending.clear();
        }
    }
    outlet.write_all(&pending).await
}

/// Notes that an answer ended early.
pub(super) fn note_broken(record: &mut OriginRecord, state: ChunkState) {
    record.broken_bodies += 1;
    let reason = if state == ChunkState::Changed { "changed" } else { "could not be read" };
    tracing::warn!("a file {reason} while it was sent; the client was told");
}

/// Sends a chunk within the kernel; what the kernel does not send is read and written. With `more_follows` the next chunk is
/// ready to be sent.
async fn send_from_file<S: AsyncWrite + Unpin + 'static>(
    outlet: &mut Outlet<'_, S>,
    source: &Arc<Source>,
    chunk: u64,
    hash: ChunkHash,
    more_follows: bool,
) -> Result<ChunkState, OriginError> {
    let len = source.chunk_len(chunk);
    let sent = outlet.send_file(source.file(), chunk * CHUNK_LEN, len).await?;
    if sent < len {
        return send_in_pieces(outlet, source, chunk, sent, Some(hash)).await;
    }
    let state = source.state();
    if state == ChunkState::Good && more_follows {
        outlet.write_before_more(&Trailer { state, hash }.encode()).await?;
        return Ok(state);
    }
    let trailer = if state == ChunkState::Good { Trailer { state, hash } } else { Trailer::bad(state) };
    outlet.write_all(&trailer.encode()).await?;
    Ok(state)
}

/// Reads, hashes and sends a chunk without its first `skip` bytes, a piece at a time. With `skip` its hash must be `known`.
async fn send_in_pieces<S: AsyncWrite + Unpin + 'static>(
    outlet: &mut Outlet<'_, S>,
    source: &Arc<Source>,
    chunk: u64,
    skip: usize,
    known: Option<ChunkHash>,
) -> Result<ChunkState, OriginError> {
    let mut progress = source.begin(chunk, skip, known);
    let mut piece = Vec::new();
    while progress.left() > 0 {
        let left = progress.left();
        let job = Arc::clone(source);
        let read = spawn_blocking(move || job.read_piece(progress, piece)).await;
        // A job that panicked says nothing about the file; the client is told that it could not be read.
        let read = read.unwrap_or(Err(ChunkState::ReadError));
        (progress, piece) = match read {
            Ok((progress, piece)) => (progress, piece),
            Err(state) => return send_missing(outlet, left, state).await,
        };
        outlet.write_all(&piece).await?;
    }
    let trailer = source.end(progress);
    outlet.write_all(&trailer.encode()).await?;
    Ok(trailer.state)
}

/// What stands for the last `len` bytes of a chunk that cannot be had: zeros, and a trailer that says why.
async fn send_missing<S: AsyncWrite + Unpin + 'static>(
    outlet: &mut Outlet<'_, S>,
    len: usize,
    state: ChunkState,
) -> Result<ChunkState, OriginError> {
    let mut left = len;
    while left > 0 {
        let zeros = ZEROS.get(..left).unwrap_or(&ZEROS);
        outlet.write_all(zeros).await?;
        left -= zeros.len();
    }
    outlet.write_all(&Trailer::bad(state).encode()).await?;
    Ok(state)
}

/// Where a chunk's bytes are when it is its turn.
enum Supply {
    /// In the page cache, and this is their hash.
    InFile(ChunkHash),
    /// Here, with the trailer behind them.
    InMemory(Buffer, ChunkState),
    /// In the file still. The hash may be known.
    InPieces(Option<ChunkHash>),
    /// Nowhere.
    Missing(ChunkState),
}

/// A chunk on its way.
enum Coming {
    /// Nothing is left to do.
    Here(Supply),
    Hashing(JoinHandle<Trailer>),
    Loading(JoinHandle<(Buffer, ChunkState)>),
}

/// Gets chunks ready, one ahead of the one that is being sent.
struct ReadAhead<'a> {
    source: &'a Arc<Source>,
    buffers: &'a Arc<Buffers>,
    by_kernel: bool,
}

impl ReadAhead<'_> {
    fn start(&self, chunk: u64) -> Coming {
        let known = self.source.known(chunk);
        match known {
            Some(hash) if self.by_kernel && self.source.is_cached(chunk) => {
                Coming::Here(Supply::InFile(hash))
            }
            None if self.by_kernel && self.source.is_settled() => Coming::Hashing(self.hash(chunk)),
            known => match self.buffers.try_take() {
                Some(buffer) => Coming::Loading(self.load(chunk, known, buffer)),
                None => Coming::Here(Supply::InPieces(known)),
            },
        }
    }

    async fn finish(coming: Coming) -> Supply {
        // A job that panicked says nothing about the file; the client is told that it could not be read.
        match coming {
            Coming::Here(supply) => supply,
            Coming::Loading(job) => match job.await {
                Ok((buffer, state)) => Supply::InMemory(buffer, state),
                Err(_) => Supply::Missing(ChunkState::ReadError),
            },
            Coming::Hashing(job) => match job.await {
                Ok(Trailer { state: ChunkState::Good, hash }) => Supply::InFile(hash),
                Ok(bad) => Supply::Missing(bad.state),
                Err(_) => Supply::Missing(ChunkState::ReadError),
            },
        }
    }

    fn hash(&self, chunk: u64) -> JoinHandle<Trailer> {
        let source = Arc::clone(self.source);
        spawn_blocking(move || source.computed_trailer(chunk))
    }

    fn load(
        &self,
        chunk: u64,
        known: Option<ChunkHash>,
        mut buffer: Buffer,
    ) -> JoinHandle<(Buffer, ChunkState)> {
        let source = Arc::clone(self.source);
        spawn_blocking(move || {
            let state = source.load(chunk, known, &mut buffer.bytes);
            (buffer, state)
        })
    }
}
