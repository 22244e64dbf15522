//! `relay-bench load`: how long small requests take while a node carries a load of others, and what a connection of that load costs in
//! memory.
//!
//! The load comes from a thread of its own. Before and during each load the same probes run one after the other: a new HTTP connection
//! with one small answer, and a small file through a relay. Everything is bounded in count and time.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Args, ValueEnum};
use relay_chain::requests::Answers;
use relay_link::link::Link;
use relay_proto::route::Route;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::daemon::Memory;
use crate::direct;
use crate::machine::Machine;
use crate::memory::{one_answer, raise_descriptors};
use crate::peers::relay_node_with;
use crate::report::{Output, spread, table};
use crate::sample::Workspace;
use crate::stats::Spread;

/// Connections that are made at the same time.
const AT_ONCE: usize = 50;
/// How long a load may take until it stands.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// The loads
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Load::Idle, Load::Relayed, Load::SlowHeaders, Load::SlowReaders, Load::Flood])]
    loads: Vec<Load>,
    /// Idle HTTP connections, kept alive after an answer
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Idle pipes through the relay
    #[arg(long, default_value_t = 4000)]
    relayed: usize,
    /// Connections that send a byte of their request each second
    #[arg(long, default_value_t = 1000)]
    slow_headers: usize,
    /// Transfers whose readers take 64 KiB a second, half of them through the relay
    #[arg(long, default_value_t = 200)]
    slow_readers: usize,
    /// Connections a second that are made and reset at once
    #[arg(long, default_value_t = 1000)]
    flood: u64,
    /// Probes of each kind, before and during
    #[arg(long, default_value_t = 300)]
    probes: usize,
    /// Fail when a probe takes longer than so many times what it took without the load (median)
    #[arg(long, default_value_t = 2.0)]
    at_most: f64,
    #[command(flatten)]
    output: Output,
}

/// What a node is loaded with.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// Idle HTTP connections
    Idle,
    /// Idle pipes through a relay
    Relayed,
    /// Requests that come a byte a second, of both faces
    SlowHeaders,
    /// Transfers that are read slowly
    SlowReaders,
    /// Connections that are made and reset
    Flood,
}

/// A probe before and during a load.
#[derive(Debug, Serialize)]
struct Probed {
    load: Load,
    connections: usize,
    probe: &'static str,
    /// Milliseconds.
    before: Spread,
    during: Spread,
    /// Median over median.
    ratio: f64,
}

/// A node's memory under a load.
#[derive(Debug, Serialize)]
struct Held {
    load: Load,
    node: &'static str,
    connections: usize,
    resident_before_mib: f64,
    resident_mib: f64,
    /// Growth of the proportional set size a connection.
    kib_a_connection: f64,
}

/// Where probes and loads go.
#[derive(Clone, Debug)]
struct Target {
    origin: SocketAddr,
    small: Route,
    large: [Route; 2],
}

/// Runs every load and reports.
///
/// # Errors
/// What could not run, and that a probe took too long.
pub fn run(options: &Options) -> Result<()> {
    let machine = Machine::describe(&[]);
    raise_descriptors()?;
    let home = Workspace::new()?;
    home.add("small", 1024)?;
    home.add("large", 256 << 20)?;
    let (mut probed, mut held) = (Vec::new(), Vec::new());
    for &load in &options.loads {
        eprintln!("{load:?} …");
        measure(options, load, home.files(), home.path(), &mut probed, &mut held)?;
    }
    println!("{}", machine.text());
    println!("{} probes each, one after the other; milliseconds, medians [quartiles]\n", options.probes);
    println!("{}", probes_text(&probed));
    println!("{}", memory_text(&held));
    options.output.json("load", &machine, &[], &(&probed, &held))?;
    let slow: Vec<&Probed> = probed.iter().filter(|p| p.ratio > options.at_most).collect();
    if let Some(worst) = slow.first() {
        bail!("{:?}: {} took {:.2} times as long as without the load", worst.load, worst.probe, worst.ratio);
    }
    Ok(())
}

