//! `relay-bench lab`: chains over wide-area links, hosts being network namespaces in a line.
//!
//! ```text
//! client  --link 1--  relay 1  --link 2--  relay 2  …  --link n--  origin
//! ```
//!
//! Host i and i+1 share link i+1, whose ends have the addresses 10.77.(i+1).1 and .2. There are no routes beyond: who wants to
//! reach the origin has to go through the relays, as in the networks that this is for.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::Serialize;

use crate::chain::available;
use crate::daemon::Daemon;
use crate::fetch::{self, Sample, measure};
use crate::link::{Link, MTU, Treatment};
use crate::machine::Machine;
use crate::peers::{Chain, Invocation, Variant, own, relay_node_on};
use crate::platform;
use crate::report::{Output, median, spread, table};
use crate::sample::{self, Workspace};
use crate::site::Site;
use crate::stats::Spread;

/// Where `ip netns` binds the namespaces that it makes.
const NAMESPACES: &str = "/run/netns";

/// What to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// One-way delay of each link in milliseconds; as many links as there are numbers
    #[arg(long, value_delimiter = ',', default_values_t = [15, 15, 15])]
    delays: Vec<u64>,
    /// Rate of each link in Mbit/s, one for all or one for each
    #[arg(long, value_delimiter = ',', default_values_t = [200])]
    rates: Vec<u64>,
    /// Packets lost at random on each link, in percent, each way
    #[arg(long, default_value_t = 0.2)]
    loss: f64,
    /// Bytes that may wait before a link; without it the bandwidth-delay product of the whole path at its rate
    #[arg(long, value_parser = sample::parse_size)]
    queue: Option<u64>,
    /// Congestion control of the hosts, one run with each
    #[arg(long, value_delimiter = ',', default_values_t = ["bbr".to_owned(), "reno".to_owned()])]
    congestion: Vec<String>,
    /// Cut this link (from 1) in each fetch
    #[arg(long)]
    cut: Option<usize>,
    /// When to cut it, in seconds from the start of a fetch
    #[arg(long, default_value_t = 1.0)]
    cut_after: f64,
    /// For how long, in seconds
    #[arg(long, default_value_t = 2.0)]
    cut_for: f64,
    /// Size of the file
    #[arg(long, default_value = "64MiB", value_parser = sample::parse_size)]
    size: u64,
    /// Rounds that count; none comes before them as a warm-up unless --warm-up
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Fetch once before the rounds
    #[arg(long)]
    warm_up: bool,
    /// Where the randomness of the losses starts
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What to run
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Variant::Relay, Variant::Ssh, Variant::Socat, Variant::Aria2])]
    peers: Vec<Variant>,
    /// Instead of a line of hosts: two routes to one origin, each alone and both in one route file. The first two delays and
    /// rates are those of the routes, for both of their links; --cut cuts the first link of route 1 or 2
    #[arg(long)]
    two_routes: bool,
    /// A further option for relay-client (again and again), like --client-option=--connections=16
    #[arg(long, allow_hyphen_values = true)]
    client_option: Vec<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Series {
    variant: Variant,
    name: &'static str,
    congestion: String,
    samples: Vec<Sample>,
    failures: Vec<String>,
}

