//! What a proxy passes on, and what not.

use super::proxy_front::Setup;
use super::raw_http::{PATIENCE, ask, connect, get, lines, read_answer, request};
use super::scripted_upstream::{Upstream, answer};
use relay_node::http::proxy_dial::ProxyLimits;
use relay_proto::route::Route;
use relay_testkit::nobody::Nobody;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// So far away that nothing which waits for one of them can be taken for something that is merely slow.
fn far_limits() -> ProxyLimits {
    let limit = Duration::from_secs(60);
    ProxyLimits { lookup: limit, connect: limit, answer: limit, silence: limit, tunnel_idle: limit }
}

#[test]
fn fields_of_the_connection_stay_and_the_way_is_noted() {
    let fields = ["X-Up: 1", "Connection: X-Up", "Keep-Alive: timeout=5", "Via: 1.0 inner", "X-End: 1"];
    let upstream = Upstream::fixed(answer("200 OK", &fields, "hello"));
    let front = Setup::reverse(upstream.address).start();
    let got = get(
        front.address,
        "/path?query",
        &[
            "Connection: X-Down",
            "X-Down: 1",
            "TE: trailers",
            "Proxy-Authorization: Basic eA==",
            "X-Through: 1",
            "X-Forwarded-For: 192.0.2.1",
        ],
    );
    assert_eq!((got.status, got.text().as_str()), (200, "hello"));
    assert_eq!(got.field("x-up"), None);
    assert_eq!(got.field("keep-alive"), None);
    assert_eq!(got.field("x-end").as_deref(), Some("1"));
    assert_eq!(got.field("via"), Some(format!("1.0 inner, 1.1 {}", front.pseudonym)));
    let seen = upstream.last();
    assert_eq!(seen.line, "GET /path?query HTTP/1.1");
    assert_eq!(seen.field("host"), Some(upstream.address.to_string().as_str()));
    for gone in ["x-down", "te", "proxy-authorization", "connection"] {
        assert_eq!(seen.field(gone), None, "{gone}");
    }
    assert_eq!(seen.field("x-through"), Some("1"));
    assert_eq!(seen.field("via"), Some(format!("1.1 {}", front.pseudonym).as_str()));
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.field("forwarded"), Some("for=127.0.0.1;host=\"a\";proto=http"));
}

#[test]
fn options_of_a_server_as_a_whole_reach_it_as_such() {
    let upstream = Upstream::fixed(answer("200 OK", &["Allow: GET"], ""));
    let front = Setup::forward(&[upstream.address.to_string()]).start();
    for (target, expected) in [("", "*"), ("/", "/"), ("?q", "/?q"), ("/x", "/x")] {
        let target = format!("http://{}{target}", upstream.address);
        for length in ["Content-Length: 0", "Content-Length: 1"] {
            let mut stream = connect(front.address);
            let line = format!("OPTIONS {target} HTTP/1.1");
            let head = lines(&[&line, "Host: a", "Connection: close", length]);
            stream.write_all(head.as_bytes()).unwrap();
            if length.ends_with('1') {
                stream.write_all(b"x").unwrap();
            }
            assert_eq!(read_answer(&mut stream, false).status, 200);
            assert_eq!(upstream.last().line, format!("OPTIONS {expected} HTTP/1.1"), "{target} {length}");
        }
    }
    let front = Setup::reverse(upstream.address).start();
    assert_eq!(request(front.address, "OPTIONS", "*", &[]).status, 200);
    assert_eq!(upstream.last().line, "OPTIONS * HTTP/1.1");
}