fn measure(
    options: &Options,
    load: Load,
    files: &Path,
    home: &Path,
    probed: &mut Vec<Probed>,
    held: &mut Vec<Held>,
) -> Result<()> {
    // Limits that are no part of the question: nobody shall be cut while it is counted.
    let patient = ["--max-connections", "16000", "--keep-alive-timeout", "10m", "--request-timeout", "10m"];
    let mut origin = relay_node_with(files, &home.join(format!("{load:?}-origin.log")), &patient)?;
    let mut relay = relay_node_with(home, &home.join(format!("{load:?}-relay.log")), &patient)?;
    let through = |name: &str| direct::route(name, [relay.address(), origin.address()].into_iter());
    let target = Target {
        origin: origin.address(),
        small: through("small")?,
        large: [direct::route("large", [origin.address()].into_iter())?, through("large")?],
    };
    let runtime = direct::runtime()?;
    runtime.block_on(probe(&target, options.probes))?;
    let before = runtime.block_on(probe(&target, options.probes))?;
    let memory = (relay.memory()?, origin.memory()?);
    let count = options.count(load);
    let running = Running::start(load, count, target.clone())?;
    let during = runtime.block_on(probe(&target, options.probes))?;
    let memory_during = (relay.memory()?, origin.memory()?);
    running.end()?;
    relay.check()?;
    origin.check()?;
    // Afterwards everything is as it was: the nodes serve.
    runtime.block_on(probe(&target, 3)).context("after the load")?;
    for ((name, before), (_, during)) in before.into_iter().zip(during) {
        let (before, during) = (of(before)?, of(during)?);
        let ratio = during.median / before.median;
        probed.push(Probed { load, connections: count, probe: name, before, during, ratio });
    }
    held.push(Held::new(load, "relay", count, memory.0, memory_during.0));
    held.push(Held::new(load, "origin", count, memory.1, memory_during.1));
    Ok(())
}

fn of(times: Vec<f64>) -> Result<Spread> {
    Spread::of(times).context("no probe ran")
}

impl Options {
    fn count(&self, load: Load) -> usize {
        match load {
            Load::Idle => self.idle,
            Load::Relayed => self.relayed,
            Load::SlowHeaders => self.slow_headers,
            Load::SlowReaders => self.slow_readers,
            Load::Flood => usize::try_from(self.flood).unwrap_or(usize::MAX),
        }
    }
}

impl Held {
    #[allow(clippy::cast_precision_loss, reason = "a few MiB in KiB")]
    fn new(load: Load, node: &'static str, connections: usize, before: Memory, during: Memory) -> Held {
        let mib = |kib: u64| kib as f64 / 1024.0;
        Held {
            load,
            node,
            connections,
            resident_before_mib: mib(before.resident),
            resident_mib: mib(during.resident),
            kib_a_connection: during.proportional.saturating_sub(before.proportional) as f64
                / connections.max(1) as f64,
        }
    }
}

/// Milliseconds of each kind of probe, the kinds taking turns.
async fn probe(target: &Target, count: usize) -> Result<[(&'static str, Vec<f64>); 2]> {
    let (mut http, mut relayed) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let started = Instant::now();
        by_http(target.origin).await?;
        http.push(started.elapsed().as_secs_f64() * 1e3);
        let started = Instant::now();
        ensure!(direct::fetch(&target.small).await? == 1024, "another file came");
        relayed.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok([("HTTP, 1 KiB", http), ("1 KiB through a relay", relayed)])
}

async fn by_http(node: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(node).await?;
    stream.set_nodelay(true)?;
    let request = format!("GET /small HTTP/1.1\r\nHost: {node}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    ensure!(answer.starts_with(b"HTTP/1.1 200") && answer.len() > 1024, "the node did not answer 200");
    Ok(())
}

/// A load that stands.
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<()>>,
}

impl Running {
    fn start(load: Load, count: usize, target: Target) -> Result<Running> {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::spawn(move || {
            direct::runtime()?.block_on(async {
                tokio::select! {
                    result = carry(load, count, &target, &ready) => result,
                    _ = stopped => Ok(()),
                }
            })
        });
        if is_ready.recv_timeout(START_LIMIT).is_err() {
            let _ = stop.send(());
            let ended = thread.join().map_err(|_| anyhow!("the load's thread ended badly"))?;
            ended?;
            bail!("the load did not stand within {START_LIMIT:?}");
        }
        Ok(Running { stop, thread })
    }

    fn end(self) -> Result<()> {
        // A load that has ended has failed, and says why.
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| anyhow!("the load's thread ended badly"))?
    }
}

