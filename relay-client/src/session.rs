//! One chain to an origin, and the requests on it. Knows nothing of files here.

use crate::contacts::{Contacts, Guard};
use crate::event::Begun;
use crate::failure::Failure;
use crate::progress::Reporter;
use crate::stop::Until;
use relay_chain::chain::{Encryption, Pipe, PipeError, Walk, random_id, walk};
use relay_chain::requests::{AnswerError, Answers, Body};
use relay_link::congestion::Congestion;
use relay_link::link::Link;
use relay_proto::file::Head;
use relay_proto::frame::{Message, encode};
use relay_proto::route::Route;
use relay_trust::key::PublicKey;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// A chain that stands.
pub struct Session<'a> {
    route: &'a Route,
    answers: Answers<Link>,
    silence: Duration,
    received: u64,
    walked: Duration,
}

/// A request's frame.
///
/// # Errors
/// [`Failure::Usage`] when it does not fit a frame, which no checked name causes.
pub fn request<M: Message>(message: &M) -> Result<Vec<u8>, Failure> {
    encode(message).map_err(|e| Failure::Usage(format!("the request cannot be written: {e}")))
}

impl<'a> Session<'a> {
    /// Builds the chain; `first` goes out right behind the `open`.
    ///
    /// # Errors
    /// [`Failure::Walk`] names the hop where it ended.
    pub async fn connect(
        route: &'a Route,
        silence: Duration,
        network: &Network,
        first: &[u8],
        reporter: &Reporter,
    ) -> Result<Session<'a>, Failure> {
        Session::walk(route, silence, network, first, |step| reporter.step(None, step, route)).await
    }

    /// The same for somebody who shows the steps in another way, or not at all.
    ///
    /// # Errors
    /// [`Failure::Walk`] names the hop where it ended.
    pub async fn walk(
        route: &'a Route,
        silence: Duration,
        network: &Network,
        first: &[u8],
        on_step: impl FnMut(Begun),
    ) -> Result<Session<'a>, Failure> {
        let pipe = build(route, silence, network, first, on_step).await?;
        let answers = Answers::new(pipe.link, silence);
        Ok(Session { route, answers, silence, received: 0, walked: pipe.after })
    }

    /// How long it took to build the chain: several round trips.
    #[must_use]
    pub fn walked(&self) -> Duration {
        self.walked
    }

    /// Sends a further request.
    ///
    /// # Errors
    /// [`Failure::Broken`].
    pub async fn send(&mut self, frame: &[u8]) -> Result<(), Failure> {
        let link = self.answers.get_mut();
        let written = async {
            link.write_all(frame).await?;
            link.flush().await
        };
        let written = match timeout(self.silence, written).await {
            Ok(written) => written.map_err(AnswerError::from),
            Err(_) => Err(AnswerError::Silent(self.silence)),
        };
        written.map_err(|error| self.broken(error))
    }

    /// The next answer's head.
    ///
    /// # Errors
    /// [`Failure::Broken`].
    pub async fn head(&mut self) -> Result<Head, Failure> {
        let head = self.answers.head().await;
        head.map_err(|error| self.broken(error))
    }

    /// The body that a successful head announces.
    ///
    /// # Errors
    /// [`Failure::Broken`] for one that contradicts itself.
    pub fn body(&self, head: &Head) -> Result<Body, Failure> {
        Body::of(head).map_err(|error| self.broken(error))
    }

    /// The answers, for reading chunks, hashes and pages.
    pub fn answers(&mut self) -> &mut Answers<Link> {
        &mut self.answers
    }

    /// Counts bytes of data, for the report when the chain breaks.
    pub fn count(&mut self, bytes: u64) {
        self.received += bytes;
    }

    /// The failure of this chain.
    #[must_use]
    pub fn broken(&self, error: AnswerError) -> Failure {
        Failure::Broken { error, received: self.received, aftermath: None }
    }

    /// The origin's answer as a failure.
    #[must_use]
    pub fn refused(&self, head: &Head) -> Failure {
        let position = self.route.hops().len();
        Failure::Refused {
            name: self.route.file().to_string(),
            status: head.status,
            message: head.message.clone(),
            position,
            origin: self.route.hop(position).clone(),
        }
    }
}

/// How connections are made, and who may be at their ends.
#[derive(Debug, Clone)]
pub struct Network {
    /// The congestion control of the connections to first hops.
    pub congestion: Congestion,
    /// Whose keys are expected.
    pub contacts: Contacts,
}

impl Network {
    /// As the system has it, in the clear.
    pub const PLAIN: Network = Network { congestion: Congestion::SYSTEM, contacts: Contacts::PLAIN };
}

/// Builds the pipe that every session runs over; `first` goes out as early as it may.
///
/// # Errors
/// [`Failure::Walk`] names the hop where it ended, [`Failure::Key`] says who was there instead of whom.
pub async fn build(
    route: &Route,
    silence: Duration,
    network: &Network,
    first: &[u8],
    mut on_step: impl FnMut(Begun),
) -> Result<Pipe, Failure> {
    let id = random_id().map_err(|e| Failure::local("read", Path::new("the system's random numbers"), e))?;
    on_step(Begun::Dialling(id));
    let guard = network.contacts.guard(route)?;
    let believes = |key: &PublicKey| guard.as_ref().is_some_and(|guard| guard.believes(key));
    let encryption = guard.as_ref().map(|guard| Encryption { config: &guard.config, believes: &believes });
    let plan = Walk { route, id, silence, first_requests: first, encryption, congestion: network.congestion };
    let walked = walk(&plan, |step| on_step(Begun::Step(step))).await;
    let pipe = walked.map_err(|error| not_built(error, route, guard.as_ref()))?;
    if let (Some(key), Some(guard)) = (pipe.key, &guard)
        && let Some(standing) = guard.news(&key)
    {
        on_step(Begun::Encrypted { key, standing });
    }
    Ok(pipe)
}

fn not_built(error: PipeError, route: &Route, guard: Option<&Guard>) -> Failure {
    match error {
        PipeError::Walk(error) => Failure::Walk(error),
        PipeError::Key(mismatch) => {
            let position = route.hops().len();
            let what = guard.map_or_else(|| mismatch.to_string(), |guard| guard.complaint(mismatch));
            Failure::Key { position, origin: route.hop(position).clone(), what }
        }
    }
}

/// The longest walk after a chain broke.
const AFTERMATH_SILENCE: Duration = Duration::from_secs(3);

/// Walks the route again after its chain went silent or broke, and says where it stops now, or that every hop answers.
pub async fn aftermath(route: &Route, silence: Duration, until: &Until) -> Result<String, Failure> {
    let id = random_id()
        .map_err(|e: io::Error| Failure::local("read", Path::new("the system's random numbers"), e))?;
    let silence = silence.min(AFTERMATH_SILENCE);
    let plan =
        Walk { route, id, silence, first_requests: &[], encryption: None, congestion: Congestion::SYSTEM };
    until
        .bound(async {
            Ok(match walk(&plan, |_| {}).await {
                Ok(_) => "walking the route again, every hop answers now".to_owned(),
                Err(error) => format!("walking the route again: {error}"),
            })
        })
        .await
}
