//! The story of one download: ask behind the `open`, look at the head, receive chunk by chunk into `.part`, and give the final name
//! to what is whole and verified.

use crate::cli::FetchArguments;
use crate::event::Event;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::part_file::PartFile;
use crate::plan::{Plan, Target};
use crate::progress::{Reporter, print_failure};
use crate::session::{Session, aftermath, request};
use crate::show;
use crate::stop::{Stop, Until};
use crate::verify::{Received, Settled, Sink, Unsettled, Verifiers};
use filetime::FileTime;
use relay_chain::requests::{AnswerError, Body};
use relay_proto::chunk::{ChunkRange, chunk_count};
use relay_proto::code::Status;
use relay_proto::digest::{ChunkHash, FileHash};
use relay_proto::file::{Conditions, FileFacts, Get, Size, SizeAndTime, Timestamp};
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// Fetches what the arguments name, and says how it went.
pub async fn run(arguments: &FetchArguments, stop: &Stop) -> Exit {
    let plan = match Plan::of(arguments) {
        Ok(plan) => plan,
        Err(failure) => {
            print_failure(&failure);
            return failure.exit();
        }
    };
    let reporter = Reporter::new(&arguments.show);
    match fetch(&plan, &reporter, &Until::new(stop, plan.deadline)).await {
        Ok(()) => Exit::Success,
        Err(failure) => {
            reporter.failed(&failure);
            failure.exit()
        }
    }
}

/// Fetches what is planned.
///
/// # Errors
/// Why it is not there, or not whole.
pub async fn fetch(plan: &Plan, reporter: &Reporter, until: &Until) -> Result<(), Failure> {
    let mut download = Download::new(plan, reporter);
    let result = until.bound(download.attempt()).await;
    // What came before a failure is settled too, so that it is not lost.
    let settled = download.settle().await;
    match settled.and(result) {
        Ok(End::Same) => Ok(()),
        Ok(End::Received(facts)) => download.finish(&facts).await,
        Err(failure) => Err(explain(failure, plan, until).await),
    }
}

/// Adds to a broken chain's failure where the route stops now.
async fn explain(failure: Failure, plan: &Plan, until: &Until) -> Failure {
    let lost = |error: &AnswerError| matches!(error, AnswerError::Silent(_) | AnswerError::Read(_));
    match failure {
        Failure::Broken { error, received, .. } if lost(&error) => {
            let aftermath = aftermath(&plan.route, plan.silence, until).await.ok();
            Failure::Broken { error, received, aftermath }
        }
        failure => failure,
    }
}

/// How an attempt ended well.
enum End {
    /// The local copy is what the origin has.
    Same,
    /// Every chunk came.
    Received(FileFacts),
}

/// A download under way.
struct Download<'a> {
    plan: &'a Plan,
    reporter: &'a Reporter,
    verifiers: Verifiers,
    output: Option<Output>,
    placed: Placed,
    fetched: u64,
}

/// Where the chunks go.
struct Output {
    sink: Arc<Sink>,
    /// None when it is a stream.
    part: Option<PartFile>,
    /// For messages.
    path: PathBuf,
}

/// Which chunks are in their place, verified and written, with their hashes. Grows with the chunks that came, not with the size that
/// was claimed.
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

    fn is_whole(&self, size: u64) -> bool {
        self.hashes.len() as u64 == chunk_count(size) && !self.hashes.contains(&ChunkHash::ZERO)
    }
}

