//! (being laid out)

pub mod http;
pub mod origin;
mod platform;
pub mod root;
