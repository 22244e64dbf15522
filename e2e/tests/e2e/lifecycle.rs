//! A node says when it is full, and ends in order: what is under way may end, within a limit, and a second signal is the last.

use crate::raw::{End, Raw};
use crate::world::{World, hops, some_chunks};
use relay_proto::code::FailureCode;
use relay_proto::hop::{Failed, Hello};
use relay_testkit::node::Node;
use relay_testkit::process::{Process, Signal};
use relay_testkit::proxy::{Fault, FaultProxy, Plan};

#[test]
fn a_node_that_is_full_says_so_at_once() {
    let world = World::new();
    let bytes = world.offer("myfile", 1000);
    let node = world.origin_with(&["--max-connections", "2"]);
    let held: Vec<Raw> = (0..2)
        .map(|_| {
            let mut raw = Raw::open(node.address(), &[]);
            raw.hear::<Hello>();
            raw
        })
        .collect();
    let finished = world.fetch("myfile", &[node.hop()], &[]);
    let expected = format!("hop 1 ({}): too many connections", node.hop());
    world.check_failed(&finished, "myfile", 3, &[&expected]);
    let mut raw = Raw::open(node.address(), &[]);
    let failed: Failed = raw.hear();
    assert_eq!((failed.code, failed.next), (FailureCode::Busy, None));
    assert_eq!(raw.rest().1, End::Orderly, "the word is not lost to a reset");
    drop(held);
    // Room is there once both lines are in the log.
    node.process().wait_for("two access lines", |text| {
        (text.lines().filter(|line| line.contains("role=origin")).count() == 2).then_some(())
    });
    world.check_saved(&until_room(|| world.fetch("myfile", &[node.hop()], &[])), "myfile", &bytes);
}

#[test]
fn a_peer_beyond_its_share_is_told_so() {
    let world = World::new();
    world.offer("myfile", 1000);
    let node = world.origin_with(&["--max-connections-per-peer", "2"]);
    let held: Vec<Raw> = (0..2)
        .map(|_| {
            let mut raw = Raw::open(node.address(), &[]);
            raw.hear::<Hello>();
            raw
        })
        .collect();
    let mut raw = Raw::open(node.address(), &[]);
    let failed: Failed = raw.hear();
    assert_eq!((failed.code, failed.next), (FailureCode::Busy, None));
    assert!(failed.message.contains("from your address"), "{}", failed.message);
    drop(held);
}

/// One small `open` must not cost a node two descriptors for each of 63 hops.
#[test]
fn a_route_that_leads_to_one_node_again_and_again_ends_there() {
    let world = World::new();
    let bytes = world.offer("myfile", 1000);
    let node = world.origin();
    let route = |visits: usize| vec![node.hop(); visits];
    let finished = world.fetch("myfile", &route(63), &[]);
    world.check_failed(&finished, "myfile", 4, &["hop 9 (", "is here 8 times already", "--max-visits"]);
    world.check_saved(&world.fetch("myfile", &route(8), &[]), "myfile", &bytes);
    world.clear_saved();
    let patient = world.origin_with(&["--max-visits", "20"]);
    world.check_saved(&world.fetch("myfile", &vec![patient.hop(); 20], &[]), "myfile", &bytes);
}

/// A node that others can reach serves and relays only what its operator named. Nobody connects to it here.
#[test]
fn defaults_that_open_something_hold_on_loopback_alone() {
    let world = World::new();
    let start = |arguments: &[&str]| {
        let mut command = std::process::Command::new(relay_testkit::programs::program("relay-node"));
        std::fs::create_dir_all(world.saved().join("www")).expect("a directory");
        command.current_dir(world.saved()).args(arguments);
        let node = Node::from_process(Process::start(command));
        node.wait_for_log("relaying to");
        node.process().text()
    };
    let public = start(&["--listen", "0.0.0.0:0"]);
    assert!(public.contains("serving no files") && public.contains("relaying to nobody"), "{public}");
    let loopback = start(&["--listen", "127.0.0.1:0", "--listen", "[::1]:0"]);
    assert!(
        !loopback.contains("serving no files") && loopback.contains("relaying to 127.0.0.0/8"),
        "{loopback}"
    );
    let named = start(&["--listen", "0.0.0.0:0", "--root", "www", "--allow-next", "pchost2"]);
    assert!(!named.contains("serving no files") && named.contains("relaying to pchost2"), "{named}");
}

/// The line is written a moment before the room is there.
fn until_room(fetch: impl Fn() -> relay_testkit::process::Finished) -> relay_testkit::process::Finished {
    (0..100).map(|_| fetch()).find(|finished| finished.code == Some(0)).expect("room")
}

#[test]
fn http_hears_503_of_a_node_that_is_full() {
    let world = World::new();
    let node = world.origin_with(&["--max-connections", "1"]);
    let mut held = Raw::open(node.address(), &[]);
    held.hear::<Hello>();
    let mut raw = Raw::connect(node.address());
    raw.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let (answer, end) = raw.rest();
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(end, End::Orderly);
}

