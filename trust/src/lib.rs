//! Who is who, and who may do what: keys and the TLS configurations that prove them.
//!
//! This crate has no sockets, and reads no clock and no file that was not given to it. Whoever uses it carries the bytes;
//! here is only what they mean. Every secret is a type that cannot be printed and is wiped when it goes.
//!
//! | module | what belongs in it |
//! | --- | --- |
//! | [`key`] | public and secret keys, signatures with their purpose |
//! | [`key_file`] | the file that keeps a secret key |
//! | [`succession`] | a key's word that another follows it |
//! | [`way`] | the way to a node, in one form |
//! | [`known`] | known nodes: their file, and what is expected of whom |
//! | [`address`] | whose an address is |
//! | [`next_hop`] | which next hops a node relays to |
//! | [`day`] | dates of the two before |
//! | [`certificates`] | TLS as the web has it, and what a first message wants |
//! | [`access`] | access rules: who may do what |
//! | [`token`] | tokens and their hashes |
//! | [`layer`] | sealed routes, and answers that only the client can read |
//! | [`state_directory`] | where keys and known nodes are kept |
//! | [`tls`] | configurations for TLS in which keys prove themselves |

#![warn(missing_docs)]

pub mod access;
pub mod address;
pub mod certificates;
pub mod day;
pub mod key;
pub mod key_file;
pub mod known;
pub mod layer;
pub mod next_hop;
pub mod state_directory;
pub mod succession;
pub mod tls;
pub mod token;
pub mod way;
