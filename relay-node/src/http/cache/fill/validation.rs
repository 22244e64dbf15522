//! What an answer of the origin says about a stored response, and what of it is kept.

use crate::http::cache::directives::members;
use crate::http::cache::entry::{Entry, Head};
use crate::http::cache::key::Key;
use crate::http::cache::policy::{Times, selecting_fields};
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG,
    LAST_MODIFIED, VARY,
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

/// RFC 9111 §3.2: the fields of the 304 replace those of the known response, but for those that describe the body, and `Vary`,
/// whose names come on top.
pub(super) fn freshened(
    known: &Head,
    key: &Key,
    request: &HeaderMap,
    answer: &HeaderMap,
    times: Times,
) -> Head {
    let mut fields = known.fields.clone();
    let told = kept_fields(answer, times);
    let of_the_body = [CONTENT_ENCODING, CONTENT_TYPE, CONTENT_RANGE, CONTENT_LENGTH];
    // An age that was told once says nothing about the confirmed response.
    fields.remove(http::header::AGE);
    for name in told.keys().filter(|name| !of_the_body.contains(name)) {
        // The body was chosen by what the response's own Vary names, and is so still.
        let is_added = name == VARY;
        if !is_added {
            fields.remove(name);
        }
        for value in told.get_all(name) {
            if !is_added || fields.get_all(name).iter().all(|have| have != value) {
                fields.append(name, value.clone());
            }
        }
    }
    let mut asked = request.clone();
    // The rules for storing hang on how the response was asked for, and that was not this request alone.
    if known.authorized && !asked.contains_key(http::header::AUTHORIZATION) {
        asked.insert(http::header::AUTHORIZATION, HeaderValue::from_static("-"));
    }
    asked.remove(CACHE_CONTROL);
    let head = Head::new(key, &asked, known.status, fields, times);
    Head { selecting: selecting_fields(request, &head.fields), ..head }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::cache::policy::{MOST_VARY_FIELDS, selects};
    use http::StatusCode;
    use http::header::{ACCEPT, COOKIE};
    use std::time::SystemTime;

    #[test]
    fn what_chose_a_body_chooses_it_still_after_another_vary() {
        let (key, now) = (Key::new("http://a/"), SystemTime::UNIX_EPOCH);
        let times = Times { sent: now, received: now };
        let request = |cookie| {
            let mut fields = HeaderMap::new();
            fields.insert(COOKIE, HeaderValue::from_static(cookie));
            fields.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=0"));
            fields
        };
        let vary = |names| HeaderMap::from_iter([(VARY, HeaderValue::from_static(names))]);
        let stored = Head::new(&key, &request("alice"), StatusCode::OK, vary("Cookie, Cache-Control"), times);
        let mut head = stored;
        for _ in 0..2 * MOST_VARY_FIELDS {
            head = freshened(&head, &key, &request("alice"), &vary("Accept"), times);
        }
        assert!(head.rules.is_storable());
        assert!(selects(&head.selecting, &request("alice")));
        assert!(!selects(&head.selecting, &request("bob")));
        let mut without_control = request("alice");
        without_control.remove(CACHE_CONTROL);
        assert!(!selects(&head.selecting, &without_control));
        let mut other_type = request("alice");
        other_type.insert(ACCEPT, HeaderValue::from_static("text/html"));
        assert!(!selects(&head.selecting, &other_type));
        assert!(!freshened(&head, &key, &request("alice"), &vary("*"), times).rules.is_storable());
    }
}
