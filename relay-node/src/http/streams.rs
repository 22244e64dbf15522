//! Streams with a duty: to be of a length, to tell when they moved, or not to fall silent.

use super::body::{BoxError, Stream};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// A body that says how long it is.
pub(super) struct OfLength {
    body: Stream,
    left: u64,
}

impl OfLength {
    /// `body` must bring `length` bytes; fewer are an error.
    pub(super) fn new(body: Stream, length: u64) -> Self {
        Self { body, left: length }
    }
}

impl HttpBody for OfLength {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let came = frame.data_ref().map_or(0, |piece| piece.len() as u64);
                self.left = self.left.saturating_sub(came);
            }
            Poll::Ready(None) => {
                return Poll::Ready(Some(Err(BoxError::from("the download broke off"))));
            }
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A request's body that did not come whole. It stands among the causes when sending the request fails, so that the upstream is
/// not blamed for its client.
#[derive(Debug, thiserror::Error)]
#[error("the request's body is malformed or cut off: {0}")]
pub(super) struct BrokenRequest(BoxError);

/// A request body that tells when it moved last, and whose errors are [`BrokenRequest`]s.
pub(super) struct Watched {
    body: Stream,
    progress: Arc<Mutex<Instant>>,
}

impl Watched {
    /// `progress` is when it moved last.
    pub(super) fn new(body: Stream, progress: Arc<Mutex<Instant>>) -> Self {
        Self { body, progress }
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_ready() {
            *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
        polled.map_err(|error| BrokenRequest(error).into())
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body that ends with an error when its upstream falls silent while somebody waits for it.
pub(super) struct Hurried {
    body: Incoming,
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    reason: String,
}

impl Hurried {
    /// `reason` is told when nothing came for `limit`.
    pub(super) fn new(body: Incoming, limit: Duration, reason: String) -> Self {
        Self { body, limit, waiting: None, reason }
    }
}

impl HttpBody for Hurried {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.waiting = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)));
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(BoxError::from(self.reason.clone())))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
