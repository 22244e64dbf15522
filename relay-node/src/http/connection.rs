//! One connection, request after request: wait, check, exchange, again.

use super::body::{Body, FileParts};
use super::connect::{TunnelEnd, tunnel};
use super::error_page::{self, Form};
use super::head::{Head, HeadScanner, Refusal};
use super::timer::{Stall, Timer};
use super::wire::{Progress, Wire, WireBody};
use super::{HttpConfig, HttpEnd, HttpFace, HttpOutcome, date, transfer};
use crate::access_log::HttpAccess;
use crate::platform::send_file::as_socket;
use crate::stop::Stop;
use http::header::{ACCEPT, CONNECTION, DATE, HeaderMap, HeaderValue, REFERER, USER_AGENT};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// How long a client may take to read the last answer before the connection is cut.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes of a client's that are read away behind the last answer, so that they do not reset the connection under it.
const MAX_LINGER: usize = 256 * 1024;
/// Of a request line that was refused, as much is logged.
const MAX_LOGGED_LINE: usize = 1024;

pub(super) const TIMED_OUT: Refusal =
    Refusal { status: StatusCode::REQUEST_TIMEOUT, detail: "The request did not arrive in time." };
/// For a node that has as many connections as it takes.
pub(super) const BUSY: Refusal = Refusal {
    status: StatusCode::SERVICE_UNAVAILABLE,
    detail: "This node has as many connections as it takes. Try again in a moment.",
};
const CUT_OFF: Refusal = Refusal { status: StatusCode::BAD_REQUEST, detail: "it is cut off" };

/// Whom a connection belongs to.
struct Owner {
    face: Arc<HttpFace>,
    peer: SocketAddr,
    stop: Stop,
}

/// What a wait for a request ends with.
enum Arrival {
    Request(Head),
    Refused(Refusal),
    End(HttpEnd),
}

/// What follows an exchange.
enum Next {
    Request,
    /// Close; with a lingering one when there may be bytes that nobody has read.
    Close {
        end: HttpEnd,
        lingers: bool,
    },
    Refuse(Refusal),
}

pub(super) async fn run<S>(stream: S, peer: SocketAddr, face: Arc<HttpFace>, stop: Stop) -> HttpOutcome
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if let Some(socket) = as_socket(&stream) {
        // The head and the first piece of a file are two writes; they shall not wait for each other's acknowledgement.
        let _ = socket.set_nodelay(true);
    }
    let mut wire = Wire::new(stream);
    let owner = Owner { face, peer, stop };
    let mut stopped = pin!(owner.stop.stopped());
    let mut timer = Timer::default();
    let mut outcome = HttpOutcome { requests: 0, sent: 0, end: HttpEnd::ClientClosed };
    loop {
        let is_first = outcome.requests == 0;
        let config = &owner.face.config;
        let next = match arrival(&mut wire, &mut timer, config, is_first, stopped.as_mut()).await {
            Arrival::Request(head) => {
                // Boxed, so that an idle connection does not keep the room for an exchange.
                let (returned, next) = Box::pin(exchange(wire, head, &owner, &mut outcome)).await;
                wire = returned;
                next
            }
            Arrival::Refused(refusal) => Next::Refuse(refusal),
            Arrival::End(end) => Next::Close { end, lingers: false },
        };
        match next {
            Next::Request => {}
            Next::Close { end, lingers } => {
                outcome.end = end;
                match end {
                    HttpEnd::ClientClosed => {}
                    HttpEnd::SendTimeout | HttpEnd::Broken => abort(&wire),
                    _ => Box::pin(close(wire, lingers)).await,
                }
                return outcome;
            }
            Next::Refuse(refusal) => {
                outcome.end = refusal.end();
                Box::pin(refuse(wire, refusal, &owner, &mut outcome)).await;
                return outcome;
            }
        }
    }
}

