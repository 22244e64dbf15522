//! A web server on a port of its own, and a client that sees bytes.

use relay_link::platform::descriptors::raise_limit;
use relay_node::access_log::{AccessFormat, AccessLog};
use relay_node::http::{HttpConfig, HttpFace, HttpOutcome, serve};
use relay_node::root::DocumentRoot;
use relay_node::stop::{Stop, StopSource, channel};
use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Nothing here takes as long; what does is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Server {
    pub address: SocketAddr,
    pub root: tempfile::TempDir,
    pub log: LogLines,
    pub stop: StopSource,
    outcomes: mpsc::UnboundedReceiver<HttpOutcome>,
}

/// The lines of the access log.
#[derive(Clone, Default)]
pub struct LogLines(Arc<Mutex<Vec<u8>>>);

impl Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl LogLines {
    pub fn all(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::with(HttpConfig::default()).await
    }

    pub async fn with(config: HttpConfig) -> Self {
        Self::with_log(config, AccessFormat::Combined).await
    }

    pub async fn with_log(config: HttpConfig, format: AccessFormat) -> Self {
        Self::with_face(config, format, |face| face).await
    }

    /// With a face that does more than serve files.
    pub async fn with_face(
        config: HttpConfig,
        format: AccessFormat,
        extend: impl FnOnce(HttpFace) -> HttpFace,
    ) -> Self {
        // A thousand clients and their server are in this one process.
        raise_limit(0).unwrap();
        let root = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = LogLines::default();
        let face = Arc::new(extend(HttpFace::new(
            Arc::new(DocumentRoot::open(root.path(), false).unwrap()),
            config,
            Arc::new(AccessLog::new(format, log.clone())),
        )));
        let (source, stop) = channel();
        let (sender, outcomes) = mpsc::unbounded_channel();
        tokio::spawn(accept(listener, face, stop, sender));
        Self { address, root, log, stop: source, outcomes }
    }

    /// Writes a file into the document root.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), pending: Vec::new() }
    }

    /// Sends bytes on a connection of their own and reads one answer.
    pub async fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut client = self.connect().await;
        client.send(&request).await;
        client.reply(request.as_ref().starts_with(b"HEAD ")).await
    }

    /// GET with header fields, each ended by CR LF.
    pub async fn get(&self, target: &str, fields: &str) -> Reply {
        self.ask(format!("GET {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n")).await
    }

    /// How the next connection that ends has ended.
    pub async fn outcome(&mut self) -> HttpOutcome {
        tokio::time::timeout(PATIENCE, self.outcomes.recv()).await.unwrap().unwrap()
    }

    /// Waits until the log has as many lines.
    pub async fn logged(&self, count: usize) -> Vec<String> {
        let waiting = async {
            while self.log.all().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap();
        self.log.all()
    }
}

async fn accept(
    listener: TcpListener,
    face: Arc<HttpFace>,
    stop: Stop,
    outcomes: mpsc::UnboundedSender<HttpOutcome>,
) {
    loop {
        let (stream, peer) = listener.accept().await.unwrap();
        let (face, stop, outcomes) = (face.clone(), stop.clone(), outcomes.clone());
        tokio::spawn(async move {
            let outcome = serve(stream, peer, face, stop).await;
            // The test may be over.
            let _ = outcomes.send(outcome);
        });
    }
}

pub struct Client {
    pub stream: TcpStream,
    pending: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Status line and fields, as they came, with the last CR LF.
    pub head: String,
    pub status: u16,
    /// By lower-case names.
    pub fields: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Client {
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// One answer, with the body that its Content-Length promises.
    pub async fn reply(&mut self, is_to_head: bool) -> Reply {
        let end = loop {
            if let Some(at) = self.pending.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.fill().await, "the connection ended within a head: {:?}", self.pending_text());
        };
        let head = String::from_utf8(self.pending.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let fields: HashMap<_, _> = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let has_body = !is_to_head && status != 304 && status >= 200;
        let length = if has_body { fields["content-length"].parse().unwrap() } else { 0 };
        while self.pending.len() < length {
            assert!(self.fill().await, "the connection ended within a body");
        }
        let body = self.pending.drain(..length).collect();
        Reply { head, status, fields, body }
    }

    /// Everything until the server closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.pending)
    }

    /// Asserts that the server closes and has nothing more to say.
    pub async fn assert_closed(mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }

    fn pending_text(&self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }

    /// False at the end.
    async fn fill(&mut self) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer)).await.unwrap().unwrap();
        self.pending.extend_from_slice(&buffer[..read]);
        read > 0
    }
}

impl Reply {
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
