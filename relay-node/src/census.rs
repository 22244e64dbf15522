//! How many connections are open and what this node is to them, for the line that operators ask for.
//!
//! It only counts: no limit may depend on what it says.

use relay_link::platform::pipe::Pipe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Counters that every connection enters and leaves.
#[derive(Debug)]
pub struct Census {
    started: Instant,
    counts: [AtomicUsize; 4],
}

/// As what a connection is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As {
    /// Accepted within the limit, whatever it turns out to be.
    Open,
    /// Served by the HTTP face.
    Http,
    /// Passed on to a next hop.
    Relay,
    /// Served files by the relay face.
    Origin,
}

/// One connection that is counted until this is dropped.
#[derive(Debug)]
pub struct Counted {
    census: Arc<Census>,
    counted_as: As,
}

impl Default for Census {
    fn default() -> Census {
        Census { started: Instant::now(), counts: Default::default() }
    }
}

impl Census {
    /// Counts one more, until the returned value is dropped.
    #[must_use]
    pub fn enter(self: &Arc<Census>, counted_as: As) -> Counted {
        self.counter(counted_as).fetch_add(1, Ordering::Relaxed);
        Counted { census: Arc::clone(self), counted_as }
    }

    /// How many there are now.
    #[must_use]
    pub fn count(&self, counted_as: As) -> usize {
        self.counter(counted_as).load(Ordering::Relaxed)
    }

    /// Writes one line into the log; must be called within a runtime, whose tasks it counts.
    pub fn tell(&self) {
        tracing::info!(
            target: "status",
            connections = self.count(As::Open),
            http = self.count(As::Http),
            relay = self.count(As::Relay),
            origin = self.count(As::Origin),
            tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            idle_pipes = Pipe::idle(),
            uptime_s = self.started.elapsed().as_secs(),
        );
    }

    fn counter(&self, counted_as: As) -> &AtomicUsize {
        let [open, http, relay, origin] = &self.counts;
        match counted_as {
            As::Open => open,
            As::Http => http,
            As::Relay => relay,
            As::Origin => origin,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.census.counter(self.counted_as).fetch_sub(1, Ordering::Relaxed);
    }
}
