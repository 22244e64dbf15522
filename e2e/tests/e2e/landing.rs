//! How bytes become files: whose what stands in the way is, what stays of a file that is replaced, and file systems of every kind. What
//! this machine's file systems do not do, strace makes them do.

use crate::world::{MIB, World, has_strace, hops};
use relay_testkit::files::names_in;
use relay_testkit::node::Node;
use relay_testkit::process::{Finished, Process, Signal};
use relay_testkit::programs::program;
use relay_testkit::proxy::{Fault, FaultProxy, Plan};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

/// A file that gets a download of its own in a directory.
const LARGE: usize = 6 * MIB + 17;

#[track_caller]
fn check_ended(finished: &Finished, code: i32) {
    assert_eq!(finished.code, Some(code), "{}\n{}", finished.stderr, finished.stdout_text());
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
}

/// A client under strace, which makes these calls of it end otherwise.
fn meddled(world: &World, injections: &[&str], arguments: &[&str]) -> Finished {
    let mut command = Command::new("strace");
    command.current_dir(world.saved());
    command.args(["-f", "-qq", "-o", "/dev/null"]);
    for injection in injections {
        command.args(["-e", &format!("inject={injection}")]);
    }
    command.arg(program("relay-client")).args(arguments);
    Process::start(command).finish()
}

/// A client that stalls after so many bytes of `myfile`, until the proxy is told to go on.
fn stalled(world: &World, origin: &Node, bytes: usize) -> (FaultProxy, Process) {
    let proxy = FaultProxy::start(origin.address(), Plan::down(bytes as u64, Fault::Stall));
    let client = world.start_fetch("myfile", &[proxy.hop()], &["--timeout", "100"]);
    proxy.wait_for_stall();
    (proxy, client)
}

#[test]
fn a_file_is_given_its_name_and_never_another_ones() {
    let world = World::new();
    let bytes = world.offer("myfile", 9 * MIB);
    let origin = world.origin();
    let (first_proxy, first) = stalled(&world, &origin, 5 * MIB);
    for name in names_in(&world.saved()) {
        fs::remove_file(world.saved().join(name)).expect("removed");
    }
    let (second_proxy, second) = stalled(&world, &origin, 2 * MIB);
    first_proxy.resume();
    let first = first.finish();
    world.check_failed(&first, "myfile", 8, &["not the file any more"]);
    second_proxy.resume();
    world.check_saved(&second.finish(), "myfile", &bytes);
}

#[test]
fn what_is_somebody_elses_stays_as_it_is() {
    let world = World::new();
    let bytes = world.offer("t/report", MIB + 7);
    let origin = world.origin();
    for saved in [world.saved(), world.saved().join("t")] {
        fs::create_dir_all(&saved).expect("a directory");
        fs::write(saved.join("report.part"), "half of what a browser fetches").expect("written");
        fs::hard_link(saved.join("report.part"), saved.join("backup")).expect("linked");
    }
    check_ended(&world.fetch("t/report", &[origin.hop()], &[]), 0);
    check_ended(&world.fetch("t/", &[origin.hop()], &[]), 0);
    for saved in [world.saved(), world.saved().join("t")] {
        assert!(fs::read(saved.join("report")).expect("saved") == bytes);
        for name in ["report.part", "backup"] {
            assert_eq!(fs::read(saved.join(name)).expect("kept"), b"half of what a browser fetches");
        }
        let own = names_in(&saved).into_iter().filter(|name| name.contains('~')).count();
        assert_eq!(own, 0, "{:?}", names_in(&saved));
    }
}

#[test]
fn the_longest_names_are_fetched_and_gone_on_with() {
    let world = World::new();
    let names = ["x".repeat(251), "y".repeat(255), "ü".repeat(127)];
    for name in &names {
        world.offer(&format!("t/{name}"), 1000);
    }
    let large = "z".repeat(253);
    let bytes = world.offer(&format!("t/{large}"), 20 * MIB);
    let origin = world.origin();
    check_ended(&world.fetch("t/", &[origin.hop()], &[]), 0);
    assert_eq!(names_in(&world.saved().join("t")), names_in(&world.served().join("t")));
    // A second run finds what the first one left.
    let file = format!("t/{large}");
    let proxy = FaultProxy::start(origin.address(), Plan::down(12 * MIB as u64, Fault::Stall));
    let client = world.start_fetch(&file, &[proxy.hop()], &["--timeout", "100"]);
    proxy.wait_for_stall();
    client.signal(Signal::Interrupt);
    check_ended(&client.finish(), 130);
    let again = world.fetch(&file, &[origin.hop()], &[]);
    world.check_saved(&again, &large, &bytes);
    assert!(again.stderr.contains("are here"), "{}", again.stderr);
}

