//! The origin over real sockets (where files go by the kernel) and over memory (where they are copied).

use super::{
    Buffers, DEFAULT_INDEX_BYTES, HashIndex, Origin, OriginError, OriginLimits, OriginRecord, serve,
};
use crate::peer_lines::PeerLines;
use crate::root::{DocumentRoot, Reach};
use relay_chain::frames::{encode, write_message};
use relay_chain::requests::{AnswerError, Answers, Body};
use relay_proto::chunk::{AskedRange, CHUNK_LEN, chunk_count};
use relay_proto::code::Status;
use relay_proto::digest::{ChunkHash, FileHash};
use relay_proto::file::{
    Conditions, EntityTag, EntryKind, FileFacts, Get, Hashes, Head, List, Page, RequestedName, SizeAndTime,
    Stat,
};
use relay_proto::frame::Message;
use relay_proto::limits::{MAX_PAYLOAD, MAX_PIPELINED};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

const MIB: usize = CHUNK_LEN as usize;
const PATIENCE: Duration = Duration::from_secs(30);
const LIMITS: OriginLimits = OriginLimits { request: PATIENCE, progress: PATIENCE };

/// An origin with files of its own, whose index keeps hashes of files however fresh.
struct Fixture {
    directory: TempDir,
    origin: Origin,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture::with_index(HashIndex::with_settle_time(DEFAULT_INDEX_BYTES, Duration::ZERO))
    }

    fn with_index(index: HashIndex) -> Fixture {
        Fixture::with_buffers(index, Buffers::default())
    }

    fn with_buffers(index: HashIndex, buffers: Buffers) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let root = Arc::new(DocumentRoot::open(directory.path(), false).unwrap());
        Fixture {
            directory,
            origin: Origin {
                root,
                index: Arc::new(index),
                buffers: Arc::new(buffers),
                lines: PeerLines::default(),
                reader: None,
            },
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file and returns its content, of which no two chunks are alike.
    fn file(&self, name: &str, size: usize) -> Vec<u8> {
        let chunk = |number: usize| -> Vec<u8> {
            let line: Vec<u8> = (0..256).map(|at| (at + number * 7) as u8).collect();
            line.repeat(MIB / 256)
        };
        let mut content: Vec<u8> = (0..size.div_ceil(MIB)).map(chunk).collect::<Vec<_>>().concat();
        content.truncate(size);
        fs::write(self.path(name), &content).unwrap();
        content
    }

    async fn over_tcp(&self) -> Client<TcpStream> {
        self.over_narrow_tcp(None).await
    }

    async fn over_narrow_tcp(&self, buffer: Option<u32>) -> Client<TcpStream> {
        let (near, far) = Fixture::narrow_tcp(buffer).await;
        self.client(near, far, LIMITS)
    }

    /// Sockets that hold little more than `buffer` bytes, so that the origin cannot run far ahead of its reader.
    async fn narrow_tcp(buffer: Option<u32>) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let near = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        if let Some(bytes) = buffer {
            socket2::SockRef::from(&far).set_send_buffer_size(bytes as usize).unwrap();
        }
        far.set_nodelay(true).unwrap();
        (near, far)
    }

    fn over_memory(&self) -> Client<DuplexStream> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        self.client(near, far, LIMITS)
    }

    fn client<S>(&self, near: S, mut far: S, limits: OriginLimits) -> Client<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let origin = self.origin.clone();
        let served = tokio::spawn(async move {
            let (_source, stop) = crate::stop::channel();
            let mut record = OriginRecord::default();
            let result = serve(&mut far, None, &origin, limits, &stop, &mut record).await;
            (result, record)
        });
        Client { answers: Answers::new(near, PATIENCE), served }
    }
}

/// A client, and the origin's side of its connection.
struct Client<S> {
    answers: Answers<S>,
    served: JoinHandle<(Result<(), OriginError>, OriginRecord)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn ask(&mut self, request: &impl Message) {
        write_message(self.answers.get_mut(), request).await.unwrap();
    }

    async fn head(&mut self, request: &impl Message) -> Head {
        self.ask(request).await;
        self.answers.head().await.unwrap()
    }

    /// The bytes of a `get`'s answer, each chunk verified.
    async fn body(&mut self, head: &Head) -> Result<Vec<u8>, AnswerError> {
        assert!(head.status.is_success(), "{head:?}");
        let body = Body::of(head)?;
        let mut bytes = Vec::new();
        for chunk in body.chunks.first()..body.chunks.end() {
            bytes.extend(self.chunk(&body, chunk).await?);
        }
        Ok(bytes)
    }

