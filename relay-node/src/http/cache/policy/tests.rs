use super::*;

/// A point to count from: Sun, 06 Nov 1994 08:49:37 GMT.
const DATE_TEXT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
}

fn at(seconds: u64) -> SystemTime {
    start() + Duration::from_secs(seconds)
}

/// Fields from lines of "name: value".
fn fields(lines: &[&str]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").expect("name: value");
        fields.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    fields
}

fn rules(request: &[&str], status: u16, response: &[&str]) -> Rules {
    let mut response = fields(response);
    if !response.contains_key(DATE) {
        response.insert(DATE, HeaderValue::from_static(DATE_TEXT));
    }
    let times = Times { sent: start(), received: start() };
    Rules::new(&fields(request), StatusCode::from_u16(status).unwrap(), &response, times)
}

#[test]
fn what_may_be_kept() {
    let table: &[(&[&str], u16, &[&str], bool)] = &[
        (&[], 200, &[], true),
        (&[], 200, &["cache-control: max-age=5"], true),
        (&[], 200, &["cache-control: no-store"], false),
        (&[], 200, &["cache-control: No-Store"], false),
        (&[], 200, &["cache-control: max-age=5", "cache-control: PRIVATE"], false),
        (&[], 200, &["cache-control: private=\"x\", max-age=5"], false),
        (&[], 200, &["cache-control: x=\"private, no-store\", max-age=5"], true),
        (&[], 200, &["cache-control: max-age=5, \u{ff}"], false),
        (&["cache-control: no-store"], 200, &["cache-control: max-age=5"], false),
        (&["authorization: Basic eA=="], 200, &["cache-control: max-age=5"], false),
        (&["authorization: Basic eA=="], 200, &["cache-control: max-age=5, no-cache"], false),
        (&["authorization: Basic eA=="], 200, &["cache-control: max-age=5, proxy-revalidate"], false),
        (&["authorization: Basic eA=="], 200, &["cache-control: max-age=5, public"], true),
        (&["authorization: Basic eA=="], 200, &["cache-control: s-maxage=5"], true),
        (&["authorization: Basic eA=="], 200, &["cache-control: max-age=5, must-revalidate"], true),
        (&[], 200, &["cache-control: max-age=5", "set-cookie: a=b"], false),
        (&[], 200, &["cache-control: max-age=5, public", "set-cookie: a=b"], true),
        (&[], 200, &["cache-control: max-age=5", "vary: *"], false),
        (&[], 200, &["cache-control: max-age=5", "vary: accept, *"], false),
        (&[], 200, &["cache-control: max-age=5", "vary: Accept"], true),
        (&[], 200, &["cache-control: max-age=5", "vary: Cookie; Accept"], false),
        (&[], 200, &["cache-control: max-age=5", "vary: Accept Cookie"], false),
        (&[], 200, &["cache-control: max-age=5", "vary: \"Cookie\""], false),
        (&[], 200, &["cache-control: max-age=5", "vary: *;x"], false),
        (&[], 200, &["cache-control: max-age=5", "vary: Accept,, Cookie"], true),
        (&[], 200, &["cache-control: private; max-age=0"], false),
        (&[], 200, &["cache-control: no-store no-cache"], false),
        (&[], 200, &["cache-control: max-age=5, \"private\""], false),
        (&[], 200, &["cache-control: max-age=5, private=\"x"], false),
        (&[], 206, &["cache-control: max-age=5"], false),
        (&[], 302, &[], false),
        (&[], 302, &["cache-control: max-age=5"], true),
        (&[], 404, &[], true),
        (&[], 500, &["cache-control: max-age=5"], false),
        (&[], 503, &["expires: Sun, 06 Nov 1994 09:49:37 GMT"], false),
        (&[], 200, &["cache-control: no-store, must-understand, max-age=5"], true),
        (&[], 299, &["cache-control: must-understand, max-age=5"], false),
    ];
    for (request, status, response, kept) in table {
        assert_eq!(
            rules(request, *status, response).is_storable(),
            *kept,
            "{request:?} {status} {response:?}"
        );
    }
}

