//! Many cases in one table: three equal links of each delay, loss and rate, with each congestion control, each peer once.
//!
//! A fetch is stopped when its time is up; what it had brought by then counts. That is what TCP has brought to the client over the
//! first link, headers not counted: the same measure for all, whatever a client still holds back from its file.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::hosts::{Hosts, Network};
use super::{Options, given};
use crate::chain::available;
use crate::daemon::machine_busy;
use crate::fetch;
use crate::machine::Machine;
use crate::peers::{Chain, Variant};
use crate::sample::{self, Workspace};

mod report;

/// Links in each case.
const LINKS: usize = 3;
/// What starting hosts and peers takes in each case besides the fetches, about.
const START: Duration = Duration::from_secs(8);

/// What is different from case to case.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Case {
    /// Milliseconds one way, of each link.
    delay: u64,
    /// Percent, of each link and way.
    loss: f64,
    /// Mbit/s.
    rate: u64,
    congestion: String,
}

/// One fetch.
#[derive(Clone, Debug, Serialize)]
struct Fetched {
    peer: &'static str,
    #[serde(flatten)]
    result: Outcome,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// It arrived, and was compared with what was sent.
    Whole {
        seconds: f64,
        mbit_a_second: f64,
    },
    /// It was stopped.
    Stopped {
        seconds: f64,
        mbit_a_second: f64,
    },
    Failed {
        why: String,
    },
}

/// All that was measured in a case.
#[derive(Debug, Serialize)]
struct Row {
    case: Case,
    fetched: Vec<Fetched>,
    /// How much of the machine's processors was busy in the fetch that needed most of them, of 1.
    most_busy: f64,
}

/// Runs all cases for which there is time, and reports.
pub fn run(options: &Options) -> Result<()> {
    let limit = Duration::from_secs_f64(options.limit.clamp(1.0, 600.0));
    let until = Instant::now() + Duration::from_secs_f64(options.minutes.clamp(0.0, 1440.0) * 60.0);
    let (present, mut missing) = available(&options.peers);
    let programs: Vec<&str> = present.iter().flat_map(|v| v.programs()).copied().collect();
    let machine = Machine::describe(&programs);
    let longest = START + limit * u32::try_from(present.len())?;
    let mut rows = Vec::new();
    for (i, case) in cases(options).into_iter().enumerate() {
        if Instant::now() + longest > until {
            missing.push(format!("{}: no time was left", case.text()));
            continue;
        }
        let row = measure(options, &case, &present, limit, i).with_context(|| case.text())?;
        eprintln!("{}: {}", case.text(), report::line(&row));
        rows.push(row);
    }
    println!("{}", machine.text());
    println!("{}", report::text(&rows, limit));
    missing.iter().for_each(|reason| println!("left out: {reason}"));
    options.output.json("lab-matrix", &machine, &missing, &rows)?;
    for congestion in &options.congestion {
        options.output.chart(&format!("lab-matrix-{congestion}"), &report::drawing(&rows, congestion))?;
    }
    Ok(())
}

/// Both congestion controls of a case follow each other, so that a run that is cut short has pairs.
fn cases(options: &Options) -> Vec<Case> {
    let mut cases = Vec::new();
    for &delay in given(&options.delays, &[5, 15, 50]) {
        for &loss in given(&options.loss, &[0.0, 0.2, 1.0]) {
            for &rate in given(&options.rates, &[20, 100, 500]) {
                for congestion in &options.congestion {
                    cases.push(Case { delay, loss, rate, congestion: congestion.clone() });
                }
            }
        }
    }
    cases
}

impl Case {
    fn text(&self) -> String {
        let Case { delay, loss, rate, congestion } = self;
        format!("{delay} ms, {loss}% loss, {rate} Mbit/s, {congestion}")
    }

    /// As many bytes as a link brings in half of the time that a fetch has.
    fn size(&self, limit: Duration) -> u64 {
        let millis = u64::try_from(limit.as_millis() / 2).unwrap_or(u64::MAX);
        (self.rate * 125).saturating_mul(millis)
    }
}

