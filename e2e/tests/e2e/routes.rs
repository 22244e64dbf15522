//! Several routes to one file, and several connections: they share it, take over from each other, and are checked against each other.

use crate::world::{MIB, World, no_retries, some_chunks};
use relay_testkit::nobody::Nobody;
use relay_testkit::node::Node;
use relay_testkit::process::{Finished, Process};
use relay_testkit::proxy::{Direction, Fault, FaultProxy, Plan};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// A route file that names `myfile` on each of these routes.
fn routes(world: &World, routes: &[&[&str]]) -> PathBuf {
    let one = |hops: &&[&str]| {
        let hops: String = hops.iter().map(|hop| hop.replacen(':', " ", 1) + "\n").collect();
        format!("myfile\n{hops}")
    };
    let path = world.elsewhere("routes.txt");
    fs::write(&path, routes.iter().map(one).collect::<Vec<_>>().join("or\n")).expect("a route file");
    path
}

/// Fetches over these routes and returns what the events say.
fn fetch(world: &World, route: &[&[&str]], arguments: &[&str]) -> (Finished, Vec<Value>) {
    let file = routes(world, route);
    let finished =
        world.client(&[&[file.to_str().expect("text"), "--json"], no_retries(), arguments].concat());
    let text = finished.stdout_text();
    let events = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    (finished, events)
}

fn of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

/// What a route brought, as the summary says.
fn brought(events: &[Value], route: usize) -> u64 {
    let done = of(events, "done");
    let routes = done.first().expect("done")["routes"].as_array().expect("the routes").clone();
    routes[route - 1]["bytes"].as_u64().expect("bytes")
}

/// A busy machine makes a path look long, and then a route may get more connections.
const ONE_EACH: &[&str] = &["--connections", "1"];

fn slow(target: &Node, bytes_per_second: u32) -> FaultProxy {
    let plan = Plan { down: Direction::rate(bytes_per_second), ..Plan::default() };
    FaultProxy::start(target.address(), plan)
}

/// Another origin that has a copy of the file.
fn replica(world: &World) -> Node {
    let directory = world.elsewhere("replica");
    fs::create_dir(&directory).expect("a directory");
    fs::copy(world.served().join("myfile"), directory.join("myfile")).expect("a copy");
    Node::start(&directory)
}

#[test]
fn two_routes_share_the_work() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(30));
    let (origin, relay) = (world.origin(), world.relay());
    let (one, other) = (slow(&origin, 20_000_000), slow(&relay, 20_000_000));
    let (finished, events) = fetch(&world, &[&[&one.hop()], &[&other.hop(), &origin.hop()]], ONE_EACH);
    world.check_saved(&finished, "myfile", &bytes);
    let (first, second) = (brought(&events, 1), brought(&events, 2));
    assert!(first > 5 * MIB as u64 && second > 5 * MIB as u64, "{first} and {second} bytes");
    assert!(first + second <= (bytes.len() + 4 * MIB) as u64, "{first} and {second} bytes");
    let hello = of(&events, "hello");
    assert!(hello.iter().any(|hello| hello["route"] == 2 && hello["position"] == 2), "{events:?}");
    assert!(of(&events, "route_lost").is_empty(), "{events:?}");
}

#[test]
fn a_route_that_does_not_stand_is_told_and_not_waited_for() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(3));
    let (origin, relay) = (world.origin(), world.relay());
    let nobody = Nobody::new();
    let dead = nobody.hop();
    let (finished, events) = fetch(&world, &[&[&relay.hop(), &dead], &[&origin.hop()]], &[]);
    world.check_saved(&finished, "myfile", &bytes);
    let lost = of(&events, "route_lost");
    assert_eq!((&lost[0]["route"], &lost[0]["position"]), (&Value::from(1), &Value::from(2)), "{lost:?}");
    assert!(lost[0]["reason"].as_str().expect("a reason").contains("connection refused"), "{lost:?}");
    assert_eq!(brought(&events, 2), bytes.len() as u64);
    let done = of(&events, "done");
    assert!(done[0]["routes"][0]["failure"].as_str().expect("why").contains(&dead), "{done:?}");
}

#[test]
fn when_a_route_dies_the_rest_comes_by_another() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(24));
    let (origin, relay) = (world.origin(), world.relay());
    for fault in [Fault::Reset, Fault::Cut, Fault::HalfClose] {
        // The first connection breaks off after five chunks, later ones at once.
        let dying = FaultProxy::start_with(relay.address(), move |n| {
            Plan::down(if n == 0 { 5_500_000 } else { 10 }, fault)
        });
        // Slow enough that the fault comes before the other route has brought the rest.
        let steady = slow(&origin, 10_000_000);
        let (finished, events) =
            fetch(&world, &[&[&dying.hop(), &origin.hop()], &[&steady.hop()]], &["--timeout", "5"]);
        world.check_saved(&finished, "myfile", &bytes);
        let first = dying.seen()[0].down;
        assert!(first >= 5_000_000, "{first} bytes came by the first route");
        let fetched = of(&events, "done")[0]["fetched"].as_u64().expect("bytes");
        assert!(fetched <= (bytes.len() + 4 * MIB) as u64, "{fault:?}: {fetched} fetched");
        assert!(brought(&events, 2) > 0 && of(&events, "route_lost")[0]["route"] == 1, "{events:?}");
        world.clear_saved();
    }
}

