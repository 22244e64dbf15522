//! The vectors of `docs/protocol.md`, checked in both directions.

use crate::messages::for_type;
use relay_proto::chunk::{CHUNK_LEN, TRAILER_LEN, Trailer};
use relay_proto::code::FailureCode;
use relay_proto::digest::{ChunkHash, FileHash};
use relay_proto::file::Head;
use relay_proto::frame::{FrameError, FrameType, Message, Preface, decode, encode};
use relay_proto::limits::PREFACE_LEN;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::Path;

/// A fenced block: the words behind its fence, and its lines.
struct Block {
    words: Vec<String>,
    lines: Vec<String>,
}

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    fs::read_to_string(path).expect("the specification")
}

/// The blocks whose first word is `kind`. There must be some, or a test would check nothing.
fn blocks(kind: &str) -> Vec<Block> {
    let document = document();
    let mut lines = document.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```").filter(|info| !info.is_empty()) else { continue };
        let content: Vec<String> =
            lines.by_ref().take_while(|line| *line != "```").map(String::from).collect();
        let words: Vec<String> = info.split(' ').map(String::from).collect();
        if words.first().is_some_and(|word| word == kind) {
            found.push(Block { words, lines: content });
        }
    }
    assert!(!found.is_empty(), "no {kind} in the specification");
    found
}

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect()
}

fn type_named(name: &str) -> FrameType {
    *FrameType::ALL.iter().find(|t| t.name() == name).unwrap_or_else(|| panic!("no type {name}"))
}

fn split(frame: &[u8]) -> Result<(Preface, &[u8]), FrameError> {
    match frame.split_first_chunk::<PREFACE_LEN>() {
        Some((preface, payload)) => Ok((Preface::decode(preface)?, payload)),
        None => Preface::check_start(frame).map(|()| panic!("a vector of less than a preface")),
    }
}

#[test]
fn messages_in_both_directions() {
    fn check<M: Message + PartialEq + Debug>(name: &str, frame: &[u8], json: &str) {
        let (preface, payload) = split(frame).expect(name);
        assert_eq!((preface.frame_type, preface.payload_len), (M::TYPE, payload.len()), "{name}");
        assert_eq!(std::str::from_utf8(payload), Ok(json), "{name}");
        let from_bytes: M = decode(preface.frame_type, payload).expect(name);
        let from_json: M = serde_json::from_str(json).expect(name);
        assert_eq!(from_bytes, from_json, "{name}");
        assert_eq!(encode(&from_bytes).expect(name), frame, "{name}");
    }
    let mut seen = BTreeSet::new();
    for block in blocks("vector") {
        let [_, type_name, name] = block.words.as_slice() else { panic!("vector TYPE NAME") };
        let (json, frame) = block.lines.split_last().expect("hex and JSON");
        for_type!(type_named(type_name), check(name, &hex(&frame.join(" ")), json));
        seen.insert(type_name.clone());
    }
    let all: BTreeSet<String> = FrameType::ALL.iter().map(|t| String::from(t.name())).collect();
    assert_eq!(seen, all, "each type has a vector");
}

#[test]
fn what_must_be_refused() {
    fn check<M: Message>(payload: &[u8]) -> FrameError {
        decode::<M>(M::TYPE, payload).err().expect("refused")
    }
    for block in blocks("refused") {
        let name = block.words.get(1).expect("a name");
        let (error, frame) = block.lines.split_last().expect("hex and error");
        let expected = error.strip_prefix("error: ").expect("an error");
        let frame = hex(&frame.join(" "));
        let error = match split(&frame) {
            Err(error) => error,
            Ok((preface, payload)) => {
                assert_eq!(preface.payload_len, payload.len(), "{name}");
                for_type!(preface.frame_type, check(payload))
            }
        };
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }
}

#[test]
fn trailers_in_both_directions() {
    for block in blocks("trailer") {
        let bytes: [u8; TRAILER_LEN] = hex(&block.lines.join(" ")).try_into().expect("33 bytes");
        let trailer = Trailer::decode(&bytes).expect("a trailer");
        assert_eq!(trailer.encode(), bytes);
    }
}

#[test]
fn hashes_of_chunks_and_files() {
    for block in blocks("hashes") {
        let fields: Vec<Vec<&str>> = block.lines.iter().map(|line| line.split(' ').collect()).collect();
        let (mut size, mut hashes) = (0, Vec::new());
        for field in fields {
            match field.as_slice() {
                ["size", bytes] => size = bytes.parse().expect("a size"),
                ["chunk", index, hash] => {
                    let index: u64 = index.parse().expect("an index");
                    let start = index * CHUNK_LEN;
                    let chunk: Vec<u8> =
                        (start..size.min(start + CHUNK_LEN)).map(|j| (j % 251) as u8).collect();
                    hashes.push(ChunkHash::of(&chunk, index, size));
                    assert_eq!(
                        format!("{:?}", hashes[hashes.len() - 1]),
                        *hash,
                        "chunk {index} of {size} bytes"
                    );
                }
                ["file", hash] => assert_eq!(FileHash::of_chunks(&hashes).to_string(), *hash, "{size} bytes"),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The bytes of one connection in one direction of the worked exchange.
fn said(connection: &str) -> Vec<u8> {
    let block = blocks("exchange").remove(0);
    let lines = block.lines.iter().filter_map(|line| line.strip_prefix(connection));
    hex(&lines.collect::<Vec<_>>().join(" "))
}

/// Takes the next frame off `bytes`.
fn next<M: Message>(bytes: &mut &[u8]) -> M {
    let (preface, rest) = split(bytes).expect("a frame");
    let (payload, rest) = rest.split_at(preface.payload_len);
    *bytes = rest;
    decode(preface.frame_type, payload).expect("the message that comes here")
}

#[test]
fn the_worked_exchange() {
    use relay_proto::file::Get;
    use relay_proto::hop::{Hello, Open};
    let (up_1, up_2, down_1, down_2) = (said("1>"), said("2>"), said("1<"), said("2<"));
    let (mut up_1, mut up_2, mut down_1, mut down_2) = (&*up_1, &*up_2, &*down_1, &*down_2);
    let (first, second): (Open, Open) = (next(&mut up_1), next(&mut up_2));
    assert_eq!((first.hops.len(), second.hops.len(), first.id), (1, 0, second.id));
    next::<Hello>(&mut down_1);
    assert_eq!(down_1, down_2, "behind its own hello a relay passes on what the origin says");
    assert_eq!(up_1, up_2, "behind the open a relay passes on what the client says");
    next::<Get>(&mut up_2);
    assert!(up_2.is_empty());
    next::<Hello>(&mut down_2);
    let head: Head = next(&mut down_2);
    let size = head.file.expect("facts").size.bytes();
    let (bytes, trailer) = down_2.split_at(usize::try_from(size).expect("small"));
    let trailer = Trailer::decode(trailer.try_into().expect("a trailer")).expect("a trailer");
    assert_eq!(trailer.hash, ChunkHash::of(bytes, 0, size));
}

/// The specification names every type with its letter and every failure code; nothing is left for the reader to guess.
#[test]
fn tables_are_complete() {
    let document = document();
    for t in FrameType::ALL {
        let row = format!("| `{}` | `{:02x}` {} |", t.name(), t.byte(), char::from(t.byte()));
        assert!(document.contains(&row), "{row}");
    }
    for code in FailureCode::ALL {
        assert!(document.contains(&format!("| `{}` |", code.as_str())), "{}", code.as_str());
    }
}
