//! The client's walk through a route: one `open`, one `hello` a hop, TLS with the origin, and when it ends early, who says why.

use crate::frames::{Frame, ReadError, encode, read_frame};
use relay_link::congestion::Congestion;
use relay_link::dial::{DialError, dial};
use relay_link::link::Link;
use relay_link::resolve::Names;
use relay_link::tls::{Handshake, Secured, TlsError};
use relay_proto::address::Hop;
use relay_proto::code::FailureCode;
use relay_proto::frame::FrameType;
use relay_proto::hop::{ClientLimits, ConnectionId, Failed, Hello, Open};
use relay_proto::route::Route;
use relay_proto::text::clean;
use relay_trust::key::PublicKey;
use relay_trust::tls::Use;
use rustls::ClientConfig;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

/// What to walk, and how patiently.
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    /// Which hops; its last one is the origin.
    pub route: &'a Route,
    /// The connection's id.
    pub id: ConnectionId,
    /// How long to wait without a byte: for the connect to the first hop, and for each `hello`.
    pub silence: Duration,
    /// The frames of the first requests. They go out as early as they may: in the clear right behind the `open`, so that the answer
    /// needs no further round trip; encrypted as soon as the origin's key was proved and believed.
    pub first_requests: &'a [u8],
    /// How what passes is encrypted; none: in the clear, for every relay to see and to change.
    pub encryption: Option<Encryption<'a>>,
    /// What the connection to the first hop gets.
    pub congestion: Congestion,
}

/// TLS with the origin, inside the pipe. Its first bytes ride behind the `open`.
#[derive(Clone, Copy)]
pub struct Encryption<'a> {
    /// What proves this side, and which keys the origin may have.
    pub config: &'a Arc<ClientConfig>,
    /// Whether the key that the origin proved is believed. It is asked before anything else goes to the origin.
    pub believes: &'a (dyn Fn(&PublicKey) -> bool + Send + Sync),
}

impl fmt::Debug for Encryption<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption").finish_non_exhaustive()
    }
}

/// A step of the walk, as it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The first hop is connected.
    Connected {
        /// The address that was reached.
        address: SocketAddr,
        /// Since the walk began.
        after: Duration,
    },
    /// A hop said `hello`.
    Hello {
        /// Which hop, from 1.
        position: usize,
        /// Its program and version, in its own words.
        agent: String,
        /// Since the walk began.
        after: Duration,
    },
}

/// A pipe to the origin: every hop has said `hello`, and with encryption the origin has proved its key.
#[derive(Debug)]
pub struct Pipe {
    /// The link to the first hop. What comes now is the file layer's.
    pub link: Link,
    /// The origin's key; none in the clear.
    pub key: Option<PublicKey>,
    /// From the begin of the walk to its end.
    pub after: Duration,
}

/// Why there is no pipe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PipeError {
    /// The walk ended on its way.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The chain stands, but whoever is at its end is not who was expected.
    #[error(transparent)]
    Key(#[from] KeyMismatch),
}

/// Who is at the end of a chain instead of who was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyMismatch {
    /// Somebody with another key than the expected ones.
    #[error("the origin has the key {0}, which is not the expected one")]
    Other(PublicKey),
    /// Somebody whose key was not believed.
    #[error("the origin has the key {0}, which is not believed")]
    NotBelieved(PublicKey),
    /// Somebody who answers in the clear, be it the origin or a relay in its place.
    #[error("the origin answered without encryption")]
    NoEncryption,
}

/// Where and why a walk ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkError {
    /// The hop that could not be reached or did not go on, from 1.
    pub position: usize,
    /// That hop.
    pub hop: Hop,
    /// Why, for programs.
    pub code: FailureCode,
    /// Why, for people: what this side saw, or what a node said (cleaned). Empty when the code says it all.
    pub message: String,
    /// Who says so; none: this side saw it itself.
    pub says: Option<Said>,
}

/// A node that said something, by its place in the route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Which hop, from 1.
    pub position: usize,
    /// That hop.
    pub hop: Hop,
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hop {} ({}): {}", self.position, self.hop, self.code)?;
        if let Some(said) = &self.says {
            write!(f, ", says hop {} ({})", said.position, said.hop)?;
        }
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

impl std::error::Error for WalkError {}

/// A random id for a connection.
///
/// # Errors
/// The system's, when it has no random numbers.
pub fn random_id() -> io::Result<ConnectionId> {
    random_bits().map(ConnectionId::new)
}

