//! One type for whatever carries bytes to a neighbour.
//!
//! A link is read and written like any stream; shutting it down ends this side's direction alone. One that is a TCP socket and
//! nothing more says so ([`Link::as_tcp`]), for those who move bytes inside the kernel. No other kind may do so.

use crate::platform::unsent;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A connection to a neighbour.
#[derive(Debug)]
pub struct Link {
    carrier: Carrier,
    peer: SocketAddr,
}

#[derive(Debug)]
enum Carrier {
    Tcp(TcpStream),
}

impl Link {
    /// A link that is this socket, whose other end is at `peer`.
    #[must_use]
    pub fn tcp(stream: TcpStream, peer: SocketAddr) -> Link {
        Link { carrier: Carrier::Tcp(stream), peer }
    }

    /// The address of the other end: the one that was dialled, or that dialled.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The socket, if bytes written to it are the bytes that the neighbour reads.
    #[must_use]
    pub fn as_tcp(&self) -> Option<&TcpStream> {
        match &self.carrier {
            Carrier::Tcp(stream) => Some(stream),
        }
    }

    /// The socket underneath, whatever the link does to its bytes: for its options and counts, never for reading or writing.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        match &self.carrier {
            Carrier::Tcp(stream) => stream,
        }
    }

    /// How many of the bytes that left this process the neighbour has not taken, where the system tells.
    #[must_use]
    pub fn unsent_bytes(&self) -> Option<u64> {
        unsent::unsent_bytes(self.socket())
    }

    /// Makes the coming drop of this link a failure for its neighbour, never an orderly end.
    pub fn fail(&self) {
        let _ = socket2::SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
    }

    /// Whether nothing waits to be read, neither bytes nor an end. Takes a byte if there is one.
    pub fn is_quiet(&mut self) -> bool {
        let (mut byte, mut context) = ([0], Context::from_waker(Waker::noop()));
        Pin::new(self).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// Both directions, each for an owner of its own.
    #[must_use]
    pub fn into_split(self) -> (LinkReader, LinkWriter) {
        match self.carrier {
            Carrier::Tcp(stream) => {
                let (reader, writer) = stream.into_split();
                (LinkReader::Tcp(reader), LinkWriter::Tcp(writer))
            }
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// What comes over a link that was split.
#[derive(Debug)]
pub enum LinkReader {
    /// A socket's.
    Tcp(OwnedReadHalf),
}

/// What goes over a link that was split. Dropping it ends its direction.
#[derive(Debug)]
pub enum LinkWriter {
    /// A socket's.
    Tcp(OwnedWriteHalf),
}

impl AsyncRead for LinkReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            LinkReader::Tcp(reader) => Pin::new(reader).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for LinkWriter {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            LinkWriter::Tcp(writer) => Pin::new(writer).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            LinkWriter::Tcp(writer) => Pin::new(writer).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            LinkWriter::Tcp(writer) => Pin::new(writer).poll_shutdown(context),
        }
    }
}
