//! The wire, seen from outside: the specification's own vectors, properties over all messages, hostile bytes, and the
//! promise that this crate cannot do IO.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop at the first surprise, its helpers too"
)]

mod document;
mod hostile;
mod messages;
mod no_io;
mod properties;
