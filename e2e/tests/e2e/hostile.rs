//! A node stands whatever is said to it: it answers or closes within its limit, writes a line, and serves the next.

use crate::raw::{End, Raw, open};
use crate::world::{World, hops};
use relay_proto::code::{FailureCode, Status};
use relay_proto::file::{Head, Stat};
use relay_proto::frame::{FrameType, Preface, encode};
use relay_proto::hop::{Failed, Hello};
use relay_proto::limits::{MAX_PAYLOAD, PREFACE_LEN};
use relay_testkit::node::Node;
use relay_testkit::proxy::{Direction, FaultProxy, Plan};
use std::time::Duration;

/// The node still answers a whole exchange.
fn still_serves(node: &Node) {
    let mut raw = Raw::open(node.address(), &[]);
    raw.hear::<Hello>();
    raw.say(&Stat { name: "myfile".try_into().expect("a name") });
    assert_eq!(raw.hear::<Head>().status, Status::OK);
}

fn served() -> (World, Node) {
    let world = World::new();
    world.offer("myfile", 1000);
    let node = world.origin_with(&["--request-timeout", "1s"]);
    (world, node)
}

fn preface(frame_type: FrameType, payload_len: usize) -> [u8; PREFACE_LEN] {
    Preface { frame_type, payload_len }.encode()
}

#[test]
fn an_open_that_cannot_be_read_is_a_bad_request() {
    let (_world, node) = served();
    let open = encode(&open(&[])).expect("a frame");
    let changed = |at: usize, byte: u8| {
        let mut bytes = open.clone();
        bytes[at] = byte;
        bytes
    };
    let with_payload = |payload: &[u8]| [&preface(FrameType::Open, payload.len()), payload].concat();
    for (bytes, reason) in [
        (changed(1, b'X'), "first bytes"),
        (changed(4, 2), "version 2"),
        (changed(4, 0xff), "version 255"),
        (changed(5, b'z'), "unknown frame type"),
        (changed(6, 0), "top bit"),
        (preface(FrameType::Open, MAX_PAYLOAD + 1).to_vec(), "at most 65536"),
        (preface(FrameType::Open, (1 << 21) - 1).to_vec(), "at most 65536"),
        (
            encode(&Stat { name: "myfile".try_into().expect("a name") }).expect("a frame"),
            "a stat frame where open must come",
        ),
        (encode(&Hello { agent: "x".into() }).expect("a frame"), "a hello frame where open must come"),
        (with_payload(b"{}"), "missing field"),
        (with_payload(b""), "cannot be read"),
        (with_payload(&[b'['; 60_000]), "cannot be read"),
        (with_payload(&[0xff; 100]), "cannot be read"),
        (with_payload(b"{\"hops\":[],\n"), "control character"),
        (
            with_payload(
                br#"{"hops":[{"host":"a\r\nb","port":1}],"id":"0123456789abcdef","limits":{"silence_ms":1}}"#,
            ),
            "a host has only",
        ),
    ] {
        let mut raw = Raw::connect(node.address());
        raw.write(&bytes);
        let failed: Failed = raw.hear();
        assert_eq!(failed.code, FailureCode::BadRequest, "{reason}");
        assert!(failed.message.contains(reason), "no {reason:?} in {:?}", failed.message);
        assert_eq!(failed.next, None);
        assert_eq!(raw.rest(), (Vec::new(), End::Orderly), "the message is not lost to a reset");
        node.wait_for_log(reason);
    }
    still_serves(&node);
}

#[test]
fn a_request_that_cannot_be_read_is_a_400() {
    let (_world, node) = served();
    for bytes in [
        b"\xf5RLX".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        encode(&open(&[])).expect("a frame"),
        encode(&Head::only(Status::OK, "")).expect("a frame"),
        [&preface(FrameType::Get, 2)[..], b"{}"].concat(),
        preface(FrameType::Get, MAX_PAYLOAD + 1).to_vec(),
    ] {
        let mut raw = Raw::open(node.address(), &[]);
        raw.hear::<Hello>();
        raw.write(&bytes);
        assert_eq!(raw.hear::<Head>().status, Status::BAD_REQUEST, "{bytes:?}");
        assert_eq!(raw.rest(), (Vec::new(), End::Orderly));
    }
    still_serves(&node);
}

/// A good request in front of a bad one is still answered.
#[test]
fn what_came_before_a_bad_request_is_answered() {
    let (_world, node) = served();
    let mut raw = Raw::open(node.address(), &[]);
    raw.hear::<Hello>();
    let stat = Stat { name: "myfile".try_into().expect("a name") };
    raw.write(&[encode(&stat).expect("a frame"), b"garbage".to_vec()].concat());
    assert_eq!(raw.hear::<Head>().status, Status::OK);
    assert_eq!(raw.hear::<Head>().status, Status::BAD_REQUEST);
}

#[test]
fn frames_that_end_too_early() {
    let (_world, node) = served();
    let open = encode(&open(&[])).expect("a frame");
    for cut in [1, 4, PREFACE_LEN - 1, PREFACE_LEN, PREFACE_LEN + 1, open.len() - 1] {
        let mut raw = Raw::connect(node.address());
        raw.write(&open[..cut]);
        raw.end_writing();
        let (_, end) = raw.rest();
        assert_eq!(end, End::Orderly, "cut at {cut}");
    }
    for cut in [1, 4] {
        let mut raw = Raw::connect(node.address());
        raw.write(&open[..cut]);
        raw.reset();
    }
    still_serves(&node);
}

