//! An upstream that does what a test wants with each request, and remembers what it was asked.

use super::raw_http::PATIENCE;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub line: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Which request it is, from 0.
    pub number: usize,
}

impl Seen {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The upstream; it goes away with the process.
#[derive(Debug, Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    count: Arc<AtomicUsize>,
}

impl Upstream {
    /// Calls `script` for each request; the connection is closed after it.
    pub fn start(script: impl Fn(&Seen, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream =
            Self { address: listener.local_addr().unwrap(), seen: Arc::default(), count: Arc::default() };
        let (script, shared) = (Arc::new(script), upstream.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, shared) = (Arc::clone(&script), shared.clone());
                std::thread::spawn(move || shared.serve(stream, &*script));
            }
        });
        upstream
    }

    /// Answers every request with these bytes.
    pub fn fixed(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_, stream| drop(stream.write_all(&answer)))
    }

    /// How many requests came.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request")
    }

    fn serve(&self, mut stream: TcpStream, script: &(dyn Fn(&Seen, &mut TcpStream) + Send + Sync)) {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let Some(mut seen) = read_request(&stream) else { return };
        seen.number = self.count.fetch_add(1, Ordering::SeqCst);
        self.seen.lock().unwrap().push(seen.clone());
        script(&seen, &mut stream);
    }
}

/// An answer with a length, and fields as lines.
pub fn answer(status: &str, fields: &[&str], body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for field in fields {
        text.push_str(field);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}

fn read_request(stream: &TcpStream) -> Option<Seen> {
    use std::io::BufRead as _;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut seen = Seen { line: line.trim_end().to_owned(), fields: Vec::new(), body: Vec::new(), number: 0 };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => seen.fields.push((name.to_owned(), value.trim().to_owned())),
            None => break,
        }
    }
    if let Some(length) = seen.field("content-length").and_then(|length| length.parse().ok()) {
        reader.take(length).read_to_end(&mut seen.body).ok()?;
    } else if seen.field("transfer-encoding").is_some() {
        read_chunked(&mut reader, &mut seen.body)?;
    }
    Some(seen)
}

fn read_chunked(reader: &mut impl std::io::BufRead, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length = u64::from_str_radix(line.trim(), 16).ok()?;
        reader.take(length).read_to_end(body).ok()?;
        let mut end = String::new();
        reader.read_line(&mut end).ok()?;
        if length == 0 {
            return Some(());
        }
    }
}
