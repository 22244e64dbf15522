//! Every way a run can fail: what happened, where, and what to do; with the exit code of each.

use crate::exit::Exit;
use crate::left_out::LeftOut;
use crate::show;
use relay_chain::chain::WalkError;
use relay_chain::requests::AnswerError;
use relay_proto::address::Hop;
use relay_proto::code::{FailureCode, Status};
use relay_proto::digest::FileHash;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Arguments that cannot be followed.
    #[error("{0}")]
    Usage(String),
    /// A bad route, already rendered with its place.
    #[error("{0}")]
    Route(String),
    /// The chain did not come to stand.
    #[error("{0}{hint}", hint = hint(.0))]
    Walk(WalkError),
    /// Whoever is at the end of the chain is not who was expected there.
    #[error("hop {position} ({origin}): {what}; nothing was asked of it")]
    Key {
        /// The origin's place in the route, from 1.
        position: usize,
        /// The origin.
        origin: Hop,
        /// What it showed, what was expected, and what to do.
        what: String,
    },
    /// The chain stood, and then broke or went silent.
    #[error("{error}, after {received} of data{aftermath}", received = show::bytes(*.received), aftermath = sentence(.aftermath))]
    Broken {
        /// What this side saw.
        error: AnswerError,
        /// Bytes that had come on this chain.
        received: u64,
        /// What another walk through the route found, when there was one.
        aftermath: Option<String>,
    },
    /// The origin answered, but not with the file.
    #[error("{name}: {status}, says hop {position} ({origin}){said}{hint}", said = said(.message), hint = name_hint(*.status, .name))]
    Refused {
        /// What was asked for.
        name: String,
        /// The answer.
        status: Status,
        /// What the origin says.
        message: String,
        /// The origin's place in the route, from 1.
        position: usize,
        /// The origin.
        origin: Hop,
    },
    /// What was asked for as a directory is a file.
    #[error("{0} is a file at the origin; ask for it without --recursive and without a / at its end")]
    NoDirectory(String),
    /// A chunk's bytes do not have the hash that came with them.
    #[error("chunk {index} (from byte {from}) arrived damaged; nothing of it was kept", from = index * relay_proto::chunk::CHUNK_LEN)]
    Damaged {
        /// The chunk's number, from 0.
        index: u64,
    },
    /// Another origin does not have the version that is fetched.
    #[error("{origin} has a different version of the file{place}", place = chunk_place(.chunk))]
    OtherVersion {
        /// That origin.
        origin: String,
        /// The first chunk that differs, from 0; none when the size does.
        chunk: Option<u64>,
    },
    /// No route of several is left.
    #[error("no route is left{}", routes(.failed))]
    NoRoute {
        /// Those that failed, and why.
        failed: Vec<RouteFailure>,
        /// There is one that was not tried since.
        is_left: bool,
    },
    /// The file is verified, but it is another one than was expected.
    #[error("the file's hash is {got}, but {expected} was expected; it did not get its final name{hint}", hint = afresh(.part))]
    NotExpected {
        /// What was asked for.
        expected: FileHash,
        /// What came.
        got: FileHash,
        /// Where it is, when it is in a file.
        part: Option<PathBuf>,
    },
    /// The origin has another version than the one whose first bytes went out.
    #[error("the file changed at the origin, and what was written to the output cannot be taken back")]
    ChangedMidway,
    /// This machine's files.
    #[error("cannot {doing} {path}: {error}{hint}", path = show::path(.path), hint = local_hint(.error))]
    Local {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Another client writes to the same target.
    #[error("another client is writing {}; wait for it, or save elsewhere with -o", show::path(.0))]
    InUse(PathBuf),
    /// Some of a directory could not be had.
    #[error("{failed} of {of} could not be fetched{left_out}; the same command tries only these again")]
    Incomplete {
        /// Files and directories that could not be had.
        failed: u64,
        /// All that was wanted.
        of: u64,
        /// What the origin does not give.
        left_out: LeftOut,
    },
    /// Some of what the origin has is not in a listing.
    #[error("the listing is not whole{0}")]
    Unlisted(LeftOut),
    /// `--deadline` passed.
    #[error("the deadline of {} passed{}", show::seconds(*.limit), last_try(.last))]
    Deadline {
        /// The limit.
        limit: Duration,
        /// What went wrong before, when something did.
        last: Option<Box<Failure>>,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// Why one of several routes is of no use.
#[derive(Debug)]
pub struct RouteFailure {
    /// Which one, from 1.
    pub route: usize,
    /// Why.
    pub failure: Failure,
    /// It is not tried again in this run.
    pub is_gone: bool,
}

fn chunk_place(chunk: &Option<u64>) -> String {
    match chunk {
        Some(index) => format!(" (it differs in chunk {index})"),
        None => " (its size differs)".to_owned(),
    }
}

fn routes(routes: &[RouteFailure]) -> String {
    let one = |RouteFailure { route, failure, .. }: &RouteFailure| format!("\n  route {route}: {failure}");
    routes.iter().map(one).collect()
}

fn sentence(text: &Option<String>) -> String {
    text.as_ref().map(|text| format!("; {text}")).unwrap_or_default()
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

fn last_try(last: &Option<Box<Failure>>) -> String {
    last.as_ref().map(|failure| format!("; the last try ended with: {failure}")).unwrap_or_default()
}

/// What to do about a chain that does not stand, where this side knows better than the node.
fn hint(error: &WalkError) -> &'static str {
    match (error.code, error.says.is_some()) {
        (FailureCode::NotARelayNode, _) => " (is the port right?)",
        (FailureCode::Refused, _) => " (is a relay-node running there, on this port?)",
        _ => "",
    }
}

/// An origin does not tell what else stands under a name that it does not offer; mostly it is a directory, or a slip.
fn name_hint(status: Status, name: &str) -> &'static str {
    match status {
        Status::NOT_FOUND if name.ends_with('/') => " (`relay-client list` shows what there is)",
        Status::NOT_FOUND => {
            " (`relay-client list` shows what there is; a directory is fetched with a / behind its name)"
        }
        _ => "",
    }
}

fn afresh(part: &Option<PathBuf>) -> String {
    let path = part.as_ref().map(|part| show::path(part));
    path.map(|path| format!("; delete {path} to start afresh")).unwrap_or_default()
}

fn local_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room or save elsewhere with -o",
        io::ErrorKind::FileTooLarge => "; a limit on file sizes holds here (ulimit -f, or the file system's)",
        io::ErrorKind::BrokenPipe => "; whoever read it has gone",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "; save elsewhere with -o",
        _ => "",
    }
}

