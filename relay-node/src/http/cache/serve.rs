//! Answers a request from a stored or growing response: conditions, ranges, `Age` and `Cache-Status`.

use super::entry::{Entry, Head};
use super::growing::{Follower, Growing};
use super::status::Told;
use super::{BoxError, Stream};
use crate::http::body::{Body, FileParts, Part};
use crate::http::byteranges::{Multipart, content_range};
use crate::http::conditional::{self, Tag, Validators, Verdict};
use crate::http::date;
use crate::http::error_page::{self, Form};
use crate::http::range::{self, Wanted};
use bytes::Bytes;
use futures_util::stream;
use http::header::{
    ACCEPT_RANGES, AGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, HeaderName,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, RANGE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

/// Answers from a stored response.
pub fn stored(asked: &Parts, entry: &Entry, now: SystemTime, told: Told) -> Response<Body> {
    let head = entry.head();
    let plan = plan(asked, head, Some(head.length));
    let mut answer = begin(head, &plan, Some(head.length), now, told);
    match &plan {
        _ if asked.method == Method::HEAD => {}
        Plan::Whole => *answer.body_mut() = stored_body(entry, 0..head.length),
        Plan::Part(range) => *answer.body_mut() = stored_body(entry, range.clone()),
        Plan::Parts(ranges) => put_parts(&mut answer, entry, ranges),
        Plan::NotModified => {}
        Plan::NotSatisfiable => put_refusal(&mut answer, asked),
    }
    answer
}

/// Answers from a growing response under this head, its own or a confirmed one; `None` if its beginning is gone already.
pub fn growing(
    asked: &Parts,
    growing: &Arc<Growing>,
    head: &Head,
    follower: Option<Follower>,
    now: SystemTime,
    told: Told,
) -> Option<Response<Body>> {
    let length = growing.length();
    let plan = match plan(asked, head, length) {
        // A follower reads onward only.
        Plan::Parts(_) => Plan::Whole,
        plan => plan,
    };
    let mut answer = begin(head, &plan, length, now, told);
    let follower = match &plan {
        Plan::Whole | Plan::Parts(_) => follower.or_else(|| growing.follow(None))?,
        Plan::Part(range) => growing.follow(Some(range.clone()))?,
        Plan::NotModified => return Some(answer),
        Plan::NotSatisfiable => {
            put_refusal(&mut answer, asked);
            return Some(answer);
        }
    };
    if asked.method != Method::HEAD {
        *answer.body_mut() = Body::Stream(following(follower));
    }
    Some(answer)
}

/// Passes on an answer that the cache has no part in.
pub fn passed(mut answer: Response<Stream>, told: Told) -> Response<Body> {
    told.add_to(answer.headers_mut());
    answer.map(Body::Stream)
}

/// What is sent of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Plan {
    Whole,
    Part(Range<u64>),
    /// At least two.
    Parts(Vec<Range<u64>>),
    NotModified,
    NotSatisfiable,
}

impl Plan {
    fn status(&self, stored: StatusCode) -> StatusCode {
        match self {
            Self::Whole => stored,
            Self::Part(_) | Self::Parts(_) => StatusCode::PARTIAL_CONTENT,
            Self::NotModified => StatusCode::NOT_MODIFIED,
            Self::NotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        }
    }
}

/// RFC 9110 §13.2.2, steps 3 to 5; steps 1 and 2 never come here. Conditions and ranges are about a 200 only.
fn plan(asked: &Parts, head: &Head, length: Option<u64>) -> Plan {
    if head.status != StatusCode::OK || !asks_for_less(&asked.headers) {
        return Plan::Whole;
    }
    let validators = validators(&head.fields);
    if conditional::evaluate(&asked.headers, validators, false) == Verdict::NotModified {
        return Plan::NotModified;
    }
    if asked.method != Method::GET || !conditional::allows_range(&asked.headers, validators) {
        return Plan::Whole;
    }
    // Where the length is not known yet no part of it can be named.
    length.map_or(Plan::Whole, |length| cut(&asked.headers, length))
}

/// Most requests do not, and for them no date needs to be read.
fn asks_for_less(asked: &HeaderMap) -> bool {
    [RANGE, IF_NONE_MATCH, IF_MODIFIED_SINCE].iter().any(|name| asked.contains_key(name))
}

fn validators(stored: &HeaderMap) -> Validators<'_> {
    let text = |name: &HeaderName| stored.get(name).and_then(|value| value.to_str().ok());
    Validators {
        entity_tag: stored.get(ETAG).and_then(|tag| Tag::parse(tag.as_bytes())),
        last_modified: text(&LAST_MODIFIED)
            .and_then(|modified| date::last_modified_at(modified, text(&DATE))),
    }
}

