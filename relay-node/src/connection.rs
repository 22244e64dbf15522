//! One accepted connection: find out which face it wants, serve it, and write its line into the access log.

use crate::access::{Access, Reader};
use crate::access_log::AccessLog;
use crate::census::{As, Census};
use crate::config::Config;
use crate::http::cache::{Cache, Clock};
use crate::http::gateway::Gateway;
use crate::http::proxy::Proxy;
use crate::http::{self, HttpConfig, HttpFace};
use crate::origin::{self, HashIndex, Origin, OriginLimits, Security};
use crate::peer_lines::{LineBudgets, PeerLines};
use crate::record::{Fault, Outcome, Record, Role};
use crate::relay::{self, Allowed, RelayLimits};
use crate::stop::Stop;
use crate::visits::Visits;
use relay_chain::chain::random_bits;
use relay_chain::frames::{ReadError, read_message, write_message};
use relay_link::detect::{Detected, detect};
use relay_link::link::Link;
use relay_proto::code::FailureCode;
use relay_proto::hop::{Failed, Hello, Open, agent_name};
use relay_proto::limits::DEFAULT_SILENCE;
use relay_trust::access::Credentials;
use relay_trust::next_hop::NextHopPolicy;
use relay_trust::tls::{self, Use};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What the index of chunk hashes may hold, in bytes: the hashes of about 1.5 TiB of files.
const HASH_INDEX_BYTES: u64 = 64 * 1024 * 1024;

/// How long a connection over the limit may take to show which face it wants, so that it can be refused in its language.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(2);

/// What all connections share.
#[derive(Debug)]
pub struct Node {
    policy: NextHopPolicy,
    access: Option<Arc<Access>>,
    max_hops: usize,
    request_timeout: Duration,
    relay_limits: RelayLimits,
    origin: Origin,
    line_budgets: LineBudgets,
    visits: Arc<Visits>,
    security: Security,
    origin_limits: OriginLimits,
    http: Arc<HttpFace>,
    cache: Option<Arc<Cache>>,
    census: Arc<Census>,
    stop: Stop,
}

impl Node {
    /// A node as it was configured.
    ///
    /// # Errors
    /// A cache that cannot be opened, and what to do about it.
    pub fn new(config: Config, access_log: Arc<AccessLog>, stop: Stop) -> anyhow::Result<Node> {
        let root = Arc::new(config.root);
        let http = HttpConfig {
            strict: config.strict_http,
            listing: config.listing,
            header_timeout: config.request_timeout,
            keep_alive_timeout: config.keep_alive_timeout,
            send_timeout: config.idle_timeout,
            ..HttpConfig::default()
        };
        let mut face = HttpFace::new(Arc::clone(&root), http, access_log);
        let cache =
            config.cache.as_ref().map(|c| Cache::open(&c.directory, c.size, Clock::System, stop.clone()));
        let cache = cache.transpose()?;
        // The pseudonym serves the gateway, too, which may stand alone.
        let proxy = Proxy::new(config.proxy.clone().unwrap_or_default(), cache.clone(), random_bits()?);
        if let Some(route) = config.gateway {
            let pseudonym = proxy.pseudonym().to_owned();
            let gateway = Gateway::new(route, DEFAULT_SILENCE, cache.clone(), pseudonym);
            face = face.with_gateway(gateway.with_congestion(config.congestion));
        }
        if config.proxy.is_some() {
            face = face.with_proxy(proxy);
        }
        Ok(Node {
            policy: config.policy,
            access: config.access.clone(),
            max_hops: config.max_hops,
            request_timeout: config.request_timeout,
            relay_limits: RelayLimits {
                dial: config.dial_timeout,
                idle: config.idle_timeout,
                congestion: config.congestion,
            },
            origin: Origin {
                root,
                index: Arc::new(HashIndex::new(HASH_INDEX_BYTES)),
                buffers: Arc::default(),
                lines: PeerLines::default(),
                reader: config.access.map(Reader::unknown),
            },
            line_budgets: LineBudgets::default(),
            visits: Visits::new(config.max_visits),
            security: Security {
                tls: tls::server(Use::Pipe, &config.key)?,
                is_required: config.require_encryption,
                handshake: config.request_timeout,
            },
            origin_limits: OriginLimits { request: config.keep_alive_timeout, progress: config.idle_timeout },
            http: Arc::new(face),
            cache,
            census: Arc::default(),
            stop,
        })
    }

    /// How many connections there are.
    #[must_use]
    pub fn census(&self) -> &Arc<Census> {
        &self.census
    }

    /// Returns when nothing runs any more that no connection waits for: what the cache still brings to its disk.
    pub async fn settled(&self) {
        if let Some(cache) = &self.cache {
            cache.settled().await;
        }
    }
}

/// Serves one connection to its end. Whatever the peer does, it returns, and the node goes on.
pub async fn serve(stream: TcpStream, peer: SocketAddr, node: &Node) {
    let detected = tokio::select! {
        detected = detect(&stream, node.request_timeout) => detected,
        // A connection that has said nothing when the node ends has nothing to finish.
        () = node.stop.stopped() => return,
    };
    match detected {
        Ok(Detected::Relay) => Box::pin(serve_relay_face(Link::tcp(stream, peer), node)).await,
        Ok(Detected::Http) if node.access.is_some() => {
            http::refuse_closed(stream, peer, Arc::clone(&node.http), node.stop.clone()).await;
        }
        Ok(Detected::Http) => {
            let _counted = node.census.enter(As::Http);
            Box::pin(http::serve(stream, peer, Arc::clone(&node.http), node.stop.clone())).await;
        }
        Ok(Detected::Silent) => {
            http::refuse_silent(stream, peer, Arc::clone(&node.http), node.stop.clone()).await;
        }
        Ok(Detected::Closed) => tracing::debug!(%peer, "closed before it said anything"),
        Err(error) => tracing::debug!(%peer, %error, "failed before it said anything"),
    }
}

