//! Cuts, flips, stalls and kills end in a sentence and never in a wrong file; and the next run makes it whole.

use crate::world::{MIB, World, hops, some_chunks};
use relay_testkit::files::names_in;
use relay_testkit::process::{Finished, Signal};
use relay_testkit::proxy::{Fault, FaultProxy, Plan};
use std::fs;

const UNREACHABLE: i32 = 3;
const TIMED_OUT: i32 = 6;
const DAMAGED: i32 = 7;
const ORIGIN: i32 = 9;
const INTERRUPTED: i32 = 130;

#[test]
fn sigkill_of_each_node_in_mid_transfer() {
    let world = World::new();
    // More than all buffers of the chain hold, so that no node has sent everything when it dies.
    let bytes = world.offer("myfile", some_chunks(100));
    for victim in 0..4 {
        let mut nodes = world.chain(3);
        let proxy = FaultProxy::start_with(nodes[0].address(), |n| {
            if n == 0 { Plan::down(1_500_000, Fault::Stall) } else { Plan::pass() }
        });
        let mut route = hops(&nodes);
        route[0] = proxy.hop();
        // On a busy machine a second connection might be under way then, and its end be the one that is told.
        let client = world.start_fetch("myfile", &route, &["--timeout", "20", "--connections", "1"]);
        proxy.wait_for_stall();
        nodes.remove(victim).kill();
        proxy.resume();
        let finished = client.finish_within(std::time::Duration::from_secs(60));
        // The walk that follows names the hop that is gone.
        let gone = format!("walking the route again: hop {} ({})", victim + 1, route[victim]);
        world.check_failed(&finished, "myfile", UNREACHABLE, &[&gone]);
        assert!(world.saved().join("myfile.part").exists(), "what was verified is kept");
        world.clear_saved();
    }
    let nodes = world.chain(1);
    world.check_saved(&world.fetch("myfile", &hops(&nodes), &[]), "myfile", &bytes);
}

/// One relay with a proxy on each side of it; `plan` is for the first connection of the proxy in front of hop `hop`.
fn fetch_with(world: &World, nodes: &[relay_testkit::node::Node], hop: usize, plan: &Plan) -> Finished {
    let plan = plan.clone();
    let proxy =
        FaultProxy::start_with(
            nodes[hop].address(),
            move |n| if n == 0 { plan.clone() } else { Plan::pass() },
        );
    let mut route = hops(nodes);
    route[hop] = proxy.hop();
    let finished = world.fetch("myfile", &route, &["--timeout", "5"]);
    assert!(!proxy.seen().is_empty(), "the proxy was used");
    finished
}

