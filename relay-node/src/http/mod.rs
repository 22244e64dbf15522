//! The HTTP face.
pub mod cache;
pub mod connect;
pub mod proxy;
pub mod proxy_allow;
pub mod proxy_dial;
pub mod proxy_fields;
