//! The signals by which an operator speaks to a running node.

#[cfg(unix)]
use std::io;

/// One of them, from now on; until somebody watches for it, it ends the process (signal(7)).
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct OperatorSignal(tokio::signal::unix::Signal);

#[cfg(unix)]
impl OperatorSignal {
    /// SIGUSR1: how is it? Must be called within a runtime.
    pub(crate) fn status() -> io::Result<OperatorSignal> {
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1()).map(OperatorSignal)
    }

    /// SIGHUP: read your files again. Must be called within a runtime.
    pub(crate) fn reload() -> io::Result<OperatorSignal> {
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).map(OperatorSignal)
    }

    /// The next one; none when there will be no more.
    pub(crate) async fn next(&mut self) -> Option<()> {
        self.0.recv().await
    }
}

/// Other systems have no such signals.
#[cfg(any(not(unix), test))]
#[cfg_attr(all(unix, test), allow(dead_code, reason = "only its test is built where the signal is"))]
pub(crate) mod plain {
    use std::io;

    #[derive(Debug)]
    pub(crate) struct OperatorSignal;

    impl OperatorSignal {
        #[allow(clippy::unnecessary_wraps, reason = "the other form can fail")]
        pub(crate) fn status() -> io::Result<OperatorSignal> {
            Ok(OperatorSignal)
        }

        #[allow(clippy::unnecessary_wraps, reason = "the other form can fail")]
        pub(crate) fn reload() -> io::Result<OperatorSignal> {
            Ok(OperatorSignal)
        }

        #[allow(clippy::unused_async, reason = "the other form waits")]
        pub(crate) async fn next(&mut self) -> Option<()> {
            None
        }
    }

    #[cfg(test)]
    #[tokio::test]
    async fn nobody_ever_asks() {
        assert_eq!(OperatorSignal::status().unwrap().next().await, None);
        assert_eq!(OperatorSignal::reload().unwrap().next().await, None);
    }
}
#[cfg(not(unix))]
pub(crate) use plain::OperatorSignal;
