//! Sealed bytes as they are written: layers of an `open`, and the answers to them.
//!
//! What is in them, and who can open them, is not this crate's business.

use crate::limits::{MAX_ANSWER, MAX_LAYER};
use alloc::string::String;
use alloc::vec::Vec;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Bytes that somebody sealed, at most `MAX` of them. In JSON they are base64url (RFC 4648, section 5) without padding.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sealed<const MAX: usize>(Vec<u8>);

/// The part of an `open` that one node can read.
pub type SealedLayer = Sealed<MAX_LAYER>;
/// The part of a `hello` or a `failed` that only the client can read.
pub type SealedAnswer = Sealed<MAX_ANSWER>;

impl<const MAX: usize> Sealed<MAX> {
    /// These bytes; none when they are too many.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Option<Sealed<MAX>> {
        (bytes.len() <= MAX).then_some(Sealed(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Sealed<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// Why a text is nothing sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sealed bytes are base64url without padding, and not too many")]
pub struct SealedError;

impl<const MAX: usize> TryFrom<String> for Sealed<MAX> {
    type Error = SealedError;

    fn try_from(text: String) -> Result<Self, SealedError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| SealedError)?;
        Sealed::new(bytes).ok_or(SealedError)
    }
}

impl<const MAX: usize> From<Sealed<MAX>> for String {
    fn from(sealed: Sealed<MAX>) -> String {
        URL_SAFE_NO_PAD.encode(sealed.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn text_form() {
        let sealed = SealedLayer::new([0xfb, 0xff, 0x00].into()).unwrap();
        assert_eq!(serde_json::to_string(&sealed).unwrap(), "\"-_8A\"");
        assert_eq!(serde_json::from_str::<SealedLayer>("\"-_8A\"").unwrap(), sealed);
        for bad in ["+/8A", "-_8A=", "-_9", "-_8 A"] {
            assert_eq!(SealedLayer::try_from(bad.to_string()), Err(SealedError), "{bad}");
        }
    }

    #[test]
    fn so_many_bytes_and_no_more() {
        let most: Vec<u8> = core::iter::repeat_n(7, MAX_ANSWER).collect();
        let text = String::from(SealedAnswer::new(most.clone()).unwrap());
        assert_eq!(SealedAnswer::try_from(text).unwrap().as_bytes(), most);
        let more: Vec<u8> = core::iter::repeat_n(7, MAX_ANSWER + 1).collect();
        assert_eq!(SealedAnswer::new(more.clone()), None);
        assert_eq!(SealedAnswer::try_from(URL_SAFE_NO_PAD.encode(more)), Err(SealedError));
    }
}
