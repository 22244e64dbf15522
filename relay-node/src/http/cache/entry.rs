//! One stored response: its head, its rules, where its body is, and the JSON record that outlives the process.

use super::Fetch;
use super::bypass::Asked;
use super::key::Key;
use super::policy::{Rules, Times, Verdict, characters, selects};
use super::unshared::Why;
use crate::http::seals::Seals;
use bytes::Bytes;
use http::header::{ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Bodies up to this many bytes are held in memory while they are in use.
pub const SMALL_BODY: u64 = 64 * 1024;

/// The largest metadata file that is read, in bytes.
pub const LONGEST_RECORD: u64 = 512 * 1024;

/// What is known of a response besides its body.
#[derive(Debug, Clone)]
pub struct Head {
    /// The key's text.
    pub key: String,
    /// Its status.
    pub status: StatusCode,
    /// Its fields, without those that belong to one connection.
    pub fields: HeaderMap,
    /// The request fields that chose it.
    pub selecting: Vec<(HeaderName, Option<String>)>,
    /// Whether the request carried an `Authorization`.
    pub authorized: bool,
    /// When it was fetched or last confirmed.
    pub times: Times,
    /// What may be done with it.
    pub rules: Rules,
    /// The body's length in bytes.
    pub length: u64,
}

/// A whole stored response.
#[derive(Debug)]
pub struct Entry {
    number: u64,
    head: Head,
    hash: blake3::Hash,
    record_size: u64,
    body: Stored,
}

/// Where a body is.
#[derive(Debug, Clone)]
pub enum Stored {
    /// A small one.
    Memory(Bytes),
    /// A larger one, with what its bytes must be.
    File(Arc<File>, Arc<Seals>),
}

/// The text of a metadata file.
#[derive(Debug)]
pub struct Record {
    text: Vec<u8>,
    told: Told,
}

/// Header values are bytes; they are written as the characters U+0000 to U+00FF of the same numbers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    key: String,
    status: u16,
    fields: Vec<(String, String)>,
    selecting: Vec<(String, Option<String>)>,
    authorized: bool,
    sent_ms: u64,
    received_ms: u64,
    length: u64,
    blake3: String,
}

impl Head {
    /// The rules for a response, with what they were made of.
    pub fn new(key: &Key, request: &HeaderMap, status: StatusCode, fields: HeaderMap, times: Times) -> Self {
        Self {
            key: key.text().to_owned(),
            rules: Rules::new(request, status, &fields, times),
            selecting: super::policy::selecting_fields(request, &fields),
            authorized: request.contains_key(http::header::AUTHORIZATION),
            status,
            fields,
            times,
            length: 0,
        }
    }

    /// What this response may do for a request now; `None` if it is the response to other requests. Nothing else decides
    /// that, whether the response is stored, still arrives, or was waited for.
    pub fn verdict(&self, asked: &Asked, fetch: &impl Fetch, now: SystemTime) -> Option<Verdict> {
        let is_chosen = self.selecting.is_empty() || selects(&self.selecting, asked.forwarded(fetch));
        is_chosen.then(|| self.rules.verdict(asked.fields(), now))
    }

    /// Whether it may be kept, and could ever be used again: while it is fresh, once it was confirmed, or stale.
    pub fn is_worth_keeping(&self) -> bool {
        let can_be_confirmed = self.fields.contains_key(ETAG) || self.fields.contains_key(LAST_MODIFIED);
        self.rules.is_storable() && (can_be_confirmed || self.rules.is_ever_usable())
    }

    /// Why no request that waited for this response, which is kept, could have it.
    pub fn why_unshared(&self, now: SystemTime) -> Option<Why> {
        (self.rules.verdict(&HeaderMap::new(), now) != Verdict::Fresh).then_some(Why::NotFresh)
    }
}

impl Entry {
    /// An entry whose body was written just now.
    pub fn new(number: u64, head: Head, hash: blake3::Hash, record_size: u64, body: Stored) -> Self {
        Self { number, head, hash, record_size, body }
    }

    /// An entry from the disk, if its body is what the record tells and the key is the one looked for.
    /// Of a large body both ends are looked at now, and the rest when it is wanted.
    pub fn whole(
        number: u64,
        record: &Record,
        file: File,
        key: &Key,
        known: Option<Arc<Seals>>,
    ) -> io::Result<Self> {
        let (head, hash) = record.told.read()?;
        if head.key != key.text() {
            return Err(broken("it belongs to another key"));
        }
        if file.metadata()?.len() != Self::file_length(head.length) {
            return Err(broken("its body has another length than was noted"));
        }
        let body = if head.length <= SMALL_BODY {
            let mut bytes = Vec::new();
            file.take(SMALL_BODY + 1).read_to_end(&mut bytes)?;
            if blake3::hash(&bytes) != hash {
                return Err(broken("its body has another hash than was noted"));
            }
            Stored::Memory(bytes.into())
        } else {
            let seals = match known {
                Some(seals) if seals.is_broken() => return Err(broken("its body is not what was stored")),
                Some(seals) => seals,
                None => Arc::new(Seals::read(&file, head.length, hash)?),
            };
            // What is torn is so at an end, as a rule, and then it is found before anybody is answered.
            seals.check(&file, 0..1)?;
            seals.check(&file, head.length - 1..head.length)?;
            Stored::File(Arc::new(file), seals)
        };
        Ok(Self { number, head, hash, record_size: record.size(), body })
    }

