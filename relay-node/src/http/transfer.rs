//! Sending parts of a file past hyper, inside the kernel.

use super::body::{FileParts, Part};
use super::seals::Seals;
use super::timer::{Stall, Timer};
use crate::platform::send_file::send_file;
use crate::platform::{page_cache, positioned};
use relay_link::platform::unsent::unsent_bytes;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Moved in one call at most, so that one connection cannot hold a thread for long.
const PIECE: u64 = 1024 * 1024;
/// Read at once by the blocking pool when a piece is not in memory.
const WARM_BUFFER: usize = 128 * 1024;

/// Sends all parts and counts what went out, also when it fails. A client that takes nothing for `limit` is an error of
/// the kind `TimedOut`; a file that ends too early is one of the kind `UnexpectedEof`.
pub(super) async fn send(
    socket: &TcpStream,
    source: FileParts,
    limit: Duration,
    sent: &mut u64,
) -> io::Result<()> {
    let FileParts { file, parts, seals } = source;
    let mut timer = Timer::default();
    for part in parts {
        match part {
            Part::Bytes(bytes) => {
                let mut rest = bytes.as_ref();
                while !rest.is_empty() {
                    let write = socket.async_io(Interest::WRITABLE, || socket.try_write(rest));
                    let taken = moving(socket, &mut timer, limit, write).await?;
                    rest = rest.get(taken..).unwrap_or_default();
                    *sent += taken as u64;
                }
            }
            Part::File { offset, length } => {
                let range = offset..offset.saturating_add(length);
                send_range(socket, &mut timer, (&file, seals.as_ref()), range, limit, sent).await?;
            }
        }
    }
    Ok(())
}

async fn send_range(
    socket: &TcpStream,
    timer: &mut Timer,
    (file, seals): (&Arc<File>, Option<&Arc<Seals>>),
    range: Range<u64>,
    limit: Duration,
    sent: &mut u64,
) -> io::Result<()> {
    let Range { start: mut offset, end } = range;
    let mut ready_until = offset;
    while offset < end {
        if offset >= ready_until {
            ready_until = offset.saturating_add(PIECE).min(end);
            match seals.filter(|seals| !seals.is_checked(&(offset..ready_until))) {
                Some(seals) => check(seals, file, offset..ready_until).await?,
                None => warm(file, offset, ready_until).await?,
            }
        }
        let wanted = usize::try_from(ready_until - offset).unwrap_or(usize::MAX);
        match moving(socket, timer, limit, send_file(socket, file, offset, wanted)).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            taken => {
                offset += taken as u64;
                *sent += taken as u64;
            }
        }
    }
    Ok(())
}

/// Looks at a piece before any of it is sent; that brings it into memory, too.
async fn check(seals: &Arc<Seals>, file: &Arc<File>, range: Range<u64>) -> io::Result<()> {
    let (seals, file) = (Arc::clone(seals), Arc::clone(file));
    let checking = tokio::task::spawn_blocking(move || seals.check(&file, range));
    checking.await.map_err(io::Error::other)?
}

/// Brings a piece of a file into memory, so that `sendfile` does not make all the thread's connections wait for a disk.
async fn warm(file: &Arc<File>, from: u64, to: u64) -> io::Result<()> {
    if page_cache::is_cached(file, from, to - from) {
        return Ok(());
    }
    let file = file.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; WARM_BUFFER];
        let mut at = from;
        while at < to {
            let length = usize::try_from(to - at).unwrap_or(WARM_BUFFER).min(WARM_BUFFER);
            match positioned::read_up_to(&file, buffer.get_mut(..length).unwrap_or_default(), at)? {
                0 => break,
                read => at += read as u64,
            }
        }
        Ok(())
    });
    reading.await.map_err(io::Error::other)?
}

/// Waits for a write, but not for a client that takes nothing.
async fn moving(
    socket: &TcpStream,
    timer: &mut Timer,
    limit: Duration,
    write: impl Future<Output = io::Result<usize>>,
) -> io::Result<usize> {
    let mut write = pin!(write);
    let mut stall = None;
    poll_fn(|cx| match write.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(result),
        Poll::Pending => {
            let stall = stall.get_or_insert_with(|| Stall::begin(unsent_bytes(socket)));
            ready!(stall.poll_over(timer, limit, || unsent_bytes(socket), cx));
            Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
        }
    })
    .await
}
