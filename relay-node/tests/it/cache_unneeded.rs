//! What the cache does not fetch, or not to its end, because nobody wants it; and what it asks for as the client did.

use super::proxy_front::Setup;
use super::raw_http::{PATIENCE, connect, get, lines, read_answer, request};
use super::scripted_upstream::{Upstream, answer};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited too long: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// As a system does for a process that ends with its work undone.
fn reset(client: TcpStream) {
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
}

fn begun(front: &super::proxy_front::Front, path: &str) -> TcpStream {
    let mut client = connect(front.address);
    client.write_all(lines(&[&format!("GET {path} HTTP/1.1"), "Host: a"]).as_bytes()).unwrap();
    client
}

/// An upstream that says `begin` to a GET and no more, and tells when it is given up.
fn silent(begin: &'static str) -> (Upstream, mpsc::Receiver<()>) {
    let (sender, given_up) = mpsc::channel();
    let sender = Mutex::new(sender);
    let upstream = Upstream::start(move |_, stream| {
        stream.write_all(begin.as_bytes()).unwrap();
        if matches!(stream.read(&mut [0]), Ok(0) | Err(_)) {
            _ = sender.lock().unwrap().send(());
        }
    });
    (upstream, given_up)
}

#[test]
#[cfg_attr(
    any(not(target_os = "linux"), relay_plain),
    ignore = "there a client that is gone is noticed only by who writes to it"
)]
fn a_fetch_ends_when_nobody_waits_for_it() {
    const CLIENTS: usize = 100;
    let (upstream, given_up) = silent("");
    let front = Setup::caching(upstream.address).start();
    let clients: Vec<_> = (0..CLIENTS).map(|number| begun(&front, &format!("/{number}"))).collect();
    until("all are asked for", || upstream.count() == CLIENTS);
    clients.into_iter().for_each(reset);
    for _ in 0..CLIENTS {
        given_up.recv_timeout(PATIENCE).expect("each of them is given up");
    }
    front.settle();
}

#[test]
#[cfg_attr(
    any(not(target_os = "linux"), relay_plain),
    ignore = "there a client that is gone is noticed only by who writes to it"
)]
fn a_body_without_a_known_end_stops_when_nobody_reads_it() {
    for control in ["", "Cache-Control: max-age=60\r\n", "ETag: \"v1\"\r\n"] {
        let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{control}\r\n5\r\n01234\r\n");
        let (upstream, given_up) = silent(head.leak());
        let front = Setup::caching(upstream.address).start();
        let mut client = begun(&front, "/");
        client.read_exact(&mut [0; 40]).unwrap();
        reset(client);
        given_up.recv_timeout(PATIENCE).expect("it is given up");
        front.settle();
        assert!(front.cache().is_empty() && front.cache().size() == 0, "{control:?}");
    }
}

/// A few may come to their end for those who ask later; not as many as somebody likes to begin.
#[test]
#[cfg_attr(
    any(not(target_os = "linux"), relay_plain),
    ignore = "there a client that is gone is noticed only by who writes to it"
)]
fn few_bodies_go_on_without_a_reader() {
    const BODIES: usize = 40;
    let (upstream, given_up) =
        silent("HTTP/1.1 200 OK\r\nContent-Length: 10\r\nCache-Control: max-age=60\r\n\r\n01234");
    let front = Setup::caching(upstream.address).start();
    let clients: Vec<_> = (0..BODIES).map(|number| begun(&front, &format!("/{number}"))).collect();
    for mut client in clients {
        client.read_exact(&mut [0; 40]).unwrap();
        reset(client);
    }
    for _ in 16..BODIES {
        given_up.recv_timeout(PATIENCE).expect("all but sixteen are given up");
    }
    assert!(given_up.try_recv().is_err());
}

#[test]
fn the_rest_of_a_large_file_is_not_fetched_for_nobody() {
    let (upstream, given_up) =
        silent("HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\nCache-Control: max-age=60\r\n\r\n01234");
    let front = Setup::caching(upstream.address).start();
    let first = get(front.address, "/", &["Range: bytes=0-0"]);
    assert_eq!((first.status, first.text().as_str()), (206, "0"));
    given_up.recv_timeout(PATIENCE).expect("it is given up");
    front.settle();
}

/// Neither what can never be used again, nor what may have no end.
#[test]
fn nothing_is_evicted_for_what_is_not_kept() {
    for control in ["", "Cache-Control: max-age=60\r\n"] {
        let upstream = Upstream::start(move |seen, stream| {
            if seen.line.contains("/small") {
                return stream.write_all(&answer("200 OK", &["Cache-Control: max-age=60"], "x")).unwrap();
            }
            write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{control}\r\n").unwrap();
            let chunk = [b"10000\r\n".to_vec(), vec![7; 0x10000], b"\r\n".to_vec()].concat();
            for _ in 0..50 {
                stream.write_all(&chunk).unwrap();
            }
            stream.write_all(b"0\r\n\r\n").unwrap();
        });
        let front = Setup { cache_size: Some(2 << 20), ..Setup::reverse(upstream.address) }.start();
        get(front.address, "/small", &[]);
        let large = get(front.address, "/large", &[]);
        assert!(large.whole && large.body.len() == 50 * 0x10000);
        assert_eq!(large.cache_status().contains("stored"), !control.is_empty(), "{}", large.cache_status());
        assert!(get(front.address, "/small", &[]).is_hit(), "{control:?}");
    }
}

