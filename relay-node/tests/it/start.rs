//! The real program's start: what it refuses to begin with.

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
