//! A node of a relay chain: one small server for every role.
//!
//! ```text
//! accept → detect ─┬→ read open → hello ─┬→ no hop left: origin (files out of the document root)
//!                  │                     └→ relay: dial, hand on the open, then blind
//!                  └→ HTTP face: web server
//! ```
//!
//! | module | what belongs in it |
//! | --- | --- |
//! | [`cli`], [`config`] | what was typed, and what it means |
//! | [`server`] | listen, accept, limits, drain |
//! | [`connection`] | one accepted connection: which face it wants, its line in the log |
//! | [`access`] | the access rules in force |
//! | [`identity`] | the node's own key |
//! | [`relay`] | relaying: the rules, the dial, then blind |
//! | [`origin`] | the file layer's answers |
//! | [`root`] | the document root; nothing else opens served files |
//! | [`http`] | the HTTP face |
//! | [`record`], [`access_log`], [`logging`] | what is written down, and where |
//! | [`visits`] | how often one connection is here |
//! | [`peer_lines`] | how many lines a peer may bring about |
//! | [`log_queue`], [`log_files`] | a log's way out, which holds up nobody, and its files |
//! | [`console`], [`stop`], [`census`] | the operator: start, end, signals, how many connections there are |
//! | [`platform`] | the kernel's special calls, each with a plain fallback |

pub mod access;
pub mod access_log;
pub mod census;
pub mod cli;
pub mod config;
pub mod connection;
pub mod console;
pub mod http;
pub mod identity;
pub mod log_files;
pub mod log_queue;
pub mod logging;
pub mod origin;
pub mod peer_lines;
pub mod platform;
pub mod record;
pub mod relay;
pub mod root;
pub mod server;
pub mod stop;
pub mod visits;
