//! The client's side of the file layer, over any stream: requests out, heads and chunks in.
//!
//! [`Answers`] reads what the origin sends and checks that it is what the protocol lets it send; whether a chunk's bytes have
//! the hash that follows them is the caller's to check, for it has the bytes and the cores. Every wait ends after
//! `silence` without a byte.

use crate::frames::{ReadError, read_message};
use relay_proto::chunk::{ChunkRange, ChunkState, TRAILER_LEN, Trailer, chunk_count, chunk_len};
use relay_proto::digest::ChunkHash;
use relay_proto::file::{FileFacts, Head, Page};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// Why an answer ended early.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// No byte came for so long.
    #[error("no byte in {} s", .0.as_secs_f64())]
    Silent(Duration),
    /// The connection ended, or what came is no message.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The origin says that the file changed while it was sent.
    #[error("the file changed at the origin while it was sent")]
    Changed,
    /// The origin says that it cannot read the file any more.
    #[error("the origin could not read the file any more")]
    OriginRead,
    /// What follows a chunk's bytes is no trailer: it, or the size in the head, came otherwise than it was sent.
    #[error("the end of a chunk arrived damaged")]
    Damaged,
    /// The origin sent what the protocol does not allow here.
    #[error("the origin broke the protocol: {0}")]
    Protocol(&'static str),
}

impl From<io::Error> for AnswerError {
    fn from(error: io::Error) -> AnswerError {
        AnswerError::Read(ReadError::Io(error))
    }
}

/// Reads answers from a pipe to an origin, in the order of the requests.
#[derive(Debug)]
pub struct Answers<R> {
    reader: R,
    silence: Duration,
}

/// A successful answer to `get` or `hashes`: what the file is and which chunks follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// What the file is.
    pub file: FileFacts,
    /// The chunks that follow, all of them within the file.
    pub chunks: ChunkRange,
}

impl Body {
    /// The body that a successful head of `get` or `hashes` announces.
    ///
    /// # Errors
    /// [`AnswerError::Protocol`] when the head lacks something or contradicts itself.
    pub fn of(head: &Head) -> Result<Body, AnswerError> {
        let file = head.file.clone().ok_or(AnswerError::Protocol("a success without the file's facts"))?;
        let range = head.range.ok_or(AnswerError::Protocol("a success without its range"))?;
        let chunks = range.chunks();
        if chunks.end() > chunk_count(file.size.bytes()) {
            return Err(AnswerError::Protocol("a range beyond the end of the file"));
        }
        Ok(Body { file, chunks })
    }

    /// The length of chunk `index` in bytes.
    #[must_use]
    pub fn chunk_len(&self, index: u64) -> usize {
        // At most a chunk's 1 MiB, so it fits every usize.
        usize::try_from(chunk_len(self.file.size.bytes(), index)).unwrap_or(0)
    }
}

impl<R: AsyncRead + Unpin> Answers<R> {
    /// Answers from `reader`, given up after `silence` without a byte.
    pub fn new(reader: R, silence: Duration) -> Answers<R> {
        Answers { reader, silence }
    }

    /// The stream underneath.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.reader
    }

    /// The stream underneath, for good.
    pub fn into_inner(self) -> R {
        self.reader
    }

    /// The next answer's head.
    ///
    /// # Errors
    /// Silence, a lost connection, or something that is no head.
    pub async fn head(&mut self) -> Result<Head, AnswerError> {
        let silence = self.silence;
        timeout(silence, read_message(&mut self.reader))
            .await
            .map_err(|_| AnswerError::Silent(silence))?
            .map_err(Into::into)
    }

    /// The page that follows a successful head of `list`.
    ///
    /// # Errors
    /// As for [`Answers::head`].
    pub async fn page(&mut self) -> Result<Page, AnswerError> {
        let silence = self.silence;
        timeout(silence, read_message(&mut self.reader))
            .await
            .map_err(|_| AnswerError::Silent(silence))?
            .map_err(Into::into)
    }

    /// The next chunk of a body: fills `chunk`, which must have exactly the chunk's length, and returns the hash that the origin
    /// promises for it. `on_bytes` is told how many bytes came, as they come.
    ///
    /// # Errors
    /// Silence, a lost connection, or the origin's word that it cannot keep its promise. Then `chunk` means nothing.
    pub async fn chunk(
        &mut self,
        chunk: &mut [u8],
        mut on_bytes: impl FnMut(usize),
    ) -> Result<ChunkHash, AnswerError> {
        self.fill(chunk, &mut on_bytes).await?;
        self.hash().await
    }

    /// The next trailer alone: what an answer to `hashes` consists of.
    ///
    /// # Errors
    /// As for [`Answers::chunk`].
    pub async fn hash(&mut self) -> Result<ChunkHash, AnswerError> {
        let mut bytes = [0; TRAILER_LEN];
        self.fill(&mut bytes, &mut |_| {}).await?;
        match Trailer::decode(&bytes) {
            Ok(Trailer { state: ChunkState::Good, hash }) => Ok(hash),
            Ok(Trailer { state: ChunkState::Changed, .. }) => Err(AnswerError::Changed),
            Ok(Trailer { state: ChunkState::ReadError, .. }) => Err(AnswerError::OriginRead),
            Err(_) => Err(AnswerError::Damaged),
        }
    }

    async fn fill(&mut self, buffer: &mut [u8], on_bytes: &mut impl FnMut(usize)) -> Result<(), AnswerError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let read = timeout(self.silence, self.reader.read(&mut buffer[filled..])).await;
            match read.map_err(|_| AnswerError::Silent(self.silence))?? {
                0 => return Err(AnswerError::Read(ReadError::Truncated)),
                n => {
                    filled += n;
                    on_bytes(n);
                }
            }
        }
        Ok(())
    }
}
