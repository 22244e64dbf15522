//! The connection as hyper sees it: one request at a time, and nothing that it may keep.
//!
//! hyper is given the bytes of one checked head and of its body, and then neither more bytes nor an end. So it holds no
//! buffer while a connection idles, never reads into the next request, and the moment when an answer is wholly written
//! can be told from outside ([`Progress::is_answered`]); then the connection is taken back from it. A short answer is written
//! past hyper, by [`Wire::poll_send`].
//!
//! While hyper waits for an answer, or for more of one, the client may go away. A reset ends the exchange, and with it what
//! was asked of others for this client alone. An end of the client's sending side does not: a client that has said all may
//! still listen (RFC 9112, 9.6). But most that send it are gone, so it is answered with one "100 Continue", which who
//! listens passes over (RFC 9110, 15.2) and for which the system of who is gone sends a reset. Where that cannot be sent, the
//! exchange ends when nothing has been written for [`AFTER_END`].

use super::body::{Body, BoxError, FileParts, PartsReader, Stream};
use super::field_names::Respelling;
use super::head::{Framing, Head};
use crate::platform::hangup::Peer;
use crate::platform::send_file::as_socket;
use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::rt::ReadBufCursor;
use relay_link::platform::unsent::unsent_bytes;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Read in one go, on the stack; only what has come is kept.
const READ_SIZE: usize = 8 * 1024;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// How long an exchange may bring nothing after the client's end, if nobody can tell whether the client still listens.
const AFTER_END: Duration = Duration::from_secs(5);
/// [`Progress::body_left`] of a chunked body.
pub(super) const UNKNOWN: u64 = u64::MAX;

/// A stream with what was read from it too early.
pub(super) struct Wire<S> {
    pub stream: S,
    /// Read and not yet given to anybody: the rest of this request, the next ones.
    pub pending: BytesMut,
    head: Bytes,
    is_1_1: bool,
    progress: Arc<Progress>,
    respelling: Respelling,
    /// What had been written when hyper flushed last.
    flushed: u64,
    gone: Option<Gone>,
}

/// Ends when the client does, or tells that this cannot be known.
type Gone = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// How far one exchange is. Written and read in one task; atomic only because that task may move between threads.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes of the request's body that hyper has not been given yet; [`UNKNOWN`] when only a decoder can know.
    pub body_left: AtomicU64,
    /// Bytes of the request's body that hyper was given.
    pub body_read: AtomicU64,
    /// hyper waits for bytes of the body.
    pub is_reading: AtomicBool,
    /// Bytes of the answer, its head included, that the stream has taken.
    pub written: AtomicU64,
    /// The stream takes no more for now.
    pub is_write_blocked: AtomicBool,
    /// What the client had yet to take when the stream last took nothing; [`UNKNOWN`] where the system does not tell.
    unsent: AtomicU64,
    /// hyper holds nothing that it was given and has not written.
    is_flushed: AtomicBool,
    /// The body broke off, and hyper hears of it once it has written what came before.
    is_break_held: AtomicBool,
    /// hyper has let go of the answer's body.
    is_body_gone: AtomicBool,
    /// Bytes of the answer's body that were written, or that hyper took.
    pub answer_bytes: AtomicU64,
}

impl Progress {
    /// Whether all that hyper will write of the answer is written.
    pub(super) fn is_answered(&self) -> bool {
        self.is_body_gone.load(Relaxed) && self.is_flushed()
    }

    /// Whether all that hyper has been given so far is written.
    pub(super) fn is_flushed(&self) -> bool {
        self.is_flushed.load(Relaxed)
    }

    /// What the client had yet to take when the stream last took nothing.
    pub(super) fn unsent(&self) -> Option<u64> {
        Some(self.unsent.load(Relaxed)).filter(|&unsent| unsent != UNKNOWN)
    }

