//! Every wait has a limit, and nobody waits for somebody else's.

use crate::http_support::{Client, PATIENCE, Server};
use relay_node::access_log::AccessFormat;
use relay_node::http::proxy::{Proxy, ProxyConfig};
use relay_node::http::{HttpConfig, HttpEnd};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

fn quick() -> HttpConfig {
    HttpConfig {
        header_timeout: Duration::from_millis(300),
        keep_alive_timeout: Duration::from_millis(300),
        send_timeout: Duration::from_millis(500),
        body_timeout: Duration::from_millis(300),
        ..HttpConfig::default()
    }
}

async fn assert_408(mut client: Client) {
    let reply = client.reply(false).await;
    assert_eq!((reply.status, reply.field("connection")), (408, "close"));
    assert!(reply.text().contains("408 Request Timeout"));
    client.assert_closed().await;
}

#[tokio::test]
async fn silence_gets_408() {
    let mut server = Server::with(quick()).await;
    assert_408(server.connect().await).await;
    assert_eq!(server.outcome().await.end, HttpEnd::RequestTimeout);
    let mut client = server.connect().await;
    client.send("\r\n\r\n").await;
    assert_408(client).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: te").await;
    assert_408(client).await;
    assert!(server.logged(3).await.iter().all(|line| line.contains(" 408 ")));
}

/// What old clients put behind a request is no beginning of another.
#[tokio::test]
async fn a_line_end_behind_an_answered_request_asks_for_nothing() {
    let mut server = Server::with(quick()).await;
    server.file("a", "a");
    for line_end in ["\r\n", "\r"] {
        let mut client = server.connect().await;
        client.send(format!("GET /a HTTP/1.1\r\nHost: test\r\n\r\n{line_end}")).await;
        assert_eq!(client.reply(false).await.text(), "a");
        client.assert_closed().await;
        assert_eq!(server.outcome().await.end, HttpEnd::Idle, "{line_end:?}");
        let mut client = server.connect().await;
        client.send("GET /a HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.reply(false).await.text(), "a");
        client.send(line_end).await;
        client.assert_closed().await;
        assert_eq!(server.outcome().await.end, HttpEnd::Idle, "{line_end:?}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let mut server = Server::with(quick()).await;
    server.file("a", "a");
    let mut client = server.connect().await;
    client.send("GET /a HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.reply(false).await.text(), "a");
    client.assert_closed().await;
    assert_eq!(server.outcome().await.end, HttpEnd::Idle);
    // A second request that begins and does not end gets a word.
    let mut client = server.connect().await;
    client.send("GET /a HTTP/1.1\r\nHost: test\r\n\r\nGET").await;
    assert_eq!(client.reply(false).await.text(), "a");
    assert_408(client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_slow_clients_are_closed_while_others_see_no_delay() {
    let config = HttpConfig { header_timeout: Duration::from_secs(2), ..quick() };
    let server = Server::with(config).await;
    server.file("a", "a");
    let mut slow = Vec::new();
    for _ in 0..MANY {
        let mut client = server.connect().await;
        slow.push(tokio::spawn(async move {
            for byte in b"GET / HTTP/1.1\r\nHost: test\r\nx-slow: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy" {
                // The server may have closed already; that is what this is for.
                let _ = client.stream.write_all(&[*byte]).await;
                sleep(Duration::from_millis(100)).await;
            }
            client.rest().await
        }));
    }
    for _ in 0..20 {
        // All the slow ones are still there, and this one is answered.
        let reply = timeout(Duration::from_secs(5), server.get("/a", "")).await.unwrap();
        assert_eq!(reply.status, 200);
    }
    for client in slow {
        let bytes = timeout(PATIENCE, client).await.unwrap().unwrap();
        assert!(bytes.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&bytes));
    }
}

/// Clients that misbehave at once.
const MANY: usize = 1_000;

/// Nobody reads the body of a POST to a file, so its client has its answer and a close long before it is done.
#[tokio::test]
async fn dribbled_bodies_hold_nothing() {
    let mut server = Server::with(quick()).await;
    let mut clients = Vec::new();
    for _ in 0..MANY {
        let mut client = server.connect().await;
        client.send("POST /a HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n").await;
        clients.push(tokio::spawn(async move {
            let reply = client.reply(false).await;
            assert_eq!((reply.status, reply.field("connection")), (405, "close"));
            // Goes on sending until the server has closed.
            while client.stream.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(50)).await;
            }
        }));
    }
    for client in clients {
        timeout(PATIENCE, client).await.unwrap().unwrap();
    }
    for _ in 0..MANY {
        assert_eq!(server.outcome().await.end, HttpEnd::Closed);
    }
}

/// An upstream that answers a GET, and reads everything else without ever answering.
async fn taking_upstream() -> SocketAddr {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = upstream.accept().await {
            tokio::spawn(async move {
                let mut first = [0; 4];
                if stream.read_exact(&mut first).await.is_ok() && &first == b"GET " {
                    let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
                    return stream.write_all(answer).await;
                }
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
            });
        }
    });
    address
}

/// A body that is passed on must keep a pace, or its client gets 408; meanwhile nobody else waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_bodies_dribbled_through_the_proxy_get_408_while_others_see_no_delay() {
    let config = ProxyConfig {
        upstream: Some(format!("http://{}", taking_upstream().await).parse().unwrap()),
        ..ProxyConfig::default()
    };
    // None of them is over before the last one has begun.
    let limits = HttpConfig { body_timeout: Duration::from_secs(5), ..HttpConfig::default() };
    let mut server = Server::with_face(limits, AccessFormat::Combined, |face| {
        face.with_proxy(Proxy::new(config, None, 1))
    })
    .await;
    let mut slow = Vec::new();
    for number in 0..MANY {
        let framing = if number % 2 == 0 { "Content-Length: 1000000" } else { "Transfer-Encoding: chunked" };
        let mut client = server.connect().await;
        let fields = format!("Host: test\r\nAccept: application/json\r\n{framing}");
        client.send(format!("POST /a HTTP/1.1\r\n{fields}\r\n\r\n")).await;
        slow.push(tokio::spawn(async move {
            // Goes on until the server has closed, which this side hears a little later than its answer.
            let (mut reading, mut writing) = client.stream.into_split();
            let dribbling = tokio::spawn(async move {
                while writing.write_all(b"1\r\nx\r\n").await.is_ok() {
                    sleep(Duration::from_millis(100)).await;
                }
            });
            let mut answer = Vec::new();
            reading.read_to_end(&mut answer).await.unwrap();
            dribbling.abort();
            answer
        }));
    }
    for _ in 0..20 {
        let reply = timeout(Duration::from_secs(5), server.get("/a", "")).await.unwrap();
        assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
    }
    for client in slow {
        let answer = timeout(PATIENCE, client).await.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("{\"status\":408,"), "{answer}");
    }
    let lines = server.logged(MANY + 20).await;
    let is_slow = |line: &&String| line.contains("\"POST /a HTTP/1.1\" 408 ");
    assert_eq!(lines.iter().filter(is_slow).count(), MANY, "{:?}", lines.last());
    let mut timed_out = 0;
    for _ in 0..MANY + 20 {
        timed_out += usize::from(server.outcome().await.end == HttpEnd::RequestTimeout);
    }
    assert_eq!(timed_out, MANY);
}

