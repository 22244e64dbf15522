//! Does the summary of a directory add up, and is it what the file system says? Random trees with every kind of entry.

use crate::world::{World, no_retries};
use relay_testkit::files::sample_bytes;
use relay_testkit::node::Node;
use relay_testkit::process::{Finished, Process};
use relay_testkit::programs::program;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is in a tree, as whoever made it counts it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    /// Regular files, and links to them.
    good: u64,
    /// Files that the origin lists and cannot read.
    locked_files: u64,
    unnameable: u64,
    /// Directories.
    unreadable: u64,
    links: u64,
}

/// A tree of which everything follows from a seed.
struct Builder {
    dice: std::vec::IntoIter<u8>,
    counts: Counts,
    outside: PathBuf,
}

impl Builder {
    fn roll(&mut self, below: u8) -> u8 {
        self.dice.next().expect("enough dice") % below
    }

    fn fill(&mut self, directory: &Path, levels: usize) {
        fs::create_dir(directory).expect("a directory");
        for number in 0..4 + self.roll(8) {
            let place = directory.join(format!("entry {number}"));
            match self.roll(12) {
                0 if levels > 0 => self.fill(&place, levels - 1),
                1 => fs::create_dir(&place).expect("an empty directory"),
                2 => self.link(Path::new("nowhere"), &place, Counts { links: 1, ..Counts::default() }),
                3 => self.link(&self.outside.clone(), &place, Counts { links: 1, ..Counts::default() }),
                4 => self.link(Path::new(".."), &place, Counts { links: 1, ..Counts::default() }),
                5 => {
                    fs::write(directory.join("target"), "t").expect("written");
                    self.link(Path::new("target"), &place, Counts { good: 1, ..Counts::default() });
                }
                6 => {
                    let name = [b"bad \xff ", number.to_string().as_bytes()].concat();
                    fs::write(directory.join(OsStr::from_bytes(&name)), "x").expect("written");
                    self.counts.unnameable += 1;
                }
                7 => {
                    fs::create_dir(&place).expect("a directory");
                    fs::write(place.join("secret"), "s").expect("written");
                    lock(&place);
                    self.counts.unreadable += 1;
                }
                8 => {
                    fs::write(&place, "secret").expect("written");
                    lock(&place);
                    self.counts.locked_files += 1;
                }
                9 => {
                    let made = Command::new("mkfifo").arg(&place).status().expect("mkfifo runs");
                    assert!(made.success());
                }
                _ => {
                    let len = usize::from(self.roll(200)) * 10;
                    fs::write(&place, vec![number; len]).expect("written");
                    self.counts.good += 1;
                }
            }
        }
        // The ones that links lead to.
        self.counts.good += u64::from(directory.join("target").exists());
    }

    fn link(&mut self, to: &Path, place: &Path, counts: Counts) {
        symlink(to, place).expect("a link");
        self.counts.good += counts.good;
        self.counts.links += counts.links;
    }
}

fn lock(place: &Path) {
    fs::set_permissions(place, fs::Permissions::from_mode(0o000)).expect("locked");
}

/// Unlocks what a test locked, so that its directory can be removed.
fn unlock(directory: &Path) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_dir() {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o755)).expect("unlocked");
            unlock(&entry.path());
        }
    }
}

/// A node that may not read what is locked, even when root runs the tests.
fn origin(world: &World) -> Node {
    let probe = world.elsewhere("probe");
    fs::write(&probe, "").expect("written");
    lock(&probe);
    let root = world.served();
    let arguments = ["--listen", "127.0.0.1:0", "--root"];
    let node = program("relay-node");
    let mut command = if fs::File::open(&probe).is_ok() {
        let mut command = Command::new("setpriv");
        command.arg("--bounding-set=-dac_override,-dac_read_search").arg(node);
        command
    } else {
        Command::new(node)
    };
    command.args(arguments).arg(root);
    Node::from_process(Process::start(command))
}

/// The files that a run left, all the way down.
fn saved_files(directory: &Path) -> u64 {
    let mut files = 0;
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("a type");
        files += if kind.is_dir() { saved_files(&entry.path()) } else { u64::from(kind.is_file()) };
    }
    files
}

fn fetch(world: &World, origin: &Node, more: &[&str]) -> Finished {
    let mut command = world.client_command();
    command.args(["--get", "t/", "--via", &origin.hop()]).args(no_retries()).args(more);
    Process::start(command).finish()
}

