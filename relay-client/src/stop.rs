//! What ends a run before it is done: Ctrl-C, SIGTERM, a lost terminal and the deadline. The first signal asks for an orderly end, the
//! second one ends at once.

use crate::exit::Exit;
use crate::failure::Failure;
use std::process;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Tells whether the run shall end.
#[derive(Debug, Clone)]
pub struct Stop {
    requested: watch::Receiver<bool>,
}

impl Stop {
    /// Listens for the signals. Must be called within a runtime.
    #[must_use]
    pub fn on_signals() -> Stop {
        let (sender, requested) = watch::channel(false);
        survive_size_limits();
        tokio::spawn(async move {
            // Without signals there is nothing to listen for; the sender must live on, for it stands for "not yet".
            if signal().await.is_err() {
                return std::future::pending().await;
            }
            sender.send_replace(true);
            if signal().await.is_ok() {
                process::exit(i32::from(Exit::Interrupted.code()));
            }
            std::future::pending::<()>().await;
        });
        Stop { requested }
    }

    /// Never stops by itself: for callers that drop the future instead.
    #[must_use]
    pub fn never() -> Stop {
        let (sender, requested) = watch::channel(false);
        drop(sender);
        Stop { requested }
    }

    /// Returns when the run shall end.
    pub async fn requested(&self) {
        let mut requested = self.requested.clone();
        if requested.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the run shall end.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.requested.borrow()
    }
}

/// Lets a write beyond a limit on file sizes (`ulimit -f`) fail with an error instead of ending the process (setrlimit(2)).
fn survive_size_limits() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // Once a handler is there it stays, also when nobody listens to it.
        let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()));
    }
}

#[cfg(unix)]
async fn signal() -> std::io::Result<()> {
    use crate::platform::is_ignored;
    use futures_util::stream::{FuturesUnordered, StreamExt};
    use tokio::signal::unix::{Signal, SignalKind, signal};
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    // What nohup(1), or a shell for its background, has this process ignore stays ignored.
    let heeded = kinds.into_iter().filter(|kind| !is_ignored(kind.as_raw_value()));
    let mut heeded = heeded.map(signal).collect::<std::io::Result<Vec<_>>>()?;
    let mut next: FuturesUnordered<_> = heeded.iter_mut().map(Signal::recv).collect();
    match next.next().await {
        Some(_) => Ok(()),
        None => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn signal() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}

/// How long a run may go on: until somebody stops it, or its deadline.
#[derive(Debug, Clone)]
pub struct Until {
    stop: Stop,
    deadline: Option<(Instant, Duration)>,
}

impl Until {
    /// Until `stop`, and at most `limit` from now.
    #[must_use]
    pub fn new(stop: &Stop, limit: Option<Duration>) -> Until {
        // A limit beyond what the clock can count is none.
        let deadline = limit.and_then(|limit| Some((Instant::now().checked_add(limit)?, limit)));
        Until { stop: stop.clone(), deadline }
    }

    /// `work`, unless the run must end before it does.
    ///
    /// # Errors
    /// [`Failure::Interrupted`], [`Failure::Deadline`], or those of `work`.
    pub async fn bound<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.stop.requested() => Err(Failure::Interrupted),
            limit = self.passed() => Err(Failure::Deadline { limit, last: None }),
            result = work => result,
        }
    }

    async fn passed(&self) -> Duration {
        match self.deadline {
            Some((deadline, limit)) => {
                sleep_until(deadline).await;
                limit
            }
            None => std::future::pending().await,
        }
    }
}
