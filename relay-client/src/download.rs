//! One file on its way: what of it is here, what to ask for, what comes. An attempt uses one chain; what it brought stays for the next
//! one.
//!
//! Nothing counts as here but what was hashed in this run: chunks as they came, and chunks of local files against the hashes of a
//! journal or of the origin.

use crate::event::Event;
use crate::failure::{Failure, copy_of};
use crate::journal::{Entry, Journal, KeepError, Keeper};
use crate::part_file::{PartFile, file_time};
use crate::plan::{Plan, Target};
use crate::progress::Reporter;
use crate::scan::Scan;
use crate::session::{Session, request};
use crate::show;
use crate::verify::{Received, Settled, Sink, Unsettled, Verifiers};
use filetime::FileTime;
use relay_chain::requests::{AnswerError, Body};
use relay_proto::chunk::{AskedRange, CHUNK_LEN, ChunkRange, chunk_count, chunk_len};
use relay_proto::code::Status;
use relay_proto::digest::{ChunkHash, FileHash};
use relay_proto::file::{Conditions, FileFacts, Get, Hashes, Head, Size, SizeAndTime, Stat, Timestamp};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::interval;

/// How an attempt ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The local copy is what the origin has, and nothing more is to be done.
    Same,
    /// Every chunk is in its place.
    Whole,
}

/// A download under way.
pub struct Download<'a> {
    plan: &'a Plan,
    reporter: &'a Reporter,
    verifiers: Verifiers,
    output: Option<Output>,
    /// The version that is being fetched, once one is.
    version: Option<FileFacts>,
    placed: Placed,
    fetched: u64,
    looked: bool,
    /// Some chunks are from an earlier run and were compared with that run's hashes only.
    resumed: bool,
    stood: bool,
}

/// Where the chunks go.
struct Output {
    sink: Arc<Sink>,
    /// None when it is a stream.
    keeper: Option<Keeper>,
    /// For messages.
    path: PathBuf,
}

/// The first request of an attempt.
enum Question {
    /// The whole file, of which nothing is here.
    Whole(Conditions),
    /// These chunks of the version that was begun.
    Missing(Vec<ChunkRange>),
    /// The hashes, for there is a local file that may have some of the chunks.
    Hashes(Conditions),
    /// Whether the version of which everything is here is still what the origin has.
    Stat,
}

/// The most requests for chunks that wait for their answers. They are small, so that sending them never waits for the answers to be
/// read.
const MAX_ASKED: usize = 8;
/// Requests with long names are sent one by one for the same reason. Bytes.
const MAX_SMALL_REQUEST: usize = 2048;

