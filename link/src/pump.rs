//! The blind part of a relayed connection: every byte passes, in both directions, unseen.
//!
//! Nothing is read before what was read is written, so a slow reader slows the sender and nothing piles up. The end of one side
//! passes to the other as the end of that direction alone; a failure ends both as a failure, at once, whether or not anybody
//! reads from the side that failed.
//!
//! ```text
//! pump      which way to take, how both directions end
//!   splice    between two sockets: copying first, then inside the kernel
//!   copy      between any other two links
//! ```

mod copy;
mod splice;

use crate::link::Link;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// The most that is copied at once.
const COPY_BUFFER: usize = 64 * 1024;

thread_local! {
    /// One buffer a thread: nothing stays in it beyond one read and the write attempt that follows at once.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; COPY_BUFFER]);
}

/// How the blind part ended.
#[derive(Debug)]
pub enum PumpEnd {
    /// Both directions ended in order.
    Done,
    /// Nothing moved for the idle limit.
    Idle,
    /// The connection to the previous hop failed.
    PreviousFailed(io::Error),
    /// The connection to the next hop failed.
    NextFailed(io::Error),
}

/// What passed.
#[derive(Debug, Default)]
pub struct Passed {
    up: AtomicU64,
    down: AtomicU64,
}

impl Passed {
    /// Bytes towards the origin.
    pub fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    /// Bytes towards the client.
    pub fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }
}

/// Passes bytes between the two links until both directions have ended, one side fails, or nothing moves for `idle`; once one
/// direction has ended, for a minute at most.
///
/// Afterwards the caller drops the links; only after [`PumpEnd::Done`] may that look like an orderly end.
pub async fn pump(previous: &mut Link, next: &mut Link, idle: Duration, passed: &Passed) -> PumpEnd {
    match (previous.as_tcp(), next.as_tcp()) {
        (Some(previous), Some(next)) => splice::pump(previous, next, idle, passed).await,
        _ => copy::pump(previous, next, idle, passed).await,
    }
}

/// Whether the end of a direction was read and passed on.
#[derive(Debug, Default)]
struct Ended {
    is_noted: AtomicBool,
    told: Notify,
}

impl Ended {
    fn note(&self) {
        self.is_noted.store(true, Ordering::Relaxed);
        self.told.notify_one();
    }

    fn is_noted(&self) -> bool {
        self.is_noted.load(Ordering::Relaxed)
    }

    /// Returns once it is noted; for one who waits.
    async fn told(&self) {
        self.told.notified().await;
    }
}

/// Runs both directions to their end, or until one fails.
async fn both(
    (up, up_ended): (impl Future<Output = Result<(), Failure>>, &Ended),
    (down, down_ended): (impl Future<Output = Result<(), Failure>>, &Ended),
) -> PumpEnd {
    // Who has ended in order may close, and bytes for it then fail. That is the end of their direction and no more: a failure
    // would destroy what it said last and is still on its way.
    let upwards = async {
        match up.await {
            Ok(()) => up_ended.note(),
            Err(Failure::Write(_)) if down_ended.is_noted() => {}
            Err(Failure::Read(error)) => return Err(PumpEnd::PreviousFailed(error)),
            Err(Failure::Write(error)) => return Err(PumpEnd::NextFailed(error)),
        }
        Ok(())
    };
    let downwards = async {
        match down.await {
            Ok(()) => down_ended.note(),
            Err(Failure::Write(_)) if up_ended.is_noted() => {}
            Err(Failure::Read(error)) => return Err(PumpEnd::NextFailed(error)),
            Err(Failure::Write(error)) => return Err(PumpEnd::PreviousFailed(error)),
        }
        Ok(())
    };
    match tokio::try_join!(upwards, downwards) {
        Ok(_) => PumpEnd::Done,
        Err(end) => end,
    }
}

enum Failure {
    Read(io::Error),
    Write(io::Error),
}