#[test]
fn for_how_long_a_response_is_fresh() {
    let table: &[(&[&str], i64)] = &[
        (&[], 0),
        (&["cache-control: max-age=60"], 60),
        (&["cache-control: Max-Age=60"], 60),
        (&["cache-control: max-age=\"60\""], 60),
        (&["cache-control: max-age=60, s-maxage=10"], 10),
        (&["cache-control: max-age=60, no-cache"], 0),
        (&["cache-control: max-age=60, max-age=70"], 60),
        (&["cache-control: max-age=x"], 0),
        (&["cache-control: max-age=60, proxy-revalidate"], 60),
        (&["cache-control: max-age=999999999999999999999"], 1 << 31),
        (&["expires: Sun, 06 Nov 1994 08:50:37 GMT"], 60),
        (&["expires: Sunday, 06-Nov-94 08:50:37 GMT"], 60),
        (&["expires: Sun Nov  6 08:50:37 1994"], 60),
        (&["expires: 0"], 0),
        (&["expires: -1", "last-modified: Sun, 06 Nov 1994 07:49:37 GMT"], 0),
        (&["expires: Sun, 06 Nov 1994 09:49:37 GMT", "cache-control: max-age=7"], 7),
        (&["age: 20", "cache-control: max-age=60"], 40),
        (&["age: 90", "cache-control: max-age=60"], -30),
        (&["date: Sun, 06 Nov 1994 08:49:07 GMT", "cache-control: max-age=60"], 30),
        (&["date: Sun, 06 Nov 1994 08:49:07 GMT", "age: 40", "cache-control: max-age=60"], 20),
        // A tenth of the time since it was last modified, a day at most.
        (&["last-modified: Sun, 06 Nov 1994 07:49:37 GMT"], 360),
        (&["last-modified: Sun, 06 Nov 1983 08:49:37 GMT"], 24 * 3600),
        (&["last-modified: not a date"], 0),
        (&["pragma: no-cache", "last-modified: Sun, 06 Nov 1994 07:49:37 GMT"], 0),
        (&["pragma: no-cache", "cache-control: max-age=5"], 5),
    ];
    for (response, seconds) in table {
        assert_eq!(rules(&[], 200, response).seconds_to_live(start()), *seconds, "{response:?}");
    }
}

#[test]
fn the_age_counts_from_the_farthest_evidence() {
    let fresh = rules(&[], 200, &["cache-control: max-age=60", "age: 7"]);
    assert_eq!(fresh.age(at(10)).as_secs(), 17);
    let slow = Rules::new(
        &HeaderMap::new(),
        StatusCode::OK,
        &fields(&["age: 5", "date: Sun, 06 Nov 1994 08:49:37 GMT"]),
        Times { sent: start(), received: at(3) },
    );
    assert_eq!(slow.age(at(3)).as_secs(), 8);
    let hostile = rules(&[], 200, &["age: 18446744073709551615", "cache-control: max-age=60"]);
    assert_eq!(hostile.verdict(&fields(&["cache-control: max-stale"]), at(4_000_000_000)), Verdict::Fresh);
    assert!(hostile.age(at(1)).as_secs() > 700_000_000);
}

