//! Doors for the fuzz targets to readers that nobody else outside may call. Only a fuzzing build has them, and one with the feature
//! `fuzzing`, by which the tests replay the targets' seeds. Each panics when a promise
//! of its reader is broken.

use super::HttpConfig;
use super::cache;
use super::conditional::{self, Tag, Validators};
use super::head::{self, HeadScanner};
use super::range::{self, Wanted};
use super::target;
use bytes::Bytes;
use http::Method;
use http::header::{
    HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};

/// The head of a request, which comes in two pieces: it is judged as if it had come at once.
pub fn head(bytes: &[u8], cut: usize) {
    let config = HttpConfig::default();
    let whole = HeadScanner::default().scan(bytes, &config);
    let mut scanner = HeadScanner::default();
    let begin = bytes.get(..cut.min(bytes.len())).unwrap_or_default();
    let in_pieces = match scanner.scan(begin, &config) {
        Ok(None) => scanner.scan(bytes, &config),
        decided => decided,
    };
    match (whole, in_pieces) {
        (Ok(Some(whole)), Ok(Some(in_pieces))) => {
            assert!(whole.start <= whole.end && whole.end <= bytes.len(), "{whole:?}");
            assert_eq!((whole.start, whole.end), (in_pieces.start, in_pieces.end));
            assert_eq!(whole.framing, in_pieces.framing);
            let read =
                head::request(&Bytes::copy_from_slice(bytes.get(whole.start..whole.end).unwrap_or_default()));
            assert!(read.is_none_or(
                |request| request.method() != Method::CONNECT || request.uri().authority().is_some()
            ));
        }
        (whole, in_pieces) => {
            assert_eq!(whole.is_err(), in_pieces.is_err(), "{whole:?} {in_pieces:?}");
            assert_eq!(whole.is_ok_and(|head| head.is_some()), in_pieces.is_ok_and(|head| head.is_some()));
        }
    }
}

/// A `Range` field for a file of `size` bytes.
pub fn range(field: &[u8], size: u64) {
    let Some(headers) = headers(&[(RANGE, field)]) else { return };
    if let Wanted::Parts(parts) = range::wanted(&headers, size) {
        assert!(!parts.is_empty() && parts.len() <= range::MAX_RANGES);
        assert!(parts.iter().all(|part| part.start < part.end && part.end <= size), "{parts:?} of {size}");
        let overlap = |a: &std::ops::Range<u64>, b: &std::ops::Range<u64>| a.start < b.end && b.start < a.end;
        let pairs = parts.iter().enumerate().flat_map(|(n, a)| parts.iter().skip(n + 1).map(move |b| (a, b)));
        assert!(pairs.clone().all(|(a, b)| !overlap(a, b)), "{parts:?}");
    }
}

/// The path of a request: a name that was read encodes to a path that reads as the same name, but for empty components.
pub fn target(path: &str) {
    let Ok(read) = target::parse(path) else { return };
    assert!(!read.name.iter().any(|byte| b"\\\0".contains(byte)));
    let components = read.name.split(|byte| *byte == b'/').filter(|component| !component.is_empty());
    let components: Vec<&[u8]> = components.collect();
    if components.is_empty() {
        return;
    }
    let again = target::parse(&target::encode_path(&read.name)).map(|target| target.name);
    assert_eq!(again.as_deref(), Ok(components.join(&b'/').as_slice()), "{path:?}");
}

/// Conditional fields, each chosen by its first byte, separated by line ends.
pub fn conditions(fields: &[u8]) {
    let names = [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE];
    let lines = fields.split(|byte| *byte == b'\n').filter_map(<[u8]>::split_first);
    let fields: Vec<(HeaderName, &[u8])> =
        lines.filter_map(|(name, value)| Some((names.get(usize::from(*name % 8))?.clone(), value))).collect();
    let Some(headers) = headers(&fields) else { return };
    let file = Validators { entity_tag: Some(Tag::strong("0123456789abcdef")), last_modified: None };
    for is_strict in [false, true] {
        let _ = conditional::evaluate(&headers, file, is_strict);
    }
    let _ = conditional::allows_range(&headers, file);
}

/// The record of a cache entry, as it stands on the disk.
pub fn cache_record(text: &[u8]) {
    let _ = cache::read_record(text);
}

fn headers(fields: &[(HeaderName, &[u8])]) -> Option<HeaderMap> {
    let fields =
        fields.iter().map(|(name, value)| Some((name.clone(), HeaderValue::from_bytes(value).ok()?)));
    fields.collect()
}