/// How often verified chunks are noticed while others are still on their way.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl<'a> Download<'a> {
    /// A download of which nothing is known yet.
    #[must_use]
    pub fn new(plan: &'a Plan, reporter: &'a Reporter) -> Download<'a> {
        Download {
            plan,
            reporter,
            verifiers: Verifiers::new(!matches!(plan.target, Target::File(_))),
            output: None,
            version: None,
            placed: Placed::default(),
            fetched: 0,
            looked: false,
            resumed: false,
            stood: false,
        }
    }

    /// Bytes that were fetched, verified and written in this run.
    #[must_use]
    pub fn fetched(&self) -> u64 {
        self.fetched
    }

    /// Whether a chain stood in this run.
    #[must_use]
    pub fn has_stood(&self) -> bool {
        self.stood
    }

    /// Whether the chunks go into a stream, whose reader may be slow.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        !matches!(self.plan.target, Target::File(_))
    }

    /// Whether everything is here and is not what was expected, and some of it was never compared with this origin's hashes.
    /// Another attempt does that.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        let Some(version) = &self.version else { return false };
        let differs = |expected| expected != FileHash::of_chunks(&self.placed.hashes);
        self.resumed && self.placed.is_whole(version.size.bytes()) && self.plan.expected.is_some_and(differs)
    }

    /// Gives back the room that was asked for and is not used.
    pub fn release(&self) {
        // A failure costs only room, and the run has a better one to tell.
        let _ = self.part().map(PartFile::release);
    }

    /// Says what a later run finds.
    pub fn tell_kept(&self) {
        let (Some(version), Some(part)) = (&self.version, self.part()) else { return };
        let size = version.size.bytes();
        let kept = self.placed.bytes(size);
        if kept > 0 {
            let path = show::path(part.path());
            let (kept, size) = (show::bytes(kept), show::bytes(size));
            self.reporter.note(format!("{path} keeps {kept} of {size}; the same command goes on from there"));
        }
    }

    /// One chain, from dialling to the last missing chunk.
    ///
    /// # Errors
    /// Why it ended before. What came until then stays.
    pub async fn attempt(&mut self) -> Result<End, Failure> {
        if !self.looked {
            self.look_at_part().await?;
            self.looked = true;
        }
        let question = self.question();
        let first = self.frame(&question)?;
        let plan = self.plan;
        let mut session =
            Session::connect(&plan.route, plan.silence, plan.congestion, &first, self.reporter).await?;
        self.stood = true;
        let head = session.head().await?;
        match (head.status, question) {
            (Status::NOT_MODIFIED, Question::Whole(asked) | Question::Hashes(asked))
                if asked.unless_same.is_some() =>
            {
                Ok(self.same("size and time", None))
            }
            (Status::PRECONDITION_FAILED | Status::RANGE_NOT_SATISFIABLE, Question::Missing(_)) => {
                self.other_version(&mut session).await
            }
            (Status::OK | Status::PARTIAL, Question::Whole(_)) => self.whole(&mut session, &head).await,
            (Status::OK | Status::PARTIAL, Question::Missing(runs)) => {
                self.reserve()?;
                self.tell_size();
                self.receive_runs(&mut session, &runs, Some(head)).await
            }
            (Status::OK | Status::PARTIAL, Question::Hashes(_)) => self.by_hashes(&mut session, &head).await,
            (Status::OK, Question::Stat) if is_same_version(self.version.as_ref(), head.file.as_ref()) => {
                Ok(End::Whole)
            }
            (Status::OK, Question::Stat) => self.other_version(&mut session).await,
            (status, _) if status.code() < 400 => Err(misfit(&session)),
            _ => Err(session.refused(&head)),
        }
    }

    /// Waits until everything received is verified and written.
    ///
    /// # Errors
    /// The first chunk that is not.
    pub async fn settle(&mut self) -> Result<(), Failure> {
        let Download { verifiers, output, placed, fetched, .. } = self;
        let Some(output) = output else { return Ok(()) };
        verifiers.finish(|settled| output.account(settled, placed, fetched)).await
    }

    /// Makes sure that a later run finds what is here.
    ///
    /// # Errors
    /// [`Failure::Local`] when data did not reach the disk, now or before.
    pub async fn keep(&mut self) -> Result<(), Failure> {
        let (Some(version), Some(output)) = (&self.version, &mut self.output) else { return Ok(()) };
        let Some(keeper) = &mut output.keeper else { return Ok(()) };
        if self.placed.is_empty() {
            return Ok(());
        }
        let kept = keeper.keep_all(version, || self.placed.entries()).await;
        kept.or_else(|error| not_kept(self.reporter, keeper, error))
    }

    /// Gives the whole file its name.
    ///
    /// # Errors
    /// [`Failure::NotExpected`], [`Failure::Local`]. Then the final name is as it was.
    pub async fn finish(&mut self) -> Result<(), Failure> {
        let hash = FileHash::of_chunks(&self.placed.hashes);
        if let Some(expected) = self.plan.expected.filter(|expected| *expected != hash) {
            self.keep().await?;
            let part = self.part().map(|part| part.path().to_owned());
            return Err(Failure::NotExpected { expected, got: hash, part });
        }
        let (Some(version), Some(output)) = (&self.version, self.output.take()) else { return Ok(()) };
        let (size, modified) = (version.size.bytes(), version.modified);
        if !self.placed.is_whole(size) {
            return Err(Failure::local("complete", &output.path, io::Error::other("chunks are missing")));
        }
        if let Some(keeper) = output.keeper {
            let part = keeper.into_part().await.map_err(|e| Failure::local("write", &output.path, e))?;
            let finished = spawn_blocking(move || part.finish(size, modified)).await;
            finished.map_err(|e| Failure::local("complete", &output.path, io::Error::other(e)))??;
        }
        self.reporter.event(&Event::Done {
            path: self.plan.target.path().map(show::path),
            size,
            fetched: self.fetched,
            seconds: self.reporter.elapsed().as_secs_f64(),
            hash: hash.to_string(),
        });
        Ok(())
    }

    /// Finds what an earlier run left.
    async fn look_at_part(&mut self) -> Result<(), Failure> {
        let Target::File(target) = &self.plan.target else { return Ok(()) };
        if !PartFile::is_there(target) {
            return Ok(());
        }
        let part = PartFile::open(target)?;
        let held = Journal::read(part.journal_path());
        self.output = Some(Output::part(part)?);
        let Some(held) = held else { return Ok(()) };
        let found = self.scan_part(&held.file, held.chunks).await?;
        if !found.is_empty() {
            self.place(&found);
            self.version = Some(held.file);
            self.resumed = true;
        }
        Ok(())
    }

    fn question(&self) -> Question {
        if let Some(version) = &self.version {
            if self.is_doubtful() {
                self.reporter.note(
                    "what is here is not what was expected; comparing it with the origin's hashes".to_owned(),
                );
                return Question::Hashes(Conditions::default());
            }
            let missing = self.placed.missing(version.size.bytes());
            return if missing.is_empty() { Question::Stat } else { Question::Missing(missing) };
        }
        let local = match &self.plan.target {
            Target::File(path) => size_and_time(path),
            _ => None,
        };
        let Some(local) = local else { return Question::Whole(Conditions::default()) };
        let by_hash = self.plan.checksum || self.plan.expected.is_some();
        let conditions = Conditions { unless_same: (!by_hash).then_some(local), ..Conditions::default() };
        // A file of one chunk is fetched again sooner than it is compared.
        if by_hash || local.size.bytes() > CHUNK_LEN {
            Question::Hashes(conditions)
        } else {
            Question::Whole(conditions)
        }
    }

    fn frame(&self, question: &Question) -> Result<Vec<u8>, Failure> {
        let name = self.plan.route.file().clone();
        match question {
            Question::Whole(conditions) => {
                request(&Get { name, range: None, conditions: conditions.clone() })
            }
            Question::Missing(runs) => runs.first().map_or_else(|| Ok(Vec::new()), |run| self.ask(*run)),
            Question::Hashes(conditions) => {
                request(&Hashes { name, range: None, conditions: conditions.clone() })
            }
            Question::Stat => request(&Stat { name }),
        }
    }

    /// A request for some chunks of the version that was begun.
    fn ask(&self, run: ChunkRange) -> Result<Vec<u8>, Failure> {
        let name = self.plan.route.file().clone();
        let range = Some(AskedRange { first: run.first(), end: Some(run.end()) });
        let if_match = self.version.as_ref().map(|version| version.entity_tag.clone());
        request(&Get { name, range, conditions: Conditions { if_match, ..Conditions::default() } })
    }

    /// Everything comes, and nothing was here.
    async fn whole(&mut self, session: &mut Session<'_>, head: &Head) -> Result<End, Failure> {
        let body = session.body(head)?;
        let size = body.file.size.bytes();
        if body.chunks != ChunkRange::whole(size) {
            return Err(session.broken(AnswerError::Protocol("other chunks than were asked for")));
        }
        self.begin(&body.file).await?;
        self.part().map_or(Ok(()), PartFile::clear)?;
        self.reserve()?;
        self.tell_size();
        self.receive(session, &body).await?;
        Ok(End::Whole)
    }

    /// Begins another version, with nothing in its place.
    async fn begin(&mut self, version: &FileFacts) -> Result<(), Failure> {
        if self.output.is_none() {
            self.output = Some(Output::open(&self.plan.target)?);
        }
        if let Some(keeper) = self.output.as_mut().and_then(|output| output.keeper.as_mut()) {
            keeper.forget().await;
        }
        self.placed = Placed::default();
        self.resumed = false;
        self.version = Some(version.clone());
        Ok(())
    }

    /// The origin has another version than the one that was begun.
    async fn other_version(&mut self, session: &mut Session<'_>) -> Result<End, Failure> {
        if !matches!(self.plan.target, Target::File(_)) {
            return Err(Failure::ChangedMidway);
        }
        self.reporter.note(
            "the origin has another version of the file than was begun; keeping what of it still fits"
                .to_owned(),
        );
        let name = self.plan.route.file().clone();
        session.send(&request(&Hashes { name, range: None, conditions: Conditions::default() })?).await?;
        let head = session.head().await?;
        match head.status {
            Status::OK | Status::PARTIAL => self.by_hashes(session, &head).await,
            status if status.code() < 400 => Err(misfit(session)),
            _ => Err(session.refused(&head)),
        }
    }

    /// Compares what is here with the origin's hashes, and fetches what is missing.
    async fn by_hashes(&mut self, session: &mut Session<'_>, head: &Head) -> Result<End, Failure> {
        let body = session.body(head)?;
        let size = body.file.size.bytes();
        if body.chunks != ChunkRange::whole(size) {
            return Err(session.broken(AnswerError::Protocol("other chunks than were asked for")));
        }
        let mut wanted = Vec::new();
        for index in body.chunks.first()..body.chunks.end() {
            let hash = session.answers().hash().await;
            wanted.push((index, hash.map_err(|error| session.broken(error))?));
        }
        let in_target = self.scan_target(&body.file, &wanted).await?;
        if let Some(in_target) = in_target.as_ref().filter(|found| found.len() == wanted.len()) {
            let hashes: Vec<ChunkHash> = in_target.iter().map(|(_, hash)| *hash).collect();
            let hash = FileHash::of_chunks(&hashes);
            if self.plan.expected.is_none_or(|expected| expected == hash) {
                self.renew_time(body.file.modified);
                return Ok(self.same("hash", Some(hash)));
            }
        }
        self.begin(&body.file).await?;
        self.reuse(&body.file, wanted, in_target).await?;
        let here = self.placed.bytes(size);
        if here > 0 {
            self.reporter.note(format!("{} of {} are here already", show::bytes(here), show::bytes(size)));
        }
        self.reserve()?;
        let missing = self.placed.missing(size);
        self.tell_size();
        self.receive_runs(session, &missing, None).await
    }

    /// Finds which of the wanted chunks the part file has, and copies further ones from the target's old version into it.
    async fn reuse(
        &mut self,
        version: &FileFacts,
        wanted: Vec<Entry>,
        in_target: Option<Vec<Entry>>,
    ) -> Result<(), Failure> {
        let in_part = self.scan_part(version, wanted.clone()).await?;
        self.place(&in_part);
        let mut wanted = in_target.unwrap_or(wanted);
        wanted.retain(|(index, _)| !self.placed.has(*index));
        let (Some(part), Some((path, file))) = (self.part(), self.old_target()) else { return Ok(()) };
        let copy_to = Some(part.file()?);
        let part_path = part.path().to_owned();
        let found = self.scan(&path, file, version, wanted, copy_to).await;
        self.place(&found.map_err(|e| Failure::local("write", &part_path, e))?);
        Ok(())
    }

    /// Which of the wanted chunks the target's old version has, when that can be all of them.
    async fn scan_target(
        &self,
        version: &FileFacts,
        wanted: &[Entry],
    ) -> Result<Option<Vec<Entry>>, Failure> {
        let Some((path, file)) = self.old_target() else { return Ok(None) };
        if file.metadata().map_or(0, |meta| meta.len()) != version.size.bytes() {
            return Ok(None);
        }
        let found = self.scan(&path, file, version, wanted.to_vec(), None).await;
        found.map(Some).map_err(|e| Failure::local("read", &path, e))
    }

    async fn scan_part(&self, version: &FileFacts, wanted: Vec<Entry>) -> Result<Vec<Entry>, Failure> {
        let Some(part) = self.part() else { return Ok(Vec::new()) };
        let file = part.file()?;
        if file.metadata().map_or(0, |meta| meta.len()) == 0 {
            return Ok(Vec::new());
        }
        let found = self.scan(part.path(), file, version, wanted, None).await;
        found.map_err(|e| Failure::local("read", part.path(), e))
    }

    async fn scan(
        &self,
        path: &Path,
        file: File,
        version: &FileFacts,
        wanted: Vec<Entry>,
        copy_to: Option<File>,
    ) -> io::Result<Vec<Entry>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let file_size = version.size.bytes();
        let size = wanted.iter().map(|(index, _)| chunk_len(file_size, *index)).sum();
        self.reporter.event(&Event::Checking { path: show::path(path), size });
        Scan { file, file_size, wanted, copy_to }.run(self.reporter).await
    }

    /// The regular file that has the final name now.
    fn old_target(&self) -> Option<(PathBuf, File)> {
        let Target::File(path) = &self.plan.target else { return None };
        fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some((path.clone(), File::open(path).ok()?))
    }

    fn part(&self) -> Option<&PartFile> {
        self.output.as_ref().and_then(|output| output.keeper.as_ref()).map(Keeper::part)
    }

    /// Asks for room for all of the version, before any of its bytes come.
    fn reserve(&self) -> Result<(), Failure> {
        let (Some(part), Some(version)) = (self.part(), &self.version) else { return Ok(()) };
        part.reserve(version.size.bytes())
    }

    fn place(&mut self, found: &[Entry]) {
        let keeper = self.output.as_mut().and_then(|output| output.keeper.as_mut());
        if let Some(keeper) = keeper {
            found.iter().for_each(|entry| keeper.placed(*entry));
        }
        found.iter().for_each(|(index, hash)| self.placed.set(*index, *hash));
    }

    /// The content is the same and its time is not: a quick look shall see that next time.
    fn renew_time(&self, modified: Timestamp) {
        if let Target::File(path) = &self.plan.target {
            let _ = filetime::set_file_mtime(path, file_time(modified));
        }
    }

    fn same(&self, by: &'static str, hash: Option<FileHash>) -> End {
        if let Some(path) = self.plan.target.path() {
            let size = fs::metadata(path).map_or(0, |meta| meta.len());
            let hash = hash.map(|hash| hash.to_string());
            self.reporter.event(&Event::Same { path: show::path(path), size, by, hash });
        }
        End::Same
    }

    fn tell_size(&self) {
        let Some(version) = &self.version else { return };
        let size = version.size.bytes();
        let name = self.plan.route.file().to_string();
        self.reporter.event(&Event::File { name, size, have: self.placed.bytes(size) });
    }

    /// Asks for one run of chunks after the other, a few ahead, and receives them. `first` is the head of the first run
    /// when that was asked for already.
    async fn receive_runs(
        &mut self,
        session: &mut Session<'_>,
        runs: &[ChunkRange],
        mut first: Option<Head>,
    ) -> Result<End, Failure> {
        let mut asked = usize::from(first.is_some());
        for (number, run) in runs.iter().enumerate() {
            asked = self.ask_ahead(session, runs, number, asked).await?;
            let head = match first.take() {
                Some(head) => head,
                None => session.head().await?,
            };
            let body = self.body_of_run(session, *run, &head)?;
            self.receive(session, &body).await?;
        }
        Ok(End::Whole)
    }

    async fn ask_ahead(
        &self,
        session: &mut Session<'_>,
        runs: &[ChunkRange],
        number: usize,
        mut asked: usize,
    ) -> Result<usize, Failure> {
        let mut frames = Vec::new();
        while let Some(run) = runs.get(asked).filter(|_| asked < number + MAX_ASKED) {
            let frame = self.ask(*run)?;
            if frame.len() > MAX_SMALL_REQUEST && asked > number {
                break;
            }
            frames.extend(frame);
            asked += 1;
        }
        if !frames.is_empty() {
            session.send(&frames).await?;
        }
        Ok(asked)
    }

    /// The body of the answer to a request for `run`, which must be of the version that was begun.
    fn body_of_run(&self, session: &Session<'_>, run: ChunkRange, head: &Head) -> Result<Body, Failure> {
        match head.status {
            Status::OK | Status::PARTIAL => {}
            Status::PRECONDITION_FAILED | Status::RANGE_NOT_SATISFIABLE => {
                return Err(session.broken(AnswerError::Changed));
            }
            status if status.code() < 400 => return Err(misfit(session)),
            _ => return Err(session.refused(head)),
        }
        let body = session.body(head)?;
        if body.chunks != run || !is_same_version(self.version.as_ref(), Some(&body.file)) {
            return Err(session.broken(AnswerError::Protocol("other chunks than were asked for")));
        }
        Ok(body)
    }

    /// Receives a body straight into buffers, which other threads hash and write meanwhile.
    async fn receive(&mut self, session: &mut Session<'_>, body: &Body) -> Result<(), Failure> {
        let Download { verifiers, output, placed, fetched, reporter, .. } = self;
        let Some(output) = output else { return Ok(()) };
        let mut ticks = interval(LOOK_EVERY);
        for index in body.chunks.first()..body.chunks.end() {
            let len = body.chunk_len(index);
            let mut buffer =
                verifiers.buffer(len, |settled| output.account(settled, placed, fetched)).await?;
            let came = {
                let chunk = buffer.get_mut(..len).unwrap_or_default();
                let mut receiving = pin!(session.answers().chunk(chunk, |n| reporter.bytes(n as u64)));
                loop {
                    tokio::select! {
                        biased;
                        came = &mut receiving => break Ok(came),
                        _ = ticks.tick() => {
                            let looked = verifiers.look(|settled| output.account(settled, placed, fetched));
                            let kept = output.keep_if_due(&body.file, placed, reporter).await;
                            if let Err(failure) = looked.and(kept) {
                                break Err(failure);
                            }
                        }
                    }
                }
            };
            let promised = match came.and_then(|came| came.map_err(|error| session.broken(error))) {
                Ok(promised) => promised,
                Err(failure) => {
                    verifiers.give_back(buffer);
                    return Err(failure);
                }
            };
            session.count(len as u64);
            let sink = Arc::clone(&output.sink);
            let file_size = body.file.size.bytes();
            let chunk = Received { buffer, len, index, file_size, promised, sink };
            verifiers.submit(chunk).map_err(|e| Failure::local("start a thread for", &output.path, e))?;
        }
        Ok(())
    }
}

