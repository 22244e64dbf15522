//! What was verified is never fetched twice, by the next attempt or by the next run, through whatever route.

use crate::world::{MIB, World, hops, some_chunks};
use relay_testkit::files::write_sample;
use relay_testkit::process::{Finished, Signal};
use relay_testkit::proxy::{Fault, FaultProxy, Plan};
use serde_json::Value;
use std::fs;

/// How many bytes of the file this run fetched, as its last event says.
fn fetched(finished: &Finished) -> u64 {
    let text = finished.stdout_text();
    let last = text.lines().last().expect("an event");
    let done: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(done["event"], "done", "{text}");
    done["fetched"].as_u64().expect("a number")
}

#[test]
fn a_broken_chain_is_tried_again_from_where_it_broke() {
    let world = World::new();
    let len = some_chunks(6);
    let bytes = world.offer("myfile", len);
    let nodes = world.chain(1);
    for (fault, at) in [(Fault::Reset, 3_500_000), (Fault::Cut, 2_000_000), (Fault::FlipBit(0), 4_500_000)] {
        let proxy = FaultProxy::start_with(nodes[0].address(), move |n| {
            if n == 0 { Plan::down(at, fault) } else { Plan::pass() }
        });
        let finished = world.client(&[
            "--get",
            "myfile",
            "--via",
            &proxy.hop(),
            "--via",
            &nodes[1].hop(),
            "--json",
            "--retries",
            "3",
        ]);
        world.check_saved(&finished, "myfile", &bytes);
        // Never more than the chunk that was under way is fetched twice, and the count is of the file's own bytes.
        assert!(fetched(&finished) <= len as u64 + MIB as u64, "{fault:?}: {} fetched", fetched(&finished));
        let total: u64 = proxy.seen().iter().map(|one| one.down).sum();
        assert!(total < (len + 3 * MIB) as u64, "{fault:?}: {total} bytes travelled for {len}");
        world.clear_saved();
    }
}

/// The first run is interrupted in the middle; the second goes on, by another route.
#[cfg(unix)]
#[test]
fn the_next_run_goes_on_by_another_route() {
    let world = World::new();
    let len = some_chunks(10);
    let bytes = world.offer("myfile", len);
    let nodes = world.chain(2);
    let at = 7 * MIB as u64 + MIB as u64 / 2;
    for signal in [Signal::Interrupt, Signal::Terminate] {
        let proxy = FaultProxy::start(nodes[0].address(), Plan::down(at, Fault::Stall));
        let client = world.start_fetch("myfile", &[proxy.hop(), nodes[2].hop()], &["--timeout", "60"]);
        proxy.wait_for_stall();
        client.signal(signal);
        assert_eq!(client.finish().code, Some(130));
        let other = [nodes[1].hop(), nodes[0].hop(), nodes[2].hop()];
        let finished = world.fetch("myfile", &other, &["--json"]);
        world.check_saved(&finished, "myfile", &bytes);
        // Six chunks had surely been read by the client when it was interrupted, but for what was still in its socket.
        assert!(fetched(&finished) < len as u64, "{} of {len} fetched again", fetched(&finished));
        world.clear_saved();
    }
}

#[cfg(unix)]
#[test]
fn another_version_at_the_origin_never_mixes_with_the_old_one() {
    let world = World::new();
    world.offer("myfile", some_chunks(8));
    let nodes = world.chain(1);
    let proxy = FaultProxy::start(nodes[0].address(), Plan::down(5_000_000, Fault::Stall));
    let client = world.start_fetch("myfile", &[proxy.hop(), nodes[1].hop()], &["--timeout", "60"]);
    proxy.wait_for_stall();
    client.signal(Signal::Interrupt);
    assert_eq!(client.finish().code, Some(130));
    // Another file of the same length under the same name.
    fs::remove_file(world.served().join("myfile")).expect("removed");
    let bytes = write_sample(&world.served().join("myfile"), "another version", some_chunks(8));
    let finished = world.fetch("myfile", &hops(&nodes), &["--json"]);
    world.check_saved(&finished, "myfile", &bytes);
}

/// Whatever stands in `.part` and its journal, the file that appears is the right one.
#[cfg(unix)]
#[test]
fn a_part_that_was_tampered_with_is_found_out() {
    let world = World::new();
    let len = some_chunks(8);
    let bytes = world.offer("myfile", len);
    let nodes = world.chain(1);
    for tamper in
        ["flip a byte", "shorten", "lengthen", "empty the journal", "garble the journal", "lose the part"]
    {
        let proxy = FaultProxy::start(nodes[0].address(), Plan::down(6_000_000, Fault::Stall));
        let client = world.start_fetch("myfile", &[proxy.hop(), nodes[1].hop()], &["--timeout", "60"]);
        proxy.wait_for_stall();
        client.signal(Signal::Interrupt);
        assert_eq!(client.finish().code, Some(130));
        let (part, journal) = (world.saved().join("myfile.part"), world.saved().join("myfile.part.journal"));
        let mut content = fs::read(&part).expect("the part");
        match tamper {
            "flip a byte" => {
                content[1000] ^= 1;
                fs::write(&part, content).expect("written");
            }
            "shorten" => fs::write(&part, &content[..MIB / 2]).expect("written"),
            "lengthen" => fs::write(&part, [content, vec![1; 20 * MIB]].concat()).expect("written"),
            "empty the journal" => fs::write(&journal, "").expect("written"),
            "garble the journal" => {
                let mut journalled = fs::read(&journal).expect("the journal");
                let at = journalled.len() - 20;
                journalled[at] ^= 0x40;
                fs::write(&journal, journalled).expect("written");
            }
            _ => fs::remove_file(&part).expect("removed"),
        }
        let finished = world.fetch("myfile", &hops(&nodes), &[]);
        world.check_saved(&finished, "myfile", &bytes);
        world.clear_saved();
    }
}

#[cfg(unix)]
#[test]
fn a_second_client_for_the_same_target_stops() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(8));
    let nodes = world.chain(1);
    let proxy = FaultProxy::start(nodes[0].address(), Plan::down(3_000_000, Fault::Stall));
    let first = world.start_fetch("myfile", &[proxy.hop(), nodes[1].hop()], &["--timeout", "60"]);
    proxy.wait_for_stall();
    let second = world.fetch("myfile", &hops(&nodes), &[]);
    world.check_failed(&second, "myfile", 8, &["another client is writing"]);
    proxy.resume();
    world.check_saved(&first.finish(), "myfile", &bytes);
}

/// What will not change is not tried again, however many retries there are.
#[test]
fn a_refusal_is_not_tried_again() {
    let world = World::new();
    let nodes = world.chain(1);
    let denying = world.relay_with(&["--allow-next", "10.0.0.0/8"]);
    let retries = ["--retries", "1000"];
    let fetch = |file: &str, hops: &[String]| {
        let mut arguments = vec!["--get", file];
        for hop in hops {
            arguments.extend(["--via", hop]);
        }
        arguments.extend(retries);
        world.client(&arguments)
    };
    world.check_failed(&fetch("missing", &hops(&nodes)), "missing", 5, &["404"]);
    world.check_failed(&fetch("f", &[denying.hop(), nodes[1].hop()]), "f", 4, &["relaying denied"]);
}
