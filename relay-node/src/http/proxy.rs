//! The proxy: a request is sent on to the upstream that the operator named, or, as a forward proxy, to where the client
//! wants and the operator allows, and what comes back is passed on as it comes.
//!
//! In order: is it a loop, where does it go and may it, does the cache know the answer, and only then the wire. Bodies are never held
//! whole, connections are kept for the next request, every wait has a limit, and who is at fault is named in a 502 or 504.

use super::body::{Body, Stream, nothing};
use super::cache::{Asked, Cache, Fetch, FetchError, Key, carries_content};
use super::forwarded::{Sender, TrustForwarded};
use super::head::ServerWide;
use super::proxy_allow::AllowProxy;
use super::proxy_dial::{DialError, ProxyLimits, Reach, check_name, dial};
use super::proxy_fields::{
    Loop, MOST_HOPS, add_via, check_answer, may_go_on, noticed_loop, prepare_request,
    remove_connection_fields,
};
use super::streams::{BrokenRequest, Hurried, Watched};
use super::upstream_line::{Progress, UpstreamLine, was_closed};
use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use relay_link::congestion::Congestion;
use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long an upstream's connection is kept for the next request.
const KEEP_IDLE: Duration = Duration::from_secs(30);

/// How many idle connections are kept for each upstream.
const MOST_IDLE: usize = 64;

/// How often a request without content is sent again because a kept connection turned out to be closed.
const MOST_REPEATS: usize = 2;

/// Where the reverse proxy sends everything: `--upstream http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    authority: Authority,
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

/// What is wrong with an `--upstream`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no upstream: {why}; write http://host:port")]
pub struct BadUpstream {
    text: String,
    why: &'static str,
}

/// What the operator decided about forwarding.
#[derive(Debug, Clone, Default)]
pub struct ProxyConfig {
    /// The reverse proxy's upstream.
    pub upstream: Option<Upstream>,
    /// Whether absolute-form requests and CONNECT are taken.
    pub forward: bool,
    /// Where those may go.
    pub allow: Vec<AllowProxy>,
    /// Whose word on where a request comes from is passed on.
    pub trust_forwarded: Vec<TrustForwarded>,
    /// The limits of every wait.
    pub limits: ProxyLimits,
    /// What connections to upstreams get.
    pub congestion: Congestion,
}

/// The proxy of one node.
#[derive(Debug, Clone)]
pub struct Proxy {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ProxyConfig,
    cache: Option<Arc<Cache>>,
    pseudonym: String,
    /// Of what was fetched for clients by the rules in force. Which addresses a name led to is not known of what is stored, so
    /// under other rules it is not used.
    realm: String,
    configured: Client<Connector, Stream>,
    asked: Client<Connector, Stream>,
}

/// Dials for the pool of connections.
#[derive(Debug, Clone)]
struct Connector {
    /// `None`: the operator named the destination.
    allow: Option<Arc<[AllowProxy]>>,
    limits: ProxyLimits,
    congestion: Congestion,
}

/// One request's way to its upstream.
#[derive(Debug, Clone)]
struct Wire {
    proxy: Proxy,
    authority: Authority,
    configured: bool,
    sender: Sender,
}

impl Proxy {
    /// A proxy by this configuration, with a cache in front of its upstreams or without one. `process` is random, and
    /// different in every process, so that the proxy knows its own `Via`.
    pub fn new(config: ProxyConfig, cache: Option<Arc<Cache>>, process: u64) -> Self {
        let [configured, asked] = Connector::both(&config).map(pool);
        let pseudonym = format!("relay-node-{process:016x}");
        let realm = realm(&config.allow);
        Self { shared: Arc::new(Shared { config, cache, pseudonym, realm, configured, asked }) }
    }

    /// What this proxy calls itself in `Via`.
    pub fn pseudonym(&self) -> &str {
        &self.shared.pseudonym
    }

    /// Whether requests for the node's own paths go to an upstream.
    pub fn is_reverse(&self) -> bool {
        self.shared.config.upstream.is_some()
    }

    /// Whether absolute-form requests and CONNECT are taken.
    pub fn is_forward(&self) -> bool {
        self.shared.config.forward
    }

    /// For how long a tunnel may be silent.
    pub fn tunnel_idle(&self) -> Duration {
        self.shared.config.limits.tunnel_idle
    }