/// The target lies so deep that no path leads to what is in it.
#[test]
fn a_tree_may_be_deeper_than_any_path() {
    let world = World::new();
    let deep = |letter: &str| vec![letter.repeat(200); 15].join("/");
    world.offer(&format!("t/{}/small", deep("s")), 1000);
    world.offer(&format!("t/{}/large", deep("s")), LARGE);
    let origin = world.origin();
    let target = deep("t");
    check_ended(&world.fetch("t/", &[origin.hop()], &["-o", &target]), 0);
    let again = world.fetch("t/", &[origin.hop()], &["-o", &target, "--json"]);
    check_ended(&again, 0);
    assert_eq!(again.stdout_text().matches("\"file_same\"").count(), 2, "{}", again.stdout_text());
}

#[test]
fn a_link_stays_and_what_it_leads_to_is_replaced() {
    let world = World::new();
    let bytes = world.offer("myfile", MIB + 3);
    let origin = world.origin();
    let place = world.elsewhere("place");
    fs::create_dir(&place).expect("a directory");
    fs::write(place.join("old"), "old").expect("written");
    for (to, link) in [("old", "link"), ("new", "dangling")] {
        symlink(place.join(to), world.saved().join(link)).expect("linked");
        let finished = world.fetch("myfile", &[origin.hop()], &["-o", link]);
        check_ended(&finished, 0);
        assert!(world.saved().join(link).is_symlink(), "{link}");
        assert!(fs::read(place.join(to)).expect("saved") == bytes, "{to}");
    }
    assert_eq!(names_in(&place), ["new", "old"]);
    assert_eq!(names_in(&world.saved()), ["dangling", "link"]);
}

#[test]
fn nothing_outside_a_tree_is_touched_through_a_link() {
    let world = World::new();
    let outside = world.elsewhere("outside");
    fs::create_dir(&outside).expect("a directory");
    fs::create_dir(world.saved().join("t")).expect("a directory");
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    for (name, len) in [("small", 5000), ("large", LARGE)] {
        let bytes = world.offer(&format!("t/{name}"), len);
        fs::write(outside.join(name), bytes).expect("written");
        File::open(outside.join(name)).and_then(|file| file.set_modified(long_ago)).expect("dated");
        symlink(outside.join(name), world.saved().join("t").join(name)).expect("linked");
    }
    let origin = world.origin();
    for more in [&[][..], &["--checksum"]] {
        check_ended(&world.fetch("t/", &[origin.hop()], more), 0);
        for name in ["small", "large"] {
            let found = fs::symlink_metadata(world.saved().join("t").join(name)).expect("saved");
            assert!(found.is_file(), "{name} is still a link");
            let kept = fs::metadata(outside.join(name)).and_then(|meta| meta.modified()).expect("kept");
            assert_eq!(kept, long_ago, "{name}");
        }
    }
}

#[test]
fn permissions_stay_when_a_file_is_replaced() {
    let world = World::new();
    for (name, len) in
        [("t/secret", 100), ("t/large secret", LARGE), ("t/program", 100), ("t/new program", 9)]
    {
        world.offer(name, len);
    }
    for name in ["t/program", "t/new program"] {
        set_mode(&world.served().join(name), 0o755);
    }
    let origin = world.origin();
    let saved = world.saved().join("t");
    fs::create_dir(&saved).expect("a directory");
    for (name, mode) in [("secret", 0o600), ("large secret", 0o640), ("program", 0o700)] {
        for saved in [world.saved(), saved.clone()] {
            fs::write(saved.join(name), "old").expect("written");
            set_mode(&saved.join(name), mode);
        }
    }
    let tree = world.fetch("t/", &[origin.hop()], &[]);
    check_ended(&tree, 0);
    assert!(tree.stderr.contains("(3 in place of older ones)"), "{}", tree.stderr);
    for name in ["secret", "large secret", "program", "new program"] {
        let finished = world.fetch(&format!("t/{name}"), &[origin.hop()], &[]);
        check_ended(&finished, 0);
        let is_told = finished.stderr.contains("in place of an older file");
        assert_eq!(is_told, name != "new program", "{}", finished.stderr);
    }
    for saved in [world.saved(), saved] {
        for (name, expected) in [("secret", 0o600), ("large secret", 0o640), ("program", 0o700)] {
            assert_eq!(mode(&saved.join(name)), expected, "{name}");
        }
        assert_eq!(mode(&saved.join("new program")) & 0o100, 0o100);
    }
    // A file that was marked here alone keeps its mark; in a directory the origin decides.
    set_mode(&world.saved().join("secret"), 0o755);
    world.offer("t/secret", 101);
    check_ended(&world.fetch("t/secret", &[origin.hop()], &[]), 0);
    assert_eq!(mode(&world.saved().join("secret")), 0o755);
}

