//! Bytes to the client: written whole, counted, and given up when the client takes none for too long.

use super::{OriginError, OriginRecord};
use crate::platform::{hangup, send_file};
use futures_util::FutureExt;
use relay_link::idle::idle_for;
use relay_link::platform::unsent::unsent_bytes;
use relay_proto::frame::Preface;
use relay_proto::limits::PREFACE_LEN;
use std::fs::File;
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The most bytes of one call into the kernel, so that a worker thread is not held for long.
const KERNEL_PIECE: usize = 256 * 1024;

/// Only requests up to so many bytes are seen waiting; hardly any is longer.
const LOOK_AHEAD: usize = 512;

/// The writing side of a connection.
pub(super) struct Outlet<'a, S> {
    stream: &'a mut S,
    /// How long the client may take no byte.
    limit: Duration,
    /// What happened so far.
    pub(super) record: &'a mut OriginRecord,
}

impl<'a, S: AsyncWrite + Unpin + 'static> Outlet<'a, S> {
    pub(super) fn new(stream: &'a mut S, limit: Duration, record: &'a mut OriginRecord) -> Self {
        Outlet { stream, limit, record }
    }

    /// The stream, for reading the next request.
    pub(super) fn stream(&mut self) -> &mut S {
        self.stream
    }

    /// Whether [`Outlet::send_file`] has a chance.
    pub(super) fn can_send_files(&self) -> bool {
        send_file::as_socket(&*self.stream).is_some()
    }

    /// Returns when nobody can take an answer any more, and why; never where that cannot be seen.
    pub(super) async fn client_gone(&mut self) -> io::Error {
        match send_file::as_socket(&*self.stream) {
            Some(socket) => hangup::broken(socket).await,
            None => std::future::pending().await,
        }
    }

    /// Whether the whole next request has come, so that its answer follows at once.
    pub(super) fn next_is_here(&self) -> bool {
        let Some(socket) = send_file::as_socket(&*self.stream) else { return false };
        let mut bytes = [0; LOOK_AHEAD];
        let Some(Ok(len)) = socket.peek(&mut bytes).now_or_never() else { return false };
        let preface = bytes.first_chunk().and_then(|preface| Preface::decode(preface).ok());
        preface.is_some_and(|preface| PREFACE_LEN + preface.payload_len <= len)
    }

    /// Writes all of `bytes`.
    pub(super) async fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), OriginError> {
        while !bytes.is_empty() {
            let written = self.write(bytes).await?;
            if written == 0 {
                return Err(OriginError::Stream(io::ErrorKind::WriteZero.into()));
            }
            self.record.sent += written as u64;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// One write.
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, OriginError> {
        match send_file::as_socket(&*self.stream) {
            Some(socket) => while_taken(self.limit, socket, write_some(socket, bytes)).await,
            None => within(self.limit, self.stream.write(bytes)).await,
        }
    }

    /// Writes all of `bytes` when others follow at once, with which they may share a packet.
    pub(super) async fn write_before_more(&mut self, mut bytes: &[u8]) -> Result<(), OriginError> {
        while let (false, Some(socket)) = (bytes.is_empty(), send_file::as_socket(&*self.stream)) {
            let written = while_taken(self.limit, socket, send_file::send_before_more(socket, bytes)).await?;
            self.record.sent += written as u64;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        self.write_all(bytes).await
    }

    /// Sees to it that nothing written is held back.
    pub(super) async fn flush(&mut self) -> Result<(), OriginError> {
        within(self.limit, self.stream.flush()).await
    }

    /// Sends a part of a file within the kernel and returns how much of it went. When that is not all, the file ended, or
    /// the file or the socket failed: reading and writing the rest tells which.
    pub(super) async fn send_file(
        &mut self,
        file: &File,
        offset: u64,
        len: usize,
    ) -> Result<usize, OriginError> {
        let mut sent = 0;
        while let (true, Some(socket)) = (sent < len, send_file::as_socket(&*self.stream)) {
            let piece = (len - sent).min(KERNEL_PIECE);
            let at = offset + sent as u64;
            match while_taken(self.limit, socket, send_file::send_file(socket, file, at, piece)).await {
                Ok(0) => break,
                Ok(n) => {
                    sent += n;
                    self.record.sent += n as u64;
                    self.record.sent_by_kernel += n as u64;
                }
                Err(OriginError::Stream(error)) => {
                    tracing::debug!(%error, at, "the kernel cannot send this part of the file");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }
}

async fn within<T>(limit: Duration, step: impl Future<Output = io::Result<T>>) -> Result<T, OriginError> {
    match timeout(limit, step).await {
        Ok(result) => result.map_err(OriginError::Stream),
        Err(_) => Err(OriginError::NoProgress(limit)),
    }
}

/// Waits for the step as long as the client takes bytes. The socket has room for more only once a good part of its buffer is
/// free, and a slow reader may take longer than the limit to free it.
async fn while_taken<T>(
    limit: Duration,
    socket: &TcpStream,
    step: impl Future<Output = io::Result<T>>,
) -> Result<T, OriginError> {
    tokio::select! {
        biased;
        result = step => result.map_err(OriginError::Stream),
        () = idle_for(limit, || unsent_bytes(socket)) => Err(OriginError::NoProgress(limit)),
    }
}

async fn write_some(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_testkit::sockets::{SlowReader, connected};

    #[cfg_attr(
        any(not(target_os = "linux"), relay_plain),
        ignore = "only Linux tells what the reader has not taken"
    )]
    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_makes_progress() {
        let (client, mut near) = connected().await;
        let watched = std::os::fd::AsFd::as_fd(&near).try_clone_to_owned().unwrap();
        let watched = TcpStream::from_std(watched.into()).unwrap();
        let limit = Duration::from_secs(600);
        let mut record = OriginRecord::default();
        let mut outlet = Outlet::new(&mut near, limit, &mut record);
        let endless = async {
            loop {
                if let Err(error) = outlet.write_all(&[0; 65_536]).await {
                    break error;
                }
            }
        };
        let slow = SlowReader {
            limit,
            unsent: &|| unsent_bytes(&watched),
            advance: tokio::time::advance,
            reader: &client,
        };
        let end = slow.outlasted_by(endless).await;
        assert!(matches!(end, OriginError::NoProgress(_)), "{end}");
    }
}
