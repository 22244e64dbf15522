//! One connection at work: it asks for chunks a little ahead, receives them, and hands them to the verifiers.

use super::authority::Authority;
use super::question::{self, is_same_version, misfit};
use super::queue::{Queue, WorkerId};
use crate::failure::Failure;
use crate::plan::Plan;
use crate::progress::Reporter;
use crate::session::{Session, request};
use crate::verify::{Received, Sink, Verifiers};
use relay_chain::frames::ReadError;
use relay_chain::requests::{AnswerError, Body};
use relay_proto::chunk::ChunkRange;
use relay_proto::code::Status;
use relay_proto::digest::ChunkHash;
use relay_proto::file::{FileFacts, Head, Stat};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// What the connections of an attempt share.
pub(super) struct Shared<'a> {
    pub(super) plan: &'a Plan,
    pub(super) reporter: &'a Reporter,
    pub(super) verifiers: &'a Verifiers,
    pub(super) sink: Arc<Sink>,
    /// Of the output, for messages.
    pub(super) path: PathBuf,
    /// The version that is fetched, as the first origin has it.
    pub(super) version: FileFacts,
    pub(super) queue: Queue,
    pub(super) authority: Authority,
    /// A chunk came damaged in this run. From then on origins are asked to read anew: they may remember hashes of a file that changed
    /// without a sign.
    pub(super) anew: &'a Cell<bool>,
    /// Bytes that each route brought in this run.
    pub(super) brought: &'a RefCell<Vec<u64>>,
    /// Bytes that have come on each route in this attempt, whatever became of them.
    pub(super) came: RefCell<Vec<u64>>,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It waits until it is tried again.
    Pausing,
    /// Its chain is being built.
    Dialling,
    /// Its chain stands.
    Working,
}

/// A chain that stands already, and the answer to what it was asked for, if anything.
pub(super) struct Standing<'a> {
    pub(super) session: Session<'a>,
    pub(super) asked: Option<Body>,
}

/// What a connection lets the others know.
pub(super) struct Told {
    pub(super) phase: Cell<Phase>,
    /// How long its chain took to build.
    pub(super) walk: Cell<Duration>,
    /// Its origin is not the one whose version is fetched.
    pub(super) is_elsewhere: Cell<bool>,
}

impl Told {
    pub(super) fn new(phase: Phase) -> Told {
        Told { phase: Cell::new(phase), walk: Cell::default(), is_elsewhere: Cell::default() }
    }
}

/// A connection. When it is dropped, others bring what it was asked for.
pub(super) struct Worker<'a> {
    shared: &'a Shared<'a>,
    id: WorkerId,
    route: usize,
    told: Rc<Told>,
    /// Something that was asked for has been answered.
    is_answered: bool,
    /// What its origin has, which is the version that is fetched under a tag of its own where the origin is another one.
    has: Option<FileFacts>,
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        self.shared.queue.leave(self.id);
    }
}

/// Requests with long names are sent one by one, so that sending never waits for the answers to be read. Bytes.
const MAX_SMALL_REQUEST: usize = 2048;
/// The most requests that wait, besides the one that is being answered.
const MAX_ASKED: usize = 8;

