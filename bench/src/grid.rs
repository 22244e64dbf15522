//! `relay-bench grid`: every variant in every cell of hops × clients × file sizes, the variants taking turns in a cell.
//!
//! A cell's work is shared by its clients: each fetches the file again and again, a process a fetch, until the cell's
//! number of fetches is done. The whole is bounded in time: a variant that is slow fetches fewer times in a round, and cells
//! for which no time is left are named instead of measured.

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
use crate::chart::{self, Scale};
use crate::daemon::{machine_busy, settle};
use crate::fetch;
use crate::machine::Machine;
use crate::peers::{Chain, Variant};
use crate::platform;
use crate::report::{Output, median, spread, table};
use crate::sample::{self, Workspace};
use crate::stats::Spread;

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
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 256])]
    clients: Vec<usize>,
    /// File sizes
    #[arg(long, value_delimiter = ',', default_value = "4KiB,1MiB,256MiB", value_parser = sample::parse_size)]
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
    /// How long one variant's round should take at most, in seconds
    #[arg(long, default_value_t = 8.0)]
    round_seconds: f64,
    /// How long all of it may take, in minutes
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// What to run
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Variant::Relay, Variant::Bound, Variant::Haproxy, Variant::NginxStream, Variant::Socat, Variant::Ssh])]
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

    fn wants(&self, sink: Sink, clients: usize, size: u64) -> bool {
        let is_least = self.clients.iter().all(|&c| c >= clients);
        sink == Sink::Null || (is_least && self.sizes.iter().all(|&s| s <= size))
    }
}

