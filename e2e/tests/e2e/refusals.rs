//! Everything that cannot work ends with a sentence that tells which hop, what, and what to do; and with its own exit code.

use crate::raw::Stage;
use crate::world::{World, can_read, hops};
use relay_proto::address::Hop;
use relay_proto::frame::{Preface, decode};
use relay_proto::hop::Open;
use relay_proto::limits::PREFACE_LEN;
use relay_testkit::files::names_in;
use relay_testkit::nobody::Nobody;
use relay_testkit::recorder::{Behaviour, Received, Recorder};
use std::fs;
use std::net::SocketAddr;

const UNREACHABLE: i32 = 3;
const DENIED: i32 = 4;
const NOT_FOUND: i32 = 5;
const TIMED_OUT: i32 = 6;
const LOCAL: i32 = 8;

#[test]
fn a_hop_that_refuses() {
    let world = World::new();
    let (relay, port) = (world.relay(), Nobody::new());
    let nobody = port.address();
    let finished = world.fetch("f", &[relay.hop(), nobody.to_string()], &[]);
    let expected = format!("hop 2 ({nobody}): connection refused, says hop 1 ({})", relay.hop());
    world.check_failed(&finished, "f", UNREACHABLE, &[&expected]);
    relay.wait_for_log("refused");
    let finished = world.fetch("f", &[nobody.to_string(), relay.hop()], &[]);
    world.check_failed(&finished, "f", UNREACHABLE, &[&format!("hop 1 ({nobody}): connection refused")]);
    assert!(!finished.stderr.contains("says"), "the client saw it itself: {}", finished.stderr);
}

#[test]
fn a_name_that_is_not_found() {
    let world = World::new();
    let relay = world.relay_with(&["--allow-next", "*"]);
    // A label of more than 63 letters cannot exist (RFC 1035, section 2.3.4), so nobody is asked for it.
    let name = format!("{}.example:12000", "x".repeat(64));
    let finished = world.fetch("f", &[relay.hop(), name.clone()], &[]);
    let expected = format!("hop 2 ({name}): name not found, says hop 1 ({})", relay.hop());
    world.check_failed(&finished, "f", UNREACHABLE, &[&expected]);
    let finished = world.fetch("f", std::slice::from_ref(&name), &[]);
    world.check_failed(&finished, "f", UNREACHABLE, &[&format!("hop 1 ({name}): name not found")]);
}

/// Whoever calls cannot make a node ask its name servers for whatever he likes.
#[test]
fn a_name_is_not_looked_up_where_the_rules_hold_addresses_alone() {
    let world = World::new();
    let bytes = world.offer("f", 100);
    let name = format!("{}.example:12000", "x".repeat(64));
    for rules in [&[] as &[&str], &["--allow-next", "10.0.0.0/8"]] {
        let relay = world.relay_with(rules);
        let finished = world.fetch("f", &[relay.hop(), name.clone()], &[]);
        let would = format!("its operator would allow it with --allow-next {name}");
        world.check_failed(&finished, "f", DENIED, &[&format!("hop 2 ({name}): "), &would]);
    }
    let (relay, origin) = (world.relay(), world.origin());
    let by_name = format!("localhost:{}", origin.address().port());
    world.check_saved(&world.fetch("f", &[relay.hop(), by_name], &[]), "f", &bytes);
}

/// A stream to the broadcast address has no route (ip(7)), and no packet leaves the machine.
#[cfg(target_os = "linux")]
#[test]
fn a_network_without_a_way() {
    let world = World::new();
    let finished = world.fetch("f", &["255.255.255.255:1".into()], &[]);
    let expected = "hop 1 (255.255.255.255:1): network or host unreachable";
    world.check_failed(&finished, "f", UNREACHABLE, &[expected]);
    let relay = world.relay_with(&["--allow-next", "255.255.255.255"]);
    let finished = world.fetch("f", &[relay.hop(), "255.255.255.255:1".into()], &[]);
    let expected = "hop 2 (255.255.255.255:1): network or host unreachable, says hop 1";
    world.check_failed(&finished, "f", UNREACHABLE, &[expected]);
}

/// Linux drops the SYN when a listener's queue is full, as a firewall does.
#[cfg(target_os = "linux")]
#[test]
fn a_hop_that_swallows_connects() {
    let world = World::new();
    let (listener, address, _waiting) = full_listener();
    let relay = world.relay();
    let finished = world.fetch("f", &[relay.hop(), address.to_string()], &["--timeout", "5"]);
    let expected = format!("hop 2 ({address}): timed out, says hop 1 ({})", relay.hop());
    world.check_failed(&finished, "f", TIMED_OUT, &[&expected, "connect"]);
    let finished = world.fetch("f", &[address.to_string()], &["--timeout", "1"]);
    world.check_failed(&finished, "f", TIMED_OUT, &[&format!("hop 1 ({address}): timed out")]);
    drop(listener);
}

