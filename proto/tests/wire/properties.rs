//! What holds for every message: it survives the way there and back, at every cut it is refused, and what is not known
//! is not passed on.

use crate::messages::{self, for_type, read, smallest};
use proptest::prelude::*;
use relay_proto::address::Hop;
use relay_proto::chunk::{AskedRange, CHUNK_LEN, ChunkRange, ChunkState, TRAILER_LEN, Trailer, chunk_count};
use relay_proto::digest::{ChunkHash, ChunkHasher, FileHash};
use relay_proto::frame::{FrameError, FrameType, Message, Preface, decode, encode};
use relay_proto::limits::{MAX_PAYLOAD, MAX_SIZE, PREFACE_LEN};
use relay_proto::route::Route;
use relay_proto::text::{clean, is_unsafe};
use std::fmt::Debug;

/// Takes a frame apart as a reader does.
fn take<M: Message>(frame: &[u8]) -> Result<M, FrameError> {
    let (preface, payload) = frame.split_first_chunk::<PREFACE_LEN>().expect("a whole preface");
    let preface = Preface::decode(preface)?;
    assert_eq!(preface.payload_len, payload.len());
    decode(preface.frame_type, payload)
}

fn there_and_back<M: Message + PartialEq + Debug>(message: &M) {
    let frame = encode(message).expect("fits a frame");
    assert!(!frame.iter().any(|b| matches!(b, b'\r' | b'\n')), "a line end in {message:?}");
    assert_eq!(take::<M>(&frame).as_ref(), Ok(message));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn open(m in messages::open()) { there_and_back(&m); }
    #[test]
    fn hello(m in messages::hello()) { there_and_back(&m); }
    #[test]
    fn failed(m in messages::failed()) { there_and_back(&m); }
    #[test]
    fn get(m in messages::get()) { there_and_back(&m); }
    #[test]
    fn stat(m in messages::stat()) { there_and_back(&m); }
    #[test]
    fn hashes(m in messages::hashes()) { there_and_back(&m); }
    #[test]
    fn list(m in messages::list()) { there_and_back(&m); }
    #[test]
    fn head(m in messages::head()) { there_and_back(&m); }
    #[test]
    fn page(m in messages::page()) { there_and_back(&m); }

    #[test]
    fn every_truncation_is_refused(m in messages::failed(), h in messages::head()) {
        for frame in [encode(&m).expect("a frame"), encode(&h).expect("a frame")] {
            let (preface, payload) = frame.split_first_chunk::<PREFACE_LEN>().expect("a preface");
            let frame_type = Preface::decode(preface).expect("a preface").frame_type;
            for cut in 0..payload.len() {
                prop_assert!(read(frame_type, &payload[..cut]).is_err(), "cut at {}", cut);
            }
        }
    }

    #[test]
    fn hops_read_what_they_write(hop in messages::hop()) {
        prop_assert_eq!(hop.to_string().parse::<Hop>(), Ok(hop.clone()));
        let spaced = format!(" {}  {} ", hop.host.as_str(), hop.port);
        prop_assert_eq!(spaced.parse::<Hop>(), Ok(hop));
    }

    #[test]
    fn routes_read_what_they_write(hops in proptest::collection::vec(messages::hop(), 1..=64), file in "[ -~]{1,200}") {
        let route = Route::new(&file, hops, Some(FileHash::of_chunks(&[]))).expect("a route");
        let json = serde_json::to_vec(&route).expect("JSON");
        prop_assert_eq!(Route::parse(&json), Ok(route));
    }

    #[test]
    fn prefaces(type_index in 0..FrameType::ALL.len(), payload_len in 0..=MAX_PAYLOAD) {
        let preface = Preface { frame_type: FrameType::ALL[type_index], payload_len };
        let bytes = preface.encode();
        prop_assert_eq!(Preface::decode(&bytes), Ok(preface));
        for cut in 0..=PREFACE_LEN {
            prop_assert_eq!(Preface::check_start(&bytes[..cut]), Ok(()));
        }
    }

    /// A start that is refused must not become a preface by waiting for more, and one that is good is found good at each cut.
    #[test]
    fn a_start_is_judged_as_the_whole(bytes in any::<[u8; PREFACE_LEN]>(), magic in 0..=6usize) {
        let mut bytes = bytes;
        let good = Preface { frame_type: FrameType::Get, payload_len: 1 }.encode();
        bytes[..magic].copy_from_slice(&good[..magic]);
        let whole = Preface::decode(&bytes);
        for cut in 0..=PREFACE_LEN {
            if let Err(error) = Preface::check_start(&bytes[..cut]) {
                prop_assert_eq!(&whole, &Err(error));
            }
        }
    }

    #[test]
    fn trailers(state in 0..3u8, hash in any::<[u8; 32]>()) {
        let state = [ChunkState::Good, ChunkState::Changed, ChunkState::ReadError][usize::from(state)];
        let trailer = Trailer { state, hash: ChunkHash::from_bytes(hash) };
        prop_assert_eq!(Trailer::decode(&trailer.encode()), Ok(trailer));
    }

    #[test]
    fn any_trailer_decodes_or_names_its_state(bytes in any::<[u8; TRAILER_LEN]>()) {
        match Trailer::decode(&bytes) {
            Ok(trailer) => prop_assert_eq!(trailer.encode(), bytes),
            Err(state) => prop_assert_eq!(state, bytes[0]),
        }
    }

    #[test]
    fn ranges_stay_within_the_file(first in any::<u64>(), end in any::<Option<u64>>(), size in 0..=MAX_SIZE) {
        if let Some(range) = (AskedRange { first, end }).of(size) {
            prop_assert!(range.first() < range.end() && range.end() <= chunk_count(size));
            prop_assert!(range.bytes(size) > 0 && range.bytes(size) <= size);
            prop_assert!(range.bytes(size) <= range.len() * CHUNK_LEN);
        }
        if let Some(range) = ChunkRange::new(first, end.unwrap_or(u64::MAX)) {
            prop_assert!(range.bytes(size) <= size);
        }
    }

    #[test]
    fn cleaned_text_is_clean_and_stays_so(text in any::<String>(), cap in 0..100usize) {
        let once = clean(&text, cap);
        prop_assert!(!once.chars().any(is_unsafe));
        prop_assert!(once.len() <= cap + '…'.len_utf8());
        prop_assert_eq!(clean(&once, cap), once);
    }

    #[test]
    fn hashing_in_pieces_is_hashing_at_once(
        bytes in proptest::collection::vec(any::<u8>(), 0..5000),
        cut in any::<prop::sample::Index>(),
        index in any::<u64>(),
    ) {
        let cut = cut.index(bytes.len() + 1);
        let mut hasher = ChunkHasher::new(index, MAX_SIZE);
        hasher.update(&bytes[..cut]);
        hasher.update(&bytes[cut..]);
        prop_assert_eq!(hasher.finish(), ChunkHash::of(&bytes, index, MAX_SIZE));
    }
}