    /// Answers a request that is not CONNECT: one with an absolute target as a forward proxy, others for the upstream.
    pub(super) async fn answer(
        &self,
        request: Request<Stream>,
        client: Option<IpAddr>,
    ) -> Result<Response<Body>, FetchError> {
        let (mut parts, body) = request.into_parts();
        // 1. A request that has been here before would go round for ever, and would wait for itself in the cache.
        self.check_loop(&parts)?;
        if let Some(answer) = ends_here(&mut parts) {
            return answer;
        }
        // 2. Where it goes.
        let (authority, configured) = self.destination(&parts)?;
        let path = wanted_path(&parts);
        parts.uri = absolute(&authority, path)?;
        let sender = Sender::new(client, &self.shared.config.trust_forwarded, configured);
        let wire = Wire { proxy: self.clone(), authority, configured, sender };
        // 3. From the cache, or over the wire.
        let mut answer = match &self.shared.cache {
            Some(cache) => {
                let uri = parts.uri.to_string();
                let rules = if configured { "" } else { &self.shared.realm };
                let realm = sender.realm(rules, &parts.headers);
                let key = if realm.is_empty() { Key::new(uri) } else { Key::within(&uri, &realm) };
                cache.answer(Asked::new(key, parts), body, wire).await?
            }
            None => {
                wire.prepare(&mut parts.headers, parts.version);
                Box::pin(wire.fetch(parts, body)).await?.map(Body::Stream)
            }
        };
        // 4. Back, without what was for the upstream's connection; stored bodies have no such fields beside them.
        if let Body::Stream(_) = answer.body() {
            remove_connection_fields(answer.headers_mut());
        }
        let received = answer.version();
        add_via(answer.headers_mut(), received, self.pseudonym());
        Ok(answer)
    }

    /// Connects to where a CONNECT wants to go, if that is allowed.
    pub async fn connect(&self, parts: &Parts) -> Result<TcpStream, FetchError> {
        self.check_loop(parts)?;
        let authority = parts.uri.authority().ok_or_else(|| bad("CONNECT needs host:port"))?;
        if !self.is_forward() {
            return Err(no_forwarding());
        }
        // Who stands in front might take for content what would be the tunnel's first bytes (RFC 9110, 9.3.6).
        if carries_content(&parts.headers) {
            return Err(bad("a CONNECT has no content"));
        }
        let port = authority.port_u16().ok_or_else(|| bad("CONNECT needs host:port"))?;
        let reach = Reach::Asked(&self.shared.config.allow);
        dial(plain_host(authority), port, reach, &self.shared.config.limits, self.shared.config.congestion)
            .await
            .map_err(|error| error.to_answer())
    }

    fn check_loop(&self, parts: &Parts) -> Result<(), FetchError> {
        let reason = match noticed_loop(&parts.headers, self.pseudonym()) {
            Loop::None => return Ok(()),
            Loop::Itself => {
                "this request has come back to the node that sent it on: its upstream leads to itself"
                    .to_owned()
            }
            Loop::TooManyHops => {
                format!("this request has come through {MOST_HOPS} proxies already, which looks like a loop")
            }
        };
        tracing::warn!(reason, "a proxy loop");
        Err(FetchError { status: StatusCode::LOOP_DETECTED, reason, unsent: true })
    }

    fn destination(&self, parts: &Parts) -> Result<(Authority, bool), FetchError> {
        match (parts.uri.authority(), &self.shared.config.upstream) {
            (Some(_), _) if !self.is_forward() => Err(no_forwarding()),
            (Some(_), _) if parts.uri.scheme() != Some(&Scheme::HTTP) => {
                Err(bad("only http:// is fetched for you; use CONNECT for anything else"))
            }
            (Some(authority), _) => {
                let authority = with_port(authority)?;
                let port = authority.port_u16().unwrap_or(80);
                // Before the cache: it may hold what was fetched when that was allowed.
                check_name(plain_host(&authority), port, Reach::Asked(&self.shared.config.allow))
                    .map_err(|error| error.to_answer())?;
                Ok((authority, false))
            }
            (None, Some(upstream)) => Ok((upstream.authority.clone(), true)),
            (None, None) => Err(bad("this node has no upstream")),
        }
    }
}

impl Fetch for Wire {
    fn forwarded(&self, request: &Parts) -> HeaderMap {
        let mut fields = request.headers.clone();
        self.prepare(&mut fields, request.version);
        fields
    }

    async fn fetch(&self, parts: Parts, body: Stream) -> Result<Response<Stream>, FetchError> {
        let shared = &self.proxy.shared;
        let limits = &shared.config.limits;
        let mut parts = parts;
        parts.version = Version::HTTP_11;
        parts.headers.insert(HOST, host_field(&self.authority)?);
        let progress = Arc::new(Mutex::new(Instant::now()));
        let repeatable =
            body.is_end_stream() && matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let again = repeatable.then(|| parts.clone());
        let mut request = Request::from_parts(parts, watched(body, Arc::clone(&progress)));
        let pool = if self.configured { &shared.configured } else { &shared.asked };
        for turn in 0.. {
            match within(pool.request(request), &progress, limits.answer).await {
                Some(Ok(answer)) => return self.received(answer),
                Some(Err(error)) => match &again {
                    Some(again) if turn < MOST_REPEATS && was_closed(&error) => {
                        request = Request::from_parts(again.clone(), nothing());
                    }
                    _ => return Err(self.failure(&error)),
                },
                None => break,
            }
        }
        Err(self.late("did not begin to answer", limits.answer))
    }
}

