//! A chain of four nodes on loopback, and a file of `www/` through all of them: the whole of Relay chain in one command.

use anyhow::Context;
use clap::Parser;
use relay_client::stop::Stop;
use relay_node::access_log::AccessLog;
use relay_node::config::Config;
use relay_node::server::{Ended, Listeners, Server};
use relay_node::stop::StopSource;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use tokio::task::JoinHandle;

const NODES: usize = 4;
const FILE: &str = "sample.bin";

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let www = Path::new(env!("CARGO_MANIFEST_DIR")).join("../www");
    let place = tempfile::tempdir().context("no place for the route file and the download")?;

    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(DemoNode::start(&www)?);
    }
    let mut route = format!("{FILE}\n");
    for node in &nodes {
        route.push_str(&format!("{} {}\n", node.address.ip(), node.address.port()));
    }
    let route_file = place.path().join("route.txt");
    std::fs::write(&route_file, &route)?;
    eprintln!("{NODES} nodes run on loopback; the last one serves www/. route.txt:\n\n{}", indented(&route));
    eprintln!("$ relay-client route.txt");

    let arguments =
        ["relay-client".as_ref(), route_file.as_os_str(), "-o".as_ref(), place.path().join(FILE).as_os_str()]
            .map(ToOwned::to_owned);
    let exit = relay_client::run(relay_client::cli::Cli::parse_from(arguments), Stop::on_signals()).await;

    for node in nodes {
        node.stop().await?;
    }
    eprintln!("\nThe nodes have ended. README.md shows the same by hand.");
    Ok(exit.into())
}

/// A node in this process, on a free port.
struct DemoNode {
    address: SocketAddr,
    stop: StopSource,
    task: JoinHandle<Ended>,
}

impl DemoNode {
    fn start(root: &Path) -> anyhow::Result<DemoNode> {
        let arguments = ["relay-node".as_ref(), "0".as_ref(), "--root".as_ref(), root.as_os_str()];
        let config = Config::resolve(relay_node::cli::Cli::parse_from(arguments), || Ok(0))?;
        let listeners = Listeners::bind(&config.listen, config.congestion)?;
        let address = listeners.addresses()?.first().copied().context("the node listens nowhere")?;
        let (source, stop) = relay_node::stop::channel();
        let task = tokio::spawn(Server::new(listeners, config, AccessLog::off(), stop)?.run());
        Ok(DemoNode { address, stop: source, task })
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.stop.stop();
        self.task.await?;
        Ok(())
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
