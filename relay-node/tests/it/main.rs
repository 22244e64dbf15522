//! The node from outside: real sockets, real files, real time limits.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests stop at the first surprise"
)]

// Its clients come from several loopback addresses, which not every system has.
#[cfg(target_os = "linux")]
mod access;
mod cache_beside_model;
mod cache_disk;
mod cache_fields;
mod cache_kill;
#[cfg(target_os = "linux")]
mod cache_model;
mod cache_ranges;
mod cache_rules;
mod cache_shared_fetch;
mod cache_unneeded;
mod cache_waiters;
mod encryption;
mod gateway_chain;
mod http_conditions;
mod http_field_names;
mod http_idle;
mod http_limits;
mod http_listing;
mod http_program;
mod http_statuses;
mod http_support;
mod http_transfers;
mod proxy_drain;
mod proxy_forwarding;
mod proxy_front;
#[cfg(all(target_os = "linux", not(relay_plain)))]
mod proxy_gone;
mod proxy_kept;
mod proxy_memory;
mod proxy_peers;
mod proxy_senders;
mod proxy_smuggling;
mod proxy_tunnels;
mod raw_http;
mod scripted_upstream;
#[cfg(unix)]
mod stalled_logs;
mod start;
#[cfg(unix)]
mod status_line;
