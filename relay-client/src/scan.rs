//! Which chunks of a local file have the hashes they should have; and copying those that do. Runs on threads of its own and
//! stops when nobody waits for it any more.

use crate::journal::Entry;
use crate::platform::{read_exact_at, write_all_at};
use crate::progress::Reporter;
use relay_proto::chunk::{CHUNK_LEN, chunk_len};
use relay_proto::digest::ChunkHash;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::interval;

/// What to look for.
pub struct Scan {
    /// Where.
    pub file: File,
    /// Bytes of the file that the hashes belong to, which need not be the one that is looked at.
    pub file_size: u64,
    /// The chunks and their hashes.
    pub wanted: Vec<Entry>,
    /// Where to put the chunks that were found, at their offsets.
    pub copy_to: Option<File>,
}

/// The most threads, each with a buffer of one chunk.
const MAX_THREADS: usize = 4;
/// How often the display learns how far it is.
const SHOW_EVERY: Duration = Duration::from_millis(100);

struct Shared {
    scan: Scan,
    next: AtomicUsize,
    bytes: AtomicU64,
    cancelled: AtomicBool,
}

/// Cancels when it is dropped.
struct Waiting(Arc<Shared>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Scan {
    /// The chunks that are there, in order. Those that cannot be read are not.
    ///
    /// # Errors
    /// Only of copying.
    pub async fn run(self, reporter: &Reporter) -> io::Result<Vec<Entry>> {
        let shared = Arc::new(Shared {
            scan: self,
            next: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
        });
        let waiting = Waiting(Arc::clone(&shared));
        let mut found = spawn_blocking(move || find_all(&shared));
        let (mut ticks, mut shown) = (interval(SHOW_EVERY), 0);
        loop {
            tokio::select! {
                found = &mut found => return found.map_err(io::Error::other)?,
                _ = ticks.tick() => {
                    let bytes = waiting.0.bytes.load(Ordering::Relaxed);
                    reporter.bytes(bytes - shown);
                    shown = bytes;
                }
            }
        }
    }
}

fn find_all(shared: &Shared) -> io::Result<Vec<Entry>> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(MAX_THREADS).min(shared.scan.wanted.len());
    let parts = thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(|| find(shared))).collect();
        let mut parts = vec![find(shared)];
        parts.extend(helpers.into_iter().map(|helper| {
            helper.join().unwrap_or_else(|_| Err(io::Error::other("a thread that hashes has failed")))
        }));
        parts
    });
    let mut found: Vec<Entry> = parts.into_iter().collect::<io::Result<Vec<_>>>()?.concat();
    found.sort_unstable_by_key(|(index, _)| *index);
    Ok(found)
}

/// Takes one chunk after the other, together with the other threads, until there is none left.
fn find(shared: &Shared) -> io::Result<Vec<Entry>> {
    let Scan { file, file_size, wanted, copy_to } = &shared.scan;
    let mut found = Vec::new();
    let mut buffer = Vec::new();
    while let Some(&(index, hash)) = wanted.get(shared.next.fetch_add(1, Ordering::Relaxed)) {
        if shared.cancelled.load(Ordering::Relaxed) {
            break;
        }
        let len = chunk_len(*file_size, index);
        buffer.resize(usize::try_from(len).unwrap_or(0), 0);
        let offset = index.saturating_mul(CHUNK_LEN);
        let is_there = read_exact_at(file, &mut buffer, offset).is_ok()
            && ChunkHash::of(&buffer, index, *file_size) == hash;
        shared.bytes.fetch_add(len, Ordering::Relaxed);
        if is_there {
            if let Some(copy_to) = copy_to {
                write_all_at(copy_to, &buffer, offset)?;
            }
            found.push((index, hash));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_proto::chunk::chunk_count;
    use std::io::Write;

    #[tokio::test]
    async fn finds_and_copies_what_fits() {
        let size = 3 * CHUNK_LEN + 10;
        let bytes: Vec<u8> = (0..size).map(|i| (i % 253) as u8).collect();
        let chunk = |index: u64| &bytes[(index * CHUNK_LEN) as usize..][..chunk_len(size, index) as usize];
        let mut wanted: Vec<Entry> =
            (0..chunk_count(size)).map(|index| (index, ChunkHash::of(chunk(index), index, size))).collect();
        wanted[1].1 = ChunkHash::ZERO;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes[..bytes.len() - 1]).unwrap();
        let copy = tempfile::tempfile().unwrap();
        let expected = vec![wanted[0], wanted[2]];
        let scan = Scan { file, file_size: size, wanted, copy_to: Some(copy.try_clone().unwrap()) };
        assert_eq!(scan.run(&Reporter::silent()).await.unwrap(), expected);
        let mut copied = vec![1; 3 * CHUNK_LEN as usize];
        read_exact_at(&copy, &mut copied, 0).unwrap();
        assert!(copied[..CHUNK_LEN as usize] == *chunk(0) && copied[2 * CHUNK_LEN as usize..] == *chunk(2));
        assert!(copied[CHUNK_LEN as usize..2 * CHUNK_LEN as usize].iter().all(|b| *b == 0));
    }
}
