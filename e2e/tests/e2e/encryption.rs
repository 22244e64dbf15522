//! Nobody on the way reads or changes what passes, and whoever is at the end is who was there before.

use crate::world::World;
use relay_testkit::LIMIT;
use relay_testkit::node::Node;
use relay_testkit::process::{Finished, Process};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

/// A client that remembers, and nodes with keys of their own.
struct Place {
    world: World,
    state: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { world: World::new(), state: tempfile::tempdir().expect("a directory") }
    }

    fn key_file(&self, name: &str) -> PathBuf {
        self.state.path().join("keys").join(name)
    }

    fn origin(&self, key: &str, listen: Option<SocketAddr>) -> Node {
        let key = self.key_file(key);
        let mut arguments = vec!["--key".into(), key.into_os_string()];
        if let Some(listen) = listen {
            arguments.extend(["--listen".into(), listen.to_string().into()]);
        }
        if listen.is_none() {
            return Node::start_with(&self.world.served(), &arguments);
        }
        let mut command = std::process::Command::new(relay_testkit::programs::program("relay-node"));
        command.arg("--root").arg(self.world.served()).args(arguments);
        Node::from_process(Process::start(command))
    }

    fn client(&self, arguments: &[&str]) -> Finished {
        let mut command = self.world.client_command();
        command.env_remove("RELAY_CLIENT_PLAIN").env("XDG_STATE_HOME", self.state.path()).args(arguments);
        Process::start(command).finish()
    }

    fn fetch(&self, hops: &[String], more: &[&str]) -> Finished {
        let _ = fs::remove_file(self.world.saved().join("secret-name"));
        let mut arguments = vec!["--get", "secret-name", "--retries", "0"];
        for hop in hops {
            arguments.extend(["--via", hop]);
        }
        arguments.extend(more);
        self.client(&arguments)
    }

    fn has_file(&self) -> bool {
        self.world.saved().join("secret-name").exists()
    }
}

#[track_caller]
fn check(finished: &Finished, code: i32, parts: &[&str]) {
    assert_eq!(finished.code, Some(code), "{}", finished.stderr);
    for part in parts {
        assert!(finished.stderr.contains(part), "{part:?} is missing in {}", finished.stderr);
    }
}

fn shown_key(node: &Node) -> String {
    let line = node.process().wait_for_line("key ed25519:");
    line.split_whitespace().last().expect("a key").to_owned()
}

#[test]
fn a_key_is_met_remembered_missed_and_forgotten() {
    let place = Place::new();
    fs::write(place.world.served().join("secret-name"), b"content").unwrap();
    let (relay, origin) = (place.origin("relay", None), place.origin("one", None));
    let hops = [relay.hop(), origin.hop()];
    let key = shown_key(&origin);
    check(&place.fetch(&hops, &["--strict"]), 11, &[&key, "--strict"]);
    assert!(!place.has_file());
    check(&place.fetch(&hops, &[]), 0, &[&format!("encrypted to {key}, first contact, remembered")]);
    check(&place.fetch(&hops, &["--strict"]), 0, &[&format!("encrypted to {key}, known since 20")]);
    assert_eq!(fs::read(place.world.saved().join("secret-name")).unwrap(), b"content");
    let way = hops.join(">");
    let known = place.client(&["known"]);
    assert!(known.stdout_text().starts_with(&format!("{way} {key} 20")), "{}", known.stdout_text());

    // Another key at the same place: a new node, or somebody in between.
    let address = origin.address();
    origin.kill();
    let other = place.origin("two", Some(address));
    let shown = shown_key(&other);
    let refused = place.fetch(&hops, &[]);
    check(&refused, 11, &[&shown, &key, "known since", &format!("known forget '{way}'")]);
    assert!(!place.has_file());
    // A pin says which one it is, whatever is known; and which one it is not.
    check(&place.fetch(&hops, &["--pin", &shown]), 0, &[&format!("encrypted to {shown}, pinned")]);
    check(&place.fetch(&hops, &["--pin", &key]), 11, &[&shown, "is pinned"]);
    check(&place.fetch(&hops, &["--pin", &key, "--pin", &shown]), 0, &["pinned"]);
    check(&place.fetch(&hops, &["--pin", &key, "--plain"]), 2, &["--plain"]);

    let forgot = place.client(&["known", "forget", &way]);
    assert!(forgot.stdout_text().contains(&key), "{}", forgot.stdout_text());
    check(&place.client(&["known", "forget", &way]), 2, &["nobody is known"]);
    check(&place.fetch(&hops, &["--json"]), 0, &[]);
    check(&place.fetch(&hops, &[]), 0, &[&format!("encrypted to {shown}, known since")]);
    // List and trace are told the same.
    let list = place.client(&["list", "--via", &hops[0], "--via", &hops[1]]);
    assert!(list.stdout_text().contains("secret-name"), "{}", list.stderr);
    let trace = place.client(&["trace", "--via", &hops[0], "--via", &hops[1]]);
    assert!(trace.stdout_text().contains(&format!("encrypted to {shown}")), "{}", trace.stdout_text());
}

