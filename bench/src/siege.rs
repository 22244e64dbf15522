//! `relay-bench siege`: what cheap attacks cost a node, and what an honest client beside them notices.
//!
//! Each attack runs from an address of its own against a fresh node; an honest client fetches a small file before it, while it runs, and
//! five seconds after it. Everything is bounded in count and time.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, ValueEnum};
use relay_chain::chain::random_id;
use relay_chain::frames::encode;
use relay_proto::file::{List, RequestedName};
use relay_proto::hop::{ClientLimits, Open};
use relay_proto::limits::MAX_PIPELINED;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::daemon::Daemon;
use crate::direct;
use crate::machine::Machine;
use crate::memory::raise_descriptors;
use crate::peers::relay_node_with;
use crate::report::{Output, table};
use crate::sample::Workspace;
use crate::stats::Spread;

/// Where attackers come from, so that the node can tell them from the honest client.
const ATTACKERS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
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
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Attack::Lists, Attack::DeadLinks, Attack::Nested])]
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

/// What somebody does to a node who wants to stop it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// On each connection 32 listings of a directory of 10,000 names, whose answers nobody reads
    Lists,
    /// On each connection a listing of 100,000 links that lead nowhere, reset after a second
    DeadLinks,
    /// On each connection 32 listings of 60 nested directories of 1,000 long names each
    Nested,
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
}

/// An attack, and the node before, during and after it.
#[derive(Debug, Serialize)]
struct Besieged {
    attack: Attack,
    before: Sight,
    during: Sight,
    after: Sight,
}

/// Runs every attack and reports.
///
/// # Errors
/// What could not run, and that the honest client waited for too long.
pub fn run(options: &Options) -> Result<()> {
    let machine = Machine::describe(&[]);
    raise_descriptors()?;
    let mut all = Vec::new();
    for &attack in &options.attacks {
        eprintln!("{attack:?} …");
        all.push(besiege(options, attack)?);
    }
    println!("{}", machine.text());
    println!(
        "{} connections from one address; {} fetches of 1 KiB from another, each before, during and {} s after\n",
        options.connections,
        options.probes,
        AFTER.as_secs()
    );
    println!("{}", text(&all));
    options.output.json("siege", &machine, &[], &all)?;
    for Besieged { attack, before, during, .. } in &all {
        let ratio = during.p99 / before.p99;
        ensure!(ratio <= options.at_most, "{attack:?}: the honest client's p99 was {ratio:.1} times as long");
    }
    Ok(())
}

fn besiege(options: &Options, attack: Attack) -> Result<Besieged> {
    let home = Workspace::new()?;
    home.add("small", 1024)?;
    attack.lay_out(home.files())?;
    let node = relay_node_with(home.files(), &home.path().join("node.log"), &["--max-connections", "2000"])?;
    let honest = Honest { node, probes: options.probes };
    honest.look()?;
    let before = honest.look()?;
    let siege = Siege::begin(attack, options.connections, honest.node.address());
    thread::sleep(WARM_UP);
    let during = honest.look()?;
    siege.end()?;
    thread::sleep(AFTER);
    let after = honest.look()?;
    Ok(Besieged { attack, before, during, after })
}

impl Attack {
    /// Makes what the attack asks for.
    fn lay_out(self, root: &Path) -> Result<()> {
        let directory = root.join("listed");
        fs::create_dir(&directory)?;
        match self {
            Attack::Lists => {
                for number in 0..10_000 {
                    fs::write(directory.join(format!("file-{number:05}")), "")?;
                }
            }
            Attack::DeadLinks => {
                for number in 0..100_000 {
                    symlink("nowhere", directory.join(format!("link-{number:06}")))?;
                }
            }
            Attack::Nested => {
                let mut here = directory;
                for _ in 0..60 {
                    for number in 0..1_000 {
                        fs::write(here.join(format!("{number:04}-{}", "x".repeat(200))), "")?;
                    }
                    here.push("next");
                    fs::create_dir(&here)?;
                }
            }
        }
        Ok(())
    }

    /// What is sent on each connection.
    fn request(self) -> Result<Vec<u8>> {
        let open =
            Open { hops: Vec::new(), id: random_id()?, limits: ClientLimits::new(Duration::from_secs(10)) };
        let prefix = RequestedName::try_from("listed/").map_err(|e| anyhow!(e))?;
        let list = encode(&List { prefix, after: None, recursive: self == Attack::Nested })?;
        let count = if self == Attack::DeadLinks { 1 } else { MAX_PIPELINED };
        Ok([encode(&open)?, list.repeat(count)].concat())
    }
}

/// A client that only wants its file.
struct Honest {
    node: Daemon,
    probes: usize,
}

impl Honest {
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
        })
    }
}

fn percentile_99(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    times.get((times.len() * 99).div_ceil(100).checked_sub(1)?).copied()
}

/// An attack that runs.
struct Siege {
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Siege {
    fn begin(attack: Attack, connections: usize, node: SocketAddr) -> Siege {
        let (stop, stopped) = oneshot::channel();
        let (standing, stands) = mpsc::channel();
        let thread = thread::spawn(move || {
            direct::runtime()?.block_on(async {
                tokio::select! {
                    result = attack_with(attack, connections, node, &standing) => result,
                    _ = stopped => Ok(()),
                }
            })
        });
        // One that fails says so at its end.
        let _ = stands.recv();
        Siege { stop, thread }
    }

    fn end(self) -> Result<()> {
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| anyhow!("the attack's thread ended badly"))?
    }
}

async fn attack_with(
    attack: Attack,
    connections: usize,
    node: SocketAddr,
    standing: &mpsc::Sender<()>,
) -> Result<()> {
    let request = attack.request()?;
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..connections {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(ATTACKERS.into(), 0))?;
        let mut stream = socket.connect(node).await?;
        // What it leaves behind is a reset.
        stream.set_zero_linger()?;
        stream.write_all(&request).await?;
        held.push(stream);
    }
    if attack == Attack::DeadLinks {
        sleep(Duration::from_secs(1)).await;
        held.clear();
    }
    let _ = standing.send(());
    std::future::pending::<()>().await;
    Ok(())
}

fn text(all: &[Besieged]) -> String {
    let mut rows = Vec::new();
    for Besieged { attack, before, during, after } in all {
        for (when, sight) in [("before", before), ("during", during), ("after", after)] {
            rows.push(vec![
                format!("{attack:?}, {when}"),
                format!("{:.2}", sight.p50),
                format!("{:.2}", sight.p99),
                format!("{:.0} %", sight.cpu),
                format!("{:.1}", sight.resident_mib),
                sight.descriptors.to_string(),
            ]);
        }
    }
    table(&["attack", "p50 ms", "p99 ms", "CPU", "resident MiB", "descriptors"], &rows)
}
