//! The first byte chooses a message, the rest is its payload. What is read must survive the way there and back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_proto::frame::{FrameType, Message, Preface, decode, encode};
use relay_proto::limits::PREFACE_LEN;
use relay_proto::{file, hop};
use std::fmt::Debug;

fuzz_target!(|bytes: &[u8]| {
    let Some((type_byte, payload)) = bytes.split_first() else { return };
    match FrameType::ALL.iter().find(|t| t.byte() == *type_byte) {
        Some(FrameType::Open) => check::<hop::Open>(payload),
        Some(FrameType::Hello) => check::<hop::Hello>(payload),
        Some(FrameType::Failed) => check::<hop::Failed>(payload),
        Some(FrameType::Get) => check::<file::Get>(payload),
        Some(FrameType::Stat) => check::<file::Stat>(payload),
        Some(FrameType::Hashes) => check::<file::Hashes>(payload),
        Some(FrameType::List) => check::<file::List>(payload),
        Some(FrameType::Head) => check::<file::Head>(payload),
        Some(FrameType::Page) => check::<file::Page>(payload),
        None => {}
    }
});

fn check<M: Message + PartialEq + Debug>(payload: &[u8]) {
    let Ok(message) = decode::<M>(M::TYPE, payload) else { return };
    // A message can be longer when it is written: a cleaned text has a mark where it was cut.
    let Ok(frame) = encode(&message) else { return };
    assert!(!frame.iter().any(|byte| matches!(byte, b'\r' | b'\n')), "a line end");
    let (preface, again) = frame.split_first_chunk::<PREFACE_LEN>().expect("a preface");
    let preface = Preface::decode(preface).expect("its own preface");
    assert_eq!(preface.payload_len, again.len());
    assert_eq!(decode::<M>(preface.frame_type, again).as_ref(), Ok(&message));
}
