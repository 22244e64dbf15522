//! Whole directories: does everything come along and nothing else, does a rerun fetch only what is missing, and does one bad file
//! leave the others alone?

use crate::world::{MIB, World, hops};
use relay_testkit::files::{names_in, sample_bytes};
use relay_testkit::node::Node;
use relay_testkit::process::{Finished, Signal};
use relay_testkit::proxy::{Direction, Fault, FaultProxy, Plan};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Bytes of a file that gets a download of its own.
const LARGE: usize = 6 * MIB + 17;

/// A file or a directory as far as it is to come along.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// None: a directory.
    bytes: Option<u64>,
    modified: SystemTime,
    executable: bool,
}

/// All that is beneath a directory, by its path, without what is in the files.
fn snapshot(directory: &Path) -> BTreeMap<String, Entry> {
    let mut found = BTreeMap::new();
    collect(directory, "", &mut found);
    found
}

fn collect(directory: &Path, prefix: &str, found: &mut BTreeMap<String, Entry>) {
    for name in names_in(directory) {
        let (place, path) = (directory.join(&name), format!("{prefix}{name}"));
        let meta = fs::symlink_metadata(&place).expect("an entry");
        let node = Entry {
            bytes: meta.is_file().then_some(meta.len()),
            modified: meta.modified().expect("a time"),
            executable: meta.is_file() && meta.permissions().mode() & 0o111 != 0,
        };
        found.insert(path.clone(), node);
        if meta.is_dir() {
            collect(&place, &format!("{path}/"), found);
        }
    }
}

/// Checks that two directories have the same content, times and marks, all the way down.
#[track_caller]
fn check_same(served: &Path, saved: &Path) {
    let (expected, got) = (snapshot(served), snapshot(saved));
    assert_eq!(got, expected);
    for (path, _) in expected.iter().filter(|(_, node)| node.bytes.is_some()) {
        let read = |place: &Path| fs::read(place.join(path)).expect("readable");
        assert!(read(served) == read(saved), "{path} has other bytes");
    }
}

/// Gives files and directories times of their own, the directories last.
fn date(directory: &Path) {
    for (number, path) in snapshot(directory).keys().rev().enumerate() {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_500_000_000 + number as u64 * 1000, 123_456_789);
        File::open(directory.join(path)).and_then(|file| file.set_modified(time)).expect("dated");
    }
}

/// A tree with everything in it that a tree can have.
fn offer_tree(world: &World) {
    for (name, len) in [
        ("tree/empty file", 0),
        ("tree/a", 1),
        ("tree/chunk", MIB),
        ("tree/chunk and one", MIB + 1),
        ("tree/four chunks", 4 * MIB),
        ("tree/four chunks and one", 4 * MIB + 1),
        ("tree/größe/Ünï/x.txt", 4096),
        ("tree/deep/er/and/deeper/y", 77),
        ("tree/large", LARGE),
        ("tree/run.sh", 99),
        ("tree/large and executable", LARGE),
        ("tree-beside/not this", 10),
    ] {
        world.offer(name, len);
    }
    for number in 0..150 {
        world.offer(&format!("tree/many/{}/f{number}", number % 7), 1000 + number);
    }
    for name in ["empty", "nested/empty"] {
        fs::create_dir_all(world.served().join("tree").join(name)).expect("a directory");
    }
    for name in ["tree/run.sh", "tree/large and executable"] {
        fs::set_permissions(world.served().join(name), fs::Permissions::from_mode(0o755)).expect("marked");
    }
    date(&world.served().join("tree"));
}

