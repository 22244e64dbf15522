//! What follows a chunk: 33 bytes are a trailer or name a state that is none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_proto::chunk::{TRAILER_LEN, Trailer};

fuzz_target!(|bytes: &[u8]| {
    let Some((bytes, _)) = bytes.split_first_chunk::<TRAILER_LEN>() else { return };
    match Trailer::decode(bytes) {
        Ok(trailer) => assert_eq!(trailer.encode(), *bytes),
        Err(state) => assert_eq!(state, bytes[0]),
    }
});
