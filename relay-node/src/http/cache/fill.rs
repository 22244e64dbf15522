//! One fetch from the origin that many clients may wait for: it asks, decides whether the answer may be shared, and writes
//! it into the store while it arrives.
//!
//! It runs as a task of its own, so it goes on when the client that caused it leaves. A body that does not arrive whole is
//! thrown away.

mod pump;
mod validation;

pub use validation::differs;

use super::bypass::Asked;
use super::entry::{Entry, Head};
use super::growing::{Follower, Growing};
use super::key::Key;
use super::policy::{Times, selects};
use super::{Cache, Fetch, FetchError, Stream};
use crate::http::body::nothing;
use crate::stop::Stop;
use http::header::{
    ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE, TRANSFER_ENCODING,
};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body as _;
use pump::Pump;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use validation::{confirms, freshened, kept_fields};

/// A fetch on its way.
#[derive(Debug)]
pub struct Fill {
    /// What is fetched.
    pub key: Key,
    stage: watch::Sender<Stage>,
    invalid: AtomicBool,
}

/// How far a fetch is, for those who wait for it.
#[derive(Debug, Clone)]
pub enum Stage {
    /// The origin has not answered yet.
    Asking,
    /// The answer arrives and may be shared.
    Growing(Arc<Growing>),
    /// The stored response is still good.
    Updated(Arc<Entry>),
    /// The origin failed and the stored response stands in.
    StandIn(Arc<Entry>),
    /// The answer is for the one who asked.
    NotShared,
    /// There is no answer.
    Failed(FetchError),
}

/// What the client that caused the fetch gets.
#[derive(Debug)]
pub enum Lead {
    /// A growing response, and its place in it.
    Follow(Arc<Growing>, Follower),
    /// The stored response is still good.
    Updated(Arc<Entry>),
    /// The stored response, because the origin failed (with this status, if it answered).
    StandIn(Arc<Entry>, Option<u16>),
    /// An answer that is not kept.
    Own(Response<Stream>),
    /// No answer.
    Failed(FetchError),
}

/// What a request that must be fetched does.
pub enum Place {
    /// Fetch; perhaps what is arriving for another is good enough, if the origin confirms it.
    Lead(Arc<Fill>, Option<Arc<Growing>>),
    /// Wait for a fetch that runs.
    Wait(Arc<Fill>),
    /// See what another has stored meanwhile.
    LookAgain,
}

/// How often a fetch looks whether anybody still waits for it, once the node was told to stop.
const LOOK: Duration = Duration::from_millis(50);

/// One of the fetches that the node's end waits for.
struct Running(Arc<Cache>);

/// The task's hold on its fill: however it ends, nobody waits for it afterwards.
struct Registration {
    cache: Arc<Cache>,
    fill: Arc<Fill>,
}

/// What the origin may confirm.
#[derive(Debug)]
pub enum Known {
    /// Nothing.
    Nothing,
    /// A stored response, which may also stand in for a broken origin.
    Stored(Arc<Entry>),
    /// A response that still arrives.
    Growing(Arc<Growing>),
}

struct Task<F> {
    registration: Registration,
    asked: Parts,
    known: Known,
    fetch: F,
}

impl Fill {
    /// A fetch that has not begun.
    pub fn new(key: Key) -> Self {
        Self { key, stage: watch::Sender::new(Stage::Asking), invalid: AtomicBool::new(false) }
    }

    /// Begins to fetch.
    pub fn start<F: Fetch>(
        self: &Arc<Self>,
        cache: &Arc<Cache>,
        asked: &Asked,
        known: Known,
        fetch: F,
    ) -> oneshot::Receiver<Lead> {
        let (lead, receiver) = oneshot::channel();
        let registration = Registration { cache: Arc::clone(cache), fill: Arc::clone(self) };
        let task = Task { registration, asked: asked.parts.clone(), known, fetch };
        let running = Running::new(cache);
        tokio::spawn(async move {
            task.run(lead).await;
            drop(running);
        });
        receiver
    }

