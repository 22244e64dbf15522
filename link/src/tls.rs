//! TLS over a link: the two sides' handshakes, and how each can end.
//!
//! Which keys are right is the configuration's business and its maker's; here bytes are carried. What comes out is a link
//! again, over which nothing goes in the clear.

use crate::link::Link;
use relay_trust::key::PublicKey;
use relay_trust::tls::{OtherKey, PeerError, Use, no_name, peer};
use rustls::{ClientConfig, Error, InvalidMessage, ServerConfig};
use std::io;
use std::sync::Arc;
use tokio_rustls::client::Connect;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What a session of TLS keeps of bytes that the socket does not take yet, at most: so much does a slow reader cost.
const UNSENT: usize = 64 * 1024;

/// A link over TLS.
#[derive(Debug)]
pub struct Secured {
    /// The link.
    pub link: Link,
    /// The key that the other end proved to have; none for a client that showed none.
    pub key: Option<PublicKey>,
}

/// A client's handshake whose first bytes are made and not yet sent: they can go out behind something that is said in the clear.
pub struct Handshake {
    connect: Connect<Link>,
    first_bytes: Vec<u8>,
    usage: Use,
}

impl Handshake {
    /// Begins one over `link`, without a byte sent.
    #[must_use]
    pub fn begin(link: Link, config: &Arc<ClientConfig>, usage: Use) -> Handshake {
        let mut first_bytes = Vec::new();
        let connector = TlsConnector::from(Arc::clone(config));
        let connect = connector.connect_with(no_name(), link, |session| {
            session.set_buffer_limit(Some(UNSENT));
            // Writing into memory cannot fail; were the bytes missing, the handshake would only wait for its end.
            let _ = session.write_tls(&mut first_bytes);
        });
        Handshake { connect, first_bytes, usage }
    }

    /// The `ClientHello`, which the caller sends before it [finishes](Handshake::finish).
    #[must_use]
    pub fn first_bytes(&self) -> &[u8] {
        &self.first_bytes
    }

    /// The link underneath, for what is said in the clear before.
    ///
    /// # Errors
    /// When the configuration does not fit TLS at all.
    pub fn link(&mut self) -> Result<&mut Link, TlsError> {
        self.connect.get_mut().ok_or(TlsError::Peer(PeerError::Handshaking))
    }

    /// Goes on from the server's first byte. Takes no byte of what follows the handshake out of the link's reach.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub async fn finish(self) -> Result<Secured, TlsError> {
        let stream = self.connect.await.map_err(TlsError::of)?;
        let key = peer(self.usage, stream.get_ref().1)?;
        Ok(Secured { link: Link::over_tls(stream.into()), key })
    }
}

