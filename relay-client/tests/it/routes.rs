//! Several routes and connections, each of which does what a chain can do to it, at the moment where it matters.

use crate::client::{Ended, Place};
use crate::origin::{Origin, Request, Sample, Visit, head};
use relay_chain::frames::{read_frame, write_message};
use relay_proto::chunk::{CHUNK_LEN, ChunkState, Trailer, chunk_count};
use relay_proto::code::{FailureCode, Status};
use relay_proto::file::{Conditions, Head, Size};
use relay_proto::hop::Failed;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::timeout;

/// Fetches `f` over routes of one hop each.
fn fetch(place: &Place, origins: &[&Origin], more: &[&str]) -> Ended {
    let routes: Vec<String> =
        origins.iter().map(|origin| format!("f\n127.0.0.1:{}\n", origin.port)).collect();
    fs::write(place.path("routes.txt"), routes.join("or\n")).unwrap();
    place.run(&[&["routes.txt"], more].concat())
}

#[track_caller]
fn check_saved(place: &Place, sample: &Sample) {
    assert!(place.read("f") == *sample.bytes);
    assert!(!place.names().iter().any(|name| name.contains(".part")), "{:?}", place.names());
}

/// What tests wait for: a number that grows.
#[derive(Clone)]
struct Count(watch::Sender<usize>);

impl Count {
    fn new() -> Count {
        Count(watch::Sender::new(0))
    }

