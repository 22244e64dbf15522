//! The first request of an attempt, which goes out right behind the `open`, and the routes' race for its answer.

use super::queue::FIRST_SEGMENT;
use crate::failure::Failure;
use crate::plan::Plan;
use crate::progress::Reporter;
use crate::retry::HEAD_START;
use crate::session::{Session, request};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use relay_chain::requests::{AnswerError, Body};
use relay_proto::chunk::{AskedRange, ChunkRange};
use relay_proto::code::Status;
use relay_proto::file::{Conditions, EntityTag, FileFacts, Get, Hashes, Head, RequestedName, Stat};
use std::ops::Range;
use tokio::time::{Instant, sleep_until};

/// What an attempt asks first.
#[derive(Debug, Clone)]
pub(super) enum Question {
    /// The file, of which nothing is here, from its first chunks on.
    Whole(Conditions),
    /// These chunks of the version that was begun.
    Missing(Range<u64>, FileFacts),
    /// The hashes, for there is a local file that may have some of the chunks.
    Hashes(Conditions),
    /// Whether this version, of which everything is here, is still what the origin has.
    Stat(FileFacts),
}

impl Question {
    /// The request. `anew`: see [`chunks`].
    pub(super) fn frame(&self, name: RequestedName, anew: bool) -> Result<Vec<u8>, Failure> {
        match self {
            Question::Whole(conditions) => {
                let range = Some(AskedRange { first: 0, end: Some(FIRST_SEGMENT) });
                request(&Get { name, range, conditions: conditions.clone(), anew })
            }
            Question::Missing(run, version) => chunks(name, run, &version.entity_tag, anew),
            Question::Hashes(conditions) => {
                request(&Hashes { name, range: None, conditions: conditions.clone() })
            }
            Question::Stat(_) => request(&Stat { name }),
        }
    }
}

/// An answer that can be gone on with.
pub(super) enum Answer {
    /// The local copy is what the origin has.
    Same,
    /// The file has no bytes.
    Empty(FileFacts),
    /// The file's first chunks follow.
    First(Body),
    /// The chunks that were missing follow.
    Missing(Body),
    /// The hashes of all chunks follow.
    Hashes(Body),
    /// The origin has what was begun.
    Still,
    /// The origin has another version than was begun.
    OtherVersion,
    /// The origin says that it has the version that was begun, and yet says otherwise what that is.
    Contradiction,
}

impl Question {
    /// Receives the answer to this question, which was sent.
    ///
    /// # Errors
    /// There is none that can be gone on with.
    pub(super) async fn answered(&self, session: &mut Session<'_>) -> Result<Answer, Failure> {
        let head = session.head().await?;
        match self.answer(&head) {
            Some(answer) => Ok(answer),
            None if head.status.code() >= 400 => Err(session.refused(&head)),
            None if is_body(&head) => {
                let others = || session.broken(AnswerError::Protocol("other chunks than were asked for"));
                Err(session.body(&head).err().unwrap_or_else(others))
            }
            None => Err(misfit(session)),
        }
    }

    fn answer(&self, head: &Head) -> Option<Answer> {
        let facts = head.file.as_ref();
        let body = || Body::of(head).ok().filter(|_| is_body(head));
        match (self, head.status) {
            (Question::Whole(asked) | Question::Hashes(asked), Status::NOT_MODIFIED) => {
                asked.unless_same.as_ref().map(|_| Answer::Same)
            }
            (Question::Whole(_), Status::RANGE_NOT_SATISFIABLE) => {
                facts.filter(|file| file.size.bytes() == 0).cloned().map(Answer::Empty)
            }
            (Question::Whole(_), _) => body()
                .filter(|body| body.chunks.first() == 0 && (1..=FIRST_SEGMENT).contains(&body.chunks.end()))
                .map(Answer::First),
            (Question::Missing(..), Status::PRECONDITION_FAILED | Status::RANGE_NOT_SATISFIABLE) => {
                Some(Answer::OtherVersion)
            }
            (Question::Missing(run, version), _) => {
                let body = body()?;
                if !is_same_version(&body.file, version) {
                    return Some(Answer::Contradiction);
                }
                (Some(body.chunks) == ChunkRange::new(run.start, run.end)).then_some(Answer::Missing(body))
            }
            (Question::Hashes(_), _) => body()
                .filter(|body| body.chunks == ChunkRange::whole(body.file.size.bytes()))
                .map(Answer::Hashes),
            (Question::Stat(version), Status::OK) => {
                facts.map(
                    |facts| {
                        if is_same_version(facts, version) { Answer::Still } else { Answer::OtherVersion }
                    },
                )
            }
            (Question::Stat(_), _) => None,
        }
    }
}

