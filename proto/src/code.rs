//! The failure codes of the hop layer and the statuses of the file layer, each declared once, with its text.

use alloc::string::String;
use core::fmt;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! failure_codes {
    ($($(#[$doc:meta])* $name:ident = $wire:literal, $text:literal;)*) => {
        /// Why a node could not go on. On the wire it is a word; a word that this version does not know becomes
        /// [`FailureCode::Unknown`], so that newer nodes can be more precise.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum FailureCode { $($(#[$doc])* $name,)* }

        impl FailureCode {
            /// Every code, for tables and tests.
            pub const ALL: &'static [FailureCode] = &[$(FailureCode::$name,)*];

            /// The word on the wire and in logs.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(FailureCode::$name => $wire,)* }
            }

            /// What happened, for people.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(FailureCode::$name => $text,)* }
            }

            fn from_word(word: &str) -> FailureCode {
                match word { $($wire => FailureCode::$name,)* _ => FailureCode::Unknown }
            }
        }
    };
}

failure_codes! {
    /// The next hop's machine answered that nothing listens there.
    Refused = "refused", "connection refused";
    /// Name lookup, connect or `hello` took too long.
    TimedOut = "timed_out", "timed out";
    /// The next hop's name has no address.
    NameNotFound = "name_not_found", "name not found";
    /// No way to the next hop's network or machine.
    Unreachable = "unreachable", "network or host unreachable";
    /// The next hop answered, but not in this protocol.
    NotARelayNode = "not_a_relay_node", "not a relay node";
    /// The next hop closed the connection before its `hello`.
    Closed = "closed", "closed the connection";
    /// The node may not relay to this next hop.
    Denied = "denied", "relaying denied";
    /// The node relays there only for those whom its rules name.
    Unauthorized = "unauthorized", "not authorized";
    /// The route is longer than the node takes.
    TooManyHops = "too_many_hops", "too many hops";
    /// The node has as many connections as it takes.
    Busy = "busy", "too many connections at the moment";
    /// The node could not read the `open`.
    BadRequest = "bad_request", "could not read the request";
    /// The node is shutting down.
    Stopping = "stopping", "the node is shutting down";
    /// A failure of the node itself, such as no free descriptors.
    Internal = "internal", "a failure inside the node";
    /// A code that this version does not know.
    Unknown = "unknown", "failed for a reason that this version does not know";
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Serialize for FailureCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for FailureCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(FailureCode::from_word(&String::deserialize(deserializer)?))
    }
}

/// A status of the file layer: HTTP's numbers (RFC 9110, section 15), 100 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Status(u16);

impl Status {
    /// The whole file follows, or what was asked for.
    pub const OK: Status = Status(200);
    /// A range of the file follows.
    pub const PARTIAL: Status = Status(206);
    /// What the caller has is what the origin has.
    pub const NOT_MODIFIED: Status = Status(304);
    /// The origin could not read the request.
    pub const BAD_REQUEST: Status = Status(400);
    /// Nobody that the origin's rules know asked for this; a key might help.
    pub const UNAUTHORIZED: Status = Status(401);
    /// Nothing of that name is offered.
    pub const NOT_FOUND: Status = Status(404);
    /// The origin does not serve this client in this way.
    pub const FORBIDDEN: Status = Status(403);
    /// No request came in time.
    pub const REQUEST_TIMEOUT: Status = Status(408);
    /// The file is not the version that the caller named.
    pub const PRECONDITION_FAILED: Status = Status(412);
    /// The range lies outside the file.
    pub const RANGE_NOT_SATISFIABLE: Status = Status(416);
    /// The origin's disk or system failed.
    pub const INTERNAL: Status = Status(500);
    /// The origin has no room for the request at the moment.
    pub const UNAVAILABLE: Status = Status(503);

    /// The number.
    #[must_use]
    pub fn code(self) -> u16 {
        self.0
    }

    /// Whether what was asked for follows (200 and 206).
    #[must_use]
    pub fn is_success(self) -> bool {
        (200..300).contains(&self.0)
    }

    /// What the number says, for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self.0 {
            200 => "OK",
            206 => "partial content",
            304 => "not modified",
            400 => "bad request",
            401 => "not authorized",
            403 => "forbidden",
            404 => "not found",
            408 => "no request came in time",
            412 => "the file is another version",
            416 => "the range lies outside the file",
            500 => "a failure inside the origin",
            503 => "the origin is overloaded",
            _ => "a status that this version does not know",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.text())
    }
}

impl TryFrom<u16> for Status {
    type Error = &'static str;

    fn try_from(code: u16) -> Result<Self, Self::Error> {
        if (100..600).contains(&code) {
            Ok(Status(code))
        } else {
            Err("a status is a number from 100 to 599")
        }
    }
}

impl From<Status> for u16 {
    fn from(status: Status) -> u16 {
        status.0
    }
}
