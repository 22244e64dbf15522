use super::*;
use crate::http::cache::key::Key;
use crate::http::cache::policy::Times;
use http::Request;

const TAG: &str = "\"v1\"";
const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const DATED: &str = "Sun, 06 Nov 1994 09:49:37 GMT";

fn head(status: u16, fields: &[(&'static str, &'static str)]) -> Head {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, HeaderValue::from_static(value));
    }
    let times = Times { sent: SystemTime::now(), received: SystemTime::now() };
    Head::new(&Key::new("http://a/"), &HeaderMap::new(), StatusCode::from_u16(status).unwrap(), map, times)
}

fn usual() -> Head {
    head(200, &[("etag", TAG), ("last-modified", MODIFIED), ("date", DATED)])
}

fn asked(fields: &[(&'static str, &'static str)]) -> Parts {
    let mut request = Request::get("/").body(()).unwrap();
    for (name, value) in fields {
        request.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    request.into_parts().0
}

#[test]
fn ranges_of_ten_bytes() {
    let table: &[(&'static str, Plan)] = &[
        ("bytes=0-0", Plan::Part(0..1)),
        ("bytes=2-4", Plan::Part(2..5)),
        ("bytes=2-", Plan::Part(2..10)),
        ("bytes=2-99", Plan::Part(2..10)),
        ("bytes=-3", Plan::Part(7..10)),
        ("bytes=-99", Plan::Part(0..10)),
        ("bytes=-0", Plan::NotSatisfiable),
        ("bytes=10-", Plan::NotSatisfiable),
        ("bytes=10-12", Plan::NotSatisfiable),
        ("bytes=99999999999999999999-", Plan::NotSatisfiable),
        ("bytes=4-2", Plan::Whole),
        ("bytes=3-4,0-1", Plan::Parts(vec![3..5, 0..2])),
        ("bytes=0-1,1-4", Plan::Part(0..5)),
        ("bytes=0-1,99-", Plan::Part(0..2)),
        ("bytes=x-1", Plan::Whole),
        ("bytes=+1-2", Plan::Whole),
        ("bytes=-", Plan::Whole),
        ("lines=0-1", Plan::Whole),
        ("bytes", Plan::Whole),
    ];
    for (range, expected) in table {
        let asked = asked(&[("range", range)]);
        assert_eq!(cut(&asked.headers, 10), *expected, "{range}");
    }
    assert_eq!(cut(&asked(&[("range", "bytes=0-")]).headers, 0), Plan::NotSatisfiable);
}

#[test]
fn conditions_in_their_order() {
    let earlier = "Sun, 06 Nov 1994 08:49:36 GMT";
    let table: &[(&[(&str, &str)], Plan)] = &[
        (&[("if-none-match", TAG)], Plan::NotModified),
        (&[("if-none-match", "\"x\", W/\"v1\"")], Plan::NotModified),
        (&[("if-none-match", "*")], Plan::NotModified),
        (&[("if-none-match", "\"x\"")], Plan::Whole),
        (&[("if-none-match", "\"x\""), ("if-modified-since", MODIFIED)], Plan::Whole),
        (&[("if-modified-since", MODIFIED)], Plan::NotModified),
        (&[("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")], Plan::NotModified),
        (&[("if-modified-since", earlier)], Plan::Whole),
        (&[("if-modified-since", "nonsense")], Plan::Whole),
        (&[("range", "bytes=1-2"), ("if-none-match", TAG)], Plan::NotModified),
        (&[("range", "bytes=1-2"), ("if-range", TAG)], Plan::Part(1..3)),
        (&[("range", "bytes=1-2"), ("if-range", "\"x\"")], Plan::Whole),
        (&[("range", "bytes=1-2"), ("if-range", "W/\"v1\"")], Plan::Whole),
        (&[("range", "bytes=1-2"), ("if-range", MODIFIED)], Plan::Part(1..3)),
        (&[("range", "bytes=1-2"), ("if-range", earlier)], Plan::Whole),
    ];
    for (request, expected) in table {
        assert_eq!(plan(&asked(request), &usual(), Some(10)), *expected, "{request:?}");
    }
    let request = asked(&[("range", "bytes=1-2"), ("if-none-match", "*")]);
    assert_eq!(plan(&request, &head(404, &[]), Some(10)), Plan::Whole, "conditions are about a 200");
    assert_eq!(plan(&asked(&[("range", "bytes=1-2")]), &usual(), None), Plan::Whole, "no length yet");
}

#[test]
fn a_date_that_may_hide_two_versions_is_no_condition_for_a_range() {
    let changing = head(200, &[("last-modified", MODIFIED), ("date", MODIFIED)]);
    let request = asked(&[("range", "bytes=1-2"), ("if-range", MODIFIED)]);
    assert_eq!(plan(&request, &changing, Some(10)), Plan::Whole);
}
