//! Dialling: from a hop to a connected stream, within one time limit.
//!
//! This is the one place that makes connections, so that other transports can be put here.

use crate::address::canonical;
use crate::congestion::Congestion;
use crate::race::{self, Worked};
use relay_proto::address::Hop;
use relay_proto::code::FailureCode;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// A connection to a hop.
#[derive(Debug)]
pub struct Dialled {
    /// The connected stream, without Nagle's delay, with keep-alive probes and with the congestion control that was asked for.
    pub stream: TcpStream,
    /// The address that was reached.
    pub address: SocketAddr,
}

/// Why a hop was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("{0}")]
    NameNotFound(io::Error),
    /// Name lookup took too long.
    #[error("name lookup timed out")]
    LookupTimedOut,
    /// The name has addresses, but none that is allowed.
    #[error("not allowed: {0}")]
    Denied(SocketAddr),
    /// Nobody answered in time.
    #[error("connect to {0} timed out")]
    ConnectTimedOut(SocketAddr),
    /// The connect failed.
    #[error("connect to {0}: {1}")]
    Connect(SocketAddr, io::Error),
    /// This process or this system may open no further socket.
    #[error(
        "it may open no more sockets at the moment ({0}); raise its limit (ulimit -n) or try again later"
    )]
    TooManyFiles(io::Error),
}

impl DialError {
    /// The code that tells others.
    #[must_use]
    pub fn code(&self) -> FailureCode {
        match self {
            DialError::NameNotFound(_) => FailureCode::NameNotFound,
            DialError::LookupTimedOut | DialError::ConnectTimedOut(_) => FailureCode::TimedOut,
            DialError::Denied(_) => FailureCode::Denied,
            DialError::TooManyFiles(_) => FailureCode::Internal,
            DialError::Connect(_, error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => FailureCode::Refused,
                io::ErrorKind::TimedOut => FailureCode::TimedOut,
                io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::AddrNotAvailable
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::PermissionDenied => FailureCode::Unreachable,
                _ => FailureCode::Internal,
            },
        }
    }
}

/// Finds the hop's addresses, once, and dials those that `allow` lets pass, at short intervals; the first that answers counts. Which one
/// that was is remembered, and goes first the next time.
///
/// Exactly an address that was checked is dialled. One that swallows packets costs the others 250 ms.
///
/// # Errors
/// The last address's failure, or that of the lookup.
pub async fn dial(
    hop: &Hop,
    deadline: Instant,
    congestion: Congestion,
    allow: impl Fn(SocketAddr) -> bool,
) -> Result<Dialled, DialError> {
    let (allowed, refused): (Vec<SocketAddr>, Vec<SocketAddr>) =
        lookup(hop, deadline).await?.into_iter().partition(|address| allow(*address));
    if let (true, Some(refused)) = (allowed.is_empty(), refused.last()) {
        return Err(DialError::Denied(*refused));
    }
    let is_choice = allowed.len() > 1;
    let worked = if is_choice { WORKED.of(hop) } else { None };
    let addresses = race::in_order(allowed, worked);
    let (address, stream) = race::first(&addresses, deadline, TcpStream::connect::<SocketAddr>).await?;
    if is_choice {
        WORKED.remember(hop, address);
    }
    tune(&stream);
    congestion.apply(&socket2::SockRef::from(&stream));
    Ok(Dialled { stream, address })
}

/// Which of several addresses worked.
static WORKED: Worked = Worked::new();

async fn lookup(hop: &Hop, deadline: Instant) -> Result<Vec<SocketAddr>, DialError> {
    let port = hop.port.get();
    if let Some(ip) = hop.host.ip() {
        return Ok(vec![SocketAddr::new(canonical(ip), port)]);
    }
    let found = timeout_at(deadline, resolve(hop.host.as_str().to_owned(), port)).await;
    let found = found.map_err(|_| DialError::LookupTimedOut)?.map_err(DialError::NameNotFound)?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found.into_iter().take(MAX_ADDRESSES) {
        let address = SocketAddr::new(canonical(address.ip()), port);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Asks the system's resolver, which blocks a thread of the pool until it answers, whoever has given up meanwhile. So the
/// permit stays with the question, and names that nobody answers for cannot take the pool from everything else.
async fn resolve(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let permit = LOOKUPS.acquire().await.map_err(io::Error::other)?;
    let question = move || {
        let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        drop(permit);
        found
    };
    tokio::task::spawn_blocking(question).await.map_err(io::Error::other)?
}

/// Gives the permits for name lookups.
static LOOKUPS: Semaphore = Semaphore::const_new(MOST_LOOKUPS);

/// The most name lookups at once in this process.
const MOST_LOOKUPS: usize = 64;

/// The most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// How long a connection may be idle before the kernel asks whether the peer is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// How often it asks then; after about nine unanswered probes the connection fails.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Sets what every connection of a chain wants: no Nagle delay, and keep-alive probes that find a dead peer.
///
/// A socket that takes no option works without it, so failures are only logged.
pub fn tune(stream: &TcpStream) {
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    let result = stream.set_nodelay(true);
    let result = result.and_then(|()| socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive));
    if let Err(error) = result {
        tracing::debug!(%error, "a socket takes no options");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn lookups_that_nobody_answers_stop_further_ones_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let by_name: Hop = format!("localhost:{}", address.port()).parse().unwrap();
        let by_address: Hop = address.to_string().parse().unwrap();
        let soon = || Instant::now() + Duration::from_millis(100);
        let late = || Instant::now() + Duration::from_secs(30);
        let hung = LOOKUPS.acquire_many(u32::try_from(MOST_LOOKUPS).unwrap()).await.unwrap();
        let refused = dial(&by_name, soon(), Congestion::SYSTEM, |_| true).await.unwrap_err();
        assert!(matches!(refused, DialError::LookupTimedOut), "{refused}");
        assert_eq!(dial(&by_address, late(), Congestion::SYSTEM, |_| true).await.unwrap().address, address);
        drop(hung);
        assert_eq!(dial(&by_name, late(), Congestion::SYSTEM, |_| true).await.unwrap().address, address);
    }
}
