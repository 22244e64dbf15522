//! A client that reads the answers of a hostile origin: heads, pages, chunks and trailers, as the heads announce them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_chain::requests::{Answers, Body};
use relay_proto::chunk::CHUNK_LEN;
use std::time::Duration;

fuzz_target!(|input: (u8, &[u8])| {
    let (what, bytes) = input;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(read(what, bytes));
});

/// Reads until the bytes end or are refused.
async fn read(what: u8, bytes: &[u8]) {
    let mut answers = Answers::new(bytes, Duration::from_secs(3600));
    let mut chunk = Vec::new();
    while let Ok(head) = answers.head().await {
        if !head.status.is_success() {
            continue;
        }
        if what.is_multiple_of(3) {
            let Ok(page) = answers.page().await else { return };
            assert!(page.entries.len() <= relay_proto::limits::MAX_PAGE);
            continue;
        }
        let Ok(body) = Body::of(&head) else { return };
        for index in body.chunks.first()..body.chunks.end() {
            chunk.resize(body.chunk_len(index), 0);
            assert!(
                !chunk.is_empty() && chunk.len() as u64 <= CHUNK_LEN,
                "a chunk within the file has bytes"
            );
            let hash = match what % 3 {
                1 => answers.chunk(&mut chunk, |_| {}).await,
                _ => answers.hash().await,
            };
            if hash.is_err() {
                return;
            }
        }
    }
}