#[test]
fn a_node_that_insists_is_told_of_plain_requests() {
    let place = Place::new();
    fs::write(place.world.served().join("secret-name"), b"content").unwrap();
    let origin = Node::start_with(&place.world.served(), &["--require-encryption"]);
    check(&place.fetch(&[origin.hop()], &["--plain"]), 9, &["403", "--plain"]);
    check(&place.fetch(&[origin.hop()], &[]), 0, &["encrypted"]);
}

/// Somebody in between: passes bytes on in both directions, writes them down, and changes one of those that come back.
struct Between {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Between {
    fn and(next: SocketAddr, changes: Option<usize>) -> Between {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        let all = Arc::clone(&seen);
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(next) else { return };
                let ends =
                    |a: &TcpStream, b: &TcpStream| (a.try_clone().expect("a"), b.try_clone().expect("b"));
                let (up, down) = (ends(&near, &far), ends(&far, &near));
                let (all_up, all_down) = (Arc::clone(&all), Arc::clone(&all));
                thread::spawn(move || pass(up.0, up.1, &all_up, None));
                thread::spawn(move || pass(down.0, down.1, &all_down, changes));
            }
        });
        Between { address, seen }
    }

    fn hop(&self) -> String {
        self.address.to_string()
    }

    fn has_seen(&self, part: &[u8]) -> bool {
        self.seen.lock().expect("no panic").windows(part.len()).any(|window| window == part)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, seen: &Mutex<Vec<u8>>, changes: Option<usize>) {
    let (mut count, mut buffer) = (0, vec![0; 65_536]);
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        seen.lock().expect("no panic").extend_from_slice(&buffer[..read]);
        if let Some(byte) =
            changes.and_then(|at| at.checked_sub(count)).and_then(|at| buffer[..read].get_mut(at))
        {
            *byte ^= 1;
        }
        count += read;
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[test]
fn no_link_carries_a_name_or_content_that_can_be_read() {
    let place = Place::new();
    let content = b"a sentence that nobody on the way may read".repeat(5000);
    fs::write(place.world.served().join("secret-name"), &content).unwrap();
    let origin = place.origin("origin", None);
    let behind = Between::and(origin.address(), None);
    let relay = place.origin("relay", None);
    let before = Between::and(relay.address(), None);
    let hops = [before.hop(), behind.hop()];
    let secret =
        |between: &Between| between.has_seen(b"nobody on the way") || between.has_seen(b"secret-name");
    // In the clear both see it, so that the test would see it, too.
    check(&place.fetch(&hops, &["--plain"]), 0, &[]);
    assert!(secret(&before) && secret(&behind));
    for between in [&before, &behind] {
        between.seen.lock().unwrap().clear();
    }
    check(&place.fetch(&hops, &[]), 0, &["encrypted to"]);
    assert_eq!(fs::read(place.world.saved().join("secret-name")).unwrap(), content);
    let list = place.client(&["list", "--via", &hops[0], "--via", &hops[1]]);
    assert!(list.stdout_text().contains("secret-name"), "{}", list.stderr);
    // What fails says no more: a name that is not there, a key that is another.
    let missing =
        place.client(&["--get", "secret-name-that-is-missing", "--via", &hops[0], "--via", &hops[1]]);
    check(&missing, 5, &[]);
    check(&place.fetch(&hops, &["--pin", &shown_key(&relay)]), 11, &[]);
    for between in [&before, &behind] {
        assert!(between.seen.lock().unwrap().len() > 2 * content.len() / 3);
        assert!(!secret(between), "it could be read on the way");
    }
}

#[test]
fn a_byte_that_a_relay_changes_is_a_break_and_never_a_wrong_file() {
    let place = Place::new();
    fs::write(place.world.served().join("secret-name"), vec![7; 300_000]).unwrap();
    let origin = place.origin("origin", None);
    // In the middle of the handshake's proof, and within the file.
    for changed in [700, 150_000] {
        let between = Between::and(origin.address(), Some(changed));
        let finished = place.fetch(&[between.hop()], &[]);
        assert!(
            matches!(finished.code, Some(3 | 7 | 9 | 11)),
            "{changed}: {:?} {}",
            finished.code,
            finished.stderr
        );
        assert!(!place.has_file(), "{changed}");
    }
}

/// A relay that plays the origin: it says `hello` for it, and then this.
fn impostor(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            stream.set_read_timeout(Some(LIMIT)).expect("a limit");
            let _ = stream.read(&mut [0; 65_536]);
            let hello = relay_proto::hop::Hello { agent: "relay-node/0.1.0".into() };
            let mut said = relay_proto::frame::encode(&hello).expect("a frame");
            said.extend_from_slice(answer);
            let _ = stream.write_all(&said);
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    address
}

#[test]
fn encryption_that_is_stripped_is_refused_whether_a_key_is_known_or_not() {
    let place = Place::new();
    fs::write(place.world.served().join("secret-name"), b"content").unwrap();
    let head = relay_proto::file::Head::only(relay_proto::code::Status::OK, "");
    let plain: &'static [u8] = relay_proto::frame::encode(&head).unwrap().leak();
    let stripped = impostor(plain).to_string();
    check(&place.fetch(std::slice::from_ref(&stripped), &[]), 11, &["without encryption"]);
    let key = shown_key(&place.origin("origin", None));
    check(&place.fetch(&[stripped], &["--pin", &key]), 11, &["without encryption", &key, "is pinned"]);
    // One that cuts in the middle has broken the chain, and is nobody's proof.
    let cut = impostor(b"\x16\x03\x03\x40").to_string();
    check(&place.fetch(&[cut], &[]), 3, &["was to prove its key"]);
    assert!(!place.has_file());
}

#[test]
fn nobody_is_met_for_the_first_time_beside_a_route_whose_end_is_known() {
    let place = Place::new();
    fs::write(place.world.served().join("secret-name"), b"content").unwrap();
    let (known, stranger) = (place.origin("one", None), place.origin("two", None));
    check(&place.fetch(&[known.hop()], &[]), 0, &["first contact"]);
    let route = |first: &Node, second: &Node| {
        let text = format!("secret-name\n{}\nor\nsecret-name\n{}\n", first.hop(), second.hop());
        fs::write(place.world.saved().join("routes"), text).unwrap();
    };
    // Even when the stranger is asked first, and when the known one is cut.
    route(&stranger, &known);
    let _ = fs::remove_file(place.world.saved().join("secret-name"));
    let fetched = place.client(&["routes", "--retries", "0"]);
    check(&fetched, 0, &["known since"]);
    assert!(!fetched.stderr.contains("first contact"), "{}", fetched.stderr);
    known.kill();
    let _ = fs::remove_file(place.world.saved().join("secret-name"));
    let fetched = place.client(&["routes", "--retries", "0"]);
    assert_ne!(fetched.code, Some(0), "{}", fetched.stderr);
    assert!(!place.has_file() && !fetched.stderr.contains("first contact"), "{}", fetched.stderr);
}
