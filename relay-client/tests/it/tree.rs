//! Directories from origins that list and send what no origin should.

use crate::client::{Ended, Place, end};
use crate::origin::{Origin, Visit};
use relay_chain::frames::{Frame, read_frame, write_message};
use relay_proto::chunk::{CHUNK_LEN, ChunkRange, ChunkState, Trailer, chunk_count, chunk_len};
use relay_proto::code::Status;
use relay_proto::digest::ChunkHash;
use relay_proto::file::{
    Entry, EntryKind, FileFacts, Get, Head, List, Page, RequestedName, SentRange, Size, Timestamp,
};
use relay_proto::frame::FrameType;
use relay_proto::limits::MAX_PIPELINED;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const TIME: i64 = 1_700_000_000;

fn entry(name: &str, kind: EntryKind, size: u64) -> Entry {
    Entry {
        name: RequestedName::try_from(name).unwrap(),
        kind,
        size: Size::try_from(size).unwrap(),
        modified: Timestamp::new(TIME, 0).unwrap(),
        executable: false,
        linked: false,
        unreadable: false,
    }
}

pub fn file(name: &str) -> Entry {
    entry(name, EntryKind::File, content(name).len() as u64)
}

/// What every file of these origins has in it.
fn content(name: &str) -> Vec<u8> {
    format!("this is {name}").into_bytes()
}

fn facts(size: u64) -> FileFacts {
    FileFacts {
        size: Size::try_from(size).unwrap(),
        modified: Timestamp::new(TIME, 0).unwrap(),
        entity_tag: "v1".to_owned().try_into().unwrap(),
        executable: false,
    }
}

/// Answers a `get` as an origin should.
async fn send(visit: &mut Visit, bytes: &[u8]) {
    send_as(visit, bytes, ChunkState::Good).await;
}

/// The same, with another end.
async fn send_as(visit: &mut Visit, bytes: &[u8], state: ChunkState) {
    let size = bytes.len() as u64;
    let chunks = ChunkRange::whole(size);
    if chunks.is_empty() {
        return visit
            .head(&Head { file: Some(facts(0)), ..Head::only(Status::RANGE_NOT_SATISFIABLE, "") })
            .await;
    }
    let range = Some(SentRange::from(chunks));
    visit.head(&Head { file: Some(facts(size)), range, ..Head::only(Status::PARTIAL, "") }).await;
    for index in 0..chunk_count(size) {
        let start = (index * CHUNK_LEN) as usize;
        let chunk = &bytes[start..start + chunk_len(size, index) as usize];
        let hash =
            if state == ChunkState::Good { ChunkHash::of(chunk, index, size) } else { ChunkHash::ZERO };
        visit.raw(chunk).await;
        visit.raw(&Trailer { state, hash }.encode()).await;
        if state != ChunkState::Good {
            return;
        }
    }
}

pub async fn page(visit: &mut Visit, entries: &[Entry], next: Option<&str>) {
    visit.head(&Head::only(Status::OK, "")).await;
    let next = next.map(|next| RequestedName::try_from(next).unwrap());
    write_message(&mut visit.stream, &Page { entries: entries.to_vec(), next, ..Page::default() })
        .await
        .unwrap();
}

/// An origin that lists these entries, whatever is asked for, and answers each `get` as `answer` says.
pub fn listing<F>(entries: Vec<Entry>, answer: F) -> Origin
where
    F: AsyncFn(&mut Visit, &str) + Clone + Send + 'static,
{
    Origin::start(move |mut visit| {
        let (entries, answer) = (entries.clone(), answer.clone());
        async move {
            visit.hello().await;
            while let Ok(frame) = read_frame(&mut visit.stream).await {
                match asked(&frame) {
                    Asked::List => page(&mut visit, &entries, None).await,
                    Asked::Get(name) => answer(&mut visit, &name).await,
                }
            }
        }
    })
}

enum Asked {
    List,
    Get(String),
}

fn asked(frame: &Frame) -> Asked {
    match frame.frame_type {
        FrameType::List => {
            let list: List = frame.decode().unwrap();
            assert!(list.recursive && list.prefix.as_str() == "d/", "{list:?}");
            Asked::List
        }
        FrameType::Get => Asked::Get(frame.decode::<Get>().unwrap().name.as_str().to_owned()),
        other => panic!("a {other:?} frame"),
    }
}

