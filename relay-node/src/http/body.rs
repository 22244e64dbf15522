//! Bodies of answers: nothing, bytes, parts of a file, or a stream from elsewhere.

use super::seals::{self, Seals};
use crate::platform::positioned;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;

/// Of a file that is read into memory, as much is held at once, twice: once being read, once being sent. Of a sealed one it is a
/// piece under one hash.
const PIECE: u64 = 128 * 1024;

/// Whatever ends a body early.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body on its way, of an answer or of a request.
pub type Stream = UnsyncBoxBody<Bytes, BoxError>;

/// What a handler answers with.
#[derive(Debug, Default)]
pub(crate) enum Body {
    #[default]
    Empty,
    Full(Bytes),
    File(FileParts),
    /// From another server. Its length is unknown here unless the answer says it.
    Stream(Stream),
}

/// A stream of nothing.
pub fn nothing() -> Stream {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A stream of what is there already.
pub fn all_at_once(bytes: Bytes) -> Stream {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Parts of one file, with bytes around them.
#[derive(Debug)]
pub(crate) struct FileParts {
    pub file: Arc<File>,
    pub parts: VecDeque<Part>,
    /// What the file's bytes must be for any of them to be sent; `None` where they are the truth themselves.
    pub seals: Option<Arc<Seals>>,
}

/// One stretch of a body.
#[derive(Debug)]
pub(crate) enum Part {
    Bytes(Bytes),
    File { offset: u64, length: u64 },
}

impl FileParts {
    pub(crate) fn length(&self) -> u64 {
        self.parts.iter().map(Part::length).sum()
    }
}

impl Part {
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }
}

/// Reads the parts in the blocking pool, one piece ahead of what is sent.
#[derive(Debug)]
pub(crate) struct PartsReader {
    source: FileParts,
    left: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl PartsReader {
    pub(crate) fn new(source: FileParts) -> Self {
        Self { left: source.length(), source, reading: None }
    }

    fn read_on(&mut self) -> Option<JoinHandle<io::Result<Bytes>>> {
        let Some(Part::File { offset, length }) = self.source.parts.front_mut() else {
            return None;
        };
        let from = *offset;
        // What is sealed is hashed whole before any of it goes out.
        let step = if self.source.seals.is_some() { seals::PIECE - from % seals::PIECE } else { PIECE };
        let now = (*length).min(step);
        *offset += now;
        *length -= now;
        if *length == 0 {
            self.source.parts.pop_front();
        }
        let (file, seals) = (Arc::clone(&self.source.file), self.source.seals.clone());
        Some(tokio::task::spawn_blocking(move || match seals {
            Some(seals) => seals.read_checked(&file, from..from + now),
            None => read_piece(&file, from, now),
        }))
    }
}

/// Exactly `length` bytes; a file that has become shorter is an error, because the length has been promised.
pub(crate) fn read_piece(file: &File, offset: u64, length: u64) -> io::Result<Bytes> {
    let mut piece = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    match positioned::read_up_to(file, &mut piece, offset)? {
        read if read == piece.len() => Ok(piece.into()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl HttpBody for PartsReader {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.reading.is_none() {
            if let Some(Part::Bytes(_)) = self.source.parts.front() {
                let Some(Part::Bytes(bytes)) = self.source.parts.pop_front() else {
                    return Poll::Ready(None);
                };
                self.left -= bytes.len() as u64;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            self.reading = self.read_on();
        }
        let Some(reading) = &mut self.reading else {
            return Poll::Ready(None);
        };
        let piece = ready!(Pin::new(reading).poll(cx)).map_err(io::Error::other).and_then(|read| read);
        self.reading = self.read_on();
        Poll::Ready(Some(piece.map_err(BoxError::from).map(|bytes| {
            self.left -= bytes.len() as u64;
            Frame::data(bytes)
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
