//! Answers a request from a stored or growing response: conditions, ranges, `Age` and `Cache-Status`.

use super::directives::members;
use super::entry::{Entry, Head};
use super::growing::{Follower, Growing};
use super::piece::read_piece;
use super::status::Told;
use super::{Body, BoxError};
use bytes::Bytes;
use futures_util::stream;
use http::header::{
    ACCEPT_RANGES, AGE, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use std::fs::File;
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
        *answer.body_mut() = following_body(follower);
    }
    Some(answer)
}

/// Passes on an answer that the cache has no part in.
pub fn passed(mut answer: Response<Body>, told: Told) -> Response<Body> {
    told.add_to(answer.headers_mut());
    answer
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

/// RFC 9110 §13.2.2, steps 3 to 5. Conditions and ranges are about a 200 only.
fn plan(asked: &Parts, head: &Head, length: Option<u64>) -> Plan {
    if head.status != StatusCode::OK {
        return Plan::Whole;
    }
    if not_modified(&asked.headers, &head.fields) {
        return Plan::NotModified;
    }
    // Where the length is not known yet no part of it can be named.
    let (Some(range), Some(length)) = (asked.headers.get(RANGE), length) else { return Plan::Whole };
    if asked.method != Method::GET || !range_still_applies(&asked.headers, head) {
        return Plan::Whole;
    }
    range.to_str().map_or(Plan::Whole, |range| cut(range, length))
}

fn not_modified(asked: &HeaderMap, stored: &HeaderMap) -> bool {
    if asked.contains_key(IF_NONE_MATCH) {
        let tag = stored.get(ETAG).and_then(|tag| tag.to_str().ok());
        return members(asked, IF_NONE_MATCH)
            .iter()
            .any(|wanted| *wanted == "*" || tag.is_some_and(|tag| weak(wanted) == weak(tag)));
    }
    let date = |value: &HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok();
    let since = asked.get(IF_MODIFIED_SINCE).and_then(date);
    let modified = stored.get(LAST_MODIFIED).and_then(date);
    since.zip(modified).is_some_and(|(since, modified)| modified <= since)
}

fn weak(tag: &str) -> &str {
    let tag = tag.trim();
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// RFC 9110 §13.1.5: a tag must be the same and strong. A date must be the same and strong too, that is, a second older than
/// the response's own date at least (§8.8.2.2).
fn range_still_applies(asked: &HeaderMap, head: &Head) -> bool {
    let Some(condition) = asked.get(IF_RANGE) else { return true };
    if condition.as_bytes().starts_with(b"\"") {
        return head.fields.get(ETAG) == Some(condition);
    }
    let date = |value: &HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok();
    let modified = head.fields.get(LAST_MODIFIED).and_then(date);
    let dated = head.fields.get(http::header::DATE).and_then(date);
    match (date(condition), modified, dated) {
        (Some(condition), Some(modified), Some(dated)) => condition == modified && modified < dated,
        _ => false,
    }
}

/// One range is cut; several, or none that can be read, are answered with the whole, as RFC 9110 §14.2 allows.
fn cut(range: &str, length: u64) -> Plan {
    let Some(spec) = range.strip_prefix("bytes=").map(str::trim) else { return Plan::Whole };
    let Some((first, last)) = spec.split_once('-') else { return Plan::Whole };
    let (first, last) = (first.trim(), last.trim());
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) || (first.is_empty() && last.is_empty()) {
        return Plan::Whole;
    }
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    if first.is_empty() {
        return match number(last).min(length) {
            0 => Plan::NotSatisfiable,
            suffix => Plan::Part(length - suffix..length),
        };
    }
    let start = number(first);
    let end = if last.is_empty() { length } else { number(last).saturating_add(1).min(length) };
    match start {
        _ if !last.is_empty() && number(last) < start => Plan::Whole,
        start if start >= length => Plan::NotSatisfiable,
        start => Plan::Part(start..end),
    }
}

fn begin(head: &Head, plan: &Plan, length: Option<u64>, now: SystemTime, told: Told) -> Response<Body> {
    let mut answer = Response::new(nothing());
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

fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn stored_body(entry: &Entry, range: Range<u64>) -> Body {
    if let Some(bytes) = entry.in_memory() {
        let whole = 0..bytes.len();
        let part = usize::try_from(range.start).unwrap_or(whole.end).min(whole.end)
            ..usize::try_from(range.end).unwrap_or(whole.end).min(whole.end);
        return Full::new(bytes.slice(part)).map_err(|never| match never {}).boxed_unsync();
    }
    match entry.open_file() {
        Some(file) => file_body(Arc::clone(file), range),
        None => nothing(),
    }
}

fn file_body(file: Arc<File>, range: Range<u64>) -> Body {
    let pieces = stream::try_unfold((file, range), |(file, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let piece = read_piece(&file, range.start, range.end - range.start).await?;
        if piece.is_empty() {
            return Err(BoxError::from("the cache's file is shorter than it was"));
        }
        let rest = range.start + piece.len() as u64..range.end;
        Ok(Some((Frame::<Bytes>::data(piece), (file, rest))))
    });
    StreamBody::new(pieces).boxed_unsync()
}

fn following_body(follower: Follower) -> Body {
    let pieces = stream::try_unfold(follower, |mut follower| async move {
        let piece = follower.next().await?;
        Ok::<_, BoxError>(piece.map(|piece| (Frame::<Bytes>::data(piece), follower)))
    });
    StreamBody::new(pieces).boxed_unsync()
}

#[cfg(test)]
mod tests;
