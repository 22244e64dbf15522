//! (being laid out)

pub mod access_log;
pub mod http;
pub mod origin;
mod platform;
pub mod root;
pub mod stop;