fn misfit(session: &Session<'_>) -> Failure {
    session.broken(AnswerError::Protocol("an answer that does not fit the request"))
}

fn is_same_version(begun: Option<&FileFacts>, now: Option<&FileFacts>) -> bool {
    let key = |file: &FileFacts| (file.size, file.entity_tag.clone());
    begun.map(key) == now.map(key)
}

/// A journal that was not written is only told; lost data ends the run.
fn not_kept(reporter: &Reporter, keeper: &Keeper, error: KeepError) -> Result<(), Failure> {
    let error = match error {
        KeepError::Data(error) => return Err(Failure::local("write", keeper.part().path(), error)),
        KeepError::Journal(error) => error,
    };
    let path = show::path(keeper.part().journal_path());
    reporter.note(format!(
        "cannot write {path}: {error}; if this run is interrupted, the next one starts afresh"
    ));
    Ok(())
}

impl Output {
    fn open(target: &Target) -> Result<Output, Failure> {
        let (sink, path) = match target {
            Target::File(path) => return Output::part(PartFile::open(path)?),
            Target::StandardOutput => (Sink::stream(Box::new(io::stdout())), "standard output".into()),
            Target::Special(path) => {
                let file = OpenOptions::new().write(true).open(path);
                let file = file.map_err(|e| Failure::local("write", path, e))?;
                (Sink::stream(Box::new(file)), path.clone())
            }
        };
        Ok(Output { sink: Arc::new(sink), keeper: None, path })
    }

