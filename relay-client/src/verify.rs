//! Threads that hash chunks while others are still being received, and write those that are good.
//!
//! Memory is bounded by the number of buffers: a chunk is received straight into one, and it goes back when its
//! chunk is hashed and written. So a slow disk slows the receiving, and with it the whole chain.
//! Nothing is written here whose hash is not the promised one.
//!
//! What goes to the null device is hashed by whoever hands it over: nothing waits there, and to wake a thread for each chunk costs more
//! than to hash it where it is in the cache.

use crate::platform::write_all_at;
use relay_proto::chunk::CHUNK_LEN;
use relay_proto::digest::ChunkHash;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Buffers of one chunk each while one connection brings chunks; each further connection has one more. One is received into, two are
/// hashed or written, one waits. More of them only push each other out of the processor's caches.
pub const BUFFERS: usize = 4;
/// The most threads. Hashing and writing a chunk takes longer than receiving it, but a third thread finds no work.
const MAX_THREADS: usize = 2;

/// Where good chunks go.
pub enum Sink {
    /// To their place in a file.
    File(File),
    /// One after the other into a stream.
    Stream(Mutex<Stream>),
    /// The same into the null device, where no write ever waits.
    Null(Mutex<Stream>),
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
        Sink::Stream(Stream::new(writer))
    }

    /// A sink that writes one chunk after the other where nothing waits.
    #[must_use]
    pub fn null(writer: Box<dyn Write + Send>) -> Sink {
        Sink::Null(Stream::new(writer))
    }

    fn write(&self, bytes: &[u8], index: u64) -> Result<(), Unsettled> {
        match self {
            Sink::File(file) => write_all_at(file, bytes, index * CHUNK_LEN).map_err(Unsettled::Write),
            Sink::Stream(stream) | Sink::Null(stream) => {
                stream.lock().unwrap_or_else(PoisonError::into_inner).write(bytes, index)
            }
        }
    }
}

impl Stream {
    fn new(writer: Box<dyn Write + Send>) -> Mutex<Stream> {
        Mutex::new(Stream { writer, next: 0 })
    }

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
    /// The chunk.
    pub buffer: Buffer,
    /// Which chunk.
    pub index: u64,
    /// Bytes of its file.
    pub file_size: u64,
    /// What it must hash to.
    pub promised: ChunkHash,
    /// What its origin says that it hashes to; the same unless that is another origin.
    pub claimed: ChunkHash,
    /// Which route brought it, from 0.
    pub route: usize,
    /// Where it goes.
    pub sink: Arc<Sink>,
}

/// A chunk that was looked at.
pub struct Settled {
    /// Which chunk.
    pub index: u64,
    /// Bytes.
    pub len: usize,
    /// Which route brought it, from 0.
    pub route: usize,
    /// Its hash, or why it is not in its place.
    pub result: Result<ChunkHash, Unsettled>,
}

/// Why a chunk is not in its place.
#[derive(Debug)]
pub enum Unsettled {
    /// Its bytes do not have the promised hash, nor the claimed one.
    Damaged,
    /// Its bytes have the claimed hash and not the promised one.
    OtherVersion,
    /// It could not be written.
    Write(io::Error),
    /// A chunk before it has not been written to the stream.
    OutOfTurn,
}

/// Room for a chunk. It goes back where it came from when it is dropped.
pub struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    pool: Arc<Pool>,
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        self.pool.room.add_permits(1);
    }
}

struct Pool {
    free: Mutex<Vec<Vec<u8>>>,
    room: Semaphore,
}

/// The threads and the buffers.
pub struct Verifiers {
    max_threads: Cell<usize>,
    threads: Cell<usize>,
    jobs: mpsc::Sender<Received>,
    take: Arc<Mutex<mpsc::Receiver<Received>>>,
    give: UnboundedSender<Settled>,
    pool: Arc<Pool>,
    buffers: Cell<usize>,
    /// Chunks that were handed over.
    submitted: Cell<u64>,
}

/// What became of the chunks that were handed over, in the order in which that was known.
pub struct Settlements {
    settled: UnboundedReceiver<Settled>,
    /// Chunks whose end was told.
    told: u64,
}

impl Settlements {
    /// The next one; waits as long as there is none.
    pub async fn next(&mut self) -> Settled {
        match self.settled.recv().await {
            Some(settled) => {
                self.told += 1;
                settled
            }
            // The verifiers hold the other end as well.
            None => std::future::pending().await,
        }
    }
}

impl Verifiers {
    /// Threads for chunks that may be written in any order, or (`in_order`) one thread that keeps their order. They start
    /// with the first chunks.
    #[must_use]
    pub fn new(in_order: bool) -> (Verifiers, Settlements) {
        let (jobs, take) = mpsc::channel();
        let (give, settled) = unbounded_channel();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let pool = Pool { free: Mutex::new(Vec::new()), room: Semaphore::new(BUFFERS) };
        let verifiers = Verifiers {
            max_threads: Cell::new(if in_order { 1 } else { cores.clamp(1, MAX_THREADS) }),
            threads: Cell::new(0),
            jobs,
            take: Arc::new(Mutex::new(take)),
            give,
            pool: Arc::new(pool),
            buffers: Cell::new(BUFFERS),
            submitted: Cell::new(0),
        };
        (verifiers, Settlements { settled, told: 0 })
    }

