//! The real program, killed in the middle of a fetch.

use super::raw_http::{PATIENCE, connect, get, lines};
use super::scripted_upstream::Upstream;
use relay_testkit::node::Node;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LENGTH: usize = 3_000_000;

fn pattern() -> Vec<u8> {
    (0..LENGTH).map(|place| (place % 251) as u8).collect()
}

fn node(upstream: &Upstream, root: &Path, cache: &Path) -> Node {
    let upstream = format!("http://{}", upstream.address);
    let cache = cache.to_str().unwrap();
    Node::start_with(root, &["--upstream", &upstream, "--cache-dir", cache, "--cache-size", "100MB"])
}

fn unfinished(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir.join("tmp")).unwrap().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum()
}

/// Whether an entry would be found again: its record is the last that comes to the disk.
fn is_recorded(dir: &Path) -> bool {
    let dirs = std::fs::read_dir(dir.join("entries")).unwrap().flatten();
    let mut files = dirs.filter_map(|dir| std::fs::read_dir(dir.path()).ok()).flatten().flatten();
    files.any(|file| file.path().extension().is_some_and(|ending| ending == "json"))
}

#[cfg(unix)]
#[test]
fn a_kill_in_the_middle_of_a_fetch_leaves_nothing_torn() {
    let (root, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let pauses = Arc::new(AtomicBool::new(true));
    let held = Arc::clone(&pauses);
    let upstream = Upstream::start(move |_, stream| {
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\nCache-Control: max-age=600\r\n\r\n");
        let body = pattern();
        let (first, second) = body.split_at(LENGTH / 2);
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(first).unwrap();
        let began = Instant::now();
        while held.load(Ordering::SeqCst) && began.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(10));
        }
        drop(stream.write_all(second));
    });
    // One response is whole, and another has half come.
    let first = node(&upstream, root.path(), cache.path());
    pauses.store(false, Ordering::SeqCst);
    assert!(get(first.address(), "/whole", &[]).body == pattern());
    let began = Instant::now();
    while !is_recorded(cache.path()) {
        assert!(began.elapsed() < PATIENCE, "the whole response does not come to the disk");
        thread::sleep(Duration::from_millis(10));
    }
    pauses.store(true, Ordering::SeqCst);
    let mut client = connect(first.address());
    client.write_all(lines(&["GET /half HTTP/1.1", "Host: a"]).as_bytes()).unwrap();
    let mut seen = vec![0; LENGTH / 3];
    client.read_exact(&mut seen).unwrap();
    assert!(unfinished(cache.path()) > 0, "the half is on its way to the disk");
    first.kill();
    // The next process serves the one from the disk and fetches the other anew, whole.
    pauses.store(false, Ordering::SeqCst);
    let second = node(&upstream, root.path(), cache.path());
    assert_eq!(unfinished(cache.path()), 0, "what was left over is swept away");
    let whole = get(second.address(), "/whole", &[]);
    assert!(whole.is_hit() && whole.body == pattern(), "{}", whole.cache_status());
    let half = get(second.address(), "/half", &[]);
    assert!(!half.is_hit() && half.whole && half.body == pattern(), "{}", half.cache_status());
    assert_eq!(upstream.count(), 3);
    // A third process is told who has the cache.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_relay-node"));
    command.args(["--listen", "127.0.0.1:0", "--upstream", "http://127.0.0.1:9", "--root"]).arg(root.path());
    let third = command.arg("--cache-dir").arg(cache.path()).output().unwrap();
    let told = String::from_utf8_lossy(&third.stderr).into_owned();
    assert!(!third.status.success(), "{told}");
    assert!(told.contains("in use by another process"), "{told}");
}
