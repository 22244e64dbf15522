//! `relay-bench chain`: one file through one chain, every variant in turn, round after round.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::chart;
use crate::fetch::{Sample, is_file, measure};
use crate::machine::Machine;
use crate::peers::{Chain, Variant};
use crate::report::{Output, median, spread, table};
use crate::sample::{self, Workspace};
use crate::stats::Spread;

/// Where the bytes end.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Sink {
    /// A file in memory
    File,
    /// Nowhere
    Null,
}

impl Sink {
    /// The path to fetch to.
    pub fn path(self, dir: &Path) -> PathBuf {
        match self {
            Sink::File => dir.join("arrived"),
            Sink::Null => PathBuf::from("/dev/null"),
        }
    }
}

/// What to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// Relays between the client and the origin
    #[arg(long, default_value_t = 3)]
    relays: usize,
    /// Size of the file, like 64MiB
    #[arg(long, default_value = "1GiB", value_parser = sample::parse_size)]
    size: u64,
    /// Rounds that count; one more comes before them as a warm-up
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// What to run, in any order
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Variant::Relay, Variant::BareRelays, Variant::Bound, Variant::Haproxy, Variant::HaproxyB3sum])]
    peers: Vec<Variant>,
    /// Where the bytes end
    #[arg(long, value_enum, default_value_t = Sink::File)]
    sink: Sink,
    #[command(flatten)]
    output: Output,
}

/// All rounds of one variant.
#[derive(Debug, Serialize)]
pub struct Series {
    variant: Variant,
    name: &'static str,
    verifies: bool,
    samples: Vec<Sample>,
    /// Throughput of this project over this variant's, pair by pair.
    ratio: Option<Spread>,
    /// A relay's CPU time of this project over this variant's, pair by pair.
    relay_cpu_ratio: Option<Spread>,
}

impl Series {
    fn spread(&self, of: impl Fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples.iter().map(of))
    }

    fn all(&self, of: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.iter().map(of).collect()
    }
}

/// Runs it all and reports.
pub fn run(options: &Options) -> Result<()> {
    let (present, missing) = available(&options.peers);
    let programs: Vec<&str> = present.iter().flat_map(|v| v.programs()).copied().collect();
    let machine = Machine::describe(&programs);
    let series = interleaved(options, &present)?;
    println!("{}", machine.text());
    println!(
        "{} through {} relays to {:?}, {} rounds; medians [quartiles]; CPU in seconds a GB (10^9 bytes)\n",
        sample::size_text(options.size),
        options.relays,
        options.sink,
        options.rounds
    );
    println!("{}", text(&series));
    for reason in &missing {
        println!("left out: {reason}");
    }
    let name = format!("chain-{}-relays-{:?}", options.relays, options.sink).to_lowercase();
    options.output.json(&name, &machine, &missing, &series)?;
    options.output.chart(&name, &drawing(options, &series))
}

/// Those of the variants that can run here, and why the others cannot.
pub fn available(wanted: &[Variant]) -> (Vec<Variant>, Vec<String>) {
    let (mut present, mut missing) = (Vec::new(), Vec::new());
    for &variant in wanted {
        match variant.missing() {
            None => present.push(variant),
            Some(reason) => missing.push(format!("{}: {reason}", variant.name())),
        }
    }
    (present, missing)
}

fn interleaved(options: &Options, variants: &[Variant]) -> Result<Vec<Series>> {
    if variants.is_empty() {
        bail!("nothing to run: none of the chosen peers is installed");
    }
    let home = Workspace::new()?;
    let file = home.add("sample", options.size)?;
    let out = options.sink.path(home.path());
    let mut chains = variants
        .iter()
        .map(|&v| Chain::start(v, options.relays, &file, home.path()))
        .collect::<Result<Vec<Chain>>>()?;
    for chain in &mut chains {
        measure(chain, &file, &out)?;
        if is_file(&out) {
            sample::ensure_same(&out, &file)?;
        }
    }
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); chains.len()];
    for round in 0..options.rounds {
        for turn in 0..chains.len() {
            // Nobody is always first, or always behind the same neighbour's mess.
            let i = (turn + round) % chains.len();
            if let (Some(chain), Some(samples)) = (chains.get_mut(i), samples.get_mut(i)) {
                samples.push(measure(chain, &file, &out)?);
            }
        }
        eprintln!("round {} of {}", round + 1, options.rounds);
    }
    Ok(with_ratios(variants, samples))
}

fn with_ratios(variants: &[Variant], samples: Vec<Vec<Sample>>) -> Vec<Series> {
    let mut series: Vec<Series> = variants
        .iter()
        .zip(samples)
        .map(|(&variant, samples)| Series {
            variant,
            name: variant.name(),
            verifies: variant.verifies(),
            samples,
            ratio: None,
            relay_cpu_ratio: None,
        })
        .collect();
    let rates = |series: &Series| series.all(|s| s.megabytes_a_second);
    let relay_cpu = |series: &Series| series.all(|s| s.relay_cpu);
    let mine = series.iter().find(|s| s.variant == Variant::Relay);
    let Some((my_rates, my_relay_cpu)) = mine.map(|mine| (rates(mine), relay_cpu(mine))) else {
        return series;
    };
    for other in &mut series {
        other.ratio = Spread::of_ratios(&my_rates, &rates(other));
        other.relay_cpu_ratio = Spread::of_ratios(&my_relay_cpu, &relay_cpu(other));
    }
    series
}

fn text(series: &[Series]) -> String {
    let head = [
        "",
        "MB/s",
        "this project ÷ it",
        "relay CPU",
        "this project's ÷ it",
        "origin CPU",
        "client CPU",
        "machine CPU",
        "peak MiB relay/origin/client",
        "verified",
    ];
    let rows: Vec<Vec<String>> = series
        .iter()
        .map(|s| {
            vec![
                s.name.to_owned(),
                spread(s.spread(|s| s.megabytes_a_second), 0),
                spread(s.ratio, 2),
                spread(s.spread(|s| s.relay_cpu), 3),
                spread(s.relay_cpu_ratio, 2),
                median(s.spread(|s| s.origin_cpu), 3),
                median(s.spread(|s| s.client_cpu), 3),
                median(s.spread(|s| s.machine_cpu), 2),
                format!(
                    "{}/{}/{}",
                    median(s.spread(|s| s.relay_peak), 0),
                    median(s.spread(|s| s.origin_peak), 0),
                    median(s.spread(|s| s.client_peak), 0)
                ),
                if s.verifies { "yes" } else { "no" }.to_owned(),
            ]
        })
        .collect();
    table(&head, &rows)
}

fn drawing(options: &Options, series: &[Series]) -> String {
    let title = format!("{} through {} relays on loopback", sample::size_text(options.size), options.relays);
    let bars: Vec<chart::Bar> = series
        .iter()
        .filter_map(|s| Some((s.name.to_owned(), s.spread(|s| s.megabytes_a_second)?)))
        .collect();
    chart::bars(&title, "MB/s, median with quartiles; more is better", &bars)
}
