//! The gateway: GET `/name` is the file `name` at the end of a route, so that a browser downloads through a chain.
//!
//! A request walks the route anew, asks the origin over the pipe, and passes each chunk on once it is verified. Ranges are
//! widened to whole chunks on the wire and trimmed for the client. Where the walk ends or the origin gives up, a 502 or 504
//! names the hop. The cache stands in front of it as it does for the proxy; every use of a stored file is confirmed with the
//! origin first, which costs one pass through the chain and no bytes of the file.

use super::body::{Body, BoxError, Stream, nothing};
use super::cache::{Asked, Cache, Fetch, FetchError, Key};
use super::conditional::{self, Tag, Validators, Verdict};
use super::date;
use super::proxy_fields::{Loop, noticed_loop};
use super::range::{self, Wanted};
use super::static_files::content_type;
use super::target::{self, BadTarget};
use bytes::Bytes;
use futures_util::stream;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, StreamBody};
use relay_chain::chain::{Walk, WalkError, random_id, walk};
use relay_chain::congestion::Congestion;
use relay_chain::frames::encode;
use relay_chain::requests::{AnswerError, Answers, Body as ChunkBody};
use relay_proto::address::Hop;
use relay_proto::chunk::{AskedRange, CHUNK_LEN};
use relay_proto::code::{FailureCode, Status};
use relay_proto::digest::ChunkHash;
use relay_proto::file::{Conditions, EntityTag, FileFacts, Get, Head, RequestedName, Stat};
use relay_proto::frame::Message;
use relay_proto::route::Route;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// What a directory's address stands for.
const INDEX: &str = "index.html";

/// A gateway into one chain.
#[derive(Debug, Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

#[derive(Debug, Clone)]
struct Shared {
    route: Route,
    silence: Duration,
    cache: Option<Arc<Cache>>,
    pseudonym: String,
    congestion: Congestion,
}

/// One file that is wanted.
#[derive(Debug, Clone)]
struct Wish {
    gateway: Gateway,
    name: RequestedName,
}

/// An open pipe with the first answer's head read.
struct Asking {
    answers: Answers<TcpStream>,
    head: Head,
}

impl Gateway {
    /// A gateway that fetches through the hops of `route`, whatever file that names. `silence` is how long a hop may take
    /// without a byte. `pseudonym` is what this node's proxy calls itself.
    pub fn new(route: Route, silence: Duration, cache: Option<Arc<Cache>>, pseudonym: String) -> Self {
        let congestion = Congestion::SYSTEM;
        Self { shared: Arc::new(Shared { route, silence, cache, pseudonym, congestion }) }
    }

    /// The same, with this congestion control for the connections to the first hop.
    #[must_use]
    pub fn with_congestion(self, congestion: Congestion) -> Self {
        Self { shared: Arc::new(Shared { congestion, ..(*self.shared).clone() }) }
    }

    /// Answers a request for one of the node's own paths.
    pub(super) async fn answer(&self, request: Request<Stream>) -> Result<Response<Body>, FetchError> {
        let (parts, body) = request.into_parts();
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return Err(failure(
                StatusCode::METHOD_NOT_ALLOWED,
                "this is a gateway to files: only GET and HEAD",
            ));
        }
        if noticed_loop(&parts.headers, &self.shared.pseudonym) != Loop::None {
            return Err(failure(
                StatusCode::LOOP_DETECTED,
                "this request has come back to the node that sent it on",
            ));
        }
        let name = name(parts.uri.path())?;
        let key = self.key(&name);
        let wish = Wish { gateway: self.clone(), name };
        match &self.shared.cache {
            Some(cache) => cache.answer(Asked { key, parts }, body, wish).await,
            None => Ok(wish.fetch(parts, body).await?.map(Body::Stream)),
        }
    }

    /// Another route may lead to another file of the same name.
    fn key(&self, name: &RequestedName) -> Key {
        let hops: Vec<String> = self.shared.route.hops().iter().map(Hop::to_string).collect();
        Key::new(format!("relay:{}/{}", hops.join(","), name.as_str()))
    }

    /// The origin, as people are told of it.
    fn origin(&self) -> String {
        let position = self.shared.route.hops().len();
        format!("hop {position} ({})", self.shared.route.hop(position))
    }
}

