//! The file layer as `docs/protocol.md` tells it, spoken by hand through a relay.

use crate::raw::{End, Raw};
use crate::world::{MIB, World, some_chunks};
use relay_proto::chunk::{AskedRange, ChunkState, TRAILER_LEN, Trailer, chunk_len};
use relay_proto::code::Status;
use relay_proto::digest::{ChunkHash, FileHash};
use relay_proto::file::{
    Conditions, EntryKind, FileFacts, Get, Hashes, Head, List, Page, RequestedName, SizeAndTime, Stat,
};
use relay_proto::frame::encode;
use relay_proto::hop::Hello;
use relay_proto::limits::{MAX_PAGE, MAX_PIPELINED};
use relay_testkit::node::Node;

/// An origin behind one relay, and a pipe to it.
fn pipe(world: &World) -> (Vec<Node>, Raw) {
    let nodes = world.chain(1);
    let mut raw = Raw::open(nodes[0].address(), &[nodes[1].address()]);
    raw.hear::<Hello>();
    raw.hear::<Hello>();
    (nodes, raw)
}

fn name(text: &str) -> RequestedName {
    text.try_into().expect("a name")
}

fn get(text: &str) -> Get {
    Get { name: name(text), range: None, conditions: Conditions::default(), anew: false }
}

fn facts(raw: &mut Raw, text: &str) -> FileFacts {
    raw.say(&Stat { name: name(text) });
    let head: Head = raw.hear();
    assert_eq!((head.status, head.range), (Status::OK, None));
    head.file.expect("facts")
}

/// The chunks that a head announces, each checked against its trailer, in one piece.
fn body(raw: &mut Raw, head: &Head) -> (Vec<u8>, Vec<ChunkHash>) {
    let size = head.file.as_ref().expect("facts").size.bytes();
    let chunks = head.range.expect("a range").chunks();
    let (mut bytes, mut hashes) = (Vec::new(), Vec::new());
    for index in chunks.first()..chunks.end() {
        let chunk = raw.read(usize::try_from(chunk_len(size, index)).expect("small"));
        let trailer = trailer(raw);
        assert_eq!(trailer, Trailer { state: ChunkState::Good, hash: ChunkHash::of(&chunk, index, size) });
        bytes.extend(chunk);
        hashes.push(trailer.hash);
    }
    (bytes, hashes)
}

fn trailer(raw: &mut Raw) -> Trailer {
    let bytes: [u8; TRAILER_LEN] = raw.read(TRAILER_LEN).try_into().expect("33 bytes");
    Trailer::decode(&bytes).expect("a trailer")
}

#[test]
fn whole_files_ranges_and_hashes() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(3));
    let (_nodes, mut raw) = pipe(&world);
    // Twice: the second time the origin knows the hashes already.
    for _ in 0..2 {
        raw.say(&get("myfile"));
        let head: Head = raw.hear();
        assert_eq!(head.status, Status::OK);
        let (got, hashes) = body(&mut raw, &head);
        assert!(got == bytes);
        let whole = ChunkHash::of(&bytes[..0], 0, 0);
        assert_ne!(FileHash::of_chunks(&hashes).as_bytes(), whole.as_bytes());
        for (first, end, from, to) in [
            (0, Some(1), 0, MIB),
            (1, Some(3), MIB, 3 * MIB),
            (3, None, 3 * MIB, bytes.len()),
            (2, Some(99), 2 * MIB, bytes.len()),
        ] {
            raw.say(&Get { range: Some(AskedRange { first, end }), ..get("myfile") });
            let head: Head = raw.hear();
            assert_eq!(head.status, Status::PARTIAL);
            assert!(body(&mut raw, &head).0 == bytes[from..to], "chunks {first} to {end:?}");
        }
        raw.say(&Hashes { name: name("myfile"), range: None, conditions: Conditions::default() });
        assert_eq!(raw.hear::<Head>().status, Status::OK);
        let told: Vec<ChunkHash> = (0..hashes.len()).map(|_| trailer(&mut raw).hash).collect();
        assert_eq!(told, hashes);
    }
    for first in [4, u64::MAX] {
        raw.say(&Get { range: Some(AskedRange { first, end: None }), ..get("myfile") });
        let head: Head = raw.hear();
        assert_eq!((head.status, head.range), (Status::RANGE_NOT_SATISFIABLE, None));
        assert!(head.file.is_some());
    }
}

