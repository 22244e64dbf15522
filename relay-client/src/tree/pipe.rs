//! One chain to an origin with many requests on it: up to 32 are ahead of their answers, and answers are read while requests are
//! written, so a round trip is paid a batch and not a file.

use super::plan::{TreePlan, Way};
use super::save::{Intake, Received};
use super::sift::{Item, SMALL, Sifted, Sifter, is_behind};
use super::view::View;
use super::work::{Question, Work};
use crate::beneath::{Directory, Walker, has_other_names, split};
use crate::failure::Failure;
use crate::left_out::LeftOut;
use crate::platform::read_exact_at;
use crate::progress::Reporter;
use crate::session::{build, request};
use relay_chain::requests::{AnswerError, Answers, Body};
use relay_link::link::{LinkReader, LinkWriter};
use relay_proto::chunk::{AskedRange, CHUNK_LEN, ChunkRange, chunk_count, chunk_len};
use relay_proto::code::Status;
use relay_proto::digest::ChunkHash;
use relay_proto::file::{Conditions, EntryKind, FileFacts, Get, Hashes, Head, List, Page, RequestedName};
use relay_proto::limits::{MAX_NAME, MAX_PIPELINED};
use relay_proto::text::clean;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_blocking;

/// What is read from a socket at once, in bytes: the answers to many small requests.
const READ_AHEAD: usize = 256 * 1024;
/// Requests that go out behind the `open`, in bytes: they wait in the sockets of relays until the chain stands, so they must fit.
const FIRST_REQUESTS: usize = 4 * 1024;
/// Requests are added when so many or fewer wait for their answers, so that several go out together.
const REFILL_AT: usize = MAX_PIPELINED / 2;
/// How often a file is asked for that changes, or arrives damaged, or cannot be read.
pub const MAX_TRIES: u32 = 3;

/// What every pipe of a run shares.
pub struct Shared {
    /// What was planned.
    pub plan: TreePlan,
    /// What is left to do.
    pub work: Work,
    /// What is seen of it.
    pub view: Arc<View>,
    /// Where received files go.
    pub intake: Intake,
    /// Sorts what is listed.
    pub sifter: Arc<Mutex<Sifter>>,
    /// The target directory.
    pub root: Arc<Directory>,
}

/// A chain that stands, and the requests on it.
pub struct Pipe<'a> {
    shared: &'a Shared,
    way: &'a Way,
    answers: Answers<BufReader<LinkReader>>,
    requests: UnboundedSender<Vec<u8>>,
    asked: Asked<'a>,
    received: u64,
}

/// Requests that wait for their answers. What is left of them goes back when the pipe is gone.
struct Asked<'a> {
    work: &'a Work,
    questions: VecDeque<Question>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        while let Some(question) = self.questions.pop_back() {
            self.work.give_back(question);
        }
    }
}

impl<'a> Asked<'a> {
    /// The frames of further requests, as many as may be ahead; none is added behind `enough` bytes.
    fn more(&mut self, way: &Way, enough: usize) -> Result<Vec<u8>, Failure> {
        let mut frames = Vec::new();
        while self.questions.len() < MAX_PIPELINED && frames.len() < enough {
            let Some(question) = self.work.next() else { break };
            let frame = frame(&question, way);
            self.questions.push_back(question);
            frames.extend(frame?);
        }
        Ok(frames)
    }
}

fn frame(question: &Question, way: &Way) -> Result<Vec<u8>, Failure> {
    match question {
        Question::List(cursor) => {
            let prefix = way.name_of("")?;
            let after = cursor.as_deref().map(|path| way.name_of(path)).transpose()?;
            request(&List { prefix, after, recursive: true })
        }
        Question::Get(item) => {
            // With a range a file that has grown meanwhile cannot bring more than was expected.
            let range = Some(AskedRange { first: 0, end: Some(SMALL / CHUNK_LEN) });
            // Perhaps it arrived damaged, and then the origin may remember hashes that do not fit any more.
            let anew = item.failed > 0;
            let name = way.name_of(item.path.as_str())?;
            request(&Get { name, range, conditions: Conditions::default(), anew })
        }
        Question::Compare(item) => {
            let name = way.name_of(item.path.as_str())?;
            request(&Hashes { name, range: None, conditions: Conditions::default() })
        }
    }
}

