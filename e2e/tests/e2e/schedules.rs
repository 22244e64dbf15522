//! Random faults from a seed: whatever happens, a client never leaves a wrong file, and a run without faults makes it whole.
//!
//! `RELAY_E2E_SCHEDULES=200` runs more of them; `RELAY_E2E_SEED=17` runs the one that a failure printed.

use crate::world::{MIB, World, hops, some_chunks};
use relay_client::journal::Journal;
use relay_testkit::files::sample_bytes;
use relay_testkit::process::Signal;
use relay_testkit::proxy::{Direction, Fault, FaultProxy, Plan};
use std::env;
use std::fs;
use std::time::Duration;

/// Numbers that follow from a seed.
struct Dice {
    bytes: Vec<u8>,
    next: usize,
}

impl Dice {
    fn new(what: &str, seed: u64) -> Dice {
        Dice { bytes: sample_bytes(&format!("{what} {seed}"), 8192), next: 0 }
    }

    /// A number from 0 to `below` − 1.
    fn roll(&mut self, below: u64) -> u64 {
        let bytes: [u8; 8] = self.bytes[self.next..self.next + 8].try_into().expect("eight bytes");
        self.next += 8;
        u64::from_le_bytes(bytes) % below
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{name}: {e}")))
}

/// Which seeds to run: the one that is asked for, or as many as are wanted.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    match number("RELAY_E2E_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RELAY_E2E_SCHEDULES").unwrap_or(usual),
    }
}

fn direction(dice: &mut Dice, bytes: u64) -> Direction {
    let mut direction = Direction::default();
    for _ in 0..dice.roll(3) {
        let at = dice.roll(bytes + 1000);
        let fault = match dice.roll(6) {
            0 => Fault::Stall,
            1 => Fault::Reset,
            2 => Fault::Cut,
            3 => Fault::HalfClose,
            _ => Fault::FlipBit(u8::try_from(dice.roll(8)).expect("small")),
        };
        direction.faults.push((at, fault));
    }
    direction.faults.sort_unstable_by_key(|(at, _)| *at);
    match dice.roll(5) {
        0 => direction.delay = Duration::from_millis(dice.roll(20)),
        1 => direction.rate = Some(20_000_000),
        _ => {}
    }
    direction
}

#[test]
fn random_faults_never_leave_a_wrong_file() {
    let world = World::new();
    let nodes = world.chain(2);
    for seed in seeds(20) {
        eprintln!("schedule {seed}");
        let mut dice = Dice::new("faults", seed);
        let len = usize::try_from(dice.roll(4 * MIB as u64)).expect("small");
        let name = format!("file-{seed}");
        let bytes = world.offer(&name, len);
        let hop = usize::try_from(dice.roll(3)).expect("small");
        let plan = Plan { up: direction(&mut dice, 500), down: direction(&mut dice, len as u64) };
        let context = format!("schedule {seed}: {len} bytes, in front of hop {}, {plan:?}", hop + 1);
        // Every connection suffers the same, those of retries too.
        let proxy = FaultProxy::start(nodes[hop].address(), plan);
        let mut route = hops(&nodes);
        route[hop] = proxy.hop();
        let finished = world.fetch(&name, &route, &["--timeout", "1"]);
        let saved = fs::read(world.saved().join(&name));
        match finished.code {
            Some(0) => assert!(saved.expect("the file") == bytes, "{context}: a wrong file"),
            Some(3 | 4 | 5 | 6 | 7 | 9) => assert!(saved.is_err(), "{context}: a file though it failed"),
            other => panic!("{context}: {other:?}: {}", finished.stderr),
        }
        let finished = world.fetch(&name, &hops(&nodes), &[]);
        assert_eq!(finished.code, Some(0), "{context}: then {}", finished.stderr);
        assert!(
            fs::read(world.saved().join(&name)).expect("the file") == bytes,
            "{context}: then a wrong file"
        );
    }
}

