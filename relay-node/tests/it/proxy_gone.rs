//! Clients that go away while their answer is waited for, and clients that only have nothing more to say.

use super::http_support::Server;
use super::proxy_front::Setup;
use super::raw_http::{PATIENCE, connect, lines, read_answer};
use super::scripted_upstream::{Upstream, answer};
use relay_node::access_log::AccessFormat;
use relay_node::http::proxy::{Proxy, ProxyConfig};
use relay_node::http::{HttpConfig, HttpEnd};
use relay_proto::route::Route;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, mpsc};

/// What happens at the upstream's end.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Asked,
    GivenUp,
}

/// An upstream that says no more than `begin` to a GET, and tells when it is given up.
fn silent(begin: &'static str) -> (Upstream, mpsc::Receiver<Event>) {
    let (sender, events) = mpsc::channel();
    let sender = Mutex::new(sender);
    let upstream = Upstream::start(move |_, stream| {
        let tell = |event| drop(sender.lock().unwrap().send(event));
        stream.write_all(begin.as_bytes()).unwrap();
        tell(Event::Asked);
        if matches!(stream.read(&mut [0]), Ok(0)) {
            tell(Event::GivenUp);
        }
    });
    (upstream, events)
}

fn asking(address: SocketAddr) -> TcpStream {
    let mut client = connect(address);
    client.write_all(lines(&["GET / HTTP/1.1", "Host: a"]).as_bytes()).unwrap();
    client
}

/// As a system does for a process that ends with its work undone.
fn reset(client: TcpStream) {
    socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
}

/// Each limit of the proxy's is longer than the test waits.
#[test]
fn who_leaves_takes_the_request_along() {
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234";
    let plain: fn(SocketAddr) -> Setup = Setup::reverse;
    for (begin, leave, setup) in [
        ("", reset as fn(TcpStream), plain),
        ("", drop as fn(TcpStream), plain),
        (begun, reset as fn(TcpStream), plain),
        ("", reset as fn(TcpStream), Setup::caching),
        (begun, drop as fn(TcpStream), Setup::caching),
    ] {
        let (upstream, events) = silent(begin);
        let front = setup(upstream.address).start();
        let mut client = asking(front.address);
        assert_eq!(events.recv_timeout(PATIENCE), Ok(Event::Asked));
        if !begin.is_empty() {
            client.read_exact(&mut [0; 40]).unwrap();
        }
        leave(client);
        assert_eq!(events.recv_timeout(PATIENCE), Ok(Event::GivenUp), "{begin:?}");
    }
}

/// Whom no interim answer can ask whether he listens is not waited for as long as the upstream likes. All at once, for each takes
/// some seconds.
#[test]
fn who_closes_and_cannot_be_asked_is_given_up() {
    let event = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n1\n\n\r\n";
    let plain: fn(SocketAddr) -> Setup = Setup::reverse;
    let closed = [
        (&["GET / HTTP/1.0"][..], "", plain),
        (&["GET / HTTP/1.0", "Connection: keep-alive"], "", plain),
        (&["GET / HTTP/1.1", "Host: a"], event, plain),
        (&["GET / HTTP/1.1", "Host: a"], event, Setup::caching),
    ]
    .map(|(head, begin, setup)| {
        let (upstream, events) = silent(begin);
        let front = setup(upstream.address).start();
        let mut client = connect(front.address);
        client.write_all(lines(head).as_bytes()).unwrap();
        assert_eq!(events.recv_timeout(PATIENCE), Ok(Event::Asked));
        let mut read = Vec::new();
        while !begin.is_empty() && !read.ends_with(b"1\n\n\r\n") {
            let mut piece = [0; 1024];
            let length = client.read(&mut piece).unwrap();
            read.extend_from_slice(&piece[..length]);
        }
        // With nothing unread this is an end, and no reset.
        drop(client);
        (front, events, head, begin)
    });
    for (_front, events, head, begin) in closed {
        assert_eq!(events.recv_timeout(PATIENCE), Ok(Event::GivenUp), "{head:?} {begin:?}");
    }
}

#[test]
fn who_leaves_a_gateway_takes_the_pipe_along() {
    let hop = TcpListener::bind("127.0.0.1:0").unwrap();
    let route = Route::parse(format!("any\n{}\n", hop.local_addr().unwrap()).as_bytes()).unwrap();
    let front = Setup { gateway: Some(route), ..Setup::default() }.start();
    let client = asking(front.address);
    let (mut pipe, _) = hop.accept().unwrap();
    pipe.set_read_timeout(Some(PATIENCE)).unwrap();
    pipe.read_exact(&mut [0; 8]).unwrap();
    drop(client);
    // The rest of the open, and then the end; a hello is not waited for any more.
    pipe.read_to_end(&mut Vec::new()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_of_who_left_is_free_at_once_and_logged() {
    let (upstream, events) = silent("");
    let config = ProxyConfig {
        upstream: Some(format!("http://{}", upstream.address).parse().unwrap()),
        ..ProxyConfig::default()
    };
    let mut server = Server::with_face(HttpConfig::default(), AccessFormat::Combined, |face| {
        face.with_proxy(Proxy::new(config, None, 1))
    })
    .await;
    let client = asking(server.address);
    assert_eq!(events.recv_timeout(PATIENCE), Ok(Event::Asked));
    reset(client);
    let outcome = server.outcome().await;
    assert_eq!((outcome.end, outcome.sent), (HttpEnd::Broken, 0));
    assert!(server.logged(1).await.iter().all(|line| line.contains("\"GET / HTTP/1.1\" 499 0 ")));
}

/// A client may end its sending side and listen on.
#[test]
fn who_only_listens_gets_the_answer() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |_, stream| {
        wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        stream.write_all(&answer("200 OK", &[], "hello")).unwrap();
    });
    let front = Setup::reverse(upstream.address).start();
    let mut client = asking(front.address);
    client.shutdown(Shutdown::Write).unwrap();
    // Only who is there takes notice of this.
    let mut interim = [0; 25];
    client.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    go.send(()).unwrap();
    assert_eq!(read_answer(&mut client, false).text(), "hello");
    // HTTP/1.0 knows no interim answers.
    let mut old = connect(front.address);
    old.write_all(lines(&["GET / HTTP/1.0"]).as_bytes()).unwrap();
    old.shutdown(Shutdown::Write).unwrap();
    go.send(()).unwrap();
    let mut all = String::new();
    old.read_to_string(&mut all).unwrap();
    assert!(
        all.starts_with("HTTP/1.") && all.contains(" 200 OK\r\n") && all.ends_with("\r\n\r\nhello"),
        "{all}"
    );
    assert!(!all.contains(" 100 "), "{all}");
}
