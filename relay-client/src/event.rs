//! What happens in a run, for people (as sentences, see [`crate::progress`]) and for programs (as JSON, one event a
//! line). Every text from afar in it is already cleaned.

use crate::failure::Failure;
use crate::show;
use relay_chain::chain::Step;
use relay_proto::hop::ConnectionId;
use relay_proto::route::Route;
use relay_trust::key::PublicKey;
use relay_trust::known::Standing;
use serde::Serialize;
use std::time::Duration;

/// How far a chain is built.
pub enum Begun {
    /// The first hop is being dialled, under this id.
    Dialling(ConnectionId),
    /// A step further.
    Step(Step),
    /// The origin's key is believed, for this reason. Told once a run and route.
    Encrypted {
        /// The key.
        key: PublicKey,
        /// Why it is believed.
        standing: Standing,
    },
}

/// What a route has brought so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteShare {
    /// Which one, from 1.
    pub route: usize,
    /// Bytes that it brought in this run.
    pub bytes: u64,
    /// How many connections it has now.
    pub connections: usize,
}

/// What one of several routes brought in all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteEnd {
    /// Which one, from 1.
    pub route: usize,
    /// Bytes that it brought.
    pub bytes: u64,
    /// What went wrong on it last, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The hop that this is about, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
}

/// Something that happened. Its JSON has the field `event` with the name in snake case.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A chain is being built.
    Dialling {
        /// Which of several routes, from 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        route: Option<usize>,
        /// The connection's id, the same in every node's log.
        id: String,
        /// How many hops the route has.
        hops: usize,
        /// The first hop.
        hop: String,
    },
    /// The first hop is connected.
    Connected {
        /// Which of several routes, from 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        route: Option<usize>,
        /// The first hop.
        hop: String,
        /// The address that was reached.
        address: String,
        /// Milliseconds since the dialling began.
        ms: f64,
    },
    /// A hop said hello.
    Hello {
        /// Which of several routes, from 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        route: Option<usize>,
        /// Which hop, from 1.
        position: usize,
        /// That hop.
        hop: String,
        /// Its program and version, as it says.
        agent: String,
        /// Milliseconds since the dialling began.
        ms: f64,
        /// The hop that is awaited next, if any.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    },
    /// The origin proved its key, and all that follows is encrypted; once a run and route.
    Encrypted {
        /// Which of several routes, from 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        route: Option<usize>,
        /// The origin.
        hop: String,
        /// Its key.
        key: String,
        /// Why it is believed: `pinned`, `known`, `follows` another known one, or `first_contact`.
        trust: &'static str,
        /// The day since which it is known, or follows.
        #[serde(skip_serializing_if = "Option::is_none")]
        since: Option<String>,
        /// The same for people.
        #[serde(skip)]
        text: String,
    },
    /// The origin offers the file, and its chunks follow.
    File {
        /// Its name at the origin.
        name: String,
        /// Bytes.
        size: u64,
        /// Bytes that are here already.
        have: u64,
    },
    /// So far.
    Progress {
        /// Bytes that are here.
        bytes: u64,
        /// Bytes of the file.
        size: u64,
        /// Bytes a second since the transfer began.
        rate: u64,
        /// Each route's part in it, where there are several routes or connections.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        routes: Vec<RouteShare>,
    },
    /// One of several routes failed, and the others go on.
    RouteLost {
        /// Which one, from 1.
        route: usize,
        /// Why, for people.
        reason: String,
        /// The kind of failure, as in the table of exit codes.
        kind: &'static str,
        /// The hop that it is about, from 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        position: Option<usize>,
        /// It is tried again after so many seconds; none: not any more.
        #[serde(skip_serializing_if = "Option::is_none")]
        pause: Option<f64>,
    },
    /// A local file is being hashed, to see what of it can stay.
    Checking {
        /// Which.
        path: String,
        /// Bytes that are looked at.
        size: u64,
    },
    /// The attempt failed, and another one follows.
    Retry {
        /// Why it failed, for people.
        reason: String,
        /// The kind of failure, as in the table of exit codes.
        kind: &'static str,
        /// Which further attempt it is since the last new chunk, from 1.
        number: u32,
        /// How many there may be.
        of: u32,
        /// It begins after so many seconds.
        pause: f64,
    },
    /// Something worth a line.
    Note {
        /// What.
        message: String,
    },
    /// The local copy is the same; nothing was transferred.
    Same {
        /// The local copy.
        path: String,
        /// Bytes.
        size: u64,
        /// What was compared: `size and time`, or `hash`.
        by: &'static str,
        /// The file's hash, where it was computed.
        #[serde(skip_serializing_if = "Option::is_none")]
        hash: Option<String>,
    },
    /// The file is there, whole and verified.
    Done {
        /// Where; none: standard output.
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<String>,
        /// Bytes of the file.
        size: u64,
        /// Bytes that were fetched for it in this run.
        fetched: u64,
        /// It took the place of an older file.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        replaced: bool,
        /// From the start of the run.
        seconds: f64,
        /// The file's BLAKE3 hash, `b3:` and 64 hex digits.
        hash: String,
        /// What each of several routes brought.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        routes: Vec<RouteEnd>,
    },
    /// A directory is fetched.
    Tree {
        /// What was asked for, as it is called at the origin.
        name: String,
        /// Where it goes.
        path: String,
    },
    /// All of the directory is listed.
    Listed {
        /// Files that are wanted.
        files: u64,
        /// Their bytes.
        size: u64,
    },
    /// So far, of a directory.
    TreeProgress {
        /// Files that are done with: fetched, the same as here, or failed.
        files: u64,
        /// Files that are wanted, as far as they are listed.
        of: u64,
        /// Bytes of these files that are done with.
        bytes: u64,
        /// Bytes that are wanted, as far as they are listed.
        size: u64,
        /// Bytes a second that were fetched since the run began.
        rate: u64,
    },
    /// A file of a directory is there, whole and verified.
    FileDone {
        /// Its path beneath the directory.
        path: String,
        /// Bytes.
        size: u64,
        /// Its BLAKE3 hash, `b3:` and 64 hex digits.
        hash: String,
        /// It took the place of an older file.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        replaced: bool,
    },
    /// A file of a directory was here already.
    FileSame {
        /// Its path beneath the directory.
        path: String,
        /// Bytes.
        size: u64,
        /// What was compared: `size and time`, or `hash`.
        by: &'static str,
    },
    /// A file or a directory in a directory could not be had; the others go on.
    FileFailed {
        /// Its path beneath the directory, or its name as listed when that is no path.
        path: String,
        /// The kind of failure, as in the table of exit codes.
        kind: &'static str,
        /// What happened, for people.
        message: String,
    },
    /// The run over a directory has ended, whole or not.
    TreeDone {
        /// Where it is.
        path: String,
        /// All that the origin has and that was wanted, as far as it was listed: the sum of the counts that follow, but for `replaced`.
        files: u64,
        /// Files that were fetched in this run.
        fetched: u64,
        /// How many of them took the place of older ones.
        replaced: u64,
        /// Files that were here already.
        same: u64,
        /// Files and directories that could not be had.
        failed: u64,
        /// Names that the origin cannot offer: not UTF-8, or too long.
        unnameable: u64,
        /// Directories that the origin cannot read.
        unreadable: u64,
        /// Links that lead nowhere, or out of what is offered, or to a directory.
        links: u64,
        /// Files that were not got to, because the run ended before.
        left: u64,
        /// Bytes that were fetched.
        bytes: u64,
        /// From the start of the run.
        seconds: f64,
    },
    /// The run failed.
    Failed {
        /// The kind, as in the table of exit codes.
        kind: &'static str,
        /// The exit code.
        exit: u8,
        /// What happened, for people.
        message: String,
        /// The hop that it is about, from 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        position: Option<usize>,
    },
}

