//! The gateway: GET `/name` is the file `name` at the end of a route, so that a browser downloads through a chain.
//!
//! A request goes to the origin over a pipe ([`sessions`]), and each chunk is passed on once it is verified ([`download`]). Ranges are
//! widened to whole chunks on the wire and trimmed for the client. Where the walk ends or the origin gives up, a 502 or 504
//! names the hop. The cache stands in front of it as it does for the proxy; every use of a stored file is confirmed with the
//! origin first, which costs one pass through the chain and no bytes of the file.

mod download;
mod sessions;

use super::body::{Body, Stream, all_at_once, nothing};
use super::byteranges::content_range;
use super::cache::{Asked, Cache, Fetch, FetchError, Key};
use super::conditional::{self, Tag, Validators, Verdict};
use super::date;
use super::error_page::{self, Form};
use super::proxy_fields::{Loop, noticed_loop};
use super::range::{self, Wanted};
use super::static_files::content_type;
use super::streams::OfLength;
use super::target::{self, BadTarget};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use relay_chain::requests::{AnswerError, Body as ChunkBody};
use relay_link::congestion::Congestion;
use relay_proto::address::Hop;
use relay_proto::chunk::{AskedRange, CHUNK_LEN};
use relay_proto::code::Status;
use relay_proto::file::{Conditions, EntityTag, FileFacts, Get, Head, RequestedName, Stat};
use relay_proto::route::Route;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use download::pieces;
use sessions::{Asking, Sessions};

/// What a directory's address stands for.
const INDEX: &str = "index.html";

/// A gateway into one chain.
#[derive(Debug, Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

#[derive(Debug, Clone)]
struct Shared {
    sessions: Arc<Sessions>,
    cache: Option<Arc<Cache>>,
    pseudonym: String,
}

/// One file that is wanted.
#[derive(Debug, Clone)]
struct Wish {
    gateway: Gateway,
    name: RequestedName,
}

impl Gateway {
    /// A gateway that fetches through the hops of `route`, whatever file that names. `silence` is how long a hop may take
    /// without a byte. `pseudonym` is what this node's proxy calls itself.
    pub fn new(route: Route, silence: Duration, cache: Option<Arc<Cache>>, pseudonym: String) -> Self {
        let sessions = Arc::new(Sessions::new(route, silence, Congestion::SYSTEM));
        Self { shared: Arc::new(Shared { sessions, cache, pseudonym }) }
    }

    /// The same, with this congestion control for the connections to the first hop.
    #[must_use]
    pub fn with_congestion(self, congestion: Congestion) -> Self {
        let sessions = Arc::new(self.shared.sessions.with_congestion(congestion));
        Self { shared: Arc::new(Shared { sessions, ..(*self.shared).clone() }) }
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
            Some(cache) => cache.answer(Asked::new(key, parts), body, wish).await,
            None => Ok(wish.fetch(parts, body).await?.map(Body::Stream)),
        }
    }

    /// Another route may lead to another file of the same name.
    fn key(&self, name: &RequestedName) -> Key {
        let hops: Vec<String> = self.shared.sessions.route().hops().iter().map(Hop::to_string).collect();
        Key::new(format!("relay:{}/{}", hops.join(","), name.as_str()))
    }
}

impl Fetch for Wish {
    /// The origin sees none of a client's fields but its conditions.
    fn forwarded(&self, request: &Parts) -> HeaderMap {
        request.headers.clone()
    }

    async fn fetch(&self, parts: Parts, _: Stream) -> Result<Response<Stream>, FetchError> {
        let fields = &parts.headers;
        let sessions = &self.gateway.shared.sessions;
        let stat = Stat { name: self.name.clone() };
        // 1. HEAD sends no file.
        if parts.method == Method::HEAD {
            let head = self.done(sessions.ask(&stat).await?);
            let facts = self.facts(&head)?;
            return Ok(early_answer(fields, facts).unwrap_or_else(|| self.whole_head(facts)));
        }
        // 2. What the origin can decide alone takes one pass through the chain.
        if let Some(if_none_match) = plain_condition(fields) {
            let conditions = Conditions { if_none_match, ..Conditions::default() };
            let asking =
                sessions.ask(&Get { name: self.name.clone(), range: None, conditions, anew: false }).await?;
            return match asking.head.status {
                // Nothing follows these heads. That of a file that is not there has no facts either, which is the error.
                Status::NOT_MODIFIED | Status::NOT_FOUND => self.facts(&self.done(asking)).map(not_modified),
                _ => self.whole(asking),
            };
        }
        // 3. For the rest it must be known first what the file is.
        let mut asking = sessions.ask(&stat).await?;
        let facts = match self.facts(&asking.head).cloned() {
            Ok(facts) => facts,
            Err(error) => {
                self.done(asking);
                return Err(error);
            }
        };
        if let Some(answer) = early_answer(fields, &facts) {
            self.done(asking);
            return Ok(answer);
        }
        let part = wanted_part(fields, &facts)?;
        let range = part.as_ref().map(chunks_around);
        // Only of the version that the conditions were about.
        let conditions = Conditions { if_match: Some(facts.entity_tag.clone()), ..Conditions::default() };
        let get = Get { name: self.name.clone(), range, conditions, anew: false };
        asking.head = sessions.ask_more(&mut asking.answers, &get).await?;
        match part {
            Some(part) => self.part(asking, part),
            None => self.whole(asking),
        }
    }
}