    /// How far it is now.
    pub fn stage(&self) -> watch::Ref<'_, Stage> {
        self.stage.borrow()
    }

    /// Waits until it is known what comes of it.
    pub async fn settled(&self) -> Stage {
        let mut stage = self.stage.subscribe();
        let settled = stage.wait_for(|stage| !matches!(stage, Stage::Asking)).await;
        settled.map_or(Stage::NotShared, |stage| stage.clone())
    }

    /// What arrives, if it answers requests with these fields and the origin could confirm it.
    pub fn confirmable(&self, request: &HeaderMap) -> Option<Arc<Growing>> {
        match &*self.stage() {
            Stage::Growing(growing)
                if selects(&growing.head().selecting, request)
                    && (growing.head().fields.contains_key(ETAG)
                        || growing.head().fields.contains_key(LAST_MODIFIED)) =>
            {
                Some(Arc::clone(growing))
            }
            _ => None,
        }
    }

    /// How much has arrived, if it answers requests with these fields.
    pub fn arrived_for(&self, request: &HeaderMap) -> Option<u64> {
        match &*self.stage() {
            Stage::Growing(growing) if selects(&growing.head().selecting, request) => Some(growing.arrived()),
            _ => None,
        }
    }

    /// What arrives is not to be kept.
    pub fn invalidate(&self) {
        self.invalid.store(true, Ordering::Release);
    }

    fn is_awaited(&self) -> bool {
        self.stage.receiver_count() > 0
    }

    fn settle(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }
}

impl Running {
    fn new(cache: &Arc<Cache>) -> Self {
        cache.running.send_modify(|running| *running += 1);
        Self(Arc::clone(cache))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.fill.stage.send_if_modified(|stage| {
            let left_open = matches!(stage, Stage::Asking);
            if left_open {
                *stage = Stage::NotShared;
            }
            left_open
        });
        let mut fills = self.cache.fills();
        if let Some(running) = fills.get_mut(&self.fill.key.id()) {
            running.retain(|fill| !Arc::ptr_eq(fill, &self.fill));
            if running.is_empty() {
                fills.remove(&self.fill.key.id());
            }
        }
    }
}

impl<F: Fetch> Task<F> {
    async fn run(mut self, lead: oneshot::Sender<Lead>) {
        let sent = self.cache().clock.now();
        let answer = tokio::select! {
            answer = self.fetch.fetch(self.request(), nothing()) => answer,
            () = stopped_and(&self.cache().stop, || lead.is_closed() && !self.fill().is_awaited()) => {
                return tracing::info!(key = self.fill().key.text(), "a fetch for the cache was given up: the node stops");
            }
        };
        let times = Times { sent, received: self.cache().clock.now() };
        let known = std::mem::replace(&mut self.known, Known::Nothing);
        match (answer, known) {
            (Ok(answer), Known::Stored(entry)) if answer.status() == StatusCode::NOT_MODIFIED => {
                self.confirmed(&entry, answer, times, lead).await;
            }
            (Ok(answer), Known::Growing(growing)) if answer.status() == StatusCode::NOT_MODIFIED => {
                self.confirmed_growing(&growing, answer, lead).await;
            }
            (Ok(answer), Known::Stored(entry))
                if is_failure(answer.status()) && self.may_stand_in(&entry, times) =>
            {
                self.stand_in(entry, Some(answer.status().as_u16()), lead);
            }
            (Err(error), Known::Stored(entry)) if self.may_stand_in(&entry, times) => {
                tracing::debug!(key = self.fill().key.text(), %error, "a stale response stands in");
                self.stand_in(entry, None, lead);
            }
            (Ok(answer), _) => self.arrived(answer, times, lead).await,
            (Err(error), _) => self.failed(error, lead),
        }
    }

