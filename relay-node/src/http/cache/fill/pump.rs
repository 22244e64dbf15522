//! Brings a body into the store as it comes, or past it to those who read along.

use super::Fill;
use crate::http::cache::growing::{End, Growing};
use crate::http::cache::store::Growth;
use crate::http::cache::{BoxError, Cache, MOST_UNREAD_BYTES, Stream};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body::Frame;
use http_body_util::BodyExt as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many bytes are gathered for one write, as long as they are there without waiting.
const BATCH: usize = 512 * 1024;

/// Which part of the cache's room the bodies may take whose ends are not known, all together: others would be evicted for what
/// may have no end.
const MOST_OF_THE_ROOM: u64 = 2;

/// What one body takes of the room for those without a known end.
struct Claim<'a> {
    /// What all of them take.
    taken: &'a AtomicU64,
    own: u64,
}

impl<'a> Claim<'a> {
    fn new(taken: &'a AtomicU64) -> Self {
        Self { taken, own: 0 }
    }

    /// Takes more, if all of them stay within `limit` bytes.
    fn grow(&mut self, more: u64, limit: u64) -> bool {
        let add = |taken: u64| taken.checked_add(more).filter(|taken| *taken <= limit);
        let is_taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok();
        if is_taken {
            self.own += more;
        }
        is_taken
    }

