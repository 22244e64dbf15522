//! Nothing that passes through the proxy is ever held whole in memory, whoever is slow.
#![cfg(target_os = "linux")]

use super::raw_http::{PATIENCE, connect, lines};
use super::scripted_upstream::Upstream;
use relay_testkit::node::Node;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Far more than the system's buffers between three sockets hold.
const LENGTH: u64 = 400 << 20;

/// What the node may take besides, in KiB.
const ROOM: u64 = 32 << 10;

fn front(upstream: &str, more: &[&str]) -> (TempDir, Node) {
    let root = TempDir::new().unwrap();
    let node = Node::start_with(root.path(), &[&["--upstream", upstream], more].concat());
    (root, node)
}

/// Writes until all is written or nobody takes it any more.
fn pour(stream: &mut TcpStream, poured: &AtomicU64) {
    let piece = vec![7; 1 << 20];
    while poured.load(Ordering::SeqCst) < LENGTH && stream.write_all(&piece).is_ok() {
        poured.fetch_add(piece.len() as u64, Ordering::SeqCst);
    }
}

fn pouring() -> (Upstream, Arc<AtomicU64>) {
    let poured = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&poured);
    let upstream = Upstream::start(move |_, stream| {
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\nCache-Control: max-age=60\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        pour(stream, &counter);
    });
    (upstream, poured)
}

/// Waits until nothing moves any more, and returns how much did.
fn at_rest(poured: &AtomicU64) -> u64 {
    let (began, mut last, mut since) = (Instant::now(), 0, Instant::now());
    loop {
        let now = poured.load(Ordering::SeqCst);
        if now != last {
            (last, since) = (now, Instant::now());
        } else if now > 0 && since.elapsed() > Duration::from_secs(1) {
            return now;
        }
        assert!(began.elapsed() < 2 * PATIENCE, "it never comes to rest");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until all of it is taken, however long a busy disk needs for it.
fn until_all(poured: &AtomicU64) {
    let (mut last, mut since) = (0, Instant::now());
    while last < LENGTH {
        let now = poured.load(Ordering::SeqCst);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < PATIENCE, "a client that does not read holds up the fetch");
        thread::sleep(Duration::from_millis(20));
    }
}

fn assert_small(node: &Node, before: u64) {
    let now = node.resident_kib().unwrap();
    assert!(now < before + ROOM, "{before} KiB have become {now} KiB");
}

fn ask(node: &Node) -> TcpStream {
    let mut client = connect(node.address());
    client.write_all(lines(&["GET / HTTP/1.1", "Host: a", "Connection: close"]).as_bytes()).unwrap();
    client
}

#[test]
fn an_answer_waits_at_the_upstream_for_a_client_that_does_not_read() {
    let (upstream, poured) = pouring();
    let (_root, node) = front(&format!("http://{}", upstream.address), &[]);
    let before = node.resident_kib().unwrap();
    let _client = ask(&node);
    assert!(at_rest(&poured) < LENGTH, "the upstream is not held back");
    assert_small(&node, before);
}

#[test]
fn an_answer_for_the_cache_waits_on_the_disk() {
    let (upstream, poured) = pouring();
    let cache = TempDir::new().unwrap();
    let options = ["--cache-dir", cache.path().to_str().unwrap(), "--cache-size", "1GiB"];
    let (_root, node) = front(&format!("http://{}", upstream.address), &options);
    let before = node.resident_kib().unwrap();
    let mut client = ask(&node);
    until_all(&poured);
    assert_small(&node, before);
    let read = std::io::copy(&mut client, &mut std::io::sink()).unwrap();
    assert!(read > LENGTH, "{read}");
    assert_small(&node, before);
}

#[test]
fn a_request_waits_at_its_client_for_an_upstream_that_does_not_read() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_root, node) = front(&format!("http://{}", listener.local_addr().unwrap()), &[]);
    let before = node.resident_kib().unwrap();
    let poured = Arc::new(AtomicU64::new(0));
    let mut client = connect(node.address());
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
    client.write_all(head.as_bytes()).unwrap();
    let counter = Arc::clone(&poured);
    let mut pouring = client.try_clone().unwrap();
    thread::spawn(move || pour(&mut pouring, &counter));
    let (mut upstream, _) = listener.accept().unwrap();
    upstream.read_exact(&mut [0; 10]).unwrap();
    assert!(at_rest(&poured) < LENGTH, "the client is not held back");
    assert_small(&node, before);
}
