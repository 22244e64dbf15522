//! Pipes to the origin: walked anew, or kept from an earlier request for a moment, because requests can follow one another
//! on one pipe and a walk costs a connection at every hop.
//!
//! Whether a kept pipe still leads anywhere is only known once it is used. One that does not answer at once costs nothing
//! but that: every request here only reads, so it is asked again over a new pipe, whose walk can name the hop that fails.

use super::failure;
use crate::http::cache::FetchError;
use http::StatusCode;
use relay_chain::chain::{PipeError, Walk, WalkError, random_id, walk};
use relay_chain::frames::encode;
use relay_chain::requests::{AnswerError, Answers};
use relay_link::congestion::Congestion;
use relay_link::link::Link;
use relay_proto::code::{FailureCode, Status};
use relay_proto::file::Head;
use relay_proto::frame::Message;
use relay_proto::route::Route;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout};

/// How long an unused pipe is kept: every hop holds two connections for it.
const KEEP: Duration = Duration::from_secs(5);

/// How many unused pipes are kept.
const MOST_KEPT: usize = 8;

/// How long a kept pipe may take to answer before the route is walked anew.
const KEPT_PATIENCE: Duration = Duration::from_secs(2);

/// The way to one origin, and the pipes that stand.
#[derive(Debug)]
pub(super) struct Sessions {
    route: Route,
    silence: Duration,
    congestion: Congestion,
    kept: Mutex<Vec<Kept>>,
}

#[derive(Debug)]
struct Kept {
    link: Link,
    since: Instant,
}

/// An open pipe with the last answer's head read.
pub(super) struct Asking {
    pub answers: Answers<Link>,
    pub head: Head,
}

impl Sessions {
    pub(super) fn new(route: Route, silence: Duration, congestion: Congestion) -> Self {
        Self { route, silence, congestion, kept: Mutex::default() }
    }

    pub(super) fn route(&self) -> &Route {
        &self.route
    }

    /// The same way with another congestion control, and no pipe yet.
    pub(super) fn with_congestion(&self, congestion: Congestion) -> Self {
        Self::new(self.route.clone(), self.silence, congestion)
    }

    /// The origin, as people are told of it.
    pub(super) fn origin(&self) -> String {
        let position = self.route.hops().len();
        format!("hop {position} ({})", self.route.hop(position))
    }

    /// Asks over a kept pipe, or right behind the `open` of a new one.
    pub(super) async fn ask<M: Message>(&self, request: &M) -> Result<Asking, FetchError> {
        let request = encoded(request)?;
        while let Some(link) = self.take() {
            let mut answers = Answers::new(link, self.silence);
            let asked = self.exchange(&mut answers, &request);
            match timeout(KEPT_PATIENCE.min(self.silence), asked).await {
                Ok(Ok(head)) if !is_farewell(&head) => return Ok(Asking { answers, head }),
                // Each turn uses up a kept pipe.
                _ => tracing::debug!(origin = self.origin(), "a kept pipe has ended"),
            }
        }
        self.walk(&request).await
    }

    /// Asks once more on the same pipe.
    pub(super) async fn ask_more<M: Message>(
        &self,
        answers: &mut Answers<Link>,
        request: &M,
    ) -> Result<Head, FetchError> {
        self.exchange(answers, &encoded(request)?).await.map_err(|error| self.broken(&error))
    }

    /// Takes back a pipe on which every answer was read to its end.
    pub(super) fn keep(self: &Arc<Self>, answers: Answers<Link>) {
        let mut kept = self.kept();
        if kept.len() >= MOST_KEPT {
            return;
        }
        kept.push(Kept { link: answers.into_inner(), since: Instant::now() });
        drop(kept);
        let sessions = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(KEEP).await;
            if let Some(sessions) = sessions.upgrade() {
                sessions.kept().retain(|kept| kept.since.elapsed() < KEEP);
            }
        });
    }

    pub(super) fn broken(&self, error: &AnswerError) -> FetchError {
        let status = match error {
            AnswerError::Silent(_) => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        };
        failure(status, &format!("the chain to {} broke: {error}", self.origin()))
    }

    async fn walk(&self, first_request: &[u8]) -> Result<Asking, FetchError> {
        let id =
            random_id().map_err(|error| failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))?;
        let way = Walk {
            route: &self.route,
            id,
            silence: self.silence,
            first_requests: first_request,
            encryption: None,
            congestion: self.congestion,
        };
        let pipe = walk(&way, |_| {}).await.map_err(|error| walk_failure(&error))?;
        let mut answers = Answers::new(pipe.link, self.silence);
        let head = answers.head().await.map_err(|error| self.broken(&error))?;
        Ok(Asking { answers, head })
    }

    async fn exchange(&self, answers: &mut Answers<Link>, request: &[u8]) -> Result<Head, AnswerError> {
        let link = answers.get_mut();
        let written = async {
            link.write_all(request).await?;
            link.flush().await
        };
        match timeout(self.silence, written).await {
            Ok(Ok(())) => answers.head().await,
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(AnswerError::Silent(self.silence)),
        }
    }

    /// The pipe that was used last, if it has not ended meanwhile.
    fn take(&self) -> Option<Link> {
        let mut kept = self.kept();
        while let Some(Kept { mut link, since }) = kept.pop() {
            if link.is_quiet() && since.elapsed() < KEEP {
                return Some(link);
            }
        }
        None
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an origin says that is about to close a pipe; it need not have seen the request.
fn is_farewell(head: &Head) -> bool {
    matches!(head.status, Status::UNAVAILABLE | Status::REQUEST_TIMEOUT)
}

fn encoded<M: Message>(request: &M) -> Result<Vec<u8>, FetchError> {
    encode(request).map_err(|error| failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))
}

fn walk_failure(error: &PipeError) -> FetchError {
    let status = match error {
        PipeError::Walk(WalkError { code: FailureCode::TimedOut, .. }) => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    failure(status, &format!("the chain ends before its origin: {error}"))
}
