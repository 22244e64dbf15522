//! An answer whose body is in memory, as the bytes that are sent. Nothing is decided here but what delimits it.

use crate::http::field_names::put_name;
use bytes::buf::Chain;
use bytes::{Buf as _, Bytes};
use http::header::CONTENT_LENGTH;
use http::response::Parts;
use http::{StatusCode, Version};
use std::io::Write as _;

/// Room for most answers' heads, in bytes.
const HEAD_SIZE: usize = 512;

/// The head and the body, or the head alone where no body may follow (RFC 9112, 6.3). What is sent is as long as its head
/// says, whatever field the answer came with; only an answer to HEAD may know better how long its body would be.
pub(super) fn bytes(answer: &Parts, body: Bytes, is_head: bool) -> Chain<Bytes, Bytes> {
    let has_body = !is_head && !matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let mut tells_length = has_body || is_head && !body.is_empty();
    let mut head = Vec::with_capacity(HEAD_SIZE);
    head.extend_from_slice(if answer.version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    head.extend_from_slice(answer.status.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(answer.status.canonical_reason().unwrap_or_default().as_bytes());
    head.extend_from_slice(b"\r\n");
    for (name, value) in &answer.headers {
        if name != CONTENT_LENGTH || is_head {
            put_field(&mut head, name.as_str(), value.as_bytes());
        } else if tells_length {
            put_length(&mut head, body.len());
        }
        tells_length &= name != CONTENT_LENGTH;
    }
    if tells_length {
        put_length(&mut head, body.len());
    }
    head.extend_from_slice(b"\r\n");
    Bytes::from(head).chain(if has_body { body } else { Bytes::new() })
}

fn put_length(head: &mut Vec<u8>, length: usize) {
    // Writing to a Vec cannot fail.
    _ = write!(head, "Content-Length: {length}\r\n");
}

fn put_field(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    put_name(head, name);
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;

    #[track_caller]
    fn check(is_head: bool, status: u16, length: Option<&str>, body: &'static str, expected: &str) {
        let mut answer = Response::builder().status(status).header("x-first-one", "1");
        if let Some(length) = length {
            answer = answer.header(CONTENT_LENGTH, length);
        }
        let answer = answer.header("etag", "\"a\"").body(()).unwrap().into_parts().0;
        let mut sent = bytes(&answer, Bytes::from(body), is_head);
        let sent = sent.copy_to_bytes(sent.remaining());
        assert_eq!(str::from_utf8(&sent).unwrap(), expected);
    }

    #[test]
    fn an_answer_is_as_long_as_it_says() {
        let rest = "X-First-One: 1\r\nContent-Length: 3\r\nETag: \"a\"\r\n\r\nabc";
        for claimed in ["3", "5", "0"] {
            check(false, 200, Some(claimed), "abc", &format!("HTTP/1.1 200 OK\r\n{rest}"));
        }
        check(false, 599, Some("3"), "abc", &format!("HTTP/1.1 599 \r\n{rest}"));
        let behind = "X-First-One: 1\r\nETag: \"a\"\r\nContent-Length: 0\r\n\r\n";
        check(false, 404, None, "", &format!("HTTP/1.1 404 Not Found\r\n{behind}"));
    }

    #[test]
    fn what_has_no_body_sends_none() {
        let fields = "X-First-One: 1\r\nETag: \"a\"\r\n";
        for claimed in [None, Some("3")] {
            check(false, 204, claimed, "abc", &format!("HTTP/1.1 204 No Content\r\n{fields}\r\n"));
            check(false, 304, claimed, "", &format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n"));
        }
        check(true, 200, None, "", &format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
        check(true, 200, None, "abc", &format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 3\r\n\r\n"));
        let told = "X-First-One: 1\r\nContent-Length: 7\r\nETag: \"a\"\r\n\r\n";
        check(true, 200, Some("7"), "", &format!("HTTP/1.1 200 OK\r\n{told}"));
    }
}
