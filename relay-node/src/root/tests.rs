//! Every rule is tried with every way of walking that this machine has.

use super::*;
use crate::platform::beneath::Method;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

struct Fixture {
    outer: tempfile::TempDir,
}

impl Fixture {
    /// A root with a few files, next to a secret that must never be read.
    fn new() -> Self {
        let fixture = Self { outer: tempfile::tempdir().unwrap() };
        fs::create_dir_all(fixture.root().join("docs/deep")).unwrap();
        fixture.write("hello.txt", "hello");
        fixture.write("docs/a.txt", "a");
        fixture.write("docs/deep/b.txt", "bb");
        fs::write(fixture.outer.path().join("secret"), "secret").unwrap();
        fs::create_dir(fixture.outer.path().join("root-beside")).unwrap();
        fs::write(fixture.outer.path().join("root-beside/secret"), "secret").unwrap();
        fixture
    }

    fn root(&self) -> PathBuf {
        self.outer.path().join("root")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.root().join(name), text).unwrap();
    }

    fn roots(&self, show_hidden: bool) -> Vec<DocumentRoot> {
        roots_of(&self.root(), show_hidden)
    }
}

fn roots_of(path: &Path, show_hidden: bool) -> Vec<DocumentRoot> {
    RootDirectory::all_methods(path)
        .into_iter()
        .map(|directory| DocumentRoot::of(Some(directory), show_hidden))
        .collect()
}

fn content(file: &ServedFile) -> String {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; usize::try_from(file.meta.size).unwrap()];
    file.file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[track_caller]
fn check_found(roots: &[DocumentRoot], name: &str, expected: &str) {
    for root in roots {
        let file = root
            .open_file(name, Reach::Anywhere)
            .unwrap_or_else(|error| panic!("{name:?} with {root:?}: {error}"));
        assert_eq!(content(&file), expected, "{name:?}");
        match root.open_entry_cached(name) {
            Some(Ok(Opened::File(cached))) => assert_eq!(cached.meta, file.meta),
            None => {}
            other => panic!("{name:?} gave {other:?} from the cache with {root:?}"),
        }
    }
}

#[track_caller]
fn check_absent(roots: &[DocumentRoot], name: &str) {
    for root in roots {
        match root.open_file(name, Reach::Anywhere) {
            Err(RootError::NotFound { reason }) => assert!(!reason.is_empty()),
            other => panic!("{name:?} gave {other:?} with {root:?}"),
        }
        match root.open_entry_cached(name) {
            None | Some(Ok(Opened::Directory) | Err(RootError::NotFound { .. })) => {}
            other => panic!("{name:?} gave {other:?} from the cache with {root:?}"),
        }
    }
}

#[test]
fn opens_what_is_inside() {
    let fixture = Fixture::new();
    let roots = fixture.roots(false);
    check_found(&roots, "hello.txt", "hello");
    check_found(&roots, "docs/deep/b.txt", "bb");
    fixture.write("näme mit Leerzeichen.txt", "ok");
    fixture.write("%2e%2e", "not decoded");
    fixture.write("a..b", "dots");
    check_found(&roots, "näme mit Leerzeichen.txt", "ok");
    check_found(&roots, "%2e%2e", "not decoded");
    check_found(&roots, "a..b", "dots");
}

#[test]
fn refuses_names_that_are_no_plain_paths() {
    let fixture = Fixture::new();
    let roots = fixture.roots(true);
    let absolute = fixture.outer.path().join("secret");
    let long = format!("{}hello.txt", "docs/../".repeat(1000));
    let deep = vec!["a"; MAX_NAME_BYTES / 2 + 1].join("/");
    let names = [
        "../secret",
        "..",
        ".",
        "docs/../../secret",
        "docs/../hello.txt",
        "./hello.txt",
        "/hello.txt",
        "//hello.txt",
        "docs//a.txt",
        "docs/",
        "hello.txt/",
        "hello.txt/.",
        "docs/./a.txt",
        "hello.txt\0",
        "hello.txt\0.html",
        "docs\\a.txt",
        "..\\secret",
        "../root-beside/secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "docs/%2e%2e/hello.txt",
        "missing",
        "hello.txt/x",
        "docs",
        "",
        absolute.to_str().unwrap(),
        &long,
        &deep,
    ];
    for name in names {
        check_absent(&roots, name);
    }
    check_absent(&roots, &"a".repeat(256));
    check_absent(&roots, &"a".repeat(MAX_NAME_BYTES + 1));
}

