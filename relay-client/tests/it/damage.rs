//! What must be told, and never saved, when an origin or the way to it breaks.

use crate::client::{Ended, Place};
use crate::origin::{Origin, Sample, Visit, head};
use relay_proto::chunk::{CHUNK_LEN, ChunkState, Trailer};
use relay_proto::code::Status;
use relay_proto::file::{Conditions, Head};
use std::sync::Arc;

/// Fetches a file of three chunks and a bit from an origin that goes by `script` behind the request. Nothing may be there then under
/// the final name.
fn check<F, Fut>(script: F, more: &[&str]) -> Ended
where
    F: Fn(Visit, Sample) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let sample = Sample::new(3 * CHUNK_LEN + 9, 7, "v1");
    let script = Arc::new(script);
    let origin = Origin::start(move |mut visit| {
        let (script, sample) = (Arc::clone(&script), sample.clone());
        async move {
            visit.hello().await;
            if visit.request().await.is_some() {
                script(visit, sample).await;
            }
        }
    });
    let place = Place::new();
    let ended = place.fetch("f", origin.port, &[&["--retries", "0"], more].concat());
    assert!(!place.path("f").exists(), "{}", ended.stderr);
    ended
}

fn good_head(sample: &Sample) -> Head {
    head(sample, None, &Conditions::default())
}

#[test]
fn a_damaged_chunk() {
    let ended = check(
        |mut visit, sample| async move {
            visit.head(&good_head(&sample)).await;
            visit.chunk(&sample, 0).await;
            let mut bytes = sample.chunk(1).to_vec();
            bytes[77] ^= 1;
            visit.raw(&bytes).await;
            visit.trailer(&sample, 1).await;
            visit.chunk(&sample, 2).await;
            visit.chunk(&sample, 3).await;
        },
        &[],
    );
    ended.check(7, "chunk 1 (from byte 1048576) arrived damaged");
}

/// Fetching to nowhere is a way to look whether a file arrives whole.
#[test]
fn a_damaged_chunk_on_its_way_to_nowhere() {
    let ended = check(
        |mut visit, sample| async move {
            visit.head(&good_head(&sample)).await;
            visit.chunk(&sample, 0).await;
            visit.raw(&[0; CHUNK_LEN as usize]).await;
            visit.trailer(&sample, 1).await;
            visit.chunk(&sample, 2).await;
            visit.chunk(&sample, 3).await;
        },
        &["-o", "/dev/null"],
    );
    ended.check(7, "chunk 1 (from byte 1048576) arrived damaged");
}

#[test]
fn standard_output_never_gets_a_damaged_chunk() {
    let ended = check(
        |mut visit, sample| async move {
            visit.head(&good_head(&sample)).await;
            visit.chunk(&sample, 0).await;
            visit.raw(&[0; CHUNK_LEN as usize]).await;
            visit.trailer(&sample, 1).await;
            visit.chunk(&sample, 2).await;
        },
        &["-o", "-"],
    );
    ended.check(7, "arrived damaged");
    assert!(ended.stdout == Sample::new(3 * CHUNK_LEN + 9, 7, "v1").chunk(0));
}

#[test]
fn a_file_that_changes_or_cannot_be_read_any_more() {
    for (state, code, text) in
        [(ChunkState::Changed, 7, "changed"), (ChunkState::ReadError, 9, "could not read")]
    {
        let ended = check(
            move |mut visit, sample| async move {
                visit.head(&good_head(&sample)).await;
                visit.chunk(&sample, 0).await;
                visit.raw(sample.chunk(1)).await;
                visit.raw(&Trailer::bad(state).encode()).await;
            },
            &[],
        );
        ended.check(code, text);
    }
}

#[test]
fn silence_after_the_last_hello() {
    let ended = check(
        |mut visit, _| async move {
            // Holds the connection without a byte until the client goes.
            let _ = visit.request().await;
        },
        &["--timeout", "3s"],
    );
    ended.check(6, "no byte in 3 s").check(6, "every hop answers now");
}

#[test]
fn a_chain_cut_in_the_middle_of_a_chunk() {
    let ended = check(
        |mut visit, sample| async move {
            visit.head(&good_head(&sample)).await;
            visit.chunk(&sample, 0).await;
            visit.raw(&sample.chunk(1)[..1000]).await;
        },
        &[],
    );
    ended.check(3, "closed in the middle").check(3, "1.00 MiB of data").check(3, "every hop answers now");
}

#[test]
fn heads_that_lie() {
    let lie = |change: fn(&mut Head), code, text: &str| {
        let ended = check(
            move |mut visit, sample| async move {
                let mut head = good_head(&sample);
                change(&mut head);
                visit.head(&head).await;
                visit.chunk(&sample, 0).await;
            },
            &[],
        );
        ended.check(code, text);
    };
    lie(|head| head.file = None, 9, "without the file's facts");
    lie(|head| head.range = None, 9, "without its range");
    lie(|head| head.range = (0, 5).try_into().ok(), 9, "beyond the end of the file");
    lie(|head| head.range = (1, 4).try_into().ok(), 9, "other chunks than were asked for");
    lie(|head| head.status = 299.try_into().unwrap(), 9, "does not fit the request");
    lie(|head| head.status = 304.try_into().unwrap(), 9, "does not fit the request");
}

#[test]
fn what_the_origin_says_is_cleaned() {
    let ended = check(
        |mut visit, _| async move {
            let message = "gone\u{1b}[2J\u{202e}x".to_owned();
            visit.head(&Head { message, ..Head::only(Status::NOT_FOUND, "") }).await;
        },
        &[],
    );
    ended.check(5, "says hop 1").check(5, "gone [2J x");
    assert!(!ended.stderr.contains('\u{1b}') && !ended.stderr.contains('\u{202e}'));
}

#[test]
fn bytes_that_are_no_frame() {
    let ended = check(|mut visit, _| async move { visit.raw(b"HTTP/1.1 200 OK\r\n\r\n").await }, &[]);
    ended.check(9, "not the first bytes of the relay protocol");
}
