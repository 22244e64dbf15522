//! Every limit of the protocol and of a route file, once, with its unit.
//!
//! Limits that somebody may set (time limits of a node, say) have their defaults here only when both ends must agree on
//! them; all others live with the program that has them.

use core::time::Duration;

/// Bytes of a frame's preface.
pub const PREFACE_LEN: usize = 9;
/// The largest JSON payload of a frame, in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// The most routes in a route file.
pub const MAX_ROUTES: usize = 16;
/// The most hops a route has.
pub const MAX_HOPS: usize = 64;
/// The longest host name, in bytes (RFC 1035, section 2.3.4, less the trailing dot's octets).
pub const MAX_HOST: usize = 253;
/// The longest file name, directories included, in bytes (Linux's `PATH_MAX`).
pub const MAX_NAME: usize = 4096;
/// The longest message for people in a `failed` or a `head`, in bytes.
pub const MAX_MESSAGE: usize = 1024;
/// The longest name of a program and its version in a `hello`, in bytes.
pub const MAX_AGENT: usize = 64;
/// The largest layer of an `open`, in bytes: the longest hops in plain, [`MAX_HOPS`] of them, and what belongs to the layer itself.
pub const MAX_LAYER: usize = 24 * 1024;
/// The largest sealed part of a `hello` or a `failed`, in bytes.
pub const MAX_ANSWER: usize = 2576;
/// The longest entity tag, in bytes.
pub const MAX_ENTITY_TAG: usize = 64;
/// The most entries of one `page`.
pub const MAX_PAGE: usize = 1000;
/// The most requests that may wait for their answer on one pipe.
pub const MAX_PIPELINED: usize = 32;
/// Bytes of a chunk; only a file's last chunk may be shorter. Chunks are aligned, so chunk `i` starts at `i * CHUNK_LEN`.
pub const CHUNK_LEN: u64 = 1 << 20;
/// The largest size and offset: what a double holds exactly, so that JSON of every language agrees.
pub const MAX_SIZE: u64 = (1 << 53) - 1;

/// The longest line of a route file, in bytes, without its line end.
pub const MAX_ROUTE_LINE: usize = MAX_NAME + 64;
/// The largest route file, in bytes.
pub const MAX_ROUTE_FILE: usize = 1024 * 1024;

/// How long a client waits without a byte, unless told otherwise.
pub const DEFAULT_SILENCE: Duration = Duration::from_secs(10);
/// The shortest such limit an `open` may carry.
pub const MIN_SILENCE: Duration = Duration::from_millis(100);
/// The longest such limit an `open` may carry.
pub const MAX_SILENCE: Duration = Duration::from_secs(3600);

// The largest open, 64 hops of 253 bytes with their JSON around them, must fit a frame; and a preface must say so.
const _: () = assert!(MAX_HOPS * (MAX_HOST + 32) + 512 < MAX_PAYLOAD);
const _: () = assert!(MAX_PAYLOAD < 1 << 21);
// A name's JSON is at most six bytes a byte (`\u0001`), and a request must fit its frame.
const _: () = assert!(6 * MAX_NAME + 512 < MAX_PAYLOAD);

/// The time a relay has for name lookup, connect and the next hop's `hello` together, when its client gives up after
/// `silence` without a byte.
///
/// It ends a second, and for short limits a fifth, before the client does, so that the precise error of the relay wins
/// the race against the client's general one. The client's limit starts anew with each `hello`, so the relays of a chain
/// all have the same time.
#[must_use]
pub fn relay_budget(silence: Duration) -> Duration {
    silence.saturating_sub(Duration::from_secs(1).min(silence / 5))
}
