//! The hop layer: how a chain of connections is built, one hop after the other.

use crate::address::Hop;
use crate::code::FailureCode;
use crate::frame::{FrameType, Message};
use crate::limits::{MAX_AGENT, MAX_HOPS, MAX_MESSAGE, MAX_SILENCE, MIN_SILENCE};
use crate::text::clean;
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use serde::{Deserialize, Deserializer, Serialize};

/// Towards the origin: the first frame of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The hops still to go. None: the node that reads this is the origin.
    #[serde(deserialize_with = "hops")]
    pub hops: Vec<Hop>,
    /// The connection's id, the same on every node of the chain.
    pub id: ConnectionId,
    /// What the client will wait for.
    pub limits: ClientLimits,
}

impl Message for Open {
    const TYPE: FrameType = FrameType::Open;
}

fn hops<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Hop>, D::Error> {
    let hops = Vec::<Hop>::deserialize(deserializer)?;
    if hops.len() > MAX_HOPS {
        return Err(serde::de::Error::custom("too many hops"));
    }
    Ok(hops)
}

/// What the client will wait for; relays hand it on unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientLimits {
    /// The client gives up after so many milliseconds without a byte.
    silence_ms: u64,
}

impl ClientLimits {
    /// Limits for a client that gives up after `silence` without a byte, kept between [`MIN_SILENCE`] and [`MAX_SILENCE`].
    #[must_use]
    pub fn new(silence: Duration) -> ClientLimits {
        let silence = silence.clamp(MIN_SILENCE, MAX_SILENCE);
        ClientLimits { silence_ms: u64::try_from(silence.as_millis()).unwrap_or(u64::MAX) }
    }

    /// How long the client waits without a byte, kept between [`MIN_SILENCE`] and [`MAX_SILENCE`] whatever the wire said.
    #[must_use]
    pub fn silence(self) -> Duration {
        Duration::from_millis(self.silence_ms).clamp(MIN_SILENCE, MAX_SILENCE)
    }
}

/// Names one connection on every node of its chain: 16 lower-case hex digits, chosen at random by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// The id of 64 random bits.
    #[must_use]
    pub fn new(bits: u64) -> ConnectionId {
        ConnectionId(bits)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<ConnectionId> for String {
    fn from(id: ConnectionId) -> String {
        alloc::format!("{id}")
    }
}

impl TryFrom<String> for ConnectionId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 16 || !text.bytes().all(digits) {
            return Err("an id is 16 lower-case hex digits");
        }
        u64::from_str_radix(&text, 16).map(ConnectionId).map_err(|_| "an id is 16 lower-case hex digits")
    }
}

/// Towards the client: "I am a relay node and I took your open", sent before dialling on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The program and its version, such as `relay-node/0.1.0`; cleaned and at most [`MAX_AGENT`] bytes when it was read.
    #[serde(deserialize_with = "agent")]
    pub agent: String,
}

impl Message for Hello {
    const TYPE: FrameType = FrameType::Hello;
}

fn agent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(clean(&String::deserialize(deserializer)?, MAX_AGENT))
}

/// Towards the client: a node could not go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Why, for programs.
    pub code: FailureCode,
    /// The next hop that could not be reached. None: the node that sent this refused the connection itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Hop>,
    /// Why, for people; cleaned and at most [`MAX_MESSAGE`] bytes when it was read. May be empty.
    #[serde(default, deserialize_with = "message")]
    pub message: String,
}

impl Failed {
    /// A failure with its message, which is cleaned and cut to its limit.
    #[must_use]
    pub fn new(code: FailureCode, next: Option<Hop>, message: &str) -> Failed {
        Failed { code, next, message: clean(message, MAX_MESSAGE) }
    }
}

impl Message for Failed {
    const TYPE: FrameType = FrameType::Failed;
}

fn message<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(clean(&String::deserialize(deserializer)?, MAX_MESSAGE))
}

/// This program's name for a `hello`: `name/version`.
#[must_use]
pub fn agent_name(program: &str, version: &str) -> String {
    let mut agent = program.to_owned();
    agent.push('/');
    agent.push_str(version);
    agent
}
