//! A blind relay passes bytes, ends and resets, each as what it is, and holds no more than a little of them.

use crate::raw::{End, Raw, Stage};
use crate::world::{MIB, World, hops, some_chunks};
use relay_proto::code::Status;
use relay_proto::file::{Head, Stat};
use relay_proto::hop::{Hello, Open};
use relay_testkit::files::{sample_bytes, write_sparse};
use relay_testkit::node::Node;
use relay_testkit::process::Process;
use relay_testkit::proxy::{Fault, FaultProxy, Plan};
use std::thread;
use std::time::{Duration, Instant};

/// A pipe through two relays, of which the test plays both ends.
fn pipe() -> (World, [Node; 2], Raw, Raw) {
    let world = World::new();
    let relays = [world.relay(), world.relay()];
    let stage = Stage::new();
    let mut near = Raw::open(relays[0].address(), &[relays[1].address(), stage.address()]);
    let mut far = stage.accept();
    assert!(far.hear::<Open>().hops.is_empty());
    far.say(&Hello { agent: "stage/1".into() });
    for agent in ["relay-node/", "relay-node/", "stage/1"] {
        assert!(near.hear::<Hello>().agent.starts_with(agent));
    }
    (world, relays, near, far)
}

#[test]
fn every_byte_passes_unread_both_ways() {
    let (_world, _relays, mut near, mut far) = pipe();
    let (up, down) = (sample_bytes("up", 5 * MIB + 1), sample_bytes("down", 7 * MIB + 3));
    let mut near_writer = Raw::of(near.0.try_clone().expect("a clone"));
    let mut far_writer = Raw::of(far.0.try_clone().expect("a clone"));
    let (to_far, to_near) = (up.clone(), down.clone());
    let writers = [
        thread::spawn(move || near_writer.write(&to_far)),
        thread::spawn(move || far_writer.write(&to_near)),
    ];
    let reader = thread::spawn(move || (far.read(up.len()) == up, far));
    assert!(near.read(down.len()) == down, "what came down differs");
    let (is_same, far) = reader.join().expect("no panic");
    assert!(is_same, "what went up differs");
    for writer in writers {
        writer.join().expect("no panic");
    }
    drop((near, far));
}

#[test]
fn the_end_of_one_direction_leaves_the_other_open() {
    let (_world, _relays, mut near, mut far) = pipe();
    near.write(b"last words");
    near.end_writing();
    assert_eq!(far.rest(), (b"last words".to_vec(), End::Orderly));
    far.write(&sample_bytes("answer", 3 * MIB));
    drop(far);
    let (bytes, end) = near.rest();
    assert!(bytes == sample_bytes("answer", 3 * MIB) && end == End::Orderly);
}

#[test]
fn and_the_other_way_round() {
    let (_world, _relays, mut near, mut far) = pipe();
    far.end_writing();
    assert_eq!(near.rest(), (Vec::new(), End::Orderly));
    let question = sample_bytes("question", 3 * MIB);
    near.write(&question);
    drop(near);
    let (bytes, end) = far.rest();
    assert!(bytes == question && end == End::Orderly);
}

#[test]
fn a_reset_arrives_as_a_reset() {
    let (_world, relays, near, mut far) = pipe();
    near.reset();
    assert_eq!(far.rest().1, End::Reset);
    relays[0].wait_for_log("broken");
    let (_world, relays, mut near, far) = pipe();
    far.reset();
    assert_eq!(near.rest().1, End::Reset);
    relays[1].wait_for_log("broken");
}

#[test]
fn an_origin_answers_a_client_that_has_ended_its_sending() {
    let world = World::new();
    world.offer("myfile", 5);
    let nodes = world.chain(2);
    let mut raw = Raw::open(nodes[0].address(), &[nodes[1].address(), nodes[2].address()]);
    raw.say(&Stat { name: "myfile".try_into().expect("a name") });
    raw.end_writing();
    for _ in 0..3 {
        raw.hear::<Hello>();
    }
    assert_eq!(raw.hear::<Head>().status, Status::OK);
    assert_eq!(raw.rest(), (Vec::new(), End::Orderly));
}

/// What the client says behind its `open` waits in the socket until the next hop has said `hello`.
#[test]
fn nothing_passes_before_the_hello() {
    let world = World::new();
    let relay = world.relay();
    let stage = Stage::new();
    let mut near = Raw::open(relay.address(), &[stage.address()]);
    near.write(b"a caller's own bytes");
    near.end_writing();
    let mut far = stage.accept();
    far.hear::<Open>();
    near.hear::<Hello>();
    far.0.set_read_timeout(Some(Duration::from_millis(300))).expect("a limit");
    let early = std::io::Read::read(&mut far.0, &mut [0; 1]);
    assert!(early.is_err(), "{early:?} bytes before the hello");
    far.0.set_read_timeout(Some(relay_testkit::LIMIT)).expect("a limit");
    far.say(&Hello { agent: "stage/1".into() });
    assert_eq!(far.rest(), (b"a caller's own bytes".to_vec(), End::Orderly));
}

/// Readers that stand still cost the relay nothing that grows with their files.
#[cfg(target_os = "linux")]
#[test]
fn slow_readers_do_not_fill_a_relay() {
    const READERS: usize = 20;
    let world = World::new();
    write_sparse(&world.served().join("large"), 1 << 30);
    let nodes = world.chain(1);
    // The readers stop in the middle; what the origin could still send shows what the relay takes in advance.
    let reader = FaultProxy::start(nodes[0].address(), Plan::down(3 * MIB as u64, Fault::Stall));
    let meter = FaultProxy::start(nodes[1].address(), Plan::pass());
    let clients: Vec<Process> = (0..READERS)
        .map(|_| {
            // Into no file, for which the client would ask the disk for room.
            let options = ["-o", "/dev/null", "--timeout", "60"];
            world.start_fetch("large", &[reader.hop(), meter.hop()], &options)
        })
        .collect();
    reader.wait_for("stall of every reader", |seen| seen.iter().filter(|one| one.stalled).count() >= READERS);
    let taken = settled(|| meter.seen().iter().map(|one| one.down).sum::<u64>());
    let resident = nodes[0].resident_kib().expect("Linux tells");
    assert!(resident < 64 * 1024, "{resident} KiB resident with {READERS} slow readers");
    // Buffers of sockets and of the proxies, but not the files: 20 GiB were asked for.
    assert!(taken < READERS as u64 * 64 * MIB as u64, "{taken} bytes went into the pipes");
    drop(clients);
}

/// A figure once it has stopped to change.
fn settled(figure: impl Fn() -> u64) -> u64 {
    let deadline = Instant::now() + relay_testkit::LIMIT;
    let (mut last, mut same) = (figure(), 0);
    while same < 10 {
        thread::sleep(Duration::from_millis(50));
        let now = figure();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        assert!(Instant::now() < deadline, "it goes on and on");
    }
    last
}

/// A reader that pauses is not cut, and gets everything once it goes on.
#[test]
fn a_pause_costs_nothing_but_time() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(20));
    let nodes = world.chain(2);
    let proxy = FaultProxy::start(nodes[0].address(), Plan::down(5_000_000, Fault::Stall));
    let mut route = hops(&nodes);
    route[0] = proxy.hop();
    let client = world.start_fetch("myfile", &route, &["--timeout", "60"]);
    proxy.wait_for_stall();
    proxy.resume();
    world.check_saved(&client.finish(), "myfile", &bytes);
}
