//! From a host and a port to a connection: looked up once, each address judged, the judged one dialled, all within
//! named limits.

use super::cache::FetchError;
use super::proxy_allow::{AllowProxy, could_match, permits};
use http::StatusCode;
use relay_link::congestion::Congestion;
use relay_trust::address::canonical;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// How long an upstream may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyLimits {
    /// To look up its name.
    pub lookup: Duration,
    /// To accept a connection, over all of its addresses.
    pub connect: Duration,
    /// To begin its answer, or to take more of the request.
    pub answer: Duration,
    /// Between two pieces of its answer.
    pub silence: Duration,
    /// For a tunnel, without a byte in either direction.
    pub tunnel_idle: Duration,
}

impl Default for ProxyLimits {
    fn default() -> Self {
        Self {
            lookup: Duration::from_secs(5),
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            silence: Duration::from_secs(60),
            tunnel_idle: Duration::from_secs(600),
        }
    }
}

/// Whose decision a destination is.
#[derive(Debug, Clone, Copy)]
pub enum Reach<'a> {
    /// The operator named it.
    Configured,
    /// A client named it, and these rules allow it or not.
    Asked(&'a [AllowProxy]),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The rules do not let it.
    #[error(
        "this node does not forward to {host}:{port}; its operator would allow it with --allow-proxy {host}:{port}"
    )]
    Denied {
        /// The host that was asked for.
        host: String,
        /// The port.
        port: u16,
    },
    /// The rules do not let it go where the name leads. Where that is is for the node's log: a client could look up with it
    /// what only the node's network knows.
    #[error(
        "this node does not forward to {host}:{port}, which does not lead to a public address; its operator would allow it with \
         --allow-proxy and that address, which is in the node's log"
    )]
    DeniedAddress {
        /// The host that was asked for.
        host: String,
        /// The port.
        port: u16,
        /// One of its addresses.
        address: IpAddr,
    },
    /// The name could not be looked up.
    #[error("the name {host} was not found: {source}")]
    Lookup {
        /// The host.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The connection was not accepted.
    #[error("{host}:{port} at {address} did not accept a connection: {source}")]
    Connect {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The address that was tried last.
        address: IpAddr,
        /// What the system said.
        source: io::Error,
    },
    /// It took too long.
    #[error("{what} {host}:{port} took longer than {} ms", limit.as_millis())]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The limit.
        limit: Duration,
    },
}

impl DialError {
    /// What the client is told.
    pub fn to_answer(&self) -> FetchError {
        let status = match self {
            Self::Denied { .. } | Self::DeniedAddress { .. } => StatusCode::FORBIDDEN,
            Self::Lookup { .. } | Self::Connect { .. } => StatusCode::BAD_GATEWAY,
            Self::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
        };
        FetchError { status, reason: self.to_string() }
    }
}

/// Connects to a host, which is a name or an address without brackets.
pub async fn dial(
    host: &str,
    port: u16,
    reach: Reach<'_>,
    limits: &ProxyLimits,
    congestion: Congestion,
) -> Result<TcpStream, DialError> {
    let addresses = allowed_addresses(host, port, reach, limits).await?;
    let late =
        || DialError::TimedOut { what: "connecting to", host: written(host), port, limit: limits.connect };
    let dialled = timeout(limits.connect, dial_one_of(host, port, &addresses, limits)).await;
    let stream = dialled.map_err(|_| late())??;
    // Heads are written whole; waiting for more would only delay them. Not every system lets it be set.
    drop(stream.set_nodelay(true));
    congestion.apply(&socket2::SockRef::from(&stream));
    Ok(stream)
}

/// Whether a host may be dialled, as far as that is known before its name is looked up.
pub fn check_name(host: &str, port: u16, reach: Reach<'_>) -> Result<(), DialError> {
    let Reach::Asked(rules) = reach else { return Ok(()) };
    let is_allowed = match host.parse::<IpAddr>() {
        Ok(address) => permits(rules, host, port, canonical(address)),
        Err(_) => could_match(rules, host, port),
    };
    if is_allowed { Ok(()) } else { Err(DialError::Denied { host: written(host), port }) }
}

async fn allowed_addresses(
    host: &str,
    port: u16,
    reach: Reach<'_>,
    limits: &ProxyLimits,
) -> Result<Vec<IpAddr>, DialError> {
    check_name(host, port, reach)?;
    let found = look_up(host, port, limits).await?;
    let allowed: Vec<IpAddr> = match reach {
        Reach::Configured => found.clone(),
        Reach::Asked(rules) => {
            found.iter().copied().filter(|address| permits(rules, host, port, *address)).collect()
        }
    };
    match (allowed.is_empty(), found.first()) {
        (false, _) => Ok(allowed),
        // Who named the address himself learns nothing from hearing it.
        (true, Some(_)) if host.parse::<IpAddr>().is_ok() => {
            Err(DialError::Denied { host: written(host), port })
        }
        (true, Some(address)) => {
            tracing::info!(host, port, %address, "not forwarded: no --allow-proxy names this address");
            Err(DialError::DeniedAddress { host: written(host), port, address: *address })
        }
        (true, None) => {
            Err(DialError::Lookup { host: written(host), source: io::Error::other("it has no address") })
        }
    }
}

async fn look_up(host: &str, port: u16, limits: &ProxyLimits) -> Result<Vec<IpAddr>, DialError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![canonical(address)]);
    }
    let late = || DialError::TimedOut {
        what: "looking up the name of",
        host: written(host),
        port,
        limit: limits.lookup,
    };
    let found = timeout(limits.lookup, lookup_host((host, port))).await.map_err(|_| late())?;
    let found = found.map_err(|source| DialError::Lookup { host: written(host), source })?;
    Ok(found.map(|address| canonical(address.ip())).collect())
}

/// As it stands in front of a port: an IPv6 address in brackets, so that what an error advises can be typed.
fn written(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// One after the other, each with a fair share of the time.
async fn dial_one_of(
    host: &str,
    port: u16,
    addresses: &[IpAddr],
    limits: &ProxyLimits,
) -> Result<TcpStream, DialError> {
    let share = limits.connect / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = None;
    for address in addresses {
        let failed = |source| DialError::Connect { host: written(host), port, address: *address, source };
        let connecting = TcpStream::connect(SocketAddr::new(*address, port));
        if addresses.len() == 1 {
            return connecting.await.map_err(failed);
        }
        match timeout(share, connecting).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = Some(failed(error)),
            Err(_) => last = Some(failed(io::ErrorKind::TimedOut.into())),
        }
    }
    Err(last.unwrap_or_else(|| DialError::Lookup {
        host: written(host),
        source: io::Error::other("it has no address"),
    }))
}
