//! `relay-bench slow-readers` and `relay-bench idle`: what a node's memory does when there is much to hold and little to do.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use relay_chain::chain::Pipe;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::daemon::{Daemon, Memory};
use crate::direct;
use crate::machine::Machine;
use crate::peers::relay_node;
use crate::report::{Output, table};
use crate::sample::{self, Workspace};

/// Connections that are made at the same time.
const AT_ONCE: usize = 50;

/// Transfers to slow readers.
#[derive(Args, Debug)]
pub struct SlowReaders {
    /// Transfers at once
    #[arg(long, default_value_t = 100)]
    readers: usize,
    /// Bytes that each takes a second
    #[arg(long, default_value = "256KiB", value_parser = sample::parse_size)]
    rate: u64,
    /// How long they read, in seconds
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Fail when a node holds more than this, in MiB
    #[arg(long, default_value_t = 64.0)]
    at_most: f64,
    #[command(flatten)]
    output: Output,
}

/// Idle connections.
#[derive(Args, Debug)]
pub struct Idle {
    /// Connections through a relay to an origin
    #[arg(long, default_value_t = 4000)]
    relayed: usize,
    /// HTTP connections, silent and then kept alive after one answer
    #[arg(long, default_value_t = 8000)]
    http: usize,
    #[command(flatten)]
    output: Output,
}

/// A process before and during.
#[derive(Debug, Serialize)]
struct Held {
    process: &'static str,
    connections: usize,
    resident_before_mib: f64,
    resident_mib: f64,
    peak_mib: f64,
    /// Growth of the proportional set size a connection.
    kib_a_connection: f64,
}

impl Held {
    #[allow(clippy::cast_precision_loss, reason = "a few MiB in KiB")]
    fn new(process: &'static str, connections: usize, before: Memory, during: Memory) -> Held {
        let mib = |kib: u64| kib as f64 / 1024.0;
        Held {
            process,
            connections,
            resident_before_mib: mib(before.resident),
            resident_mib: mib(during.resident),
            peak_mib: mib(during.peak),
            kib_a_connection: during.proportional.saturating_sub(before.proportional) as f64
                / connections.max(1) as f64,
        }
    }
}

/// Runs the slow readers and reports.
pub fn slow_readers(options: &SlowReaders) -> Result<()> {
    let machine = Machine::describe(&[]);
    let home = Workspace::new()?;
    // More than the sockets and pipes on the way can hold, so that everything behind the readers stands full.
    home.add("sample", 512 << 20)?;
    let origin = relay_node(home.files(), &home.path().join("origin.log"))?;
    let relay = relay_node(home.path(), &home.path().join("relay.log"))?;
    let before = (relay.memory()?, origin.memory()?);
    let kernel_before = tcp_pages()?;
    let (came, relay_during, origin_during, kernel) =
        direct::runtime()?.block_on(read_slowly(options, &relay, &origin))?;
    let held = [
        Held::new("relay", options.readers, before.0, relay_during),
        Held::new("origin", options.readers, before.1, origin_during),
    ];
    println!("{}", machine.text());
    println!(
        "{} readers at {} a second for {} s through one relay; {} MiB came\n",
        options.readers,
        sample::size_text(options.rate),
        options.seconds,
        came >> 20
    );
    println!("{}", text(&held));
    println!(
        "TCP buffers of the whole machine: {} MiB before, {} MiB at the end",
        kernel_before >> 8,
        kernel >> 8
    );
    options.output.json("slow-readers", &machine, &[], &held)?;
    if let Some(held) = held.iter().find(|held| held.peak_mib > options.at_most) {
        bail!("the {} held {:.1} MiB, and {} are allowed", held.process, held.peak_mib, options.at_most);
    }
    Ok(())
}

async fn read_slowly(
    options: &SlowReaders,
    relay: &Daemon,
    origin: &Daemon,
) -> Result<(u64, Memory, Memory, u64)> {
    let route = direct::route("sample", [relay.address(), origin.address()].into_iter())?;
    let mut readers = Vec::new();
    for _ in 0..options.readers {
        readers.push(direct::ask(&route).await?.into_inner());
    }
    relay.reset_peak()?;
    origin.reset_peak()?;
    let until = Instant::now() + Duration::from_secs(options.seconds);
    let tick = Duration::from_millis(100);
    let mut buffer = vec![0; usize::try_from((options.rate / 10).max(1))?];
    let mut came = 0;
    while Instant::now() < until {
        let next = tokio::time::Instant::now() + tick;
        for reader in &mut readers {
            let n = reader.read(&mut buffer).await.context("a slow transfer broke")?;
            ensure!(n > 0, "a slow transfer was cut");
            came += n as u64;
        }
        tokio::time::sleep_until(next).await;
    }
    Ok((came, relay.memory()?, origin.memory()?, tcp_pages()?))
}