/// A listener that nobody serves, its queue full.
#[cfg(target_os = "linux")]
fn full_listener() -> (socket2::Socket, SocketAddr, Vec<std::net::TcpStream>) {
    use std::time::Duration;
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
    listener.listen(0).expect("listening");
    let address = listener.local_addr().expect("an address").as_socket().expect("of the internet");
    let mut waiting = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(stream);
        assert!(waiting.len() < 100, "a queue of 0 holds so many");
    }
    (listener, address, waiting)
}

#[test]
fn a_hop_that_accepts_and_stays_silent() {
    let world = World::new();
    let silent = Recorder::start(Behaviour::Silent);
    let relay = world.relay();
    let finished = world.fetch("f", &[relay.hop(), silent.address().to_string()], &["--timeout", "5"]);
    let expected = format!("hop 2 ({}): timed out, says hop 1 ({})", silent.address(), relay.hop());
    world.check_failed(&finished, "f", TIMED_OUT, &[&expected]);
    let finished = world.fetch("f", &[silent.address().to_string()], &["--timeout", "1"]);
    world.check_failed(&finished, "f", TIMED_OUT, &[&format!("hop 1 ({}): timed out", silent.address())]);
}

/// The relay itself hangs: nobody says so but the client, which names the hop whose hello is missing.
#[test]
fn a_hop_that_says_hello_and_hangs() {
    let world = World::new();
    let stage = Stage::new();
    let route = [stage.address().to_string(), "127.0.0.1:1".into()];
    let client = world.start_fetch("f", &route, &["--timeout", "1"]);
    let mut raw = stage.accept();
    raw.hear::<Open>();
    raw.say(&relay_proto::hop::Hello { agent: "stage/1".into() });
    world.check_failed(&client.finish(), "f", TIMED_OUT, &["hop 2 (127.0.0.1:1): timed out"]);
}

#[test]
fn a_next_hop_that_is_no_relay_node_receives_nothing_but_the_open() {
    let world = World::new();
    for (behaviour, what) in [
        (
            Behaviour::Reply(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec()),
            "not a relay node",
        ),
        (Behaviour::Greet(b"220 mail.example ESMTP\r\n".to_vec()), "not a relay node"),
        (Behaviour::Greet(vec![0x4a, 0, 0, 0, 0x0a]), "not a relay node"),
        (Behaviour::Close, "closed the connection"),
    ] {
        let relay = world.relay();
        let server = Recorder::start(behaviour);
        // What a caller would like a server of lines to read.
        let name = "x\r\nHELO example\r\nMAIL FROM:<a@b.example>\r\n";
        let route = [relay.hop(), server.address().to_string(), "127.0.0.1:25".into()];
        let finished = world.fetch(name, &route, &["-o", "f"]);
        let expected = format!("hop 2 ({}): {what}, says hop 1 ({})", server.address(), relay.hop());
        world.check_failed(&finished, "f", UNREACHABLE, &[&expected]);
        check_open_alone(&server.wait_for_end());
    }
}

