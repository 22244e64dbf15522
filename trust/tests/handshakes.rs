//! Whole handshakes in memory: what each end learns, what it refuses, and what somebody between them can read.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop at the first surprise, its helpers too"
)]

use relay_trust::key::{PublicKey, SecretKey};
use relay_trust::tls::{self, Expected, OtherKey, PeerError, Use};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, Error, HandshakeKind, NamedGroup, ServerConfig, ServerConnection,
};
use std::io::{Read, Write};
use std::sync::Arc;

/// Two ends and every byte that passed between them.
struct Session {
    client: ClientConnection,
    server: ServerConnection,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

impl Session {
    fn new(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Session {
        // A name that would be sent if names were sent; whoever has none takes `tls::no_name()`.
        let name = ServerName::try_from("pchost.example").expect("a name");
        Session {
            client: ClientConnection::new(client, name).expect("a client"),
            server: ServerConnection::new(server).expect("a server"),
            to_server: Vec::new(),
            to_client: Vec::new(),
        }
    }

    /// Carries bytes, `step` at a time, until none are left or one end refuses. Gives the first refusal of either.
    fn run(&mut self, step: usize) -> Result<(), (&'static str, Error)> {
        while self.client.wants_write() || self.server.wants_write() {
            let mut bytes = Vec::new();
            self.client.write_tls(&mut bytes).expect("memory");
            self.to_server.extend(&bytes);
            for mut piece in bytes.chunks(step) {
                self.server.read_tls(&mut piece).expect("memory");
                self.server.process_new_packets().map_err(|error| ("server", error))?;
            }
            bytes.clear();
            self.server.write_tls(&mut bytes).expect("memory");
            self.to_client.extend(&bytes);
            for mut piece in bytes.chunks(step) {
                self.client.read_tls(&mut piece).expect("memory");
                self.client.process_new_packets().map_err(|error| ("client", error))?;
            }
        }
        Ok(())
    }

    fn seen_on_the_way(&self, what: &[u8]) -> bool {
        let shows = |bytes: &[u8]| bytes.windows(what.len()).any(|window| window == what);
        shows(&self.to_server) || shows(&self.to_client)
    }
}

fn key() -> SecretKey {
    SecretKey::generate().expect("random bytes")
}

fn one(key: &SecretKey) -> Expected {
    Expected::OneOf(vec![key.public()])
}

fn pipe(client: Option<&SecretKey>, expected: Expected, server: &SecretKey) -> Session {
    Session::new(
        tls::client(Use::Pipe, client, expected).expect("a configuration"),
        tls::server(Use::Pipe, server).expect("a configuration"),
    )
}

#[test]
fn both_ends_learn_the_others_key_and_nobody_else_does() {
    let (anna, node) = (key(), key());
    let mut session = pipe(Some(&anna), one(&node), &node);
    assert_eq!(tls::peer(Use::Pipe, &session.client), Err(PeerError::Handshaking));
    session.client.writer().write_all(b"what they tell each other").expect("memory");
    session.run(usize::MAX).expect("a handshake");
    assert_eq!(tls::peer(Use::Pipe, &session.client), Ok(Some(node.public())));
    assert_eq!(tls::peer(Use::Pipe, &session.server), Ok(Some(anna.public())));
    let mut told = [0; 25];
    session.server.reader().read_exact(&mut told).expect("what was told");
    assert_eq!(&told, b"what they tell each other");
    for secret in [anna.public().as_bytes(), node.public().as_bytes(), &told[..]] {
        assert!(!session.seen_on_the_way(secret));
    }
    assert!(session.seen_on_the_way(b"relay-pipe"), "ALPN is the one thing that a ClientHello says");
    assert!(!session.seen_on_the_way(b"pchost"), "no name is sent");
}

#[test]
fn a_client_without_a_key_is_nobody() {
    let node = key();
    let mut session = pipe(None, Expected::Any, &node);
    session.run(usize::MAX).expect("a handshake");
    assert_eq!(tls::peer(Use::Pipe, &session.client), Ok(Some(node.public())));
    assert_eq!(tls::peer(Use::Pipe, &session.server), Ok(None));
}

#[test]
fn several_keys_may_be_expected() {
    let (old, new) = (key(), key());
    let both = Expected::OneOf(vec![old.public(), new.public()]);
    for node in [&old, &new] {
        let mut session = pipe(None, both.clone(), node);
        session.run(usize::MAX).expect("a handshake");
        assert_eq!(tls::peer(Use::Pipe, &session.client), Ok(Some(node.public())));
    }
}

#[test]
fn another_key_is_named_and_learns_nothing() {
    let (anna, node, impostor) = (key(), key(), key());
    let mut session = pipe(Some(&anna), one(&node), &impostor);
    session.client.writer().write_all(b"get secret.txt").expect("memory");
    let (end, error) = session.run(usize::MAX).expect_err("another key");
    assert_eq!(end, "client");
    let other = OtherKey::of(&error).expect("the cause");
    assert_eq!((other.shown, &other.expected[..]), (impostor.public(), &[node.public()][..]));
    let text = error.to_string();
    assert!(text.contains(&impostor.public().to_string()), "{text}");
    let io = std::io::Error::new(std::io::ErrorKind::InvalidData, error);
    assert_eq!(OtherKey::of_io(&io), Some(other_key(&io)));
    // Nothing but the alert follows: the client's key and its request stay at home.
    let _ = session.run(usize::MAX);
    assert!(session.server.peer_certificates().is_none());
    assert!(session.server.reader().read(&mut [0; 64]).is_err());
}

fn other_key(error: &std::io::Error) -> &OtherKey {
    let inner = error.get_ref().expect("an inner error").downcast_ref().expect("the library's");
    OtherKey::of(inner).expect("another key")
}

#[test]
fn nothing_expected_is_nobody_accepted() {
    let node = key();
    let mut session = pipe(None, Expected::OneOf(Vec::new()), &node);
    session.run(usize::MAX).expect_err("no key is expected");
}

/// Shows `claimed` and signs with `own`.
fn claiming(claimed: PublicKey, own: &SecretKey) -> Arc<CertifiedKey> {
    let pem = own.to_pem().expect("pem");
    let der = <PrivatePkcs8KeyDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(pem.as_bytes());
    let signing = rustls::crypto::aws_lc_rs::sign::any_eddsa_type(&der.expect("der")).expect("a key");
    let mut spki = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    spki.extend(claimed.as_bytes());
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signing))
}

