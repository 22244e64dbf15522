//! Whose answer is whose, while several ask at once: what was fetched for one is for another only if it would be a fresh hit for
//! that one's own request.

use super::proxy_front::{Front, Setup};
use super::raw_http::{Answer, PATIENCE, connect, get, lines, read_answer, request};
use super::scripted_upstream::{Seen, Upstream, answer};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Barrier, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A gate that the upstream's answers wait behind until it opens.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opens: Condvar,
}

impl Gate {
    fn pass(&self) {
        let is_open = self.is_open.lock().unwrap();
        let (is_open, _) = self.opens.wait_timeout_while(is_open, PATIENCE, |is_open| !*is_open).unwrap();
        assert!(*is_open);
    }

    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opens.notify_all();
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited too long: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The request is sent, and the node has had time to look at it: it has answered others since.
fn sent(front: &Front, fields: &[&str]) -> TcpStream {
    let mut stream = connect(front.address);
    let mut head = vec!["GET / HTTP/1.1", "Host: a", "Connection: close"];
    head.extend(fields);
    stream.write_all(lines(&head).as_bytes()).unwrap();
    for _ in 0..3 {
        assert_eq!(get(front.address, "/nothing", &["Cache-Control: only-if-cached"]).status, 504);
    }
    stream
}

/// What two clients get, of which the second asks while the origin still works on the first one's request. `first` is an answer
/// that was stored before.
fn two_at_once(
    stored: bool,
    fields: [&[&str]; 2],
    script: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static,
) -> ([Answer; 2], Upstream) {
    let gate = std::sync::Arc::new(Gate::default());
    let held = std::sync::Arc::clone(&gate);
    let free = usize::from(stored);
    let upstream = Upstream::start(move |seen, stream| {
        if seen.number >= free {
            held.pass();
        }
        stream.write_all(&script(seen)).unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    if stored {
        get(front.address, "/", &[]);
    }
    let mut first = sent(&front, fields[0]);
    until("the origin is asked", || upstream.count() == free + 1);
    let mut second = sent(&front, fields[1]);
    gate.open();
    ([read_answer(&mut first, false), read_answer(&mut second, false)], upstream)
}

#[test]
fn an_answer_for_somebodys_credentials_is_not_for_those_who_wait() {
    for control in ["Cache-Control: max-age=0, must-revalidate", "Cache-Control: public, no-cache"] {
        let ([first, second], _) = two_at_once(false, [&["Authorization: Basic eA=="], &[]], move |seen| {
            match seen.field("authorization") {
                Some(_) => answer("200 OK", &[control, "ETag: \"v1\""], "secret"),
                None => answer("401 Unauthorized", &["WWW-Authenticate: Basic"], "who?"),
            }
        });
        assert_eq!((first.status, first.text().as_str()), (200, "secret"));
        assert_eq!((second.status, second.text().as_str()), (401, "who?"), "{control}");
    }
}

#[test]
fn each_gets_his_own_page_where_nothing_says_that_it_is_for_all() {
    for control in [&[][..], &["Cache-Control: no-cache"], &["Cache-Control: max-age=0"]] {
        let (answers, _) = two_at_once(false, [&["Cookie: alice"], &["Cookie: bob"]], move |seen| {
            answer("200 OK", control, seen.field("cookie").unwrap())
        });
        assert_eq!(answers.map(|answer| answer.text()), ["alice", "bob"], "{control:?}");
    }
}

#[test]
fn an_event_stream_begins_for_each_when_he_asks() {
    let gate = std::sync::Arc::new(Gate::default());
    let held = std::sync::Arc::clone(&gate);
    let upstream = Upstream::start(move |seen, stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        write!(stream, "{head}2\r\n{}!\r\n", seen.number).unwrap();
        held.pass();
        stream.write_all(b"0\r\n\r\n").unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    let mut first = sent(&front, &[]);
    let mut seen = Vec::new();
    while !seen.ends_with(b"!") {
        let mut byte = [0];
        first.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    let mut second = sent(&front, &[]);
    until("the second asks for himself", || upstream.count() == 2);
    gate.open();
    assert_eq!(read_answer(&mut second, false).text(), "1!");
}

#[test]
fn what_a_confirmation_brings_for_one_client_is_not_for_those_who_wait() {
    for own in ["Set-Cookie: id=alice", "Cache-Control: private, max-age=60"] {
        let ([first, second], upstream) =
            two_at_once(true, [&["Cookie: alice"], &["Cookie: bob"]], move |seen| {
                match (seen.field("if-none-match"), seen.field("cookie")) {
                    (Some(_), Some("alice")) => {
                        answer("304 Not Modified", &["ETag: \"v1\"", own, "X-For: alice"], "")
                    }
                    (Some(_), _) => answer("304 Not Modified", &["ETag: \"v1\""], ""),
                    (None, _) => answer("200 OK", &["ETag: \"v1\"", "Cache-Control: max-age=0"], "page"),
                }
            });
        assert_eq!((first.text().as_str(), first.field("x-for").as_deref()), ("page", Some("alice")));
        assert_eq!((second.text().as_str(), second.field("x-for")), ("page", None), "{own}");
        assert_eq!(second.field("set-cookie"), None);
        assert_eq!(upstream.count(), 3);
    }
}

#[test]
fn what_a_confirmation_brings_while_the_answer_arrives_is_for_the_client_that_asked() {
    let gate = std::sync::Arc::new(Gate::default());
    let held = std::sync::Arc::clone(&gate);
    let upstream = Upstream::start(move |seen, stream| {
        if seen.field("if-none-match").is_some() {
            let own = ["ETag: \"v1\"", "Set-Cookie: id=bob", "Cache-Control: private"];
            return stream.write_all(&answer("304 Not Modified", &own, "")).unwrap();
        }
        let head = "HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
        write!(stream, "{head}1\r\n!\r\n").unwrap();
        held.pass();
        stream.write_all(b"0\r\n\r\n").unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    let mut first = sent(&front, &["Cookie: alice"]);
    let mut seen = Vec::new();
    while !seen.ends_with(b"!") {
        let mut byte = [0];
        first.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    let mut second = sent(&front, &["Cookie: bob"]);
    until("the second is confirmed", || upstream.count() == 2);
    gate.open();
    let second = read_answer(&mut second, false);
    assert_eq!((second.status, second.text().as_str()), (200, "!"));
    assert_eq!(second.field("set-cookie").as_deref(), Some("id=bob"));
    assert_eq!(second.field("cache-control").as_deref(), Some("private"));
}

#[test]
fn who_makes_the_origin_hang_does_not_hold_up_others_for_long() {
    let gate = std::sync::Arc::new(Gate::default());
    let held = std::sync::Arc::clone(&gate);
    let upstream = Upstream::start(move |seen, stream| {
        if seen.number == 0 {
            held.pass();
        }
        drop(stream.write_all(&answer("200 OK", &["Cache-Control: max-age=60"], "page")));
    });
    let front = Setup::caching(upstream.address).start();
    let _hanging = sent(&front, &[]);
    until("the origin is asked", || upstream.count() == 1);
    assert_eq!(get(front.address, "/", &[]).text(), "page");
    gate.open();
}

/// What a client says is for its connection alone the origin does not see, so it did not choose by it.
#[test]
fn fields_of_the_connection_choose_nothing() {
    for (name, connection) in
        [("accept-language", "Connection: Accept-Language"), ("origin", "Connection: Origin")]
    {
        let upstream = Upstream::start(move |seen, stream| {
            let vary = format!("Vary: {name}");
            let said = seen.field(name).unwrap_or("none").to_owned();
            stream.write_all(&answer("200 OK", &[&vary, "Cache-Control: max-age=60"], &said)).unwrap();
        });
        let front = Setup::caching(upstream.address).start();
        let field = format!("{name}: de");
        assert_eq!(get(front.address, "/", &[connection, &field]).text(), "none");
        assert_eq!(get(front.address, "/", &[&field]).text(), "de", "an honest reader");
        assert!(get(front.address, "/", &[]).is_hit());
        assert_eq!(upstream.count(), 2);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_the_proxy_adds_chooses_as_well() {
    let from = |front: &Front, address: [u8; 4]| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::from((address, 0)).into()).unwrap();
        socket.connect(&front.address.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.write_all(lines(&["GET / HTTP/1.1", "Host: a", "Connection: close"]).as_bytes()).unwrap();
        read_answer(&mut stream, false).text()
    };
    for name in ["x-forwarded-for", "forwarded"] {
        let upstream = Upstream::start(move |seen, stream| {
            let vary = format!("Vary: {name}");
            let said = seen.field(name).unwrap().to_owned();
            stream.write_all(&answer("200 OK", &[&vary, "Cache-Control: max-age=60"], &said)).unwrap();
        });
        let front = Setup::caching(upstream.address).start();
        for _ in 0..2 {
            assert!(from(&front, [127, 0, 0, 1]).contains("127.0.0.1"), "{name}");
            assert!(from(&front, [127, 0, 0, 2]).contains("127.0.0.2"), "{name}");
        }
        assert_eq!(upstream.count(), 2);
    }
}

#[test]
fn nobody_joins_a_fetch_from_before_a_change() {
    let gate = std::sync::Arc::new(Gate::default());
    let held = std::sync::Arc::clone(&gate);
    let upstream = Upstream::start(move |seen, stream| {
        if seen.number == 0 {
            held.pass();
        }
        let body = seen.number.to_string();
        stream.write_all(&answer("200 OK", &["Cache-Control: max-age=60"], &body)).unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    let mut old = sent(&front, &[]);
    until("the origin is asked", || upstream.count() == 1);
    assert_eq!(request(front.address, "POST", "/", &["Content-Length: 0"]).status, 200);
    assert_eq!(get(front.address, "/", &[]).text(), "2");
    gate.open();
    assert_eq!(read_answer(&mut old, false).text(), "0");
    assert_eq!(get(front.address, "/", &[]).text(), "2", "what is from before the change is not kept");
}

#[test]
fn who_wants_it_from_the_origin_joins_nobody() {
    for wish in ["Cache-Control: no-cache", "Cache-Control: max-age=0", "Pragma: no-cache"] {
        let gate = std::sync::Arc::new(Gate::default());
        let held = std::sync::Arc::clone(&gate);
        let upstream = Upstream::start(move |seen, stream| {
            if seen.number == 0 {
                held.pass();
            }
            let body = if seen.number == 0 { "old" } else { "new" };
            stream.write_all(&answer("200 OK", &["Cache-Control: max-age=60"], body)).unwrap();
        });
        let front = Setup::caching(upstream.address).start();
        let mut old = sent(&front, &[]);
        until("the origin is asked", || upstream.count() == 1);
        assert_eq!(get(front.address, "/", &[wish]).text(), "new", "{wish}");
        gate.open();
        assert_eq!(read_answer(&mut old, false).text(), "old");
        let later = get(front.address, "/", &[]);
        assert_eq!(
            (later.text().as_str(), later.is_hit()),
            ("new", true),
            "the older does not take its place"
        );
    }
}

/// A failure is of the request that met it.
#[test]
fn those_who_waited_for_a_request_that_failed_ask_for_themselves() {
    let gate = std::sync::Arc::new(Gate::default());
    let held = std::sync::Arc::clone(&gate);
    let upstream = Upstream::start(move |seen, stream| {
        if seen.field("cookie").is_some() {
            // Too large for it, and it says so by hanging up.
            return held.pass();
        }
        stream.write_all(&answer("200 OK", &["Cache-Control: max-age=60"], "hello")).unwrap();
    });
    let front = Setup::caching(upstream.address).start();
    let large = format!("Cookie: {}", "x".repeat(24_000));
    let mut first = sent(&front, &[&large]);
    until("the origin is asked", || upstream.count() == 1);
    let others: Vec<_> = (0..3).map(|_| sent(&front, &[])).collect();
    gate.open();
    assert_eq!(read_answer(&mut first, false).status, 502);
    for mut other in others {
        assert_eq!(read_answer(&mut other, false).text(), "hello");
    }
}

/// From the second round on nobody waits for another's answer in vain: all are at the origin at the same time.
#[test]
fn what_cannot_be_shared_is_not_waited_for_twice() {
    const CLIENTS: usize = 20;
    for (status, fields) in [
        ("200 OK", &["Cache-Control: no-store"][..]),
        ("200 OK", &["Cache-Control: private"]),
        ("200 OK", &["Cache-Control: max-age=60", "Set-Cookie: a=b"]),
        ("200 OK", &["Cache-Control: max-age=60", "Vary: *"]),
        ("200 OK", &["Cache-Control: no-cache", "ETag: \"v1\""]),
        ("200 OK", &[]),
        ("500 Internal Server Error", &[]),
    ] {
        let all_are_there = Barrier::new(CLIENTS);
        let upstream = Upstream::start(move |seen, stream| {
            if seen.field("x-round") == Some("2") {
                all_are_there.wait();
            }
            let changed = ["Cache-Control: max-age=60"];
            let fields = if seen.field("x-round") == Some("3") { &changed } else { fields };
            stream.write_all(&answer(status, fields, "x")).unwrap();
        });
        let front = Setup::caching(upstream.address).start();
        get(front.address, "/", &["X-Round: 1"]);
        let clients: Vec<_> = (0..CLIENTS).map(|_| sent(&front, &["X-Round: 2"])).collect();
        for mut client in clients {
            assert!(read_answer(&mut client, false).whole);
        }
        assert_eq!(upstream.count(), CLIENTS + 1, "{status} {fields:?}");
        // Once an answer can be shared it is.
        if status == "200 OK" {
            get(front.address, "/", &["X-Round: 3"]);
            assert!(get(front.address, "/", &["X-Round: 3"]).is_hit(), "{fields:?}");
        }
    }
}
