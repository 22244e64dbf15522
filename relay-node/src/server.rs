//! The server: listen, accept within the limit, and end in order.

use crate::access_log::AccessLog;
use crate::census::{As, Census};
use crate::config::Config;
use crate::connection::{self, Node};
use crate::stop::Stop;
use anyhow::Context;
use relay_link::congestion::Congestion;
use relay_link::platform::descriptors::{Purpose, is_scarce};
use relay_link::shares::Shares;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections that wait in the kernel to be accepted (listen(2)).
const BACKLOG: i32 = 4096;
/// How long to wait after an accept failed for want of something, such as descriptors, before trying again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The most connections over the limit that are told so at once; further ones are closed without a word.
const MOST_REFUSALS: usize = 64;
/// The most connections of one peer, unless told otherwise; loopback has no such limit then, for tunnels and proxies come from
/// there for everybody.
const CONNECTIONS_OF_PEER: usize = 256;
/// What a peer beyond it is told.
const TOO_MANY_OF_PEER: &str =
    "this node takes no more connections from your address at once (--max-connections-per-peer)";
/// How often the log is told that something is scarce: a shortage that lasts must not fill it.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Bound listeners: the ports are taken, nobody is accepted yet.
#[derive(Debug)]
pub struct Listeners(Vec<TcpListener>);

impl Listeners {
    /// Binds every address. What is accepted there has this congestion control.
    ///
    /// # Errors
    /// The first address that cannot be bound, and what to do about it.
    pub fn bind(addresses: &[SocketAddr], congestion: Congestion) -> anyhow::Result<Listeners> {
        addresses
            .iter()
            .map(|address| listen(*address, congestion))
            .collect::<anyhow::Result<_>>()
            .map(Listeners)
    }

    /// The real addresses, where port 0 has become a number.
    ///
    /// # Errors
    /// The system's.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.0.iter().map(TcpListener::local_addr).collect()
    }
}

fn listen(address: SocketAddr, congestion: Congestion) -> anyhow::Result<TcpListener> {
    let bind = || -> io::Result<TcpListener> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // On Windows this option would let a second node steal the port.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        congestion.apply(&socket2::SockRef::from(&socket));
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().with_context(|| {
        format!(
            "cannot listen on {address}; choose another port (0 takes a free one) or address with --listen"
        )
    })
}

/// How a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Connections that were still open when it was told to stop.
    pub open: usize,
    /// Those of them that had to be cut when the drain limit was over.
    pub cut: usize,
}

/// A node that has everything it needs and accepts nobody yet.
#[derive(Debug)]
pub struct Server {
    listeners: Listeners,
    acceptor: Acceptor,
    max_connections: usize,
    drain: Duration,
    stop: Stop,
}

impl Server {
    /// Prepares a node; must be called within a runtime.
    ///
    /// # Errors
    /// A cache that cannot be opened, and what to do about it.
    pub fn new(
        listeners: Listeners,
        config: Config,
        access_log: AccessLog,
        stop: Stop,
    ) -> anyhow::Result<Server> {
        let (max_connections, drain) = (config.max_connections, config.drain);
        let of_peer = config.max_connections_per_peer;
        let acceptor = Acceptor {
            node: Arc::new(Node::new(config, Arc::new(access_log), stop.clone())?),
            permits: Arc::new(Semaphore::new(max_connections)),
            refusals: Arc::new(Semaphore::new(MOST_REFUSALS)),
            shares: Arc::new(Shares::new(of_peer.unwrap_or(CONNECTIONS_OF_PEER).min(max_connections))),
            is_loopback_free: of_peer.is_none(),
            told: Arc::default(),
        };
        Ok(Server { listeners, acceptor, max_connections, drain, stop })
    }

    /// How many connections there are, also while it runs.
    #[must_use]
    pub fn census(&self) -> Arc<Census> {
        Arc::clone(self.acceptor.node.census())
    }

