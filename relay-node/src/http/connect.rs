//! The tunnel behind CONNECT (RFC 9110 §9.3.6): bytes in both directions, looked at by nobody.
//!
//! Each direction ends by itself: the end of one is passed on, and the other goes on until it ends too. A tunnel through
//! which nothing went for the idle limit is closed; when the node ends, so is one that is silent already.

use crate::stop::Stop;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

/// How many bytes of a direction are in memory at once.
const BUFFER: usize = 32 * 1024;

/// When the node ends, a tunnel through which nothing went for so long has nothing to finish.
const GRACE: Duration = Duration::from_secs(1);

/// What went through a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnelled {
    /// Bytes from the client.
    pub up: u64,
    /// Bytes to the client.
    pub down: u64,
    /// How it ended.
    pub end: TunnelEnd,
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both sides were done.
    Done,
    /// One side broke off.
    Broken,
    /// Nothing went through for the idle limit.
    Idle,
    /// The node ends, and nothing went through any more.
    Stopped,
}

/// What both directions tell of themselves.
struct Traffic {
    began: Instant,
    last: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
}

/// Copies between the two until both directions have ended. `early` are bytes that the client sent behind its request.
///
/// Once `stop` is said, a tunnel ends that is silent.
pub async fn tunnel<C, U>(client: C, upstream: U, early: &[u8], idle: Duration, stop: &Stop) -> Tunnelled
where
    C: AsyncRead + AsyncWrite,
    U: AsyncRead + AsyncWrite,
{
    let traffic = Traffic { began: Instant::now(), last: 0.into(), up: 0.into(), down: 0.into() };
    let (client_in, client_out) = tokio::io::split(client);
    let (upstream_in, mut upstream_out) = tokio::io::split(upstream);
    let up = async {
        upstream_out.write_all(early).await?;
        traffic.count(&traffic.up, early.len());
        copy(client_in, upstream_out, &traffic, &traffic.up).await
    };
    let down = copy(upstream_in, client_out, &traffic, &traffic.down);
    let end = tokio::select! {
        // A direction that ends well waits for the other; one that breaks ends both.
        both = async { tokio::try_join!(up, down) } => both.map_or(TunnelEnd::Broken, |_| TunnelEnd::Done),
        () = traffic.idle_for(idle) => TunnelEnd::Idle,
        () = async { stop.stopped().await; traffic.idle_for(GRACE).await } => TunnelEnd::Stopped,
    };
    Tunnelled { up: traffic.up.load(Ordering::Relaxed), down: traffic.down.load(Ordering::Relaxed), end }
}

async fn copy<R, W>(mut from: R, mut to: W, traffic: &Traffic, counter: &AtomicU64) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            to.shutdown().await?;
            return Ok(());
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
        traffic.count(counter, read);
    }
}

impl Traffic {
    fn count(&self, counter: &AtomicU64, bytes: usize) {
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    async fn idle_for(&self, limit: Duration) {
        loop {
            let last = self.began + Duration::from_millis(self.last.load(Ordering::Relaxed));
            if last.elapsed() >= limit {
                return;
            }
            tokio::time::sleep_until(last + limit).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::channel;
    use tokio::io::duplex;

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let (mut client, client_end) = duplex(16);
        let (mut upstream, upstream_end) = duplex(16);
        let tunnel = tokio::spawn(async move {
            let (_source, stop) = channel();
            tunnel(client_end, upstream_end, b"early ", Duration::from_secs(60), &stop).await
        });
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = String::new();
        upstream.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "early question");
        upstream.write_all(b"an answer after the client's end").await.unwrap();
        drop(upstream);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "an answer after the client's end");
        assert_eq!(tunnel.await.unwrap(), Tunnelled { up: 14, down: 32, end: TunnelEnd::Done });
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_and_traffic_keeps_it() {
        let (mut client, client_end) = duplex(16);
        let (_upstream, upstream_end) = duplex(1024);
        let began = Instant::now();
        let tunnel = tokio::spawn(async move {
            let (_source, stop) = channel();
            tunnel(client_end, upstream_end, b"", Duration::from_secs(60), &stop).await
        });
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            client.write_all(b"x").await.unwrap();
        }
        let ended = tunnel.await.unwrap();
        assert_eq!((ended.up, ended.end), (5, TunnelEnd::Idle));
        assert!(began.elapsed() >= Duration::from_secs(310));
    }

    #[tokio::test(start_paused = true)]
    async fn the_nodes_end_closes_what_is_silent_and_no_other() {
        let (mut client, client_end) = duplex(16);
        let (_upstream, upstream_end) = duplex(1024);
        let (source, stop) = channel();
        let tunnel = tokio::spawn(async move {
            tunnel(client_end, upstream_end, b"", Duration::from_secs(3600), &stop).await
        });
        source.stop();
        for _ in 0..20 {
            tokio::time::sleep(GRACE / 2).await;
            client.write_all(b"x").await.unwrap();
        }
        assert!(!tunnel.is_finished());
        let ended = tunnel.await.unwrap();
        assert_eq!((ended.up, ended.end), (20, TunnelEnd::Stopped));
    }
}
