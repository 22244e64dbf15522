//! Answers a request from a stored or growing response: conditions, ranges, `Age` and `Cache-Status`.

use super::entry::{Entry, Head};
use super::growing::{Follower, Growing};
use super::status::Told;
use super::{BoxError, Stream};
use crate::http::body::{Body, FileParts, Part};
use crate::http::conditional::{self, Tag, Validators, Verdict};
use crate::http::date;
use crate::http::range::{self, Wanted};
use bytes::Bytes;
use futures_util::stream;
use http::header::{
    ACCEPT_RANGES, AGE, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderName, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED, RANGE,
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
    if let Some(range) = plan.sent(asked, head.length) {
        *answer.body_mut() = stored_body(entry, range);
    }
    answer
}

/// Answers from a growing response; `None` if its beginning is gone already.
pub fn growing(
    asked: &Parts,
    growing: &Arc<Growing>,
    follower: Option<Follower>,
    now: SystemTime,
    told: Told,
) -> Option<Response<Body>> {
    let length = growing.length();
    let plan = plan(asked, growing.head(), length);
    let mut answer = begin(growing.head(), &plan, length, now, told);
    let follower = match &plan {
        Plan::Whole => follower.or_else(|| growing.follow(None))?,
        Plan::Part(range) => growing.follow(Some(range.clone()))?,
        Plan::NotModified | Plan::NotSatisfiable => return Some(answer),
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
    NotModified,
    NotSatisfiable,
}

impl Plan {
    fn status(&self, stored: StatusCode) -> StatusCode {
        match self {
            Self::Whole => stored,
            Self::Part(_) => StatusCode::PARTIAL_CONTENT,
            Self::NotModified => StatusCode::NOT_MODIFIED,
            Self::NotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        }
    }

    fn sent(&self, asked: &Parts, length: u64) -> Option<Range<u64>> {
        match self {
            _ if asked.method == Method::HEAD => None,
            Self::Whole => Some(0..length),
            Self::Part(range) => Some(range.clone()),
            Self::NotModified | Self::NotSatisfiable => None,
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

/// One range is cut; several are answered with the whole, as RFC 9110 §14.2 allows.
fn cut(asked: &HeaderMap, length: u64) -> Plan {
    match range::wanted(asked, length) {
        Wanted::Whole => Plan::Whole,
        Wanted::Parts(parts) => match parts.as_slice() {
            [part] => Plan::Part(part.clone()),
            _ => Plan::Whole,
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
            put(fields, format!("bytes {}-{}/{}", range.start, range.end - 1, length.unwrap_or(range.end)));
        }
        Plan::NotModified => leave_what_a_304_needs(fields),
        Plan::NotSatisfiable => {
            leave_what_a_304_needs(fields);
            fields.insert(CONTENT_LENGTH, HeaderValue::from(0));
            put(fields, format!("bytes */{}", length.unwrap_or(0)));
        }
    }
    told.lives(head.rules.seconds_to_live(now)).add_to(fields);
    answer
}

fn put(fields: &mut HeaderMap, range: String) {
    if let Ok(range) = HeaderValue::try_from(range) {
        fields.insert(CONTENT_RANGE, range);
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

/// What is in memory is handed over, and of what is in a file the place: that goes to the client within the kernel.
fn stored_body(entry: &Entry, range: Range<u64>) -> Body {
    if let Some(bytes) = entry.in_memory() {
        let whole = 0..bytes.len();
        let part = usize::try_from(range.start).unwrap_or(whole.end).min(whole.end)
            ..usize::try_from(range.end).unwrap_or(whole.end).min(whole.end);
        return Body::Full(bytes.slice(part));
    }
    let Some((file, seals)) = entry.in_file() else { return Body::Empty };
    let part = Part::File { offset: range.start, length: range.end - range.start };
    Body::File(FileParts { file: Arc::clone(file), parts: VecDeque::from([part]), seals: seals.cloned() })
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
