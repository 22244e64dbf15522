//! Small files on their way to the disk: verified, written as `NAME.part`, synced, renamed; on threads, so that the network never
//! waits for a disk while there is room in memory.
//!
//! A file gets its final name only when its bytes are on the disk: every file of a batch is written first, then one sync covers
//! them all (`beneath::sync_all`), and only then they are renamed. So whatever a power cut leaves under a final name is whole; it
//! costs at most the last batch. The names themselves are synced at the end of the run, before it says that it is done.

use super::sift::{Item, blockade};
use crate::beneath::{Directory, Walker, file_time, settle_mode, split, sync_all, unmark};
use crate::platform::{descriptors, is_out_of_descriptors};
use crate::show;
use crate::unfinished::{Claim, Unclaimed, Wish, claim};
use relay_proto::chunk::CHUNK_LEN;
use relay_proto::digest::{ChunkHash, FileHash};
use relay_proto::file::FileFacts;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most files of one batch. On others than Linux a batch saves nothing.
const MAX_BATCH: usize = if cfg!(target_os = "linux") { 256 } else { 48 };
/// Descriptors that a file of a batch takes: its own and its directory's. As many files may wait for the next batch.
const DESCRIPTORS_A_FILE: u64 = 2 * 2;
/// Descriptors that are left to everything else: ways through the tree, sockets, large files.
const OTHER_DESCRIPTORS: u64 = 160;
/// How long a batch waits to become full, unless nothing more can come.
const GATHER: Duration = Duration::from_millis(150);
/// How often it is looked whether more can come.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Threads that verify and write.
const WRITERS: usize = 2;
/// Bytes of files that were received and are not written yet, in KiB: the memory that a slow disk may cost.
const MAX_WAITING_KIB: u32 = 32 * 1024;

/// A file that was received.
pub struct Received {
    /// Which.
    pub item: Item,
    /// What the origin says that it is.
    pub facts: FileFacts,
    /// All of it.
    pub bytes: Vec<u8>,
    /// What the origin promises, chunk by chunk.
    pub promised: Vec<ChunkHash>,
    /// Its share of the memory.
    pub room: OwnedSemaphorePermit,
}

/// A file that is no longer on its way.
pub struct Saved {
    /// Which.
    pub item: Item,
    /// Bytes.
    pub size: u64,
    /// Its hash, or why it is not under its name.
    pub result: Result<FileHash, Unsaved>,
}

/// Why a received file is not under its name.
#[derive(Debug)]
pub enum Unsaved {
    /// A chunk's bytes do not have the promised hash.
    Damaged {
        /// Which chunk, from 0.
        index: u64,
    },
    /// This machine does not take it.
    Refused {
        /// Why, for people.
        why: String,
        /// What the system says.
        error: Option<io::Error>,
    },
}

/// The threads that save.
pub struct Saver {
    intake: Intake,
    saved: UnboundedReceiver<Saved>,
    touched: Arc<Mutex<BTreeSet<String>>>,
}

/// Where received files go.
#[derive(Clone)]
pub struct Intake {
    jobs: Sender<Received>,
    room: Arc<Semaphore>,
    expected: Arc<Expected>,
}

/// What is known of files to come.
#[derive(Default)]
struct Expected {
    /// Files that were received, and what became of them is not told yet.
    under_way: AtomicUsize,
    /// No further file is being received.
    is_last: AtomicBool,
}

/// A file that is written and not yet synced.
struct Written {
    item: Item,
    size: u64,
    hash: FileHash,
    directory: Arc<Directory>,
    claim: Claim,
}

/// How many files are written and do not have their names yet. Whoever finds no descriptor waits for some of theirs.
#[derive(Default)]
struct Pending {
    files: Mutex<usize>,
    fewer: Condvar,
}

impl Pending {
    fn add(&self) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    fn sub(&self, files: usize) {
        let mut pending = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        *pending = pending.saturating_sub(files);
        self.fewer.notify_all();
    }

