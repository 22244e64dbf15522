//! The HTTP/1.1 face of a node: a web server over the document root.
//!
//! A connection's way: [`serve`] waits for a request without holding a buffer, checks its head before hyper sees it
//! (`head`), writes a short answer or has hyper do what takes longer (`wire`), and has the connection back for the next. What is answered is
//! decided in one place, [`HttpFace::answer`], which reads as a story from the first rule to the last.
//!
//! Three roles answer: the document root (`static_files`), the proxy with its cache ([`proxy`], [`cache`]), and the gateway into
//! a chain ([`gateway`]). Only the document root opens files that are served. No answer may hold an inner detail, and no wait may be without a limit.

mod body;
mod byteranges;
pub mod cache;
mod conditional;
pub mod connect;
mod connection;
pub(crate) mod date;
mod error_page;
mod field_names;
pub mod forwarded;
#[cfg(any(fuzzing, feature = "fuzzing"))]
pub mod fuzzing;
pub mod gateway;
mod head;
mod list_fields;
mod listing;
mod number;
mod page;
pub mod proxy;
pub mod proxy_allow;
pub mod proxy_dial;
pub mod proxy_fields;
mod range;
mod seals;
mod static_files;
mod streams;
mod target;
mod timer;
mod transfer;
mod upstream_line;
mod wire;

use crate::access_log::AccessLog;
use crate::root::{DocumentRoot, RootError};
use crate::stop::Stop;
use body::{Body, Stream};
use cache::FetchError;
use error_page::Form;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use gateway::Gateway;
use http::header::{ALLOW, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri};
use proxy::Proxy;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// What the HTTP face may do, and within which limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Answer 400 to methods other than GET and HEAD and to an unreadable `If-Modified-Since`, as some courses on HTTP
    /// servers ask; without it RFC 9110 holds: 405, and the date is ignored.
    pub strict: bool,
    /// Show the names in a directory that has no `index.html`.
    pub listing: bool,
    /// From the opening of the connection, or from the first byte of a later request, until its head must be whole.
    pub header_timeout: Duration,
    /// How long a connection may stay open without a request after an answer.
    pub keep_alive_timeout: Duration,
    /// How long a client may take nothing of an answer that is ready.
    pub send_timeout: Duration,
    /// How long a client may keep a handler waiting for the request's body, in all and beyond what
    /// [`HttpConfig::body_rate`] allows for its size.
    pub body_timeout: Duration,
    /// Bytes a second that a request's body must bring on the average.
    pub body_rate: u64,
    /// In bytes; a longer request line gets 414.
    pub max_request_line: usize,
    /// In bytes, the request line included; a larger head gets 431.
    pub max_head: usize,
    /// More header fields get 431. At most 100, which is as many as hyper reads.
    pub max_fields: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            strict: false,
            listing: true,
            header_timeout: Duration::from_secs(20),
            keep_alive_timeout: Duration::from_secs(75),
            send_timeout: Duration::from_secs(300),
            body_timeout: Duration::from_secs(30),
            body_rate: 1_024,
            max_request_line: 8 * 1024,
            max_head: 32 * 1024,
            max_fields: 100,
        }
    }
}

/// Everything that the HTTP face of one node shares between its connections.
#[derive(Debug)]
pub struct HttpFace {
    root: Arc<DocumentRoot>,
    config: HttpConfig,
    log: Arc<AccessLog>,
    proxy: Option<Proxy>,
    gateway: Option<Gateway>,
}

impl HttpFace {
    /// A face that serves `root`.
    #[must_use]
    pub fn new(root: Arc<DocumentRoot>, config: HttpConfig, log: Arc<AccessLog>) -> Self {
        Self { root, config, log, proxy: None, gateway: None }
    }

    /// Sends on what the proxy takes: everything for the node's own paths if it has an upstream, and what goes elsewhere if it
    /// is a forward proxy.
    #[must_use]
    pub fn with_proxy(self, proxy: Proxy) -> Self {
        Self { proxy: Some(proxy), ..self }
    }

    /// Fetches the node's own paths through a chain.
    #[must_use]
    pub fn with_gateway(self, gateway: Gateway) -> Self {
        Self { gateway: Some(gateway), ..self }
    }