/// Puts the load on, says so, and keeps it until this is dropped.
async fn carry(load: Load, count: usize, target: &Target, ready: &mpsc::Sender<()>) -> Result<()> {
    match load {
        Load::Idle => {
            let mut held = Vec::new();
            while held.len() < count {
                held.push(one_answer(target.origin).await?);
            }
            stand(ready).await;
        }
        Load::Relayed => {
            let mut held = Vec::new();
            while held.len() < count {
                for _ in 0..AT_ONCE.min(count - held.len()) {
                    held.push(direct::walk_only(&target.small).await?);
                }
            }
            stand(ready).await;
        }
        Load::SlowHeaders => {
            let mut all = JoinSet::new();
            for i in 0..count {
                all.spawn(send_slowly(target.origin, i % 2 == 0));
            }
            sleep(Duration::from_secs(2)).await;
            let _ = ready.send(());
            while let Some(ended) = all.join_next().await {
                ended??;
            }
        }
        Load::SlowReaders => read_slowly(count, target, ready).await?,
        Load::Flood => flood(count as u64, target.origin, ready).await?,
    }
    Ok(())
}

async fn stand(ready: &mpsc::Sender<()>) {
    let _ = ready.send(());
    std::future::pending::<()>().await;
}

/// A request that comes a byte a second and never ends.
async fn send_slowly(node: SocketAddr, is_http: bool) -> Result<()> {
    let mut stream = TcpStream::connect(node).await?;
    stream.set_nodelay(true)?;
    // The relay's magic begins with a byte that is not ASCII; a length of some KiB is announced and comes a byte at a time.
    let begin: Vec<u8> = if is_http { b"GET /small HTTP/1.1\r\nX: ".to_vec() } else { slow_open()? };
    stream.write_all(&begin).await?;
    loop {
        sleep(Duration::from_secs(1)).await;
        stream.write_all(b"x").await?;
    }
}

/// The preface of an `open` of many bytes, without them.
fn slow_open() -> Result<Vec<u8>> {
    use relay_proto::frame::{FrameType, Preface};
    let preface = Preface { frame_type: FrameType::Open, payload_len: 8192 };
    Ok(preface.encode().to_vec())
}

async fn read_slowly(count: usize, target: &Target, ready: &mpsc::Sender<()>) -> Result<()> {
    let mut readers: Vec<Answers<Link>> = Vec::new();
    for i in 0..count {
        let [direct, relayed] = &target.large;
        readers.push(direct::ask(if i % 2 == 0 { direct } else { relayed }).await?);
    }
    let mut buffer = vec![0; 6554];
    let mut ticks = interval(Duration::from_millis(100));
    for round in 0_u64.. {
        ticks.tick().await;
        for reader in &mut readers {
            ensure!(reader.get_mut().read(&mut buffer).await? > 0, "a slow transfer was cut");
        }
        // By now what is on the way stands full.
        if round == 20 {
            let _ = ready.send(());
        }
    }
    Ok(())
}

/// Makes so many connections a second and resets each at once.
async fn flood(rate: u64, node: SocketAddr, ready: &mpsc::Sender<()>) -> Result<()> {
    let mut ticks = interval(Duration::from_millis(10));
    for round in 0_u64.. {
        ticks.tick().await;
        for _ in 0..(rate / 100).max(1) {
            let stream = TcpStream::connect(node).await?;
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        }
        if round == 50 {
            let _ = ready.send(());
        }
    }
    Ok(())
}

fn probes_text(probed: &[Probed]) -> String {
    let rows: Vec<Vec<String>> = probed
        .iter()
        .map(|p| {
            vec![
                format!("{:?}, {}", p.load, p.connections),
                p.probe.to_owned(),
                spread(Some(p.before), 2),
                spread(Some(p.during), 2),
                format!("{:.2}", p.ratio),
            ]
        })
        .collect();
    table(&["load", "probe", "before", "during", "ratio"], &rows)
}

fn memory_text(held: &[Held]) -> String {
    let rows: Vec<Vec<String>> = held
        .iter()
        .map(|h| {
            vec![
                format!("{:?}, {}", h.load, h.connections),
                h.node.to_owned(),
                format!("{:.1}", h.resident_before_mib),
                format!("{:.1}", h.resident_mib),
                format!("{:.1}", h.kib_a_connection),
            ]
        })
        .collect();
    table(&["load", "node", "resident MiB before", "resident MiB", "KiB a connection (PSS)"], &rows)
}