/// Whether a head announces a body.
fn is_body(head: &Head) -> bool {
    matches!(head.status, Status::OK | Status::PARTIAL)
}

/// The failure of a chain whose origin answers something else than was asked.
pub(super) fn misfit(session: &Session<'_>) -> Failure {
    session.broken(AnswerError::Protocol("an answer that does not fit the request"))
}

/// Whether these are facts of the same version, as one origin tells versions apart.
pub(super) fn is_same_version(one: &FileFacts, other: &FileFacts) -> bool {
    (one.size, &one.entity_tag) == (other.size, &other.entity_tag)
}

/// A request for some chunks of one version. `anew`: the origin is not to answer with hashes that it remembers.
pub(super) fn chunks(
    name: RequestedName,
    run: &Range<u64>,
    tag: &EntityTag,
    anew: bool,
) -> Result<Vec<u8>, Failure> {
    let range = Some(AskedRange { first: run.start, end: Some(run.end) });
    let conditions = Conditions { if_match: Some(tag.clone()), ..Conditions::default() };
    request(&Get { name, range, conditions, anew })
}

/// The first origin that answered.
pub(super) struct Answered<'a> {
    pub(super) route: usize,
    pub(super) session: Session<'a>,
    pub(super) answer: Answer,
}

/// Asks the origins of the `usable` routes, one after the other, the next one as soon as the one before failed or took long. The first
/// answer counts; a refusal is none. Returns also why the routes before did not answer.
pub(super) async fn ask<'a>(
    plan: &'a Plan,
    reporter: &Reporter,
    usable: &[usize],
    question: &Question,
    anew: bool,
) -> (Option<Answered<'a>>, Vec<(usize, Failure)>) {
    let (mut waiting, mut failures) = (usable.iter().copied(), Vec::new());
    let mut asking = FuturesUnordered::new();
    asking.extend(waiting.next().map(|route| ask_one(plan, reporter, route, question, anew)));
    let mut next_at = Instant::now() + HEAD_START;
    loop {
        let has_more = waiting.len() > 0;
        tokio::select! {
            biased;
            Some((route, answered)) = asking.next() => match answered {
                Ok(answered) => return (Some(answered), failures),
                Err(failure) => failures.push((route, failure)),
            },
            () = sleep_until(next_at), if has_more => {}
            else => return (None, failures),
        }
        asking.extend(waiting.next().map(|route| ask_one(plan, reporter, route, question, anew)));
        next_at = Instant::now() + HEAD_START;
    }
}

async fn ask_one<'a>(
    plan: &'a Plan,
    reporter: &Reporter,
    number: usize,
    question: &Question,
    anew: bool,
) -> (usize, Result<Answered<'a>, Failure>) {
    let answered = async {
        let route = plan.route(number);
        let first = question.frame(route.file().clone(), anew)?;
        let label = plan.label(number);
        let mut session = Session::walk(route, plan.silence, &plan.network, &first, |step| {
            reporter.step(label, step, route);
        })
        .await?;
        let answer = question.answered(&mut session).await?;
        Ok(Answered { route: number, session, answer })
    };
    (number, answered.await)
}
