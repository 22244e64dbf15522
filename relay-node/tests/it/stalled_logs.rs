//! Standard error is a pipe, and whoever reads it has stopped.

use super::raw_http::get;
use relay_testkit::LIMIT;
use relay_testkit::programs::program;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

/// A node whose standard error nobody reads.
struct Unread {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Unread {
    fn start(root: &std::path::Path) -> Unread {
        let mut command = Command::new(program("relay-node"));
        command.args(["--listen", "127.0.0.1:0", "--root"]).arg(root);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Unread { child, said }
    }

    fn wait_for(&mut self, part: &str) -> String {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "it ended before it said {part:?}");
        }
        line
    }

    fn address(&mut self) -> SocketAddr {
        self.wait_for("listening on").trim().rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until many times the lines that a pipe holds (64 KiB on Linux) are in the log.
fn ask_often(address: SocketAddr) {
    let long = "x".repeat(1_900);
    for _ in 0..150 {
        assert_eq!(get(address, &format!("/{long}"), &[]).status, 404);
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_neither_answers_nor_the_end() {
    let root = tempfile::tempdir().unwrap();
    let mut node = Unread::start(root.path());
    ask_often(node.address());
    node.terminate();
    assert_eq!(node.exit_code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once_whoever_has_stopped_reading() {
    let root = tempfile::tempdir().unwrap();
    std::fs::File::create(root.path().join("large")).unwrap().set_len(1 << 30).unwrap();
    let mut node = Unread::start(root.path());
    let address = node.address();
    ask_often(address);
    // A transfer is under way and stands still, so that the first signal alone does not end the node.
    let mut held = TcpStream::connect(address).unwrap();
    held.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    held.read_exact(&mut [0; 8]).unwrap();
    node.terminate();
    node.wait_for("a second signal ends at once");
    node.terminate();
    assert_eq!(node.exit_code(), Some(1));
}