    /// The same body under a new head.
    pub fn with_head(&self, head: Head, record_size: u64) -> Self {
        let head = Head { length: self.head.length, ..head };
        Self { number: self.number, head, hash: self.hash, record_size, body: self.body.clone() }
    }

    /// Its number in the store.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// All but the body.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// How long the file of a body is: behind a body that does not fit into memory stand the hashes of its pieces.
    pub fn file_length(body: u64) -> u64 {
        if body <= SMALL_BODY { body } else { body.saturating_add(Seals::size(body)) }
    }

    /// The BLAKE3 hash of a small body; of a large one, that of the list of its pieces' hashes.
    pub fn hash(&self) -> blake3::Hash {
        self.hash
    }

    /// How large its record is.
    pub fn record_size(&self) -> u64 {
        self.record_size
    }

    /// The whole body, where it is in memory.
    pub fn in_memory(&self) -> Option<&Bytes> {
        match &self.body {
            Stored::Memory(bytes) => Some(bytes),
            Stored::File(..) => None,
        }
    }

    /// The body's file, where it is not in memory, and what its bytes must be. It stays readable after the entry was evicted.
    pub fn in_file(&self) -> Option<(&Arc<File>, &Arc<Seals>)> {
        match &self.body {
            Stored::Memory(_) => None,
            Stored::File(file, seals) => Some((file, seals)),
        }
    }

    /// Whether its body turned out not to be what was stored, or its file is shorter than that by now.
    pub fn is_broken(&self) -> bool {
        let Some((file, seals)) = self.in_file() else { return false };
        let is_short = || file.metadata().is_ok_and(|file| file.len() < Self::file_length(self.head.length));
        seals.is_broken() || is_short()
    }
}

impl Record {
    /// The record of a response with this body hash.
    pub fn new(head: &Head, hash: blake3::Hash) -> Self {
        let told = Told {
            key: head.key.clone(),
            status: head.status.as_u16(),
            fields: head.fields.iter().map(|(name, value)| (name.to_string(), characters(value))).collect(),
            selecting: head.selecting.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
            authorized: head.authorized,
            sent_ms: milliseconds(head.times.sent),
            received_ms: milliseconds(head.times.received),
            length: head.length,
            blake3: hash.to_string(),
        };
        // Texts and numbers only: there is nothing in it that JSON could refuse.
        let text = serde_json::to_vec(&told).unwrap_or_default();
        Self { text, told }
    }

    /// Reads a record; one that was cut short is an error.
    pub fn parse(text: &[u8]) -> io::Result<Self> {
        if text.len() as u64 > LONGEST_RECORD {
            return Err(broken("its record is too long"));
        }
        let told = serde_json::from_slice(text).map_err(|_| broken("its record cannot be read"))?;
        Ok(Self { text: text.to_vec(), told })
    }

    /// The text of its response's key.
    pub fn key(&self) -> &str {
        &self.told.key
    }

    /// What it tells.
    #[cfg(any(fuzzing, feature = "fuzzing"))]
    pub fn read(&self) -> io::Result<(Head, blake3::Hash)> {
        self.told.read()
    }

    /// What the file holds.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.text.len() as u64
    }
}

impl Told {
    fn read(&self) -> io::Result<(Head, blake3::Hash)> {
        let unreadable = || broken("its record cannot be read");
        // A record that was tampered with may have more fields than a map can hold, and the map would panic.
        let mut fields = HeaderMap::try_with_capacity(self.fields.len()).map_err(|_| unreadable())?;
        for (name, value) in &self.fields {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unreadable())?;
            let value = value_of(value).ok_or_else(unreadable)?;
            fields.try_append(name, value).map_err(|_| unreadable())?;
        }
        let mut selecting = Vec::with_capacity(self.selecting.len());
        for (name, value) in &self.selecting {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unreadable())?;
            selecting.push((name, value.clone()));
        }
        let status = StatusCode::from_u16(self.status).map_err(|_| unreadable())?;
        let times = Times { sent: moment(self.sent_ms), received: moment(self.received_ms) };
        let mut request = HeaderMap::new();
        if self.authorized {
            request.insert(http::header::AUTHORIZATION, HeaderValue::from_static("-"));
        }
        let head = Head {
            key: self.key.clone(),
            status,
            rules: Rules::new(&request, status, &fields, times),
            fields,
            selecting,
            authorized: self.authorized,
            times,
            length: self.length,
        };
        let hash = blake3::Hash::from_hex(&self.blake3).map_err(|_| unreadable())?;
        Ok((head, hash))
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn value_of(characters: &str) -> Option<HeaderValue> {
    let bytes: Option<Vec<u8>> =
        characters.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect();
    HeaderValue::from_bytes(&bytes?).ok()
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Times beyond the year 9999 are no times that this program wrote.
fn moment(milliseconds: u64) -> SystemTime {
    let latest = 253_402_300_799_000;
    SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds.min(latest))
}
