//! A shared HTTP cache (RFC 9111) over files.
//!
//! One request is a line of questions: may the cache answer at all ([`bypass`]), is there a stored response that fits
//! ([`store`], [`entry`]), may it be used now ([`policy`]); if not, is somebody fetching it already, or do we ([`fill`]);
//! and how is it answered from what is there or arriving ([`serve`]). Many clients that want one missing response cause one
//! request to the origin, and all read along while it grows ([`growing`]).
//!
//! The cache knows nothing of sockets: who stands behind it is a [`Fetch`]. It never sends an answer that it could not also
//! have let the origin give, and a failure of its own disk costs the client nothing.

mod bypass;
mod directives;
mod entry;
mod fill;
mod growing;
mod key;
mod piece;
mod policy;
mod serve;
mod status;
mod store;

pub use super::body::{BoxError, Stream};
pub use bypass::{Asked, carries_content};
pub use key::Key;
pub use status::CACHE_NAME;
pub use store::StoreError;

use super::body::{Body, nothing};
use crate::stop::Stop;
use entry::Entry;
use fill::{Fill, Known, Lead, Place, Stage};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use policy::{Verdict, selects};
use status::{Forward, Told};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use store::Store;
use tokio::sync::watch;

/// Reads an entry's record to its end.
#[cfg(any(fuzzing, feature = "fuzzing"))]
pub(super) fn read_record(text: &[u8]) -> std::io::Result<()> {
    entry::Record::parse(text)?.read().map(drop)
}

/// How many bytes of small bodies and metadata are held in memory.
pub const MEMORY: u64 = 64 * 1024 * 1024;

/// How often it is noted on the disk what was used.
const NOTE_USES: Duration = Duration::from_secs(60);

/// How often a request waits for somebody else's fetch before it makes its own.
const MOST_WAITS: usize = 3;

/// Where responses come from.
pub trait Fetch: Clone + Send + Sync + 'static {
    /// Sends a request on, with the client's fields, those of its connection included, or the cache's own conditions.
    /// The answer's fields are as they came, so that the cache sees how the body was delimited; the body must end with an
    /// error if not all of it arrived.
    fn fetch(
        &self,
        request: Parts,
        body: Stream,
    ) -> impl Future<Output = Result<Response<Stream>, FetchError>> + Send;
}

/// Why there is no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct FetchError {
    /// What the client is told: 502, 504 or another status that means failure.
    pub status: StatusCode,
    /// What happened, where, and what to do.
    pub reason: String,
}

/// Where the time comes from.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The system.
    System,
    /// Milliseconds since 1970 that somebody else sets.
    Set(Arc<AtomicU64>),
}

/// The cache.
#[derive(Debug)]
pub struct Cache {
    store: Arc<Store>,
    fills: Mutex<HashMap<key::KeyId, Vec<Arc<Fill>>>>,
    /// Fetches that run, until what they brought is on the disk.
    running: watch::Sender<usize>,
    clock: Clock,
    stop: Stop,
}

/// What the store has for a request.
struct Found {
    entry: Option<Arc<Entry>>,
    rows: Vec<u64>,
}

impl Clock {
    /// The time now.
    pub fn now(&self) -> SystemTime {
        match self {
            Self::System => SystemTime::now(),
            Self::Set(milliseconds) => {
                SystemTime::UNIX_EPOCH
                    + Duration::from_millis(milliseconds.load(Ordering::Relaxed).min(1 << 47))
            }
        }
    }
}

impl Cache {
    /// Opens the cache in `dir` with room for `limit` bytes. Blocks while it reads what is there; must be called within a
    /// runtime, where it notes now and then which entries were used.
    pub fn open(dir: &Path, limit: u64, clock: Clock, stop: Stop) -> Result<Arc<Self>, StoreError> {
        let store = Arc::new(Store::open(dir, limit, MEMORY)?);
        tokio::spawn(note_uses(Arc::downgrade(&store)));
        Ok(Arc::new(Self { store, fills: Mutex::default(), running: watch::Sender::new(0), clock, stop }))
    }

