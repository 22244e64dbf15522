//! What a download's journal says, after a power cut or somebody else has been at it: only chunks of the file, each once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_client::journal::Journal;
use relay_proto::chunk::chunk_count;
use std::cell::RefCell;
use std::io::{Seek, Write};

thread_local! {
    static FILE: RefCell<tempfile::NamedTempFile> = RefCell::new(tempfile::NamedTempFile::new().expect("a file"));
}

fuzz_target!(|bytes: &[u8]| {
    FILE.with_borrow_mut(|file| {
        file.rewind().expect("the start");
        file.write_all(bytes).expect("written");
        file.as_file().set_len(bytes.len() as u64).expect("cut");
        if let Some(held) = Journal::read(file.path()) {
            let count = chunk_count(held.file.size.bytes());
            assert!(held.chunks.iter().all(|(index, _)| *index < count));
            assert!(held.chunks.windows(2).all(|pair| pair[0].0 < pair[1].0), "each once, in order");
        }
    });
});