    fn part(part: PartFile) -> Result<Output, Failure> {
        let (sink, path) = (Sink::File(part.file()?), part.path().to_owned());
        Ok(Output { sink: Arc::new(sink), keeper: Some(Keeper::new(part)), path })
    }

    fn account(&mut self, settled: &Settled, placed: &mut Placed, fetched: &mut u64) -> Result<(), Failure> {
        match &settled.result {
            Ok(hash) => {
                placed.set(settled.index, *hash);
                *fetched += settled.len as u64;
                if let Some(keeper) = &mut self.keeper {
                    keeper.placed((settled.index, *hash));
                }
                Ok(())
            }
            // The chunk before it has failed, and that is what counts.
            Err(Unsettled::OutOfTurn) => Ok(()),
            Err(Unsettled::Damaged) => Err(Failure::Damaged { index: settled.index }),
            Err(Unsettled::Write(error)) => Err(Failure::local("write", &self.path, copy_of(error))),
        }
    }

    async fn keep_if_due(
        &mut self,
        version: &FileFacts,
        placed: &Placed,
        reporter: &Reporter,
    ) -> Result<(), Failure> {
        let Some(keeper) = self.keeper.as_mut().filter(|keeper| keeper.is_due()) else { return Ok(()) };
        let kept = keeper.keep(version, || placed.entries()).await;
        kept.or_else(|error| not_kept(reporter, keeper, error))
    }
}

