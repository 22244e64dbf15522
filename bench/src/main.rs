//! Measures this project beside its peers and beside the bound; `docs/performance.md` has the figures and their reading.
//!
//! Everything runs on loopback or in network namespaces made for the purpose, bounded in count and time. Nothing in here
//! is part of the product, and no test waits for it.
#![allow(clippy::print_stdout, reason = "the tables that it prints are what this program is for")]

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bound;
mod chain;
mod chart;
mod daemon;
mod direct;
mod fetch;
mod grid;
mod http;
mod invocation;
mod lab;
mod latency;
mod load;
mod machine;
mod memory;
mod peers;
mod platform;
mod random;
mod report;
mod resume;
mod sample;
mod siege;
mod site;
mod soak;
mod stats;
mod syscalls;
mod tree;
mod web_servers;

#[derive(Parser, Debug)]
#[command(name = "relay-bench", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// One part of the bound (the other commands start these)
    #[command(subcommand)]
    Bound(bound::Part),
    /// One file through a chain: throughput, CPU and memory beside the bound and the peers
    Chain(chain::Options),
    /// How throughput, CPU and small files grow with hops, clients and file sizes
    Grid(grid::Options),
    /// A small file through a chain: milliseconds from connect to verified bytes
    Latency(latency::Options),
    /// Many small files through a chain, beside a client for each and beside rsync through jumps
    Tree(tree::Options),
    /// A file of which nearly all is here: going on beside fetching the rest alone and hashing what is here
    Resume(resume::Options),
    /// Many transfers to slow readers through one relay: the relay's memory
    SlowReaders(memory::SlowReaders),
    /// Idle connections: memory a connection
    Idle(memory::Idle),
    /// Idle connections, slow headers, slow readers, floods: how long other requests take meanwhile
    Load(load::Options),
    /// Cheap attacks, and what an honest client beside each of them notices
    Siege(siege::Options),
    /// Minutes of mixed traffic with faults at random; fails when anything is left behind
    Soak(soak::Options),
    /// System calls a MiB of a relay and of an origin (needs strace)
    Syscalls(syscalls::Options),
    /// The HTTP face beside nginx and Squid: files, and hits of a cache
    Http(http::Options),
    /// Chains over links with delay, rate, loss and cuts, between network namespaces (needs root)
    Lab(lab::Options),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Bound(part) => bound::run(&part),
        Command::Chain(options) => chain::run(&options),
        Command::Grid(options) => grid::run(&options),
        Command::Latency(options) => latency::run(&options),
        Command::Tree(options) => tree::run(&options),
        Command::Resume(options) => resume::run(&options),
        Command::SlowReaders(options) => memory::slow_readers(&options),
        Command::Idle(options) => memory::idle(&options),
        Command::Load(options) => load::run(&options),
        Command::Siege(options) => siege::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Syscalls(options) => syscalls::run(&options),
        Command::Http(options) => http::run(&options),
        Command::Lab(options) => lab::run(&options),
    }
}
