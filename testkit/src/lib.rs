//! What the tests share: real programs in processes of their own, files to send, and the faults of networks.
//!
//! | module | what belongs in it |
//! | --- | --- |
//! | [`programs`] | where the built programs are, and building them when they are missing or out of date |
//! | [`process`] | a program that runs: what it wrote, signals to it, its end |
//! | [`node`] | a node on a port of its own, and chains of them |
//! | [`files`] | files with known content, large ones without using space |
//! | [`proxy`] | a proxy that stands between any two hops and injects faults at exact bytes |
//! | [`recorder`] | a listener that is no node and remembers every byte it received |
//! | [`sockets`] | connected sockets, and a slow reader, for tests of one function |
//!
//! Nothing here sleeps in order to let something happen: every wait is for an event and gives up after [`LIMIT`], with a
//! message about what did not come. All calls but those of [`sockets`] block, so that a test
//! reads from top to bottom.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop at the first surprise, and this is only for tests"
)]

pub mod files;
pub mod nobody;
pub mod node;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod recorder;
pub mod sockets;

use std::time::Duration;

/// How long a test waits for an event before it fails. Far more than any event needs, so that only a missing one ends a wait.
pub const LIMIT: Duration = Duration::from_secs(120);
