//! Dialling: from a hop to a link, within one time limit.
//!
//! This is the one place that makes connections, so that other transports can be put here.

use crate::congestion::Congestion;
use crate::link::Link;
use crate::race::{self, Unreached, Worked};
use crate::resolve::{Names, ResolveError, resolve};
use relay_proto::address::Hop;
use relay_proto::code::FailureCode;
use relay_trust::address::canonical;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Why a hop was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("{0}")]
    NameNotFound(io::Error),
    /// Name lookup took too long.
    #[error("name lookup timed out")]
    LookupTimedOut,
    /// Nobody may be asked for the name.
    #[error("{}", ResolveError::Unknown)]
    NotLookedUp,
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
            DialError::NotLookedUp | DialError::Denied(_) => FailureCode::Denied,
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

impl From<Unreached> for DialError {
    fn from(unreached: Unreached) -> DialError {
        match unreached {
            Unreached::Nothing => DialError::NameNotFound(io::Error::other("the name has no address")),
            Unreached::TooLate => DialError::LookupTimedOut,
            Unreached::TimedOut(address) => DialError::ConnectTimedOut(address),
            Unreached::Failed(address, error) => DialError::Connect(address, error),
            Unreached::TooManyFiles(error) => DialError::TooManyFiles(error),
        }
    }
}

/// Finds the hop's addresses, once and where `names` lets them be looked for, and dials those that `allow` lets pass, at short intervals; the first that answers counts. Which one
/// that was is remembered, and goes first the next time.
///
/// Exactly an address that was checked is dialled. One that swallows packets costs the others 250 ms. The link is without Nagle's
/// delay, with keep-alive probes and with the congestion control that was asked for.
///
/// # Errors
/// The last address's failure, or that of the lookup.
pub async fn dial(
    hop: &Hop,
    deadline: Instant,
    congestion: Congestion,
    names: Names,
    allow: impl Fn(SocketAddr) -> bool,
) -> Result<Link, DialError> {
    let (allowed, refused): (Vec<SocketAddr>, Vec<SocketAddr>) =
        lookup(hop, names, deadline).await?.into_iter().partition(|address| allow(*address));
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
    Ok(Link::tcp(stream, address))
}

/// Which of several addresses worked.
static WORKED: Worked = Worked::new();

async fn lookup(hop: &Hop, names: Names, deadline: Instant) -> Result<Vec<SocketAddr>, DialError> {
    let port = hop.port.get();
    if let (Some(ip), Some(zone)) = (hop.host.ip(), hop.host.zone()) {
        return scoped(ip, zone, port).await.map_err(DialError::NameNotFound);
    }
    if let Some(ip) = hop.host.ip() {
        return Ok(vec![SocketAddr::new(canonical(ip), port)]);
    }
    let found = resolve(hop.host.as_str(), names, deadline).await.map_err(|error| match error {
        ResolveError::NotFound(error) => DialError::NameNotFound(error),
        ResolveError::TimedOut => DialError::LookupTimedOut,
        ResolveError::Unknown => DialError::NotLookedUp,
    })?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        let address = SocketAddr::new(canonical(address), port);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// An address on the link that its zone names. The system alone knows its interfaces, and asks nobody.
async fn scoped(ip: IpAddr, zone: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let host = format!("{ip}%{zone}");
    let question = move || (host.as_str(), port).to_socket_addrs().map(|found| found.take(1).collect());
    tokio::task::spawn_blocking(question).await.map_err(io::Error::other)?
}

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

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_zone_is_an_interface_of_this_machine() {
        let deadline = Instant::now() + Duration::from_secs(120);
        let index: u32 =
            std::fs::read_to_string("/sys/class/net/lo/ifindex").unwrap().trim().parse().unwrap();
        for zone in ["lo".to_owned(), index.to_string()] {
            let hop: Hop = format!("fe80::1%{zone} 12000").parse().unwrap();
            let found = lookup(&hop, Names::Own, deadline).await.unwrap();
            let expected = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 12000, 0, index);
            assert_eq!(found, [SocketAddr::from(expected)]);
        }
        let hop: Hop = "fe80::1%nosuch 12000".parse().unwrap();
        assert!(matches!(lookup(&hop, Names::Own, deadline).await, Err(DialError::NameNotFound(_))));
    }
}
