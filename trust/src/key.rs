//! Keys: the public one that everybody may see, the secret one that nobody may, and signatures.
//!
//! Every signature is made for one purpose and says so in its first bytes, so that what was signed for one is worth nothing
//! for another. Nothing in here may print a secret key or hand it out other than to be kept in its file.

use ed25519_dalek::pkcs8::spki::{DecodePublicKey, EncodePublicKey};
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
pub use relay_proto::key::{KeyTextError, PublicKey};
use std::fmt;
use zeroize::Zeroizing;

/// Bytes of a signature (RFC 8032, section 5.1.6).
pub const SIGNATURE_LEN: usize = 64;

/// The secret half of a node's or a client's key. It cannot be printed or copied, and is wiped when it goes.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A new key of the system's randomness.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate() -> Result<SecretKey, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(|_| KeyError::NoRandomness)?;
        Ok(SecretKey(SigningKey::from_bytes(&seed)))
    }

    /// Reads a key in PKCS#8 (RFC 8410, section 7) within PEM, with or without its public half.
    ///
    /// # Errors
    /// When `text` is anything else, or its public half belongs to another key.
    pub fn from_pem(text: &str) -> Result<SecretKey, KeyError> {
        SigningKey::from_pkcs8_pem(text.trim_ascii()).map(SecretKey).map_err(|_| KeyError::NotPem)
    }

    /// The key in PKCS#8 within PEM, without its public half: the form that other programs read, too.
    ///
    /// # Errors
    /// Never in practice; the encoder may say so.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        self.bare().to_pkcs8_pem(Default::default()).map_err(|_| KeyError::NotPem)
    }

    /// The key in PKCS#8, for the TLS library.
    pub(crate) fn to_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let document = self.bare().to_pkcs8_der().map_err(|_| KeyError::NotPem)?;
        Ok(Zeroizing::new(document.as_bytes().to_vec()))
    }

    /// The scalar of the key's X25519 form (RFC 8032, section 5.1.5; RFC 7748, section 5).
    pub(crate) fn agreement_scalar(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_scalar_bytes())
    }

    fn bare(&self) -> KeypairBytes {
        KeypairBytes { secret_key: self.0.to_bytes(), public_key: None }
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// Signs `message` for `purpose`.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(&purpose.prefixed(message)).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

/// What a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A client's word in a hop's layer that it wants this pipe.
    Layer,
    /// A node's word that another key follows its own.
    NextKey,
}

impl Purpose {
    /// What is signed: the purpose's name, a zero byte, the message. No name begins another.
    fn prefixed(self, message: &[u8]) -> Vec<u8> {
        let name: &[u8] = match self {
            Purpose::Layer => b"relay-chain layer v1\0",
            Purpose::NextKey => b"relay-chain next key v1\0",
        };
        [name, message].concat()
    }
}

/// Whether `signature` is `key`'s, for `purpose`, over `message`. Keys that are no point of the curve, or one with which
/// anybody could sign, have no signatures.
#[must_use]
pub fn verify(key: &PublicKey, purpose: Purpose, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
    let Some(point) = point_of(key) else { return false };
    point.verify_strict(&purpose.prefixed(message), &Signature::from_bytes(signature)).is_ok()
}

/// The point of a key, when it is one that can prove something, and is written in the one form that it has.
pub(crate) fn point_of(key: &PublicKey) -> Option<VerifyingKey> {
    let point = VerifyingKey::from_bytes(key.as_bytes()).ok()?;
    let is_canonical = point.to_edwards().compress().as_bytes() == key.as_bytes();
    (is_canonical && !point.is_weak()).then_some(point)
}

/// A key's SubjectPublicKeyInfo (RFC 8410, section 4), which is what TLS shows for it.
#[must_use]
pub(crate) fn to_spki(key: &PublicKey) -> Option<Vec<u8>> {
    point_of(key)?.to_public_key_der().ok().map(|document| document.into_vec())
}

/// The key in a SubjectPublicKeyInfo, when it is an Ed25519 one that can prove something.
#[must_use]
pub(crate) fn from_spki(der: &[u8]) -> Option<PublicKey> {
    let key = PublicKey::from_bytes(VerifyingKey::from_public_key_der(der).ok()?.to_bytes());
    point_of(&key).map(|_| key)
}

/// Why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The system's random numbers failed.
    #[error("the system gives no random bytes")]
    NoRandomness,
    /// A text that is no key in PEM.
    #[error("this is no Ed25519 private key in PKCS#8 PEM (-----BEGIN PRIVATE KEY-----)")]
    NotPem,
    /// A key that the TLS library does not take.
    #[error("this key cannot be used for TLS")]
    NotForTls,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `openssl genpkey -algorithm ed25519` writes for the first secret key of RFC 8032, section 7.1.
    const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
        -----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    #[test]
    fn the_pem_form_is_what_others_write() {
        for text in [PEM, &PEM.replace('\n', "\r\n"), &format!("{PEM}\n\n"), PEM.trim_end()] {
            let key = SecretKey::from_pem(text).unwrap();
            assert_eq!(key.public().to_string(), PUBLIC);
            assert_eq!(key.to_pem().unwrap().as_str(), PEM);
        }
    }

    #[test]
    fn what_is_no_secret_key() {
        let short = PEM.replace("MC4CAQ", "MC4C");
        let of_another_kind = PEM.replace("K2Vw", "K2Vu");
        let public_label = PEM.replace("PRIVATE", "PUBLIC");
        for text in ["", "key", PUBLIC, &short, &of_another_kind, &public_label] {
            assert_eq!(SecretKey::from_pem(text).unwrap_err(), KeyError::NotPem, "{text}");
        }
    }

    #[test]
    fn a_secret_key_prints_its_public_half_only() {
        let key = SecretKey::from_pem(PEM).unwrap();
        assert_eq!(format!("{key:?}"), format!("SecretKey(of {PUBLIC})"));
    }

    #[test]
    fn a_signature_is_good_for_one_purpose_one_message_and_one_key() {
        let key = SecretKey::generate().unwrap();
        let other = SecretKey::generate().unwrap();
        let signature = key.sign(Purpose::Layer, b"this");
        assert!(verify(&key.public(), Purpose::Layer, b"this", &signature));
        assert!(!verify(&key.public(), Purpose::NextKey, b"this", &signature));
        assert!(!verify(&key.public(), Purpose::Layer, b"that", &signature));
        assert!(!verify(&other.public(), Purpose::Layer, b"this", &signature));
        let mut changed = signature;
        changed[7] ^= 1;
        assert!(!verify(&key.public(), Purpose::Layer, b"this", &changed));
    }

    /// With a point of small order as its key, anybody can make signatures that hold.
    #[test]
    fn a_key_with_which_anybody_could_sign_proves_nothing() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let weak = PublicKey::from_bytes(identity);
        let mut signature = [0; SIGNATURE_LEN];
        signature[0] = 1;
        assert!(!verify(&weak, Purpose::Layer, b"anything", &signature));
        assert_eq!(to_spki(&weak), None);
        let mut der = to_spki(&PUBLIC.parse().unwrap()).unwrap();
        assert_eq!(from_spki(&der).unwrap().to_string(), PUBLIC);
        der[12..].copy_from_slice(&identity);
        assert_eq!(from_spki(&der), None);
    }
}
