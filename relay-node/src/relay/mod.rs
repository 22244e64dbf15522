//! One relayed connection: hello, dial, hand on the `open`, wait for the next `hello`, and then be blind.

use crate::record::{Fault, Outcome, Record};
use relay_chain::frames::{Frame, ReadError, read_frame, write_message};
use relay_link::closing::close_gently;
use relay_link::congestion::Congestion;
use relay_link::dial::{DialError, dial};
use relay_link::link::Link;
use relay_link::pump::{PumpEnd, pump};
use relay_link::resolve::Names;
use relay_proto::address::Hop;
use relay_proto::code::FailureCode;
use relay_proto::frame::FrameType;
use relay_proto::hop::{Failed, Hello, Open};
use relay_proto::limits::relay_budget;
use relay_trust::access::Caller;
use relay_trust::next_hop::{Lookup, NextHopPolicy};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What a node's operator decided about relaying.
#[derive(Debug, Clone)]
pub struct RelayLimits {
    /// The most that name lookup, connect and the next hop's `hello` may take together; a client's shorter limit shortens it.
    pub dial: Duration,
    /// How long a blind relay waits while nothing moves.
    pub idle: Duration,
    /// What the connection to the next hop gets.
    pub congestion: Congestion,
}

/// Who says where this caller may be relayed to.
#[derive(Debug)]
pub enum Allowed<'a> {
    /// The node's own rules, the same for everybody.
    Everybody(&'a NextHopPolicy),
    /// The access rules, for whoever asks.
    Caller(Caller<'a>),
}

impl Allowed<'_> {
    fn lookup(&self, hop: &Hop) -> Lookup {
        match self {
            Allowed::Everybody(policy) => policy.lookup(hop),
            Allowed::Caller(caller) => caller.lookup(hop),
        }
    }

    fn allows(&self, hop: &Hop, address: SocketAddr) -> bool {
        match self {
            Allowed::Everybody(policy) => policy.allows(hop, address),
            Allowed::Caller(caller) => caller.may_relay(hop, address),
        }
    }

    /// What a caller is told for what he may not; by access rules the same whether or not there is such a place.
    fn denial(&self, hop: &Hop, address: Option<SocketAddr>) -> Failed {
        match (self, address) {
            (Allowed::Everybody(_), None) => denied(hop),
            (Allowed::Everybody(_), Some(address)) => denied_address(hop, address),
            (Allowed::Caller(_), _) => {
                let message = "this node relays there, if at all, for those whom its access rules name";
                Failed::new(FailureCode::Unauthorized, Some(hop.clone()), message)
            }
        }
    }
}

/// Relays a connection whose `open` was read and answered by `hello`, to the first of the hops that are left.
pub async fn relay(
    previous: &mut Link,
    open: Open,
    allowed: &Allowed<'_>,
    limits: &RelayLimits,
    record: &mut Record,
) {
    let Open { mut hops, id, limits: client } = open;
    let next_hop = hops.remove(0);
    record.target = next_hop.to_string();
    let deadline = Instant::now() + limits.dial.min(relay_budget(client.silence()));
    let onward = Open { hops, id, limits: client };
    let (mut next, answer) =
        match reach(&next_hop, &onward, allowed, record.peer.ip(), deadline, limits.congestion).await {
            Ok(reached) => reached,
            Err(failed) => {
                record.outcome = Outcome::Failed(failed.code);
                record.fault = Fault::of(failed.code);
                record.note = failed.message.clone();
                return refuse(previous, &failed).await;
            }
        };
    match answer {
        Answer::Failed(failed) => {
            record.outcome = Outcome::Failed(failed.code);
            record.fault = Fault::NextHop;
            record.note = failed.message.clone();
            refuse(previous, &failed).await;
        }
        Answer::Hello(hello) => {
            if let Err(error) = write_message(previous, &hello).await {
                return record.end(Outcome::Broken(error.to_string()), Fault::Client);
            }
            be_blind(previous, &mut next, limits.idle, record).await;
        }
    }
}

/// Tells the client why it ends here, and closes so that the message arrives.
pub async fn refuse(previous: &mut Link, failed: &Failed) {
    // A client that does not listen to its refusal loses nothing else.
    if write_message(previous, failed).await.is_ok() {
        close_gently(previous).await;
    }
}

/// The next hop's one answer to an `open`.
enum Answer {
    Hello(Hello),
    Failed(Failed),
}

