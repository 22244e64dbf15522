//! Text from afar is clean after it was cleaned, and cleaning it again changes nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_proto::text::{clean, is_unsafe};

fuzz_target!(|input: (u8, &str)| {
    let (cap, text) = (usize::from(input.0), input.1);
    let once = clean(text, cap);
    assert!(!once.chars().any(is_unsafe));
    assert!(once.len() <= cap + '…'.len_utf8());
    assert_eq!(clean(&once, cap), once);
});