pub async fn good(visit: &mut Visit, name: &str) {
    send(visit, &content(name)).await;
}

fn fetch(place: &Place, origin: &Origin, more: &[&str]) -> Ended {
    place.fetch("d/", origin.port, &[&["--retries", "0"], more].concat())
}

#[test]
fn nothing_lands_outside_whatever_is_listed() {
    let place = Place::new();
    fs::create_dir(place.path("run")).unwrap();
    let absolute = place.path("absolute").to_str().unwrap().to_owned();
    let bad = [
        "../outside",
        "d/../../outside",
        "d/../outside",
        "d/a/../../../outside",
        "/etc/relay-outside",
        "outside",
        absolute.as_str(),
        "d//outside",
        "d/./outside",
        "d/",
        "d/..",
        "d/..\\outside",
        "d/C:\\outside",
        "d/nul\0byte",
        "d/line\nbreak",
        "d/esc\x1b[2Jape",
        "d/right\u{202e}left",
        "d/x.part",
        "d/x.part.journal",
    ];
    let mut entries: Vec<Entry> = vec![file("d/.. a"), file("d/a")];
    entries.extend(bad.iter().map(|name| file(name)));
    entries.extend(bad.iter().map(|name| entry(name, EntryKind::Directory, 0)));
    entries.push(file("d/b"));
    let origin = listing(entries, good);
    let mut command =
        place.command(&["--get", "d/", "--via", &format!("127.0.0.1:{}", origin.port), "--retries", "0"]);
    command.current_dir(place.path("run"));
    let ended = end(command.spawn().unwrap());
    ended.check(10, "could not be fetched");
    assert!(
        !ended.stderr.chars().any(|c| c != '\n' && relay_proto::text::is_unsafe(c)),
        "{:?}",
        ended.stderr
    );
    assert_eq!(place.names(), ["run"]);
    let mut saved: Vec<String> = fs::read_dir(place.path("run/d"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    saved.sort();
    assert_eq!(saved, [".. a", "a", "b"]);
    assert_eq!(place.read("run/d/b"), content("d/b"));
    let told = ended.stderr.matches("its name cannot be used here").count();
    assert_eq!(told, 20, "{}", ended.stderr);
    ended.check(10, &format!("{} of {} could not be fetched", 2 * bad.len(), 2 * bad.len() + 3));
}

/// What cannot be read and has no entry, of which a listing only counts how much there is.
#[test]
fn what_the_origin_cannot_read_is_a_loss_though_nothing_names_it() {
    let origin = Origin::start(async |mut visit| {
        visit.hello().await;
        while let Ok(frame) = read_frame(&mut visit.stream).await {
            if frame.frame_type == FrameType::Get {
                good(&mut visit, "d/a").await;
                continue;
            }
            visit.head(&Head::only(Status::OK, "")).await;
            let page = Page { entries: vec![file("d/a")], unreadable: 3, ..Page::default() };
            write_message(&mut visit.stream, &page).await.unwrap();
        }
    });
    let hop = format!("127.0.0.1:{}", origin.port);
    Place::new()
        .run(&["list", "--recursive", "--via", &hop, "d/"])
        .check(10, "3 more the origin cannot read");
    let place = Place::new();
    let ended = fetch(&place, &origin, &[]);
    ended.check(10, "3 not readable");
    // The sum adds up.
    assert!(ended.stderr.contains("4 files: 1 fetched"), "{}", ended.stderr);
    assert_eq!(place.read("d/a"), content("d/a"));
}

#[test]
fn files_that_fail_at_the_origin_are_told_and_the_rest_comes() {
    let names = ["d/a", "d/changes", "d/gone", "d/once", "d/unreadable", "d/z"];
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let origin = listing(names.map(file).to_vec(), async move |visit: &mut Visit, name: &str| match name {
        "d/changes" => send_as(visit, &content(name), ChunkState::Changed).await,
        "d/unreadable" => send_as(visit, &content(name), ChunkState::ReadError).await,
        // Once is no reason to give it up.
        "d/once" if counted.fetch_add(1, Ordering::SeqCst) == 0 => {
            send_as(visit, &content(name), ChunkState::Changed).await;
        }
        "d/gone" => {
            visit.head(&Head::only(Status::NOT_FOUND, "the origin offers nothing of this name")).await;
        }
        name => send(visit, &content(name)).await,
    });
    let place = Place::new();
    let ended = fetch(&place, &origin, &[]);
    ended.check(10, "3 of 6 could not be fetched");
    for part in
        ["changes: the file changed at the origin", "unreadable: the origin could not read", "gone: 404"]
    {
        assert!(ended.stderr.contains(part), "{part:?} is not in {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("gone: gone"), "{}", ended.stderr);
    for name in ["a", "once", "z"] {
        assert_eq!(place.read(&format!("d/{name}")), content(&format!("d/{name}")));
    }
    assert_eq!(fs::read_dir(place.path("d")).unwrap().count(), 3);
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}

#[test]
fn what_arrives_damaged_never_gets_its_name() {
    for times in [1, 100] {
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&sent);
        let origin = listing(vec![file("d/a"), file("d/b")], async move |visit: &mut Visit, name: &str| {
            let mut bytes = content(name);
            if name == "d/a" && counted.fetch_add(1, Ordering::SeqCst) < times {
                let size = bytes.len() as u64;
                let hash = ChunkHash::of(&bytes, 0, size);
                bytes[3] ^= 1;
                let range = Some(SentRange::from(ChunkRange::whole(size)));
                visit.head(&Head { file: Some(facts(size)), range, ..Head::only(Status::PARTIAL, "") }).await;
                visit.raw(&bytes).await;
                return visit.raw(&Trailer { state: ChunkState::Good, hash }.encode()).await;
            }
            send(visit, &bytes).await;
        });
        let place = Place::new();
        let ended = fetch(&place, &origin, &[]);
        if times == 1 {
            ended.check(0, "arrived damaged").check(0, "fetched again");
            assert_eq!(place.read("d/a"), content("d/a"));
        } else {
            ended.check(10, "a: chunk 0").check(10, "arrived damaged");
            assert!(!place.path("d/a").exists());
        }
        assert_eq!(place.read("d/b"), content("d/b"));
    }
}

#[test]
fn an_origin_that_is_busy_with_one_file_is_asked_again_after_a_pause() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let origin = listing(vec![file("d/a"), file("d/b")], async move |visit: &mut Visit, name: &str| {
        if name == "d/a" && counted.fetch_add(1, Ordering::SeqCst) == 0 {
            return visit.head(&Head::only(Status::UNAVAILABLE, "too many files open")).await;
        }
        send(visit, &content(name)).await;
    });
    let place = Place::new();
    place
        .fetch("d/", origin.port, &["--retries", "2"])
        .check(0, "trying again in 1s")
        .check(0, "too many files open");
    assert_eq!(place.read("d/a"), content("d/a"));
}

#[test]
fn a_file_that_is_larger_than_listed_still_comes() {
    let large = 5 * CHUNK_LEN + 9;
    let bytes: Vec<u8> = (0..large).map(|i| (i % 251) as u8).collect();
    let whole = bytes.clone();
    let origin = listing(vec![file("d/a"), file("d/b")], async move |visit: &mut Visit, name: &str| {
        if name == "d/b" {
            return send(visit, &content(name)).await;
        }
        // As an origin must, the first four chunks of what is a large file by now; later, what is missing of it.
        let first = visit.log.lock().unwrap().is_empty();
        visit.log.lock().unwrap().push(crate::origin::Request::Stat(relay_proto::file::Stat {
            name: RequestedName::try_from(name).unwrap(),
        }));
        let (range, status) = if first { (0..4, Status::PARTIAL) } else { (0..6, Status::OK) };
        let chunks = ChunkRange::new(range.start, range.end).unwrap();
        visit
            .head(&Head { file: Some(facts(large)), range: Some(chunks.into()), ..Head::only(status, "") })
            .await;
        for index in range {
            let start = (index * CHUNK_LEN) as usize;
            let chunk = &bytes[start..start + chunk_len(large, index) as usize];
            visit.raw(chunk).await;
            let hash = ChunkHash::of(chunk, index, large);
            visit.raw(&Trailer { state: ChunkState::Good, hash }.encode()).await;
        }
    });
    let place = Place::new();
    fetch(&place, &origin, &["--connections", "1"]).check(0, "2 fetched");
    assert!(place.read("d/a") == whole);
}

#[test]
fn no_more_than_32_requests_are_ahead_of_their_answers() {
    let names: Vec<String> = (0..200).map(|number| format!("d/{number:03}")).collect();
    let entries: Vec<Entry> = names.iter().map(|name| file(name)).collect();
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    let origin = Origin::start(move |mut visit| {
        let (entries, seen) = (entries.clone(), Arc::clone(&seen));
        async move {
            visit.hello().await;
            let mut waiting = Vec::new();
            loop {
                // Answers only when nothing more comes for a while: by then the client has sent all that it may.
                let more = tokio::time::timeout(
                    std::time::Duration::from_millis(200),
                    read_frame(&mut visit.stream),
                )
                .await;
                match more {
                    Ok(Ok(frame)) => waiting.push(frame),
                    Ok(Err(_)) => return,
                    Err(_) => {
                        seen.fetch_max(waiting.len(), Ordering::SeqCst);
                        for frame in waiting.drain(..) {
                            match asked(&frame) {
                                Asked::List => page(&mut visit, &entries, None).await,
                                Asked::Get(name) => good(&mut visit, &name).await,
                            }
                        }
                    }
                }
            }
        }
    });
    let place = Place::new();
    fetch(&place, &origin, &[]).check(0, "200 fetched");
    assert_eq!(most.load(Ordering::SeqCst), MAX_PIPELINED);
}

#[test]
fn a_listing_that_does_not_advance() {
    for next in ["d/a", "elsewhere"] {
        let origin = Origin::start(move |mut visit| async move {
            visit.hello().await;
            while let Ok(frame) = read_frame(&mut visit.stream).await {
                match asked(&frame) {
                    Asked::List => page(&mut visit, &[file("d/a")], Some(next)).await,
                    Asked::Get(name) => good(&mut visit, &name).await,
                }
            }
        });
        let place = Place::new();
        fetch(&place, &origin, &[]).check(9, "a listing that does not advance");
    }
}

/// An origin that lists these pages, whatever each says of the next one, and has every file but `d/gone`.
fn paging(pages: &'static [(Option<&'static str>, &'static [&'static str], Option<&'static str>)]) -> Origin {
    Origin::start(move |mut visit| async move {
        visit.hello().await;
        while let Ok(frame) = read_frame(&mut visit.stream).await {
            if frame.frame_type == FrameType::List {
                let list: List = frame.decode().unwrap();
                let after = list.after.as_ref().map(RequestedName::as_str);
                let (_, names, next) = pages.iter().find(|page| page.0 == after).unwrap();
                let entries: Vec<Entry> = names.iter().map(|name| file(name)).collect();
                page(&mut visit, &entries, *next).await;
            } else if let Asked::Get(name) = asked(&frame) {
                match name.as_str() {
                    "d/gone" => visit.head(&Head::only(Status::NOT_FOUND, "")).await,
                    name => good(&mut visit, name).await,
                }
            }
        }
    })
}

fn saved(place: &Place) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(place.path("d"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_listing_that_changes_between_its_pages() {
    // What is new in front of the cursor is not seen, what is gone is told, and what comes twice is fetched once.
    let origin = paging(&[
        (None, &["d/a", "d/gone", "d/m"], Some("d/m")),
        (Some("d/m"), &["d/b", "d/m", "d/n"], Some("d/n")),
        (Some("d/n"), &["d/z"], None),
    ]);
    let place = Place::new();
    let ended = fetch(&place, &origin, &[]);
    ended.check(10, "3 of 7 could not be fetched").check(10, "gone: 404");
    assert_eq!(ended.stderr.matches("listed out of order").count(), 2, "{}", ended.stderr);
    assert_eq!(saved(&place), ["a", "m", "n", "z"]);
}

#[test]
fn a_listing_that_goes_round_is_asked_for_elsewhere() {
    let whole = || paging(&[(None, &["d/a", "d/b"], Some("d/b")), (Some("d/b"), &["d/c", "d/e"], None)]);
    // Each page of these says that another one follows, for ever.
    let stuck = || paging(&[(None, &["d/a", "d/b"], Some("d/b")), (Some("d/b"), &["d/c"], Some("d/b"))]);
    let round = || {
        paging(&[
            (None, &["d/a", "d/b"], Some("d/b")),
            (Some("d/b"), &["d/c"], Some("d/a")),
            (Some("d/a"), &["d/b"], Some("d/b")),
        ])
    };
    for bad in [stuck(), round()] {
        fetch(&Place::new(), &bad, &[]).check(9, "a listing that does not advance");
        let hop = format!("127.0.0.1:{}", bad.port);
        Place::new().run(&["list", "--via", &hop, "d/"]).check(9, "a listing that does not advance");
    }
    for bad in [stuck(), round()] {
        let (place, good) = (Place::new(), whole());
        let routes = format!("d/\n127.0.0.1:{}\nor\nd/\n127.0.0.1:{}\n", bad.port, good.port);
        fs::write(place.path("routes.txt"), routes).unwrap();
        // Nothing of the page that led nowhere counts, or it would be told as listed twice.
        place.run(&["routes.txt", "--retries", "0"]).check(0, "going on by route 2").check(0, "4 fetched");
        assert_eq!(saved(&place), ["a", "b", "c", "e"]);
    }
}

#[test]
fn a_directory_that_is_not_there_leaves_none_here() {
    let origin = Origin::start(move |mut visit| async move {
        visit.hello().await;
        while read_frame(&mut visit.stream).await.is_ok() {
            page(&mut visit, &[], None).await;
        }
    });
    let place = Place::new();
    fetch(&place, &origin, &["--include", "[a"]).check(2, "--include [a");
    assert!(place.names().is_empty());
    fetch(&place, &origin, &[]).check(5, "it lists nothing of this name");
    assert!(place.names().is_empty());
    // One that was here stays.
    fs::create_dir(place.path("d")).unwrap();
    fetch(&place, &origin, &[]).check(5, "it lists nothing of this name");
    assert_eq!(place.names(), ["d"]);
}

#[test]
fn listed_twice_or_out_of_order() {
    let origin = listing(vec![file("d/b"), file("d/b"), file("d/a"), file("d/c")], good);
    let place = Place::new();
    fetch(&place, &origin, &[]).check(10, "listed out of order").check(10, "2 of 4 could not be fetched");
    assert_eq!(place.read("d/b"), content("d/b"));
    assert_eq!(place.read("d/c"), content("d/c"));
}

/// A large file that an origin lists, of as many bytes as this.
const LARGE: u64 = 4 * CHUNK_LEN + 1;

/// Large files have downloads of their own, which try again themselves.
#[test]
fn a_link_that_cuts_large_files_is_tried_as_often_as_was_asked_for() {
    let names = ["d/a", "d/b", "d/c"];
    let (gets, asked) = (Arc::new(AtomicUsize::new(0)), ["--retries", "1"]);
    let seen = Arc::clone(&gets);
    let entries = names.map(|name| entry(name, EntryKind::File, LARGE)).to_vec();
    let origin = listing(entries, async move |visit: &mut Visit, _: &str| {
        seen.fetch_add(1, Ordering::SeqCst);
        tokio::io::AsyncWriteExt::shutdown(&mut visit.stream).await.unwrap();
    });
    let place = Place::new();
    let ended = place.fetch("d/", origin.port, &asked);
    ended.check(3, "trying again in 1s (1 of 1)");
    // Two at once, and the third one would fare no better.
    assert_eq!(gets.load(Ordering::SeqCst), 4, "{}", ended.stderr);
}

/// A route that takes the connection and says nothing is not waited for, and not by every single file.
#[test]
fn a_tree_starts_with_the_way_that_works() {
    let (dialled, bytes) = (Arc::new(AtomicUsize::new(0)), vec![7; LARGE as usize]);
    let seen = Arc::clone(&dialled);
    let silent = Origin::start(move |mut visit| {
        seen.fetch_add(1, Ordering::SeqCst);
        async move { visit.gone().await }
    });
    let names: Vec<String> = (0..6).map(|number| format!("d/{number}")).collect();
    let entries = names.iter().map(|name| entry(name, EntryKind::File, LARGE)).collect();
    let good = listing(entries, async move |visit: &mut Visit, _: &str| send(visit, &bytes).await);
    let place = Place::new();
    let routes = format!("d/\n127.0.0.1:{}\nor\nd/\n127.0.0.1:{}\n", silent.port, good.port);
    fs::write(place.path("routes.txt"), routes).unwrap();
    let ended = place.run(&["routes.txt", "--timeout", "1h", "--connections", "1"]);
    ended.check(0, "going on by route 2").check(0, "6 fetched");
    // For the listing, and for files only where this machine took a second for one.
    let dialled = dialled.load(Ordering::SeqCst);
    assert!(dialled <= 3, "dialled {dialled} times");
}
