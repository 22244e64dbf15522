//! A file that changes without a sign: written through a memory mapping on tmpfs, which moves no time.

use crate::world::{MIB, World};
use relay_testkit::files::{sample_bytes, write_sample};
use relay_testkit::node::Node;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

/// So long after its last change an origin keeps a file's hashes, and some more.
const SETTLED: Duration = Duration::from_millis(2_100);

/// A directory on tmpfs, where there is one.
fn tmpfs() -> Option<tempfile::TempDir> {
    let shm = Path::new("/dev/shm");
    let types = fs::read_to_string("/proc/mounts").ok()?;
    let is_tmpfs = types.lines().any(|line| line.split(' ').skip(1).take(2).eq(["/dev/shm", "tmpfs"]));
    is_tmpfs.then(|| tempfile::tempdir_in(shm).ok()).flatten()
}

/// What tells one version of the file from another.
fn identity(path: &Path) -> (u64, i64, i64, i64, i64) {
    let meta = fs::metadata(path).expect("the file");
    (meta.size(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec())
}

/// Another byte at each of these places. Only Python has a safe mapping at hand; `None` without it.
fn write_through_mapping(path: &Path, places: &[usize]) -> Option<()> {
    let script = "import mmap, sys\n\
        with open(sys.argv[1], 'r+b') as file, mmap.mmap(file.fileno(), 0) as map:\n    \
        for place in map_places:\n        map[place] ^= 0xff\n";
    let script = format!("map_places = {places:?}\n{script}");
    let ended = Command::new("python3").args(["-c", &script]).arg(path).status().ok()?;
    assert!(ended.success(), "{script}");
    Some(())
}

/// Waits until the file was left alone for long enough.
fn wait_until_settled(path: &Path) {
    loop {
        let changed = fs::metadata(path).and_then(|meta| meta.modified()).expect("its time");
        match SystemTime::now().duration_since(changed) {
            Ok(age) if age > SETTLED => return,
            _ => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Fetches the file from a node that has hashed it, after a change at each of these places.
fn check(file: &str, len: usize, places: &[usize], arguments: &[&str]) {
    let Some(served) = tmpfs() else {
        eprintln!("skipped: there is no tmpfs at /dev/shm");
        return;
    };
    let path = served.path().join(file);
    fs::create_dir_all(path.parent().expect("a parent")).expect("its directory");
    write_sample(&path, file, len);
    wait_until_settled(&path);
    let (world, origin) = (World::new(), Node::start(served.path()));
    let client = |arguments: &[&str]| {
        let hop = origin.hop();
        world.client(&[&["--via", &hop, "--get"], arguments].concat())
    };
    let mut content = sample_bytes(file, len);
    assert_eq!(client(&[file, "-o", "/dev/null"]).code, Some(0));
    let before = identity(&path);
    if write_through_mapping(&path, places).is_none() {
        eprintln!("skipped: there is no python3");
        return;
    }
    assert_eq!(identity(&path), before, "the change can be seen");
    places.iter().for_each(|place| content[*place] ^= 0xff);
    let ended = client(arguments);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("damaged"), "no hash was remembered: {}", ended.stderr);
    assert!(fs::read(world.saved().join(file)).expect("saved") == content, "it is not what is offered");
    // The next client finds nothing of it.
    world.clear_all_saved();
    let ended = client(arguments);
    assert!(ended.code == Some(0) && !ended.stderr.contains("damaged"), "{}", ended.stderr);
    assert!(fs::read(world.saved().join(file)).expect("saved") == content, "it is not what is offered");
}

#[test]
fn a_large_file_arrives() {
    check("big", 9 * MIB + 5, &[MIB, 4 * MIB, 7 * MIB + 9, 9 * MIB + 1], &["big"]);
}

#[test]
fn a_small_file_arrives() {
    check("small", 10, &[3], &["small"]);
}

#[test]
fn a_tree_arrives() {
    check("tree/file", 2 * MIB, &[0, MIB + 1], &["tree/", "--recursive"]);
}
