//! Transfers that survive: what came is kept, found again, and not fetched twice.

use crate::client::{Ended, Place, end, wait_for_file};
use crate::origin::{MODIFIED, Origin, Request, Sample, head};
use relay_proto::chunk::CHUNK_LEN;
use relay_proto::file::Conditions;
use relay_testkit::nobody::Nobody;
use std::fs;
use std::time::{Duration, SystemTime};

const SIZE: u64 = 6 * CHUNK_LEN + 11;

/// An origin whose first connection breaks within chunk `cut`; all others are good.
fn breaking(sample: &Sample, cut: u64) -> Origin {
    let sample = sample.clone();
    Origin::start(move |mut visit| {
        let sample = sample.clone();
        async move {
            visit.hello().await;
            if visit.number > 0 {
                return visit.serve(&sample).await;
            }
            let Some(Request::Get(get)) = visit.request().await else { return };
            visit.head(&head(&sample, get.range, &get.conditions)).await;
            for index in 0..cut {
                visit.chunk(&sample, index).await;
            }
            visit.raw(&sample.chunk(cut)[..77]).await;
        }
    })
}

/// Leaves the first `cut` chunks of `sample` in a place.
fn begun(sample: &Sample, cut: u64) -> Place {
    let place = Place::new();
    place.fetch("f", breaking(sample, cut).port, &["--retries", "0"]).check(3, "closed in the middle");
    assert_eq!(place.names(), ["f.part", "f.part.journal"]);
    place
}

/// The chunks that were asked for with their bytes.
fn fetched(origin: &Origin) -> Vec<(u64, Option<u64>)> {
    let of = |request| match request {
        Request::Get(get) => Some(get.range.map_or((0, None), |range| (range.first, range.end))),
        _ => None,
    };
    origin.requests().into_iter().filter_map(of).collect()
}

#[track_caller]
fn check_whole(place: &Place, sample: &Sample) {
    assert!(place.read("f") == *sample.bytes);
    assert_eq!(place.names(), ["f"]);
}

#[test]
fn a_rerun_fetches_only_what_is_missing() {
    let sample = Sample::new(SIZE, 1, "v1");
    let place = begun(&sample, 4);
    let origin = Origin::good(&sample);
    place.fetch("f", origin.port, &[]).check(0, "of which 4.00 MiB are here").check(0, &sample.b3());
    assert_eq!(fetched(&origin), [(4, Some(7))]);
    check_whole(&place, &sample);
}

#[test]
fn the_same_run_tries_again_and_goes_on() {
    let sample = Sample::new(SIZE, 2, "v1");
    let origin = breaking(&sample, 3);
    let place = Place::new();
    place.fetch("f", origin.port, &[]).check(0, "trying again in 1s (1 of 5)").check(0, &sample.b3());
    assert_eq!(fetched(&origin), [(0, Some(8)), (3, Some(7))]);
    check_whole(&place, &sample);
}

#[test]
fn standard_output_goes_on_where_it_broke_off() {
    let sample = Sample::new(SIZE, 3, "v1");
    let origin = breaking(&sample, 3);
    let ended = Place::new().fetch("f", origin.port, &["-o", "-"]);
    ended.check(0, "trying again");
    assert!(ended.stdout == *sample.bytes);
}

#[test]
fn standard_output_cannot_go_on_with_another_version() {
    let sample = Sample::new(SIZE, 3, "v1");
    let ended = stream_of_two_versions(&sample, sample.changed(0, "v2"));
    ended.check(7, "the file changed at the origin");
}

#[test]
fn standard_output_goes_on_with_another_version_that_begins_the_same() {
    let sample = Sample::new(SIZE, 3, "v1");
    let other = sample.changed(1, "v2");
    let ended = stream_of_two_versions(&sample, other.clone());
    ended.check(0, &other.b3());
    assert!(ended.stdout == *other.bytes);
}

/// Fetches to standard output what breaks off after one chunk of `sample` and goes on as `other`.
fn stream_of_two_versions(sample: &Sample, other: Sample) -> Ended {
    let sample = sample.clone();
    let origin = Origin::start(move |mut visit| {
        let (sample, other) = (sample.clone(), other.clone());
        async move {
            visit.hello().await;
            if visit.number > 0 {
                return visit.serve(&other).await;
            }
            visit.request().await.unwrap();
            visit.head(&head(&sample, None, &Conditions::default())).await;
            visit.chunk(&sample, 0).await;
        }
    });
    Place::new().fetch("f", origin.port, &["-o", "-"])
}