/// Runs one case; the peers take turns in being the first.
fn measure(
    options: &Options,
    case: &Case,
    variants: &[Variant],
    limit: Duration,
    turn: usize,
) -> Result<Row> {
    let home = Workspace::new()?;
    let file = home.add("sample", case.size(limit))?;
    let delays = [case.delay; LINKS];
    let round_trip = 2 * delays.iter().sum::<u64>();
    let (loss, queue, seed) = (case.loss, options.queue, options.seed);
    let network = Network { loss, queue, round_trip, seed, congestion: &case.congestion };
    let hosts = Hosts::line(&delays, &[case.rate], &network)?;
    let mut row = Row { case: case.clone(), fetched: Vec::new(), most_busy: 0.0 };
    let mut order = variants.to_vec();
    order.rotate_left(turn % variants.len().max(1));
    for variant in order {
        let result = fetch_once(options, &hosts, variant, &file, limit, &mut row.most_busy);
        let result = result.unwrap_or_else(|error| Outcome::Failed { why: format!("{error:#}") });
        row.fetched.push(Fetched { peer: variant.name(), result });
    }
    let place = |f: &Fetched| variants.iter().position(|v| v.name() == f.peer);
    row.fetched.sort_by_key(place);
    Ok(row)
}

/// Starts a peer's chain, fetches through it, and ends it, so that peers do not disturb each other.
fn fetch_once(
    options: &Options,
    hosts: &Hosts,
    variant: Variant,
    file: &Path,
    limit: Duration,
    most_busy: &mut f64,
) -> Result<Outcome> {
    let home = file.parent().context("the sample has no directory")?;
    let mut chain = Chain::start_at(variant, &hosts.sites(), hosts.client()?, file, home)?;
    chain.client_options.clone_from(&options.client_option);
    let out = home.join("arrived");
    let steps = chain.fetch(file, &out)?;
    let program = steps.first().and_then(|step| step.first()).context("nothing to run")?;
    let (before, busy, started) = (hosts.delivered(), machine_busy()?, Instant::now());
    let is_whole = fetch::run_within(program, limit)?;
    let seconds = started.elapsed().as_secs_f64();
    *most_busy = most_busy.max(share(machine_busy()?.saturating_sub(busy), seconds));
    let delivered = hosts.delivered() - before;
    chain.check()?;
    let outcome = if is_whole {
        sample::ensure_same(&out, file)?;
        Outcome::Whole { seconds, mbit_a_second: megabits(file.metadata()?.len()) / seconds }
    } else {
        Outcome::Stopped { seconds, mbit_a_second: megabits(delivered) / seconds }
    };
    fetch::clear(&out)?;
    drop(chain);
    hosts.wait_until_quiet(Duration::from_millis(500));
    Ok(outcome)
}

#[allow(clippy::cast_precision_loss, reason = "sizes below 2^53 are exact in an f64")]
fn megabits(bytes: u64) -> f64 {
    bytes as f64 * 8.0 / 1e6
}

/// How much of all processors worked, of 1.
#[allow(clippy::cast_precision_loss, reason = "a machine has few processors")]
fn share(worked: Duration, seconds: f64) -> f64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    worked.as_secs_f64() / cores / seconds
}

impl Outcome {
    fn rate(&self) -> Option<f64> {
        match self {
            Outcome::Whole { mbit_a_second, .. } | Outcome::Stopped { mbit_a_second, .. } => {
                Some(*mbit_a_second)
            }
            Outcome::Failed { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_brings_a_file_in_half_of_the_limit() {
        let case = Case { delay: 5, loss: 0.0, rate: 100, congestion: "bbr".to_owned() };
        assert_eq!(case.size(Duration::from_secs(10)), 62_500_000);
        assert_eq!(case.size(Duration::from_millis(1)), 0);
    }
}
