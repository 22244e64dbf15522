//! A program that runs: what it wrote, signals to it, its end.

use crate::{LIMIT, programs};
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running program. It is killed, by its pid, when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    written: Arc<Written>,
    name: String,
    /// Where it keeps what it remembers; gone with it.
    _state: TempDir,
}

/// How a program ended, and all it wrote.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, as text.
    pub stderr: String,
}

impl Finished {
    /// Standard output as text.
    #[must_use]
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

#[derive(Debug, Default)]
struct Written {
    streams: Mutex<Streams>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Streams {
    out: Vec<u8>,
    err: Vec<u8>,
    open: usize,
}

#[derive(Debug, Clone, Copy)]
enum Stream {
    Out,
    Err,
}

/// Signals that a test sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM
    Terminate,
    /// SIGINT, as Ctrl-C sends it
    Interrupt,
    /// SIGKILL
    Kill,
    /// SIGSTOP
    Stop,
    /// SIGCONT
    Continue,
    /// SIGUSR1
    User1,
    /// SIGHUP
    Hangup,
}

/// Sees to it that a program neither finds nor leaves anything in a developer's home: what it remembers of others is its own, unless
/// the test says where. A node's key is that of all nodes of tests, so that one that is started again is the same; a test in which
/// nodes are to differ gives them keys with `--key`.
fn keep_state_apart(command: &mut Command) -> TempDir {
    let state = tempfile::tempdir().expect("a directory for a program's state");
    let node_state = programs::profile_directory().join("test-state");
    for (name, directory) in [("XDG_STATE_HOME", state.path()), ("STATE_DIRECTORY", &node_state)] {
        if !command.get_envs().any(|(known, _)| known == name) {
            command.env(name, directory);
        }
    }
    state
}

impl Process {
    /// Starts `command` with everything it writes captured and nothing to read.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(mut command: Command) -> Process {
        let name = command.get_program().to_string_lossy().into_owned();
        let state = keep_state_apart(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        let written = Arc::new(Written::default());
        written.lock().open = 2;
        let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        Written::collect(&written, out, Stream::Out);
        Written::collect(&written, err, Stream::Err);
        Process { child, written, name, _state: state }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it has written so far, standard output before standard error.
    #[must_use]
    pub fn text(&self) -> String {
        self.written.lock().text()
    }

    /// Waits until `find` finds something in what was written, and returns that.
    ///
    /// # Panics
    /// When the program ends or [`LIMIT`] passes before that; `what` says what did not come.
    pub fn wait_for<T>(&self, what: &str, mut find: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + LIMIT;
        let mut streams = self.written.lock();
        loop {
            let text = streams.text();
            if let Some(found) = find(&text) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let reason = if streams.open == 0 { "it ended" } else { "time is up" };
            assert!(
                streams.open > 0 && !left.is_zero(),
                "{}: no {what}, {reason}; it wrote:\n{text}",
                self.name
            );
            streams = self.written.more.wait_timeout(streams, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for a line that contains `part`, and returns it.
    ///
    /// # Panics
    /// As [`Process::wait_for`].
    pub fn wait_for_line(&self, part: &str) -> String {
        self.wait_for(&format!("line with {part:?}"), |text| {
            // A line counts when its end is there.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            whole.lines().find(|line| line.contains(part)).map(String::from)
        })
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    #[cfg(unix)]
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        let signal = match signal {
            Signal::Terminate => rustix::process::Signal::TERM,
            Signal::Interrupt => rustix::process::Signal::INT,
            Signal::Kill => rustix::process::Signal::KILL,
            Signal::Stop => rustix::process::Signal::STOP,
            Signal::Continue => rustix::process::Signal::CONT,
            Signal::User1 => rustix::process::Signal::USR1,
            Signal::Hangup => rustix::process::Signal::HUP,
        };
        rustix::process::kill_process(pid, signal).expect("the process is there");
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// When the system cannot tell.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it still runs after [`LIMIT`].
    #[must_use]
    pub fn finish(self) -> Finished {
        self.finish_within(LIMIT)
    }

    /// Waits for its end, longer or shorter than usual.
    ///
    /// # Panics
    /// When it still runs after `limit`.
    #[must_use]
    pub fn finish_within(mut self, limit: Duration) -> Finished {
        let status = self.wait(limit);
        let mut streams = self.written.lock();
        while streams.open > 0 {
            streams = self.written.more.wait(streams).unwrap_or_else(PoisonError::into_inner);
        }
        Finished {
            code: status.code(),
            stdout: std::mem::take(&mut streams.out),
            stderr: String::from_utf8_lossy(&streams.err).into_owned(),
        }
    }

    fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "{} does not end; it wrote:\n{}", self.name, self.text());
            thread::sleep(POLL);
        }
    }
}

/// How often the end of a process is asked for; the standard library cannot wait for it with a limit.
const POLL: Duration = Duration::from_millis(2);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- {} (pid {}) wrote:\n{}", self.name, self.pid(), self.text());
        }
    }
}

impl Written {
    fn lock(&self) -> MutexGuard<'_, Streams> {
        // A test that failed while it looked does not matter here.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(written: &Arc<Written>, mut from: impl Read + Send + 'static, stream: Stream) {
        let written = Arc::clone(written);
        thread::spawn(move || {
            let mut piece = vec![0; 64 * 1024];
            while let Ok(n @ 1..) = from.read(&mut piece) {
                let mut streams = written.lock();
                match stream {
                    Stream::Out => streams.out.extend_from_slice(&piece[..n]),
                    Stream::Err => streams.err.extend_from_slice(&piece[..n]),
                }
                written.more.notify_all();
            }
            written.lock().open -= 1;
            written.more.notify_all();
        });
    }
}

impl Streams {
    fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.out).into_owned();
        text.push_str(&String::from_utf8_lossy(&self.err));
        text
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start(command)
    }

    #[test]
    fn output_and_exit_code() {
        let finished = shell("echo out; echo err >&2; exit 3").finish();
        assert_eq!(
            (finished.code, finished.stdout_text().as_str(), finished.stderr.as_str()),
            (Some(3), "out\n", "err\n")
        );
    }

    #[test]
    fn lines_as_they_come() {
        let process = shell("echo listening on here; exec cat /dev/zero > /dev/null");
        assert_eq!(process.wait_for_line("listening on"), "listening on here");
        process.signal(Signal::Terminate);
        assert_eq!(process.finish().code, None);
    }

    #[test]
    #[should_panic(expected = "no line with \"never\", it ended")]
    fn a_line_that_never_comes() {
        shell("echo something else").wait_for_line("never");
    }

    #[test]
    fn dropped_means_killed() {
        let process = shell("echo up; exec cat /dev/zero > /dev/null");
        process.wait_for_line("up");
        let pid = process.pid();
        drop(process);
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
        assert!(rustix::process::test_kill_process(pid).is_err(), "it has been killed and waited for");
    }
}
