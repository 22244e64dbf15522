//! Between any two links: what one reads, the other writes and flushes, before more is read.
//!
//! Both directions run in one task, so a link is locked for the length of one look at it and nobody ever waits for the lock.

use super::{Ended, Failure, Passed, PumpEnd, SCRATCH, both};
use crate::idle::idle_for;
use crate::link::Link;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Passes bytes between the two links until both directions have ended, one side fails, or nothing moves for `idle`.
pub(super) async fn pump(previous: &mut Link, next: &mut Link, idle: Duration, passed: &Passed) -> PumpEnd {
    let (previous, next) = (Mutex::new(previous), Mutex::new(next));
    let up = Direction { from: &previous, to: &next, passed: &passed.up };
    let down = Direction { from: &next, to: &previous, passed: &passed.down };
    // Bytes that leave a socket's buffer move, too: a slow reader may take long to make room for the next piece.
    let unsent = || [&previous, &next].map(|link| lock(link).unsent_bytes());
    let (up_ended, down_ended) = (Ended::default(), Ended::default());
    tokio::select! {
        end = both((up.run(), &up_ended), (down.run(), &down_ended)) => end,
        () = idle_for(idle, || (passed.up(), passed.down(), unsent())) => PumpEnd::Idle,
    }
}

/// One direction of a pump.
struct Direction<'a> {
    from: &'a Mutex<&'a mut Link>,
    to: &'a Mutex<&'a mut Link>,
    passed: &'a AtomicU64,
}

impl Direction<'_> {
    /// Passes bytes on until they end.
    async fn run(&self) -> Result<(), Failure> {
        while self.copy_once().await? > 0 {}
        let ended = poll_fn(|context| Pin::new(&mut **lock(self.to)).poll_shutdown(context)).await;
        match ended {
            // The peer has closed meanwhile: it has what it wanted.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result.map_err(Failure::Write),
        }
    }

    /// Moves one read's bytes; 0 at the end.
    async fn copy_once(&self) -> Result<usize, Failure> {
        let (read, rest) = poll_fn(|context| self.poll_copy(context)).await?;
        let mut rest = rest.as_slice();
        while !rest.is_empty() {
            let written = poll_fn(|context| self.poll_write(context, rest)).await?;
            rest = rest.get(written..).unwrap_or_default();
        }
        if read > 0 {
            let flushed = poll_fn(|context| Pin::new(&mut **lock(self.to)).poll_flush(context)).await;
            flushed.map_err(Failure::Write)?;
        }
        Ok(read)
    }

    /// One read and one write, without waiting in between; what the write did not take is handed out.
    fn poll_copy(&self, context: &mut Context<'_>) -> Poll<Result<(usize, Vec<u8>), Failure>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            let read = Pin::new(&mut **lock(self.from)).poll_read(context, &mut buffer);
            ready!(read).map_err(Failure::Read)?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                return Poll::Ready(Ok((0, Vec::new())));
            }
            let written = match self.poll_write(context, bytes) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            Poll::Ready(Ok((bytes.len(), bytes.get(written..).unwrap_or_default().to_vec())))
        })
    }

    fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Failure>> {
        let written = ready!(Pin::new(&mut **lock(self.to)).poll_write(context, bytes));
        let written = written.map_err(Failure::Write)?;
        if written == 0 {
            return Poll::Ready(Err(Failure::Write(io::ErrorKind::WriteZero.into())));
        }
        self.passed.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }
}

fn lock<'a, T>(link: &'a Mutex<T>) -> MutexGuard<'a, T> {
    link.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_testkit::sockets::connected;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    const PATIENCE: Duration = Duration::from_secs(120);

    /// A client, the link to it, the link to an origin, and that one.
    async fn connected_links() -> (TcpStream, Link, Link, TcpStream) {
        let (client, previous) = connected().await;
        let (next, origin) = connected().await;
        let link = |stream: TcpStream| {
            let peer = stream.peer_addr().unwrap();
            Link::tcp(stream, peer)
        };
        (client, link(previous), link(next), origin)
    }

    #[tokio::test]
    async fn an_end_ends_one_direction_and_nothing_is_lost() {
        let (mut client, mut previous, mut next, mut origin) = connected_links().await;
        let sent: Vec<u8> = (0..8 * 1024 * 1024_usize).map(|at| (at / 251) as u8).collect();
        let passed = Passed::default();
        let up = async {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let down = async {
            let mut got = vec![0];
            origin.read_exact(&mut got).await.unwrap();
            // Whatever the sockets hold, it is far from all of it while nobody reads.
            assert!(passed.up() < sent.len() as u64);
            origin.read_to_end(&mut got).await.unwrap();
            origin.write_all(b"the last word").await.unwrap();
            drop(origin);
            got
        };
        let pumped = pump(&mut previous, &mut next, PATIENCE, &passed);
        let (end, answer, got) = tokio::join!(pumped, up, down);
        assert!(matches!(end, PumpEnd::Done), "{end:?}");
        assert!(got == sent, "{} of {} bytes, or other ones", got.len(), sent.len());
        assert_eq!(answer, b"the last word");
        assert_eq!((passed.up(), passed.down()), (sent.len() as u64, 13));
    }

    #[tokio::test]
    async fn a_failure_is_blamed_on_the_side_that_failed() {
        for from_next in [true, false] {
            let (client, mut previous, mut next, origin) = connected_links().await;
            let (breaker, _other) = if from_next { (origin, client) } else { (client, origin) };
            breaker.set_zero_linger().unwrap();
            drop(breaker);
            let end = pump(&mut previous, &mut next, PATIENCE, &Passed::default()).await;
            let is_blamed = match end {
                PumpEnd::NextFailed(_) => from_next,
                PumpEnd::PreviousFailed(_) => !from_next,
                PumpEnd::Done | PumpEnd::Idle => false,
            };
            assert!(is_blamed, "{from_next}: {end:?}");
        }
    }
}
