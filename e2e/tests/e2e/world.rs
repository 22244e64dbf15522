//! What every test starts from: a place on disk, nodes, and clients that run in it.

use relay_testkit::files::{names_in, write_sample};
use relay_testkit::node::Node;
use relay_testkit::process::{Finished, Process};
use relay_testkit::programs::program;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const MIB: usize = 1 << 20;

/// A directory that origins serve and one that clients save into, gone at the end of the test.
pub struct World {
    place: tempfile::TempDir,
}

impl World {
    pub fn new() -> World {
        let place = tempfile::tempdir().expect("a directory");
        for name in ["served", "empty", "saved"] {
            fs::create_dir(place.path().join(name)).expect("a directory");
        }
        World { place }
    }

    /// What origins serve.
    pub fn served(&self) -> PathBuf {
        self.place.path().join("served")
    }

    /// Where clients save; their current directory.
    pub fn saved(&self) -> PathBuf {
        self.place.path().join("saved")
    }

    /// A path outside of both.
    pub fn elsewhere(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Puts a sample of `len` bytes under `name` into what origins serve.
    pub fn offer(&self, name: &str, len: usize) -> Vec<u8> {
        write_sample(&self.served().join(name), name, len)
    }

    /// A node that serves the samples.
    pub fn origin(&self) -> Node {
        Node::start(&self.served())
    }

    /// A node that serves nothing.
    pub fn relay(&self) -> Node {
        self.relay_with(&[])
    }

    pub fn relay_with(&self, arguments: &[&str]) -> Node {
        Node::start_with(&self.place.path().join("empty"), arguments)
    }

    pub fn origin_with(&self, arguments: &[&str]) -> Node {
        Node::start_with(&self.served(), arguments)
    }

    /// `relays` relays and an origin behind them.
    pub fn chain(&self, relays: usize) -> Vec<Node> {
        (0..relays).map(|_| self.relay()).chain([self.origin()]).collect()
    }

    /// Writes a route file in the form that its users have.
    pub fn route(&self, file: &str, hops: &[String]) -> PathBuf {
        let path = self.elsewhere("route.txt");
        let hops: String = hops.iter().map(|hop| hop.replacen(':', " ", 1) + "\n").collect();
        fs::write(&path, format!("{file}\n{hops}")).expect("a route");
        path
    }

    /// Starts a client in the directory that it saves into.
    pub fn start_client(&self, arguments: &[&str]) -> Process {
        let mut command = self.client_command();
        command.args(arguments);
        Process::start(command)
    }

    pub fn client_command(&self) -> Command {
        let mut command = Command::new(program("relay-client"));
        command.current_dir(self.saved());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RELAY_"))
        {
            command.env_remove(name);
        }
        // Faults are placed at exact bytes, which encryption would move; its own tests take this away.
        command.env("RELAY_CLIENT_PLAIN", "true");
        command
    }

    /// Runs a client to its end.
    pub fn client(&self, arguments: &[&str]) -> Finished {
        self.start_client(arguments).finish()
    }

    /// Fetches `file` through `hops`, to its end.
    pub fn fetch(&self, file: &str, hops: &[String], arguments: &[&str]) -> Finished {
        self.start_fetch(file, hops, arguments).finish()
    }

    /// Starts to fetch `file` through `hops`, without retries: these tests look at single failures.
    pub fn start_fetch(&self, file: &str, hops: &[String], arguments: &[&str]) -> Process {
        let mut command = self.client_command();
        command.args(["--get", file]);
        for hop in hops {
            command.args(["--via", hop]);
        }
        command.args(no_retries()).args(arguments);
        Process::start(command)
    }

    /// Removes all that clients saved, so that the next one begins from nothing.
    pub fn clear_saved(&self) {
        for name in names_in(&self.saved()) {
            fs::remove_file(self.saved().join(name)).expect("removed");
        }
    }

    /// Removes all that clients saved, directories too.
    pub fn clear_all_saved(&self) {
        fs::remove_dir_all(self.saved()).expect("removed");
        fs::create_dir(self.saved()).expect("a directory");
    }

    /// Checks that the client ended well and `name` has exactly these bytes, with nothing unfinished beside it.
    pub fn check_saved(&self, finished: &Finished, name: &str, bytes: &[u8]) {
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        let saved = fs::read(self.saved().join(name)).expect("the file is there");
        assert!(
            saved == bytes,
            "{name}: {} bytes that are not the {} bytes offered",
            saved.len(),
            bytes.len()
        );
        let left: Vec<String> = names_in(&self.saved()).into_iter().filter(|n| n.contains(".part")).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }

    /// Checks that the client failed with this code and a message that has all these parts, and that nothing stands under the final name.
    pub fn check_failed(&self, finished: &Finished, name: &str, code: i32, parts: &[&str]) {
        assert_eq!(finished.code, Some(code), "{}", finished.stderr);
        for part in parts {
            assert!(finished.stderr.contains(part), "no {part:?} in: {}", finished.stderr);
        }
        assert!(!self.saved().join(name).exists(), "something stands under the final name");
    }
}

/// Hops of nodes.
pub fn hops(nodes: &[Node]) -> Vec<String> {
    nodes.iter().map(Node::hop).collect()
}

/// A chunk's number of bytes and more, so that a file has chunks of every kind.
pub fn some_chunks(whole: usize) -> usize {
    whole * MIB + 17
}

/// `--retries 0`, where the client has retries.
pub fn no_retries() -> &'static [&'static str] {
    static ARGUMENTS: std::sync::LazyLock<&[&str]> = std::sync::LazyLock::new(|| {
        let mut help = Command::new(program("relay-client"));
        help.arg("--help");
        let help = Process::start(help).finish().stdout_text();
        if help.contains("--retries") { &["--retries", "0"] } else { &[] }
    });
    *ARGUMENTS
}

/// Whether this file can be opened by whoever runs the tests, whatever its mode says (root can).
pub fn can_read(path: &Path) -> bool {
    fs::File::open(path).is_ok()
}

/// Whether strace is here and may trace.
pub fn has_strace() -> bool {
    let tried = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    let works = tried.as_ref().is_ok_and(std::process::ExitStatus::success);
    if !works {
        eprintln!("skipped: strace does not work here ({tried:?}; Debian: apt install strace)");
    }
    works
}