impl<'a> Pipe<'a> {
    /// Builds the chain; the first requests go out right behind the `open`. Returns how long it took, too.
    ///
    /// # Errors
    /// [`Failure::Walk`] names the hop where it ended.
    pub async fn connect(
        shared: &'a Shared,
        way: &'a Way,
        reporter: &Reporter,
    ) -> Result<(Pipe<'a>, Duration), Failure> {
        let mut asked = Asked { work: &shared.work, questions: VecDeque::new() };
        let first = asked.more(way, FIRST_REQUESTS)?;
        let route = &way.route;
        let label = shared.plan.label(way);
        let TreePlan { silence, network, .. } = &shared.plan;
        let pipe = build(route, *silence, network, &first, |step| reporter.step(label, step, route)).await?;
        let (reader, writer) = pipe.link.into_split();
        let answers = Answers::new(BufReader::with_capacity(READ_AHEAD, reader), *silence);
        let (requests, queue) = unbounded_channel();
        tokio::spawn(write_requests(writer, queue));
        Ok((Pipe { shared, way, answers, requests, asked, received: 0 }, pipe.after))
    }

    /// Asks and receives until nothing is left to be asked for.
    ///
    /// # Errors
    /// Why the pipe is of no use any more. What was not answered goes back to the work.
    pub async fn run(mut self) -> Result<(), Failure> {
        loop {
            if self.asked.questions.len() <= REFILL_AT {
                let frames = self.asked.more(self.way, usize::MAX)?;
                if !frames.is_empty() {
                    // Whether it could be written shows in what comes back.
                    let _ = self.requests.send(frames);
                }
            }
            let Some(question) = self.asked.questions.front().cloned() else {
                if self.shared.work.more().await {
                    continue;
                }
                return Ok(());
            };
            match question {
                Question::List(_) => self.page().await?,
                Question::Get(item) => self.file(item).await?,
                Question::Compare(item) => self.compare(item).await?,
            }
        }
    }

    /// The oldest request is answered.
    fn answered(&mut self) {
        self.asked.questions.pop_front();
    }

    async fn head(&mut self) -> Result<Head, Failure> {
        let head = self.answers.head().await;
        head.map_err(|error| self.broken(error))
    }

    fn broken(&self, error: AnswerError) -> Failure {
        Failure::Broken { error, received: self.received, aftermath: None }
    }

    fn misfit(&self) -> Failure {
        self.broken(AnswerError::Protocol("an answer that does not fit the request"))
    }

    fn refused(&self, name: String, head: &Head) -> Failure {
        let position = self.way.route.hops().len();
        Failure::Refused {
            name,
            status: head.status,
            message: head.message.clone(),
            position,
            origin: self.way.route.hop(position).clone(),
        }
    }

    /// A page of the listing.
    async fn page(&mut self) -> Result<(), Failure> {
        let head = self.head().await?;
        if !head.status.is_success() {
            return Err(self.refused(self.way.name(), &head));
        }
        let page = self.answers.page().await.map_err(|error| self.broken(error))?;
        // A page that does not advance is asked for again elsewhere, so nothing of it may count.
        let Some(cursor) = self.cursor(&page) else {
            return Err(self.broken(AnswerError::Protocol("a listing that does not advance")));
        };
        let (sifter, prefix) = (Arc::clone(&self.shared.sifter), self.way.prefix.clone());
        let sifting = spawn_blocking(move || {
            let sifted = sifter.lock().unwrap_or_else(PoisonError::into_inner).sift(&page, &prefix);
            (page, sifted)
        });
        let (page, sifted) =
            sifting.await.map_err(|e| pool_failure("sort a page of", &self.shared.plan.target, e))?;
        if cursor.is_none()
            && page.entries.is_empty()
            && self.shared.work.is_fresh()
            && self.nothing_left_out(&page)
        {
            self.make_sure_it_is_there().await?;
        }
        self.answered();
        let Sifted { items, same, directories, bad } = sifted;
        let Shared { view, work, .. } = self.shared;
        view.listed(&items);
        view.listed(&same);
        same.iter().for_each(|item| view.same(item, "size and time"));
        bad.iter().for_each(|bad| view.bad(bad));
        view.left_out(&page);
        work.listed(&page, cursor, items, directories);
        if page.next.is_none() {
            view.listed_all();
        }
        Ok(())
    }