/// Dials the next hop and hands it the `open`, and nothing else before its answer is there.
async fn reach(
    hop: &Hop,
    open: &Open,
    allowed: &Allowed<'_>,
    peer: IpAddr,
    deadline: Instant,
    congestion: Congestion,
) -> Result<(Link, Answer), Failed> {
    let names = match allowed.lookup(hop) {
        Lookup::Denied => return Err(allowed.denial(hop, None)),
        Lookup::Known => Names::Known,
        Lookup::Anywhere => Names::Of(peer),
    };
    let dialled = dial(hop, deadline, congestion, names, |address| allowed.allows(hop, address)).await;
    let mut link = dialled.map_err(|error| not_dialled(hop, &error, allowed))?;
    let answer = timeout_at(deadline, async {
        write_message(&mut link, open).await?;
        read_frame(&mut link).await.and_then(|frame| Answer::of(&frame))
    });
    match answer.await {
        Ok(Ok(answer)) => Ok((link, answer)),
        Ok(Err(error)) => Err(no_answer(hop, &error)),
        Err(_) => {
            let message = "it took the connection and said nothing";
            Err(Failed::new(FailureCode::TimedOut, Some(hop.clone()), message))
        }
    }
}

impl Answer {
    fn of(frame: &Frame) -> Result<Answer, ReadError> {
        if frame.frame_type != FrameType::Failed {
            return frame.decode().map(Answer::Hello);
        }
        let failed: Failed = frame.decode()?;
        // A node that fails instead of its hello has not dialled on, so it has no next hop to speak of; a name here would
        // make the client blame the wrong node.
        Ok(Answer::Failed(Failed { next: None, ..failed }))
    }
}

fn denied(hop: &Hop) -> Failed {
    let message =
        format!("this node does not relay there; its operator would allow it with --allow-next {hop}");
    Failed::new(FailureCode::Denied, Some(hop.clone()), &message)
}

/// Its name could match, but not what it leads to.
fn denied_address(hop: &Hop, address: SocketAddr) -> Failed {
    if hop.host.ip().is_some() {
        return denied(hop);
    }
    // Where the name leads is for the node's log: a client could look up with it what only the node's network knows.
    tracing::info!(%hop, %address, "not relayed: no --allow-next allows this address");
    let message = "this node does not relay to where that name leads; its operator would allow it with --allow-next and the \
                   address, which is in the node's log";
    Failed::new(FailureCode::Denied, Some(hop.clone()), message)
}

fn not_dialled(hop: &Hop, error: &DialError, allowed: &Allowed<'_>) -> Failed {
    match error {
        DialError::Denied(address) => allowed.denial(hop, Some(*address)),
        DialError::NotLookedUp => denied(hop),
        // The code says it all.
        DialError::Connect(_, error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Failed::new(FailureCode::Refused, Some(hop.clone()), "")
        }
        error => Failed::new(error.code(), Some(hop.clone()), &error.to_string()),
    }
}

fn no_answer(hop: &Hop, error: &ReadError) -> Failed {
    let (code, message) = match error {
        ReadError::Closed => (FailureCode::Closed, String::new()),
        ReadError::Truncated | ReadError::Io(_) => (FailureCode::Closed, error.to_string()),
        ReadError::Frame(_) => (FailureCode::NotARelayNode, error.to_string()),
    };
    Failed::new(code, Some(hop.clone()), &message)
}

async fn be_blind(previous: &mut Link, next: &mut Link, idle: Duration, record: &mut Record) {
    match pump(previous, next, idle, &record.passed).await {
        PumpEnd::Done => return record.end(Outcome::Done, Fault::None),
        PumpEnd::Idle => record.end(Outcome::Idle, Fault::None),
        PumpEnd::PreviousFailed(error) => record.end(Outcome::Broken(error.to_string()), Fault::Client),
        PumpEnd::NextFailed(error) => record.end(Outcome::Broken(error.to_string()), Fault::NextHop),
    }
    // What ended in disorder here must not look like an orderly end on the other side.
    for link in [previous, next] {
        link.fail();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_chain::frames::read_message;
    use relay_link::congestion::algorithm_of;
    use tokio::net::TcpListener;

    /// What a relay reaches that may go to loopback, when `next` is what the next hop does with its connection.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_connection_to_the_next_hop_has_the_congestion_control_that_was_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hop: Hop = listener.local_addr().unwrap().to_string().parse().unwrap();
        let next = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let open: Open = read_message(&mut stream).await.unwrap();
            write_message(&mut stream, &Hello { agent: "next".into() }).await.unwrap();
            (stream, open)
        });
        let reno = Congestion::of(Some("reno".parse().unwrap())).unwrap();
        let open = Open {
            hops: Vec::new(),
            id: relay_proto::hop::ConnectionId::new(1),
            limits: relay_proto::hop::ClientLimits::new(Duration::from_secs(30)),
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        let (link, answer) = reach(
            &hop,
            &open,
            &Allowed::Everybody(&NextHopPolicy::new(Vec::new())),
            hop.host.ip().unwrap(),
            deadline,
            reno,
        )
        .await
        .unwrap();
        assert!(matches!(answer, Answer::Hello(_)));
        assert_eq!(algorithm_of(&socket2::SockRef::from(link.socket())), reno.algorithm());
        assert_eq!(next.await.unwrap().1, open);
    }
}