    fn wrote<S: 'static>(&self, stream: &S, result: &Poll<io::Result<usize>>) {
        self.is_flushed.store(false, Relaxed);
        self.is_write_blocked.store(result.is_pending(), Relaxed);
        match result {
            Poll::Ready(Ok(written)) => drop(self.written.fetch_add(*written as u64, Relaxed)),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                self.unsent.store(as_socket(stream).and_then(unsent_bytes).unwrap_or(UNKNOWN), Relaxed);
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            pending: BytesMut::new(),
            head: Bytes::new(),
            is_1_1: false,
            progress: Arc::default(),
            respelling: Respelling::default(),
            flushed: 0,
            gone: None,
        }
    }

    /// Reads what there is, at most 8 KiB, behind what is pending. 0 is the end of the stream.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::<u8>::uninit(); READ_SIZE];
        let mut space = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
        self.pending.extend_from_slice(space.filled());
        Poll::Ready(Ok(space.filled().len()))
    }

    /// Prepares the next exchange: its head, from the front of what is pending, and its body.
    pub(super) fn begin(&mut self, head: &Head) -> Arc<Progress> {
        self.pending.advance(head.start.min(self.pending.len()));
        let length = head.end.saturating_sub(head.start).min(self.pending.len());
        self.head = self.pending.split_to(length).freeze();
        self.is_1_1 = head.is_1_1;
        self.flushed = 0;
        self.respelling = Respelling::default();
        self.give_up_buffer();
        let body = match head.framing {
            Framing::Length(length) => length,
            Framing::Chunked => UNKNOWN,
        };
        self.progress = Arc::new(Progress { body_left: body.into(), ..Progress::default() });
        self.progress.clone()
    }

    /// The head of the exchange that was prepared, as far as hyper has not been given it.
    pub(super) fn head(&self) -> Bytes {
        self.head.clone()
    }

    /// Nobody asks for the head any more, and the exchange moves on by itself.
    pub(super) fn end(&mut self) {
        self.head = Bytes::new();
        self.gone = None;
    }

    /// Writes an answer, or what is left of it, past hyper.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, answer: &mut impl Buf) -> Poll<io::Result<()>> {
        while answer.has_remaining() {
            let mut slices = [IoSlice::new(&[]); 2];
            let count = answer.chunks_vectored(&mut slices);
            let result =
                Pin::new(&mut self.stream).poll_write_vectored(cx, slices.get(..count).unwrap_or_default());
            self.progress.wrote(&self.stream, &result);
            match ready!(result)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => answer.advance(written),
            }
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Pending as long as the client may be there.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.gone.is_none() {
            let peer = as_socket(&self.stream).and_then(|socket| Peer::of(socket).ok());
            self.gone = peer.map(|peer| -> Gone { Box::pin(gone(peer, self.progress.clone(), self.is_1_1)) });
        }
        let Some(gone) = &mut self.gone else { return Poll::Pending };
        let is_gone = ready!(gone.as_mut().poll(cx)).is_ok();
        // What has ended must not be asked again.
        self.gone = Some(Box::pin(std::future::pending()));
        if is_gone { Poll::Ready(io::ErrorKind::ConnectionReset.into()) } else { Poll::Pending }
    }

    /// An idle connection keeps no memory for bytes that may never come.
    pub(super) fn give_up_buffer(&mut self) {
        if self.pending.is_empty() {
            self.pending = BytesMut::new();
        }
    }

    fn give_body(
        &mut self,
        left: u64,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.progress.is_reading.store(true, Relaxed);
        if self.pending.is_empty() && ready!(self.poll_fill(cx))? == 0 {
            return Poll::Ready(Ok(()));
        }
        self.progress.is_reading.store(false, Relaxed);
        let length =
            self.pending.len().min(buffer.remaining()).min(usize::try_from(left).unwrap_or(usize::MAX));
        buffer.put_slice(&self.pending.split_to(length));
        self.give_up_buffer();
        self.progress.body_read.fetch_add(length as u64, Relaxed);
        if left != UNKNOWN {
            self.progress.body_left.store(left - length as u64, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> hyper::rt::Read for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.head.is_empty() {
            let length = self.head.len().min(buffer.remaining());
            buffer.put_slice(&self.head.split_to(length));
            return Poll::Ready(Ok(()));
        }
        match self.progress.body_left.load(Relaxed) {
            // Nothing wakes this again, on purpose: the request is over, and what follows is not hyper's to read.
            0 => Poll::Pending,
            left => self.give_body(left, cx, buffer),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> hyper::rt::Write for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, respelling, progress, .. } = &mut *self;
        let result = match respelling.instead(slices) {
            Some(instead) => Pin::new(&mut *stream).poll_write_vectored(cx, &instead),
            None => Pin::new(&mut *stream).poll_write_vectored(cx, slices),
        };
        if let Poll::Ready(Ok(written)) = result {
            respelling.wrote(written);
        }
        progress.wrote(stream, &result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.progress.is_flushed.store(result.is_ready(), Relaxed);
        if result.is_ready() && self.progress.is_break_held.swap(false, Relaxed) {
            cx.waker().wake_by_ref();
        }
        let written = self.progress.written.load(Relaxed);
        // hyper flushes whenever it has done what it can. With nothing written since, it waits for somebody.
        let waits = std::mem::replace(&mut self.flushed, written) == written && !self.progress.is_answered();
        if waits && let Poll::Ready(error) = self.poll_gone(cx) {
            return Poll::Ready(Err(error));
        }
        result
    }

    /// The connection is not hyper's to close.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// Waits until the client is gone, and finds out whether one that sends no more is.
async fn gone(peer: Peer, progress: Arc<Progress>, is_1_1: bool) -> io::Result<()> {
    peer.ended().await?;
    let is_request_over = progress.body_left.load(Relaxed) == 0;
    // An interim answer cannot stand within the final one.
    if is_1_1 && is_request_over && progress.written.load(Relaxed) == 0 {
        return if peer.send(CONTINUE).is_err() { Ok(()) } else { peer.gone().await };
    }
    loop {
        let before = progress.written.load(Relaxed);
        match tokio::time::timeout(AFTER_END, peer.gone()).await {
            Ok(gone) => return gone,
            // What is written to who is gone is answered with a reset.
            Err(_) if progress.written.load(Relaxed) == before => return Ok(()),
            Err(_) => {}
        }
    }
}

/// An answer's body on its way through hyper; says when hyper has let go of it.
///
/// hyper forgets what it has not written yet, even the head, at once when a body breaks off. The client shall have what
/// there was, so hyper is told only when all of it is written.
pub(super) struct WireBody {
    kind: Kind,
    broken: Option<BoxError>,
    progress: Arc<Progress>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Reader(PartsReader),
    Stream(Stream),
    /// Sent past hyper, which only has to say how long it is.
    Elsewhere(u64),
}

impl WireBody {
    /// The body, and the parts of a file that are to be sent past hyper, where the stream can do that.
    pub(super) fn new(
        body: Body,
        can_send_files: bool,
        progress: Arc<Progress>,
    ) -> (Self, Option<FileParts>) {
        let (kind, elsewhere) = match body {
            Body::Empty => (Kind::Empty, None),
            Body::Full(bytes) => (Kind::Full(bytes), None),
            Body::Stream(stream) => (Kind::Stream(stream), None),
            Body::File(parts) if can_send_files => (Kind::Elsewhere(parts.length()), Some(parts)),
            Body::File(parts) => (Kind::Reader(PartsReader::new(parts)), None),
        };
        // With the body, hyper is given the head.
        progress.is_flushed.store(false, Relaxed);
        (Self { kind, broken: None, progress }, elsewhere)
    }
}

impl WireBody {
    /// The whole body, where it is in memory.
    pub(super) fn in_memory(&self) -> Option<Bytes> {
        match &self.kind {
            Kind::Empty => Some(Bytes::new()),
            Kind::Full(bytes) => Some(bytes.clone()),
            Kind::Reader(_) | Kind::Stream(_) | Kind::Elsewhere(_) => None,
        }
    }
}

impl Drop for WireBody {
    fn drop(&mut self) {
        self.progress.is_body_gone.store(true, Relaxed);
    }
}

impl HttpBody for WireBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match (self.broken.take(), &mut self.kind) {
            (Some(error), _) => Some(Err(error)),
            (None, Kind::Empty) => None,
            (None, Kind::Full(bytes)) => match std::mem::take(bytes) {
                bytes if bytes.is_empty() => None,
                bytes => Some(Ok(Frame::data(bytes))),
            },
            (None, Kind::Reader(reader)) => ready!(Pin::new(reader).poll_frame(cx)),
            (None, Kind::Stream(stream)) => ready!(Pin::new(stream).poll_frame(cx)),
            (None, Kind::Elsewhere(_)) => return Poll::Pending,
        };
        match frame {
            Some(Err(error)) if !self.progress.is_flushed() => {
                self.broken = Some(error);
                self.progress.is_break_held.store(true, Relaxed);
                Poll::Pending
            }
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                self.progress.answer_bytes.fetch_add(length as u64, Relaxed);
                self.progress.is_flushed.store(false, Relaxed);
                Poll::Ready(Some(Ok(frame)))
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Reader(reader) => reader.is_end_stream(),
            Kind::Stream(stream) => stream.is_end_stream(),
            Kind::Elsewhere(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Reader(reader) => reader.size_hint(),
            Kind::Stream(stream) => stream.size_hint(),
            Kind::Elsewhere(length) => SizeHint::with_exact(*length),
        }
    }
}