    /// Waits until there are fewer of them; false when there is none. A batch does not wait for long, and a sync ends.
    fn wait_for_fewer(&self) -> bool {
        let pending = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *pending;
        if before == 0 {
            return false;
        }
        drop(self.fewer.wait_while(pending, |files| *files >= before));
        true
    }
}

/// Files of one batch, as far as this process may have so many open.
fn batch_len(descriptors: Option<u64>) -> usize {
    let room = descriptors.unwrap_or(u64::MAX).saturating_sub(OTHER_DESCRIPTORS) / DESCRIPTORS_A_FILE;
    usize::try_from(room).unwrap_or(MAX_BATCH).clamp(1, MAX_BATCH)
}

impl Saver {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn start(root: &Arc<Directory>) -> io::Result<Saver> {
        let (jobs, take) = channel();
        let most = batch_len(descriptors());
        let (written, batches) = sync_channel(most);
        let pending = Arc::<Pending>::default();
        let (tell, saved) = unbounded_channel();
        let take = Arc::new(Mutex::new(take));
        for number in 0..WRITERS {
            let (take, written, tell) = (Arc::clone(&take), written.clone(), tell.clone());
            let (walker, pending) = (Walker::new(Arc::clone(root)), Arc::clone(&pending));
            thread::Builder::new()
                .name(format!("save-{number}"))
                .spawn(move || write_all(&take, walker, &pending, &written, &tell))?;
        }
        let touched = Arc::new(Mutex::new(BTreeSet::new()));
        let (root, dirs, expected) = (Arc::clone(root), Arc::clone(&touched), Arc::<Expected>::default());
        let awaited = Arc::clone(&expected);
        thread::Builder::new().name("sync".to_owned()).spawn(move || {
            while let Ok(first) = batches.recv() {
                let batch = gather(first, most, &batches, &awaited);
                let files = batch.len();
                let saved = commit(batch, &root, &dirs);
                pending.sub(files);
                for saved in saved {
                    // Nobody listens any more when the run was stopped; what is here gets its name even so.
                    let _ = tell.send(saved);
                }
            }
        })?;
        let room = Arc::new(Semaphore::new(MAX_WAITING_KIB as usize));
        let intake = Intake { jobs, room, expected };
        Ok(Saver { intake, saved, touched })
    }

    /// Where received files go.
    #[must_use]
    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// Whether files are on their way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.intake.expected.under_way.load(Ordering::SeqCst) > 0
    }

    /// The next file that is no longer on its way; waits until there is one. Can be dropped while it waits without a loss.
    pub async fn saved(&mut self) -> Saved {
        match self.saved.recv().await {
            Some(saved) => {
                self.intake.expected.under_way.fetch_sub(1, Ordering::SeqCst);
                saved
            }
            // The threads live as long as this does.
            None => std::future::pending().await,
        }
    }

    /// Says whether no further file is being received, so that nothing waits for one.
    pub fn set_last(&self, is_last: bool) {
        self.intake.expected.is_last.store(is_last, Ordering::SeqCst);
    }

    /// The directories in which something got its name.
    #[must_use]
    pub fn touched(&self) -> BTreeSet<String> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Intake {
    /// One from which nobody takes but the test that holds the other end.
    #[cfg(test)]
    pub fn alone() -> (Intake, Receiver<Received>) {
        let (jobs, take) = channel();
        let room = Arc::new(Semaphore::new(MAX_WAITING_KIB as usize));
        (Intake { jobs, room, expected: Arc::default() }, take)
    }

    /// Waits until there is room for a file of `size` bytes.
    ///
    /// # Errors
    /// None, as long as the threads live.
    pub async fn room(&self, size: u64) -> io::Result<OwnedSemaphorePermit> {
        let kib = u32::try_from(size.div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, MAX_WAITING_KIB);
        Arc::clone(&self.room).acquire_many_owned(kib).await.map_err(io::Error::other)
    }

    /// Hands a file over.
    pub fn submit(&self, received: Received) {
        // Counted before it can be done. The threads live as long as the run does.
        self.expected.under_way.fetch_add(1, Ordering::SeqCst);
        let _ = self.jobs.send(received);
    }
}

