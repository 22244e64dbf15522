//! The conditional fields of a request.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|fields: &[u8]| relay_node::http::fuzzing::conditions(fields));