/// Runs the idle connections and reports.
pub fn idle(options: &Idle) -> Result<()> {
    let machine = Machine::describe(&[]);
    raise_descriptors()?;
    let home = Workspace::new()?;
    home.add("small", 1024)?;
    let held = direct::runtime()?.block_on(async {
        let mut held = idle_relayed(options.relayed, home.path(), home.files()).await?;
        held.extend(idle_http(options.http, home.path(), home.files()).await?);
        anyhow::Ok(held)
    })?;
    println!("{}", machine.text());
    println!("{}", text(&held));
    options.output.json("idle", &machine, &[], &held)?;
    for (process, limit) in LIMITS {
        let held = held.iter().find(|held| held.process == process).map_or(0.0, |held| held.kib_a_connection);
        ensure!(held <= limit, "{process}: {held:.1} KiB a connection, more than {limit}");
    }
    Ok(())
}

const SILENT: &str = "HTTP, before a request";
const KEPT_ALIVE: &str = "HTTP, kept alive after one";
/// The most that an HTTP connection may hold, in KiB.
const LIMITS: [(&str, f64); 2] = [(SILENT, 4.0), (KEPT_ALIVE, 8.0)];

async fn idle_relayed(count: usize, home: &std::path::Path, files: &std::path::Path) -> Result<Vec<Held>> {
    let origin = relay_node(files, &home.join("idle-origin.log"))?;
    let relay = relay_node(home, &home.join("idle-relay.log"))?;
    let route = direct::route("small", [relay.address(), origin.address()].into_iter())?;
    // One transfer first, so that what is made once is not counted as a connection's.
    direct::fetch(&route).await?;
    let before = (relay.memory()?, origin.memory()?);
    let mut pipes: Vec<Pipe> = Vec::new();
    while pipes.len() < count {
        let batch = (count - pipes.len()).min(AT_ONCE);
        let walks: Vec<_> = (0..batch).map(|_| direct::walk_only(&route)).collect();
        for walk in walks {
            pipes.push(walk.await?);
        }
    }
    sleep(Duration::from_secs(1)).await;
    let during = (relay.memory()?, origin.memory()?);
    for pipe in pipes.iter_mut() {
        ensure!(pipe.link.is_quiet(), "a relayed connection was cut while it was counted");
    }
    Ok(vec![
        Held::new("relay, idle pipes", count, before.0, during.0),
        Held::new("origin, idle pipes", count, before.1, during.1),
    ])
}

/// Silent connections to a fresh node, the same after a request each, and whether their descriptors come back.
async fn idle_http(count: usize, home: &std::path::Path, files: &std::path::Path) -> Result<Vec<Held>> {
    let node = relay_node(files, &home.join("idle-http.log"))?;
    let (before, fresh) = (node.memory()?, node.descriptors()?);
    let mut connections = Vec::new();
    while connections.len() < count {
        connections.push(TcpStream::connect(node.address()).await?);
    }
    descriptors_come_to(&node, |open| open >= fresh + count).await?;
    let silent = node.memory()?;
    for connection in &mut connections {
        ask_once(connection, node.address()).await?;
    }
    let kept_alive = node.memory()?;
    for connection in &mut connections {
        ensure!(still_open(connection), "an HTTP connection was closed while it was counted");
    }
    drop(connections);
    descriptors_come_to(&node, |open| open <= fresh).await?;
    Ok(vec![Held::new(SILENT, count, before, silent), Held::new(KEPT_ALIVE, count, before, kept_alive)])
}

/// Waits until the node has as many descriptors as it should.
async fn descriptors_come_to(node: &Daemon, is_right: impl Fn(usize) -> bool) -> Result<()> {
    for _ in 0..200 {
        if is_right(node.descriptors()?) {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
    bail!("after ten seconds the node still has {} descriptors", node.descriptors()?)
}

/// An HTTP connection that has had an answer and is kept alive.
pub async fn one_answer(node: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(node).await?;
    ask_once(&mut stream, node).await?;
    Ok(stream)
}

async fn ask_once(stream: &mut TcpStream, node: SocketAddr) -> Result<()> {
    let request = format!("HEAD /small HTTP/1.1\r\nHost: {node}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        ensure!(stream.read_buf(&mut answer).await? > 0, "the node closed instead of answering");
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "the node did not answer 200");
    Ok(())
}

/// Whether nothing has arrived, not even an end.
fn still_open(stream: &mut TcpStream) -> bool {
    stream.try_read(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
}

/// Pages of 4 KiB that the kernel uses for TCP (proc(5): `/proc/net/sockstat`).
fn tcp_pages() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat")?;
    let line = text.lines().find(|l| l.starts_with("TCP:")).unwrap_or_default();
    Ok(line.split_once("mem ").and_then(|(_, n)| n.trim().parse().ok()).unwrap_or(0))
}

/// Takes as many descriptors as the hard limit allows; this process holds an end of every connection.
pub fn raise_descriptors() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

fn text(held: &[Held]) -> String {
    let rows: Vec<Vec<String>> = held
        .iter()
        .map(|h| {
            let mib = |v: f64| format!("{v:.1}");
            vec![
                h.process.to_owned(),
                h.connections.to_string(),
                mib(h.resident_before_mib),
                mib(h.resident_mib),
                mib(h.peak_mib),
                mib(h.kib_a_connection),
            ]
        })
        .collect();
    table(
        &["", "connections", "resident MiB before", "resident MiB", "peak MiB", "KiB a connection (PSS)"],
        &rows,
    )
}
