//! One request and its answer: hyper reads and writes what takes a while, and what is better done past hyper is done here.

use super::{Next, Owner, TIMED_OUT, short_answer};
use crate::access_log::HttpAccess;
use crate::http::body::{Body, BoxError, FileParts, Stream};
use crate::http::connect::{TunnelEnd, tunnel};
use crate::http::head::{Framing, Head, ServerWide, request};
use crate::http::timer::{Stall, Timer};
use crate::http::wire::{Progress, Wire, WireBody};
use crate::http::{HttpConfig, HttpEnd, HttpOutcome, date, transfer};
use crate::platform::send_file::as_socket;
use bytes::buf::Chain;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{CONNECTION, DATE, HeaderValue, REFERER, USER_AGENT};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Logged, as by other servers, where the client was gone before there was an answer. No client ever sees it.
const CLIENT_GONE: u16 = 499;

/// One request and its answer, and what both sides of hyper know of it.
struct Exchange<'a> {
    owner: &'a Owner,
    progress: Arc<Progress>,
    is_persistent: bool,
    is_server_wide: bool,
    can_send_files: bool,
    answer: Mutex<Answer>,
}

/// What was decided about the answer.
#[derive(Default)]
struct Answer {
    asked: Option<Asked>,
    status: Option<StatusCode>,
    closes: bool,
    elsewhere: Option<FileParts>,
    tunnel: Option<(TcpStream, Duration)>,
}

/// For the access log.
struct Asked {
    at: SystemTime,
    method: Method,
    uri: Uri,
    version: Version,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
}

/// How the writing of an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// All that was to be written is written.
    Whole,
    /// hyper refused the request after all, and has said so.
    Refused,
    Failed,
    SendTimeout,
    BodyTimeout,
}

pub(super) async fn exchange<S>(
    mut wire: Wire<S>,
    head: Head,
    owner: &Owner,
    outcome: &mut HttpOutcome,
) -> (Wire<S>, Next)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let started = Instant::now();
    let exchange = Exchange {
        owner,
        progress: wire.begin(&head),
        is_persistent: head.is_persistent,
        is_server_wide: head.is_server_wide,
        can_send_files: as_socket(&wire.stream).is_some(),
        answer: Mutex::default(),
    };
    // Only a request with a body can still turn out to be too late.
    let has_body = head.framing != Framing::Length(0);
    let asked = has_body.then(|| wire.head());
    // 1. A handler answers, and the answer is written.
    let (mut wire, mut written) = exchange.converse(wire, has_body).await;
    wire.end();
    // 2. A large file goes past hyper.
    let (elsewhere, closes) = exchange.take_rest();
    let mut sent = 0;
    if let (Written::Whole, Some(parts), Some(socket)) = (written, elsewhere, as_socket(&wire.stream)) {
        let limit = owner.face.config.send_timeout;
        written = match transfer::send(socket, parts, limit, &mut sent).await {
            Ok(()) => Written::Whole,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Written::SendTimeout,
            Err(_) => Written::Failed,
        };
    }
    // 3. So does everything behind a CONNECT.
    let tunnel_to = exchange.lock().tunnel.take();
    if let (Written::Whole, Some((upstream, idle))) = (written, tunnel_to) {
        let early = std::mem::take(&mut wire.pending);
        let tunnelled = tunnel(&mut wire.stream, upstream, &early, idle, &owner.stop).await;
        sent += tunnelled.down;
        match tunnelled.end {
            TunnelEnd::Broken => written = Written::Failed,
            TunnelEnd::Stopped => {
                tracing::info!(peer = %owner.peer, "a silent tunnel was closed: the node stops");
            }
            TunnelEnd::Done | TunnelEnd::Idle => {}
        }
    }
    // 4. The books.
    let progress = &exchange.progress;
    let body_bytes = progress.answer_bytes.load(Relaxed) + sent;
    outcome.sent += progress.written.load(Relaxed) + sent;
    if written != Written::BodyTimeout {
        outcome.requests += 1;
        exchange.log(body_bytes, started, written == Written::Whole);
    }
    // 5. What comes next.
    let next = match written {
        Written::Whole if !closes => Next::Request,
        Written::Whole => {
            let has_more = progress.body_left.load(Relaxed) > 0 || !wire.pending.is_empty();
            Next::Close { end: HttpEnd::Closed, lingers: has_more }
        }
        Written::Refused => Next::Close { end: HttpEnd::BadRequest, lingers: true },
        Written::Failed => Next::Close { end: HttpEnd::Broken, lingers: false },
        Written::SendTimeout => Next::Close { end: HttpEnd::SendTimeout, lingers: false },
        Written::BodyTimeout => {
            // What is refused is this request, not what has come of its body.
            wire.pending = BytesMut::from(asked.unwrap_or_default());
            Next::Refuse(TIMED_OUT)
        }
    };
    (wire, next)
}

