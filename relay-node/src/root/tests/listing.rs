//! What listings cost, and what they tell of what they cannot list.

use super::*;
use crate::root::walk::{Demand, PAGE_LOOKS, Walk};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

const TREE: ListQuery<'static> =
    ListQuery { prefix: b"", after: None, limit: MAX_LIST_PAGE, recursive: true, any_bytes: false };

/// Every page of a listing.
fn pages(root: &DocumentRoot, query: ListQuery<'_>) -> Vec<ListPage> {
    let mut pages: Vec<ListPage> = Vec::new();
    loop {
        let after = pages.last().and_then(|page| page.next.as_deref()).or(query.after);
        let page = root.list(ListQuery { after, ..query }).unwrap();
        let is_last = page.next.is_none();
        pages.push(page);
        if is_last {
            return pages;
        }
    }
}

fn entries(pages: &[ListPage]) -> Vec<String> {
    pages.iter().flat_map(|page| &page.entries).map(|entry| name(entry.clone())).collect()
}

#[test]
fn a_large_directory_is_read_once_for_all_its_pages() {
    const FILES: usize = 6_000;
    let fixture = Fixture::new();
    for number in 0..FILES {
        fixture.write(&format!("docs/deep/{number:05}"), "");
    }
    let root = DocumentRoot::open(fixture.root(), false).unwrap();
    let pages = pages(&root, ListQuery { prefix: b"docs/deep/", ..TREE });
    assert_eq!(entries(&pages).len(), FILES + 1);
    let ListWork { looks, reads, .. } = root.list_work();
    assert!(reads as usize <= FILES + 1, "{reads} names read");
    // Each name, the first one of each further page twice, and the directory on each page.
    assert!(looks as usize <= FILES + 1 + 3 * pages.len(), "{looks} looks");
}

