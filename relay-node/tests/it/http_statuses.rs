//! What each request gets, byte for byte where the RFC is.

use crate::http_support::{Reply, Server};
use relay_node::access_log::{AccessFormat, AccessLog};
use relay_node::http::{HttpConfig, HttpEnd, HttpFace};
use relay_node::root::DocumentRoot;
use std::os::unix::fs::symlink;
use std::sync::Arc;

/// The head with the parts replaced that change from run to run.
fn canonical(reply: &Reply) -> String {
    let mut head = reply.head.clone();
    for (name, value) in &reply.fields {
        if ["date", "etag", "last-modified"].contains(&name.as_str()) {
            head = head.replace(value, "*");
        }
    }
    head
}

#[tokio::test]
async fn a_file_byte_for_byte() {
    let server = Server::start().await;
    server.file("hello.txt", "hello");
    let reply = server.get("/hello.txt", "").await;
    assert_eq!(
        canonical(&reply),
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\nLast-Modified: *\r\n\
         ETag: *\r\nAccept-Ranges: bytes\r\nDate: *\r\n\r\n"
    );
    assert_eq!(reply.body, b"hello");
    let tag = reply.field("etag");
    assert!(tag.len() == 34 && tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    for date in [reply.field("date"), reply.field("last-modified")] {
        assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
    }
    let head = server.ask("HEAD /hello.txt HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(canonical(&head), canonical(&reply));
    let old = server.ask("GET /hello.txt HTTP/1.0\r\n\r\n").await;
    assert!(old.head.starts_with("HTTP/1.0 200 OK\r\n"), "{}", old.head);
}

#[tokio::test]
async fn an_error_byte_for_byte() {
    let server = Server::start().await;
    let reply = server.get("/missing", "").await;
    assert_eq!(
        canonical(&reply),
        format!(
            "HTTP/1.1 404 Not Found\r\nContent-Type: text/html; charset=utf-8\r\nVary: accept\r\nContent-Length: {}\r\n\
             Date: *\r\n\r\n",
            reply.body.len()
        )
    );
    assert!(reply.text().contains("<h1>404 Not Found</h1>"));
    let reply = server.get("/missing", "Accept: application/json\r\n").await;
    assert_eq!(reply.field("content-type"), "application/json");
    assert_eq!(
        reply.text(),
        "{\"status\":404,\"error\":\"Not Found\",\"detail\":\"There is no such file here.\"}\n"
    );
}

#[tokio::test]
async fn an_index_stands_for_its_directory() {
    let server = Server::start().await;
    server.file("index.html", "<p>top");
    server.file("docs/index.html", "<p>docs");
    let reply = server.get("/", "").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "<p>top"));
    assert_eq!(reply.field("content-type"), "text/html; charset=utf-8");
    assert_eq!(server.get("/docs/", "").await.text(), "<p>docs");
    let reply = server.get("/docs?x=1", "").await;
    assert_eq!((reply.status, reply.field("location")), (301, "/docs/?x=1"));
    assert_eq!(server.get("/index.html/", "").await.status, 404);
    assert_eq!(server.ask("GET http://test/docs/ HTTP/1.1\r\nHost: test\r\n\r\n").await.text(), "<p>docs");
    assert_eq!(server.get("/?query", "").await.text(), "<p>top");
}

