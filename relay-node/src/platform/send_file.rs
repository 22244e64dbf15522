//! From a file to a socket within the kernel: `sendfile(2)`.

use relay_link::link::Link;
use std::fs::File;
use std::io;
use tokio::net::TcpStream;

/// The TCP socket that a stream plainly is, if files can be sent into it within the kernel. A stream that does anything
/// to its bytes (encryption, say) is none.
pub(crate) fn as_socket<S: 'static>(stream: &S) -> Option<&TcpStream> {
    if cfg!(all(target_os = "linux", not(relay_plain))) {
        let stream = stream as &dyn std::any::Any;
        stream.downcast_ref::<Link>().map_or_else(|| stream.downcast_ref(), Link::as_tcp)
    } else {
        None
    }
}

/// Sends up to `len` bytes of the file from `offset` on, once the socket takes any, and says how many it took. 0 means
/// that the file ends there. A part that is not in memory blocks the thread.
///
/// An error can be the file's or the socket's; the call does not tell which.
#[cfg(all(target_os = "linux", not(relay_plain)))]
pub(crate) async fn send_file(socket: &TcpStream, file: &File, offset: u64, len: usize) -> io::Result<usize> {
    socket
        .async_io(tokio::io::Interest::WRITABLE, || {
            loop {
                let mut at = offset;
                match rustix::fs::sendfile(socket, file, Some(&mut at), len) {
                    Err(rustix::io::Errno::INTR) => {}
                    result => return Ok(result?),
                }
            }
        })
        .await
}

/// Sends bytes that others follow at once, and says how many the socket took. The kernel may hold them back for up to 200 ms,
/// to put them into one packet with those (send(2), tcp(7), `MSG_MORE`).
#[cfg(all(target_os = "linux", not(relay_plain)))]
pub(crate) async fn send_before_more(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    use rustix::net::SendFlags;
    let flags = SendFlags::MORE | SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    socket.async_io(tokio::io::Interest::WRITABLE, || Ok(rustix::net::send(socket, bytes, flags)?)).await
}

/// There is no such call here.
#[cfg(any(not(target_os = "linux"), relay_plain))]
pub(crate) async fn send_before_more(_: &TcpStream, _: &[u8]) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There is no such call here.
#[cfg(any(not(target_os = "linux"), relay_plain))]
pub(crate) async fn send_file(_: &TcpStream, _: &File, _: u64, _: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::as_socket;

    #[test]
    fn only_a_plain_socket_is_one() {
        let (near, _far) = tokio::io::duplex(1);
        assert!(as_socket(&near).is_none());
    }

    #[tokio::test]
    #[cfg(all(target_os = "linux", not(relay_plain)))]
    async fn sends_and_ends() {
        use std::io::Write;
        use tokio::io::AsyncReadExt;
        use tokio::net::{TcpListener, TcpStream};
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (near, _) = listener.accept().await.unwrap();
        let socket = as_socket(&near).unwrap();
        assert_eq!(super::send_file(socket, &file, 4, 100).await.unwrap(), 6);
        assert_eq!(super::send_file(socket, &file, 10, 100).await.unwrap(), 0);
        drop(near);
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"456789");
    }
}
