//! Which of its two faces a new connection wants: the relay protocol or HTTP/1.1.
//!
//! The first byte decides, for the relay protocol's is never one of HTTP's. It is looked at without being taken
//! (`MSG_PEEK`, recv(2)), so that nothing has to be replayed and whichever face it is gets a plain socket with every byte in it.

use relay_proto::frame::MAGIC;
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What TLS begins with: the type of a record that carries a handshake (RFC 8446, section 5.1).
pub const TLS_HANDSHAKE: u8 = 0x16;

/// What a connection turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detected {
    /// The relay protocol.
    Relay,
    /// Everything else is taken for HTTP, which has an answer for what is none.
    Http,
    /// It said nothing within the limit.
    Silent,
    /// It closed before it said anything.
    Closed,
}

/// Waits for the first byte, at most `limit`.
///
/// # Errors
/// The socket's.
pub async fn detect(stream: &TcpStream, limit: Duration) -> io::Result<Detected> {
    let mut first = [0];
    match timeout(limit, stream.peek(&mut first)).await {
        Err(_) => Ok(Detected::Silent),
        Ok(Ok(0)) => Ok(Detected::Closed),
        Ok(Ok(_)) if MAGIC.starts_with(&first) => Ok(Detected::Relay),
        Ok(Ok(_)) => Ok(Detected::Http),
        Ok(Err(error)) => Err(error),
    }
}