impl Fetch for Wish {
    async fn fetch(&self, parts: Parts, _: Stream) -> Result<Response<Stream>, FetchError> {
        let fields = &parts.headers;
        // 1. HEAD sends no file.
        if parts.method == Method::HEAD {
            let asking = self.ask(&Stat { name: self.name.clone() }).await?;
            let facts = self.facts(&asking.head)?;
            return Ok(early_answer(fields, facts).unwrap_or_else(|| self.whole_head(facts)));
        }
        // 2. What the origin can decide alone takes one pass through the chain.
        if let Some(if_none_match) = plain_condition(fields) {
            let conditions = Conditions { if_none_match, ..Conditions::default() };
            let asking = self.ask(&Get { name: self.name.clone(), range: None, conditions }).await?;
            if asking.head.status == Status::NOT_MODIFIED {
                return Ok(not_modified(self.facts(&asking.head)?));
            }
            return self.whole(asking);
        }
        // 3. For the rest it must be known first what the file is.
        let mut asking = self.ask(&Stat { name: self.name.clone() }).await?;
        let facts = self.facts(&asking.head)?.clone();
        if let Some(answer) = early_answer(fields, &facts) {
            return Ok(answer);
        }
        let part = wanted_part(fields, &facts)?;
        let range = part.as_ref().map(chunks_around);
        // Only of the version that the conditions were about.
        let conditions = Conditions { if_match: Some(facts.entity_tag.clone()), ..Conditions::default() };
        asking.head =
            self.ask_more(&mut asking.answers, &Get { name: self.name.clone(), range, conditions }).await?;
        match part {
            Some(part) => self.part(asking, part),
            None => self.whole(asking),
        }
    }
}

impl Wish {
    /// Walks the route with one request right behind the `open`.
    async fn ask<M: Message>(&self, request: &M) -> Result<Asking, FetchError> {
        let shared = &self.gateway.shared;
        let id =
            random_id().map_err(|error| failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))?;
        let first_requests = encoded(request)?;
        let way = Walk {
            route: &shared.route,
            id,
            silence: shared.silence,
            first_requests: &first_requests,
            congestion: shared.congestion,
        };
        let pipe = walk(&way, |_| {}).await.map_err(|error| walk_failure(&error))?;
        let mut answers = Answers::new(pipe.stream, shared.silence);
        let head = answers.head().await.map_err(|error| self.broken(&error))?;
        Ok(Asking { answers, head })
    }

    /// A further request on the same pipe.
    async fn ask_more<M: Message>(
        &self,
        answers: &mut Answers<TcpStream>,
        request: &M,
    ) -> Result<Head, FetchError> {
        let bytes = encoded(request)?;
        let written =
            tokio::time::timeout(self.gateway.shared.silence, answers.get_mut().write_all(&bytes)).await;
        match written {
            Ok(Ok(())) => answers.head().await.map_err(|error| self.broken(&error)),
            Ok(Err(error)) => Err(self.broken(&error.into())),
            Err(_) => Err(self.broken(&AnswerError::Silent(self.gateway.shared.silence))),
        }
    }

    /// What the origin says of the file, or why it has none.
    fn facts<'a>(&self, head: &'a Head) -> Result<&'a FileFacts, FetchError> {
        self.check(head)?;
        head.file
            .as_ref()
            .ok_or_else(|| self.broken(&AnswerError::Protocol("a head without the file's facts")))
    }

    fn check(&self, head: &Head) -> Result<(), FetchError> {
        let origin = self.gateway.origin();
        let says =
            if head.message.is_empty() { String::new() } else { format!(", and says: {}", head.message) };
        match head.status.code() {
            200 | 206 | 304 => Ok(()),
            404 => Err(failure(StatusCode::NOT_FOUND, &format!("{origin} has no file of this name"))),
            412 => Err(failure(
                StatusCode::BAD_GATEWAY,
                &format!("the file changed at {origin} just now; try again"),
            )),
            408 => {
                Err(failure(StatusCode::GATEWAY_TIMEOUT, &format!("{origin} saw no request in time{says}")))
            }
            _ => Err(failure(StatusCode::BAD_GATEWAY, &format!("{origin} answered {}{says}", head.status))),
        }
    }

    fn whole_head(&self, facts: &FileFacts) -> Response<Stream> {
        let mut answer = Response::new(nothing());
        let fields = answer.headers_mut();
        describe(fields, facts);
        fields.insert(CONTENT_TYPE, content_type(self.name.as_str()));
        fields.insert(CONTENT_LENGTH, facts.size.bytes().into());
        answer
    }

    fn whole(&self, asking: Asking) -> Result<Response<Stream>, FetchError> {
        let facts = self.facts(&asking.head)?;
        let mut answer = self.whole_head(facts);
        let all = 0..facts.size.bytes();
        *answer.body_mut() = self.body(asking, all)?;
        Ok(answer)
    }

    fn part(&self, asking: Asking, part: Range<u64>) -> Result<Response<Stream>, FetchError> {
        let facts = self.facts(&asking.head)?;
        let mut answer = self.whole_head(facts);
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let fields = answer.headers_mut();
        fields.insert(CONTENT_LENGTH, (part.end - part.start).into());
        put(fields, format!("bytes {}-{}/{}", part.start, part.end - 1, facts.size.bytes()));
        *answer.body_mut() = self.body(asking, part)?;
        Ok(answer)
    }

    fn body(&self, asking: Asking, wanted: Range<u64>) -> Result<Stream, FetchError> {
        let body = ChunkBody::of(&asking.head).map_err(|error| self.broken(&error))?;
        let sent = body.chunks.first() * CHUNK_LEN..body.file.size.bytes().min(body.chunks.end() * CHUNK_LEN);
        if wanted.start < sent.start || wanted.end > sent.end {
            return Err(self.broken(&AnswerError::Protocol("another range than was asked for")));
        }
        let length = wanted.end - wanted.start;
        // One chunk is verified while the one before is being sent; no more is held.
        let (pieces, receiver) = mpsc::channel(1);
        tokio::spawn(pass_on(asking.answers, body, wanted, self.gateway.origin(), pieces));
        let pieces = stream::unfold(receiver, |mut receiver| async move {
            let piece: Result<Bytes, BoxError> = receiver.recv().await?;
            Some((piece.map(Frame::data), receiver))
        });
        Ok(OfLength { body: StreamBody::new(pieces).boxed_unsync(), left: length }.boxed_unsync())
    }

    fn broken(&self, error: &AnswerError) -> FetchError {
        let status = match error {
            AnswerError::Silent(_) => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        };
        failure(status, &format!("the chain to {} broke: {error}", self.gateway.origin()))
    }
}

