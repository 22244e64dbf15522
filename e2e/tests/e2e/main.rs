//! Whole chains: real nodes and clients in processes of their own, joined by real sockets, with real faults between them.
//!
//! | module | what it asks |
//! | --- | --- |
//! | [`transfers`] | does every file come whole, through any chain? |
//! | [`refusals`] | does everything that cannot work end with a sentence that helps, and its own exit code? |
//! | [`hostile`] | does a node stand whatever is said to it, and keep its limits? |
//! | [`pipes`] | is a relay blind: half-close, resets, backpressure, single bytes? |
//! | [`faults`] | do cuts, flips, stalls and kills never leave a wrong file? |
//! | [`resume`] | does the next attempt, or the next run, go on where the last one ended? |
//! | [`landing`] | is nobody else's file harmed, and does every kind of file system do? |
//! | [`tree_counts`] | does the summary of a directory add up? |
//! | [`power_cut`] | what does a power cut leave, at every instant? |
//! | [`routes`] | do several routes and connections share a file, and take over from each other? |
//! | [`conversation`] | does an origin answer as the specification says, through relays? |
//! | [`lifecycle`] | does a node say when it is full, and end in order? |
//! | [`limits_table`] | does the document of all limits name tests that exist? |
//! | [`scarcity`] | does everything go on when descriptors, pipes or disks run out? |
//! | [`clock_jumps`] | does a clock that jumps spoil nothing? |
//! | [`events`] | can programs follow what happens? |
//! | [`trees`] | do whole directories come, with everything in them and nothing beside them? |
//! | [`schedules`] | random faults from a printed seed |

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop at the first surprise, its helpers too"
)]

#[cfg(target_os = "linux")]
mod clock_jumps;
mod conversation;
mod encryption;
mod events;
mod faults;
mod hostile;
#[cfg(unix)]
mod landing;
mod lifecycle;
mod limits_table;
#[cfg(target_os = "linux")]
mod memory_maps;
mod pipes;
#[cfg(target_os = "linux")]
mod power_cut;
mod raw;
mod refusals;
mod resume;
mod routes;
#[cfg(target_os = "linux")]
mod scarcity;
mod schedules;
mod transfers;
#[cfg(unix)]
mod tree_counts;
#[cfg(unix)]
mod trees;
mod world;