#[test]
fn an_empty_file() {
    let world = World::new();
    world.offer("empty", 0);
    let (_nodes, mut raw) = pipe(&world);
    raw.say(&get("empty"));
    let head: Head = raw.hear();
    assert_eq!(head.status, Status::OK);
    assert!(head.range.expect("a range").chunks().is_empty());
    raw.say(&Get { range: Some(AskedRange { first: 0, end: None }), ..get("empty") });
    assert_eq!(raw.hear::<Head>().status, Status::RANGE_NOT_SATISFIABLE);
}

#[test]
fn conditions_in_their_order() {
    let world = World::new();
    world.offer("myfile", 1000);
    let (_nodes, mut raw) = pipe(&world);
    let facts = facts(&mut raw, "myfile");
    let tag = Some(facts.entity_tag.clone());
    let other = Some("another".to_owned().try_into().expect("a tag"));
    let same = Some(SizeAndTime { size: facts.size, modified: facts.modified });
    let none = Conditions::default();
    for (conditions, status) in [
        (none.clone(), Status::OK),
        (Conditions { if_match: tag.clone(), ..none.clone() }, Status::OK),
        (Conditions { if_match: other.clone(), ..none.clone() }, Status::PRECONDITION_FAILED),
        (Conditions { if_none_match: tag.clone(), ..none.clone() }, Status::NOT_MODIFIED),
        (Conditions { if_none_match: other.clone(), ..none.clone() }, Status::OK),
        (Conditions { unless_same: same, ..none.clone() }, Status::NOT_MODIFIED),
        (Conditions { if_match: other, if_none_match: tag, unless_same: same }, Status::PRECONDITION_FAILED),
    ] {
        // A range that is not there shows that conditions come first.
        let range = (status != Status::OK).then_some(AskedRange { first: 99, end: None });
        raw.say(&Get { range, conditions: conditions.clone(), ..get("myfile") });
        let head: Head = raw.hear();
        assert_eq!(head.status, status, "{conditions:?}");
        assert_eq!(head.file.as_ref(), Some(&facts));
        if status == Status::OK {
            body(&mut raw, &head);
        }
    }
}

#[test]
fn answers_come_in_the_order_of_the_requests_and_a_refusal_ends_nothing() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(1));
    let (_nodes, mut raw) = pipe(&world);
    let (good, missing) =
        (encode(&get("myfile")).expect("a frame"), encode(&get("missing")).expect("a frame"));
    let requests: Vec<u8> =
        (0..MAX_PIPELINED).flat_map(|n| if n % 2 == 0 { good.clone() } else { missing.clone() }).collect();
    raw.write(&requests);
    raw.end_writing();
    for n in 0..MAX_PIPELINED {
        let head: Head = raw.hear();
        if n % 2 == 0 {
            assert!(body(&mut raw, &head).0 == bytes, "answer {n}");
        } else {
            assert_eq!((head.status, head.file), (Status::NOT_FOUND, None), "answer {n}");
        }
    }
    assert_eq!(raw.rest(), (Vec::new(), End::Orderly), "every answer, then the end");
}

#[test]
fn a_listing_by_pages() {
    let world = World::new();
    for n in 0..2500 {
        std::fs::write(world.served().join(format!("file-{n:04}")), "x").expect("a file");
    }
    world.offer("sub/inside", 3);
    let (_nodes, mut raw) = pipe(&world);
    let (mut after, mut names, mut pages) = (None, Vec::new(), 0);
    loop {
        raw.say(&List { prefix: RequestedName::default(), after, recursive: true });
        assert_eq!(raw.hear::<Head>().status, Status::OK);
        let page: Page = raw.hear();
        assert!(page.entries.len() <= MAX_PAGE);
        names.extend(
            page.entries.into_iter().filter(|e| e.kind == EntryKind::File).map(|e| e.name.to_string()),
        );
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut expected: Vec<String> = (0..2500).map(|n| format!("file-{n:04}")).collect();
    expected.push("sub/inside".into());
    assert_eq!(names, expected);
    assert!(pages >= 3, "{pages} pages");
}