/// Waits for a whole head. Without a byte of it nothing is held, and the node's end is heard.
async fn arrival<S>(
    wire: &mut Wire<S>,
    timer: &mut Timer,
    config: &HttpConfig,
    is_first: bool,
    mut stopped: Pin<&mut impl Future<Output = ()>>,
) -> Arrival
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut scanner = HeadScanner::default();
    let start = Instant::now();
    let mut begun = (is_first || !wire.pending.is_empty()).then_some(start);
    poll_fn(|cx| {
        loop {
            match scanner.scan(&wire.pending, config) {
                Ok(None) => {}
                Ok(Some(head)) => return Poll::Ready(Arrival::Request(head)),
                Err(refusal) => return Poll::Ready(Arrival::Refused(refusal)),
            }
            let has_bytes = scanner.has_begun(&wire.pending);
            match wire.poll_fill(cx) {
                Poll::Ready(Ok(0)) if has_bytes => return Poll::Ready(Arrival::Refused(CUT_OFF)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Arrival::End(HttpEnd::ClientClosed)),
                Poll::Ready(Ok(_)) => {
                    begun.get_or_insert_with(Instant::now);
                    continue;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Arrival::End(HttpEnd::Broken)),
                Poll::Pending => {}
            }
            if !has_bytes && stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Arrival::End(HttpEnd::Stopped));
            }
            return match begun {
                Some(begun) => {
                    timer.poll_over(begun + config.header_timeout, cx).map(|()| Arrival::Refused(TIMED_OUT))
                }
                // Who has had an answer and asks nothing more is not told about it.
                None => timer
                    .poll_over(start + config.keep_alive_timeout, cx)
                    .map(|()| Arrival::End(HttpEnd::Idle)),
            };
        }
    })
    .await
}

/// One request and its answer, and what both sides of hyper know of it.
struct Exchange<'a> {
    owner: &'a Owner,
    progress: Arc<Progress>,
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

/// How hyper's part of an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// All that hyper had to write is written.
    Whole,
    /// hyper refused the request after all, and has said so.
    Refused,
    Failed,
    SendTimeout,
    BodyTimeout,
}

async fn exchange<S>(
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
        progress: wire.begin(head.start, head.end, head.framing),
        can_send_files: as_socket(&wire.stream).is_some(),
        answer: Mutex::default(),
    };
    // 1. hyper reads the request, a handler answers, hyper writes.
    let (mut wire, mut written) = exchange.drive(wire).await;
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
        Written::Whole if !closes && head.is_persistent => Next::Request,
        Written::Whole => {
            let has_more = progress.body_left.load(Relaxed) > 0 || !wire.pending.is_empty();
            Next::Close { end: HttpEnd::Closed, lingers: has_more }
        }
        Written::Refused => Next::Close { end: HttpEnd::BadRequest, lingers: true },
        Written::Failed => Next::Close { end: HttpEnd::Broken, lingers: false },
        Written::SendTimeout => Next::Close { end: HttpEnd::SendTimeout, lingers: false },
        Written::BodyTimeout => Next::Refuse(TIMED_OUT),
    };
    (wire, next)
}

impl Exchange<'_> {
    /// Lets hyper work until everything it has to write is written, and takes the connection back from it.
    async fn drive<S>(&self, wire: Wire<S>) -> (Wire<S>, Written)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request| self.respond(request));
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
        self.progress.is_answered() || self.progress.is_head_written() && self.lock().elsewhere.is_some()
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Response<WireBody>, Infallible> {
        if self.owner.face.log.is_on() {
            self.lock().asked = Some(Asked::of(&request));
        }
        let (mut parts, body) = self.answer(request).await.into_parts();
        // What is left of the request's body would have to be read away first; a new connection is cheaper.
        let is_tunnel = self.lock().tunnel.is_some();
        let closes = self.progress.body_left.load(Relaxed) > 0 || self.owner.stop.is_stopped() || is_tunnel;
        if closes && !is_tunnel {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // hyper writes the date that it wrote last until the clock has passed that; a clock that was set back would leave it wrong.
        if let (None, Ok(now)) =
            (parts.headers.get(DATE), HeaderValue::try_from(date::imf_fixdate(SystemTime::now())))
        {
            parts.headers.insert(DATE, now);
        }
        let (body, elsewhere) = WireBody::new(body, self.can_send_files, self.progress.clone());
        let mut answer = self.lock();
        answer.status = Some(parts.status);
        answer.closes = closes;
        answer.elsewhere = elsewhere;
        Ok(Response::from_parts(parts, body))
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Response<Body> {
        if request.method() == Method::CONNECT {
            let (head, body) = request.into_parts();
            match Box::pin(self.owner.face.connect(&head)).await {
                Some(Ok(tunnel)) => {
                    self.lock().tunnel = Some(tunnel);
                    return Response::default();
                }
                Some(Err(refused)) => return refused,
                None => request = Request::from_parts(head, body),
            }
        }
        self.owner.face.answer(request, self.owner.peer).await
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
            status: answer.status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).as_u16(),
            body_bytes,
            referer: asked.referer.as_ref().map(HeaderValue::as_bytes),
            user_agent: asked.user_agent.as_ref().map(HeaderValue::as_bytes),
            duration: started.elapsed(),
            complete,
        });
    }
}