#[test]
fn follows_links_inside_and_none_that_leads_out() {
    let fixture = Fixture::new();
    let link = |target: &str, name: &str| symlink(target, fixture.root().join(name)).unwrap();
    link("hello.txt", "inside");
    link("docs", "linked-docs");
    link("../hello.txt", "docs/up");
    link("deep/../a.txt", "docs/around");
    link("../secret", "out");
    link("..", "parent");
    link("../root/hello.txt", "out-and-in");
    link("/etc/passwd", "absolute");
    link("circle-b", "circle-a");
    link("circle-a", "circle-b");
    link("nowhere", "dangling");
    let roots = fixture.roots(false);
    check_found(&roots, "inside", "hello");
    check_found(&roots, "linked-docs/a.txt", "a");
    check_found(&roots, "docs/up", "hello");
    check_found(&roots, "linked-docs/up", "hello");
    check_found(&roots, "docs/around", "a");
    for name in ["out", "parent/secret", "absolute", "circle-a", "dangling", "parent", "linked-docs"] {
        check_absent(&roots, name);
    }
    // Leaving and coming back is leaving; only the canonical method cannot see it.
    let strict: Vec<_> =
        roots.into_iter().filter(|root| root.directory().unwrap().method() != Method::Canonical).collect();
    check_absent(&strict, "out-and-in");
}

#[cfg(target_os = "linux")]
#[test]
fn refuses_magic_links() {
    let pid = std::process::id();
    let roots = roots_of(Path::new(&format!("/proc/{pid}")), false);
    for name in ["exe", "cwd", "cwd/Cargo.toml", "root/etc/passwd", "fd/0", "fd/1"] {
        check_absent(&roots, name);
    }
    assert!(roots.iter().all(|root| root.open_file("status", Reach::Anywhere).is_ok()));
}

#[cfg(target_os = "linux")]
#[test]
fn serves_no_pipe_socket_or_device_and_never_waits() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let fixture = Fixture::new();
    mknodat(CWD, fixture.root().join("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(fixture.root().join("socket")).unwrap();
    symlink("pipe", fixture.root().join("to-pipe")).unwrap();
    let roots = fixture.roots(false);
    check_absent(&roots, "pipe");
    check_absent(&roots, "to-pipe");
    check_absent(&roots, "socket");
    let devices = roots_of(Path::new("/dev"), false);
    check_absent(&devices, "null");
    check_absent(&devices, "zero");
    for root in &roots {
        assert_eq!(names(root, ListQuery { limit: 10, ..ListQuery::default() }), ["docs", "hello.txt"]);
    }
}

#[test]
fn hides_dotfiles_and_unfinished_downloads() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.root().join(".git")).unwrap();
    let hidden = [".env", ".git/config", "film.part", "film.PART", "film.part.journal", ".part"];
    for name in hidden {
        fixture.write(name, "x");
    }
    for name in ["part", "counterpart", "film.parts", "film.part.txt"] {
        fixture.write(name, "y");
        check_found(&fixture.roots(false), name, "y");
    }
    for name in hidden {
        check_absent(&fixture.roots(false), name);
        check_found(&fixture.roots(true), name, "x");
    }
    for (closed, open) in fixture.roots(false).into_iter().zip(fixture.roots(true)) {
        let all = ListQuery { limit: 100, recursive: true, ..ListQuery::default() };
        let listed = names(&closed, all);
        assert!(hidden.iter().all(|name| !listed.iter().any(|listed| listed == name)), "{listed:?}");
        let listed = names(&open, all);
        assert!(hidden.iter().all(|name| listed.iter().any(|listed| listed == name)), "{listed:?}");
        assert_eq!(names(&closed, ListQuery { prefix: b".git/", ..all }), [""; 0]);
    }
}

