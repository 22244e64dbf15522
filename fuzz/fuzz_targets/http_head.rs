//! What tells whether a connection speaks HTTP, and where its request's head ends, however the bytes are cut into pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8])| relay_node::http::fuzzing::head(input.1, usize::from(input.0)));
