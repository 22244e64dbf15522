//! `relay-bench siege`: what cheap attacks cost a node, and what an honest client beside them notices.
//!
//! Each attack runs from an address of its own against a fresh node; an honest client fetches a small file before it, while it runs, and
//! five seconds after it. Everything is bounded in count and time.

use std::fs;
use std::io::PipeReader;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::time::{sleep, timeout};

use crate::daemon::Daemon;
use crate::direct;
use crate::machine::Machine;
use crate::memory::raise_descriptors;
use crate::peers::relay_node_command;
use crate::report::{Output, table};
use crate::sample::Workspace;
use crate::site::Site;
use crate::stats::Spread;

mod attack;
mod ground;

use attack::{Attack, Siege};
use ground::{Ground, part_from_other_mounts};

/// How long an attack runs before the honest client is looked at.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long after an attack the node should be as it was.
const AFTER: Duration = Duration::from_secs(5);
/// What counts as no answer.
const NO_ANSWER: Duration = Duration::from_secs(20);

/// What to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// The attacks
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Attack::value_variants().to_vec())]
    attacks: Vec<Attack>,
    /// Connections of an attacker
    #[arg(long, default_value_t = 600)]
    connections: usize,
    /// Fetches of the honest client, before, during and after
    #[arg(long, default_value_t = 200)]
    probes: usize,
    /// Fail when the honest client's 99th percentile during an attack is more than so many times the one before
    #[arg(long, default_value_t = f64::INFINITY)]
    at_most: f64,
    #[command(flatten)]
    output: Output,
}

/// A node at one time.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sight {
    /// The honest client's times in milliseconds: the median, and what 99 of 100 stay below.
    p50: f64,
    p99: f64,
    /// Share of one processor, in percent.
    cpu: f64,
    resident_mib: f64,
    descriptors: usize,
    /// What it has written to its log so far.
    log_kib: u64,
}

/// An attack, and the node before, during and after it.
#[derive(Debug, Serialize)]
struct Besieged {
    attack: Attack,
    before: Sight,
    during: Sight,
    after: Sight,
    /// How often the node asked a name server, where that was watched.
    questions: Option<usize>,
}

/// Runs every attack and reports.
///
/// # Errors
/// What could not run, and that the honest client waited for too long.
pub fn run(options: &Options) -> Result<()> {
    let machine = Machine::describe(&[]);
    raise_descriptors()?;
    let parted = options.attacks.iter().any(|a| a.mounts()).then(part_from_other_mounts);
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    for &attack in &options.attacks {
        if let Some(Err(e)) = parted.as_ref().filter(|_| attack.mounts()) {
            eprintln!("{attack:?} skipped: {e:#}");
            continue;
        }
        eprintln!("{attack:?} …");
        // What one of them does to the node must not hide what the others do.
        match besiege(options, attack) {
            Ok(besieged) => all.push(besieged),
            Err(e) => failed.push(format!("{attack:?}: {e:#}")),
        }
    }
    println!("{}", machine.text());
    println!(
        "{} connections from one address; {} fetches of 1 KiB from another, each before, during and {} s after\n",
        options.connections,
        options.probes,
        AFTER.as_secs()
    );
    println!("{}", text(&all));
    for (attack, questions) in all.iter().filter_map(|b| Some((b.attack, b.questions?))) {
        println!("{attack:?}: the name server was asked {questions} times\n");
    }
    options.output.json("siege", &machine, &[], &all)?;
    ensure!(failed.is_empty(), "not measured: {}", failed.join("; "));
    for Besieged { attack, before, during, .. } in &all {
        let ratio = during.p99 / before.p99;
        ensure!(ratio <= options.at_most, "{attack:?}: the honest client's p99 was {ratio:.1} times as long");
    }
    Ok(())
}

