//! The real program's start: what it needs, and what it refuses to begin with.

use super::raw_http::get;
use relay_testkit::node::Node;
use relay_testkit::process::{Finished, Process};
use relay_testkit::programs::program;
use std::process::Command;

fn refused(arguments: &[&str]) -> Finished {
    let mut command = Command::new(program("relay-node"));
    command.args(["--listen", "127.0.0.1:0", "--root", env!("CARGO_MANIFEST_DIR")]).args(arguments);
    Process::start(command).finish()
}

#[test]
fn a_congestion_control_that_cannot_be_had() {
    let finished = refused(&["--congestion", "nosuch"]);
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    assert!(finished.stderr.contains("the congestion control nosuch cannot be had"), "{}", finished.stderr);
}

#[test]
fn files_are_needed_only_where_they_are_named() {
    let place = tempfile::TempDir::new().unwrap();
    let command = || {
        let mut command = Command::new(program("relay-node"));
        command.args(["--listen", "127.0.0.1:0"]).current_dir(place.path()).env_remove("RELAY_NODE_ROOT");
        command
    };
    let node = Node::from_process(Process::start(command()));
    node.process().wait_for_line("serving no files: there is no directory www here");
    assert_eq!(get(node.address(), "/a", &[]).status, 404);
    let listing = get(node.address(), "/?format=json", &[]);
    assert_eq!(
        (listing.status, listing.text().contains("\"entries\":[]")),
        (200, true),
        "{}",
        listing.text()
    );
    let mut named = command();
    named.args(["--root", "www"]);
    let refused = Process::start(named).finish();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("the document root cannot be read: www"), "{}", refused.stderr);
    std::fs::create_dir(place.path().join("www")).unwrap();
    std::fs::write(place.path().join("www/a"), "hello").unwrap();
    let node = Node::from_process(Process::start(command()));
    assert_eq!(get(node.address(), "/a", &[]).text(), "hello");
}
