//! What follows a head: chunks with their trailers, or the trailers alone.
//!
//! Into a socket a chunk goes within the kernel, once its hash is known: from the index, or because it was read for that in
//! the blocking pool while the chunk before it was sent. Reading twice costs less than copying: the second time nobody
//! touches the bytes, and a slow reader holds no memory.
//!
//! Otherwise the chunk is read into memory, one ahead of the one that is being written, so that a transfer holds at most two: for
//! a stream that is no plain socket, for a file that changed a moment ago (only then are the bytes that are sent surely those
//! that were hashed), and where sending would wait for a disk.

use super::outlet::Outlet;
use super::source::{Loaded, Source};
use super::{OriginError, OriginRecord};
use relay_proto::chunk::{CHUNK_LEN, ChunkRange, ChunkState, Trailer};
use relay_proto::digest::ChunkHash;
use std::sync::Arc;
use tokio::io::AsyncWrite;
use tokio::task::{JoinHandle, spawn_blocking};

/// Trailers that are known are written together, so many bytes of them at once.
const TRAILER_BATCH: usize = 16 * 1024;

/// Sends the chunks of a range; after a chunk that is not good nothing follows.
pub(super) async fn send_chunks<S: AsyncWrite + Unpin + 'static>(
    outlet: &mut Outlet<'_, S>,
    source: &Arc<Source>,
    chunks: ChunkRange,
) -> Result<(), OriginError> {
    let mut reader = ReadAhead { source, by_kernel: outlet.can_send_files(), spare: Vec::new() };
    let mut next = (!chunks.is_empty()).then(|| reader.start(chunks.first()));
    let mut chunk = chunks.first();
    while let Some(coming) = next.take() {
        let supply = reader.finish(chunk, coming).await;
        if chunk + 1 < chunks.end() {
            next = Some(reader.start(chunk + 1));
        }
        let state = match supply {
            Supply::InFile(hash) => send_from_file(outlet, &mut reader, chunk, hash).await?,
            Supply::InMemory(loaded) => {
                outlet.write_all(&loaded.bytes).await?;
                reader.spare = loaded.bytes;
                loaded.state
            }
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

/// Sends a chunk within the kernel; what the kernel does not send is read and written.
async fn send_from_file<S: AsyncWrite + Unpin + 'static>(
    outlet: &mut Outlet<'_, S>,
    reader: &mut ReadAhead<'_>,
    chunk: u64,
    hash: ChunkHash,
) -> Result<ChunkState, OriginError> {
    let source = reader.source;
    let len = source.chunk_len(chunk);
    let sent = outlet.send_file(source.file(), chunk * CHUNK_LEN, len).await?;
    if sent < len {
        let rest = reader.load(chunk, sent, Some(hash));
        let rest = rest.await.unwrap_or_else(|_| source.missing(chunk, sent, ChunkState::ReadError));
        outlet.write_all(&rest.bytes).await?;
        return Ok(rest.state);
    }
    let state = source.state();
    let trailer = if state == ChunkState::Good { Trailer { state, hash } } else { Trailer::bad(state) };
    outlet.write_all(&trailer.encode()).await?;
    Ok(state)
}

/// Where a chunk's bytes are when it is its turn.
enum Supply {
    /// In the page cache, and this is their hash.
    InFile(ChunkHash),
    /// Here, with the trailer behind them.
    InMemory(Loaded),
}

/// A chunk on its way.
enum Coming {
    /// Nothing is left to do.
    Known(ChunkHash),
    Hashing(JoinHandle<Trailer>),
    Loading(JoinHandle<Loaded>),
}

/// Gets chunks ready, one ahead of the one that is being sent.
struct ReadAhead<'a> {
    source: &'a Arc<Source>,
    by_kernel: bool,
    /// The buffer of the chunk that was written last.
    spare: Vec<u8>,
}

impl ReadAhead<'_> {
    fn start(&mut self, chunk: u64) -> Coming {
        match self.source.known(chunk) {
            Some(hash) if self.by_kernel && self.source.is_cached(chunk) => Coming::Known(hash),
            None if self.by_kernel && self.source.is_settled() => Coming::Hashing(self.hash(chunk)),
            known => Coming::Loading(self.load(chunk, 0, known)),
        }
    }

    async fn finish(&self, chunk: u64, coming: Coming) -> Supply {
        // A job that panicked says nothing about the file; the client is told that it could not be read.
        let failed = || self.source.missing(chunk, 0, ChunkState::ReadError);
        match coming {
            Coming::Known(hash) => Supply::InFile(hash),
            Coming::Loading(job) => Supply::InMemory(job.await.unwrap_or_else(|_| failed())),
            Coming::Hashing(job) => match job.await {
                Ok(Trailer { state: ChunkState::Good, hash }) => Supply::InFile(hash),
                Ok(bad) => Supply::InMemory(self.source.missing(chunk, 0, bad.state)),
                Err(_) => Supply::InMemory(failed()),
            },
        }
    }

    fn hash(&self, chunk: u64) -> JoinHandle<Trailer> {
        let source = Arc::clone(self.source);
        spawn_blocking(move || source.computed_trailer(chunk))
    }

    fn load(&mut self, chunk: u64, skip: usize, known: Option<ChunkHash>) -> JoinHandle<Loaded> {
        let source = Arc::clone(self.source);
        let buffer = std::mem::take(&mut self.spare);
        spawn_blocking(move || source.load(chunk, skip, known, buffer))
    }
}