/// What a quick look compares; none when there is no such file.
fn size_and_time(path: &Path) -> Option<SizeAndTime> {
    let meta = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let time = FileTime::from_last_modification_time(&meta);
    let modified = Timestamp::new(time.unix_seconds(), time.nanoseconds())?;
    Some(SizeAndTime { size: Size::try_from(meta.len()).ok()?, modified })
}

/// Which chunks are in their place, verified and written, with their hashes; zeros stand for those that are not. Grows with the
/// chunks that came, not with the size that was claimed.
#[derive(Default)]
struct Placed {
    hashes: Vec<ChunkHash>,
}

impl Placed {
    fn set(&mut self, index: u64, hash: ChunkHash) {
        let Ok(index) = usize::try_from(index) else { return };
        if self.hashes.len() <= index {
            self.hashes.resize(index + 1, ChunkHash::ZERO);
        }
        if let Some(slot) = self.hashes.get_mut(index) {
            *slot = hash;
        }
    }

    fn has(&self, index: u64) -> bool {
        let hash = usize::try_from(index).ok().and_then(|index| self.hashes.get(index));
        hash.is_some_and(|hash| *hash != ChunkHash::ZERO)
    }

    fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    fn is_whole(&self, size: u64) -> bool {
        self.hashes.len() as u64 == chunk_count(size) && !self.hashes.contains(&ChunkHash::ZERO)
    }

