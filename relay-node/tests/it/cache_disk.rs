//! The cache and its disk: whole or not at all, within its size, and no harm to the client when the disk is full.

use super::proxy_front::{Front, Setup};
use super::raw_http::{PATIENCE, connect, get, lines, read_answer};
use super::scripted_upstream::{Upstream, answer};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited too long: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place % 251) as u8).collect()
}

fn serving(body: Vec<u8>) -> Upstream {
    Upstream::start(move |_, stream| {
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nCache-Control: max-age=60\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        drop(stream.write_all(&body));
    })
}

fn in_dir(upstream: SocketAddr, dir: &Path, size: u64) -> Front {
    Setup { cache_size: Some(size), ..Setup::reverse(upstream) }.start_in(Some(dir))
}

fn unfinished(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("tmp")).unwrap().count()
}

#[test]
fn what_is_stored_outlives_the_process() {
    let dir = TempDir::new().unwrap();
    let (small, large) = (serving(b"small".to_vec()), serving(pattern(1_000_000)));
    for (upstream, length) in [(&small, 5), (&large, 1_000_000)] {
        let front = in_dir(upstream.address, dir.path(), 1 << 30);
        assert_eq!(get(front.address, "/", &[]).body.len(), length);
        front.drop_stored();
    }
    for (upstream, body) in [(&small, b"small".to_vec()), (&large, pattern(1_000_000))] {
        let front = in_dir(upstream.address, dir.path(), 1 << 30);
        let answer = get(front.address, "/", &[]);
        assert!(answer.is_hit() && answer.body == body, "{}", answer.cache_status());
    }
    assert_eq!((small.count(), large.count()), (1, 1));
}

/// A disk that lost blocks which it had promised to keep: no client takes what is left for the whole.
#[test]
fn what_a_disk_lost_is_not_served_but_fetched_anew() {
    for (lost, is_found_in_time) in [(10, true), (2_500_000, false), (4_999_990, true)] {
        let dir = TempDir::new().unwrap();
        let upstream = serving(pattern(5_000_000));
        let front = in_dir(upstream.address, dir.path(), 1 << 30);
        get(front.address, "/", &[]);
        front.drop_stored();
        let body = walk(dir.path()).into_iter().find(|file| file.extension().is_some_and(|e| e == "body"));
        let file = std::fs::File::options().write(true).open(body.unwrap()).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0; 4096][..10], lost).unwrap();
        let front = in_dir(upstream.address, dir.path(), 1 << 30);
        // Far from the loss nothing is the matter.
        let part = get(front.address, "/", &["Range: bytes=1100000-1100009"]);
        assert_eq!(part.is_hit(), !is_found_in_time, "{lost}: {}", part.cache_status());
        assert!(part.body == pattern(5_000_000)[1_100_000..1_100_010], "{lost}");
        let first = get(front.address, "/", &[]);
        assert_eq!(first.whole, is_found_in_time, "{lost}: {}", first.cache_status());
        assert!(pattern(5_000_000).starts_with(&first.body), "{lost}: no byte that was not checked");
        let second = get(front.address, "/", &[]);
        assert!(second.whole && second.body == pattern(5_000_000), "{lost}");
        assert_eq!(upstream.count(), 2, "{lost}: fetched once more");
    }
}

/// Its length was told before the file shrank; nobody is promised what is not there any more.
#[test]
fn a_file_that_became_shorter_is_noticed_before_the_first_byte() {
    let dir = TempDir::new().unwrap();
    let upstream = serving(pattern(3_000_000));
    let front = in_dir(upstream.address, dir.path(), 1 << 30);
    get(front.address, "/", &[]);
    for count in 2..4 {
        front.settle();
        assert!(get(front.address, "/", &[]).is_hit());
        let body = walk(dir.path()).into_iter().find(|file| file.extension().is_some_and(|e| e == "body"));
        std::fs::File::options().write(true).open(body.unwrap()).unwrap().set_len(2_000_000).unwrap();
        let got = get(front.address, "/", &[]);
        assert!(got.whole && got.body == pattern(3_000_000), "{}", got.cache_status());
        assert!(got.cache_status().contains("fwd=uri-miss"), "{}", got.cache_status());
        assert_eq!(upstream.count(), count);
    }
}

