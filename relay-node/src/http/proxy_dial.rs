//! From a host and a port to a connection: looked up once, each address judged, the judged one dialled, all within
//! named limits.

use super::cache::FetchError;
use super::proxy_allow::{AllowProxy, could_match, may_ask_for, permits};
use http::StatusCode;
use relay_link::congestion::Congestion;
use relay_link::resolve::{Names, ResolveError, resolve};
use relay_proto::address::{HopErrorKind, Host};
use relay_trust::address::canonical;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

/// The most questions to the system's resolver at once for hosts that clients name. It answers each when it likes, and at most
/// [`relay_link::resolve`]'s number of them for all of this process: others have to come to their turn, too.
const MOST_LOOKUPS: usize = 24;
/// The same for the host that the operator named, which no client can keep from being found.
const MOST_OWN_LOOKUPS: usize = 8;
/// After so long a question counts as answered, whatever the resolver does.
const LONGEST_LOOKUP: Duration = Duration::from_secs(300);

static LOOKUPS: Semaphore = Semaphore::const_new(MOST_LOOKUPS);
static OWN_LOOKUPS: Semaphore = Semaphore::const_new(MOST_OWN_LOOKUPS);

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
    /// What is asked for is no host.
    #[error("{host:?} is no host: {source}")]
    BadHost {
        /// What was asked for.
        host: String,
        /// What is wrong with it.
        source: HopErrorKind,
    },
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
            Self::BadHost { .. } => StatusCode::BAD_REQUEST,
            Self::Denied { .. } | Self::DeniedAddress { .. } => StatusCode::FORBIDDEN,
            Self::Lookup { .. } | Self::Connect { .. } => StatusCode::BAD_GATEWAY,
            Self::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
        };
        FetchError { status, reason: self.to_string(), unsent: true }
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
        // The system's reader would take what looks like a number for an address, in forms of its own.
        Err(_) => match Host::try_from(host.to_owned()) {
            Ok(_) => could_match(rules, host, port),
            Err(source) => return Err(DialError::BadHost { host: host.to_owned(), source }),
        },
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
    let found = look_up(host, port, reach, limits).await?;
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

async fn look_up(
    host: &str,
    port: u16,
    reach: Reach<'_>,
    limits: &ProxyLimits,
) -> Result<Vec<IpAddr>, DialError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![canonical(address)]);
    }
    let permits = match reach {
        Reach::Configured => Some(&OWN_LOOKUPS),
        Reach::Asked(rules) => may_ask_for(rules, host, port).then_some(&LOOKUPS),
    };
    let found = timeout(limits.lookup, find(host, permits)).await.unwrap_or(Err(ResolveError::TimedOut));
    match found {
        Ok(found) => Ok(found.into_iter().map(canonical).collect()),
        Err(ResolveError::TimedOut) => Err(DialError::TimedOut {
            what: "looking up the name of",
            host: written(host),
            port,
            limit: limits.lookup,
        }),
        Err(ResolveError::NotFound(source)) => Err(DialError::Lookup { host: written(host), source }),
        Err(ResolveError::Unknown) if permits.is_none() => {
            Err(DialError::Denied { host: written(host), port })
        }
        Err(error @ ResolveError::Unknown) => {
            Err(DialError::Lookup { host: written(host), source: io::Error::other(error) })
        }
    }
}

/// What the machine itself knows, or else, with permits for that, what the resolver says. The question goes on when nobody waits for it any more, and
/// so does its permit.
async fn find(host: &str, permits: Option<&'static Semaphore>) -> Result<Vec<IpAddr>, ResolveError> {
    let until = Instant::now() + LONGEST_LOOKUP;
    let permits = match (resolve(host, Names::Known, until).await, permits) {
        (Err(ResolveError::Unknown), Some(permits)) => permits,
        (found, _) => return found,
    };
    let failed = |error| ResolveError::NotFound(io::Error::other(error));
    let permit = permits.acquire().await.map_err(|error| failed(error.to_string()))?;
    let host = host.to_owned();
    let question = tokio::spawn(async move {
        let found = resolve(&host, Names::Own, until).await;
        drop(permit);
        found
    });
    question.await.map_err(|error| failed(error.to_string()))?
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A name that no hosts file has and every resolver knows not to exist (RFC 6761).
    const NOWHERE: &str = "nowhere.invalid";

    #[tokio::test]
    async fn lookups_that_nobody_answers_stop_further_ones_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let rules = ["*".parse().unwrap(), "127.0.0.0/8".parse().unwrap()];
        let limits = ProxyLimits { lookup: Duration::from_millis(100), ..ProxyLimits::default() };
        let hung = LOOKUPS.acquire_many(u32::try_from(MOST_LOOKUPS).unwrap()).await.unwrap();
        let late = dial(NOWHERE, port, Reach::Asked(&rules), &limits, Congestion::SYSTEM).await.unwrap_err();
        assert!(matches!(late, DialError::TimedOut { what: "looking up the name of", .. }), "{late}");
        let far = ProxyLimits { lookup: Duration::from_secs(120), ..limits };
        for host in ["127.0.0.1", "localhost"] {
            dial(host, port, Reach::Asked(&rules), &far, Congestion::SYSTEM).await.unwrap();
        }
        assert_eq!(OWN_LOOKUPS.available_permits(), MOST_OWN_LOOKUPS, "clients' names take none of these");
        drop(hung);
    }

    #[tokio::test]
    async fn only_names_that_a_rule_knows_are_asked_for() {
        let limits = ProxyLimits::default();
        let rules = ["127.0.0.0/8".parse().unwrap()];
        let reach = Reach::Asked(&rules);
        let denied = look_up(NOWHERE, 80, reach, &limits).await.unwrap_err();
        assert!(matches!(denied, DialError::Denied { .. }), "{denied}");
        assert!(look_up("localhost", 80, reach, &limits).await.is_ok());
    }

    #[test]
    fn what_others_may_read_as_a_number_is_no_host() {
        let rules = ["*".parse().unwrap(), "127.0.0.0/8".parse().unwrap()];
        for host in ["127.0.0.3.", "127.3", "0x7f.3", "0177.0.0.3", "2130706433", "a.0x7f", "a;b", "a%2eb"] {
            let refused = check_name(host, 80, Reach::Asked(&rules)).unwrap_err();
            assert_eq!(refused.to_answer().status, StatusCode::BAD_REQUEST, "{host}");
        }
        check_name("127.0.0.3", 80, Reach::Asked(&rules)).unwrap();
        check_name("example.org.", 80, Reach::Asked(&rules)).unwrap();
    }
}
