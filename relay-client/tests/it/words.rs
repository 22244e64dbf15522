//! What the command takes, and what it says.

use crate::client::Place;
use crate::origin::Origin;
use relay_proto::limits::PREFACE_LEN;

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
    assert!(PREFACE_LEN >= 8, "so many bytes are looked at");
}