    /// Whether neither this page nor one before it counts something that is not listed.
    fn nothing_left_out(&self, page: &Page) -> bool {
        let mut left_out = self.shared.view.tally().left_out;
        left_out.add(page);
        left_out == LeftOut::default()
    }

    /// Nothing is in the directory: is there one? Nothing else is asked meanwhile, for nothing is known that could be.
    async fn make_sure_it_is_there(&mut self) -> Result<(), Failure> {
        let name = self.way.prefix.trim_end_matches('/');
        if name.is_empty() {
            return Ok(());
        }
        let prefix = RequestedName::try_from(name).map_err(|e| Failure::Usage(e.to_owned()))?;
        let _ = self.requests.send(request(&List { prefix, after: None, recursive: false })?);
        let head = self.head().await?;
        if !head.status.is_success() {
            return Err(self.refused(self.way.name(), &head));
        }
        let page = self.answers.page().await.map_err(|error| self.broken(error))?;
        match page.entries.iter().find(|entry| entry.name.as_str() == name).map(|entry| entry.kind) {
            Some(EntryKind::Directory) => Ok(()),
            Some(EntryKind::File) => Err(Failure::NoDirectory(clean(name, MAX_NAME))),
            None => Err(self
                .refused(self.way.name(), &Head::only(Status::NOT_FOUND, "it lists nothing of this name"))),
        }
    }

    /// Behind which path the next page begins, if there is one; none when the listing does not advance.
    fn cursor(&self, page: &Page) -> Option<Option<String>> {
        let Some(next) = &page.next else { return Some(None) };
        let Some(Question::List(before)) = self.asked.questions.front() else { return None };
        let path = next.as_str().strip_prefix(self.way.prefix.as_str())?;
        let advances = before.as_deref().is_none_or(|before| is_behind(path, before));
        advances.then(|| Some(path.to_owned()))
    }

    /// A small file.
    async fn file(&mut self, item: Item) -> Result<(), Failure> {
        let room = self.shared.intake.room(item.size).await;
        let room = room.map_err(|e| Failure::local("make room for", &self.shared.plan.target, e))?;
        let head = self.head().await?;
        match head.status {
            Status::PARTIAL => {}
            // An empty file has no chunk that could be asked for.
            Status::RANGE_NOT_SATISFIABLE => match head.file.filter(|file| file.size.bytes() == 0) {
                Some(facts) => {
                    self.answered();
                    self.shared.intake.submit(Received {
                        item,
                        facts,
                        bytes: Vec::new(),
                        promised: Vec::new(),
                        room,
                    });
                    return Ok(());
                }
                None => return Err(self.misfit()),
            },
            _ => return self.not_answered(item, &head),
        }
        let body = Body::of(&head).map_err(|error| self.broken(error))?;
        let size = body.file.size.bytes();
        if Some(body.chunks) != ChunkRange::new(0, chunk_count(size).min(SMALL / CHUNK_LEN)) {
            return Err(self.broken(AnswerError::Protocol("other chunks than were asked for")));
        }
        let room = if size > item.size {
            // It was listed as smaller than it is.
            drop(room);
            let room = self.shared.intake.room(size.min(SMALL)).await;
            room.map_err(|e| Failure::local("make room for", &self.shared.plan.target, e))?
        } else {
            room
        };
        let came = self.receive(&body).await;
        self.answered();
        match came {
            Ok((bytes, promised)) if bytes.len() as u64 == size => {
                self.shared.intake.submit(Received { item, facts: body.file, bytes, promised, room });
                Ok(())
            }
            Ok((bytes, _)) => {
                self.shared.view.gone(bytes.len() as u64);
                self.shared.work.grown(item);
                Ok(())
            }
            Err(error @ (AnswerError::Changed | AnswerError::OriginRead)) => {
                self.come_to_nothing(item, error);
                Ok(())
            }
            Err(error) => {
                // It is asked for again on the next chain.
                self.shared.work.give_back(Question::Get(item));
                Err(self.broken(error))
            }
        }
    }

