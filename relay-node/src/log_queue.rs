//! Log lines on their way to a writer that may be slow, or stop: a pipe that nobody reads, a disk that stalls.
//!
//! One thread writes, so that nobody else ever waits for it. What waits is bounded in bytes; lines beyond that are lost, and so
//! are those that the writer refuses. Both are counted, and once lines go out again the node's log says how many there were.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most that may wait in one log, in bytes, what is being written included.
const MOST_WAITING: usize = 16 * 1024 * 1024;
/// What a quiet log keeps of its buffer, in bytes.
const KEPT_BUFFER: usize = 64 * 1024;

/// Takes lines; all clones lead to the same writer.
#[derive(Debug, Clone)]
pub struct LogQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Lines have come.
    more: Condvar,
    /// All that had come has been written, or was refused.
    quiet: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Bytes that the writer has been given and has not returned from.
    being_written: usize,
    lost: u64,
}

impl LogQueue {
    /// Starts a thread that writes to `out`. `name` is what the node's log calls this one when lines were lost.
    ///
    /// # Errors
    /// The system's, when there can be no further thread.
    pub fn start(name: &'static str, out: impl Write + Send + 'static) -> io::Result<LogQueue> {
        let queue = LogQueue(Arc::default());
        let shared = Arc::clone(&queue.0);
        std::thread::Builder::new().name(format!("log {name}")).spawn(move || shared.write_to(name, out))?;
        Ok(queue)
    }

    /// Adds whole lines, or loses and counts them when too much waits. It never blocks.
    pub fn push(&self, lines: &[u8]) {
        let mut state = self.0.lock();
        if state.waiting.len() + state.being_written + lines.len() > MOST_WAITING {
            state.lost += count(lines);
            return;
        }
        state.waiting.extend_from_slice(lines);
        drop(state);
        self.0.more.notify_one();
    }

    /// Waits until everything has been written, at most `limit`: the writer may never come to it.
    pub fn flush_within(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.0.lock();
        while !state.waiting.is_empty() || state.being_written > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.0.quiet.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Write for LogQueue {
    /// Takes all of it as whole lines.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.push(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never returns: the process's end is this thread's end.
    fn write_to(&self, name: &str, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            self.take(&mut lines);
            let result = out.write_all(&lines).and_then(|()| out.flush());
            let lost = self.written(result.is_err().then(|| count(&lines)));
            if lost > 0 {
                tracing::warn!(
                    log = name,
                    lines = lost,
                    "log lines were lost: they could not be written as fast as they came"
                );
            }
        }
    }

    /// Waits for lines and takes all that there are.
    fn take(&self, lines: &mut Vec<u8>) {
        lines.clear();
        lines.shrink_to(KEPT_BUFFER);
        let mut state = self.lock();
        while state.waiting.is_empty() {
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut state.waiting, lines);
        state.being_written = lines.len();
    }

    /// Returns how many lines have been lost, when it is time to tell: once lines go out again.
    fn written(&self, refused: Option<u64>) -> u64 {
        let mut state = self.lock();
        state.being_written = 0;
        if state.waiting.is_empty() {
            self.quiet.notify_all();
        }
        if let Some(lines) = refused {
            state.lost += lines;
            return 0;
        }
        std::mem::take(&mut state.lost)
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A writer that waits for a permission before each write, and tells what it got.
    struct Slow(mpsc::Receiver<io::Result<()>>, mpsc::Sender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other)??;
            self.1.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (LogQueue, mpsc::Sender<io::Result<()>>, mpsc::Receiver<Vec<u8>>) {
        let (permit, permits) = mpsc::channel();
        let (written, writes) = mpsc::channel();
        (LogQueue::start("test", Slow(permits, written)).unwrap(), permit, writes)
    }

    const PATIENCE: Duration = Duration::from_secs(120);

    #[test]
    fn a_writer_that_stops_holds_up_nobody_and_costs_memory_of_a_known_size() {
        let (queue, permit, writes) = slow();
        let line = [&[b'x'; 1023] as &[u8], b"\n"].concat();
        let fits = MOST_WAITING / line.len();
        for _ in 0..fits * 3 {
            queue.push(&line);
        }
        let held = |queue: &LogQueue| {
            let state = queue.0.lock();
            (state.waiting.len() + state.being_written, state.lost)
        };
        assert_eq!(held(&queue), (fits * line.len(), fits as u64 * 2));
        queue.flush_within(Duration::from_millis(10));
        for _ in 0..2 {
            permit.send(Ok(())).unwrap();
        }
        let first = writes.recv_timeout(PATIENCE).unwrap().len();
        let rest = if first < fits * line.len() { writes.recv_timeout(PATIENCE).unwrap().len() } else { 0 };
        assert_eq!(first + rest, fits * line.len());
        queue.flush_within(PATIENCE);
        assert_eq!(held(&queue), (0, 0), "the loss was told");
    }

    #[test]
    fn lines_that_are_refused_are_counted_until_one_is_written() {
        let (queue, permit, writes) = slow();
        for refused in 1..=3 {
            queue.push(b"a\nb\n");
            permit.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
            queue.flush_within(PATIENCE);
            assert_eq!(queue.0.lock().lost, refused * 2);
        }
        queue.push(b"c\n");
        permit.send(Ok(())).unwrap();
        assert_eq!(writes.recv_timeout(PATIENCE).unwrap(), b"c\n");
        queue.flush_within(PATIENCE);
        assert_eq!(queue.0.lock().lost, 0);
    }
}
