//! Where log lines go and how they are written: the node's own, and the access log's of both faces.

use crate::access_log::{AccessFormat, AccessLog};
use crate::cli::LogFormat;
use crate::config::LogConfig;
use crate::log_files::{ACCESS_LOG, LogFiles, NODE_LOG};
use crate::log_queue::LogQueue;
use anyhow::Context;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// How long the end of a node waits for its last lines to be written: whoever reads them may have stopped.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The logs' writers. When it is dropped, what still waits is written, within a second.
#[derive(Debug)]
pub struct LogGuard(Vec<LogQueue>);

impl LogGuard {
    /// Waits until all lines so far are written, at most `limit`.
    pub fn flush_within(&self, limit: Duration) {
        self.0.iter().for_each(|log| log.flush_within(limit));
    }

    /// Another one that flushes the same logs.
    #[must_use]
    pub fn share(&self) -> LogGuard {
        LogGuard(self.0.clone())
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.flush_within(LAST_LINES);
    }
}

/// Installs the logs for the whole process.
///
/// # Errors
/// A directory that cannot be made or written.
pub fn install(config: &LogConfig) -> anyhow::Result<(LogGuard, AccessLog)> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let (node, access, is_terminal) = match &config.directory {
        Some(directory) => {
            let [node, access] = [NODE_LOG, ACCESS_LOG].map(|log| into_files(directory, log, config));
            (node?, access?, false)
        }
        None => {
            let stderr = start("stderr", std::io::stderr())?;
            (stderr.clone(), stderr, std::io::IsTerminal::is_terminal(&std::io::stderr()))
        }
    };
    let guard = LogGuard(vec![access.clone(), node.clone()]);
    let writer = move || node.clone();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(is_coloured(is_terminal, |name| std::env::var_os(name)));
    let format = match config.format {
        LogFormat::Text => {
            lines.init();
            AccessFormat::Combined
        }
        LogFormat::Json => {
            lines.json().flatten_event(true).init();
            AccessFormat::Json
        }
    };
    Ok((guard, AccessLog::new(format, access)))
}

/// Whether lines get colours, by the habits of the field (no-color.org, bixense.com/clicolors): `NO_COLOR` takes them, else
/// `CLICOLOR_FORCE` gives them, else a terminal has them that is not `dumb`.
fn is_coloured(is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    if is_set("NO_COLOR") {
        return false;
    }
    let is_forced = is_set("CLICOLOR_FORCE") && variable("CLICOLOR_FORCE").is_some_and(|value| value != "0");
    is_forced || is_terminal && variable("TERM").is_none_or(|term| term != "dumb")
}

fn into_files(directory: &Path, log: &'static str, config: &LogConfig) -> anyhow::Result<LogQueue> {
    let files = LogFiles::open(directory, log, config.keep).with_context(|| {
        format!("cannot write logs into {}; choose another --log-dir", directory.display())
    })?;
    start(log, files)
}

fn start(name: &'static str, out: impl std::io::Write + Send + 'static) -> anyhow::Result<LogQueue> {
    LogQueue::start(name, out).context("cannot start the thread that writes the log")
}

#[cfg(test)]
mod tests {
    use super::is_coloured;
    use std::ffi::OsString;

    #[test]
    fn colours_by_the_habits_of_the_field() {
        for (is_terminal, variables, expected) in [
            (true, &[][..], true),
            (false, &[], false),
            (true, &[("NO_COLOR", "1")], false),
            (true, &[("NO_COLOR", "")], true),
            (true, &[("TERM", "dumb")], false),
            (true, &[("TERM", "xterm")], true),
            (false, &[("CLICOLOR_FORCE", "1")], true),
            (false, &[("CLICOLOR_FORCE", "0")], false),
            (true, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
        ] {
            let variable = |name: &str| {
                variables.iter().find(|(other, _)| *other == name).map(|(_, value)| OsString::from(value))
            };
            assert_eq!(is_coloured(is_terminal, variable), expected, "{is_terminal} {variables:?}");
        }
    }
}