fn damage(dir: &Path, place: u64) {
    let body = walk(dir).into_iter().find(|file| file.extension().is_some_and(|e| e == "body"));
    let file = std::fs::File::options().write(true).open(body.unwrap()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"damage", place).unwrap();
}

/// In a piece that this process has written itself, or has looked at before.
#[test]
fn what_changes_on_the_disk_later_is_found_by_a_look_now_and_then() {
    let dir = TempDir::new().unwrap();
    let upstream = serving(pattern(1_500_000));
    for turn in 1..3 {
        let front = in_dir(upstream.address, dir.path(), 1 << 30);
        get(front.address, "/", &[]);
        front.settle();
        assert!(get(front.address, "/", &[]).is_hit());
        damage(dir.path(), 1_200_000);
        until("it is thrown away", || front.cache().thrown_away() == 1 && front.cache().is_empty());
        let got = get(front.address, "/", &[]);
        assert!(got.whole && got.body == pattern(1_500_000), "{}", got.cache_status());
        assert_eq!(upstream.count(), turn + 1);
        front.drop_stored();
    }
}

#[test]
fn a_cache_is_verified_and_what_is_damaged_is_thrown_away() {
    use relay_node::http::cache::{Verified, verify};
    let dir = TempDir::new().unwrap();
    assert!(verify(dir.path(), |_| ()).unwrap_err().to_string().contains("there is no cache"));
    let program = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_relay-node"));
        command.args(["cache", "verify"]).arg(dir.path()).env("RELAY_NODE_PORT", "0");
        let output = command.output().unwrap();
        (output.status.code(), [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()))
    };
    let upstream = serving(pattern(3_000_000));
    let front = in_dir(upstream.address, dir.path(), 1 << 30);
    get(front.address, "/a", &[]);
    front.settle();
    let (code, [_, error]) = program();
    assert!(code == Some(1) && error.contains("in use by another process"), "{error}");
    damage(dir.path(), 1_500_000);
    let small = serving(b"small".to_vec());
    front.drop_stored();
    let front = in_dir(small.address, dir.path(), 1 << 30);
    get(front.address, "/b", &[]);
    front.drop_stored();
    let (code, [told, error]) = program();
    assert_eq!((code, told.as_str()), (Some(0), "2 checked, 1 thrown away, 0 unreadable\n"));
    assert!(error.contains("/a") && error.contains("not what was stored"), "{error}");
    let all_well = Verified { entries: 1, ..Verified::default() };
    assert_eq!(verify(dir.path(), |bad| panic!("{bad}")).unwrap(), all_well);
}

#[test]
fn a_directory_that_was_removed_is_made_again() {
    let place = TempDir::new().unwrap();
    let dir = place.path().join("cache");
    let upstream = serving(pattern(100_000));
    let front = in_dir(upstream.address, &dir, 1 << 30);
    get(front.address, "/a", &[]);
    front.settle();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(get(front.address, "/a", &[]).is_hit(), "its file is open still");
    get(front.address, "/b", &[]);
    assert!(get(front.address, "/b", &[]).is_hit());
    front.drop_stored();
    let front = in_dir(upstream.address, &dir, 1 << 30);
    assert!(get(front.address, "/b", &[]).is_hit());
    assert_eq!(upstream.count(), 2);
}

/// An upstream that dies in the middle, in every way that a body can be delimited.
#[test]
fn a_body_that_breaks_off_is_never_stored() {
    for head in ["Content-Length: 1000000", "Transfer-Encoding: chunked", "Connection: close"] {
        let dir = TempDir::new().unwrap();
        let upstream = Upstream::start(move |_, stream| {
            let text = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{head}\r\n\r\n");
            stream.write_all(text.as_bytes()).unwrap();
            if head.starts_with("Transfer") {
                stream.write_all(b"7a120\r\n").unwrap();
            }
            stream.write_all(&pattern(400_000)).unwrap();
        });
        let front = in_dir(upstream.address, dir.path(), 1 << 30);
        for turn in 1..=2 {
            let answer = get(front.address, "/", &[]);
            assert!(!answer.whole || head.starts_with("Connection"), "{head}");
            assert_eq!(upstream.count(), turn, "{head}: asked again, for nothing was stored");
        }
        until("nothing is left over", || unfinished(dir.path()) == 0);
        assert!(front.cache().is_empty() && front.cache().size() == 0, "{head}");
    }
}

