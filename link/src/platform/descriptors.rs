//! The limit of open descriptors (getrlimit(2), `RLIMIT_NOFILE`), and what of it is kept for work that has begun.
//!
//! The system gives the lowest number that is free, so a new descriptor's number tells how many are in use: nobody has to
//! count. When few are left, new connections are told that the node is busy, and those that were taken in still get
//! their next hop, their file and their log.

use std::sync::atomic::{AtomicU64, Ordering};

/// With fewer a node can do nothing: it begins with about a dozen, and a relayed connection takes two to six.
const FEWEST: u64 = 32;

/// The limit, once it is known.
static LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);

/// What a descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A new connection, which will need more of them.
    Connection,
    /// A convenience that can be done without.
    Convenience,
}

/// Raises the soft limit to the hard one, and warns when even that is too little for `connections` relayed connections of two
/// sockets each.
///
/// # Errors
/// That a node cannot work with so few, and what to do about it.
#[cfg(unix)]
pub fn raise_limit(connections: usize) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let Some(limit) = (if raised.is_ok() { maximum } else { current }) else { return Ok(()) };
    anyhow::ensure!(
        limit >= FEWEST,
        "this process may open only {limit} files at once, and a node needs {FEWEST} at least; raise the limit (ulimit -n 1024)"
    );
    LIMIT.store(limit, Ordering::Relaxed);
    let needed = connections as u64 * 2 + kept_back(limit);
    if limit < needed {
        tracing::warn!(
            limit,
            needed,
            "too few descriptors for --max-connections {connections} relayed connections; \
             raise the limit (ulimit -n) or lower --max-connections"
        );
    }
    Ok(())
}

/// There is no such limit here.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn raise_limit(_connections: usize) -> anyhow::Result<()> {
    Ok(())
}

/// How many descriptors this process may have; the largest number there is where that is not known.
pub fn limit() -> u64 {
    LIMIT.load(Ordering::Relaxed)
}

/// Whether so few descriptors are left beyond this new one that it should not be used for that.
#[cfg(unix)]
pub fn is_scarce(new: &impl std::os::fd::AsRawFd, purpose: Purpose) -> bool {
    u64::try_from(new.as_raw_fd())
        .is_ok_and(|number| is_beyond(number, LIMIT.load(Ordering::Relaxed), purpose))
}

/// There is no such limit here.
#[cfg(not(unix))]
pub fn is_scarce<T>(_new: &T, _purpose: Purpose) -> bool {
    false
}

fn is_beyond(number: u64, limit: u64, purpose: Purpose) -> bool {
    let kept = match purpose {
        Purpose::Connection => kept_back(limit),
        Purpose::Convenience => 2 * kept_back(limit),
    };
    number >= limit.saturating_sub(kept)
}

/// How many are kept for work that has begun.
fn kept_back(limit: u64) -> u64 {
    (limit / 8).clamp(8, 256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conveniences_end_before_connections_and_those_before_the_limit() {
        for (limit, convenience, connection) in
            [(32, 16, 24), (40, 24, 32), (1024, 768, 896), (20_000, 19_488, 19_744)]
        {
            for (purpose, from) in [(Purpose::Convenience, convenience), (Purpose::Connection, connection)] {
                assert!(!is_beyond(from - 1, limit, purpose), "{limit} {purpose:?}");
                assert!(is_beyond(from, limit, purpose), "{limit} {purpose:?}");
            }
        }
        assert!(!is_beyond(1 << 30, u64::MAX, Purpose::Convenience));
    }
}
