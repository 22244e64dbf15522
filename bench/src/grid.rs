//! `relay-bench grid`: every variant in every cell of hops × clients × file sizes, the variants taking turns in a cell.
//!
//! A cell's work is shared by its clients: each fetches the file again and again, a process a fetch, until the cell's
//! number of fetches is done.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use serde::Serialize;

use crate::chain::{Sink, available};
use crate::chart;
use crate::daemon::{machine_busy, settle};
use crate::fetch;
use crate::machine::Machine;
use crate::peers::{Chain, Variant};
use crate::platform;
use crate::report::{Output, median, spread, table};
use crate::sample;
use crate::stats::Spread;

/// What to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// Numbers of relays
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 3, 5, 10])]
    relays: Vec<usize>,
    /// Numbers of clients at once
    #[arg(long, value_delimiter = ',', default_values_t = [1])]
    clients: Vec<usize>,
    /// File sizes
    #[arg(long, value_delimiter = ',', default_value = "256MiB", value_parser = sample::parse_size)]
    sizes: Vec<u64>,
    /// Rounds that count in each cell; one more comes before them as a warm-up
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Bytes that all fetches of a cell's round together may bring
    #[arg(long, default_value = "1GiB", value_parser = sample::parse_size)]
    budget: u64,
    /// Fetches in a cell's round, at most (but one for each client at least)
    #[arg(long, default_value_t = 200)]
    fetches: usize,
    /// What to run
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Variant::Relay, Variant::Bound, Variant::Haproxy, Variant::NginxStream, Variant::Socat])]
    peers: Vec<Variant>,
    /// Where the bytes end
    #[arg(long, value_enum, default_value_t = Sink::Null)]
    sink: Sink,
    #[command(flatten)]
    output: Output,
}

/// One round of one cell.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    megabytes_a_second: f64,
    files_a_second: f64,
    /// CPU seconds a GB a relay.
    relay_cpu: f64,
    /// CPU seconds a GB of the whole machine.
    machine_cpu: f64,
    /// The most memory that one relay held, MiB.
    relay_peak: f64,
    /// From starting one more client to the first byte that it lets out, milliseconds.
    first_byte: f64,
}

/// One variant in one cell.
#[derive(Debug, Serialize)]
struct Cell {
    variant: Variant,
    name: &'static str,
    relays: usize,
    clients: usize,
    size: u64,
    rounds: Vec<Round>,
    /// Throughput of this project over this variant's, pair by pair.
    ratio: Option<Spread>,
}

/// Runs every cell and reports.
pub fn run(options: &Options) -> Result<()> {
    let (present, missing) = available(&options.peers);
    ensure!(!present.is_empty(), "nothing to run: {}", missing.join("; "));
    let programs: Vec<&str> = present.iter().flat_map(|v| v.programs()).copied().collect();
    let machine = Machine::describe(&programs);
    let home = sample::workspace()?;
    let files = home.path().join("files");
    std::fs::create_dir(&files)?;
    let mut cells = Vec::new();
    for &size in &options.sizes {
        let file = sample::create(&files, &format!("sample-{size}"), size)?;
        for &relays in &options.relays {
            let mut chains = present
                .iter()
                .map(|&v| Chain::start(v, relays, &file, &home.path().join(format!("{size}-{relays}"))))
                .collect::<Result<Vec<Chain>>>()?;
            for &clients in &options.clients {
                cells.extend(cell(options, &mut chains, &file, home.path(), clients)?);
                eprintln!("done: {relays} relays, {clients} clients, {}", sample::size_text(size));
            }
        }
    }
    println!("{}", machine.text());
    println!("medians [quartiles] of {} rounds; CPU in seconds a GB (10^9 bytes)\n", options.rounds);
    println!("{}", text(&cells));
    missing.iter().for_each(|reason| println!("left out: {reason}"));
    options.output.json("grid", &machine, &missing, &cells)?;
    charts(options, &cells)
}

