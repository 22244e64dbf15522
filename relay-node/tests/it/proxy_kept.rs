//! Requests whose answer nobody is sure of: on a kept connection that breaks, and from a client that leaves.

use super::proxy_front::{Front, Setup};
use super::raw_http::{PATIENCE, connect, get};
use super::scripted_upstream::{Upstream, answer};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

fn read_head(reader: &mut BufReader<TcpStream>) -> bool {
    let mut line = String::new();
    loop {
        line.clear();
        match reader.read_line(&mut line) {
            Ok(read) if read > 0 && line != "\r\n" => {}
            read => return read.is_ok_and(|read| read > 0),
        }
    }
}

/// RFC 9112, 9.3.1: what may be repeated is, on another connection.
#[test]
fn a_get_on_a_kept_connection_that_is_reset_is_sent_again() {
    static WAS_ASKED: AtomicBool = AtomicBool::new(false);
    static WAS_KEPT: AtomicBool = AtomicBool::new(false);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let mut reader = BufReader::new(stream);
            while read_head(&mut reader) {
                let stream = reader.get_mut();
                // The second request of the first connection.
                if number == 0 && WAS_ASKED.swap(true, SeqCst) {
                    WAS_KEPT.store(true, SeqCst);
                    socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).unwrap();
                    break;
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            }
        }
    });
    let front = Setup::reverse(address).start();
    for _ in 0..3 {
        let got = get(front.address, "/", &[]);
        assert_eq!((got.status, got.text().as_str()), (200, "ok"));
    }
    assert!(WAS_KEPT.load(SeqCst));
}

/// What an upstream says by closing a new connection is its answer: who cannot cope is not asked twice.
#[test]
fn a_get_on_a_new_connection_that_closes_unanswered_is_sent_once() {
    for how in ["closed", "reset", "closed in the head", "kept, closed in the head"] {
        let upstream = Upstream::start(move |seen, stream| {
            if how.starts_with("kept") && seen.line.contains("/first") {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
                assert!(read_head(&mut BufReader::new(stream.try_clone().unwrap())));
            }
            match how {
                "reset" => socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).unwrap(),
                "closed" => {}
                _ => stream.write_all(b"HTTP/1.1 20").unwrap(),
            }
        });
        let front = Setup::reverse(upstream.address).start();
        if how.starts_with("kept") {
            assert_eq!(get(front.address, "/first", &[]).text(), "ok");
            assert_eq!(get(front.address, "/second", &[]).status, 502, "{how}");
            assert_eq!(upstream.count(), 1, "{how}");
            continue;
        }
        for asked in 1..=5 {
            assert_eq!(get(front.address, "/", &[]).status, 502, "{how}");
            assert_eq!(upstream.count(), asked, "{how}");
        }
    }
}

#[test]
#[cfg_attr(
    any(not(target_os = "linux"), relay_plain),
    ignore = "there a client that is gone is noticed only by who writes to it"
)]
fn a_change_whose_client_left_makes_the_stored_page_unusable() {
    let (asked, was_asked) = mpsc::channel();
    let (leave, left) = mpsc::channel::<()>();
    let (asked, left) = (Mutex::new(asked), Mutex::new(left));
    let upstream = Upstream::start(move |seen, stream| {
        if seen.line.starts_with("PUT") {
            asked.lock().unwrap().send(()).unwrap();
            // It never answers.
            let _ = left.lock().unwrap().recv_timeout(PATIENCE);
            return;
        }
        let page = format!("page {}", seen.number);
        stream.write_all(&answer("200 OK", &["Cache-Control: max-age=60"], &page)).unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    get(front.address, "/", &[]);
    assert!(get(front.address, "/", &[]).is_hit());
    let mut client = connect(front.address);
    client.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").unwrap();
    was_asked.recv_timeout(PATIENCE).unwrap();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    until_empty(&front);
    assert_eq!(get(front.address, "/", &[]).text(), "page 2");
    drop(leave);
}

/// The page is stored again after its client left and before the origin makes the change.
#[test]
#[cfg_attr(
    any(not(target_os = "linux"), relay_plain),
    ignore = "there a client that is gone is noticed only by who writes to it"
)]
fn a_change_that_comes_late_makes_what_was_stored_meanwhile_unusable() {
    for late_answer in [Some("204 No Content"), None] {
        let (asked, was_asked) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let (asked, wait) = (Mutex::new(asked), Mutex::new(wait));
        let upstream = Upstream::start(move |seen, stream| {
            if seen.line.starts_with("PUT") {
                asked.lock().unwrap().send(()).unwrap();
                wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                if let Some(status) = late_answer {
                    drop(stream.write_all(&answer(status, &[], "")));
                }
                return;
            }
            let page = format!("page {}", seen.number);
            stream.write_all(&answer("200 OK", &["Cache-Control: max-age=60"], &page)).unwrap();
        });
        let front = Setup::caching(upstream.address).start();
        get(front.address, "/", &[]);
        let mut client = connect(front.address);
        client.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").unwrap();
        was_asked.recv_timeout(PATIENCE).unwrap();
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        until_empty(&front);
        assert_eq!(get(front.address, "/", &[]).text(), "page 2");
        assert!(get(front.address, "/", &[]).is_hit());
        go.send(()).unwrap();
        until_empty(&front);
        assert_eq!(get(front.address, "/", &[]).text(), "page 3");
    }
}

fn until_empty(front: &Front) {
    let began = Instant::now();
    while !front.cache().is_empty() {
        assert!(began.elapsed() < PATIENCE, "the stored page is still there");
        thread::sleep(Duration::from_millis(5));
    }
}
