//! One type for whatever carries bytes to a neighbour.
//!
//! A link is read and written like any stream; shutting it down ends this side's direction alone. One that is a TCP socket and
//! nothing more says so ([`Link::as_tcp`]), for those who move bytes inside the kernel. No other kind may do so.

use crate::platform::unsent;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::TlsStream;

/// A connection to a neighbour.
#[derive(Debug)]
pub struct Link {
    carrier: Carrier,
    peer: SocketAddr,
}

#[derive(Debug)]
enum Carrier {
    Tcp(TcpStream),
    Tls(Box<Tls>),
}

/// TLS over another link. Boxed, for it is large and the plain case is the frequent one.
#[derive(Debug)]
struct Tls {
    stream: TlsStream<Link>,
    /// Whether dropping it is to look like a failure.
    has_failed: bool,
}

impl Drop for Tls {
    /// A socket that is dropped says that its direction ended; TLS says so with an alert, without which the end is a cut.
    fn drop(&mut self) {
        if !self.has_failed {
            let mut context = Context::from_waker(Waker::noop());
            let _ = Pin::new(&mut self.stream).poll_shutdown(&mut context);
        }
    }
}

impl Link {
    /// A link that is this socket, whose other end is at `peer`.
    #[must_use]
    pub fn tcp(stream: TcpStream, peer: SocketAddr) -> Link {
        Link { carrier: Carrier::Tcp(stream), peer }
    }

    /// The link inside a session of TLS whose handshake is over.
    pub(crate) fn over_tls(stream: TlsStream<Link>) -> Link {
        let peer = stream.get_ref().0.peer();
        Link { carrier: Carrier::Tls(Box::new(Tls { stream, has_failed: false })), peer }
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
            Carrier::Tls(_) => None,
        }
    }

    /// The socket underneath, whatever the link does to its bytes: for its options and counts, never for reading or writing.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        match &self.carrier {
            Carrier::Tcp(stream) => stream,
            Carrier::Tls(tls) => tls.stream.get_ref().0.socket(),
        }
    }

    /// How many of the bytes that left this process the neighbour has not taken, where the system tells.
    #[must_use]
    pub fn unsent_bytes(&self) -> Option<u64> {
        unsent::unsent_bytes(self.socket())
    }

    /// Makes the coming drop of this link a failure for its neighbour, never an orderly end.
    pub fn fail(&mut self) {
        if let Carrier::Tls(tls) = &mut self.carrier {
            tls.has_failed = true;
        }
        let _ = socket2::SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
    }

    /// Whether nothing waits to be read, neither bytes nor an end. Takes a byte if there is one.
    pub fn is_quiet(&mut self) -> bool {
        let (mut byte, mut context) = ([0], Context::from_waker(Waker::noop()));
        Pin::new(self).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// The first byte that waits to be read, as soon as there is one, without taking it; none at the end.
    ///
    /// # Errors
    /// The link's.
    pub async fn first_byte(&mut self) -> io::Result<Option<u8>> {
        match &mut self.carrier {
            Carrier::Tcp(stream) => {
                let mut first = [0];
                let len = stream.peek(&mut first).await?;
                Ok(first.first().copied().filter(|_| len > 0))
            }
            Carrier::Tls(tls) => {
                let fill = |context: &mut Context<'_>| {
                    let filled = Pin::new(&mut tls.stream).poll_fill_buf(context);
                    filled.map_ok(|bytes| bytes.first().copied())
                };
                poll_fn(fill).await
            }
        }
    }

    /// Both directions, each for an owner of its own.
    #[must_use]
    pub fn into_split(self) -> (LinkReader, LinkWriter) {
        match self.carrier {
            Carrier::Tcp(stream) => {
                let (reader, writer) = stream.into_split();
                (LinkReader::Tcp(reader), LinkWriter::Tcp(writer))
            }
            Carrier::Tls(tls) => {
                let (reader, writer) = split(Link { carrier: Carrier::Tls(tls), peer: self.peer });
                (LinkReader::Other(reader), LinkWriter::Other(writer))
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
            Carrier::Tls(tls) => Pin::new(&mut tls.stream).poll_read(context, buffer),
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
            Carrier::Tls(tls) => Pin::new(&mut tls.stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Carrier::Tls(tls) => Pin::new(&mut tls.stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Carrier::Tls(tls) => Pin::new(&mut tls.stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Carrier::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(context),
        }
    }
}

/// What comes over a link that was split.
#[derive(Debug)]
pub enum LinkReader {
    /// A socket's.
    Tcp(OwnedReadHalf),
    /// Any other link's.
    Other(ReadHalf<Link>),
}

/// What goes over a link that was split. Only once both are dropped the link is; who wants to end this direction before shuts it
/// down.
#[derive(Debug)]
pub enum LinkWriter {
    /// A socket's.
    Tcp(OwnedWriteHalf),
    /// Any other link's.
    Other(WriteHalf<Link>),
}

impl AsyncRead for LinkReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            LinkReader::Tcp(reader) => Pin::new(reader).poll_read(context, buffer),
            LinkReader::Other(reader) => Pin::new(reader).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for LinkWriter {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            LinkWriter::Tcp(writer) => Pin::new(writer).poll_write(context, bytes),
            LinkWriter::Other(writer) => Pin::new(writer).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            LinkWriter::Tcp(writer) => Pin::new(writer).poll_flush(context),
            LinkWriter::Other(writer) => Pin::new(writer).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            LinkWriter::Tcp(writer) => Pin::new(writer).poll_shutdown(context),
            LinkWriter::Other(writer) => Pin::new(writer).poll_shutdown(context),
        }
    }
}
