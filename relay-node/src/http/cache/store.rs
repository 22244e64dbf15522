//! The cache's files: whole responses in one directory, below a size, usable by one process at a time.
//!
//! ```text
//! DIR/relay-cache          what this directory is; nothing is touched in one that holds files but lacks this
//! DIR/lock                 locked while a process uses the cache
//! DIR/tmp/N                bodies that are still growing; emptied at start
//! DIR/entries/ab/ab…-N.body, .json    one response: its body, and its metadata
//! ```
//!
//! A body that is whole is an entry at once, in memory, and comes to the disk a moment later, where the metadata file is the
//! commit record. A body is written under `tmp`, brought to the disk, renamed, and only then
//! its metadata is written beside it in the same way; no name is ever used for a second body. So whatever stops the
//! process or the machine, there is either a whole entry or none, and the next start sweeps away what belongs to none.
//! On top of that the bytes of an earlier process are believed by their BLAKE3 hash only: a small body by its own, and a
//! large one piece by piece ([`Seals`](crate::http::seals::Seals)) before each piece is sent for the first time; the
//! pieces' hashes stand behind the body in its file. So a disk that lost what it had promised to keep is found out, too.
//!
//! Everything here blocks, but for [`Store::hot`] and [`Store::rows`]. No rules of HTTP here.

mod directory;
mod examine;
mod growth;
mod index;

pub use examine::{Round, Verified, verify};
pub use growth::Growth;

use super::entry::{Entry, Head, LONGEST_RECORD, Record};
use super::key::{Key, KeyId};
use crate::platform::lock::Lock;
use crate::record::logged_name;
use directory::{check_marker, failed, lock, make_parts, read_index, sweep, write_marker};
use index::Index;
use quick_cache::Weighter;
use quick_cache::sync::Cache as HotEntries;
use relay_link::platform::descriptors;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How many responses one key may have (RFC 9111 §4.1); the oldest goes first.
pub const MOST_VARIANTS: usize = 32;

/// What a file is counted as at least, in bytes.
const BLOCK: u64 = 4096;

/// The least that an entry with an open file weighs in memory: it bounds how many files are held open.
const OPEN_FILE_WEIGHT: u64 = 256 * 1024;

/// After this long a use is noted on the disk, so that a restart knows what was used.
const TOUCH_AFTER: Duration = Duration::from_secs(600);

/// Why the cache cannot be used, or something cannot be kept in it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("the cache {dir} is in use by another process{holder}: stop that one or name another directory")]
    InUse {
        /// The cache's directory.
        dir: String,
        /// " (process 123)", where it is known.
        holder: String,
    },
    /// The directory holds something else.
    #[error("{dir} holds files but is not a cache of this program: name an empty or a new directory")]
    NotACache {
        /// The directory.
        dir: String,
    },
    /// There is none to look at.
    #[error("there is no cache in {dir}: name the directory that --cache-dir named")]
    NoCache {
        /// The directory.
        dir: String,
    },
    /// It is of a version that this program does not know.
    #[error("{dir} is a cache of another version ({found:?}): remove it or name another directory")]
    OtherFormat {
        /// The directory.
        dir: String,
        /// What its marker says.
        found: String,
    },
    /// There is no room left below the size limit that something else could make.
    #[error("the cache is full: all of its {limit} bytes are taken by responses that are still arriving")]
    Full {
        /// The size limit in bytes.
        limit: u64,
    },
    /// The system refused.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The files of a cache and what is known of them in memory.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    limit: u64,
    opened: Instant,
    index: Mutex<Index>,
    hot: HotEntries<u64, Arc<Entry>, Weight>,
    next: AtomicU64,
    lock: Mutex<Lock>,
    /// How many entries turned out not to be what was stored.
    thrown_away: AtomicU64,
}

#[derive(Debug, Clone)]
struct Weight {
    /// What an entry with an open file weighs.
    open_file: u64,
}

impl Weight {
    /// Of `memory` bytes all, open files may weigh as much as makes them an eighth of the descriptors that the process has.
    fn new(memory: u64, descriptors: u64) -> Self {
        Self { open_file: OPEN_FILE_WEIGHT.max(memory / (descriptors / 8).max(1)) }
    }
}

impl Weighter<u64, Arc<Entry>> for Weight {
    fn weight(&self, _: &u64, entry: &Arc<Entry>) -> u64 {
        let body = if entry.in_file().is_some() { self.open_file } else { entry.head().length };
        body + entry.record_size() + 512
    }
}