/// Reads and verifies chunk after chunk; ends when nobody wants more.
async fn pass_on(
    mut answers: Answers<TcpStream>,
    body: ChunkBody,
    wanted: Range<u64>,
    origin: String,
    pieces: mpsc::Sender<Result<Bytes, BoxError>>,
) {
    for index in body.chunks.first()..body.chunks.end() {
        let piece = verified(&mut answers, &body, index).await;
        let piece = match piece {
            Ok(chunk) => Ok(trimmed(&chunk, index * CHUNK_LEN, &wanted)),
            Err(error) => {
                tracing::warn!(origin, %error, "a download through the gateway broke off");
                Err(BoxError::from(format!("{origin}: {error}")))
            }
        };
        let is_last = piece.is_err();
        if pieces.send(piece).await.is_err() || is_last {
            return;
        }
    }
}

async fn verified(answers: &mut Answers<TcpStream>, body: &ChunkBody, index: u64) -> Result<Bytes, BoxError> {
    let mut chunk = vec![0; body.chunk_len(index)];
    let promised = answers.chunk(&mut chunk, |_| {}).await?;
    let size = body.file.size.bytes();
    let job = tokio::task::spawn_blocking(move || {
        let is_good = ChunkHash::of(&chunk, index, size) == promised;
        (chunk, is_good)
    });
    match job.await? {
        (chunk, true) => Ok(chunk.into()),
        (_, false) => Err(format!("chunk {index} arrived damaged").into()),
    }
}

/// The part of a chunk, which begins at `start`, that was wanted.
fn trimmed(chunk: &Bytes, start: u64, wanted: &Range<u64>) -> Bytes {
    let place = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX).min(chunk.len());
    let (from, to) = (place(wanted.start), place(wanted.end));
    if from < to { chunk.slice(from..to) } else { Bytes::new() }
}

/// A body that says how long it is.
struct OfLength {
    body: Stream,
    left: u64,
}

impl HttpBody for OfLength {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let came = frame.data_ref().map_or(0, |piece| piece.len() as u64);
                self.left = self.left.saturating_sub(came);
            }
            Poll::Ready(None) => {
                return Poll::Ready(Some(Err(BoxError::from("the download broke off"))));
            }
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// 304, 412 or 416, where the conditions or the range leave nothing to send.
fn early_answer(fields: &HeaderMap, facts: &FileFacts) -> Option<Response<Stream>> {
    let last_modified = date::last_modified(facts.modified.seconds(), SystemTime::now());
    let validators = Validators { entity_tag: Some(Tag::strong(facts.entity_tag.as_str())), last_modified };
    match conditional::evaluate(fields, validators, false) {
        Verdict::NotModified => return Some(not_modified(facts)),
        Verdict::Failed => return Some(empty(StatusCode::PRECONDITION_FAILED, facts)),
        Verdict::Proceed | Verdict::Unreadable => {}
    }
    let size = facts.size.bytes();
    if fields.contains_key(RANGE)
        && conditional::allows_range(fields, validators)
        && range::wanted(fields, size) == Wanted::Unsatisfiable
    {
        let mut answer = empty(StatusCode::RANGE_NOT_SATISFIABLE, facts);
        put(answer.headers_mut(), format!("bytes */{size}"));
        return Some(answer);
    }
    None
}

