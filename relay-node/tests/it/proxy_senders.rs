//! What an upstream is told of who asked, and that nobody else gets an answer that was made of it.

use super::proxy_front::Setup;
use super::raw_http::{ask, get};
use super::scripted_upstream::{Upstream, answer};
use std::io::Write as _;

/// An upstream that builds its links from what it is told of its own name.
fn linking() -> Upstream {
    Upstream::start(|seen, stream| {
        let [host, forwarded] =
            ["x-forwarded-host", "forwarded"].map(|name| seen.field(name).unwrap_or("none"));
        let prefix = seen.field("x-forwarded-prefix").unwrap_or("");
        let page = format!("http://{host}{prefix}/ {forwarded}");
        stream.write_all(&answer("200 OK", &["Cache-Control: max-age=60"], &page)).unwrap();
    })
}

const CLAIMS: [&str; 5] = [
    "X-Forwarded-Host: evil.test",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Prefix: /evil",
    "Forwarded: for=192.0.2.1;host=evil.test",
    "X-Forwarded-For: 192.0.2.1",
];

#[test]
fn a_clients_claims_reach_neither_the_upstream_nor_the_next_client() {
    let upstream = linking();
    let front = Setup::caching(upstream.address).start();
    let page = "http://a/ for=127.0.0.1;host=\"a\";proto=http";
    assert_eq!(get(front.address, "/", &CLAIMS).text(), page);
    let next = get(front.address, "/", &[]);
    assert_eq!((next.text().as_str(), next.is_hit(), upstream.count()), (page, true, 1));
    assert_eq!(upstream.last().field("x-forwarded-proto"), Some("http"));
    let front = Setup::forward(&[upstream.address.to_string()]).start();
    let target = format!("GET http://{}/ HTTP/1.1", upstream.address);
    let head: Vec<&str> =
        [target.as_str(), "Host: a", "Connection: close"].into_iter().chain(CLAIMS).collect();
    assert_eq!(ask(front.address, &head).text(), "http://none/ for=127.0.0.1;proto=http");
}

#[test]
fn a_page_is_for_those_who_know_the_node_by_the_same_name() {
    let upstream = linking();
    let front = Setup::caching(upstream.address).start();
    for (host, count) in [("a.test", 1), ("evil.test", 2), ("A.test", 2), ("evil.test", 2)] {
        let host_field = format!("Host: {host}");
        let got = ask(front.address, &["GET / HTTP/1.1", &host_field, "Connection: close"]);
        assert!(got.text().starts_with(&format!("http://{}/ ", host.to_lowercase())), "{}", got.text());
        assert_eq!(upstream.count(), count, "{host}");
    }
}

#[test]
fn a_trusted_proxy_in_front_is_believed_and_its_pages_are_told_apart() {
    let upstream = linking();
    let trusting = || vec!["127.0.0.0/8".to_owned()];
    let front = Setup { trust_forwarded: trusting(), ..Setup::caching(upstream.address) }.start();
    let host = |name: &str| format!("X-Forwarded-Host: {name}");
    for (name, count) in [("a.test", 1), ("b.test", 2), ("a.test", 2)] {
        for client in ["X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2"] {
            let got = get(front.address, "/", &[&host(name), client, "X-Forwarded-Proto: https"]);
            assert!(got.text().starts_with(&format!("http://{name}/ ")), "{}", got.text());
            assert_eq!(upstream.count(), count, "{name} {client}");
        }
    }
    assert_eq!(upstream.last().field("x-forwarded-for"), Some("192.0.2.1, 127.0.0.1"));
    assert_eq!(upstream.last().field("x-forwarded-proto"), Some("https"));
    let other =
        Setup { trust_forwarded: vec!["10.0.0.0/8".to_owned()], ..Setup::caching(upstream.address) }.start();
    assert!(get(other.address, "/", &[&host("b.test")]).text().starts_with("http://a/ "));
}

#[test]
fn clients_of_a_trusted_proxy_share_pages_and_changes_of_them() {
    let upstream = linking();
    let trusting = vec!["127.0.0.1".to_owned()];
    let front = Setup { trust_forwarded: trusting, ..Setup::caching(upstream.address) }.start();
    let from = |client: u8| format!("Forwarded: for=192.0.2.{client};host=a;proto=https");
    get(front.address, "/", &[&from(1)]);
    assert!(get(front.address, "/", &[&from(2)]).is_hit());
    let (host, sender) = ("Host: a", from(3));
    ask(front.address, &["DELETE / HTTP/1.1", host, &sender, "Connection: close"]);
    for client in [1, 2] {
        assert_eq!(get(front.address, "/", &[&from(client)]).is_hit(), client == 2);
    }
}
