//! What RFC 9111 wants of a shared cache, seen from its client and its origin.

use super::proxy_front::Setup;
use super::raw_http::{get, request};
use super::scripted_upstream::{Upstream, answer};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_fresh_response_is_used_again_and_tells_its_age() {
    let upstream =
        Upstream::fixed(answer("200 OK", &["Cache-Control: max-age=60", "X-A: 1", "X-A: 2"], "hello"));
    let front = Setup::caching(upstream.address).start();
    let first = get(front.address, "/a", &[]);
    assert_eq!((first.status, first.text().as_str()), (200, "hello"));
    assert_eq!(first.cache_status(), "relay-node; fwd=uri-miss; stored; ttl=60");
    front.later(seconds(7));
    let second = get(front.address, "/a", &[]);
    assert_eq!((second.status, second.text().as_str()), (200, "hello"));
    assert_eq!(second.cache_status(), "relay-node; hit; ttl=53");
    assert_eq!(second.field("age").as_deref(), Some("7"));
    assert_eq!(second.field("x-a").as_deref(), Some("1, 2"), "no line of a field is lost");
    assert_eq!(upstream.count(), 1);
    // Another query is another resource.
    get(front.address, "/a?x", &[]);
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_stale_response_is_confirmed_and_its_fields_are_renewed() {
    let upstream = Upstream::start(|seen, stream| {
        let reply = match seen.field("if-none-match") {
            Some("\"v1\"") => {
                answer("304 Not Modified", &["ETag: \"v1\"", "Cache-Control: max-age=100", "X-New: yes"], "")
            }
            _ => answer("200 OK", &["ETag: \"v1\"", "Cache-Control: max-age=10", "X-Old: yes"], "body"),
        };
        stream.write_all(&reply).unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    get(front.address, "/", &[]);
    front.later(seconds(11));
    let confirmed = get(front.address, "/", &[]);
    assert_eq!((confirmed.status, confirmed.text().as_str()), (200, "body"));
    assert_eq!(confirmed.cache_status(), "relay-node; fwd=stale; fwd-status=304; ttl=100");
    assert_eq!(confirmed.field("x-new").as_deref(), Some("yes"));
    assert_eq!(confirmed.field("x-old").as_deref(), Some("yes"));
    assert_eq!(confirmed.field("age").as_deref(), Some("0"));
    front.later(seconds(90));
    assert!(get(front.address, "/", &[]).is_hit());
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_date_confirms_where_there_is_no_tag() {
    let modified = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT";
    let upstream = Upstream::start(move |seen, stream| {
        let reply = match seen.field("if-modified-since") {
            Some("Sun, 06 Nov 1994 08:49:37 GMT") => answer("304 Not Modified", &[], ""),
            _ => answer("200 OK", &[modified, "Cache-Control: max-age=10"], "body"),
        };
        stream.write_all(&reply).unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    get(front.address, "/", &[]);
    front.later(seconds(11));
    assert_eq!(get(front.address, "/", &[]).cache_status(), "relay-node; fwd=stale; fwd-status=304; ttl=10");
    assert!(get(front.address, "/", &[]).is_hit());
}

#[test]
fn a_confirmation_of_something_else_is_not_believed() {
    let upstream = Upstream::start(|seen, stream| {
        let reply = match seen.field("if-none-match") {
            Some(_) => answer("304 Not Modified", &["ETag: \"v9\""], ""),
            None if seen.number == 0 => {
                answer("200 OK", &["ETag: \"v1\"", "Cache-Control: max-age=1"], "old")
            }
            None => answer("200 OK", &["ETag: \"v2\"", "Cache-Control: max-age=1"], "new"),
        };
        stream.write_all(&reply).unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    get(front.address, "/", &[]);
    front.later(seconds(2));
    assert_eq!(get(front.address, "/", &[]).text(), "new");
    assert_eq!(upstream.count(), 3);
}

#[test]
fn a_changed_response_takes_the_old_ones_place() {
    let upstream = Upstream::start(|seen, stream| {
        let tag = format!("ETag: \"v{}\"", seen.number);
        let reply = answer("200 OK", &[&tag, "Cache-Control: max-age=10"], &format!("body {}", seen.number));
        stream.write_all(&reply).unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    get(front.address, "/", &[]);
    front.later(seconds(11));
    assert_eq!(get(front.address, "/", &[]).text(), "body 1");
    assert_eq!(get(front.address, "/", &[]).text(), "body 1");
    assert_eq!((upstream.count(), front.cache().len()), (2, 1));
}

/// Each row: what the origin says, what a second client asks with, and whether the origin hears of it.
#[test]
fn when_the_origin_is_asked_again() {
    let table: &[(&[&str], &[&str], bool)] = &[
        (&["Cache-Control: max-age=60"], &[], false),
        (&["Cache-Control: s-maxage=60, max-age=0"], &[], false),
        (&["Cache-Control: max-age=60"], &["Cache-Control: no-cache"], true),
        (&["Cache-Control: max-age=60"], &["Pragma: no-cache"], true),
        (&["Cache-Control: max-age=60"], &["Cache-Control: max-age=0"], true),
        (&["Cache-Control: max-age=60"], &["Cache-Control: no-store"], true),
        (&["Cache-Control: max-age=60"], &["Authorization: Basic eA=="], false),
        (&["Cache-Control: no-store, max-age=60"], &[], true),
        (&["Cache-Control: PRIVATE, max-age=60"], &[], true),
        (&["Cache-Control: max-age=60", "Set-Cookie: a=b"], &[], true),
        (&["Cache-Control: max-age=60", "Vary: *"], &[], true),
        (&["Cache-Control: max-age=60", "Vary: Accept"], &[], false),
        (&["Cache-Control: max-age=60", "Vary: Accept"], &["Accept: a/b"], true),
        (&["Cache-Control: max-age=60"], &["If-Match: \"x\""], true),
        (&["Expires: 0"], &[], true),
        (&["Cache-Control: max-age=60", "Age: 61"], &[], true),
        (&["Cache-Control: must-revalidate, max-age=60"], &["Cache-Control: max-stale"], false),
    ];
    for (fields, again, asked) in table {
        let upstream = Upstream::fixed(answer("200 OK", fields, "x"));
        let front = Setup::caching(upstream.address).start();
        get(front.address, "/", &[]);
        get(front.address, "/", again);
        assert_eq!(upstream.count() == 2, *asked, "{fields:?} {again:?}");
    }
}

#[test]
fn an_answer_to_somebody_who_identified_himself_is_not_for_others() {
    for (control, shared) in [("max-age=60", false), ("max-age=60, public", true), ("s-maxage=60", true)] {
        let field = format!("Cache-Control: {control}");
        let upstream = Upstream::fixed(answer("200 OK", &[&field], "secret"));
        let front = Setup::caching(upstream.address).start();
        get(front.address, "/", &["Authorization: Basic eA=="]);
        get(front.address, "/", &[]);
        assert_eq!(upstream.count() == 1, shared, "{control}");
    }
}

#[test]
fn variants_live_side_by_side() {
    let upstream = Upstream::start(|seen, stream| {
        let language = seen.field("accept-language").unwrap_or("none").to_owned();
        let fields = ["Vary: Accept-Language", "Cache-Control: max-age=60"];
        stream.write_all(&answer("200 OK", &fields, &language)).unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    for _ in 0..2 {
        for language in ["de", "en", "de,  en"] {
            let field = format!("Accept-Language: {language}");
            assert_eq!(get(front.address, "/", &[&field]).text(), language);
        }
        assert_eq!(get(front.address, "/", &[]).text(), "none");
    }
    assert_eq!((upstream.count(), front.cache().len()), (4, 4));
    let other = get(front.address, "/", &["Accept-Language: fr"]);
    assert!(other.cache_status().contains("fwd=vary-miss"), "{}", other.cache_status());
}

#[test]
fn an_unsafe_method_makes_what_it_may_have_changed_unusable() {
    let upstream = Upstream::start(|seen, stream| {
        let reply = match seen.line.split(' ').next() {
            Some("POST") => {
                answer("201 Created", &["Location: /b", "Content-Location: http://other.test/c"], "")
            }
            Some("DELETE") => answer("500 Internal Server Error", &[], ""),
            _ => answer("200 OK", &["Cache-Control: max-age=60"], "x"),
        };
        stream.write_all(&reply).unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    for path in ["/a", "/b", "/c"] {
        get(front.address, path, &[]);
    }
    request(front.address, "DELETE", "/a", &[]);
    assert!(get(front.address, "/a", &[]).is_hit(), "a failed request changed nothing");
    request(front.address, "POST", "/a", &["Content-Length: 0"]);
    assert!(!get(front.address, "/a", &[]).is_hit());
    assert!(!get(front.address, "/b", &[]).is_hit(), "Location");
    assert!(get(front.address, "/c", &[]).is_hit(), "another origin's");
}

#[test]
fn a_broken_origin_is_stood_in_for_only_where_it_was_allowed() {
    for (control, stands_in) in [
        ("max-age=10, stale-if-error=60", true),
        ("max-age=10", false),
        ("max-age=10, must-revalidate, stale-if-error=60", false),
    ] {
        let field = format!("Cache-Control: {control}");
        let upstream = Upstream::start(move |seen, stream| {
            if seen.number == 0 {
                stream.write_all(&answer("200 OK", &[&field], "good")).unwrap();
            } else if seen.number == 1 {
                stream.write_all(&answer("503 Service Unavailable", &[], "bad")).unwrap();
            }
            // Later it closes without a word.
        });
        let front = Setup::caching(upstream.address).start();
        get(front.address, "/", &[]);
        front.later(seconds(30));
        let failing = get(front.address, "/", &[]);
        let silent = get(front.address, "/", &[]);
        if stands_in {
            assert_eq!((failing.status, failing.text().as_str()), (200, "good"));
            assert!(
                failing.cache_status().contains("fwd=stale; fwd-status=503"),
                "{}",
                failing.cache_status()
            );
            assert_eq!((silent.status, silent.text().as_str()), (200, "good"));
            front.later(seconds(60));
            assert_eq!(get(front.address, "/", &[]).status, 502);
        } else {
            assert_eq!((failing.status, silent.status), (503, 502), "{control}");
        }
    }
}

#[test]
fn a_stale_response_is_used_while_it_is_renewed_behind() {
    let upstream = Upstream::start(|seen, stream| {
        let fields = ["Cache-Control: max-age=10, stale-while-revalidate=60"];
        stream.write_all(&answer("200 OK", &fields, &format!("body {}", seen.number))).unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    get(front.address, "/", &[]);
    front.later(seconds(20));
    let stale = get(front.address, "/", &[]);
    assert_eq!(stale.text(), "body 0");
    assert_eq!(stale.cache_status(), "relay-node; hit; ttl=-10; detail=stale-while-revalidate");
    let renewed = || get(front.address, "/", &["Cache-Control: only-if-cached"]).text() == "body 1";
    let began = std::time::Instant::now();
    while !renewed() {
        assert!(began.elapsed() < super::raw_http::PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn conditions_and_ranges_are_answered_from_what_is_stored() {
    let fields = ["Cache-Control: max-age=60", "ETag: \"v1\"", "Content-Type: text/plain"];
    let upstream = Upstream::fixed(answer("200 OK", &fields, "0123456789"));
    let front = Setup::caching(upstream.address).start();
    let same = get(front.address, "/", &["If-None-Match: \"v1\""]);
    assert_eq!((same.status, same.field("etag").as_deref()), (304, Some("\"v1\"")));
    let part = get(front.address, "/", &["Range: bytes=2-4"]);
    assert_eq!((part.status, part.text().as_str()), (206, "234"));
    assert_eq!(part.field("content-range").as_deref(), Some("bytes 2-4/10"));
    let suffix = get(front.address, "/", &["Range: bytes=-3", "If-Range: \"v1\""]);
    assert_eq!((suffix.status, suffix.text().as_str()), (206, "789"));
    let changed = get(front.address, "/", &["Range: bytes=-3", "If-Range: \"v0\""]);
    assert_eq!((changed.status, changed.text().as_str()), (200, "0123456789"));
    let beyond = get(front.address, "/", &["Range: bytes=10-"]);
    assert_eq!((beyond.status, beyond.field("content-range").as_deref()), (416, Some("bytes */10")));
    assert!(beyond.whole && beyond.text().contains("no such part"), "{}", beyond.text());
    assert_eq!(beyond.field("content-type").as_deref(), Some("text/html; charset=utf-8"));
    let head = request(front.address, "HEAD", "/", &[]);
    assert_eq!(
        (head.status, head.field("content-length").as_deref(), head.is_hit()),
        (200, Some("10"), true)
    );
    assert_eq!(upstream.count(), 1);
    assert_eq!(upstream.last().field("if-none-match"), None, "the whole response was asked for");
}

#[test]
fn a_range_of_something_missing_fetches_the_whole() {
    let upstream = Upstream::fixed(answer("200 OK", &["Cache-Control: max-age=60"], "0123456789"));
    let front = Setup::caching(upstream.address).start();
    let part = get(front.address, "/", &["Range: bytes=8-"]);
    assert_eq!((part.status, part.text().as_str()), (206, "89"));
    assert_eq!(upstream.last().field("range"), None);
    assert_eq!(get(front.address, "/", &[]).text(), "0123456789");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_part_is_never_taken_for_the_whole() {
    let part =
        answer("206 Partial Content", &["Cache-Control: max-age=60", "Content-Range: bytes 0-1/10"], "01");
    let upstream = Upstream::fixed(part);
    let front = Setup::caching(upstream.address).start();
    assert_eq!(get(front.address, "/", &["Range: bytes=-2"]).status, 206);
    assert_eq!(get(front.address, "/", &["Range: bytes=0-1"]).status, 206);
    assert_eq!((upstream.count(), front.cache().len()), (2, 0));
}

#[test]
fn only_if_cached_asks_nobody() {
    let upstream = Upstream::fixed(answer("200 OK", &["Cache-Control: max-age=60"], "x"));
    let front = Setup::caching(upstream.address).start();
    assert_eq!(get(front.address, "/", &["Cache-Control: only-if-cached"]).status, 504);
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_head_that_tells_of_a_change_makes_the_stored_response_unusable() {
    let upstream = Upstream::start(|seen, stream| {
        let tag = format!("ETag: \"v{}\"", seen.number.min(1));
        let mut reply = answer("200 OK", &[&tag, "Cache-Control: max-age=10, stale-if-error=1000"], "body");
        if seen.line.starts_with("HEAD") {
            reply.truncate(reply.len() - 4);
        }
        stream.write_all(&reply).unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    get(front.address, "/", &[]);
    front.later(seconds(11));
    assert_eq!(request(front.address, "HEAD", "/", &[]).field("etag").as_deref(), Some("\"v1\""));
    assert!(front.cache().is_empty());
}

#[test]
fn an_unsafe_request_that_reached_nobody_changes_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = Setup::caching(listener.local_addr().unwrap()).start();
    let origin = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream.write_all(&answer("200 OK", &["Cache-Control: max-age=60"], "page")).unwrap();
    });
    assert_eq!(get(front.address, "/", &[]).text(), "page");
    origin.join().unwrap();
    assert_eq!(request(front.address, "POST", "/", &["Content-Length: 0"]).status, 502);
    assert!(get(front.address, "/", &[]).is_hit());
}
