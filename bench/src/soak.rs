//! `relay-bench soak`: minutes of mixed traffic with faults at random against nodes that live through all of it.
//!
//! ```text
//! client ─ faults ─ relay ─ faults ─ origin ─ files          curl-like ─ faults ─ reverse proxy with a cache ─ origin
//! ```
//!
//! Transfers, HTTP requests, peers that send nonsense, readers that stop, clients that are killed; every link resets, stalls, cuts, drips
//! and flips bits as a seed says. What arrives is compared. At the end the nodes must be as they were: tasks, sockets, threads,
//! other descriptors and memory within a bound. What is not is named, and the program fails.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use relay_testkit::proxy::{Direction, Fault, FaultProxy, Plan};
use serde::Serialize;

use crate::daemon::Daemon;
use crate::fetch;
use crate::machine::Machine;
use crate::peers::{own, relay_node_with};
use crate::random::Random;
use crate::report::{Output, table};
use crate::sample::{self, Workspace};

/// Limits of the nodes, short, so that what a fault left hanging is let go soon.
const LIMITS: [&str; 10] = [
    "--idle-timeout",
    "10s",
    "--request-timeout",
    "5s",
    "--keep-alive-timeout",
    "5s",
    "--dial-timeout",
    "3s",
    "--upstream-timeout",
    "5s",
];
/// How long the nodes may take to be as they were. More than their longest limit and the 10 s for which tokio keeps idle threads.
const SETTLE_LIMIT: Duration = Duration::from_secs(90);
/// How long one action may take before it is a failure of its own.
const ACTION_LIMIT: Duration = Duration::from_secs(60);
/// Descriptors that are neither sockets nor pipes and may come in the course of time: files of logs and of the cache.
const MORE_FILES: usize = 8;
/// Pipes that a relay keeps for the next transfer: two descriptors for each of its pool (`relay-node`, `platform/pipe.rs`).
const MORE_PIPES: usize = 64;
/// What a node may hold more than before, KiB: the pools of buffers and what the allocator keeps.
const MORE_MEMORY: u64 = 48 * 1024;

/// What to run.
#[derive(Args, Debug)]
pub struct Options {
    /// For how long, in minutes
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// How many things happen at once
    #[arg(long, default_value_t = 6)]
    workers: u64,
    /// Milliseconds between two actions of a worker
    #[arg(long, default_value_t = 50)]
    pause: u64,
    /// Where the randomness starts
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    output: Output,
}

/// What a node holds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Holdings {
    sockets: usize,
    pipes: usize,
    /// Every other descriptor.
    others: usize,
    threads: usize,
    /// Of the runtime, as the node itself tells.
    tasks: usize,
    /// Resident, KiB.
    memory: u64,
}

