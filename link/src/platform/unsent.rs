//! How much of what was written to a socket its peer has not taken yet.
//!
//! A socket becomes writable only when a good part of its buffer is free. A slow reader may need longer for that part
//! than a client may stay silent, while it takes bytes all the time; this tells the two apart.

use tokio::net::TcpStream;

/// Bytes that are not acknowledged yet, where the system tells.
#[cfg(all(
    target_os = "linux",
    not(relay_plain),
    any(
        target_arch = "x86_64",
        target_arch = "x86",
        target_arch = "aarch64",
        target_arch = "arm",
        target_arch = "riscv64"
    )
))]
pub fn unsent_bytes(socket: &TcpStream) -> Option<u64> {
    use rustix::ioctl::{Getter, Opcode, ioctl};
    /// `SIOCOUTQ` of tcp(7), as these architectures number it.
    const OUTQ: Opcode = 0x5411;
    // SAFETY: the request writes one C int through its argument, and that is what the getter makes room for.
    #[expect(unsafe_code, reason = "no safe call gives this number")]
    let bytes = unsafe { ioctl(socket, Getter::<OUTQ, std::ffi::c_int>::new()) };
    bytes.ok().and_then(|bytes| u64::try_from(bytes).ok())
}

/// Bytes that are not acknowledged yet; this system does not tell.
#[cfg(not(all(
    target_os = "linux",
    not(relay_plain),
    any(
        target_arch = "x86_64",
        target_arch = "x86",
        target_arch = "aarch64",
        target_arch = "arm",
        target_arch = "riscv64"
    )
)))]
pub fn unsent_bytes(_: &TcpStream) -> Option<u64> {
    None
}

#[cfg(test)]
#[cfg(all(target_os = "linux", not(relay_plain)))]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn falls_while_the_peer_reads() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        assert_eq!(unsent_bytes(&near), Some(0));
        let mut written = 0;
        while let Ok(more) = near.try_write(&[0; 65_536]) {
            written += more;
        }
        let full = unsent_bytes(&near).unwrap();
        assert!(full > 0, "{written}");
        let mut taken = vec![0; written];
        far.read_exact(&mut taken).await.unwrap();
        near.write_all(b"x").await.unwrap();
        far.read_exact(&mut [0]).await.unwrap();
        assert!(unsent_bytes(&near).unwrap() < full);
    }
}