impl Store {
    /// Opens the cache in `dir`, made if it is missing, with room for `limit` bytes on the disk and `memory` bytes of
    /// small bodies and metadata in memory.
    pub fn open(dir: &Path, limit: u64, memory: u64) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(failed("make the directory", dir))?;
        check_marker(dir)?;
        let lock = lock(dir)?;
        write_marker(dir)?;
        make_parts(dir)?;
        sweep(&dir.join("tmp"))?;
        let (index, last) = read_index(&dir.join("entries"))?;
        let memory = memory.max(1024 * 1024);
        let store = Self {
            dir: dir.to_owned(),
            limit,
            opened: Instant::now(),
            index: Mutex::new(index),
            hot: HotEntries::with_weighter(1024, memory, Weight::new(memory, descriptors::limit())),
            next: AtomicU64::new(last + 1),
            lock: Mutex::new(lock),
            thrown_away: AtomicU64::new(0),
        };
        // The limit may be smaller than it was.
        drop(store.make_room(0));
        Ok(store)
    }

    /// The size limit in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The bytes that the entries and growing bodies take.
    pub fn size(&self) -> u64 {
        let index = self.index();
        index.stored + index.reserved
    }

    /// How many responses are stored.
    pub fn len(&self) -> usize {
        self.index().entries
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers of a key's entries, newest first. Counts as use. Does not block.
    pub fn rows(&self, key: &Key) -> Vec<u64> {
        let mut index = self.index();
        let Some(rows) = index.keys.get_mut(&key.id()) else { return Vec::new() };
        rows.iter_mut()
            .rev()
            .map(|row| {
                row.used = true;
                row.number
            })
            .collect()
    }

    /// An entry that is in memory. Does not block.
    pub fn hot(&self, key: &Key, number: u64) -> Option<Arc<Entry>> {
        let entry = self.hot.get(&number).or_else(|| self.index().arriving.get(&number).cloned());
        entry.filter(|entry| entry.head().key == key.text())
    }

    /// An entry from the disk. One that is not whole is removed.
    pub fn load(&self, key: &Key, number: u64) -> Option<Arc<Entry>> {
        match self.read_entry(key, number) {
            Ok(entry) => {
                let entry = Arc::new(entry);
                self.remember_seals(key.id(), &entry);
                self.hot.insert(number, Arc::clone(&entry));
                Some(entry)
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::NotFound {
                    self.remove_row(key.id(), number);
                } else {
                    self.throw_away(key.id(), number, key.text(), &error);
                }
                None
            }
        }
    }

    /// Makes the directory again after somebody has removed it under the running process; what is in memory is still served.
    fn make_again(&self) -> Result<(), StoreError> {
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.dir.join("tmp").is_dir() {
            return Ok(());
        }
        fs::create_dir_all(&self.dir).map_err(failed("make the directory", &self.dir))?;
        check_marker(&self.dir)?;
        if !self.dir.join("lock").exists() {
            *held = lock(&self.dir)?;
        }
        write_marker(&self.dir)?;
        make_parts(&self.dir)?;
        tracing::warn!(dir = %self.dir.display(), "the cache's directory was removed and is made again");
        Ok(())
    }

    /// Begins a new body.
    pub fn begin(self: &Arc<Self>) -> Result<Growth, StoreError> {
        Growth::new(self)
    }

    /// Gives a stored entry new fields, after the origin said that its body is still the same.
    pub fn update(&self, key: &Key, old: &Entry, head: Head) -> Arc<Entry> {
        let record = Record::new(&head, old.hash());
        let entry = Arc::new(old.with_head(head, record.size()));
        if !self.holds(key.id(), old.number()) {
            return entry;
        }
        // Memory first: what the disk does not take is only asked for again after a restart.
        self.hot.insert(old.number(), Arc::clone(&entry));
        if let Some(arriving) = self.index().arriving.get_mut(&old.number()) {
            // Who brings it to the disk writes its record.
            *arriving = Arc::clone(&entry);
            return entry;
        }
        let path = self.path(key.id(), old.number(), "json");
        if let Err(error) = self.write_record(&path, &record, false) {
            tracing::warn!(%error, "the cache cannot note that a response is still good");
        }
        // Evicted meanwhile: then the file written just now belongs to nothing.
        if !self.holds(key.id(), old.number()) {
            drop(fs::remove_file(&path));
            self.hot.remove(&old.number());
        }
        entry
    }

    /// Removes all responses of a key; returns whether there were any.
    pub fn remove(&self, key: &Key) -> bool {
        let numbers: Vec<u64> = self
            .index()
            .keys
            .get(&key.id())
            .map(|rows| rows.iter().map(|row| row.number).collect())
            .unwrap_or_default();
        for number in &numbers {
            self.remove_row(key.id(), *number);
        }
        !numbers.is_empty()
    }

    /// Removes an entry that is not what was stored, and counts it.
    pub fn throw_away(&self, id: KeyId, number: u64, key: &str, why: &io::Error) {
        let so_far = self.thrown_away.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::warn!(key = %logged_name(key), %why, so_far, "a cache entry is not what was stored and is thrown away");
        self.remove_row(id, number);
    }

    /// How many entries turned out not to be what was stored since this was opened.
    pub fn thrown_away(&self) -> u64 {
        self.thrown_away.load(Ordering::Relaxed)
    }

    /// Removes one response of a key.
    pub fn remove_entry(&self, key: &Key, number: u64) {
        self.remove_row(key.id(), number);
    }

    /// Notes on the disk which entries were used of late.
    pub fn note_uses(&self) {
        let now = self.opened.elapsed();
        let mut used = Vec::new();
        for (id, rows) in &mut self.index().keys {
            for row in rows.iter_mut().filter(|row| row.used && row.touched + TOUCH_AFTER <= now) {
                row.touched = now;
                used.push((*id, row.number));
            }
        }
        for (id, number) in used {
            let path = self.path(id, number, "json");
            if let Ok(file) = OpenOptions::new().append(true).open(&path) {
                // Only the order of eviction after a restart hangs on it.
                drop(file.set_modified(SystemTime::now()));
            }
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // No code that holds it can leave it half changed in a way that matters more than a wrong count.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self, id: KeyId, number: u64) -> bool {
        self.index().keys.get(&id).is_some_and(|rows| rows.iter().any(|row| row.number == number))
    }

    fn remember_seals(&self, id: KeyId, entry: &Entry) {
        if let Some(row) = self.index().row(id, entry.number()) {
            row.seals = entry.in_file().map(|(_, seals)| Arc::clone(seals));
        }
    }

    fn path(&self, id: KeyId, number: u64, ending: &str) -> PathBuf {
        let id = id.to_string();
        self.dir
            .join("entries")
            .join(id.get(..2).unwrap_or("00"))
            .join(format!("{id}-{number:016x}.{ending}"))
    }

    fn read_entry(&self, key: &Key, number: u64) -> io::Result<Entry> {
        let record = self.read_record(key.id(), number)?;
        self.open_entry(key, number, &record)
    }

    fn read_record(&self, id: KeyId, number: u64) -> io::Result<Record> {
        let mut text = Vec::new();
        let file = File::open(self.path(id, number, "json"))?;
        file.take(LONGEST_RECORD + 1).read_to_end(&mut text)?;
        Record::parse(&text)
    }

    fn open_entry(&self, key: &Key, number: u64, record: &Record) -> io::Result<Entry> {
        let file = File::open(self.path(key.id(), number, "body"))?;
        let known = self.index().row(key.id(), number).and_then(|row| row.seals.clone());
        Entry::whole(number, record, file, key, known)
    }

    /// Evicts what was not used until `need` more bytes fit, and reserves them.
    fn make_room(&self, need: u64) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        let fits = {
            let mut index = self.index();
            while index.stored + index.reserved + need > self.limit
                && let Some(victim) = index.evict_one()
            {
                gone.push(victim);
            }
            let fits = index.stored + index.reserved + need <= self.limit;
            if fits {
                index.reserved += need;
            }
            fits
        };
        for (id, number) in gone {
            self.delete_files(id, number);
        }
        if fits { Ok(()) } else { Err(StoreError::Full { limit: self.limit }) }
    }

    fn remove_row(&self, id: KeyId, number: u64) {
        if self.index().forget(id, number) {
            self.delete_files(id, number);
        }
    }

    fn delete_files(&self, id: KeyId, number: u64) {
        self.hot.remove(&number);
        // The record first: a body without one is swept away at the next start, a record without its body is refused.
        for ending in ["json", "body"] {
            let path = self.path(id, number, ending);
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "the cache cannot remove a file");
            }
        }
    }

    /// Removes what a new entry takes the place of, and the oldest of too many variants. `older` has the newest first.
    fn replace(&self, key: &Key, entry: &Entry, mut older: Vec<u64>) {
        older.retain(|number| {
            let old = self.hot(key, *number).or_else(|| self.load(key, *number));
            let replaced = old.is_none_or(|old| old.head().selecting == entry.head().selecting);
            if replaced {
                self.remove_row(key.id(), *number);
            }
            !replaced
        });
        for number in older.iter().skip(MOST_VARIANTS - 1) {
            self.remove_row(key.id(), *number);
        }
    }

    fn write_record(&self, path: &Path, record: &Record, durable: bool) -> Result<(), StoreError> {
        // Two may write the same record at once, but never into one file.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.dir.join("tmp").join(format!("{number:016x}"));
        let written = (|| {
            let mut file = File::create(&unfinished)?;
            file.write_all(record.text())?;
            if durable {
                file.sync_data()?;
            }
            fs::rename(&unfinished, path)
        })();
        written.map_err(|source| {
            drop(fs::remove_file(&unfinished));
            failed("write", path)(source)
        })
    }
}

#[cfg(test)]
mod tests;
