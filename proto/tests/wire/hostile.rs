//! Bytes from somebody who means harm: every decoder answers them, none panics, and none is talked into much work.

use crate::messages::{read, smallest};
use proptest::prelude::*;
use relay_proto::digest::FileHash;
use relay_proto::frame::{FrameError, FrameType, Preface, encode};
use relay_proto::limits::{MAX_HOPS, MAX_PAGE, MAX_PAYLOAD, PREFACE_LEN};
use relay_proto::route::Route;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn bytes_into_every_payload(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for frame_type in FrameType::ALL {
            let _ = read(*frame_type, &bytes);
        }
    }

    /// JSON that is nearly right gets further into the decoders than noise.
    #[test]
    fn bent_json_into_every_payload(
        at in any::<prop::sample::Index>(),
        cut in 0..4usize,
        with in proptest::collection::vec(any::<u8>(), 0..6),
    ) {
        for frame_type in FrameType::ALL {
            let mut json = smallest(*frame_type).as_bytes().to_vec();
            let at = at.index(json.len());
            let end = (at + cut).min(json.len());
            json.splice(at..end, with.iter().copied());
            let _ = read(*frame_type, &json);
        }
    }

    #[test]
    fn bytes_into_prefaces(bytes in any::<[u8; PREFACE_LEN]>(), len in 0..=PREFACE_LEN) {
        let _ = Preface::check_start(&bytes[..len]);
        if let Ok(preface) = Preface::decode(&bytes) {
            prop_assert!(preface.payload_len <= MAX_PAYLOAD);
            prop_assert_eq!(preface.encode(), bytes);
        }
    }

    #[test]
    fn bytes_into_routes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        route_or_place(&bytes);
    }

    #[test]
    fn nearly_routes(text in "(\u{feff})?[ \t]?[a#{./\"]{0,3}(\r?\n([a-z\\[:]{0,5}[: \t][0-9x]{0,6}(//)?|or)){0,5}") {
        route_or_place(text.as_bytes());
    }

    #[test]
    fn texts_into_hops_and_hashes(text in any::<String>()) {
        if let Err(error) = text.parse::<relay_proto::address::Hop>() {
            prop_assert!(text.get(error.span.clone()).is_some(), "{:?} is no part of {:?}", error.span, text);
        }
        let _ = text.parse::<FileHash>();
    }
}

/// A route, or an error whose place lies in the file and can be shown.
fn route_or_place(bytes: &[u8]) {
    if let Err(error) = Route::parse_all(bytes) {
        assert!(error.span.start <= error.span.end && error.span.end <= bytes.len(), "{error:?}");
        let (line, column) = error.line_and_column(bytes);
        assert!(line >= 1 && column >= 1);
    }
}

fn check(frame_type: FrameType, json: &str, is_good: bool) {
    let result = read(frame_type, json.as_bytes());
    assert_eq!(result.is_ok(), is_good, "{}: {json:.200}: {result:?}", frame_type.name());
}

