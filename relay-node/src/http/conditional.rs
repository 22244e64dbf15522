//! Conditional requests: whether the client's copy, or its assumption, still holds (RFC 9110, section 13).

use super::date::{self, LastModified};
use http::header::{
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};

/// What an error page says with [`Verdict::Failed`].
pub(crate) const FAILED: &str = "The file is not, or no longer, what the request assumes.";

/// What the selected file, or stored response, is compared by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Validators<'a> {
    pub entity_tag: Option<Tag<'a>>,
    pub last_modified: Option<LastModified>,
}

/// An entity tag (RFC 9110, 8.8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag<'a> {
    /// What stands between the quotes.
    pub opaque: &'a [u8],
    pub is_weak: bool,
}

impl<'a> Tag<'a> {
    pub(crate) fn strong(opaque: &'a str) -> Self {
        Self { opaque: opaque.as_bytes(), is_weak: false }
    }

    /// Reads an `ETag` field; `None` for what is no tag.
    pub(crate) fn parse(field: &'a [u8]) -> Option<Self> {
        let field = field.trim_ascii();
        let (is_weak, quoted) = match field.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, field),
        };
        let opaque = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        (!opaque.contains(&b'"')).then_some(Self { opaque, is_weak })
    }
}

/// What the conditions say about a GET or HEAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answer as if there were no conditions.
    Proceed,
    /// 304: the client's copy is good.
    NotModified,
    /// 412: the client's assumption is wrong.
    Failed,
    /// A date that cannot be read, where the server was told to be strict about it.
    Unreadable,
}

