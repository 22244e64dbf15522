//! One file on its way: what of it is here, what to ask for, what comes. What an attempt brought stays for the next one.
//!
//! ```text
//! question ─▶ the first origin that answers ─▶ queue ─▶ connections ─▶ worker ─▶ verifiers ─▶ output, placed
//!                     │                          ▲                       │
//!                  reuse (what is here) ─────────┘        authority (hashes, for other origins)
//! ```
//!
//! Nothing counts as here but what was hashed in this run: chunks as they came, and chunks of local files against the hashes of a
//! journal or of the origin.
//!
//! | module | what belongs in it |
//! | --- | --- |
//! | [`question`] | the first request, and the routes' race for its answer |
//! | [`reuse`] | finding what of the file is here already |
//! | [`queue`] | which chunks are to be fetched, and which connection fetches which |
//! | [`connections`] | which there are on each route, and what follows when one fails |
//! | [`growth`] | how many of them help |
//! | [`fate`] | what became of each route |
//! | [`worker`] | one connection at work |
//! | [`authority`] | the first origin's hashes, against which other origins' chunks are checked |
//! | [`output`], [`placed`] | where chunks go, and which are there |

mod authority;
mod connections;
mod fate;
mod growth;
mod output;
mod placed;
mod question;
pub mod queue;
mod reuse;
mod worker;

use crate::event::Event;
use crate::failure::Failure;
use crate::part_file::PartFile;
use crate::plan::Plan;
use crate::progress::Reporter;
use crate::retry::{may_change, pause_after};
use crate::session::Session;
use crate::show;
use crate::verify::{Settled, Settlements, Unsettled, Verifiers};
use authority::Authority;
use connections::Connections;
use fate::{RouteFate, begin_attempt, blame, no_route, usable};
use output::{Output, not_kept};
use placed::Placed;
use question::{Answer, Answered, Question, misfit};
use queue::Queue;
use relay_chain::requests::{AnswerError, Body};
use relay_proto::chunk::CHUNK_LEN;
use relay_proto::digest::FileHash;
use relay_proto::file::{Conditions, FileFacts};
use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{interval, sleep};
use worker::{Shared, Standing};

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
    settlements: Settlements,
    output: Option<Output>,
    /// The version that is being fetched, once one is.
    version: Option<FileFacts>,
    placed: Placed,
    fetched: u64,
    /// What `fetched` was when this version was begun.
    fetched_before: u64,
    /// Versions of which something was fetched and that are no more.
    discarded: u32,
    looked: bool,
    /// Some chunks are from an earlier run and were compared with that run's hashes only.
    resumed: bool,
    /// What was begun does not fit what its origin says now; its hashes tell.
    is_suspect: bool,
    stood: bool,
    fates: Vec<RouteFate>,
    /// A chunk came damaged in this run (see [`Shared::anew`]).
    anew: Cell<bool>,
    /// Bytes that each route brought.
    brought: RefCell<Vec<u64>>,
}

