//! The kernel's special calls for sockets, each beside a plain form for systems that lack it.
//!
//! No policy may be in this module: it moves and measures, and its callers decide.

pub mod descriptors;
pub(crate) mod hangup;
pub mod pipe;
pub mod unsent;
