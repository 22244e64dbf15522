//! A key's successor: the old key's signed word that another follows it.
//!
//! It means something only under the old key, so it is shown inside TLS in which that one is proved, and nowhere else.

use crate::day::{Day, DayError};
use crate::key::{PublicKey, Purpose, SIGNATURE_LEN, SecretKey, verify};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// The old key's word that `key` follows it, from a day on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct NextKey {
    key: PublicKey,
    from: Day,
    signature: [u8; SIGNATURE_LEN],
}

impl NextKey {
    /// `old` says that `key` follows it.
    #[must_use]
    pub fn new(old: &SecretKey, key: PublicKey, from: Day) -> NextKey {
        let signature = old.sign(Purpose::NextKey, &signed(&old.public(), &key, from));
        NextKey { key, from, signature }
    }

    /// The key that follows.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// From which day on the node means to use it.
    #[must_use]
    pub fn from(&self) -> Day {
        self.from
    }

    /// Whether `old` said so.
    #[must_use]
    pub fn is_signed_by(&self, old: &PublicKey) -> bool {
        verify(old, Purpose::NextKey, &signed(old, &self.key, self.from), &self.signature)
    }
}

/// What is signed: the old key, the new one, the day's text. All have one length each.
fn signed(old: &PublicKey, key: &PublicKey, from: Day) -> Vec<u8> {
    [&old.as_bytes()[..], key.as_bytes(), from.to_string().as_bytes()].concat()
}

/// Its JSON: `{"key": "ed25519:…", "from": "2026-12-01", "signature": "…"}`, the signature in base64url without padding.
#[derive(Serialize, Deserialize)]
struct Wire {
    key: PublicKey,
    from: String,
    signature: String,
}

impl From<NextKey> for Wire {
    fn from(next: NextKey) -> Wire {
        let signature = URL_SAFE_NO_PAD.encode(next.signature);
        Wire { key: next.key, from: next.from.to_string(), signature }
    }
}

impl TryFrom<Wire> for NextKey {
    type Error = NextKeyError;

    fn try_from(wire: Wire) -> Result<NextKey, NextKeyError> {
        let signature = URL_SAFE_NO_PAD.decode(wire.signature).map_err(|_| NextKeyError::Signature)?;
        let signature = signature.try_into().map_err(|_| NextKeyError::Signature)?;
        Ok(NextKey { key: wire.key, from: wire.from.parse()?, signature })
    }
}

/// Why a text announces no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NextKeyError {
    /// The day.
    #[error(transparent)]
    Day(#[from] DayError),
    /// Not 64 bytes in base64url.
    #[error("a signature is 86 letters, digits, `-` and `_`")]
    Signature,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_old_key_announces_and_only_this() {
        let (old, next) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let said = NextKey::new(&old, next.public(), "2026-12-01".parse().unwrap());
        assert!(said.is_signed_by(&old.public()));
        assert!(!said.is_signed_by(&next.public()));
        let earlier = NextKey { from: "2026-11-01".parse().unwrap(), ..said.clone() };
        let another = NextKey { key: old.public(), ..said.clone() };
        assert!(!earlier.is_signed_by(&old.public()) && !another.is_signed_by(&old.public()));
    }

    #[test]
    fn the_json_form() {
        let (old, next) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let said = NextKey::new(&old, next.public(), "2026-12-01".parse().unwrap());
        let json = serde_json::to_string(&said).unwrap();
        assert_eq!(serde_json::from_str::<NextKey>(&json).unwrap(), said);
        for (good, bad) in
            [("2026-12-01", "2026-13-01"), ("signature\":\"", "signature\":\"A"), ("ed25519", "ed448")]
        {
            assert!(serde_json::from_str::<NextKey>(&json.replace(good, bad)).is_err(), "{bad}");
        }
    }
}
