//! What an answer begins with: the file is found, its conditions are checked, the head is made; of a small file, or of a
//! listing, the rest of the answer is read, too.
//!
//! Everything here but [`to_list`] may wait for a disk; it runs in the blocking pool. Why a file cannot be had stays in the node's log: a
//! peer learns only that it is not offered.

use super::Origin;
use super::source::Source;
use crate::peer_lines::PeerLines;
use crate::record::logged_name;
use crate::root::{
    EntryKind as RootKind, FileMeta, ListEntry, ListPage, ListQuery, MAX_NAME_BYTES, Reach, RootError,
    ServedFile,
};
use relay_chain::frames::{Frame, ReadError, encode};
use relay_proto::chunk::{AskedRange, ChunkRange, ChunkState};
use relay_proto::code::Status;
use relay_proto::file::{
    Conditions, EntityTag, Entry, EntryKind, FileFacts, Get, Hashes, Head, List, Page, RequestedName, Size,
    SizeAndTime, Stat, Timestamp,
};
use relay_proto::frame::{FrameError, FrameType, Message};
use relay_proto::limits::{MAX_NAME, MAX_PAGE, MAX_PAYLOAD};
use relay_trust::access::Denial;
use std::net::IpAddr;
use std::sync::Arc;

/// A body of at most so many bytes goes out in one write with its head and its trailer.
const SMALL_BODY: u64 = 64 * 1024;

/// What a client may ask for.
pub(super) enum Request {
    Of(FileRequest),
    List(List),
}

/// What a client may ask of a file.
pub(super) enum FileRequest {
    Get(Get),
    Hashes(Hashes),
    Stat(Stat),
}

impl Request {
    pub(super) fn of(frame: &Frame) -> Result<Request, ReadError> {
        match frame.frame_type {
            FrameType::Get => frame.decode().map(FileRequest::Get).map(Request::Of),
            FrameType::Hashes => frame.decode().map(FileRequest::Hashes).map(Request::Of),
            FrameType::Stat => frame.decode().map(FileRequest::Stat).map(Request::Of),
            FrameType::List => frame.decode().map(Request::List),
            got => Err(FrameError::Unexpected { expected: "request", got }.into()),
        }
    }

    /// The file, or the prefix, that is asked for.
    pub(super) fn name(&self) -> &RequestedName {
        match self {
            Request::Of(request) => request.name(),
            Request::List(list) => &list.prefix,
        }
    }
}

impl FileRequest {
    /// The file that is asked for.
    pub(super) fn name(&self) -> &RequestedName {
        match self {
            FileRequest::Get(get) => &get.name,
            FileRequest::Hashes(hashes) => &hashes.name,
            FileRequest::Stat(stat) => &stat.name,
        }
    }
}

/// Why there is no answer to a request yet.
pub(super) enum Instead {
    /// This is all there is.
    Head(Head),
    /// It can only be said elsewhere, or later.
    NotYet(RootError),
}

impl From<Head> for Instead {
    fn from(head: Head) -> Instead {
        Instead::Head(head)
    }
}

/// An answer whose beginning is ready to be written.
pub(super) struct Answer {
    pub(super) status: Status,
    /// The head's frame, and what of the answer is known already.
    pub(super) bytes: Vec<u8>,
    /// What is wrong with the chunk at the end of `bytes`, if anything.
    pub(super) broken: Option<ChunkState>,
    pub(super) rest: Rest,
    /// The file, for the requests that follow.
    pub(super) held: Option<Held>,
}

/// A file of which a client has asked for a part, kept open for its next requests: as long as those ask for the same version they get it,
/// even when the name is gone or leads to another file by now.
#[derive(Clone)]
pub(super) struct Held {
    name: RequestedName,
    facts: FileFacts,
    source: Arc<Source>,
}

impl Held {
    /// Whether a request can only mean this file.
    fn is_meant(&self, name: &RequestedName, conditions: &Conditions) -> bool {
        self.name == *name
            && conditions.if_match.as_ref() == Some(&self.facts.entity_tag)
            && self.source.state() == ChunkState::Good
    }
}

/// What of an answer is still to come.
pub(super) enum Rest {
    Nothing,
    Chunks(Arc<Source>, ChunkRange),
    Hashes(Arc<Source>, ChunkRange),
}

