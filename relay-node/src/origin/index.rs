//! The hashes of chunks that were read before, so that a later answer need not read them again.
//!
//! A hash is kept under the identity of its file: device, inode, size, modification and change time. A file that
//! changed is another file here, and its old hashes go when room is needed. What may not happen here is reading: hashes come
//! from those who have the bytes.

use crate::root::FileIdentity;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use relay_proto::chunk::chunk_count;
use relay_proto::digest::ChunkHash;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Room for hashes unless told otherwise, in bytes: those of about 2 TiB.
pub const DEFAULT_INDEX_BYTES: u64 = 64 << 20;

/// How long a file must have been left alone before its hashes are kept.
///
/// A file system's clock ticks: two changes within one tick leave the same times, and a hash taken between them would stay
/// under an identity that it does not fit. The coarsest clock in use, FAT's, ticks every 2 seconds.
const SETTLE_TIME: Duration = Duration::from_secs(2);

/// How long a hash is kept at most.
///
/// What is written through a memory mapping may change a file without changing its times for a while (mmap(2)). Such a file
/// would fail verification for ever; reading everything anew once in a while costs little and ends that.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// Hashes are kept by so many chunks of a file, so that a file of any size takes room only for what was read of it.
const SEGMENT_CHUNKS: u64 = 256;
/// What a segment takes beside its hashes, in bytes, about.
const SEGMENT_OVERHEAD: u64 = 192;

/// Chunk hashes of files, bounded in bytes; what was not used for long goes first. Any number of threads may use it.
pub struct HashIndex {
    segments: Cache<SegmentKey, Arc<Segment>, BySize>,
    settle_time: Duration,
    max_age: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct SegmentKey {
    file: FileIdentity,
    number: u64,
}

struct Segment {
    hashes: Mutex<Box<[Option<ChunkHash>]>>,
    bytes: u64,
    since: Instant,
}

#[derive(Clone)]
struct BySize;

impl Weighter<SegmentKey, Arc<Segment>> for BySize {
    fn weight(&self, _: &SegmentKey, segment: &Arc<Segment>) -> u64 {
        segment.bytes
    }
}

impl HashIndex {
    /// An empty index of at most `max_bytes` bytes.
    #[must_use]
    pub fn new(max_bytes: u64) -> HashIndex {
        HashIndex::with_settle_time(max_bytes, SETTLE_TIME)
    }

    /// An index that keeps the hashes of a file that was left alone for `settle_time`.
    #[must_use]
    pub fn with_settle_time(max_bytes: u64, settle_time: Duration) -> HashIndex {
        let full_segment = SEGMENT_OVERHEAD + SEGMENT_CHUNKS * size_of::<Option<ChunkHash>>() as u64;
        let expected = usize::try_from(max_bytes / full_segment).unwrap_or(usize::MAX);
        let segments = Cache::with_weighter(expected, max_bytes, BySize);
        HashIndex { segments, settle_time, max_age: MAX_AGE }
    }

    /// The hash of a chunk of this state of the file, if it is kept.
    #[must_use]
    pub fn get(&self, file: &FileIdentity, chunk: u64) -> Option<ChunkHash> {
        let segment = self.segment(&SegmentKey { file: *file, number: chunk / SEGMENT_CHUNKS })?;
        let hashes = segment.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.get(place_of(chunk)).copied().flatten()
    }

    /// Keeps the hash of a chunk of this state of the file, which was settled (see [`HashIndex::is_settled`]) before the
    /// chunk was read. A chunk beyond the file's end is ignored.
    ///
    /// Where another hash of the chunk was kept, the file changed without a sign. Then nothing else that is kept of it can be relied
    /// on, and it goes.
    pub fn put(&self, file: &FileIdentity, chunk: u64, hash: ChunkHash) {
        if self.keep(file, chunk, hash).is_some_and(|before| before != hash) {
            self.forget(file);
            self.keep(file, chunk, hash);
        }
    }

    /// Keeps the hash of a chunk; returns the one that was kept.
    fn keep(&self, file: &FileIdentity, chunk: u64, hash: ChunkHash) -> Option<ChunkHash> {
        let number = chunk / SEGMENT_CHUNKS;
        let count = chunk_count(file.size).saturating_sub(number * SEGMENT_CHUNKS).min(SEGMENT_CHUNKS);
        let key = SegmentKey { file: *file, number };
        let segment = match self.segment(&key) {
            Some(segment) => segment,
            None => {
                let segment = Arc::new(Segment::of(count));
                // Two threads may be first at once; one segment is lost then, and its hash comes again.
                self.segments.insert(key, Arc::clone(&segment));
                segment
            }
        };
        segment.replace(chunk, hash)
    }

    /// Forgets all hashes of this state of the file. Looks through the whole index.
    fn forget(&self, file: &FileIdentity) {
        self.segments.retain(|key, _| key.file != *file);
    }

    /// Whether the file was left alone for long enough that another change could not go unnoticed.
    #[must_use]
    pub fn is_settled(&self, file: &FileIdentity) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // A time far in the future was set by hand; the next change does not leave it.
        [file.mtime, file.ctime].iter().all(|time| distance(*time, now) >= self.settle_time)
    }

    /// A segment that is not too old.
    fn segment(&self, key: &SegmentKey) -> Option<Arc<Segment>> {
        self.segments.get(key).filter(|segment| segment.since.elapsed() < self.max_age)
    }
}

impl Segment {
    fn of(count: u64) -> Segment {
        let count = usize::try_from(count).unwrap_or(0);
        let bytes = SEGMENT_OVERHEAD + (count * size_of::<Option<ChunkHash>>()) as u64;
        Segment { hashes: Mutex::new(vec![None; count].into_boxed_slice()), bytes, since: Instant::now() }
    }