#[test]
fn few_descriptors_are_enough_for_many_directories() {
    let world = World::new();
    for number in 0..600 {
        world.offer(&format!("t/{number}/file"), 10);
    }
    let origin = world.origin();
    for limit in ["64", "256"] {
        let mut command = Command::new("sh");
        command.current_dir(world.saved());
        command.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]).arg(program("relay-client"));
        command.args(["--get", "t/", "--via", &origin.hop(), "-o", limit]);
        check_ended(&Process::start(command).finish(), 0);
        assert_eq!(names_in(&world.saved().join(limit)).len(), 600);
    }
}

#[test]
fn directories_that_were_made_for_nothing_go() {
    let world = World::new();
    let origin = world.origin();
    for name in ["nothing/", "nothing"] {
        check_ended(&world.fetch(name, &[origin.hop()], &["-o", "pa/pb/pc"]), 5);
        assert_eq!(names_in(&world.saved()), [""; 0]);
    }
}

#[test]
fn a_journal_without_its_file_goes_with_the_next_good_run() {
    let world = World::new();
    world.offer("t/large", LARGE);
    let nodes = world.chain(0);
    let hops = hops(&nodes);
    check_ended(&world.fetch("t/", &hops, &[]), 0);
    check_ended(&world.fetch("t/large", &hops, &[]), 0);
    for saved in [world.saved(), world.saved().join("t")] {
        for name in ["large.part.journal", "large.part.journal.new"] {
            fs::write(saved.join(name), "{\"relay_journal\":1").expect("written");
        }
    }
    check_ended(&world.fetch("t/", &hops, &[]), 0);
    check_ended(&world.fetch("t/large", &hops, &[]), 0);
    assert_eq!(names_in(&world.saved()), ["large", "t"]);
    assert_eq!(names_in(&world.saved().join("t")), ["large"]);
}

/// NFS without its lock manager, and FAT, which keeps no permissions.
#[test]
fn file_systems_without_locks_or_permissions() {
    let world = World::new();
    for (name, len) in [("t/a", 10), ("t/run.sh", 10), ("t/large", LARGE)] {
        world.offer(name, len);
    }
    set_mode(&world.served().join("t/run.sh"), 0o755);
    let origin = world.origin();
    if !has_strace() {
        return;
    }
    for (number, injection) in ["flock:error=ENOLCK", "?fchmod,?fchmodat:error=EPERM"].iter().enumerate() {
        for name in ["t/", "t/large"] {
            let target = format!("{number}/{}", name.trim_end_matches('/'));
            let arguments = ["--get", name, "--via", &origin.hop(), "-o", &target, "--retries", "0"];
            check_ended(&meddled(&world, &[injection], &arguments), 0);
        }
        let saved = world.saved().join(number.to_string());
        assert_eq!(names_in(&saved), ["t"]);
        assert_eq!(names_in(&saved.join("t")), ["a", "large", "run.sh"]);
    }
}

/// Times of two seconds, as FAT has them: whatever time is set, this one is kept.
#[test]
fn coarse_times_are_no_reason_to_fetch_again() {
    let world = World::new();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_001, 123_456_789);
    for (name, len) in [("t/small", 10), ("t/large", LARGE)] {
        world.offer(name, len);
        File::open(world.served().join(name)).and_then(|file| file.set_modified(time)).expect("dated");
    }
    if !has_strace() {
        return;
    }
    let origin = world.origin();
    let mut kept = 0_i64.to_le_bytes().to_vec();
    // The access time stays as it is (UTIME_OMIT).
    kept.extend(0x3fff_fffe_i64.to_le_bytes());
    kept.extend(1_600_000_000_i64.to_le_bytes());
    kept.extend(0_i64.to_le_bytes());
    let hex: String = kept.iter().map(|byte| format!("{byte:02x}")).collect();
    let injection = format!("utimensat:poke_enter=@arg3={hex}");
    let arguments = ["--get", "t/", "--via", &origin.hop(), "--json", "--retries", "0"];
    let first = meddled(&world, &[&injection], &arguments);
    check_ended(&first, 0);
    for name in ["small", "large"] {
        let meta = fs::metadata(world.saved().join("t").join(name)).expect("saved");
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_600_000_000, 0), "{name}");
    }
    let second = meddled(&world, &[&injection], &arguments);
    check_ended(&second, 0);
    assert_eq!(second.stdout_text().matches("\"file_same\"").count(), 2, "{}", second.stdout_text());
    // Here, where times are fine, the same difference is another version.
    let third = world.fetch("t/", &[origin.hop()], &["--json"]);
    check_ended(&third, 0);
    assert_eq!(third.stdout_text().matches("\"file_done\"").count(), 1, "{}", third.stdout_text());
}