impl<'a> Download<'a> {
    fn new(plan: &'a Plan, reporter: &'a Reporter) -> Download<'a> {
        let in_order = !matches!(plan.target, Target::File(_));
        let verifiers = Verifiers::new(in_order);
        Download { plan, reporter, verifiers, output: None, placed: Placed::default(), fetched: 0 }
    }

    /// One chain, from dialling to the last chunk.
    async fn attempt(&mut self) -> Result<End, Failure> {
        let plan = self.plan;
        let get = Get { name: plan.route.file().clone(), range: None, conditions: self.conditions() };
        let mut session = Session::connect(&plan.route, plan.silence, &request(&get)?, self.reporter).await?;
        let head = session.head().await?;
        match head.status {
            Status::OK | Status::PARTIAL => {}
            Status::NOT_MODIFIED if get.conditions.unless_same.is_some() => return Ok(self.same()),
            status if status.code() < 400 => {
                return Err(session.broken(AnswerError::Protocol("an answer that does not fit the request")));
            }
            _ => return Err(session.refused(&head)),
        }
        let body = session.body(&head)?;
        if body.chunks != ChunkRange::whole(body.file.size.bytes()) {
            return Err(session.broken(AnswerError::Protocol("other chunks than were asked for")));
        }
        let size = body.file.size.bytes();
        self.open_output(size)?;
        self.reporter.event(&Event::File { name: plan.route.file().to_string(), size, have: 0 });
        self.receive(&mut session, &body).await?;
        Ok(End::Received(body.file))
    }

    fn conditions(&self) -> Conditions {
        let local = match &self.plan.target {
            Target::File(path) if self.plan.expected.is_none() => size_and_time(path),
            _ => None,
        };
        Conditions { unless_same: local, ..Conditions::default() }
    }

    fn same(&self) -> End {
        if let Some(path) = self.plan.target.path() {
            let size = fs::metadata(path).map_or(0, |meta| meta.len());
            self.reporter.event(&Event::Same {
                path: show::path(path),
                size,
                by: "size and time",
                hash: None,
            });
        }
        End::Same
    }

    fn open_output(&mut self, size: u64) -> Result<(), Failure> {
        let (sink, part, path) = match &self.plan.target {
            Target::File(path) => {
                let part = PartFile::open(path)?;
                part.start_afresh(size)?;
                let written = part.path().to_owned();
                (Sink::File(part.file()?), Some(part), written)
            }
            Target::StandardOutput => (Sink::stream(Box::new(io::stdout())), None, "standard output".into()),
            Target::Special(path) => {
                let file = OpenOptions::new().write(true).open(path);
                let file = file.map_err(|e| Failure::local("write", path, e))?;
                (Sink::stream(Box::new(file)), None, path.clone())
            }
        };
        self.output = Some(Output { sink: Arc::new(sink), part, path });
        Ok(())
    }

    /// Receives a body straight into buffers, which other threads hash and write meanwhile.
    async fn receive(&mut self, session: &mut Session<'_>, body: &Body) -> Result<(), Failure> {
        let Download { verifiers, output, placed, fetched, reporter, .. } = self;
        let Some(output) = output else { return Ok(()) };
        for index in body.chunks.first()..body.chunks.end() {
            let len = body.chunk_len(index);
            let mut buffer =
                verifiers.buffer(len, |settled| output.account(settled, placed, fetched)).await?;
            let chunk = buffer.get_mut(..len).unwrap_or_default();
            let promised = session.answers().chunk(chunk, |n| reporter.bytes(n as u64)).await;
            let promised = match promised {
                Ok(promised) => promised,
                Err(error) => {
                    verifiers.give_back(buffer);
                    return Err(session.broken(error));
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

    /// Waits until everything received is verified and written.
    async fn settle(&mut self) -> Result<(), Failure> {
        let Download { verifiers, output, placed, fetched, .. } = self;
        let Some(output) = output else { return Ok(()) };
        verifiers.finish(|settled| output.account(settled, placed, fetched)).await
    }

    /// Gives the whole file its name.
    async fn finish(&mut self, facts: &FileFacts) -> Result<(), Failure> {
        let size = facts.size.bytes();
        let Some(output) = self.output.take() else { return Ok(()) };
        if !self.placed.is_whole(size) {
            return Err(Failure::local("complete", &output.path, io::Error::other("chunks are missing")));
        }
        let hash = FileHash::of_chunks(&self.placed.hashes);
        if let Some(expected) = self.plan.expected.filter(|expected| *expected != hash) {
            return Err(Failure::NotExpected { expected, got: hash });
        }
        if let Some(part) = output.part {
            let modified = facts.modified;
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
}

impl Output {
    fn account(&self, settled: &Settled, placed: &mut Placed, fetched: &mut u64) -> Result<(), Failure> {
        match &settled.result {
            Ok(hash) => {
                placed.set(settled.index, *hash);
                *fetched += settled.len as u64;
                Ok(())
            }
            // The chunk before it has failed, and that is what counts.
            Err(Unsettled::OutOfTurn) => Ok(()),
            Err(Unsettled::Damaged) => Err(Failure::Damaged { index: settled.index }),
            Err(Unsettled::Write(error)) => Err(Failure::local("write", &self.path, copy_of(error))),
        }
    }
}

/// The same error once more, for errors of the system cannot be cloned.
fn copy_of(error: &io::Error) -> io::Error {
    error
        .raw_os_error()
        .map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}

/// What a quick look compares; none when there is no such file.
fn size_and_time(path: &Path) -> Option<SizeAndTime> {
    let meta = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let time = FileTime::from_last_modification_time(&meta);
    let modified = Timestamp::new(time.unix_seconds(), time.nanoseconds())?;
    Some(SizeAndTime { size: Size::try_from(meta.len()).ok()?, modified })
}
