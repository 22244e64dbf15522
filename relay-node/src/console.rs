//! What the operator sees and says: the question for a port, the lines at start and end, signals.

use crate::access::Access;
use crate::census::Census;
use crate::config::{Config, DEFAULT_ROOT};
use crate::http::proxy_allow::AllowProxy;
use crate::logging::LogGuard;
use crate::platform::foreground;
use crate::platform::operator_signal::OperatorSignal;
use crate::server::Ended;
use crate::stop::StopSource;
use anyhow::{Context, bail};
use bytesize::ByteSize;
use relay_trust::next_hop::NextHopPolicy;
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Asks for the port when there is somebody to ask: a terminal that this process is in the foreground of. Else, and for an
/// empty answer, it is `default`.
///
/// # Errors
/// An answer that is no port, three times.
pub fn ask_port(default: u16) -> anyhow::Result<u16> {
    if !foreground::can_ask() {
        return Ok(default);
    }
    ask_port_on(&mut io::stdin().lock(), &mut io::stderr(), default)
}

fn ask_port_on(input: &mut impl BufRead, output: &mut impl Write, default: u16) -> anyhow::Result<u16> {
    for _ in 0..3 {
        write!(output, "Port to listen on [{default}]: ")?;
        output.flush()?;
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok(default);
        }
        match line.trim().parse() {
            Ok(port) => return Ok(port),
            Err(_) => writeln!(output, "A port is a number from 0 to 65535; 0 takes a free one.")?,
        }
    }
    bail!("no port was given; write it behind the command: relay-node 12000")
}

/// What the node listens on, serves, and will relay to: a line each, for [`announce`].
#[must_use]
pub fn announcement(addresses: &[SocketAddr], config: &Config) -> Vec<String> {
    let mut lines: Vec<String> = addresses.iter().map(|address| format!("listening on {address}")).collect();
    lines.push(format!("key {}", config.key.public()));
    lines.push(serving(config));
    let why = if config.policy == NextHopPolicy::nowhere() {
        ": it listens on more than loopback, and --allow-next names no next hop"
    } else {
        ""
    };
    match &config.access {
        Some(access) => {
            lines.push(format!(
                "relaying, and giving files, by the access rules in {}",
                access.path().display()
            ));
        }
        None => lines.push(format!("relaying to {}{why}", config.policy)),
    }
    lines.extend(http_roles(config));
    if config.policy.is_open() && config.access.is_none() {
        lines
            .push("warning: --allow-next makes this an open relay for everybody who can reach it".to_owned());
    }
    if addresses.iter().all(|address| address.ip().is_loopback()) {
        let note = "note: a tunnel to this port (ngrok, ssh -L) opens all of this to whoever uses the tunnel";
        lines.push(note.to_owned());
    }
    if let Some(public) = addresses.iter().find(|address| address.ip().is_unspecified()) {
        lines.push(format!("note: {public} is every address of this machine, its public ones too"));
    }
    lines
}

fn serving(config: &Config) -> String {
    let Some(path) = &config.root_path else {
        return if config.listen.iter().all(|address| address.ip().is_loopback()) {
            format!("serving no files: there is no directory {DEFAULT_ROOT} here, and --root names none")
        } else {
            "serving no files: --root names none, and a node that listens on more than loopback chooses none"
                .to_owned()
        };
    };
    let shown = path.canonicalize().unwrap_or_else(|_| path.clone());
    let hidden = if config.hidden { ", hidden files too" } else { "" };
    let encrypted = if config.require_encryption { "; through chains only encrypted" } else { "" };
    format!("serving {}{hidden}{encrypted}", shown.display())
}

/// Prints the one line that was asked for.
///
/// # Errors
/// Standard output's.
pub fn print(line: &str) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{line}").context("cannot print")
}

/// Says these lines to the operator and to the log. Only once the node is ready: whoever waits for them may connect. A line that
/// cannot be written is lost, and nothing else.
pub fn announce(lines: &[String]) {
    let mut out = io::stdout().lock();
    for line in lines {
        let _ = writeln!(out, "{line}");
        if line.starts_with("warning") { tracing::warn!("{line}") } else { tracing::info!("{line}") }
    }
    let _ = out.flush();
}

/// Says why the node does not run.
pub fn complain(error: &anyhow::Error) {
    // Nobody is left to be told when that cannot be written.
    let _ = writeln!(io::stderr(), "relay-node: {error:#}");
}