/// The fields of an older or newer peer: ignored wherever they stand, and gone when the message is written again.
#[test]
fn unknown_fields_are_ignored_and_not_forwarded() {
    fn check<M: Message>(json: &str) {
        for unknown in ["1", "null", r#""x""#, "[[],{}]", r#"{"a":{"b":[1.5e300,-0]}}"#] {
            let with = json.replacen('{', &format!(r#"{{"from_the_future":{unknown},"#), 1);
            let message: M = decode(M::TYPE, with.as_bytes()).expect(&with);
            let again = encode(&message).expect("a frame");
            assert_eq!(std::str::from_utf8(&again[PREFACE_LEN..]), Ok(json), "{with}");
        }
    }
    for frame_type in FrameType::ALL {
        for_type!(*frame_type, check(smallest(*frame_type)));
    }
    let nested = r#"{"hops":[{"host":"h","port":1,"key":"k"}],"id":"0123456789abcdef","limits":{"silence_ms":1000,"x":2}}"#;
    let open: relay_proto::hop::Open = decode(FrameType::Open, nested.as_bytes()).expect("an open");
    let again = encode(&open).expect("a frame");
    let expected = r#"{"hops":[{"host":"h","port":1}],"id":"0123456789abcdef","limits":{"silence_ms":1000}}"#;
    assert_eq!(std::str::from_utf8(&again[PREFACE_LEN..]), Ok(expected));
}

#[test]
fn payloads_up_to_the_limit_and_no_further() {
    let hello = |len: usize| relay_proto::hop::Hello { agent: "a".repeat(len) };
    let frame_len = |message: &relay_proto::hop::Hello| encode(message).map(|frame| frame.len());
    let around = r#"{"agent":""}"#.len();
    assert_eq!(frame_len(&hello(MAX_PAYLOAD - around)), Ok(PREFACE_LEN + MAX_PAYLOAD));
    assert_eq!(frame_len(&hello(MAX_PAYLOAD - around + 1)), Err(FrameError::TooLong(MAX_PAYLOAD + 1)));
    let most = Preface { frame_type: FrameType::Get, payload_len: MAX_PAYLOAD }.encode();
    assert!(Preface::decode(&most).is_ok());
    let more = Preface { frame_type: FrameType::Get, payload_len: MAX_PAYLOAD + 1 }.encode();
    assert_eq!(Preface::decode(&more), Err(FrameError::TooLong(MAX_PAYLOAD + 1)));
}

/// A relay must be able to pass on any route that it was given, and a client to ask for any name.
#[test]
fn the_largest_requests_fit_a_frame() {
    let host = "h".repeat(relay_proto::limits::MAX_HOST);
    let hop = relay_proto::address::Hop::new(&host, 65535).expect("a hop");
    there_and_back(&relay_proto::hop::Open {
        hops: vec![hop; relay_proto::limits::MAX_HOPS],
        id: relay_proto::hop::ConnectionId::new(u64::MAX),
        limits: relay_proto::hop::ClientLimits::new(std::time::Duration::MAX),
    });
    let name = "\u{1}".repeat(relay_proto::limits::MAX_NAME);
    there_and_back(&relay_proto::file::Stat { name: name.try_into().expect("a name") });
}