/// Takes part in a handshake that the other end begins.
///
/// # Errors
/// See [`TlsError`]; the other end has been told in an alert where that is possible.
pub async fn accept(link: Link, config: &Arc<ServerConfig>, usage: Use) -> Result<Secured, TlsError> {
    let acceptor = TlsAcceptor::from(Arc::clone(config));
    let limited = |session: &mut rustls::ServerConnection| session.set_buffer_limit(Some(UNSENT));
    let stream = acceptor.accept_with(link, limited).await.map_err(TlsError::of)?;
    let key = peer(usage, stream.get_ref().1)?;
    Ok(Secured { link: Link::over_tls(stream.into()), key })
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The other end proved another key than it may have.
    #[error(transparent)]
    OtherKey(OtherKey),
    /// The other end did not even try.
    #[error("it answered without encryption")]
    NotTls,
    /// The connection ended.
    #[error("the connection was closed in the middle of the handshake")]
    Cut,
    /// The connection failed.
    #[error("the connection failed in the middle of the handshake: {0}")]
    Io(#[source] io::Error),
    /// One side, or somebody between them, does not keep to TLS as it is agreed on.
    #[error("the handshake failed: {0}")]
    Failed(#[source] Error),
    /// The handshake is over, and nobody is there.
    #[error(transparent)]
    Peer(#[from] PeerError),
}

impl TlsError {
    fn of(error: io::Error) -> TlsError {
        let Some(cause) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof => TlsError::Cut,
                _ => TlsError::Io(error),
            };
        };
        match (OtherKey::of(cause), cause) {
            (Some(other), _) => TlsError::OtherKey(other.clone()),
            (None, Error::InvalidMessage(InvalidMessage::InvalidContentType)) => TlsError::NotTls,
            (None, cause) => TlsError::Failed(cause.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_testkit::sockets::connected;
    use relay_trust::key::SecretKey;
    use relay_trust::tls::{self, Expected};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    fn plain(stream: TcpStream) -> Link {
        let peer = stream.peer_addr().unwrap();
        Link::tcp(stream, peer)
    }

    /// A client's handshake as far as it goes before the server's first byte.
    async fn begun(stream: TcpStream, expected: Expected) -> Handshake {
        let config = tls::client(Use::Pipe, None, expected).unwrap();
        let mut handshake = Handshake::begin(plain(stream), &config, Use::Pipe);
        let hello = handshake.first_bytes().to_vec();
        handshake.link().unwrap().write_all(&hello).await.unwrap();
        handshake
    }

    /// Both ends of a link over TLS between two sockets.
    async fn secured_over(near: TcpStream, far: TcpStream) -> (Link, Link) {
        let key = SecretKey::generate().unwrap();
        let config = tls::server(Use::Pipe, &key).unwrap();
        let expected = Expected::OneOf(vec![key.public()]);
        let client = async { begun(near, expected).await.finish().await };
        let (near, far) = tokio::join!(client, accept(plain(far), &config, Use::Pipe));
        let (near, far) = (near.unwrap(), far.unwrap());
        assert_eq!((near.key, far.key), (Some(key.public()), None));
        (near.link, far.link)
    }

    async fn secured() -> (Link, Link) {
        let (near, far) = connected().await;
        secured_over(near, far).await
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_and_an_end_ends_one_direction() {
        let (mut near, mut far) = secured().await;
        assert!(near.as_tcp().is_none() && near.is_quiet());
        near.write_all(b"question").await.unwrap();
        assert_eq!(far.first_byte().await.unwrap(), Some(b'q'));
        assert_eq!(far.first_byte().await.unwrap(), Some(b'q'), "it is not taken");
        near.shutdown().await.unwrap();
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"question");
        assert_eq!(far.first_byte().await.unwrap(), None);
        let answer = vec![7; 3 * 1024 * 1024];
        let (answered, ()) = tokio::join!(
            async {
                let mut answered = Vec::new();
                near.read_to_end(&mut answered).await.unwrap();
                answered
            },
            async {
                far.write_all(&answer).await.unwrap();
                // To be dropped is an orderly end, as it is for a socket.
                far.flush().await.unwrap();
                drop(far);
            }
        );
        assert!(answered == answer, "{}", answered.len());
    }

    #[tokio::test]
    async fn an_end_that_is_not_told_is_a_cut() {
        for is_told in [true, false] {
            let (mut near, mut far) = secured().await;
            far.write_all(b"answer").await.unwrap();
            near.read_exact(&mut [0; 6]).await.unwrap();
            if !is_told {
                // Whoever sits in between can end the connection, but not say so inside of it.
                socket2::SockRef::from(far.socket()).shutdown(std::net::Shutdown::Write).unwrap();
            } else {
                far.shutdown().await.unwrap();
            }
            let end = near.read(&mut [0]).await;
            match is_told {
                true => assert_eq!(end.unwrap(), 0),
                false => assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof),
            }
        }
    }

    /// Passes bytes from one socket to another, but the one at `at` otherwise.
    async fn meddle(mut from: TcpStream, mut to: TcpStream, at: usize) {
        let (mut seen, mut buffer) = (0, [0; 4096]);
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            if let Some(byte) = at.checked_sub(seen).and_then(|at| buffer[..read].get_mut(at)) {
                *byte ^= 1;
            }
            seen += read;
            if to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    }

    #[tokio::test]
    async fn a_byte_that_was_changed_on_the_way_is_an_error_and_no_byte() {
        let (near, near_end) = connected().await;
        let (far_end, far) = connected().await;
        let key = SecretKey::generate().unwrap();
        let config = tls::server(Use::Pipe, &key).unwrap();
        let server = tokio::spawn(async move {
            let mut far = accept(plain(far), &config, Use::Pipe).await.unwrap().link;
            let _ = far.write_all(&vec![1; 256 * 1024]).await;
            let _ = far.flush().await;
            let _ = far.read(&mut [0]).await;
        });
        let (near_end, far_end) = (near_end.into_std().unwrap(), far_end.into_std().unwrap());
        let again = |stream: &std::net::TcpStream| TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
        // Far behind the handshake, and within what is sent.
        tokio::spawn(meddle(again(&far_end), again(&near_end), 100_000));
        tokio::spawn(meddle(again(&near_end), again(&far_end), usize::MAX));
        let mut near = begun(near, Expected::Any).await.finish().await.unwrap().link;
        let mut got = Vec::new();
        let error = near.read_to_end(&mut got).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert!(got.len() < 100_000 && got.iter().all(|byte| *byte == 1), "{}", got.len());
        drop(near);
        server.abort();
    }

    #[tokio::test]
    async fn what_is_no_handshake() {
        let finish = async |answer: &'static [u8]| {
            let (near, mut far) = connected().await;
            let handshake = begun(near, Expected::Any).await;
            far.write_all(answer).await.unwrap();
            socket2::SockRef::from(&far).shutdown(std::net::Shutdown::Write).unwrap();
            handshake.finish().await.unwrap_err()
        };
        assert!(matches!(finish(b"RELAY in the clear").await, TlsError::NotTls));
        assert!(matches!(finish(b"").await, TlsError::Cut));
        assert!(matches!(finish(b"\x16\x03\x03").await, TlsError::Cut));
        // An alert: handshake_failure.
        assert!(matches!(finish(b"\x15\x03\x03\x00\x02\x02\x28").await, TlsError::Failed(_)));
    }

    #[tokio::test]
    async fn another_key_is_named() {
        let (near, far) = connected().await;
        let (key, expected) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap().public());
        let config = tls::server(Use::Pipe, &key).unwrap();
        let client = async { begun(near, Expected::OneOf(vec![expected])).await.finish().await };
        let (client, server) = tokio::join!(client, accept(plain(far), &config, Use::Pipe));
        match client.unwrap_err() {
            TlsError::OtherKey(other) => assert_eq!(other.shown, key.public()),
            error => panic!("{error}"),
        }
        assert!(matches!(server.unwrap_err(), TlsError::Failed(_)));
    }

    #[tokio::test]
    async fn links_of_two_kinds_are_pumped() {
        let (near, previous) = connected().await;
        let (next, far) = connected().await;
        let (mut next, mut far) = secured_over(next, far).await;
        let (mut previous, mut near) = (plain(previous), near);
        let sent: Vec<u8> = (0..3_000_000_usize).map(|at| (at / 77) as u8).collect();
        let passed = crate::pump::Passed::default();
        let patience = std::time::Duration::from_secs(120);
        let (end, (), ()) = tokio::join!(
            crate::pump::pump(&mut previous, &mut next, patience, &passed),
            async {
                near.write_all(&sent).await.unwrap();
                near.shutdown().await.unwrap();
                let mut answer = Vec::new();
                near.read_to_end(&mut answer).await.unwrap();
                assert_eq!(answer, b"answer");
            },
            async {
                let mut got = Vec::new();
                far.read_to_end(&mut got).await.unwrap();
                assert!(got == sent, "{}", got.len());
                far.write_all(b"answer").await.unwrap();
                far.shutdown().await.unwrap();
            }
        );
        assert!(matches!(end, crate::pump::PumpEnd::Done), "{end:?}");
    }
}
