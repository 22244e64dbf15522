//! What the command takes, and what it says.

use crate::client::{Place, end};
use crate::origin::{Origin, Sample};
use crate::tree::{file, good, listing, page};
use relay_chain::frames::read_frame;
use relay_testkit::nobody::Nobody;

/// Numbers that tell nothing are left out.
#[test]
fn no_time_and_no_rate_of_what_took_none() {
    let place = Place::new();
    let origin = Origin::good(&Sample::new(5, 3, "v1"));
    let ended = place.fetch("f", origin.port, &[]);
    // On a machine that is so slow that it did take time, that is told.
    let told = ended.check(0, "f: 5 B, verified").stderr.contains("in 0.0 s");
    assert!(!told, "{}", ended.stderr);
    let origin = listing(vec![file("d/a")], good);
    let ended = place.fetch("d/", origin.port, &[]);
    ended.check(0, "d: 1 file: 1 fetched");
    assert!(!ended.stderr.contains("in 0.0 s") && !ended.stderr.contains("0 the same"), "{}", ended.stderr);
    let ended = place.fetch("d/", origin.port, &[]);
    ended.check(0, "d: 1 file: 1 the same");
    assert!(!ended.stderr.contains("fetched"), "{}", ended.stderr);
}

#[test]
fn an_error_stands_alone_where_nothing_was_done() {
    let nobody = Nobody::new();
    let ended = Place::new().fetch("d/", nobody.address().port(), &[]);
    ended.check(3, "error: hop 1");
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[test]
fn the_last_of_several_values_counts() {
    let place = Place::new();
    let origin = Origin::good(&Sample::new(5, 3, "v1"));
    place
        .fetch("f", origin.port, &["-o", "a", "--timeout", "1s", "--output", "b", "--timeout", "20s"])
        .check(0, "b:");
    assert_eq!(place.names(), ["b"]);
}

#[test]
fn quiet_and_for_programs() {
    let place = Place::new();
    let origin = Origin::good(&Sample::new(5, 3, "v1"));
    let ended = place.fetch("f", origin.port, &["--quiet", "--json"]);
    assert_eq!(ended.check(0, "").stderr, "");
    assert!(String::from_utf8(ended.stdout).unwrap().lines().last().unwrap().contains("\"event\":\"done\""));
}

#[test]
fn a_file_is_no_directory() {
    let origin = Origin::start(|mut visit| async move {
        visit.hello().await;
        for entries in [vec![], vec![file("f")]] {
            if read_frame(&mut visit.stream).await.is_ok() {
                page(&mut visit, &entries, None).await;
            }
        }
        visit.gone().await;
    });
    let place = Place::new();
    place.fetch("f", origin.port, &["--recursive"]).check(5, "f is a file at the origin");
    assert!(place.names().is_empty());
}

/// What answers there is named as soon as it has said something.
#[test]
fn other_servers_are_named_at_once() {
    for (answer, name) in [
        (&b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n"[..], "web server (HTTP)"),
        (b"<html>\r\n<head><title>400 Bad Request</title></head>\r\n", "web server (HTTP)"),
        (b"<!DOCTYPE HTML>\n<html>", "web server (HTTP)"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "TLS"),
        (b"\x16\x03\x03\x00\x50\x02\x00\x00\x4c", "TLS"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "SSH"),
        (b"220 mail.example.org ESMTP\r\n", "mail (SMTP) or FTP"),
    ] {
        let origin = Origin::start(move |mut visit| async move {
            visit.raw(answer).await;
            visit.gone().await;
        });
        let ended = Place::new().fetch("f", origin.port, &["--timeout", "60s", "--retries", "0"]);
        ended.check(3, "hop 1").check(3, "not a relay node").check(3, name);
    }
}

/// The ten likeliest wrong command lines, and what they should have been.
#[test]
fn what_was_meant() {
    let place = Place::new();
    for (typed, meant) in [
        ("myfile pchost1:12000 pchost2:11000", "--get myfile --via pchost1:12000 --via pchost2:11000"),
        ("get myfile pchost1:12000", "--get myfile --via pchost1:12000"),
        ("ls pchost1:12000", "list --via pchost1:12000"),
        ("http://pchost1:12000/docs/a.txt", "--get docs/a.txt --via pchost1:12000"),
        ("--get myfile pchost1:12000", "--get myfile --via pchost1:12000"),
        ("--get myfile --via a:1,b:2", "--get myfile --via a:1 --via b:2"),
        ("pchost1:12000", "list --via pchost1:12000"),
        ("pchost1 12000 pchost2 11000 myfile", "--get myfile --via pchost1:12000 --via pchost2:11000"),
        ("pchost1:12000/myfile -o here", "--get myfile --via pchost1:12000 -o here"),
        ("ping pchost1:12000", "trace --via pchost1:12000"),
    ] {
        let arguments: Vec<&str> = typed.split(' ').collect();
        let ended = end(place.command(&arguments).spawn().unwrap());
        ended.check(2, &format!("\n  relay-client {meant}\n"));
    }
    let ended = place.run(&["push", "myfile", "pchost1:12000"]);
    ended.check(2, "files are fetched, not sent");
}

/// `NO_COLOR`, `CLICOLOR_FORCE`.
#[test]
fn colours_are_had_for_the_asking() {
    for (variables, is_coloured) in [
        (&[][..], false),
        (&[("CLICOLOR_FORCE", "1")], true),
        (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
    ] {
        let place = Place::new();
        let mut command = place.command(&["--help"]);
        command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").envs(variables.iter().copied());
        let ended = end(command.spawn().unwrap());
        assert_eq!(ended.stdout.contains(&0x1b), is_coloured, "{variables:?}");
    }
}