/// A node at the begin, at its most, and at the end.
#[derive(Debug, Serialize)]
struct Told {
    node: &'static str,
    before: Holdings,
    most: Holdings,
    after: Holdings,
    /// What did not come back.
    leaks: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Results {
    seed: u64,
    minutes: f64,
    /// How often each thing happened.
    actions: BTreeMap<String, u64>,
    nodes: Vec<Told>,
}

/// The files, and what each holds.
struct Files {
    home: PathBuf,
    names: Vec<(String, blake3::Hash, u64)>,
}

/// Everything that workers share.
struct Ground {
    files: Files,
    client: PathBuf,
    origin: SocketAddr,
    relay: SocketAddr,
    proxy: SocketAddr,
    /// Faulty ways to the relay, from it to the origin, and to the proxy.
    to_relay: FaultProxy,
    to_origin: FaultProxy,
    to_proxy: FaultProxy,
    until: Instant,
    number: AtomicU64,
    actions: Mutex<BTreeMap<String, u64>>,
}

/// Runs it.
///
/// # Errors
/// Something arrived wrong, a node ended, or something was left behind.
pub fn run(options: &Options) -> Result<()> {
    let machine = Machine::describe(&[]);
    let home = Workspace::new()?;
    let files = Files::create(&home)?;
    let origin = relay_node_with(home.files(), &home.path().join("origin.log"), &LIMITS)?;
    let relay = relay_node_with(home.path(), &home.path().join("relay.log"), &LIMITS)?;
    let upstream = format!("http://{}", origin.address());
    let cache = home.path().join("cache").to_string_lossy().into_owned();
    let caching = ["--upstream", &upstream, "--cache-dir", &cache, "--cache-size", "64MiB"];
    let proxy =
        relay_node_with(home.path(), &home.path().join("proxy.log"), &[&LIMITS[..], &caching].concat())?;
    let mut nodes = [("relay", relay), ("origin", origin), ("proxy", proxy)];
    let ground = Ground::new(files, &nodes, options)?;

    eprintln!("warming up");
    warm_up(&ground)?;
    let before = settled(&mut nodes, |_, _| Vec::new())?;
    eprintln!("{} minutes of traffic, seed {}", options.minutes, options.seed);
    let most = traffic(options, &ground, &mut nodes)?;
    eprintln!("letting go");
    let actions = std::mem::take(&mut *ground.actions.lock().unwrap_or_else(PoisonError::into_inner));
    drop(ground);
    let after = settled(&mut nodes, |i, now| before.get(i).map(|b| leaks(b, now)).unwrap_or_default())?;
    let told: Vec<Told> = nodes
        .iter()
        .zip(before.into_iter().zip(most).zip(after))
        .map(|((node, _), ((before, most), after))| Told {
            node,
            before,
            most,
            after,
            leaks: leaks(&before, &after),
        })
        .collect();
    println!("{}", machine.text());
    println!("{}", text(&told, &actions));
    let failed: Vec<String> =
        told.iter().flat_map(|t| t.leaks.iter().map(move |l| format!("{}: {l}", t.node))).collect();
    let results = Results { seed: options.seed, minutes: options.minutes, actions, nodes: told };
    options.output.json("soak", &machine, &[], &results)?;
    ensure!(failed.is_empty(), "left behind: {}", failed.join("; "));
    Ok(())
}

/// Lets the workers work until time is up, and watches what the nodes hold at most.
fn traffic(
    options: &Options,
    ground: &Ground,
    nodes: &mut [(&'static str, Daemon); 3],
) -> Result<Vec<Holdings>> {
    let mut most = vec![Holdings::default(); nodes.len()];
    thread::scope(|scope| {
        let workers: Vec<_> = (0..options.workers)
            .map(|i| {
                let random = Random(options.seed.wrapping_mul(1_000_003).wrapping_add(i));
                scope.spawn(move || ground.work(random, Duration::from_millis(options.pause)))
            })
            .collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            for ((_, node), most) in nodes.iter_mut().zip(&mut most) {
                node.check()?;
                most.raise(&Holdings::of(node)?);
            }
            thread::sleep(Duration::from_millis(500));
        }
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker's thread ended badly"))?)?;
        anyhow::Ok(())
    })?;
    Ok(most)
}

/// What the nodes hold once that does not change any more and nothing is `wrong` with it, or when the limit has passed.
fn settled(
    nodes: &mut [(&'static str, Daemon); 3],
    wrong: impl Fn(usize, &Holdings) -> Vec<String>,
) -> Result<Vec<Holdings>> {
    let until = Instant::now() + SETTLE_LIMIT;
    let (mut last, mut same) = (Vec::new(), 0);
    loop {
        let mut now = Vec::new();
        for (_, node) in nodes.iter_mut() {
            node.check()?;
            now.push(Holdings::of(node)?);
        }
        let key = |all: &[Holdings]| {
            all.iter().map(|h| (h.sockets, h.others, h.threads, h.tasks)).collect::<Vec<_>>()
        };
        same = if key(&now) == key(&last) { same + 1 } else { 0 };
        let is_right = now.iter().enumerate().all(|(i, holdings)| wrong(i, holdings).is_empty());
        // For longer than any limit of the nodes.
        if (same >= 26 && is_right) || Instant::now() > until {
            return Ok(now);
        }
        last = now;
        thread::sleep(Duration::from_millis(500));
    }
}

fn leaks(before: &Holdings, now: &Holdings) -> Vec<String> {
    let mut leaks = Vec::new();
    let mut check = |what: &str, before: u64, allowed: u64, now: u64| {
        if now > before + allowed {
            leaks.push(format!("{now} {what}, {before} before (allowed: {allowed} more)"));
        }
    };
    check("sockets", before.sockets as u64, 0, now.sockets as u64);
    check("pipe ends", before.pipes as u64, MORE_PIPES as u64, now.pipes as u64);
    check("other descriptors", before.others as u64, MORE_FILES as u64, now.others as u64);
    check("threads", before.threads as u64, 0, now.threads as u64);
    check("tasks", before.tasks as u64, 0, now.tasks as u64);
    check("KiB of memory", before.memory, MORE_MEMORY, now.memory);
    leaks
}

impl Holdings {
    fn of(node: &Daemon) -> Result<Holdings> {
        let mut holdings =
            Holdings { memory: node.memory()?.resident, tasks: node.tasks()?, ..Holdings::default() };
        for fd in fs::read_dir(format!("/proc/{}/fd", node.pid()))? {
            // One that is closed meanwhile counts for nothing.
            let Ok(target) = fs::read_link(fd?.path()) else { continue };
            let target = target.to_string_lossy().into_owned();
            *match target.split_once(':') {
                Some(("socket", _)) => &mut holdings.sockets,
                Some(("pipe", _)) => &mut holdings.pipes,
                _ => &mut holdings.others,
            } += 1;
        }
        holdings.threads = fs::read_dir(format!("/proc/{}/task", node.pid()))?.count();
        Ok(holdings)
    }

    fn raise(&mut self, other: &Holdings) {
        self.sockets = self.sockets.max(other.sockets);
        self.pipes = self.pipes.max(other.pipes);
        self.others = self.others.max(other.others);
        self.threads = self.threads.max(other.threads);
        self.tasks = self.tasks.max(other.tasks);
        self.memory = self.memory.max(other.memory);
    }
}

impl Files {
    fn create(home: &Workspace) -> Result<Files> {
        let mut names = Vec::new();
        for (name, size) in [("empty", 0), ("small", 1000), ("medium", (3 << 20) + 17), ("large", 24 << 20)] {
            let path = home.add(name, size)?;
            names.push((name.to_owned(), sample::hash(&path)?, size));
        }
        Ok(Files { home: home.path().to_owned(), names })
    }

    fn any(&self, random: &mut Random) -> Result<&(String, blake3::Hash, u64)> {
        let i = usize::try_from(random.below(self.names.len() as u64))?;
        self.names.get(i).context("there are no files")
    }
}

/// A plan for the n-th connection over a link: most links are good most of the time.
fn plan(seed: u64, n: usize) -> Plan {
    let mut random = Random(seed.wrapping_add(n as u64).wrapping_mul(0x2545_f491_4f6c_dd1d));
    if random.below(3) > 0 {
        return Plan::pass();
    }
    // Near the begin, where messages are, or anywhere in a file.
    let at = if random.below(2) == 0 { random.below(300) } else { random.below(8 << 20) };
    let fault = match random.below(6) {
        0 => Fault::Stall,
        1 => Fault::Cut,
        2 => Fault::HalfClose,
        3 => Fault::FlipBit(u8::try_from(random.below(8)).unwrap_or(0)),
        _ => Fault::Reset,
    };
    match random.below(5) {
        0 => Plan::up(random.below(300), fault),
        1 => Plan { down: Direction::rate(2_000_000), ..Plan::pass() },
        2 => Plan { down: Direction::delay(Duration::from_millis(30)), ..Plan::pass() },
        _ => Plan::down(at, fault),
    }
}

impl Ground {
    fn new(files: Files, nodes: &[(&'static str, Daemon); 3], options: &Options) -> Result<Ground> {
        let [relay, origin, proxy] = [0, 1, 2].map(|i: usize| nodes.get(i).map(|n| n.1.address()));
        let (relay, origin) = (relay.context("no relay")?, origin.context("no origin")?);
        let proxy = proxy.context("no proxy")?;
        let seed = options.seed;
        let faulty =
            |target, salt: u64| FaultProxy::start_with(target, move |n| plan(seed.wrapping_add(salt), n));
        Ok(Ground {
            files,
            client: own("relay-client")?,
            origin,
            relay,
            proxy,
            to_relay: faulty(relay, 1 << 20),
            to_origin: faulty(origin, 2 << 20),
            to_proxy: faulty(proxy, 3 << 20),
            until: Instant::now() + Duration::from_secs_f64(options.minutes.clamp(0.0, 600.0) * 60.0),
            number: AtomicU64::new(0),
            actions: Mutex::default(),
        })
    }

    fn count(&self, action: &str) {
        *self.actions.lock().unwrap_or_else(PoisonError::into_inner).entry(action.to_owned()).or_default() +=
            1;
    }

    fn work(&self, mut random: Random, pause: Duration) -> Result<()> {
        while Instant::now() < self.until {
            match random.below(12) {
                0..=3 => self.transfer(&mut random)?,
                4..=5 => self.killed_transfer(&mut random)?,
                6..=8 => self.http(&mut random)?,
                9 => self.nonsense(&mut random)?,
                10 => self.reader_that_stops(&mut random)?,
                _ => self.silent_peer(&mut random)?,
            }
            thread::sleep(pause);
        }
        Ok(())
    }

    fn place(&self) -> PathBuf {
        self.files.home.join(format!("arrived-{}", self.number.fetch_add(1, Ordering::Relaxed)))
    }

    /// A faulty chain of one to three relays, or a good one.
    fn hops(&self, random: &mut Random, is_faulty: bool) -> Vec<SocketAddr> {
        let (relay, origin) = if is_faulty {
            (self.to_relay.address(), self.to_origin.address())
        } else {
            (self.relay, self.origin)
        };
        let mut hops = vec![relay; usize::try_from(random.below(3)).unwrap_or(0)];
        hops.push(relay);
        hops.push(origin);
        hops
    }

    fn start(&self, name: &str, hops: &[SocketAddr], retries: u32, out: &Path) -> Result<Child> {
        let mut command = Command::new(&self.client);
        command.args([
            "--quiet",
            "--plain",
            "--timeout",
            "2s",
            "--get",
            name,
            "--retries",
            &retries.to_string(),
        ]);
        for hop in hops {
            command.args(["--via", &hop.to_string()]);
        }
        command.arg("-o").arg(out).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().context("cannot start relay-client")
    }

    /// A transfer over faulty links: it arrives whole, or it says that it did not.
    fn transfer(&self, random: &mut Random) -> Result<()> {
        let (name, hash, _) = self.files.any(random)?;
        let (out, hops) = (self.place(), self.hops(random, true));
        let code = wait(self.start(name, &hops, 3, &out)?)?;
        match code {
            Some(0) => ensure!(sample::hash(&out)? == *hash, "{name} arrived wrong, seed-dependent"),
            Some(_) => ensure!(!out.exists(), "{name} has its name although the client failed"),
            None => bail!("a client ended by a signal that nobody sent"),
        }
        self.count(if code == Some(0) {
            "transfers that arrived"
        } else {
            "transfers that said that they failed"
        });
        fetch::clear(&out)
    }

    /// A client that is killed, and the same again without faults: it always arrives.
    fn killed_transfer(&self, random: &mut Random) -> Result<()> {
        let (name, hash, _) = self.files.any(random)?;
        let (out, hops) = (self.place(), self.hops(random, true));
        let mut child = self.start(name, &hops, 3, &out)?;
        thread::sleep(Duration::from_millis(random.below(400)));
        child.kill()?;
        child.wait()?;
        if out.exists() {
            ensure!(sample::hash(&out)? == *hash, "{name} arrived wrong before its client was killed");
        }
        let code = wait(self.start(name, &self.hops(random, false), 3, &out)?)?;
        ensure!(code == Some(0), "{name} did not arrive after its client was killed: {code:?}");
        ensure!(sample::hash(&out)? == *hash, "{name} arrived wrong after its client was killed");
        self.count("clients killed, and run again");
        fetch::clear(&out)
    }

    /// An HTTP request to the origin or through the caching proxy, by a good or a faulty way, read whole or in part.
    fn http(&self, random: &mut Random) -> Result<()> {
        let (name, hash, size) = self.files.any(random)?;
        let is_faulty = random.below(2) == 0;
        let address = match (random.below(3), is_faulty) {
            (0, _) => self.origin,
            (_, true) => self.to_proxy.address(),
            (_, false) => self.proxy,
        };
        let is_sure = address != self.to_proxy.address();
        let most = if random.below(3) == 0 { random.below(*size + 1) } else { u64::MAX };
        let answer = http_get(address, name, most);
        match answer {
            Ok(body) if most == u64::MAX && is_sure => {
                ensure!(blake3::hash(&body) == *hash, "{name} came wrong over HTTP: {} bytes", body.len());
                self.count("HTTP answers");
            }
            Err(error) if is_sure => return Err(error.context("HTTP without faults")),
            Ok(_) | Err(_) => self.count("HTTP answers over faulty links, or given up"),
        }
        Ok(())
    }

    /// Bytes that are no request of any kind, then a reset or an end.
    fn nonsense(&self, random: &mut Random) -> Result<()> {
        let address =
            [self.origin, self.relay, self.proxy].into_iter().nth(usize::try_from(random.below(3))?);
        let mut stream = connect(address.context("a node")?)?;
        let bytes: Vec<u8> = (0..random.below(3000)).map(|_| random.bits().to_le_bytes()[0]).collect();
        // The node may close at any byte.
        let _ = stream.write_all(if random.below(2) == 0 { &bytes } else { b"\xf5RLY" });
        if random.below(2) == 0 {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        }
        self.count("peers that sent nonsense");
        Ok(())
    }

    /// Asks for a large file and stops reading, for a while or for good.
    fn reader_that_stops(&self, random: &mut Random) -> Result<()> {
        let mut stream = connect(if random.below(2) == 0 { self.origin } else { self.proxy })?;
        stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let mut some = vec![0; 100_000];
        stream.read_exact(&mut some)?;
        thread::sleep(Duration::from_millis(random.below(3000)));
        self.count("readers that stopped");
        Ok(())
    }

    fn silent_peer(&self, random: &mut Random) -> Result<()> {
        let stream = connect(if random.below(2) == 0 { self.relay } else { self.origin })?;
        thread::sleep(Duration::from_millis(random.below(2000)));
        drop(stream);
        self.count("peers that said nothing");
        Ok(())
    }
}

/// Everything once or a few times and without faults, so that what is made once is there.
fn warm_up(ground: &Ground) -> Result<()> {
    let mut random = Random(7);
    thread::scope(|scope| {
        let many: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for (name, hash, _) in &ground.files.names {
                        let out = ground.place();
                        let code = wait(ground.start(
                            name,
                            &[ground.relay, ground.relay, ground.origin],
                            0,
                            &out,
                        )?)?;
                        ensure!(code == Some(0) && sample::hash(&out)? == *hash, "{name} did not arrive");
                        fetch::clear(&out)?;
                        for node in [ground.origin, ground.proxy, ground.proxy] {
                            let body = http_get(node, name, u64::MAX)?;
                            ensure!(blake3::hash(&body) == *hash, "{name} came wrong over HTTP");
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        many.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a thread ended badly"))?)
    })?;
    ground.nonsense(&mut random)?;
    ground.silent_peer(&mut random)
}

/// The exit code of a client; none when a signal ended it.
fn wait(mut child: Child) -> Result<Option<i32>> {
    let until = Instant::now() + ACTION_LIMIT;
    while Instant::now() < until {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    child.wait()?;
    bail!("a client with a limit of 2 s and 3 retries still ran after {ACTION_LIMIT:?}")
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(ACTION_LIMIT))?;
    stream.set_write_timeout(Some(ACTION_LIMIT))?;
    Ok(stream)
}

/// The body of an answer, or the first `most` bytes of it.
fn http_get(address: SocketAddr, name: &str, most: u64) -> Result<Vec<u8>> {
    let mut stream = connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET /{name} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(most.saturating_add(2000)).read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|w| w == b"\r\n\r\n").context("the answer has no head")?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "the node did not answer 200");
    Ok(answer.split_off(head + 4))
}

fn text(told: &[Told], actions: &BTreeMap<String, u64>) -> String {
    let mut text = String::new();
    for (action, count) in actions {
        let _ = writeln!(text, "{count:>7}  {action}");
    }
    let row = |node: &str, when: &str, h: &Holdings| {
        vec![
            format!("{node}, {when}"),
            h.sockets.to_string(),
            h.pipes.to_string(),
            h.others.to_string(),
            h.threads.to_string(),
            h.tasks.to_string(),
            (h.memory / 1024).to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = told
        .iter()
        .flat_map(|t| {
            [row(t.node, "before", &t.before), row(t.node, "most", &t.most), row(t.node, "after", &t.after)]
        })
        .collect();
    text + "\n"
        + &table(
            &["", "sockets", "pipe ends", "other descriptors", "threads", "tasks", "resident MiB"],
            &rows,
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_behind_is_named() {
        let before = Holdings { sockets: 4, pipes: 1, others: 8, threads: 3, tasks: 6, memory: 8000 };
        assert!(leaks(&before, &before).is_empty());
        let pooled = Holdings { pipes: 1 + MORE_PIPES, others: 8 + MORE_FILES, ..before };
        assert!(leaks(&before, &pooled).is_empty());
        for (worse, named) in [
            (Holdings { sockets: 5, ..before }, "5 sockets, 4 before"),
            (Holdings { pipes: 2 + MORE_PIPES, ..before }, "pipe ends"),
            (Holdings { others: 9 + MORE_FILES, ..before }, "other descriptors"),
            (Holdings { threads: 4, ..before }, "4 threads, 3 before"),
            (Holdings { tasks: 7, ..before }, "7 tasks, 6 before"),
            (Holdings { memory: 8001 + MORE_MEMORY, ..before }, "KiB of memory"),
        ] {
            let leaks = leaks(&before, &worse);
            assert!(matches!(leaks.as_slice(), [leak] if leak.contains(named)), "{leaks:?}");
        }
    }

    #[test]
    fn plans_are_the_same_each_time_and_of_every_kind() {
        let plans: Vec<Plan> = (0..2000).map(|n| plan(5, n)).collect();
        assert!(plans.iter().enumerate().all(|(n, one)| *one == plan(5, n)));
        let good = plans.iter().filter(|plan| **plan == Plan::pass()).count();
        assert!((1000..1700).contains(&good), "{good} of 2,000 connections meet no fault");
        for fault in [Fault::Stall, Fault::Cut, Fault::HalfClose, Fault::Reset] {
            let has = |direction: &Direction| direction.faults.iter().any(|(_, f)| *f == fault);
            assert!(
                plans.iter().any(|plan| has(&plan.down)) && plans.iter().any(|plan| has(&plan.up)),
                "{fault:?}"
            );
        }
    }
}