impl Exchange<'_> {
    /// Answers the request. A short answer that is there at once is written here: for it, hyper would be set up only to read
    /// the head once more, to write another, and to be taken apart. hyper writes all others, and reads what has a body.
    async fn converse<S>(&self, mut wire: Wire<S>, has_body: bool) -> (Wire<S>, Written)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let request = if has_body { None } else { request(&wire.head()) };
        let request = request.filter(|request| request.method() != Method::CONNECT);
        let is_head = request.as_ref().is_some_and(|request| request.method() == Method::HEAD);
        let mut begun = request.map(|request| self.respond(request));
        let first =
            poll_fn(|cx| Poll::Ready(begun.as_mut().map_or(Poll::Pending, |begun| begun.poll_unpin(cx))));
        match first.await {
            Poll::Ready(answer) => match answer.body().in_memory() {
                Some(body) => {
                    let answer = short_answer::bytes(&answer.into_parts().0, body, is_head);
                    let written = self.write(&mut wire, answer).await;
                    (wire, written)
                }
                None => Box::pin(self.drive(wire, Some(ready(answer).boxed()))).await,
            },
            Poll::Pending => Box::pin(self.drive(wire, begun.map(FutureExt::boxed))).await,
        }
    }

    /// Writes a short answer.
    async fn write<S>(&self, wire: &mut Wire<S>, mut answer: Chain<Bytes, Bytes>) -> Written
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let length = answer.last_ref().len();
        let mut watch = Watch::new();
        let written = poll_fn(|cx| match wire.poll_send(cx, &mut answer) {
            Poll::Ready(Ok(())) => Poll::Ready(Written::Whole),
            Poll::Ready(Err(_)) => Poll::Ready(Written::Failed),
            Poll::Pending => watch.poll(&self.progress, true, &self.owner.face.config, cx),
        })
        .await;
        self.progress.answer_bytes.store((length - answer.last_ref().len()) as u64, Relaxed);
        written
    }

    /// Lets hyper work until everything it has to write is written, and takes the connection back from it. The answer is
    /// the one that was begun, or else one to what hyper reads.
    async fn drive<S>(
        &self,
        wire: Wire<S>,
        begun: Option<BoxFuture<'_, Response<WireBody>>>,
    ) -> (Wire<S>, Written)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let begun = Mutex::new(begun);
        let service = service_fn(|request: Request<Incoming>| {
            let begun = begun.lock().unwrap_or_else(PoisonError::into_inner).take();
            async {
                Ok::<_, Infallible>(match begun {
                    Some(begun) => begun.await,
                    None => {
                        self.respond(request.map(|body| body.map_err(BoxError::from).boxed_unsync())).await
                    }
                })
            }
        });
        let mut hyper = http1::Builder::new()
            .half_close(true)
            .title_case_headers(true)
            .header_read_timeout(None)
            .serve_connection(wire, service);
        let mut watch = Watch::new();
        let written = poll_fn(|cx| {
            match Pin::new(&mut hyper).poll(cx) {
                Poll::Ready(Err(error)) if error.is_parse() => return Poll::Ready(Written::Refused),
                Poll::Ready(Err(_)) => return Poll::Ready(Written::Failed),
                _ if self.is_written() => return Poll::Ready(Written::Whole),
                Poll::Ready(Ok(())) => return Poll::Ready(Written::Failed),
                Poll::Pending => {}
            }
            let has_answer = self.lock().status.is_some();
            watch.poll(&self.progress, has_answer, &self.owner.face.config, cx)
        })
        .await;
        (hyper.into_parts().io, written)
    }

    fn is_written(&self) -> bool {
        self.progress.is_answered() || self.progress.is_flushed() && self.lock().elsewhere.is_some()
    }

    fn respond(
        &self,
        mut request: Request<Stream>,
    ) -> impl Future<Output = Response<WireBody>> + Send + Unpin + '_ {
        if self.owner.face.log.is_on() {
            self.lock().asked = Some(Asked::of(&request));
        }
        if self.is_server_wide {
            request.extensions_mut().insert(ServerWide);
        }
        let version = request.version();
        let is_absolute = request.uri().authority().is_some();
        let answer = match request.method() {
            &Method::CONNECT => self.connect(request).boxed(),
            _ => self.owner.face.answer(request, self.owner.peer),
        };
        answer.map(move |answer| self.decide(answer, version, is_absolute))
    }

    /// A tunnel, or an answer like any other.
    async fn connect(&self, request: Request<Stream>) -> Response<Body> {
        let (head, body) = request.into_parts();
        match self.owner.face.connect(&head).await {
            Some(Ok(tunnel)) => {
                self.lock().tunnel = Some(tunnel);
                Response::default()
            }
            Some(Err(refused)) => refused,
            None => self.owner.face.answer(Request::from_parts(head, body), self.owner.peer).await,
        }
    }

    /// Decides how an answer goes out and how the connection goes on.
    fn decide(&self, answer: Response<Body>, version: Version, is_absolute: bool) -> Response<WireBody> {
        let (mut parts, body) = answer.into_parts();
        let (body, elsewhere) = WireBody::new(body, self.can_send_files, self.progress.clone());
        let is_tunnel = self.lock().tunnel.is_some();
        // What is left of the request's body would have to be read away first; a new connection is cheaper. To HTTP/1.0
        // only the connection's end can tell that of a body whose length is not known, and a proxy, as which an absolute target is
        // sent, must not keep such a connection (RFC 9112, 9.3).
        let closes = self.progress.body_left.load(Relaxed) > 0
            || version == Version::HTTP_10 && (is_absolute || body.size_hint().exact().is_none())
            || self.owner.stop.is_stopped()
            || is_tunnel
            || !self.is_persistent;
        if closes && !is_tunnel {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        } else if version == Version::HTTP_10 && !is_tunnel {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        }
        parts.version = version;
        // hyper writes the date that it wrote last until the clock has passed that; a clock that was set back would leave it wrong.
        if !parts.headers.contains_key(DATE)
            && let Some(now) = date::field(SystemTime::now())
        {
            parts.headers.insert(DATE, now);
        }
        let mut answer = self.lock();
        answer.status = Some(parts.status);
        answer.closes = closes;
        answer.elsewhere = elsewhere;
        Response::from_parts(parts, body)
    }

    fn take_rest(&self) -> (Option<FileParts>, bool) {
        let mut answer = self.lock();
        (answer.elsewhere.take(), answer.closes)
    }

    fn lock(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, body_bytes: u64, started: Instant, complete: bool) {
        let answer = self.lock();
        let Some(asked) = &answer.asked else {
            return;
        };
        let target = asked.uri.to_string();
        self.owner.face.log.http(&HttpAccess {
            peer: self.owner.peer.ip(),
            at: asked.at,
            method: asked.method.as_str(),
            target: &target,
            version: if asked.version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" },
            status: answer.status.map_or(CLIENT_GONE, |status| status.as_u16()),
            body_bytes,
            referer: asked.referer.as_ref().map(HeaderValue::as_bytes),
            user_agent: asked.user_agent.as_ref().map(HeaderValue::as_bytes),
            duration: started.elapsed(),
            complete,
        });
    }
}

