//! How the cache reads fields, and which it writes: numbers beyond counting, validators, and fields that belong to an answer only.

use super::proxy_front::Setup;
use super::raw_http::get;
use super::scripted_upstream::{Upstream, answer};
use std::io::Write as _;
use std::time::Duration;

#[test]
fn an_age_too_large_to_count_is_not_none() {
    for (age, is_fresh) in [("5", true), ("99999999999999999999", false), ("4294967296", false), ("-5", true)]
    {
        let field = format!("Age: {age}");
        let upstream = Upstream::fixed(answer("200 OK", &["Cache-Control: max-age=3600", &field], "x"));
        let front = Setup::caching(upstream.address).start();
        get(front.address, "/", &[]);
        assert_eq!(get(front.address, "/", &[]).is_hit(), is_fresh, "{age}");
    }
    // For a year and more it is asked again, but 2^31 seconds are fresh for 2^31 seconds.
    let fields = ["Cache-Control: max-age=99999999999999999999", "Age: 5"];
    let upstream = Upstream::fixed(answer("200 OK", &fields, "x"));
    let front = Setup::caching(upstream.address).start();
    get(front.address, "/", &[]);
    assert!(get(front.address, "/", &[]).is_hit());
}

#[test]
fn a_range_too_far_to_count_is_beyond_the_end() {
    let upstream = Upstream::fixed(answer("200 OK", &["Cache-Control: max-age=60"], "0123456789"));
    let front = Setup::caching(upstream.address).start();
    get(front.address, "/", &[]);
    let beyond = get(front.address, "/", &["Range: bytes=99999999999999999999-"]);
    assert_eq!((beyond.status, beyond.is_hit()), (416, true));
    let all = get(front.address, "/", &["Range: bytes=-99999999999999999999"]);
    assert_eq!((all.status, all.text().as_str()), (206, "0123456789"));
}

#[test]
fn immutable_makes_nothing_fresh_that_is_not() {
    for lifetime in ["Expires: Sun, 06 Nov 1994 08:49:37 GMT", "X-Nothing: 1"] {
        let upstream = Upstream::fixed(answer("200 OK", &["Cache-Control: immutable", lifetime], "x"));
        let front = Setup::caching(upstream.address).start();
        get(front.address, "/", &[]);
        assert!(!get(front.address, "/", &[]).is_hit(), "{lifetime}");
    }
    let upstream = Upstream::fixed(answer("200 OK", &["Cache-Control: max-age=60, immutable"], "x"));
    let front = Setup::caching(upstream.address).start();
    get(front.address, "/", &[]);
    front.later(Duration::from_secs(50));
    assert!(get(front.address, "/", &[]).is_hit());
    front.later(Duration::from_secs(20));
    assert!(!get(front.address, "/", &[]).is_hit());
}

/// A weak tag may be that of other bytes: who holds a part of those must not be given the rest of these.
#[test]
fn a_strong_validator_updates_no_response_with_a_weak_one() {
    for (stored, confirmed, is_confirmed) in [
        ("W/\"1\"", "\"1\"", false),
        ("W/\"1\"", "W/\"1\"", true),
        ("\"1\"", "W/\"1\"", true),
        ("\"1\"", "\"1\"", true),
    ] {
        let (stored, confirmed) = (format!("ETag: {stored}"), format!("ETag: {confirmed}"));
        let upstream = Upstream::start(move |seen, stream| {
            let reply = match seen.field("if-none-match") {
                Some(_) => answer("304 Not Modified", &[&confirmed, "Cache-Control: max-age=60"], ""),
                None => {
                    answer("200 OK", &[&stored, "Cache-Control: max-age=1"], &format!("body {}", seen.number))
                }
            };
            stream.write_all(&reply).unwrap();
        });
        let front = Setup::caching(upstream.address).start();
        get(front.address, "/", &[]);
        front.later(Duration::from_secs(2));
        let again = get(front.address, "/", &[]);
        assert_eq!(again.text(), if is_confirmed { "body 0" } else { "body 2" });
        let part = get(front.address, "/", &["Range: bytes=0-1", "If-Range: \"1\""]);
        let is_strong = part.field("etag").as_deref() == Some("\"1\"");
        assert_eq!(part.status == 206, is_strong, "{:?}", part.fields);
        assert!(is_confirmed || !is_strong);
    }
}

#[test]
fn a_refused_range_has_none_of_the_stored_fields() {
    let fields = ["Cache-Control: public, max-age=60", "ETag: \"v1\"", "Expires: 0", "Link: </x>", "X-A: 1"];
    let upstream = Upstream::fixed(answer("200 OK", &fields, "0123456789"));
    let front = Setup::caching(upstream.address).start();
    get(front.address, "/", &[]);
    let refused = get(front.address, "/", &["Range: bytes=10-"]);
    assert_eq!((refused.status, refused.field("content-range").as_deref()), (416, Some("bytes */10")));
    for name in ["cache-control", "etag", "expires", "age", "link", "x-a", "last-modified"] {
        assert_eq!(refused.field(name), None, "{name}");
    }
    assert!(refused.is_hit() && refused.whole && refused.text().contains("no such part"));
}
