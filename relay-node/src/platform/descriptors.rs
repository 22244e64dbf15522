//! The limit of open descriptors (getrlimit(2), `RLIMIT_NOFILE`).

/// Raises the soft limit to the hard one, and warns when even that is too little for `connections` relayed connections of two
/// sockets each.
#[cfg(unix)]
pub fn raise_limit(connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    let needed = connections as u64 * 2 + 64;
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        tracing::warn!(
            limit,
            needed,
            "too few descriptors for --max-connections {connections} relayed connections; \
             raise the limit (ulimit -n) or lower --max-connections"
        );
    }
}

/// There is no such limit here.
#[cfg(not(unix))]
pub fn raise_limit(_connections: usize) {}
