//! Where log lines go and how they are written: the node's own, and the access log's of both faces.

use crate::access_log::{AccessFormat, AccessLog};
use crate::cli::LogFormat;
use crate::config::LogConfig;
use anyhow::Context;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_appender::rolling;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// Lines of the relay face and the node's own go into files of this name, with the day.
const NODE_LOG: &str = "relay-node.log";

/// Keeps the logs' writers alive; what is still buffered is written when it is dropped.
#[derive(Debug)]
pub struct LogGuard {
    _writer: Option<WorkerGuard>,
}

/// Installs the logs for the whole process.
///
/// # Errors
/// A directory that cannot be made or written.
pub fn install(config: &LogConfig) -> anyhow::Result<(LogGuard, AccessLog)> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let (writer, guard, is_terminal) = match &config.directory {
        Some(directory) => {
            let (writer, guard) = daily(directory)?;
            (BoxMakeWriter::new(writer), Some(guard), false)
        }
        None => {
            (BoxMakeWriter::new(std::io::stderr), None, std::io::IsTerminal::is_terminal(&std::io::stderr()))
        }
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(is_terminal);
    match config.format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    let format = match config.format {
        LogFormat::Text => AccessFormat::Combined,
        LogFormat::Json => AccessFormat::Json,
    };
    let access = match &config.directory {
        Some(directory) => AccessLog::daily(format, directory)?,
        None => AccessLog::new(format, std::io::stderr()),
    };
    Ok((LogGuard { _writer: guard }, access))
}

fn daily(directory: &std::path::Path) -> anyhow::Result<(NonBlocking, WorkerGuard)> {
    std::fs::create_dir_all(directory).with_context(|| {
        format!("cannot make the log directory {}; choose another --log-dir", directory.display())
    })?;
    let appender = rolling::Builder::new()
        .rotation(rolling::Rotation::DAILY)
        .filename_prefix(NODE_LOG)
        .build(directory)
        .with_context(|| {
            format!("cannot write logs into {}; choose another --log-dir", directory.display())
        })?;
    Ok(tracing_appender::non_blocking(appender))
}