#[test]
fn a_key_that_is_shown_but_not_proved_is_nobodys() {
    let (anna, thief, node) = (key(), key(), key());
    let mut config =
        ClientConfig::clone(&tls::client(Use::Pipe, Some(&anna), one(&node)).expect("a configuration"));
    config.client_auth_cert_resolver =
        Arc::new(AlwaysResolvesClientRawPublicKeys::new(claiming(anna.public(), &thief)));
    let mut session = Session::new(Arc::new(config), tls::server(Use::Pipe, &node).expect("a configuration"));
    let (end, error) = session.run(usize::MAX).expect_err("no proof");
    assert_eq!(end, "server");
    assert!(matches!(error, Error::InvalidCertificate(rustls::CertificateError::BadSignature)), "{error}");
}

/// Who claims a key that is not his must not be shown to people under it.
#[test]
fn a_node_that_claims_a_key_is_not_called_by_it() {
    let (node, claimed, thief) = (key(), key(), key());
    let mut config = ServerConfig::clone(&tls::server(Use::Pipe, &thief).expect("a configuration"));
    config.cert_resolver =
        Arc::new(rustls::server::AlwaysResolvesServerRawPublicKeys::new(claiming(claimed.public(), &thief)));
    let client = tls::client(Use::Pipe, None, one(&node)).expect("a configuration");
    let (end, error) = Session::new(client, Arc::new(config)).run(usize::MAX).expect_err("no proof");
    assert_eq!((end, OtherKey::of(&error)), ("client", None));
}

#[test]
fn each_use_refuses_the_others() {
    let node = key();
    let uses = [Use::Pipe, Use::Link, Use::Fleet];
    for asked in uses {
        for offered in uses {
            let client = tls::client(asked, None, one(&node)).expect("a configuration");
            let server = tls::server(offered, &node).expect("a configuration");
            let mut session = Session::new(client, server);
            assert_eq!(session.run(usize::MAX).is_ok(), asked == offered, "{asked:?} of {offered:?}");
        }
    }
}

/// rustls lets a peer through that names no protocol at all.
#[test]
fn who_names_no_use_is_refused() {
    let node = key();
    let silent = |config: &ClientConfig| {
        let mut config = config.clone();
        config.alpn_protocols.clear();
        Arc::new(config)
    };
    let client = tls::client(Use::Pipe, None, one(&node)).expect("a configuration");
    let server = tls::server(Use::Pipe, &node).expect("a configuration");
    let mut session = Session::new(silent(&client), Arc::clone(&server));
    session.run(usize::MAX).expect("a handshake");
    assert_eq!(tls::peer(Use::Pipe, &session.server), Err(PeerError::OtherUse));

    let mut deaf = ServerConfig::clone(&server);
    deaf.alpn_protocols.clear();
    let mut session = Session::new(client, Arc::new(deaf));
    session.run(usize::MAX).expect("a handshake");
    assert_eq!(tls::peer(Use::Pipe, &session.client), Err(PeerError::OtherUse));
}

/// A resumed session would ask no verifier, so there must be nothing to resume with.
#[test]
fn every_handshake_is_a_whole_one() {
    let (anna, node) = (key(), key());
    let client = tls::client(Use::Pipe, Some(&anna), one(&node)).expect("a configuration");
    let server = tls::server(Use::Pipe, &node).expect("a configuration");
    for _ in 0..3 {
        let mut session = Session::new(Arc::clone(&client), Arc::clone(&server));
        session.run(usize::MAX).expect("a handshake");
        assert_eq!(session.client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(session.client.tls13_tickets_received(), 0);
        let group = session.client.negotiated_key_exchange_group().map(|group| group.name());
        assert_eq!(group, Some(NamedGroup::X25519MLKEM768), "what is recorded today stays closed later");
        assert!(session.client.early_data().is_none());
    }
}

#[test]
fn a_handshake_may_come_in_single_bytes() {
    let (anna, node) = (key(), key());
    let mut session = pipe(Some(&anna), one(&node), &node);
    session.run(1).expect("a handshake");
    assert_eq!(tls::peer(Use::Pipe, &session.server), Ok(Some(anna.public())));
}