impl Wire {
    /// Makes of a client's fields those that the upstream gets.
    fn prepare(&self, fields: &mut HeaderMap, version: Version) {
        prepare_request(fields, version, self.proxy.pseudonym(), self.sender);
    }

    fn received(&self, mut answer: Response<Incoming>) -> Result<Response<Stream>, FetchError> {
        if let Some(connection) = answer.extensions_mut().remove::<Progress>() {
            connection.answered();
        }
        match check_answer(answer.status(), answer.headers_mut()) {
            Ok(()) => Ok(answer.map(|body| self.hurried(body))),
            Err(why) => Err(FetchError {
                status: StatusCode::BAD_GATEWAY,
                reason: format!("{} cannot be understood: {why}", self.authority),
                unsent: false,
            }),
        }
    }

    fn failure(&self, error: &hyper_util::client::legacy::Error) -> FetchError {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
        let mut last = error.to_string();
        while let Some(cause) = source {
            if let Some(dial) = cause.downcast_ref::<DialError>() {
                return dial.to_answer();
            }
            if cause.is::<BrokenRequest>() {
                // Some of it may have gone out before.
                return FetchError { unsent: false, ..bad(&cause.to_string()) };
            }
            last = cause.to_string();
            source = cause.source();
        }
        FetchError {
            status: StatusCode::BAD_GATEWAY,
            reason: format!("{} broke off: {last}", self.authority),
            unsent: false,
        }
    }

    fn late(&self, what: &str, limit: Duration) -> FetchError {
        FetchError {
            status: StatusCode::GATEWAY_TIMEOUT,
            reason: format!("{} {what} within {} ms", self.authority, limit.as_millis()),
            unsent: false,
        }
    }

    fn hurried(&self, body: Incoming) -> Stream {
        let limit = self.proxy.shared.config.limits.silence;
        let reason = self.late("sent no more of its answer", limit).reason;
        Hurried::new(body, limit, reason).boxed_unsync()
    }
}

impl std::str::FromStr for Upstream {
    type Err = BadUpstream;

    fn from_str(text: &str) -> Result<Self, BadUpstream> {
        let bad = |why| BadUpstream { text: text.to_owned(), why };
        let uri: Uri = text.parse().map_err(|_| bad("it is not a URL"))?;
        if uri.scheme() != Some(&Scheme::HTTP) {
            return Err(bad("only http:// is spoken to it"));
        }
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it holds a user's name"));
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(bad("it has a path"));
        }
        Ok(Self { authority: with_port(authority).map_err(|_| bad("its port is not one"))? })
    }
}

impl Connector {
    /// To where the operator wants, and to where clients want.
    fn both(config: &ProxyConfig) -> [Self; 2] {
        let &ProxyConfig { ref allow, limits, congestion, .. } = config;
        [None, Some(allow.clone().into())].map(|allow| Self { allow, limits, congestion })
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<UpstreamLine>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { allow, limits, congestion } = self.clone();
        Box::pin(async move {
            let (host, port) = (uri.authority().map_or("", plain_host), uri.port_u16().unwrap_or(80));
            let reach = allow.as_deref().map_or(Reach::Configured, Reach::Asked);
            let stream = dial(host, port, reach, &limits, congestion).await?;
            Ok(TokioIo::new(UpstreamLine::new(stream)))
        })
    }
}

/// The same for the same rules, in whatever order.
fn realm(allow: &[AllowProxy]) -> String {
    let mut rules: Vec<String> = allow.iter().map(AllowProxy::to_string).collect();
    rules.sort_unstable();
    format!("allow-{}", blake3::hash(rules.join(" ").as_bytes()).to_hex())
}

fn watched(body: Stream, progress: Arc<Mutex<Instant>>) -> Stream {
    if body.is_end_stream() { body } else { Watched::new(body, progress).boxed_unsync() }
}

/// Waits as long as the request moves, and `limit` after that.
async fn within<T>(answer: impl Future<Output = T>, progress: &Mutex<Instant>, limit: Duration) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    loop {
        let until = *progress.lock().unwrap_or_else(PoisonError::into_inner) + limit;
        if until <= Instant::now() {
            return None;
        }
        if let Ok(answer) = tokio::time::timeout_at(until, answer.as_mut()).await {
            return Some(answer);
        }
    }
}

fn pool(connector: Connector) -> Client<Connector, Stream> {
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(KEEP_IDLE)
        .pool_max_idle_per_host(MOST_IDLE)
        .pool_timer(TokioTimer::new())
        .build(connector)
}

