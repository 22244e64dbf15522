//! Bodies of every size, by every way of sending them.

use crate::http_support::{PATIENCE, Server};
use relay_node::access_log::AccessLog;
use relay_node::http::{HttpConfig, HttpEnd, HttpFace, serve};
use relay_node::root::DocumentRoot;
use relay_node::stop::channel;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|number| (number % 251) as u8).collect()
}

const SIZES: [usize; 9] =
    [0, 1, 1_024, 32 * 1024, 32 * 1024 + 1, 128 * 1024 + 1, (1 << 20) - 1, (1 << 20) + 1, (5 << 20) + 77];

#[tokio::test]
async fn every_size_arrives_whole_over_tcp() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for size in SIZES {
        server.file("file.bin", pattern(size));
        client.send("GET /file.bin HTTP/1.1\r\nHost: test\r\n\r\n").await;
        let reply = client.reply(false).await;
        assert_eq!((reply.status, reply.body.len()), (200, size));
        assert!(reply.body == pattern(size), "{size}");
        let lines = server.logged(1).await;
        assert!(lines.len() <= SIZES.len());
    }
    let lines = server.logged(SIZES.len()).await;
    for (line, size) in lines.iter().zip(SIZES) {
        assert!(line.contains(&format!("\" 200 {size} \"")), "{line}");
    }
}

/// Over a stream that is no socket, files go through memory.
#[tokio::test]
async fn every_size_arrives_whole_over_any_stream() {
    let root = tempfile::tempdir().unwrap();
    let face = Arc::new(HttpFace::new(
        Arc::new(DocumentRoot::open(root.path(), false).unwrap()),
        HttpConfig::default(),
        Arc::new(AccessLog::off()),
    ));
    for size in SIZES {
        std::fs::write(root.path().join("file.bin"), pattern(size)).unwrap();
        let (mut near, far) = tokio::io::duplex(16 * 1024);
        let (_source, stop) = channel();
        let served = tokio::spawn(serve(far, ([127, 0, 0, 1], 1).into(), face.clone(), stop));
        near.write_all(b"GET /file.bin HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut bytes = Vec::new();
        tokio::time::timeout(PATIENCE, near.read_to_end(&mut bytes)).await.unwrap().unwrap();
        assert!(bytes.ends_with(&pattern(size)), "{size}");
        let outcome = served.await.unwrap();
        assert_eq!((outcome.end, outcome.sent), (HttpEnd::Closed, bytes.len() as u64));
    }
}

#[tokio::test]
async fn large_ranges_are_cut_exactly() {
    let server = Server::start().await;
    let content = pattern(9 << 20);
    server.file("file.bin", &content);
    for (from, to) in [(0, 100_000), (1, (9 << 20) - 1), ((1 << 20) - 1, 1 << 20), (5_000_000, 5_000_000)] {
        let reply = server.get("/file.bin", &format!("Range: bytes={from}-{to}\r\n")).await;
        assert!(reply.body == content[from..=to], "{from}-{to}");
    }
    let reply = server.get("/file.bin", "Range: bytes=0-3000000,5000000-5000001\r\n").await;
    let at = reply.body.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(reply.body[at..].starts_with(&content[..=3_000_000]));
    assert!(reply.body.windows(2).any(|window| window == &content[5_000_000..=5_000_001]));
}

#[tokio::test]
async fn pipelined_large_files_stay_apart() {
    let server = Server::start().await;
    server.file("a.bin", vec![1; 3 << 20]);
    server.file("b.bin", vec![2; 100]);
    let mut client = server.connect().await;
    client
        .send(
            "GET /a.bin HTTP/1.1\r\nHost: test\r\n\r\nGET /b.bin HTTP/1.1\r\nHost: test\r\n\r\nGET /a.bin HTTP/1.1\r\nHost: \
             test\r\nConnection: close\r\n\r\n",
        )
        .await;
    assert!(client.reply(false).await.body == vec![1; 3 << 20]);
    assert!(client.reply(false).await.body == vec![2; 100]);
    let last = client.reply(false).await;
    assert_eq!((last.body.len(), last.field("connection")), (3 << 20, "close"));
    client.assert_closed().await;
}

/// A sparse file is as good as a large one, and is never in memory as a whole.
#[tokio::test]
async fn a_gibibyte_goes_out_whole() {
    let server = Server::start().await;
    let path = server.file("sparse.bin", "");
    std::fs::File::options().write(true).open(path).unwrap().set_len(1 << 30).unwrap();
    let mut client = server.connect().await;
    client.send("GET /sparse.bin HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
    let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        match tokio::time::timeout(PATIENCE, client.stream.read(&mut buffer)).await.unwrap().unwrap() {
            0 => break,
            read => total += read,
        }
    }
    assert!(total > 1 << 30 && total < (1 << 30) + 1_000, "{total}");
}

/// The promised length cannot be kept: the connection breaks, and nobody takes the rest for whole.
#[tokio::test]
async fn a_file_that_shrinks_while_it_is_sent_breaks_the_connection() {
    let mut server = Server::start().await;
    let path = server.file("shrinking", pattern(64 << 20));
    let mut client = server.connect().await;
    client.send("GET /shrinking HTTP/1.1\r\nHost: test\r\n\r\n").await;
    client.stream.readable().await.unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_len(40 << 20).unwrap();
    let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
    while let Ok(read @ 1..) = client.stream.read(&mut buffer).await {
        total += read;
    }
    assert!(total < (40 << 20) + 1_000, "{total}");
    assert_eq!(server.outcome().await.end, HttpEnd::Broken);
}

#[tokio::test]
async fn a_file_that_is_unlinked_while_it_is_sent_is_delivered() {
    let server = Server::start().await;
    let content = pattern(32 << 20);
    let path = server.file("leaving", &content);
    let mut client = server.connect().await;
    client.send("GET /leaving HTTP/1.1\r\nHost: test\r\n\r\n").await;
    client.stream.readable().await.unwrap();
    std::fs::remove_file(path).unwrap();
    assert!(client.reply(false).await.body == content);
}