#[tokio::test]
async fn a_client_that_never_reads_is_given_up() {
    let mut server = Server::with(quick()).await;
    server.file("large", vec![7; 32 << 20]);
    let mut client = server.connect().await;
    client.send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let outcome = server.outcome().await;
    assert_eq!((outcome.end, outcome.requests), (HttpEnd::SendTimeout, 1));
    assert!(outcome.sent < 32 << 20, "{outcome:?}");
    // The log says how much went out.
    let line = server.logged(1).await.remove(0);
    let bytes: u64 = line.split(' ').nth(9).unwrap().parse().unwrap();
    assert!(bytes > 0 && bytes < 32 << 20, "{line}");
    drop(client);
}

#[tokio::test]
async fn a_client_that_never_reads_many_small_answers_is_given_up() {
    let mut server = Server::with(quick()).await;
    server.file("small", vec![7; 32 << 10]);
    let mut client = server.connect().await;
    let requests = "GET /small HTTP/1.1\r\nHost: test\r\n\r\n".repeat(1_000);
    client.send(requests).await;
    assert_eq!(server.outcome().await.end, HttpEnd::SendTimeout);
    drop(client);
}

#[tokio::test]
async fn a_slow_reader_is_not_cut() {
    let server = Server::with(quick()).await;
    let content: Vec<u8> = (0..(8 << 20)).map(|number: u32| (number % 251) as u8).collect();
    server.file("large", &content);
    let mut client = server.connect().await;
    client.send("GET /large HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
    // Longer in all than the limit for taking nothing, with pauses shorter than it.
    let mut received = Vec::new();
    for _ in 0..6 {
        sleep(Duration::from_millis(150)).await;
        let mut buffer = vec![0; 1 << 20];
        let read = client.stream.read(&mut buffer).await.unwrap();
        received.extend_from_slice(&buffer[..read]);
    }
    received.extend(client.rest().await);
    assert!(received.ends_with(&content), "{} bytes", received.len());
}

#[tokio::test]
async fn the_end_of_the_node_closes_idle_connections_and_lets_answers_end() {
    let mut server = Server::start().await;
    server.file("a", "a");
    let content = vec![1; 16 << 20];
    server.file("large", &content);
    let mut idle = server.connect().await;
    idle.send("GET /a HTTP/1.1\r\nHost: test\r\n\r\n").await;
    idle.reply(false).await;
    let fresh = server.connect().await;
    let mut busy = server.connect().await;
    busy.send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n").await;
    // The answer has begun.
    busy.stream.readable().await.unwrap();
    server.stop.stop();
    idle.assert_closed().await;
    fresh.assert_closed().await;
    let reply = busy.reply(false).await;
    assert_eq!(reply.body.len(), content.len());
    busy.assert_closed().await;
    for _ in 0..3 {
        assert_eq!(server.outcome().await.end, HttpEnd::Stopped);
    }
}
