//! Every exit code of the table in `--help`, provoked as its text says.

use crate::client::{Ended, Place, end, wait_for_file};
use crate::local::stalling;
use crate::origin::{Origin, Sample};
use crate::tree::{file, good, listing};
use relay_chain::frames::{read_message, write_message};
use relay_client::exit::Exit;
use relay_proto::chunk::CHUNK_LEN;
use relay_proto::code::{FailureCode, Status};
use relay_proto::file::Head;
use relay_proto::hop::{Failed, Open};
use relay_testkit::nobody::Nobody;
use rustix::process::{Pid, Signal, kill_process};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn every_code_means_what_its_text_says() {
    for &exit in Exit::ALL {
        let Some((ended, text)) = provoked(exit) else { continue };
        ended.check(exit.code().into(), text);
    }
}

/// A run that ends like this, and what it says; none for what the command cannot come to yet.
fn provoked(exit: Exit) -> Option<(Ended, &'static str)> {
    let place = Place::new();
    let sample = Sample::new(5, 3, "v1");
    let fetch =
        |origin: &Origin, more: &[&str]| place.fetch("f", origin.port, &[&["--retries", "0"], more].concat());
    Some(match exit {
        Exit::Success => (fetch(&Origin::good(&sample), &[]), "verified"),
        Exit::Usage => {
            let dialled = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&dialled);
            let origin = Origin::start(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
                async {}
            });
            let ended = fetch(&origin, &["--timeout", "1ms"]);
            assert_eq!(dialled.load(Ordering::SeqCst), 0, "something was dialled");
            (ended, "--timeout must lie between")
        }
        Exit::Unreachable => (place.fetch("f", Nobody::new().address().port(), &[]), "refused"),
        Exit::Denied => {
            let origin = Origin::start(|mut visit| async move {
                let _: Open = read_message(&mut visit.stream).await.unwrap();
                let failed = Failed::new(FailureCode::Denied, None, "not here");
                write_message(&mut visit.stream, &failed).await.unwrap();
                visit.gone().await;
            });
            (fetch(&origin, &[]), "not here")
        }
        Exit::NotFound => (fetch(&answering(Status::NOT_FOUND), &[]), "says hop 1"),
        Exit::Origin => (fetch(&answering(Status::INTERNAL), &[]), "says hop 1"),
        Exit::TimedOut => {
            let silent = Origin::start(|mut visit| async move { visit.gone().await });
            (fetch(&silent, &["--timeout", "1s"]), "no byte in 1 s")
        }
        Exit::Damaged => {
            let other = format!("b3:{}", Sample::new(5, 4, "v1").b3());
            (fetch(&Origin::good(&sample), &["--expect", &other]), "was expected")
        }
        Exit::Local => {
            std::fs::write(place.path("taken"), "").unwrap();
            (fetch(&Origin::good(&sample), &["-o", "taken/f"]), "cannot create the directory taken")
        }
        Exit::Incomplete => {
            let origin = listing(vec![file("d/b"), file("d/a")], good);
            (place.fetch("d/", origin.port, &["--retries", "0"]), "1 of 2 could not be fetched")
        }
        Exit::Key => return None,
        Exit::Interrupted => {
            let origin = stalling();
            let via = format!("127.0.0.1:{}", origin.port);
            let arguments = ["--get", "f", "--via", &via, "--timeout", "1h"];
            let child = place.command(&arguments).spawn().unwrap();
            wait_for_file(&place.path("f.part"), CHUNK_LEN);
            kill_process(Pid::from_child(&child), Signal::INT).unwrap();
            (end(child), "f.part keeps")
        }
    })
}

/// An origin that answers the request with this alone.
fn answering(status: Status) -> Origin {
    Origin::start(move |mut visit| async move {
        visit.hello().await;
        if visit.request().await.is_some() {
            visit.head(&Head::only(status, "")).await;
        }
        visit.gone().await;
    })
}
