//! The signal by which an operator asks a running node how it is.

#[cfg(unix)]
use std::io;

/// SIGUSR1, from now on; until somebody watches for it, it ends the process (signal(7)).
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct StatusSignal(tokio::signal::unix::Signal);

#[cfg(unix)]
impl StatusSignal {
    /// Begins to watch; must be called within a runtime.
    pub(crate) fn watch() -> io::Result<StatusSignal> {
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1()).map(StatusSignal)
    }

    /// The next one; none when there will be no more.
    pub(crate) async fn next(&mut self) -> Option<()> {
        self.0.recv().await
    }
}

/// Other systems have no such signal.
#[cfg(any(not(unix), test))]
#[cfg_attr(all(unix, test), allow(dead_code, reason = "only its test is built where the signal is"))]
pub(crate) mod plain {
    use std::io;

    #[derive(Debug)]
    pub(crate) struct StatusSignal;

    impl StatusSignal {
        #[allow(clippy::unnecessary_wraps, reason = "the other form can fail")]
        pub(crate) fn watch() -> io::Result<StatusSignal> {
            Ok(StatusSignal)
        }

        #[allow(clippy::unused_async, reason = "the other form waits")]
        pub(crate) async fn next(&mut self) -> Option<()> {
            None
        }
    }

    #[cfg(test)]
    #[tokio::test]
    async fn nobody_ever_asks() {
        assert_eq!(StatusSignal::watch().unwrap().next().await, None);
    }
}
#[cfg(not(unix))]
pub(crate) use plain::StatusSignal;