/// A client of `ssh -J` starts a process for each jump; more of them than this would measure the machine's limits.
const MOST_SSH: usize = 64;

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
    sink: Sink,
    rounds: Vec<Round>,
    /// Throughput of this project over this variant's, pair by pair.
    ratio: Option<Spread>,
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
    let mut cells = Vec::new();
    for &size in &options.sizes {
        let file = home.add(&format!("sample-{size}"), size)?;
        for &relays in &options.relays {
            let mut chains = present
                .iter()
                .map(|&v| Chain::start(v, relays, &file, &home.path().join(format!("{size}-{relays}"))))
                .collect::<Result<Vec<Chain>>>()?;
            for (&sink, &clients) in
                options.sinks.iter().flat_map(|s| options.clients.iter().map(move |c| (s, c)))
            {
                if !options.wants(sink, clients, size) {
                    continue;
                }
                let place =
                    format!("{relays} relays, {clients} clients, {}, {sink:?}", sample::size_text(size));
                if Instant::now() > until {
                    missing.push(format!("{place}: no time was left"));
                    continue;
                }
                cells.extend(cell(options, &mut chains, &file, home.path(), clients, sink, &mut missing)?);
                eprintln!("done: {place}");
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
    sink: Sink,
    missing: &mut Vec<String>,
) -> Result<Vec<Cell>> {
    let size = file.metadata()?.len();
    let affordable = usize::try_from(options.budget / size.max(1))?;
    let fetches = affordable.min(options.fetches).max(clients);
    let mut chains: Vec<&mut Chain> = chains.iter_mut().collect();
    chains.retain(|chain| {
        let too_many = chain.variant == Variant::Ssh && clients * (chain.relays.len() + 1) > MOST_SSH;
        if too_many {
            missing.push(format!(
                "ssh -J, {} relays, {clients} clients: too many processes",
                chain.relays.len()
            ));
        }
        !too_many
    });
    // The warm-up tells how much of the work fits into a round's time.
    let mut running = Vec::new();
    for chain in chains {
        let started = Instant::now();
        round(chain, file, home, sink, clients, clients)?;
        let batches = options.round_seconds / started.elapsed().as_secs_f64().max(1e-3);
        running.push((chain, fetches.min(clients * whole(batches)), Vec::new()));
    }
    for number in 0..options.rounds {
        for turn in 0..running.len() {
            let i = (turn + number) % running.len();
            if let Some((chain, fetches, rounds)) = running.get_mut(i) {
                rounds.push(round(chain, file, home, sink, clients, *fetches)?);
            }
        }
    }
    let rates = |rounds: &[Round]| -> Vec<f64> { rounds.iter().map(|r| r.megabytes_a_second).collect() };
    let mine = running.iter().find(|(c, ..)| c.variant == Variant::Relay).map(|(_, _, r)| rates(r));
    Ok(running
        .into_iter()
        .map(|(chain, _, rounds)| Cell {
            variant: chain.variant,
            name: chain.variant.name(),
            relays: chain.relays.len(),
            clients,
            size,
            sink,
            ratio: mine.as_ref().and_then(|mine| Spread::of_ratios(mine, &rates(&rounds))),
            rounds,
        })
        .collect())
}

/// As a whole number, 1 at least.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
fn whole(batches: f64) -> usize {
    batches.clamp(1.0, 1e6) as usize
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
        "to",
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
                format!("{:?}", cell.sink).to_lowercase(),
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

/// A cell's figure that is drawn.
type Figure = fn(&Round) -> f64;

/// Along each axis that has more than one place, the others held: how much, how dear, how soon.
fn charts(options: &Options, cells: &[Cell]) -> Result<()> {
    let largest = options.sizes.iter().max().copied().unwrap_or(0);
    let least = options.sizes.iter().min().copied().unwrap_or(0);
    let few = options.clients.iter().min().copied().unwrap_or(1);
    // The number of relays that the other charts hold: 3 where that is measured.
    let some =
        options.relays.iter().copied().find(|&r| r == 3).or(options.relays.last().copied()).unwrap_or(0);
    let out = &options.output;
    let by_relays = |name: &str, title: &str, unit: &str, size: u64, sink: Sink, figure: Figure| {
        let chosen = |c: &Cell| c.size == size && c.clients == few && c.sink == sink;
        let title = format!("{title}; {}, {few} client(s)", sample::size_text(size));
        out.chart(name, &drawing(cells, chosen, &title, "relays", unit, |c| c.relays as u64, figure))
    };
    if options.relays.len() > 1 {
        for (name, title, sink) in [
            ("grid-relays", "Throughput to nowhere and the number of relays", Sink::Null),
            ("grid-relays-file", "Throughput to a file and the number of relays", Sink::File),
        ] {
            if options.sinks.contains(&sink) {
                by_relays(name, title, "MB/s; more is better", largest, sink, |r| r.megabytes_a_second)?;
            }
        }
        let sink = options.sinks.first().copied().unwrap_or(Sink::Null);
        by_relays("grid-relay-cpu", "CPU of a relay", "seconds a GB; less is better", largest, sink, |r| {
            r.relay_cpu
        })?;
        by_relays(
            "grid-first-byte",
            "Time to the first byte",
            "milliseconds; less is better",
            least,
            sink,
            |r| r.first_byte,
        )?;
        by_relays(
            "grid-files",
            "Small files, one after the other",
            "files a second; more is better",
            least,
            sink,
            |r| r.files_a_second,
        )?;
    }
    if options.clients.len() > 1 {
        for (name, size, unit, figure) in [
            (
                "grid-clients",
                largest,
                "MB/s, all together; more is better",
                (|r| r.megabytes_a_second) as Figure,
            ),
            ("grid-clients-files", least, "files a second, all together; more is better", |r| {
                r.files_a_second
            }),
        ] {
            let chosen = |c: &Cell| c.size == size && c.relays == some && c.sink == Sink::Null;
            let title = format!("Clients at once; {}, {some} relays", sample::size_text(size));
            out.chart(
                name,
                &drawing(cells, chosen, &title, "clients at once", unit, |c| c.clients as u64, figure),
            )?;
        }
    }
    if options.sizes.len() > 2 {
        let chosen = |c: &Cell| c.clients == few && c.relays == some && c.sink == Sink::Null;
        let title = format!("Throughput and the file's size; {some} relays, {few} client(s)");
        let unit = "MB/s; more is better";
        out.chart(
            "grid-sizes",
            &drawing(cells, chosen, &title, "bytes", unit, |c| c.size, |r| r.megabytes_a_second),
        )?;
    }
    Ok(())
}

/// A line a variant over the chosen cells.
#[allow(clippy::cast_precision_loss, reason = "a chart is no finer than an f64")]
fn drawing(
    cells: &[Cell],
    is_chosen: impl Fn(&Cell) -> bool,
    title: &str,
    x_unit: &str,
    y_unit: &str,
    x: impl Fn(&Cell) -> u64,
    figure: Figure,
) -> String {
    let mut lines: Vec<chart::Line> = Vec::new();
    for cell in cells.iter().filter(|c| is_chosen(c)) {
        let Some(value) = Spread::of(cell.rounds.iter().map(figure)) else { continue };
        if !lines.iter().any(|(name, _)| name == cell.name) {
            lines.push((cell.name.to_owned(), Vec::new()));
        }
        if let Some((_, points)) = lines.iter_mut().find(|(name, _)| name == cell.name) {
            points.push((x(cell) as f64, value.median));
        }
    }
    // Times differ by factors of hundreds, throughput does not.
    let scale = if y_unit.starts_with("milliseconds") { Scale::Decades } else { Scale::Even };
    chart::lines(title, x_unit, y_unit, scale, &lines)
}
