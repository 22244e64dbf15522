//! Conditional requests and ranges over the wire.

use crate::http_support::{Reply, Server};
use std::time::{Duration, SystemTime};

/// A server with one file of 26 letters that is an hour old, and the first answer about it.
async fn alphabet() -> (Server, Reply) {
    let server = Server::start().await;
    let path = server.file("abc.txt", "abcdefghijklmnopqrstuvwxyz");
    let then = SystemTime::now() - Duration::from_secs(3_600);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
    let reply = server.get("/abc.txt", "").await;
    (server, reply)
}

#[tokio::test]
async fn the_conditional_table() {
    let (server, first) = alphabet().await;
    let (tag, date) = (first.field("etag"), first.field("last-modified"));
    let (old, new) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Fri, 31 Dec 2094 23:59:59 GMT");
    for (fields, status) in [
        (format!("If-None-Match: {tag}"), 304),
        (format!("If-None-Match: W/{tag}"), 304),
        (format!("If-None-Match: \"x\", {tag}"), 304),
        (format!("If-None-Match: \"x\"\r\nIf-None-Match: {tag}"), 304),
        ("If-None-Match: *".into(), 304),
        ("If-None-Match: \"x\"".into(), 200),
        (format!("If-Modified-Since: {date}"), 304),
        (format!("If-Modified-Since: {new}"), 304),
        (format!("If-Modified-Since: {old}"), 200),
        ("If-Modified-Since: gibberish".into(), 200),
        ("If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT".into(), 200),
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {date}"), 200),
        (format!("If-None-Match: {tag}\r\nIf-Modified-Since: {old}"), 304),
        (format!("If-Match: {tag}"), 200),
        ("If-Match: *".into(), 200),
        (format!("If-Match: W/{tag}"), 412),
        ("If-Match: \"x\"".into(), 412),
        (format!("If-Unmodified-Since: {date}"), 200),
        (format!("If-Unmodified-Since: {old}"), 412),
        ("If-Unmodified-Since: gibberish".into(), 200),
        (format!("If-Match: {tag}\r\nIf-Unmodified-Since: {old}"), 200),
        (format!("If-Match: {tag}\r\nIf-None-Match: {tag}"), 304),
        (format!("If-Match: \"x\"\r\nIf-None-Match: {tag}"), 412),
        (format!("Range: bytes=0-0\r\nIf-None-Match: {tag}"), 304),
    ] {
        for method in ["GET", "HEAD"] {
            let request = format!("{method} /abc.txt HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\n");
            let reply = server.ask(request).await;
            assert_eq!(reply.status, status, "{method} {fields}");
            match status {
                304 => {
                    assert_eq!(reply.field("etag"), tag);
                    assert!(!reply.fields.contains_key("content-length"), "{}", reply.head);
                }
                412 => assert_eq!(reply.field("etag"), ""),
                _ => assert_eq!(reply.field("content-length"), "26"),
            }
        }
    }
}

#[tokio::test]
async fn a_304_leaves_the_connection_usable() {
    let (server, first) = alphabet().await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        let tag = first.field("etag");
        client.send(format!("GET /abc.txt HTTP/1.1\r\nHost: test\r\nIf-None-Match: {tag}\r\n\r\n")).await;
        assert_eq!(client.reply(false).await.status, 304);
        client.send("GET /abc.txt HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.reply(false).await, Reply { ..first.clone() }.with_date_of(&first));
    }
}

impl Reply {
    /// Two answers may be a second apart.
    fn with_date_of(mut self, other: &Self) -> Self {
        self.fields.insert("date".into(), other.field("date").into());
        self
    }
}

/// Of 26 letters: what is asked for, and status, `Content-Range` and body of the answer.
pub const RANGES: &[(&str, u16, &str, &str)] = &[
    ("bytes=0-4", 206, "bytes 0-4/26", "abcde"),
    ("bytes=21-", 206, "bytes 21-25/26", "vwxyz"),
    ("bytes=-3", 206, "bytes 23-25/26", "xyz"),
    ("bytes=25-25", 206, "bytes 25-25/26", "z"),
    ("bytes=20-1000", 206, "bytes 20-25/26", "uvwxyz"),
    ("bytes=-1000", 206, "bytes 0-25/26", "abcdefghijklmnopqrstuvwxyz"),
    ("bytes=0-4,3-6", 206, "bytes 0-6/26", "abcdefg"),
    ("bytes=0-0,100-", 206, "bytes 0-0/26", "a"),
    ("bytes=26-", 416, "bytes */26", ""),
    ("bytes=-0", 416, "bytes */26", ""),
    ("bytes=99999999999999999999-", 416, "bytes */26", ""),
    ("bytes=5-4", 200, "", "abcdefghijklmnopqrstuvwxyz"),
    ("bytes=x", 200, "", "abcdefghijklmnopqrstuvwxyz"),
    ("letters=0-4", 200, "", "abcdefghijklmnopqrstuvwxyz"),
];

