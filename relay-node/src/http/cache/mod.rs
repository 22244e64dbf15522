//! A shared HTTP cache (RFC 9111) over files.
//!
//! One request is a line of questions: may the cache answer at all ([`bypass`]), is there a stored response that fits
//! ([`store`], [`entry`]), may it be used now ([`policy`]); if not, is somebody fetching it already, or do we ([`fill`]);
//! and how is it answered from what is there or arriving ([`serve`]). Many clients that want one missing response cause one
//! request to the origin, and all read along while it grows ([`growing`]), if the answer is one that each of them could have
//! had from the store: that is decided in one place ([`entry::Head::verdict`]), for a stored response as for one that was
//! waited for. Otherwise each asks for itself, all at once, and the next ones do not wait ([`unshared`]).
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
mod unshared;

pub use super::body::{BoxError, Stream};
pub use bypass::{Asked, carries_content};
pub use key::Key;
pub use status::CACHE_NAME;
pub use store::{StoreError, Verified, verify};

use super::body::{Body, nothing};
use crate::stop::Stop;
use entry::Entry;
use fill::{Fill, Known, Lead, Place};
use growing::Growing;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode};
use policy::Verdict;
use status::{Forward, Told};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};
use store::{Round, Store};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::AbortHandle;
use unshared::{Unshared, Why};

/// Reads an entry's record to its end.
#[cfg(any(fuzzing, feature = "fuzzing"))]
pub(super) fn read_record(text: &[u8]) -> std::io::Result<()> {
    entry::Record::parse(text)?.read().map(drop)
}

/// How many bytes of small bodies and metadata are held in memory.
pub const MEMORY: u64 = 64 * 1024 * 1024;

/// How often it is noted on the disk what was used.
const NOTE_USES: Duration = Duration::from_secs(60);

/// How often a piece (1 MiB) of what is stored is looked at again.
const EXAMINE: Duration = Duration::from_secs(1);

/// How often a request waits for somebody else's fetch before it makes its own. Again only after an answer that was good for
/// others, but another variant than it asks for.
const MOST_WAITS: usize = 3;

/// How long a request waits for somebody else's fetch to be answered: who asked in a way that makes the origin hang holds up others
/// for no longer.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How many responses may come to their end although nobody reads them. Each has a file and a connection open.
const MOST_UNREAD: usize = 16;

/// How many bytes may be missing of each of them: a request for one byte must not make an origin send a large file to nobody.
const MOST_UNREAD_BYTES: u64 = 16 * 1024 * 1024;

/// How many stale responses are renewed at once behind those who got them.
const MOST_RENEWALS: usize = 64;

/// How many unsafe requests whose clients left are waited for at once.
const MOST_LEFT_CHANGES: usize = 64;

/// Where responses come from.
pub trait Fetch: Clone + Send + Sync + 'static {
    /// The fields with which a client's request goes on: without those for its connection, with what is added on the way.
    /// They are what the origin chooses its response by (RFC 9111 §4.1).
    fn forwarded(&self, request: &Parts) -> HeaderMap;

    /// Sends a request on, with its forwarded fields, or the cache's own conditions.
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
    /// Nothing of the request went out, so it changed nothing.
    pub unsent: bool,
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
    fills: Mutex<Fills>,
    unshared: Unshared,
    unread: Semaphore,
    /// How many bytes the arriving bodies take whose ends are not known.
    without_end: AtomicU64,
    renewals: Arc<Semaphore>,
    left_changes: Arc<Semaphore>,
    /// Fetches that run, until what they brought is on the disk.
    running: watch::Sender<usize>,
    clock: Clock,
    stop: Stop,
}

/// The fetches that run, by key, the oldest first.
type Fills = HashMap<key::KeyId, Vec<Arc<Fill>>>;

