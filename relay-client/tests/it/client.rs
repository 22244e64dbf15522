//! Runs the real binary in a directory of its own.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The longest a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A directory in which clients run.
pub struct Place {
    directory: TempDir,
}

/// How a client ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ended {
    /// Checks the exit code and that standard error contains `text`.
    #[track_caller]
    pub fn check(&self, code: i32, text: &str) -> &Ended {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        assert!(self.stderr.contains(text), "{text:?} is not in:\n{}", self.stderr);
        self
    }
}

impl Place {
    pub fn new() -> Place {
        Place { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// The names in the directory, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relay-client"));
        command.args(arguments).current_dir(self.directory.path()).env("RELAY_CLIENT_PLAIN", "true");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a client to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        end(self.command(arguments).spawn().unwrap())
    }

    /// Fetches `name` over the hop at `port`.
    pub fn fetch(&self, name: &str, port: u16, more: &[&str]) -> Ended {
        let via = format!("127.0.0.1:{port}");
        self.run(&[&["--get", name, "--via", &via], more].concat())
    }
}

/// Waits for a client's end and collects what it said.
pub fn end(mut child: Child) -> Ended {
    let mut stdout = child.stdout.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let out = thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let err = thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let give_up = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > give_up {
            child.kill().unwrap();
            panic!("the client did not end; it said: {}", err.join().unwrap());
        }
        thread::sleep(Duration::from_millis(5));
    };
    Ended { code: status.code(), stdout: out.join().unwrap(), stderr: err.join().unwrap() }
}

/// Waits until `path` exists and is at least `len` bytes long.
#[track_caller]
pub fn wait_for_file(path: &Path, len: u64) {
    let give_up = Instant::now() + PATIENCE;
    while fs::metadata(path).map_or(true, |meta| meta.len() < len) {
        assert!(Instant::now() < give_up, "{} did not come", path.display());
        thread::sleep(Duration::from_millis(5));
    }
}