#[test]
fn what_a_stored_response_may_answer() {
    use Verdict::{Fresh, Refused, Stale, StaleWhileRevalidate};
    let table: &[(&[&str], &[&str], u64, Verdict)] = &[
        (&["cache-control: max-age=60"], &[], 59, Fresh),
        (&["cache-control: max-age=60"], &[], 60, Stale),
        (&["cache-control: max-age=60"], &["cache-control: no-cache"], 1, Refused),
        (&["cache-control: max-age=60"], &["cache-control: NO-CACHE"], 1, Refused),
        (&["cache-control: max-age=60"], &["pragma: no-cache"], 1, Refused),
        (&["cache-control: max-age=60"], &["pragma: no-cache", "cache-control: max-age=99"], 1, Fresh),
        (&["cache-control: max-age=60"], &["cache-control: max-age=5"], 6, Refused),
        (&["cache-control: max-age=60"], &["cache-control: max-age=5"], 4, Fresh),
        (&["cache-control: max-age=60"], &["cache-control: max-age=0"], 1, Refused),
        (&["cache-control: max-age=60"], &["cache-control: min-fresh=30"], 29, Fresh),
        (&["cache-control: max-age=60"], &["cache-control: min-fresh=30"], 31, Refused),
        (&["cache-control: max-age=60"], &["cache-control: max-stale"], 600, Fresh),
        (&["cache-control: max-age=60"], &["cache-control: max-stale=10"], 65, Fresh),
        (&["cache-control: max-age=60"], &["cache-control: max-stale=10"], 75, Stale),
        (&["cache-control: max-age=60, must-revalidate"], &["cache-control: max-stale"], 61, Stale),
        (&["cache-control: max-age=60, proxy-revalidate"], &["cache-control: max-stale"], 61, Stale),
        (&["cache-control: max-age=60, proxy-revalidate"], &[], 59, Fresh),
        (&["cache-control: s-maxage=60"], &["cache-control: max-stale"], 61, Stale),
        (&["cache-control: s-maxage=60, stale-while-revalidate=30"], &[], 61, Stale),
        (&["cache-control: max-age=60"], &["cache-control: no-cache; x"], 1, Refused),
        (&["cache-control: max-age=60"], &["cache-control: max-stale, x y"], 61, Refused),
        (&["cache-control: no-cache"], &["cache-control: max-stale"], 1, Stale),
        (&["cache-control: no-cache, max-age=60"], &[], 1, Stale),
        (&["cache-control: max-age=60, stale-while-revalidate=30"], &[], 89, StaleWhileRevalidate),
        (&["cache-control: max-age=60, stale-while-revalidate=30"], &[], 91, Stale),
        (&["cache-control: max-age=60, stale-while-revalidate=30, must-revalidate"], &[], 61, Stale),
        (
            &["cache-control: max-age=60, stale-while-revalidate=30"],
            &["cache-control: no-cache"],
            61,
            Refused,
        ),
        (
            &["cache-control: max-age=60, stale-while-revalidate=30"],
            &["cache-control: max-age=70"],
            65,
            Refused,
        ),
    ];
    for (response, request, when, verdict) in table {
        let found = rules(&[], 200, response).verdict(&fields(request), at(*when));
        assert_eq!(found, *verdict, "{response:?} {request:?} after {when} s");
    }
}

#[test]
fn who_may_stand_in_for_a_broken_origin() {
    let table: &[(&[&str], &[&str], u64, bool)] = &[
        (&["cache-control: max-age=60"], &[], 61, false),
        (&["cache-control: max-age=60, stale-if-error=30"], &[], 89, true),
        (&["cache-control: max-age=60, stale-if-error=30"], &[], 91, false),
        (&["cache-control: max-age=60"], &["cache-control: stale-if-error=30"], 89, true),
        (&["cache-control: max-age=60, must-revalidate, stale-if-error=30"], &[], 61, false),
        (&["cache-control: no-cache, stale-if-error=30"], &[], 1, false),
        (&["cache-control: s-maxage=60, stale-if-error=30"], &[], 61, false),
        (&["cache-control: s-maxage=60"], &["cache-control: stale-if-error=30"], 61, false),
    ];
    for (response, request, when, allowed) in table {
        let found = rules(&[], 200, response).may_stand_in(&fields(request), at(*when));
        assert_eq!(found, *allowed, "{response:?} {request:?} after {when} s");
    }
}

