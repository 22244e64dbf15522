//! Times as HTTP writes them (RFC 9110, 5.6.7).

use http::HeaderValue;
use std::cell::RefCell;
use std::time::{Duration, SystemTime};

/// The first second that the form has no room for: the year 10000.
const END_OF_TIME: u64 = 253_402_300_800;

/// `Sun, 06 Nov 1994 08:49:37 GMT`; a time out of the form's reach gives the nearest one within.
pub(crate) fn imf_fixdate(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format_seconds(seconds.min(END_OF_TIME - 1))
}

thread_local! {
    /// The second that was written last, and its field: answers come many a second.
    static LAST_FIELD: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
}

/// The `Date` of an answer that is made at `now`.
pub(crate) fn field(now: SystemTime) -> Option<HeaderValue> {
    let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST_FIELD.with_borrow_mut(|last| {
        // Any other second is written anew, for a clock can be set back.
        if last.as_ref().is_none_or(|(written, _)| *written != second) {
            *last = HeaderValue::try_from(imf_fixdate(now)).ok().map(|field| (second, field));
        }
        last.as_ref().map(|(_, field)| field.clone())
    })
}

/// `1994-11-06T08:49:37.000Z`; a time out of the form's reach gives the nearest one within.
pub(crate) fn rfc_3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let last = Duration::from_secs(END_OF_TIME - 1);
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since.min(last)).to_string()
}

/// A time of a file, in seconds since 1970.
pub(crate) fn at(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(END_OF_TIME - 1))
}

/// A file's `Last-Modified`: never later than now (RFC 9110, 8.8.2.1), and nothing for a time that has no form.
pub(crate) fn last_modified(seconds: i64, now: SystemTime) -> Option<LastModified> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seconds = u64::try_from(seconds).ok().filter(|&seconds| seconds < END_OF_TIME)?.min(now);
    Some(LastModified { seconds, is_strong: seconds < now })
}

/// The `Last-Modified` of a response that somebody else made, at the time in its `Date`.
pub(crate) fn last_modified_at(modified: &str, made: Option<&str>) -> Option<LastModified> {
    let seconds = parse(modified)?;
    Some(LastModified { seconds, is_strong: made.and_then(parse).is_some_and(|made| seconds < made) })
}

/// A time that a file was last modified at, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastModified {
    /// Since 1970.
    pub seconds: u64,
    /// Whether the file cannot have changed again in the same second (RFC 9110, 8.8.2.2).
    pub is_strong: bool,
}

impl LastModified {
    pub(crate) fn text(self) -> String {
        format_seconds(self.seconds)
    }
}

/// Seconds since 1970 of any of the three forms that RFC 9110 tells recipients to read.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(text).ok()?;
    time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn format_seconds(seconds: u64) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn writes_the_form_of_programs() {
        assert_eq!(rfc_3339(at(784_111_777)), "1994-11-06T08:49:37.000Z");
        assert_eq!(rfc_3339(at(END_OF_TIME * 2)), "9999-12-31T23:59:59.000Z");
        assert_eq!(super::at(-7), SystemTime::UNIX_EPOCH);
        assert_eq!(rfc_3339(super::at(i64::MAX)), "9999-12-31T23:59:59.000Z");
    }

    #[test]
    fn writes_the_form_of_the_rfc() {
        assert_eq!(imf_fixdate(at(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(
            imf_fixdate(SystemTime::UNIX_EPOCH - Duration::from_secs(5)),
            "Thu, 01 Jan 1970 00:00:00 GMT"
        );
        assert_eq!(imf_fixdate(at(END_OF_TIME * 2)), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn a_field_is_of_its_second_whichever_came_before() {
        for seconds in [784_111_777, 784_111_778, 784_111_777, 784_111_777] {
            assert_eq!(field(at(seconds)).unwrap(), imf_fixdate(at(seconds)));
        }
    }

    #[test]
    fn reads_all_three_forms() {
        for text in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(parse(text), Some(784_111_777), "{text}");
        }
        for text in ["", "yesterday", "1994-11-06", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_file_is_never_from_the_future() {
        let check = |seconds, expected: Option<(u64, bool)>| {
            let found = last_modified(seconds, at(1000)).map(|time| (time.seconds, time.is_strong));
            assert_eq!(found, expected, "{seconds}");
        };
        check(10, Some((10, true)));
        check(1000, Some((1000, false)));
        check(5000, Some((1000, false)));
        check(-1, None);
        check(i64::MAX, None);
    }
}