#[test]
fn what_is_not_listed_does_not_make_a_page_cost_more() {
    const LINKS: usize = 6_000;
    let fixture = Fixture::new();
    for number in 0..LINKS {
        symlink("nowhere", fixture.root().join(format!("docs/{number:05}"))).unwrap();
    }
    let root = DocumentRoot::open(fixture.root(), false).unwrap();
    let mut looks = 0;
    let mut after: Option<Vec<u8>> = None;
    let (mut links, mut listed) = (0, 0);
    loop {
        let query = ListQuery { prefix: b"docs/", after: after.as_deref(), ..TREE };
        let page = root.list(query).unwrap();
        let now = root.list_work().looks;
        assert!(now - looks <= PAGE_LOOKS as u64 + 4, "{} looks for a page", now - looks);
        (looks, links, listed) = (now, links + page.links, listed + page.entries.len());
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((links, listed), (LINKS as u64, 3));
    assert!(root.list_work().reads as usize <= LINKS + 3);
}

/// A walk with memory for a few names goes through every kind of tree as one with much does.
#[test]
fn a_walk_stays_within_its_memory_and_misses_nothing() {
    const BATCH: usize = 2_000;
    let fixture = Fixture::new();
    let mut expected = vec!["docs".to_owned(), "docs/a.txt".into(), "docs/deep".into()];
    expected.extend(["docs/deep/b.txt".to_owned(), "hello.txt".into()]);
    let mut directory = "n".to_owned();
    for level in 0..8 {
        fs::create_dir(fixture.root().join(&directory)).unwrap();
        expected.push(directory.clone());
        for number in 0..40 {
            // Before and behind the directory that comes next.
            let name = format!("{directory}/{}{number}-{}", ["a", "z"][number % 2], "x".repeat(30 * level));
            fixture.write(&name, "");
            expected.push(name);
        }
        directory += "/n";
    }
    expected.sort_by(|left, right| path_order(left.as_bytes(), right.as_bytes()));
    let root = DocumentRoot::open(fixture.root(), false).unwrap();
    for limit in [1, 7, 1_000] {
        let mut walk = Walk::new(TREE).with_batch(BATCH);
        let mut listed = Vec::new();
        loop {
            let go_on = |_: Option<&[u8]>| true;
            let page = walk.page(&root, Demand { limit, fits: &mut |_| true, go_on: &go_on }).unwrap();
            // The names, and the way down.
            assert!(walk.bytes() <= BATCH + 4_000, "{} bytes", walk.bytes());
            listed.extend(page.entries.into_iter().map(name));
            if page.next.is_none() {
                break;
            }
        }
        assert_eq!(listed, expected, "{limit}");
    }
}

#[test]
fn every_depth_that_has_a_name_is_listed_and_the_rest_is_counted() {
    let fixture = Fixture::new();
    let mut directory = fixture.root().join("docs/deep");
    for _ in 0..70 {
        directory.push("d");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("f"), "deep").unwrap();
    }
    let query = ListQuery { prefix: b"docs/deep/", ..TREE };
    for root in fixture.roots(false) {
        let listed = entries(&pages(&root, query));
        assert_eq!(listed.len(), 141);
        let deepest = format!("docs/deep/{}f", "d/".repeat(70));
        assert_eq!(content(&root.open_file(&deepest, Reach::Anywhere).unwrap()), "deep");
    }

    // Longer than any name may be: made step by step, for the system takes no such path either.
    let fixture = Fixture::new();
    let mut here = fs::File::open(fixture.root()).unwrap();
    for _ in 0..40 {
        use rustix::fs::{Mode, OFlags, mkdirat, openat};
        let step = "d".repeat(200);
        mkdirat(&here, &step, Mode::RWXU).unwrap();
        let next = openat(&here, &step, OFlags::RDONLY, Mode::empty()).unwrap();
        let file = openat(&next, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        drop(file);
        here = next.into();
    }
    let root = DocumentRoot::open(fixture.root(), false).unwrap();
    let page = root.list(TREE).unwrap();
    let listed = page.entries.iter().filter(|entry| entry.name.ends_with(b"/f")).count();
    assert_eq!(listed, 20);
    // The file and the directory in the last directory that has a name.
    assert!(page.not_offered > 0, "{page:?}");
    for entry in page.entries.iter().filter(|entry| entry.kind == EntryKind::File) {
        root.open_file(&entry.name, Reach::Anywhere).unwrap();
    }
}

#[test]
fn links_that_lead_nowhere_or_out_are_counted_once_whatever_the_pages() {
    let fixture = Fixture::new();
    for (to, from) in [("nowhere", "b"), ("../../secret", "docs/b"), ("/etc", "z"), ("circle", "circle")] {
        symlink(to, fixture.root().join(from)).unwrap();
    }
    fs::write(fixture.root().join("docs").join(OsStr::from_bytes(b"\xff")), "").unwrap();
    symlink("hello.txt", fixture.root().join("fine")).unwrap();
    for root in fixture.roots(false) {
        for limit in 1..8 {
            let pages = pages(&root, ListQuery { limit, ..TREE });
            let links: u64 = pages.iter().map(|page| page.links).sum();
            let not_offered: u64 = pages.iter().map(|page| page.not_offered).sum();
            assert_eq!((links, not_offered), (4, 1), "{limit}");
            assert_eq!(entries(&pages).len(), 6);
        }
    }
}

/// Runs as somebody who may not read everything.
fn as_somebody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    use rustix::process::Uid;
    let is_root = rustix::process::geteuid().is_root();
    std::thread::scope(|scope| {
        let job = scope.spawn(move || {
            if is_root {
                let nobody = Uid::from_raw(65_534);
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            work()
        });
        job.join().unwrap()
    })
}

#[test]
fn a_directory_that_may_not_be_read_is_marked_and_not_an_empty_one() {
    let fixture = Fixture::new();
    for (mode, name) in [(0o000, "closed"), (0o444, "names-only"), (0o111, "no-names")] {
        let directory = fixture.root().join(name);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("in"), "").unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
    }
    for root in fixture.roots(false) {
        if root.directory().unwrap().method() == Method::Canonical {
            // It goes by paths from the top, which somebody else may not walk here.
            continue;
        }
        as_somebody(|| {
            for limit in [1, 1_000] {
                let pages = pages(&root, ListQuery { limit, ..TREE });
                let marked: Vec<_> = (pages.iter().flat_map(|page| &page.entries))
                    .filter(|entry| entry.unreadable)
                    .map(|entry| name(entry.clone()))
                    .collect();
                assert_eq!(marked, ["closed", "names-only", "no-names"]);
                assert_eq!(entries(&pages).len(), 8);
                assert_eq!(pages.iter().map(|page| page.unreadable).sum::<u64>(), 0);
            }
            let page = root.list(ListQuery { prefix: b"closed/", ..TREE }).unwrap();
            assert_eq!(page, ListPage { unreadable: 1, ..ListPage::default() });
        });
    }
    for name in ["closed", "names-only", "no-names"] {
        fs::set_permissions(fixture.root().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_hung_directory_is_passed_over_in_a_tree() {
    let fixture = Fixture::new();
    let root = DocumentRoot::open(fixture.root(), false).unwrap();
    root.hung.note(b"docs/deep");
    let page = root.list(TREE).unwrap();
    let marked: Vec<_> = page.entries.iter().filter(|entry| entry.unreadable).collect();
    assert_eq!(marked.len(), 1);
    assert_eq!(marked[0].name, b"docs/deep");
    assert_eq!(page.entries.len(), 4);
}

#[tokio::test]
async fn what_nobody_waits_for_ends() {
    let fixture = Fixture::new();
    let root = Arc::new(DocumentRoot::open(fixture.root(), false).unwrap());
    let mut stop = |_: &ListEntry| panic!("nothing fits that nobody waits for");
    let page = crate::root::list::page(&root, TREE, &mut stop, &|_| false);
    assert!(matches!(page, Err(RootError::Abandoned)), "{page:?}");
    // Asked for in turn, it is as it is at once.
    let page = root.list_in_turn(TREE, None, |_| true).await.unwrap();
    assert_eq!(page, root.list(TREE).unwrap());
    assert_eq!(root.list_work().most_at_work, 1);
}
