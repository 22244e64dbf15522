//! What carries bytes between two neighbours of a chain, and how bytes get from one such link to another.
//!
//! | module | what belongs in it |
//! | --- | --- |
//! | [`link`] | one type for whatever carries bytes |
//! | [`dial`] | name lookup and connect within one time limit, with a say for whoever must allow the address |
//! | [`resolve`] | from a name to its addresses |
//! | [`shares`] | how much one peer may take of what all share |
//! | [`congestion`] | which congestion control sockets get |
//! | [`detect`] | the first byte of an accepted connection |
//! | [`tls`] | handshakes that make one link of another |
//! | [`pump`] | from one link to another and back, unseen |
//! | [`idle`], [`closing`] | when nothing moves, and ends that arrive |
//! | [`platform`] | the kernel's special calls, each with a plain fallback |
//!
//! Nothing here knows who may do what, nor what the bytes mean beyond their first one.

pub mod closing;
pub mod congestion;
pub mod detect;
pub mod dial;
pub mod idle;
pub mod link;
pub mod platform;
pub mod pump;
pub mod resolve;
pub mod shares;

mod race;
pub mod tls;
