//! The body of a file at the end of a chain: each chunk is verified, trimmed to what is wanted, and passed on.

use super::sessions::Sessions;
use crate::http::body::{BoxError, Stream};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use relay_chain::requests::{Answers, Body as ChunkBody};
use relay_link::link::Link;
use relay_proto::chunk::CHUNK_LEN;
use relay_proto::digest::ChunkHash;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The wanted bytes of a body whose head was read, piece by piece. The pipe goes back to the sessions at its end.
pub(super) fn pieces(
    answers: Answers<Link>,
    body: ChunkBody,
    wanted: Range<u64>,
    sessions: Arc<Sessions>,
) -> Stream {
    // One chunk is verified while the one before is being sent; no more is held.
    let (pieces, receiver) = mpsc::channel(1);
    tokio::spawn(pass_on(answers, body, wanted, sessions, pieces));
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        let piece: Result<Bytes, BoxError> = receiver.recv().await?;
        Some((piece.map(Frame::data), receiver))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// Reads and verifies chunk after chunk; ends when nobody wants more.
async fn pass_on(
    mut answers: Answers<Link>,
    body: ChunkBody,
    wanted: Range<u64>,
    sessions: Arc<Sessions>,
    pieces: mpsc::Sender<Result<Bytes, BoxError>>,
) {
    for index in body.chunks.first()..body.chunks.end() {
        let piece = verified(&mut answers, &body, index).await;
        let piece = match piece {
            Ok(chunk) => Ok(trimmed(&chunk, index * CHUNK_LEN, &wanted)),
            Err(error) => {
                let origin = sessions.origin();
                tracing::warn!(origin, %error, "a download through the gateway broke off");
                Err(BoxError::from(format!("{origin}: {error}")))
            }
        };
        let is_last = piece.is_err();
        if index + 1 == body.chunks.end() && !is_last {
            // Who has read the last byte finds the pipe when it asks again.
            sessions.keep(answers);
            let _ = pieces.send(piece).await;
            return;
        }
        if pieces.send(piece).await.is_err() || is_last {
            return;
        }
    }
    sessions.keep(answers);
}

async fn verified(answers: &mut Answers<Link>, body: &ChunkBody, index: u64) -> Result<Bytes, BoxError> {
    let mut chunk = vec![0; body.chunk_len(index)];
    let promised = answers.chunk(&mut chunk, |_| {}).await?;
    let size = body.file.size.bytes();
    let job = tokio::task::spawn_blocking(move || {
        let is_good = ChunkHash::of(&chunk, index, size) == promised;
        (chunk, is_good)
    });
    match job.await? {
        (chunk, true) => Ok(chunk.into()),
        (_, false) => Err(format!("chunk {index} arrived damaged").into()),
    }
}

/// The part of a chunk, which begins at `start`, that was wanted.
fn trimmed(chunk: &Bytes, start: u64, wanted: &Range<u64>) -> Bytes {
    let place = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX).min(chunk.len());
    let (from, to) = (place(wanted.start), place(wanted.end));
    if from < to { chunk.slice(from..to) } else { Bytes::new() }
}