#[test]
fn request_bodies_stream_both_ways_of_delimiting() {
    let upstream = Upstream::start(|seen, stream| {
        stream.write_all(&answer("200 OK", &[], &format!("{} bytes", seen.body.len()))).unwrap();
    });
    let front = Setup::reverse(upstream.address).start();
    let mut stream = connect(front.address);
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3000000\r\n\r\n")
        .unwrap();
    stream.write_all(&vec![7; 3_000_000]).unwrap();
    assert_eq!(read_answer(&mut stream, false).text(), "3000000 bytes");
    assert_eq!(upstream.last().field("content-length"), Some("3000000"));
    let mut stream = connect(front.address);
    stream
        .write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    for _ in 0..100 {
        stream.write_all(b"1000\r\n").unwrap();
        stream.write_all(&[7; 0x1000]).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut stream, false).text(), "409600 bytes");
    assert_eq!(upstream.last().field("transfer-encoding"), Some("chunked"));
    // The first byte of a body arrives before the last is sent.
    let (began, begun) = std::sync::mpsc::channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(b"half") {
            stream.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
        began.send(()).unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        stream.write_all(&answer("200 OK", &[], "done")).unwrap();
    });
    let front = Setup::reverse(address).start();
    let mut stream = connect(front.address);
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 8\r\n\r\nhalf")
        .unwrap();
    begun.recv_timeout(PATIENCE).expect("the first half arrives");
    stream.write_all(b"full").unwrap();
    assert_eq!(read_answer(&mut stream, false).text(), "done");
}

#[test]
fn a_head_keeps_its_length_and_has_no_body() {
    let mut reply = answer("200 OK", &[], "hello");
    reply.truncate(reply.len() - 5);
    let upstream = Upstream::fixed(reply);
    let front = Setup::reverse(upstream.address).start();
    let head = request(front.address, "HEAD", "/", &[]);
    assert_eq!((head.status, head.field("content-length").as_deref()), (200, Some("5")));
}

#[test]
fn what_fails_upstream_is_named() {
    let nobody = Nobody::new();
    let front = Setup::reverse(nobody.address()).start();
    let refused = get(front.address, "/", &[]);
    assert_eq!(refused.status, 502);
    assert!(
        refused.text().contains(&nobody.hop()) || refused.text().contains("127.0.0.1"),
        "{}",
        refused.text()
    );
    assert!(refused.text().contains("did not accept a connection"), "{}", refused.text());

    let silent = Upstream::start(|_, stream| drop(stream.read(&mut [0])));
    let limits = ProxyLimits { answer: Duration::from_millis(200), ..ProxyLimits::default() };
    let front = Setup { limits, ..Setup::reverse(silent.address) }.start();
    let late = get(front.address, "/", &[]);
    assert_eq!(late.status, 504);
    assert!(late.text().contains("did not begin to answer within 200 ms"), "{}", late.text());

    let hangs_up = Upstream::start(|_, _| {});
    let front = Setup::reverse(hangs_up.address).start();
    assert_eq!(get(front.address, "/", &[]).status, 502);

    let babbles = Upstream::fixed(b"220 mail.test ESMTP\r\n".to_vec());
    let front = Setup::reverse(babbles.address).start();
    assert_eq!(get(front.address, "/", &[]).status, 502);
}

#[test]
fn an_upstream_that_stops_in_the_middle_is_cut_off() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
        // Until it is cut off.
        drop(stream.read(&mut [0]));
    });
    let limits = ProxyLimits { silence: Duration::from_millis(300), ..ProxyLimits::default() };
    let front = Setup { limits, ..Setup::reverse(upstream.address) }.start();
    let began = Instant::now();
    let answer = get(front.address, "/", &[]);
    assert!(!answer.whole && answer.text() == "half");
    assert!(began.elapsed() < PATIENCE, "the client gave up by itself");
}

/// However soon an upstream dies, what it had sent is passed on before the connection breaks.
#[test]
fn what_came_before_an_upstream_died_is_passed_on() {
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        for came in [0, 1000] {
            let upstream = Upstream::start(move |_, stream| {
                let head = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{framing}\r\n\r\n");
                let chunk = if framing.ends_with("chunked") { "186a0\r\n" } else { "" };
                stream.write_all(format!("{head}{chunk}{}", "x".repeat(came)).as_bytes()).unwrap();
            });
            for setup in [Setup::reverse(upstream.address), Setup::caching(upstream.address)] {
                let front = setup.start();
                for _ in 0..20 {
                    let answer = get(front.address, "/", &[]);
                    assert_eq!((answer.status, answer.whole), (200, false), "{framing}, {came}");
                    assert!(answer.body == "x".repeat(came).as_bytes(), "{framing}: {}", answer.body.len());
                }
            }
        }
    }
}

