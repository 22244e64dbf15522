//! The signal that ends the node: everyone holds a [`Stop`], one holds the [`StopSource`].

use tokio::sync::watch;

/// Tells everyone to finish what they do and begin nothing new.
#[derive(Debug)]
pub struct StopSource(watch::Sender<bool>);

/// Knows whether the node is to end.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// A source and the handle to give to everyone.
#[must_use]
pub fn channel() -> (StopSource, Stop) {
    let (source, stop) = watch::channel(false);
    (StopSource(source), Stop(stop))
}

impl StopSource {
    /// Says it, once and for all.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Whether it was said. A source that is gone has said it too.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Returns when it is said.
    pub async fn stopped(&self) {
        // An error means that the source is gone, and nobody could say it any more.
        let _ = self.0.clone().wait_for(|&is_stopped| is_stopped).await;
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn everyone_hears_it() {
        let (source, stop) = super::channel();
        assert!(!stop.is_stopped());
        let other = stop.clone();
        let waiting = tokio::spawn(async move { other.stopped().await });
        source.stop();
        waiting.await.unwrap();
        assert!(stop.is_stopped());
    }

    #[tokio::test]
    async fn a_lost_source_ends_everyone() {
        let (source, stop) = super::channel();
        drop(source);
        stop.stopped().await;
        assert!(stop.is_stopped());
    }
}
