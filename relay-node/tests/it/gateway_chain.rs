//! A browser's download through a chain of real nodes.

use super::cache_ranges::assert_parts;
use super::proxy_front::Setup;
use super::raw_http::{connect, get, request};
use relay_proto::route::Route;
use relay_testkit::files::write_sample;
use relay_testkit::nobody::Nobody;
use relay_testkit::node::Node;
use relay_testkit::proxy::{Fault, FaultProxy, Plan};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A relay and an origin, with a file of a bit over two chunks.
struct Chain {
    root: TempDir,
    relay: Node,
    origin: Node,
    body: Vec<u8>,
}

impl Chain {
    fn start() -> Self {
        let root = TempDir::new().unwrap();
        let body = write_sample(&root.path().join("file.bin"), "gateway", 2_500_000);
        std::fs::create_dir(root.path().join("dir")).unwrap();
        std::fs::write(root.path().join("dir/a b.txt"), "hello").unwrap();
        std::fs::write(root.path().join("empty"), "").unwrap();
        let (relay, origin) = (Node::start(root.path()), Node::start(root.path()));
        Self { root, relay, origin, body }
    }

    fn route(&self) -> Route {
        route(&[&self.relay.hop(), &self.origin.hop()])
    }

    fn gateway(&self, cache: bool) -> Setup {
        Setup { gateway: Some(self.route()), cache_size: cache.then_some(1 << 30), ..Setup::default() }
    }
}

fn route(hops: &[&str]) -> Route {
    Route::parse(format!("any\n{}\n", hops.join("\n")).as_bytes()).unwrap()
}

#[test]
fn a_file_comes_through_the_chain_whole_and_in_parts() {
    let chain = Chain::start();
    for cache in [false, true] {
        let front = chain.gateway(cache).start();
        let whole = get(front.address, "/file.bin", &[]);
        assert_eq!((whole.status, whole.field("content-length").as_deref()), (200, Some("2500000")));
        assert!(whole.body == chain.body);
        let tag = whole.field("etag").unwrap();
        assert!(whole.field("last-modified").is_some());
        let head = request(front.address, "HEAD", "/file.bin", &[]);
        assert_eq!((head.status, head.field("content-length").as_deref()), (200, Some("2500000")));
        assert_eq!(head.field("etag").as_ref(), Some(&tag));
        assert_eq!(get(front.address, "/dir/a%20b.txt", &[]).text(), "hello");
        let empty = get(front.address, "/empty", &[]);
        assert_eq!((empty.status, empty.body.len()), (200, 0));
        // Ranges over the border of a chunk, of the end, and beyond it.
        for (range, part, named) in [
            ("bytes=1048570-1048590", 1_048_570..1_048_591, "bytes 1048570-1048590/2500000"),
            ("bytes=-5", 2_499_995..2_500_000, "bytes 2499995-2499999/2500000"),
            ("bytes=2499999-", 2_499_999..2_500_000, "bytes 2499999-2499999/2500000"),
            ("bytes=0-0", 0..1, "bytes 0-0/2500000"),
        ] {
            let answer = get(front.address, "/file.bin", &[&format!("Range: {range}")]);
            assert_eq!(
                (answer.status, answer.field("content-range").as_deref()),
                (206, Some(named)),
                "{range}"
            );
            assert!(answer.body == chain.body[part], "{range}");
        }
        let several = get(front.address, "/file.bin", &["Range: bytes=1048575-1048576,-2"]);
        if cache {
            assert_parts(&several, &chain.body, &[1_048_575..1_048_577, 2_499_998..2_500_000]);
        } else {
            assert!(several.status == 200 && several.body == chain.body);
        }
        let beyond = get(front.address, "/file.bin", &["Range: bytes=2500000-"]);
        assert_eq!((beyond.status, beyond.field("content-range").as_deref()), (416, Some("bytes */2500000")));
        assert!(
            beyond.field("etag").is_none() && beyond.field("last-modified").is_none(),
            "those of the file"
        );
        assert!(beyond.whole && beyond.text().contains("no such part"), "{}", beyond.text());
        // Conditions.
        assert_eq!(get(front.address, "/file.bin", &[&format!("If-None-Match: {tag}")]).status, 304);
        assert_eq!(get(front.address, "/file.bin", &[&format!("If-None-Match: \"x\", {tag}")]).status, 304);
        let other = get(front.address, "/dir/a%20b.txt", &["If-Match: \"x\"", "Accept: application/json"]);
        assert!(other.status == 412 && other.text().starts_with("{\"status\":412,"), "{}", other.text());
        let other = request(front.address, "HEAD", "/dir/a%20b.txt", &["If-Match: \"x\""]);
        assert!(other.status == 412 && other.body.is_empty());
        assert_eq!(get(front.address, "/dir/a%20b.txt", &[&format!("If-None-Match: {tag}")]).status, 200);
        let changed = get(front.address, "/file.bin", &["Range: bytes=0-0", "If-Range: \"x\""]);
        assert!(changed.status == 200 && changed.body == chain.body);
        // What there is not.
        let missing = get(front.address, "/missing", &[]);
        assert_eq!(missing.status, 404);
        assert!(missing.text().contains(&chain.origin.hop()), "{}", missing.text());
        assert_eq!(get(front.address, "/..%2fsecret", &[]).status, 404);
        assert_eq!(get(front.address, "/%zz", &[]).status, 400);
        let posted = request(front.address, "POST", "/file.bin", &["Content-Length: 0"]);
        assert_eq!((posted.status, posted.field("allow").as_deref()), (405, Some("GET, HEAD")));
    }
}

