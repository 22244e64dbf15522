//! The wall clock jumps while programs run: years ahead, and years back. Every wait is measured by a clock that does not jump, so no
//! transfer is cut and none hangs; times that are shown follow the clock; what the cache kept does not stay fresh for years.
//!
//! The clock is libfaketime's (Debian: faketime), which is loaded into single processes and reads its offset from a file; the clocks that
//! do not jump are left alone. Without the library these tests say that they were skipped.

use crate::scarcity::http_get;
use crate::world::{World, hops, some_chunks};
use relay_testkit::node::Node;
use relay_testkit::process::Process;
use relay_testkit::programs::program;
use relay_testkit::proxy::{Fault, FaultProxy, Plan};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TEN_YEARS: &str = "3650d";

/// A clock for some processes.
struct FakeClock {
    library: PathBuf,
    offset: PathBuf,
}

impl FakeClock {
    fn new(world: &World) -> Option<FakeClock> {
        let Some(library) = library() else {
            eprintln!("skipped: libfaketime is not installed (Debian: apt install faketime)");
            return None;
        };
        let clock = FakeClock { library, offset: world.elsewhere("offset") };
        clock.set("+0");
        Some(clock)
    }

    /// Jumps to so far from the real time.
    fn set(&self, offset: &str) {
        // By a rename, so that nobody reads half of it.
        let new = self.offset.with_extension("new");
        fs::write(&new, format!("{offset}\n")).expect("an offset");
        fs::rename(&new, &self.offset).expect("an offset");
    }

    /// Runs `command` by this clock.
    fn start(&self, mut command: Command) -> Process {
        command.env("LD_PRELOAD", &self.library);
        command.env("FAKETIME_TIMESTAMP_FILE", &self.offset);
        for setting in ["FAKETIME_NO_CACHE", "FAKETIME_DONT_FAKE_MONOTONIC", "DONT_FAKE_MONOTONIC"] {
            command.env(setting, "1");
        }
        Process::start(command)
    }

    fn node(&self, root: &Path, arguments: &[&str]) -> Node {
        let mut command = Command::new(program("relay-node"));
        command.args(["--listen", "127.0.0.1:0", "--root"]).arg(root).args(arguments);
        Node::from_process(self.start(command))
    }
}

fn library() -> Option<PathBuf> {
    let places = fs::read_dir("/usr/lib").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    places
        .chain(["/usr/lib".into(), "/usr/lib64".into(), "/usr/local/lib".into()])
        .map(|place| place.join("faketime/libfaketime.so.1"))
        .find(|path| path.exists())
}

/// The year that a head's `Date` field names.
fn year_of(head: &str) -> i32 {
    let date = head.lines().find_map(|line| line.strip_prefix("Date: ")).expect("a date");
    date.split(' ').nth(3).and_then(|year| year.parse().ok()).expect("a year")
}

#[test]
fn a_transfer_survives_every_jump() {
    let world = World::new();
    let Some(clock) = FakeClock::new(&world) else { return };
    let bytes = world.offer("myfile", some_chunks(12));
    let (empty, served) = (world.elsewhere("empty"), world.served());
    // Limits that a jump of years would be far beyond.
    let limits = ["--idle-timeout", "60s", "--request-timeout", "30s", "--dial-timeout", "30s"];
    let nodes = [clock.node(&empty, &limits), clock.node(&served, &limits)];
    for jump in [TEN_YEARS, "-3650d"] {
        clock.set("+0");
        let proxy = FaultProxy::start_with(nodes[0].address(), |_| {
            let faults = vec![(3_000_000, Fault::Stall)];
            Plan { down: relay_testkit::proxy::Direction { faults, ..Default::default() }, ..Plan::pass() }
        });
        let mut command = world.client_command();
        command.args(["--get", "myfile", "--via", &proxy.hop(), "--via", &nodes[1].hop()]);
        command.args(["--timeout", "60s", "--deadline", "300s", "--retries", "0"]);
        let client = clock.start(command);
        proxy.wait_for_stall();
        clock.set(&if jump.starts_with('-') { jump.to_owned() } else { format!("+{jump}") });
        proxy.resume();
        world.check_saved(&client.finish(), "myfile", &bytes);
        world.clear_saved();
        // And a new one, by the new time.
        let finished = world.fetch("myfile", &hops(&nodes), &[]);
        world.check_saved(&finished, "myfile", &bytes);
        world.clear_saved();
    }
}

#[test]
fn http_tells_the_time_that_it_is() {
    let world = World::new();
    let Some(clock) = FakeClock::new(&world) else { return };
    let bytes = world.offer("myfile", 1000);
    let node = clock.node(&world.served(), &["--workers", "1"]);
    let year_now = year_of(&http_get(node.address(), "myfile").0);
    for (offset, years) in [("+3650d", 10), ("-3650d", -10), ("+0", 0)] {
        clock.set(offset);
        let (head, body) = http_get(node.address(), "myfile");
        // Ten years of 365 days are two or three days short of ten years.
        let year = year_of(&head) - year_now;
        assert!((years - 1..=years + 1).contains(&year), "{offset}: {head}");
        assert!(head.starts_with("HTTP/1.1 200 ") && body == bytes, "{head}");
    }
}

/// What was kept becomes stale when the clock leaps ahead, and does not become young when it falls back.
#[test]
fn the_cache_asks_again_after_a_jump() {
    let world = World::new();
    let Some(clock) = FakeClock::new(&world) else { return };
    let old = world.offer("myfile", 1000);
    // Long ago, so that the heuristic age of RFC 9111 §4.2.2 lets it be fresh for a while.
    let time = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400 * 1000);
    let set_old = |path: &Path| {
        let file = fs::File::options().write(true).open(path).expect("the file");
        file.set_modified(time).expect("a time");
    };
    set_old(&world.served().join("myfile"));
    let origin = clock.node(&world.served(), &[]);
    let (cache, upstream) = (world.elsewhere("cache"), format!("http://{}", origin.address()));
    let cache = cache.to_str().expect("UTF-8");
    let proxy = clock.node(&world.saved(), &["--upstream", &upstream, "--cache-dir", cache]);
    let status = || {
        let (head, body) = http_get(proxy.address(), "myfile");
        assert!(body == old, "{head}");
        head.lines().find_map(|line| line.strip_prefix("Cache-Status: ")).expect("a status").to_owned()
    };
    assert!(status().contains("fwd=uri-miss"));
    assert!(status().contains("hit"), "a young response is used");
    clock.set(&format!("+{TEN_YEARS}"));
    assert!(status().contains("fwd=stale"), "ten years later it is stale");
    assert!(status().contains("hit"), "asked again, it is young");
    clock.set("+0");
    assert!(status().contains("fwd=stale"), "how old it is nobody knows now");
    assert!(status().contains("hit"), "asked again, it is young");
}
