//! Origins in this process that speak the protocol's frames, each as the test scripts it.

use relay_chain::frames::{read_frame, read_message, write_message};
use relay_proto::chunk::{AskedRange, CHUNK_LEN, ChunkRange, ChunkState, Trailer, chunk_len};
use relay_proto::code::Status;
use relay_proto::digest::ChunkHash;
use relay_proto::file::{Conditions, FileFacts, Get, Hashes, Head, SentRange, Size, Stat, Timestamp};
use relay_proto::frame::FrameType;
use relay_proto::hop::{Hello, Open};
use std::sync::{Arc, Mutex};
use std::thread;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

/// The modification time of every file here.
pub const MODIFIED: i64 = 1_700_000_000;

/// A file to serve.
#[derive(Clone)]
pub struct Sample {
    pub bytes: Arc<Vec<u8>>,
    pub tag: &'static str,
}

impl Sample {
    /// `len` bytes that differ from chunk to chunk and from `seed` to `seed`.
    pub fn new(len: u64, seed: u64, tag: &'static str) -> Sample {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < len {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.truncate(usize::try_from(len).unwrap());
        Sample { bytes: Arc::new(bytes), tag }
    }

    /// The same file with one byte of chunk `index` changed.
    pub fn changed(&self, index: u64, tag: &'static str) -> Sample {
        let mut bytes = self.bytes.to_vec();
        bytes[usize::try_from(index * CHUNK_LEN).unwrap() + 5] ^= 0x40;
        Sample { bytes: Arc::new(bytes), tag }
    }

    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub fn facts(&self) -> FileFacts {
        FileFacts {
            size: Size::try_from(self.size()).unwrap(),
            modified: Timestamp::new(MODIFIED, 5).unwrap(),
            entity_tag: self.tag.to_owned().try_into().unwrap(),
            executable: false,
        }
    }

    pub fn chunk(&self, index: u64) -> &[u8] {
        let start = usize::try_from(index * CHUNK_LEN).unwrap();
        let len = usize::try_from(chunk_len(self.size(), index)).unwrap();
        &self.bytes[start..start + len]
    }

    pub fn hash(&self, index: u64) -> ChunkHash {
        ChunkHash::of(self.chunk(index), index, self.size())
    }

    pub fn b3(&self) -> String {
        blake3::hash(&self.bytes).to_hex().to_string()
    }
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Get(Get),
    Hashes(Hashes),
    Stat(Stat),
}

/// One connection from a client.
pub struct Visit {
    pub stream: TcpStream,
    /// Which connection of this origin, from 0.
    pub number: usize,
    pub log: Arc<Mutex<Vec<Request>>>,
}

impl Visit {
    /// Takes the `open` and says hello.
    pub async fn hello(&mut self) -> Open {
        let open = read_message(&mut self.stream).await.unwrap();
        let hello = Hello { agent: "test-origin/1".into() };
        write_message(&mut self.stream, &hello).await.unwrap();
        open
    }

    /// The next request; none when the client has gone.
    pub async fn request(&mut self) -> Option<Request> {
        let frame = read_frame(&mut self.stream).await.ok()?;
        let request = match frame.frame_type {
            FrameType::Get => Request::Get(frame.decode().unwrap()),
            FrameType::Hashes => Request::Hashes(frame.decode().unwrap()),
            FrameType::Stat => Request::Stat(frame.decode().unwrap()),
            other => panic!("a {other:?} frame"),
        };
        self.log.lock().unwrap().push(request.clone());
        Some(request)
    }

    /// Waits until the client has gone.
    pub async fn gone(&mut self) {
        let _ = tokio::io::copy(&mut self.stream, &mut tokio::io::sink()).await;
    }

    pub async fn head(&mut self, head: &Head) {
        // The client may have gone, which is often the point.
        let _ = write_message(&mut self.stream, head).await;
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        // The client may have gone, which is often the point.
        let _ = self.stream.write_all(bytes).await;
    }

    /// A good chunk with its trailer.
    pub async fn chunk(&mut self, sample: &Sample, index: u64) {
        self.raw(sample.chunk(index)).await;
        self.trailer(sample, index).await;
    }

    pub async fn trailer(&mut self, sample: &Sample, index: u64) {
        let trailer = Trailer { state: ChunkState::Good, hash: sample.hash(index) };
        self.raw(&trailer.encode()).await;
    }

    /// Answers every request as an origin should, until the client goes.
    pub async fn serve(&mut self, sample: &Sample) {
        while let Some(request) = self.request().await {
            self.answer(sample, &request).await;
        }
    }

    pub async fn answer(&mut self, sample: &Sample, request: &Request) {
        let (range, conditions, with_bytes) = match request {
            Request::Get(get) => (get.range, &get.conditions, true),
            Request::Hashes(hashes) => (hashes.range, &hashes.conditions, false),
            Request::Stat(_) => {
                let head = Head { file: Some(sample.facts()), ..Head::only(Status::OK, "") };
                return self.head(&head).await;
            }
        };
        let head = head(sample, range, conditions);
        self.head(&head).await;
        for index in head.range.map_or(0..0, |range| range.chunks().first()..range.chunks().end()) {
            if with_bytes {
                self.raw(sample.chunk(index)).await;
            }
            self.trailer(sample, index).await;
        }
    }
}

/// The head that an origin must send.
pub fn head(sample: &Sample, range: Option<AskedRange>, conditions: &Conditions) -> Head {
    let facts = sample.facts();
    let same = |wanted: &relay_proto::file::SizeAndTime| {
        (wanted.size, wanted.modified) == (facts.size, facts.modified)
    };
    let with = |status| Head { file: Some(facts.clone()), ..Head::only(status, "") };
    if conditions.if_match.as_ref().is_some_and(|tag| *tag != facts.entity_tag) {
        return with(Status::PRECONDITION_FAILED);
    }
    if conditions.unless_same.as_ref().is_some_and(same) {
        return with(Status::NOT_MODIFIED);
    }
    let (status, chunks) = match range {
        None => (Status::OK, Some(ChunkRange::whole(sample.size()))),
        Some(asked) => (Status::PARTIAL, asked.of(sample.size())),
    };
    match chunks {
        Some(chunks) => Head { range: Some(SentRange::from(chunks)), ..with(status) },
        None => with(Status::RANGE_NOT_SATISFIABLE),
    }
}

/// A listening origin.
pub struct Origin {
    pub port: u16,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Origin {
    /// Listens, and plays `script` for each connection, side by side.
    pub fn start<F, Fut>(script: F) -> Origin
    where
        F: Fn(Visit) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let log = Arc::new(Mutex::new(Vec::new()));
        let requests = Arc::clone(&log);
        let (tell, told) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap().port()).unwrap();
                for number in 0.. {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::task::spawn_local(script(Visit { stream, number, log: Arc::clone(&requests) }));
                }
            });
        });
        Origin { port: told.recv().unwrap(), log }
    }

    /// An origin as it should be.
    pub fn good(sample: &Sample) -> Origin {
        let sample = sample.clone();
        Origin::start(move |mut visit| {
            let sample = sample.clone();
            async move {
                visit.hello().await;
                visit.serve(&sample).await;
            }
        })
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }
}
