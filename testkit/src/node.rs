//! A node on a port of its own, and chains of them.

use crate::process::{Process, Signal};
use crate::programs::program;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// A running `relay-node`, which is killed when this is dropped.
#[derive(Debug)]
pub struct Node {
    process: Process,
    address: SocketAddr,
}

impl Node {
    /// Starts a node on a free port of 127.0.0.1 that serves `root`, and waits until it listens.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start(root: &Path) -> Node {
        Node::start_with(root, &[] as &[&str])
    }

    /// The same with more arguments.
    ///
    /// # Panics
    /// When it does not listen.
    #[must_use]
    pub fn start_with<A: AsRef<OsStr>>(root: &Path, arguments: &[A]) -> Node {
        let mut command = Command::new(program("relay-node"));
        command.args(["--listen", "127.0.0.1:0", "--root"]).arg(root).args(arguments);
        // What a developer has in the environment must not reach the nodes of a test.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RELAY_NODE_"))
        {
            command.env_remove(name);
        }
        Node::from_process(Process::start(command))
    }

    /// Takes a process that is about to say where it listens.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn from_process(process: Process) -> Node {
        let address = process.wait_for("address after \"listening on\"", listening_address);
        Node { process, address }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a hop, `127.0.0.1:12000`.
    #[must_use]
    pub fn hop(&self) -> String {
        self.address.to_string()
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Waits for a log line that contains `part`, and returns it.
    ///
    /// # Panics
    /// When none comes.
    pub fn wait_for_log(&self, part: &str) -> String {
        self.process.wait_for_line(part)
    }

    /// Ends it as a power cut would, and waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    #[cfg(unix)]
    pub fn kill(self) {
        self.process.signal(Signal::Kill);
        let _ = self.process.finish();
    }

    /// The process, for waiting for its end.
    #[must_use]
    pub fn into_process(self) -> Process {
        self.process
    }

    /// How much memory it holds now (`VmRSS` of proc(5)), in KiB; none where there is no such thing.
    #[must_use]
    pub fn resident_kib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }

    /// How many descriptors it has open; none where that cannot be told.
    #[must_use]
    pub fn open_descriptors(&self) -> Option<usize> {
        Some(fs::read_dir(format!("/proc/{}/fd", self.process.pid())).ok()?.count())
    }
}

/// The address in the first whole line that says `listening on`.
fn listening_address(text: &str) -> Option<SocketAddr> {
    let whole = &text[..text.rfind('\n')?];
    whole.lines().find_map(|line| {
        let (_, behind) = line.split_once("listening on ")?;
        behind.split_whitespace().find_map(|word| word.trim_matches(|c| matches!(c, ',' | '"')).parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::listening_address;

    #[test]
    fn the_address_of_a_start() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(listening_address(text).map(|a| a.to_string()).as_deref(), expected, "{text:?}");
        };
        check("x\nlistening on 127.0.0.1:4711\n", Some("127.0.0.1:4711"));
        check("INFO relay_node: listening on 127.0.0.1:1, serving www\n", Some("127.0.0.1:1"));
        check("listening on 127.0.0.1:47", None);
        check("listening on nothing\n", None);
    }
}
