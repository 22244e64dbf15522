//! The kernel's special calls, each beside a plain form for systems that lack it.
//!
//! Everything that depends on the operating system is here, so that the rest of the node reads the same everywhere.
//! No policy may be in this module: it opens, moves and measures, and its callers decide.

pub(crate) mod beneath;
pub(crate) mod failure;
pub(crate) mod foreground;
pub(crate) mod hangup;
pub(crate) mod lock;
pub(crate) mod operator_signal;
pub(crate) mod page_cache;
pub(crate) mod positioned;
pub(crate) mod priority;
pub(crate) mod send_file;