/// A transfer through one relay that stands still in the middle.
fn stalled(world: &World, relay: &Node, origin: &Node) -> (FaultProxy, Process) {
    let proxy = FaultProxy::start(relay.address(), Plan::down(2_000_000, Fault::Stall));
    let client = world.start_fetch("myfile", &[proxy.hop(), origin.hop()], &["--timeout", "60"]);
    proxy.wait_for_stall();
    (proxy, client)
}

#[cfg(unix)]
#[test]
fn a_drain_lets_transfers_end() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(60));
    let (relay, origin) = (world.relay(), world.origin());
    let (proxy, client) = stalled(&world, &relay, &origin);
    let address = relay.address();
    for node in [&relay, &origin] {
        node.process().signal(Signal::Terminate);
        node.wait_for_log("stopping");
    }
    relay.process().wait_for("refusal of new connections", |_| {
        std::net::TcpStream::connect(address).is_err().then_some(())
    });
    proxy.resume();
    world.check_saved(&client.finish(), "myfile", &bytes);
    for node in [relay, origin] {
        let finished = node.into_process().finish();
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        assert!(finished.stdout_text().contains("ended in order"), "{}", finished.stdout_text());
    }
}

#[cfg(unix)]
#[test]
fn a_drain_has_a_limit() {
    let world = World::new();
    world.offer("myfile", some_chunks(60));
    let (relay, origin) = (world.relay_with(&["--drain", "200ms"]), world.origin());
    let (_proxy, client) = stalled(&world, &relay, &origin);
    relay.process().signal(Signal::Terminate);
    let finished = relay.into_process().finish();
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(finished.stdout_text().contains("were cut"), "{}", finished.stdout_text());
    drop(client);
}

#[cfg(unix)]
#[test]
fn a_second_signal_ends_at_once() {
    let world = World::new();
    world.offer("myfile", some_chunks(60));
    let (relay, origin) = (world.relay_with(&["--drain", "1h"]), world.origin());
    let (_proxy, client) = stalled(&world, &relay, &origin);
    relay.process().signal(Signal::Interrupt);
    relay.wait_for_log("stopping");
    relay.process().signal(Signal::Terminate);
    let finished = relay.into_process().finish();
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    drop(client);
}

#[cfg(unix)]
#[test]
fn an_idle_node_ends_at_the_first_signal() {
    let world = World::new();
    for signal in [Signal::Terminate, Signal::Interrupt] {
        let node = world.relay();
        // A connection that has said nothing has nothing to finish.
        let silent = Raw::connect(node.address());
        node.process().signal(signal);
        let finished = node.into_process().finish();
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        drop(silent);
    }
}

#[test]
fn a_start_that_cannot_be() {
    let world = World::new();
    let node = world.relay();
    for (arguments, code, part) in [
        (vec!["--listen", &node.hop() as &str], 1, "cannot listen on"),
        (vec!["--listen", "127.0.0.1:0", "--root", "/nowhere/at/all"], 2, "/nowhere/at/all"),
        (vec!["--listen", "nonsense"], 2, "nonsense"),
        (vec!["--allow-next", "a b"], 2, "a b"),
        (vec!["70000"], 2, "70000"),
        (vec!["--no-such-flag"], 2, "--no-such-flag"),
    ] {
        let mut command = std::process::Command::new(relay_testkit::programs::program("relay-node"));
        command.current_dir(world.served()).args(&arguments);
        if !arguments.contains(&"--root") {
            command.arg("--root").arg(world.served());
        }
        let finished = Process::start(command).finish();
        assert_eq!(finished.code, Some(code), "{arguments:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(part), "{arguments:?}: {}", finished.stderr);
    }
}

/// Nothing is left open behind transfers, refusals and garbage.
#[cfg(target_os = "linux")]
#[test]
fn no_descriptor_is_left_behind() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(3));
    let nodes = world.chain(1);
    // The first transfer opens what stays open: the runtime's own.
    world.check_saved(&world.fetch("myfile", &hops(&nodes), &[]), "myfile", &bytes);
    let before: Vec<_> = nodes.iter().map(|node| low_water(node, 0)).collect();
    for n in 0..10 {
        let name = format!("copy-{n}");
        world.fetch("myfile", &hops(&nodes), &["-o", &name]);
        world.fetch("missing", &hops(&nodes), &[]);
        world.fetch("f", &[nodes[0].hop(), "127.0.0.1:1".into()], &[]);
        Raw::connect(nodes[0].address()).write(b"\xf5garbage");
    }
    for (node, before) in nodes.iter().zip(before) {
        low_water(node, before);
    }
}

/// Waits until the node has at most `most` descriptors open (0: until the number stands still), and returns how many.
#[cfg(target_os = "linux")]
fn low_water(node: &Node, most: usize) -> usize {
    let deadline = std::time::Instant::now() + relay_testkit::LIMIT;
    let (mut last, mut same) = (usize::MAX, 0);
    loop {
        let now = node.open_descriptors().expect("Linux tells");
        same = if now == last { same + 1 } else { 0 };
        last = now;
        if (most > 0 && now <= most) || (most == 0 && same == 20) {
            return now;
        }
        assert!(std::time::Instant::now() < deadline, "{now} descriptors are open, {most} were");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
