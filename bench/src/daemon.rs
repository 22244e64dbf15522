//! Processes that serve while a measurement runs: started, found listening, metered through `/proc`, ended by their pid.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::platform;

/// How long a process may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(15);
/// How long a process may take to end after SIGTERM before it gets SIGKILL.
const END_LIMIT: Duration = Duration::from_secs(3);
/// How long a node may take to write the line that it was asked for.
const STATUS_LIMIT: Duration = Duration::from_secs(10);
/// How long the last bytes of a measurement may keep processes busy after the client has ended.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);

/// A process that listens on one port of loopback. Dropping it ends it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    address: SocketAddr,
    name: String,
    log: PathBuf,
}

/// What the memory of some processes amounts to, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Pages in RAM, shared ones in full.
    pub resident: u64,
    /// Pages in RAM, shared ones divided among their sharers.
    pub proportional: u64,
    /// The most that was resident since the last [`Daemon::reset_peak`].
    pub peak: u64,
}

impl Daemon {
    /// Starts a program that prints `listening on ADDRESS` and waits for that line; `log` keeps what it prints.
    pub fn start_announcing(name: &str, mut command: Command, log: &Path) -> Result<Daemon> {
        let read = prepare(&mut command, log)?;
        Daemon::announced_in(name, command, read, log)
    }

    /// The same where only the announcement goes to `log`, and standard error elsewhere.
    pub fn start_with_errors_to(
        name: &str,
        mut command: Command,
        log: &Path,
        errors: Stdio,
    ) -> Result<Daemon> {
        let read = prepare(&mut command, log)?;
        command.stderr(errors);
        Daemon::announced_in(name, command, read, log)
    }

    fn announced_in(name: &str, mut command: Command, mut read: File, log: &Path) -> Result<Daemon> {
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let until = Instant::now() + START_LIMIT;
        loop {
            let mut said = String::new();
            read.seek(SeekFrom::Start(0))?;
            read.read_to_string(&mut said)?;
            if let Some(address) = announced(&said) {
                return Ok(Daemon { child, address, name: name.to_owned(), log: log.to_owned() });
            }
            still_starting(name, &mut child, until, &said)?;
        }
    }

