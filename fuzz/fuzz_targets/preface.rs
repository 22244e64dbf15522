//! Any nine bytes, and any start of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_proto::frame::{FrameError, Preface};
use relay_proto::limits::{MAX_PAYLOAD, PREFACE_LEN};
use relay_proto::stranger::Stranger;

fuzz_target!(|bytes: &[u8]| {
    let Some((start, _)) = bytes.split_first_chunk::<PREFACE_LEN>() else {
        let _ = Preface::check_start(bytes);
        return;
    };
    let whole = Preface::decode(start);
    for cut in 0..=PREFACE_LEN {
        if let Err(error) = Preface::check_start(&start[..cut]) {
            // Who speaks instead may take more bytes to tell than that it is no relay node.
            let is_as_the_whole = match &error {
                FrameError::NotRelay(Stranger::Unknown) => matches!(whole, Err(FrameError::NotRelay(_))),
                error => whole.as_ref() == Err(error),
            };
            assert!(is_as_the_whole, "a start is judged as the whole: {error:?}, {whole:?}");
        }
    }
    if let Ok(preface) = whole {
        assert!(preface.payload_len <= MAX_PAYLOAD);
        assert_eq!(preface.encode(), *start);
    }
});
