//! The client's walk through a route: one `open`, one `hello` a hop, and when it ends early, who says why.

use crate::frames::{Frame, ReadError, encode, read_frame};
use relay_link::congestion::Congestion;
use relay_link::dial::{DialError, dial};
use relay_link::link::Link;
use relay_link::resolve::Names;
use relay_proto::address::Hop;
use relay_proto::code::FailureCode;
use relay_proto::frame::FrameType;
use relay_proto::hop::{ClientLimits, ConnectionId, Failed, Hello, Open};
use relay_proto::route::Route;
use relay_proto::text::clean;
use std::fmt;
use std::io;
use std::net::SocketAddr;
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
    /// The frames of the first requests. They go out right behind the `open`, so that the answer needs no further round trip.
    pub first_requests: &'a [u8],
    /// What the connection to the first hop gets.
    pub congestion: Congestion,
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

/// A pipe to the origin: every hop has said `hello`.
#[derive(Debug)]
pub struct Pipe {
    /// The link to the first hop. What comes now is the file layer's.
    pub link: Link,
    /// From the begin of the walk to the origin's `hello`.
    pub after: Duration,
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

/// Walks the route: dials its first hop, hands it the rest, and waits for every hop's `hello`.
///
/// # Errors
/// Where the walk ended and why; see [`WalkError`].
pub async fn walk(walk: &Walk<'_>, mut on_step: impl FnMut(Step)) -> Result<Pipe, WalkError> {
    let start = Instant::now();
    let at = |position| Place { position, hop: walk.route.hop(position) };
    let deadline = start + walk.silence;
    let dialled = dial(walk.route.hop(1), deadline, walk.congestion, Names::Own, |_| true).await;
    let mut link = dialled.map_err(|e| not_dialled(&at(1), &e))?;
    on_step(Step::Connected { address: link.peer(), after: start.elapsed() });

    let open = Open {
        hops: walk.route.hops().iter().skip(1).cloned().collect(),
        id: walk.id,
        limits: ClientLimits::new(walk.silence),
    };
    let mut bytes = encode(&open).map_err(|e| at(1).error(FailureCode::Internal, &e.to_string()))?;
    bytes.extend_from_slice(walk.first_requests);
    // A peer that answered and closed before it read everything is still worth listening to.
    let written = timeout(walk.silence, link.write_all(&bytes)).await;

    for position in 1..=walk.route.hops().len() {
        let Ok(frame) = timeout(walk.silence, read_frame(&mut link)).await else {
            return Err(silent(&at(position), walk.silence));
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
                return Err(at(position - 1).error(FailureCode::Closed, &message));
            }
            Err(error) => return Err(from_read_error(&error, &at(position), &written)),
        }
    }
    Ok(Pipe { link, after: start.elapsed() })
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
            congestion: Congestion::SYSTEM,
        };
        let error = walk(&plan, |_| {}).await.unwrap_err();
        first_hop.await.unwrap();
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