/// One connection that received exactly one `open` with one hop left.
fn check_open_alone(received: &[Received]) {
    let [Received { bytes, .. }] = received else { panic!("one connection: {received:?}") };
    if bytes.is_empty() {
        // A server that closed at once may not have been sent anything.
        return;
    }
    let (preface, payload) = bytes.split_first_chunk::<PREFACE_LEN>().expect("a preface");
    let preface = Preface::decode(preface).expect("a preface");
    assert_eq!(
        payload.len(),
        preface.payload_len,
        "nothing behind the open: {:?}",
        String::from_utf8_lossy(bytes)
    );
    let open: Open = decode(preface.frame_type, payload).expect("an open");
    assert_eq!(open.hops, [Hop::new("127.0.0.1", 25).expect("a hop")]);
    assert!(!bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n')), "no line for a server of lines");
}

#[test]
fn a_next_hop_that_is_not_allowed() {
    let world = World::new();
    let relay = world.relay_with(&["--allow-next", "10.0.0.0/8", "--allow-next", "pchost2:11000"]);
    let server = Recorder::start(Behaviour::Silent);
    let finished = world.fetch("f", &[relay.hop(), server.address().to_string()], &[]);
    let expected = format!("hop 2 ({}): relaying denied, says hop 1 ({})", server.address(), relay.hop());
    let flag = format!("--allow-next {}", server.address());
    world.check_failed(&finished, "f", DENIED, &[&expected, &flag]);
    assert!(server.received().is_empty(), "not even a connection");
    // Loopback under any of its other names is loopback, and stays out of `*`.
    let open_relay = world.relay_with(&["--allow-next", "*"]);
    let port = server.address().port();
    for name in ["127.0.0.1", "127.1.2.3", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "localhost"] {
        let hop = Hop::new(name, port).expect("a hop").to_string();
        let finished = world.fetch("f", &[open_relay.hop(), hop], &[]);
        world.check_failed(&finished, "f", DENIED, &["relaying denied, says hop 1"]);
    }
    assert!(server.received().is_empty(), "not even a connection");
}

#[test]
fn what_the_origin_does_not_offer_is_404_whatever_the_reason() {
    let world = World::new();
    world.offer("dir/inside", 10);
    fs::write(world.elsewhere("secret"), "secret").expect("a file");
    #[cfg(unix)]
    std::os::unix::fs::symlink(world.elsewhere("secret"), world.served().join("link")).expect("a link");
    let nodes = world.chain(1);
    let mut names = vec![
        "missing",
        "dir",
        "../secret",
        "dir/../../secret",
        "/etc/hostname",
        "dir\\inside",
        "a\\u0000b",
        "link",
        "./dir/inside",
        "dir//inside",
        ".",
    ];
    let locked = world.served().join("locked");
    fs::write(&locked, "locked").expect("a file");
    #[cfg(unix)]
    fs::set_permissions(&locked, std::os::unix::fs::PermissionsExt::from_mode(0o0)).expect("a mode");
    if !can_read(&locked) {
        names.push("locked");
    }
    let mut answers = Vec::new();
    for name in names {
        let json = if name == "a\\u0000b" { name.to_owned() } else { name.replace('\\', "\\\\") };
        let route = world.elsewhere("route.json");
        let hops: Vec<String> = hops(&nodes).iter().map(|hop| format!("\"{hop}\"")).collect();
        fs::write(&route, format!(r#"{{"file": "{json}", "hops": [{}]}}"#, hops.join(","))).expect("a route");
        let finished = world
            .client(&[&[route.to_str().expect("UTF-8"), "-o", "f"], crate::world::no_retries()].concat());
        world.check_failed(&finished, "f", NOT_FOUND, &["404", &format!("says hop 2 ({})", nodes[1].hop())]);
        let (_, answer) = finished.stderr.split_once("404").expect("a status");
        answers.push(answer.to_owned());
        nodes[1].wait_for_log("404");
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "the client cannot tell which: {answers:?}");
    assert!(names_in(&world.saved()).is_empty(), "nothing was saved");
}

#[test]
fn a_target_that_cannot_be_written() {
    let world = World::new();
    world.offer("myfile", 3_000_000);
    let nodes = world.chain(1);
    fs::write(world.saved().join("file"), "a file is no directory").expect("a file");
    let finished = world.fetch("myfile", &hops(&nodes), &["-o", "file/f"]);
    world.check_failed(&finished, "file/f", LOCAL, &["cannot create the directory"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let world = World::new();
    world.offer("myfile", 3_000_000);
    let nodes = world.chain(1);
    let finished = world.fetch("myfile", &hops(&nodes), &["-o", "/dev/full"]);
    assert_eq!(finished.code, Some(LOCAL), "{}", finished.stderr);
    assert!(finished.stderr.contains("No space left"), "{}", finished.stderr);
    // A limit on file sizes meets a file as a full disk does: in the middle.
    let client = world.client_command();
    let script = format!(
        "ulimit -f 1000; exec {} --get myfile --via {} --via {}",
        client.get_program().to_string_lossy(),
        nodes[0].hop(),
        nodes[1].hop()
    );
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script]).current_dir(world.saved());
    let finished = relay_testkit::process::Process::start(shell).finish();
    world.check_failed(&finished, "myfile", LOCAL, &["error: cannot"]);
}

#[test]
fn a_bad_route_is_shown_with_its_place_and_dials_nobody() {
    let world = World::new();
    let server = Recorder::start(Behaviour::Silent);
    let good = server.address().to_string().replace(':', " ");
    for (route, parts) in [
        (format!("myfile\n{good}\npchost2 11x00\n"), [":3:9", "pchost2 11x00", "no port"]),
        (format!("myfile\n{good}\npchost2\n"), [":3:8", "pchost2", "port is missing"]),
        ("myfile\n".into(), [":1:7", "myfile", "no hop"]),
        (format!("./\n{good}\n"), [":1:1", "./", "name is empty"]),
        (
            format!("{{\"file\": \"a\",\n \"hops\": [\"{}\", 5]}}", server.address()),
            [":2:", "hops", "invalid type"],
        ),
    ] {
        let path = world.elsewhere("bad-route.txt");
        fs::write(&path, &route).expect("a route");
        let finished = world.client(&[path.to_str().expect("UTF-8")]);
        world.check_failed(&finished, "myfile", 2, &["bad-route.txt", "^"]);
        for part in parts {
            assert!(finished.stderr.contains(part), "no {part:?} in: {}", finished.stderr);
        }
    }
    assert!(server.received().is_empty(), "nobody was dialled");
}
