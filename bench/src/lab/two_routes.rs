//! Two routes from one client to one origin, which have no link in common; each alone, and both in one route file.
//!
//! ```text
//! client  --link 1--  relay A  --link 2--  origin
//! client  --link 3--  relay B  --link 4--  origin
//! ```

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

use super::Options;
use super::hosts::{Hosts, Joint};
use super::report::{Series, told};
use crate::daemon::Daemon;
use crate::fetch::{self, Sample};
use crate::invocation::Invocation;
use crate::machine::Machine;
use crate::peers::{Variant, own, relay_node_on};
use crate::report::spread;
use crate::sample::{self, Workspace};
use crate::site::Site;
use crate::stats::Spread;

/// Runs it and reports.
pub fn run(options: &Options) -> Result<()> {
    let machine = Machine::describe(&[]);
    let home = Workspace::new()?;
    let file = home.add("sample", options.size)?;
    let mut series = Vec::new();
    for congestion in &options.congestion {
        let hosts = join(options, congestion)?;
        let ways = Ways::start(&hosts, home.files(), home.path())?;
        let mut all: Vec<Series> =
            Ways::NAMES.iter().map(|name| Series::new(Variant::Relay, name, congestion)).collect();
        for round in 0..options.rounds {
            for turn in 0..all.len() {
                let way = (turn + round) % all.len();
                let Some(series) = all.get_mut(way) else { continue };
                let result = hosts.with_cut(options.cut(), || ways.fetch(way, options, &file, home.path()));
                eprintln!("{congestion}, round {}, {}: {}", round + 1, series.name, told(&result));
                series.take(result);
            }
        }
        hosts.tell();
        series.extend(all);
    }
    println!("{}", machine.text());
    println!("two routes; of each route both links alike. {}", options.case()?);
    println!("{}", super::report::text(&series));
    for of_one in series.chunks(Ways::NAMES.len()) {
        let rates = |s: &Series| s.samples.iter().map(|s| s.megabytes_a_second).collect::<Vec<f64>>();
        if let [first, second, both] = of_one {
            let best: Vec<f64> = rates(first).iter().zip(rates(second)).map(|(a, b)| a.max(b)).collect();
            let ratio = spread(Spread::of_ratios(&rates(both), &best), 2);
            println!("{}: both routes ÷ the better one alone: {ratio}", both.congestion);
        }
    }
    options.output.json("lab-two-routes", &machine, &[], &series)
}

/// Two ways from host 0 to host 3.
fn join(options: &Options, congestion: &str) -> Result<Hosts> {
    let of =
        |all: &[u64], i: usize| all.get(i).or(all.first()).copied().context("no delay or no rate is given");
    let mut joints = Vec::new();
    for (route, relay) in [(0, 1), (1, 2)] {
        let (delay, rate) = (of(options.delays(), route)?, of(options.rates(), route)?);
        joints.push(Joint { left: 0, right: relay, delay, rate });
        joints.push(Joint { left: relay, right: 3, delay, rate });
    }
    let longest = joints.iter().map(|j| j.delay).max().unwrap_or(0);
    Hosts::join(&joints, &options.network(4 * longest, congestion)?)
}

/// The programs of the two routes, and their route files.
struct Ways {
    // Kept, for dropping them ends the processes.
    _nodes: Vec<Daemon>,
    client: Site,
    routes: [PathBuf; 3],
}

impl Ways {
    const NAMES: [&str; 3] = ["route 1 alone", "route 2 alone", "both routes"];

    fn start(hosts: &Hosts, files: &Path, home: &Path) -> Result<Ways> {
        let log = |name: &str| home.join(format!("{name}.log"));
        // The origin has an address on either route; all namespaces are its own, so the port is free.
        let (origin_a, origin_b) = (hosts.site(3, 2)?, hosts.site(3, 4)?);
        let addresses = [&origin_a, &origin_b].map(|site| SocketAddr::new(site.ip(), 9000));
        let origin = relay_node_on(&origin_a, &addresses, files, &log("origin"))?;
        let mut nodes = vec![origin];
        let mut lines = Vec::new();
        for (host, link, origin) in [(1, 1, addresses[0]), (2, 3, addresses[1])] {
            let site = hosts.site(host, link)?;
            let relay = SocketAddr::new(site.ip(), 9000);
            nodes.push(relay_node_on(&site, &[relay], home, &log(&format!("relay-{host}")))?);
            lines.push(format!("sample\n{relay}\n{origin}\n"));
        }
        let routes = ["route-1.txt", "route-2.txt", "routes.txt"].map(|name| home.join(name));
        let both = lines.join("or\n");
        for (path, text) in routes.iter().zip(lines.iter().chain([&both])) {
            fs::write(path, text)?;
        }
        Ok(Ways { _nodes: nodes, client: hosts.client()?, routes })
    }

    fn fetch(&self, way: usize, options: &Options, file: &Path, home: &Path) -> Result<Sample> {
        let (out, route) = (home.join("arrived"), self.routes.get(way).context("no such way")?);
        fetch::clear(&out)?;
        let mut client = Invocation::new(own("relay-client")?, &[&route, &"--quiet", &"-o", &out]);
        client.arguments.extend(options.client_option.iter().map(Into::into));
        self.client.enclose(&mut client);
        let started = Instant::now();
        let used = fetch::run(&[vec![client]])?;
        let seconds = started.elapsed().as_secs_f64();
        sample::ensure_same(&out, file)?;
        fetch::clear(&out)?;
        Ok(Sample::of_client(options.size, seconds, used))
    }
}
