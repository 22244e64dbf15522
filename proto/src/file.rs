//! The file layer: what the client asks of the origin, and the answers, through the pipe that the hop layer built.
//!
//! Every request has exactly one answer, in order. An answer starts with a [`Head`]; what follows it depends on the request and is
//! told beside each type.

use crate::chunk::{AskedRange, ChunkRange};
use crate::code::Status;
use crate::frame::{FrameType, Message};
use crate::limits::{MAX_ENTITY_TAG, MAX_MESSAGE, MAX_NAME, MAX_PAGE, MAX_SIZE};
use crate::text::clean;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Deserializer, Serialize};

/// Asks for a file or a range of its chunks.
///
/// Answer: a [`Head`]; with 200 or 206 the chunks of its range follow, each as its raw bytes and a
/// [`crate::chunk::Trailer`]. After a trailer that is not good nothing more of this answer follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// The file.
    pub name: RequestedName,
    /// Which chunks; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<AskedRange>,
    /// When to answer something else.
    #[serde(default, skip_serializing_if = "Conditions::is_empty")]
    pub conditions: Conditions,
    /// A chunk of the file came that did not fit its hash: read and hash these chunks anew, whatever is remembered of them.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub anew: bool,
}

impl Message for Get {
    const TYPE: FrameType = FrameType::Get;
}

/// Asks for the hashes of a file's chunks. Answer: as for [`Get`], without the raw bytes: only the trailers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    /// The file.
    pub name: RequestedName,
    /// Which chunks; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<AskedRange>,
    /// When to answer something else.
    #[serde(default, skip_serializing_if = "Conditions::is_empty")]
    pub conditions: Conditions,
}

impl Message for Hashes {
    const TYPE: FrameType = FrameType::Hashes;
}

/// Asks what a file is. Answer: a [`Head`] and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// The file.
    pub name: RequestedName,
}

impl Message for Stat {
    const TYPE: FrameType = FrameType::Stat;
}

/// Asks what the origin offers. Answer: a [`Head`]; with 200 one [`Page`] follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Only names that start with this (the text, not a pattern): `docs/`, `te`, or nothing for all.
    #[serde(default)]
    pub prefix: RequestedName,
    /// Only names after this one, in the listing's order: the `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<RequestedName>,
    /// Whether directories are entered. Without it a directory is one entry.
    #[serde(default)]
    pub recursive: bool,
}

impl Message for List {
    const TYPE: FrameType = FrameType::List;
}

/// When a request is answered by something else than the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// 412 unless the file has this entity tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<EntityTag>,
    /// 304 when the file has this entity tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_none_match: Option<EntityTag>,
    /// 304 when the file has this size and modification time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unless_same: Option<SizeAndTime>,
}

impl Conditions {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Conditions::default()
    }
}

/// What a quick look compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeAndTime {
    /// Bytes.
    pub size: Size,
    /// Modification time.
    pub modified: Timestamp,
}

/// The start of every answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// HTTP's number.
    pub status: Status,
    /// What the file is; there with 200, 206, 304, 412 and 416 of `get`, `hashes` and `stat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileFacts>,
    /// The chunks that follow, with 200 and 206 of `get` and `hashes`: first, and the one after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<SentRange>,
    /// Why, for people; cleaned and at most [`MAX_MESSAGE`] bytes when it was read.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "message")]
    pub message: String,
}

impl Head {
    /// An answer that says no more than its status and why.
    #[must_use]
    pub fn only(status: Status, message: &str) -> Head {
        Head { status, file: None, range: None, message: clean(message, MAX_MESSAGE) }
    }
}

impl Message for Head {
    const TYPE: FrameType = FrameType::Head;
}

fn message<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(clean(&String::deserialize(deserializer)?, MAX_MESSAGE))
}

/// What an origin knows of a file without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Bytes.
    pub size: Size,
    /// Modification time.
    pub modified: Timestamp,
    /// Another version has another tag.
    pub entity_tag: EntityTag,
    /// Whether its owner may execute it.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub executable: bool,
}

/// The chunks that follow a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub struct SentRange(ChunkRange);

impl SentRange {
    /// As a range.
    #[must_use]
    pub fn chunks(self) -> ChunkRange {
        self.0
    }
}

impl From<ChunkRange> for SentRange {
    fn from(range: ChunkRange) -> SentRange {
        SentRange(range)
    }
}

impl TryFrom<(u64, u64)> for SentRange {
    type Error = &'static str;

    fn try_from((first, end): (u64, u64)) -> Result<Self, Self::Error> {
        ChunkRange::new(first, end).map(SentRange).ok_or("a range that runs backwards")
    }
}