    fn entries(&self) -> Vec<Entry> {
        let all = (0_u64..).zip(self.hashes.iter().copied());
        all.filter(|(_, hash)| *hash != ChunkHash::ZERO).collect()
    }

    fn bytes(&self, size: u64) -> u64 {
        self.entries().iter().map(|(index, _)| chunk_len(size, *index)).sum()
    }

    /// The runs of chunks of a file of `size` bytes that are not in their place.
    fn missing(&self, size: u64) -> Vec<ChunkRange> {
        let mut runs = Vec::new();
        let mut from = 0;
        for (index, _) in self.entries() {
            runs.extend(ChunkRange::new(from, index).filter(|run| !run.is_empty()));
            from = index + 1;
        }
        runs.extend(ChunkRange::new(from, chunk_count(size)).filter(|run| !run.is_empty()));
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing() {
        let size = 6 * CHUNK_LEN + 1;
        let runs = |placed: &Placed| -> Vec<(u64, u64)> {
            placed.missing(size).iter().map(|run| (run.first(), run.end())).collect()
        };
        let mut placed = Placed::default();
        assert_eq!(runs(&placed), [(0, 7)]);
        let hash = ChunkHash::from_bytes([1; 32]);
        for (index, expected) in
            [(3, vec![(0, 3), (4, 7)]), (0, vec![(1, 3), (4, 7)]), (6, vec![(1, 3), (4, 6)])]
        {
            placed.set(index, hash);
            assert_eq!(runs(&placed), expected);
        }
        assert_eq!(placed.bytes(size), 2 * CHUNK_LEN + 1);
        assert!(!placed.is_whole(size));
        (0..7).for_each(|index| placed.set(index, hash));
        assert!(placed.is_whole(size) && runs(&placed).is_empty());
        assert!(Placed::default().is_whole(0));
    }

    /// A plan for a file of one chunk, and that file's facts.
    #[cfg(unix)]
    fn small(target: &Path) -> (Plan, FileFacts) {
        let plan = Plan {
            route: relay_proto::route::Route::parse(b"f\n127.0.0.1 9\n").unwrap(),
            target: Target::File(target.to_owned()),
            silence: Duration::from_secs(1),
            congestion: relay_chain::congestion::Congestion::SYSTEM,
            deadline: None,
            retry: crate::retry::RetryLimits::default(),
            expected: None,
            checksum: false,
        };
        let version = FileFacts {
            size: Size::try_from(5).unwrap(),
            modified: Timestamp::new(1, 2).unwrap(),
            entity_tag: "a".to_owned().try_into().unwrap(),
            executable: false,
        };
        (plan, version)
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_file_whose_data_did_not_reach_the_disk_never_gets_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("f");
        let (plan, version) = small(&target);
        let reporter = Reporter::silent();
        let mut download = Download::new(&plan, &reporter);
        // There is a part file that could be renamed, and what is written goes to a device that cannot be synced.
        fs::write(directory.path().join("f.part"), "12345").unwrap();
        let null = OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
        download.output = Some(Output::part(PartFile::over(&target, null)).unwrap());
        download.version = Some(version);
        download.place(&[(0, ChunkHash::of(b"12345", 0, 5))]);
        let is_told = |ended: &Result<(), Failure>| matches!(ended, Err(Failure::Local { path, .. }) if path.ends_with("f.part"));
        for _ in 0..2 {
            let kept = download.keep().await;
            assert!(is_told(&kept), "{kept:?}");
        }
        let finished = download.finish().await;
        assert!(is_told(&finished) && !target.exists(), "{finished:?}");
    }
}