fn cell(
    options: &Options,
    chains: &mut [Chain],
    file: &Path,
    home: &Path,
    clients: usize,
) -> Result<Vec<Cell>> {
    let size = file.metadata()?.len();
    let affordable = usize::try_from(options.budget / size.max(1))?;
    let fetches = affordable.min(options.fetches).max(clients);
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); chains.len()];
    for chain in chains.iter_mut() {
        round(chain, file, home, options.sink, clients, clients)?;
    }
    for number in 0..options.rounds {
        for turn in 0..chains.len() {
            let i = (turn + number) % chains.len();
            if let (Some(chain), Some(rounds)) = (chains.get_mut(i), rounds.get_mut(i)) {
                rounds.push(round(chain, file, home, options.sink, clients, fetches)?);
            }
        }
    }
    let rates = |rounds: &[Round]| -> Vec<f64> { rounds.iter().map(|r| r.megabytes_a_second).collect() };
    let mine =
        chains.iter().position(|c| c.variant == Variant::Relay).and_then(|i| rounds.get(i)).map(|r| rates(r));
    Ok(chains
        .iter()
        .zip(rounds)
        .map(|(chain, rounds)| Cell {
            variant: chain.variant,
            name: chain.variant.name(),
            relays: chain.relays.len(),
            clients,
            size,
            ratio: mine.as_ref().and_then(|mine| Spread::of_ratios(mine, &rates(&rounds))),
            rounds,
        })
        .collect())
}

#[allow(clippy::cast_precision_loss, reason = "sizes below 2^53 are exact in an f64")]
fn round(
    chain: &mut Chain,
    file: &Path,
    home: &Path,
    sink: Sink,
    clients: usize,
    fetches: usize,
) -> Result<Round> {
    let size = file.metadata()?.len();
    chain.daemons().iter().try_for_each(|d| d.reset_peak())?;
    let before = relay_cpu(chain)?;
    let busy_before = machine_busy()?;
    let started = Instant::now();
    let todo = AtomicUsize::new(fetches);
    let shared = &*chain;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|i| {
                let (out, todo) = (place(sink, home, i), &todo);
                scope.spawn(move || fetch_until_done(shared, file, &out, todo))
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|w| w.join().map_err(|_| anyhow!("a client's thread ended badly"))?)
    })?;
    let seconds = started.elapsed().as_secs_f64();
    settle(&chain.daemons())?;
    chain.check()?;
    let gigabytes = size as f64 * fetches as f64 / 1e9;
    let relays = relay_cpu(chain)?.saturating_sub(before).as_secs_f64() / chain.relays.len().max(1) as f64;
    let busy = machine_busy()?.saturating_sub(busy_before).as_secs_f64();
    let relay_peak =
        chain.relays.iter().try_fold(0, |most, r| Ok::<_, anyhow::Error>(r.memory()?.peak.max(most)))?;
    Ok(Round {
        megabytes_a_second: gigabytes * 1e3 / seconds,
        files_a_second: fetches as f64 / seconds,
        relay_cpu: relays / gigabytes,
        machine_cpu: busy / gigabytes,
        relay_peak: relay_peak as f64 / 1024.0,
        first_byte: first_byte(chain, file)?.as_secs_f64() * 1e3,
    })
}

fn fetch_until_done(chain: &Chain, file: &Path, out: &Path, todo: &AtomicUsize) -> Result<()> {
    while todo.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
        fetch::clear(out)?;
        fetch::run(&chain.fetch(file, out)?)
            .with_context(|| format!("{} could not fetch", chain.variant.name()))?;
    }
    fetch::clear(out)
}

fn place(sink: Sink, home: &Path, client: usize) -> PathBuf {
    match sink {
        Sink::File => home.join(format!("arrived-{client}")),
        Sink::Null => Sink::Null.path(home),
    }
}

fn relay_cpu(chain: &Chain) -> Result<Duration> {
    chain.relays.iter().try_fold(Duration::ZERO, |sum, r| Ok(sum + r.cpu()?))
}