    /// Returns when no fetch runs. Once the node was told to stop, those that nobody waits for are given up.
    pub async fn settled(&self) {
        // The sender is this cache's own, so it cannot be gone.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }

    /// Answers a request from what is stored, or else from where `fetch` asks.
    ///
    /// All ways but that of a fresh stored response are boxed, so that it alone decides how much room a request takes.
    pub(super) async fn answer<F: Fetch>(
        self: &Arc<Self>,
        asked: Asked,
        body: Stream,
        fetch: F,
    ) -> Result<Response<Body>, FetchError> {
        // 1. Some requests are none of the cache's business.
        if let Some(forward) = asked.bypass() {
            return Box::pin(self.forward(asked, body, fetch, forward)).await;
        }
        // 2. What is stored may do.
        let found = self.find(&asked).await;
        let now = self.clock.now();
        let forward = match &found.entry {
            None if found.rows.is_empty() => Forward::UriMiss,
            None => Forward::VaryMiss,
            Some(entry) => match entry.head().rules.verdict(asked.fields(), now) {
                Verdict::Fresh => return Ok(serve::stored(&asked.parts, entry, now, Told::hit())),
                Verdict::StaleWhileRevalidate => {
                    self.revalidate_behind(&asked, Arc::clone(entry), fetch);
                    let told = Told::hit().because("stale-while-revalidate");
                    return Ok(serve::stored(&asked.parts, entry, now, told));
                }
                Verdict::Stale => Forward::Stale,
                Verdict::Refused => Forward::Request,
            },
        };
        if directives::Directives::of(asked.fields()).has("only-if-cached") {
            return Err(not_stored());
        }
        // 3. A HEAD fetches no body that a later GET could use.
        if asked.parts.method == Method::HEAD {
            return Box::pin(self.forward_head(asked, body, fetch, forward, found.entry)).await;
        }
        // 4. Nor is it worth waiting for the end of a large file until its beginning has come.
        if found.entry.is_none() && asked.wants_far_ahead(self.arrived(&asked)) {
            return Box::pin(self.forward(asked, body, fetch, forward)).await;
        }
        // 5. One fetch serves all who want the same.
        Box::pin(self.fetch_shared(asked, found, fetch, forward)).await
    }

    /// How many bytes the cache takes on the disk.
    pub fn size(&self) -> u64 {
        self.store.size()
    }

    /// How many responses are stored.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.store.is_empty()
    }

    async fn find(self: &Arc<Self>, asked: &Asked) -> Found {
        let rows = self.store.rows(&asked.key);
        for number in &rows {
            let entry = match self.store.hot(&asked.key, *number) {
                Some(entry) if entry.is_broken() => {
                    Box::pin(self.discard(&asked.key, *number)).await;
                    None
                }
                Some(entry) => Some(entry),
                None => Box::pin(self.load(&asked.key, *number)).await,
            };
            if let Some(entry) = entry
                && selects(&entry.head().selecting, asked.fields())
            {
                return Found { entry: Some(entry), rows };
            }
        }
        Found { entry: None, rows }
    }

    async fn load(self: &Arc<Self>, key: &Key, number: u64) -> Option<Arc<Entry>> {
        let (store, key) = (Arc::clone(&self.store), key.clone());
        tokio::task::spawn_blocking(move || store.load(&key, number)).await.ok().flatten()
    }

    async fn discard(self: &Arc<Self>, key: &Key, number: u64) {
        tracing::warn!(key = key.text(), "a cache entry is not what was stored and is removed");
        let (store, key) = (Arc::clone(&self.store), key.clone());
        drop(tokio::task::spawn_blocking(move || store.remove_entry(&key, number)).await);
    }