    /// The chunks of a body. What came of one that fails is not counted.
    async fn receive(&mut self, body: &Body) -> Result<(Vec<u8>, Vec<ChunkHash>), AnswerError> {
        let (mut bytes, mut promised) = (Vec::new(), Vec::new());
        let view = &self.shared.view;
        for index in body.chunks.first()..body.chunks.end() {
            let start = bytes.len();
            bytes.resize(start + body.chunk_len(index), 0);
            let mut came = 0;
            let chunk = bytes.get_mut(start..).unwrap_or_default();
            let received = self.answers.chunk(chunk, |n| {
                came += n;
                view.came(n as u64);
            });
            match received.await {
                Ok(hash) => promised.push(hash),
                Err(error) => {
                    view.gone((start + came) as u64);
                    return Err(error);
                }
            }
            self.received += came as u64;
        }
        Ok((bytes, promised))
    }

    /// An answer that says that the file does not come.
    fn not_answered(&mut self, item: Item, head: &Head) -> Result<(), Failure> {
        if head.status.code() < 400 || head.status == Status::PRECONDITION_FAILED {
            return Err(self.misfit());
        }
        let refusal = self.refused(item.path.to_string(), head);
        match head.status {
            // These end the connection.
            Status::BAD_REQUEST | Status::REQUEST_TIMEOUT => return Err(refusal),
            status if status.code() >= 500 => self.shared.work.defer(item, refusal),
            _ => self.shared.view.failed(&item, refusal.exit().word(), &refusal.to_string()),
        }
        self.answered();
        Ok(())
    }

    /// The file changed while it was sent, or could not be read any more. It may go better the next time.
    fn come_to_nothing(&self, mut item: Item, error: AnswerError) {
        item.failed += 1;
        if item.failed < MAX_TRIES {
            self.shared.work.again(item);
        } else {
            let failure = self.broken(error);
            let Failure::Broken { error, .. } = &failure else { return };
            self.shared.view.failed(&item, failure.exit().word(), &error.to_string());
        }
    }

    /// The hashes of a small file of which something is here.
    async fn compare(&mut self, item: Item) -> Result<(), Failure> {
        let head = self.head().await?;
        if !matches!(head.status, Status::OK | Status::PARTIAL) {
            return self.not_answered(item, &head);
        }
        let body = Body::of(&head).map_err(|error| self.broken(error))?;
        let size = body.file.size.bytes();
        if body.chunks != ChunkRange::whole(size) {
            return Err(self.broken(AnswerError::Protocol("other chunks than were asked for")));
        }
        let mut promised = Vec::new();
        for _ in body.chunks.first()..body.chunks.end() {
            match self.answers.hash().await {
                Ok(hash) => promised.push(hash),
                Err(error @ (AnswerError::Changed | AnswerError::OriginRead)) => {
                    self.answered();
                    self.come_to_nothing(item, error);
                    return Ok(());
                }
                Err(error) => return Err(self.broken(error)),
            }
        }
        self.answered();
        let (root, facts) = (Arc::clone(&self.shared.root), body.file);
        let compared = spawn_blocking(move || {
            let is_same = has_these_chunks(&root, &item, &facts, &promised);
            (item, is_same)
        });
        let compared = compared.await;
        let (item, is_same) = compared.map_err(|e| pool_failure("read", &self.shared.plan.target, e))?;
        if is_same {
            self.shared.view.same(&item, "hash");
        } else {
            self.shared.work.again(Item { compare: false, ..item });
        }
        Ok(())
    }
}

fn pool_failure(doing: &'static str, path: &Path, error: tokio::task::JoinError) -> Failure {
    Failure::local(doing, path, io::Error::other(error))
}

/// Whether the local file has exactly these chunks. Then it gets the origin's time and mark, so that a quick look sees that next time.
fn has_these_chunks(root: &Arc<Directory>, item: &Item, facts: &FileFacts, promised: &[ChunkHash]) -> bool {
    let (parent, name) = split(item.path.as_str());
    let size = facts.size.bytes();
    let Ok(directory) = Walker::new(Arc::clone(root)).directory(parent, false) else { return false };
    let Ok(file) = directory.read(name) else { return false };
    if !file.metadata().is_ok_and(|meta| meta.len() == size) {
        return false;
    }
    let mut buffer = Vec::new();
    for (index, promised) in (0_u64..).zip(promised) {
        buffer.resize(usize::try_from(chunk_len(size, index)).unwrap_or(0), 0);
        let read = read_exact_at(&file, &mut buffer, index * CHUNK_LEN);
        if read.is_err() || ChunkHash::of(&buffer, index, size) != *promised {
            return false;
        }
    }
    if has_other_names(&file) {
        // They are somebody else's.
        return true;
    }
    // A time or a mark that cannot be set does not spoil the file.
    let _ = directory.set_time(name, facts.modified);
    let _ = directory.set_executable(name, facts.executable);
    true
}