#[tokio::test]
async fn the_range_table() {
    let (server, _) = alphabet().await;
    for &(range, status, content_range, body) in RANGES {
        let reply = server.get("/abc.txt", &format!("Range: {range}\r\n")).await;
        assert_eq!((reply.status, reply.field("content-range")), (status, content_range), "{range}");
        if status != 416 {
            assert_eq!(reply.text(), body, "{range}");
            assert_eq!(reply.field("content-type"), "text/plain; charset=utf-8");
            assert_eq!(reply.field("accept-ranges"), "bytes");
        }
    }
    let head = server.ask("HEAD /abc.txt HTTP/1.1\r\nHost: test\r\nRange: bytes=0-0\r\n\r\n").await;
    assert_eq!((head.status, head.field("content-length")), (200, "26"));
    server.file("empty", "");
    assert_eq!(server.get("/empty", "Range: bytes=0-\r\n").await.field("content-range"), "bytes */0");
    assert_eq!(server.get("/empty", "Range: bytes=-1\r\n").await.status, 200);
}

#[tokio::test]
async fn several_ranges_byte_for_byte() {
    let (server, first) = alphabet().await;
    let boundary = first.field("etag").trim_matches('"').to_owned();
    let reply = server.get("/abc.txt", "Range: bytes=24-25, 0-1,-3\r\n").await;
    let part = |range: &str, text: &str| {
        format!(
            "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes {range}/26\r\n\r\n{text}\r\n"
        )
    };
    // The overlapping ones are merged, and then stand in the file's order.
    assert_eq!(reply.text(), format!("{}{}--{boundary}--\r\n", part("0-1", "ab"), part("23-25", "xyz")));
    let reply = server.get("/abc.txt", "Range: bytes=24-25,0-1\r\n").await;
    assert_eq!(reply.status, 206);
    assert_eq!(reply.field("content-type"), format!("multipart/byteranges; boundary={boundary}"));
    assert_eq!(reply.field("content-range"), "");
    assert_eq!(reply.text(), format!("{}{}--{boundary}--\r\n", part("24-25", "yz"), part("0-1", "ab")));
    let many: Vec<_> = (0..13).map(|number| format!("{0}-{0}", 2 * number)).collect();
    let reply = server.get("/abc.txt", &format!("Range: bytes={}\r\n", many.join(","))).await;
    assert_eq!(reply.text().matches("Content-Range").count(), 13);
    let too_many = vec!["0-0"; 1_000].join(",");
    assert_eq!(server.get("/abc.txt", &format!("Range: bytes={too_many}\r\n")).await.status, 200);
}

#[tokio::test]
async fn a_stale_if_range_gets_the_whole_file() {
    let (server, first) = alphabet().await;
    let (tag, date) = (first.field("etag"), first.field("last-modified"));
    for (value, status) in [
        (tag, 206),
        (date, 206),
        ("\"stale\"", 200),
        (&format!("W/{tag}"), 200),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 200),
        ("Fri, 31 Dec 2094 23:59:59 GMT", 200),
        ("gibberish", 200),
    ] {
        let reply = server.get("/abc.txt", &format!("Range: bytes=0-1\r\nIf-Range: {value}\r\n")).await;
        assert_eq!((reply.status, reply.body.len()), (status, if status == 206 { 2 } else { 26 }), "{value}");
    }
    let reply = server.get("/abc.txt", "Range: bytes=99-\r\nIf-Range: \"stale\"\r\n").await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_file_from_the_future_or_from_before_1970() {
    let server = Server::start().await;
    let future = server.file("future", "x");
    let past = server.file("past", "x");
    let set = |path, time| {
        std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    };
    set(future, SystemTime::now() + Duration::from_secs(1_000_000));
    set(past, SystemTime::UNIX_EPOCH - Duration::from_secs(1_000_000));
    let reply = server.get("/future", "").await;
    let parse = |name| httpdate::parse_http_date(reply.field(name)).unwrap();
    assert!(parse("last-modified") <= parse("date"), "{}", reply.head);
    let reply = server.get("/past", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n").await;
    assert_eq!((reply.status, reply.field("last-modified")), (200, ""));
}