/// Starts a client that writes to a pipe, and waits for its first byte.
fn first_byte(chain: &Chain, file: &Path) -> Result<Duration> {
    let out = match chain.variant {
        Variant::Bound | Variant::BoundUnhashed => Path::new("/dev/stdout"),
        _ => Path::new("-"),
    };
    let steps = chain.fetch(file, out)?;
    let first = steps.first().and_then(|s| s.first()).context("nothing to run")?;
    let started = Instant::now();
    let mut child = Command::new(&first.program)
        .args(&first.arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", first.program.display()))?;
    let mut pipe = child.stdout.take().context("the client has no output")?;
    pipe.read_exact(&mut [0]).context("the client wrote nothing")?;
    let elapsed = started.elapsed();
    std::io::copy(&mut pipe, &mut File::create("/dev/null")?)?;
    platform::wait_with_usage(&child)?;
    Ok(elapsed)
}

fn text(cells: &[Cell]) -> String {
    let head = [
        "",
        "relays",
        "clients",
        "size",
        "MB/s",
        "this project ÷ it",
        "files/s",
        "relay CPU",
        "machine CPU",
        "relay peak MiB",
        "first byte ms",
    ];
    let rows: Vec<Vec<String>> = cells
        .iter()
        .map(|cell| {
            let of = |f: fn(&Round) -> f64| Spread::of(cell.rounds.iter().map(f));
            vec![
                cell.name.to_owned(),
                cell.relays.to_string(),
                cell.clients.to_string(),
                sample::size_text(cell.size),
                spread(of(|r| r.megabytes_a_second), if cell.size < 1 << 20 { 2 } else { 0 }),
                spread(cell.ratio, 2),
                median(of(|r| r.files_a_second), 1),
                median(of(|r| r.relay_cpu), 3),
                median(of(|r| r.machine_cpu), 2),
                median(of(|r| r.relay_peak), 0),
                median(of(|r| r.first_byte), 1),
            ]
        })
        .collect();
    table(&head, &rows)
}

/// One chart for each axis that has more than one place on it.
fn charts(options: &Options, cells: &[Cell]) -> Result<()> {
    if options.relays.len() > 1 {
        let svg = drawing(cells, "Throughput and the number of relays", "relays", |c| c.relays as u64);
        options.output.chart("grid-relays", &svg)?;
    }
    if options.clients.len() > 1 {
        let svg =
            drawing(cells, "Throughput and the number of clients", "clients at once", |c| c.clients as u64);
        options.output.chart("grid-clients", &svg)?;
    }
    if options.sizes.len() > 1 {
        let svg = drawing(cells, "Throughput and the file's size", "bytes", |c| c.size);
        options.output.chart("grid-sizes", &svg)?;
    }
    Ok(())
}

/// A line a variant; cells that share a place on the axis are averaged there.
#[allow(clippy::cast_precision_loss, reason = "a chart is no finer than an f64")]
fn drawing(cells: &[Cell], title: &str, x_unit: &str, x: impl Fn(&Cell) -> u64) -> String {
    let mut lines: Vec<(&'static str, BTreeMap<u64, Vec<f64>>)> = Vec::new();
    for cell in cells {
        let Some(rate) = Spread::of(cell.rounds.iter().map(|r| r.megabytes_a_second)) else { continue };
        if !lines.iter().any(|(name, _)| *name == cell.name) {
            lines.push((cell.name, BTreeMap::new()));
        }
        if let Some((_, points)) = lines.iter_mut().find(|(name, _)| *name == cell.name) {
            points.entry(x(cell)).or_default().push(rate.median);
        }
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let lines: Vec<chart::Line> = lines
        .into_iter()
        .map(|(name, points)| (name.to_owned(), points.iter().map(|(x, y)| (*x as f64, mean(y))).collect()))
        .collect();
    chart::lines(title, x_unit, "MB/s, all clients together; more is better", &lines)
}