impl Wish {
    /// Gives back the pipe of an answer that has no body, which leaves its head.
    fn done(&self, asking: Asking) -> Head {
        self.gateway.shared.sessions.keep(asking.answers);
        asking.head
    }

    /// What the origin says of the file, or why it has none.
    fn facts<'a>(&self, head: &'a Head) -> Result<&'a FileFacts, FetchError> {
        self.check(head)?;
        head.file
            .as_ref()
            .ok_or_else(|| self.broken(&AnswerError::Protocol("a head without the file's facts")))
    }

    fn check(&self, head: &Head) -> Result<(), FetchError> {
        let origin = self.gateway.shared.sessions.origin();
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
        put(fields, content_range(&part, facts.size.bytes()));
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
        let pieces = pieces(asking.answers, body, wanted, Arc::clone(&self.gateway.shared.sessions));
        Ok(OfLength::new(pieces, length).boxed_unsync())
    }

    fn broken(&self, error: &AnswerError) -> FetchError {
        self.gateway.shared.sessions.broken(error)
    }
}

/// 304, 412 or 416, where the conditions or the range leave nothing to send.
fn early_answer(fields: &HeaderMap, facts: &FileFacts) -> Option<Response<Stream>> {
    let last_modified = date::last_modified(facts.modified.seconds(), SystemTime::now());
    let validators = Validators { entity_tag: Some(Tag::strong(facts.entity_tag.as_str())), last_modified };
    match conditional::evaluate(fields, validators, false) {
        Verdict::NotModified => return Some(not_modified(facts)),
        Verdict::Failed => {
            return Some(refused(StatusCode::PRECONDITION_FAILED, conditional::FAILED, fields));
        }
        Verdict::Proceed | Verdict::Unreadable => {}
    }
    let size = facts.size.bytes();
    if fields.contains_key(RANGE)
        && conditional::allows_range(fields, validators)
        && range::wanted(fields, size) == Wanted::Unsatisfiable
    {
        let mut answer = refused(StatusCode::RANGE_NOT_SATISFIABLE, range::UNSATISFIABLE, fields);
        put(answer.headers_mut(), format!("bytes */{size}"));
        return Some(answer);
    }
    None
}

/// One range is cut; several are answered with the whole, as RFC 9110, 14.2, allows. (From a cache they come as asked for.)
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

fn refused(status: StatusCode, detail: &str, asked: &HeaderMap) -> Response<Stream> {
    // The file's tag and lifetime tell of the file, and this is none (RFC 9110 §15.5.17).
    let mut answer = Response::new(nothing());
    *answer.status_mut() = status;
    let page = error_page::put(answer.headers_mut(), status, detail, Form::accepted(asked));
    *answer.body_mut() = all_at_once(page);
    answer
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
    let no_name = || failure(StatusCode::NOT_FOUND, "no file can have this name");
    let target = target::parse(path).map_err(|error| match error {
        BadTarget::Malformed => {
            failure(StatusCode::BAD_REQUEST, "the path has a % without two hexadecimal digits")
        }
        BadTarget::NoName => no_name(),
    })?;
    // In the protocol a name is text.
    let name = String::from_utf8(target.name).map_err(|_| no_name())?;
    let name = match (target.wants_directory, name.as_str()) {
        (false, _) => name,
        (true, "") => INDEX.to_owned(),
        (true, directory) => format!("{directory}/{INDEX}"),
    };
    RequestedName::try_from(name).map_err(|reason| failure(StatusCode::URI_TOO_LONG, reason))
}

fn failure(status: StatusCode, reason: &str) -> FetchError {
    FetchError { status, reason: reason.to_owned(), unsent: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_chain::frames::encode;
    use relay_proto::hop::Hello;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_connection_to_the_first_hop_has_the_congestion_control_that_was_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let route = format!("any\n{}\n", listener.local_addr().unwrap());
        let hop = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut said = encode(&Hello { agent: "test".to_owned() }).unwrap();
            said.extend(encode(&Head::only(Status::NOT_FOUND, "")).unwrap());
            stream.write_all(&said).await.unwrap();
            stream
        });
        let reno = Congestion::of(Some("reno".parse().unwrap())).unwrap();
        let route = Route::parse(route.as_bytes()).unwrap();
        let gateway = Gateway::new(route, Duration::from_secs(30), None, String::new()).with_congestion(reno);
        let asked = Stat { name: name("/any").unwrap() };
        let asking = gateway.shared.sessions.ask(&asked).await.unwrap();
        let link = asking.answers.into_inner();
        let algorithm = relay_link::congestion::algorithm_of(&socket2::SockRef::from(link.socket()));
        assert_eq!(algorithm, reno.algorithm());
        drop(hop.await.unwrap());
    }
}
