//! `NAME.part.journal`: what file a `.part` is, and which of its chunks are verified and on the disk.
//!
//! A line of JSON (the version that is being fetched), then one record of 48 bytes for each chunk: its index, its hash,
//! and 8 bytes that bind both to this journal, so that a torn or stale record is seen. Records are only appended, and only after
//! the chunk's data has been synced; a new journal replaces the old one by a rename. So whatever a power cut leaves is
//! either right or ignored. What is read here is a claim: every chunk is hashed again before it counts.

use crate::beneath::Directory;
use crate::failure::copy_of;
use crate::part_file::PartFile;
use crate::platform::open_no_follow;
use crate::unfinished::Names;
use relay_proto::chunk::chunk_count;
use relay_proto::digest::ChunkHash;
use relay_proto::file::FileFacts;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

/// Bytes of a record.
const RECORD_LEN: usize = 48;
/// The longest first line, in bytes.
const MAX_HEADER: u64 = 16 * 1024;
/// The format's version.
const FORMAT: u32 = 1;

/// A chunk and its hash.
pub type Entry = (u64, ChunkHash);

#[derive(Serialize, Deserialize)]
struct Header {
    relay_journal: u32,
    file: FileFacts,
}

/// What a journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The version that is being fetched.
    pub file: FileFacts,
    /// The chunks that were verified, within the file, each once.
    pub chunks: Vec<Entry>,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    file: File,
    binding: [u8; 32],
}

impl Journal {
    /// What the journal at `path` says; nothing when there is none or it cannot be understood.
    #[must_use]
    pub fn read(path: &Path) -> Option<Held> {
        Journal::read_from(open_no_follow().open(path).ok()?)
    }

    /// What the journal of a part file says; nothing when there is none or it cannot be understood.
    #[must_use]
    pub fn read_of(part: &PartFile) -> Option<Held> {
        Journal::read_from(part.directory().read(&part.names().journal).ok()?)
    }

    fn read_from(file: File) -> Option<Held> {
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        reader.by_ref().take(MAX_HEADER).read_until(b'\n', &mut line).ok()?;
        let header: Header = serde_json::from_slice(&line).ok()?;
        if header.relay_journal != FORMAT || line.last() != Some(&b'\n') {
            return None;
        }
        let (binding, count) = (binding(&line), chunk_count(header.file.size.bytes()));
        let mut chunks = std::collections::BTreeMap::new();
        let mut record = [0; RECORD_LEN];
        while reader.read_exact(&mut record).is_ok() {
            if let Some((index, hash)) = decode(&record, &binding).filter(|(index, _)| *index < count) {
                chunks.insert(index, hash);
            }
        }
        Some(Held { file: header.file, chunks: chunks.into_iter().collect() })
    }

    /// A new journal in `directory` for `file`, of which `chunks` are on the disk already. It takes an older one's place at once.
    ///
    /// # Errors
    /// The system's; an older journal is then still there.
    pub fn create(
        directory: &Directory,
        names: &Names,
        file: &FileFacts,
        chunks: &[Entry],
    ) -> io::Result<Journal> {
        let mut line = serde_json::to_vec(&Header { relay_journal: FORMAT, file: file.clone() })?;
        line.push(b'\n');
        let binding = binding(&line);
        line.extend(chunks.iter().flat_map(|entry| encode(*entry, &binding)));
        if names.owns_journal(directory, &names.new_journal)? == Some(true) {
            // An earlier run ended while it made one.
            directory.remove(&names.new_journal)?;
        }
        let mut new = directory.create_new(&names.new_journal, false)?;
        Journal::place(&mut new, &line, directory, names).inspect_err(|_| {
            // Half a journal under a name that nobody reads is only litter.
            let _ = directory.remove(&names.new_journal);
        })?;
        // Once, so that the names of both the journal and the part file are there after a power cut.
        directory.sync()?;
        Ok(Journal { file: new, binding })
    }

    /// Writes `text` into a new journal, and gives it its name once it is on the disk.
    fn place(new: &mut File, text: &[u8], directory: &Directory, names: &Names) -> io::Result<()> {
        new.write_all(text)?;
        new.sync_data()?;
        directory.give_name(new, &names.new_journal, &names.journal)
    }

    /// Adds chunks whose data is on the disk, and returns when the journal is, too.
    ///
    /// # Errors
    /// The system's.
    pub fn append(&mut self, chunks: &[Entry]) -> io::Result<()> {
        let records: Vec<u8> = chunks.iter().flat_map(|entry| encode(*entry, &self.binding)).collect();
        self.file.write_all(&records)?;
        self.file.sync_data()
    }
}

fn binding(line: &[u8]) -> [u8; 32] {
    *blake3::hash(line).as_bytes()
}