    fn add(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    async fn reach(&self, wanted: usize) {
        self.0.subscribe().wait_for(|count| *count >= wanted).await.unwrap();
    }
}

/// The head of `sample`'s answer to a request, with another size.
fn head_of_size(sample: &Sample, request: &Request, size: u64) -> Head {
    let Request::Get(get) = request else { panic!("not a request for chunks") };
    let mut head = head(sample, get.range, &get.conditions);
    head.file.as_mut().unwrap().size = Size::try_from(size).unwrap();
    head
}

/// How an origin, or the way to it, lets a connection not in.
#[derive(Debug, Clone)]
enum Refusal {
    Closes,
    Fails(FailureCode),
    Says(Head),
}

impl Refusal {
    async fn play(&self, visit: &mut Visit) {
        match self {
            Refusal::Fails(code) => {
                read_frame(&mut visit.stream).await.unwrap();
                write_message(&mut visit.stream, &Failed::new(*code, None, "")).await.unwrap();
            }
            Refusal::Says(head) => {
                visit.hello().await;
                visit.request().await.unwrap();
                visit.head(head).await;
            }
            Refusal::Closes => {}
        }
        visit.stream.shutdown().await.unwrap();
        visit.gone().await;
    }
}

#[test]
fn connections_that_are_not_let_in_cost_nothing() {
    let sample = Sample::new(30 * CHUNK_LEN + 3, 21, "v1");
    let says = |other: &Sample| Head { file: Some(other.facts()), ..Head::only(Status::OK, "") };
    for refusal in [
        Refusal::Closes,
        Refusal::Fails(FailureCode::Busy),
        Refusal::Fails(FailureCode::Denied),
        Refusal::Says(Head::only(Status::NOT_FOUND, "")),
        Refusal::Says(says(&Sample { tag: "v2", ..sample.clone() })),
        Refusal::Says(says(&Sample::new(5, 1, "v3"))),
    ] {
        let (served, refused, refuses) = (sample.clone(), Count::new(), refusal.clone());
        let origin = Origin::start(move |mut visit| {
            let (sample, refused, refusal) = (served.clone(), refused.clone(), refuses.clone());
            async move {
                if visit.number > 0 {
                    refusal.play(&mut visit).await;
                    return refused.add();
                }
                visit.hello().await;
                let request = visit.request().await.unwrap();
                visit.head(&head_of_size(&sample, &request, sample.size())).await;
                // Nothing comes before all others were refused.
                refused.reach(3).await;
                for index in 0..8 {
                    visit.chunk(&sample, index).await;
                }
                visit.serve(&sample).await;
            }
        });
        let place = Place::new();
        let ended = place.fetch("f", origin.port, &["--retries", "0", "--connections", "4"]);
        assert_eq!(ended.code, Some(0), "{refusal:?}: {}", ended.stderr);
        check_saved(&place, &sample);
    }
}

/// The first head says another size than the file has, and no hash covers heads.
#[test]
fn a_damaged_first_head_costs_no_route() {
    // More than are asked for at first.
    let sample = Sample::new(12 * CHUNK_LEN + 3, 22, "v1");
    let size = sample.size();
    let all_that_came = 8 * CHUNK_LEN;
    let wrongs = [size + 7, size + CHUNK_LEN, size - 1, size - CHUNK_LEN, all_that_came];
    // Side by side, for each has to pause now and then.
    thread::scope(|scope| {
        for wrong in wrongs {
            let sample = &sample;
            scope.spawn(move || by_one_route(sample, wrong));
            for tag in [sample.tag, "elsewhere"] {
                let other = Sample { tag, ..sample.clone() };
                scope.spawn(move || by_another_route(sample, &other, wrong));
            }
        }
    });
}

#[test]
fn a_damaged_head_of_a_small_file_is_asked_for_again() {
    let sample = Sample::new(3 * CHUNK_LEN + 9, 27, "v1");
    for wrong in [sample.size() - 1, sample.size() + 1] {
        let place = Place::new();
        place.fetch("f", damaging(&sample, wrong, None).port, &[]).check(0, &sample.b3());
        check_saved(&place, &sample);
    }
}

/// By one route, which is good from then on, into a file and a stream.
fn by_one_route(sample: &Sample, wrong: u64) {
    let (origin, place) = (damaging(sample, wrong, None), Place::new());
    place.fetch("f", origin.port, &[]).check(0, &sample.b3());
    check_saved(&place, sample);
    let began = fetched(&origin).iter().filter(|first| **first == 0).count();
    assert_eq!(began, 1, "what was good was not kept: {:?}", fetched(&origin));
    let ended = place.fetch("f", damaging(sample, wrong, None).port, &["-o", "-"]);
    ended.check(0, &sample.b3());
    assert!(ended.stdout == *sample.bytes);
}

/// By one route that is good no more, while another one is.
fn by_another_route(sample: &Sample, other: &Sample, wrong: u64) {
    let (seen, place) = (Count::new(), Place::new());
    let (bad, good) = (damaging(sample, wrong, Some(seen.clone())), announced(other, seen));
    fetch(&place, &[&bad, &good], &[]).check(0, &sample.b3());
    check_saved(&place, sample);
}

/// An origin whose first head has a wrong size. With `seen` it breaks off after one chunk, once another origin was seen, and lets nobody
/// in any more.
fn damaging(sample: &Sample, wrong: u64, seen: Option<Count>) -> Origin {
    let sample = sample.clone();
    Origin::start(move |mut visit| {
        let (sample, seen) = (sample.clone(), seen.clone());
        async move {
            if visit.number > 0 && seen.is_some() {
                return;
            }
            visit.hello().await;
            if visit.number == 0 {
                let request = visit.request().await.unwrap();
                visit.head(&head_of_size(&sample, &request, wrong)).await;
                if let Some(seen) = seen {
                    visit.chunk(&sample, 0).await;
                    return seen.reach(1).await;
                }
                for index in 0..chunk_count(sample.size()).min(8) {
                    visit.chunk(&sample, index).await;
                }
            }
            visit.serve(&sample).await;
        }
    })
}

/// A good origin that counts the connections that the client has ended.
fn announced(sample: &Sample, ended: Count) -> Origin {
    let sample = sample.clone();
    Origin::start(move |mut visit| {
        let (sample, ended) = (sample.clone(), ended.clone());
        async move {
            visit.hello().await;
            visit.serve(&sample).await;
            ended.add();
        }
    })
}

/// Where each request for chunks began.
fn fetched(origin: &Origin) -> Vec<u64> {
    let first = |request| match request {
        Request::Get(get) => Some(get.range.map_or(0, |range| range.first)),
        _ => None,
    };
    origin.requests().into_iter().filter_map(first).collect()
}

/// What becomes of the connection over which the first version comes while the file is replaced.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    /// The origin had it open, and goes on.
    GoesOn,
    Breaks,
    /// Within a body.
    SaysChanged,
    /// At the next request.
    HasAnother,
}