/// What the store has for a request.
struct Found {
    entry: Option<(Arc<Entry>, Verdict)>,
    rows: Vec<u64>,
    /// By which fields the responses were chosen that are for other requests.
    vary: Vec<HeaderName>,
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
        tokio::spawn(examine(Arc::downgrade(&store)));
        Ok(Arc::new(Self {
            store,
            fills: Mutex::default(),
            unshared: Unshared::default(),
            unread: Semaphore::new(MOST_UNREAD),
            without_end: AtomicU64::new(0),
            renewals: Arc::new(Semaphore::new(MOST_RENEWALS)),
            left_changes: Arc::new(Semaphore::new(MOST_LEFT_CHANGES)),
            running: watch::Sender::new(0),
            clock,
            stop,
        }))
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
        // 1. Some requests are none of the cache's business, unless they want nobody else's.
        if let Some(forward) = asked.bypass() {
            if !asked.wants_stored_only() {
                let asked = asked.on_its_way(&fetch);
                return Box::pin(self.forward(asked, body, fetch, forward)).await;
            }
            if carries_content(asked.fields()) {
                return Err(not_stored());
            }
        }
        // 2. What is stored may do.
        let now = self.clock.now();
        let found = self.find(&asked, &fetch, now).await;
        let forward = match &found.entry {
            None if found.rows.is_empty() => Forward::UriMiss,
            None => Forward::VaryMiss,
            Some((entry, Verdict::Fresh)) => {
                return Ok(serve::stored(&asked.parts, entry, now, Told::hit()));
            }
            Some((entry, Verdict::StaleWhileRevalidate)) => {
                let told = Told::hit().because("stale-while-revalidate");
                let answer = serve::stored(&asked.parts, entry, now, told);
                self.revalidate_behind(asked, Arc::clone(entry), fetch);
                return Ok(answer);
            }
            Some((_, Verdict::Stale)) => Forward::Stale,
            Some((_, Verdict::Refused)) => Forward::Request,
        };
        let asked = asked.on_its_way(&fetch);
        Box::pin(self.answer_missing(asked, body, found, fetch, forward)).await
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

    /// How many stored responses turned out not to be what was stored.
    pub fn thrown_away(&self) -> u64 {
        self.store.thrown_away()
    }

    /// Answers what the store has no response for that may be used as it is.
    async fn answer_missing<F: Fetch>(
        self: &Arc<Self>,
        asked: Asked,
        body: Stream,
        found: Found,
        fetch: F,
        forward: Forward,
    ) -> Result<Response<Body>, FetchError> {
        // 3. What arrives for somebody else may do, but for a place in it that is far from there yet.
        let arriving = self.arriving(&asked, &fetch);
        let is_far = asked.wants_far_ahead(arriving.as_ref().map_or(0, |growing| growing.arrived()));
        if let Some(growing) = arriving.filter(|_| !is_far)
            && let Some(answer) = self.join(&asked, &growing, forward)
        {
            return Ok(answer);
        }
        if asked.wants_stored_only() {
            return Err(not_stored());
        }
        // 4. A HEAD fetches no body that a later GET could use.
        if asked.parts.method == Method::HEAD {
            let stored = found.entry.map(|(entry, _)| entry);
            return self.forward_head(asked, body, fetch, forward, stored).await;
        }
        // 5. Nor is it worth waiting for the end of a large file until its beginning has come, or to ask for the whole where
        //    that will not be kept and a part, or nothing, would do.
        let is_never_kept = self.unshared.why(&asked.key, self.clock.now()) == Some(Why::NotKept);
        if found.entry.is_none() && (is_far || is_never_kept && asked.asks_for_less()) {
            return self.forward(asked, body, fetch, forward).await;
        }
        // 6. One fetch serves all who want the same.
        self.fetch_shared(asked, found, fetch, forward).await
    }

    async fn find<F: Fetch>(self: &Arc<Self>, asked: &Asked, fetch: &F, now: SystemTime) -> Found {
        let mut rows = self.store.rows(&asked.key);
        let mut vary = Vec::new();
        let mut seen = 0;
        while let Some(number) = rows.get(seen).copied() {
            let entry = match self.store.hot(&asked.key, number) {
                Some(entry) if entry.is_broken() => {
                    Box::pin(self.discard(&asked.key, number)).await;
                    None
                }
                Some(entry) => Some(entry),
                None => Box::pin(self.load(&asked.key, number)).await,
            };
            // What cannot be read is no longer stored.
            let Some(entry) = entry else {
                rows.remove(seen);
                continue;
            };
            seen += 1;
            if let Some(verdict) = entry.head().verdict(asked, fetch, now) {
                return Found { entry: Some((entry, verdict)), rows, vary };
            }
            vary.extend(entry.head().selecting.iter().map(|(name, _)| name.clone()));
        }
        Found { entry: None, rows, vary }
    }