impl Event {
    /// A step of a walk through `route`. `label`: which of several routes, from 1.
    #[must_use]
    pub fn step(label: Option<usize>, begun: Begun, route: &Route) -> Event {
        let ms = |after: Duration| (after.as_secs_f64() * 1e6).round() / 1e3;
        let hop = |position| route.hop(position).to_string();
        match begun {
            Begun::Dialling(id) => {
                Event::Dialling { route: label, id: id.to_string(), hops: route.hops().len(), hop: hop(1) }
            }
            Begun::Step(Step::Connected { address, after }) => {
                Event::Connected { route: label, hop: hop(1), address: address.to_string(), ms: ms(after) }
            }
            Begun::Encrypted { key, standing } => {
                let (trust, since) = match standing {
                    Standing::Pinned => ("pinned", None),
                    Standing::Known { since } => ("known", Some(since)),
                    Standing::Follows { since, .. } => ("follows", Some(since)),
                    Standing::FirstContact => ("first_contact", None),
                };
                let (since, text) = (since.map(|day| day.to_string()), show::encrypted(&key, standing));
                Event::Encrypted {
                    route: label,
                    hop: hop(route.hops().len()),
                    key: key.to_string(),
                    trust,
                    since,
                    text,
                }
            }
            Begun::Step(Step::Hello { position, agent, after }) => Event::Hello {
                route: label,
                position,
                hop: hop(position),
                agent,
                ms: ms(after),
                next: (position < route.hops().len()).then(|| hop(position + 1)),
            },
        }
    }

    /// How a run failed.
    #[must_use]
    pub fn failed(failure: &Failure) -> Event {
        Event::Failed {
            kind: failure.exit().word(),
            exit: failure.exit().code(),
            message: failure.to_string(),
            position: failure.position(),
        }
    }
}
