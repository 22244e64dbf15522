//! The node's tests over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests stop at the first surprise"
)]

mod cache_disk;
mod cache_rules;
mod cache_shared_fetch;
mod proxy_forwarding;
mod proxy_front;
mod proxy_peers;
mod proxy_tunnels;
mod raw_http;
mod scripted_upstream;
