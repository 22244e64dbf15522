//! Hops from the command line, and the error that is shown for a wrong one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_client::route_source::from_flags;

fuzz_target!(|text: &str| {
    if let Err(error) = from_flags(Some("f"), &[text.to_owned()]) {
        assert!(!error.to_string().is_empty());
    }
});