/// Leads whoever connects to an address that is told later.
fn joint() -> (SocketAddr, Arc<OnceLock<SocketAddr>>) {
    let joint = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, target) = (joint.local_addr().unwrap(), Arc::new(OnceLock::new()));
    let told = Arc::clone(&target);
    thread::spawn(move || {
        for stream in joint.incoming().flatten() {
            let onward = connect(*told.get().expect("nobody comes before the target is told"));
            thread::spawn(move || {
                let (mut from, mut to) = (stream.try_clone().unwrap(), onward.try_clone().unwrap());
                thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
                let (mut from, mut to) = (onward, stream);
                drop(std::io::copy(&mut from, &mut to));
            });
        }
    });
    (address, target)
}

/// Asks again and again: on a busy machine any single answer may be late, but were there a wait in it, all would be.
fn assert_loop_is_told_at_once(what: &str, address: SocketAddr, target: &str) {
    let took = (0..20).map(|turn| {
        let began = Instant::now();
        let answer = get(address, &format!("{target}{turn}"), &[]);
        assert_eq!(answer.status, 508, "{what}: {}", answer.text());
        assert!(answer.text().contains("come back to the node"), "{what}: {}", answer.text());
        began.elapsed()
    });
    let fastest = took.min().unwrap();
    eprintln!("{what}: led back to itself, it answers within {fastest:?}");
    // Within 100 ms on a machine at leisure; what this finds is a wait for one of the far limits.
    assert!(fastest < Duration::from_secs(5), "{what}: {fastest:?}");
}

#[test]
fn a_loop_ends_at_once() {
    let limits = far_limits();
    // The port of a proxy cannot be known before it listens, so its upstream is a joint.
    for cache_size in [None, Some(1 << 20)] {
        let (upstream, target) = joint();
        let front = Setup { cache_size, limits, ..Setup::reverse(upstream) }.start();
        target.set(front.address).unwrap();
        assert_loop_is_told_at_once("a reverse proxy", front.address, "/");

        let (upstream, target) = joint();
        let allow = vec!["127.0.0.1".to_owned()];
        let front = Setup { cache_size, forward: true, allow, limits, ..Setup::reverse(upstream) }.start();
        target.set(front.address).unwrap();
        assert_loop_is_told_at_once("a forward proxy", front.address, &format!("http://{}/", front.address));
    }
    // Two that are each other's upstream.
    let (upstream, target) = joint();
    let first = Setup { limits, ..Setup::caching(upstream) }.start();
    let second = Setup { limits, ..Setup::caching(first.address) }.start();
    target.set(second.address).unwrap();
    assert_loop_is_told_at_once("the first of two", first.address, "/a");
    assert_loop_is_told_at_once("the second of two", second.address, "/b");
    // Too many others on the way look like a loop, too.
    let hops: Vec<String> = (0..40).map(|hop| format!("1.1 hop-{hop}")).collect();
    let answer = get(first.address, "/", &[&format!("Via: {}", hops.join(", "))]);
    assert_eq!(answer.status, 508);
}

#[test]
fn a_gateway_that_is_led_back_to_itself_says_so_at_once() {
    // Nobody listens at the hop: who walked the route would say so, in a 502.
    let nobody = Nobody::new();
    let gateway = Some(Route::parse(format!("any\n{}\n", nobody.hop()).as_bytes()).unwrap());
    let limits = far_limits();
    let front = Setup { gateway, limits, ..Setup::forward(&["127.0.0.1".to_owned()]) }.start();
    assert_eq!(get(front.address, "/file", &[]).status, 502);
    assert_loop_is_told_at_once("a gateway", front.address, &format!("http://{}/", front.address));
}