#[test]
fn a_route_that_brings_damage_is_named_and_left_out() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(24));
    let (origin, relay) = (world.origin(), world.relay());
    let liar = FaultProxy::start(relay.address(), Plan::down(1_500_000, Fault::FlipBit(3)));
    for route in [1, 2] {
        let steady = slow(&origin, 30_000_000);
        let (bad, good) = ([liar.hop(), origin.hop()], [steady.hop()]);
        let (bad, good) = ([bad[0].as_str(), bad[1].as_str()], [good[0].as_str()]);
        let order: [&[&str]; 2] = if route == 1 { [&bad, &good] } else { [&good, &bad] };
        let (finished, events) = fetch(&world, &order, &["--timeout", "5"]);
        world.check_saved(&finished, "myfile", &bytes);
        let lost = of(&events, "route_lost");
        let named = lost.iter().find(|lost| lost["kind"] == "damaged");
        let named = named.unwrap_or_else(|| panic!("nobody is named: {events:?}"));
        assert_eq!(named["route"], route, "{lost:?}");
        assert_eq!(named["pause"], Value::Null, "{lost:?}");
        world.clear_saved();
    }
}

#[test]
fn another_origin_with_the_same_file_helps() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(30));
    let (origin, second) = (world.origin(), replica(&world));
    let (one, other) = (slow(&origin, 15_000_000), slow(&second, 15_000_000));
    let (finished, events) = fetch(&world, &[&[&one.hop()], &[&other.hop()]], &[]);
    world.check_saved(&finished, "myfile", &bytes);
    assert!(brought(&events, 2) > 2 * MIB as u64, "{events:?}");
    let notes = of(&events, "note");
    assert!(
        notes.iter().any(|note| note["message"].as_str().expect("text").contains("another origin")),
        "{notes:?}"
    );
    assert!(of(&events, "route_lost").is_empty(), "{events:?}");
}

/// An origin that has a file of the same name and, unless `longer`, of the same length, with other bytes in chunk 20.
fn other_version(world: &World, bytes: &[u8], longer: usize) -> Node {
    let directory = world.elsewhere(&format!("other{longer}"));
    fs::create_dir(&directory).expect("a directory");
    let mut other = bytes.to_vec();
    other[20 * MIB + 5] ^= 1;
    other.resize(bytes.len() + longer, 0);
    fs::write(directory.join("myfile"), other).expect("written");
    Node::start(&directory)
}

#[test]
fn another_version_is_told_and_left_out() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(30));
    let origin = world.origin();
    for longer in [0, 1] {
        let other = other_version(&world, &bytes, longer);
        let one = slow(&origin, 15_000_000);
        let (finished, events) = fetch(&world, &[&[&one.hop()], &[&other.hop()]], ONE_EACH);
        world.check_saved(&finished, "myfile", &bytes);
        let lost = of(&events, "route_lost");
        assert!(lost[0]["route"] == 2 && lost[0]["kind"] == "damaged", "{lost:?}");
        let reason = lost[0]["reason"].as_str().expect("a reason");
        let place = if longer == 0 { "differs in chunk 20" } else { "size differs" };
        assert!(reason.contains("a different version") && reason.contains(place), "{reason}");
        world.clear_saved();
    }
}

#[test]
fn a_route_that_stalls_holds_nobody_up() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(30));
    let (origin, relay) = (world.origin(), world.relay());
    let stalling = FaultProxy::start(relay.address(), Plan::down(2_500_000, Fault::Stall));
    let steady = slow(&origin, 20_000_000);
    // The stalled route would only be given up after the timeout.
    let options = [ONE_EACH, &["--timeout", "600"]].concat();
    let (finished, events) = fetch(&world, &[&[&stalling.hop(), &origin.hop()], &[&steady.hop()]], &options);
    world.check_saved(&finished, "myfile", &bytes);
    assert!(of(&events, "done")[0]["seconds"].as_f64().expect("seconds") < 300.0);
}

#[test]
fn when_no_route_is_left_each_says_why() {
    let world = World::new();
    world.offer("other", 10);
    let (origin, dead, other) = (world.origin(), Nobody::new(), Nobody::new());
    let file = routes(&world, &[&[&dead.hop()], &[&origin.hop()]]);
    let finished = world.client(&[file.to_str().expect("text")]);
    world.check_failed(
        &finished,
        "myfile",
        5,
        &[
            "no route is left",
            "route 1: hop 1",
            "connection refused",
            "route 2: myfile: 404 not found",
            "with a / behind",
        ],
    );
    let (_, events) = fetch(&world, &[&[&dead.hop()], &[&other.hop()]], &[]);
    let failed = of(&events, "failed");
    assert_eq!(failed[0]["kind"], "unreachable", "{failed:?}");
}

