//! A client that writes bytes and reads one answer, without any opinion of its own.

use std::io::{BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than any test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// All of the body that was announced came.
    pub whole: bool,
}

impl Answer {
    /// All lines of a field, joined.
    pub fn field(&self, name: &str) -> Option<String> {
        let lines: Vec<_> = self
            .fields
            .iter()
            .filter(|(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        (!lines.is_empty()).then(|| lines.join(", "))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What the cache says it did.
    pub fn cache_status(&self) -> String {
        self.field("cache-status").unwrap_or_default()
    }

    pub fn is_hit(&self) -> bool {
        self.cache_status().contains("relay-node; hit")
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends `head` (lines without their ends) and reads the answer.
pub fn ask(address: SocketAddr, head: &[&str]) -> Answer {
    let mut stream = connect(address);
    stream.write_all(lines(head).as_bytes()).unwrap();
    read_answer(&mut stream, head.first().is_some_and(|line| line.starts_with("HEAD ")))
}

/// A GET of a path, with more fields.
pub fn get(address: SocketAddr, path: &str, fields: &[&str]) -> Answer {
    request(address, "GET", path, fields)
}

pub fn request(address: SocketAddr, method: &str, path: &str, fields: &[&str]) -> Answer {
    let line = format!("{method} {path} HTTP/1.1");
    let mut head = vec![line.as_str(), "Host: a", "Connection: close"];
    head.extend(fields);
    ask(address, &head)
}

pub fn lines(head: &[&str]) -> String {
    let mut text = head.join("\r\n");
    text.push_str("\r\n\r\n");
    text
}

pub fn read_answer(stream: &mut impl Read, to_head: bool) -> Answer {
    let mut reader = BufReader::new(stream);
    let (status, fields) = read_head(&mut reader);
    let mut answer = Answer { status, fields, body: Vec::new(), whole: true };
    if to_head || status == 304 || status == 204 {
        return answer;
    }
    if answer.field("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        answer.whole = read_chunks(&mut reader, &mut answer.body);
    } else if let Some(length) = answer.field("content-length") {
        let length: usize = length.parse().expect("a length");
        drop(reader.take(length as u64).read_to_end(&mut answer.body));
        answer.whole = answer.body.len() == length;
    } else {
        answer.whole = reader.read_to_end(&mut answer.body).is_ok();
    }
    answer
}

pub fn read_head(reader: &mut impl std::io::BufRead) -> (u16, Vec<(String, String)>) {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a status line");
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
    let mut fields = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a field");
        match line.trim_end().split_once(':') {
            Some((name, value)) => fields.push((name.to_owned(), value.trim().to_owned())),
            None => return (status, fields),
        }
    }
}

/// Whether the last chunk came.
fn read_chunks(reader: &mut impl std::io::BufRead, body: &mut Vec<u8>) -> bool {
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() {
            return false;
        }
        let Ok(length) = u64::from_str_radix(line.trim(), 16) else { return false };
        let before = body.len();
        if reader.take(length).read_to_end(body).is_err() || (body.len() - before) as u64 != length {
            return false;
        }
        let mut end = [0; 2];
        if reader.read_exact(&mut end).is_err() || &end != b"\r\n" {
            return false;
        }
        if length == 0 {
            return true;
        }
    }
}
