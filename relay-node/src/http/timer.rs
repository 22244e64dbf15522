//! Timers that are moved only when they must be, and what counts as a client that takes nothing.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that moves with every request is only compared when the timer fires; setting a timer costs a lock, and
/// most requests come long before theirs would fire.
#[derive(Debug, Default)]
pub(super) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready when the deadline is over. The deadline may be another one at every call.
    pub(super) fn poll_over(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

/// A client that takes nothing of what is ready for it.
#[derive(Debug)]
pub(super) struct Stall {
    since: Instant,
    /// What it had yet to take then, where the system tells.
    unsent: Option<u64>,
}

impl Stall {
    /// From now on the stream takes nothing, and as much is on its way.
    pub(super) fn begin(unsent: Option<u64>) -> Self {
        Self { since: Instant::now(), unsent }
    }

    /// Ready when the client has taken nothing for as long as `limit`.
    pub(super) fn poll_over(
        &mut self,
        timer: &mut Timer,
        limit: Duration,
        unsent: impl Fn() -> Option<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            ready!(timer.poll_over(self.since + limit, cx));
            let unsent = unsent();
            if unsent >= self.unsent {
                return Poll::Ready(());
            }
            *self = Self::begin(unsent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test]
    async fn deadlines_move_both_ways() {
        let mut timer = Timer::default();
        let start = Instant::now();
        let far = start + Duration::from_secs(3_600);
        assert!(poll_fn(|cx| Poll::Ready(timer.poll_over(far, cx).is_pending())).await);
        let near = start + Duration::from_millis(20);
        poll_fn(|cx| timer.poll_over(near, cx)).await;
        assert!(Instant::now() >= near);
        let later = Instant::now() + Duration::from_millis(20);
        poll_fn(|cx| timer.poll_over(later, cx)).await;
        assert!(Instant::now() >= later);
    }

    #[tokio::test]
    async fn who_takes_a_little_is_not_stalled() {
        use std::cell::Cell;
        let (limit, start) = (Duration::from_millis(20), Instant::now());
        let (mut timer, mut stall) = (Timer::default(), Stall::begin(Some(5)));
        let unsent = Cell::new(5);
        let take = || {
            unsent.set(3.max(unsent.get() - 1));
            Some(unsent.get())
        };
        poll_fn(|cx| stall.poll_over(&mut timer, limit, take, cx)).await;
        // It took something twice, and then no more.
        assert!(start.elapsed() >= 3 * limit);
        let mut unknown = Stall::begin(None);
        poll_fn(|cx| unknown.poll_over(&mut timer, limit, || None, cx)).await;
    }
}