impl From<SentRange> for (u64, u64) {
    fn from(range: SentRange) -> (u64, u64) {
        (range.0.first(), range.0.end())
    }
}

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Depth first; byte order of names within a directory; at most [`MAX_PAGE`], and never more than a frame holds.
    #[serde(deserialize_with = "entries")]
    pub entries: Vec<Entry>,
    /// There is more: ask again with this as `after`. It starts with the request's prefix, but need not be an entry's name: a
    /// page may end anywhere, also before its first entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<RequestedName>,
    /// How many entries of the walked directories are not offered because their names are not UTF-8 or too long.
    #[serde(default)]
    pub unnameable: u64,
    /// How many links of the walked directories are left out because they lead nowhere, or out of what is offered.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub links: u64,
    /// How many other things the origin cannot read, so that they have no entry: the directory of the prefix itself, or what its
    /// disk does not tell about.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unreadable: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Message for Page {
    const TYPE: FrameType = FrameType::Page;
}

fn entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Entry>, D::Error> {
    let entries = Vec::<Entry>::deserialize(deserializer)?;
    if entries.len() > MAX_PAGE {
        return Err(serde::de::Error::custom("more entries than a page may have"));
    }
    Ok(entries)
}

/// A file or a directory of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name from the document root on, components separated by `/`.
    pub name: RequestedName,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes; 0 for a directory.
    pub size: Size,
    /// Modification time.
    pub modified: Timestamp,
    /// Whether its owner may execute it; never for a directory.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub executable: bool,
    /// Whether it is a link to a directory, which a recursive listing does not enter; never for a file.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub linked: bool,
    /// Whether it is a directory that the origin may not read, so that nothing in it is listed; never for a file.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub unreadable: bool,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

/// A name as it was asked for or offered: UTF-8, at most [`MAX_NAME`] bytes, and nothing else is known of it. The document
/// root decides whether it names a file; the client decides where, if anywhere, it may be saved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestedName(String);

impl RequestedName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RequestedName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        if name.len() > MAX_NAME { Err("a name of more than 4096 bytes") } else { Ok(RequestedName(name)) }
    }
}

impl TryFrom<&str> for RequestedName {
    type Error = &'static str;

    fn try_from(name: &str) -> Result<Self, Self::Error> {
        RequestedName::try_from(String::from(name))
    }
}

impl From<RequestedName> for String {
    fn from(name: RequestedName) -> String {
        name.0
    }
}

impl fmt::Display for RequestedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&clean(&self.0, MAX_NAME))
    }
}

/// A file's size in bytes, at most [`MAX_SIZE`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Size(u64);

impl Size {
    /// Bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for Size {
    type Error = &'static str;

    fn try_from(bytes: u64) -> Result<Self, Self::Error> {
        if bytes > MAX_SIZE { Err("a size of more than 2^53-1 bytes") } else { Ok(Size(bytes)) }
    }
}

impl From<Size> for u64 {
    fn from(size: Size) -> u64 {
        size.0
    }
}

/// Seconds since 1970 (negative before) and nanoseconds, as `[seconds, nanoseconds]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "(i64, u32)", into = "(i64, u32)")]
pub struct Timestamp {
    seconds: i64,
    nanoseconds: u32,
}

impl Timestamp {
    /// A time; `None` when the nanoseconds are a second or more.
    #[must_use]
    pub fn new(seconds: i64, nanoseconds: u32) -> Option<Timestamp> {
        (nanoseconds < 1_000_000_000).then_some(Timestamp { seconds, nanoseconds })
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds within the second.
    #[must_use]
    pub fn nanoseconds(self) -> u32 {
        self.nanoseconds
    }
}

impl TryFrom<(i64, u32)> for Timestamp {
    type Error = &'static str;

    fn try_from((seconds, nanoseconds): (i64, u32)) -> Result<Self, Self::Error> {
        Timestamp::new(seconds, nanoseconds).ok_or("a second or more of nanoseconds")
    }
}

impl From<Timestamp> for (i64, u32) {
    fn from(time: Timestamp) -> (i64, u32) {
        (time.seconds, time.nanoseconds)
    }
}

/// Names a version of a file on one origin: 1 to [`MAX_ENTITY_TAG`] visible ASCII characters without quotes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntityTag(String);

impl EntityTag {
    /// The tag, without quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EntityTag {
    type Error = &'static str;

    fn try_from(tag: String) -> Result<Self, Self::Error> {
        let visible = |b: u8| b.is_ascii_graphic() && b != b'"';
        if tag.is_empty() || tag.len() > MAX_ENTITY_TAG || !tag.bytes().all(visible) {
            return Err("an entity tag is 1 to 64 visible ASCII characters without quotes");
        }
        Ok(EntityTag(tag))
    }
}

impl From<EntityTag> for String {
    fn from(tag: EntityTag) -> String {
        tag.0
    }
}
