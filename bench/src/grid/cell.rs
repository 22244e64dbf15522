//! One cell: all its variants, taking turns within the time that the cell has.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use super::Options;
use super::plan::Place;
use crate::chain::Sink;
use crate::daemon::{machine_busy, settle};
use crate::fetch;
use crate::peers::{Chain, Variant};
use crate::platform;
use crate::stats::Spread;

/// One round of one cell.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Round {
    pub(super) megabytes_a_second: f64,
    pub(super) files_a_second: f64,
    /// CPU seconds a GB a relay.
    pub(super) relay_cpu: f64,
    /// CPU seconds a GB of the whole machine.
    pub(super) machine_cpu: f64,
    /// The most memory that one relay held, MiB.
    pub(super) relay_peak: f64,
    /// From starting one more client to the first byte that it lets out, milliseconds.
    pub(super) first_byte: f64,
}

/// One figure of a round.
pub(super) type Figure = fn(&Round) -> f64;

/// One variant in one cell.
#[derive(Debug, Serialize)]
pub(super) struct Cell {
    pub(super) variant: Variant,
    pub(super) name: &'static str,
    pub(super) relays: usize,
    pub(super) clients: usize,
    pub(super) size: u64,
    pub(super) sink: Sink,
    pub(super) rounds: Vec<Round>,
    /// It was so slow that its warm-up is its only round.
    pub(super) is_warm_up: bool,
    /// Throughput of this project over this variant's, pair by pair.
    pub(super) ratio: Option<Spread>,
    /// CPU of this project's relays over this variant's, pair by pair.
    pub(super) relay_cpu_ratio: Option<Spread>,
}

/// A variant while its cell is measured.
struct Running<'a> {
    chain: &'a mut Chain,
    /// Fetches a round.
    fetches: usize,
    /// Rounds after the warm-up; none when the warm-up is the only one.
    most_rounds: usize,
    rounds: Vec<Round>,
}

/// How many times its share of a cell's time a variant may be expected to need; one that needs more would cost other cells theirs.
const PATIENCE: f64 = 8.0;

/// What a warm-up may take in any case before it is the only round, and before a variant is left out.
const SHORT: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(15);

/// What cells have in common.
pub(super) struct Bench<'a> {
    pub(super) options: &'a Options,
    /// Where downloads go.
    pub(super) home: &'a Path,
    /// What was not measured, and why.
    pub(super) missing: Vec<String>,
    /// The best that a variant has brought over so many relays, in bytes a second.
    pub(super) fastest: BTreeMap<(&'static str, usize), f64>,
}

impl Bench<'_> {
    /// Measures a cell within about `time`. What fails or is left out is named and does not end the others.
    pub(super) fn measure(
        &mut self,
        place: &Place,
        chains: &mut [Chain],
        file: &Path,
        time: Duration,
    ) -> Vec<Cell> {
        let mut chains: Vec<&mut Chain> = chains.iter_mut().collect();
        let share = time / u32::try_from(chains.len()).unwrap_or(1).max(1);
        chains.retain(|chain| self.takes_part(place, chain.variant, share));
        let mut running = Vec::new();
        for chain in chains {
            let variant = chain.variant;
            match begin(self.options, place, chain, file, self.home, share) {
                Ok(one) => running.push(one),
                Err(error) => self.note(place, variant, &format!("failed: {error:#}")),
            }
        }
        for number in 0..self.options.rounds {
            self.take_turns(place, file, number, &mut running);
        }
        let cells = with_ratios(place, &running);
        for cell in &cells {
            let best = cell.rounds.iter().map(|r| r.megabytes_a_second * 1e6).fold(0.0, f64::max);
            let known = self.fastest.entry((cell.name, cell.relays)).or_default();
            *known = known.max(best);
        }
        cells
    }

    #[allow(clippy::cast_precision_loss, reason = "sizes below 2^53 are exact in an f64")]
    fn takes_part(&mut self, place: &Place, variant: Variant, share: Duration) -> bool {
        let bytes = place.size as f64 * place.clients as f64;
        let fastest = self.fastest.get(&(variant.name_with(place.relays), place.relays));
        let seconds = fastest.map_or(0.0, |rate| bytes / rate);
        match place.leaves_out(variant) {
            Some("") => return false,
            Some(reason) => self.note(place, variant, reason),
            None if variant != Variant::Relay
                && seconds > share.mul_f64(PATIENCE).max(LONG).as_secs_f64() =>
            {
                self.note(place, variant, &format!("would take about {seconds:.0} s"));
            }
            None => return true,
        }
        false
    }

    /// One round of every variant; another one begins each time.
    fn take_turns(&mut self, place: &Place, file: &Path, number: usize, running: &mut Vec<Running<'_>>) {
        let count = running.len();
        let mut gone = Vec::new();
        for i in (0..count).map(|turn| (turn + number) % count) {
            let Some(one) = running.get_mut(i).filter(|one| number < one.most_rounds) else { continue };
            match round(one.chain, file, self.home, place, one.fetches) {
                Ok(round) => one.rounds.push(round),
                Err(error) => {
                    self.note(place, one.chain.variant, &format!("failed: {error:#}"));
                    gone.push(one.chain.variant);
                }
            }
        }
        running.retain(|one| !gone.contains(&one.chain.variant));
    }

    fn note(&mut self, place: &Place, variant: Variant, why: &str) {
        self.missing.push(format!("{}, {}: {why}", place.text(), variant.name()));
    }
}

