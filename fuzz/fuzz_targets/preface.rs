//! Any nine bytes, and any start of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_proto::frame::Preface;
use relay_proto::limits::{MAX_PAYLOAD, PREFACE_LEN};

fuzz_target!(|bytes: &[u8]| {
    let Some((start, _)) = bytes.split_first_chunk::<PREFACE_LEN>() else {
        let _ = Preface::check_start(bytes);
        return;
    };
    let whole = Preface::decode(start);
    for cut in 0..=PREFACE_LEN {
        if let Err(error) = Preface::check_start(&start[..cut]) {
            assert_eq!(whole, Err(error), "a start is judged as the whole");
        }
    }
    if let Ok(preface) = whole {
        assert!(preface.payload_len <= MAX_PAYLOAD);
        assert_eq!(preface.encode(), *start);
    }
});
