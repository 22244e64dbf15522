//! The origin: the last node of a route, which answers the file layer's requests out of its document root.
//!
//! One request after the other is read from the stream and answered; up to 32 may wait in the stream meanwhile.
//!
//! ```text
//! pipe      in the clear, or TLS first
//! session   reads a request, has it answered, writes the answer
//!   answer    what an answer begins with: finds the file, checks the conditions, makes the head   (blocking)
//!   source    one open file: reads its chunks, hashes them, notices that it changed               (blocking)
//!   body      chunk after chunk, hashed one ahead; into a socket by sendfile, else by a copy
//!   buffers   the few large buffers for such copies
//!   index     the hashes of all files, kept by identity
//!   outlet    bytes to the stream, with the limit for a reader that takes none
//! ```
//!
//! Whatever fails at the origin is told in a head or in a chunk's trailer: nothing here writes a `failed`, relays, or opens
//! a file past the document root. No chunk that could not be read as it was promised gets a good trailer.
//! (What waits in the socket when its file is rewritten in place may still become something else; then the trailer does not fit it.)

mod answer;
mod body;
mod buffers;
mod index;
mod outlet;
mod pipe;
mod session;
mod source;

pub use buffers::Buffers;
pub use index::{DEFAULT_INDEX_BYTES, HashIndex};
pub use pipe::{Security, serve_pipe};
pub use session::serve;

use crate::access::Reader;
use crate::peer_lines::PeerLines;
use crate::root::DocumentRoot;
use relay_chain::frames::ReadError;
use relay_link::tls::TlsError;
use relay_proto::code::Status;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// What an origin serves from; all connections share it, but for the last two fields.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Where the files are.
    pub root: Arc<DocumentRoot>,
    /// What is known of their chunks.
    pub index: Arc<HashIndex>,
    /// Room for the chunks that cannot go within the kernel.
    pub buffers: Arc<Buffers>,
    /// How many log lines the client that is served now may bring about.
    pub lines: PeerLines,
    /// Who reads, when that is asked; none: everybody reads everything.
    pub reader: Option<Reader>,
}

/// How long an origin waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginLimits {
    /// For the whole of the next request, from the end of the answer before.
    pub request: Duration,
    /// For a client that takes no byte of its answer. Minutes: a reader may pause.
    pub progress: Duration,
}

/// What happened on one connection, for the access log; true at any moment, also when the connection was cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginRecord {
    /// Whether it was encrypted between the client and this node.
    pub encrypted: bool,
    /// How many requests were read.
    pub requests: u64,
    /// The last file that was asked for, cleaned for the log.
    pub name: Option<String>,
    /// The last answer's status.
    pub status: Option<Status>,
    /// Bytes that the stream took, heads and trailers included.
    pub sent: u64,
    /// How many of them went from the file to the socket within the kernel.
    pub sent_by_kernel: u64,
    /// How many answers ended early because their file changed or could not be read.
    pub broken_bodies: u64,
}

/// Why a connection to the origin ended otherwise than by the client's plain close. None is the origin's fault: its own
/// failures are answers.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// What came is no request; the client was told.
    #[error("the client sent no request that can be read: {0}")]
    BadRequest(#[source] ReadError),
    /// No whole request came in time; the client was told.
    #[error("no request came in {} s", .0.as_secs_f64())]
    RequestTimeout(Duration),
    /// There was no handshake, or none that came to its end; the client was told.
    #[error("no encryption: {0}")]
    Handshake(#[source] TlsError),
    /// The handshake took too long.
    #[error("the handshake took longer than {} s", .0.as_secs_f64())]
    HandshakeTimeout(Duration),
    /// The client wanted files in the clear; it was told that it cannot.
    #[error("a request in the clear, which --require-encryption refuses")]
    NotEncrypted,
    /// The client stopped reading its answer.
    #[error("the client took no byte of its answer in {} s", .0.as_secs_f64())]
    NoProgress(Duration),
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Stream(#[from] io::Error),
}

#[cfg(test)]
mod tests;