impl<'a> Worker<'a> {
    pub(super) fn new(shared: &'a Shared<'a>, id: WorkerId, route: usize, told: Rc<Told>) -> Worker<'a> {
        Worker { shared, id, route, told, is_answered: false, has: None }
    }

    /// Builds a chain of its own after a pause, and works until it is no longer needed. `tells`: its steps are shown.
    ///
    /// # Errors
    /// Why it ended before.
    pub(super) async fn join(mut self, pause: Duration, tells: bool) -> Result<(), Failure> {
        if !pause.is_zero() {
            self.told.phase.set(Phase::Pausing);
            sleep(pause).await;
        }
        self.told.phase.set(Phase::Dialling);
        let Shared { plan, reporter, .. } = *self.shared;
        let route = plan.route(self.route);
        let first = request(&Stat { name: route.file().clone() })?;
        let mut session = Session::walk(route, plan.silence, &plan.network, &first, |step| {
            if tells {
                reporter.step(plan.label(self.route), step, route);
            }
        })
        .await?;
        let head = session.head().await?;
        let has = match (head.status, head.file.clone()) {
            (Status::OK, Some(has)) => has,
            (status, _) if status.code() < 400 => return Err(misfit(&session)),
            _ => return Err(session.refused(&head)),
        };
        let is_same = is_same_version(&has, &self.shared.version);
        if !is_same && self.route == self.shared.authority.route {
            return Err(session.broken(AnswerError::Changed));
        }
        if has.size != self.shared.version.size {
            return Err(self.other_version(None));
        }
        self.has = Some(has);
        self.told.is_elsewhere.set(!is_same);
        if self.told.is_elsewhere.get() && self.shared.authority.ask() && tells {
            reporter.note(format!(
                "{}leads to another origin; its chunks are compared with the first one's hashes",
                plan.label(self.route).map(|label| format!("route {label} ")).unwrap_or_default()
            ));
        }
        self.work(Standing { session, asked: None }).await
    }

    /// Works on a chain that stands already.
    ///
    /// # Errors
    /// Why it ended before it was no longer needed.
    pub(super) async fn go_on(mut self, standing: Standing<'a>) -> Result<(), Failure> {
        self.has = Some(self.shared.version.clone());
        let was_idle = standing.asked.is_none();
        match self.work(standing).await {
            // Its origin did not wait until what is here had been looked through.
            Err(failure) if was_idle && !self.is_answered && is_too_late(&failure) => {
                self.shared.queue.leave(self.id);
                self.join(Duration::ZERO, false).await
            }
            ended => ended,
        }
    }

    async fn work(&mut self, standing: Standing<'a>) -> Result<(), Failure> {
        let Standing { mut session, asked } = standing;
        self.told.phase.set(Phase::Working);
        self.told.walk.set(session.walked());
        let queue = &self.shared.queue;
        queue.enter(self.id, session.walked());
        let (mut asked_for, mut first) = (std::collections::VecDeque::new(), asked);
        if let Some(body) = &first {
            let run = body.chunks.first()..body.chunks.end();
            queue.adopt(self.id, run.clone());
            asked_for.push_back(run);
        }
        loop {
            // Made before looking, so that nothing that happens in between is missed.
            let changed = queue.changed();
            self.ask_ahead(&mut session, &mut asked_for).await?;
            let Some(run) = asked_for.pop_front() else {
                if queue.is_retired(self.id) {
                    return Ok(());
                }
                changed.await;
                continue;
            };
            let body = match first.take() {
                Some(body) => body,
                None => {
                    let head = session.head().await?;
                    self.body(&session, &run, &head)?
                }
            };
            self.is_answered = true;
            for index in run {
                self.receive(&mut session, &body, index).await?;
                self.ask_ahead(&mut session, &mut asked_for).await?;
            }
        }
    }

    async fn ask_ahead(
        &self,
        session: &mut Session<'_>,
        asked_for: &mut std::collections::VecDeque<Range<u64>>,
    ) -> Result<(), Failure> {
        let Some(has) = &self.has else { return Ok(()) };
        let name = self.shared.plan.route(self.route).file();
        if !asked_for.is_empty() && name.as_str().len() > MAX_SMALL_REQUEST {
            return Ok(());
        }
        let before = if self.told.is_elsewhere.get() { self.shared.authority.known() } else { u64::MAX };
        let mut frames = Vec::new();
        while asked_for.len() < MAX_ASKED {
            let Some(run) = self.shared.queue.claim(self.id, before) else { break };
            frames.extend(question::chunks(name.clone(), &run, &has.entity_tag, self.shared.anew.get())?);
            asked_for.push_back(run);
        }
        if frames.is_empty() { Ok(()) } else { session.send(&frames).await }
    }

    /// The body of the answer to a request for `run`, which must be of the version that this origin had when it was asked first.
    fn body(&self, session: &Session<'_>, run: &Range<u64>, head: &Head) -> Result<Body, Failure> {
        match head.status {
            Status::OK | Status::PARTIAL => {}
            Status::PRECONDITION_FAILED | Status::RANGE_NOT_SATISFIABLE => {
                return Err(session.broken(AnswerError::Changed));
            }
            status if status.code() < 400 => return Err(misfit(session)),
            _ => return Err(session.refused(head)),
        }
        let body = session.body(head)?;
        if self.has.as_ref().is_none_or(|has| !is_same_version(has, &body.file)) {
            // One of the two heads may have been damaged on its way, for no hash covers them.
            return Err(session.broken(AnswerError::Changed));
        }
        if ChunkRange::new(run.start, run.end) != Some(body.chunks) {
            return Err(session.broken(AnswerError::Protocol("other chunks than were asked for")));
        }
        Ok(body)
    }

    /// Receives a chunk straight into a buffer, which other threads hash and write meanwhile.
    async fn receive(&self, session: &mut Session<'_>, body: &Body, index: u64) -> Result<(), Failure> {
        let Shared { reporter, verifiers, queue, sink, path, .. } = self.shared;
        let len = body.chunk_len(index);
        let mut buffer = verifiers.buffer(len).await;
        let mut shown = Shown { reporter, bytes: 0 };
        let on_bytes = |n| {
            shown.add(n as u64);
            add(&self.shared.came, self.route, n as u64);
        };
        let came = session.answers().chunk(&mut buffer, on_bytes).await;
        let claimed = came.map_err(|error| session.broken(error))?;
        let promised = self.promised(index, claimed);
        session.count(len as u64);
        if !queue.received(self.id, index) {
            return Ok(());
        }
        shown.bytes = 0;
        add(self.shared.brought, self.route, len as u64);
        let (file_size, sink) = (body.file.size.bytes(), Arc::clone(sink));
        let chunk = Received { buffer, index, file_size, promised, claimed, route: self.route, sink };
        verifiers.submit(chunk).map_err(|e| Failure::local("start a thread for", path, e))
    }

    /// What a chunk must hash to: another origin's claim does not count before the first one's. Nothing is asked of another origin
    /// before the first one's hash is known.
    fn promised(&self, index: u64, claimed: ChunkHash) -> ChunkHash {
        let authority = self.shared.authority.hash(index).filter(|_| self.told.is_elsewhere.get());
        authority.unwrap_or(claimed)
    }

    fn other_version(&self, chunk: Option<u64>) -> Failure {
        other_version(self.shared.plan, self.route, chunk)
    }
}

/// Whether a chain on which nothing was asked for a while has been closed for that.
fn is_too_late(failure: &Failure) -> bool {
    match failure {
        Failure::Broken { error: AnswerError::Read(error), .. } => !matches!(error, ReadError::Frame(_)),
        Failure::Refused { status, .. } => *status == Status::REQUEST_TIMEOUT,
        _ => false,
    }
}

/// The origin of this route has another version.
pub(super) fn other_version(plan: &Plan, route: usize, chunk: Option<u64>) -> Failure {
    let origin = plan.route(route).hops().last();
    Failure::OtherVersion { origin: origin.map(ToString::to_string).unwrap_or_default(), chunk }
}

fn add(counts: &RefCell<Vec<u64>>, route: usize, bytes: u64) {
    if let Some(count) = counts.borrow_mut().get_mut(route) {
        *count += bytes;
    }
}

/// Bytes that the display counts already. They are taken back when nothing comes of them.
struct Shown<'a> {
    reporter: &'a Reporter,
    bytes: u64,
}

impl Shown<'_> {
    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.reporter.bytes(bytes);
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.reporter.take_back(self.bytes);
    }
}
