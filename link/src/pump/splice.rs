//! Between two sockets: copying first, then inside the kernel.
//!
//! A direction begins with copying, which requests and small answers never outgrow, and gets a pipe of the kernel's once it has
//! carried 64 KiB.

use super::{Ended, Failure, Passed, PumpEnd, SCRATCH, both};
use crate::idle::idle_for;
use crate::platform::hangup::broken;
use crate::platform::pipe::Pipe;
use crate::platform::unsent::unsent_bytes;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// From so many bytes on a direction is worth its own pipe.
const PIPE_FROM: u64 = 64 * 1024;
/// A piece as large as this comes from a fast sender, for whom it pays to look for more before it is passed on.
const TOP_UP_FROM: usize = 64 * 1024;
/// How long the other direction may be silent once one has ended and nothing waits for a reader: whoever ends its side has
/// asked all it will ask.
const HALF_CLOSED_IDLE: Duration = Duration::from_secs(60);
/// What a side said before it broke is passed on as long as some of it moves in so long a time.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Passes bytes between the two connections until both directions have ended, one side fails, or nothing moves for `idle`; once one
/// direction has ended, for a minute at most.
pub(super) async fn pump(previous: &TcpStream, next: &TcpStream, idle: Duration, passed: &Passed) -> PumpEnd {
    let up = Direction::new(previous, next, &passed.up);
    let down = Direction::new(next, previous, &passed.down);
    // Bytes that leave a socket's buffer move, too: a slow reader may take long to make room for the next piece.
    let moved = || (passed.up(), passed.down(), unsent_bytes(previous), unsent_bytes(next));
    tokio::select! {
        end = both((up.run(), &up.ended), (down.run(), &down.ended)) => end,
        error = up.source_broken() => PumpEnd::PreviousFailed(error),
        // What a next hop said before its orderly end, the client may still have to read.
        error = down.source_broken() => if down.has_ended() { PumpEnd::Done } else { PumpEnd::NextFailed(error) },
        () = half_closed(&up, &down, idle.min(HALF_CLOSED_IDLE)) => {
            if down.has_ended() { PumpEnd::Done } else { PumpEnd::Idle }
        }
        () = idle_for(idle, moved) => PumpEnd::Idle,
    }
}

/// Returns when one direction has ended and the other was silent for `limit`, with nothing on its way to a reader who may
/// have paused. Never, where the system does not tell what is on its way.
async fn half_closed(up: &Direction<'_>, down: &Direction<'_>, limit: Duration) {
    let open = tokio::select! {
        () = up.ended.told() => down,
        () = down.ended.told() => up,
    };
    loop {
        let carried = || open.passed.load(Ordering::Relaxed);
        let before = carried();
        tokio::time::sleep(limit).await;
        let waits_for_reader = [up, down].iter().any(|direction| direction.undelivered() != Some(0));
        if carried() == before && !waits_for_reader {
            return;
        }
    }
}

struct Direction<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    passed: &'a AtomicU64,
    /// Whether its end was read and passed on.
    ended: Ended,
}

impl<'a> Direction<'a> {
    fn new(from: &'a TcpStream, to: &'a TcpStream, passed: &'a AtomicU64) -> Self {
        Direction { from, to, passed, ended: Ended::default() }
    }

    fn has_ended(&self) -> bool {
        self.ended.is_noted()
    }

    /// Bytes that the reader has not taken yet, where the system tells.
    fn undelivered(&self) -> Option<u64> {
        // The end itself counts as one until the other system has taken note of it.
        unsent_bytes(self.to).map(|bytes| bytes.saturating_sub(u64::from(self.has_ended())))
    }

    /// Returns when the side that this direction reads from has failed, though nobody may be reading from it, and what it said
    /// before that is delivered or does not move any more.
    async fn source_broken(&self) -> io::Error {
        broken(self.from).await;
        if !self.has_ended() || self.undelivered() != Some(0) {
            idle_for(LAST_WORDS, || (self.passed.load(Ordering::Relaxed), self.undelivered())).await;
        }
        let told = socket2::SockRef::from(self.from).take_error().ok().flatten();
        told.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
    }

    async fn run(&self) -> Result<(), Failure> {
        while self.passed.load(Ordering::Relaxed) < PIPE_FROM {
            if self.copy_once().await? == 0 {
                return self.end();
            }
        }
        let Some(mut pipe) = Pipe::take() else {
            while self.copy_once().await? > 0 {}
            return self.end();
        };
        loop {
            if self.splice_once(&mut pipe).await? == 0 {
                pipe.give_back();
                return self.end();
            }
        }
    }