impl Answer {
    /// The answer to a request. `held` is what the answer before left open.
    ///
    /// # Errors
    /// [`RootError::Elsewhere`] and [`RootError::Leased`], for which others may be better: everything else is an answer.
    pub(super) fn to(
        request: &FileRequest,
        origin: &Origin,
        held: Option<Held>,
        reach: Reach,
    ) -> Result<Answer, RootError> {
        let answer = match request {
            FileRequest::Get(get) => to_get(get, origin, held, reach),
            FileRequest::Hashes(hashes) => to_hashes(hashes, origin, held, reach),
            FileRequest::Stat(stat) => to_stat(stat, origin, reach),
        };
        match answer {
            Ok(answer) => Ok(answer),
            Err(Instead::Head(refusal)) => Ok(Answer::head(&refusal)),
            Err(Instead::NotYet(error)) => Err(error),
        }
    }

    /// The answer when there is no file.
    pub(super) fn refusal(error: &RootError, name: &RequestedName, origin: &Origin) -> Answer {
        Answer::head(&refusal(error, name, &origin.lines))
    }

    /// The answer to somebody who may not have one.
    pub(super) fn denial(denial: Denial) -> Answer {
        match denial {
            Denial::NotFound => Answer::failure(Status::NOT_FOUND, NOT_OFFERED),
            Denial::Unauthorized => Answer::failure(Status::UNAUTHORIZED, NOT_AUTHORIZED),
        }
    }

    /// An answer that says only that the origin failed, and what the peer may know of it.
    pub(super) fn failure(status: Status, message: &str) -> Answer {
        Answer::head(&Head::only(status, message))
    }

    fn head(head: &Head) -> Answer {
        Answer { status: head.status, bytes: frame(head), broken: None, rest: Rest::Nothing, held: None }
    }
}

/// A head or a page as a frame. Both are far from the size that a frame cannot hold; were one not, the peer would get
/// nothing instead and find that the connection is out of step.
fn frame<M: Message>(message: &M) -> Vec<u8> {
    encode(message).unwrap_or_else(|error| {
        tracing::error!(%error, "an answer cannot be written");
        Vec::new()
    })
}

fn to_get(get: &Get, origin: &Origin, held: Option<Held>, reach: Reach) -> Result<Answer, Instead> {
    let Get { name, range, conditions, anew } = get;
    let found = find(&Wanted { name, range: *range, conditions, anew: *anew }, origin, held, reach)?;
    let Found { source, head, chunks, held } = found;
    let mut answer = Answer { held, ..Answer::head(&head) };
    let (len, mut rest) = (chunks.bytes(source.size()), chunks.first()..chunks.end());
    match (len, rest.next(), rest.next()) {
        (1..=SMALL_BODY, Some(chunk), None) => {
            let mut bytes = Vec::new();
            let state = source.load(chunk, source.known(chunk), &mut bytes);
            answer.bytes.extend_from_slice(&bytes);
            answer.broken = Some(state).filter(|state| *state != ChunkState::Good);
        }
        _ => answer.rest = Rest::Chunks(source, chunks),
    }
    Ok(answer)
}

fn to_hashes(hashes: &Hashes, origin: &Origin, held: Option<Held>, reach: Reach) -> Result<Answer, Instead> {
    let Hashes { name, range, conditions } = hashes;
    let found = find(&Wanted { name, range: *range, conditions, anew: false }, origin, held, reach)?;
    Ok(Answer { rest: Rest::Hashes(found.source, found.chunks), ..Answer::head(&found.head) })
}

fn to_stat(stat: &Stat, origin: &Origin, reach: Reach) -> Result<Answer, Instead> {
    let meta = open(&stat.name, origin, reach)?.meta;
    Ok(Answer::head(&with_facts(Status::OK, facts(&meta)?)))
}

/// A file with something to send.
struct Found {
    source: Arc<Source>,
    head: Head,
    chunks: ChunkRange,
    /// The file, when there is more of it to ask for.
    held: Option<Held>,
}

/// What is asked of a file.
struct Wanted<'a> {
    name: &'a RequestedName,
    range: Option<AskedRange>,
    conditions: &'a Conditions,
    /// The index is not to be believed.
    anew: bool,
}