/// Conditions and ranges are the origin's to answer where the cache has nothing to answer them from.
#[test]
fn a_clients_own_conditions_reach_the_origin_when_nothing_is_kept() {
    for control in ["Cache-Control: private", "Cache-Control: no-store"] {
        let upstream = Upstream::start(move |seen, stream| {
            let fields = [control, "ETag: \"v1\""];
            let reply = match (seen.field("if-none-match"), seen.field("range")) {
                (Some("\"v1\""), _) => answer("304 Not Modified", &fields, ""),
                (_, Some("bytes=8-")) => {
                    let fields = [control, "ETag: \"v1\"", "Content-Range: bytes 8-9/10"];
                    answer("206 Partial Content", &fields, "89")
                }
                _ => answer("200 OK", &fields, "0123456789"),
            };
            stream.write_all(&reply).unwrap();
        });
        let front = Setup::caching(upstream.address).start();
        for asked in [2, 3] {
            assert_eq!(get(front.address, "/", &["If-None-Match: \"v1\""]).status, 304);
            assert_eq!(
                upstream.count(),
                asked,
                "the first time the whole was asked for, in the hope to keep it"
            );
        }
        let part = get(front.address, "/", &["Range: bytes=8-"]);
        assert_eq!((part.status, part.text().as_str()), (206, "89"));
        assert_eq!(get(front.address, "/", &[]).text(), "0123456789");
    }
}

#[test]
fn only_if_cached_asks_nobody_whatever_else_is_asked() {
    let upstream = Upstream::fixed(answer("200 OK", &["Cache-Control: max-age=60"], "x"));
    let front = Setup::caching(upstream.address).start();
    let wishes: [&[&str]; 3] = [
        &["Cache-Control: only-if-cached, no-store"],
        &["Cache-Control: only-if-cached", "If-Match: \"x\""],
        &["Cache-Control: only-if-cached", "Content-Length: 1", "", "x"],
    ];
    for wish in wishes {
        assert_eq!(get(front.address, "/", wish).status, 504, "{wish:?}");
    }
    assert_eq!(upstream.count(), 0);
    get(front.address, "/", &[]);
    for wish in wishes.iter().take(2) {
        assert!(get(front.address, "/", wish).is_hit(), "{wish:?}");
    }
}

/// Renewed behind those who get it stale, whatever they asked for and however its end is told.
#[test]
fn a_head_renews_what_it_found_stale() {
    for is_chunked in [false, true] {
        let upstream = Upstream::start(move |seen, stream| {
            let body = format!("body {}", seen.number);
            let length = if is_chunked { "Transfer-Encoding: chunked" } else { "Content-Length: 6" };
            let control = "Cache-Control: max-age=10, stale-while-revalidate=60";
            write!(stream, "HTTP/1.1 200 OK\r\n{length}\r\n{control}\r\n\r\n").unwrap();
            let all = if is_chunked { format!("6\r\n{body}\r\n0\r\n\r\n") } else { body };
            stream.write_all(all.as_bytes()).unwrap();
        });
        let front = Setup::caching(upstream.address).start();
        get(front.address, "/", &[]);
        front.later(Duration::from_secs(20));
        assert_eq!(request(front.address, "HEAD", "/", &[]).status, 200);
        let fresh = ["Cache-Control: only-if-cached, max-age=5"];
        until("it is renewed", || get(front.address, "/", &fresh).text() == "body 1");
        assert_eq!(upstream.count(), 2);
    }
}

#[test]
fn what_the_origin_has_no_longer_is_not_used_stale() {
    for (gone, fields) in [
        ("410 Gone", &[][..]),
        ("404 Not Found", &["Cache-Control: no-store"]),
        ("200 OK", &["Cache-Control: private"]),
    ] {
        let upstream = Upstream::start(move |seen, stream| {
            let reply = match seen.number {
                0 => answer("200 OK", &["Cache-Control: max-age=10, stale-while-revalidate=600"], "here"),
                _ => answer(gone, fields, "gone"),
            };
            stream.write_all(&reply).unwrap();
        });
        let front = Setup::caching(upstream.address).start();
        get(front.address, "/", &[]);
        front.later(Duration::from_secs(20));
        assert_eq!(get(front.address, "/", &[]).text(), "here");
        until("the entry goes", || front.cache().is_empty());
        assert_eq!(get(front.address, "/", &[]).text(), "gone", "{gone}");
    }
}

/// Who waits keeps the fetch alive that another began.
#[test]
fn who_waits_gets_what_another_began() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |_, stream| {
        wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        drop(stream.write_all(&answer("200 OK", &["Cache-Control: max-age=60"], "hello")));
    });
    let front = Setup::caching(upstream.address).start();
    let first = begun(&front, "/");
    until("the origin is asked", || upstream.count() == 1);
    let mut second = begun(&front, "/");
    assert_eq!(get(front.address, "/nothing", &["Cache-Control: only-if-cached"]).status, 504);
    reset(first);
    // For the one fetch, or for two if the second came too late for the first.
    go.send(()).unwrap();
    go.send(()).unwrap();
    assert_eq!(read_answer(&mut second, false).text(), "hello");
}
