use super::directory::MARKER;
use super::*;
use crate::http::cache::entry::SMALL_BODY;
use crate::http::cache::policy::Times;
use crate::platform::positioned::write_all_at;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

/// A directory that goes away with its test.
pub struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("relay-cache-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn open(place: &Place, limit: u64) -> Arc<Store> {
    Arc::new(Store::open(&place.0, limit, 1 << 20).unwrap())
}

fn head(key: &Key) -> Head {
    let mut fields = HeaderMap::new();
    fields.insert("etag", HeaderValue::from_static("\"1\""));
    fields.append("link", HeaderValue::from_static("<a>"));
    fields.append("link", HeaderValue::from_bytes(b"<b\xff>").unwrap());
    let now = SystemTime::now();
    Head::new(key, &HeaderMap::new(), StatusCode::OK, fields, Times { sent: now, received: now })
}

fn put(store: &Arc<Store>, key: &Key, body: &[u8]) -> Result<(), StoreError> {
    let mut growth = store.begin().unwrap();
    growth.write(&[Bytes::copy_from_slice(body)])?;
    growth.commit(key, head(key))
}

fn get(store: &Store, key: &Key) -> Option<Vec<u8>> {
    let number = *store.rows(key).first()?;
    let entry = store.hot(key, number).or_else(|| store.load(key, number))?;
    Some(match (entry.in_memory(), entry.in_file()) {
        (Some(bytes), _) => bytes.to_vec(),
        (None, Some((file, seals))) => {
            seals.check(file, 0..entry.head().length).ok()?;
            let mut bytes = vec![0; entry.head().length as usize];
            assert_eq!(crate::platform::positioned::read_at(file, &mut bytes, 0).unwrap(), bytes.len());
            bytes
        }
        (None, None) => unreachable!(),
    })
}

fn files(place: &Place) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for part in ["tmp", "entries"] {
        let mut dirs = vec![place.0.join(part)];
        while let Some(dir) = dirs.pop() {
            for file in fs::read_dir(dir).unwrap().flatten() {
                let path = file.path();
                if path.is_dir() { dirs.push(path) } else { found.push(path) }
            }
        }
    }
    found
}

#[test]
fn entries_outlive_the_process() {
    let place = Place::new("outlive");
    let (small, large) = (Key::new("http://a/small"), Key::new("http://a/large"));
    let long = vec![9; SMALL_BODY as usize + 1];
    {
        let store = open(&place, 1 << 30);
        put(&store, &small, b"hello").unwrap();
        put(&store, &large, &long).unwrap();
    }
    let store = open(&place, 1 << 30);
    assert_eq!(store.len(), 2);
    assert_eq!(get(&store, &small).unwrap(), b"hello");
    assert_eq!(get(&store, &large).unwrap(), long);
    let number = store.rows(&small)[0];
    let entry = store.load(&small, number).unwrap();
    let links: Vec<_> = entry.head().fields.get_all("link").iter().map(|link| link.as_bytes()).collect();
    assert_eq!(links, [&b"<a>"[..], b"<b\xff>"]);
}

#[test]
fn a_later_response_takes_the_place_of_an_earlier_one() {
    let place = Place::new("replace");
    let store = open(&place, 1 << 30);
    let key = Key::new("http://a/");
    put(&store, &key, b"one").unwrap();
    put(&store, &key, b"two").unwrap();
    assert_eq!(store.len(), 1);
    assert_eq!(get(&store, &key).unwrap(), b"two");
    assert_eq!(files(&place).len(), 2, "body and record");
    assert!(store.remove(&key) && !store.remove(&key));
    assert!(files(&place).is_empty() && store.size() == 0);
}

#[test]
fn one_process_at_a_time() {
    let place = Place::new("lock");
    let _first = open(&place, 1 << 20);
    let error = Store::open(&place.0, 1 << 20, 0).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }));
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
}

#[test]
fn a_directory_of_somebody_elses_is_left_alone() {
    let place = Place::new("foreign");
    fs::write(place.0.join("thesis.txt"), "precious").unwrap();
    assert!(matches!(Store::open(&place.0, 1 << 20, 0), Err(StoreError::NotACache { .. })));
    fs::remove_file(place.0.join("thesis.txt")).unwrap();
    fs::write(place.0.join(MARKER), "format 99").unwrap();
    assert!(matches!(Store::open(&place.0, 1 << 20, 0), Err(StoreError::OtherFormat { .. })));
}