#[test]
fn says_what_is_a_directory() {
    let fixture = Fixture::new();
    symlink("docs", fixture.root().join("linked")).unwrap();
    for root in fixture.roots(false) {
        for name in ["", "docs", "docs/deep", "linked"] {
            assert!(matches!(root.open_entry(name, Reach::Anywhere), Ok(Opened::Directory)), "{name}");
        }
        assert!(matches!(root.open_entry("hello.txt", Reach::Anywhere), Ok(Opened::File(_))));
        assert!(matches!(root.open_entry("docs/", Reach::Anywhere), Err(RootError::NotFound { .. })));
    }
}

#[test]
fn an_unreadable_file_is_absent() {
    if rustix::process::geteuid().is_root() {
        // Nothing is unreadable to root; the mapping itself is tried below.
        let denied = RootError::from_io(io::ErrorKind::PermissionDenied.into());
        assert!(matches!(denied, RootError::Denied));
        return;
    }
    let fixture = Fixture::new();
    fs::set_permissions(fixture.root().join("hello.txt"), fs::Permissions::from_mode(0o000)).unwrap();
    check_absent(&fixture.roots(false), "hello.txt");
}

#[test]
fn running_out_of_descriptors_is_told_apart() {
    let error = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
    assert!(matches!(RootError::from_io(error), RootError::TooManyFiles));
    let error = io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error());
    assert!(matches!(RootError::from_io(error), RootError::Io(_)));
}

#[test]
fn a_missing_root_says_what_to_do() {
    let error = DocumentRoot::open("/nonexistent/place", false).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/place") && error.contains("--root"), "{error}");
    let fixture = Fixture::new();
    assert!(DocumentRoot::open(fixture.root().join("hello.txt"), false).is_err());
}

#[cfg(all(target_os = "linux", not(relay_plain)))]
#[test]
fn the_best_method_is_chosen() {
    let fixture = Fixture::new();
    let root = DocumentRoot::open(fixture.root(), false).unwrap();
    assert_eq!(root.directory().unwrap().method(), Method::Openat2);
    // A file that was just opened is in the kernel's memory.
    root.open_file("hello.txt", Reach::Anywhere).unwrap();
    assert!(matches!(root.open_entry_cached("hello.txt"), Some(Ok(Opened::File(_)))));
}