/// 64 random bits.
///
/// # Errors
/// The system's, when it has no random numbers.
pub fn random_bits() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::from)
}

/// Walks the route: dials its first hop, hands it the rest, waits for every hop's `hello`, and with encryption for the origin's
/// proof of its key. Then the first requests are on their way.
///
/// # Errors
/// Where the walk ended and why, or who is at its end; see [`PipeError`].
pub async fn walk(walk: &Walk<'_>, mut on_step: impl FnMut(Step)) -> Result<Pipe, PipeError> {
    let start = Instant::now();
    let deadline = start + walk.silence;
    let dialled = dial(walk.route.hop(1), deadline, walk.congestion, Names::Own, |_| true).await;
    let mut link = dialled.map_err(|e| not_dialled(&at(walk, 1), &e))?;
    on_step(Step::Connected { address: link.peer(), after: start.elapsed() });
    let Some(encryption) = walk.encryption else {
        greet(walk, &mut link, walk.first_requests, start, &mut on_step).await?;
        return Ok(Pipe { link, key: None, after: start.elapsed() });
    };

    // A session of TLS is large, and a walk in the clear needs no room for one.
    Box::pin(walk_encrypted(walk, encryption, link, start, &mut on_step)).await
}

/// The rest of a walk that began at `start`, when what passes is encrypted.
async fn walk_encrypted(
    walk: &Walk<'_>,
    encryption: Encryption<'_>,
    link: Link,
    start: Instant,
    on_step: &mut impl FnMut(Step),
) -> Result<Pipe, PipeError> {
    let mut handshake = Handshake::begin(link, encryption.config, Use::Pipe);
    let hello = handshake.first_bytes().to_vec();
    let link = handshake.link().map_err(|error| no_tls(walk, &error))?;
    greet(walk, link, &hello, start, on_step).await?;
    let secured = match timeout(walk.silence, handshake.finish()).await {
        Ok(secured) => secured.map_err(|error| no_tls(walk, &error))?,
        Err(_) => return Err(silent(&at(walk, walk.route.hops().len()), walk.silence).into()),
    };
    let Secured { mut link, key: Some(key) } = secured else { return Err(KeyMismatch::NoEncryption.into()) };
    if !(encryption.believes)(&key) {
        return Err(KeyMismatch::NotBelieved(key).into());
    }
    let written = async {
        link.write_all(walk.first_requests).await?;
        link.flush().await
    };
    match timeout(walk.silence, written).await {
        // Whoever closed may have said why; reading the answer tells.
        Ok(_) => Ok(Pipe { link, key: Some(key), after: start.elapsed() }),
        Err(_) => Err(silent(&at(walk, walk.route.hops().len()), walk.silence).into()),
    }
}

/// Sends the `open` and what rides behind it, and hears every hop's `hello`.
async fn greet(
    walk: &Walk<'_>,
    link: &mut Link,
    behind: &[u8],
    start: Instant,
    on_step: &mut impl FnMut(Step),
) -> Result<(), WalkError> {
    let open = Open {
        hops: walk.route.hops().iter().skip(1).cloned().collect(),
        id: walk.id,
        limits: ClientLimits::new(walk.silence),
    };
    let mut bytes = encode(&open).map_err(|e| at(walk, 1).error(FailureCode::Internal, &e.to_string()))?;
    bytes.extend_from_slice(behind);
    // A peer that answered and closed before it read everything is still worth listening to.
    let written = timeout(walk.silence, link.write_all(&bytes)).await;

    for position in 1..=walk.route.hops().len() {
        let Ok(frame) = timeout(walk.silence, read_frame(link)).await else {
            return Err(silent(&at(walk, position), walk.silence));
        };
        match frame.and_then(|frame| Reply::of(&frame)) {
            Ok(Reply::Hello(hello)) => {
                on_step(Step::Hello { position, agent: hello.agent, after: start.elapsed() });
            }
            Ok(Reply::Failed(failed)) => return Err(from_failed(&failed, position, walk.route)),
            // A relay speaks for the hop behind it, also when that one closes; so when the connection itself ends, it is
            // a node that has already said hello that is gone.
            Err(error) if position > 1 => {
                let message = format!("the chain broke while hop {position} was to say hello: {error}");
                return Err(at(walk, position - 1).error(FailureCode::Closed, &message));
            }
            Err(error) => return Err(from_read_error(&error, &at(walk, position), &written)),
        }
    }
    Ok(())
}