/// Everything that a process that was killed may leave behind, and what a failing disk makes of an entry.
#[test]
fn nothing_torn_is_ever_found() {
    let long = vec![5; SMALL_BODY as usize * 2];
    type Tear = fn(&Path, &Path);
    let tears: &[(&str, Tear)] = &[
        ("no record yet", |record, _| fs::remove_file(record).unwrap()),
        ("no body", |_, body| fs::remove_file(body).unwrap()),
        ("a record cut short", |record, _| {
            let text = fs::read(record).unwrap();
            fs::write(record, &text[..text.len() / 2]).unwrap();
        }),
        ("an empty record", |record, _| fs::write(record, "").unwrap()),
        ("a record of numbers", |record, _| fs::write(record, "[1,2,3]").unwrap()),
        ("a record of more fields than a map can hold", |record, _| {
            let text = fs::read_to_string(record).unwrap();
            let fields = format!("\"fields\":[{}", r#"["a",""],"#.repeat(40_000));
            fs::write(record, text.replacen("\"fields\":[", &fields, 1)).unwrap();
        }),
        ("a body cut short", |_, body| {
            let length = fs::metadata(body).unwrap().len();
            File::options().write(true).open(body).unwrap().set_len(length - 1).unwrap();
        }),
        ("a body grown", |_, body| {
            File::options().append(true).open(body).unwrap().write_all(b"x").unwrap();
        }),
    ];
    for (what, tear) in tears {
        for bytes in [&b"small"[..], &long] {
            let place = Place::new("torn");
            let key = Key::new("http://a/");
            put(&open(&place, 1 << 30), &key, bytes).unwrap();
            let files = files(&place);
            let ending =
                |ending: &str| files.iter().find(|file| file.extension().unwrap() == ending).unwrap();
            tear(ending("json"), ending("body"));
            let store = open(&place, 1 << 30);
            assert_eq!(get(&store, &key), None, "{what}");
            assert_eq!(store.size(), 0, "{what}");
            assert!(self::files(&place).is_empty(), "{what}");
        }
    }
}

#[test]
fn a_small_body_with_other_bytes_is_not_served() {
    let place = Place::new("flipped");
    let key = Key::new("http://a/");
    put(&open(&place, 1 << 30), &key, b"12345").unwrap();
    let body = files(&place).into_iter().find(|file| file.extension().unwrap() == "body").unwrap();
    fs::write(body, "12346").unwrap();
    assert_eq!(get(&open(&place, 1 << 30), &key), None);
}

/// What a disk may make of blocks that it had promised to keep.
#[test]
fn a_large_body_with_other_bytes_is_not_served() {
    let long: Vec<u8> = (0..5_000_000).map(|place| (place % 251) as u8).collect();
    for (place, is_found_at_once) in [(0, true), (2_500_000, false), (4_999_999, true), (5_000_000, true)] {
        let dir = Place::new("lost");
        let key = Key::new("http://a/");
        put(&open(&dir, 1 << 30), &key, &long).unwrap();
        let body = files(&dir).into_iter().find(|file| file.extension().unwrap() == "body").unwrap();
        let file = File::options().write(true).open(body).unwrap();
        write_all_at(&file, &[0xff; 1], place).unwrap();
        let store = open(&dir, 1 << 30);
        let number = store.rows(&key)[0];
        assert_eq!(store.load(&key, number).is_none(), is_found_at_once, "{place}");
        assert_eq!(get(&store, &key), None, "{place}");
        // Nor later, when it must be opened again.
        store.hot.remove(&number);
        assert!(store.load(&key, number).is_none() && files(&dir).is_empty(), "{place}");
    }
}

#[test]
fn an_unfinished_body_is_swept_away_at_the_next_start() {
    let place = Place::new("unfinished");
    {
        let store = open(&place, 1 << 30);
        let mut growth = store.begin().unwrap();
        growth.write(&[Bytes::from_static(b"half of it")]).unwrap();
        // As SIGKILL leaves it: nobody tidies up.
        std::mem::forget(growth);
        assert_eq!(files(&place).len(), 1);
        // The lock is let go with the process; here the forgotten growth holds the store, and with it the lock.
        rustix::fs::flock(store.lock.lock().unwrap().file(), rustix::fs::FlockOperation::Unlock).unwrap();
    }
    let store = open(&place, 1 << 30);
    assert!(store.is_empty() && files(&place).is_empty());
}

#[test]
fn a_body_that_is_given_up_leaves_nothing() {
    let place = Place::new("given-up");
    let store = open(&place, 1 << 30);
    let mut growth = store.begin().unwrap();
    growth.write(&[Bytes::from_static(b"half of it")]).unwrap();
    assert!(store.size() > 0);
    drop(growth);
    assert_eq!(store.size(), 0);
    assert!(files(&place).is_empty());
}

#[test]
fn a_published_entry_is_found_before_it_is_on_the_disk() {
    let place = Place::new("published");
    let store = open(&place, 1 << 30);
    let key = Key::new("http://a/");
    let long = vec![3; SMALL_BODY as usize * 2];
    let begin = || {
        let mut growth = store.begin().unwrap();
        growth.write(&[Bytes::from(long.clone())]).unwrap();
        growth.publish(&key, head(&key)).unwrap();
        growth
    };
    let growth = begin();
    assert_eq!(get(&store, &key).unwrap(), long);
    // Removed before it is kept: then it must not come back.
    store.remove(&key);
    growth.keep().unwrap();
    assert!(files(&place).is_empty() && store.is_empty());
    // Given up before it is kept.
    drop(begin());
    assert_eq!(get(&store, &key), None);
    assert!(files(&place).is_empty() && store.size() == 0);
    begin().keep().unwrap();
    assert_eq!(files(&place).len(), 2);
}

#[test]
fn the_size_is_kept_by_evicting_what_is_not_used() {
    let place = Place::new("evict");
    // Each entry takes two blocks for itself and one for the record.
    let limit = 10 * 3 * BLOCK;
    let store = open(&place, limit);
    let key = |number: u32| Key::new(format!("http://a/{number}"));
    for number in 0..10 {
        put(&store, &key(number), &[1; 4096]).unwrap();
    }
    let before = store.len();
    for number in 10..40 {
        // One is used all the time.
        assert!(get(&store, &key(3)).is_some(), "the used entry is gone when {number} comes");
        put(&store, &key(number), &[1; 4096]).unwrap();
        assert!(store.size() <= limit);
    }
    assert!(store.len() <= before);
    assert_eq!(get(&store, &key(0)), None);
    assert_eq!(files(&place).len(), store.len() * 2);
    drop(store);
    // A smaller limit is kept from the start on.
    let store = open(&place, limit / 2);
    assert!(store.size() <= limit / 2 && !store.is_empty());
}

#[test]
fn what_is_larger_than_the_cache_is_refused_and_nothing_else_breaks() {
    let place = Place::new("full");
    let store = open(&place, 64 * 1024);
    let mut growth = store.begin().unwrap();
    let error = growth.write(&[Bytes::from(vec![0; 128 * 1024])]).unwrap_err();
    assert!(matches!(error, StoreError::Full { limit: 65536 }));
    drop(growth);
    put(&store, &Key::new("http://a/"), b"fits").unwrap();
    assert_eq!(store.len(), 1);
}

#[test]
fn variants_of_one_key_live_side_by_side_within_a_bound() {
    let place = Place::new("variants");
    let store = open(&place, 1 << 30);
    let key = Key::new("http://a/");
    for number in 0..MOST_VARIANTS + 5 {
        let mut growth = store.begin().unwrap();
        growth.write(&[Bytes::from(number.to_string())]).unwrap();
        let mut head = head(&key);
        head.selecting = vec![(http::header::ACCEPT, Some(number.to_string()))];
        growth.commit(&key, head).unwrap();
    }
    assert_eq!(store.rows(&key).len(), MOST_VARIANTS);
    assert_eq!(get(&store, &key).unwrap(), (MOST_VARIANTS + 4).to_string().as_bytes());
}

#[test]
fn open_files_weigh_what_the_descriptors_are_worth() {
    let most_open = |descriptors| MEMORY / Weight::new(MEMORY, descriptors).open_file;
    const MEMORY: u64 = 64 * 1024 * 1024;
    for (descriptors, expected) in [(32, 4), (256, 32), (1024, 128), (2048, 256), (u64::MAX, 256), (0, 1)] {
        assert_eq!(most_open(descriptors), expected, "{descriptors}");
    }
}
