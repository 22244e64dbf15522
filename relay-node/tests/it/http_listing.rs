//! Directories without an index.

use crate::http_support::Server;
use relay_node::http::HttpConfig;
use serde_json::Value;

#[tokio::test]
async fn a_plain_page_of_names() {
    let server = Server::start().await;
    server.file("docs/b<i>.txt", "12345");
    server.file("docs/a b?.txt", "1");
    server.file("docs/deep/x", "");
    server.file("docs/.hidden", "");
    let reply = server.get("/docs/", "").await;
    assert_eq!((reply.status, reply.field("content-type")), (200, "text/html; charset=utf-8"));
    let text = reply.text();
    assert!(text.contains("<a href=\"./a%20b%3F.txt\">a b?.txt</a></td><td>1</td>"), "{text}");
    assert!(text.contains("<a href=\"./b%3Ci%3E.txt\">b&lt;i&gt;.txt</a></td><td>5</td>"), "{text}");
    assert!(text.contains("<a href=\"./deep/\">deep/</a>") && text.contains("href=\"../\""), "{text}");
    assert!(!text.contains("hidden") && !text.contains("Next page"), "{text}");
    let head = server.ask("HEAD /docs/ HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(head.field("content-length"), reply.field("content-length"));
    assert!(!server.get("/", "").await.text().contains("href=\"../\""));
}

async fn names(server: &Server, target: &str) -> Vec<String> {
    let reply = server.get(target, "Accept: application/json\r\n").await;
    assert_eq!(reply.field("content-type"), "application/json");
    let value: Value = serde_json::from_slice(&reply.body).unwrap();
    value["entries"].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().into()).collect()
}

#[tokio::test]
async fn json_for_who_asks_and_in_the_order_asked_for() {
    let server = Server::start().await;
    server.file("d/a", "22");
    server.file("d/b", "1");
    server.file("d/c", "333");
    std::fs::create_dir(server.root.path().join("d/ä")).unwrap();
    let reply = server.get("/d/?format=json", "").await;
    let value: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(value["path"], "/d/");
    assert_eq!(value["entries"][0]["name"], "a");
    assert_eq!(value["entries"][0]["size"], 2);
    assert_eq!(value["entries"][0]["href"], "/d/a");
    assert_eq!(value["entries"][3]["kind"], "directory");
    assert_eq!(value["entries"][3]["href"], "/d/%C3%A4/");
    assert_eq!(server.get(value["entries"][0]["href"].as_str().unwrap(), "").await.text(), "22");
    assert_eq!(names(&server, "/d/").await, ["a", "b", "c", "ä"]);
    assert_eq!(names(&server, "/d/?sort=name&order=desc").await, ["ä", "c", "b", "a"]);
    assert_eq!(names(&server, "/d/?sort=size").await, ["ä", "b", "a", "c"]);
    assert_eq!(names(&server, "/d/?sort=size&order=desc").await, ["c", "a", "b", "ä"]);
    assert_eq!(names(&server, "/d/?after=b").await, ["c", "ä"]);
}

#[tokio::test]
async fn a_large_directory_comes_in_pages() {
    let server = Server::start().await;
    let expected: Vec<_> = (0..2_345).map(|number| format!("{number:05} &+")).collect();
    for name in &expected {
        server.file(&format!("d/{name}"), "");
    }
    let (mut found, mut target) = (Vec::new(), "/d/?format=json".to_owned());
    loop {
        let value: Value = serde_json::from_slice(&server.get(&target, "").await.body).unwrap();
        let entries = value["entries"].as_array().unwrap();
        assert!(entries.len() <= 1_000);
        found.extend(entries.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()));
        match value["next"].as_str() {
            Some(next) => target = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(found, expected);
    let page = server.get("/d/", "").await.text();
    assert!(page.contains("<a href=\"?after=00999%20%26+\">Next page</a>"), "{}", &page[page.len() - 200..]);
    assert_eq!(names(&server, "/d/?sort=size&order=desc").await.len(), 2_345);
}

#[tokio::test]
async fn beside_an_index_for_who_names_the_format() {
    let server = Server::start().await;
    server.file("index.html", "the index");
    server.file("a", "");
    for target in ["/", "/?sort=size", "/?format=xml"] {
        assert_eq!(server.get(target, "Accept: application/json\r\n").await.text(), "the index", "{target}");
    }
    assert_eq!(names(&server, "/?format=json").await, ["a", "index.html"]);
    let reply = server.get("/?format=html", "Accept: application/json\r\n").await;
    assert_eq!(reply.field("content-type"), "text/html; charset=utf-8");
    assert!(
        reply.text().contains("<a href=\"?sort=size&amp;order=asc&amp;format=html\">"),
        "{}",
        reply.text()
    );
}

#[cfg(unix)]
#[tokio::test]
async fn names_that_are_not_text_are_listed_and_served() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let server = Server::start().await;
    server.file("d/plain", "");
    let directory = server.root.path().join("d").join(OsStr::from_bytes(b"old\xff"));
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join(OsStr::from_bytes(b"caf\xe9 1.txt")), "bytes").unwrap();
    std::fs::write(directory.join("é"), "text").unwrap();
    let page = server.get("/d/", "").await.text();
    assert!(page.contains("<a href=\"./old%FF/\">old%FF/</a>") && !page.contains(" more "), "{page}");
    let page = server.get("/d/old%FF/", "").await.text();
    assert!(page.contains("<a href=\"./caf%E9%201.txt\">caf%E9 1.txt</a></td><td>5</td>"), "{page}");
    assert!(page.contains("<h1>/d/old%FF</h1>"), "{page}");
    let reply = server.get("/d/old%ff/?format=json", "").await;
    let value: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((&value["path"], &value["not_offered"]), (&"/d/old%FF/".into(), &0.into()));
    assert_eq!(value["entries"][0]["name"], "caf%E9 1.txt");
    let file = server.get(value["entries"][0]["href"].as_str().unwrap(), "").await;
    assert_eq!((file.text().as_str(), file.field("content-type")), ("bytes", "text/plain; charset=utf-8"));
    assert_eq!(server.get("/d/old%FF/%C3%A9", "").await.text(), "text");
    assert_eq!(server.get("/d/old%FF", "").await.field("location"), "/d/old%FF/");
    assert_eq!(names(&server, "/d/old%FF/?after=caf%E9%201.txt").await, ["é"]);
    assert_eq!(server.get("/d/old%FE/", "").await.status, 404);
}

#[tokio::test]
async fn no_listing_when_told_so() {
    let server = Server::with(HttpConfig { listing: false, ..HttpConfig::default() }).await;
    server.file("docs/a", "a");
    assert_eq!(server.get("/docs/", "").await.status, 404);
    assert_eq!(server.get("/?format=json", "").await.status, 404);
    server.file("index.html", "the index");
    assert_eq!(server.get("/?format=json", "").await.text(), "the index");
    assert_eq!(server.get("/docs/a", "").await.status, 200);
}
