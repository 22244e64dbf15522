//! One fetch from the origin that many clients may wait for: it asks, decides whether the answer may be kept, and writes
//! it into the store while it arrives.
//!
//! It runs as a task of its own, so that it goes on when the client that caused it leaves and others wait. It tells them only
//! that it has an answer or will have none: whether that answer is for them is theirs to find out, as it is for what is stored.
//! Nothing is fetched for nobody, but for a few answers that end at a known length. A body that does not arrive whole is
//! thrown away.

mod pump;
mod validation;

pub use validation::differs;

use super::bypass::Asked;
use super::entry::{Entry, Head};
use super::growing::{Follower, Growing};
use super::key::Key;
use super::policy::{Times, said_the_same, selects};
use super::unshared::Why;
use super::{Cache, Fetch, FetchError, Stream};
use crate::http::body::nothing;
use http::header::{
    AUTHORIZATION, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE, TRANSFER_ENCODING,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode};
use http_body::Body as _;
use pump::Pump;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use validation::{confirms, freshened, kept_fields};

/// A fetch on its way.
#[derive(Debug)]
pub struct Fill {
    /// What is fetched.
    pub key: Key,
    /// The fields that the origin sees.
    request: HeaderMap,
    stage: watch::Sender<Stage>,
    invalid: AtomicBool,
}

/// How far a fetch is, for those who wait for it.
#[derive(Debug, Clone)]
pub enum Stage {
    /// The origin has not answered yet.
    Asking,
    /// The answer arrives and is kept.
    Growing(Arc<Growing>),
    /// What there is to find is in the store.
    Over,
}

/// Somebody's wait for a fetch. As long as it lives the fetch goes on.
#[derive(Debug)]
pub struct Waiting {
    fill: Arc<Fill>,
    stage: watch::Receiver<Stage>,
}

/// What the client that caused the fetch gets.
#[derive(Debug)]
pub enum Lead {
    /// A growing response, and its place in it.
    Follow(Arc<Growing>, Follower),
    /// A growing response, a place in it, and the head under which the origin confirmed it for this client.
    Confirmed(Arc<Growing>, Follower, Box<Head>),
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
    Wait(Waiting),
    /// Read along with what arrives.
    Join(Arc<Growing>),
    /// See what another has stored meanwhile.
    LookAgain,
}

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
    lead: oneshot::Sender<Lead>,
    /// Nobody ever waited for it.
    behind: Option<OwnedSemaphorePermit>,
}

impl Fill {
    /// A fetch for this request that has not begun.
    pub fn new(asked: &Asked) -> Self {
        Self {
            key: asked.key.clone(),
            request: asked.fields().clone(),
            stage: watch::Sender::new(Stage::Asking),
            invalid: AtomicBool::new(false),
        }
    }

    /// Begins to fetch. `behind` is for a fetch that nobody will wait for.
    pub fn start<F: Fetch>(
        self: &Arc<Self>,
        cache: &Arc<Cache>,
        asked: &Asked,
        known: Known,
        fetch: F,
        behind: Option<OwnedSemaphorePermit>,
    ) -> oneshot::Receiver<Lead> {
        let (lead, receiver) = oneshot::channel();
        let registration = Registration { cache: Arc::clone(cache), fill: Arc::clone(self) };
        let task = Task { registration, asked: asked.parts.clone(), known, fetch, lead, behind };
        let running = Running::new(cache);
        tokio::spawn(async move {
            task.run().await;
            drop(running);
        });
        receiver
    }

    /// Waits for it along with others.
    pub fn wait(self: &Arc<Self>) -> Waiting {
        Waiting { fill: Arc::clone(self), stage: self.stage.subscribe() }
    }

    /// Whether its answer is to be waited for by a request with these fields, as far as is known: `vary` is by what this key's
    /// responses were chosen so far.
    pub fn may_answer(&self, key: &Key, request: &HeaderMap, vary: &[HeaderName]) -> bool {
        self.key.text() == key.text()
            && !self.is_invalid()
            && matches!(&*self.stage.borrow(), Stage::Asking)
            && vary.iter().all(|name| said_the_same(&self.request, request, name))
    }

    /// What arrives.
    pub fn growing(&self) -> Option<Arc<Growing>> {
        match &*self.stage.borrow() {
            Stage::Growing(growing) if !self.is_invalid() => Some(Arc::clone(growing)),
            _ => None,
        }
    }

    /// What arrives, if it answers requests with these fields and the origin could confirm it.
    pub fn confirmable(&self, request: &HeaderMap) -> Option<Arc<Growing>> {
        self.growing().filter(|growing| {
            let head = growing.head();
            selects(&head.selecting, request)
                && (head.fields.contains_key(ETAG) || head.fields.contains_key(LAST_MODIFIED))
        })
    }

    /// What arrives is not to be kept, and not for those who come from now on.
    pub fn invalidate(&self) {
        self.invalid.store(true, Ordering::Release);
    }

    /// The same, if the origin would have chosen by these fields what it brings.
    pub fn supersede(&self, key: &Key, selecting: &[(HeaderName, Option<String>)]) {
        if self.key.text() == key.text() && selects(selecting, &self.request) {
            self.invalidate();
        }
    }