    fn end(&self) -> Result<(), Failure> {
        match socket2::SockRef::from(self.to).shutdown(std::net::Shutdown::Write) {
            // The peer has closed meanwhile: it has what it wanted.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result.map_err(Failure::Write),
        }
    }

    /// Moves one read's bytes; 0 at the end.
    async fn copy_once(&self) -> Result<usize, Failure> {
        let (read, rest) = loop {
            self.from.readable().await.map_err(Failure::Read)?;
            match self.copy_attempt() {
                Err(Failure::Read(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => break other?,
            }
        };
        self.write_rest(&rest).await?;
        Ok(read)
    }

    /// One read and one write, without waiting in between; what the write did not take is handed out.
    fn copy_attempt(&self) -> Result<(usize, Vec<u8>), Failure> {
        SCRATCH.with_borrow_mut(|buffer| {
            let read = self.from.try_read(buffer).map_err(Failure::Read)?;
            let bytes = buffer.get(..read).unwrap_or_default();
            let written = match self.to.try_write(bytes) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(Failure::Write(error)),
            };
            self.count(written);
            Ok((read, bytes.get(written..).unwrap_or_default().to_vec()))
        })
    }

    async fn write_rest(&self, mut rest: &[u8]) -> Result<(), Failure> {
        while !rest.is_empty() {
            self.to.writable().await.map_err(Failure::Write)?;
            match self.to.try_write(rest) {
                Ok(written) => {
                    self.count(written);
                    rest = rest.get(written..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(Failure::Write(error)),
            }
        }
        Ok(())
    }

    /// Fills the empty pipe and drains it; 0 at the end.
    async fn splice_once(&self, pipe: &mut Pipe) -> Result<usize, Failure> {
        let moved = self.from.async_io(Interest::READABLE, || pipe.fill(self.from)).await;
        let moved = moved.map_err(Failure::Read)?;
        let topped_up = if moved >= TOP_UP_FROM { self.top_up(pipe) } else { Ok(()) };
        while pipe.held() > 0 {
            let drained = self.to.async_io(Interest::WRITABLE, || pipe.drain(self.to)).await;
            let drained = drained.map_err(Failure::Write)?;
            if drained == 0 {
                return Err(Failure::Write(io::ErrorKind::WriteZero.into()));
            }
            self.count(drained);
        }
        topped_up.map(|()| moved)
    }

    /// Adds to the pipe what came while it was filled: a nonblocking splice stops at what was there at its start.
    fn top_up(&self, pipe: &mut Pipe) -> Result<(), Failure> {
        loop {
            match pipe.fill(self.from) {
                Ok(1..) => {}
                // No room, or an end that the next look will see again.
                Ok(0) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The system tells a failure only once.
                Err(error) => return Err(Failure::Read(error)),
            }
        }
    }

    fn count(&self, moved: usize) {
        self.passed.fetch_add(moved as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_testkit::sockets::{SlowReader, connected};
    use std::pin::pin;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[cfg_attr(
        any(not(target_os = "linux"), relay_plain),
        ignore = "only Linux tells what the reader has not taken"
    )]
    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_not_idle() {
        let (client, previous) = connected().await;
        let (next, origin) = connected().await;
        let limit = Duration::from_secs(600);
        let passed = Passed::default();
        let pumped = async {
            let endless = async {
                loop {
                    origin.writable().await.unwrap();
                    let _ = origin.try_write(&[0; 65_536]);
                }
            };
            tokio::select! {
                end = pump(&previous, &next, limit, &passed) => end,
                () = endless => unreachable!(),
            }
        };
        let slow = SlowReader {
            limit,
            unsent: &|| unsent_bytes(&previous),
            advance: tokio::time::advance,
            reader: &client,
        };
        let end = slow.outlasted_by(pumped).await;
        assert!(matches!(end, PumpEnd::Idle), "{end:?}");
    }

    /// What the far end of the pump reads, and how the pump ends, when the near end says something, closes, and is written to
    /// nevertheless.
    async fn after_an_orderly_end(from_next: bool) -> (Vec<u8>, PumpEnd) {
        let (client, previous) = connected().await;
        let (next, origin) = connected().await;
        let (mut speaker, mut listener) = if from_next { (origin, client) } else { (client, origin) };
        speaker.write_all(b"the last word").await.unwrap();
        drop(speaker);
        let passed = Passed::default();
        let heard = async {
            let mut heard = Vec::new();
            listener.read_to_end(&mut heard).await.unwrap();
            heard
        };
        let mut pumped = pin!(pump(&previous, &next, Duration::from_secs(600), &passed));
        let heard = tokio::select! {
            heard = heard => heard,
            end = &mut pumped => panic!("ended before the last word was passed on: {end:?}"),
        };
        // Nobody takes this any more; the first byte is answered by a reset, and a further one fails.
        let talk = async {
            while listener.write_all(b"?").await.is_ok() {
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            end = pumped => (heard, end),
            () = talk => unreachable!(),
        }
    }

    #[tokio::test]
    async fn bytes_for_one_who_has_ended_in_order_are_no_failure() {
        for from_next in [true, false] {
            let (heard, end) = after_an_orderly_end(from_next).await;
            assert_eq!(heard, b"the last word");
            // A client that is gone for good is a reset for its next hop, once that has what the client said last.
            let is_reset = !from_next && matches!(end, PumpEnd::PreviousFailed(_));
            assert!(is_reset || matches!(end, PumpEnd::Done), "{from_next}: {end:?}");
        }
    }

    const PATIENCE: Duration = Duration::from_secs(120);

    #[cfg_attr(
        any(not(target_os = "linux"), relay_plain),
        ignore = "only Linux tells of a reset that nobody reads"
    )]
    #[tokio::test]
    async fn a_reset_is_passed_on_while_nobody_reads_from_its_side() {
        for has_ended in [true, false] {
            let (mut client, previous) = connected().await;
            let (next, mut origin) = connected().await;
            let passed = Passed::default();
            let (idle, mut pumped_bytes) = (PATIENCE * 100, Vec::new());
            let mut pumped = pin!(pump(&previous, &next, idle, &passed));
            let leave = async {
                client.write_all(b"the last word").await.unwrap();
                if has_ended {
                    client.shutdown().await.unwrap();
                    origin.read_to_end(&mut pumped_bytes).await.unwrap();
                } else {
                    // As much as the next hop, who takes nothing, and all buffers on the way do not hold.
                    while tokio::time::timeout(Duration::from_secs(1), client.write_all(&[0; 65_536]))
                        .await
                        .is_ok()
                    {}
                }
                client.set_zero_linger().unwrap();
                drop(client);
                std::future::pending::<()>().await;
            };
            let end = tokio::time::timeout(PATIENCE, async {
                tokio::select! { end = &mut pumped => end, () = leave => unreachable!() }
            });
            let end = end.await.expect("it ends long before its idle limit");
            assert!(matches!(end, PumpEnd::PreviousFailed(_)), "{has_ended}: {end:?}");
            assert!(!has_ended || pumped_bytes == b"the last word");
        }
    }

    #[cfg_attr(
        any(not(target_os = "linux"), relay_plain),
        ignore = "only Linux tells what a reader has not taken"
    )]
    #[tokio::test(start_paused = true)]
    async fn after_one_sides_end_the_other_may_be_silent_for_a_minute() {
        for is_paused_reader in [false, true] {
            let (client, previous) = connected().await;
            let (next, mut origin) = connected().await;
            let (passed, start) = (Passed::default(), tokio::time::Instant::now());
            if !is_paused_reader {
                socket2::SockRef::from(&client).shutdown(std::net::Shutdown::Write).unwrap();
                // The paused clock waits for no packet.
                previous.readable().await.unwrap();
            }
            let silent = async {
                if is_paused_reader {
                    // More than the client's buffer takes, and then the end.
                    let _ = origin.write_all(&vec![0; 512 * 1024]).await;
                    origin.shutdown().await.unwrap();
                }
                std::future::pending::<()>().await;
            };
            let end = tokio::select! {
                end = pump(&previous, &next, HALF_CLOSED_IDLE * 10, &passed) => end,
                () = silent => unreachable!(),
            };
            assert!(matches!(end, PumpEnd::Idle), "{end:?}");
            let limit = if is_paused_reader { HALF_CLOSED_IDLE * 10 } else { HALF_CLOSED_IDLE };
            assert!((limit..limit * 3).contains(&start.elapsed()), "{:?}", start.elapsed());
        }
    }
}