impl Asked {
    fn of(request: &Request<Stream>) -> Self {
        Self {
            at: SystemTime::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            referer: request.headers().get(REFERER).cloned(),
            user_agent: request.headers().get(USER_AGENT).cloned(),
        }
    }
}

/// Ends an exchange that does not move.
struct Watch {
    timer: Timer,
    /// How long the client was waited for before now, and since when it is waited for again.
    waited: Duration,
    waiting: Option<Instant>,
    /// The stream takes nothing, and how much it had taken before.
    blocked: Option<(Stall, u64)>,
}

impl Watch {
    fn new() -> Self {
        Self { timer: Timer::default(), waited: Duration::ZERO, waiting: None, blocked: None }
    }

    fn poll(
        &mut self,
        progress: &Progress,
        has_answer: bool,
        config: &HttpConfig,
        cx: &mut Context<'_>,
    ) -> Poll<Written> {
        if progress.is_write_blocked.load(Relaxed) {
            let written = progress.written.load(Relaxed);
            let unsent = || progress.unsent();
            let stall = match &mut self.blocked {
                Some((stall, before)) if *before == written => stall,
                _ => &mut self.blocked.insert((Stall::begin(unsent()), written)).0,
            };
            ready!(stall.poll_over(&mut self.timer, config.send_timeout, unsent, cx));
            return Poll::Ready(Written::SendTimeout);
        }
        self.blocked = None;
        if has_answer || !progress.is_reading.load(Relaxed) {
            // Now it is the client that waits; that is not held against it.
            self.waited += self.waiting.take().map_or(Duration::ZERO, |since| since.elapsed());
            return Poll::Pending;
        }
        let earned = Duration::from_secs(progress.body_read.load(Relaxed) / config.body_rate.max(1));
        let allowed = (config.body_timeout + earned).saturating_sub(self.waited);
        let since = *self.waiting.get_or_insert_with(Instant::now);
        ready!(self.timer.poll_over(since + allowed, cx));
        Poll::Ready(Written::BodyTimeout)
    }
}