    /// A request for the whole response, on the condition that it is not the stored one.
    fn request(&self) -> Parts {
        let mut request = self.asked.clone();
        request.method = Method::GET;
        for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE, RANGE] {
            request.headers.remove(name);
        }
        let known = match &self.known {
            Known::Nothing => return request,
            Known::Stored(entry) => entry.head(),
            Known::Growing(growing) => growing.head(),
        };
        for (theirs, ours) in [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)] {
            if let Some(validator) = known.fields.get(theirs) {
                request.headers.insert(ours, validator.clone());
            }
        }
        request
    }

    fn may_stand_in(&self, entry: &Entry, times: Times) -> bool {
        entry.head().rules.may_stand_in(&self.asked.headers, times.received)
    }

    fn stand_in(&self, entry: Arc<Entry>, status: Option<u16>, lead: oneshot::Sender<Lead>) {
        self.fill().settle(Stage::StandIn(Arc::clone(&entry)));
        drop(lead.send(Lead::StandIn(entry, status)));
    }

    /// RFC 9111 §4.3.4: the stored response gets the fields of the 304.
    async fn confirmed(
        self,
        entry: &Arc<Entry>,
        answer: Response<Stream>,
        times: Times,
        lead: oneshot::Sender<Lead>,
    ) {
        if !confirms(entry.head(), answer.headers()) {
            return self.fetch_anew(lead).await;
        }
        let head = freshened(entry, &self.fill().key, &self.asked.headers, answer.headers(), times);
        let (store, key, old) = (Arc::clone(&self.cache().store), self.fill().key.clone(), Arc::clone(entry));
        let keep = head.rules.is_storable() && !self.fill().invalid.load(Ordering::Acquire);
        let job = move || {
            let updated = store.update(&key, &old, head);
            if !keep {
                store.remove_entry(&key, old.number());
            }
            updated
        };
        // Only a runtime that shuts down lets the job fail.
        let Ok(updated) = tokio::task::spawn_blocking(job).await else { return };
        self.fill().settle(Stage::Updated(Arc::clone(&updated)));
        drop(lead.send(Lead::Updated(updated)));
    }

    /// What arrives for others is what this client would get, too.
    async fn confirmed_growing(
        self,
        growing: &Arc<Growing>,
        answer: Response<Stream>,
        lead: oneshot::Sender<Lead>,
    ) {
        let follower = growing.follow(None).filter(|_| confirms(growing.head(), answer.headers()));
        let Some(follower) = follower else { return self.fetch_anew(lead).await };
        self.fill().settle(Stage::Growing(Arc::clone(growing)));
        drop(lead.send(Lead::Follow(Arc::clone(growing), follower)));
    }

    /// The origin confirmed something that it was not asked about: the stored response is of no use.
    async fn fetch_anew(self, lead: oneshot::Sender<Lead>) {
        let sent = self.cache().clock.now();
        match self.fetch.fetch(self.request(), nothing()).await {
            Ok(answer) => {
                let times = Times { sent, received: self.cache().clock.now() };
                self.arrived(answer, times, lead).await;
            }
            Err(error) => self.failed(error, lead),
        }
    }

    fn failed(&self, error: FetchError, lead: oneshot::Sender<Lead>) {
        self.fill().settle(Stage::Failed(error.clone()));
        drop(lead.send(Lead::Failed(error)));
    }

    async fn arrived(self, answer: Response<Stream>, times: Times, lead: oneshot::Sender<Lead>) {
        let Some((head, length)) = self.storable(&answer, times) else {
            return self.not_shared(answer, lead);
        };
        let store = Arc::clone(&self.cache().store);
        let begun = tokio::task::spawn_blocking(move || store.begin()).await;
        let growth = match begun {
            Ok(Ok(growth)) => growth,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the cache cannot keep a response; it is passed on uncached");
                return self.not_shared(answer, lead);
            }
            Err(_) => return,
        };
        let growing = Arc::new(Growing::new(head, length, growth.file()));
        // The first follower is there before anything can be gone.
        if let Some(follower) = growing.follow(None) {
            drop(lead.send(Lead::Follow(Arc::clone(&growing), follower)));
        }
        self.fill().settle(Stage::Growing(Arc::clone(&growing)));
        let pump = Pump { growing, fill: Arc::clone(self.fill()), stop: self.cache().stop.clone() };
        let grown = pump.run(growth, answer.into_body()).await;
        // It is found in the store from here on, so nobody needs to find the fetch any more.
        drop(self);
        if let Some(growth) = grown
            && let Ok(Err(error)) = tokio::task::spawn_blocking(move || growth.keep()).await
        {
            tracing::warn!(%error, "the cache cannot keep a response");
        }
    }

    /// The head under which an answer is kept, and its length where it is known.
    fn storable(&self, answer: &Response<Stream>, times: Times) -> Option<(Head, Option<u64>)> {
        let length = answer.body().size_hint().exact();
        // What ends with the connection cannot be told from what broke off (RFC 9112 §8).
        let delimited = length.is_some() || answer.headers().contains_key(TRANSFER_ENCODING);
        let fits = length.is_none_or(|length| length < self.cache().store.limit());
        if !delimited || !fits || self.asked.method != Method::GET {
            return None;
        }
        let fields = kept_fields(answer.headers(), times);
        let head = Head::new(&self.fill().key, &self.asked.headers, answer.status(), fields, times);
        head.rules.is_storable().then_some((head, length))
    }

    fn not_shared(self, answer: Response<Stream>, lead: oneshot::Sender<Lead>) {
        self.fill().settle(Stage::NotShared);
        drop(lead.send(Lead::Own(answer)));
    }

    fn cache(&self) -> &Arc<Cache> {
        &self.registration.cache
    }

    fn fill(&self) -> &Arc<Fill> {
        &self.registration.fill
    }
}

/// Returns when the node was told to stop and the condition holds.
async fn stopped_and(stop: &Stop, condition: impl Fn() -> bool) {
    stop.stopped().await;
    while !condition() {
        tokio::time::sleep(LOOK).await;
    }
}

fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}