    async fn chunk(&mut self, body: &Body, chunk: u64) -> Result<Vec<u8>, AnswerError> {
        let mut bytes = vec![0; body.chunk_len(chunk)];
        let promised = self.answers.chunk(&mut bytes, |_| {}).await?;
        if promised == ChunkHash::of(&bytes, chunk, body.file.size.bytes()) {
            Ok(bytes)
        } else {
            Err(AnswerError::Protocol("a hash that does not fit"))
        }
    }

    async fn fetch(&mut self, request: &Get) -> Result<Vec<u8>, AnswerError> {
        let head = self.head(request).await;
        self.body(&head).await
    }

    /// The hashes of a `hashes`' answer.
    async fn hashes(&mut self, request: &Hashes) -> Result<Vec<ChunkHash>, AnswerError> {
        let head = self.head(request).await;
        let chunks = Body::of(&head)?.chunks;
        let mut hashes = Vec::new();
        for _ in chunks.first()..chunks.end() {
            hashes.push(self.answers.hash().await?);
        }
        Ok(hashes)
    }

    async fn page(&mut self, request: &List) -> Page {
        let head = self.head(request).await;
        assert_eq!(head, Head::only(Status::OK, ""));
        self.answers.page().await.unwrap()
    }

    /// Closes the connection and returns what the origin recorded.
    async fn record(self) -> OriginRecord {
        drop(self.answers);
        let (result, record) = self.served.await.unwrap();
        result.unwrap();
        record
    }

    /// Reads to the end, and returns that and how the origin ended.
    async fn end(mut self) -> (Vec<u8>, OriginError) {
        let mut rest = Vec::new();
        self.answers.get_mut().read_to_end(&mut rest).await.unwrap();
        drop(self.answers);
        (rest, self.served.await.unwrap().0.unwrap_err())
    }
}

fn name(text: &str) -> RequestedName {
    RequestedName::try_from(text).unwrap()
}

fn get(text: &str) -> Get {
    Get { name: name(text), range: None, conditions: Conditions::default(), anew: false }
}

fn get_range(text: &str, first: u64, end: Option<u64>) -> Get {
    Get { range: Some(AskedRange { first, end }), ..get(text) }
}

fn hashes(text: &str) -> Hashes {
    Hashes { name: name(text), range: None, conditions: Conditions::default() }
}

fn list(prefix: &str) -> List {
    List { prefix: name(prefix), after: None, recursive: false }
}

const SIZES: [usize; 9] = [0, 1, 64 * 1024, 64 * 1024 + 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 5 * MIB + 12_345];

async fn every_size<S: AsyncRead + AsyncWrite + Unpin>(fixture: &Fixture, client: &mut Client<S>) {
    for size in SIZES {
        let content = fixture.file(&format!("{size}"), size);
        for _ in 0..2 {
            let head = client.head(&get(&format!("{size}"))).await;
            assert_eq!(head.status, Status::OK);
            assert_eq!(head.file.as_ref().unwrap().size.bytes(), size as u64);
            assert_eq!(client.body(&head).await.unwrap(), content, "{size} bytes");
        }
        let hashes = client.hashes(&hashes(&format!("{size}"))).await.unwrap();
        assert_eq!(hashes.len() as u64, chunk_count(size as u64));
        assert_eq!(FileHash::of_chunks(&hashes).as_bytes(), blake3::hash(&content).as_bytes());
    }
}

#[tokio::test]
async fn every_size_over_tcp() {
    let fixture = Fixture::new();
    let mut client = fixture.over_tcp().await;
    every_size(&fixture, &mut client).await;
    let record = client.record().await;
    assert_eq!(record.requests, 3 * SIZES.len() as u64);
    assert_eq!(record.broken_bodies, 0);
}

#[tokio::test]
async fn every_size_over_memory() {
    let fixture = Fixture::new();
    let mut client = fixture.over_memory();
    every_size(&fixture, &mut client).await;
    assert_eq!(client.record().await.sent_by_kernel, 0);
}

