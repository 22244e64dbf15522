//! The wire of Relay chain: frames, messages, chunk hashes, route files, limits and codes.
//!
//! This crate does no IO and reads no clock; `no_std` proves it. Bytes come in as slices and go out as vectors, and
//! every decoder takes hostile bytes: it is bounded, does not recurse on its input, and allocates nothing for a claimed
//! length. The byte-level specification is `docs/protocol.md`; its vectors are tests of this crate.
//!
//! One whole exchange, a file through one relay:
//!
//! ```text
//! client                      relay                       origin
//!   | open{hops:[origin]}  get  |                            |
//!   |-------------------------->|   (get waits in the socket)|
//!   |<-------------------- hello|                            |
//!   |                           | open{hops:[]}              |
//!   |                           |--------------------------->|
//!   |                           |<----------------------hello|
//!   |<-------------------- hello|                            |
//!   |                           | from here on blind: every byte passes, both ways
//!   |                           |--- get ------------------->|
//!   |<------------------------------------------ head{200}   |
//!   |<------------------------------ chunk 0, status, hash   |
//!   |<------------------------------ chunk 1, status, hash   |
//! ```
//!
//! | module | what belongs in it |
//! | --- | --- |
//! | [`frame`] | the preface, and how a message becomes bytes |
//! | [`hop`] | the hop layer's messages: `open`, `hello`, `failed` |
//! | [`mod@file`] | the file layer's messages: `get`, `stat`, `hashes`, `list`, `head`, `page` |
//! | [`chunk`] | which bytes of a file belong to which chunk, and what follows each chunk |
//! | [`digest`] | hashes of chunks and of files |
//! | [`address`] | a hop's host and port, in every form people write |
//! | [`key`] | a key as it is written
//! | [`route`] | route files, as text and as JSON, with the place of every error |
//! | [`sealed`] | sealed bytes as they are written |
//! | [`stranger`] | who answers where no relay node is
//! | [`code`] | the failure codes and statuses, each with its text |
//! | [`text`] | cleaning of text that comes from afar |
//! | [`limits`] | every limit, with its unit and its reason |

#![no_std]
#![warn(missing_docs)]

extern crate alloc;

pub mod address;
pub mod chunk;
pub mod code;
pub mod digest;
pub mod file;
pub mod frame;
pub mod hop;
pub mod key;
pub mod limits;
pub mod route;
pub mod sealed;
pub mod stranger;
pub mod text;
