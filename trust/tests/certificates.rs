//! TLS with certificates, in memory: who is believed, and what a first message says that its sender wants.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop at the first surprise, its helpers too"
)]

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use relay_trust::certificates::{Certificate, CertificateError, Wanted, client, wanted};
use relay_trust::key::SecretKey;
use relay_trust::tls::{self, Expected, Use};
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection};
use std::sync::Arc;

/// An authority, and a certificate that it gave to `pchost.example`, with its key; all in PEM.
struct Files {
    authority: String,
    certificate: String,
    key: String,
}

impl Files {
    fn new() -> Files {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("one");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["pchost.example".to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        Files { authority: issuer.pem(), certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn certificate(&self) -> Certificate {
        Certificate::from_pem(self.certificate.as_bytes(), self.key.as_bytes()).expect("a certificate")
    }
}

fn handshake(client: Arc<ClientConfig>, name: &str, server: Arc<ServerConfig>) -> Result<Vec<u8>, Error> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut client = ClientConnection::new(client, name).expect("a client");
    let mut server = ServerConnection::new(server).expect("a server");
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("memory");
        server.read_tls(&mut bytes.as_slice()).expect("memory");
        server.process_new_packets()?;
        bytes.clear();
        server.write_tls(&mut bytes).expect("memory");
        client.read_tls(&mut bytes.as_slice()).expect("memory");
        client.process_new_packets()?;
    }
    Ok(server.alpn_protocol().expect("a protocol").to_vec())
}

#[test]
fn a_name_is_believed_when_an_authority_says_so() {
    let files = Files::new();
    let trusting = client(None, Some(files.authority.as_bytes())).expect("a configuration");
    let https = files.certificate().for_https().expect("a configuration");
    let alpn = handshake(Arc::clone(&trusting), "pchost.example", Arc::clone(&https));
    assert_eq!(alpn, Ok(b"http/1.1".to_vec()));
    let other_name = handshake(trusting, "pchost2.example", Arc::clone(&https)).expect_err("another name");
    assert!(matches!(other_name, Error::InvalidCertificate(_)), "{other_name}");
    let stranger = Files::new();
    let other_authority = client(None, Some(stranger.authority.as_bytes())).expect("a configuration");
    let refused = handshake(other_authority, "pchost.example", https).expect_err("nobody vouches");
    assert!(matches!(refused, Error::InvalidCertificate(_)), "{refused}");
}

#[test]
fn a_link_by_name_is_for_links_alone() {
    let files = Files::new();
    let link = files.certificate().for_use(Use::Link).expect("a configuration");
    let authority = Some(files.authority.as_bytes());
    let dials = |usage| client(usage, authority).expect("a configuration");
    assert_eq!(
        handshake(dials(Some(Use::Link)), "pchost.example", Arc::clone(&link)),
        Ok(b"relay-link".to_vec())
    );
    for other in [None, Some(Use::Pipe), Some(Use::Fleet)] {
        handshake(dials(other), "pchost.example", Arc::clone(&link)).expect_err("another use");
    }
}

/// A raw key is nothing that an authority vouches for, and a certificate is no key.
#[test]
fn the_two_worlds_do_not_meet() {
    let files = Files::new();
    let node = SecretKey::generate().expect("random bytes");
    let by_key = tls::client(Use::Link, None, Expected::Any).expect("a configuration");
    let by_name = client(Some(Use::Link), Some(files.authority.as_bytes())).expect("a configuration");
    let certificate = files.certificate().for_use(Use::Link).expect("a configuration");
    let raw = tls::server(Use::Link, &node).expect("a configuration");
    handshake(by_key, "pchost.example", certificate).expect_err("a certificate is no key");
    handshake(by_name, "pchost.example", raw).expect_err("a key is no certificate");
}

#[test]
fn a_first_message_says_what_its_sender_wants() {
    let files = Files::new();
    let authority = Some(files.authority.as_bytes());
    let check = |config: Arc<ClientConfig>, expected: Wanted| {
        let name = ServerName::try_from("pchost.example").expect("a name");
        let mut client = ClientConnection::new(config, name).expect("a client");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("memory");
        let mut acceptor = Acceptor::default();
        // In single bytes, as it may come.
        for (index, byte) in hello.iter().enumerate() {
            acceptor.read_tls(&mut [*byte].as_slice()).expect("memory");
            let accepted = acceptor.accept().unwrap_or_else(|(error, _)| panic!("{error}"));
            match accepted {
                Some(accepted) => {
                    assert_eq!(index + 1, hello.len());
                    assert_eq!(wanted(&accepted.client_hello()), expected);
                    return;
                }
                None => assert!(index + 1 < hello.len()),
            }
        }
        panic!("no message");
    };
    for usage in [Use::Pipe, Use::Link, Use::Fleet] {
        let by_key = tls::client(usage, None, Expected::Any).expect("a configuration");
        check(by_key, Wanted::RawKey(usage));
        check(client(Some(usage), authority).expect("a configuration"), Wanted::Certificate(usage));
    }
    check(client(None, authority).expect("a configuration"), Wanted::Https);
    let mut silent = ClientConfig::clone(&client(None, authority).expect("a configuration"));
    silent.alpn_protocols.clear();
    check(Arc::new(silent), Wanted::Https);
}

#[test]
fn what_is_no_certificate_or_another_ones_key() {
    let (files, other) = (Files::new(), Files::new());
    let reads = |chain: &str, key: &str| Certificate::from_pem(chain.as_bytes(), key.as_bytes()).map(|_| ());
    assert_eq!(reads("", &files.key), Err(CertificateError::NoCertificate));
    assert_eq!(reads(&files.key, &files.key), Err(CertificateError::NoCertificate));
    assert_eq!(reads(&files.certificate[..200], &files.key), Err(CertificateError::NoCertificate));
    assert_eq!(reads(&files.certificate, ""), Err(CertificateError::NoKey));
    assert_eq!(reads(&files.certificate, &files.certificate), Err(CertificateError::NoKey));
    let mixed = reads(&files.certificate, &other.key).expect_err("another one's key");
    assert!(matches!(mixed, CertificateError::Useless(_)), "{mixed}");
    reads(&format!("{}{}", files.certificate, files.authority), &files.key).expect("with its chain");
    assert_eq!(client(None, Some(b"none")).map(|_| ()).expect_err("none"), CertificateError::NoCertificate);
}