/// Places in what travels down to the client through one relay: around each hello, the head, and chunks and their trailers.
fn places_down(world: &World, nodes: &[relay_testkit::node::Node], len: usize) -> Vec<u64> {
    let meter = FaultProxy::start(nodes[0].address(), Plan::pass());
    let route = [meter.hop(), nodes[1].hop()];
    let finished = world.fetch("myfile", &route, &["-o", "-"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    meter.wait_for("end", |seen| seen.iter().any(|one| one.ended));
    let total = meter.seen()[0].down;
    let chunks = len.div_ceil(MIB);
    let body = (len + 33 * chunks) as u64;
    let head = total - body;
    let hello = 9 + r#"{"agent":"relay-node/0.1.0"}"#.len() as u64;
    let mut places = vec![0, 1, 9, hello, 2 * hello, head];
    let mut at = head;
    for chunk in 0..chunks {
        let bytes = MIB.min(len - chunk * MIB) as u64;
        places.extend([at + bytes / 2, at + bytes, at + bytes + 1, at + bytes + 33]);
        at += bytes + 33;
    }
    let around = |place: u64| [place.saturating_sub(1), place, place + 1];
    let mut all: Vec<u64> = places.into_iter().flat_map(around).filter(|place| *place < total).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn a_cut_at_every_kind_of_place() {
    let world = World::new();
    let len = some_chunks(2);
    let bytes = world.offer("myfile", len);
    let nodes = world.chain(1);
    for (n, place) in places_down(&world, &nodes, len).into_iter().enumerate() {
        let fault = [Fault::Cut, Fault::Reset, Fault::HalfClose][n % 3];
        let finished = fetch_with(&world, &nodes, 0, &Plan::down(place, fault));
        world.check_failed(&finished, "myfile", UNREACHABLE, &["error: "]);
        world.clear_saved();
    }
    // Within the open and the request behind it; the shorter of the two ways carries 98 bytes.
    for place in [0, 1, 8, 9, 50, 90] {
        let finished = fetch_with(&world, &nodes, 0, &Plan::up(place, Fault::Cut));
        assert_ne!(finished.code, Some(0), "cut at {place} upwards");
        assert!(!world.saved().join("myfile").exists());
        let finished = fetch_with(&world, &nodes, 1, &Plan::up(place, Fault::Reset));
        assert_ne!(finished.code, Some(0), "reset at {place} upwards");
        assert!(!world.saved().join("myfile").exists());
        world.clear_saved();
    }
    world.check_saved(&world.fetch("myfile", &hops(&nodes), &[]), "myfile", &bytes);
}

#[test]
fn a_flipped_bit_at_every_kind_of_place() {
    let world = World::new();
    let len = some_chunks(1);
    let bytes = world.offer("myfile", len);
    let nodes = world.chain(1);
    for (n, place) in places_down(&world, &nodes, len).into_iter().enumerate() {
        let bit = u8::try_from(n % 8).expect("small");
        let finished = fetch_with(&world, &nodes, 0, &Plan::down(place, Fault::FlipBit(bit)));
        // A flipped letter of a version or of a message changes nothing that counts.
        if finished.code == Some(0) {
            world.check_saved(&finished, "myfile", &bytes);
        } else {
            assert!(
                finished.code.is_some_and(|code| [UNREACHABLE, TIMED_OUT, DAMAGED, ORIGIN].contains(&code)),
                "{place}: {}",
                finished.stderr
            );
            assert!(!world.saved().join("myfile").exists(), "{place}");
        }
        world.clear_saved();
    }
    world.check_saved(&world.fetch("myfile", &hops(&nodes), &[]), "myfile", &bytes);
}

#[test]
fn damage_within_a_chunk_is_named() {
    let world = World::new();
    let len = some_chunks(3);
    world.offer("myfile", len);
    let nodes = world.chain(1);
    // 1.5 MiB down is in the second chunk, whatever the frames before it need.
    let finished = fetch_with(&world, &nodes, 1, &Plan::down(MIB as u64 * 3 / 2, Fault::FlipBit(3)));
    world.check_failed(&finished, "myfile", DAMAGED, &["chunk 1", "damaged"]);
}

/// After the last hello relays are blind, so the client says how far it came, walks again, and says what it found.
#[test]
fn silence_after_the_last_hello() {
    let world = World::new();
    world.offer("myfile", some_chunks(3));
    let nodes = world.chain(1);
    for place in [100, 2_000_000] {
        let proxy = FaultProxy::start_with(nodes[1].address(), move |n| {
            if n == 0 { Plan::down(place, Fault::Stall) } else { Plan::pass() }
        });
        let finished = world.fetch("myfile", &[nodes[0].hop(), proxy.hop()], &["--timeout", "2"]);
        world.check_failed(&finished, "myfile", TIMED_OUT, &["no byte in 2 s", "every hop answers now"]);
    }
    // And when the chain stays silent, it names where.
    let proxy = FaultProxy::start_with(nodes[1].address(), |n| {
        Plan::down(if n == 0 { 2_000_000 } else { 0 }, Fault::Stall)
    });
    let finished = world.fetch("myfile", &[nodes[0].hop(), proxy.hop()], &["--timeout", "5"]);
    let named = format!("walking the route again: hop 2 ({}): timed out, says hop 1", proxy.hop());
    world.check_failed(&finished, "myfile", TIMED_OUT, &[&named]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_in_the_client() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(8));
    let nodes = world.chain(1);
    for signal in [Signal::Interrupt, Signal::Terminate] {
        let proxy = FaultProxy::start(nodes[0].address(), Plan::down(4_000_000, Fault::Stall));
        let client = world.start_fetch("myfile", &[proxy.hop(), nodes[1].hop()], &["--timeout", "60"]);
        proxy.wait_for_stall();
        client.signal(signal);
        let finished = client.finish();
        world.check_failed(&finished, "myfile", INTERRUPTED, &["interrupted"]);
        assert!(names_in(&world.saved()).contains(&"myfile.part".into()), "the part is kept");
        world.clear_saved();
    }
    world.check_saved(&world.fetch("myfile", &hops(&nodes), &[]), "myfile", &bytes);
}

/// A file that shrinks or changes while it is sent ends in an honest failure.
#[test]
fn a_file_that_changes_under_way() {
    let world = World::new();
    let nodes = world.chain(1);
    for (change, what) in [(0u64, "shrinks"), (1, "is rewritten")] {
        world.offer("myfile", some_chunks(100));
        let proxy = FaultProxy::start_with(nodes[0].address(), |n| {
            if n == 0 { Plan::down(2_000_000, Fault::Stall) } else { Plan::pass() }
        });
        let client = world.start_fetch("myfile", &[proxy.hop(), nodes[1].hop()], &["--timeout", "20"]);
        proxy.wait_for_stall();
        let path = world.served().join("myfile");
        let file = fs::File::options().write(true).open(&path).expect("the file");
        if change == 0 {
            file.set_len(50 * MIB as u64).expect("shorter");
        } else {
            let other = relay_testkit::files::sample_bytes("other", 10 * MIB);
            std::io::Seek::seek(&mut &file, std::io::SeekFrom::Start(80 * MIB as u64)).expect("a place");
            std::io::Write::write_all(&mut &file, &other).expect("written");
        }
        drop(file);
        proxy.resume();
        let finished = client.finish_within(std::time::Duration::from_secs(60));
        assert!(finished.stderr.contains("changed"), "it {what}: {}", finished.stderr);
        world.check_failed(&finished, "myfile", DAMAGED, &["error: "]);
        world.clear_saved();
    }
}

/// A file that loses its name while it is sent is delivered: the origin has it open.
#[cfg(unix)]
#[test]
fn a_file_that_is_unlinked_under_way() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(100));
    let nodes = world.chain(1);
    let proxy = FaultProxy::start(nodes[0].address(), Plan::down(2_000_000, Fault::Stall));
    let client = world.start_fetch("myfile", &[proxy.hop(), nodes[1].hop()], &["--timeout", "20"]);
    proxy.wait_for_stall();
    fs::remove_file(world.served().join("myfile")).expect("removed");
    proxy.resume();
    world.check_saved(&client.finish_within(std::time::Duration::from_secs(60)), "myfile", &bytes);
}

#[test]
fn another_hash_than_expected_never_gets_the_name() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(1));
    let nodes = world.chain(1);
    let wrong = format!("b3:{}", "0".repeat(64));
    let finished = world.fetch("myfile", &hops(&nodes), &["--expect", &wrong]);
    world.check_failed(&finished, "myfile", DAMAGED, &["was expected"]);
    let right = format!("b3:{}", relay_testkit::files::b3_of_file(&world.served().join("myfile")));
    let finished = world.fetch("myfile", &hops(&nodes), &["--expect", &right]);
    world.check_saved(&finished, "myfile", &bytes);
}