#[test]
fn what_was_spoilt_on_the_disk_is_fetched_again() {
    let sample = Sample::new(SIZE, 4, "v1");
    let place = begun(&sample, 4);
    let mut bytes = place.read("f.part");
    bytes[CHUNK_LEN as usize + 9] ^= 1;
    fs::write(place.path("f.part"), bytes).unwrap();
    let origin = Origin::good(&sample);
    place.fetch("f", origin.port, &[]).check(0, "verified");
    assert_eq!(fetched(&origin), [(1, Some(2)), (4, Some(7))]);
    check_whole(&place, &sample);
}

#[test]
fn a_changed_file_keeps_the_chunks_that_still_fit() {
    let sample = Sample::new(SIZE, 5, "v1");
    let place = begun(&sample, 4);
    let changed = sample.changed(2, "v2");
    let origin = Origin::good(&changed);
    place
        .fetch("f", origin.port, &[])
        .check(0, "another version")
        .check(0, "3.00 MiB of 6.00 MiB are here already");
    assert_eq!(fetched(&origin), [(4, Some(7)), (2, Some(3)), (4, Some(7))]);
    check_whole(&place, &changed);
}

#[test]
fn another_origin_with_the_same_file_goes_on() {
    let sample = Sample::new(SIZE, 6, "v1");
    let place = begun(&sample, 4);
    let elsewhere = Sample { tag: "elsewhere", ..sample.clone() };
    let origin = Origin::good(&elsewhere);
    place.fetch("f", origin.port, &[]).check(0, "4.00 MiB of 6.00 MiB are here already");
    check_whole(&place, &sample);
}

#[test]
fn an_old_version_of_the_target_is_a_source() {
    let sample = Sample::new(SIZE, 7, "v1");
    let place = Place::new();
    fs::write(place.path("f"), &*sample.changed(3, "").bytes).unwrap();
    let origin = Origin::good(&sample);
    place.fetch("f", origin.port, &[]).check(0, "verified");
    assert_eq!(fetched(&origin), [(3, Some(4))]);
    check_whole(&place, &sample);
}

#[test]
fn a_longer_version_keeps_what_the_shorter_had() {
    let sample = Sample::new(SIZE, 8, "v1");
    let place = Place::new();
    fs::write(place.path("f"), &sample.bytes[..4 * CHUNK_LEN as usize + 3]).unwrap();
    let origin = Origin::good(&sample);
    place.fetch("f", origin.port, &[]).check(0, "verified");
    assert_eq!(fetched(&origin), [(4, Some(7))]);
    check_whole(&place, &sample);
}

#[test]
fn comparing_by_hash() {
    for size in [0, 5, SIZE] {
        let sample = Sample::new(size, 9, "v1");
        let place = Place::new();
        fs::write(place.path("f"), &*sample.bytes).unwrap();
        let origin = Origin::good(&sample);
        place.fetch("f", origin.port, &["--checksum"]).check(0, "(by hash)").check(0, &sample.b3());
        assert!(fetched(&origin).is_empty());
        let modified = fs::metadata(place.path("f")).unwrap().modified().unwrap();
        assert_eq!(modified, SystemTime::UNIX_EPOCH + Duration::new(MODIFIED as u64, 5));
        check_whole(&place, &sample);
    }
}

#[test]
fn a_local_copy_with_the_expected_hash_is_enough() {
    let sample = Sample::new(SIZE, 10, "v1");
    let place = Place::new();
    let expected = format!("b3:{}", sample.b3());
    fs::write(place.path("f"), &*sample.changed(0, "").bytes).unwrap();
    let origin = Origin::good(&sample);
    place.fetch("f", origin.port, &["--expect", &expected]).check(0, "verified");
    place.fetch("f", origin.port, &["--expect", &expected]).check(0, "nothing to fetch");
    assert_eq!(fetched(&origin), [(0, Some(1))]);
}