#[tokio::test]
async fn ranges() {
    let fixture = Fixture::new();
    let content = fixture.file("file", 3 * MIB + 5);
    let mut tcp = fixture.over_tcp().await;
    let mut memory = fixture.over_memory();
    for (first, end, expected) in [
        (0, None, 0..3 * MIB + 5),
        (0, Some(1), 0..MIB),
        (1, Some(3), MIB..3 * MIB),
        (3, None, 3 * MIB..3 * MIB + 5),
        (2, Some(1 << 60), 2 * MIB..3 * MIB + 5),
    ] {
        let request = get_range("file", first, end);
        assert_eq!(tcp.head(&request).await.status, Status::PARTIAL);
        memory.ask(&request).await;
        let head = memory.answers.head().await.unwrap();
        assert_eq!(tcp.body(&head).await.unwrap(), content[expected.clone()]);
        assert_eq!(memory.body(&head).await.unwrap(), content[expected]);
    }
    for (first, end) in [(4, None), (2, Some(2)), (3, Some(1)), (u64::MAX, None), (u64::MAX, Some(u64::MAX))]
    {
        let head = tcp.head(&get_range("file", first, end)).await;
        assert_eq!((head.status, head.range), (Status::RANGE_NOT_SATISFIABLE, None));
        assert_eq!(head.file.unwrap().size.bytes(), content.len() as u64);
    }
}