fn events(finished: &Finished) -> Vec<Value> {
    let text = finished.stdout_text();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

/// The paths of these events, sorted.
fn paths(finished: &Finished, event: &str) -> Vec<String> {
    let mut paths: Vec<String> = events(finished)
        .iter()
        .filter(|one| one["event"] == event)
        .map(|one| one["path"].as_str().expect("a path").to_owned())
        .collect();
    paths.sort();
    paths
}

#[track_caller]
fn check_ended(finished: &Finished, code: i32) {
    assert_eq!(finished.code, Some(code), "{}\n{}", finished.stderr, finished.stdout_text());
}

/// Nothing is left of a run that ended well.
#[track_caller]
fn check_nothing_unfinished(saved: &Path) {
    let left: Vec<String> = snapshot(saved).into_keys().filter(|path| path.contains(".part")).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn everything_comes_along() {
    let world = World::new();
    offer_tree(&world);
    for relays in [0, 3] {
        let nodes = world.chain(relays);
        let saved = world.saved().join(format!("through {relays}"));
        let finished = world.fetch("tree/", &hops(&nodes), &["-o", saved.to_str().expect("text")]);
        check_ended(&finished, 0);
        check_same(&world.served().join("tree"), &saved);
    }
    // By default it gets the directory's own name; a name without its slash needs the flag.
    let nodes = world.chain(1);
    check_ended(&world.fetch("tree/größe", &hops(&nodes), &["--recursive"]), 0);
    assert_eq!(names_in(&world.saved().join("größe")), ["Ünï"]);
    // And all that is offered, which has no name.
    check_ended(&world.fetch("/", &hops(&nodes), &[]), 2);
    check_ended(&world.fetch("/", &hops(&nodes), &["-o", "all/"]), 0);
    check_same(&world.served().join("tree"), &world.saved().join("all/tree"));
    assert_eq!(names_in(&world.saved().join("all/tree-beside")), ["not this"]);
    check_nothing_unfinished(&world.saved());
}

#[test]
fn a_route_file_names_a_directory() {
    let world = World::new();
    world.offer("docs/a b/c", 10);
    let nodes = world.chain(1);
    let route = world.route("docs/", &hops(&nodes));
    check_ended(&world.client(&[route.to_str().expect("text")]), 0);
    assert_eq!(fs::read(world.saved().join("docs/a b/c")).expect("saved"), sample_bytes("docs/a b/c", 10));
}

#[test]
fn a_rerun_fetches_only_what_changed() {
    let world = World::new();
    offer_tree(&world);
    let (nodes, served, saved) = (world.chain(1), world.served().join("tree"), world.saved().join("tree"));
    check_ended(&world.fetch("tree/", &hops(&nodes), &[]), 0);
    let again = world.fetch("tree/", &hops(&nodes), &["--json"]);
    check_ended(&again, 0);
    assert_eq!(paths(&again, "file_done"), Vec::<String>::new());
    let files = snapshot(&served).values().filter(|node| node.bytes.is_some()).count();
    assert_eq!(paths(&again, "file_same").len(), files);

    // New, changed, no longer executable; and what is only here stays.
    world.offer("tree/new/er", 10);
    world.offer("tree/a", 2);
    world.offer("tree/large", LARGE + 1);
    fs::set_permissions(served.join("run.sh"), fs::Permissions::from_mode(0o644)).expect("unmarked");
    fs::write(saved.join("only here"), "mine").expect("written");
    let again = world.fetch("tree/", &hops(&nodes), &["--json"]);
    check_ended(&again, 0);
    assert_eq!(paths(&again, "file_done"), ["a", "large", "new/er"]);
    assert_eq!(fs::read(saved.join("only here")).expect("kept"), b"mine");
    fs::remove_file(saved.join("only here")).expect("removed");
    // Removing it dated the directory anew.
    check_ended(&world.fetch("tree/", &hops(&nodes), &[]), 0);
    check_same(&served, &saved);
}

#[test]
fn a_checksum_finds_what_size_and_time_hide() {
    let world = World::new();
    offer_tree(&world);
    let (nodes, served, saved) = (world.chain(1), world.served().join("tree"), world.saved().join("tree"));
    check_ended(&world.fetch("tree/", &hops(&nodes), &[]), 0);
    for name in ["a", "chunk and one", "large"] {
        let time = fs::metadata(saved.join(name)).and_then(|meta| meta.modified()).expect("a time");
        let mut bytes = fs::read(saved.join(name)).expect("readable");
        *bytes.last_mut().expect("not empty") ^= 1;
        fs::write(saved.join(name), bytes).expect("written");
        File::open(saved.join(name)).and_then(|file| file.set_modified(time)).expect("dated back");
    }
    // Another time alone is no other content.
    File::open(saved.join("chunk")).and_then(|file| file.set_modified(SystemTime::now())).expect("dated");
    let quick = world.fetch("tree/", &hops(&nodes), &["--json"]);
    check_ended(&quick, 0);
    assert_eq!(paths(&quick, "file_done"), ["chunk"]);
    File::open(saved.join("chunk")).and_then(|file| file.set_modified(SystemTime::now())).expect("dated");
    let thorough = world.fetch("tree/", &hops(&nodes), &["--json", "--checksum"]);
    check_ended(&thorough, 0);
    assert_eq!(paths(&thorough, "file_done"), ["a", "chunk and one", "large"]);
    check_same(&served, &saved);
}

#[test]
fn patterns_choose() {
    let world = World::new();
    for name in ["t/a.jpg", "t/a.txt", "t/d/b.jpg", "t/d/skip/c.jpg", "t/.x/y.jpg"] {
        world.offer(name, 10);
    }
    fs::create_dir(world.served().join("t/nothing")).expect("a directory");
    let nodes = world.chain(0);
    let finished = world.fetch("t/", &hops(&nodes), &["--include", "*.jpg", "--exclude", "skip"]);
    check_ended(&finished, 0);
    let saved: Vec<String> = snapshot(&world.saved().join("t")).into_keys().collect();
    assert_eq!(saved, ["a.jpg", "d", "d/b.jpg"]);
    check_ended(&world.fetch("t/", &hops(&nodes), &["--include", "[x"]), 2);
}

#[test]
fn what_makes_no_sense_is_refused_at_once() {
    let world = World::new();
    world.offer("docs/a", 10);
    fs::create_dir(world.served().join("bare")).expect("a directory");
    let nodes = world.chain(0);
    let hash = format!("b3:{}", "0".repeat(64));
    for (arguments, part) in
        [(vec!["-o", "-"], "standard output"), (vec!["--expect", hash.as_str()], "no hash")]
    {
        let finished = world.fetch("docs/", &hops(&nodes), &arguments);
        check_ended(&finished, 2);
        assert!(finished.stderr.contains(part) && !finished.stderr.contains("hop 1"), "{}", finished.stderr);
    }
    let finished = world.fetch("nothing/", &hops(&nodes), &[]);
    check_ended(&finished, 5);
    let finished = world.fetch("docs/a", &hops(&nodes), &["--recursive"]);
    check_ended(&finished, 5);
    assert!(finished.stderr.contains("without --recursive"), "{}", finished.stderr);
    check_ended(&world.fetch("bare/", &hops(&nodes), &[]), 0);
    assert!(names_in(&world.saved().join("bare")).is_empty());
}

#[test]
fn one_bad_file_does_not_stop_the_others() {
    let world = World::new();
    offer_tree(&world);
    let (nodes, saved) = (world.chain(1), world.saved().join("tree"));
    let outside = world.elsewhere("outside");
    fs::create_dir_all(&outside).expect("a directory");
    fs::create_dir_all(saved.join("a")).expect("a directory in a file's place");
    fs::create_dir_all(saved.join("large/x")).expect("a directory in a large file's place");
    fs::write(saved.join("deep"), "a file in a directory's place").expect("written");
    symlink(&outside, saved.join("nested")).expect("a link in a directory's place");
    symlink(outside.join("f"), saved.join("chunk")).expect("a link in a file's place");
    symlink(outside.join("g"), saved.join("run.sh.part")).expect("a link in an unfinished file's place");
    let finished = world.fetch("tree/", &hops(&nodes), &["--json"]);
    check_ended(&finished, 10);
    let failed = ["a", "deep/er/and/deeper/y", "large"];
    let expected = ["a", "deep", "deep/er", "deep/er/and", "deep/er/and/deeper"];
    let told = paths(&finished, "file_failed");
    assert!(expected.iter().all(|path| told.iter().any(|one| one == path)), "{told:?}");
    assert!(told.contains(&"nested".to_owned()) && !told.contains(&"run.sh".to_owned()), "{told:?}");
    // What stands in an unfinished file's place is not this program's, and another name does.
    assert!(saved.join("run.sh.part").is_symlink());
    let last = events(&finished).pop().expect("an event");
    assert_eq!(
        (&last["event"], &last["kind"], &last["exit"]),
        (&"failed".into(), &"incomplete".into(), &10.into())
    );
    // Everything else is here, and nothing went through a link.
    let (served, saved_now) = (snapshot(&world.served().join("tree")), snapshot(&saved));
    for path in served.keys().filter(|path| !failed.contains(&path.as_str())) {
        if !path.starts_with("deep") && !path.starts_with("nested") {
            assert_eq!(saved_now.get(path).map(|node| node.bytes), Some(served[path].bytes), "{path}");
        }
    }
    assert!(names_in(&outside).is_empty());
    assert_eq!(fs::read(saved.join("deep")).expect("kept"), b"a file in a directory's place");
    // People get the same: a line a file, a summary, and what to do.
    let finished = world.fetch("tree/", &hops(&nodes), &[]);
    check_ended(&finished, 10);
    for part in ["a: a directory stands here", "could not be fetched", "the same command"] {
        assert!(finished.stderr.contains(part), "no {part:?} in: {}", finished.stderr);
    }
    // And those who want to hear of nothing but errors hear of these.
    let quiet = world.fetch("tree/", &hops(&nodes), &["--quiet"]);
    check_ended(&quiet, 10);
    assert!(quiet.stderr.lines().all(|line| line.starts_with("error: ")), "{}", quiet.stderr);
    assert!(quiet.stderr.contains("a: a directory stands here"), "{}", quiet.stderr);
    // But one line is enough for a directory that cannot be had.
    assert_eq!(finished.stderr.matches("stands here as deep or above").count(), 1, "{}", finished.stderr);
}

#[test]
fn names_that_cannot_be_offered_are_counted() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::new();
    world.offer("t/good", 10);
    fs::write(world.served().join("t").join(std::ffi::OsStr::from_bytes(b"bad\xff")), "x").expect("written");
    let finished = world.fetch("t/", &hops(&world.chain(0)), &[]);
    check_ended(&finished, 10);
    assert!(finished.stderr.contains("1 more cannot be offered"), "{}", finished.stderr);
    assert_eq!(names_in(&world.saved().join("t")), ["good"]);
}

#[test]
fn a_linked_directory_is_named_and_left_out() {
    let world = World::new();
    world.offer("t/real/x", 10);
    world.offer("t/y", 10);
    for (to, name) in [("real", "t/linked"), ("..", "t/real/circle"), ("y", "t/to a file")] {
        symlink(to, world.served().join(name)).expect("a link");
    }
    let nodes = world.chain(1);
    let finished = world.fetch("t/", &hops(&nodes), &["--json"]);
    check_ended(&finished, 10);
    assert_eq!(paths(&finished, "file_failed"), ["linked", "real/circle"]);
    assert!(finished.stdout_text().contains("a link to a directory"), "{}", finished.stdout_text());
    assert_eq!(names_in(&world.saved().join("t")), ["real", "to a file", "y"]);
    assert_eq!(names_in(&world.saved().join("t/real")), ["x"]);
    // Who knows of them does not want to be told, or fetches what they lead to.
    check_ended(&world.fetch("t/", &hops(&nodes), &["--exclude", "linked", "--exclude", "circle"]), 0);
    check_ended(&world.fetch("t/linked/", &hops(&nodes), &["-o", "linked"]), 10);
    assert_eq!(names_in(&world.saved().join("linked")), ["x"]);
}

#[test]
fn a_directory_of_several_pages_comes_whole() {
    let world = World::new();
    // The first page ends within a directory.
    for number in 0..1_300 {
        world.offer(&format!("t/many/{number:04}"), number % 7);
        world.offer(&format!("t/{number:04}"), number % 5);
    }
    check_ended(&world.fetch("t/", &hops(&world.chain(1)), &["--quiet"]), 0);
    check_same(&world.served().join("t"), &world.saved().join("t"));
}

#[test]
fn a_broken_chain_is_tried_again_with_what_is_missing() {
    let world = World::new();
    offer_tree(&world);
    let nodes = world.chain(1);
    let served = world.served().join("tree");
    // In the listing, among the small files, in the first bytes of all; and in a large one.
    for (connection, fault, at) in [
        (0, Fault::Reset, 5_000),
        (0, Fault::Cut, 300_000),
        (0, Fault::Cut, 10),
        (0, Fault::FlipBit(3), 200_000),
        (1, Fault::Reset, 3_000_000),
    ] {
        let proxy = FaultProxy::start_with(nodes[0].address(), move |n| {
            if n == connection { Plan::down(at, fault) } else { Plan::pass() }
        });
        let target = world.saved().join(format!("{at}"));
        let finished = world.client(&[
            "--get",
            "tree/",
            "--via",
            &proxy.hop(),
            "--via",
            &nodes[1].hop(),
            "--json",
            "--retries",
            "3",
            "--connections",
            "1",
            "-o",
            target.to_str().expect("text"),
        ]);
        check_ended(&finished, 0);
        check_same(&served, &target);
        let done = paths(&finished, "file_done");
        let mut unique = done.clone();
        unique.dedup();
        assert_eq!(done.len(), unique.len(), "{fault:?} at {at}: fetched twice");
        if !matches!(fault, Fault::FlipBit(_)) {
            assert!(
                events(&finished).iter().any(|event| event["event"] == "retry" && event["pause"].is_number()),
                "{fault:?}"
            );
        }
    }
}

#[test]
fn a_chain_that_stays_broken_ends_the_run_and_the_next_one_goes_on() {
    let world = World::new();
    for number in 0..300 {
        world.offer(&format!("t/{number:03}"), 20_000);
    }
    let nodes = world.chain(1);
    let proxy = FaultProxy::start(nodes[0].address(), Plan::down(3_000_000, Fault::Reset));
    let one = ["--json", "--connections", "1"];
    let finished = world.fetch("t/", &[proxy.hop(), nodes[1].hop()], &one);
    check_ended(&finished, 3);
    assert!(finished.stderr.contains("hop") || finished.stderr.contains("connection"), "{}", finished.stderr);
    let first = paths(&finished, "file_done");
    assert!(!first.is_empty() && first.len() < 300, "{}", first.len());
    let finished = world.fetch("t/", &hops(&nodes), &["--json"]);
    check_ended(&finished, 0);
    assert_eq!(paths(&finished, "file_done").len(), 300 - first.len());
    check_nothing_unfinished(&world.saved());
}

/// Every file that has its final name is whole at every moment, also when the client is killed; the next run goes on.
#[test]
fn a_killed_client_leaves_only_whole_files() {
    let world = World::new();
    for number in 0..400 {
        world.offer(&format!("t/{number:03}"), 30_000);
    }
    world.offer("t/large", LARGE);
    let nodes = world.chain(0);
    // In the first connection, or in a later one: that of the large file, or a further one for small files.
    for (first, later) in [(400_000, 400_000), (2_900_000, 2_900_000), (u64::MAX, 2_000_000)] {
        let proxy = FaultProxy::start_with(nodes[0].address(), move |n| {
            Plan::down(if n == 0 { first } else { later }, Fault::Stall)
        });
        let client = world.start_fetch("t/", &[proxy.hop()], &["--timeout", "60"]);
        proxy.wait_for_stall();
        client.signal(Signal::Kill);
        let _ = client.finish();
        let saved = world.saved().join("t");
        let here: Vec<String> = names_in(&saved).into_iter().filter(|name| !name.contains(".part")).collect();
        for name in &here {
            let expected = fs::read(world.served().join("t").join(name)).expect("readable");
            assert!(fs::read(saved.join(name)).expect("readable") == expected, "{name} is not whole");
        }
        let finished = world.fetch("t/", &hops(&nodes), &["--json"]);
        check_ended(&finished, 0);
        assert_eq!(paths(&finished, "file_done").len() + here.len(), 401);
        check_same(&world.served().join("t"), &saved);
        fs::remove_dir_all(saved).expect("removed");
    }
}

#[test]
fn a_large_file_of_a_tree_goes_on_where_it_broke() {
    let world = World::new();
    world.offer("t/large", 20 * MIB);
    let nodes = world.chain(0);
    let proxy = FaultProxy::start_with(nodes[0].address(), |n| match n {
        0 => Plan::pass(),
        _ => Plan::down(12 * MIB as u64, Fault::Stall),
    });
    let client = world.start_fetch("t/", &[proxy.hop()], &["--timeout", "60"]);
    proxy.wait_for_stall();
    client.signal(Signal::Interrupt);
    let finished = client.finish();
    check_ended(&finished, 130);
    assert!(finished.stderr.contains("t/large.part keeps"), "{}", finished.stderr);
    let finished = world.fetch("t/", &hops(&nodes), &["--json"]);
    check_ended(&finished, 0);
    let all = events(&finished);
    let done = all.iter().find(|event| event["event"] == "tree_done").expect("a summary");
    let fetched = done["bytes"].as_u64().expect("a number");
    assert!(fetched < 15 * MIB as u64, "{fetched} bytes fetched again");
    check_same(&world.served().join("t"), &world.saved().join("t"));
}

#[test]
fn two_clients_do_not_share_a_target() {
    let world = World::new();
    world.offer("t/f", 100_000);
    let nodes = world.chain(0);
    let proxy = FaultProxy::start(nodes[0].address(), Plan::down(20_000, Fault::Stall));
    let first = world.start_fetch("t/", &[proxy.hop()], &["--timeout", "60"]);
    proxy.wait_for_stall();
    let second = world.fetch("t/", &hops(&nodes), &[]);
    check_ended(&second, 8);
    assert!(second.stderr.contains("another client"), "{}", second.stderr);
    proxy.resume();
    check_ended(&first.finish(), 0);
}

/// Over a long chain a round trip is not paid for every file.
#[test]
fn many_files_share_a_round_trip() {
    let world = World::new();
    for number in 0..1_000 {
        world.offer(&format!("t/{number:04}"), 100);
    }
    let nodes = world.chain(0);
    let late = Direction::delay(Duration::from_millis(50));
    let proxy = FaultProxy::start(nodes[0].address(), Plan { up: late.clone(), down: late });
    let finished = world.fetch("t/", &[proxy.hop()], &["--json"]);
    check_ended(&finished, 0);
    check_same(&world.served().join("t"), &world.saved().join("t"));
    // A thousand round trips would take 100 seconds and fail above. Few connections carry all, and each carries many.
    assert!((2..=4).contains(&proxy.seen().len()), "{} connections", proxy.seen().len());
}

#[test]
fn what_this_machine_does_not_take_is_told() {
    let world = World::new();
    for number in 0..50 {
        world.offer(&format!("t/{number:02}"), MIB);
    }
    let node = Node::start(&world.served());
    let mut client = std::process::Command::new("sh");
    client.args(["-c", "ulimit -f 100; exec \"$0\" \"$@\""]);
    client.arg(relay_testkit::programs::program("relay-client"));
    client.args(["--get", "t/", "--via", &node.hop()]).current_dir(world.saved());
    let finished = relay_testkit::process::Process::start(client).finish();
    // A limit on file sizes concerns each file alone.
    check_ended(&finished, 10);
    assert!(finished.stderr.contains("50 of 50 could not be fetched"), "{}", finished.stderr);
    assert!(names_in(&world.saved().join("t")).iter().all(|name| name.ends_with(".part")));
}

/// A route file with two routes, whose directories have different names there.
fn two_routes(world: &World, first: &[String], second: &[String]) -> std::path::PathBuf {
    let lines = |hops: &[String]| hops.iter().map(|hop| format!("{hop}\n")).collect::<String>();
    let path = world.elsewhere("routes.txt");
    fs::write(&path, format!("t/\n{}or\nmirror/of t/\n{}", lines(first), lines(second))).expect("written");
    path
}

#[test]
fn another_route_goes_on_where_the_first_one_broke() {
    let world = World::new();
    for number in 0..200 {
        let bytes = world.offer(&format!("t/{number:03}"), 20_000);
        let mirrored = world.served().join("mirror/of t").join(format!("{number:03}"));
        fs::create_dir_all(mirrored.parent().expect("a directory")).expect("a directory");
        fs::write(mirrored, bytes).expect("written");
    }
    let large = world.offer("t/large", LARGE);
    fs::write(world.served().join("mirror/of t/large"), large).expect("written");
    let (one, two) = (world.chain(1), world.chain(0));
    let proxy = FaultProxy::start_with(one[0].address(), |n| {
        Plan::down(if n == 0 { 1_000_000 } else { 0 }, Fault::Reset)
    });
    let routes = two_routes(&world, &[proxy.hop(), one[1].hop()], &hops(&two));
    let finished =
        world.client(&[routes.to_str().expect("text"), "--json", "--retries", "0", "--connections", "1"]);
    check_ended(&finished, 0);
    let done = paths(&finished, "file_done");
    assert_eq!(done.len(), 201);
    assert!(finished.stdout_text().contains("going on by route 2"), "{}", finished.stdout_text());
    for name in names_in(&world.served().join("t")) {
        let read = |place: &Path| fs::read(place.join("t").join(&name)).expect("readable");
        assert!(read(&world.served()) == read(&world.saved()), "{name}");
    }
    // A first route that never stands costs no pause, and no retry.
    let nowhere = ["127.0.0.1:1".to_owned()];
    let routes = two_routes(&world, &nowhere, &hops(&two));
    let finished = world.client(&[routes.to_str().expect("text"), "--retries", "0", "-o", "again"]);
    check_ended(&finished, 0);
    assert_eq!(names_in(&world.saved().join("again")).len(), 201);
}