    fn is_invalid(&self) -> bool {
        self.invalid.load(Ordering::Acquire)
    }

    fn is_awaited(&self) -> bool {
        self.stage.receiver_count() > 0
    }

    /// Returns when nobody waits for it any more.
    async fn unawaited(&self) {
        self.stage.closed().await;
    }

    fn settle(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }
}

impl Waiting {
    /// Waits until the fetch has an answer, or will have none, and returns what arrives.
    pub async fn settled(&mut self) -> Option<Arc<Growing>> {
        // A fetch whose task is gone will not say more.
        drop(self.stage.wait_for(|stage| !matches!(stage, Stage::Asking)).await);
        self.fill.growing()
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

impl Registration {
    /// Ends the fetch for good if nobody waits for it. Who comes later makes a new one.
    fn give_up(&self) -> bool {
        let mut fills = self.cache.fills();
        let is_over = !self.fill.is_awaited();
        if is_over {
            self.fill.invalidate();
            self.remove_from(&mut fills);
        }
        is_over
    }

    fn remove_from(&self, fills: &mut super::Fills) {
        if let Some(running) = fills.get_mut(&self.fill.key.id()) {
            running.retain(|fill| !Arc::ptr_eq(fill, &self.fill));
            if running.is_empty() {
                fills.remove(&self.fill.key.id());
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.fill.stage.send_if_modified(|stage| {
            let left_open = matches!(stage, Stage::Asking);
            if left_open {
                *stage = Stage::Over;
            }
            left_open
        });
        self.remove_from(&mut self.cache.fills());
    }
}

impl<F: Fetch> Task<F> {
    async fn run(mut self) {
        let sent = self.cache().clock.now();
        let Some(answer) = self.ask().await else { return };
        let times = Times { sent, received: self.cache().clock.now() };
        let known = std::mem::replace(&mut self.known, Known::Nothing);
        match (answer, known) {
            (Ok(answer), Known::Stored(entry)) if answer.status() == StatusCode::NOT_MODIFIED => {
                self.confirmed(&entry, answer, times).await;
            }
            (Ok(answer), Known::Growing(growing)) if answer.status() == StatusCode::NOT_MODIFIED => {
                self.confirmed_growing(&growing, answer, times).await;
            }
            (Ok(answer), Known::Stored(entry))
                if is_failure(answer.status()) && self.may_stand_in(&entry, times) =>
            {
                self.tell(Lead::StandIn(entry, Some(answer.status().as_u16())));
            }
            (Err(error), Known::Stored(entry)) if self.may_stand_in(&entry, times) => {
                tracing::debug!(key = self.fill().key.text(), %error, "a stale response stands in");
                self.tell(Lead::StandIn(entry, None));
            }
            (Ok(answer), Known::Stored(entry)) => self.arrived(answer, times, Some(entry)).await,
            (Ok(answer), _) => self.arrived(answer, times, None).await,
            (Err(error), _) => self.tell(Lead::Failed(error)),
        }
    }

    /// `None` if nobody waits for the answer any more.
    async fn ask(&mut self) -> Option<Result<Response<Stream>, FetchError>> {
        let request = self.request();
        let (registration, lead) = (&self.registration, &mut self.lead);
        let stays_behind = self.behind.is_some();
        let unneeded = async {
            if stays_behind {
                registration.cache.stop.stopped().await;
            }
            lead.closed().await;
            loop {
                registration.fill.unawaited().await;
                if registration.give_up() {
                    return;
                }
            }
        };
        tokio::select! {
            answer = self.fetch.fetch(request, nothing()) => Some(answer),
            () = unneeded => {
                tracing::debug!(key = self.fill().key.text(), "a fetch for the cache was given up: nobody waits for it");
                None
            }
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

    /// RFC 9111 §4.3.4: the stored response gets the fields of the 304.
    async fn confirmed(self, entry: &Arc<Entry>, answer: Response<Stream>, times: Times) {
        if !confirms(entry.head(), answer.headers()) {
            return self.fetch_anew().await;
        }
        let head = freshened(entry.head(), &self.fill().key, &self.asked.headers, answer.headers(), times);
        let is_kept = head.rules.is_storable() && !self.fill().is_invalid();
        self.remember(&head, head.rules.is_storable(), times);
        if is_kept {
            self.cache().supersede(self.fill(), &head.selecting);
        }
        let (store, key, old) = (Arc::clone(&self.cache().store), self.fill().key.clone(), Arc::clone(entry));
        let job = move || {
            if is_kept {
                return store.update(&key, &old, head);
            }
            // What this 304 brought is for the one who asked, and nobody else may find it.
            store.remove_entry(&key, old.number());
            Arc::new(old.with_head(head, old.record_size()))
        };
        // Only a runtime that shuts down lets the job fail.
        let Ok(updated) = tokio::task::spawn_blocking(job).await else { return };
        self.tell(Lead::Updated(updated));
    }

    /// The body that arrives for others is what this client would get, too, under the fields of its own 304.
    async fn confirmed_growing(self, growing: &Arc<Growing>, answer: Response<Stream>, times: Times) {
        let follower = growing.follow(None).filter(|_| confirms(growing.head(), answer.headers()));
        let Some(follower) = follower else { return self.fetch_anew().await };
        let head = freshened(growing.head(), &self.fill().key, &self.asked.headers, answer.headers(), times);
        if !head.rules.is_storable() {
            self.cache().supersede(self.fill(), &growing.head().selecting);
        }
        self.tell(Lead::Confirmed(Arc::clone(growing), follower, Box::new(head)));
    }

    /// The origin confirmed something that it was not asked about: the stored response is of no use.
    async fn fetch_anew(mut self) {
        let sent = self.cache().clock.now();
        match self.ask().await {
            Some(Ok(answer)) => {
                let times = Times { sent, received: self.cache().clock.now() };
                self.arrived(answer, times, None).await;
            }
            Some(Err(error)) => self.tell(Lead::Failed(error)),
            None => {}
        }
    }

    /// `replaced` is what the answer takes the place of, whether it is kept or not.
    async fn arrived(self, answer: Response<Stream>, times: Times, replaced: Option<Arc<Entry>>) {
        let (head, length) = self.judge(&answer, times);
        let is_kept = self.is_kept(&answer, &head, length);
        self.remember(&head, is_kept, times);
        if !is_kept {
            return self.not_kept(answer, replaced).await;
        }
        let store = Arc::clone(&self.cache().store);
        let begun = tokio::task::spawn_blocking(move || store.begin()).await;
        let growth = match begun {
            Ok(Ok(growth)) => growth,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the cache cannot keep a response; it is passed on uncached");
                return self.tell(Lead::Own(answer));
            }
            Err(_) => return,
        };
        let growing = Arc::new(Growing::new(head, length, growth.file()));
        let Self { registration, lead, behind, .. } = self;
        let (cache, fill) = (Arc::clone(&registration.cache), Arc::clone(&registration.fill));
        // The first follower is there before anything can be gone.
        if let Some(follower) = growing.follow(None) {
            drop(lead.send(Lead::Follow(Arc::clone(&growing), follower)));
        }
        fill.settle(Stage::Growing(Arc::clone(&growing)));
        let pump = Pump { growing, fill, cache, is_renewal: behind.is_some() };
        let grown = pump.run(growth, answer.into_body()).await;
        // It is found in the store from here on, so nobody needs to find the fetch any more.
        drop(registration);
        if let Some(growth) = grown
            && let Ok(Err(error)) = tokio::task::spawn_blocking(move || growth.keep()).await
        {
            tracing::warn!(%error, "the cache cannot keep a response");
        }
    }

    /// The head under which an answer would be kept, and its length where it is known.
    fn judge(&self, answer: &Response<Stream>, times: Times) -> (Head, Option<u64>) {
        let fields = kept_fields(answer.headers(), times);
        let head = Head::new(&self.fill().key, &self.asked.headers, answer.status(), fields, times);
        (head, answer.body().size_hint().exact())
    }

    fn is_kept(&self, answer: &Response<Stream>, head: &Head, length: Option<u64>) -> bool {
        // What ends with the connection cannot be told from what broke off (RFC 9112 §8).
        let delimited = length.is_some() || answer.headers().contains_key(TRANSFER_ENCODING);
        let fits = length.is_none_or(|length| length < self.cache().store.limit());
        delimited && fits && head.is_worth_keeping()
    }

    /// What was stored is no longer what the origin answers, so nobody else gets it either.
    async fn not_kept(self, answer: Response<Stream>, replaced: Option<Arc<Entry>>) {
        if let Some(entry) = replaced.filter(|_| says_something_of_the_resource(answer.status()))
            && !is_failure(answer.status())
            && !self.asked.headers.contains_key(AUTHORIZATION)
        {
            let (store, key) = (Arc::clone(&self.cache().store), self.fill().key.clone());
            drop(tokio::task::spawn_blocking(move || store.remove_entry(&key, entry.number())).await);
        }
        self.tell(Lead::Own(answer));
    }

    fn remember(&self, head: &Head, is_kept: bool, times: Times) {
        let why = if is_kept { head.why_unshared(times.received) } else { Some(Why::NotKept) };
        // What was kept from others because of this request's own credentials tells nothing of other requests' answers.
        let is_telling = is_kept || !head.authorized && says_something_of_the_resource(head.status);
        if is_telling {
            self.cache().unshared.note(&self.fill().key, why, times.received);
        }
    }

    /// The client that caused the fetch gets this, and whoever waits sees for itself.
    fn tell(self, lead: Lead) {
        let Self { registration, lead: client, .. } = self;
        registration.fill.settle(Stage::Over);
        drop(client.send(lead));
    }

    fn cache(&self) -> &Arc<Cache> {
        &self.registration.cache
    }

    fn fill(&self) -> &Arc<Fill> {
        &self.registration.fill
    }
}

fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// Whether an answer is about what was asked for, and not about how, by whom or when it was.
fn says_something_of_the_resource(status: StatusCode) -> bool {
    !status.is_client_error()
        || matches!(
            status,
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS
        )
}