#[tokio::test]
async fn conditions() {
    let fixture = Fixture::new();
    fixture.file("file", 10);
    let mut client = fixture.over_memory();
    let facts = client.head(&Stat { name: name("file") }).await.file.unwrap();
    let FileFacts { size, modified, entity_tag: tag, .. } = facts.clone();
    let (same, other) = (Some(tag), Some(EntityTag::try_from(String::from("other")).unwrap()));
    let same_time = Some(SizeAndTime { size, modified });
    let other_size = Some(SizeAndTime { size: 11.try_into().unwrap(), modified });
    let other_time = Some(SizeAndTime { size, modified: (1, 0).try_into().unwrap() });
    for (if_match, if_none_match, unless_same, expected) in [
        (&None, &None, None, Status::OK),
        (&same, &None, None, Status::OK),
        (&other, &None, None, Status::PRECONDITION_FAILED),
        (&None, &same, None, Status::NOT_MODIFIED),
        (&None, &other, None, Status::OK),
        (&None, &None, same_time, Status::NOT_MODIFIED),
        (&None, &None, other_size, Status::OK),
        (&None, &None, other_time, Status::OK),
        (&other, &same, same_time, Status::PRECONDITION_FAILED),
        (&same, &same, None, Status::NOT_MODIFIED),
        (&same, &other, same_time, Status::NOT_MODIFIED),
        (&same, &other, other_time, Status::OK),
    ] {
        let conditions =
            Conditions { if_match: if_match.clone(), if_none_match: if_none_match.clone(), unless_same };
        let request = Get { conditions: conditions.clone(), ..get("file") };
        let head = client.head(&request).await;
        assert_eq!(head.status, expected, "{request:?}");
        assert_eq!(head.file, Some(facts.clone()));
        if expected == Status::OK {
            client.body(&head).await.unwrap();
        }
        let head = client.head(&Hashes { conditions, ..hashes("file") }).await;
        assert_eq!(head.status, expected);
        if expected == Status::OK {
            client.answers.hash().await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_not_offered_is_all_the_same() {
    let fixture = Fixture::new();
    fixture.file(".hidden", 1);
    fs::create_dir(fixture.path("directory")).unwrap();
    let long = "x".repeat(4096);
    let mut client = fixture.over_memory();
    let mut heads = Vec::new();
    for bad in ["missing", "", "..", "../x", "/etc/passwd", "a\0b", "a\\b", ".hidden", "directory", &long] {
        heads.push(client.head(&get(bad)).await);
        heads.push(client.head(&hashes(bad)).await);
        heads.push(client.head(&Stat { name: name(bad) }).await);
    }
    for head in &heads {
        assert_eq!((head.status, head), (Status::NOT_FOUND, &heads[0]));
    }
    let record = client.record().await;
    assert_eq!((record.requests, record.status), (30, Some(Status::NOT_FOUND)));
}

#[tokio::test]
#[cfg(all(target_os = "linux", not(relay_plain)))]
async fn into_a_socket_files_go_by_the_kernel() {
    let fixture = Fixture::new();
    let content = fixture.file("file", 4 * MIB + 1000);
    for _ in 0..2 {
        let mut client = fixture.over_tcp().await;
        assert_eq!(client.fetch(&get("file")).await.unwrap(), content);
        let record = client.record().await;
        assert_eq!(record.sent_by_kernel, content.len() as u64);
        assert!(record.sent > record.sent_by_kernel + 5 * 33);
    }
}

/// Puts a wrong hash into the index, which the next answer must then repeat: so nothing was hashed again.
#[tokio::test]
async fn what_was_hashed_is_not_hashed_again() {
    let fixture = Fixture::new();
    fixture.file("file", 3 * MIB);
    let identity = fixture.origin.root.open_file("file", Reach::Anywhere).unwrap().meta.identity;
    for by_hashes in [false, true] {
        let mut client = fixture.over_tcp().await;
        if by_hashes {
            client.hashes(&hashes("file")).await.unwrap();
        } else {
            client.fetch(&get("file")).await.unwrap();
        }
        let right = fixture.origin.index.get(&identity, 1).unwrap();
        let wrong = ChunkHash::from_bytes([9; 32]);
        fixture.origin.index.put(&identity, 1, wrong);
        for over_tcp in [true, false] {
            let end = if over_tcp {
                fixture.over_tcp().await.fetch(&get("file")).await
            } else {
                fixture.over_memory().fetch(&get("file")).await
            };
            assert!(matches!(end, Err(AnswerError::Protocol("a hash that does not fit"))), "{end:?}");
        }
        assert_eq!(client.hashes(&hashes("file")).await.unwrap()[1], wrong);
        fixture.origin.index.put(&identity, 1, right);
    }
}

#[tokio::test]
async fn a_complaint_makes_it_hash_anew() {
    for over_tcp in [true, false] {
        let fixture = Fixture::new();
        let content = fixture.file("file", 4 * MIB);
        let identity = fixture.origin.root.open_file("file", Reach::Anywhere).unwrap().meta.identity;
        for chunk in [1, 3] {
            fixture.origin.index.put(&identity, chunk, ChunkHash::from_bytes([9; 32]));
        }
        if over_tcp {
            check_complaint(fixture.over_tcp().await, &content).await;
        } else {
            check_complaint(fixture.over_memory(), &content).await;
        }
    }
}

async fn check_complaint<S: AsyncRead + AsyncWrite + Unpin>(mut client: Client<S>, content: &[u8]) {
    assert_eq!(client.fetch(&get_range("file", 0, Some(1))).await.unwrap(), content[..MIB]);
    // The file is held open now, and what is held does not count either.
    let complaint = Get { anew: true, ..get_range("file", 1, Some(2)) };
    assert_eq!(client.fetch(&complaint).await.unwrap(), content[MIB..2 * MIB]);
    // What was kept of one chunk was wrong, so the rest of what was kept of this file is not believed any more.
    assert_eq!(client.fetch(&get("file")).await.unwrap(), content);
}

#[tokio::test]
async fn a_fresh_file_is_copied_and_not_remembered() {
    let fixture = Fixture::with_index(long_settling());
    let content = fixture.file("file", 2 * MIB);
    let mut client = fixture.over_tcp().await;
    assert_eq!(client.fetch(&get("file")).await.unwrap(), content);
    client.hashes(&hashes("file")).await.unwrap();
    let identity = fixture.origin.root.open_file("file", Reach::Anywhere).unwrap().meta.identity;
    assert_eq!(fixture.origin.index.get(&identity, 0), None);
    assert_eq!(client.record().await.sent_by_kernel, 0);
}

/// An index to which every file of a test is fresh.
fn long_settling() -> HashIndex {
    HashIndex::with_settle_time(DEFAULT_INDEX_BYTES, Duration::from_secs(3600))
}

/// However many readers take nothing, another one gets everything, and the large buffers stay as many as they are.
#[tokio::test]
async fn slow_readers_hold_up_nobody() {
    let fixture = Fixture::with_buffers(long_settling(), Buffers::new(4));
    let content = fixture.file("file", 4 * MIB + 5);
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut client = fixture.over_memory();
        let head = client.head(&get("file")).await;
        stalled.push((client, head));
    }
    for _ in 0..3 {
        assert_eq!(fixture.over_tcp().await.fetch(&get("file")).await.unwrap(), content);
    }
    let taken: Vec<_> = std::iter::from_fn(|| fixture.origin.buffers.try_take()).collect();
    assert!(taken.is_empty(), "the readers that take nothing have no buffer, so this test tests nothing");
    for (client, head) in &mut stalled {
        assert_eq!(client.body(head).await.unwrap(), content);
    }
    let free = std::iter::from_fn(|| fixture.origin.buffers.try_take());
    assert_eq!(free.collect::<Vec<_>>().len(), 4, "every buffer came back");
}

#[tokio::test]
async fn every_size_in_pieces() {
    for index in [long_settling(), HashIndex::with_settle_time(DEFAULT_INDEX_BYTES, Duration::ZERO)] {
        let fixture = Fixture::with_buffers(index, Buffers::new(0));
        every_size(&fixture, &mut fixture.over_memory()).await;
        every_size(&fixture, &mut fixture.over_tcp().await).await;
    }
}

/// How many chunks come well before the answer ends, and how it ends.
async fn good_chunks<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Client<S>,
    body: &Body,
    content: &[u8],
    from: u64,
) -> (u64, Option<AnswerError>) {
    for chunk in from..body.chunks.end() {
        match client.chunk(body, chunk).await {
            Ok(bytes) => {
                let start = chunk as usize * MIB;
                assert_eq!(bytes, content[start..start + bytes.len()], "chunk {chunk}");
            }
            Err(error) => return (chunk, Some(error)),
        }
    }
    (body.chunks.end(), None)
}

/// How chunks come to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Copied into a stream that is no socket.
    Memory,
    /// The same in small pieces, for want of large buffers.
    MemoryInPieces,
    /// Copied into a socket, because the file is fresh.
    Fresh,
    /// The same in small pieces, for want of large buffers.
    FreshInPieces,
    /// Hashed, then sent by the kernel.
    Hashed,
    /// Sent by the kernel, with hashes of the index.
    Known,
}