/// Checks the summary, but for what was fetched and what was the same, which it returns.
#[track_caller]
fn check_summary(finished: &Finished, counts: Counts, failed: u64) -> (u64, u64) {
    let text = finished.stdout_text();
    let done = text.lines().find(|line| line.contains("\"tree_done\"")).expect("a summary");
    let done: Value = serde_json::from_str(done).expect("JSON");
    let count = |name: &str| done[name].as_u64().unwrap_or_else(|| panic!("{name} in {done}"));
    let parts = ["fetched", "same", "failed", "unnameable", "unreadable", "links", "left"];
    assert_eq!(parts.map(count).iter().sum::<u64>(), count("files"), "{done}");
    assert_eq!(count("left"), 0, "{done}");
    let Counts { unnameable, unreadable, links, .. } = counts;
    let told = (count("unnameable"), count("unreadable"), count("links"), count("failed"));
    assert_eq!(told, (unnameable, unreadable, links, failed), "{done}\n{}", finished.stderr);
    (count("fetched"), count("same"))
}

/// Checks that a listing says what is not in it.
#[track_caller]
fn check_listed(finished: &Finished, counts: Counts) {
    let Counts { unnameable, unreadable, links, .. } = counts;
    let code = if unnameable + unreadable > 0 { 10 } else { 0 };
    assert_eq!(finished.code, Some(code), "{}", finished.stderr);
    let is_told = |count: u64, what: &str| count == 0 || finished.stderr.contains(&format!("{count} {what}"));
    assert!(is_told(unnameable, "more cannot be offered"), "{}", finished.stderr);
    assert!(is_told(unreadable, "more the origin cannot read"), "{}", finished.stderr);
    let text = finished.stdout_text();
    let (locked, linked) =
        (text.matches("(the origin cannot read it)"), text.matches("(a link, not entered)"));
    assert_eq!(locked.count() as u64, unreadable, "{text}");
    assert!(is_told(links - linked.count() as u64, "links lead nowhere"), "{}", finished.stderr);
}

#[test]
fn the_summary_is_what_the_file_system_says() {
    for seed in 0..4 {
        let world = World::new();
        let outside = world.elsewhere("outside");
        fs::write(&outside, "not offered").expect("written");
        let dice = sample_bytes(&format!("tree {seed}"), 8192).into_iter();
        let mut builder = Builder { dice, counts: Counts::default(), outside };
        builder.fill(&world.served().join("t"), 4);
        let counts = builder.counts;
        let origin = origin(&world);
        let first = fetch(&world, &origin, &["--json"]);
        let (fetched, same) = check_summary(&first, counts, counts.locked_files);
        assert_eq!((fetched, same), (counts.good, 0), "{}", first.stderr);
        assert_eq!(saved_files(&world.saved().join("t")), counts.good);
        let is_whole = counts.locked_files + counts.unnameable + counts.unreadable == 0;
        assert!(is_whole || first.code == Some(10), "{:?}", first.code);
        check_listed(&world.client(&["list", "--via", &origin.hop(), "t/", "--recursive"]), counts);
        // Something stands in the way of one file, and another one is gone.
        let saved = world.saved().join("t");
        let (way, gone) = (saved.join("in the way"), saved.join("gone"));
        for name in ["in the way", "gone"] {
            fs::write(world.served().join("t").join(name), "new").expect("written");
        }
        fs::create_dir(&way).expect("a directory");
        let second = fetch(&world, &origin, &["--json"]);
        assert_eq!(check_summary(&second, counts, counts.locked_files + 1), (1, counts.good));
        assert!(gone.is_file());
        // People are told the same.
        let third = fetch(&world, &origin, &[]);
        let all =
            counts.good + 2 + counts.locked_files + counts.unnameable + counts.unreadable + counts.links;
        let summary = third.stderr.lines().find(|line| line.contains(" the same")).expect("a summary");
        // That nothing was fetched is not said.
        assert!(summary.contains(&format!("{all} files: {} the same", counts.good + 1)), "{summary}");
        for (count, what) in [
            (counts.locked_files + 1, "failed"),
            (counts.unnameable, "not nameable"),
            (counts.unreadable, "not readable"),
            (counts.links, "links left out"),
        ] {
            assert_eq!(summary.contains(&format!(", {count} {what}")), count > 0, "{what}: {summary}");
        }
        drop(origin);
        unlock(&world.served());
    }
}
