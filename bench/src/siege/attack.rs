//! The attackers: what they send, and how they go on.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use relay_chain::chain::random_id;
use relay_chain::frames::encode;
use relay_proto::address::Hop;
use relay_proto::file::{List, RequestedName, Stat};
use relay_proto::hop::{ClientLimits, Open};
use relay_proto::limits::{MAX_NAME, MAX_PIPELINED};
use serde::Serialize;
use tokio::io::{AsyncWriteExt, copy, sink};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::ground::LISTED;
use crate::direct;

/// Where attackers come from, so that the node can tell them from the honest client.
const ATTACKERS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// How many connections ask without a pause, and from how many addresses where the log is meant.
const BUSY: u8 = 16;
/// How many pipelines one connection sends at the most.
const PIPELINES: usize = 5_000;
/// Between two `open`s with names: 40 a second.
const BETWEEN_NAMES: Duration = Duration::from_millis(25);

/// What somebody does to a node who wants to stop it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// On each connection 32 listings of a directory of 10,000 names, whose answers nobody reads
    Lists,
    /// On each connection a listing of 100,000 links that lead nowhere, reset after a second
    DeadLinks,
    /// On each connection a `stat` of a file on a mount that never answers (needs root)
    HungMount,
    /// Many log lines while standard error is a pipe that nobody reads
    StalledLog,
    /// 40 `open`s a second with host names whose name server never answers, where rules hold addresses alone (needs root)
    DeadNames,
    /// On 16 connections pipelines of `stat` of names of 4,096 control characters
    LongNames,
    /// On each connection an `open` to a next hop that says nothing, a FIN, and a reset half a second later
    FinReset,
    /// The same without the reset: the clients stay
    FinSilence,
    /// On each connection 32 listings of 60 nested directories of 1,000 long names each
    Nested,
}

impl Attack {
    /// Whether it needs mounts that only root can make.
    pub fn mounts(self) -> bool {
        matches!(self, Attack::HungMount | Attack::DeadNames)
    }

    /// Whether its clients are still there when the node is looked at for the last time.
    pub fn stays(self) -> bool {
        self == Attack::FinSilence
    }

    /// The `open` that each connection begins with.
    fn open(hop: Option<Hop>) -> Result<Vec<u8>> {
        let limits = ClientLimits::new(Duration::from_secs(10));
        Ok(encode(&Open { hops: hop.into_iter().collect(), id: random_id()?, limits })?)
    }

    /// What follows the `open`.
    fn requests(self) -> Result<Vec<u8>> {
        let name = |text: &str| RequestedName::try_from(text).map_err(|e| anyhow!(e));
        let list = |recursive| {
            Ok::<_, anyhow::Error>(encode(&List {
                prefix: name(&format!("{LISTED}/"))?,
                after: None,
                recursive,
            })?)
        };
        Ok(match self {
            Attack::Lists => list(false)?.repeat(MAX_PIPELINED),
            Attack::DeadLinks => list(false)?,
            Attack::Nested => list(true)?.repeat(MAX_PIPELINED),
            Attack::HungMount => encode(&Stat { name: name(&format!("{LISTED}/file"))? })?,
            Attack::StalledLog | Attack::LongNames => {
                encode(&Stat { name: name(&"\u{7f}".repeat(MAX_NAME))? })?.repeat(MAX_PIPELINED)
            }
            Attack::DeadNames | Attack::FinReset | Attack::FinSilence => Vec::new(),
        })
    }
}

/// An attack that runs.
pub struct Siege {
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Siege {
    pub fn begin(
        attack: Attack,
        connections: usize,
        node: SocketAddr,
        silent_hop: Option<SocketAddr>,
    ) -> Siege {
        let (stop, stopped) = oneshot::channel();
        let (standing, stands) = mpsc::channel();
        let besieger = Besieger { attack, connections, node, silent_hop };
        let thread = thread::spawn(move || {
            direct::runtime()?.block_on(async {
                tokio::select! {
                    result = besieger.attack(&standing) => result,
                    _ = stopped => Ok(()),
                }
            })
        });
        // One that fails says so at its end.
        let _ = stands.recv();
        Siege { stop, thread }
    }

    pub fn end(self) -> Result<()> {
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| anyhow!("the attack's thread ended badly"))?
    }
}