/// Runs it and reports; without root it says so and does nothing.
pub fn run(options: &Options) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: the lab makes network namespaces and TUN devices, which needs root");
        return Ok(());
    }
    ensure!(!options.delays.is_empty(), "a chain has one link at least");
    if options.two_routes {
        return two_routes(options);
    }
    let (present, missing) = available(&options.peers);
    let programs: Vec<&str> = present.iter().flat_map(|v| v.programs()).copied().collect();
    let machine = Machine::describe(&programs);
    let home = Workspace::new()?;
    let file = home.add("sample", options.size)?;
    let mut series = Vec::new();
    for congestion in &options.congestion {
        // Fresh hosts for each, so that no metrics of earlier connections are remembered.
        let hosts = Hosts::build(options, congestion)?;
        series.extend(rounds(options, &hosts, congestion, &present, &file, &home.path().join(congestion))?);
        hosts.tell();
    }
    println!("{}", machine.text());
    println!("{}", case(options));
    println!("{}", text(&series));
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
            let result = hosts.with_cut(options, || {
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

fn told(result: &Result<Sample>) -> String {
    match result {
        Ok(sample) => format!("{:.0} Mbit/s", sample.megabytes_a_second * 8.0),
        Err(error) => format!("failed: {error:#}"),
    }
}

fn case(options: &Options) -> String {
    let cut = options.cut.map_or_else(String::new, |link| {
        format!(", link {link} cut after {} s for {} s", options.cut_after, options.cut_for)
    });
    format!(
        "{} over {} links of {:?} ms one way, {:?} Mbit/s, {}% loss each way{cut}; seed {}; queue {}\n",
        sample::size_text(options.size),
        options.delays.len(),
        options.delays,
        options.rates,
        options.loss,
        options.seed,
        options.queue.map_or_else(|| "of the path's bandwidth-delay product".to_owned(), sample::size_text),
    )
}

fn text(series: &[Series]) -> String {
    let rows: Vec<Vec<String>> = series
        .iter()
        .map(|s| {
            let of = |f: fn(&Sample) -> f64| Spread::of(s.samples.iter().map(f));
            vec![
                s.name.to_owned(),
                s.congestion.clone(),
                spread(of(|s| s.megabytes_a_second * 8.0), 1),
                spread(of(|s| s.seconds), 1),
                median(of(|s| s.relay_cpu), 2),
                s.failures.len().to_string(),
            ]
        })
        .collect();
    table(&["", "congestion", "Mbit/s", "seconds", "relay CPU s/GB", "failed"], &rows)
}

/// Two routes from one client to one origin, which have no link in common.
///
/// ```text
/// client  --link 1--  relay A  --link 2--  origin
/// client  --link 3--  relay B  --link 4--  origin
/// ```
fn two_routes(options: &Options) -> Result<()> {
    let machine = Machine::describe(&[]);
    let home = Workspace::new()?;
    let file = home.add("sample", options.size)?;
    let mut series = Vec::new();
    for congestion in &options.congestion {
        let hosts = Hosts::two_routes(options, congestion)?;
        let ways = Ways::start(&hosts, home.files(), home.path())?;
        let mut all: Vec<Series> =
            Ways::NAMES.iter().map(|name| Series::new(Variant::Relay, name, congestion)).collect();
        for round in 0..options.rounds {
            for turn in 0..all.len() {
                let way = (turn + round) % all.len();
                let Some(series) = all.get_mut(way) else { continue };
                let result = hosts.with_cut(options, || ways.fetch(way, options, &file, home.path()));
                eprintln!("{congestion}, round {}, {}: {}", round + 1, series.name, told(&result));
                series.take(result);
            }
        }
        hosts.tell();
        series.extend(all);
    }
    println!("{}", machine.text());
    println!("two routes; of each route both links alike. {}", case(options));
    println!("{}", text(&series));
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

impl Series {
    fn new(variant: Variant, name: &'static str, congestion: &str) -> Series {
        Series { variant, name, congestion: congestion.to_owned(), samples: Vec::new(), failures: Vec::new() }
    }

    fn take(&mut self, result: Result<Sample>) {
        match result {
            Ok(sample) => self.samples.push(sample),
            Err(error) => self.failures.push(format!("{error:#}")),
        }
    }
}

/// A link between two hosts: its delay in milliseconds and its rate in Mbit/s.
#[derive(Clone, Copy)]
struct Joint {
    left: usize,
    right: usize,
    delay: u64,
    rate: u64,
}

/// Namespaces, with links between some of them. Dropping it removes them.
struct Hosts {
    names: Vec<String>,
    links: Vec<Link>,
}

impl Hosts {
    /// In a line: host i and i+1 share link i+1.
    fn build(options: &Options, congestion: &str) -> Result<Hosts> {
        let joints = options.delays.iter().enumerate().map(|(i, &delay)| {
            let rate = *options.rates.get(i).or(options.rates.last()).context("no rate is given")?;
            Ok(Joint { left: i, right: i + 1, delay, rate })
        });
        let joints: Vec<Joint> = joints.collect::<Result<_>>()?;
        Hosts::join(&joints, 2 * options.delays.iter().sum::<u64>(), options, congestion)
    }

    /// Two ways from host 0 to host 3.
    fn two_routes(options: &Options, congestion: &str) -> Result<Hosts> {
        let of = |all: &[u64], i: usize| {
            all.get(i).or(all.first()).copied().context("no delay or no rate is given")
        };
        let mut joints = Vec::new();
        for (route, relay) in [(0, 1), (1, 2)] {
            let (delay, rate) = (of(&options.delays, route)?, of(&options.rates, route)?);
            joints.push(Joint { left: 0, right: relay, delay, rate });
            joints.push(Joint { left: relay, right: 3, delay, rate });
        }
        let longest = joints.iter().map(|j| j.delay).max().unwrap_or(0);
        Hosts::join(&joints, 4 * longest, options, congestion)
    }

    /// Makes the hosts and joins them; `round_trip` in milliseconds is for the queues.
    fn join(joints: &[Joint], round_trip: u64, options: &Options, congestion: &str) -> Result<Hosts> {
        let mut hosts = Hosts { names: Vec::new(), links: Vec::new() };
        for i in 0..=joints.iter().map(|j| j.right).max().unwrap_or(0) {
            let name = format!("relay-lab-{}-{i}", std::process::id());
            ip(&["netns", "add", &name])?;
            hosts.names.push(name.clone());
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            set_congestion(&name, congestion)?;
        }
        for (i, joint) in joints.iter().enumerate() {
            let product = joint.rate * 125_000 * round_trip / 1000;
            let treatment = Treatment {
                delay: Duration::from_millis(joint.delay),
                rate: joint.rate * 1_000_000,
                queue: options.queue.unwrap_or(product).max(20 * MTU as u64),
                loss: options.loss / 100.0,
                seed: options.seed.wrapping_mul(1000).wrapping_add(i as u64),
            };
            let left = hosts.device(joint.left, i + 1, 1)?;
            let right = hosts.device(joint.right, i + 1, 2)?;
            hosts.links.push(Link::start(&left, &right, treatment)?);
        }
        Ok(hosts)
    }

    /// One end of a link: a TUN device in host `host` with the address 10.77.`link`.`end`.
    fn device(&self, host: usize, link: usize, end: usize) -> Result<File> {
        let name = self.names.get(host).context("no such host")?;
        let device = format!("link{link}");
        let path = Path::new(NAMESPACES).join(name);
        let opened = {
            let device = device.clone();
            // A thread of its own: only it changes over to the namespace, and it ends at once.
            thread::spawn(move || -> Result<File> {
                let namespace =
                    File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
                move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&namespace),
                    Some(LinkNameSpaceType::Network),
                )?;
                platform::open_tun(&device).context("cannot make a TUN device")
            })
        };
        let file = opened.join().map_err(|_| anyhow!("the thread that makes a device ended badly"))??;
        let (own, peer) = (format!("10.77.{link}.{end}"), format!("10.77.{link}.{}", 3 - end));
        ip(&["-n", name, "addr", "add", &own, "peer", &peer, "dev", &device])?;
        ip(&["-n", name, "link", "set", &device, "mtu", &MTU.to_string(), "txqueuelen", "10000", "up"])?;
        Ok(file)
    }

    /// A host by its end of a link, which is the link's right one unless it is the client.
    fn site(&self, host: usize, link: usize) -> Result<Site> {
        let name = self.names.get(host).context("no such host")?;
        let address = Ipv4Addr::new(10, 77, u8::try_from(link)?, 2);
        Ok(Site::in_namespace(PathBuf::from(NAMESPACES).join(name), address))
    }

    /// Relays and origin of a line, each listening on the link towards the client.
    fn sites(&self) -> Vec<Site> {
        (1..self.names.len()).filter_map(|i| self.site(i, i).ok()).collect()
    }

    fn client(&self) -> Result<Site> {
        self.site(0, 0)
    }

    /// Does something, with the chosen link cut for a while when that is asked for.
    fn with_cut<T>(&self, options: &Options, work: impl FnOnce() -> T) -> T {
        // Of two routes the first links are numbers 1 and 3.
        let number = options.cut.map(|n| if options.two_routes { (2 * n).saturating_sub(1) } else { n });
        let Some(link) = number.and_then(|n| self.links.get(n.checked_sub(1)?)) else { return work() };
        let (is_cut, after, length) = (&link.is_cut, options.cut_after, options.cut_for);
        thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(Duration::from_secs_f64(after.clamp(0.0, 600.0)));
                is_cut.store(true, Ordering::Relaxed);
                thread::sleep(Duration::from_secs_f64(length.clamp(0.0, 600.0)));
                is_cut.store(false, Ordering::Relaxed);
            });
            work()
        })
    }

    fn tell(&self) {
        for (i, link) in self.links.iter().enumerate() {
            let count = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
            eprintln!(
                "link {}: {} packets carried, {} lost, {} beyond the queue, {} while cut",
                i + 1,
                count(&link.counts.carried),
                count(&link.counts.lost),
                count(&link.counts.overflowed),
                count(&link.counts.cut)
            );
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            if let Err(error) = ip(&["netns", "del", name]) {
                eprintln!("{error:#}");
            }
        }
    }
}

/// Sets what the connections of a namespace use; /proc shows a process the settings of its own namespace.
fn set_congestion(namespace: &str, name: &str) -> Result<()> {
    let known = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap_or_default();
    ensure!(
        known.split_whitespace().any(|k| k == name),
        "this kernel has no congestion control {name:?}, only: {known}"
    );
    let path = Path::new(NAMESPACES).join(namespace);
    let name = name.to_owned();
    let set = thread::spawn(move || -> Result<()> {
        let namespace = File::open(&path)?;
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network))?;
        // Settings of the network are those of the thread that asks.
        fs::write("/proc/sys/net/ipv4/tcp_congestion_control", &name)
            .with_context(|| format!("a namespace of this kernel does not take {name}"))
    });
    set.join().map_err(|_| anyhow!("the thread that sets the congestion control ended badly"))?
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .context("cannot start ip (Debian: apt install iproute2)")?;
    if !output.status.success() {
        bail!("ip {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