#[test]
fn numbers_out_of_range() {
    let open = |host: &str, port: &str, silence: &str| {
        format!(
            r#"{{"hops":[{{"host":"{host}","port":{port}}}],"id":"0123456789abcdef","limits":{{"silence_ms":{silence}}}}}"#
        )
    };
    check(FrameType::Open, &open("h", "1", "0"), true);
    check(FrameType::Open, &open("h", "65535", "18446744073709551615"), true);
    for port in ["0", "-1", "65536", "1.0", "1e2", "\"1\"", "null", "18446744073709551617", "true", "[1]"] {
        check(FrameType::Open, &open("h", port, "1"), false);
    }
    for silence in ["-1", "1.5", "18446744073709551616", "1e400", "null"] {
        check(FrameType::Open, &open("h", "1", silence), false);
    }
    for host in
        ["", " ", "a b", "a/b", "ä", "::g", "[::1]", "fe80::1%eth0", "a\\u000d\\u000a", "a:1", "\\ud800"]
    {
        check(FrameType::Open, &open(host, "1", "1"), false);
    }
    check(FrameType::Open, &open(&"h".repeat(253), "1", "1"), true);
    check(FrameType::Open, &open(&"h".repeat(254), "1", "1"), false);

    let size = |size: &str| {
        format!(r#"{{"name":"a","conditions":{{"unless_same":{{"size":{size},"modified":[0,0]}}}}}}"#)
    };
    check(FrameType::Get, &size("9007199254740991"), true);
    for bad in ["9007199254740992", "-1", "1e3", "1.0"] {
        check(FrameType::Get, &size(bad), false);
    }
    let time = |time: &str| {
        format!(r#"{{"name":"a","conditions":{{"unless_same":{{"size":1,"modified":{time}}}}}}}"#)
    };
    check(FrameType::Get, &time("[-9223372036854775808,999999999]"), true);
    for bad in ["[0,1000000000]", "[0,-1]", "[9223372036854775808,0]", "[0]", "[0,0,0]", "0", "[]", "[0.5,0]"]
    {
        check(FrameType::Get, &time(bad), false);
    }
    for (status, is_good) in
        [("99", false), ("100", true), ("599", true), ("600", false), ("65736", false), ("-1", false)]
    {
        check(FrameType::Head, &format!(r#"{{"status":{status}}}"#), is_good);
    }
    for (tag, is_good) in
        [("a".repeat(64), true), ("a".repeat(65), false), (String::new(), false), ("a b".into(), false)]
    {
        let head = format!(r#"{{"status":200,"file":{{"size":1,"modified":[0,0],"entity_tag":"{tag}"}}}}"#);
        check(FrameType::Head, &head, is_good);
    }
    for (id, is_good) in
        [("0".repeat(16), true), ("0".repeat(15), false), ("0".repeat(17), false), ("g".repeat(16), false)]
    {
        check(FrameType::Open, &format!(r#"{{"hops":[],"id":"{id}","limits":{{"silence_ms":1}}}}"#), is_good);
    }
}

#[test]
fn lists_up_to_their_limit() {
    let hops = |n: usize| vec![r#"{"host":"h","port":1}"#; n].join(",");
    let open = |n| format!(r#"{{"hops":[{}],"id":"0123456789abcdef","limits":{{"silence_ms":1}}}}"#, hops(n));
    check(FrameType::Open, &open(MAX_HOPS), true);
    check(FrameType::Open, &open(MAX_HOPS + 1), false);
    let entry = r#"{"name":"a","kind":"file","size":0,"modified":[0,0]}"#;
    let page = |n: usize| format!(r#"{{"entries":[{}]}}"#, vec![entry; n].join(","));
    check(FrameType::Page, &page(MAX_PAGE), true);
    check(FrameType::Page, &page(MAX_PAGE + 1), false);
    let name = |n: usize| format!(r#"{{"name":"{}"}}"#, "a".repeat(n));
    check(FrameType::Stat, &name(4096), true);
    check(FrameType::Stat, &name(4097), false);
}

/// Nesting costs no stack: where nothing nested may stand it is refused, and where anything may stand it is skipped.
#[test]
fn deep_nesting() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let depth = 10_000;
        let value = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        for frame_type in FrameType::ALL {
            // Every field of a list has a default, so that an object of unknown fields is one.
            check(*frame_type, &value, *frame_type == FrameType::List && open.starts_with('{'));
            check(*frame_type, &open.repeat(depth), false);
            check(
                *frame_type,
                &smallest(*frame_type).replacen('{', &format!(r#"{{"new":{value},"#), 1),
                true,
            );
        }
        check(FrameType::Stat, &format!(r#"{{"name":{value}}}"#), false);
        assert!(Route::parse(format!(r#"{{"file":{value}}}"#).as_bytes()).is_err());
        assert!(Route::parse(format!(r#"{{"hops":[{value}]}}"#).as_bytes()).is_err());
    }
}

#[test]
fn a_payload_is_an_object() {
    for (frame_type, payload) in [
        (FrameType::Hello, r#"["a/1"]"#),
        (FrameType::Stat, r#" ["a"]"#),
        (FrameType::Open, r#"[[],"0123456789abcdef",[1000]]"#),
        (FrameType::Hello, r#""a""#),
        (FrameType::Hello, "null"),
        (FrameType::Hello, "  "),
        (FrameType::List, "[]"),
    ] {
        check(frame_type, payload, false);
    }
}

#[test]
fn no_field_comes_twice() {
    for frame_type in FrameType::ALL {
        let json = smallest(*frame_type);
        let first = json.trim_start_matches('{').split_once(':').expect("a field").0;
        check(*frame_type, &json.replacen('{', &format!(r#"{{{first}:null,"#), 1), false);
    }
    for route in [
        r#"{"file":"a","file":"b","hops":["h:1"]}"#,
        r#"{"file":"a","hops":["h:1"],"hops":["i:1"]}"#,
        r#"{"file":"a","hops":[{"host":"h","host":"i","port":1}]}"#,
        r#"{"file":"a","hops":[{"host":"h","port":1,"port":2}]}"#,
    ] {
        let error = Route::parse(route.as_bytes()).expect_err(route);
        assert!(error.to_string().contains("duplicate field"), "{route}: {error}");
    }
}

#[test]
fn control_bytes_are_refused_wherever_they_stand() {
    for frame_type in FrameType::ALL {
        let json = smallest(*frame_type);
        for at in 0..=json.len() {
            for byte in 0..0x20 {
                let mut bytes = json.as_bytes().to_vec();
                bytes.insert(at, byte);
                assert_eq!(
                    read(*frame_type, &bytes),
                    Err(FrameError::Control(*frame_type)),
                    "{byte} at {at}"
                );
            }
        }
        check(*frame_type, &format!("  {json}  "), true);
    }
}

/// What a machine that is no relay node may receive: the open, of which nothing is the caller's but names and numbers.
#[test]
fn an_open_never_has_a_line() {
    for host in ["a\r\nHELO b", "a\n", "\0", "a b", "GET / HTTP/1.1"] {
        assert!(relay_proto::address::Hop::new(host, 25).is_err(), "{host:?}");
    }
    let open = relay_proto::hop::Open {
        hops: vec![relay_proto::address::Hop::new("a.b-c_d", 10).expect("a hop")],
        id: relay_proto::hop::ConnectionId::new(0x0a0d_0a0d_0a0d_0a0d),
        limits: relay_proto::hop::ClientLimits::new(std::time::Duration::from_millis(0x0a0d)),
    };
    assert!(encode(&open).expect("a frame").iter().all(|b| *b >= 0x20 || *b == 1));
}
