//! One case: a line of hosts, all peers taking turns, round after round.

use std::path::Path;

use anyhow::Result;

use super::Options;
use super::hosts::Hosts;
use super::report::{Series, told};
use crate::chain::available;
use crate::fetch::{self, measure};
use crate::machine::Machine;
use crate::peers::{Chain, Variant};
use crate::sample::{self, Workspace};

/// Runs it and reports.
pub fn run(options: &Options) -> Result<()> {
    let (present, missing) = available(&options.peers);
    let programs: Vec<&str> = present.iter().flat_map(|v| v.programs()).copied().collect();
    let machine = Machine::describe(&programs);
    let home = Workspace::new()?;
    let file = home.add("sample", options.size)?;
    let round_trip = 2 * options.delays().iter().sum::<u64>();
    let mut series = Vec::new();
    for congestion in &options.congestion {
        let network = options.network(round_trip, congestion)?;
        let hosts = Hosts::line(options.delays(), options.rates(), &network)?;
        series.extend(rounds(options, &hosts, congestion, &present, &file, &home.path().join(congestion))?);
        hosts.tell();
    }
    println!("{}", machine.text());
    println!("{}", options.case()?);
    println!("{}", super::report::text(&series));
    missing.iter().for_each(|reason| println!("left out: {reason}"));
    options.output.json("lab", &machine, &missing, &series)
}

fn rounds(
    options: &Options,
    hosts: &Hosts,
    congestion: &str,
    variants: &[Variant],
    file: &Path,
    work: &Path,
) -> Result<Vec<Series>> {
    let mut running = Vec::new();
    for &variant in variants {
        let mut chain = Chain::start_at(variant, &hosts.sites(), hosts.client()?, file, work)?;
        chain.client_options.clone_from(&options.client_option);
        running.push((chain, Series::new(variant, variant.name(), congestion)));
    }
    let out = work.join("arrived");
    let warm_up = usize::from(options.warm_up);
    for round in 0..options.rounds + warm_up {
        for turn in 0..running.len() {
            let i = (turn + round) % running.len();
            let Some((chain, series)) = running.get_mut(i) else { continue };
            let result = hosts.with_cut(options.cut(), || {
                let sample = measure(chain, file, &out)?;
                sample::ensure_same(&out, file)?;
                Ok(sample)
            });
            eprintln!("{congestion}, round {}, {}: {}", round + 1, series.name, told(&result));
            if round >= warm_up {
                series.take(result);
            }
            fetch::clear(&out)?;
        }
    }
    Ok(running.into_iter().map(|(_, series)| series).collect())
}