/// What the HTTP face does beyond serving files.
fn http_roles(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(proxy) = &config.proxy {
        if let Some(upstream) = &proxy.upstream {
            lines.push(format!("reverse proxy in front of {upstream}"));
        }
        if proxy.forward {
            let is_open = proxy.allow.iter().any(AllowProxy::is_everything);
            lines.push(if is_open {
                "OPEN forward proxy: --allow-proxy * lets whoever reaches this node reach every public host"
                    .to_owned()
            } else {
                "forward proxy to what --allow-proxy names".to_owned()
            });
        }
    }
    if let Some(route) = &config.gateway {
        let hops: Vec<String> = route.hops().iter().map(ToString::to_string).collect();
        lines.push(format!("gateway through {}", hops.join(", ")));
    }
    if let Some(cache) = &config.cache {
        lines.push(format!("caching in {}, at most {}", cache.directory.display(), ByteSize::b(cache.size)));
    }
    lines
}

/// Says how it ended.
pub fn farewell(ended: Ended) {
    let Ended { open, cut } = ended;
    let text = match (open, cut) {
        (0, _) => "stopped; no connection was open".to_owned(),
        (open, 0) => format!("stopped; all {open} open connections ended in order"),
        (open, cut) => {
            format!("stopped; of {open} open connections {cut} were cut when the drain limit was over")
        }
    };
    tracing::info!(open, cut, "{text}");
    say(text).written_within(PATIENCE);
}

/// How long the operator's terminal, or whatever reads standard output, may take for a line at the end.
const PATIENCE: Duration = Duration::from_millis(200);

/// A line for the operator that is being written.
struct Said(mpsc::Receiver<()>);

impl Said {
    fn written_within(self, limit: Duration) {
        // The terminal may be gone by now, or whoever reads may have stopped.
        let _ = self.0.recv_timeout(limit);
    }
}

/// Writes a line for the operator, from a thread of its own: standard output may be a pipe that nobody reads any more.
fn say(text: String) -> Said {
    let (written, said) = mpsc::channel();
    let write = move || {
        let _ = writeln!(io::stdout(), "{text}");
        let _ = written.send(());
    };
    let _ = std::thread::Builder::new().spawn(write);
    Said(said)
}

/// From now on the first SIGTERM or Ctrl-C says stop, and the second one ends the process. They have a thread of their own,
/// so that they are heard whatever the node's other threads wait for.
///
/// # Errors
/// The system's, when it takes no handler or has no thread.
pub fn watch_signals(source: StopSource, logs: LogGuard) -> anyhow::Result<()> {
    let watch = || -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut signals = {
            let _inside = runtime.enter();
            Signals::new()?
        };
        let heed = async move {
            signals.next().await;
            say("stopping; a second signal ends at once".to_owned());
            source.stop();
            signals.next().await;
            tracing::warn!("ended at once by a second signal");
            logs.flush_within(PATIENCE);
            std::process::exit(1);
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(heed)).map(drop)
    };
    watch().context("cannot watch for signals")
}

/// From now on SIGHUP lets the access rules be read again, where the system has such a signal.
///
/// # Errors
/// The system's, when it takes no handler.
pub fn watch_for_reload(access: Option<Arc<Access>>) -> anyhow::Result<()> {
    let Some(access) = access else { return Ok(()) };
    let mut asked = OperatorSignal::reload().context("cannot watch for SIGHUP")?;
    tokio::spawn(async move {
        while asked.next().await.is_some() {
            match access.reload() {
                Ok(()) => tracing::info!("the access rules were read again"),
                Err(error) => {
                    let error = format!("{error:#}").replace('\n', "; ");
                    tracing::error!("the access rules before stay in force: {error}");
                }
            }
        }
    });
    Ok(())
}

/// From now on SIGUSR1 brings a line about connections, tasks and pipes into the log, where the system has such a signal.
///
/// # Errors
/// The system's, when it takes no handler.
pub fn watch_for_status(census: Arc<Census>) -> anyhow::Result<()> {
    let mut asked = OperatorSignal::status().context("cannot watch for SIGUSR1")?;
    tokio::spawn(async move {
        while asked.next().await.is_some() {
            census.tell();
        }
    });
    Ok(())
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals)
    }

    async fn next(&mut self) {
        // Without a handler the system ends the process by itself.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ask_port_on;

    fn check(answers: &str, expected: Option<u16>) {
        let mut shown = Vec::new();
        assert_eq!(ask_port_on(&mut answers.as_bytes(), &mut shown, 12000).ok(), expected, "{answers:?}");
        assert!(String::from_utf8(shown).unwrap().starts_with("Port to listen on [12000]: "));
    }

    #[test]
    fn the_question_for_a_port() {
        check("\n", Some(12000));
        check("", Some(12000));
        check("12001\n", Some(12001));
        check("port\n70000\n 80 \n", Some(80));
        check("a\nb\nc\n", None);
    }
}