fn cut(asked: &HeaderMap, length: u64) -> Plan {
    match range::wanted(asked, length) {
        Wanted::Whole => Plan::Whole,
        Wanted::Parts(parts) => match parts.as_slice() {
            [part] => Plan::Part(part.clone()),
            _ => Plan::Parts(parts),
        },
        Wanted::Unsatisfiable => Plan::NotSatisfiable,
    }
}

fn begin(head: &Head, plan: &Plan, length: Option<u64>, now: SystemTime, told: Told) -> Response<Body> {
    let mut answer = Response::new(Body::Empty);
    *answer.status_mut() = plan.status(head.status);
    let fields = answer.headers_mut();
    *fields = head.fields.clone();
    fields.insert(AGE, HeaderValue::from(head.rules.age(now).as_secs()));
    match plan {
        Plan::Whole => {
            if head.status == StatusCode::OK && !fields.contains_key(ACCEPT_RANGES) {
                fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            }
            if let Some(length) = length.filter(|_| head.status != StatusCode::NO_CONTENT) {
                fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
        Plan::Part(range) => {
            fields.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
            put(fields, CONTENT_RANGE, content_range(range, length.unwrap_or(range.end)));
        }
        // Who has the body says how long that is.
        Plan::Parts(_) => {}
        Plan::NotModified => leave_what_a_304_needs(fields),
        // What is stored tells of a representation, and this is none: no lifetime, no tag (RFC 9110 §15.5.17).
        Plan::NotSatisfiable => {
            fields.clear();
            put(fields, CONTENT_RANGE, format!("bytes */{}", length.unwrap_or(0)));
        }
    }
    told.lives(head.rules.seconds_to_live(now)).add_to(fields);
    answer
}

fn put(fields: &mut HeaderMap, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        fields.insert(name, value);
    }
}

/// RFC 9110 §15.4.5: what describes the body that is not sent only wastes bytes.
fn leave_what_a_304_needs(fields: &mut HeaderMap) {
    for name in
        ["content-type", "content-encoding", "content-language", "content-disposition", "content-length"]
    {
        fields.remove(name);
    }
}

/// RFC 9110 §15.3.7.2.
fn put_parts(answer: &mut Response<Body>, entry: &Entry, ranges: &[Range<u64>]) {
    // No body can hold a hash of its own.
    let boundary = entry.hash().to_hex();
    let content_type = entry.head().fields.get(CONTENT_TYPE);
    let multipart = Multipart { size: entry.head().length, content_type, boundary: &boundary };
    let parts = multipart.parts(ranges, |range| stretch(entry, range));
    put(answer.headers_mut(), CONTENT_TYPE, multipart.media_type());
    let length: u64 = parts.iter().map(Part::length).sum();
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    *answer.body_mut() = match entry.in_file() {
        Some(_) => file_body(entry, parts),
        None => Body::Full(together(&parts)),
    };
}

fn put_refusal(answer: &mut Response<Body>, asked: &Parts) {
    let (status, form) = (answer.status(), Form::accepted(&asked.headers));
    let page = error_page::put(answer.headers_mut(), status, range::UNSATISFIABLE, form);
    *answer.body_mut() = Body::Full(page);
}

/// What is in memory is handed over, and of what is in a file the place: that goes to the client within the kernel.
fn stored_body(entry: &Entry, range: Range<u64>) -> Body {
    match stretch(entry, &range) {
        Part::Bytes(bytes) => Body::Full(bytes),
        part => file_body(entry, VecDeque::from([part])),
    }
}

fn stretch(entry: &Entry, range: &Range<u64>) -> Part {
    let Some(bytes) = entry.in_memory() else {
        return Part::File { offset: range.start, length: range.end - range.start };
    };
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    Part::Bytes(bytes.slice(place(range.start)..place(range.end)))
}

fn file_body(entry: &Entry, parts: VecDeque<Part>) -> Body {
    let Some((file, seals)) = entry.in_file() else { return Body::Empty };
    Body::File(FileParts { file: Arc::clone(file), parts, seals: Some(Arc::clone(seals)) })
}

fn together(parts: &VecDeque<Part>) -> Bytes {
    let bytes = parts.iter().filter_map(|part| match part {
        Part::Bytes(bytes) => Some(bytes.as_ref()),
        Part::File { .. } => None,
    });
    bytes.collect::<Vec<_>>().concat().into()
}

fn following(follower: Follower) -> Stream {
    let pieces = stream::try_unfold(follower, |mut follower| async move {
        let piece = follower.next().await?;
        Ok::<_, BoxError>(piece.map(|piece| (Frame::<Bytes>::data(piece), follower)))
    });
    StreamBody::new(pieces).boxed_unsync()
}

#[cfg(test)]
mod tests;