    async fn fetch_shared<F: Fetch>(
        self: &Arc<Self>,
        asked: Asked,
        mut found: Found,
        fetch: F,
        forward: Forward,
    ) -> Result<Response<Body>, FetchError> {
        for turn in 0.. {
            let fill = match self.place(&asked, &found.rows, forward, turn) {
                Place::Lead(fill, growing) => {
                    let known = match (growing, found.entry) {
                        (Some(growing), _) => Known::Growing(growing),
                        (None, Some(entry)) => Known::Stored(entry),
                        (None, None) => Known::Nothing,
                    };
                    let lead = fill.start(self, &asked, known, fetch.clone());
                    return match lead.await {
                        Ok(lead) => self.answer_lead(&asked, lead, forward),
                        Err(_) => Err(given_up()),
                    };
                }
                Place::Wait(fill) => fill,
                Place::LookAgain => {
                    found = self.find(&asked).await;
                    if let Some(entry) = &found.entry
                        && forward != Forward::Request
                        && entry.head().rules.may_be_shared_by_latecomers(self.clock.now())
                    {
                        let told = Told::forwarded(forward).collapsed();
                        return Ok(serve::stored(&asked.parts, entry, self.clock.now(), told));
                    }
                    continue;
                }
            };
            let told = Told::forwarded(forward).collapsed();
            match fill.settled().await {
                Stage::Growing(growing) if selects(&growing.head().selecting, asked.fields()) => {
                    if let Some(answer) =
                        serve::growing(&asked.parts, &growing, None, self.clock.now(), told.stored())
                    {
                        return Ok(answer);
                    }
                    break;
                }
                Stage::Updated(entry) if selects(&entry.head().selecting, asked.fields()) => {
                    return Ok(serve::stored(&asked.parts, &entry, self.clock.now(), told));
                }
                Stage::StandIn(entry) if selects(&entry.head().selecting, asked.fields()) => {
                    return Ok(serve::stored(
                        &asked.parts,
                        &entry,
                        self.clock.now(),
                        told.because("stale-if-error"),
                    ));
                }
                Stage::Failed(error) => return Err(error),
                Stage::NotShared => break,
                // Somebody wanted the same URI with other fields.
                _ => {}
            }
        }
        self.forward(asked, nothing(), fetch, forward).await
    }

    fn answer_lead(&self, asked: &Asked, lead: Lead, forward: Forward) -> Result<Response<Body>, FetchError> {
        let now = self.clock.now();
        let told = Told::forwarded(forward);
        match lead {
            Lead::Follow(growing, follower) => {
                serve::growing(&asked.parts, &growing, Some(follower), now, told.stored())
                    .ok_or_else(given_up)
            }
            Lead::Updated(entry) => Ok(serve::stored(&asked.parts, &entry, now, told.status(304))),
            Lead::StandIn(entry, status) => {
                let told = status.into_iter().fold(told, Told::status).because("stale-if-error");
                Ok(serve::stored(&asked.parts, &entry, now, told))
            }
            Lead::Own(answer) => Ok(serve::passed(answer, told)),
            Lead::Failed(error) => Err(error),
        }
    }

    /// How much of a response that fits the request has arrived.
    fn arrived(&self, asked: &Asked) -> u64 {
        let fills = self.fills();
        let running = fills.get(&asked.key.id()).into_iter().flatten();
        running.filter_map(|fill| fill.arrived_for(asked.fields())).max().unwrap_or(0)
    }

    /// Finds out, under one lock, whether to wait for somebody or to fetch.
    fn place(&self, asked: &Asked, rows: &[u64], forward: Forward, turn: usize) -> Place {
        let mut fills = self.fills();
        let running = fills.entry(asked.key.id()).or_default();
        let now = self.clock.now();
        let joinable = running.iter().filter(|fill| fill.key.text() == asked.key.text()).find(|fill| {
            match &*fill.stage() {
                Stage::Asking => turn < MOST_WAITS,
                Stage::Growing(growing) => {
                    forward != Forward::Request
                        && growing.head().rules.may_be_shared_by_latecomers(now)
                        && selects(&growing.head().selecting, asked.fields())
                        && turn < MOST_WAITS
                }
                _ => false,
            }
        });
        if let Some(fill) = joinable {
            return Place::Wait(Arc::clone(fill));
        }
        // Somebody may have finished between our look into the store and this lock.
        if turn < MOST_WAITS && forward != Forward::Request && self.store.rows(&asked.key) != rows {
            return Place::LookAgain;
        }
        let growing = running.iter().find_map(|fill| fill.confirmable(asked.fields()));
        let fill = Arc::new(Fill::new(asked.key.clone()));
        running.push(Arc::clone(&fill));
        Place::Lead(fill, growing)
    }

