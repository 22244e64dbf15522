//! Threads that hash chunks while others are still being received, and write those that are good.
//!
//! Memory is bounded by the number of buffers: a chunk is received straight into one, and it goes back when its
//! chunk is hashed and written. So a slow disk slows the receiving, and with it the whole chain.
//! Nothing is written here whose hash is not the promised one.

use crate::platform::write_all_at;
use relay_proto::chunk::CHUNK_LEN;
use relay_proto::digest::ChunkHash;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The most buffers of one chunk each, in all of a run.
pub const MAX_BUFFERS: usize = 8;
/// The most threads. Hashing and writing a chunk takes longer than receiving it, but a third thread finds no work.
const MAX_THREADS: usize = 2;

/// Where good chunks go.
pub enum Sink {
    /// To their place in a file.
    File(File),
    /// One after the other into a stream.
    Stream(Mutex<Stream>),
}

/// A stream that takes chunks only in their turn, so that nothing goes out behind a chunk that failed.
pub struct Stream {
    writer: Box<dyn Write + Send>,
    next: u64,
}

impl Sink {
    /// A sink that writes one chunk after the other.
    #[must_use]
    pub fn stream(writer: Box<dyn Write + Send>) -> Sink {
        Sink::Stream(Mutex::new(Stream { writer, next: 0 }))
    }

    fn write(&self, bytes: &[u8], index: u64) -> Result<(), Unsettled> {
        match self {
            Sink::File(file) => write_all_at(file, bytes, index * CHUNK_LEN).map_err(Unsettled::Write),
            Sink::Stream(stream) => stream.lock().unwrap_or_else(PoisonError::into_inner).write(bytes, index),
        }
    }
}

impl Stream {
    fn write(&mut self, bytes: &[u8], index: u64) -> Result<(), Unsettled> {
        if index != self.next {
            return Err(Unsettled::OutOfTurn);
        }
        self.writer.write_all(bytes).and_then(|()| self.writer.flush()).map_err(Unsettled::Write)?;
        self.next += 1;
        Ok(())
    }
}

/// A received chunk.
pub struct Received {
    /// The chunk is its first `len` bytes.
    pub buffer: Vec<u8>,
    /// Bytes.
    pub len: usize,
    /// Which chunk.
    pub index: u64,
    /// Bytes of its file.
    pub file_size: u64,
    /// What the origin promises.
    pub promised: ChunkHash,
    /// Where it goes.
    pub sink: Arc<Sink>,
}

/// A chunk that was looked at.
pub struct Settled {
    /// Which chunk.
    pub index: u64,
    /// Bytes.
    pub len: usize,
    /// Its hash, or why it is not in its place.
    pub result: Result<ChunkHash, Unsettled>,
    buffer: Vec<u8>,
}

/// Why a chunk is not in its place.
#[derive(Debug)]
pub enum Unsettled {
    /// Its bytes do not have the promised hash.
    Damaged,
    /// It could not be written.
    Write(io::Error),
    /// A chunk before it has not been written to the stream.
    OutOfTurn,
}

/// The threads and the buffers.
pub struct Verifiers {
    max_threads: usize,
    threads: usize,
    jobs: mpsc::Sender<Received>,
    take: Arc<Mutex<mpsc::Receiver<Received>>>,
    settled: UnboundedReceiver<Settled>,
    give: UnboundedSender<Settled>,
    free: Vec<Vec<u8>>,
    buffers: usize,
    /// Chunks that are with the threads.
    pending: usize,
}

impl Verifiers {
    /// Threads for chunks that may be written in any order, or (`in_order`) one thread that keeps their order. They start
    /// with the first chunks.
    #[must_use]
    pub fn new(in_order: bool) -> Verifiers {
        let (jobs, take) = mpsc::channel();
        let (give, settled) = unbounded_channel();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Verifiers {
            max_threads: if in_order { 1 } else { cores.clamp(1, MAX_THREADS) },
            threads: 0,
            jobs,
            take: Arc::new(Mutex::new(take)),
            settled,
            give,
            free: Vec::new(),
            buffers: 0,
            pending: 0,
        }
    }

    /// A free buffer of at least `len` bytes, at most a chunk's; waits until one is settled when all are in use. What
    /// was settled meanwhile is told to `on_settled`.
    ///
    /// # Errors
    /// Those of `on_settled`.
    pub async fn buffer<E>(
        &mut self,
        len: usize,
        mut on_settled: impl FnMut(&Settled) -> Result<(), E>,
    ) -> Result<Vec<u8>, E> {
        self.look(&mut on_settled)?;
        while self.free.is_empty() && self.buffers == MAX_BUFFERS {
            if let Some(settled) = self.settled.recv().await {
                self.take_back(settled, &mut on_settled)?;
            }
        }
        let mut buffer = self.free.pop().unwrap_or_else(|| {
            self.buffers += 1;
            Vec::new()
        });
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        Ok(buffer)
    }

    /// Tells `on_settled` what was settled meanwhile, without waiting.
    ///
    /// # Errors
    /// Those of `on_settled`.
    pub fn look<E>(&mut self, mut on_settled: impl FnMut(&Settled) -> Result<(), E>) -> Result<(), E> {
        while let Ok(settled) = self.settled.try_recv() {
            self.take_back(settled, &mut on_settled)?;
        }
        Ok(())
    }

    /// A buffer that was not filled after all.
    pub fn give_back(&mut self, buffer: Vec<u8>) {
        self.free.push(buffer);
    }

    /// Hands a chunk over.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn submit(&mut self, chunk: Received) -> io::Result<()> {
        if self.threads < self.max_threads && self.threads <= self.pending {
            self.start_thread()?;
        }
        self.pending += 1;
        // The receiving end lives as long as this does.
        self.jobs.send(chunk).map_err(|_| io::Error::other("the verifying threads are gone"))
    }

    /// Waits until everything handed over is settled.
    ///
    /// # Errors
    /// The first one of `on_settled`; all chunks are settled even so.
    pub async fn finish<E>(
        &mut self,
        mut on_settled: impl FnMut(&Settled) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut result = Ok(());
        while self.pending > 0 {
            if let Some(settled) = self.settled.recv().await {
                let taken = self.take_back(settled, &mut on_settled);
                result = result.and(taken);
            }
        }
        result
    }

    fn take_back<E>(
        &mut self,
        mut settled: Settled,
        on_settled: &mut impl FnMut(&Settled) -> Result<(), E>,
    ) -> Result<(), E> {
        self.pending -= 1;
        self.free.push(std::mem::take(&mut settled.buffer));
        on_settled(&settled)
    }

    fn start_thread(&mut self) -> io::Result<()> {
        let (take, give) = (Arc::clone(&self.take), self.give.clone());
        let name = format!("verify-{}", self.threads);
        let started = thread::Builder::new().name(name).spawn(move || {
            while let Some(chunk) = next(&take) {
                // Nobody listens any more when the run was stopped.
                let _ = give.send(settle(chunk));
            }
        });
        match started {
            Ok(_) => self.threads += 1,
            // One thread does, only slower.
            Err(_) if self.threads > 0 => self.max_threads = self.threads,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn next(take: &Mutex<mpsc::Receiver<Received>>) -> Option<Received> {
    take.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

fn settle(chunk: Received) -> Settled {
    let Received { buffer, len, index, file_size, promised, sink } = chunk;
    let bytes = buffer.get(..len).unwrap_or_default();
    let result = if ChunkHash::of(bytes, index, file_size) == promised {
        sink.write(bytes, index).map(|()| promised)
    } else {
        Err(Unsettled::Damaged)
    };
    Settled { index, len, result, buffer }
}
