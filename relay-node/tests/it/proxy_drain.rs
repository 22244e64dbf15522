//! The real program is told to end while tunnels are open and responses are on their way.

use super::raw_http::{PATIENCE, connect, get, lines};
use super::scripted_upstream::{Upstream, answer};
use relay_testkit::node::Node;
use relay_testkit::process::{Finished, Signal};
use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LENGTH: usize = 2_000_000;

fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut out = stream.try_clone().unwrap();
                drop(std::io::copy(&mut &stream, &mut out));
            });
        }
    });
    address
}

/// A node that is a forward proxy, and an open tunnel through it that has carried a byte.
fn tunnel(drain: &str) -> (TempDir, Node, TcpStream) {
    let (root, target) = (TempDir::new().unwrap(), echo().to_string());
    let options = ["--forward-proxy", "--allow-proxy", &target, "--drain", drain];
    let node = Node::start_with(root.path(), &options);
    let mut stream = connect(node.address());
    stream.write_all(lines(&[&format!("CONNECT {target} HTTP/1.1"), "Host: a"]).as_bytes()).unwrap();
    let (status, _) =
        super::raw_http::read_head(&mut BufReader::with_capacity(1, stream.try_clone().unwrap()));
    assert_eq!(status, 200);
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    (root, node, stream)
}

fn terminated(node: Node) -> Finished {
    node.process().signal(Signal::Terminate);
    node.into_process().finish()
}

#[test]
fn a_silent_tunnel_does_not_hold_up_the_nodes_end() {
    let (_root, node, mut stream) = tunnel("1h");
    let ended = terminated(node);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("a silent tunnel was closed"), "{}", ended.stderr);
    assert!(ended.stdout_text().contains("all 1 open connections ended in order"), "{}", ended.stdout_text());
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "an end, no reset");
}

#[test]
fn a_tunnel_in_use_goes_on_until_the_drain_limit() {
    let (_root, node, mut stream) = tunnel("3s");
    node.process().signal(Signal::Terminate);
    node.wait_for_log("stopping");
    let stopped = Instant::now();
    let mut byte = [0];
    while stream.write_all(b"x").is_ok() && stream.read_exact(&mut byte).is_ok() {
        assert!(stopped.elapsed() < PATIENCE, "it is never cut");
        thread::sleep(Duration::from_millis(20));
    }
    let ended = node.into_process().finish();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(
        ended.stdout_text().contains("1 were cut when the drain limit was over"),
        "{}",
        ended.stdout_text()
    );
}

fn pattern() -> Vec<u8> {
    (0..LENGTH).map(|place| (place % 251) as u8).collect()
}

/// Sends the second half by the drop until it is let go.
fn dripping() -> (Upstream, Arc<AtomicBool>) {
    let may_end = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&may_end);
    let upstream = Upstream::start(move |_, stream| {
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\nCache-Control: max-age=600\r\n\r\n");
        let body = pattern();
        let (first, mut second) = body.split_at(LENGTH / 2);
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(first).unwrap();
        let began = Instant::now();
        while !told.load(Ordering::SeqCst) && began.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(10));
            let (drop, rest) = second.split_at(10);
            if stream.write_all(drop).is_err() {
                return;
            }
            second = rest;
        }
        drop(stream.write_all(second));
    });
    (upstream, may_end)
}

fn caching(upstream: &Upstream, place: &TempDir) -> Node {
    caching_with(upstream, place, "1h")
}

fn caching_with(upstream: &Upstream, place: &TempDir, drain: &str) -> Node {
    let (upstream, cache) = (format!("http://{}", upstream.address), place.path().join("cache"));
    let cache = cache.to_str().unwrap();
    Node::start_with(place.path(), &["--upstream", &upstream, "--cache-dir", cache, "--drain", drain])
}

/// A client that has read some of a response whose rest does not come.
fn reader(node: &Node) -> TcpStream {
    let mut client = connect(node.address());
    client.write_all(lines(&["GET / HTTP/1.1", "Host: a", "Connection: close"]).as_bytes()).unwrap();
    client
}

#[test]
fn a_response_that_nobody_waits_for_is_given_up() {
    let place = TempDir::new().unwrap();
    let (upstream, _may_end) = dripping();
    let node = caching(&upstream, &place);
    let mut client = reader(&node);
    client.read_exact(&mut vec![0; LENGTH / 3]).unwrap();
    drop(client);
    let ended = terminated(node);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("the node stops before all of it came"), "{}", ended.stderr);
    assert_eq!(std::fs::read_dir(place.path().join("cache/tmp")).unwrap().count(), 0, "nothing is left over");
}

#[test]
fn a_response_that_somebody_reads_comes_whole_and_is_kept() {
    let place = TempDir::new().unwrap();
    let (upstream, may_end) = dripping();
    let node = caching(&upstream, &place);
    let mut client = reader(&node);
    let mut first = [0; 1000];
    client.read_exact(&mut first).unwrap();
    node.process().signal(Signal::Terminate);
    node.wait_for_log("stopping");
    may_end.store(true, Ordering::SeqCst);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert!([&first[..], &rest].concat().ends_with(&pattern()));
    let ended = node.into_process().finish();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let again = caching(&upstream, &place);
    let hit = get(again.address(), "/", &[]);
    assert!(hit.is_hit() && hit.body == pattern(), "{}", hit.cache_status());
    assert_eq!(upstream.count(), 1);
}

/// A disk that does not answer leaves a thread of the node's that nobody can end.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_never_answers_does_not_hold_up_the_nodes_end() {
    use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
    let place = TempDir::new().unwrap();
    let upstream = Upstream::fixed(answer("200 OK", &["Cache-Control: max-age=600"], "hello"));
    let node = caching(&upstream, &place);
    assert_eq!(get(node.address(), "/", &[]).text(), "hello");
    assert_eq!(terminated(node).code, Some(0));
    let node = caching_with(&upstream, &place, "100ms");
    // Who reads a pipe waits for its writers.
    let record = record_in(&place.path().join("cache/entries"));
    std::fs::remove_file(&record).unwrap();
    mknodat(CWD, &record, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _client = reader(&node);
    let began = Instant::now();
    let _writer = loop {
        // There is no reader yet as long as this fails (fifo(7)).
        match open(&record, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
            Ok(writer) => break writer,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        thread::sleep(Duration::from_millis(5));
    };
    let ended = terminated(node);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stdout_text().contains("1 were cut"), "{}", ended.stdout_text());
}

/// The only one.
#[cfg(target_os = "linux")]
fn record_in(entries: &std::path::Path) -> std::path::PathBuf {
    let dirs = std::fs::read_dir(entries).unwrap().map(|dir| dir.unwrap().path());
    let mut files = dirs.flat_map(|dir| std::fs::read_dir(dir).unwrap()).map(|file| file.unwrap().path());
    files.find(|file| file.extension().is_some_and(|ending| ending == "json")).unwrap()
}
