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

use super::entry::{Entry, Head, LONGEST_RECORD, Record, SMALL_BODY};
use super::key::{Key, KeyId};
use crate::http::seals::{Sealer, Seals};
use crate::platform::lock::try_lock;
use crate::platform::positioned::write_all_at;
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache as HotEntries;
use std::collections::{HashMap, VecDeque};
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

/// What an entry with an open file weighs in memory: it bounds how many files are held open.
const OPEN_FILE_WEIGHT: u64 = 256 * 1024;

/// After this long a use is noted on the disk, so that a restart knows what was used.
const TOUCH_AFTER: Duration = Duration::from_secs(600);

const MARKER: &str = "relay-cache";
const MARKER_TEXT: &str = "relay-node cache, format 2\n";

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
    _lock: File,
}

/// A body on its way into the store. Dropping it throws it away.
#[derive(Debug)]
pub struct Growth {
    store: Arc<Store>,
    path: PathBuf,
    file: Arc<File>,
    number: u64,
    length: u64,
    reserved: u64,
    sealer: Sealer,
    small: Option<Vec<u8>>,
    published: Option<(Key, Arc<Entry>)>,
}

#[derive(Debug, Default)]
struct Index {
    keys: HashMap<KeyId, Vec<Row>>,
    /// Every entry once, the next to be looked at for eviction first.
    queue: VecDeque<(KeyId, u64)>,
    /// Entries whose files are not in their places yet.
    arriving: HashMap<u64, Arc<Entry>>,
    entries: usize,
    stored: u64,
    reserved: u64,
}