#[test]
fn a_file_that_is_replaced_on_the_way_is_never_a_mixture() {
    let old = Sample::new(20 * CHUNK_LEN + 3, 23, "v1");
    for len in [20 * CHUNK_LEN + 3, 9 * CHUNK_LEN, 24 * CHUNK_LEN + 5] {
        let new = Sample::new(len, 24, "v2");
        for then in [Then::GoesOn, Then::Breaks, Then::SaysChanged, Then::HasAnother] {
            let (versions, ended) = ((old.clone(), new.clone()), Count::new());
            let origin = Origin::start(move |mut visit| {
                let ((old, new), ended) = (versions.clone(), ended.clone());
                async move {
                    visit.hello().await;
                    if visit.number == 0 {
                        replaced(&mut visit, &old, &new, then, &ended).await;
                    } else {
                        visit.serve(&new).await;
                        ended.add();
                    }
                }
            });
            let place = Place::new();
            let ended = place.fetch("f", origin.port, &["--connections", "3"]);
            assert_eq!(ended.code, Some(0), "{then:?}: {}", ended.stderr);
            let is_old = then == Then::GoesOn;
            check_saved(&place, if is_old { &old } else { &new });
            assert_eq!(
                ended.stderr.contains("changed at the origin"),
                matches!(then, Then::SaysChanged | Then::HasAnother),
                "{}",
                ended.stderr
            );
            assert_eq!(ended.stderr.contains("another version"), !is_old, "{}", ended.stderr);
        }
    }
}

async fn replaced(visit: &mut Visit, old: &Sample, new: &Sample, then: Then, ended: &Count) {
    let request = visit.request().await.unwrap();
    visit.head(&head_of_size(old, &request, old.size())).await;
    // Another connection has found the new version by then. After a quick first chunk the client would want no other.
    ended.reach(1).await;
    visit.chunk(old, 0).await;
    visit.chunk(old, 1).await;
    match then {
        Then::Breaks => return,
        Then::SaysChanged => {
            visit.raw(new.chunk(2)).await;
            visit.raw(&Trailer::bad(ChunkState::Changed).encode()).await;
            return visit.gone().await;
        }
        Then::GoesOn | Then::HasAnother => {}
    }
    for index in 2..8 {
        visit.chunk(old, index).await;
    }
    visit.serve(if then == Then::GoesOn { old } else { new }).await;
}

/// The hashes of the first origin do not come, so the other one's chunks cannot be checked; the first one goes on alone.
#[test]
fn without_the_first_origins_hashes_its_own_route_goes_on() {
    let sample = Sample::new(20 * CHUNK_LEN + 3, 25, "v1");
    let (served, asked) = (sample.clone(), Count::new());
    let first = Origin::start(move |mut visit| {
        let (sample, asked) = (served.clone(), asked.clone());
        async move {
            visit.hello().await;
            let request = visit.request().await.unwrap();
            if matches!(request, Request::Hashes(_)) {
                return asked.add();
            }
            visit.head(&head_of_size(&sample, &request, sample.size())).await;
            asked.reach(1).await;
            for index in 0..8 {
                visit.chunk(&sample, index).await;
            }
            visit.serve(&sample).await;
        }
    });
    let second = Origin::good(&Sample { tag: "elsewhere", ..sample.clone() });
    let place = Place::new();
    fetch(&place, &[&first, &second], &["--retries", "0"]).check(0, &sample.b3());
    check_saved(&place, &sample);
    assert!(fetched(&second).is_empty(), "chunks that could not be checked were asked for");
}

