//! `relay-bench grid`: every variant in every cell of hops × clients × file sizes, the variants taking turns in a cell.
//!
//! A cell's work is shared by its clients: each fetches the file again and again, a process a fetch, until the cell's
//! number of fetches is done. The whole is bounded in time: what is left is shared by the cells that are left, and in a cell by its
//! variants, so that one that is slow fetches fewer times in a round. Cells for which no time is left are named.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::chain::{Sink, available};
use crate::machine::Machine;
use crate::peers::{Chain, Variant};
use crate::report::Output;
use crate::sample::{self, Workspace};

mod cell;
mod charts;
mod plan;
mod report;

use cell::Bench;
use plan::Place;

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A short run: small and 32 MiB files, 1 and 16 clients, one round, 5 minutes at most
    #[arg(long, conflicts_with_all = ["clients", "sizes", "rounds", "budget", "fetches", "round_seconds", "minutes"])]
    quick: bool,
    /// Numbers of relays
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 3, 5, 10])]
    relays: Vec<usize>,
    /// Numbers of clients at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16, 64, 256])]
    clients: Vec<usize>,
    /// File sizes
    #[arg(long, value_delimiter = ',', default_value = "4KiB,1MiB,32MiB,256MiB", value_parser = sample::parse_size)]
    sizes: Vec<u64>,
    /// Rounds that count in each cell; one more comes before them as a warm-up
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Bytes that all fetches of a cell's round together may bring; cells whose clients need more for one file each are left out
    #[arg(long, default_value = "1GiB", value_parser = sample::parse_size)]
    budget: u64,
    /// Fetches in a cell's round, at most (but one for each client at least)
    #[arg(long, default_value_t = 200)]
    fetches: usize,
    /// How long one variant's round should take at most, in seconds
    #[arg(long, default_value_t = 3.0)]
    round_seconds: f64,
    /// How long all of it should take, in minutes
    #[arg(long, default_value_t = 25.0)]
    minutes: f64,
    /// What to run
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Variant::Relay, Variant::BareRelays, Variant::Bound, Variant::Haproxy, Variant::HaproxyB3sum, Variant::NginxStream, Variant::Socat, Variant::Ssh])]
    peers: Vec<Variant>,
    /// Where the bytes end; a file is measured with one client and the largest size only
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Sink::Null, Sink::File])]
    sinks: Vec<Sink>,
    #[command(flatten)]
    output: Output,
}

impl Options {
    fn meant(&self) -> Options {
        if !self.quick {
            return self.clone();
        }
        Options {
            clients: vec![1, 16],
            sizes: vec![4 << 10, 32 << 20],
            rounds: 1,
            budget: 128 << 20,
            fetches: 64,
            round_seconds: 1.5,
            minutes: 5.0,
            ..self.clone()
        }
    }
}

/// Runs every cell and reports.
pub fn run(options: &Options) -> Result<()> {
    let options = &options.meant();
    let until = Instant::now() + Duration::from_secs_f64(options.minutes.clamp(0.0, 1440.0) * 60.0);
    let (present, mut missing) = available(&options.peers);
    ensure!(!present.is_empty(), "nothing to run: {}", missing.join("; "));
    let programs: Vec<&str> = present.iter().flat_map(|v| v.programs()).copied().collect();
    let machine = Machine::describe(&programs);
    let home = Workspace::new()?;
    let files = create_files(options, &home)?;
    let (places, too_large) = plan::plan(options);
    missing.extend(too_large);
    let (mut cells, fastest) = (Vec::new(), BTreeMap::new());
    let mut bench = Bench { options, home: home.path(), missing, fastest };
    let mut standing: Option<(Place, Vec<Chain>)> = None;
    for (done, place) in places.iter().enumerate() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bench.missing.push(format!("{}: no time was left", place.text()));
            continue;
        }
        let weights: u32 = places.iter().skip(done).map(|p| p.weight).sum();
        let time = left * place.weight / weights.max(1);
        let started = Instant::now();
        let file = files.get(&place.size).context("a file was not made")?;
        if !standing.as_ref().is_some_and(|(other, _)| other.shares_chains(place)) {
            // Those that stand end before others start.
            drop(standing.take());
            let work = home.path().join(format!("{}-{}", place.size, place.relays));
            let start = |&variant| Chain::start(variant, place.relays, file, &work);
            standing = Some((*place, present.iter().map(start).collect::<Result<_>>()?));
        }
        let Some((_, chains)) = &mut standing else { continue };
        let rest = time.saturating_sub(started.elapsed());
        cells.extend(bench.measure(place, chains, file, rest));
        eprintln!("{} of {}: {}, {:.0?}", done + 1, places.len(), place.text(), started.elapsed());
    }
    drop(standing);
    let missing = bench.missing;
    println!("{}", machine.text());
    println!("{}", report::text(options, &cells));
    missing.iter().for_each(|reason| println!("left out: {reason}"));
    options.output.json("grid", &machine, &missing, &cells)?;
    charts::draw(options, &cells)
}

fn create_files(options: &Options, home: &Workspace) -> Result<BTreeMap<u64, PathBuf>> {
    options.sizes.iter().map(|&size| Ok((size, home.add(&format!("sample-{size}"), size)?))).collect()
}
