//! What must work with an origin that keeps the protocol.

use crate::client::Place;
use crate::origin::{MODIFIED, Origin, Request, Sample};
use relay_proto::chunk::CHUNK_LEN;
use std::fs;
use std::time::{Duration, SystemTime};

fn check(len: u64) {
    let sample = Sample::new(len, len, "v1");
    let origin = Origin::good(&sample);
    let place = Place::new();
    place.fetch("d/my file", origin.port, &[]).check(0, &format!("b3:{}", sample.b3()));
    assert!(place.read("my file") == *sample.bytes, "{len} bytes");
    assert_eq!(place.names(), ["my file"], "{len} bytes");
    let modified = fs::metadata(place.path("my file")).unwrap().modified().unwrap();
    assert_eq!(modified, SystemTime::UNIX_EPOCH + Duration::new(MODIFIED as u64, 5));
}

#[test]
fn files_of_every_size() {
    for len in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 11 * CHUNK_LEN + 7] {
        check(len);
    }
}

#[test]
fn the_same_file_is_not_fetched_again() {
    let sample = Sample::new(CHUNK_LEN * 2, 1, "v1");
    let origin = Origin::good(&sample);
    let place = Place::new();
    place.fetch("f", origin.port, &[]).check(0, "verified");
    place.fetch("f", origin.port, &[]).check(0, "nothing to fetch");
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn standard_output_gets_the_bytes_and_nothing_else() {
    let sample = Sample::new(CHUNK_LEN * 9 + 1, 2, "v1");
    let origin = Origin::good(&sample);
    let place = Place::new();
    let ended = place.fetch("f", origin.port, &["-o", "-"]);
    ended.check(0, &sample.b3());
    assert!(ended.stdout == *sample.bytes);
    assert!(place.names().is_empty());
}

#[test]
fn an_expected_hash() {
    let sample = Sample::new(CHUNK_LEN * 2 + 5, 3, "v1");
    let origin = Origin::good(&sample);
    let place = Place::new();
    let (good, bad) = (format!("b3:{}", sample.b3()), format!("b3:{}", Sample::new(1, 1, "").b3()));
    place.fetch("f", origin.port, &["--expect", &bad]).check(7, &good).check(7, "delete f.part");
    assert!(!place.path("f").exists());
    place.fetch("f", origin.port, &["--expect", &good]).check(0, "verified");
    assert!(place.read("f") == *sample.bytes);
}

#[test]
fn a_route_from_a_file_and_from_standard_input() {
    let sample = Sample::new(10, 4, "v1");
    let origin = Origin::good(&sample);
    let place = Place::new();
    let route = format!("d/f\n127.0.0.1 {}\n", origin.port);
    fs::write(place.path("route.txt"), &route).unwrap();
    place.run(&["route.txt"]).check(0, "verified");
    let stdin = fs::File::open(place.path("route.txt")).unwrap();
    let child = place.command(&["-", "-o", "g"]).stdin(stdin).spawn().unwrap();
    crate::client::end(child).check(0, "verified");
    assert_eq!((place.read("f"), place.read("g")), (sample.bytes.to_vec(), sample.bytes.to_vec()));
}

#[test]
fn nothing_is_dialled_for_a_bad_route() {
    let place = Place::new();
    fs::write(place.path("route.txt"), "f\npchost1 99999\n").unwrap();
    place.run(&["route.txt"]).check(2, "--> route.txt:2:9");
    place.run(&["no-such-route"]).check(2, "cannot read the route from no-such-route");
    place.run(&[]).check(2, "no route");
    place.run(&["--get", "d/..", "--via", "h:1"]).check(2, "-o PATH");
    for command in [&["--get", "f"] as &[&str], &["trace"], &["list"]] {
        let wish = ["--via", "h:1", "--congestion", "nosuch"];
        place.run(&[command, &wish].concat()).check(2, "the congestion control nosuch cannot be had");
    }
}

#[test]
fn json_events() {
    let sample = Sample::new(CHUNK_LEN + 1, 5, "v1");
    let origin = Origin::good(&sample);
    let ended = Place::new().fetch("f", origin.port, &["--json"]);
    ended.check(0, "");
    let events: Vec<serde_json::Value> =
        ended.stdout.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["dialling", "connected", "hello", "file", "done"]);
    assert_eq!(events[4]["hash"], format!("b3:{}", sample.b3()));
    assert_eq!(events[4]["size"], CHUNK_LEN + 1);
}

#[test]
fn a_trace() {
    let origin = Origin::good(&Sample::new(1, 1, "v1"));
    let via = format!("127.0.0.1:{}", origin.port);
    let ended = Place::new().run(&["trace", "--via", &via]);
    let shown = String::from_utf8(ended.check(0, "").stdout.clone()).unwrap();
    assert!(shown.contains("test-origin/1") && shown.contains("the chain stands"), "{shown}");
    assert_eq!(origin.requests(), Vec::<Request>::new());
}