    /// Starts a program that was configured to listen on `address` and waits until that is so.
    pub fn start_on(name: &str, address: SocketAddr, mut command: Command, log: &Path) -> Result<Daemon> {
        prepare(&mut command, log)?;
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let until = Instant::now() + START_LIMIT;
        while !listens(child.id(), address.port()) {
            still_starting(name, &mut child, until, &fs::read_to_string(log).unwrap_or_default())?;
        }
        Ok(Daemon { child, address, name: name.to_owned(), log: log.to_owned() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process, without its children.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time so far of the process and of its children, and, in clock ticks of 10 ms, of those that it waited for.
    pub fn cpu(&self) -> Result<Duration> {
        let (mut time, mut ticks) = (Duration::ZERO, 0);
        for pid in family(self.pid())? {
            // A child that has just ended is in the figures of its parent.
            time += platform::cpu_time(pid).unwrap_or_default();
            ticks += Stat::read(pid).map_or(0, |s| s.waited_for);
        }
        Ok(time + Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second())?)
    }

    /// Memory of the process and of its children.
    pub fn memory(&self) -> Result<Memory> {
        let mut sum = Memory::default();
        for pid in family(self.pid())? {
            let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
            sum.resident += kib_after(&status, "VmRSS:");
            sum.peak += kib_after(&status, "VmHWM:");
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            sum.proportional += kib_after(&rollup, "Pss:");
        }
        Ok(sum)
    }

    /// How many descriptors the process has open.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }

    /// Tasks alive in a node of this project, which is asked by SIGUSR1 and answers in its log.
    pub fn tasks(&self) -> Result<usize> {
        let pid = rustix::process::Pid::from_raw(self.pid().cast_signed()).context("no pid")?;
        let mut log = File::open(&self.log)?;
        log.seek(SeekFrom::End(0))?;
        rustix::process::kill_process(pid, rustix::process::Signal::USR1)?;
        let (mut said, until) = (String::new(), Instant::now() + STATUS_LIMIT);
        loop {
            log.read_to_string(&mut said)?;
            if let Some(tasks) = tasks_told(&said) {
                return Ok(tasks);
            }
            ensure!(
                Instant::now() < until,
                "{} told no status within {STATUS_LIMIT:?}; its log must have the level info",
                self.name
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lets the peak count from now on (proc(5): `clear_refs`, value 5).
    pub fn reset_peak(&self) -> Result<()> {
        for pid in family(self.pid())? {
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
        Ok(())
    }

    /// An error when it is not running any more.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended in the middle of the measurement: {status}", self.name),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends a process: asked at first, so that it ends its own children, and then killed.
pub fn end(child: &mut Child) {
    let _ =
        rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::TERM);
    let until = Instant::now() + END_LIMIT;
    while Instant::now() < until {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Waits until none of the processes uses CPU time any more, so that a round's last work is counted in that round.
pub fn settle(daemons: &[&Daemon]) -> Result<()> {
    let until = Instant::now() + SETTLE_LIMIT;
    let total = || daemons.iter().try_fold(Duration::ZERO, |sum, d| Ok::<_, anyhow::Error>(sum + d.cpu()?));
    let mut before = total()?;
    while Instant::now() < until {
        thread::sleep(Duration::from_millis(30));
        let now = total()?;
        if now.saturating_sub(before) < AT_REST {
            break;
        }
        before = now;
    }
    Ok(())
}

/// CPU time in 30 ms of processes that have nothing to do but timers.
const AT_REST: Duration = Duration::from_millis(1);

/// CPU time that the whole machine spent working since it started.
pub fn machine_busy() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let first = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> = first.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal (proc(5)); waiting is not work.
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|&i| fields.get(i)).sum();
    Ok(Duration::from_secs(busy) / u32::try_from(rustix::param::clock_ticks_per_second())?)
}

fn prepare(command: &mut Command, log: &Path) -> Result<File> {
    let write = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let read = File::open(log)?;
    command.stdin(Stdio::null()).stdout(write.try_clone()?).stderr(write);
    platform::end_with_parent(command);
    Ok(read)
}

fn still_starting(name: &str, child: &mut Child, until: Instant, said: &str) -> Result<()> {
    if let Some(status) = child.try_wait()? {
        bail!("{name} ended at once ({status}); it said: {said}");
    }
    if Instant::now() > until {
        let _ = child.kill();
        let _ = child.wait();
        bail!("{name} did not listen within {START_LIMIT:?}; it said: {said}");
    }
    thread::sleep(Duration::from_millis(10));
    Ok(())
}

fn announced(said: &str) -> Option<SocketAddr> {
    let (_, after) = said.split_once("listening on ")?;
    // Only a whole line: the rest may not be written yet.
    let (line, _) = after.split_once('\n')?;
    let address = line.split(|c: char| c.is_whitespace() || c == ',').next()?;
    address.trim_end_matches(['.', ';']).parse().ok()
}

/// The tasks in the first whole status line of a node's log.
fn tasks_told(log: &str) -> Option<usize> {
    let (whole, _) = log.rsplit_once('\n')?;
    let line = whole.lines().find(|line| line.contains(" status: "))?;
    line.split_whitespace().find_map(|word| word.strip_prefix("tasks=")?.parse().ok())
}

/// Whether somebody listens on the port in the process's network namespace.
fn listens(pid: u32, port: u16) -> bool {
    let tables =
        ["tcp", "tcp6"].map(|t| fs::read_to_string(format!("/proc/{pid}/net/{t}")).unwrap_or_default());
    let wanted = format!(":{port:04X}");
    tables.iter().flat_map(|t| t.lines()).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        // State 0A is LISTEN.
        local.ends_with(&wanted) && fields.nth(1) == Some("0A")
    })
}

struct Stat {
    parent: u32,
    /// Ticks of children that have ended.
    waited_for: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Stat> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything, so the fields are counted from its closing parenthesis: state is the first.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok());
        Some(Stat { parent: u32::try_from(number(1)?).ok()?, waited_for: number(13)? + number(14)? })
    }
}

/// A process and all that descend from it.
fn family(root: u32) -> Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        if let Some(stat) = Stat::read(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let (mut found, mut seen) = (vec![root], HashSet::from([root]));
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        next += 1;
        for &child in children.get(&pid).map(Vec::as_slice).unwrap_or_default() {
            if seen.insert(child) {
                found.push(child);
            }
        }
    }
    Ok(found)
}

fn kib_after(text: &str, label: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(label))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::tasks_told;

    #[test]
    fn tasks_are_read_from_a_whole_line_only() {
        let log = "10:00 INFO access: tasks=9\n10:01 INFO status: connections=2 tasks=7 idle_pipes=0\n";
        assert_eq!(tasks_told(log), Some(7));
        for end in 0..log.len() {
            assert_eq!(tasks_told(log.get(..end).unwrap()), None, "{end}");
        }
    }
}