#[test]
fn a_stored_file_is_confirmed_and_a_changed_one_fetched_anew() {
    let chain = Chain::start();
    let front = chain.gateway(true).start();
    assert!(get(front.address, "/file.bin", &[]).body == chain.body);
    let confirmed = get(front.address, "/file.bin", &[]);
    assert!(confirmed.body == chain.body);
    assert!(confirmed.cache_status().contains("fwd=stale; fwd-status=304"), "{}", confirmed.cache_status());
    std::fs::write(chain.root.path().join("file.bin"), "now another").unwrap();
    assert_eq!(get(front.address, "/file.bin", &[]).text(), "now another");
}

#[test]
fn the_hop_that_fails_is_named() {
    let chain = Chain::start();
    let closed = Nobody::new();
    let nobody = closed.hop();
    for (hops, failing) in
        [(vec![nobody.clone()], "hop 1"), (vec![chain.relay.hop(), nobody.clone()], "hop 2")]
    {
        let hops: Vec<&str> = hops.iter().map(String::as_str).collect();
        let front = Setup { gateway: Some(route(&hops)), ..Setup::default() }.start();
        let answer = get(front.address, "/file.bin", &[]);
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert!(answer.text().contains(&format!("{failing} ({nobody})")), "{}", answer.text());
        assert!(answer.text().contains("connection refused"), "{}", answer.text());
    }
    // A hop that accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hop = silent.local_addr().unwrap().to_string();
    let limits = relay_node::http::proxy_dial::ProxyLimits {
        silence: std::time::Duration::from_millis(500),
        ..Default::default()
    };
    let front = Setup { gateway: Some(route(&[&hop])), limits, ..Setup::default() }.start();
    let answer = get(front.address, "/file.bin", &[]);
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(answer.text().contains(&format!("hop 1 ({hop})")), "{}", answer.text());
}

#[test]
fn requests_follow_one_another_on_one_pipe() {
    let chain = Chain::start();
    let middle = FaultProxy::start(chain.relay.address(), Plan::pass());
    let way = route(&[&middle.hop(), &chain.origin.hop()]);
    let front = Setup { gateway: Some(way), ..Setup::default() }.start();
    let began = Instant::now();
    let whole = get(front.address, "/file.bin", &[]);
    assert!(whole.body == chain.body);
    let tag = whole.field("etag").unwrap();
    assert_eq!(request(front.address, "HEAD", "/file.bin", &[]).status, 200);
    assert_eq!(get(front.address, "/file.bin", &[&format!("If-None-Match: {tag}")]).status, 304);
    assert_eq!(get(front.address, "/missing", &[]).status, 404);
    assert!(get(front.address, "/file.bin", &["Range: bytes=1048570-1048590"]).body.len() == 21);
    assert_eq!(get(front.address, "/file.bin", &["Range: bytes=9999999-"]).status, 416);
    assert_eq!(get(front.address, "/dir/a%20b.txt", &[]).text(), "hello");
    // On a machine that slept in between a pipe may have been kept for long enough.
    if began.elapsed() < Duration::from_secs(4) {
        assert_eq!(middle.seen().len(), 1, "connections");
    }
    // One that ended meanwhile is found out, and nobody notices.
    middle.reset_all();
    assert_eq!(get(front.address, "/dir/a%20b.txt", &[]).text(), "hello");
    // One that is not used any more is closed.
    middle.wait_for("end of every pipe", |seen| seen.iter().all(|pipe| pipe.ended));
    assert_eq!(get(front.address, "/dir/a%20b.txt", &[]).text(), "hello");
}

#[test]
fn a_reader_that_leaves_early_takes_its_pipe_along() {
    let chain = Chain::start();
    let middle = FaultProxy::start(chain.relay.address(), Plan::pass());
    let way = route(&[&middle.hop(), &chain.origin.hop()]);
    let front = Setup { gateway: Some(way), ..Setup::default() }.start();
    for _ in 0..3 {
        let mut stream = connect(front.address);
        stream.write_all(b"GET /file.bin HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 1000]).unwrap();
        drop(stream);
        // What comes over the next pipe is the next answer, and nothing of the one before.
        assert_eq!(get(front.address, "/dir/a%20b.txt", &[]).text(), "hello");
        assert!(get(front.address, "/file.bin", &[]).body == chain.body);
    }
}

#[test]
fn what_is_damaged_or_cut_on_the_way_is_neither_whole_nor_stored() {
    let chain = Chain::start();
    for fault in [Fault::FlipBit(3), Fault::Reset] {
        let middle = FaultProxy::start(chain.origin.address(), Plan::down(1_800_000, fault));
        let route = route(&[&chain.relay.hop(), &middle.hop()]);
        let front = Setup { gateway: Some(route), cache_size: Some(1 << 30), ..Setup::default() }.start();
        let answer = get(front.address, "/file.bin", &[]);
        assert_eq!(answer.status, 200);
        assert!(!answer.whole && chain.body.starts_with(&answer.body));
        // At most the one good chunk: the reset may have overtaken its end.
        assert!(answer.body.len() <= 1 << 20);
        assert!(front.cache().is_empty());
    }
}