fn encode((index, hash): Entry, binding: &[u8; 32]) -> [u8; RECORD_LEN] {
    let mut record = [0; RECORD_LEN];
    let (index_part, rest) = record.split_at_mut(8);
    let (hash_part, check_part) = rest.split_at_mut(32);
    index_part.copy_from_slice(&index.to_le_bytes());
    hash_part.copy_from_slice(hash.as_bytes());
    check_part.copy_from_slice(&check(index, hash.as_bytes(), binding));
    record
}

fn decode(record: &[u8; RECORD_LEN], binding: &[u8; 32]) -> Option<Entry> {
    let (index, rest) = record.split_first_chunk::<8>()?;
    let (hash, stored) = rest.split_first_chunk::<32>()?;
    let index = u64::from_le_bytes(*index);
    (stored == check(index, hash, binding)).then_some((index, ChunkHash::from_bytes(*hash)))
}

fn check(index: u64, hash: &[u8; 32], binding: &[u8; 32]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new_keyed(binding);
    hasher.update(&index.to_le_bytes()).update(hash);
    let mut check = [0; 8];
    hasher.finalize_xof().fill(&mut check);
    check
}

/// How often verified chunks are put into the journal. A power cut costs what came since.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// What was not kept.
#[derive(Debug)]
pub enum KeepError {
    /// Data did not reach the disk. The system says so once and then forgets it, and what it holds in memory may still look
    /// right; so it counts for good.
    Data(io::Error),
    /// Only the journal was not written. A later run finds less.
    Journal(io::Error),
}

/// Keeps the journal of a download beside the receiving: data first, then the journal. A download that takes less than a second
/// never gets one.
pub struct Keeper {
    part: PartFile,
    journal: Option<Journal>,
    /// Placed, and not yet in the journal.
    fresh: Vec<Entry>,
    running: Option<JoinHandle<Result<Journal, KeepError>>>,
    last: Instant,
    /// Why data did not reach the disk, once it did not. Nothing is put into the journal from then on.
    lost: Option<io::Error>,
}

impl Keeper {
    /// A keeper for what is placed into `part`.
    #[must_use]
    pub fn new(part: PartFile) -> Keeper {
        Keeper { part, journal: None, fresh: Vec::new(), running: None, last: Instant::now(), lost: None }
    }

    /// The part file.
    #[must_use]
    pub fn part(&self) -> &PartFile {
        &self.part
    }

    /// A chunk has been written.
    pub fn placed(&mut self, entry: Entry) {
        self.fresh.push(entry);
    }

    /// Begins anew, for another version: the next journal will replace the one that is there.
    pub async fn forget(&mut self) {
        // Lost data is remembered: the other version may reuse some of it.
        let _ = self.collect().await;
        self.journal = None;
        self.fresh.clear();
    }

    /// Whether something should be kept now.
    #[must_use]
    pub fn is_due(&self) -> bool {
        !self.fresh.is_empty() && self.last.elapsed() >= KEEP_EVERY && self.is_idle()
    }

