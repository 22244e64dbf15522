//! Programs can follow what happens: events as JSON, one a line, and exit codes.

use crate::world::{World, hops, some_chunks};
use relay_testkit::process::Finished;
use serde_json::Value;

fn events(finished: &Finished) -> Vec<Value> {
    let text = finished.stdout_text();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

#[test]
fn a_fetch_as_events() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(2));
    let nodes = world.chain(2);
    let finished = world.fetch("myfile", &hops(&nodes), &["--json"]);
    world.check_saved(&finished, "myfile", &bytes);
    let events = events(&finished);
    let order: Vec<&str> =
        events.iter().filter_map(|e| e["event"].as_str()).filter(|name| *name != "progress").collect();
    assert_eq!(order, ["dialling", "connected", "hello", "hello", "hello", "file", "done"]);
    for (n, hello) in named(&events, "hello").into_iter().enumerate() {
        assert_eq!((&hello["position"], &hello["hop"]), (&Value::from(n + 1), &Value::from(nodes[n].hop())));
        assert!(hello["agent"].as_str().is_some_and(|agent| agent.starts_with("relay-node/")), "{hello}");
        assert!(hello["ms"].is_number(), "{hello}");
    }
    let done = named(&events, "done")[0];
    let hash = relay_testkit::files::b3_of_file(&world.served().join("myfile"));
    assert_eq!(
        (&done["size"], &done["hash"]),
        (&Value::from(bytes.len()), &Value::from(format!("b3:{hash}")))
    );
}

/// The id of the connection is the same in every node's log.
#[test]
fn one_id_on_every_node() {
    let world = World::new();
    world.offer("myfile", 1000);
    let nodes = world.chain(3);
    let finished = world.fetch("myfile", &hops(&nodes), &["--json"]);
    let events = events(&finished);
    let id = named(&events, "dialling")[0]["id"].as_str().expect("an id");
    assert_eq!(id.len(), 16);
    for (n, node) in nodes.iter().enumerate() {
        let line = node.wait_for_log(id);
        let role = if n < 3 { "relay" } else { "origin" };
        assert!(line.contains(role), "hop {}: {line}", n + 1);
        let target = nodes.get(n + 1).map_or("myfile".into(), relay_testkit::node::Node::hop);
        assert!(line.contains(&target), "hop {}: {line}", n + 1);
    }
}

#[test]
fn a_failure_as_an_event_has_the_exit_code() {
    let world = World::new();
    let nodes = world.chain(1);
    let denying = world.relay_with(&["--allow-next", "10.0.0.0/8"]);
    for (file, route, kind, position) in [
        ("missing", hops(&nodes), "not_found", 2),
        ("f", vec![denying.hop(), nodes[1].hop()], "denied", 2),
        ("f", vec![nodes[0].hop(), "127.0.0.1:1".to_owned()], "unreachable", 2),
    ] {
        let finished = world.fetch(file, &route, &["--json"]);
        let events = events(&finished);
        let failed = events.last().expect("an event");
        assert_eq!((&failed["event"], &failed["kind"]), (&Value::from("failed"), &Value::from(kind)));
        assert_eq!(failed["exit"].as_i64().map(|code| i32::try_from(code).expect("small")), finished.code);
        assert_eq!(failed["position"], position, "{failed}");
    }
}

#[test]
fn trace_shows_each_hop_and_where_it_ends() {
    let world = World::new();
    let nodes = world.chain(2);
    let route = world.route("myfile", &hops(&nodes));
    let finished = world.client(&["trace", route.to_str().expect("UTF-8")]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let text = finished.stdout_text() + &finished.stderr;
    for node in &nodes {
        assert!(text.contains(&node.hop()), "{text}");
    }
    assert!(text.contains("relay-node/"), "{text}");
    let route = world.route("myfile", &[nodes[0].hop(), "127.0.0.1:1".into(), nodes[1].hop()]);
    let finished = world.client(&["trace", route.to_str().expect("UTF-8")]);
    assert_eq!(finished.code, Some(3), "{}", finished.stderr);
    let text = finished.stdout_text() + &finished.stderr;
    assert!(text.contains("hop 2 (127.0.0.1:1): connection refused"), "{text}");
}

#[test]
fn list_shows_what_is_offered() {
    let world = World::new();
    world.offer("a.txt", 1);
    world.offer("docs/b.txt", 2);
    world.offer(".hidden", 3);
    let nodes = world.chain(1);
    let route = world.route("ignored", &hops(&nodes));
    let route = route.to_str().expect("UTF-8");
    let finished = world.client(&["list", route, "--json"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let names = |finished: &Finished| -> Vec<String> {
        events(finished).iter().filter_map(|entry| entry["name"].as_str().map(String::from)).collect()
    };
    assert_eq!(names(&finished), ["a.txt", "docs"]);
    let finished = world.client(&["list", route, "docs/", "--json"]);
    assert_eq!(names(&finished), ["docs/b.txt"]);
    let finished = world.client(&["list", route, "--recursive"]);
    assert!(finished.stdout_text().contains("docs/b.txt"), "{}", finished.stdout_text());
    assert!(!finished.stdout_text().contains(".hidden"), "{}", finished.stdout_text());
}