#[test]
fn a_response_larger_than_the_cache_is_passed_on_whole() {
    let body = pattern(3_000_000);
    // Announced, it is not even begun; unannounced, the end of the room comes in the middle.
    let announced = serving(body.clone());
    let sent = body.clone();
    let unannounced = Upstream::start(move |_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n")
            .unwrap();
        for piece in sent.chunks(100_000) {
            let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
            chunk.extend_from_slice(piece);
            chunk.extend_from_slice(b"\r\n");
            stream.write_all(&chunk).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    });
    for upstream in [announced, unannounced] {
        let dir = TempDir::new().unwrap();
        let front = in_dir(upstream.address, dir.path(), 1_000_000);
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let address = front.address;
                thread::spawn(move || get(address, "/", &[]))
            })
            .collect();
        for reader in readers {
            let answer = reader.join().unwrap();
            assert!(answer.whole && answer.body == body);
        }
        assert!(front.cache().is_empty());
        until("nothing is left over", || unfinished(dir.path()) == 0 && front.cache().size() == 0);
    }
}

#[test]
fn the_size_is_kept() {
    let dir = TempDir::new().unwrap();
    let upstream = serving(pattern(100_000));
    let limit = 1_000_000;
    let front = in_dir(upstream.address, dir.path(), limit);
    for number in 0..30 {
        get(front.address, &format!("/{number}"), &[]);
        assert!(get(front.address, "/0", &[]).is_hit() || number == 0, "what is used stays");
        assert!(front.cache().size() <= limit);
    }
    // Or files would be renamed and removed under the walk.
    front.settle();
    until("nothing is left over", || unfinished(dir.path()) == 0);
    let on_disk: u64 = walk(dir.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(on_disk <= limit, "{on_disk}");
    assert!(front.cache().len() >= 5);
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir)
        .unwrap()
        .flatten()
        .flat_map(|file| if file.path().is_dir() { walk(&file.path()) } else { vec![file.path()] })
        .collect()
}

/// A real full disk: a small file system in memory. Needs the right to mount.
#[cfg(target_os = "linux")]
#[test]
fn with_the_disk_full_clients_get_everything_uncached() {
    struct Mounted(TempDir);
    impl Drop for Mounted {
        fn drop(&mut self) {
            drop(std::process::Command::new("umount").arg(self.0.path()).status());
        }
    }
    let place = TempDir::new().unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(place.path())
        .output();
    if !mount.is_ok_and(|mount| mount.status.success()) {
        eprintln!("SKIPPED with_the_disk_full_clients_get_everything_uncached: no right to mount a tmpfs");
        return;
    }
    let place = Mounted(place);
    let body = pattern(5_000_000);
    let upstream = serving(body.clone());
    let front = in_dir(upstream.address, place.0.path(), 1 << 30);
    let mut slow = connect(front.address);
    slow.write_all(lines(&["GET / HTTP/1.1", "Host: a", "Connection: close"]).as_bytes()).unwrap();
    let quick = get(front.address, "/", &[]);
    let slow = thread::spawn(move || read_answer(&mut slow, false));
    assert!(quick.whole && quick.body == body);
    let slow = slow.join().unwrap();
    assert!(slow.whole && slow.body == body);
    until("nothing is left over", || unfinished(place.0.path()) == 0 && front.cache().size() == 0);
    // What fits is stored again afterwards.
    let small = serving(b"small".to_vec());
    drop(front);
    let front = in_dir(small.address, place.0.path(), 1 << 30);
    get(front.address, "/", &[]);
    assert!(get(front.address, "/", &[]).is_hit());
}

#[test]
fn a_cache_is_for_one_process() {
    use relay_node::http::cache::{Cache, Clock};
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::fixed(answer("200 OK", &[], ""));
    let _front = in_dir(upstream.address, dir.path(), 1 << 20);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let (_source, stop) = relay_node::stop::channel();
    let error = Cache::open(dir.path(), 1 << 20, Clock::System, stop).unwrap_err().to_string();
    assert!(
        error.contains("in use by another process") && error.contains("name another directory"),
        "{error}"
    );
}
