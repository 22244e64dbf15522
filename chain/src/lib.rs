//! Both ends of a chain over links: what a node and a client share.
//!
//! | module | what belongs in it |
//! | --- | --- |
//! | [`frames`] | reading and writing frames on a stream, never a byte more than the frame has |
//! | [`chain`] | the client's walk through a route: `open`, the `hello`s, and who failed |
//! | [`requests`] | the client's side of the file layer: requests, heads, chunks with their trailers |
//!
//! It runs the protocol and nothing else: no files on disk, no terminals, no policies, no retries.

pub mod chain;
pub mod frames;
pub mod requests;