/// However small the pieces are that are missing.
#[test]
fn no_more_than_8_requests_are_ahead_of_their_answers() {
    let sample = Sample::new(40 * CHUNK_LEN, 26, "v1");
    let place = Place::new();
    let mut old = sample.clone();
    (0..20).for_each(|index| old = old.changed(2 * index, ""));
    fs::write(place.path("f"), &*old.bytes).unwrap();
    let (served, most) = (sample.clone(), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let origin = Origin::start(move |mut visit| {
        let (sample, seen) = (served.clone(), Arc::clone(&seen));
        async move {
            visit.hello().await;
            let hashes = visit.request().await.unwrap();
            visit.answer(&sample, &hashes).await;
            let mut waiting = Vec::new();
            loop {
                // Answers only when nothing more comes for a while: by then the client has sent all that it may.
                match timeout(Duration::from_millis(200), visit.request()).await {
                    Ok(Some(request)) => waiting.push(request),
                    Ok(None) => return,
                    Err(_) => {
                        seen.fetch_max(waiting.len(), Ordering::SeqCst);
                        for request in waiting.drain(..) {
                            visit.answer(&sample, &request).await;
                        }
                    }
                }
            }
        }
    });
    place.fetch("f", origin.port, &["--retries", "0"]).check(0, &sample.b3());
    assert_eq!(most.load(Ordering::SeqCst), 8);
}

/// They answer first, every time, and nothing comes of it.
#[test]
fn barren_routes_are_asked_last() {
    let sample = Sample::new(3 * CHUNK_LEN, 27, "v1");
    let barren = || {
        let sample = sample.clone();
        Origin::start(move |mut visit| {
            let sample = sample.clone();
            async move {
                visit.hello().await;
                visit.request().await.unwrap();
                visit.head(&head(&sample, None, &Conditions::default())).await;
            }
        })
    };
    let place = Place::new();
    fs::write(place.path("f"), &*sample.changed(1, "").bytes).unwrap();
    let (one, other, good) = (barren(), barren(), Origin::good(&sample));
    let ended = fetch(&place, &[&one, &other, &good], &["--retries", "2"]);
    ended.check(0, &sample.b3());
    check_saved(&place, &sample);
    assert_eq!((one.requests().len(), other.requests().len()), (1, 1));
}

/// An origin that begins its answer and then falls silent, as behind a hop whose large packets get lost; the client goes first.
fn silent_soon(sample: &Sample) -> Origin {
    let sample = sample.clone();
    Origin::start(move |mut visit| {
        let sample = sample.clone();
        async move {
            visit.hello().await;
            let request = visit.request().await.unwrap();
            visit.head(&head_of_size(&sample, &request, sample.size())).await;
            visit.raw(&sample.bytes[..700]).await;
            visit.gone().await;
        }
    })
}

/// An answer that begins is no fruit: only a chunk that has settled is.
#[test]
fn a_route_that_brings_no_chunk_lets_the_others_go_first() {
    let sample = Sample::new(9 * CHUNK_LEN + 3, 28, "v1");
    let (barren, good) = (silent_soon(&sample), Origin::good(&Sample { tag: "elsewhere", ..sample.clone() }));
    let place = Place::new();
    let ended = fetch(&place, &[&barren, &good], &["--timeout", "300ms", "-o", "-"]);
    ended.check(0, &sample.b3());
    assert!(ended.stdout == *sample.bytes);
    assert_eq!(fetched(&barren).len(), 1, "it was asked first again");
    // A file's chunks can be checked only with the hashes of the route that answered first, and those do not come either.
    fetch(&place, &[&silent_soon(&sample), &good], &["--timeout", "300ms"]).check(0, &sample.b3());
    check_saved(&place, &sample);
}

/// A stream comes over one route at a time, but that one is cut is no reason to leave the others untried.
#[test]
fn a_stream_goes_on_by_another_route_without_a_retry() {
    let sample = Sample::new(5 * CHUNK_LEN + 3, 29, "v1");
    let served = sample.clone();
    let cut = Origin::start(move |mut visit| {
        let sample = served.clone();
        async move {
            visit.hello().await;
            let Some(Request::Get(get)) = visit.request().await else { return };
            let head = head(&sample, get.range, &get.conditions);
            visit.head(&head).await;
            visit.chunk(&sample, head.range.unwrap().chunks().first()).await;
        }
    });
    let place = Place::new();
    let ended = fetch(&place, &[&cut, &Origin::good(&sample)], &["--retries", "0", "-o", "-"]);
    ended.check(0, &sample.b3()).check(0, "going on by another route");
    assert!(ended.stdout == *sample.bytes);
    assert_eq!(fetched(&cut).len(), 1);
    // When all are cut, all are told, and that is the end.
    let ended = fetch(&place, &[&cut, &cut], &["--retries", "0", "-o", "-"]);
    ended.check(3, "route 1: ").check(3, "route 2: ");
}

/// What came of a version that is no more does not count as progress.
#[test]
fn a_file_that_is_rewritten_again_and_again_uses_up_the_tries() {
    static TAGS: [&str; 8] = ["v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7"];
    let origin = Origin::start(|mut visit| async move {
        let sample = Sample::new(6 * CHUNK_LEN, visit.number as u64, TAGS[visit.number.min(7)]);
        visit.hello().await;
        while let Some(request) = visit.request().await {
            if let Request::Hashes(_) = request {
                visit.answer(&sample, &request).await;
                continue;
            }
            let Request::Get(get) = &request else { panic!("not a request for chunks") };
            let answer = head(&sample, get.range, &get.conditions);
            visit.head(&answer).await;
            let Some(range) = answer.range else { continue };
            let first = range.chunks().first();
            visit.chunk(&sample, first).await;
            visit.raw(sample.chunk(first + 1)).await;
            visit.raw(&Trailer::bad(ChunkState::Changed).encode()).await;
            return visit.gone().await;
        }
    });
    let place = Place::new();
    let ended = place.fetch("f", origin.port, &["--retries", "2", "--connections", "1"]);
    ended.check(7, "(1 of 2)").check(7, "(2 of 2)");
    assert_eq!(ended.stderr.matches("trying again").count(), 2, "{}", ended.stderr);
}

/// While a large old copy is looked through, the origin does not wait for ever.
#[test]
fn a_chain_that_was_left_alone_too_long_is_built_anew_in_silence() {
    let sample = Sample::new(6 * CHUNK_LEN + 3, 30, "v1");
    for says in [None, Some(Head::only(Status::REQUEST_TIMEOUT, ""))] {
        let (served, said) = (sample.clone(), says.clone());
        let origin = Origin::start(move |mut visit| {
            let (sample, said) = (served.clone(), said.clone());
            async move {
                visit.hello().await;
                if visit.number > 0 {
                    return visit.serve(&sample).await;
                }
                let request = visit.request().await.unwrap();
                visit.answer(&sample, &request).await;
                if let Some(said) = said {
                    visit.head(&said).await;
                    visit.stream.shutdown().await.unwrap();
                    visit.gone().await;
                }
            }
        });
        let place = Place::new();
        fs::write(place.path("f"), &*sample.changed(1, "").bytes).unwrap();
        let ended = place.fetch("f", origin.port, &["--retries", "0", "--connections", "1"]);
        ended.check(0, &sample.b3());
        assert!(!ended.stderr.contains("again") && !ended.stderr.contains("closed"), "{}", ended.stderr);
        check_saved(&place, &sample);
    }
}
