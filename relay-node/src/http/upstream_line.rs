//! A connection to an upstream that remembers how far its last exchange came, and what may be sent again because of that.
//!
//! RFC 9112 §9.3.1: a request may be repeated when a connection that was kept from earlier requests ended before any of an answer
//! came, for then the upstream closed it while the request was under way. On a new connection the same is the upstream's
//! answer, and asking again would only double the load of one that cannot cope.

use hyper_util::client::legacy::Error;
use hyper_util::client::legacy::connect::{Connected, Connection};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Nothing was answered on it yet.
const NEW: u8 = 0;
/// An answer has begun; until the next request is written its body may still come.
const KEPT: u8 = 1;
/// A further request is being written.
const ASKED: u8 = 2;
/// The first byte behind that came.
const ANSWERING: u8 = 3;

/// How far the last exchange of a connection came.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<AtomicU8>);

/// A connection to an upstream.
#[derive(Debug)]
pub(super) struct UpstreamLine {
    stream: TcpStream,
    progress: Progress,
}

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(AtomicU8::new(NEW)))
    }
}

impl Progress {
    /// The head of an answer has come.
    pub(super) fn answered(&self) {
        self.0.store(KEPT, Ordering::Release);
    }

    fn step(&self, from: u8, to: u8) {
        // Somebody else's step from there is as good.
        let _ = self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
    }

    fn may_be_repeated(&self) -> bool {
        matches!(self.0.load(Ordering::Acquire), KEPT | ASKED)
    }
}

impl UpstreamLine {
    /// A new connection.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, progress: Progress::default() }
    }

    #[cfg(test)]
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// Whether a kept connection was closed by the other side before any of an answer came.
pub(super) fn was_closed(error: &Error) -> bool {
    let mut extras = http::Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut extras);
    }
    extras.get::<Progress>().is_some_and(Progress::may_be_repeated) && is_an_end(error)
}

fn is_an_end(error: &Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(hyper) = cause.downcast_ref::<hyper::Error>() {
            return hyper.is_incomplete_message()
                || hyper.is_canceled()
                || hyper.is_closed()
                || was_reset(hyper);
        }
        source = cause.source();
    }
    false
}

fn was_reset(error: &hyper::Error) -> bool {
    use io::ErrorKind as Kind;
    let system = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    let kind = system.map(io::Error::kind);
    matches!(kind, Some(Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe))
}

impl Connection for UpstreamLine {
    fn connected(&self) -> Connected {
        Connected::new().extra(self.progress.clone())
    }
}

impl AsyncRead for UpstreamLine {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.progress.step(ASKED, ANSWERING);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for UpstreamLine {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.progress.step(KEPT, ASKED);
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.progress.step(KEPT, ASKED);
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