fn find(wanted: &Wanted<'_>, origin: &Origin, held: Option<Held>, reach: Reach) -> Result<Found, Instead> {
    let Wanted { name, range, conditions, anew } = *wanted;
    let fits = |held: &Held| held.source.is_anew() == anew && held.is_meant(name, conditions);
    let (facts, source) = match held.filter(fits) {
        Some(held) => (held.facts, held.source),
        None => {
            let served = open(name, origin, reach)?;
            (facts(&served.meta)?, Arc::new(Source::new(served, Arc::clone(&origin.index), anew)))
        }
    };
    if let Some(status) = status_instead(conditions, &facts) {
        return Err(with_facts(status, facts).into());
    }
    let size = facts.size.bytes();
    let (status, chunks) = match range {
        None => (Status::OK, Some(ChunkRange::whole(size))),
        Some(range) => (Status::PARTIAL, range.of(size)),
    };
    let Some(chunks) = chunks else {
        return Err(with_facts(Status::RANGE_NOT_SATISFIABLE, facts).into());
    };
    let head = Head { range: Some(chunks.into()), ..with_facts(status, facts.clone()) };
    let held = (chunks.end() < ChunkRange::whole(size).end()).then(|| Held {
        name: name.clone(),
        facts,
        source: Arc::clone(&source),
    });
    Ok(Found { source, head, chunks, held })
}

/// What the conditions answer instead of the file, in the order of RFC 9110, section 13.2.2.
fn status_instead(conditions: &Conditions, facts: &FileFacts) -> Option<Status> {
    let Conditions { if_match, if_none_match, unless_same } = conditions;
    let now = SizeAndTime { size: facts.size, modified: facts.modified };
    if if_match.as_ref().is_some_and(|tag| *tag != facts.entity_tag) {
        Some(Status::PRECONDITION_FAILED)
    } else if if_none_match.as_ref() == Some(&facts.entity_tag) || *unless_same == Some(now) {
        Some(Status::NOT_MODIFIED)
    } else {
        None
    }
}

fn open(name: &RequestedName, origin: &Origin, reach: Reach) -> Result<ServedFile, Instead> {
    origin.root.open_file(name.as_str(), reach).map_err(|error| match error {
        RootError::Elsewhere | RootError::Leased => Instead::NotYet(error),
        error => Instead::Head(refusal(&error, name, &origin.lines)),
    })
}

/// What a peer is told of everything that it cannot have, whatever the reason.
const NOT_AUTHORIZED: &str = "the origin gives this, if it has it, to those whom its access rules name; its operator can add \
                              your key";
const NOT_OFFERED: &str = "the origin offers nothing of this name";

/// What a peer is told, and what the log is told.
fn refusal(error: &RootError, name: &RequestedName, lines: &PeerLines) -> Head {
    if lines.may_write() {
        tell_refusal(error, &logged_name(name.as_str()));
    }
    match error {
        RootError::NotFound { .. } | RootError::Denied => Head::only(Status::NOT_FOUND, NOT_OFFERED),
        RootError::TooManyFiles => Head::only(
            Status::UNAVAILABLE,
            "the origin has too many files open at the moment; try again later",
        ),
        RootError::Hung => {
            Head::only(Status::UNAVAILABLE, "the origin's disk does not answer there; try again later")
        }
        RootError::Leased => {
            Head::only(Status::UNAVAILABLE, "another program holds the file at the origin; try again later")
        }
        RootError::Elsewhere | RootError::Busy | RootError::Abandoned => {
            Head::only(Status::UNAVAILABLE, "the origin has much to do at the moment; try again later")
        }
        RootError::Io(_) => {
            Head::only(Status::INTERNAL, "the origin's document root cannot be read; its log says why")
        }
    }
}

fn tell_refusal(error: &RootError, name: &str) {
    match error {
        RootError::NotFound { reason } => tracing::info!(name, %reason, "not offered"),
        RootError::Denied => tracing::info!(name, reason = %error, "not offered"),
        RootError::TooManyFiles
        | RootError::Elsewhere
        | RootError::Leased
        | RootError::Hung
        | RootError::Busy
        | RootError::Abandoned => {
            tracing::warn!(name, %error, "not answered");
        }
        RootError::Io(_) => tracing::error!(name, %error, "not answered"),
    }
}

fn with_facts(status: Status, facts: FileFacts) -> Head {
    Head { file: Some(facts), ..Head::only(status, "") }
}

fn facts(meta: &FileMeta) -> Result<FileFacts, Head> {
    let size = Size::try_from(meta.size);
    let entity_tag = EntityTag::try_from(meta.entity_tag());
    match (size, entity_tag) {
        (Ok(size), Ok(entity_tag)) => Ok(FileFacts {
            size,
            modified: timestamp(meta.modified),
            entity_tag,
            executable: meta.executable,
        }),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(error, size = meta.size, "a file cannot be offered");
            Err(Head::only(Status::INTERNAL, error))
        }
    }
}

fn timestamp((seconds, nanoseconds): (i64, u32)) -> Timestamp {
    Timestamp::new(seconds, nanoseconds).unwrap_or_default()
}

