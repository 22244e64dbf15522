//! Microbenchmarks of what every transfer does: reading messages of both layers, route files, and hashing chunks.
//!
//! `cargo bench -p relay-bench` runs them; what each costs a transfer is in `docs/performance.md`.
#![allow(
    missing_docs,
    clippy::expect_used,
    reason = "criterion's macros, and a benchmark may stop at a surprise"
)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use relay_proto::address::Hop;
use relay_proto::chunk::{CHUNK_LEN, ChunkState, TRAILER_LEN, Trailer};
use relay_proto::digest::{ChunkHash, FileHash};
use relay_proto::file::{Conditions, Get, RequestedName};
use relay_proto::frame::{Message, Preface, decode, encode};
use relay_proto::hop::{ClientLimits, ConnectionId, Hello, Open};
use relay_proto::limits::PREFACE_LEN;
use relay_proto::route::Route;

fn hops(count: u16) -> Vec<Hop> {
    (0..count).map(|i| Hop::new(&format!("host{i}.example"), 11_000 + i).expect("a hop")).collect()
}

fn read<M: Message>(frame: &[u8]) -> M {
    let (preface, payload) = frame.split_first_chunk::<PREFACE_LEN>().expect("a preface");
    let preface = Preface::decode(preface).expect("a preface");
    decode(preface.frame_type, payload).expect("a message")
}

fn messages(c: &mut Criterion) {
    let mut group = c.benchmark_group("messages");
    for count in [1, 10, 63] {
        let limits = ClientLimits::new(Duration::from_secs(10));
        let open = Open { hops: hops(count), id: ConnectionId::new(7), limits };
        let frame = encode(&open).expect("a frame");
        group.bench_function(format!("open of {count} hops, read"), |b| {
            b.iter(|| read::<Open>(black_box(&frame)));
        });
        group.bench_function(format!("open of {count} hops, written"), |b| {
            b.iter(|| encode(black_box(&open)));
        });
    }
    let hello = encode(&Hello { agent: "relay-node/0.1.0".into() }).expect("a frame");
    group.bench_function("hello, read", |b| b.iter(|| read::<Hello>(black_box(&hello))));
    let name = RequestedName::try_from("a/name/of/some/length.bin").expect("a name");
    let get =
        encode(&Get { name, range: None, conditions: Conditions::default(), anew: false }).expect("a frame");
    group.bench_function("get, read", |b| b.iter(|| read::<Get>(black_box(&get))));
    let trailer: [u8; TRAILER_LEN] =
        Trailer { state: ChunkState::Good, hash: ChunkHash::from_bytes([7; 32]) }.encode();
    group.bench_function("trailer, read", |b| b.iter(|| Trailer::decode(black_box(&trailer))));
    group.finish();
}

fn routes(c: &mut Criterion) {
    let mut group = c.benchmark_group("route files");
    for count in [1, 10, 64] {
        let lines: String =
            hops(count).iter().map(|hop| format!("{} {}\n", hop.host.as_str(), hop.port)).collect();
        let text = format!("some/file.bin\n{lines}");
        group.bench_function(format!("text of {count} hops"), |b| {
            b.iter(|| Route::parse(black_box(text.as_bytes())));
        });
        let route = Route::parse(text.as_bytes()).expect("a route");
        let json = serde_json::to_vec(&route).expect("JSON");
        group.bench_function(format!("JSON of {count} hops"), |b| b.iter(|| Route::parse(black_box(&json))));
    }
    group.finish();
}

fn hashing(c: &mut Criterion) {
    let mut group = c.benchmark_group("hashing");
    let size = 16 * CHUNK_LEN;
    let chunk = vec![0x5a; usize::try_from(CHUNK_LEN).expect("1 MiB")];
    group.throughput(Throughput::Bytes(CHUNK_LEN));
    group.bench_function("a chunk", |b| b.iter(|| ChunkHash::of(black_box(&chunk), 3, size)));
    let hashes: Vec<ChunkHash> =
        (0..1024).map(|i| ChunkHash::of(&chunk[..1000], i, 1024 * CHUNK_LEN)).collect();
    group.throughput(Throughput::Elements(1024));
    group.bench_function("1,024 chunk hashes into the file's", |b| {
        b.iter(|| FileHash::of_chunks(black_box(&hashes)));
    });
    group.finish();
}

/// Enough for figures that differ by a few percent, and all of them within a minute or two.
fn bounded() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2))
}

criterion_group!(name = benches; config = bounded(); targets = messages, routes, hashing);
criterion_main!(benches);
