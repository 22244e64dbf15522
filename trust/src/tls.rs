//! TLS in which keys prove themselves: raw public keys (RFC 7250) on both ends, TLS 1.3 alone, no names, no certificates.
//!
//! A configuration belongs to one use, and on the client's side to one expectation. Sessions are never resumed and nothing is sent
//! early: rustls asks no verifier when it resumes, so a key that is no longer wanted would come back in. Nothing in here dials,
//! listens or waits; the handshake's bytes are carried by whoever uses this.
//!
//! After the handshake, and before the first byte of anything else, both ends ask [`peer`].

use crate::key::{KeyError, PublicKey, SecretKey, from_spki, to_spki};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ResolvesClientCert, Resumption};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    ServerConfig, SignatureScheme,
};
use std::fmt;
use std::io;
use std::sync::Arc;

/// What a TLS session is for. Each has an ALPN name (RFC 7301) of its own and refuses the others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Inside a pipe, between the client and the origin.
    Pipe,
    /// A link, between two neighbours.
    Link,
    /// Between the members of a fleet.
    Fleet,
}

impl Use {
    /// Its name in ALPN.
    #[must_use]
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Use::Pipe => b"relay-pipe",
            Use::Link => b"relay-link",
            Use::Fleet => b"relay-fleet",
        }
    }
}

/// Which keys the other end may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// One of these.
    OneOf(Vec<PublicKey>),
    /// Any; [`peer`] tells which it was, and it is for the caller to judge it before anything else happens.
    Any,
}

impl Expected {
    fn holds(&self, key: &PublicKey) -> bool {
        match self {
            Expected::OneOf(keys) => keys.contains(key),
            Expected::Any => true,
        }
    }
}

/// The configuration of the end that dials. It shows `identity` when it has one and is asked.
///
/// # Errors
/// When the TLS library refuses the key.
pub fn client(
    usage: Use,
    identity: Option<&SecretKey>,
    expected: Expected,
) -> Result<Arc<ClientConfig>, KeyError> {
    let resolver: Arc<dyn ResolvesClientCert> = match identity {
        Some(key) => Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(key)?)),
        None => Arc::new(NoKey),
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|_| KeyError::NotForTls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(KeyVerifier::new(expected)))
        .with_client_cert_resolver(resolver);
    config.alpn_protocols = vec![usage.alpn().to_vec()];
    config.enable_sni = false;
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The configuration of the end that listens. It proves `identity`, asks for the other's key, and takes a peer without one.
///
/// # Errors
/// When the TLS library refuses the key.
pub fn server(usage: Use, identity: &SecretKey) -> Result<Arc<ServerConfig>, KeyError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|_| KeyError::NotForTls)?
        .with_client_cert_verifier(Arc::new(KeyVerifier::new(Expected::Any)))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(identity)?)));
    config.alpn_protocols = vec![usage.alpn().to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The name that rustls wants for a session. Nobody sees it: no name is sent, and keys are compared instead.
#[must_use]
pub fn no_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into())
}

/// Who the other end proved to be, once the handshake is over; none for a client that showed no key.
///
/// # Errors
/// When the handshake is not over, or was for another use: a peer that names no use at all gets through rustls.
pub fn peer(usage: Use, session: &CommonState) -> Result<Option<PublicKey>, PeerError> {
    agreed(usage, session)?;
    match session.peer_certificates() {
        None | Some([]) => Ok(None),
        Some([key]) => from_spki(key).map(Some).ok_or(PeerError::NoKey),
        Some(_) => Err(PeerError::NoKey),
    }
}

/// Whether the handshake is over and both ends agreed to this use; all that there is to ask when the other end showed a
/// certificate.
///
/// # Errors
/// When the handshake is not over, or was for another use.
pub fn agreed(usage: Use, session: &CommonState) -> Result<(), PeerError> {
    if session.is_handshaking() {
        return Err(PeerError::Handshaking);
    }
    if session.alpn_protocol() != Some(usage.alpn()) {
        return Err(PeerError::OtherUse);
    }
    Ok(())
}

/// Why nobody is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// Asked too early.
    #[error("the handshake is not over")]
    Handshaking,
    /// The peer did not agree to this use.
    #[error("the peer speaks TLS, but not for this use (ALPN)")]
    OtherUse,
    /// What it showed is no key.
    #[error("the peer showed something that is no Ed25519 key")]
    NoKey,
}

/// The other end proved a key that is not one of those expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the peer has the key {shown}, which is not the expected one")]
pub struct OtherKey {
    /// What it proved.
    pub shown: PublicKey,
    /// What was expected.
    pub expected: Vec<PublicKey>,
}

impl OtherKey {
    /// The cause of a failed handshake, when it was this.
    #[must_use]
    pub fn of(error: &Error) -> Option<&OtherKey> {
        match error {
            Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
                inner.downcast_ref::<OtherKey>()
            }
            _ => None,
        }
    }

    /// The cause of a failed handshake over a stream, whose errors carry the TLS library's inside.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Option<&OtherKey> {
        OtherKey::of(error.get_ref()?.downcast_ref::<Error>()?)
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn certified(key: &SecretKey) -> Result<Arc<CertifiedKey>, KeyError> {
    let der = key.to_der()?;
    let signing_key = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(der.as_slice()));
    let spki = to_spki(&key.public()).ok_or(KeyError::NotForTls)?;
    let signing_key = signing_key.map_err(|_| KeyError::NotForTls)?;
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signing_key)))
}

/// A client without a key still has to say that it would show a raw one: a server that asks for raw keys refuses who
/// does not.
#[derive(Debug)]
struct NoKey;

impl ResolvesClientCert for NoKey {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes a raw Ed25519 key, and compares it with the expected ones once its owner has proved it.
struct KeyVerifier {
    expected: Expected,
    algorithms: WebPkiSupportedAlgorithms,
}

impl KeyVerifier {
    fn new(expected: Expected) -> KeyVerifier {
        KeyVerifier { expected, algorithms: aws_lc_rs::default_provider().signature_verification_algorithms }
    }

    fn check_form(key: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), Error> {
        if from_spki(key).is_none() || !more.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        Ok(())
    }

    /// The order matters: a key is only called wrong, and shown to people, when it was proved.
    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
        let valid = verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)?;
        let shown = from_spki(key).ok_or(CertificateError::BadEncoding)?;
        match &self.expected {
            Expected::OneOf(expected) if !self.expected.holds(&shown) => {
                let other = OtherKey { shown, expected: expected.clone() };
                Err(CertificateError::Other(OtherError(Arc::new(other))).into())
            }
            _ => Ok(valid),
        }
    }
}

impl fmt::Debug for KeyVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyVerifier").field("expected", &self.expected).finish_non_exhaustive()
    }
}

/// TLS 1.2 is not in the protocol versions, so nobody can ask for its signatures.
fn no_tls12() -> Error {
    Error::General("TLS 1.2 was not offered".into())
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        KeyVerifier::check_form(key, more).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for KeyVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        KeyVerifier::check_form(key, more).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
