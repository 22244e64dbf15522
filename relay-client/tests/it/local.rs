//! What this machine may do to a client: no room, no permission, Ctrl-C.

use crate::client::{Place, end, wait_for_file};
use crate::origin::{Origin, Sample, head};
use relay_proto::chunk::CHUNK_LEN;
use relay_proto::file::Conditions;
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

/// An origin that sends one chunk of three, and then holds the connection until the client goes.
pub fn stalling() -> Origin {
    let sample = Sample::new(3 * CHUNK_LEN, 8, "v1");
    Origin::start(move |mut visit| {
        let sample = sample.clone();
        async move {
            visit.hello().await;
            if visit.request().await.is_some() {
                visit.head(&head(&sample, None, &Conditions::default())).await;
                visit.chunk(&sample, 0).await;
                let _ = visit.request().await;
            }
        }
    })
}

#[test]
fn an_interrupted_client_keeps_what_it_has() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let origin = stalling();
        let place = Place::new();
        let via = format!("127.0.0.1:{}", origin.port);
        let child = place.command(&["--get", "f", "--via", &via, "--timeout", "1h"]).spawn().unwrap();
        wait_for_file(&place.path("f.part"), CHUNK_LEN);
        kill_process(Pid::from_child(&child), signal).unwrap();
        end(child).check(130, "interrupted").check(130, "f.part keeps 1.00 MiB of 3.00 MiB");
        assert!(!place.path("f").exists() && place.path("f.part").exists());
        // Nor does it hold the room for what did not come.
        let blocks = std::fs::metadata(place.path("f.part")).unwrap().blocks();
        assert!(blocks * 512 < 2 * CHUNK_LEN, "{blocks} blocks");
    }
}

#[test]
fn an_interrupted_client_does_not_wait_for_a_reader() {
    let origin = Origin::good(&Sample::new(40 * CHUNK_LEN, 8, "v1"));
    let place = Place::new();
    let via = format!("127.0.0.1:{}", origin.port);
    let mut child = place.command(&["--get", "f", "--via", &via, "-o", "-"]).spawn().unwrap();
    // The pipe is read only once it is full and the client has been told to stop.
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 1];
    std::io::Read::read_exact(&mut stdout, &mut first).unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    child.stdout = Some(stdout);
    let give_up = std::time::Instant::now() + crate::client::PATIENCE;
    while child.try_wait().unwrap().is_none() {
        assert!(std::time::Instant::now() < give_up, "the client waits for its reader");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    end(child).check(130, "interrupted");
}

#[test]
fn a_deadline() {
    let origin = stalling();
    let place = Place::new();
    place.fetch("f", origin.port, &["--deadline", "200ms"]).check(6, "the deadline of 0.2 s passed");
    assert!(!place.path("f").exists());
}

#[test]
fn no_room_for_the_file() {
    let sample = Sample::new(3 * CHUNK_LEN, 8, "v1");
    let origin = Origin::good(&sample);
    let place = Place::new();
    let client = place.command(&["--get", "f", "--via", &format!("127.0.0.1:{}", origin.port)]);
    let mut limited = Command::new("sh");
    limited.env("RELAY_CLIENT_PLAIN", "true");
    limited
        .args(["-c", "ulimit -f 2048; exec \"$0\" \"$@\""])
        .arg(client.get_program())
        .args(client.get_args());
    limited
        .current_dir(place.path(""))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    end(limited.spawn().unwrap()).check(8, "f.part").check(8, "ulimit -f");
    assert!(!place.path("f").exists());
}

#[test]
fn a_full_device() {
    let origin = Origin::good(&Sample::new(CHUNK_LEN + 1, 8, "v1"));
    let place = Place::new();
    place.fetch("f", origin.port, &["-o", "/dev/full"]).check(8, "cannot write /dev/full");
    place.fetch("f", origin.port, &["-o", "/dev/null"]).check(0, "verified");
}

