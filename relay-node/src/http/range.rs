//! Byte ranges (RFC 9110, section 14): which parts of a file a `Range` field asks for.

use super::number::number;
use http::HeaderMap;
use http::header::RANGE;
use std::ops::Range;

/// The most parts of one answer. Who asks for more gets the whole file, which a server may always send (14.2).
pub(crate) const MAX_RANGES: usize = 64;

/// What an error page says with [`Wanted::Unsatisfiable`].
pub(crate) const UNSATISFIABLE: &str = "The file has no such part.";

/// What the field asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// No range, or none that has to be understood.
    Whole,
    /// At least one part, none empty, none overlapping another.
    Parts(Vec<Range<u64>>),
    /// 416: nothing of what is asked for exists.
    Unsatisfiable,
}

/// Reads the `Range` field for a file of `size` bytes.
pub(crate) fn wanted(headers: &HeaderMap, size: u64) -> Wanted {
    let mut fields = headers.get_all(RANGE).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return Wanted::Whole;
    };
    let Some(specs) = field.to_str().ok().and_then(strip_unit) else {
        return Wanted::Whole;
    };
    let Some(specs) = parse(specs) else {
        return Wanted::Whole;
    };
    if size == 0 && specs.iter().all(|spec| matches!(spec, Spec::Last(1..))) {
        // "The last bytes" of nothing are the whole of it, and no Content-Range could say so.
        return Wanted::Whole;
    }
    let parts: Vec<_> = specs.iter().filter_map(|spec| spec.resolve(size)).collect();
    if parts.is_empty() { Wanted::Unsatisfiable } else { Wanted::Parts(without_overlaps(parts)) }
}

fn strip_unit(field: &str) -> Option<&str> {
    let (unit, specs) = field.split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(specs)
}

enum Spec {
    /// From the first to the last byte, both included.
    Between(u64, u64),
    From(u64),
    Last(u64),
}

/// `None` for what is no set of ranges, or too many.
fn parse(specs: &str) -> Option<Vec<Spec>> {
    let mut found = Vec::new();
    for spec in specs.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
        if found.len() >= MAX_RANGES {
            return None;
        }
        let (first, last) = spec.split_once('-')?;
        found.push(match (first.is_empty(), last.is_empty()) {
            (true, true) => return None,
            (true, false) => Spec::Last(number(last)?),
            (false, true) => Spec::From(number(first)?),
            (false, false) => match (number(first)?, number(last)?) {
                (first, last) if first <= last => Spec::Between(first, last),
                _ => return None,
            },
        });
    }
    (!found.is_empty()).then_some(found)
}

impl Spec {
    fn resolve(&self, size: u64) -> Option<Range<u64>> {
        let part = match *self {
            Spec::Between(first, last) => first..last.saturating_add(1).min(size),
            Spec::From(first) => first..size,
            Spec::Last(length) => size.saturating_sub(length)..size,
        };
        (part.start < part.end).then_some(part)
    }
}

/// Parts in the order asked for, but sorted and merged when some overlap (RFC 9110, 15.3.7.2), so that no request makes
/// an answer larger than the file and its part headers.
fn without_overlaps(parts: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted = parts.clone();
    sorted.sort_by_key(|part| part.start);
    if sorted.is_sorted_by(|left, right| left.end <= right.start) {
        return parts;
    }
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for part in sorted {
        match merged.last_mut() {
            Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
            _ => merged.push(part),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[track_caller]
    fn check(field: &str, size: u64, expected: &Wanted) {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_str(field).unwrap());
        assert_eq!(&wanted(&headers, size), expected, "{field} of {size}");
    }

    fn parts<const N: usize>(parts: [(u64, u64); N]) -> Wanted {
        Wanted::Parts(parts.into_iter().map(|(start, end)| start..end).collect())
    }

    #[test]
    fn one_part() {
        check("bytes=0-499", 10_000, &parts([(0, 500)]));
        check("bytes=500-999", 10_000, &parts([(500, 1000)]));
        check("bytes=-500", 10_000, &parts([(9500, 10_000)]));
        check("bytes=9500-", 10_000, &parts([(9500, 10_000)]));
        check("bytes=0-0", 10_000, &parts([(0, 1)]));
        check("bytes=-1", 10_000, &parts([(9999, 10_000)]));
        check("bytes=0-99999", 10_000, &parts([(0, 10_000)]));
        check("bytes=-99999", 10_000, &parts([(0, 10_000)]));
        check("Bytes=0-0", 10, &parts([(0, 1)]));
        check("bytes= 0-0 ", 10, &parts([(0, 1)]));
        check("bytes=0-99999999999999999999999999", 10, &parts([(0, 10)]));
        check("bytes=0-18446744073709551615", 10, &parts([(0, 10)]));
        check("bytes=-99999999999999999999999999", 10, &parts([(0, 10)]));
    }

    #[test]
    fn several_parts() {
        check("bytes=0-0,-1", 10, &parts([(0, 1), (9, 10)]));
        check("bytes=5-6, 0-1", 10, &parts([(5, 7), (0, 2)]));
        check("bytes=0-1,2-3", 10, &parts([(0, 2), (2, 4)]));
        check("bytes=0-0,,5-5,", 10, &parts([(0, 1), (5, 6)]));
        check("bytes=0-0,50-60", 10, &parts([(0, 1)]));
        check("bytes=5-9,0-6", 10, &parts([(0, 10)]));
        check("bytes=0-,0-,0-", 10, &parts([(0, 10)]));
        check("bytes=8-9,0-3,2-5", 10, &parts([(0, 6), (8, 10)]));
    }

    #[test]
    fn nothing_of_it() {
        check("bytes=10-", 10, &Wanted::Unsatisfiable);
        check("bytes=10-20", 10, &Wanted::Unsatisfiable);
        check("bytes=-0", 10, &Wanted::Unsatisfiable);
        check("bytes=99999999999999999999999999-", 10, &Wanted::Unsatisfiable);
        check("bytes=18446744073709551615-", u64::MAX, &Wanted::Unsatisfiable);
        check("bytes=0-", 0, &Wanted::Unsatisfiable);
        check("bytes=0-0,-1", 0, &Wanted::Unsatisfiable);
        check("bytes=-1", 0, &Wanted::Whole);
        check("bytes=-0", 0, &Wanted::Unsatisfiable);
    }

    #[test]
    fn what_is_no_range_is_ignored() {
        for field in [
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=0-0;1-1",
            "bytes=+0-1",
            "bytes=0 - 1",
            "bytes=0--1",
            "items=0-1",
            "0-1",
            "bytes=0x0-1",
            "bytes=0-1,x",
        ] {
            check(field, 10, &Wanted::Whole);
        }
        let many = vec!["0-0"; MAX_RANGES + 1].join(",");
        check(&format!("bytes={many}"), 10, &Wanted::Whole);
        let mut twice = HeaderMap::new();
        twice.append(RANGE, HeaderValue::from_static("bytes=0-0"));
        twice.append(RANGE, HeaderValue::from_static("bytes=1-1"));
        assert_eq!(wanted(&twice, 10), Wanted::Whole);
    }
}
