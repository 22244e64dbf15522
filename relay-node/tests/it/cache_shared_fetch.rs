//! Many clients, one fetch.

use super::proxy_front::Setup;
use super::raw_http::{PATIENCE, connect, get, lines, read_answer};
use super::scripted_upstream::{Upstream, answer};
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited too long: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A body whose every byte tells its place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place % 251) as u8).collect()
}

fn head_of(length: usize, control: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nCache-Control: {control}\r\n\r\n").into_bytes()
}

#[test]
fn a_thousand_clients_on_one_cold_entry_cause_one_request() {
    const CLIENTS: usize = 1000;
    let body = pattern(300_000);
    let sent = body.clone();
    let upstream = Upstream::start(move |_, stream| {
        stream.write_all(&head_of(sent.len(), "max-age=60")).unwrap();
        for piece in sent.chunks(30_000) {
            stream.write_all(piece).unwrap();
            thread::sleep(Duration::from_millis(20));
        }
    });
    let front = Setup::caching(upstream.address).start();
    let (address, body) = (front.address, Arc::new(body));
    // Ten at a time on a thread, all of them open at once.
    let clients: Vec<_> = (0..CLIENTS / 10)
        .map(|_| {
            let body = Arc::clone(&body);
            thread::spawn(move || {
                let mut streams: Vec<_> = (0..10).map(|_| connect(address)).collect();
                for stream in &mut streams {
                    stream.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
                }
                for stream in &mut streams {
                    let answer = read_answer(stream, false);
                    assert!(answer.status == 200 && answer.whole && answer.body == *body);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(upstream.count(), 1);
    until("the response is stored", || front.cache().len() == 1);
}

#[test]
fn everybody_reads_along_while_it_comes() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |_, stream| {
        stream.write_all(&head_of(10, "max-age=60")).unwrap();
        stream.write_all(b"01234").unwrap();
        wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        stream.write_all(b"56789").unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    let mut streams: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = connect(front.address);
            stream.write_all(lines(&["GET / HTTP/1.1", "Host: a", "Connection: close"]).as_bytes()).unwrap();
            // The first half is there although the second has not been sent yet.
            let mut seen = Vec::new();
            let mut byte = [0];
            while !seen.ends_with(b"01234") {
                stream.read_exact(&mut byte).unwrap();
                seen.push(byte[0]);
            }
            stream
        })
        .collect();
    go.send(()).unwrap();
    for stream in &mut streams {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "56789");
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn the_fetch_goes_on_when_the_first_client_leaves() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |_, stream| {
        stream.write_all(&head_of(10, "max-age=60")).unwrap();
        stream.write_all(b"01234").unwrap();
        wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        stream.write_all(b"56789").unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    let mut first = connect(front.address);
    first.write_all(lines(&["GET / HTTP/1.1", "Host: a"]).as_bytes()).unwrap();
    first.read_exact(&mut [0; 20]).unwrap();
    drop(first);
    go.send(()).unwrap();
    until("the response is stored", || front.cache().len() == 1);
    assert_eq!(get(front.address, "/", &[]).text(), "0123456789");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let body = pattern(20_000_000);
    let sent = body.clone();
    let upstream = Upstream::start(move |_, stream| {
        stream.write_all(&head_of(sent.len(), "max-age=60")).unwrap();
        drop(stream.write_all(&sent));
    });
    let front = Setup::caching(upstream.address).start();
    let mut idle = connect(front.address);
    idle.write_all(lines(&["GET / HTTP/1.1", "Host: a", "Connection: close"]).as_bytes()).unwrap();
    until("the upstream is asked", || upstream.count() == 1);
    assert!(get(front.address, "/", &[]).body == body);
    // It gets all of it all the same, when it wants.
    let late = read_answer(&mut idle, false);
    assert!(late.whole && late.body == body);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn what_may_not_be_shared_is_fetched_for_each() {
    let upstream = Upstream::start(|seen, stream| {
        thread::sleep(Duration::from_millis(100));
        stream.write_all(&answer("200 OK", &["Cache-Control: private"], &seen.number.to_string())).unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    let (address, start) = (front.address, Arc::new(Barrier::new(20)));
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let start = Arc::clone(&start);
            thread::spawn(move || {
                start.wait();
                get(address, "/", &[]).text()
            })
        })
        .collect();
    let mut bodies: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 20, "each its own");
    assert_eq!(upstream.count(), 20);
}

#[test]
fn those_who_wait_for_another_variant_do_not_get_it() {
    let upstream = Upstream::start(|seen, stream| {
        thread::sleep(Duration::from_millis(100));
        let accept = seen.field("accept").unwrap_or("none").to_owned();
        stream.write_all(&answer("200 OK", &["Vary: Accept", "Cache-Control: max-age=60"], &accept)).unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    let (address, start) = (front.address, Arc::new(Barrier::new(20)));
    let clients: Vec<_> = (0..20)
        .map(|number| {
            let start = Arc::clone(&start);
            thread::spawn(move || {
                start.wait();
                let accept = format!("a/{}", number % 2);
                assert_eq!(get(address, "/", &[&format!("Accept: {accept}")]).text(), accept);
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(upstream.count(), 2);
}

/// A response that must be confirmed each time is confirmed, not fetched again, while it still arrives.
#[test]
fn a_latecomer_reads_along_once_the_origin_has_confirmed() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |seen, stream| {
        if seen.field("if-none-match") == Some("\"v1\"") {
            return stream.write_all(&answer("304 Not Modified", &["ETag: \"v1\""], "")).unwrap();
        }
        let head =
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: \"v1\"\r\nCache-Control: no-cache\r\n\r\n01234";
        stream.write_all(head.as_bytes()).unwrap();
        wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        stream.write_all(b"56789").unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    let mut first = connect(front.address);
    first.write_all(lines(&["GET / HTTP/1.1", "Host: a", "Connection: close"]).as_bytes()).unwrap();
    first.read_exact(&mut [0; 20]).unwrap();
    let address = front.address;
    let second = thread::spawn(move || get(address, "/", &[]).text());
    until("the origin is asked to confirm", || upstream.count() == 2);
    go.send(()).unwrap();
    assert_eq!(second.join().unwrap(), "0123456789");
    assert_eq!(upstream.count(), 2);
}