#[test]
fn what_stands_in_the_way_is_left_alone() {
    let origin = Origin::good(&Sample::new(CHUNK_LEN + 1, 8, "v1"));
    let place = Place::new();
    place.fetch("f", origin.port, &["-o", "/proc/no/f"]).check(8, "cannot create the directory /proc/no");
    std::fs::write(place.path("g"), "precious").unwrap();
    symlink(place.path("g"), place.path("f.part")).unwrap();
    // What is somebody else's stays, and the file takes another way.
    place.fetch("f", origin.port, &[]).check(0, "verified");
    assert_eq!(place.read("g"), b"precious");
    assert_eq!(place.names(), ["f", "f.part", "g"]);
}

/// A named pipe without a reader opens for nobody, and that must not hold the run up.
#[test]
fn a_pipe_that_nobody_reads_does_not_outlast_the_deadline() {
    let place = Place::new();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    place
        .fetch("f", stalling().port, &["-o", "pipe", "--deadline", "300ms"])
        .check(6, "the deadline of 0.3 s");
}

/// The last chunks before the end of a link may wait for a reader, too.
#[test]
fn a_client_whose_link_died_does_not_wait_for_a_reader() {
    for (arguments, code, signal) in
        [(&[] as &[&str], 130, Some(Signal::TERM)), (&["--deadline", "1s"], 6, None)]
    {
        let (sent, is_sent) = std::sync::mpsc::channel();
        let sample = Sample::new(6 * CHUNK_LEN, 8, "v1");
        let origin = Origin::start(move |mut visit| {
            let (sample, sent) = (sample.clone(), sent.clone());
            async move {
                visit.hello().await;
                visit.request().await.unwrap();
                visit.head(&head(&sample, None, &Conditions::default())).await;
                visit.chunk(&sample, 0).await;
                visit.chunk(&sample, 1).await;
                drop(visit);
                sent.send(()).unwrap();
            }
        });
        let place = Place::new();
        let via = format!("127.0.0.1:{}", origin.port);
        let fetch = [&["--get", "f", "--via", &via, "-o", "-", "--retries", "0"], arguments].concat();
        let mut child = place.command(&fetch).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        std::io::Read::read_exact(&mut stdout, &mut [0; 1000]).unwrap();
        is_sent.recv_timeout(crate::client::PATIENCE).unwrap();
        if let Some(signal) = signal {
            kill_process(Pid::from_child(&child), signal).unwrap();
        }
        let give_up = std::time::Instant::now() + crate::client::PATIENCE;
        while child.try_wait().unwrap().is_none() {
            assert!(std::time::Instant::now() < give_up, "the client waits for its reader");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.stdout = Some(stdout);
        end(child).check(code, "");
    }
}

/// nohup(1) and shells in the background leave signals ignored for those they start.
#[cfg(target_os = "linux")]
#[test]
fn an_ignored_signal_stays_ignored() {
    let (sample, go) = (Sample::new(3 * CHUNK_LEN, 8, "v1"), tokio::sync::watch::Sender::new(false));
    let (served, goes) = (sample.clone(), go.clone());
    let origin = Origin::start(move |mut visit| {
        let (sample, mut goes) = (served.clone(), goes.subscribe());
        async move {
            visit.hello().await;
            visit.request().await.unwrap();
            visit.head(&head(&sample, None, &Conditions::default())).await;
            visit.chunk(&sample, 0).await;
            goes.wait_for(|go| *go).await.unwrap();
            visit.chunk(&sample, 1).await;
            visit.chunk(&sample, 2).await;
            visit.gone().await;
        }
    });
    let place = Place::new();
    let via = format!("127.0.0.1:{}", origin.port);
    let client = place.command(&["--get", "f", "--via", &via, "--timeout", "1h"]);
    let mut command = Command::new("sh");
    command.env("RELAY_CLIENT_PLAIN", "true");
    command
        .args(["-c", "trap '' HUP INT; exec \"$0\" \"$@\""])
        .arg(client.get_program())
        .args(client.get_args());
    command
        .current_dir(place.path(""))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    wait_for_file(&place.path("f.part"), CHUNK_LEN);
    for signal in [Signal::HUP, Signal::INT] {
        kill_process(Pid::from_child(&child), signal).unwrap();
    }
    go.send_replace(true);
    end(child).check(0, &sample.b3());
}

/// A program that gives its pipe to a client may have made it non-blocking for itself, and both share that.
#[test]
fn a_non_blocking_output_is_waited_for() {
    let sample = Sample::new(3 * CHUNK_LEN, 8, "v1");
    let origin = Origin::good(&sample);
    let place = Place::new();
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let via = format!("127.0.0.1:{}", origin.port);
    let mut command = place.command(&["--get", "f", "--via", &via, "-o", "-"]);
    let child = command.stdout(writer).spawn().unwrap();
    drop(command);
    let mut bytes = Vec::new();
    // The first read waits until there is something, and by the end of it the pipe was full more than once.
    std::io::Read::read_to_end(&mut { reader }, &mut bytes).unwrap();
    let mut child = child;
    child.stdout = None;
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(bytes == *sample.bytes);
}

/// Standard output of a client on a disk that is full.
#[cfg(target_os = "linux")]
#[test]
fn results_and_events_that_cannot_be_written_are_an_error() {
    let sample = Sample::new(3 * CHUNK_LEN, 8, "v1");
    let origin = Origin::good(&sample);
    let place = Place::new();
    let via = format!("127.0.0.1:{}", origin.port);
    for arguments in [&["trace"] as &[&str], &["trace", "--json"], &["--get", "f", "--json"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = place.command(&[arguments, &["--via", &via]].concat());
        let ended = command.stdout(full).spawn().unwrap().wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(8), "{arguments:?}: {stderr}");
        assert!(stderr.contains("cannot write standard output"), "{arguments:?}: {stderr}");
    }
    // What was to be fetched is there nevertheless.
    assert!(place.read("f") == *sample.bytes);
}

/// Messages are for whoever can read them, and nothing else depends on that.
#[cfg(target_os = "linux")]
#[test]
fn messages_that_cannot_be_written_are_lost_and_nothing_else() {
    let sample = Sample::new(3 * CHUNK_LEN, 8, "v1");
    let origin = Origin::good(&sample);
    let place = Place::new();
    std::fs::write(place.path("route.txt"), format!("f\n127.0.0.1:{}\n", origin.port)).unwrap();
    for (arguments, code) in [(&["route.txt", "-o", "g"] as &[&str], 0), (&["no"], 2), (&["--no"], 2)] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = place.command(arguments);
        let ended = command.stderr(full).spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}");
    }
    assert!(place.read("g") == *sample.bytes);
}

/// Standard output that was closed is not what takes everything and keeps nothing.
#[cfg(target_os = "linux")]
#[test]
fn a_closed_output_is_an_error() {
    let origin = Origin::good(&Sample::new(CHUNK_LEN, 8, "v1"));
    let place = Place::new();
    let via = format!("127.0.0.1:{}", origin.port);
    for (arguments, code) in
        [(&["--get", "f", "-o", "-"] as &[&str], 8), (&["trace"], 8), (&["--get", "f"], 0)]
    {
        let client = place.command(&[arguments, &["--via", &via]].concat());
        let mut command = Command::new("sh");
        command.env("RELAY_CLIENT_PLAIN", "true");
        command.args(["-c", "exec \"$0\" \"$@\" >&-"]).arg(client.get_program()).args(client.get_args());
        command
            .current_dir(place.path(""))
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        end(command.spawn().unwrap())
            .check(code, if code == 8 { "cannot write standard output" } else { "verified" });
    }
}
