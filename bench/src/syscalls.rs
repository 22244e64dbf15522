//! `relay-bench syscalls`: what a relay and an origin ask of the kernel for a MiB, counted by strace(1).

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::daemon::Daemon;
use crate::fetch;
use crate::machine::Machine;
use crate::peers::{Chain, Variant, installed};
use crate::report::{Output, table};
use crate::sample::{self, Workspace};

/// What to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// Size of the file
    #[arg(long, default_value = "256MiB", value_parser = sample::parse_size)]
    size: u64,
    #[command(flatten)]
    output: Output,
}

/// The calls of one process.
#[derive(Debug, Serialize)]
struct Counted {
    process: &'static str,
    /// Calls a MiB of the file, by name.
    calls_a_mib: BTreeMap<String, f64>,
}

/// Counts and reports.
///
/// # Errors
/// strace is not there or may not trace, or the fetch failed.
pub fn run(options: &Options) -> Result<()> {
    let strace = installed("strace")?;
    let machine = Machine::describe(&["strace"]);
    let home = Workspace::new()?;
    let file = home.add("sample", options.size)?;
    let chain = Chain::start(Variant::Relay, 1, &file, home.path())?;
    let fetch_once = || fetch::run(&chain.fetch(&file, Path::new("/dev/null"))?);
    // An origin keeps no hashes of a file that changed a moment ago, and copies it.
    thread::sleep(Duration::from_secs(3));
    // Once before, so that the origin's index has the hashes and buffers are there.
    fetch_once()?;
    let relay = chain.relays.first().context("the chain has no relay")?;
    let mut counted = Vec::new();
    for (process, daemon) in [("relay", relay), ("origin", &chain.origin)] {
        let summary = home.path().join(format!("{process}.strace"));
        let tracer = attach(&strace, daemon, &summary)?;
        fetch_once()?;
        detach(tracer)?;
        counted.push(Counted { process, calls_a_mib: calls(&fs::read_to_string(&summary)?, options.size) });
    }
    println!("{}", machine.text());
    println!("{} through one relay, the hashes known; calls a MiB\n", sample::size_text(options.size));
    println!("{}", text(&counted));
    options.output.json("syscalls", &machine, &[], &counted)
}

/// Starts to count, and returns once that is so.
fn attach(strace: &Path, daemon: &Daemon, summary: &Path) -> Result<Child> {
    let mut command = Command::new(strace);
    command.args(["-f", "-c", "-p", &daemon.pid().to_string(), "-o"]).arg(summary);
    let mut tracer =
        command.stderr(Stdio::piped()).stdin(Stdio::null()).spawn().context("cannot start strace")?;
    let mut said = String::new();
    let stderr = tracer.stderr.as_mut().context("strace has no standard error")?;
    BufReader::new(stderr).read_line(&mut said)?;
    ensure!(said.contains("attached"), "strace may not trace here: {}", said.trim());
    Ok(tracer)
}

/// Ends the counting; strace then writes its summary.
fn detach(mut tracer: Child) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(tracer.id().cast_signed()).context("strace has no pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    tracer.wait()?;
    Ok(())
}

/// The rows of strace's summary: `% time, seconds, usecs/call, calls, [errors,] syscall`.
#[allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn calls(summary: &str, size: u64) -> BTreeMap<String, f64> {
    let mib = size as f64 / f64::from(1 << 20);
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let count: u64 = fields.get(3)?.parse().ok()?;
        let name = fields.get(4..)?.last()?;
        (fields.first()?.parse::<f64>().is_ok() && *name != "total")
            .then(|| ((*name).to_owned(), count as f64 / mib))
    };
    summary.lines().filter_map(row).collect()
}

fn text(counted: &[Counted]) -> String {
    let rows: Vec<Vec<String>> = counted
        .iter()
        .map(|c| {
            let mut calls: Vec<(&String, f64)> = c.calls_a_mib.iter().map(|(n, v)| (n, *v)).collect();
            calls.sort_by(|a, b| b.1.total_cmp(&a.1));
            let sum: f64 = calls.iter().map(|c| c.1).sum();
            let most: Vec<String> =
                calls.iter().filter(|c| c.1 >= 0.01).map(|(n, v)| format!("{n} {v:.2}")).collect();
            vec![c.process.to_owned(), format!("{sum:.2}"), most.join(", ")]
        })
        .collect();
    table(&["", "calls a MiB", "of them"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_read() {
        let summary = "% time     seconds  usecs/call     calls    errors syscall\n\
                       ------ ----------- ----------- --------- --------- ----------------\n\
                       \u{20}60.00    0.000600          10       512        12 splice\n\
                       \u{20}40.00    0.000400          10       256           epoll_wait\n\
                       ------ ----------- ----------- --------- --------- ----------------\n\
                       100.00    0.001000                   768        12 total\n";
        let calls = calls(summary, 256 << 20);
        assert_eq!(
            calls.into_iter().collect::<Vec<_>>(),
            [("epoll_wait".to_owned(), 1.0), ("splice".to_owned(), 2.0)]
        );
    }
}
