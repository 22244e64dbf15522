//! Frames on a stream. Reading takes exactly the frame's bytes, so that what follows it waits in the socket.

use relay_proto::frame::{self, FrameError, FrameType, Message, Preface};
use relay_proto::limits::PREFACE_LEN;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A frame whose payload has been read but not yet decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub frame_type: FrameType,
    /// The payload, at most 64 KiB.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The message in it.
    ///
    /// # Errors
    /// [`ReadError::Frame`] when it is of another type or does not read.
    pub fn decode<M: Message>(&self) -> Result<M, ReadError> {
        Ok(frame::decode(self.frame_type, &self.payload)?)
    }
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream ended where a frame could have begun.
    #[error("the connection was closed")]
    Closed,
    /// The stream ended within a frame.
    #[error("the connection was closed in the middle of a message")]
    Truncated,
    /// The bytes are not a frame that may come here.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

/// Room for a payload before its bytes are there; hardly any message is longer.
const ORDINARY_PAYLOAD: usize = 1024;

/// Reads one frame.
///
/// Bytes that cannot begin a frame are refused as soon as they are there. Cancelling it loses what was read.
///
/// # Errors
/// See [`ReadError`].
pub async fn read_frame<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Frame, ReadError> {
    read_frame_after(reader, &[]).await
}

/// Reads the rest of a frame of which `start`, at most a preface, has been read already.
///
/// # Errors
/// See [`ReadError`].
pub async fn read_frame_after<R: AsyncRead + Unpin>(
    reader: &mut R,
    start: &[u8],
) -> Result<Frame, ReadError> {
    let mut preface = [0; PREFACE_LEN];
    let mut filled = start.len().min(PREFACE_LEN);
    preface[..filled].copy_from_slice(&start[..filled]);
    Preface::check_start(&preface[..filled])?;
    while filled < PREFACE_LEN {
        match reader.read(&mut preface[filled..]).await? {
            0 if filled == 0 => return Err(ReadError::Closed),
            0 => return Err(ReadError::Truncated),
            n => filled += n,
        }
        Preface::check_start(&preface[..filled])?;
    }
    let Preface { frame_type, payload_len } = Preface::decode(&preface)?;
    // Grows with the bytes that are there, not with the length that was claimed, but an ordinary message comes in one read.
    let mut payload = Vec::with_capacity(payload_len.min(ORDINARY_PAYLOAD));
    reader.take(payload_len as u64).read_to_end(&mut payload).await?;
    if payload.len() < payload_len {
        return Err(ReadError::Truncated);
    }
    Ok(Frame { frame_type, payload })
}

/// Reads one frame, which must be an `M`.
///
/// # Errors
/// See [`ReadError`].
pub async fn read_message<M: Message, R: AsyncRead + Unpin>(reader: &mut R) -> Result<M, ReadError> {
    read_frame(reader).await?.decode()
}

/// Writes one message as a frame and flushes it.
///
/// # Errors
/// The stream's; [`io::ErrorKind::InvalidData`] for a message too large for a frame.
pub async fn write_message<M: Message, W: AsyncWrite + Unpin>(writer: &mut W, message: &M) -> io::Result<()> {
    let bytes = encode(message)?;
    writer.write_all(&bytes).await?;
    writer.flush().await
}

/// A message's frame.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] for a message too large for a frame.
pub fn encode<M: Message>(message: &M) -> io::Result<Vec<u8>> {
    frame::encode(message).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_proto::hop::Hello;

    fn hello() -> Hello {
        Hello { agent: "relay-node/0.1.0".into() }
    }

    #[tokio::test]
    async fn leaves_what_follows() {
        let mut bytes = encode(&hello()).unwrap();
        bytes.extend_from_slice(b"next");
        let mut reader = bytes.as_slice();
        assert_eq!(read_message::<Hello, _>(&mut reader).await.unwrap(), hello());
        assert_eq!(reader, b"next");
    }

    #[tokio::test]
    async fn every_split_and_every_truncation() {
        let bytes = encode(&hello()).unwrap();
        for cut in 0..bytes.len() {
            let (left, right) = bytes.split_at(cut);
            assert_eq!(
                read_message::<Hello, _>(&mut AsyncReadExt::chain(left, right)).await.unwrap(),
                hello()
            );
            match read_frame(&mut &*left).await {
                Err(ReadError::Closed) => assert_eq!(cut, 0),
                Err(ReadError::Truncated) => assert_ne!(cut, 0),
                other => panic!("cut at {cut}: {other:?}"),
            }
            let start = &left[..cut.min(PREFACE_LEN)];
            let rest = &bytes[start.len()..];
            assert_eq!(
                read_frame_after(&mut &*rest, start).await.unwrap().decode::<Hello>().unwrap(),
                hello()
            );
        }
    }

    #[tokio::test]
    async fn refuses_at_the_first_wrong_byte() {
        // The stream never ends, so only an early refusal returns.
        let (mut near, mut far) = tokio::io::duplex(64);
        far.write_all(b"HTTP").await.unwrap();
        let error = read_frame(&mut near).await.unwrap_err();
        assert!(matches!(error, ReadError::Frame(FrameError::NotRelay(_))), "{error}");
    }
}