#[test]
fn requests_are_told_apart_by_what_vary_names() {
    let response = fields(&["vary: Accept-Encoding, accept-language", "vary: x-none"]);
    let asked = fields(&["accept-encoding: gzip,  br", "accept-language: de"]);
    let selecting = selecting_fields(&asked, &response);
    assert_eq!(selecting.len(), 3);
    let table: &[(&[&str], bool)] = &[
        (&["accept-encoding: gzip, br", "accept-language: de"], true),
        (&["accept-encoding: gzip", "accept-encoding: br", "accept-language: de", "accept: x"], true),
        (&["accept-encoding: gzip", "accept-language: de"], false),
        (&["accept-encoding: gzip, br"], false),
        (&["accept-encoding: gzip, br", "accept-language: de", "x-none: 1"], false),
    ];
    for (request, same) in table {
        assert_eq!(selects(&selecting, &fields(request)), *same, "{request:?}");
    }
}

#[test]
fn fields_that_are_no_lists_are_compared_by_their_bytes() {
    type Lines<'a> = &'a [&'a [u8]];
    let says = |name: &'static str, lines: Lines<'_>| {
        let mut fields = HeaderMap::new();
        for line in lines {
            fields.append(name, HeaderValue::from_bytes(line).unwrap());
        }
        fields
    };
    let table: &[(&str, Lines<'_>, Lines<'_>, bool)] = &[
        ("cookie", &[b"s=\xe4"], &[b"s=\xe4"], true),
        ("cookie", &[b"s=\xe4"], &[b"s=\xf6"], false),
        ("cookie", &[b"\"a , b\""], &[b"\"a,b\""], false),
        ("cookie", &[b"a , b"], &[b"a,b"], false),
        ("cookie", &[b"a,b"], &[b"a", b"b"], false),
        ("accept", &[b"a , b"], &[b"a", b"b"], true),
        ("accept", &[b"a;x=\"c , d\" ,b"], &[b"a;x=\"c,d\",b"], false),
        ("accept", &[b"a;x=\"c , d\" ,b"], &[b"a;x=\"c , d\",b"], true),
        ("accept", &[b"a,\xa0b"], &[b"a,b"], false),
    ];
    for (name, one, other, same) in table {
        let name_found = HeaderName::from_static(name);
        assert_eq!(
            said_the_same(&says(name, one), &says(name, other), &name_found),
            *same,
            "{one:?} {other:?}"
        );
    }
}

#[test]
fn what_could_be_used_without_asking() {
    for (response, usable) in [
        (&["cache-control: max-age=9"][..], true),
        (&["expires: Sun, 06 Nov 1994 08:50:37 GMT"], true),
        (&[], false),
        (&["cache-control: max-age=0"], false),
        (&["cache-control: max-age=9", "age: 9"], false),
        (&["cache-control: no-cache, max-age=9"], false),
        (&["cache-control: max-age=0, stale-while-revalidate=9"], true),
        (&["cache-control: max-age=0, stale-if-error=9"], true),
        (&["cache-control: max-age=0, must-revalidate, stale-if-error=9"], false),
    ] {
        assert_eq!(rules(&[], 200, response).is_ever_usable(), usable, "{response:?}");
    }
}

#[test]
fn a_clock_that_was_set_back_makes_nothing_young() {
    let rules = rules(&[], 200, &["cache-control: max-age=600"]);
    let before = |seconds| start() - Duration::from_secs(seconds);
    for (now, is_fresh) in [
        (at(599), true),
        (at(600), false),
        (before(59), true),
        (before(61), false),
        (before(100_000_000), false),
    ] {
        assert_eq!(rules.verdict(&fields(&[]), now) == Verdict::Fresh, is_fresh, "{now:?}");
        assert_eq!(rules.seconds_to_live(now) > 0, is_fresh, "{now:?}");
    }
}
