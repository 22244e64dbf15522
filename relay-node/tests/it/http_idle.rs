//! Connections that idle: little memory while they do, and everything back when they end.
#![cfg(target_os = "linux")]

use super::raw_http::{PATIENCE, connect};
use relay_link::platform::descriptors::raise_limit;
use relay_testkit::node::Node;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MANY: u64 = 800;

/// In KiB, of a node that is not optimised; a released one takes about a quarter.
const MOST_EACH: u64 = 12;

fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited too long: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn idle_connections_are_small_and_give_their_descriptors_back() {
    // The node raises its own; this is for the clients.
    raise_limit(0).unwrap();
    let root = TempDir::new().unwrap();
    std::fs::write(root.path().join("a"), "hello").unwrap();
    let node = Node::start_with(root.path(), &["--request-timeout", "1h", "--keep-alive-timeout", "1h"]);
    let descriptors = || node.open_descriptors().unwrap() as u64;
    let each = |before: u64| node.resident_kib().unwrap().saturating_sub(before) / MANY;
    let few = descriptors();
    // What the first connection needs once and for all is not counted.
    drop(asked(connect(node.address())));
    until("the first is closed", || descriptors() <= few);
    let before = node.resident_kib().unwrap();
    let clients: Vec<TcpStream> = (0..MANY).map(|_| connect(node.address())).collect();
    until("all are accepted", || descriptors() >= few + MANY);
    assert!(each(before) <= MOST_EACH, "{} KiB before a request", each(before));
    let clients: Vec<TcpStream> = clients.into_iter().map(asked).collect();
    assert!(each(before) <= MOST_EACH, "{} KiB after one", each(before));
    drop(clients);
    until("all descriptors are back", || descriptors() <= few);
}

fn asked(mut client: TcpStream) -> TcpStream {
    client.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    let mut piece = [0; 1024];
    while !seen.ends_with(b"hello") {
        let read = client.read(&mut piece).unwrap();
        assert!(read > 0, "closed too early");
        seen.extend_from_slice(&piece[..read]);
    }
    client
}