/// Evaluates the conditions in the order of RFC 9110, 13.2.2.
pub(crate) fn evaluate(headers: &HeaderMap, file: Validators<'_>, is_strict: bool) -> Verdict {
    if has(headers, &IF_MATCH) {
        if !any_tag(headers, &IF_MATCH, file.entity_tag, Comparison::Strong) {
            return Verdict::Failed;
        }
    } else if is_modified_since(headers, &IF_UNMODIFIED_SINCE, file) == Some(true) {
        return Verdict::Failed;
    }
    if is_strict && has(headers, &IF_MODIFIED_SINCE) && since(headers, &IF_MODIFIED_SINCE).is_none() {
        return Verdict::Unreadable;
    }
    if has(headers, &IF_NONE_MATCH) {
        if any_tag(headers, &IF_NONE_MATCH, file.entity_tag, Comparison::Weak) {
            return Verdict::NotModified;
        }
    } else if is_modified_since(headers, &IF_MODIFIED_SINCE, file) == Some(false) {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// Whether a `Range` may be answered: there is no `If-Range`, or it names exactly this state of the file (13.1.5).
pub(crate) fn allows_range(headers: &HeaderMap, file: Validators<'_>) -> bool {
    let mut values = headers.get_all(IF_RANGE).iter();
    let Some(value) = values.next() else {
        return true;
    };
    if values.next().is_some() {
        return false;
    }
    if let Some(tag) = Tag::parse(value.as_bytes()) {
        return !tag.is_weak && file.entity_tag == Some(tag);
    }
    let named = value.to_str().ok().and_then(date::parse);
    file.last_modified.is_some_and(|time| time.is_strong && named == Some(time.seconds))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

fn has(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.contains_key(name)
}

/// `None` when there is no such date, or none that can be read, or none of the file.
fn is_modified_since(headers: &HeaderMap, name: &HeaderName, file: Validators<'_>) -> Option<bool> {
    let since = since(headers, name)?;
    file.last_modified.map(|time| time.seconds > since)
}

fn since(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    // A list of dates is no date (13.1.3).
    if values.next().is_some() { None } else { date::parse(value) }
}

fn any_tag(headers: &HeaderMap, name: &HeaderName, tag: Option<Tag<'_>>, comparison: Comparison) -> bool {
    headers.get_all(name).iter().any(|value| list_names(value.as_bytes(), tag, comparison))
}

/// Whether one field line names the tag, or everything by `*`. What cannot be read ends the line.
fn list_names(mut list: &[u8], tag: Option<Tag<'_>>, comparison: Comparison) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    let Some(tag) = tag else { return false };
    loop {
        list = skip_separators(list);
        let (is_weak, rest) = match list.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, list),
        };
        let Some(rest) = rest.strip_prefix(b"\"") else {
            return false;
        };
        let Some(end) = rest.iter().position(|&byte| byte == b'"') else {
            return false;
        };
        let (found, rest) = rest.split_at(end);
        if found == tag.opaque && !((is_weak || tag.is_weak) && comparison == Comparison::Strong) {
            return true;
        }
        list = rest.strip_prefix(b"\"").unwrap_or_default();
    }
}

fn skip_separators(list: &[u8]) -> &[u8] {
    let start = list.iter().position(|byte| !matches!(byte, b',' | b' ' | b'\t')).unwrap_or(list.len());
    list.split_at(start).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn headers(fields: &[(&HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn file() -> Validators<'static> {
        Validators {
            entity_tag: Some(Tag::strong("abc")),
            last_modified: Some(LastModified { seconds: 784_111_777, is_strong: true }),
        }
    }

    #[track_caller]
    fn check(fields: &[(&HeaderName, &str)], expected: Verdict) {
        assert_eq!(evaluate(&headers(fields), file(), false), expected, "{fields:?}");
    }

    #[test]
    fn each_condition_alone() {
        use Verdict::{Failed, NotModified, Proceed};
        check(&[], Proceed);
        for (value, expected) in [
            ("\"abc\"", Proceed),
            ("*", Proceed),
            ("\"x\", \"abc\"", Proceed),
            ("\"a,b\",\"abc\"", Proceed),
            ("W/\"abc\"", Failed),
            ("\"x\"", Failed),
            ("abc", Failed),
            ("\"abc", Failed),
        ] {
            check(&[(&IF_MATCH, value)], expected);
        }
        for (value, expected) in [
            ("\"abc\"", NotModified),
            ("W/\"abc\"", NotModified),
            (" * ", NotModified),
            ("\"x\" , W/\"y\",, \"abc\"", NotModified),
            ("\"x\"", Proceed),
            ("\"ab\"", Proceed),
            ("\"abc", Proceed),
            ("", Proceed),
        ] {
            check(&[(&IF_NONE_MATCH, value)], expected);
        }
        for (value, modified, unmodified) in [
            (SAME, NotModified, Proceed),
            (LATER, NotModified, Proceed),
            (EARLIER, Proceed, Failed),
            ("gibberish", Proceed, Proceed),
        ] {
            check(&[(&IF_MODIFIED_SINCE, value)], modified);
            check(&[(&IF_UNMODIFIED_SINCE, value)], unmodified);
        }
        check(&[(&IF_MODIFIED_SINCE, SAME), (&IF_MODIFIED_SINCE, SAME)], Proceed);
    }

    #[test]
    fn tags_go_before_dates() {
        use Verdict::{Failed, NotModified, Proceed};
        check(&[(&IF_NONE_MATCH, "\"x\""), (&IF_MODIFIED_SINCE, SAME)], Proceed);
        check(&[(&IF_NONE_MATCH, "\"abc\""), (&IF_MODIFIED_SINCE, EARLIER)], NotModified);
        check(&[(&IF_MATCH, "\"abc\""), (&IF_UNMODIFIED_SINCE, EARLIER)], Proceed);
        check(&[(&IF_MATCH, "\"x\""), (&IF_NONE_MATCH, "\"abc\"")], Failed);
        check(&[(&IF_MATCH, "\"abc\""), (&IF_NONE_MATCH, "\"abc\"")], NotModified);
        check(&[(&IF_NONE_MATCH, "\"x\""), (&IF_NONE_MATCH, "\"abc\"")], NotModified);
    }

    #[test]
    fn strictness_concerns_unreadable_dates_only() {
        let strict = |value| evaluate(&headers(&[(&IF_MODIFIED_SINCE, value)]), file(), true);
        assert_eq!(strict("gibberish"), Verdict::Unreadable);
        assert_eq!(strict(SAME), Verdict::NotModified);
        assert_eq!(strict(EARLIER), Verdict::Proceed);
        assert_eq!(strict("Sunday, 06-Nov-94 08:49:37 GMT"), Verdict::NotModified);
    }

    #[test]
    fn a_range_needs_exactly_this_state() {
        let allows = |value| allows_range(&headers(&[(&IF_RANGE, value)]), file());
        assert!(allows_range(&HeaderMap::new(), file()));
        assert!(allows("\"abc\"") && allows(SAME));
        for value in ["W/\"abc\"", "\"x\"", "*", "\"abc\", \"x\"", LATER, EARLIER, "gibberish", ""] {
            assert!(!allows(value), "{value}");
        }
        let fresh = Validators {
            last_modified: Some(LastModified { seconds: 784_111_777, is_strong: false }),
            ..file()
        };
        assert!(!allows_range(&headers(&[(&IF_RANGE, SAME)]), fresh));
    }

    #[test]
    fn tags_of_others_may_be_weak_or_none() {
        assert_eq!(Tag::parse(b" W/\"v1\" "), Some(Tag { opaque: b"v1", is_weak: true }));
        for text in [&b"v1"[..], b"\"", b"\"a\"b\"", b"", b"w/\"a\""] {
            assert_eq!(Tag::parse(text), None);
        }
        let weak = Validators { entity_tag: Tag::parse(b"W/\"abc\""), ..file() };
        let evaluated = |name, value, file| evaluate(&headers(&[(name, value)]), file, false);
        assert_eq!(evaluated(&IF_NONE_MATCH, "\"abc\"", weak), Verdict::NotModified);
        assert_eq!(evaluated(&IF_MATCH, "\"abc\"", weak), Verdict::Failed);
        assert!(!allows_range(&headers(&[(&IF_RANGE, "W/\"abc\"")]), weak));
        assert!(!allows_range(&headers(&[(&IF_RANGE, "\"abc\"")]), weak));
        let none = Validators { entity_tag: None, ..file() };
        assert_eq!(evaluated(&IF_NONE_MATCH, "\"abc\"", none), Verdict::Proceed);
        assert_eq!(evaluated(&IF_NONE_MATCH, "*", none), Verdict::NotModified);
    }
}