const WAYS: [Way; 6] =
    [Way::Memory, Way::MemoryInPieces, Way::Fresh, Way::FreshInPieces, Way::Hashed, Way::Known];

/// Fetches a file, does something to it after its first chunk came, and returns how many chunks were good and the end.
async fn meddle(way: Way, act: impl FnOnce(&Fixture)) -> (u64, Option<AnswerError>) {
    let is_fresh = matches!(way, Way::Fresh | Way::FreshInPieces);
    let settle_time = if is_fresh { Duration::from_secs(3600) } else { Duration::ZERO };
    let index = HashIndex::with_settle_time(DEFAULT_INDEX_BYTES, settle_time);
    let buffers = Buffers::new(if matches!(way, Way::MemoryInPieces | Way::FreshInPieces) { 0 } else { 2 });
    let fixture = Fixture::with_buffers(index, buffers);
    let content = fixture.file("file", 12 * MIB);
    fixture.file("other", 10);
    if matches!(way, Way::Memory | Way::MemoryInPieces) {
        return meddle_with(fixture.over_memory(), way, &content, || act(&fixture)).await;
    }
    let mut client = fixture.over_narrow_tcp(Some(64 * 1024)).await;
    if way == Way::Known {
        client.hashes(&hashes("file")).await.unwrap();
    }
    meddle_with(client, way, &content, || act(&fixture)).await
}

/// The connection must still be good for another request afterwards.
async fn meddle_with<S: AsyncRead + AsyncWrite + Unpin>(
    mut client: Client<S>,
    way: Way,
    content: &[u8],
    act: impl FnOnce(),
) -> (u64, Option<AnswerError>) {
    let head = client.head(&get("file")).await;
    let body = Body::of(&head).unwrap();
    client.chunk(&body, 0).await.unwrap();
    act();
    let end = good_chunks(&mut client, &body, content, 1).await;
    assert_eq!(client.fetch(&get("other")).await.unwrap().len(), 10);
    let record = client.record().await;
    assert_eq!(record.broken_bodies, u64::from(end.1.is_some()));
    let by_kernel =
        cfg!(all(target_os = "linux", not(relay_plain))) && matches!(way, Way::Hashed | Way::Known);
    assert_eq!(record.sent_by_kernel > 0, by_kernel, "{way:?}");
    end
}

async fn check_changed(act: impl Fn(&Fixture) + Copy) {
    for way in WAYS {
        let (good, error) = meddle(way, act).await;
        assert!(matches!(error, Some(AnswerError::Changed)), "{way:?} {error:?}");
        assert!(good < 8, "{way:?}: {good} chunks came after the change");
    }
}

async fn check_delivered(act: impl Fn(&Fixture) + Copy) {
    for way in WAYS {
        let (good, error) = meddle(way, act).await;
        assert_eq!(good, 12, "{way:?} {error:?}");
    }
}

