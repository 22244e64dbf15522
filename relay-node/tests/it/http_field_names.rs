//! Names of fields, as those readers want them that compare letters.

use super::http_support::Server;
use super::proxy_front::Setup;
use super::raw_http::get;
use super::scripted_upstream::{Upstream, answer};

/// In every way in which an answer is written: small ones at once, large ones past hyper, streams by it.
#[tokio::test]
async fn an_entity_tag_is_an_etag() {
    let server = Server::start().await;
    server.file("small", "x");
    server.file("large", vec![7; 300_000]);
    for target in ["/small", "/large"] {
        let reply = server.get(target, "").await;
        assert!(
            reply.head.contains("\r\nETag: \"") && reply.head.contains("\r\nLast-Modified: "),
            "{}",
            reply.head
        );
        let reply = server.get(target, "Range: bytes=0-0,5-5\r\n").await;
        assert!(reply.head.contains("\r\nETag: \""), "{}", reply.head);
        let tag = format!("If-None-Match: {}\r\n", reply.field("etag"));
        assert!(server.get(target, &tag).await.head.contains("\r\nETag: \""));
    }
}

#[test]
fn what_passes_through_is_spelled_as_its_specification_does() {
    let fields =
        ["etag: \"Etag: a\"", "www-authenticate: Basic realm=\"Www-Authenticate:\"", "x-own-field: 1"];
    let upstream = Upstream::fixed(answer("401 Unauthorized", &fields, "Etag: x\r\n\r\nEtag: y\r\n"));
    for setup in [Setup::reverse(upstream.address), Setup::caching(upstream.address)] {
        let front = setup.start();
        let got = get(front.address, "/", &[]);
        let names: Vec<_> = got.fields.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["ETag", "WWW-Authenticate", "X-Own-Field", "Content-Length", "Via"] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        assert_eq!(got.field("etag").as_deref(), Some("\"Etag: a\""));
        assert_eq!(got.text(), "Etag: x\r\n\r\nEtag: y\r\n");
    }
}