/// TRACE would show a client's credentials to scripts, a CONNECT comes here only where there are no tunnels, and OPTIONS may be
/// meant for this proxy.
fn ends_here(parts: &mut Parts) -> Option<Result<Response<Body>, FetchError>> {
    if matches!(parts.method, Method::TRACE | Method::CONNECT) {
        let reason = format!("this proxy has no {}", parts.method);
        return Some(Err(FetchError { status: StatusCode::NOT_IMPLEMENTED, reason, unsent: true }));
    }
    if may_go_on(&parts.method, &mut parts.headers) {
        return None;
    }
    let mut answer = Response::new(Body::Empty);
    answer.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    Some(Ok(answer))
}

/// Of a server as a whole, the last proxy asks for `*` (RFC 9112 §3.2.4).
fn wanted_path(parts: &Parts) -> PathAndQuery {
    if parts.extensions.get::<ServerWide>().is_some() {
        return PathAndQuery::from_static("*");
    }
    parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// The authority in one form: without a user's name, in lower case, with its port.
fn with_port(authority: &Authority) -> Result<Authority, FetchError> {
    if authority.as_str().contains('@') {
        return Err(bad("the target holds a user's name"));
    }
    let host = authority.host().to_ascii_lowercase();
    let port = match authority.port() {
        Some(_) => authority.port_u16().ok_or_else(|| bad("the target's port is not one"))?,
        None if authority.as_str().ends_with(':') || authority.as_str() == authority.host() => 80,
        None => return Err(bad("the target's port is not one")),
    };
    format!("{host}:{port}").parse().map_err(|_| bad("the target's host is not one"))
}

fn absolute(authority: &Authority, path: PathAndQuery) -> Result<Uri, FetchError> {
    let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority.clone()).path_and_query(path).build();
    uri.map_err(|_| bad("the target is not a URL"))
}

/// RFC 9110 §7.2: the port is left out where it is the scheme's own.
fn host_field(authority: &Authority) -> Result<HeaderValue, FetchError> {
    let text = authority.as_str();
    HeaderValue::from_str(text.strip_suffix(":80").unwrap_or(text))
        .map_err(|_| bad("the target's host is not one"))
}

fn plain_host(authority: &Authority) -> &str {
    let host = authority.host();
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn bad(reason: &str) -> FetchError {
    FetchError { status: StatusCode::BAD_REQUEST, reason: reason.to_owned(), unsent: true }
}

fn no_forwarding() -> FetchError {
    let reason =
        "this node is no forward proxy; its operator would make it one with --forward-proxy".to_owned();
    FetchError { status: StatusCode::FORBIDDEN, reason, unsent: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn connections_to_upstreams_have_the_congestion_control_that_was_asked_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let congestion = Congestion::of(Some("reno".parse().unwrap())).unwrap();
        let allow = vec![address.to_string().parse().unwrap()];
        let config = ProxyConfig { forward: true, allow, congestion, ..ProxyConfig::default() };
        let proxy = Proxy::new(config, None, 1);
        let algorithm_of =
            |stream: &TcpStream| relay_link::congestion::algorithm_of(&socket2::SockRef::from(stream));
        let connect = Request::connect(address.to_string()).body(()).unwrap().into_parts().0;
        let tunnel = proxy.connect(&connect).await.unwrap();
        assert_eq!(algorithm_of(&tunnel), congestion.algorithm());
        for mut connector in Connector::both(&proxy.shared.config) {
            let uri = format!("http://{address}/").parse().unwrap();
            let stream = tower_service::Service::call(&mut connector, uri).await.unwrap();
            assert_eq!(algorithm_of(stream.inner().stream()), congestion.algorithm());
        }
    }

    #[test]
    fn upstreams_that_are_and_are_not() {
        for (text, authority) in [
            ("http://files.lab:8080", "files.lab:8080"),
            ("http://Files.Lab/", "files.lab:80"),
            ("http://[::1]:8080", "[::1]:8080"),
        ] {
            assert_eq!(text.parse::<Upstream>().unwrap().authority.as_str(), authority, "{text}");
        }
        for text in [
            "files.lab:8080",
            "https://a",
            "http://a/x",
            "http://a/?q",
            "http://u@a",
            "http://a:99999",
            "http://",
            "",
        ] {
            assert!(text.parse::<Upstream>().is_err(), "{text}");
        }
    }

    #[test]
    fn authorities_have_one_form() {
        for (text, expected) in [("A.org", "a.org:80"), ("a.org:8080", "a.org:8080"), ("[::1]", "[::1]:80")] {
            assert_eq!(with_port(&text.parse().unwrap()).unwrap().as_str(), expected);
        }
        assert_eq!(host_field(&"a.org:80".parse().unwrap()).unwrap(), "a.org");
        assert_eq!(host_field(&"a.org:8080".parse().unwrap()).unwrap(), "a.org:8080");
    }
}
