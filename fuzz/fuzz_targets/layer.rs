//! What stands in a layer: whatever reads is a whole instruction, and is written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_trust::layer::read_content;

fuzz_target!(|input: (usize, &[u8])| {
    let (behind, json) = input;
    let behind = behind % 64;
    let _ = read_content(json, behind);
});