/// Warms up, which tells how many rounds and fetches fit into a variant's share of time. One round does unless the variant is much
/// too slow: then the warm-up is its only one. This project always has one, for the others are compared with it.
fn begin<'a>(
    options: &Options,
    place: &Place,
    chain: &'a mut Chain,
    file: &Path,
    home: &Path,
    share: Duration,
) -> Result<Running<'a>> {
    let started = Instant::now();
    let warm_up = round(chain, file, home, place, place.clients)?;
    let took = started.elapsed();
    if took > (share * 2).max(SHORT) && chain.variant != Variant::Relay {
        return Ok(Running { chain, fetches: place.clients, most_rounds: 0, rounds: vec![warm_up] });
    }
    let seconds = took.as_secs_f64().max(1e-3);
    let left = share.saturating_sub(took).as_secs_f64();
    let most_rounds = whole(left / seconds).min(options.rounds.max(1));
    let a_round = (left / rounds_in_f64(most_rounds)).min(options.round_seconds);
    let affordable = usize::try_from(options.budget / place.size.max(1))?;
    let most = affordable.min(options.fetches).max(place.clients);
    let fetches = most.min(place.clients * whole(a_round / seconds));
    Ok(Running { chain, fetches, most_rounds, rounds: Vec::new() })
}

#[allow(clippy::cast_precision_loss, reason = "a few rounds")]
fn rounds_in_f64(rounds: usize) -> f64 {
    rounds as f64
}

fn with_ratios(place: &Place, running: &[Running<'_>]) -> Vec<Cell> {
    let all = |rounds: &[Round], of: Figure| rounds.iter().map(of).collect::<Vec<f64>>();
    let (rate, cpu): (Figure, Figure) = (|r| r.megabytes_a_second, |r| r.relay_cpu);
    let mine = running.iter().find(|one| one.chain.variant == Variant::Relay).map(|one| one.rounds.clone());
    let ratio = |rounds: &[Round], of| Spread::of_ratios(&all(mine.as_ref()?, of), &all(rounds, of));
    let cells = running.iter().map(|one| Cell {
        variant: one.chain.variant,
        name: one.chain.variant.name_with(place.relays),
        relays: place.relays,
        clients: place.clients,
        size: place.size,
        sink: place.sink,
        is_warm_up: one.most_rounds == 0,
        ratio: ratio(&one.rounds, rate),
        relay_cpu_ratio: ratio(&one.rounds, cpu),
        rounds: one.rounds.clone(),
    });
    cells.collect()
}

/// As a whole number, 1 at least.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
fn whole(batches: f64) -> usize {
    batches.clamp(1.0, 1e6) as usize
}

#[allow(clippy::cast_precision_loss, reason = "sizes below 2^53 are exact in an f64")]
fn round(chain: &mut Chain, file: &Path, home: &Path, place: &Place, fetches: usize) -> Result<Round> {
    let Place { size, clients, sink, .. } = *place;
    chain.daemons().iter().try_for_each(|d| d.reset_peak())?;
    let before = relay_cpu(chain)?;
    let busy_before = machine_busy()?;
    let started = Instant::now();
    let todo = AtomicUsize::new(fetches);
    let shared = &*chain;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|i| {
                let (out, todo) = (self::out(sink, home, i), &todo);
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

fn out(sink: Sink, home: &Path, client: usize) -> PathBuf {
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