impl Asked {
    fn of(request: &Request<Incoming>) -> Self {
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

impl Refusal {
    fn end(self) -> HttpEnd {
        if self.status == StatusCode::REQUEST_TIMEOUT { HttpEnd::RequestTimeout } else { HttpEnd::BadRequest }
    }

    fn sentence(self) -> String {
        match self.status {
            StatusCode::BAD_REQUEST => format!("The request is malformed: {}.", self.detail),
            _ => self.detail.to_owned(),
        }
    }
}

/// Answers a connection that is not to be served, whatever it asks, and closes it.
pub(super) async fn turn_away<S>(
    stream: S,
    refusal: Refusal,
    peer: SocketAddr,
    face: Arc<HttpFace>,
    stop: Stop,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut outcome = HttpOutcome { requests: 0, sent: 0, end: refusal.end() };
    refuse(Wire::new(stream), refusal, &Owner { face, peer, stop }, &mut outcome).await;
}

/// Answers what is not given to hyper, and closes.
async fn refuse<S>(mut wire: Wire<S>, refusal: Refusal, owner: &Owner, outcome: &mut HttpOutcome)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (line, form) = glimpse(&wire.pending);
    let page = error_page::text(refusal.status, &refusal.sentence(), form);
    let body = if line.starts_with("HEAD ") { "" } else { &page };
    let answer = format!(
        "HTTP/1.1 {} {}\r\nDate: {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        refusal.status.as_u16(),
        refusal.status.canonical_reason().unwrap_or_default(),
        date::imf_fixdate(SystemTime::now()),
        form.content_type().to_str().unwrap_or_default(),
        page.len(),
    );
    let wrote = timeout(LINGER, wire.stream.write_all(answer.as_bytes())).await;
    let complete = matches!(wrote, Ok(Ok(())));
    outcome.requests += 1;
    outcome.sent += if complete { answer.len() as u64 } else { 0 };
    let mut words = line.splitn(3, ' ');
    owner.face.log.http(&HttpAccess {
        peer: owner.peer.ip(),
        at: SystemTime::now(),
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        version: words.next().unwrap_or_default(),
        status: refusal.status.as_u16(),
        body_bytes: body.len() as u64,
        referer: None,
        user_agent: None,
        duration: Duration::ZERO,
        complete,
    });
    close(wire, true).await;
}

/// What can be told of a head that is not whole or not well formed: its first line, and the form its answer should have.
fn glimpse(head: &[u8]) -> (String, Form) {
    let mut lines = head.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let line = lines.next().unwrap_or_default();
    let line = line.get(..MAX_LOGGED_LINE).unwrap_or(line);
    let mut headers = HeaderMap::new();
    for field in lines {
        if let Some((name, value)) = field.split_at_checked(ACCEPT.as_str().len() + 1)
            && name.eq_ignore_ascii_case(b"accept:")
            && let Ok(value) = HeaderValue::from_bytes(value.trim_ascii())
        {
            headers.append(ACCEPT, value);
        }
    }
    (String::from_utf8_lossy(line).into_owned(), Form::accepted(&headers))
}

/// Ends the sending side, and reads away what the client still sends, for a while: closing over unread bytes would reset
/// the connection, and the client might lose the answer (RFC 9112, 9.6).
async fn close<S>(mut wire: Wire<S>, lingers: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let reading = async {
        wire.stream.shutdown().await?;
        let mut left = if lingers { MAX_LINGER } else { 0 };
        while left > 0 {
            wire.pending.clear();
            match poll_fn(|cx| wire.poll_fill(cx)).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        Ok::<_, io::Error>(())
    };
    // Whatever happens, the connection ends here.
    let _ = timeout(LINGER, reading).await;
}

/// An answer that is not whole ends in a reset, so that no client takes it for whole, and the system drops what it still
/// holds for a client that reads nothing.
fn abort<S: 'static>(wire: &Wire<S>) {
    if let Some(socket) = as_socket(&wire.stream) {
        let _ = socket.set_zero_linger();
    }
}
