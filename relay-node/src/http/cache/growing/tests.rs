use super::*;
use crate::http::cache::key::Key;
use crate::http::cache::policy::Times;
use crate::platform::positioned::write_all_at;
use http::{HeaderMap, StatusCode};
use std::time::SystemTime;

fn growing(name: &str) -> (Arc<Growing>, Arc<File>) {
    let path = std::env::temp_dir().join(format!("relay-growing-{name}-{}", std::process::id()));
    let file =
        Arc::new(File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap());
    std::fs::remove_file(path).unwrap();
    let times = Times { sent: SystemTime::now(), received: SystemTime::now() };
    let head = Head::new(&Key::new("http://a/"), &HeaderMap::new(), StatusCode::OK, HeaderMap::new(), times);
    (Arc::new(Growing::new(head, None, Arc::clone(&file))), file)
}

async fn read(mut follower: Follower) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(piece) = follower.next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// A body whose every byte tells its place.
fn pattern(range: Range<u64>) -> Vec<u8> {
    range.map(|place| (place % 251) as u8).collect()
}

#[tokio::test]
async fn followers_see_all_of_it_whenever_they_come() {
    let (growing, file) = growing("all");
    let early = tokio::spawn(read(growing.follow(None).unwrap()));
    write_all_at(&file, &pattern(0..100_000), 0).unwrap();
    growing.grown_to(100_000);
    let late = tokio::spawn(read(growing.follow(None).unwrap()));
    let part = tokio::spawn(read(growing.follow(Some(99_990..100_010)).unwrap()));
    write_all_at(&file, &pattern(100_000..150_000), 100_000).unwrap();
    growing.grown_to(150_000);
    assert_eq!(part.await.unwrap().unwrap(), pattern(99_990..100_010));
    assert_eq!(growing.length(), None);
    growing.ended(End::Whole);
    assert_eq!(early.await.unwrap().unwrap(), pattern(0..150_000));
    assert_eq!(late.await.unwrap().unwrap(), pattern(0..150_000));
    assert_eq!(growing.length(), Some(150_000));
}

#[tokio::test]
async fn what_breaks_off_is_an_error_for_everybody() {
    let (growing, file) = growing("broken");
    let reader = tokio::spawn(read(growing.follow(None).unwrap()));
    write_all_at(&file, b"some", 0).unwrap();
    growing.grown_to(4);
    growing.ended(End::Broken);
    assert!(reader.await.unwrap().is_err());
    assert!(growing.follow(None).is_none());
}

#[tokio::test]
async fn past_the_file_the_rest_goes_through_the_window() {
    let (growing, file) = growing("window");
    let readers: Vec<_> = (0..3).map(|_| tokio::spawn(read(growing.follow(None).unwrap()))).collect();
    write_all_at(&file, &pattern(0..70_000), 0).unwrap();
    growing.grown_to(70_000);
    let total = 70_000 + 8 * WINDOW;
    let mut at = 70_000;
    while at < total {
        let end = (at + 50_000).min(total);
        growing.pass(pattern(at..end).into()).await.unwrap();
        at = end;
    }
    // Nobody can begin any more: the window's beginning is gone.
    assert!(growing.follow(None).is_none());
    growing.ended(End::Whole);
    for reader in readers {
        assert!(reader.await.unwrap().unwrap() == pattern(0..total));
    }
}

#[tokio::test]
async fn with_nobody_left_the_rest_need_not_come() {
    let (growing, _file) = growing("nobody");
    drop(growing.follow(None).unwrap());
    assert_eq!(growing.pass(Bytes::from_static(b"x")).await, Err(NobodyLeft));
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_holds_up_the_others_for_a_bounded_time() {
    let (growing, _file) = growing("stalled");
    let mut stalled = growing.follow(None).unwrap();
    let reader = tokio::spawn(read(growing.follow(None).unwrap()));
    let total = 3 * WINDOW;
    for at in (0..total).step_by(65_536) {
        growing.pass(pattern(at..at + 65_536).into()).await.unwrap();
    }
    growing.ended(End::Whole);
    assert!(reader.await.unwrap().unwrap() == pattern(0..total));
    let mut result = stalled.next().await;
    while let Ok(Some(_)) = result {
        result = stalled.next().await;
    }
    assert!(result.is_err(), "a cut follower must not end as if all were there");
}

#[tokio::test(start_paused = true)]
async fn who_is_the_only_reader_may_pause_for_as_long_as_its_connection() {
    let (growing, _file) = growing("paused");
    let mut only = growing.follow(None).unwrap();
    let total = 3 * WINDOW;
    let source = Arc::clone(&growing);
    let passing = tokio::spawn(async move {
        for at in (0..total).step_by(65_536) {
            source.pass(pattern(at..at + 65_536).into()).await.unwrap();
        }
        source.ended(End::Whole);
    });
    tokio::time::sleep(5 * PATIENCE).await;
    let mut seen = Vec::new();
    while let Some(piece) = only.next().await.unwrap() {
        seen.extend_from_slice(&piece);
    }
    assert!(seen == pattern(0..total));
    passing.await.unwrap();
}