    async fn load(self: &Arc<Self>, key: &Key, number: u64) -> Option<Arc<Entry>> {
        let (store, key) = (Arc::clone(&self.store), key.clone());
        tokio::task::spawn_blocking(move || store.load(&key, number)).await.ok().flatten()
    }

    async fn discard(self: &Arc<Self>, key: &Key, number: u64) {
        let (store, key) = (Arc::clone(&self.store), key.clone());
        let why = std::io::Error::other("its file was changed by somebody else");
        let job = move || store.throw_away(key.id(), number, key.text(), &why);
        drop(tokio::task::spawn_blocking(job).await);
    }

    async fn fetch_shared<F: Fetch>(
        self: &Arc<Self>,
        asked: Asked,
        mut found: Found,
        fetch: F,
        forward: Forward,
    ) -> Result<Response<Body>, FetchError> {
        let may_wait =
            asked.takes_what_is_under_way() && self.unshared.why(&asked.key, self.clock.now()).is_none();
        let mut waits = if may_wait { MOST_WAITS } else { 0 };
        loop {
            // It lives until it is known what this request does next, and so does what was waited for.
            let mut waiting = None;
            let mut may_look_again = false;
            let growing = match self.place(&asked, &fetch, &found, waits > 0) {
                Place::Lead(fill, growing) => {
                    return self.lead(asked, &fill, found, growing, fetch, forward).await;
                }
                Place::Wait(begun) => {
                    let settled = tokio::time::timeout(LONGEST_WAIT, waiting.insert(begun).settled());
                    settled.await.ok().flatten()
                }
                Place::Join(growing) => Some(growing),
                Place::LookAgain => {
                    may_look_again = true;
                    None
                }
            };
            // Whatever was waited for, its answer is taken as any other would be.
            let verdict =
                growing.as_ref().map(|growing| growing.head().verdict(&asked, &fetch, self.clock.now()));
            if let (Some(growing), Some(Some(Verdict::Fresh))) = (&growing, verdict)
                && let Some(answer) = self.join(&asked, growing, forward)
            {
                return Ok(answer);
            }
            found = self.find(&asked, &fetch, self.clock.now()).await;
            if let Some((entry, Verdict::Fresh)) = &found.entry {
                let told = Told::forwarded(forward).collapsed();
                return Ok(serve::stored(&asked.parts, entry, self.clock.now(), told));
            }
            // What was for this request and was not good enough will not be so for the next who waits.
            let was_another_variant = verdict == Some(None);
            waits = if was_another_variant || may_look_again { waits.saturating_sub(1) } else { 0 };
        }
    }

    /// Asks the origin, for this request and those who will wait for it.
    async fn lead<F: Fetch>(
        self: &Arc<Self>,
        asked: Asked,
        fill: &Arc<Fill>,
        found: Found,
        growing: Option<Arc<Growing>>,
        fetch: F,
        forward: Forward,
    ) -> Result<Response<Body>, FetchError> {
        let known = match (growing, found.entry) {
            (Some(growing), _) => Known::Growing(growing),
            (None, Some((entry, _))) => Known::Stored(entry),
            (None, None) => Known::Nothing,
        };
        let lead = fill.start(self, &asked, known, fetch.clone(), None);
        match lead.await {
            // The whole was asked for so that it could be kept. It is not, so the client's own question is asked after all.
            Ok(Lead::Own(answer)) if answer.status() == StatusCode::OK && asked.asks_for_less() => {
                drop(answer);
                self.forward(asked, nothing(), fetch, forward).await
            }
            Ok(lead) => self.answer_lead(&asked, lead, forward),
            Err(_) => Err(given_up()),
        }
    }

    /// A response on its way that may be used as it is.
    fn arriving<F: Fetch>(&self, asked: &Asked, fetch: &F) -> Option<Arc<Growing>> {
        let (fills, now) = (self.fills(), self.clock.now());
        usable(fills.get(&asked.key.id())?, asked, fetch, now)
    }