#[test]
fn forged_chunks_of_an_earlier_run_are_replaced() {
    let sample = Sample::new(SIZE, 13, "v1");
    let expected = format!("b3:{}", sample.b3());
    let origin = Origin::good(&sample);
    // Part of it came over a chain that forged a chunk, and the same run replaces it.
    let place = begun(&sample.changed(2, "v1"), 4);
    place.fetch("f", origin.port, &["--expect", &expected]).check(0, "comparing it with the origin's hashes");
    assert_eq!(fetched(&origin), [(4, Some(7)), (2, Some(3))]);
    check_whole(&place, &sample);
}

#[test]
fn a_whole_part_file_with_forged_chunks_is_mended() {
    let sample = Sample::new(SIZE, 14, "v1");
    let expected = format!("b3:{}", sample.b3());
    let (forging, place) = (Origin::good(&sample.changed(2, "v1")), Place::new());
    // As long as the forger is on the way, nothing gets the final name, and the run ends.
    for _ in 0..2 {
        place.fetch("f", forging.port, &["--expect", &expected]).check(7, "delete f.part to start afresh");
        assert_eq!(place.names(), ["f.part", "f.part.journal"]);
    }
    let origin = Origin::good(&sample);
    place.fetch("f", origin.port, &["--expect", &expected]).check(0, "verified");
    assert_eq!(fetched(&origin), [(2, Some(3))]);
    check_whole(&place, &sample);
}

#[test]
fn a_second_client_says_so_and_stops() {
    let sample = Sample::new(SIZE, 11, "v1");
    let origin = Origin::start(move |mut visit| {
        let sample = sample.clone();
        async move {
            visit.hello().await;
            visit.request().await.unwrap();
            visit.head(&head(&sample, None, &Conditions::default())).await;
            visit.chunk(&sample, 0).await;
            // Until the client goes.
            let _ = visit.request().await;
        }
    });
    let place = Place::new();
    let via = format!("127.0.0.1:{}", origin.port);
    let mut first = place.command(&["--get", "f", "--via", &via, "--timeout", "1h"]).spawn().unwrap();
    wait_for_file(&place.path("f.part"), CHUNK_LEN);
    place.fetch("f", origin.port, &[]).check(8, "another client is writing f.part");
    first.kill().unwrap();
    end(first);
}

#[test]
fn a_killed_client_loses_little() {
    let sample = Sample::new(64 * CHUNK_LEN, 12, "v1");
    let stalling = {
        let sample = sample.clone();
        Origin::start(move |mut visit| {
            let sample = sample.clone();
            async move {
                visit.hello().await;
                while let Some(Request::Get(get)) = visit.request().await {
                    let head = head(&sample, get.range, &get.conditions);
                    visit.head(&head).await;
                    let chunks = head.range.unwrap().chunks();
                    for index in chunks.first()..chunks.end() {
                        // The rest never comes, so that the kill is in the middle.
                        if index >= 4 {
                            return visit.gone().await;
                        }
                        visit.chunk(&sample, index).await;
                    }
                }
            }
        })
    };
    let place = Place::new();
    let via = format!("127.0.0.1:{}", stalling.port);
    let mut child = place.command(&["--get", "f", "--via", &via, "--timeout", "1h"]).spawn().unwrap();
    wait_for_file(&place.path("f.part.journal"), 1);
    child.kill().unwrap();
    end(child);
    let origin = Origin::good(&sample);
    place.fetch("f", origin.port, &[]).check(0, "verified");
    assert!(fetched(&origin)[0].0 > 0, "{:?}", fetched(&origin));
    check_whole(&place, &sample);
}

#[test]
fn a_chain_that_never_stood_is_tried_again_only_when_asked() {
    let nobody = Nobody::new();
    let port = nobody.address().port();
    let place = Place::new();
    let ended = place.fetch("f", port, &[]);
    ended.check(3, "connection refused");
    assert!(!ended.stderr.contains("trying again"), "{}", ended.stderr);
    place.fetch("f", port, &["--retries", "1"]).check(3, "trying again in 1s (1 of 1)");
    place.fetch("f", port, &["--retries", "9", "--retry-max-time", "500ms"]).check(3, "connection refused");
}