#[tokio::test]
async fn a_file_that_shrinks() {
    check_changed(|fixture| {
        let file = fs::OpenOptions::new().write(true).open(fixture.path("file")).unwrap();
        file.set_len(6 * MIB as u64 + 77).unwrap();
    })
    .await;
    check_changed(|fixture| fs::write(fixture.path("file"), b"").unwrap()).await;
}

#[tokio::test]
async fn a_file_that_grows() {
    check_changed(|fixture| {
        use std::io::Write;
        let mut file = fs::OpenOptions::new().append(true).open(fixture.path("file")).unwrap();
        file.write_all(b"more").unwrap();
    })
    .await;
}

#[tokio::test]
#[cfg(unix)]
async fn a_file_that_is_written_in_place() {
    use std::os::unix::fs::FileExt;
    check_changed(|fixture| {
        let file = fs::OpenOptions::new().write(true).open(fixture.path("file")).unwrap();
        file.write_all_at(b"changed", 10 * MIB as u64).unwrap();
    })
    .await;
}

#[tokio::test]
#[cfg(unix)]
async fn a_file_that_is_written_in_place_and_dated_back() {
    use std::os::unix::fs::FileExt;
    check_changed(|fixture| {
        let file = fs::OpenOptions::new().write(true).open(fixture.path("file")).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(b"changed", 10 * MIB as u64).unwrap();
        file.set_modified(modified).unwrap();
    })
    .await;
}

#[tokio::test]
#[cfg(unix)]
async fn a_file_that_is_unlinked() {
    check_delivered(|fixture| fs::remove_file(fixture.path("file")).unwrap()).await;
}

#[tokio::test]
#[cfg(unix)]
async fn a_file_that_is_replaced() {
    check_delivered(|fixture| {
        fs::write(fixture.path("new"), b"another").unwrap();
        fs::rename(fixture.path("new"), fixture.path("file")).unwrap();
    })
    .await;
}

#[tokio::test]
#[cfg(unix)]
async fn a_file_that_is_unlinked_and_written() {
    use std::os::unix::fs::FileExt;
    check_changed(|fixture| {
        let file = fs::OpenOptions::new().write(true).open(fixture.path("file")).unwrap();
        fs::remove_file(fixture.path("file")).unwrap();
        file.write_all_at(b"changed", 10 * MIB as u64).unwrap();
    })
    .await;
}

#[tokio::test]
async fn thirty_two_requests_at_once() {
    let fixture = Fixture::new();
    let small = fixture.file("small", 1000);
    let large = fixture.file("large", 2 * MIB);
    let mut client = fixture.over_tcp().await;
    let mut requests = Vec::new();
    for number in 0..MAX_PIPELINED {
        requests.extend(match number % 4 {
            0 => encode(&get("small")).unwrap(),
            1 => encode(&get("large")).unwrap(),
            2 => encode(&get("missing")).unwrap(),
            _ => encode(&Stat { name: name("small") }).unwrap(),
        });
    }
    client.answers.get_mut().write_all(&requests).await.unwrap();
    for number in 0..MAX_PIPELINED {
        let head = client.answers.head().await.unwrap();
        match number % 4 {
            0 => assert_eq!(client.body(&head).await.unwrap(), small),
            1 => assert_eq!(client.body(&head).await.unwrap(), large),
            2 => assert_eq!(head.status, Status::NOT_FOUND),
            _ => assert_eq!(head.file.unwrap().size.bytes(), 1000),
        }
    }
    assert_eq!(client.record().await.requests, MAX_PIPELINED as u64);
}

/// Sends bytes that are no request; the answer must be a head 400, then the end.
async fn check_refused(bytes: &[u8]) {
    let fixture = Fixture::new();
    for half_close in [true, false] {
        let mut client = fixture.over_tcp().await;
        client.answers.get_mut().write_all(bytes).await.unwrap();
        if half_close {
            client.answers.get_mut().shutdown().await.unwrap();
        }
        let head = client.answers.head().await.unwrap();
        assert_eq!(head.status, Status::BAD_REQUEST);
        assert!(!head.message.is_empty());
        let (rest, error) = client.end().await;
        assert_eq!(rest, b"");
        assert!(matches!(error, OriginError::BadRequest(_)), "{error}");
    }
}

