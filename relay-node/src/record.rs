//! What one connection of the relay face did, as one line of the access log.

use crate::origin::OriginRecord;
use relay_link::pump::Passed;
use relay_proto::code::{FailureCode, Status};
use relay_proto::hop::ConnectionId;
use relay_proto::text::clean;
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

/// The longest text from afar in a log line, in bytes.
const MAX_LOGGED: usize = 512;
/// The longest name from afar in a log line, in bytes.
const MAX_LOGGED_NAME: usize = 256;

/// A name from afar, as it stands in log lines.
#[must_use]
pub fn logged_name(name: &str) -> String {
    clean(name, MAX_LOGGED_NAME)
}

/// What a node was to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Not known yet: no `open` came.
    Unknown,
    /// It passed the connection on.
    Relay,
    /// It served the files.
    Origin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Unknown => "-",
            Role::Relay => "relay",
            Role::Origin => "origin",
        })
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// In order.
    Done,
    /// Nothing moved for the idle limit.
    Idle,
    /// As the origin, in order; this was the last answer's status.
    Answered(Status),
    /// With a `failed`.
    Failed(FailureCode),
    /// By an error of a connection, or of this node.
    Broken(String),
    /// Cut because the node ended before it was done.
    Stopped,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done => f.write_str("done"),
            Outcome::Idle => f.write_str("idle"),
            Outcome::Answered(status) => write!(f, "{}", status.code()),
            Outcome::Failed(code) => f.write_str(code.as_str()),
            Outcome::Broken(_) => f.write_str("broken"),
            Outcome::Stopped => f.write_str("stopped"),
        }
    }
}

/// Whose fault it was that a connection did not do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nobody's.
    None,
    /// The client's side: the previous hop or what it asked for.
    Client,
    /// This node's.
    Node,
    /// The next hop's, or that of the way there.
    NextHop,
}

impl Fault {
    /// Whose fault a failure of this node's `open` is.
    #[must_use]
    pub fn of(code: FailureCode) -> Fault {
        match code {
            FailureCode::Denied | FailureCode::TooManyHops | FailureCode::BadRequest => Fault::Client,
            FailureCode::Busy | FailureCode::Stopping | FailureCode::Internal => Fault::Node,
            _ => Fault::NextHop,
        }
    }

    /// Whose fault an answer of the origin is.
    #[must_use]
    pub fn of_status(status: Status) -> Fault {
        match status.code() {
            400..500 => Fault::Client,
            500.. => Fault::Node,
            _ => Fault::None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::None => "none",
            Fault::Client => "client",
            Fault::Node => "node",
            Fault::NextHop => "next-hop",
        })
    }
}

/// One connection, from accept to close.
#[derive(Debug)]
pub struct Record {
    /// The same on every node of the chain; none until an `open` was read.
    pub id: Option<ConnectionId>,
    /// The previous hop's address.
    pub peer: SocketAddr,
    /// What this node was to it.
    pub role: Role,
    /// The next hop, as a relay.
    pub target: String,
    /// What passed through, as a relay.
    pub passed: Passed,
    /// What was served, as the origin.
    pub served: OriginRecord,
    /// How it ended.
    pub outcome: Outcome,
    /// Whose fault that was.
    pub fault: Fault,
    /// More about the outcome, for people; empty when there is no more.
    pub note: String,
    started: Instant,
}

impl Record {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(peer: SocketAddr) -> Record {
        Record {
            id: None,
            peer,
            role: Role::Unknown,
            target: String::new(),
            passed: Passed::default(),
            served: OriginRecord::default(),
            outcome: Outcome::Stopped,
            fault: Fault::None,
            note: String::new(),
            started: Instant::now(),
        }
    }

    /// Says how it ended.
    pub fn end(&mut self, outcome: Outcome, fault: Fault) {
        self.outcome = outcome;
        self.fault = fault;
    }
}

impl Drop for Record {
    /// Writes the line, whatever path the connection's end took.
    fn drop(&mut self) {
        let id = self.id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let target = logged_name(self.served.name.as_deref().unwrap_or(&self.target));
        // What comes from afar is quoted, so that it cannot pass for a field of its own.
        let note = match &self.outcome {
            Outcome::Broken(why) => clean(why, MAX_LOGGED),
            _ => clean(&self.note, MAX_LOGGED),
        };
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            target: "access",
            %id,
            peer = %self.peer,
            role = %self.role,
            target,
            up = self.passed.up(),
            down = self.passed.down() + self.served.sent,
            ms,
            outcome = %self.outcome,
            fault = %self.fault,
            note,
        );
    }
}