#[tokio::test]
async fn nothing_outside_the_root_in_any_encoding() {
    let server = Server::start().await;
    let root = server.root.path().file_name().unwrap().to_str().unwrap();
    let secret = server.root.path().with_extension("secret");
    std::fs::write(&secret, "SECRET").unwrap();
    let name = secret.file_name().unwrap().to_str().unwrap();
    server.file("docs/a.txt", "a");
    server.file(".hidden", "SECRET");
    server.file("film.part", "SECRET");
    symlink(&secret, server.root.path().join("absolute")).unwrap();
    symlink(format!("../{name}"), server.root.path().join("relative")).unwrap();
    symlink("..", server.root.path().join("up")).unwrap();
    let mut targets: Vec<String> = [
        "/../@",
        "/..%2f@",
        "/%2e%2e/@",
        "/%2e%2e%2f@",
        "/.%2e/@",
        "/%2E./@",
        "/docs/../../@",
        "/docs/..%2f..%2f@",
        "/..%5c@",
        "/..\\@",
        "/%252e%252e/@",
        "/%c0%ae%c0%ae/@",
        "/%c0%ae%c0%ae%c0%af@",
        "/%uff0e%uff0e/@",
        "//@",
        "/./../@",
        "/.../@",
        "/..;/@",
        "/..%00/@",
        "/docs/a.txt%00/../../@",
        "/..%0d%0a/@",
        "/up/@",
        "/absolute",
        "/relative",
        "/.hidden",
        "/%2ehidden",
        "/film.part",
        "/film%2epart",
        "/%2fetc/passwd",
        "/etc/passwd",
        "//etc/passwd",
        "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/docs/a.txt/../../.hidden",
        "/proc/self/root/etc/passwd",
        "/docs/%2e%2e/.hidden",
        "/file:///etc/passwd",
    ]
    .iter()
    .map(|target| target.replace('@', name))
    .collect();
    targets.push(format!("/../{root}/docs/a.txt"));
    for target in targets {
        let reply = server.get(&target, "").await;
        assert!(matches!(reply.status, 400 | 404), "{target}: {}", reply.head);
        assert!(!reply.text().contains("SECRET") && !reply.text().contains("root:"), "{target}");
        let reply = server.ask(format!("GET http://test{target} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        assert!(matches!(reply.status, 400 | 404), "{target}: {}", reply.head);
    }
    std::fs::remove_file(secret).unwrap();
}

#[tokio::test]
async fn no_inner_detail_in_any_error() {
    let server = Server::start().await;
    server.file("a", "");
    let path = server.root.path().to_str().unwrap().to_owned();
    for target in ["/missing", "/a/b", "/%ff", "/%zz", "/..", "/<script>"] {
        let reply = server.get(target, "").await;
        let text = reply.text();
        assert!(!text.contains(&path) && !text.contains("os error") && !text.contains("script>"), "{text}");
    }
}

/// Some files of Linux's own hold less than they say.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_fails_inside_is_a_500_without_the_reason() {
    let root = std::path::Path::new("/sys/kernel");
    if !root.join("uevent_seqnum").exists() {
        eprintln!("SKIPPED what_fails_inside_is_a_500_without_the_reason: there is no {}", root.display());
        return;
    }
    let server = Server::with_face(HttpConfig::default(), AccessFormat::Combined, |_| {
        let root = Arc::new(DocumentRoot::open(root, false).unwrap());
        HttpFace::new(root, HttpConfig::default(), Arc::new(AccessLog::off()))
    })
    .await;
    for (fields, kind) in
        [("", "text/html; charset=utf-8"), ("Accept: application/json\r\n", "application/json")]
    {
        let reply = server.get("/uevent_seqnum", fields).await;
        assert_eq!((reply.status, reply.field("content-type")), (500, kind));
        let text = reply.text();
        assert!(text.contains("its log says why"), "{text}");
        assert!(!text.contains("/sys") && !text.contains("end of file") && !text.contains("EOF"), "{text}");
    }
}

#[tokio::test]
async fn other_methods_get_405_or_strictly_400() {
    for (strict, status) in [(false, 405), (true, 400)] {
        let server = Server::with(HttpConfig { strict, ..HttpConfig::default() }).await;
        server.file("a", "a");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW", "get"] {
            let reply = server.ask(format!("{method} /a HTTP/1.1\r\nHost: test\r\n\r\n")).await;
            assert_eq!(reply.status, status, "{method}");
            assert_eq!(reply.field("allow"), if strict { "" } else { "GET, HEAD" });
        }
        let reply = server.ask("OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(reply.status, status);
        let reply = server.ask("CONNECT a:80 HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(reply.status, status);
        let reply = server.get("/a", "If-Modified-Since: yesterday\r\n").await;
        assert_eq!(reply.status, if strict { 400 } else { 200 });
    }
}

#[tokio::test]
async fn a_body_that_nobody_wants_closes_the_connection_and_is_no_request() {
    let server = Server::start().await;
    let inner = "GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n";
    for body in [
        format!("Content-Length: 1000\r\n\r\n{inner}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n{inner}", inner.len()),
        format!("Expect: 100-continue\r\nContent-Length: {}\r\n\r\n{inner}", inner.len() + 1),
    ] {
        let mut client = server.connect().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: test\r\n{body}")).await;
        let reply = client.reply(false).await;
        assert_eq!((reply.status, reply.field("connection")), (405, "close"), "{body}");
        client.assert_closed().await;
    }
    // A body that is there already may be read away instead.
    let mut client = server.connect().await;
    let length = inner.len();
    client.send(format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{inner}")).await;
    let reply = client.reply(false).await;
    assert_eq!(reply.status, 405);
    if reply.field("connection") != "close" {
        client.send("GET /missing HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.reply(false).await.status, 404);
    }
    assert!(server.log.all().iter().all(|line| !line.contains("\"GET /smuggled")), "{:?}", server.log.all());
}

#[tokio::test]
async fn a_large_unwanted_body_does_not_lose_the_answer() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 200000\r\n\r\n").await;
    client.send(vec![b'x'; 200_000]).await;
    assert_eq!(client.reply(false).await.status, 405);
    client.assert_closed().await;
}

#[tokio::test]
async fn what_others_might_read_otherwise_is_refused_and_closed() {
    let mut server = Server::start().await;
    server.file("a", "a");
    let next = "GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (request, status) in [
        (format!("GET /a HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n{chunked}\r\n0\r\n\r\n"), 400),
        (format!("GET /a HTTP/1.1\r\nHost: test\r\n{chunked}Content-Length: 5\r\n\r\n0\r\n\r\n"), 400),
        ("GET /a HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx".into(), 400),
        ("GET /a HTTP/1.1\r\nHost: test\r\nContent-Length: 1, 1\r\n\r\nx".into(), 400),
        ("GET /a HTTP/1.1\r\nHost: test\r\nContent-Length: +1\r\n\r\nx".into(), 400),
        (format!("GET /a HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: identity\r\n\r\n{next}"), 400),
        (format!("GET /a HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked, identity\r\n\r\n{next}"), 400),
        (format!("GET /a HTTP/1.1\r\nHost: test\r\nTransfer-Encoding : chunked\r\n\r\n{next}"), 400),
        (format!("GET /a HTTP/1.1\r\nHost: test\r\nTransfer-Encoding:\x0bchunked\r\n\r\n{next}"), 400),
        ("GET /a HTTP/1.1\r\nHost: test\r\nx: y\r\n z\r\n\r\n".into(), 400),
        ("GET /a HTTP/1.1\r\n x: y\r\nHost: test\r\n\r\n".into(), 400),
        ("GET /a HTTP/1.1\nHost: test\n\n".into(), 400),
        ("GET /a HTTP/1.1\r\nHost: test\nx: y\r\n\r\n".into(), 400),
        ("GET /a HTTP/1.1\r\nHost: test\r\n\n".into(), 400),
        ("GET /a HTTP/1.1\r\nHost : test\r\n\r\n".into(), 400),
        ("GET /a HTTP/1.1\r\nHost: test\r\nHost: test\r\n\r\n".into(), 400),
        ("GET /a HTTP/1.1\r\nHost: test\r\nHost: other\r\n\r\n".into(), 400),
        ("GET /a HTTP/1.1\r\nHost: test, other\r\n\r\n".into(), 400),
        ("GET /a HTTP/1.1\r\n\r\n".into(), 400),
        ("GET /a HTTP/1.1\r\nHost: te\rst\r\n\r\n".into(), 400),
        ("GET /a HTTP/1.1\r\nHost: test\r\nx: a\0b\r\n\r\n".into(), 400),
        ("GET  /a HTTP/1.1\r\nHost: test\r\n\r\n".into(), 400),
        ("GET /a b HTTP/1.1\r\nHost: test\r\n\r\n".into(), 400),
        ("GET /a\r\n\r\n".into(), 400),
        ("GET\r\n\r\n".into(), 400),
        ("\u{16}\u{3}\u{1}\0\u{1}".into(), 400),
        ("nonsense\r\n\r\n".into(), 400),
        ("GET /a HTTP/3.0\r\nHost: test\r\n\r\n".into(), 505),
        (format!("GET /a HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n{next}"), 501),
        (format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "a".repeat(9_000)), 414),
        (format!("GET /a HTTP/1.1\r\nHost: test\r\nx: {}\r\n\r\n", "a".repeat(40_000)), 431),
        (format!("GET /a HTTP/1.1\r\nHost: test\r\n{}\r\n", "x: y\r\n".repeat(200)), 431),
    ] {
        let mut client = server.connect().await;
        client.send(format!("{request}{next}")).await;
        let reply = client.reply(false).await;
        assert_eq!((reply.status, reply.field("connection")), (status, "close"), "{request:.300?}");
        assert!(reply.text().contains("<h1>"), "{}", reply.text());
        client.assert_closed().await;
        assert_eq!(server.outcome().await.end, HttpEnd::BadRequest, "{request:.300?}");
    }
    assert!(server.log.all().iter().all(|line| !line.contains("\"GET /smuggled")), "{:?}", server.log.all());
}

#[tokio::test]
async fn a_refusal_byte_for_byte() {
    let server = Server::start().await;
    let reply = server.ask("GET / HTTP/1.1\r\nAccept: application/json\r\n\r\n").await;
    assert_eq!(
        canonical(&reply),
        "HTTP/1.1 400 Bad Request\r\nDate: *\r\nContent-Type: application/json\r\nContent-Length: 98\r\n\
         Connection: close\r\n\r\n"
    );
    assert_eq!(
        reply.text(),
        "{\"status\":400,\"error\":\"Bad Request\",\"detail\":\"The request is malformed: there is no Host field.\"}\n"
    );
    let reply = server.ask("HEAD / HTTP/1.1\r\n\r\n").await;
    assert_eq!((reply.status, reply.body.len()), (400, 0));
}

#[tokio::test]
async fn requests_follow_one_another() {
    let mut server = Server::start().await;
    server.file("a", "first");
    server.file("b", "second");
    let mut client = server.connect().await;
    for _ in 0..3 {
        client.send("GET /a HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.reply(false).await.text(), "first");
    }
    // Pipelined, with an empty line between, cut anywhere.
    let text = "GET /a HTTP/1.1\r\nHost: test\r\n\r\n\r\nGET /b HTTP/1.1\r\nHost: test\r\n\r\n\
                HEAD /a HTTP/1.1\r\nHost: test\r\n\r\nGET /b HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    for cut in 0..text.len() {
        let mut client = server.connect().await;
        let (left, right) = text.split_at(cut);
        client.send(left).await;
        tokio::task::yield_now().await;
        client.send(right).await;
        assert_eq!(client.reply(false).await.text(), "first");
        assert_eq!(client.reply(false).await.text(), "second");
        assert_eq!(client.reply(true).await.field("content-length"), "5");
        let last = client.reply(false).await;
        assert_eq!((last.text().as_str(), last.field("connection")), ("second", "close"));
        client.assert_closed().await;
        let outcome = server.outcome().await;
        assert_eq!((outcome.requests, outcome.end), (4, HttpEnd::Closed));
    }
}

#[tokio::test]
async fn a_thousand_pipelined_requests_are_answered_in_order() {
    let server = Server::start().await;
    for number in 0..10 {
        server.file(&format!("{number}"), format!("{number}"));
    }
    let mut client = server.connect().await;
    let requests: String =
        (0..1_000).map(|number| format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", number % 10)).collect();
    client.send(requests).await;
    for number in 0..1_000 {
        assert_eq!(client.reply(false).await.text(), (number % 10).to_string());
    }
}

#[tokio::test]
async fn http_1_0_keeps_alive_when_asked() {
    let server = Server::start().await;
    server.file("a", "a");
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let reply = client.reply(false).await;
        assert_eq!(reply.field("connection"), "keep-alive", "{}", reply.head);
    }
    client.send("GET /a HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.reply(false).await.status, 200);
    client.assert_closed().await;
}

#[tokio::test]
async fn a_client_that_closes_its_side_still_gets_its_answer() {
    let mut server = Server::start().await;
    server.file("a", "a");
    let mut client = server.connect().await;
    client.send("GET /a HTTP/1.1\r\nHost: test\r\n\r\n").await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
    assert_eq!(client.reply(false).await.text(), "a");
    client.assert_closed().await;
    assert_eq!(server.outcome().await.end, HttpEnd::ClientClosed);
    let mut client = server.connect().await;
    client.send("GET /a HT").await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
    assert_eq!(client.reply(false).await.status, 400);
    client.assert_closed().await;
}

#[tokio::test]
async fn every_request_has_its_line() {
    let server = Server::start().await;
    server.file("a", "hello");
    server.get("/a?x='y'", "Referer: http://r/\r\nUser-Agent: test \"1\"\r\n").await;
    server.get("/missing", "").await;
    server.ask("GET /a HTTP/1.1\r\n\r\n").await;
    let lines = server.logged(3).await;
    assert!(lines[0].starts_with("127.0.0.1 - - ["), "{}", lines[0]);
    assert!(
        lines[0].ends_with("] \"GET /a?x='y' HTTP/1.1\" 200 5 \"http://r/\" \"test \\\"1\\\"\""),
        "{}",
        lines[0]
    );
    assert!(lines[1].contains("\"GET /missing HTTP/1.1\" 404 "), "{}", lines[1]);
    assert!(lines[2].contains("\"GET /a HTTP/1.1\" 400 "), "{}", lines[2]);
    let server = Server::with_log(HttpConfig::default(), AccessFormat::Json).await;
    server.get("/missing", "").await;
    let lines = server.logged(1).await;
    let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(
        (&line["method"], &line["target"], &line["status"]),
        (&"GET".into(), &"/missing".into(), &404.into())
    );
}