#[test]
fn an_open_that_never_ends_is_told_so_in_time() {
    let (_world, node) = served();
    let open = encode(&open(&[])).expect("a frame");
    for cut in [1, 5, PREFACE_LEN, open.len() - 1] {
        let mut raw = Raw::connect(node.address());
        raw.write(&open[..cut]);
        let failed: Failed = raw.hear();
        assert_eq!(failed.code, FailureCode::TimedOut, "after {cut} bytes");
        assert_eq!(raw.rest().1, End::Orderly);
    }
    still_serves(&node);
}

#[test]
fn a_connection_that_says_nothing_gets_a_408() {
    let (_world, node) = served();
    let mut raw = Raw::connect(node.address());
    let (bytes, end) = raw.rest();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("HTTP/1.1 408 "), "{text:?}");
    assert_eq!(end, End::Orderly);
    still_serves(&node);
}

#[test]
fn a_pipe_without_a_request_gets_a_408_in_its_own_layer() {
    let world = World::new();
    let node = world.origin_with(&["--keep-alive-timeout", "1s"]);
    let mut raw = Raw::open(node.address(), &[]);
    raw.hear::<Hello>();
    assert_eq!(raw.hear::<Head>().status, Status::REQUEST_TIMEOUT);
    assert_eq!(raw.rest(), (Vec::new(), End::Orderly));
}

#[test]
fn frames_a_byte_at_a_time() {
    let world = World::new();
    let bytes = world.offer("myfile", 300);
    let nodes = world.chain(1);
    let drip = || Direction::drip(Duration::from_micros(100));
    let between = FaultProxy::start(nodes[1].address(), Plan { up: drip(), down: drip() });
    let before = FaultProxy::start(nodes[0].address(), Plan { up: drip(), down: drip() });
    let finished = world.fetch("myfile", &[before.hop(), between.hop()], &[]);
    world.check_saved(&finished, "myfile", &bytes);
}

#[test]
fn more_hops_than_the_node_takes() {
    let world = World::new();
    let relay = world.relay_with(&["--max-hops", "2"]);
    let route: Vec<String> = std::iter::repeat_n(relay.hop(), 5).collect();
    let finished = world.fetch("f", &route, &[]);
    world.check_failed(&finished, "f", 4, &[&format!("hop 1 ({}): too many hops", relay.hop()), "at most 2"]);
}

/// A text from afar must not reach a terminal with its escapes.
#[test]
fn a_hostile_message_is_cleaned() {
    let world = World::new();
    let stage = crate::raw::Stage::new();
    let client = world.start_fetch("f", &[stage.address().to_string()], &[]);
    let mut raw = stage.accept();
    raw.hear::<relay_proto::hop::Open>();
    let payload =
        br#"{"code":"denied","message":"\u001b]0;owned\u0007\u202etext \u2066x\r\nerror: fake line"}"#;
    raw.write(&[&preface(FrameType::Failed, payload.len()), &payload[..]].concat());
    drop(raw);
    let finished = client.finish();
    assert!(finished.stderr.contains("text x error: fake line"), "{}", finished.stderr);
    assert!(
        !finished.stderr.chars().any(|c| c != '\n' && relay_proto::text::is_unsafe(c)),
        "{:?}",
        finished.stderr
    );
    assert_eq!(finished.code, Some(4));
}

/// After all of it, through a node of a chain, a client still gets its file.
#[test]
fn garbage_of_every_length_beside_a_transfer() {
    let world = World::new();
    let bytes = world.offer("myfile", 2_000_000);
    let nodes = world.chain(1);
    let garbage = relay_testkit::files::sample_bytes("garbage", 4096);
    for len in [0, 1, 3, 9, 10, 100, 4096] {
        for first in [0xf5, b'G', 0x16, 0x00] {
            let mut raw = Raw::connect(nodes[0].address());
            let mut bytes = garbage[..len].to_vec();
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            // The node may have refused it in the middle.
            let _ = std::io::Write::write_all(&mut raw.0, &bytes);
        }
    }
    let finished = world.fetch("myfile", &hops(&nodes), &[]);
    world.check_saved(&finished, "myfile", &bytes);
}

/// Whoever asks for names without end gets answers, and not the disk of the log.
#[test]
fn log_lines_about_one_peers_requests_are_short_and_few() {
    let world = World::new();
    let origin = world.origin();
    let asked = 2_000;
    let name = "\u{7f}x".repeat(2_048);
    let mut raw = Raw::open(origin.address(), &[]);
    raw.hear::<Hello>();
    for _ in 0..asked / 20 {
        for _ in 0..20 {
            raw.say(&Stat { name: name.as_str().try_into().expect("a name") });
        }
        for _ in 0..20 {
            assert_eq!(raw.hear::<Head>().status, Status::NOT_FOUND);
        }
    }
    drop(raw);
    origin.wait_for_log("role=origin");
    let text = origin.process().text();
    let lines: Vec<&str> = text.lines().collect();
    let left_out: usize =
        lines.iter().filter(|line| line.contains("were left out")).map(|line| number(line)).sum();
    let written = lines.iter().filter(|line| line.contains("not offered")).count();
    assert_eq!(written + left_out, asked);
    assert!(left_out > 0, "{written} lines");
    assert!(lines.iter().all(|line| line.len() < 1_000), "{:?}", lines.iter().map(|line| line.len()).max());
}

/// The value of `lines=`, among codes for colours perhaps.
fn number(line: &str) -> usize {
    let (_, value) = line.split_once("lines=").expect("a count");
    value
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .and_then(|digits| digits.parse().ok())
        .expect("a number")
}