    /// Keeps a chunk's hash; returns the one that was kept.
    fn replace(&self, chunk: u64, hash: ChunkHash) -> Option<ChunkHash> {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.get_mut(place_of(chunk)).and_then(|place| place.replace(hash))
    }
}

impl fmt::Debug for HashIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashIndex").field("bytes", &self.segments.weight()).finish_non_exhaustive()
    }
}

fn place_of(chunk: u64) -> usize {
    usize::try_from(chunk % SEGMENT_CHUNKS).unwrap_or(0)
}

/// How far a file's time, in seconds since 1970 and nanoseconds, is from `now`.
fn distance((seconds, nanoseconds): (i64, u32), now: Duration) -> Duration {
    match u64::try_from(seconds) {
        Ok(seconds) => Duration::new(seconds, 0)
            .checked_add(Duration::from_nanos(u64::from(nanoseconds)))
            .map_or(Duration::MAX, |time| time.abs_diff(now)),
        Err(_) => now.saturating_add(Duration::from_secs(seconds.unsigned_abs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(inode: u64, size: u64) -> FileIdentity {
        FileIdentity { device: 1, inode, size, mtime: (1_000_000, 5), ctime: (1_000_000, 5) }
    }

    fn hash(byte: u8) -> ChunkHash {
        ChunkHash::from_bytes([byte; 32])
    }

    #[test]
    fn keeps_by_identity_and_chunk() {
        let index = HashIndex::new(DEFAULT_INDEX_BYTES);
        let file = identity(1, 300 << 20);
        for (chunk, byte) in [(0, 1), (255, 2), (256, 3), (299, 4)] {
            assert_eq!(index.get(&file, chunk), None);
            index.put(&file, chunk, hash(byte));
            assert_eq!(index.get(&file, chunk), Some(hash(byte)));
        }
        assert_eq!(index.get(&file, 1), None);
        for other in [
            FileIdentity { device: 2, ..file },
            FileIdentity { inode: 2, ..file },
            FileIdentity { size: file.size + 1, ..file },
            FileIdentity { mtime: (1_000_000, 6), ..file },
            FileIdentity { ctime: (1_000_001, 5), ..file },
        ] {
            assert_eq!(index.get(&other, 0), None);
        }
    }

    #[test]
    fn ignores_what_is_beyond_the_end() {
        let index = HashIndex::new(DEFAULT_INDEX_BYTES);
        let file = identity(1, 1);
        for chunk in [1, 255, 256, u64::MAX] {
            index.put(&file, chunk, hash(1));
            assert_eq!(index.get(&file, chunk), None);
        }
    }

    #[test]
    fn forgets_what_is_old() {
        let mut index = HashIndex::new(DEFAULT_INDEX_BYTES);
        let file = identity(1, 2 << 20);
        index.put(&file, 0, hash(1));
        index.max_age = Duration::ZERO;
        assert_eq!(index.get(&file, 0), None);
        index.put(&file, 1, hash(2));
        index.max_age = MAX_AGE;
        assert_eq!((index.get(&file, 0), index.get(&file, 1)), (None, Some(hash(2))));
    }

    #[test]
    fn forgets_a_file_that_changed_without_a_sign() {
        let index = HashIndex::new(DEFAULT_INDEX_BYTES);
        let (file, other) = (identity(1, 300 << 20), identity(2, 300 << 20));
        let kept = |file| [0, 1, 299].map(|chunk| index.get(file, chunk).is_some());
        for file in [&file, &other] {
            [0, 1, 299].iter().for_each(|chunk| index.put(file, *chunk, hash(1)));
        }
        index.put(&file, 1, hash(1));
        assert_eq!(kept(&file), [true; 3]);
        index.put(&file, 1, hash(2));
        assert_eq!((kept(&file), kept(&other)), ([false, true, false], [true; 3]));
        assert_eq!(index.get(&file, 1), Some(hash(2)));
    }

    #[test]
    fn stays_within_its_bytes() {
        let max_bytes = 1 << 20;
        let index = HashIndex::new(max_bytes);
        for inode in 0..100_000 {
            index.put(&identity(inode, 1), 0, hash(1));
        }
        for chunk in 0..100_000 {
            index.put(&identity(1, 1 << 52), chunk * SEGMENT_CHUNKS, hash(1));
        }
        assert!(index.segments.weight() <= max_bytes);
        assert_eq!(index.get(&identity(1, 1 << 52), 99_999 * SEGMENT_CHUNKS), Some(hash(1)));
    }

    #[test]
    fn settled_is_neither_just_before_nor_just_after_now() {
        let index = HashIndex::new(DEFAULT_INDEX_BYTES);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        let check = |mtime, ctime, expected| {
            let file = FileIdentity { mtime: (mtime, 999_999_999), ctime: (ctime, 0), ..identity(1, 1) };
            assert_eq!(index.is_settled(&file), expected, "{mtime} {ctime} {now}");
        };
        check(now - 100, now - 100, true);
        check(now - 100, now, false);
        check(now, now - 100, false);
        check(now + 1, now - 100, false);
        check(now + 1000, now - 100, true);
        check(i64::MIN, i64::MAX, true);
    }

    #[test]
    fn threads_share_it() {
        let index = HashIndex::new(DEFAULT_INDEX_BYTES);
        let file = identity(1, 64 << 20);
        std::thread::scope(|scope| {
            for start in 0..4 {
                let index = &index;
                scope.spawn(move || {
                    for round in 0..1000 {
                        let chunk = (start * 16 + round) % 64;
                        index.put(&file, chunk, hash(chunk as u8));
                        if let Some(got) = index.get(&file, chunk) {
                            assert_eq!(got, hash(chunk as u8));
                        }
                    }
                });
            }
        });
    }
}
