//! Access rules at a real node: who gets which file, who is relayed where, and what a change of the rules changes.

use relay_chain::chain::{Encryption, PipeError, Walk, random_id, walk};
use relay_chain::frames::encode;
use relay_chain::requests::Answers;
use relay_link::congestion::Congestion;
use relay_link::link::Link;
use relay_proto::address::Hop;
use relay_proto::code::{FailureCode, Status};
use relay_proto::file::{Head, List, RequestedName, Stat};
use relay_proto::frame::Message;
use relay_proto::route::Route;
use relay_testkit::LIMIT;
use relay_testkit::node::Node;
#[cfg(unix)]
use relay_testkit::process::Signal;
use relay_trust::key::SecretKey;
use relay_trust::tls::{self, Expected, Use};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

/// A node with rules for anna and for anyone, and the files that they are about.
struct World {
    directory: tempfile::TempDir,
    node: Node,
    anna: SecretKey,
}

fn rules(anna: &SecretKey, more: &str) -> String {
    format!(
        "[[who]]\nname = \"anna\"\nkey = \"{}\"\nread = [\"photos/\"]\n\
        [[who]]\nname = \"everybody\"\nanyone = true\nread = [\"public/\"]\n{more}",
        anna.public()
    )
}

impl World {
    fn new(more: &str) -> World {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        for file in ["photos/1.jpg", "public/a", "secret"] {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"content").unwrap();
        }
        #[cfg(unix)]
        for (link, target) in
            [("public/to-secret", "../secret"), ("public/to-a", "a"), ("to-public", "public")]
        {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
        }
        let anna = SecretKey::generate().unwrap();
        let file = directory.path().join("access.toml");
        std::fs::write(&file, rules(&anna, more)).unwrap();
        let node = Node::start_with(&root, &["--access", file.to_str().unwrap()]);
        World { directory, node, anna }
    }

    /// The status that somebody with this key gets for a request; without TLS when `is_plain`.
    async fn ask<M: Message>(&self, who: Option<&SecretKey>, is_plain: bool, request: &M) -> Status {
        let config = (!is_plain).then(|| tls::client(Use::Pipe, who, Expected::Any).unwrap());
        let encryption = config.as_ref().map(|config| Encryption { config, believes: &|_| true });
        let first = encode(request).unwrap();
        let head = heads(&[&self.node], &first, encryption).await.unwrap();
        assert_eq!(head.file.is_some(), head.status == Status::OK && M::TYPE == Stat::TYPE, "{head:?}");
        head.status
    }

    async fn stat(&self, who: Option<&SecretKey>, name: &str) -> Status {
        self.ask(who, false, &Stat { name: RequestedName::try_from(name).unwrap() }).await
    }

    async fn list(&self, who: Option<&SecretKey>, prefix: &str) -> Status {
        let prefix = RequestedName::try_from(prefix).unwrap();
        self.ask(who, false, &List { prefix, after: None, recursive: true }).await
    }

    #[cfg(unix)]
    fn tell_to_reload(&self) {
        self.node.process().signal(Signal::Hangup);
    }
}

async fn heads(nodes: &[&Node], first: &[u8], encryption: Option<Encryption<'_>>) -> Result<Head, PipeError> {
    let hops = nodes.iter().map(|node| Hop::new("127.0.0.1", node.address().port()).unwrap()).collect();
    let (route, id) = (Route::new("file", hops, None).unwrap(), random_id().unwrap());
    let (silence, congestion) = (LIMIT, Congestion::SYSTEM);
    let way = Walk { route: &route, id, silence, first_requests: first, encryption, congestion };
    let pipe = walk(&way, |_| {}).await?;
    let mut answers: Answers<Link> = Answers::new(pipe.link, silence);
    Ok(answers.head().await.unwrap())
}