/// Whatever happens on one route, the file comes by the other.
#[test]
fn random_faults_on_one_route_never_keep_the_file_away() {
    let world = World::new();
    let nodes = world.chain(1);
    for seed in seeds(12) {
        eprintln!("routes {seed}");
        let mut dice = Dice::new("routes", seed);
        let len = usize::try_from(dice.roll(8 * MIB as u64)).expect("small");
        let name = format!("file-{seed}");
        let bytes = world.offer(&name, len);
        let plan = Plan { up: direction(&mut dice, 500), down: direction(&mut dice, len as u64) };
        let is_first = dice.roll(2) == 0;
        let context =
            format!("routes {seed}: {len} bytes, faults on route {}, {plan:?}", 2 - u8::from(is_first));
        let proxy = FaultProxy::start(nodes[0].address(), plan);
        let steady = FaultProxy::start(
            nodes[1].address(),
            Plan { down: Direction::rate(10_000_000), ..Plan::default() },
        );
        let spoilt = format!("{name}\n{}\n{}\n", proxy.hop(), nodes[1].hop());
        let clean = format!("{name}\n{}\n", steady.hop());
        let route = if is_first { [spoilt, clean] } else { [clean, spoilt] }.join("or\n");
        let file = world.elsewhere("routes.txt");
        fs::write(&file, route).expect("a route file");
        let finished = world.client(&[file.to_str().expect("text"), "--timeout", "1"]);
        assert_eq!(finished.code, Some(0), "{context}: {}", finished.stderr);
        assert!(fs::read(world.saved().join(&name)).expect("the file") == bytes, "{context}: a wrong file");
    }
}

#[cfg(unix)]
#[test]
fn a_client_killed_at_any_byte_goes_on_in_its_next_run() {
    let world = World::new();
    let len = some_chunks(6);
    let bytes = world.offer("myfile", len);
    let nodes = world.chain(1);
    for seed in seeds(8) {
        eprintln!("kill {seed}");
        let mut dice = Dice::new("kill", seed);
        // Several kills of the same download, then a run to the end.
        for _ in 0..=dice.roll(3) {
            let at = dice.roll(len as u64);
            let proxy = FaultProxy::start(nodes[0].address(), Plan::down(at, Fault::Stall));
            let client = world.start_fetch("myfile", &[proxy.hop(), nodes[1].hop()], &["--timeout", "60"]);
            let mut client = Some(client);
            proxy.wait_for("stall or end", |seen| seen.iter().any(|one| one.stalled || one.ended));
            if let Some(client) = client.take() {
                if proxy.seen().iter().any(|one| one.stalled) {
                    client.signal(Signal::Kill);
                }
                drop(client.finish());
            }
        }
        let finished = world.fetch("myfile", &hops(&nodes), &[]);
        world.check_saved(&finished, "myfile", &bytes);
        fs::remove_file(world.saved().join("myfile")).expect("removed");
    }
}

/// What the journal of a killed client marks is never fetched again, and it marks all but the last seconds.
#[cfg(unix)]
#[test]
fn a_killed_client_fetches_no_chunk_of_its_journal_again() {
    const RATE: u32 = 2_000_000;
    let world = World::new();
    let len = some_chunks(24);
    let bytes = world.offer("myfile", len);
    let nodes = world.chain(1);
    for seed in seeds(3) {
        eprintln!("journal {seed}");
        let at = 12 * MIB as u64 + Dice::new("journal", seed).roll(10 * MIB as u64);
        let proxy =
            FaultProxy::start(nodes[0].address(), Plan { down: Direction::rate(RATE), ..Plan::default() });
        // One connection, for the rate is that of each.
        let options = ["--timeout", "60", "--connections", "1"];
        let client = world.start_fetch("myfile", &[proxy.hop(), nodes[1].hop()], &options);
        proxy.wait_for("enough bytes", |seen| seen.iter().any(|one| one.down >= at));
        client.signal(Signal::Kill);
        drop(client.finish());
        let journal = world.saved().join("myfile.part.journal");
        let held = Journal::read(&journal).map(|held| held.chunks.len()).unwrap_or_default();
        // It is written every second. Five seconds are for machines that have more to do.
        let lost = (at / MIB as u64).saturating_sub(held as u64);
        assert!(
            lost <= 5 * u64::from(RATE) / MIB as u64 + 1,
            "journal {seed}: {lost} chunks of {at} bytes are lost"
        );
        let finished = world.fetch("myfile", &hops(&nodes), &["--json"]);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        let done: serde_json::Value =
            serde_json::from_str(finished.stdout_text().lines().last().expect("an event")).expect("JSON");
        let fetched = done["fetched"].as_u64().expect("bytes");
        assert!(
            fetched <= (len - held * MIB) as u64,
            "journal {seed}: {fetched} fetched though {held} chunks are held"
        );
        assert!(fs::read(world.saved().join("myfile")).expect("the file") == bytes, "journal {seed}");
        world.clear_saved();
    }
}
