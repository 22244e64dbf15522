//! What a peer does to a connection while nobody reads from it: ends its sending side, or is gone.
//!
//! The two look alike to a reader. An end (FIN) may come from a peer that still reads; a reset cannot.

pub(crate) use system::{Peer, broken};

#[cfg(all(target_os = "linux", not(relay_plain)))]
mod system {
    use relay_link::platform::descriptors::{Purpose, is_scarce};
    use std::io;
    use std::os::fd::AsFd as _;
    use tokio::io::Interest;
    use tokio::net::TcpStream;

    /// Returns why once the connection is broken.
    pub(crate) async fn broken(socket: &TcpStream) -> io::Error {
        match socket.ready(Interest::ERROR).await {
            Ok(_) => {
                socket.take_error().ok().flatten().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
            }
            Err(error) => error,
        }
    }

    /// The peer of a socket, seen through a descriptor of its own: so nobody's wait for bytes is disturbed, and no byte is taken.
    #[derive(Debug)]
    pub(crate) struct Peer(TcpStream);

    impl Peer {
        /// The peer of this socket, unless its descriptor would be missed by those who must have one.
        pub(crate) fn of(socket: &TcpStream) -> io::Result<Self> {
            let own = socket.as_fd().try_clone_to_owned()?;
            if is_scarce(&own, Purpose::Convenience) {
                return Err(io::ErrorKind::QuotaExceeded.into());
            }
            TcpStream::from_std(own.into()).map(Self)
        }

        /// Waits until it has ended its sending side, whether or not what it sent before was read, or is gone.
        pub(crate) async fn ended(&self) -> io::Result<()> {
            loop {
                let ready = self.0.ready(Interest::READABLE | Interest::ERROR).await?;
                if ready.is_read_closed() || ready.is_error() {
                    return Ok(());
                }
                // Bytes are for somebody else; the next ones, or the end, wake this again.
                let not_taken = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                let _ = self.0.try_io(Interest::READABLE, not_taken);
            }
        }

        /// Waits until the connection is broken.
        pub(crate) async fn gone(&self) -> io::Result<()> {
            self.0.ready(Interest::ERROR).await.map(drop)
        }

        /// Sends a few bytes, at once or not at all. An error where only some of them went, or none will any more.
        pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
            match self.0.try_write(bytes) {
                Ok(sent) if sent < bytes.len() => Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                _ => Ok(()),
            }
        }
    }
}

#[cfg(not(all(target_os = "linux", not(relay_plain))))]
mod system {
    use std::io;
    use tokio::net::TcpStream;

    /// Never returns: see below.
    pub(crate) async fn broken(_: &TcpStream) -> io::Error {
        std::future::pending().await
    }

    /// Nobody: this system does not tell of a peer before something is written to it.
    #[derive(Debug)]
    pub(crate) enum Peer {}

    impl Peer {
        pub(crate) fn of(_: &TcpStream) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) async fn ended(&self) -> io::Result<()> {
            match *self {}
        }

        pub(crate) async fn gone(&self) -> io::Result<()> {
            match *self {}
        }

        pub(crate) fn send(&self, _: &[u8]) -> io::Result<()> {
            match *self {}
        }
    }
}

#[cfg(test)]
#[cfg(all(target_os = "linux", not(relay_plain)))]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    const PATIENCE: Duration = Duration::from_secs(30);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn an_end_is_told_behind_unread_bytes_and_a_half_open_peer_is_not_gone() {
        let (mut near, mut far) = pair().await;
        let peer = Peer::of(&near).unwrap();
        far.write_all(b"unread").await.unwrap();
        assert!(timeout(Duration::from_millis(50), peer.ended()).await.is_err());
        far.shutdown().await.unwrap();
        timeout(PATIENCE, peer.ended()).await.unwrap().unwrap();
        assert!(timeout(Duration::from_millis(50), peer.gone()).await.is_err());
        // It takes what is sent, and nothing that it sent is lost.
        peer.send(b"hello").unwrap();
        far.read_exact(&mut [0; 5]).await.unwrap();
        near.read_exact(&mut [0; 6]).await.unwrap();
        // Closed for good it answers with a reset.
        drop(far);
        peer.send(b"hello").unwrap();
        timeout(PATIENCE, peer.gone()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_reset_is_an_end_and_more() {
        let (near, far) = pair().await;
        let peer = Peer::of(&near).unwrap();
        far.set_zero_linger().unwrap();
        drop(far);
        timeout(PATIENCE, peer.ended()).await.unwrap().unwrap();
        timeout(PATIENCE, peer.gone()).await.unwrap().unwrap();
    }
}
