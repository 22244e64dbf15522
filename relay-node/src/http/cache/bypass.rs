//! Which requests the cache takes part in, and which other responses a request may have made wrong.

use super::Fetch;
use super::directives::Directives;
use super::key::Key;
use super::status::Forward;
use crate::http::number::number;
use http::header::{
    CONTENT_LENGTH, CONTENT_LOCATION, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE,
    LOCATION, PRAGMA, RANGE, TRANSFER_ENCODING,
};
use http::request::Parts;
use http::{HeaderMap, Method, Uri};
use std::sync::OnceLock;

/// A range that begins further than this many bytes behind what has arrived is asked for by itself, not waited for.
pub const FAR_AHEAD: u64 = 8 * 1024 * 1024;

/// A request, and what its answer would be stored under.
#[derive(Debug)]
pub struct Asked {
    /// The key.
    pub key: Key,
    /// The request without its body.
    pub parts: Parts,
    /// The fields that the origin would see, once somebody wanted to know; nothing if those of `parts` are these.
    forwarded: Option<OnceLock<Box<HeaderMap>>>,
}

impl Asked {
    /// A request as it came from its client.
    pub fn new(key: Key, parts: Parts) -> Self {
        Self { key, parts, forwarded: Some(OnceLock::new()) }
    }

    /// The request's fields.
    pub fn fields(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// The request's fields as `fetch` sends them on.
    pub fn forwarded(&self, fetch: &impl Fetch) -> &HeaderMap {
        match &self.forwarded {
            Some(known) => known.get_or_init(|| Box::new(fetch.forwarded(&self.parts))),
            None => self.fields(),
        }
    }

    /// The request with the fields that go on. From here on there are no others.
    pub fn on_its_way(mut self, fetch: &impl Fetch) -> Self {
        if let Some(known) = self.forwarded.take() {
            self.parts.headers =
                known.into_inner().map_or_else(|| fetch.forwarded(&self.parts), |fields| *fields);
        }
        self
    }

    /// Whether only a stored response will do (RFC 9111 §5.2.1.7).
    pub fn wants_stored_only(&self) -> bool {
        let is_read = self.parts.method == Method::GET || self.parts.method == Method::HEAD;
        is_read && Directives::of_request(self.fields()).has("only-if-cached")
    }

    /// Whether the answer to a request that was sent before this one came could do.
    pub fn takes_what_is_under_way(&self) -> bool {
        let asked = Directives::of_request(self.fields());
        !asked.has("no-cache") && asked.seconds("max-age") != Some(0) && !self.fields().contains_key(PRAGMA)
    }

    /// Whether the request may be answered with less than the whole response.
    pub fn asks_for_less(&self) -> bool {
        [RANGE, IF_NONE_MATCH, IF_MODIFIED_SINCE].iter().any(|name| self.fields().contains_key(name))
    }

    /// Why the request goes on without a look into the store, if it does.
    pub fn bypass(&self) -> Option<Forward> {
        if self.parts.method != Method::GET && self.parts.method != Method::HEAD {
            return Some(Forward::Method);
        }
        // The store does not look at content, and a cache cannot judge these two conditions (RFC 9110 §13.1.1, §13.1.4).
        let not_ours = carries_content(self.fields())
            || self.fields().contains_key(IF_MATCH)
            || self.fields().contains_key(IF_UNMODIFIED_SINCE)
            || Directives::of_request(self.fields()).has("no-store");
        not_ours.then_some(Forward::Bypass)
    }

    /// Whether the request wants one range that begins far behind the first `arrived` bytes, or at an unknown place.
    pub fn wants_far_ahead(&self, arrived: u64) -> bool {
        let Some(range) = self.fields().get(RANGE).and_then(|range| range.to_str().ok()) else {
            return false;
        };
        let Some(spec) = range.strip_prefix("bytes=") else { return false };
        match spec.split_once('-').and_then(|(first, _)| number(first.trim())) {
            Some(first) => first > arrived.saturating_add(FAR_AHEAD),
            _ => spec.starts_with('-'),
        }
    }
}

/// Whether a request has content, going by its fields.
pub fn carries_content(fields: &HeaderMap) -> bool {
    let length = fields.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    length || fields.contains_key(TRANSFER_ENCODING)
}

/// RFC 9110 §9.2.1: whether a method may change something. An unknown one may.
pub fn is_unsafe(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// The keys of the same origin that an answer to an unsafe method names (RFC 9111 §4.4).
pub fn also_changed(key: &Key, answer: &HeaderMap) -> Vec<Key> {
    let Ok(asked) = key.uri().parse::<Uri>() else { return Vec::new() };
    [LOCATION, CONTENT_LOCATION]
        .into_iter()
        .filter_map(|name| answer.get(name)?.to_str().ok())
        .filter_map(|place| resolve(&asked, place))
        .filter(|uri| uri != key.uri())
        .map(|uri| key.beside(uri))
        .collect()
}

fn resolve(asked: &Uri, place: &str) -> Option<String> {
    let authority = asked.authority()?;
    let scheme = asked.scheme_str()?;
    let place = place.split('#').next()?;
    let named: Uri = place.parse().ok()?;
    match named.authority() {
        Some(other) if other == authority && named.scheme_str() == Some(scheme) => {
            Some(format!("{scheme}://{authority}{}", path(&named)))
        }
        Some(_) => None,
        None if place.starts_with('/') => Some(format!("{scheme}://{authority}{place}")),
        None => None,
    }
}

fn path(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn asked(method: Method, fields: &[(&'static str, &'static str)]) -> Asked {
        let mut request = http::Request::new(());
        *request.method_mut() = method;
        for (name, value) in fields {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        Asked::new(Key::new("http://a/x"), request.into_parts().0)
    }

    #[test]
    fn what_the_cache_leaves_alone() {
        assert_eq!(asked(Method::GET, &[]).bypass(), None);
        assert_eq!(asked(Method::HEAD, &[("content-length", "0")]).bypass(), None);
        assert_eq!(asked(Method::POST, &[]).bypass(), Some(Forward::Method));
        for field in [
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("if-match", "\"x\""),
            ("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("cache-control", "No-Store"),
        ] {
            assert_eq!(asked(Method::GET, &[field]).bypass(), Some(Forward::Bypass), "{field:?}");
        }
    }

    #[test]
    fn far_ranges_are_not_waited_for() {
        let far = |range| asked(Method::GET, &[("range", range)]).wants_far_ahead(0);
        assert!(!far("bytes=0-5") && !far("bytes=8388608-"));
        assert!(far("bytes=8388609-") && far("bytes=-5"));
        assert!(far("bytes=99999999999999999999-"));
        assert!(!far("lines=-5") && !far("bytes=x-"));
        assert!(!asked(Method::GET, &[("range", "bytes=8388609-")]).wants_far_ahead(1));
    }

    #[test]
    fn only_the_same_origin_can_be_changed() {
        let key = Key::new("http://a:80/x");
        let changed = |place: &'static str| {
            let mut answer = HeaderMap::new();
            answer.insert(LOCATION, HeaderValue::from_static(place));
            also_changed(&key, &answer).first().map(|key| key.text().to_owned())
        };
        assert_eq!(changed("/y?q#f").as_deref(), Some("http://a:80/y?q"));
        assert_eq!(changed("http://a:80/y").as_deref(), Some("http://a:80/y"));
        assert_eq!(changed("http://b/y"), None);
        assert_eq!(changed("/x"), None);
        assert_eq!(changed("relative"), None);
        let mut answer = HeaderMap::new();
        answer.insert(LOCATION, HeaderValue::from_static("/y"));
        let realm = Key::within("http://a:80/x", "realm");
        assert_eq!(also_changed(&realm, &answer), [Key::within("http://a:80/y", "realm")]);
    }
}