fn besiege(options: &Options, attack: Attack) -> Result<Besieged> {
    let home = Workspace::new()?;
    home.add("small", 1024)?;
    // Before the node starts, and gone after it.
    let ground = Ground::lay(attack, home.files(), home.path())?;
    let honest = Honest::beside(attack, &home, options.probes)?;
    honest.look()?;
    let before = honest.look()?;
    let siege = Siege::begin(attack, options.connections, honest.node.address(), ground.silent_hop()?);
    thread::sleep(WARM_UP);
    let during = honest.look()?;
    let siege = if attack.stays() { Some(siege) } else { siege.end().map(|()| None)? };
    thread::sleep(AFTER);
    let after = honest.look()?;
    siege.map_or(Ok(()), Siege::end)?;
    Ok(Besieged { attack, before, during, after, questions: ground.questions() })
}

/// A client that only wants its file.
struct Honest {
    node: Daemon,
    log: PathBuf,
    probes: usize,
    /// The other end of the node's standard error, where nobody reads.
    _unread: Option<PipeReader>,
}

impl Honest {
    /// One beside a fresh node.
    fn beside(attack: Attack, home: &Workspace, probes: usize) -> Result<Honest> {
        let log = home.path().join("node.log");
        let mut command = relay_node_command(&Site::loopback(), home.files())?;
        command.args(["--max-connections", "2000"]);
        if attack != Attack::StalledLog {
            let node = Daemon::start_announcing("relay-node", command, &log)?;
            return Ok(Honest { node, log, probes, _unread: None });
        }
        let (unread, errors) = std::io::pipe()?;
        let node = Daemon::start_with_errors_to("relay-node", command, &log, errors.into())?;
        Ok(Honest { node, log, probes, _unread: Some(unread) })
    }

    fn look(&self) -> Result<Sight> {
        let route = direct::route("small", [self.node.address()].into_iter())?;
        let (cpu, started) = (self.node.cpu()?, Instant::now());
        let times = direct::runtime()?.block_on(async {
            let mut times = Vec::new();
            for _ in 0..self.probes {
                let started = Instant::now();
                match timeout(NO_ANSWER, direct::fetch(&route)).await {
                    Ok(size) => ensure!(size? == 1024, "another file came"),
                    // It counts as what was waited for, and one is enough to know.
                    Err(_) => {
                        times.push(NO_ANSWER.as_secs_f64() * 1e3);
                        break;
                    }
                }
                times.push(started.elapsed().as_secs_f64() * 1e3);
                sleep(Duration::from_millis(5)).await;
            }
            Ok(times)
        })?;
        let (elapsed, cpu) = (started.elapsed(), self.node.cpu()?.saturating_sub(cpu));
        let memory = self.node.memory()?;
        #[allow(clippy::cast_precision_loss, reason = "a few hundred MiB in KiB")]
        let resident_mib = memory.resident as f64 / 1024.0;
        Ok(Sight {
            p50: Spread::of(times.iter().copied()).context("no fetch ran")?.median,
            p99: percentile_99(times).context("no fetch ran")?,
            cpu: 100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64(),
            resident_mib,
            descriptors: self.node.descriptors()?,
            log_kib: fs::metadata(&self.log)?.len() >> 10,
        })
    }
}

fn percentile_99(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    times.get((times.len() * 99).div_ceil(100).checked_sub(1)?).copied()
}

fn text(all: &[Besieged]) -> String {
    let mut rows = Vec::new();
    for Besieged { attack, before, during, after, .. } in all {
        for (when, sight) in [("before", before), ("during", during), ("after", after)] {
            rows.push(vec![
                format!("{attack:?}, {when}"),
                format!("{:.2}", sight.p50),
                format!("{:.2}", sight.p99),
                format!("{:.0} %", sight.cpu),
                format!("{:.1}", sight.resident_mib),
                sight.descriptors.to_string(),
                sight.log_kib.to_string(),
            ]);
        }
    }
    table(&["attack", "p50 ms", "p99 ms", "CPU", "resident MiB", "descriptors", "log KiB"], &rows)
}