/// The same error once more, for errors of the system cannot be cloned.
#[must_use]
pub fn copy_of(error: &io::Error) -> io::Error {
    error
        .raw_os_error()
        .map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}

impl Failure {
    /// A failure of this machine's files.
    pub fn local(doing: &'static str, path: &Path, error: io::Error) -> Failure {
        Failure::Local { doing, path: path.to_owned(), error }
    }

    /// This end of a run, with what went wrong before it.
    #[must_use]
    pub fn after(self, last: Failure) -> Failure {
        match self {
            Failure::Deadline { limit, .. } => Failure::Deadline { limit, last: Some(Box::new(last)) },
            other => other,
        }
    }

    /// This failure of the last routes, together with how others failed before.
    #[must_use]
    pub fn and_before(self, earlier: Vec<RouteFailure>) -> Failure {
        let Failure::NoRoute { mut failed, is_left } = self else { return self };
        let is_told = |failed: &[RouteFailure], route| failed.iter().any(|other| other.route == route);
        for lost in earlier.into_iter().rev() {
            if !is_told(&failed, lost.route) {
                failed.push(lost);
            }
        }
        failed.sort_by_key(|lost| lost.route);
        Failure::NoRoute { failed, is_left }
    }

    /// The exit code. When no route is left: that of the last one that was still tried.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Failure::Usage(_) | Failure::Route(_) => Exit::Usage,
            Failure::Walk(error) => match error.code {
                FailureCode::TimedOut => Exit::TimedOut,
                FailureCode::Denied | FailureCode::TooManyHops => Exit::Denied,
                _ => Exit::Unreachable,
            },
            Failure::Key { .. } => Exit::Key,
            Failure::Broken { error, .. } => match error {
                AnswerError::Silent(_) => Exit::TimedOut,
                AnswerError::Read(relay_chain::frames::ReadError::Frame(_)) | AnswerError::Protocol(_) => {
                    Exit::Origin
                }
                AnswerError::Read(_) => Exit::Unreachable,
                AnswerError::Changed | AnswerError::Damaged => Exit::Damaged,
                AnswerError::OriginRead => Exit::Origin,
            },
            Failure::Refused { status, .. } => match *status {
                Status::NOT_FOUND => Exit::NotFound,
                Status::REQUEST_TIMEOUT => Exit::TimedOut,
                _ => Exit::Origin,
            },
            Failure::NoDirectory(_) => Exit::NotFound,
            Failure::NoRoute { failed: routes, .. } => {
                let tried = routes.iter().rev().find(|route| !route.is_gone).or(routes.last());
                tried.map_or(Exit::Unreachable, |route| route.failure.exit())
            }
            Failure::Damaged { .. }
            | Failure::OtherVersion { .. }
            | Failure::NotExpected { .. }
            | Failure::ChangedMidway => Exit::Damaged,
            Failure::Local { .. } | Failure::InUse(_) => Exit::Local,
            Failure::Incomplete { .. } | Failure::Unlisted(_) => Exit::Incomplete,
            Failure::Deadline { .. } => Exit::TimedOut,
            Failure::Interrupted => Exit::Interrupted,
        }
    }

    /// The hop that it is about, from 1, when it is about one.
    #[must_use]
    pub fn position(&self) -> Option<usize> {
        match self {
            Failure::Walk(error) => Some(error.position),
            Failure::Refused { position, .. } | Failure::Key { position, .. } => Some(*position),
            Failure::Deadline { last: Some(last), .. } => last.position(),
            _ => None,
        }
    }
}