#[tokio::test]
async fn hostile_requests() {
    let frame = |payload: &str| {
        let mut bytes = encode(&Stat { name: name(payload) }).unwrap();
        // The name's own bytes as the whole payload: the length byte stays below 128.
        let json = bytes.split_off(9);
        let payload = payload.as_bytes();
        assert!(json.len() < 128);
        bytes[8] = 0x80 | payload.len() as u8;
        bytes.extend_from_slice(payload);
        bytes
    };
    check_refused(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    check_refused(&[0; 9]).await;
    check_refused(b"\xf5RLY\x02").await;
    check_refused(b"\xf5RLY\x01x").await;
    check_refused(b"\xf5RLY\x01S\xff\xff\xff").await;
    check_refused(b"\xf5RLY\x01S\x00\x00\x00").await;
    check_refused(&frame("")).await;
    check_refused(&frame("{")).await;
    check_refused(&frame("{}")).await;
    check_refused(&frame("{\"name\":7}")).await;
    check_refused(&frame("{\"name\":\"a\"}\n")).await;
    check_refused(&encode(&Head::only(Status::OK, "")).unwrap()).await;
    check_refused(&encode(&relay_proto::hop::Hello { agent: "x".into() }).unwrap()).await;
    // More than is read away, which must not cost the client the answer that it is reading.
    let mut much = vec![b'x'; 60_000];
    much[0] = 0;
    check_refused(&much).await;
}

#[tokio::test]
async fn a_request_that_ends_early() {
    let fixture = Fixture::new();
    let whole = encode(&get("file")).unwrap();
    for cut in 1..whole.len() {
        let mut client = fixture.over_memory();
        client.answers.get_mut().write_all(&whole[..cut]).await.unwrap();
        client.answers.get_mut().shutdown().await.unwrap();
        assert_eq!(client.answers.head().await.unwrap().status, Status::BAD_REQUEST, "{cut}");
    }
}

#[tokio::test]
async fn a_request_byte_by_byte() {
    let fixture = Fixture::new();
    let content = fixture.file("file", 100);
    let mut client = fixture.over_tcp().await;
    client.answers.get_mut().set_nodelay(true).unwrap();
    for byte in encode(&get("file")).unwrap() {
        client.answers.get_mut().write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let head = client.answers.head().await.unwrap();
    assert_eq!(client.body(&head).await.unwrap(), content);
}

#[tokio::test]
async fn a_client_that_asks_nothing() {
    let fixture = Fixture::new();
    let limits = OriginLimits { request: Duration::from_millis(50), ..LIMITS };
    for start in [&b""[..], b"\xf5RLY"] {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let mut client = fixture.client(near, far, limits);
        client.answers.get_mut().write_all(start).await.unwrap();
        assert_eq!(client.answers.head().await.unwrap().status, Status::REQUEST_TIMEOUT);
        let (rest, error) = client.end().await;
        assert_eq!(rest, b"");
        assert!(matches!(error, OriginError::RequestTimeout(_)), "{error}");
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_is_given_up_in_the_end() {
    let fixture = Fixture::new();
    fixture.file("file", 12 * MIB);
    let limits = OriginLimits { progress: Duration::from_millis(100), ..LIMITS };
    let (near, far) = Fixture::narrow_tcp(Some(64 * 1024)).await;
    let by_kernel = fixture.client(near, far, limits);
    let (near, far) = tokio::io::duplex(64 * 1024);
    let by_copy = fixture.client(near, far, limits);
    check_given_up(by_kernel).await;
    check_given_up(by_copy).await;
}

async fn check_given_up<S: AsyncRead + AsyncWrite + Unpin>(mut client: Client<S>) {
    client.ask(&get("file")).await;
    let (result, record) = client.served.await.unwrap();
    assert!(matches!(result, Err(OriginError::NoProgress(_))), "{result:?}");
    assert!(record.sent > 0);
}

#[tokio::test]
async fn a_client_that_goes_away_is_noticed() {
    let fixture = Fixture::new();
    fixture.file("file", 12 * MIB);
    check_noticed(fixture.over_narrow_tcp(Some(64 * 1024)).await).await;
    check_noticed(fixture.over_memory()).await;
}

async fn check_noticed<S: AsyncRead + AsyncWrite + Unpin>(mut client: Client<S>) {
    client.head(&get("file")).await;
    drop(client.answers);
    let (result, _) = client.served.await.unwrap();
    assert!(matches!(result, Err(OriginError::Stream(_))), "{result:?}");
}

#[tokio::test]
async fn a_paused_reader_gets_everything() {
    let fixture = Fixture::new();
    let content = fixture.file("file", 9 * MIB);
    let mut client = fixture.over_narrow_tcp(Some(64 * 1024)).await;
    let head = client.head(&get("file")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(client.body(&head).await.unwrap(), content);
}

#[tokio::test]
async fn lists_by_pages_that_fit() {
    let fixture = Fixture::new();
    let mut expected = Vec::new();
    // Long names, so that a frame holds far fewer than a page may have; quotes, so that JSON makes them longer.
    for number in 0..1500 {
        let name = format!("{number:04}{}", "\"x".repeat(60 + number % 60));
        fs::write(fixture.path(&name), b"abc").unwrap();
        expected.push(name);
    }
    fs::create_dir(fixture.path("directory")).unwrap();
    fixture.file("directory/inside", 5);
    expected.push("directory".into());
    let mut client = fixture.over_memory();
    let (mut after, mut got, mut pages) = (None, Vec::new(), 0);
    loop {
        let page = client.page(&List { after: after.take(), ..list("") }).await;
        assert!(encode(&page).unwrap().len() <= MAX_PAYLOAD + 9);
        got.extend(page.entries.iter().map(|entry| entry.name.as_str().to_owned()));
        pages += 1;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(got, expected);
    assert!(pages > 3, "{pages}");

    let page = client.page(&List { recursive: true, ..list("directory/") }).await;
    let [entry] = page.entries.as_slice() else { panic!("{page:?}") };
    assert_eq!(
        (entry.name.as_str(), entry.kind, entry.size.bytes()),
        ("directory/inside", EntryKind::File, 5)
    );
    assert_eq!(client.page(&list("../")).await, Page::default());
    assert_eq!(client.page(&list("nothing")).await, Page::default());
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn unnameable_names_are_counted_once() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let fixture = Fixture::new();
    for directory in 0..4 {
        let directory = fixture.path(&format!("{directory}"));
        fs::create_dir(&directory).unwrap();
        for number in 0..400 {
            fs::write(directory.join(format!("{number:04}{}", "x".repeat(90))), b"").unwrap();
        }
        for byte in [0xfe, 0xff] {
            fs::write(directory.join(OsStr::from_bytes(&[byte])), b"").unwrap();
        }
    }
    let mut client = fixture.over_memory();
    let (mut after, mut unnameable, mut entries, mut pages) = (None, 0, 0, 0);
    loop {
        let page = client.page(&List { after: after.take(), recursive: true, ..list("") }).await;
        unnameable += page.unnameable;
        entries += page.entries.len();
        pages += 1;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!((unnameable, entries), (8, 4 * 401));
    assert!(pages > 2, "{pages}");
}

#[tokio::test]
async fn an_idle_client_does_not_hold_up_the_nodes_end() {
    let fixture = Fixture::new();
    let (source, stop) = crate::stop::channel();
    let (near, mut far) = tokio::io::duplex(1024);
    source.stop();
    let mut record = OriginRecord::default();
    serve(&mut far, None, &fixture.origin, LIMITS, &stop, &mut record).await.unwrap();
    assert_eq!(record.requests, 0);
    drop(near);
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_when_the_node_stops_is_answered_and_then_the_client_is_told() {
    let fixture = Fixture::new();
    let content = fixture.file("f", 10);
    let (source, stop) = crate::stop::channel();
    let (near, mut far) = tokio::io::duplex(4096);
    let origin = fixture.origin.clone();
    let served = tokio::spawn(async move {
        let mut record = OriginRecord::default();
        let result = serve(&mut far, None, &origin, LIMITS, &stop, &mut record).await;
        (result, record)
    });
    let mut client = Client { answers: Answers::new(near, PATIENCE), served };
    let frame = relay_proto::frame::encode(&get("f")).unwrap();
    let (first, rest) = frame.split_at(frame.len() / 2);
    client.answers.get_mut().write_all(first).await.unwrap();
    source.stop();
    // Within the grace of a second.
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.answers.get_mut().write_all(rest).await.unwrap();
    let head = client.answers.head().await.unwrap();
    assert_eq!(client.body(&head).await.unwrap(), content);
    assert_eq!(client.answers.head().await.unwrap().status, Status::UNAVAILABLE);
    let Client { answers, served } = client;
    drop(answers);
    let (result, record) = served.await.unwrap();
    result.unwrap();
    assert_eq!(record.requests, 1);
}
