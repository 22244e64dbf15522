//! What the figures were measured on, and with which versions.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use serde::Serialize;

/// The programs that the bench may start: name, how it tells its version, and the Debian package that brings it.
const PROGRAMS: &[(&str, &[&str], &str)] = &[
    ("haproxy", &["-v"], "haproxy"),
    ("nginx", &["-v"], "nginx libnginx-mod-stream"),
    ("socat", &["-V"], "socat"),
    ("ssh", &["-V"], "openssh-client"),
    ("sshd", &["-V"], "openssh-server"),
    ("ssh-keygen", &[], "openssh-client"),
    ("squid", &["-v"], "squid"),
    ("curl", &["--version"], "curl"),
    ("wrk", &["-v"], "wrk"),
    ("aria2c", &["--version"], "aria2"),
    ("b3sum", &["--version"], "b3sum"),
    ("rsync", &["--version"], "rsync"),
    ("ip", &["-V"], "iproute2"),
];

/// The machine, as a reader needs it to judge figures.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    memory_gib: u64,
    congestion_control: String,
    programs: BTreeMap<String, String>,
}

impl Machine {
    /// Reads `/proc`, and asks the named programs for their versions.
    pub fn describe(programs: &[&str]) -> Machine {
        let first = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Machine {
            cpu: value_after(&first("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            kernel: first("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_gib: value_after(&first("/proc/meminfo"), "MemTotal")
                .and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib >> 20),
            congestion_control: first("/proc/sys/net/ipv4/tcp_congestion_control").trim().to_owned(),
            programs: programs.iter().filter_map(|name| Some(((*name).to_owned(), version(name)?))).collect(),
        }
    }

    /// The same in a few lines for people.
    pub fn text(&self) -> String {
        let mut lines = format!(
            "{}, {} cores, {} GiB, Linux {}, congestion control {}\n",
            self.cpu, self.cores, self.memory_gib, self.kernel, self.congestion_control
        );
        for (name, version) in &self.programs {
            lines += &format!("  {name}: {version}\n");
        }
        lines
    }
}

/// Where a program is, as the shell would find it, `/usr/sbin` included.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(extra).map(|dir| dir.join(program)).find(|p| p.is_file())
}

/// The Debian package that brings a program.
pub fn package_of(program: &str) -> &'static str {
    PROGRAMS.iter().find(|(name, ..)| *name == program).map_or("(unknown)", |(.., package)| package)
}

fn version(name: &str) -> Option<String> {
    let (_, arguments, _) = PROGRAMS.iter().find(|(n, ..)| *n == name)?;
    let output = Command::new(find(name)?).args(*arguments).output().ok()?;
    // Half of them tell it on standard error, and some after a line of something else.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line =
        text.lines().find(|l| l.chars().any(|c| c.is_ascii_digit()) && !l.contains("unknown option"))?;
    Some(line.trim().chars().take(80).collect())
}

fn value_after(text: &str, label: &str) -> Option<String> {
    let line = text.lines().find(|l| l.starts_with(label))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