    fn give_back(&mut self) {
        self.taken.fetch_sub(std::mem::take(&mut self.own), Ordering::Relaxed);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Writes a body as it comes.
pub(super) struct Pump {
    pub growing: Arc<Growing>,
    pub fill: Arc<Fill>,
    pub cache: Arc<Cache>,
    /// It comes to its end without readers: it takes the place of a stale response that they had.
    pub is_renewal: bool,
}

impl Pump {
    /// The growth is handed back once it is whole and an entry.
    pub(super) async fn run(&self, growth: Growth, body: Stream) -> Option<Growth> {
        let mut batches = Batches { body, end: None };
        let mut growth = Some(growth);
        let mut claim = Claim::new(&self.cache.without_end);
        let mut unneeded = pin!(self.unneeded());
        loop {
            let next = tokio::select! {
                next = batches.next() => next,
                why = &mut unneeded => {
                    tracing::info!(key = self.fill.key.text(), "a response is not kept: {why} before all of it came");
                    return None;
                }
            };
            let batch = match next {
                Some(Ok(batch)) => batch,
                Some(Err(error)) => {
                    tracing::debug!(key = self.fill.key.text(), %error, "a response broke off");
                    return self.broken();
                }
                None => break,
            };
            growth = match growth {
                Some(growth) if self.has_room(&mut claim, &batch) => self.write(growth, batch).await?,
                Some(growth) => {
                    tracing::info!(
                        key = self.fill.key.text(),
                        "a response is not kept: it tells no end, and such responses take half of the cache"
                    );
                    claim.give_back();
                    self.pass_on(growth, batch).await?;
                    None
                }
                None => {
                    self.pass(batch).await?;
                    None
                }
            };
        }
        if self.growing.length().is_some_and(|length| length != self.growing.arrived()) {
            return self.broken();
        }
        if let Some(unpublished) = growth.take_if(|growth| !growth.is_published()) {
            growth = self.publish(unpublished).await;
        }
        self.growing.ended(End::Whole);
        growth
    }

    /// Returns, with the body given up, when nobody needs the rest: nobody reads it or is about to, and it will not be kept
    /// or its end is not known or far. Of the others a few may come to their end for those who ask later.
    async fn unneeded(&self) -> &'static str {
        let stop = &self.cache.stop;
        let mut goes_on = None;
        loop {
            self.growing.unfollowed().await;
            self.fill.unawaited().await;
            if self.is_renewal && !stop.is_stopped() {
                stop.stopped().await;
                continue;
            }
            if goes_on.is_none() && self.is_near_its_end() && !self.fill.is_invalid() {
                goes_on = self.cache.unread.try_acquire().ok();
            }
            if goes_on.is_some() && !stop.is_stopped() {
                stop.stopped().await;
            } else if self.growing.give_up_unfollowed() {
                return if stop.is_stopped() { "the node stops" } else { "its readers left" };
            }
        }
    }

    fn is_near_its_end(&self) -> bool {
        let length = self.growing.length();
        length.is_some_and(|length| length.saturating_sub(self.growing.arrived()) <= MOST_UNREAD_BYTES)
    }

    /// The outer `None`: nobody needs the rest. The inner: the file takes no more.
    async fn write(&self, mut growth: Growth, batch: Vec<Bytes>) -> Option<Option<Growth>> {
        let job = tokio::task::spawn_blocking(move || {
            let written = growth.write(&batch);
            (growth, written, batch)
        });
        let Ok((growth, written, batch)) = job.await else { return self.broken() };
        match written {
            Ok(()) => {
                let length = growth.length();
                let is_last = self.growing.length() == Some(length);
                // Who has read the last byte finds the entry when it asks again.
                let growth = if is_last { self.publish(growth).await } else { Some(growth) };
                self.growing.grown_to(length);
                Some(growth)
            }
            Err(error) => {
                tracing::warn!(key = self.fill.key.text(), %error, "the cache cannot keep a response; it is passed on uncached");
                self.pass_on(growth, batch).await?;
                Some(None)
            }
        }
    }

    fn has_room(&self, claim: &mut Claim<'_>, batch: &[Bytes]) -> bool {
        let more: u64 = batch.iter().map(|piece| piece.len() as u64).sum();
        self.growing.length().is_some() || claim.grow(more, self.cache.store.limit() / MOST_OF_THE_ROOM)
    }

    /// Gives the room back. Who reads along has the file still.
    async fn pass_on(&self, growth: Growth, batch: Vec<Bytes>) -> Option<()> {
        drop(tokio::task::spawn_blocking(move || drop(growth)));
        self.pass(batch).await
    }

    async fn pass(&self, batch: Vec<Bytes>) -> Option<()> {
        for piece in batch {
            if self.growing.pass(piece).await.is_err() {
                return self.broken();
            }
        }
        Some(())
    }

    async fn publish(&self, mut growth: Growth) -> Option<Growth> {
        let (cache, fill) = (Arc::clone(&self.cache), Arc::clone(&self.fill));
        let head = self.growing.head().clone();
        let job = move || {
            if fill.is_invalid() {
                return None;
            }
            let selecting = head.selecting.clone();
            if let Err(error) = growth.publish(&fill.key, head) {
                tracing::warn!(key = fill.key.text(), %error, "the cache cannot keep a response");
                return None;
            }
            cache.supersede(&fill, &selecting);
            // An unsafe request, or a newer answer, may have come between the look and the entry. Dropped, the entry is gone.
            (!fill.is_invalid()).then_some(growth)
        };
        tokio::task::spawn_blocking(job).await.ok().flatten()
    }

    fn broken<T>(&self) -> Option<T> {
        self.growing.ended(End::Broken);
        None
    }
}

impl Drop for Pump {
    /// However the task ends, nobody waits for more.
    fn drop(&mut self) {
        self.growing.given_up();
    }
}

/// A body in batches.
struct Batches {
    body: Stream,
    /// A body must not be asked again once it has ended, or broken off.
    end: Option<Result<(), BoxError>>,
}

impl Batches {
    /// Waits for bytes and takes along what else is there already; `None` at the end.
    async fn next(&mut self) -> Option<Result<Vec<Bytes>, BoxError>> {
        let mut batch = Vec::new();
        let mut length = 0;
        while length < BATCH && self.end.is_none() {
            let frame = if batch.is_empty() {
                self.body.frame().await
            } else {
                match self.body.frame().now_or_never() {
                    Some(frame) => frame,
                    None => break,
                }
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(piece))) if !piece.is_empty() => {
                    length += piece.len();
                    batch.push(piece);
                }
                // Trailers are not kept.
                Some(Ok(_)) => {}
                Some(Err(error)) => self.end = Some(Err(error)),
                None => self.end = Some(Ok(())),
            }
        }
        // What came before the end comes before it here, too.
        if batch.is_empty() { self.end.take()?.err().map(Err) } else { Some(Ok(batch)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_without_a_known_end_share_one_room() {
        let taken = AtomicU64::new(0);
        let (mut one, mut other) = (Claim::new(&taken), Claim::new(&taken));
        assert!(one.grow(6, 10) && !other.grow(5, 10) && other.grow(4, 10));
        assert!(!one.grow(1, 10) && !one.grow(u64::MAX, 10));
        one.give_back();
        assert!(other.grow(6, 10));
        drop((one, other));
        assert_eq!(taken.into_inner(), 0);
    }
}
