//! A key as it is written: the 32 bytes of an Ed25519 public key (RFC 8032), which is who a node or a client is.
//!
//! Only reading and writing belong in here. Whether the bytes are a point of the curve shows when something is proved with
//! them, and that is not this crate's business.

use alloc::string::String;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// What stands in front of a key's 43 characters.
const PREFIX: &str = "ed25519:";

/// An Ed25519 public key: the identity of a node or of a client. Its text is `ed25519:` and 43 characters of base64url
/// (RFC 4648, section 5) without padding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> PublicKey {
        PublicKey(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyTextError {
    /// Another prefix, or none.
    #[error("a key is written ed25519: and 43 letters, digits, `-` and `_`")]
    Prefix,
    /// Not 43 characters behind the prefix.
    #[error("a key has 43 characters behind ed25519:, this has {0}; was it cut?")]
    Length(usize),
    /// Characters that are not base64url, or a last one that no 32 bytes end in.
    #[error("this is no key: behind ed25519: come letters, digits, `-` and `_`; copy it again as a whole")]
    Characters,
}

impl FromStr for PublicKey {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<PublicKey, KeyTextError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(KeyTextError::Prefix)?;
        if encoded.len() != 43 {
            return Err(KeyTextError::Length(encoded.chars().count()));
        }
        // The engine refuses stray bits in the last character, so one key has one text.
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| KeyTextError::Characters)?;
        bytes.try_into().map(PublicKey).map_err(|_| KeyTextError::Characters)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyTextError;

    fn try_from(text: String) -> Result<PublicKey, KeyTextError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        alloc::format!("{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    /// The first public key of RFC 8032, section 7.1.
    const KEY: &str = "ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    #[test]
    fn text_form() {
        let key: PublicKey = KEY.parse().unwrap();
        assert_eq!(key.as_bytes()[..4], [0xd7, 0x5a, 0x98, 0x01]);
        assert_eq!(key.to_string(), KEY);
        assert_eq!(serde_json::to_string(&key).unwrap(), alloc::format!("\"{KEY}\""));
        assert_eq!(serde_json::from_str::<PublicKey>(&alloc::format!("\"{KEY}\"")).unwrap(), key);
    }

    #[test]
    fn what_is_no_key() {
        let bad = |text: &str, error| assert_eq!(text.parse::<PublicKey>(), Err(error), "{text}");
        bad("", KeyTextError::Prefix);
        bad("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", KeyTextError::Prefix);
        bad("ED25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", KeyTextError::Prefix);
        bad("ed25519:", KeyTextError::Length(0));
        bad("ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHUR", KeyTextError::Length(42));
        bad("ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=", KeyTextError::Length(44));
        bad("ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo", KeyTextError::Characters);
        bad("ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURp", KeyTextError::Characters);
        bad("ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHUé", KeyTextError::Characters);
    }
}