async fn serve_relay_face(mut link: Link, node: &Node) {
    let mut record = Record::new(link.peer());
    let read = timeout(node.request_timeout, read_message::<Open, _>(&mut link)).await;
    let open = match read {
        Ok(Ok(open)) => open,
        Ok(Err(error)) => return refuse_open(&mut link, &error, &mut record).await,
        Err(_) => return refuse_slow(&mut link, node.request_timeout, &mut record).await,
    };
    record.id = Some(open.id);
    if open.hops.len() > node.max_hops {
        let message =
            format!("{} hops are left, and this node takes at most {}", open.hops.len(), node.max_hops);
        let failed = Failed::new(FailureCode::TooManyHops, None, &message);
        record.end(Outcome::Failed(failed.code), Fault::Client);
        return relay::refuse(&mut link, &failed).await;
    }
    let Some(_visit) = node.visits.enter(open.id) else {
        let most = node.visits.most();
        let message = format!(
            "this connection is here {most} times already, as often as this node takes one (--max-visits)"
        );
        let failed = Failed::new(FailureCode::TooManyHops, None, &message);
        record.end(Outcome::Failed(failed.code), Fault::Client);
        return relay::refuse(&mut link, &failed).await;
    };
    if node.stop.is_stopped() {
        let failed = Failed::new(FailureCode::Stopping, None, "");
        record.end(Outcome::Failed(failed.code), Fault::Node);
        return relay::refuse(&mut link, &failed).await;
    }
    let hello = Hello { agent: agent_name("relay-node", env!("CARGO_PKG_VERSION")) };
    if let Err(error) = write_message(&mut link, &hello).await {
        return record.end(Outcome::Broken(error.to_string()), Fault::Client);
    }
    if open.hops.is_empty() {
        let _counted = node.census.enter(As::Origin);
        record.role = Role::Origin;
        serve_files(link, node, &mut record).await;
    } else {
        let _counted = node.census.enter(As::Relay);
        record.role = Role::Relay;
        let rules = node.access.as_ref().map(|access| access.rules());
        let allowed = match &rules {
            // Nothing in a plain open proves who asks.
            Some(rules) => Allowed::Caller(rules.caller(&Credentials::default(), SystemTime::now())),
            None => Allowed::Everybody(&node.policy),
        };
        relay::relay(&mut link, open, &allowed, &node.relay_limits, &mut record).await;
    }
}

async fn serve_files(link: Link, node: &Node, record: &mut Record) {
    let lines = node.line_budgets.of(record.peer.ip());
    let origin = Origin { lines: lines.clone(), ..node.origin.clone() };
    let (limits, served) = (node.origin_limits, &mut record.served);
    let result = origin::serve_pipe(link, origin, &node.security, limits, &node.stop, served).await;
    lines.tell();
    match (&result, record.served.status) {
        (Err(error), _) => record.end(Outcome::Broken(error.to_string()), Fault::Client),
        (Ok(()), _) if record.served.broken_bodies > 0 => {
            let what = "a file changed or could not be read while it was sent";
            record.end(Outcome::Broken(what.to_owned()), Fault::Node);
        }
        (Ok(()), Some(status)) => record.end(Outcome::Answered(status), Fault::of_status(status)),
        (Ok(()), None) => record.end(Outcome::Done, Fault::None),
    }
}

async fn refuse_open(link: &mut Link, error: &ReadError, record: &mut Record) {
    record.note = error.to_string();
    if let ReadError::Closed | ReadError::Truncated | ReadError::Io(_) = error {
        return record.end(Outcome::Broken(error.to_string()), Fault::Client);
    }
    let failed = Failed::new(FailureCode::BadRequest, None, &error.to_string());
    record.end(Outcome::Failed(failed.code), Fault::Client);
    relay::refuse(link, &failed).await;
}

async fn refuse_slow(link: &mut Link, limit: Duration, record: &mut Record) {
    let message = format!("the open did not arrive within {} s", limit.as_secs_f64());
    let failed = Failed::new(FailureCode::TimedOut, None, &message);
    record.end(Outcome::Failed(failed.code), Fault::Client);
    relay::refuse(link, &failed).await;
}

/// Tells a connection over a limit that the node is busy, in its own language, and closes it. `why` may be empty.
pub async fn refuse_busy(stream: TcpStream, peer: SocketAddr, node: &Node, why: &str) {
    match detect(&stream, REFUSAL_PATIENCE).await {
        Ok(Detected::Relay) => {
            let mut record = Record::new(peer);
            let mut link = Link::tcp(stream, peer);
            let open = timeout(REFUSAL_PATIENCE, read_message::<Open, _>(&mut link)).await;
            record.id = open.ok().and_then(Result::ok).map(|open| open.id);
            record.note = why.to_owned();
            record.end(Outcome::Failed(FailureCode::Busy), Fault::Node);
            relay::refuse(&mut link, &Failed::new(FailureCode::Busy, None, why)).await;
        }
        Ok(Detected::Http) => {
            http::refuse_busy(stream, peer, Arc::clone(&node.http), node.stop.clone()).await;
        }
        Ok(Detected::Silent | Detected::Closed) | Err(_) => {}
    }
}