#[test]
fn the_forward_proxy_goes_only_where_it_is_allowed() {
    let upstream = Upstream::fixed(answer("200 OK", &[], "hello"));
    let (allowed, port) = (upstream.address.to_string(), upstream.address.port());
    let front = Setup::forward(std::slice::from_ref(&allowed)).start();
    let got = get(front.address, &format!("http://{allowed}/x?y"), &[]);
    assert_eq!((got.status, got.text().as_str()), (200, "hello"));
    assert_eq!(upstream.last().line, "GET /x?y HTTP/1.1");
    assert_eq!(upstream.last().field("host"), Some(allowed.as_str()), "not the client's Host");
    for (target, status) in [
        (format!("http://127.0.0.1:{}/", port.wrapping_add(1).max(1)), 403),
        (format!("http://127.0.0.2:{port}/"), 403),
        (format!("http://[::1]:{port}/"), 403),
        ("http://169.254.169.254/latest".to_owned(), 403),
        (format!("https://127.0.0.1:{port}/"), 400),
        // The same address in other clothes is the same address.
        (format!("http://[::ffff:127.0.0.1]:{port}/"), 200),
        (format!("http://localhost:{port}/"), 200),
    ] {
        let got = get(front.address, &target, &[]);
        assert_eq!(got.status, status, "{target}: {}", got.text());
        assert!(status != 403 || got.text().contains("--allow-proxy"), "{}", got.text());
    }
    // What it advises can be typed.
    let six = get(front.address, &format!("http://[::1]:{port}/"), &[]).text();
    assert!(six.contains(&format!("--allow-proxy [::1]:{port}<")), "{six}");
    // Its own paths are its own.
    assert_eq!(get(front.address, "/own.txt", &[]).text(), "the node's own");
    // A node that forwards nothing takes an absolute target for its own, and goes nowhere else.
    let reverse = Setup::reverse(upstream.address).start();
    let before = upstream.count();
    assert_eq!(get(reverse.address, "http://169.254.169.254/mine", &[]).status, 200);
    assert_eq!((upstream.count(), upstream.last().line.as_str()), (before + 1, "GET /mine HTTP/1.1"));
    let open = Setup::forward(&["*".to_owned()]).start();
    assert_eq!(get(open.address, &format!("http://{allowed}/"), &[]).status, 403, "* means public hosts");
    assert_eq!(get(open.address, &format!("http://localhost:{port}/"), &[]).status, 403);
}

#[test]
fn the_forward_proxy_caches_by_where_it_fetched() {
    let one = Upstream::fixed(answer("200 OK", &["Cache-Control: max-age=60"], "one"));
    let two = Upstream::fixed(answer("200 OK", &["Cache-Control: max-age=60"], "two"));
    let allow = [one.address.to_string(), two.address.to_string()];
    let front = Setup { cache_size: Some(1 << 20), ..Setup::forward(&allow) }.start();
    for _ in 0..2 {
        let host = |at: &str| {
            vec![
                format!("GET http://{at}/ HTTP/1.1"),
                "Host: lies.test".to_owned(),
                "Connection: close".to_owned(),
            ]
        };
        for (at, body) in [(&allow[0], "one"), (&allow[1], "two")] {
            let head = host(at);
            let head: Vec<&str> = head.iter().map(String::as_str).collect();
            assert_eq!(ask(front.address, &head).text(), body);
        }
    }
    assert_eq!((one.count(), two.count()), (1, 1));
}

/// The rules come before the cache: what was fetched when a host was allowed is not there for those who may not go there.
#[test]
fn the_cache_does_not_reach_further_than_the_rules() {
    let upstream = Upstream::fixed(answer("200 OK", &["Cache-Control: max-age=60"], "hello"));
    let (address, port) = (upstream.address.to_string(), upstream.address.port());
    let dir = TempDir::new().unwrap();
    let caching = |allow: &[&str]| {
        let allow: Vec<String> = allow.iter().map(|rule| (*rule).to_owned()).collect();
        let setup = Setup { cache_size: Some(1 << 20), ..Setup::forward(&allow) };
        Setup { upstream: Some(upstream.address), ..setup }.start_in(Some(dir.path()))
    };
    let targets = [format!("http://{address}/"), format!("http://localhost:{port}/")];
    let wide = ["127.0.0.0/8", "10.0.0.0/8"];
    let front = caching(&wide);
    for target in &targets {
        assert_eq!(get(front.address, target, &[]).status, 200);
        assert!(get(front.address, target, &[]).is_hit());
    }
    front.drop_stored();
    // By its address, by where its name leads, and by its name.
    for narrow in [&["10.0.0.0/8"][..], &["files.test"]] {
        let front = caching(narrow);
        for target in &targets {
            for wish in [&[][..], &["Cache-Control: only-if-cached"]] {
                let status = get(front.address, target, wish).status;
                assert!(matches!(status, 403 | 504), "{narrow:?} {target} {wish:?}: {status}");
            }
            assert_eq!(get(front.address, target, &[]).status, 403, "{narrow:?} {target}");
        }
        // What the operator's own upstream had for others is not there for them either.
        assert_eq!(get(front.address, "/", &[]).status, 200);
        assert_eq!(get(front.address, &targets[0], &[]).status, 403);
        front.drop_stored();
    }
    let count = upstream.count();
    let front = caching(&[wide[1], wide[0]]);
    for target in &targets {
        assert!(get(front.address, target, &[]).is_hit(), "the same rules");
    }
    assert_eq!(upstream.count(), count);
}