/// How often the display, the journal and the number of connections are looked after.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl<'a> Download<'a> {
    /// A download of which nothing is known yet.
    #[must_use]
    pub fn new(plan: &'a Plan, reporter: &'a Reporter) -> Download<'a> {
        let (verifiers, settlements) = Verifiers::new(plan.is_stream());
        Download {
            plan,
            reporter,
            verifiers,
            settlements,
            output: None,
            version: None,
            placed: Placed::default(),
            fetched: 0,
            fetched_before: 0,
            discarded: 0,
            looked: false,
            resumed: false,
            is_suspect: false,
            stood: false,
            fates: plan.routes.iter().map(|_| RouteFate::default()).collect(),
            anew: Cell::default(),
            brought: RefCell::new(vec![0; plan.routes.len()]),
        }
    }

    /// Bytes that were fetched, verified and written in this run.
    #[must_use]
    pub fn fetched(&self) -> u64 {
        self.fetched
    }

    /// How many versions something was fetched of in this run, before another version took their place.
    #[must_use]
    pub fn discarded(&self) -> u32 {
        self.discarded
    }

    /// Whether a chain stood in this run.
    #[must_use]
    pub fn has_stood(&self) -> bool {
        self.stood
    }

    /// Whether the chunks go into a stream, whose reader may be slow.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.plan.is_stream()
    }

    /// Whether everything is here and is not what was expected, and some of it was never compared with this origin's hashes.
    /// Another attempt does that.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        let Some(version) = &self.version else { return false };
        let differs = |expected| expected != FileHash::of_chunks(self.placed.hashes());
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
        if kept > 0 && !part.is_kept() {
            let why = "nothing is kept: the file system has no locks, so a later run could not tell an unfinished file from one that is being written";
            self.reporter.note(why.to_owned());
        } else if kept > 0 {
            let path = show::path(part.path());
            let (kept, size) = (show::bytes(kept), show::bytes(size));
            self.reporter.note(format!("{path} keeps {kept} of {size}; the same command goes on from there"));
        }
    }

    /// From the first request to the last missing chunk.
    ///
    /// # Errors
    /// Why it ended before. What came until then stays.
    pub async fn attempt(&mut self) -> Result<End, Failure> {
        if !self.looked {
            self.look_at_part().await?;
            self.looked = true;
        }
        let question = self.question();
        let end = self.ask_and_receive(&question).await?;
        if matches!(question, Question::Whole(_)) && self.is_confirmed_by_nothing() {
            return self.ask_and_receive(&self.question()).await;
        }
        Ok(end)
    }

    /// Whether everything is here as far as one head told, which no hash covers, and which may have been damaged on its way: had it made
    /// a longer file end with the last chunk that was asked for, nothing else would tell. Every other wrong size shows.
    fn is_confirmed_by_nothing(&self) -> bool {
        let ends_as_asked = |version: &FileFacts| version.size.bytes() == queue::FIRST_SEGMENT * CHUNK_LEN;
        let is_expected = |expected| expected == FileHash::of_chunks(self.placed.hashes());
        self.version.as_ref().is_some_and(ends_as_asked) && !self.plan.expected.is_some_and(is_expected)
    }

    async fn ask_and_receive(&mut self, question: &Question) -> Result<End, Failure> {
        let answered = self.ask(question).await?;
        self.stood = true;
        let route = answered.route;
        if let Some(fate) = self.fates.get_mut(route) {
            fate.barren += 1;
        }
        match self.follow(answered).await {
            Err(failure @ (Failure::Walk(_) | Failure::Broken { .. } | Failure::Refused { .. })) => {
                if let Some(fate) = self.fates.get_mut(route) {
                    fate.fail(failure);
                }
                Err(no_route(&mut self.fates))
            }
            ended => ended,
        }
    }

    /// Goes on with an answer.
    async fn follow(&mut self, answered: Answered<'a>) -> Result<End, Failure> {
        let Answered { route, session, answer } = answered;
        match answer {
            Answer::Same => Ok(self.same("size and time", None)),
            Answer::Empty(version) => {
                self.begin_afresh(&version).await?;
                Ok(End::Whole)
            }
            Answer::First(body) => {
                self.begin_afresh(&body.file).await?;
                self.receive(route, Standing { session, asked: Some(body) }).await
            }
            Answer::Missing(body) => {
                self.reserve()?;
                self.tell_size();
                self.receive(route, Standing { session, asked: Some(body) }).await
            }
            Answer::Hashes(body) => self.by_hashes(route, session, &body).await,
            Answer::Still => Ok(End::Whole),
            Answer::OtherVersion => self.other_version(route, session).await,
            Answer::Contradiction => {
                // What was begun came from a damaged head, or this is one.
                self.is_suspect = true;
                Err(session.broken(AnswerError::Changed))
            }
        }
    }

    /// Waits until everything received is verified and written.
    ///
    /// # Errors
    /// The first chunk that came damaged or could not be written.
    pub async fn settle(&mut self) -> Result<(), Failure> {
        let Download { plan, verifiers, settlements, output, placed, fetched, fates, anew, .. } = self;
        let Some(output) = output else { return Ok(()) };
        let account = |settled: &Settled| {
            if output.account(settled, placed, fetched)? {
                if settled.result.is_ok() {
                    fates.get_mut(settled.route).into_iter().for_each(RouteFate::bore);
                }
                return Ok(());
            }
            anew.set(true);
            blame(fates, settled.route, unfit(plan, settled));
            Err(no_route(fates))
        };
        verifiers.finish(settlements, account).await
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
        let hash = FileHash::of_chunks(self.placed.hashes());
        if let Some(expected) = self.plan.expected.filter(|expected| *expected != hash) {
            self.keep().await?;
            let part = self.part().map(|part| part.path().to_owned());
            return Err(Failure::NotExpected { expected, got: hash, part });
        }
        let (Some(version), Some(output)) = (&self.version, self.output.take()) else { return Ok(()) };
        let (size, modified, executable) = (version.size.bytes(), version.modified, version.executable);
        if !self.placed.is_whole(size) {
            return Err(Failure::local("complete", &output.path, io::Error::other("chunks are missing")));
        }
        let mut replaced = false;
        if let Some(keeper) = output.keeper {
            let part = keeper.into_part().await.map_err(|e| Failure::local("write", &output.path, e))?;
            let finished = spawn_blocking(move || part.finish(size, modified, executable)).await;
            replaced =
                finished.map_err(|e| Failure::local("complete", &output.path, io::Error::other(e)))??;
        }
        let routes = self.fates_told();
        self.reporter.event(&Event::Done {
            path: self.plan.target.path().map(show::path),
            size,
            fetched: self.fetched,
            replaced,
            seconds: self.reporter.elapsed().as_secs_f64(),
            hash: hash.to_string(),
            routes,
        });
        Ok(())
    }

    /// What each of several routes brought, and what went wrong on it.
    fn fates_told(&mut self) -> Vec<crate::event::RouteEnd> {
        if self.fates.len() < 2 {
            return Vec::new();
        }
        let brought = self.brought.borrow();
        let ends = self.fates.iter_mut().zip(brought.iter()).enumerate();
        ends.map(|(route, (fate, bytes))| {
            let (failure, position) = fate.told().unzip();
            crate::event::RouteEnd { route: route + 1, bytes: *bytes, failure, position: position.flatten() }
        })
        .collect()
    }

    fn question(&self) -> Question {
        let Some(version) = &self.version else { return self.question_at_first() };
        if self.is_suspect {
            return Question::Hashes(Conditions::default());
        }
        if self.is_doubtful() {
            self.reporter.note(
                "what is here is not what was expected; comparing it with the origin's hashes".to_owned(),
            );
            return Question::Hashes(Conditions::default());
        }
        match self.placed.missing(version.size.bytes()).into_iter().next() {
            None => Question::Stat(version.clone()),
            Some(run) => {
                let end = run.end.min(run.start + queue::FIRST_SEGMENT);
                Question::Missing(run.start..end, version.clone())
            }
        }
    }

    /// Asks all routes that are not gone.
    async fn ask(&mut self, question: &Question) -> Result<Answered<'a>, Failure> {
        begin_attempt(&mut self.fates);
        let usable = usable(&self.fates, self.plan.first);
        let (answered, failures) =
            question::ask(self.plan, self.reporter, &usable, question, self.anew.get()).await;
        for (route, failure) in failures {
            if answered.is_some() {
                // It is tried again beside the others, which only a file has.
                let again = may_change(&failure) && !self.is_stream();
                self.reporter.route_lost(self.plan.label(route), &failure, again.then(|| pause_after(0)));
            }
            if let Some(fate) = self.fates.get_mut(route) {
                fate.is_gone = answered.is_some() && !may_change(&failure);
                fate.fail(failure);
            }
        }
        answered.ok_or_else(|| no_route(&mut self.fates))
    }

    /// Begins a version of which nothing is here.
    async fn begin_afresh(&mut self, version: &FileFacts) -> Result<(), Failure> {
        self.begin(version).await?;
        self.part().map_or(Ok(()), PartFile::clear)?;
        self.reserve()?;
        self.tell_size();
        Ok(())
    }

    /// Begins another version, with nothing in its place.
    async fn begin(&mut self, version: &FileFacts) -> Result<(), Failure> {
        if self.output.is_none() {
            self.output = Some(Output::open(&self.plan.target).await?);
        }
        if let Some(keeper) = self.output.as_mut().and_then(|output| output.keeper.as_mut()) {
            keeper.forget().await;
        }
        self.discarded += u32::from(self.fetched > self.fetched_before);
        self.fetched_before = self.fetched;
        self.placed = Placed::default();
        (self.resumed, self.is_suspect) = (false, false);
        self.version = Some(version.clone());
        Ok(())
    }

    /// The origin has another version than the one that was begun, or is another origin.
    async fn other_version(&mut self, route: usize, mut session: Session<'a>) -> Result<End, Failure> {
        if !self.is_stream() {
            self.reporter.note(
                "the origin has another version of the file than was begun; keeping what of it still fits"
                    .to_owned(),
            );
        }
        let question = Question::Hashes(Conditions::default());
        session.send(&question.frame(self.plan.route(route).file().clone(), self.anew.get())?).await?;
        match question.answered(&mut session).await? {
            Answer::Hashes(body) => self.by_hashes(route, session, &body).await,
            _ => Err(misfit(&session)),
        }
    }

    /// Compares what is here with the origin's hashes, and fetches what is missing.
    async fn by_hashes(
        &mut self,
        route: usize,
        mut session: Session<'a>,
        body: &Body,
    ) -> Result<End, Failure> {
        let mut wanted = Vec::new();
        for index in body.chunks.first()..body.chunks.end() {
            let hash = session.answers().hash().await;
            wanted.push((index, hash.map_err(|error| session.broken(error))?));
        }
        if self.is_stream() {
            // What has gone out cannot be taken back, so all of it must fit. It came in order.
            if !wanted.starts_with(&self.placed.entries()) {
                return Err(Failure::ChangedMidway);
            }
            (self.version, self.is_suspect) = (Some(body.file.clone()), false);
        } else if let Some(same) = self.prepare(&body.file, wanted).await? {
            return Ok(same);
        }
        self.reserve()?;
        self.tell_size();
        self.receive(route, Standing { session, asked: None }).await
    }

    /// Asks for room for all of the version, before any of its bytes come.
    fn reserve(&self) -> Result<(), Failure> {
        let (Some(part), Some(version)) = (self.part(), &self.version) else { return Ok(()) };
        part.reserve(version.size.bytes())
    }

    fn tell_size(&self) {
        let Some(version) = &self.version else { return };
        let size = version.size.bytes();
        let name = self.plan.name().to_string();
        self.reporter.event(&Event::File { name, size, have: self.placed.bytes(size) });
    }

    /// Fetches what is missing over the chain that stands, and over as many others as the plan says.
    async fn receive(&mut self, route: usize, standing: Standing<'a>) -> Result<End, Failure> {
        let Download { plan, reporter, verifiers, settlements, output, version, placed, fetched, .. } = self;
        let (Some(output), Some(version)) = (output.as_mut(), version.as_ref()) else {
            return Ok(End::Whole);
        };
        let size = version.size.bytes();
        if placed.is_whole(size) {
            return Ok(End::Whole);
        }
        let shared = Shared {
            plan,
            reporter,
            verifiers,
            sink: Arc::clone(&output.sink),
            path: output.path.clone(),
            version: version.clone(),
            queue: Queue::new(placed.missing(size), plan.connections_at_first()),
            authority: Authority::new(route),
            anew: &self.anew,
            brought: &self.brought,
            came: RefCell::new(vec![0; plan.routes.len()]),
        };
        let mut connections = Connections::new(&shared, &mut self.fates, standing);
        let mut learning = std::pin::pin!(learn(&shared, Duration::ZERO));
        let (mut has_learned, mut pause) = (false, Duration::from_secs(1));
        let mut is_first = true;
        let mut ticks = interval(LOOK_EVERY);
        loop {
            tokio::select! {
                biased;
                settled = settlements.next() => {
                    if !output.account(&settled, placed, fetched)? {
                        self.anew.set(true);
                        reporter.take_back(settled.len as u64);
                        shared.queue.give_back(settled.index);
                        connections.drop_route(settled.route, unfit(plan, &settled))?;
                    } else if settled.result.is_ok() {
                        connections.bore(settled.route);
                    }
                    if placed.is_whole(size) {
                        return Ok(End::Whole);
                    }
                }
                ended = connections.next() => ended?,
                learned = &mut learning, if !has_learned => match learned {
                    Ok(()) => has_learned = true,
                    Err(failure) => {
                        connections.without_hashes(failure)?;
                        learning.set(learn(&shared, pause));
                        pause = (pause * 2).min(MAX_LEARN_PAUSE);
                    }
                },
                _ = ticks.tick() => {
                    // The first chain has begun with its work by now.
                    if std::mem::take(&mut is_first) && !plan.is_stream() {
                        connections.start_all();
                    }
                    output.keep_if_due(version, placed, reporter).await?;
                    connections.adapt();
                    shared.queue.wake();
                    reporter.routes(connections.shares());
                }
            }
        }
    }

    fn part(&self) -> Option<&PartFile> {
        self.output.as_ref().and_then(|output| output.keeper.as_ref()).map(crate::journal::Keeper::part)
    }
}