/// The answer to a `list`, when it is the turn of `peer`.
pub(super) async fn to_list(list: &List, origin: &Origin, peer: Option<IpAddr>) -> Answer {
    let after = list.after.as_ref().map(|name| name.as_str().as_bytes());
    let (prefix, recursive) = (list.prefix.as_str().as_bytes(), list.recursive);
    let query = ListQuery { prefix, after, limit: MAX_PAGE, recursive, any_bytes: false };
    match origin.root.list_in_turn(query, peer, one_frame()).await {
        Ok(found) => {
            let mut answer = Answer::failure(Status::OK, "");
            answer.bytes.extend_from_slice(&frame(&page(&found)));
            answer
        }
        Err(error) => Answer::head(&refusal(&error, &list.prefix, &origin.lines)),
    }
}

/// Says of one entry after the other whether one frame holds it, too.
fn one_frame() -> impl FnMut(&ListEntry) -> bool {
    let (mut entries, mut longest_name) = (0, 0);
    move |entry| {
        let Some(entry) = entry_of(entry) else { return true };
        // An entry's own JSON and a comma. `next` may be the name of something in there that is no entry.
        entries += json_len(&entry) + 1;
        longest_name = longest_name.max(json_len(&entry.name));
        PAGE_FRAME_LEN + entries + longest_name <= MAX_PAYLOAD
    }
}

fn page(found: &ListPage) -> Page {
    Page {
        entries: found.entries.iter().filter_map(entry_of).collect(),
        next: found.next.as_deref().and_then(name_of),
        unnameable: found.not_offered,
        links: found.links,
        unreadable: found.unreadable,
    }
}

/// More than the JSON of a page takes beside its entries and their longest name: its counts, and a name in a directory, of 255
/// bytes, of which each may become six.
const PAGE_FRAME_LEN: usize = 256 + 6 * 256;
// A name that can be listed can be asked for.
const _: () = assert!(MAX_NAME_BYTES <= MAX_NAME);

fn json_len(value: &impl serde::Serialize) -> usize {
    serde_json::to_vec(value).map_or(MAX_PAYLOAD, |json| json.len())
}

fn name_of(name: &[u8]) -> Option<RequestedName> {
    RequestedName::try_from(str::from_utf8(name).ok()?).ok()
}

/// An entry as the protocol has it.
fn entry_of(entry: &ListEntry) -> Option<Entry> {
    Some(Entry {
        name: name_of(&entry.name)?,
        kind: match entry.kind {
            RootKind::File => EntryKind::File,
            RootKind::Directory => EntryKind::Directory,
        },
        size: Size::try_from(entry.size).unwrap_or_default(),
        modified: timestamp(entry.modified),
        executable: entry.executable,
        linked: entry.linked,
        unreadable: entry.unreadable,
    })
}

#[cfg(test)]
mod tests {
    use super::{facts, refusal};
    use crate::peer_lines::PeerLines;
    use crate::root::{FileIdentity, FileMeta, RootError};
    use relay_proto::code::Status;
    use relay_proto::file::RequestedName;
    use relay_proto::limits::MAX_SIZE;
    use std::io;

    #[test]
    fn a_peer_learns_nothing_of_the_reason() {
        let name = RequestedName::try_from("the-name").unwrap();
        let check = |error: RootError, expected| {
            let head = refusal(&error, &name, &PeerLines::default());
            assert_eq!(head.status, expected);
            assert!(!head.message.is_empty());
            assert!(!head.message.contains("secret") && !head.message.contains("the-name"), "{head:?}");
        };
        check(RootError::NotFound { reason: "secret".into() }, Status::NOT_FOUND);
        check(RootError::Denied, Status::NOT_FOUND);
        check(RootError::TooManyFiles, Status::UNAVAILABLE);
        check(RootError::Hung, Status::UNAVAILABLE);
        check(RootError::Busy, Status::UNAVAILABLE);
        check(RootError::Leased, Status::UNAVAILABLE);
        check(RootError::Io(io::Error::other("secret")), Status::INTERNAL);
    }

    #[test]
    fn a_file_too_large_for_the_protocol_is_a_failure() {
        let meta = |size| FileMeta {
            size,
            modified: (1, 2),
            identity: FileIdentity { device: 1, inode: 1, size, mtime: (1, 2), ctime: (1, 2) },
            links: 1,
            executable: false,
        };
        assert_eq!(facts(&meta(MAX_SIZE)).unwrap().size.bytes(), MAX_SIZE);
        assert_eq!(facts(&meta(MAX_SIZE + 1)).unwrap_err().status, Status::INTERNAL);
    }
}