/// One range is cut; several are answered with the whole, as RFC 9110, 14.2, allows.
fn wanted_part(fields: &HeaderMap, facts: &FileFacts) -> Result<Option<Range<u64>>, FetchError> {
    let last_modified = date::last_modified(facts.modified.seconds(), SystemTime::now());
    let validators = Validators { entity_tag: Some(Tag::strong(facts.entity_tag.as_str())), last_modified };
    if !conditional::allows_range(fields, validators) {
        return Ok(None);
    }
    match range::wanted(fields, facts.size.bytes()) {
        Wanted::Parts(parts) => match parts.as_slice() {
            [part] => Ok(Some(part.clone())),
            _ => Ok(None),
        },
        Wanted::Whole | Wanted::Unsatisfiable => Ok(None),
    }
}

fn chunks_around(part: &Range<u64>) -> AskedRange {
    AskedRange { first: part.start / CHUNK_LEN, end: Some(part.end.div_ceil(CHUNK_LEN)) }
}

/// `Some` if the file layer's own condition says all: nothing, or one strong tag that the client has already.
fn plain_condition(fields: &HeaderMap) -> Option<Option<EntityTag>> {
    if [RANGE, IF_MATCH, IF_UNMODIFIED_SINCE].iter().any(|name| fields.contains_key(name)) {
        return None;
    }
    let mut tags = fields.get_all(IF_NONE_MATCH).into_iter();
    match (tags.next(), tags.next()) {
        (None, _) if fields.contains_key(IF_MODIFIED_SINCE) => None,
        (None, _) => Some(None),
        (Some(tag), None) => {
            let tag = tag.to_str().ok()?.strip_prefix('"')?.strip_suffix('"')?;
            EntityTag::try_from(tag.to_owned()).ok().map(Some)
        }
        (Some(_), Some(_)) => None,
    }
}

fn not_modified(facts: &FileFacts) -> Response<Stream> {
    empty(StatusCode::NOT_MODIFIED, facts)
}

fn empty(status: StatusCode, facts: &FileFacts) -> Response<Stream> {
    let mut answer = Response::new(nothing());
    *answer.status_mut() = status;
    describe(answer.headers_mut(), facts);
    if status != StatusCode::NOT_MODIFIED {
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    answer
}

/// What a client may remember of the file. Whether it is still the same is for the origin to say, each time.
fn describe(fields: &mut HeaderMap, facts: &FileFacts) {
    if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", facts.entity_tag.as_str())) {
        fields.insert(ETAG, tag);
    }
    if let Some(time) = date::last_modified(facts.modified.seconds(), SystemTime::now())
        && let Ok(time) = HeaderValue::try_from(time.text())
    {
        fields.insert(LAST_MODIFIED, time);
    }
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}

fn put(fields: &mut HeaderMap, range: String) {
    if let Ok(range) = HeaderValue::try_from(range) {
        fields.insert(CONTENT_RANGE, range);
    }
}

fn name(path: &str) -> Result<RequestedName, FetchError> {
    let target = target::parse(path).map_err(|error| match error {
        BadTarget::Malformed => {
            failure(StatusCode::BAD_REQUEST, "the path has a % without two hexadecimal digits")
        }
        BadTarget::NoName => failure(StatusCode::NOT_FOUND, "no file can have this name"),
    })?;
    let name = match (target.wants_directory, target.name.as_str()) {
        (false, name) => name.to_owned(),
        (true, "") => INDEX.to_owned(),
        (true, directory) => format!("{directory}/{INDEX}"),
    };
    RequestedName::try_from(name).map_err(|reason| failure(StatusCode::URI_TOO_LONG, reason))
}

fn encoded<M: Message>(request: &M) -> Result<Vec<u8>, FetchError> {
    encode(request).map_err(|error| failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))
}

fn walk_failure(error: &WalkError) -> FetchError {
    let status = match error.code {
        FailureCode::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    failure(status, &format!("the chain ends before its origin: {error}"))
}

fn failure(status: StatusCode, reason: &str) -> FetchError {
    FetchError { status, reason: reason.to_owned() }
}
