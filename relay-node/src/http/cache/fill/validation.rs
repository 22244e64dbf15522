//! What an answer of the origin says about a stored response, and what of it is kept.

use crate::http::cache::directives::members;
use crate::http::cache::entry::{Entry, Head};
use crate::http::cache::key::Key;
use crate::http::cache::policy::Times;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG,
    LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Whether an answer's validators show that the stored response is not the origin's any more.
pub fn differs(entry: &Entry, answer: &HeaderMap) -> bool {
    let told = |name: &HeaderName| answer.get(name).zip(entry.head().fields.get(name));
    let other_length = answer.get(CONTENT_LENGTH).is_some_and(|length| {
        length.to_str().ok().and_then(|length| length.parse().ok()) != Some(entry.head().length)
    });
    let other = |name| told(&name).is_some_and(|(new, old)| new != old);
    other(ETAG) || other(LAST_MODIFIED) || other_length
}

/// RFC 9111 §3.1: all but what belongs to the connection.
pub(super) fn kept_fields(answer: &HeaderMap, times: Times) -> HeaderMap {
    let mut fields = answer.clone();
    for name in members(answer, CONNECTION) {
        fields.remove(name);
    }
    for name in
        ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"]
    {
        fields.remove(name);
    }
    for name in ["proxy-authenticate", "proxy-authentication-info", "proxy-authorization"] {
        fields.remove(name);
    }
    fields.remove(CONTENT_LENGTH);
    if !fields.contains_key(DATE)
        && let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(times.received))
    {
        fields.insert(DATE, date);
    }
    fields
}

/// RFC 9111 §4.3.4: a validator in a 304 must be that of the stored response, and a strong one is that of no response with a weak
/// one, which may be of other bytes.
pub(super) fn confirms(known: &Head, answer: &HeaderMap) -> bool {
    let stored = &known.fields;
    match (answer.get(ETAG), stored.get(ETAG)) {
        (Some(new), Some(old)) => opaque(new) == opaque(old) && (is_weak(new) || !is_weak(old)),
        (Some(_), None) => false,
        (None, _) => match (answer.get(LAST_MODIFIED), stored.get(LAST_MODIFIED)) {
            (Some(new), Some(old)) => new == old,
            (Some(_), None) => false,
            (None, _) => true,
        },
    }
}

fn is_weak(tag: &HeaderValue) -> bool {
    tag.as_bytes().trim_ascii().starts_with(b"W/")
}

fn opaque(tag: &HeaderValue) -> &[u8] {
    let tag = tag.as_bytes().trim_ascii();
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// RFC 9111 §3.2: the fields of the 304 replace those of the stored response, but for those that describe the body.
pub(super) fn freshened(
    entry: &Entry,
    key: &Key,
    request: &HeaderMap,
    answer: &HeaderMap,
    times: Times,
) -> Head {
    let mut fields = entry.head().fields.clone();
    let told = kept_fields(answer, times);
    let of_the_body = [CONTENT_ENCODING, CONTENT_TYPE, CONTENT_RANGE, CONTENT_LENGTH];
    // An age that was told once says nothing about the confirmed response.
    fields.remove(http::header::AGE);
    for name in told.keys().filter(|name| !of_the_body.contains(name)) {
        fields.remove(name);
        for value in told.get_all(name) {
            fields.append(name, value.clone());
        }
    }
    let mut asked = request.clone();
    // The rules for storing hang on how the response was asked for, and that was not this request alone.
    if entry.head().authorized && !asked.contains_key(http::header::AUTHORIZATION) {
        asked.insert(http::header::AUTHORIZATION, HeaderValue::from_static("-"));
    }
    asked.remove(CACHE_CONTROL);
    Head::new(key, &asked, entry.head().status, fields, times)
}