struct Besieger {
    attack: Attack,
    connections: usize,
    node: SocketAddr,
    silent_hop: Option<SocketAddr>,
}

impl Besieger {
    /// Attacks until it is dropped, and tells when it is under way.
    async fn attack(&self, standing: &mpsc::Sender<()>) -> Result<()> {
        match self.attack {
            Attack::StalledLog | Attack::LongNames => self.ask_without_pause(standing).await?,
            Attack::DeadNames => self.open_to_names(standing).await?,
            _ => self.stand(standing).await?,
        }
        std::future::pending().await
    }

    /// Sends the same on many connections and reads nothing.
    async fn stand(&self, standing: &mpsc::Sender<()>) -> Result<()> {
        let hop = self.silent_hop.map(|at| Hop::new(&at.ip().to_string(), at.port()));
        let hop = hop.transpose().map_err(|e| anyhow!("no hop: {e:?}"))?;
        let requests = self.attack.requests()?;
        let mut held: Vec<TcpStream> = Vec::new();
        for _ in 0..self.connections {
            let mut stream = connect(ATTACKERS, self.node).await?;
            stream.write_all(&[Attack::open(hop.clone())?, requests.clone()].concat()).await?;
            held.push(stream);
        }
        if self.silent_hop.is_some() {
            // By now the node has dialled most of them.
            sleep(Duration::from_millis(500)).await;
            for stream in &mut held {
                stream.shutdown().await?;
            }
            sleep(Duration::from_millis(500)).await;
        }
        match self.attack {
            Attack::DeadLinks => sleep(Duration::from_secs(1)).await,
            Attack::FinReset => {}
            _ => {
                let _ = standing.send(());
                return std::future::pending().await;
            }
        }
        drop(held);
        let _ = standing.send(());
        Ok(())
    }

    /// Asks on a few connections as fast as the node answers.
    async fn ask_without_pause(&self, standing: &mpsc::Sender<()>) -> Result<()> {
        let mut busy = JoinSet::new();
        for number in 0..BUSY {
            // Lines about one peer are few; here they come from many.
            let last = if self.attack == Attack::StalledLog { 2 + number } else { 2 };
            let (requests, node) = (self.attack.requests()?, self.node);
            busy.spawn(async move {
                let mut stream = connect(Ipv4Addr::new(127, 0, 0, last), node).await?;
                stream.write_all(&Attack::open(None)?).await?;
                let (mut answers, mut questions) = stream.split();
                let mut nowhere = sink();
                let ask = async {
                    for _ in 0..PIPELINES {
                        questions.write_all(&requests).await?;
                    }
                    Ok(())
                };
                tokio::try_join!(ask, copy(&mut answers, &mut nowhere))?;
                Ok::<_, anyhow::Error>(())
            });
        }
        let _ = standing.send(());
        while let Some(ended) = busy.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Opens ways over hosts whose names nobody can tell, at a steady rate.
    async fn open_to_names(&self, standing: &mpsc::Sender<()>) -> Result<()> {
        let _ = standing.send(());
        let mut held = Vec::new();
        for number in 0..self.connections {
            let hop = Hop::new(&format!("host-{number}.example.com"), 9).map_err(|e| anyhow!("{e:?}"))?;
            let mut stream = connect(ATTACKERS, self.node).await?;
            stream.write_all(&Attack::open(Some(hop))?).await?;
            held.push(stream);
            sleep(BETWEEN_NAMES).await;
        }
        std::future::pending().await
    }
}

/// A connection that leaves a reset behind.
async fn connect(from: Ipv4Addr, node: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.into(), 0))?;
    let stream = socket.connect(node).await?;
    stream.set_zero_linger()?;
    Ok(stream)
}