    fn revalidate_behind<F: Fetch>(self: &Arc<Self>, asked: &Asked, entry: Arc<Entry>, fetch: F) {
        let fill = {
            let mut fills = self.fills();
            let running = fills.entry(asked.key.id()).or_default();
            if !running.is_empty() {
                return;
            }
            let fill = Arc::new(Fill::new(asked.key.clone()));
            running.push(Arc::clone(&fill));
            fill
        };
        // Nobody waits for what it brings.
        drop(fill.start(self, asked, Known::Stored(entry), fetch));
    }

    async fn forward<F: Fetch>(
        self: &Arc<Self>,
        asked: Asked,
        body: Stream,
        fetch: F,
        forward: Forward,
    ) -> Result<Response<Body>, FetchError> {
        let method = asked.parts.method.clone();
        let answer = fetch.fetch(asked.parts, body).await?;
        if bypass::is_unsafe(&method) && (answer.status().is_success() || answer.status().is_redirection()) {
            self.invalidate(&asked.key, answer.headers()).await;
        }
        Ok(serve::passed(answer, Told::forwarded(forward)))
    }

    /// RFC 9111 §4.3.5: the answer to a HEAD tells whether the stored GET still is what it was.
    async fn forward_head<F: Fetch>(
        self: &Arc<Self>,
        asked: Asked,
        body: Stream,
        fetch: F,
        forward: Forward,
        stored: Option<Arc<Entry>>,
    ) -> Result<Response<Body>, FetchError> {
        let answer = fetch.fetch(asked.parts, body).await?;
        if let Some(entry) = stored
            && answer.status() == StatusCode::OK
            && fill::differs(&entry, answer.headers())
        {
            let (store, key) = (Arc::clone(&self.store), asked.key.clone());
            let removal = tokio::task::spawn_blocking(move || store.remove_entry(&key, entry.number()));
            drop(removal.await);
        }
        Ok(serve::passed(answer, Told::forwarded(forward)))
    }

    /// RFC 9111 §4.4: what an unsafe method may have changed is no longer good.
    async fn invalidate(self: &Arc<Self>, key: &Key, answer: &HeaderMap) {
        let mut keys = vec![key.clone()];
        keys.extend(bypass::also_changed(key, answer));
        for key in &keys {
            for fill in self.fills().get(&key.id()).into_iter().flatten() {
                fill.invalidate();
            }
        }
        let store = Arc::clone(&self.store);
        let removal = tokio::task::spawn_blocking(move || {
            for key in keys {
                store.remove(&key);
            }
        });
        drop(removal.await);
    }

    fn fills(&self) -> MutexGuard<'_, HashMap<key::KeyId, Vec<Arc<Fill>>>> {
        self.fills.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn note_uses(store: std::sync::Weak<Store>) {
    loop {
        tokio::time::sleep(NOTE_USES).await;
        let Some(store) = store.upgrade() else { return };
        drop(tokio::task::spawn_blocking(move || store.note_uses()).await);
    }
}

fn not_stored() -> FetchError {
    FetchError {
        status: StatusCode::GATEWAY_TIMEOUT,
        reason: "the request may be answered from the cache only, and the cache has no answer".to_owned(),
    }
}

fn given_up() -> FetchError {
    FetchError {
        status: StatusCode::BAD_GATEWAY,
        reason: "the fetch from the upstream was given up before it had an answer; try again".to_owned(),
    }
}