#[test]
fn standard_output_goes_on_by_another_route() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(8));
    let (origin, second) = (world.origin(), replica(&world));
    let dying = FaultProxy::start_with(origin.address(), |n| {
        Plan::down(if n == 0 { 3_500_000 } else { 10 }, Fault::Cut)
    });
    let file = routes(&world, &[&[&dying.hop()], &[&second.hop()]]);
    let finished = world.client(&[file.to_str().expect("text"), "-o", "-", "--timeout", "2"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout == bytes, "{} bytes came", finished.stdout.len());
}

#[test]
fn standard_output_gets_the_rest_by_another_route_when_one_brings_damage() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(8));
    let (origin, relay) = (world.origin(), world.relay());
    let liar = FaultProxy::start(relay.address(), Plan::down(3_500_000, Fault::FlipBit(3)));
    let file = routes(&world, &[&[&liar.hop(), &origin.hop()], &[&origin.hop()]]);
    let finished = world.client(&[file.to_str().expect("text"), "-o", "-", "--timeout", "5"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout == bytes, "{} bytes came", finished.stdout.len());
    assert!(finished.stderr.contains("arrived damaged"), "{}", finished.stderr);
}

/// Its hashes are gone with it, so the other one takes its place.
#[test]
fn another_origin_goes_on_when_the_first_one_dies() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(30));
    let (origin, second) = (world.origin(), replica(&world));
    let dying = FaultProxy::start_with(origin.address(), |n| Plan {
        down: Direction {
            rate: Some(8_000_000),
            ..Direction::fault(if n == 0 { 6_500_000 } else { 600 }, Fault::Cut)
        },
        ..Plan::default()
    });
    let other = slow(&second, 8_000_000);
    let file = routes(&world, &[&[&dying.hop()], &[&other.hop()]]);
    let finished = world.client(&[file.to_str().expect("text"), "--timeout", "5"]);
    world.check_saved(&finished, "myfile", &bytes);
}

#[test]
fn several_connections_share_one_route() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(30));
    let origin = world.origin();
    let proxy = slow(&origin, 5_000_000);
    let hop: &[&str] = &[&proxy.hop()];
    let (finished, _) = fetch(&world, &[hop], &["--connections", "4"]);
    world.check_saved(&finished, "myfile", &bytes);
    let seen = proxy.seen();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|one| one.down > 2 * MIB as u64), "{seen:?}");
    world.clear_saved();
    // On a short path one is enough, however slow it is.
    let (finished, events) = fetch(&world, &[hop], &[]);
    world.check_saved(&finished, "myfile", &bytes);
    // A machine with much else to do makes a path long.
    if of(&events, "hello")[0]["ms"].as_f64().expect("milliseconds") < 15.0 {
        assert_eq!(proxy.seen().len(), 5);
    }
}

/// Another file gets its name, or it is written anew: what arrives is one version, never a mixture.
#[test]
fn a_file_that_is_replaced_while_several_connections_fetch_it() {
    let world = World::new();
    let origin = world.origin();
    for is_renamed in [true, false] {
        let old = world.offer("myfile", some_chunks(40));
        let proxy = FaultProxy::start(origin.address(), Plan::down(1_500_000, Fault::Stall));
        let client = world.start_client(&["--get", "myfile", "--via", &proxy.hop(), "--connections", "4"]);
        proxy.wait_for("four stalls", |seen| seen.iter().filter(|one| one.stalled).count() == 4);
        let new = world.offer("other", some_chunks(31));
        let (from, to) = (world.served().join("other"), world.served().join("myfile"));
        if is_renamed { fs::rename(from, to) } else { fs::write(to, &new) }.expect("replaced");
        proxy.resume();
        let finished = client.finish();
        let saved = fs::read(world.saved().join("myfile")).unwrap_or_default();
        world.check_saved(&finished, "myfile", if is_renamed && saved == old { &old } else { &new });
        world.clear_saved();
    }
}

#[test]
fn connections_are_added_on_a_long_path() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(24));
    let origin = world.origin();
    let far = std::time::Duration::from_millis(30);
    let down = Direction { delay: far, ..Direction::rate(2_000_000) };
    let proxy = FaultProxy::start(origin.address(), Plan { up: Direction::delay(far), down });
    let hop: &[&str] = &[&proxy.hop()];
    let (finished, _) = fetch(&world, &[hop], &[]);
    world.check_saved(&finished, "myfile", &bytes);
    let seen = proxy.seen();
    assert!((2..=16).contains(&seen.len()), "{} connections", seen.len());
    let total: u64 = seen.iter().map(|one| one.down).sum();
    assert!(total < (bytes.len() + 16 * MIB) as u64, "{total} bytes travelled for {}", bytes.len());
}

#[test]
fn a_command_that_takes_one_route_says_so() {
    let world = World::new();
    let file = routes(&world, &[&["a:1"], &["b:1"]]);
    for command in ["trace", "list"] {
        let mut run = world.client_command();
        run.arg(command).arg(&file);
        let finished = Process::start(run).finish();
        assert_eq!(finished.code, Some(2), "{}", finished.stderr);
        assert!(finished.stderr.contains("several routes"), "{}", finished.stderr);
    }
}