    /// A free buffer of `len` bytes, at most a chunk's; waits until one comes back when all are in use.
    pub async fn buffer(&self, len: usize) -> Buffer {
        // The semaphore is never closed.
        if let Ok(permit) = self.pool.room.acquire().await {
            permit.forget();
        }
        let free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // Fresh room comes zeroed from the system, which is cheaper than to clear it here.
        let bytes = free.filter(|bytes| bytes.len() >= len).unwrap_or_else(|| vec![0; len]);
        Buffer { bytes, len, pool: Arc::clone(&self.pool) }
    }

    /// Sees to it that `connections` can receive at the same time.
    pub fn serve(&self, connections: usize) {
        let wanted = BUFFERS + connections.saturating_sub(1);
        self.pool.room.add_permits(wanted.saturating_sub(self.buffers.get()));
        self.buffers.set(wanted.max(self.buffers.get()));
    }

    /// Hands a chunk over.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn submit(&self, chunk: Received) -> io::Result<()> {
        if matches!(*chunk.sink, Sink::Null(_)) {
            // Nobody listens any more when the run was stopped.
            let _ = self.give.send(settle(chunk));
        } else {
            if self.threads.get() < self.max_threads.get() {
                self.start_thread()?;
            }
            // The receiving end lives as long as this does.
            self.jobs.send(chunk).map_err(|_| io::Error::other("the verifying threads are gone"))?;
        }
        self.submitted.set(self.submitted.get() + 1);
        Ok(())
    }

    /// Waits until everything handed over is settled.
    ///
    /// # Errors
    /// The first one of `on_settled`; all chunks are settled even so.
    pub async fn finish<E>(
        &self,
        settlements: &mut Settlements,
        mut on_settled: impl FnMut(&Settled) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut result = Ok(());
        while settlements.told < self.submitted.get() {
            let told = on_settled(&settlements.next().await);
            result = result.and(told);
        }
        result
    }

    fn start_thread(&self) -> io::Result<()> {
        let (take, give) = (Arc::clone(&self.take), self.give.clone());
        let name = format!("verify-{}", self.threads.get());
        let started = thread::Builder::new().name(name).spawn(move || {
            while let Some(chunk) = next(&take) {
                // Nobody listens any more when the run was stopped.
                let _ = give.send(settle(chunk));
            }
        });
        match started {
            Ok(_) => self.threads.set(self.threads.get() + 1),
            // One thread does, only slower.
            Err(_) if self.threads.get() > 0 => self.max_threads.set(self.threads.get()),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn next(take: &Mutex<mpsc::Receiver<Received>>) -> Option<Received> {
    take.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

fn settle(chunk: Received) -> Settled {
    let Received { buffer, index, file_size, promised, claimed, route, sink } = chunk;
    let hash = ChunkHash::of(&buffer, index, file_size);
    let result = if hash == promised {
        sink.write(&buffer, index).map(|()| promised)
    } else if hash == claimed {
        Err(Unsettled::OtherVersion)
    } else {
        Err(Unsettled::Damaged)
    };
    Settled { index, len: buffer.len(), route, result }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands over three chunks of which the second is damaged; what became of them, and how many threads that took.
    async fn settle_three(sink: Sink) -> (Vec<String>, usize) {
        let (verifiers, mut settlements) = Verifiers::new(true);
        let (sink, file_size) = (Arc::new(sink), 3 * CHUNK_LEN);
        for index in 0..3 {
            let mut buffer = verifiers.buffer(CHUNK_LEN as usize).await;
            buffer.fill(index as u8);
            let promised = ChunkHash::of(&buffer, index, file_size);
            if index == 1 {
                buffer[77] ^= 1;
            }
            let sink = Arc::clone(&sink);
            let chunk = Received { buffer, index, file_size, promised, claimed: promised, route: 0, sink };
            verifiers.submit(chunk).unwrap();
        }
        let mut told = Vec::new();
        let all = verifiers.finish(&mut settlements, |settled| {
            told.push(settled.result.as_ref().err().map_or("good".to_owned(), |error| format!("{error:?}")));
            Ok::<_, ()>(())
        });
        all.await.unwrap();
        (told, verifiers.threads.get())
    }

    #[tokio::test]
    async fn the_null_device_needs_no_thread_and_is_told_the_same() {
        let expected = ["good", "Damaged", "OutOfTurn"].map(str::to_owned).to_vec();
        assert_eq!(settle_three(Sink::null(Box::new(io::sink()))).await, (expected.clone(), 0));
        assert_eq!(settle_three(Sink::stream(Box::new(io::sink()))).await, (expected, 1));
    }
}
