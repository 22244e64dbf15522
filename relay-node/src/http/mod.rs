//! The HTTP face.
pub mod cache;
