//! The line that SIGUSR1 brings into the log.

use relay_chain::chain::{Walk, random_id, walk};
use relay_link::congestion::Congestion;
use relay_proto::address::Hop;
use relay_proto::route::Route;
use relay_testkit::LIMIT;
use relay_testkit::node::Node;
use relay_testkit::process::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::time::Instant;

/// The newest status line's `field`, asked for once more.
fn ask(node: &Node, field: &str) -> u64 {
    let lines = |text: &str| text.lines().filter(|line| line.contains(" status: ")).count();
    let before = lines(&node.process().text());
    node.process().signal(Signal::User1);
    node.process().wait_for("further status line", |text| {
        let whole = &text[..text.rfind('\n')?];
        let line = whole.lines().filter(|line| line.contains(" status: ")).nth(before)?;
        line.split_whitespace().find_map(|word| word.strip_prefix(field)?.strip_prefix('=')?.parse().ok())
    })
}

/// Asks until the answer is the expected one: a node learns of a connection's begin and end a moment later.
fn expect(node: &Node, field: &str, expected: u64) {
    expect_within(node, field, expected..=expected);
}

fn expect_within(node: &Node, field: &str, expected: RangeInclusive<u64>) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let told = ask(node, field);
        if expected.contains(&told) {
            return;
        }
        assert!(Instant::now() < deadline, "{field}={told}, and {expected:?} was expected");
    }
}

/// At least what a node has when nobody is connected; the task of the connection that this makes may still be ending, for
/// what it counted is taken back before that. It has all of its own only once it has taken its first connection.
fn tasks_at_rest(node: &Node) -> u64 {
    let mut caller = TcpStream::connect(node.address()).unwrap();
    caller.write_all(b"GET /file HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    caller.read_to_end(&mut Vec::new()).unwrap();
    expect(node, "connections", 0);
    ask(node, "tasks")
}

#[tokio::test]
async fn connections_are_told_by_what_the_node_is_to_them() {
    let root = tempfile::tempdir().unwrap();
    let (relay, origin) = (Node::start(root.path()), Node::start(root.path()));
    let tasks = [&relay, &origin].map(tasks_at_rest);
    let hops = [&relay, &origin].map(|node| Hop::new("127.0.0.1", node.address().port()).unwrap());
    let route = Route::new("file", hops.into(), None).unwrap();
    let way = Walk {
        route: &route,
        id: random_id().unwrap(),
        silence: LIMIT,
        first_requests: &[],
        encryption: None,
        congestion: Congestion::SYSTEM,
    };
    let pipe = walk(&way, |_| {}).await.unwrap();
    expect(&relay, "relay", 1);
    expect(&origin, "origin", 1);
    expect(&origin, "connections", 1);
    let mut browser = TcpStream::connect(origin.address()).unwrap();
    browser.write_all(b"GET / HT").unwrap();
    expect(&origin, "http", 1);
    expect(&origin, "connections", 2);
    assert!(ask(&origin, "tasks") > tasks[1]);
    drop((pipe, browser));
    for (node, tasks) in [&relay, &origin].into_iter().zip(tasks) {
        for field in ["relay", "origin", "http", "connections"] {
            expect(node, field, 0);
        }
        expect_within(node, "tasks", 0..=tasks);
    }
}