/// Writes requests while others read the answers. Ends when no more can come, or when the connection is gone, which shows where answers
/// are read.
async fn write_requests(mut writer: LinkWriter, mut queue: UnboundedReceiver<Vec<u8>>) {
    while let Some(frames) = queue.recv().await {
        if writer.write_all(&frames).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::SafePath;
    use super::super::select::Selection;
    use super::*;
    use crate::cli::Connections;
    use relay_chain::frames::{read_frame, write_message};
    use relay_proto::chunk::{ChunkState, Trailer};
    use relay_proto::file::{SentRange, Size, Timestamp};
    use relay_proto::hop::Hello;
    use relay_proto::route::Route;
    use tokio::net::TcpListener;

    /// Bytes of every file of the origin below, which it lists as one byte.
    const REALLY: u64 = 3 * CHUNK_LEN;

    async fn send_more_than_listed(listener: TcpListener) {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_frame(&mut stream).await.unwrap();
        write_message(&mut stream, &Hello { agent: "test/1".into() }).await.unwrap();
        let chunks = ChunkRange::whole(REALLY);
        let file = FileFacts {
            size: Size::try_from(REALLY).unwrap(),
            modified: Timestamp::new(1, 0).unwrap(),
            entity_tag: "a".to_owned().try_into().unwrap(),
            executable: false,
        };
        let range = Some(SentRange::from(chunks));
        let head = Head { file: Some(file), range, ..Head::only(Status::PARTIAL, "") };
        let trailer = Trailer { state: ChunkState::Good, hash: ChunkHash::ZERO }.encode();
        while read_frame(&mut stream).await.is_ok() {
            write_message(&mut stream, &head).await.unwrap();
            for _ in chunks.first()..chunks.end() {
                stream.write_all(&vec![0; CHUNK_LEN as usize]).await.unwrap();
                stream.write_all(&trailer).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_is_larger_than_listed_takes_as_much_room_as_it_needs() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(send_more_than_listed(listener));
        let place = tempfile::tempdir().unwrap();
        let root = Arc::new(Directory::open(place.path()).unwrap());
        let sifter = Sifter::new(Arc::clone(&root), Selection::of(&[], &[]).unwrap(), false);
        let route = Route::parse(format!("d/\n{address}\n").as_bytes()).unwrap();
        let way = Way { route, prefix: "d/".to_owned() };
        let plan = TreePlan {
            ways: vec![way.clone()],
            target: place.path().to_owned(),
            include: Vec::new(),
            exclude: Vec::new(),
            silence: Duration::from_secs(30),
            deadline: None,
            retry: crate::retry::RetryLimits::default(),
            connections: Connections::Auto,
            network: crate::session::Network::PLAIN,
            checksum: false,
        };
        let (intake, received) = Intake::alone();
        let (work, view) = (Work::new(), Arc::new(View::new(Reporter::silent())));
        let item = |name: &str| Item {
            path: SafePath::of(name, "d/").unwrap(),
            size: 1,
            modified: Timestamp::new(1, 0).unwrap(),
            executable: false,
            replaces: None,
            compare: false,
            failed: 0,
        };
        let page = Page::default();
        work.listed(&page, None, vec![item("d/a"), item("d/b")], Vec::new());
        let shared = Shared { plan, work, view, intake, sifter: Arc::new(Mutex::new(sifter)), root };
        let (pipe, _) = Pipe::connect(&shared, &way, &Reporter::silent()).await.unwrap();
        pipe.run().await.unwrap();
        drop(shared);
        let room: Vec<u64> = received.iter().map(|file| file.room.num_permits() as u64 * 1024).collect();
        assert_eq!(room, [REALLY, REALLY]);
    }
}
