//! One fetch through a chain, with everything that it cost.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::daemon::{Daemon, end, machine_busy, settle};
use crate::invocation::{Invocation, Pipeline};
use crate::peers::Chain;
use crate::platform::{self, Usage};

/// What one fetch cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// From starting the client to its end.
    pub seconds: f64,
    /// 10^6 bytes a second.
    pub megabytes_a_second: f64,
    /// CPU seconds a GB (10^9 bytes) of one relay, on average; 0 without relays.
    pub relay_cpu: f64,
    /// CPU seconds a GB of the origin.
    pub origin_cpu: f64,
    /// CPU seconds a GB of the client.
    pub client_cpu: f64,
    /// CPU seconds a GB that the whole machine was busy, everything included.
    pub machine_cpu: f64,
    /// The most memory that one relay held, in MiB.
    pub relay_peak: f64,
    /// The most memory that the origin held, in MiB.
    pub origin_peak: f64,
    /// The most memory that the client's processes held, in MiB.
    pub client_peak: f64,
}

impl Sample {
    /// What is known when only the client was watched.
    #[allow(clippy::cast_precision_loss, reason = "sizes below 2^53 are exact in an f64")]
    pub fn of_client(size: u64, seconds: f64, used: Usage) -> Sample {
        Sample {
            seconds,
            megabytes_a_second: size as f64 / 1e6 / seconds,
            relay_cpu: f64::NAN,
            origin_cpu: f64::NAN,
            client_cpu: used.cpu.as_secs_f64() / (size as f64 / 1e9),
            machine_cpu: f64::NAN,
            relay_peak: f64::NAN,
            origin_peak: f64::NAN,
            client_peak: used.peak_kib as f64 / 1024.0,
        }
    }
}

/// Fetches `file` into `out` once and measures it. What lay at `out` is removed first, outside the time.
pub fn measure(chain: &mut Chain, file: &Path, out: &Path) -> Result<Sample> {
    let size = file.metadata()?.len();
    clear(out)?;
    let steps = chain.fetch(file, out)?;
    chain.daemons().iter().try_for_each(|d| d.reset_peak())?;
    let before = costs(chain)?;
    let started = Instant::now();
    let used = run(&steps).with_context(|| format!("{} could not fetch", chain.variant.name()))?;
    let elapsed = started.elapsed();
    settle(&chain.daemons())?;
    let after = costs(chain)?;
    chain.check()?;
    if is_file(out) {
        let arrived = fs::metadata(out)?.len();
        ensure!(arrived == size, "{}: {arrived} of {size} bytes arrived", chain.variant.name());
    }
    sample(chain, size, elapsed, used, &before, &after)
}

/// Seconds that a program takes, which must end well.
pub fn timed(mut command: Command) -> Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let started = Instant::now();
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(started.elapsed().as_secs_f64())
}

/// Whether the sink keeps what it gets.
pub fn is_file(out: &Path) -> bool {
    out != Path::new("/dev/null")
}

/// Removes what a fetch, whole or not, left behind.
pub fn clear(out: &Path) -> Result<()> {
    if !is_file(out) {
        return Ok(());
    }
    for suffix in ["", ".part", ".part.journal", ".aria2"] {
        let mut path = out.as_os_str().to_owned();
        path.push(suffix);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", Path::new(&path).display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Runs the steps one after the other and sums what their processes used.
pub fn run(steps: &[Pipeline]) -> Result<Usage> {
    let mut sum = Usage { success: true, ..Usage::default() };
    for step in steps {
        for child in start(step)? {
            let used = platform::wait_with_usage(&child)?;
            ensure!(used.success, "a client ended with an error");
            sum.cpu += used.cpu;
            sum.peak_kib = sum.peak_kib.max(used.peak_kib);
        }
    }
    Ok(sum)
}

/// Runs one program for at most that long; whether it ended in order by itself. One that did not is ended.
///
/// # Errors
/// It failed.
pub fn run_within(program: &Invocation, limit: Duration) -> Result<bool> {
    let until = Instant::now() + limit;
    let mut children = start(std::slice::from_ref(program))?;
    let child = children.first_mut().context("nothing was started")?;
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "a client ended with {status}");
            return Ok(true);
        }
        if Instant::now() >= until {
            end(child);
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn start(pipeline: &[Invocation]) -> Result<Vec<Child>> {
    let (mut children, mut previous): (Vec<Child>, Option<Stdio>) = (Vec::new(), None);
    for (i, invocation) in pipeline.iter().enumerate() {
        let mut command = Command::new(&invocation.program);
        command.args(&invocation.arguments).stdin(previous.take().unwrap_or_else(Stdio::null));
        command.stdout(match &invocation.stdout {
            Some(path) if is_file(path) => Stdio::from(File::create(path)?),
            _ if i + 1 < pipeline.len() => Stdio::piped(),
            _ => Stdio::null(),
        });
        if invocation.ends_with_bench {
            platform::end_with_parent(&mut command);
        }
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", invocation.program.display()))?;
        previous = child.stdout.take().map(Stdio::from);
        children.push(child);
    }
    Ok(children)
}

#[derive(Clone, Copy)]
struct Costs {
    relays: Duration,
    origin: Duration,
    machine: Duration,
}

fn costs(chain: &Chain) -> Result<Costs> {
    let relays =
        chain.relays.iter().try_fold(Duration::ZERO, |sum, r| Ok::<_, anyhow::Error>(sum + r.cpu()?))?;
    Ok(Costs { relays, origin: chain.origin.cpu()?, machine: machine_busy()? })
}

#[allow(clippy::cast_precision_loss, reason = "sizes below 2^53 are exact in an f64")]
fn sample(
    chain: &Chain,
    size: u64,
    elapsed: Duration,
    used: Usage,
    before: &Costs,
    after: &Costs,
) -> Result<Sample> {
    let gigabytes = size as f64 / 1e9;
    let per_gb = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() / gigabytes;
    let peak = |daemon: &Daemon| Ok::<_, anyhow::Error>(daemon.memory()?.peak as f64 / 1024.0);
    let relay_peak =
        chain.relays.iter().try_fold(0.0, |most, r| Ok::<_, anyhow::Error>(peak(r)?.max(most)))?;
    Ok(Sample {
        seconds: elapsed.as_secs_f64(),
        megabytes_a_second: size as f64 / 1e6 / elapsed.as_secs_f64(),
        relay_cpu: per_gb(before.relays, after.relays) / chain.relays.len().max(1) as f64,
        origin_cpu: per_gb(before.origin, after.origin),
        client_cpu: used.cpu.as_secs_f64() / gigabytes,
        machine_cpu: per_gb(before.machine, after.machine),
        relay_peak,
        origin_peak: peak(&chain.origin)?,
        client_peak: used.peak_kib as f64 / 1024.0,
    })
}
