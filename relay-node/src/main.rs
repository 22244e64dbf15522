//! Arguments, configuration, listeners, signals, exit code; the node itself is in the library.

use anyhow::{Context, anyhow};
use clap::Parser;
use relay_node::cli::{CacheCommand, Cli, Command};
use relay_node::config::{Config, DEFAULT_PORT};
use relay_node::http::cache::{Verified, verify};
use relay_node::server::{Ended, Listeners, Server};
use relay_node::{console, identity, logging, stop};
use std::process::ExitCode;
use std::time::Duration;

/// Could not run, or had to cut transfers.
const EXIT_FAILED: u8 = 1;
/// Bad usage or configuration.
const EXIT_USAGE: u8 = 2;

/// How long the end may take once the drain limit is over.
const SHUTDOWN: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let mut cli = Cli::parse();
    if let Some(command) = cli.command.take() {
        return match run_command(command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&error, EXIT_FAILED),
        };
    }
    let config = match Config::resolve(cli, || console::ask_port(DEFAULT_PORT)) {
        Ok(config) => config,
        Err(error) => return complain(&error, EXIT_USAGE),
    };
    match run(config) {
        Ok(Ended { cut: 0, .. }) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(EXIT_FAILED),
        Err(error) => complain(&error, EXIT_FAILED),
    }
}

fn run_command(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Key { key } => console::print(&identity::read_or_create(key)?.public().to_string()),
        Command::Cache(CacheCommand::Verify { dir }) => {
            let found = verify(&dir, |bad| console::complain(&anyhow!("thrown away: {bad}")))?;
            let Verified { entries, thrown_away, unreadable } = found;
            console::print(&format!("{entries} checked, {thrown_away} thrown away, {unreadable} unreadable"))
        }
    }
}

fn run(config: Config) -> anyhow::Result<Ended> {
    let (logs, access_log) = logging::install(&config.log)?;
    relay_link::platform::descriptors::raise_limit(config.max_connections)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = config.workers {
        runtime.worker_threads(workers);
    }
    let runtime = runtime.enable_all().build().context("cannot start the runtime")?;
    let ended = runtime.block_on(async {
        let listeners = Listeners::bind(&config.listen, config.congestion)?;
        let (source, stop) = stop::channel();
        console::watch_signals(source, logs.share())?;
        let announcement = console::announcement(&listeners.addresses()?, &config);
        console::watch_for_reload(config.access.clone())?;
        let server = Server::new(listeners, config, access_log, stop)?;
        console::watch_for_status(server.census())?;
        console::announce(&announcement);
        anyhow::Ok(server.run().await)
    })?;
    console::farewell(ended);
    // Connections that are cut write their lines now. Whatever still runs in the blocking pool reads a disk that may never answer.
    runtime.shutdown_timeout(SHUTDOWN);
    Ok(ended)
}

fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    console::complain(error);
    ExitCode::from(code)
}
