//! The client as a process, against origins that keep the protocol and origins that break it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod client;
mod damage;
#[cfg(unix)]
mod exit_codes;
mod fetch;
#[cfg(unix)]
mod local;
mod origin;
mod resume;
mod routes;
mod tree;
mod words;
