//! (being laid out)

pub mod http;
mod platform;
pub mod root;