/// The longest pause before the first origin's hashes are asked for again.
const MAX_LEARN_PAUSE: Duration = Duration::from_secs(30);

/// Fetches the first origin's hashes when another origin joins, after a pause where they did not come before.
async fn learn(shared: &Shared<'_>, pause: Duration) -> Result<(), Failure> {
    if !pause.is_zero() {
        sleep(pause).await;
    }
    shared.authority.learn(shared.plan, &shared.version, &shared.queue).await
}

/// Why a chunk that came is of no use.
fn unfit(plan: &Plan, settled: &Settled) -> Failure {
    match settled.result {
        Err(Unsettled::OtherVersion) => worker::other_version(plan, settled.route, Some(settled.index)),
        _ => Failure::Damaged { index: settled.index },
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::plan::Target;
    use relay_proto::digest::ChunkHash;
    use relay_proto::file::{Size, Timestamp};
    use std::fs::{self, OpenOptions};
    use std::path::Path;

    /// A plan for a file of one chunk, and that file's facts.
    fn small(target: &Path) -> (Plan, FileFacts) {
        let route = relay_proto::route::Route::parse(b"f\n127.0.0.1 9\n").unwrap();
        let plan = Plan::plain(vec![route], Target::File(target.to_owned()));
        let version = FileFacts {
            size: Size::try_from(5).unwrap(),
            modified: Timestamp::new(1, 2).unwrap(),
            entity_tag: "a".to_owned().try_into().unwrap(),
            executable: false,
        };
        (plan, version)
    }

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
