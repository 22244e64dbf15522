//! TLS inside a pipe, as the origin sees it: with it, without it, and with everything that is none.

use relay_chain::chain::{Encryption, KeyMismatch, PipeError, Walk, random_id, walk};
use relay_chain::frames::encode;
use relay_chain::requests::Answers;
use relay_link::congestion::Congestion;
use relay_link::link::Link;
use relay_proto::address::Hop;
use relay_proto::code::Status;
use relay_proto::file::{Head, RequestedName, Stat};
use relay_proto::hop::{ClientLimits, Open};
use relay_proto::route::Route;
use relay_testkit::LIMIT;
use relay_testkit::node::Node;
use relay_trust::key::{PublicKey, SecretKey};
use relay_trust::tls::{self, Expected, Use};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

/// A relay and an origin with keys of their own, and the origin's.
struct World {
    directory: tempfile::TempDir,
    relay: Node,
    origin: Node,
    key: PublicKey,
}

impl World {
    fn new(arguments: &[&str]) -> World {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), b"content").unwrap();
        let key_file = directory.path().join("keys/origin.key");
        let mut all = vec!["--key", key_file.to_str().unwrap()];
        all.extend(arguments);
        let origin = Node::start_with(directory.path(), &all);
        let key = printed_key(&key_file);
        World { relay: Node::start(directory.path()), origin, key, directory }
    }

    fn route(&self) -> Route {
        let hops =
            [&self.relay, &self.origin].map(|node| Hop::new("127.0.0.1", node.address().port()).unwrap());
        Route::new("file", hops.into(), None).unwrap()
    }

    /// Asks for the file's facts, encrypted or in the clear.
    async fn ask(&self, expected: Option<Expected>) -> Result<(Head, Option<PublicKey>), PipeError> {
        let config = expected.map(|expected| tls::client(Use::Pipe, None, expected).unwrap());
        let encryption = config.as_ref().map(|config| Encryption { config, believes: &|_| true });
        let stat = encode(&Stat { name: RequestedName::try_from("file").unwrap() }).unwrap();
        let (route, id) = (self.route(), random_id().unwrap());
        let (silence, congestion) = (LIMIT, Congestion::SYSTEM);
        let way = Walk { route: &route, id, silence, first_requests: &stat, encryption, congestion };
        let pipe = walk(&way, |_| {}).await?;
        let mut answers: Answers<Link> = Answers::new(pipe.link, silence);
        Ok((answers.head().await.unwrap(), pipe.key))
    }
}

/// What `relay-node key` prints.
fn printed_key(file: &std::path::Path) -> PublicKey {
    let mut command = Command::new(relay_testkit::programs::program("relay-node"));
    let output = command.arg("key").arg("--key").arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().parse().unwrap()
}

#[tokio::test]
async fn an_origin_proves_its_key_and_answers_encrypted_or_not() {
    let world = World::new(&[]);
    let (head, key) = world.ask(Some(Expected::OneOf(vec![world.key]))).await.unwrap();
    assert_eq!((head.status, key), (Status::OK, Some(world.key)));
    assert_eq!(head.file.unwrap().size.bytes(), 7);
    let (head, key) = world.ask(None).await.unwrap();
    assert_eq!((head.status, key), (Status::OK, None));
    let other = SecretKey::generate().unwrap().public();
    let error = world.ask(Some(Expected::OneOf(vec![other]))).await.unwrap_err();
    assert_eq!(error, KeyMismatch::Other(world.key).into());
    assert!(world.origin.wait_for_log("listening on").contains("listening on"));
    world.origin.wait_for_log(&format!("key {}", world.key));
    assert!(world.directory.path().join("keys/origin.key").exists());
}

#[tokio::test]
async fn a_node_may_insist_on_encryption() {
    let world = World::new(&["--require-encryption"]);
    let (head, _) = world.ask(Some(Expected::Any)).await.unwrap();
    assert_eq!(head.status, Status::OK);
    let (head, _) = world.ask(None).await.unwrap();
    assert_eq!(head.status, Status::FORBIDDEN);
    assert!(head.file.is_none() && head.message.contains("--plain"), "{head:?}");
}

/// What the origin answers behind its `hello` to these bytes, given so many at a time, until it closes.
fn answer_to(origin: &Node, bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect(origin.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    let open = Open { hops: Vec::new(), id: random_id().unwrap(), limits: ClientLimits::new(LIMIT) };
    stream.write_all(&encode(&open).unwrap()).unwrap();
    for piece in bytes.chunks(piece) {
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    // A reset is as good an end as any.
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn client_hello() -> Vec<u8> {
    let config = tls::client(Use::Pipe, None, Expected::Any).unwrap();
    let mut session = rustls::ClientConnection::new(config, tls::no_name()).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    hello
}

/// The first record behind the `hello` frame that is TLS: its type and its version.
fn first_record(answer: &[u8]) -> Option<(u8, &[u8])> {
    let at = answer.windows(3).position(|three| matches!(three, [0x15 | 0x16, 3, 3]))?;
    Some((answer[at], &answer[at..]))
}

#[test]
fn handshakes_that_are_none_or_come_to_no_end() {
    let world = World::new(&["--request-timeout", "1s"]);
    let hello = client_hello();
    // In single bytes it is a handshake like any other; nobody goes on with it, which ends within the request limit.
    let answer = answer_to(&world.origin, &hello, 1);
    assert!(matches!(first_record(&answer), Some((0x16, _))), "{answer:?}");
    world.origin.wait_for_log("the handshake took longer than 1 s");
    // Cut within, and nothing follows.
    let answer = answer_to(&world.origin, &hello[..hello.len() / 2], hello.len());
    assert!(first_record(&answer).is_none(), "{answer:?}");
    // A record that says it is longer than any, and a handshake message that says so: the end, with an alert or without.
    for oversized in [&[0x16, 3, 1, 0xff, 0xff][..], &[0x16, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff]] {
        let answer = answer_to(&world.origin, oversized, oversized.len());
        assert!(!matches!(first_record(&answer), Some((0x16, _))), "{answer:?}");
    }
    world.origin.wait_for_log("MessageTooLarge");
    // The extension that offers TLS 1.3 (RFC 8446, section 4.2.1) by another number: what is left is TLS 1.2.
    let at = hello.windows(5).position(|five| five == [0, 43, 0, 3, 2]).unwrap();
    let mut old = hello.clone();
    old[at + 1] = 99;
    let answer = answer_to(&world.origin, &old, old.len());
    assert!(!matches!(first_record(&answer), Some((0x16, _))), "{answer:?}");
    world.origin.wait_for_log("SupportedVersionsExtensionRequired");
}

#[test]
fn a_key_file_that_others_may_read_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("node.key");
    let key = printed_key(&file);
    assert_eq!(printed_key(&file), key, "it is kept");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let mut command = Command::new(relay_testkit::programs::program("relay-node"));
        let output = command.args(["0", "--key"]).arg(&file).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("chmod 600") && text.contains("--key"), "{text}");
    }
}
