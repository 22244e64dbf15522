//! CONNECT.

use super::proxy_front::Setup;
use super::raw_http::{connect, read_answer};
use relay_node::http::proxy_dial::ProxyLimits;
use relay_testkit::nobody::Nobody;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Answers with everything it read, once the other side has ended.
fn echo_at_the_end() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut all = Vec::new();
                drop(stream.read_to_end(&mut all));
                drop(stream.write_all(&all));
            });
        }
    });
    address
}

fn open(front: SocketAddr, target: &str) -> (u16, TcpStream) {
    let mut stream = connect(front);
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).unwrap();
    let mut byte_by_byte = BufReader::with_capacity(1, stream.try_clone().unwrap());
    let (status, _) = super::raw_http::read_head(&mut byte_by_byte);
    (status, stream)
}

#[test]
fn bytes_go_through_and_each_direction_ends_by_itself() {
    let target = echo_at_the_end().to_string();
    let front = Setup::forward(std::slice::from_ref(&target)).start();
    let (status, mut stream) = open(front.address, &target);
    assert_eq!(status, 200);
    let sent: Vec<u8> = (0..1_000_000_u32).map(|place| (place % 251) as u8).collect();
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert!(back == sent);
}

#[test]
fn a_tunnel_goes_only_where_it_is_allowed() {
    let target = echo_at_the_end().to_string();
    let front = Setup::forward(&["127.0.0.1:1".to_owned()]).start();
    let mut stream = connect(front.address);
    stream
        .write_all(
            format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .unwrap();
    let refused = read_answer(&mut stream, false);
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("--allow-proxy"), "{}", refused.text());
    let nobody = Nobody::new();
    let front = Setup::forward(&[nobody.hop()]).start();
    assert_eq!(open(front.address, &nobody.hop()).0, 502);
}

#[test]
fn content_that_could_be_the_tunnels_is_refused() {
    let target = echo_at_the_end().to_string();
    let front = Setup::forward(std::slice::from_ref(&target)).start();
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let mut stream = connect(front.address);
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let refused = read_answer(&mut stream, false);
        assert_eq!(refused.status, 400, "{framing}");
        assert_eq!(refused.field("connection").as_deref(), Some("close"), "{framing}");
    }
}

#[test]
fn a_silent_tunnel_is_closed() {
    let target = echo_at_the_end().to_string();
    let limits = ProxyLimits { tunnel_idle: Duration::from_millis(200), ..ProxyLimits::default() };
    let front = Setup { limits, ..Setup::forward(std::slice::from_ref(&target)) }.start();
    let (status, mut stream) = open(front.address, &target);
    assert_eq!(status, 200);
    stream.write_all(b"x").unwrap();
    assert!(
        matches!(stream.read(&mut [0]), Ok(0) | Err(_)),
        "closed, long before the client's own patience ends"
    );
}
