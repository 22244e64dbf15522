//! Closing so that the last message arrives.
//!
//! A socket that is closed while bytes wait in it unread sends a reset, and a reset may overtake the message that was just
//! written and destroy it (RFC 9112, section 9.6 tells the same of HTTP). So: end writing, read away a little, close.

use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long to wait for the peer's end.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much to read away, in bytes.
const MOST: u64 = 256 * 1024;

/// Ends writing, reads away what still comes, within a second and 256 KiB, and returns for the stream to be dropped.
pub async fn close_gently<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    // Whatever fails now, the connection is over.
    let _ = timeout(PATIENCE, async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(MOST), &mut tokio::io::sink()).await
    })
    .await;
}
