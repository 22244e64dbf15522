//! What a cache entry's file says, after a disk or somebody else has been at it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| relay_node::http::fuzzing::cache_record(text));
