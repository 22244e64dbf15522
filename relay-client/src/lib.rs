//! The client: one file, or a whole directory, through a chain of nodes, verified chunk by chunk, under its final name only when it is whole.
//!
//! ```text
//! cli ─▶ plan ─▶ transfer ─▶ download ─▶ session (chain, requests) ─▶ chunks ─▶ verify ─▶ part_file ─▶ final name
//!         ▲          │           │                                                │
//!    route_source  retry       scan (what is here)                             journal
//! ```
//!
//! | module | what belongs in it |
//! | --- | --- |
//! | [`cli`], [`meant`] | what was typed, and what was meant by what cannot be followed |
//! | [`route_source`] | the route, from a file, from standard input or from flags, with a caret under every error |
//! | [`plan`] | what it means: where the file goes, which limits hold |
//! | [`transfer`] | the story of one run, from the first try to the final name |
//! | [`download`] | one attempt: what is here, what to ask, what comes |
//! | [`retry`] | when another attempt follows |
//! | [`session`] | one chain to an origin and the requests on it; walking the route again after it broke |
//! | [`contacts`] | whose key is expected at the end of a route, and what is remembered |
//! | [`verify`] | threads that hash chunks and write those that are good |
//! | [`part_file`] | `NAME.part`: locked, written at offsets, synced, renamed |
//! | [`unfinished`] | what such files are called, and whether what stands there is this program's |
//! | [`beneath`] | open directories and what is in them, never through a link |
//! | [`journal`] | what a `.part` is and which of its chunks are on the disk |
//! | [`scan`] | which chunks of a local file have the hashes they should have |
//! | [`tree`] | whole directories: listing, many small files on one pipe, what lands where |
//! | [`progress`], [`event`], [`console`] | what people and programs see of it |
//! | [`trace`], [`list`], [`known`] | the other commands |
//! | [`left_out`] | what an origin has and does not give |
//! | [`failure`], [`exit`] | every way to fail, and the exit codes |
//! | [`stop`] | Ctrl-C |
//! | [`platform`] | what not every system has |
//!
//! Standard output belongs to the downloaded file, to `--json` and to the results of `trace` and `list`; everything else is said on
//! standard error.

pub mod beneath;
pub mod cli;
pub mod console;
pub mod contacts;
pub mod download;
pub mod event;
pub mod exit;
pub mod failure;
pub mod journal;
pub mod known;
pub mod left_out;
pub mod list;
pub mod meant;
pub mod part_file;
pub mod plan;
pub mod platform;
pub mod progress;
pub mod retry;
pub mod route_source;
pub mod scan;
pub mod session;
pub mod stop;
pub mod trace;
pub mod transfer;
pub mod tree;
pub mod unfinished;
pub mod verify;

mod show;

use cli::{Cli, Command, FetchArguments};
use exit::Exit;
use progress::print_failure;
use stop::Stop;

/// Does what was typed, until it is done or stopped.
pub async fn run(cli: Cli, stop: Stop) -> Exit {
    match &cli.command {
        Some(Command::Trace(arguments)) => trace::run(arguments, &stop).await,
        Some(Command::List(arguments)) => list::run(arguments, &stop).await,
        Some(Command::Known(arguments)) => known::run(arguments),
        None => fetch(&cli.fetch, &stop).await,
    }
}

/// Fetches a file or a directory: the route's name tells which.
async fn fetch(arguments: &FetchArguments, stop: &Stop) -> Exit {
    match route_source::read_all(&arguments.route, arguments.route.get.as_deref()) {
        Ok(routes) if tree::is_meant(&routes, arguments) => tree::run(routes, arguments, stop).await,
        Ok(routes) => transfer::run(routes, arguments, stop).await,
        Err(failure) => {
            print_failure(&failure);
            failure.exit()
        }
    }
}
