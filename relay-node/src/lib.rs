//! (being laid out)

mod platform;
pub mod root;