#[derive(Debug)]
struct Row {
    number: u64,
    size: u64,
    used: bool,
    touched: Duration,
    /// Of a body from an earlier process, once it was opened: which of its pieces were checked.
    seals: Option<Arc<Seals>>,
}

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<u64, Arc<Entry>> for Weight {
    fn weight(&self, _: &u64, entry: &Arc<Entry>) -> u64 {
        let body = if entry.in_file().is_some() { OPEN_FILE_WEIGHT } else { entry.head().length };
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
        let tmp = dir.join("tmp");
        let entries = dir.join("entries");
        for part in [&tmp, &entries] {
            fs::create_dir_all(part).map_err(failed("make the directory", part))?;
        }
        sweep(&tmp)?;
        let (index, last) = read_index(&entries)?;
        let store = Self {
            dir: dir.to_owned(),
            limit,
            opened: Instant::now(),
            index: Mutex::new(index),
            hot: HotEntries::with_weighter(1024, memory.max(1024 * 1024), Weight),
            next: AtomicU64::new(last + 1),
            _lock: lock,
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
                if let Some(row) = self.index().row(key.id(), number) {
                    row.seals = entry.in_file().and_then(|(_, seals)| seals).cloned();
                }
                self.hot.insert(number, Arc::clone(&entry));
                Some(entry)
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(key = key.text(), %error, "a cache entry cannot be used and is removed");
                }
                self.remove_row(key.id(), number);
                None
            }
        }
    }

    /// Begins a new body.
    pub fn begin(self: &Arc<Self>) -> Result<Growth, StoreError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join("tmp").join(format!("{number:016x}"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(failed("create", &path))?;
        Ok(Growth {
            store: Arc::clone(self),
            path,
            file: Arc::new(file),
            number,
            length: 0,
            reserved: 0,
            sealer: Sealer::default(),
            small: Some(Vec::new()),
            published: None,
        })
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

    fn path(&self, id: KeyId, number: u64, ending: &str) -> PathBuf {
        let id = id.to_string();
        self.dir
            .join("entries")
            .join(id.get(..2).unwrap_or("00"))
            .join(format!("{id}-{number:016x}.{ending}"))
    }

    fn read_entry(&self, key: &Key, number: u64) -> io::Result<Entry> {
        let mut text = Vec::new();
        let record_file = File::open(self.path(key.id(), number, "json"))?;
        record_file.take(LONGEST_RECORD + 1).read_to_end(&mut text)?;
        let record = Record::parse(&text)?;
        let file = File::open(self.path(key.id(), number, "body"))?;
        let known = self.index().row(key.id(), number).and_then(|row| row.seals.clone());
        Entry::whole(number, &record, file, key, known)
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

impl Growth {
    /// How many bytes it holds.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether it is an entry already.
    pub fn is_published(&self) -> bool {
        self.published.is_some()
    }

    /// The file, for those who read it while it grows.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Adds to the end. After an error nothing of these bytes counts as written.
    pub fn write(&mut self, pieces: &[Bytes]) -> Result<(), StoreError> {
        let more: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        self.reserve(self.length + more)?;
        for piece in pieces {
            write_all_at(&self.file, piece, self.length).map_err(failed("write", &self.path))?;
            self.sealer.update(piece);
            if let Some(small) = &mut self.small {
                small.extend_from_slice(piece);
            }
            self.length += piece.len() as u64;
            if self.length > SMALL_BODY {
                self.small = None;
            }
        }
        Ok(())
    }

    /// Makes an entry of it that is found from now on, in place of what was stored for the same key and request fields. It
    /// outlives the process once it is also [kept](Self::keep).
    pub fn publish(&mut self, key: &Key, mut head: Head) -> Result<(), StoreError> {
        head.length = self.length;
        let small = self.small.take().map(Bytes::from);
        let hash = match &small {
            Some(body) => blake3::hash(body),
            None => self.seal()?,
        };
        let record = Record::new(&head, hash);
        self.reserve(Entry::file_length(self.length) + record.size())?;
        let entry = Arc::new(Entry::new(self.number, head, hash, record.size(), small, self.file()));
        let older = self.store.rows(key);
        self.store.hot.insert(self.number, Arc::clone(&entry));
        {
            let mut index = self.store.index();
            index.reserved -= self.reserved;
            index.arriving.insert(self.number, Arc::clone(&entry));
            index.add(key.id(), self.number, self.reserved, self.store.opened.elapsed());
            self.reserved = 0;
        }
        self.store.replace(key, &entry, older);
        self.published = Some((key.clone(), entry));
        Ok(())
    }

    /// Brings a published entry to the disk.
    pub fn keep(mut self) -> Result<(), StoreError> {
        let Some((key, entry)) = self.published.take() else { return Ok(()) };
        let (store, id) = (Arc::clone(&self.store), key.id());
        // The origin may have confirmed it meanwhile.
        let entry = store.index().arriving.get(&self.number).cloned().unwrap_or(entry);
        let record = Record::new(entry.head(), entry.hash());
        let kept = self.rename_and_record(id, &record);
        self.store.index().arriving.remove(&self.number);
        if kept.is_err() {
            store.remove_row(id, self.number);
        } else if !store.holds(id, self.number) {
            // Evicted before the files were there to be deleted.
            store.delete_files(id, self.number);
        }
        kept
    }

    /// Both, one after the other.
    #[cfg(test)]
    pub fn commit(mut self, key: &Key, head: Head) -> Result<(), StoreError> {
        self.publish(key, head)?;
        self.keep()
    }

    /// Writes the hashes of the body's pieces behind it, and returns the hash of those.
    fn seal(&mut self) -> Result<blake3::Hash, StoreError> {
        let list = self.sealer.list();
        self.reserve(self.length + list.len() as u64)?;
        write_all_at(&self.file, &list, self.length).map_err(failed("write", &self.path))?;
        Ok(blake3::hash(&list))
    }

    fn rename_and_record(&mut self, id: KeyId, record: &Record) -> Result<(), StoreError> {
        let body = self.store.path(id, self.number, "body");
        if let Some(parent) = body.parent() {
            fs::create_dir_all(parent).map_err(failed("make the directory", parent))?;
        }
        self.file.sync_data().map_err(failed("write", &self.path))?;
        fs::rename(&self.path, &body).map_err(failed("write", &body))?;
        self.path = PathBuf::new();
        let written = self.store.write_record(&self.store.path(id, self.number, "json"), record, true);
        if written.is_err() {
            drop(fs::remove_file(&body));
        }
        written
    }

    fn reserve(&mut self, bytes: u64) -> Result<(), StoreError> {
        let wanted = bytes.next_multiple_of(BLOCK) + BLOCK;
        if wanted > self.reserved {
            self.store.make_room(wanted - self.reserved)?;
            self.reserved = wanted;
        }
        Ok(())
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        if self.reserved > 0 {
            self.store.index().reserved -= self.reserved;
        }
        if let Some((key, _)) = self.published.take() {
            self.store.index().arriving.remove(&self.number);
            self.store.remove_row(key.id(), self.number);
        }
        if !self.path.as_os_str().is_empty() {
            drop(fs::remove_file(&self.path));
        }
    }
}

impl Index {
    fn add(&mut self, id: KeyId, number: u64, size: u64, touched: Duration) {
        self.keys.entry(id).or_default().push(Row { number, size, used: false, touched, seals: None });
        self.queue.push_back((id, number));
        self.entries += 1;
        self.stored += size;
        // What was removed otherwise than by eviction still stands in the queue.
        if self.queue.len() > 2 * self.entries + 64 {
            let keys = &self.keys;
            self.queue.retain(|(id, number)| {
                keys.get(id).is_some_and(|rows| rows.iter().any(|row| row.number == *number))
            });
        }
    }

    fn row(&mut self, id: KeyId, number: u64) -> Option<&mut Row> {
        self.keys.get_mut(&id)?.iter_mut().find(|row| row.number == number)
    }

    fn forget(&mut self, id: KeyId, number: u64) -> bool {
        let Some(rows) = self.keys.get_mut(&id) else { return false };
        let Some(place) = rows.iter().position(|row| row.number == number) else { return false };
        let row = rows.remove(place);
        if rows.is_empty() {
            self.keys.remove(&id);
        }
        self.entries -= 1;
        self.stored -= row.size;
        true
    }

    /// Second chance: what was used since the last look goes to the end of the queue instead.
    fn evict_one(&mut self) -> Option<(KeyId, u64)> {
        loop {
            let (id, number) = self.queue.pop_front()?;
            match self.row(id, number) {
                None => {}
                Some(row) if row.used => {
                    row.used = false;
                    self.queue.push_back((id, number));
                }
                Some(_) => {
                    self.forget(id, number);
                    return Some((id, number));
                }
            }
        }
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.display().to_string();
    move |source| StoreError::Io { what, path, source }
}

/// A directory that somebody named by mistake must not be swept.
fn check_marker(dir: &Path) -> Result<(), StoreError> {
    let dir_text = || dir.display().to_string();
    match fs::read_to_string(dir.join(MARKER)) {
        Ok(text) if text == MARKER_TEXT => Ok(()),
        Ok(found) => {
            Err(StoreError::OtherFormat { dir: dir_text(), found: found.chars().take(60).collect() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut others = fs::read_dir(dir).map_err(failed("read the directory", dir))?;
            let foreign = others.any(|file| file.is_ok_and(|file| file.file_name() != "lock"));
            if foreign { Err(StoreError::NotACache { dir: dir_text() }) } else { Ok(()) }
        }
        Err(error) => Err(failed("read", &dir.join(MARKER))(error)),
    }
}

fn write_marker(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(MARKER);
    if path.exists() {
        return Ok(());
    }
    // Under another name first would be a file that the next start takes for a foreign one.
    fs::write(&path, MARKER_TEXT).map_err(failed("write", &path))
}

/// Where the system has no such lock, two processes on one cache waste each other's work but serve nothing torn: no name
/// is used for a second body.
fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed("open", &path))?;
    match try_lock(&file) {
        Ok(true) => {}
        Ok(false) => {
            let mut text = String::new();
            let holder = match file.take(32).read_to_string(&mut text) {
                Ok(_) if !text.trim().is_empty() => format!(" (process {})", text.trim()),
                _ => String::new(),
            };
            return Err(StoreError::InUse { dir: dir.display().to_string(), holder });
        }
        Err(error) => return Err(failed("lock", &path)(error)),
    }
    let noted = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    noted.map_err(failed("write", &path))?;
    Ok(file)
}

fn sweep(dir: &Path) -> Result<(), StoreError> {
    for file in fs::read_dir(dir).map_err(failed("read the directory", dir))?.flatten() {
        let path = file.path();
        fs::remove_file(&path).map_err(failed("remove", &path))?;
    }
    Ok(())
}

/// One found entry: when it was used last, its key, its number, what it takes.
type Found = (SystemTime, KeyId, u64, u64);

fn read_index(entries: &Path) -> Result<(Index, u64), StoreError> {
    let mut found: Vec<Found> = Vec::new();
    for dir in fs::read_dir(entries).map_err(failed("read the directory", entries))?.flatten() {
        found.extend(read_entry_dir(&dir.path())?);
    }
    found.sort_unstable();
    let mut index = Index::default();
    let last = found.iter().map(|(_, _, number, _)| *number).max().unwrap_or(0);
    for (_, id, number, size) in found {
        index.add(id, number, size, Duration::ZERO);
    }
    for rows in index.keys.values_mut() {
        rows.sort_by_key(|row| row.number);
    }
    Ok((index, last))
}

/// The whole entries of one directory; what is left of others is removed.
fn read_entry_dir(dir: &Path) -> Result<Vec<Found>, StoreError> {
    let mut records: HashMap<(KeyId, u64), (SystemTime, u64)> = HashMap::new();
    let mut bodies: HashMap<(KeyId, u64), u64> = HashMap::new();
    for file in fs::read_dir(dir).map_err(failed("read the directory", dir))?.flatten() {
        let Ok(meta) = file.metadata() else { continue };
        let name = file.file_name();
        match name.to_str().and_then(parse_name) {
            Some((name, "json")) => {
                let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                records.insert(name, (used, meta.len()));
            }
            Some((name, "body")) => drop(bodies.insert(name, meta.len())),
            _ => {}
        }
    }
    for (id, number) in bodies.keys().filter(|name| !records.contains_key(name)) {
        drop(fs::remove_file(dir.join(format!("{id}-{number:016x}.body"))));
    }
    let mut found = Vec::with_capacity(records.len());
    for ((id, number), (used, record_size)) in records {
        match bodies.get(&(id, number)) {
            Some(length) => {
                let size = (length + record_size).next_multiple_of(BLOCK) + BLOCK;
                found.push((used, id, number, size));
            }
            None => drop(fs::remove_file(dir.join(format!("{id}-{number:016x}.json")))),
        }
    }
    Ok(found)
}

fn parse_name(name: &str) -> Option<((KeyId, u64), &str)> {
    let (stem, ending) = name.split_once('.')?;
    let (id, number) = stem.split_once('-')?;
    Some(((KeyId::parse(id)?, u64::from_str_radix(number, 16).ok()?), ending))
}

#[cfg(test)]
mod tests;