/// What a handshake that failed means. Whoever broke it, it is the chain's end that is not there.
fn no_tls(walk: &Walk<'_>, error: &TlsError) -> PipeError {
    match error {
        TlsError::OtherKey(other) => KeyMismatch::Other(other.shown).into(),
        TlsError::NotTls | TlsError::Peer(_) => KeyMismatch::NoEncryption.into(),
        error => {
            let message = format!("the chain broke while the origin was to prove its key: {error}");
            at(walk, walk.route.hops().len()).error(FailureCode::Closed, &message).into()
        }
    }
}

fn at<'a>(walk: &Walk<'a>, position: usize) -> Place<'a> {
    Place { position, hop: walk.route.hop(position) }
}

enum Reply {
    Hello(Hello),
    Failed(Failed),
}

impl Reply {
    fn of(frame: &Frame) -> Result<Reply, ReadError> {
        if frame.frame_type == FrameType::Failed {
            frame.decode().map(Reply::Failed)
        } else {
            frame.decode().map(Reply::Hello)
        }
    }
}

/// A hop and its position, from 1.
struct Place<'a> {
    position: usize,
    hop: &'a Hop,
}

impl Place<'_> {
    fn error(&self, code: FailureCode, message: &str) -> WalkError {
        WalkError {
            position: self.position,
            hop: self.hop.clone(),
            code,
            message: clean(message, relay_proto::limits::MAX_MESSAGE),
            says: None,
        }
    }
}

fn silent(place: &Place<'_>, silence: Duration) -> WalkError {
    let message = format!("no byte in {} s", silence.as_secs_f64());
    place.error(FailureCode::TimedOut, &message)
}

fn not_dialled(place: &Place<'_>, error: &DialError) -> WalkError {
    let code = error.code();
    // The code's own text already says that a connection was refused.
    let message = if code == FailureCode::Refused { String::new() } else { error.to_string() };
    place.error(code, &message)
}

/// `position` is the hop whose `hello` should have come. A `failed` that names a next hop comes from the hop before it; one
/// that names none comes from that hop itself.
fn from_failed(failed: &Failed, position: usize, route: &Route) -> WalkError {
    let said_by = if failed.next.is_some() { position.saturating_sub(1).max(1) } else { position };
    WalkError {
        position,
        hop: route.hop(position).clone(),
        code: failed.code,
        message: failed.message.clone(),
        says: Some(Said { position: said_by, hop: route.hop(said_by).clone() }),
    }
}

type Written = Result<io::Result<()>, tokio::time::error::Elapsed>;

fn from_read_error(error: &ReadError, place: &Place<'_>, written: &Written) -> WalkError {
    let code = match error {
        ReadError::Closed | ReadError::Truncated | ReadError::Io(_) => FailureCode::Closed,
        ReadError::Frame(_) => FailureCode::NotARelayNode,
    };
    let message = match (error, written) {
        (ReadError::Closed, Ok(Err(write))) => format!("{write}"),
        (ReadError::Closed, _) => String::new(),
        (error, _) => error.to_string(),
    };
    place.error(code, &message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{read_message, write_message};
    use tokio::net::TcpListener;

    /// Where a walk through three hops ends when the connection is closed after so many `hello`s.
    async fn walk_that_breaks_after(hellos: usize) -> WalkError {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let first_hop = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _: Open = read_message(&mut stream).await.unwrap();
            for _ in 0..hellos {
                write_message(&mut stream, &Hello { agent: "node".into() }).await.unwrap();
            }
        });
        let route = format!("f\n{address}\nhop2:2\nhop3:3\n");
        let route = Route::parse(route.as_bytes()).unwrap();
        let plan = Walk {
            route: &route,
            id: ConnectionId::new(1),
            silence: Duration::from_secs(30),
            first_requests: &[],
            encryption: None,
            congestion: Congestion::SYSTEM,
        };
        let error = walk(&plan, |_| {}).await.unwrap_err();
        first_hop.await.unwrap();
        let PipeError::Walk(error) = error else { panic!("{error}") };
        error
    }

    #[tokio::test]
    async fn a_broken_chain_is_blamed_on_the_last_node_that_spoke() {
        // A relay tells when the hop behind it fails, so one that only closes is itself to blame.
        for (hellos, blamed) in [(0, 1), (1, 1), (2, 2)] {
            let error = walk_that_breaks_after(hellos).await;
            assert_eq!((error.position, error.code), (blamed, FailureCode::Closed), "{hellos}: {error}");
            assert_eq!(error.says, None);
        }
    }
}
