//! The path of a request.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|path: &str| relay_node::http::fuzzing::target(path));