    /// The story of one request whose head is well formed, and which is not for a tunnel.
    fn answer(&self, mut request: Request<Stream>, peer: SocketAddr) -> BoxFuture<'_, Response<Body>> {
        let form = Form::accepted(request.headers());
        let passed_on = move |answer| passed_on(answer, form);
        // 1. With an absolute target a client means a forward proxy, or this node by its name (RFC 9112, 3.2.2).
        let is_absolute = request.uri().authority().is_some();
        if let Some(proxy) = self.proxy.as_ref().filter(|proxy| is_absolute && proxy.is_forward()) {
            return proxy.answer(request, Some(peer.ip())).map(passed_on).boxed();
        }
        if is_absolute {
            own_path(request.uri_mut());
        }
        // 2. A file at the end of a chain.
        if let Some(gateway) = &self.gateway {
            return gateway.answer(request).map(passed_on).boxed();
        }
        // 3. Whatever the upstream has.
        if let Some(proxy) = self.proxy.as_ref().filter(|proxy| proxy.is_reverse()) {
            return proxy.answer(request, Some(peer.ip())).map(passed_on).boxed();
        }
        // 4. A file or a directory of the document root. The request's body, if there is one, is not read.
        let (head, _) = request.into_parts();
        async move { static_files::answer(self, &head.method, &head.uri, &head.headers, peer.ip()).await }
            .boxed()
    }

    /// The other end of a tunnel; `None` if this node is no forward proxy.
    async fn connect(&self, head: &Parts) -> Option<Result<(TcpStream, Duration), Response<Body>>> {
        let proxy = self.proxy.as_ref().filter(|proxy| proxy.is_forward())?;
        let connected = proxy.connect(head).await;
        Some(match connected {
            Ok(stream) => Ok((stream, proxy.tunnel_idle())),
            Err(error) => Err(failed(&error, Form::accepted(&head.headers))),
        })
    }
}

/// Runs what may wait for a disk in the blocking pool.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RootError> + Send + 'static,
) -> Result<T, RootError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(RootError::Io(io::Error::other(error))))
}

fn own_path(uri: &mut Uri) {
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *uri = Uri::from(path);
}

fn passed_on(answer: Result<Response<Body>, FetchError>, form: Form) -> Response<Body> {
    answer.unwrap_or_else(|error| failed(&error, form))
}

fn failed(error: &FetchError, form: Form) -> Response<Body> {
    let mut answer = error_page::response(error.status, &error.reason, form);
    if error.status == StatusCode::METHOD_NOT_ALLOWED {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    answer
}

/// How a connection went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpOutcome {
    /// Requests that were answered, the refused ones included.
    pub requests: u64,
    /// Bytes of answers, heads included, that the connection took.
    pub sent: u64,
    /// Why it ended.
    pub end: HttpEnd,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpEnd {
    /// The client closed it between requests.
    ClientClosed,
    /// After an answer, because client or server had said so.
    Closed,
    /// No further request came in time.
    Idle,
    /// A request did not arrive in time; it was answered 408.
    RequestTimeout,
    /// The client took nothing of an answer for too long.
    SendTimeout,
    /// What came was no request, or a malformed one; it was answered.
    BadRequest,
    /// The node ends.
    Stopped,
    /// The connection, or the answer's source, broke.
    Broken,
}

/// Serves one connection until it ends. Never fails: what goes wrong is part of the outcome.
///
/// A plain [`tokio::net::TcpStream`] gets large files by `sendfile` where the system has it.
pub async fn serve<S>(stream: S, peer: SocketAddr, face: Arc<HttpFace>, stop: Stop) -> HttpOutcome
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    connection::run(stream, peer, face, stop).await
}

/// Answers 408 to a connection that said nothing within the limit, and closes it.
pub async fn refuse_silent(stream: TcpStream, peer: SocketAddr, face: Arc<HttpFace>, stop: Stop) {
    connection::turn_away(stream, connection::TIMED_OUT, peer, face, stop).await;
}

/// Answers 403 to a connection at a node whose rules nobody can satisfy over HTTP, and closes it.
pub async fn refuse_closed(stream: TcpStream, peer: SocketAddr, face: Arc<HttpFace>, stop: Stop) {
    connection::turn_away(stream, connection::CLOSED, peer, face, stop).await;
}

/// Answers 503 to a connection over the node's limit, and closes it.
pub async fn refuse_busy(stream: TcpStream, peer: SocketAddr, face: Arc<HttpFace>, stop: Stop) {
    connection::turn_away(stream, connection::BUSY, peer, face, stop).await;
}