    /// Serves until stop is said, then lets connections end within the drain limit.
    pub async fn run(self) -> Ended {
        let mut accepting = JoinSet::new();
        for listener in self.listeners.0 {
            let (acceptor, stop) = (self.acceptor.clone(), self.stop.clone());
            accepting.spawn(async move {
                tokio::select! {
                    () = acceptor.accept_all(&listener) => {}
                    () = stop.stopped() => {}
                }
            });
        }
        while accepting.join_next().await.is_some() {}
        self.acceptor.drain(self.max_connections, self.drain).await
    }
}

#[derive(Debug, Clone)]
struct Acceptor {
    node: Arc<Node>,
    permits: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    shares: Arc<Shares>,
    /// Connections from loopback have no share of their own.
    is_loopback_free: bool,
    /// When the log was last told of a shortage.
    told: Arc<Mutex<Option<Instant>>>,
}

impl Acceptor {
    /// Never returns: whatever accept says, the node goes on.
    async fn accept_all(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.take(stream, peer),
                Err(error) if is_peers(&error) => {
                    tracing::debug!(%error, "a connection was gone before it was accepted");
                }
                Err(error) => {
                    if self.may_tell() {
                        tracing::error!(%error, "cannot accept connections; raise the limit of open files if it is the cause");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn take(&self, stream: TcpStream, peer: SocketAddr) {
        relay_link::dial::tune(&stream);
        let is_scarce = is_scarce(&stream, Purpose::Connection);
        if is_scarce && self.may_tell() {
            tracing::warn!(
                "too few descriptors are left; refusing new connections until there are more (ulimit -n raises the limit)"
            );
        }
        let share = self.share_of(peer);
        let why = if share.is_err() { TOO_MANY_OF_PEER } else { "" };
        let permit = share.ok().filter(|_| !is_scarce).and_then(|share| {
            let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
            Some((permit, share))
        });
        if let Some(permit) = permit {
            let counted = self.node.census().enter(As::Open);
            let node = Arc::clone(&self.node);
            tokio::spawn(async move {
                connection::serve(stream, peer, &node).await;
                drop(counted);
                drop(permit);
            });
        } else if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
            let node = Arc::clone(&self.node);
            tokio::spawn(async move {
                connection::refuse_busy(stream, peer, &node, why).await;
                drop(permit);
            });
        } else {
            tracing::warn!(%peer, "closed without a word: too many connections are being refused already");
        }
    }

    /// A place in the peer's share, where there is a limit; an error when it has all of that already.
    fn share_of(&self, peer: SocketAddr) -> Result<Option<OwnedSemaphorePermit>, TryAcquireError> {
        if self.is_loopback_free && peer.ip().to_canonical().is_loopback() {
            return Ok(None);
        }
        self.shares.of(peer.ip()).try_acquire_owned().map(Some)
    }

    /// Whether it is time to tell of a shortage again.
    fn may_tell(&self) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told.is_none_or(|told| told.elapsed() >= TELL_EVERY);
        if is_due {
            *told = Some(Instant::now());
        }
        is_due
    }

    /// Waits until all permits are back, at most `limit`.
    async fn drain(self, permits: usize, limit: Duration) -> Ended {
        let open = self.node.census().count(As::Open);
        if open > 0 {
            tracing::info!(open, limit = ?limit, "stopping: no new connections; waiting for open ones");
        }
        let all = u32::try_from(permits).unwrap_or(u32::MAX);
        let ending = async {
            // Nobody closes the semaphore, so only the limit can end this early.
            let _ = self.permits.acquire_many(all).await;
            self.node.settled().await;
        };
        let _ = timeout(limit, ending).await;
        Ended { open, cut: self.node.census().count(As::Open) }
    }
}

/// Errors that concern one connection only (accept(2), "Error handling").
fn is_peers(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused | Kind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn accepted_connections_have_the_congestion_control_that_was_asked_for() {
        let reno = Congestion::of(Some("reno".parse().unwrap())).unwrap();
        let listeners = Listeners::bind(&[([127, 0, 0, 1], 0).into()], reno).unwrap();
        let listener = listeners.0.first().unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let algorithm = relay_link::congestion::algorithm_of(&socket2::SockRef::from(&stream));
        assert_eq!(algorithm, reno.algorithm());
    }
}
