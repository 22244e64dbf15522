//! A stream of frames from a hostile peer. However it is cut into pieces, it reads as the same frames and ends with the same
//! error, and what follows a frame stays in the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_chain::frames::{Frame, read_frame};
use tokio::io::AsyncReadExt;

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (left, right) = bytes.split_at(usize::from(cut).min(bytes.len()));
        assert_eq!(all(bytes).await, all(left.chain(right)).await);
    });
});

async fn all(mut stream: impl tokio::io::AsyncRead + Unpin) -> (Vec<Frame>, String) {
    let mut frames = Vec::new();
    loop {
        match read_frame(&mut stream).await {
            Ok(frame) => frames.push(frame),
            Err(error) => return (frames, error.to_string()),
        }
    }
}
