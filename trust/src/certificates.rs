//! TLS as the web has it: certificates, names, authorities. For HTTPS, for links to nodes with a public name, and for upstreams.
//!
//! Which of the two worlds a client that dialled in belongs to, this one or the raw keys of [`crate::tls`], is told by its first
//! message: [`wanted`]. Files are read by the caller; nothing in here prints a key.

use crate::tls::{Use, provider};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::CertificateType;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use rustls_platform_verifier::Verifier;
use std::sync::Arc;

/// HTTP/1.1's name in ALPN (RFC 7301, section 6).
const HTTP: &[u8] = b"http/1.1";

/// What a client that speaks TLS came for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// This use, with the node's raw key.
    RawKey(Use),
    /// This use, with the node's certificate: the client knows its name and no key.
    Certificate(Use),
    /// HTTPS, or nothing that it named.
    Https,
}

/// What a client came for, by its first message.
#[must_use]
pub fn wanted(hello: &ClientHello<'_>) -> Wanted {
    let named = |usage: Use| hello.alpn().is_some_and(|mut names| names.any(|name| name == usage.alpn()));
    let usage = [Use::Pipe, Use::Link, Use::Fleet].into_iter().find(|usage| named(*usage));
    let takes_raw =
        hello.server_cert_types().is_some_and(|types| types.contains(&CertificateType::RawPublicKey));
    match (usage, takes_raw) {
        (Some(usage), true) => Wanted::RawKey(usage),
        (Some(usage), false) => Wanted::Certificate(usage),
        (None, _) => Wanted::Https,
    }
}

/// A certificate with its chain, and its key.
#[derive(Debug, Clone)]
pub struct Certificate(Arc<CertifiedKey>);

impl Certificate {
    /// Reads a certificate, behind it the chain that leads to a root, and its key, both in PEM.
    ///
    /// # Errors
    /// When either is missing or broken, or the key is another certificate's.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Certificate, CertificateError> {
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::NoKey)?;
        let certified = CertifiedKey::from_der(chain, key, &provider());
        certified.map(|certified| Certificate(Arc::new(certified))).map_err(CertificateError::Useless)
    }

    /// A configuration for HTTPS: TLS 1.3, HTTP/1.1.
    ///
    /// # Errors
    /// When the TLS library refuses it.
    pub fn for_https(&self) -> Result<Arc<ServerConfig>, CertificateError> {
        self.server(HTTP).map(Arc::new)
    }

    /// A configuration for a use of nodes, whose peer knows this node by its name. Sessions are not resumed.
    ///
    /// # Errors
    /// When the TLS library refuses it.
    pub fn for_use(&self, usage: Use) -> Result<Arc<ServerConfig>, CertificateError> {
        let mut config = self.server(usage.alpn())?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn server(&self, alpn: &[u8]) -> Result<ServerConfig, CertificateError> {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(Arc::clone(&self.0)));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(CertificateError::Useless)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![alpn.to_vec()];
        config.max_early_data_size = 0;
        Ok(config)
    }
}

/// A configuration for dialling a name whose certificate the system's roots verify, or these further authorities (PEM).
/// `usage` is what the session is for, to be asked after the handshake with [`crate::tls::agreed`]; none: HTTPS.
///
/// # Errors
/// When an authority cannot be read, or the system has no roots and none were given.
pub fn client(usage: Option<Use>, authorities: Option<&[u8]>) -> Result<Arc<ClientConfig>, CertificateError> {
    let extra = authorities.map(certificates).transpose()?.unwrap_or_default();
    let verifier = Verifier::new_with_extra_roots(extra, provider()).map_err(CertificateError::Useless)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(CertificateError::Useless)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![usage.map_or(HTTP, Use::alpn).to_vec()];
    config.enable_early_data = false;
    if usage.is_some() {
        config.resumption = rustls::client::Resumption::disabled();
    }
    Ok(Arc::new(config))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let all: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(CertificateError::NoCertificate),
    }
}

/// Why a certificate or its key is of no use. No part of a key is in it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// No certificate in PEM.
    #[error("there is no certificate in PEM (-----BEGIN CERTIFICATE-----), or one that is cut")]
    NoCertificate,
    /// No key in PEM.
    #[error("there is no private key in PEM (-----BEGIN PRIVATE KEY-----), or one that is cut")]
    NoKey,
    /// The library's reason.
    #[error("it cannot be used: {0}")]
    Useless(#[source] rustls::Error),
}
