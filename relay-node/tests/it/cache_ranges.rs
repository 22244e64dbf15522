//! Ranges of stored bodies: the same as those of files.

use super::http_conditions::RANGES;
use super::proxy_front::Setup;
use super::raw_http::{Answer, get, request};
use super::scripted_upstream::{Upstream, answer};
use std::ops::Range;
use tempfile::TempDir;

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";

/// Byte for byte; the parts say what the whole body is.
pub fn assert_parts(answer: &Answer, body: &[u8], parts: &[Range<usize>]) {
    assert_eq!((answer.status, answer.whole), (206, true), "{}", answer.cache_status());
    assert_eq!(answer.field("content-range"), None);
    let media = answer.field("content-type").unwrap();
    let boundary = media.strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert!(boundary.len() <= 70 && boundary.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{boundary}");
    let mut expected = Vec::new();
    for part in parts {
        let head = format!(
            "--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {}-{}/{}\r\n\r\n",
            part.start,
            part.end - 1,
            body.len()
        );
        expected.extend_from_slice(head.as_bytes());
        expected.extend_from_slice(&body[part.clone()]);
        expected.extend_from_slice(b"\r\n");
    }
    expected.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    assert_eq!(String::from_utf8_lossy(&answer.body), String::from_utf8_lossy(&expected));
}

fn upstream(body: &str) -> Upstream {
    let fields = ["Cache-Control: max-age=600", "ETag: \"v1\"", "Content-Type: application/octet-stream"];
    Upstream::fixed(answer("200 OK", &fields, body))
}

#[test]
fn the_range_table_of_a_stored_body() {
    let upstream = upstream(LETTERS);
    let front = Setup::caching(upstream.address).start();
    get(front.address, "/", &[]);
    for &(range, status, content_range, body) in RANGES {
        let answer = get(front.address, "/", &[&format!("Range: {range}")]);
        let named = answer.field("content-range").unwrap_or_default();
        assert_eq!((answer.status, named.as_str()), (status, content_range), "{range}");
        if status == 416 {
            assert!(answer.text().contains("no such part"), "{range}");
        } else {
            assert_eq!(answer.text(), body, "{range}");
        }
        assert!(answer.is_hit());
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn several_ranges_of_a_body_in_memory_and_of_one_in_a_file() {
    for body in [LETTERS.to_owned(), LETTERS.repeat(100_000)] {
        let upstream = upstream(&body);
        let dir = TempDir::new().unwrap();
        let start = || Setup::caching(upstream.address).start_in(Some(dir.path()));
        let front = start();
        let (address, end) = (front.address, body.len());
        let ask = |fields: &[&str]| get(address, "/", fields);
        // It is not there yet; what arrives is read from its beginning on.
        let first = ask(&["Range: bytes=0-1,24-25"]);
        assert!(first.status == 200 && first.text() == body);
        assert_parts(&ask(&["Range: bytes=24-25,0-1"]), body.as_bytes(), &[24..26, 0..2]);
        assert_parts(&ask(&["Range: bytes=0-1, -3,1-2"]), body.as_bytes(), &[0..3, end - 3..end]);
        assert_parts(&ask(&["Range: bytes=0-1,5-6", "If-Range: \"v1\""]), body.as_bytes(), &[0..2, 5..7]);
        assert_eq!(ask(&["Range: bytes=0-1,5-6", "If-Range: \"v0\""]).text(), body);
        assert_eq!(ask(&["Range: bytes=0-1,5-6", "If-None-Match: \"v1\""]).status, 304);
        assert_eq!(ask(&[&format!("Range: bytes={}", ["0-0"; 65].join(","))]).status, 200);
        let head = request(address, "HEAD", "/", &["Range: bytes=0-1,5-6"]);
        assert_eq!((head.status, head.field("content-length")), (200, Some(end.to_string())));
        // Those of an earlier life are sealed, piece by piece.
        front.drop_stored();
        let front = start();
        let parts = get(front.address, "/", &["Range: bytes=20-21,0-1,-1"]);
        assert_parts(&parts, body.as_bytes(), &[20..22, 0..2, end - 1..end]);
        assert_eq!(upstream.count(), 1);
    }
}