/// A directory that is exchanged for a link that leads out, again and again, never gives the secret away.
#[test]
fn a_race_between_a_directory_and_a_link_reads_nothing_outside() {
    let fixture = Fixture::new();
    let place = |name: &str| fixture.root().join(name);
    fs::create_dir(place("real")).unwrap();
    fixture.write("real/secret", "public");
    symlink("../root-beside", place("escape")).unwrap();
    fs::rename(place("real"), place("swap")).unwrap();
    let roots: Vec<_> = fixture
        .roots(false)
        .into_iter()
        .filter(|root| root.directory().unwrap().method() != Method::Canonical)
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let (swap, escape, aside) = (place("swap"), place("escape"), place("aside"));
    let swapping = std::thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(Relaxed) {
                fs::rename(&swap, &aside).unwrap();
                fs::rename(&escape, &swap).unwrap();
                fs::rename(&swap, &escape).unwrap();
                fs::rename(&aside, &swap).unwrap();
            }
        }
    });
    let (mut found, mut refused) = (0, 0);
    while found + refused < 2_000 || found == 0 || refused == 0 {
        for root in &roots {
            match root.open_file("swap/secret", Reach::Anywhere) {
                Ok(file) => {
                    assert_eq!(content(&file), "public");
                    found += 1;
                }
                Err(RootError::NotFound { .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }
    stop.store(true, Relaxed);
    swapping.join().unwrap();
}

#[test]
fn the_entity_tag_changes_with_the_file() {
    let fixture = Fixture::new();
    let root = DocumentRoot::open(fixture.root(), false).unwrap();
    let before = root.open_file("hello.txt", Reach::Anywhere).unwrap();
    let tag = before.meta.entity_tag();
    assert!(tag.len() == 32 && tag.bytes().all(|byte| byte.is_ascii_hexdigit()), "{tag}");
    assert_eq!(tag, root.open_file("hello.txt", Reach::Anywhere).unwrap().meta.entity_tag());
    assert_eq!(before.meta_now().unwrap(), before.meta);
    fixture.write("hello.txt", "hello, longer");
    let now = before.meta_now().unwrap();
    assert_eq!(now.size, 13);
    assert_ne!(now.entity_tag(), tag);
    let mut elsewhere = before.meta;
    elsewhere.identity.device += 1;
    assert_eq!(elsewhere.entity_tag(), tag);
    let mut moved = before.meta;
    moved.identity.mtime.1 ^= 1;
    assert_ne!(moved.entity_tag(), tag);
}

#[test]
fn metadata_tells_the_time_and_the_mark() {
    let fixture = Fixture::new();
    let path = fixture.root().join("tool");
    fixture.write("tool", "#!");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let then = SystemTime::UNIX_EPOCH - Duration::new(10, 250_000_000);
    fs::File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
    for root in fixture.roots(false) {
        let meta = root.open_file("tool", Reach::Anywhere).unwrap().meta;
        assert_eq!(meta.modified, (-11, 750_000_000));
        assert_eq!(meta.modified, since_1970(then));
        assert!(meta.executable);
        assert!(!root.open_file("hello.txt", Reach::Anywhere).unwrap().meta.executable);
    }
    assert_eq!(since_1970(SystemTime::UNIX_EPOCH + Duration::new(3, 4)), (3, 4));
    assert_eq!(since_1970(SystemTime::UNIX_EPOCH - Duration::new(3, 0)), (-3, 0));
}

fn name(entry: ListEntry) -> String {
    String::from_utf8(entry.name).unwrap()
}

fn names(root: &DocumentRoot, query: ListQuery<'_>) -> Vec<String> {
    root.list(query).unwrap().entries.into_iter().map(name).collect()
}

/// All pages, each of at most `limit` entries, and the count of names that are not offered.
fn all_pages(root: &DocumentRoot, query: ListQuery<'_>) -> (Vec<String>, u64) {
    let (mut all, mut not_offered) = (Vec::<String>::new(), 0);
    let mut after = query.after.map(<[u8]>::to_vec);
    loop {
        let page = root.list(ListQuery { after: after.as_deref(), ..query }).unwrap();
        assert!(page.entries.len() <= query.limit);
        if let (Some(next), Some(after)) = (&page.next, &after) {
            assert!(path_order(next, after).is_gt(), "{page:?}");
        }
        not_offered += page.not_offered;
        all.extend(page.entries.into_iter().map(name));
        after = page.next;
        if after.is_none() {
            return (all, not_offered);
        }
        // A page can be found without what the one before left behind.
        if all.len() % 2 == 0 {
            root.kept.take(ListQuery { after: after.as_deref(), ..query });
        }
    }
}

fn tree() -> Fixture {
    let fixture = Fixture::new();
    for directory in ["a", "a/x", "te", "empty"] {
        fs::create_dir(fixture.root().join(directory)).unwrap();
    }
    for file in ["a-b", "a.txt", "a/b", "a/x/1", "a/x/2", "test", "te/in", "z\\z", "É"] {
        fixture.write(file, "1");
    }
    fixture
}

const WHOLE_TREE: [&str; 17] = [
    "a",
    "a/b",
    "a/x",
    "a/x/1",
    "a/x/2",
    "a-b",
    "a.txt",
    "docs",
    "docs/a.txt",
    "docs/deep",
    "docs/deep/b.txt",
    "empty",
    "hello.txt",
    "te",
    "te/in",
    "test",
    "É",
];

#[test]
fn lists_depth_first_in_byte_order() {
    for root in tree().roots(false) {
        let all = ListQuery { limit: 100, recursive: true, ..ListQuery::default() };
        assert_eq!(names(&root, all), WHOLE_TREE);
        let top = ListQuery { recursive: false, ..all };
        assert_eq!(names(&root, top), ["a", "a-b", "a.txt", "docs", "empty", "hello.txt", "te", "test", "É"]);
        assert!(WHOLE_TREE.is_sorted_by(|left, right| path_order(left.as_bytes(), right.as_bytes()).is_lt()));
    }
}

#[test]
fn a_prefix_is_a_prefix_of_the_text() {
    for root in tree().roots(false) {
        let list = |prefix: &str, recursive| {
            let prefix = prefix.as_bytes();
            names(&root, ListQuery { prefix, limit: 100, recursive, ..ListQuery::default() })
        };
        assert_eq!(list("te", false), ["te", "test"]);
        assert_eq!(list("te", true), ["te", "te/in", "test"]);
        assert_eq!(list("te/", true), ["te/in"]);
        assert_eq!(list("a/x", true), ["a/x", "a/x/1", "a/x/2"]);
        assert_eq!(list("a/x/", false), ["a/x/1", "a/x/2"]);
        assert_eq!(list("docs/", false), ["docs/a.txt", "docs/deep"]);
        for nothing in ["missing", "missing/", "hello.txt/", "/", "../", "docs/../", "docs//", "a\\", "\0/"] {
            assert_eq!(list(nothing, true), [""; 0], "{nothing:?}");
        }
    }
}

#[test]
fn every_page_size_and_every_cursor_gives_the_same_listing() {
    let fixture = tree();
    fixture.write("not-offered", "");
    use std::os::unix::ffi::OsStrExt;
    for directory in ["", "a", "a/x", "te", "empty"] {
        let name = std::ffi::OsStr::from_bytes(b"bad\xff");
        fs::write(fixture.root().join(directory).join(name), "").unwrap();
    }
    fs::remove_file(fixture.root().join("not-offered")).unwrap();
    for root in fixture.roots(false) {
        for limit in 1..=WHOLE_TREE.len() + 1 {
            let query = ListQuery { limit, recursive: true, ..ListQuery::default() };
            let (listed, not_offered) = all_pages(&root, query);
            assert_eq!(listed, WHOLE_TREE, "{limit}");
            assert_eq!(not_offered, 6, "{limit}");
        }
        for after in WHOLE_TREE.iter().copied().chain(["a/", "a/c", "a0", "docs/zzz", "0", "zz"]) {
            let query = ListQuery {
                after: Some(after.as_bytes()),
                limit: 100,
                recursive: true,
                ..ListQuery::default()
            };
            let expected: Vec<_> = WHOLE_TREE
                .into_iter()
                .filter(|name| path_order(name.as_bytes(), after.as_bytes()).is_gt())
                .collect();
            assert_eq!(names(&root, query), expected, "{after:?}");
            let inside: Vec<_> = expected.iter().copied().filter(|name| name.starts_with("docs/")).collect();
            assert_eq!(names(&root, ListQuery { prefix: b"docs/", ..query }), inside, "{after:?}");
        }
    }
}

#[test]
fn a_large_directory_comes_in_pages_whole_and_in_order() {
    let fixture = Fixture::new();
    let mut expected = Vec::new();
    for number in 0..2_500 {
        let name = format!("docs/n{number}");
        fixture.write(&name, "");
        // Links to nowhere are passed over, also when a whole batch is made of them.
        symlink("nowhere", fixture.root().join(format!("docs/m{number}"))).unwrap();
        expected.push(name);
    }
    expected.extend(["docs/a.txt", "docs/deep", "docs/deep/b.txt"].map(String::from));
    expected.sort_by(|left, right| path_order(left.as_bytes(), right.as_bytes()));
    for root in fixture.roots(false) {
        let query =
            ListQuery { prefix: b"docs/", limit: MAX_LIST_PAGE, recursive: true, ..ListQuery::default() };
        assert_eq!(all_pages(&root, query).0, expected);
        let page = root.list(ListQuery { limit: usize::MAX, ..query }).unwrap();
        assert_eq!(page.entries.len(), MAX_LIST_PAGE);
        assert!(page.next.is_some());
    }
}

#[test]
fn linked_directories_are_named_but_not_entered() {
    let fixture = Fixture::new();
    symlink(".", fixture.root().join("circle")).unwrap();
    symlink("../secret", fixture.root().join("out")).unwrap();
    symlink("hello.txt", fixture.root().join("same")).unwrap();
    for root in fixture.roots(false) {
        let all = ListQuery { limit: 100, recursive: true, ..ListQuery::default() };
        let page = root.list(all).unwrap();
        let listed: Vec<_> = page.entries.iter().cloned().map(name).collect();
        assert_eq!(
            listed,
            ["circle", "docs", "docs/a.txt", "docs/deep", "docs/deep/b.txt", "hello.txt", "same"]
        );
        assert_eq!(page.entries[0].kind, EntryKind::Directory);
        assert_eq!((page.entries[6].kind, page.entries[6].size), (EntryKind::File, 5));
        assert_eq!(names(&root, ListQuery { prefix: b"circle/h", ..all }), ["circle/hello.txt"]);
    }
}

/// Whoever opens a pipe for writing waits for a reader. Were one there for a moment, it would go on, and write to nobody.
#[cfg(target_os = "linux")]
#[test]
fn a_pipe_is_not_opened_to_see_what_it_is() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let fixture = Fixture::new();
    let pipe = fixture.root().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    for root in fixture.roots(false) {
        let watch = Watch::on(&fixture.root());
        assert!(matches!(root.open_file("pipe", Reach::Anywhere), Err(RootError::NotFound { .. })));
        assert!(root.open_entry_cached("pipe").is_none_or(|entry| entry.is_err()));
        assert_eq!(watch.opened(), [""; 0]);
        root.open_file("hello.txt", Reach::Anywhere).unwrap();
        assert!(watch.opened().contains(&"hello.txt".to_owned()));
    }
}

/// Which files of a directory are opened.
#[cfg(target_os = "linux")]
struct Watch(std::os::fd::OwnedFd);

#[cfg(target_os = "linux")]
impl Watch {
    fn on(directory: &Path) -> Watch {
        use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
        let watch = init(CreateFlags::NONBLOCK).unwrap();
        add_watch(&watch, directory, WatchFlags::OPEN).unwrap();
        Watch(watch)
    }

    fn opened(&self) -> Vec<String> {
        use rustix::fs::inotify::Reader;
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.0, &mut buffer);
        let mut names = Vec::new();
        while let Ok(event) = reader.next() {
            names.extend(event.file_name().map(|name| name.to_str().unwrap().to_owned()));
        }
        names
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_under_a_lease_is_told_apart_from_a_failure() {
    let error = io::Error::from_raw_os_error(rustix::io::Errno::AGAIN.raw_os_error());
    assert!(matches!(RootError::from_io(error), RootError::Leased));
}

#[cfg(all(target_os = "linux", not(relay_plain)))]
#[test]
fn another_mount_is_looked_into_only_where_that_may_be() {
    let fixture = Fixture::new();
    symlink("../secret", fixture.root().join("out")).unwrap();
    let root = DocumentRoot::open(fixture.root(), false).unwrap();
    assert!(matches!(root.open_file("out/x", Reach::OwnMount), Err(RootError::Elsewhere)));
    assert!(matches!(root.open_file("out/x", Reach::Anywhere), Err(RootError::NotFound { .. })));
    assert_eq!(root.directory().unwrap().way_out(b"out/x/y"), b"out/x");
    assert_eq!(root.directory().unwrap().way_out(b"docs/a.txt"), b"docs");
    assert!(root.open_file("docs/a.txt", Reach::OwnMount).is_ok());
}

#[cfg(all(target_os = "linux", not(relay_plain)))]
mod listing;
