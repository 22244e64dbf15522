//! Requests that two servers could read differently end at the first one.

use super::proxy_front::Setup;
use super::raw_http::{connect, get, read_answer, request};
use super::scripted_upstream::{Upstream, answer};
use std::io::{Read as _, Write as _};

#[test]
fn what_could_be_smuggled_is_refused_and_the_connection_closed() {
    let upstream = Upstream::fixed(answer("200 OK", &["Cache-Control: max-age=60"], "hello"));
    let allow = [upstream.address.to_string()];
    let front =
        Setup { upstream: Some(upstream.address), cache_size: Some(1 << 20), ..Setup::forward(&allow) }
            .start();
    let absolute = format!("GET http://{}/ HTTP/1.1", allow[0]);
    let forms: &[&str] = &[
        "Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        "Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "Host: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "Host: a\r\nContent-Length: 5, 5\r\n\r\nhello",
        "Host: a\r\nContent-Length: +5\r\n\r\nhello",
        "Host: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Host: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Host: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "Host: a\r\nX: a\r\n b\r\n\r\n",
        "Host: a\r\nX: a\n\r\n\r\n",
        "Host: a\nX: a\n\n",
        "Host: a\r\nHost: b\r\n\r\n",
        "Host : a\r\n\r\n",
        "Host: a\r\nX\0: b\r\n\r\n",
        "X: no host\r\n\r\n",
    ];
    for line in ["GET /x HTTP/1.1", "POST /x HTTP/1.1", &absolute] {
        for form in forms {
            let mut stream = connect(front.address);
            stream.write_all(format!("{line}\r\n{form}").as_bytes()).unwrap();
            let refused = read_answer(&mut stream, false);
            assert_eq!(refused.status, 400, "{line} {form:?}");
            let mut rest = Vec::new();
            assert!(matches!(stream.read_to_end(&mut rest), Ok(0) | Err(_)), "closed behind {form:?}");
        }
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn what_stands_behind_a_body_is_another_request_of_the_same_client() {
    let upstream = Upstream::start(|seen, stream| {
        stream.write_all(&answer("200 OK", &[], &format!("{} {}", seen.line, seen.body.len()))).unwrap();
    });
    let front = Setup::reverse(upstream.address).start();
    let mut stream = connect(front.address);
    stream
        .write_all(
            b"POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /\
              GET /two HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
    let mut both = String::new();
    stream.read_to_string(&mut both).unwrap();
    assert!(both.contains("POST /one HTTP/1.1 5") && both.contains("GET /two HTTP/1.1 0"), "{both}");
    assert_eq!(upstream.count(), 2);
}

/// An upstream that frames its answer ambiguously must not put words into the mouth of the next answer, nor have a part of it
/// taken for the whole.
#[test]
fn an_answer_that_may_end_in_two_places_is_refused() {
    for fields in [
        "Content-Length: 4\r\nContent-Length: 9",
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Transfer-Encoding: gzip, chunked",
        "Content-Length: -4",
    ] {
        let body = if fields.contains("chunked") { "5\r\nhello\r\n0\r\n\r\n" } else { "hell" };
        let reply = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\n{fields}\r\n\r\n");
        let upstream = Upstream::start(move |seen, stream| {
            let is_head = seen.line.starts_with("HEAD ");
            let reply = format!("{reply}{}", if is_head { "" } else { body });
            stream.write_all(reply.as_bytes()).unwrap();
        });
        for front in [Setup::caching(upstream.address).start(), Setup::reverse(upstream.address).start()] {
            for method in ["GET", "HEAD"] {
                let refused = request(front.address, method, "/", &[]);
                assert_eq!(refused.status, 502, "{method} {fields}: {:?}", refused.fields);
            }
        }
    }
}

#[test]
fn an_upstream_cannot_change_the_protocol() {
    let upstream =
        Upstream::fixed("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
    let front = Setup::reverse(upstream.address).start();
    let refused = get(front.address, "/", &["Connection: upgrade", "Upgrade: x"]);
    assert_eq!(refused.status, 502);
    assert!(refused.text().contains("changes to another protocol"), "{}", refused.text());
    assert_eq!(upstream.last().field("upgrade"), None);
}