    fn is_idle(&self) -> bool {
        self.running.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Starts to keep what is fresh, or all of `placed` when there is no journal yet.
    ///
    /// # Errors
    /// That the keeping before failed.
    pub async fn keep(
        &mut self,
        file: &FileFacts,
        placed: impl FnOnce() -> Vec<Entry>,
    ) -> Result<(), KeepError> {
        self.collect().await?;
        self.last = Instant::now();
        let data = self.part.try_clone().map_err(KeepError::Journal)?;
        let fresh = std::mem::take(&mut self.fresh);
        let (journal, directory) = (self.journal.take(), Arc::clone(self.part.directory()));
        let names = self.part.names().clone();
        let all = if journal.is_none() { placed() } else { Vec::new() };
        let file = file.clone();
        self.running = Some(spawn_blocking(move || {
            data.sync_data().map_err(KeepError::Data)?;
            let journal = match journal {
                Some(mut journal) => journal.append(&fresh).map(|()| journal),
                None => Journal::create(&directory, &names, &file, &all),
            };
            journal.map_err(KeepError::Journal)
        }));
        Ok(())
    }

    /// Keeps everything, and returns when it is kept.
    ///
    /// # Errors
    /// The system's, and again that data was lost before.
    pub async fn keep_all(
        &mut self,
        file: &FileFacts,
        placed: impl FnOnce() -> Vec<Entry>,
    ) -> Result<(), KeepError> {
        self.collect().await?;
        if self.fresh.is_empty() && self.journal.is_some() {
            return Ok(());
        }
        self.keep(file, placed).await?;
        self.collect().await
    }

    /// Takes the result of the keeping that runs. It is taken only once it is there, so that nobody who stops waiting loses it.
    async fn collect(&mut self) -> Result<(), KeepError> {
        if let Some(running) = &mut self.running {
            let kept = running.await;
            self.running = None;
            match kept.unwrap_or_else(|e| Err(KeepError::Data(io::Error::other(e)))) {
                Ok(journal) => self.journal = Some(journal),
                Err(KeepError::Data(error)) => self.lost = Some(error),
                Err(error) => return Err(error),
            }
        }
        self.lost.as_ref().map_or(Ok(()), |error| Err(KeepError::Data(copy_of(error))))
    }

    /// The part file, for finishing it. Nothing is kept any more.
    ///
    /// # Errors
    /// That data was lost at any time before: syncing once more would not tell.
    pub async fn into_part(mut self) -> io::Result<PartFile> {
        match self.collect().await {
            Err(KeepError::Data(error)) => Err(error),
            Ok(()) | Err(KeepError::Journal(_)) => Ok(self.part),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_proto::chunk::CHUNK_LEN;
    use relay_proto::file::{Size, Timestamp};
    use std::fs;
    use std::path::PathBuf;

    fn facts(tag: &str) -> FileFacts {
        FileFacts {
            size: Size::try_from(10 * CHUNK_LEN).unwrap(),
            modified: Timestamp::new(1, 2).unwrap(),
            entity_tag: tag.to_owned().try_into().unwrap(),
            executable: false,
        }
    }

    fn entry(index: u64) -> Entry {
        (index, ChunkHash::from_bytes([u8::try_from(index).unwrap(); 32]))
    }

    fn sample(directory: &Path) -> PathBuf {
        let [names, _] = Names::of("f".as_ref());
        let opened = Directory::open(directory).unwrap();
        let mut journal = Journal::create(&opened, &names, &facts("a"), &[entry(3), entry(1)]).unwrap();
        journal.append(&[entry(9), entry(10)]).unwrap();
        directory.join(names.journal)
    }

    #[test]
    fn says_what_was_told() {
        let directory = tempfile::tempdir().unwrap();
        let held = Journal::read(&sample(directory.path())).unwrap();
        // Chunk 10 lies beyond the end of the file.
        assert_eq!(held, Held { file: facts("a"), chunks: vec![entry(1), entry(3), entry(9)] });
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_truncation_says_less_and_never_something_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = sample(directory.path());
        let (bytes, whole) = (fs::read(&path).unwrap(), Journal::read(&path).unwrap());
        for len in 0..bytes.len() {
            fs::write(&path, &bytes[..len]).unwrap();
            if let Some(held) = Journal::read(&path) {
                assert_eq!(held.file, whole.file, "{len}");
                assert!(held.chunks.iter().all(|entry| whole.chunks.contains(entry)), "{len}");
            }
        }
    }

    #[test]
    fn every_flipped_byte_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = sample(directory.path());
        let (bytes, whole) = (fs::read(&path).unwrap(), Journal::read(&path).unwrap());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x20;
            fs::write(&path, &flipped).unwrap();
            let chunks = Journal::read(&path).map(|held| held.chunks).unwrap_or_default();
            assert!(chunks.iter().all(|entry| whole.chunks.contains(entry)), "{at}");
        }
    }

    /// A part file that takes every byte and cannot be synced.
    #[cfg(unix)]
    fn unsyncable(target: &Path) -> PartFile {
        let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
        assert!(null.sync_data().is_err());
        PartFile::over(target, null)
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn lost_data_is_told_again_and_never_journalled() {
        let directory = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::new(unsyncable(&directory.path().join("f")));
        for _ in 0..2 {
            keeper.placed(entry(0));
            let kept = keeper.keep_all(&facts("a"), || vec![entry(0)]).await;
            assert!(matches!(kept, Err(KeepError::Data(_))), "{kept:?}");
        }
        assert!(!keeper.part().journal_path().exists());
        // From now on the file can be synced, as one can after the system has told its error once.
        keeper.part = PartFile::over(&directory.path().join("f"), tempfile::tempfile().unwrap());
        keeper.forget().await;
        assert!(keeper.into_part().await.is_err());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn lost_data_that_nobody_waited_for_is_told_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::new(unsyncable(&directory.path().join("f")));
        keeper.keep(&facts("a"), || vec![entry(0)]).await.unwrap();
        keeper.forget().await;
        assert!(keeper.into_part().await.is_err());
    }

    #[tokio::test]
    async fn a_journal_that_cannot_be_written_does_not_spoil_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let part = PartFile::open(&directory.path().join("f")).unwrap();
        fs::create_dir(part.journal_path()).unwrap();
        let mut keeper = Keeper::new(part);
        let kept = keeper.keep_all(&facts("a"), || vec![entry(0)]).await;
        assert!(matches!(kept, Err(KeepError::Journal(_))), "{kept:?}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "no half journal is left behind");
        keeper.into_part().await.unwrap();
    }

    #[test]
    fn what_is_no_journal() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f.part.journal");
        assert_eq!(Journal::read(&path), None);
        for text in ["", "\n", "{}\n", "{\"relay_journal\":2}\n"] {
            fs::write(&path, text).unwrap();
            assert_eq!(Journal::read(&path), None);
        }
        fs::write(&path, vec![b' '; 100_000]).unwrap();
        assert_eq!(Journal::read(&path), None);
    }
}