#[tokio::test]
async fn each_gets_what_the_rules_say_and_nothing_tells_what_else_there_is() {
    let world = World::new("");
    let (anna, stranger) = (Some(&world.anna), SecretKey::generate().unwrap());
    assert_eq!(world.stat(anna, "photos/1.jpg").await, Status::OK);
    assert_eq!(world.stat(anna, "public/a").await, Status::OK);
    // What she may not have is to her as what is not there.
    for name in ["secret", "no-secret", "photos/2.jpg", "public/b"] {
        assert_eq!(world.stat(anna, name).await, Status::NOT_FOUND, "{name}");
    }
    for who in [None, Some(&stranger)] {
        assert_eq!(world.stat(who, "public/a").await, Status::OK);
        assert_eq!(world.stat(who, "public/b").await, Status::NOT_FOUND);
        for name in ["photos/1.jpg", "photos/2.jpg", "secret", "no-secret"] {
            assert_eq!(world.stat(who, name).await, Status::UNAUTHORIZED, "{name}");
        }
    }
    // A plain pipe is anyone.
    let plain = |name| Stat { name: RequestedName::try_from(name).unwrap() };
    assert_eq!(world.ask(anna, true, &plain("public/a")).await, Status::OK);
    assert_eq!(world.ask(anna, true, &plain("photos/1.jpg")).await, Status::UNAUTHORIZED);
    // Listings are for those who may read all that could be in them.
    assert_eq!(world.list(anna, "photos/").await, Status::OK);
    assert_eq!(world.list(anna, "").await, Status::NOT_FOUND);
    assert_eq!(world.list(None, "public/").await, Status::OK);
    for prefix in ["", "photos/", "p"] {
        assert_eq!(world.list(None, prefix).await, Status::UNAUTHORIZED, "{prefix}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_rule_holds_for_the_name_that_was_asked_and_for_the_one_that_is_reached() {
    let world = World::new("");
    assert_eq!(world.stat(None, "public/to-a").await, Status::OK);
    assert_eq!(world.stat(None, "public/to-secret").await, Status::UNAUTHORIZED);
    assert_eq!(world.stat(None, "to-public/a").await, Status::UNAUTHORIZED);
    assert_eq!(world.stat(Some(&world.anna), "public/to-secret").await, Status::NOT_FOUND);
}

#[cfg(unix)]
#[tokio::test]
async fn rules_are_read_again_whole_or_not_at_all() {
    let world = World::new("");
    let file = world.directory.path().join("access.toml");
    std::fs::write(&file, "[[who]]\nname = 1\n").unwrap();
    world.tell_to_reload();
    let line = world.node.wait_for_log("the access rules before stay in force");
    assert!(line.contains("access.toml:2:8: "), "{line}");
    assert_eq!(world.stat(Some(&world.anna), "photos/1.jpg").await, Status::OK);
    std::fs::write(&file, "[[who]]\nname = \"everybody\"\nanyone = true\nread = [\"secret\"]\n").unwrap();
    world.tell_to_reload();
    world.node.wait_for_log("the access rules were read again");
    assert_eq!(world.stat(Some(&world.anna), "photos/1.jpg").await, Status::UNAUTHORIZED);
    assert_eq!(world.stat(None, "secret").await, Status::OK);
}

#[tokio::test]
async fn relaying_goes_where_the_rules_say_and_nowhere_else() {
    let directory = tempfile::tempdir().unwrap();
    let (origin, other) = (Node::start(directory.path()), Node::start(directory.path()));
    let world = World::new(&format!("relay = [\"127.0.0.1:{}\"]\n", origin.address().port()));
    let stat = encode(&Stat { name: RequestedName::try_from("nothing").unwrap() }).unwrap();
    let head = heads(&[&world.node, &origin], &stat, None).await.unwrap();
    assert_eq!(head.status, Status::NOT_FOUND, "the origin's own answer");
    let denied = heads(&[&world.node, &other], &stat, None).await.unwrap_err();
    assert!(format!("{denied:?}").contains(&format!("{:?}", FailureCode::Unauthorized)), "{denied:?}");
}

#[test]
fn over_http_nobody_can_say_who_he_is_so_nobody_is_served() {
    let world = World::new("");
    for name in ["public/a", "secret", "nothing", ""] {
        let mut stream = TcpStream::connect(world.node.address()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(stream, "GET /{name} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{name}: {answer}");
        assert!(!answer.contains("content\n") && answer.contains("relay-client"), "{answer}");
    }
}

fn refuses(arguments: &[&str], file: &Path) -> String {
    let mut command = Command::new(relay_testkit::programs::program("relay-node"));
    let output = command.args(["0", "--access"]).arg(file).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_node_does_not_start_with_rules_that_are_wrong_or_that_would_not_hold() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.toml");
    let text = refuses(&[], &file);
    assert!(text.contains("cannot read the access rules in"), "{text}");
    std::fs::write(&file, "[[who]]\nname = 1\nreed = []\n").unwrap();
    let text = refuses(&[], &file);
    assert!(text.contains("access.toml:2:8: ") && text.contains("access.toml:3:1: "), "{text}");
    std::fs::write(&file, "").unwrap();
    assert!(refuses(&["--allow-next", "*"], &file).contains("allow-next has nothing to say"));
    assert!(refuses(&["--upstream", "http://127.0.0.1:1"], &file).contains("do not hold for a proxy"));
}