    /// Reads along with a response that may be used as it is.
    fn join(&self, asked: &Asked, growing: &Arc<Growing>, forward: Forward) -> Option<Response<Body>> {
        let told = Told::forwarded(forward).collapsed().stored();
        serve::growing(&asked.parts, growing, growing.head(), None, self.clock.now(), told)
    }

    fn answer_lead(&self, asked: &Asked, lead: Lead, forward: Forward) -> Result<Response<Body>, FetchError> {
        let now = self.clock.now();
        let told = Told::forwarded(forward);
        match lead {
            Lead::Follow(growing, follower) => {
                serve::growing(&asked.parts, &growing, growing.head(), Some(follower), now, told.stored())
                    .ok_or_else(given_up)
            }
            Lead::Confirmed(growing, follower, head) => {
                serve::growing(&asked.parts, &growing, &head, Some(follower), now, told.status(304))
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

    /// Finds out, under one lock, whether to wait for somebody or to fetch.
    fn place<F: Fetch>(&self, asked: &Asked, fetch: &F, found: &Found, may_wait: bool) -> Place {
        let mut fills = self.fills();
        let running = fills.get(&asked.key.id()).map(Vec::as_slice).unwrap_or_default();
        if may_wait {
            if let Some(growing) = usable(running, asked, fetch, self.clock.now()) {
                return Place::Join(growing);
            }
            let arriving = running.iter().filter_map(|fill| fill.growing());
            let mut vary = found.vary.clone();
            vary.extend(arriving.flat_map(|growing| growing.head().selecting.clone()).map(|(name, _)| name));
            let next = running.iter().rev().find(|fill| fill.may_answer(&asked.key, asked.fields(), &vary));
            if let Some(fill) = next {
                return Place::Wait(fill.wait());
            }
            // Somebody may have finished between our look into the store and this lock.
            if self.store.rows(&asked.key) != found.rows {
                return Place::LookAgain;
            }
        }
        let growing = running.iter().rev().find_map(|fill| fill.confirmable(asked.fields()));
        let fill = Arc::new(Fill::new(asked));
        fills.entry(asked.key.id()).or_default().push(Arc::clone(&fill));
        Place::Lead(fill, growing)
    }

    fn revalidate_behind<F: Fetch>(self: &Arc<Self>, asked: Asked, entry: Arc<Entry>, fetch: F) {
        // Where too many are under way already, one of the next requests will do it.
        let Ok(permit) = Arc::clone(&self.renewals).try_acquire_owned() else { return };
        let asked = asked.on_its_way(&fetch);
        let fill = {
            let mut fills = self.fills();
            let running = fills.entry(asked.key.id()).or_default();
            if !running.is_empty() {
                return;
            }
            let fill = Arc::new(Fill::new(&asked));
            running.push(Arc::clone(&fill));
            fill
        };
        // Nobody waits for what it brings.
        drop(fill.start(self, &asked, Known::Stored(entry), fetch, Some(permit)));
    }

    /// What older fetches of the same would bring must not take the place of what this one has brought.
    fn supersede(&self, fill: &Arc<Fill>, selecting: &[(HeaderName, Option<String>)]) {
        let fills = self.fills();
        let running = fills.get(&fill.key.id()).into_iter().flatten();
        for older in running.take_while(|running| !Arc::ptr_eq(running, fill)) {
            older.supersede(&fill.key, selecting);
        }
    }

    async fn forward<F: Fetch>(
        self: &Arc<Self>,
        asked: Asked,
        body: Stream,
        fetch: F,
        forward: Forward,
    ) -> Result<Response<Body>, FetchError> {
        if bypass::is_unsafe(&asked.parts.method) {
            return self.change(asked, body, fetch, forward).await;
        }
        Ok(serve::passed(fetch.fetch(asked.parts, body).await?, Told::forwarded(forward)))
    }

    /// Sends on what may change something. Its exchange goes on when the client leaves, since the origin may make the change
    /// later, and what is stored in between may be from before.
    async fn change<F: Fetch>(
        self: &Arc<Self>,
        asked: Asked,
        body: Stream,
        fetch: F,
        forward: Forward,
    ) -> Result<Response<Body>, FetchError> {
        let left = Arc::default();
        let mut change = Change { cache: Arc::clone(self), key: Some(asked.key.clone()) };
        let leave = Change { cache: Arc::clone(self), key: Some(asked.key) };
        let kept = Arc::clone(&left);
        let exchange = tokio::spawn(async move {
            let answer = fetch.fetch(asked.parts, body).await;
            if let Some(removal) = change.end(&answer) {
                drop(tokio::task::spawn_blocking(removal).await);
            }
            // What the client's leaving took.
            drop(kept);
            answer
        });
        let mut leaving = Leaving { change: leave, exchange: exchange.abort_handle(), left };
        let answer = exchange.await;
        leaving.change.key = None;
        Ok(serve::passed(answer.map_err(|_| given_up())??, Told::forwarded(forward)))
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

    /// What arrives for these keys is not kept from now on; what is stored goes with the call of what is returned, which blocks.
    fn removal(&self, keys: Vec<Key>) -> impl FnOnce() + Send + use<> {
        for key in &keys {
            for fill in self.fills().get(&key.id()).into_iter().flatten() {
                fill.invalidate();
            }
        }
        let store = Arc::clone(&self.store);
        move || {
            for key in keys {
                store.remove(&key);
            }
        }
    }

    fn fills(&self) -> MutexGuard<'_, Fills> {
        self.fills.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The newest of these that may be used as it is.
fn usable<F: Fetch>(
    running: &[Arc<Fill>],
    asked: &Asked,
    fetch: &F,
    now: SystemTime,
) -> Option<Arc<Growing>> {
    let fills = running.iter().rev().filter(|fill| fill.key.text() == asked.key.text());
    let mut growing = fills.filter_map(|fill| fill.growing());
    growing.find(|growing| growing.head().verdict(asked, fetch, now) == Some(Verdict::Fresh))
}

/// An unsafe request on its way. Dropped without an answer, it counts as one that changed what it names.
struct Change {
    cache: Arc<Cache>,
    key: Option<Key>,
}

impl Change {
    /// With an answer it is known whether something changed: what is no longer good goes with the call of what is returned
    /// (RFC 9111 §4.4). So it is where the request was not sent.
    fn end(&mut self, answer: &Result<Response<Stream>, FetchError>) -> Option<impl FnOnce() + Send + use<>> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.key.take_if(|_| error.unsent);
                return None;
            }
        };
        let key = self.key.take()?;
        let is_changed = answer.status().is_success() || answer.status().is_redirection();
        is_changed.then(|| {
            let mut keys = vec![key.clone()];
            keys.extend(bypass::also_changed(&key, answer.headers()));
            self.cache.removal(keys)
        })
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        if let (Some(key), Ok(runtime)) = (self.key.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn_blocking(self.cache.removal(vec![key]));
        }
    }
}

/// The client's side of an unsafe request. When it leaves early, the exchange goes on, unless too many do so already.
struct Leaving {
    change: Change,
    exchange: AbortHandle,
    /// What the exchange holds from then on.
    left: Arc<OnceLock<OwnedSemaphorePermit>>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if self.change.key.is_none() {
            return;
        }
        match Arc::clone(&self.change.cache.left_changes).try_acquire_owned() {
            Ok(permit) => drop(self.left.set(permit)),
            Err(_) => self.exchange.abort(),
        }
    }
}

async fn examine(store: std::sync::Weak<Store>) {
    let mut round = Round::default();
    loop {
        tokio::time::sleep(EXAMINE).await;
        let Some(store) = store.upgrade() else { return };
        let job = move || {
            store.examine_on(&mut round);
            round
        };
        // Only a runtime that shuts down lets the job fail.
        let Ok(so_far) = tokio::task::spawn_blocking(job).await else { return };
        round = so_far;
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
        unsent: true,
    }
}

fn given_up() -> FetchError {
    FetchError {
        status: StatusCode::BAD_GATEWAY,
        reason: "the fetch from the upstream was given up before it had an answer; try again".to_owned(),
        unsent: false,
    }
}