#[test]
fn what_no_upstream_may_see_ends_here() {
    let upstream = Upstream::fixed(answer("200 OK", &[], "x"));
    let front = Setup::reverse(upstream.address).start();
    assert_eq!(request(front.address, "TRACE", "/", &[]).status, 501);
    let tunnel = request(front.address, "CONNECT", &upstream.address.to_string(), &[]);
    assert_eq!(tunnel.status, 501);
    assert!(tunnel.text().contains("no CONNECT"), "{}", tunnel.text());
    assert_eq!(request(front.address, "OPTIONS", "/", &["Max-Forwards: 0"]).status, 200);
    assert_eq!(upstream.count(), 0);
}

/// The client is told that it is its own request, and the upstream is not blamed for it.
#[test]
fn a_malformed_body_is_its_clients_fault() {
    let upstream = Upstream::start(|_, stream| drop(stream.read(&mut [0])));
    for front in [Setup::reverse(upstream.address).start(), Setup::caching(upstream.address).start()] {
        for body in ["zz\r\nhello\r\n0\r\n\r\n", "5\nhello\n0\n\n", "5\r\nhelloX\r\n0\r\n\r\n"] {
            let mut stream = connect(front.address);
            let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
            let refused = read_answer(&mut stream, false);
            assert_eq!(refused.status, 400, "{body:?}: {}", refused.text());
            assert!(refused.text().contains("malformed or cut off"), "{body:?}: {}", refused.text());
            assert_eq!(refused.field("connection").as_deref(), Some("close"));
        }
    }
}

/// HTTP/1.0 has no chunks, so only the connection's end can end a body of unknown length.
#[test]
fn a_body_of_unknown_length_ends_with_the_connection_for_http_1_0() {
    let upstream = Upstream::fixed(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    for front in [Setup::reverse(upstream.address).start(), Setup::caching(upstream.address).start()] {
        let got = ask(front.address, &["GET / HTTP/1.0", "Connection: keep-alive"]);
        assert_eq!((got.status, got.text().as_str(), got.whole), (200, "hello", true));
    }
}

/// Who speaks HTTP/1.0 cannot know otherwise that another request may follow.
#[test]
fn http_1_0_is_told_whether_the_connection_stays() {
    let upstream = Upstream::fixed(answer("200 OK", &["Cache-Control: max-age=60"], "hello"));
    let front = Setup::caching(upstream.address).start();
    get(front.address, "/", &[]);
    let mut stream = connect(front.address);
    for _ in 0..3 {
        stream.write_all(lines(&["GET / HTTP/1.0", "Host: a", "Connection: keep-alive"]).as_bytes()).unwrap();
        let got = read_answer(&mut stream, false);
        assert_eq!((got.status, got.text().as_str()), (200, "hello"));
        assert_eq!(got.field("connection").as_deref(), Some("keep-alive"));
    }
    stream.write_all(lines(&["GET / HTTP/1.0", "Host: a"]).as_bytes()).unwrap();
    let got = read_answer(&mut stream, false);
    assert_eq!(got.field("connection").as_deref(), Some("close"));
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    // What comes as to a proxy must not be kept (RFC 9112, 9.3).
    let mut stream = connect(front.address);
    stream
        .write_all(lines(&["GET http://a/ HTTP/1.0", "Host: a", "Connection: keep-alive"]).as_bytes())
        .unwrap();
    assert_eq!(read_answer(&mut stream, false).field("connection").as_deref(), Some("close"));
    assert_eq!(upstream.count(), 1);
}