fn write_all(
    take: &Mutex<Receiver<Received>>,
    mut walker: Walker,
    pending: &Pending,
    written: &SyncSender<Written>,
    tell: &UnboundedSender<Saved>,
) {
    while let Some(received) = next(take) {
        let (item, size) = (received.item.clone(), received.bytes.len() as u64);
        match write(received, &mut walker, pending) {
            Ok(done) => {
                pending.add();
                if written.send(done).is_err() {
                    return;
                }
            }
            // Nobody listens any more when the run was stopped.
            Err(error) => drop(tell.send(Saved { item, size, result: Err(error) })),
        }
    }
}

fn next(take: &Mutex<Receiver<Received>>) -> Option<Received> {
    take.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// Verifies a file and writes it under the name of an unfinished one.
fn write(received: Received, walker: &mut Walker, pending: &Pending) -> Result<Written, Unsaved> {
    let Received { item, facts, bytes, promised, room } = received;
    let size = bytes.len() as u64;
    for (index, (chunk, promised)) in (0_u64..).zip(bytes.chunks(CHUNK_LEN as usize).zip(&promised)) {
        if ChunkHash::of(chunk, index, size) != *promised {
            return Err(Unsaved::Damaged { index });
        }
    }
    let (directory, claim) = loop {
        match open(&item, walker) {
            Err(Unsaved::Refused { error: Some(error), .. })
                if is_out_of_descriptors(&error) && pending.wait_for_fewer() => {}
            opened => break opened?,
        }
    };
    fill(&directory, &claim, &bytes)?;
    let file = &claim.file;
    // Permissions and a time that the file system cannot hold do not spoil the file.
    let _ = settle_mode(file, item.replaces, Some(facts.executable));
    let _ = filetime::set_file_handle_times(file, None, Some(file_time(facts.modified)));
    drop(room);
    Ok(Written { item, size, hash: FileHash::of_chunks(&promised), directory, claim })
}

/// Writes all of a file. Where that fails nothing stays: no run goes on with it, and on a full disk it would only take room.
fn fill(directory: &Directory, claim: &Claim, bytes: &[u8]) -> Result<(), Unsaved> {
    let Claim { file, names, was_there, .. } = claim;
    let emptied = if *was_there { file.set_len(0) } else { Ok(()) };
    let mut writer = file;
    emptied.and_then(|()| writer.write_all(bytes)).map_err(|error| {
        if directory.is_still(file, &names.part).unwrap_or(false) {
            let _ = directory.remove(&names.part);
            names.remove_journals(directory);
        }
        Unsaved::refused(cannot_write(&names.part, &error), error)
    })
}

/// The directory of a file, and its unfinished form there.
fn open(item: &Item, walker: &mut Walker) -> Result<(Arc<Directory>, Claim), Unsaved> {
    let (parent, name) = split(item.path.as_str());
    let directory = walker.directory(parent, true);
    let directory = directory.map_err(|error| Unsaved::refused(blockade(parent, &error), error))?;
    let wish = Wish { create: true, private: item.replaces.is_some(), journal: false };
    match claim(&directory, name.as_ref(), wish) {
        Ok(Some(claim)) => Ok((directory, claim)),
        Ok(None) | Err(Unclaimed::InUse(_)) => {
            Err(Unsaved::Refused { why: "another client is writing it".to_owned(), error: None })
        }
        Err(Unclaimed::System(part, error)) => Err(Unsaved::refused(cannot_write(&part, &error), error)),
    }
}

fn cannot_write(part: &OsStr, error: &io::Error) -> String {
    format!("cannot write {}: {error}", show::path(Path::new(part)))
}

impl Unsaved {
    fn refused(why: String, error: io::Error) -> Unsaved {
        Unsaved::Refused { why, error: Some(error) }
    }
}

/// A batch: as many as come in a short while.
fn gather(first: Written, most: usize, written: &Receiver<Written>, expected: &Expected) -> Vec<Written> {
    let until = Instant::now() + GATHER;
    let mut batch = vec![first];
    while batch.len() < most && !expected.is_all(batch.len()) {
        let left = until.saturating_duration_since(Instant::now());
        match written.recv_timeout(left.min(LOOK_EVERY)) {
            Ok(next) => batch.push(next),
            Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    batch
}

impl Expected {
    /// Whether nothing can come behind `files` files.
    fn is_all(&self, files: usize) -> bool {
        self.is_last.load(Ordering::SeqCst) && self.under_way.load(Ordering::SeqCst) <= files
    }
}

/// Syncs all files of a batch, and then gives them their names.
fn commit(batch: Vec<Written>, root: &Directory, touched: &Mutex<BTreeSet<String>>) -> Vec<Saved> {
    let files: Vec<&File> = batch.iter().map(|written| &written.claim.file).collect();
    let mut lost = sync_all(&files, root).into_iter().peekable();
    let mut saved = Vec::with_capacity(batch.len());
    for (at, written) in batch.into_iter().enumerate() {
        let lost = lost.next_if(|(lost, _)| *lost == at).map(|(_, error)| error);
        let result = match lost {
            Some(error) => Err(Unsaved::refused(format!("it did not reach the disk: {error}"), error)),
            None => name(&written, touched).map(|()| written.hash),
        };
        saved.push(Saved { item: written.item, size: written.size, result });
    }
    saved
}

fn name(written: &Written, touched: &Mutex<BTreeSet<String>>) -> Result<(), Unsaved> {
    let (parent, name) = split(written.item.path.as_str());
    let Claim { file, names, was_there, .. } = &written.claim;
    let renamed = written.directory.give_name(file, &names.part, name);
    renamed.map_err(|error| Unsaved::refused(format!("cannot be given its name: {error}"), error))?;
    let _ = unmark(file);
    if *was_there {
        // An older download may have had a journal.
        names.remove_journals(&written.directory);
    }
    let mut touched = touched.lock().unwrap_or_else(PoisonError::into_inner);
    if !touched.contains(parent) {
        touched.insert(parent.to_owned());
    }
    Ok(())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::tree::names::SafePath;
    use relay_proto::file::{Size, Timestamp};
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    fn item(path: &str, size: u64) -> Item {
        Item {
            path: SafePath::of(path, "").unwrap(),
            size,
            modified: Timestamp::new(77, 5).unwrap(),
            executable: true,
            replaces: None,
            compare: false,
            failed: 0,
        }
    }

    fn facts(size: u64) -> FileFacts {
        FileFacts {
            size: Size::try_from(size).unwrap(),
            modified: Timestamp::new(77, 5).unwrap(),
            entity_tag: "a".to_owned().try_into().unwrap(),
            executable: true,
        }
    }

    async fn received(saver: &Saver, path: &str, bytes: &[u8]) -> Received {
        let size = bytes.len() as u64;
        let chunks = (0_u64..).zip(bytes.chunks(CHUNK_LEN as usize));
        Received {
            item: item(path, size),
            facts: facts(size),
            bytes: bytes.to_vec(),
            promised: chunks.map(|(index, chunk)| ChunkHash::of(chunk, index, size)).collect(),
            room: saver.intake.room(size).await.unwrap(),
        }
    }

    #[tokio::test]
    async fn saves_with_time_and_mark_and_without_a_trace() {
        let place = tempfile::tempdir().unwrap();
        let root = Arc::new(Directory::open(place.path()).unwrap());
        let mut saver = Saver::start(&root).unwrap();
        // What an earlier run left of a longer version, with its journal.
        fs::write(place.path().join("a.part"), "much longer than what comes now").unwrap();
        fs::write(place.path().join("a.part.journal"), "{\"relay_journal\":1}\n").unwrap();
        let long: Vec<u8> = (0..CHUNK_LEN + 5).map(|i| (i % 251) as u8).collect();
        for (path, bytes) in [("a", &b"abc"[..]), ("d/e/empty", b""), ("d/long", &long)] {
            let received = received(&saver, path, bytes).await;
            saver.intake().submit(received);
        }
        let mut damaged = received(&saver, "bad", b"abc").await;
        damaged.bytes[1] ^= 1;
        saver.intake().submit(damaged);
        let mut names = Vec::new();
        while saver.is_busy() {
            let saved = saver.saved().await;
            match saved.result {
                Ok(hash) => names.push((saved.item.path.to_string(), hash.to_hex())),
                Err(error) => assert!(matches!(error, Unsaved::Damaged { index: 0 }), "{error:?}"),
            }
        }
        names.sort();
        let expected = |path: &str, bytes: &[u8]| (path.to_owned(), blake3::hash(bytes).to_hex().to_string());
        assert_eq!(names, [expected("a", b"abc"), expected("d/e/empty", b""), expected("d/long", &long)]);
        assert_eq!(fs::read(place.path().join("a")).unwrap(), b"abc");
        assert_eq!(fs::read(place.path().join("d/long")).unwrap(), long);
        let meta = fs::metadata(place.path().join("a")).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec(), meta.mode() & 0o100), (77, 5, 0o100));
        assert_eq!(meta.mode() & crate::beneath::MARK, 0);
        assert_eq!(names_in(place.path()), ["a", "d"]);
        assert_eq!(saver.touched().into_iter().collect::<Vec<_>>(), ["", "d", "d/e"]);
    }

    fn names_in(directory: &std::path::Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_whose_data_did_not_reach_the_disk_never_gets_its_name() {
        let place = tempfile::tempdir().unwrap();
        let root = Arc::new(Directory::open(place.path()).unwrap());
        let touched = Mutex::default();
        let written = |name: &str| {
            let wish = Wish { create: true, private: false, journal: false };
            let claim = claim(&root, name.as_ref(), wish).unwrap().unwrap();
            let (item, hash) = (item(name, 0), FileHash::of_chunks(&[]));
            Written { item, size: 0, hash, directory: Arc::clone(&root), claim }
        };
        // One file of the batch goes to a device that cannot be synced.
        let null = fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
        let mut lost = written("lost");
        lost.claim.file = null;
        let batch = vec![written("a"), lost, written("b")];
        let results: Vec<bool> =
            commit(batch, &root, &touched).iter().map(|saved| saved.result.is_ok()).collect();
        assert_eq!(results, [true, false, true]);
        assert_eq!(names_in(place.path()), ["a", "b", "lost.part"]);
    }

    #[test]
    fn nothing_stays_of_what_could_not_be_written() {
        let place = tempfile::tempdir().unwrap();
        let root = Directory::open(place.path()).unwrap();
        let wish = Wish { create: true, private: false, journal: false };
        let mut claim = claim(&root, "a".as_ref(), wish).unwrap().unwrap();
        // A handle that cannot be written to.
        claim.file = File::open(place.path().join("a.part")).unwrap();
        assert!(fill(&root, &claim, b"abc").is_err());
        assert_eq!(names_in(place.path()), [""; 0]);
    }

    #[test]
    fn a_file_that_somebody_exchanged_never_gets_the_name() {
        let place = tempfile::tempdir().unwrap();
        let root = Arc::new(Directory::open(place.path()).unwrap());
        let wish = Wish { create: true, private: false, journal: false };
        let claim = claim(&root, "a".as_ref(), wish).unwrap().unwrap();
        fs::remove_file(place.path().join("a.part")).unwrap();
        fs::write(place.path().join("a.part"), "somebody else's").unwrap();
        let (item, hash) = (item("a", 0), FileHash::of_chunks(&[]));
        let written = Written { item, size: 0, hash, directory: Arc::clone(&root), claim };
        let saved = commit(vec![written], &root, &Mutex::default());
        assert!(
            matches!(&saved[0].result, Err(Unsaved::Refused { why, .. }) if why.contains("not the file any more"))
        );
        assert_eq!(names_in(place.path()), ["a.part"]);
    }

    #[test]
    fn batches_fit_the_limit_on_descriptors() {
        assert_eq!(batch_len(None), MAX_BATCH);
        for limit in [0, 32, 256, 1024, 4096] {
            let most = batch_len(Some(limit));
            let taken = most as u64 * DESCRIPTORS_A_FILE;
            assert!(most >= 1 && (most == 1 || taken + OTHER_DESCRIPTORS <= limit), "{limit}: {most}");
        }
    }
}
