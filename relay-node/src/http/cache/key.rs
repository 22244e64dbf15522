//! What a response is stored under: the absolute URI that it was asked for by (RFC 9111 §2), as a text and as a short
//! hash of it. Entries keep the text, so that two texts with one hash can never be taken for each other.

use std::fmt;

/// The key of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    text: String,
    id: KeyId,
}

/// A key's hash; printed as 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 16]);

impl Key {
    /// The key for an absolute URI, or for any other text that names what is fetched.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let hash = blake3::hash(text.as_bytes());
        let mut id = [0; 16];
        for (place, byte) in id.iter_mut().zip(hash.as_bytes()) {
            *place = *byte;
        }
        Self { text, id: KeyId(id) }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its hash.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

impl KeyId {
    /// Reads what [`fmt::Display`] prints.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|number| Self(number.to_be_bytes()))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_print_and_read_back() {
        let id = Key::new("http://a/").id();
        assert_eq!(KeyId::parse(&id.to_string()), Some(id));
        assert_ne!(Key::new("http://b/").id(), id);
        assert_eq!(KeyId::parse("xyz"), None);
        assert_eq!(KeyId::parse(&"g".repeat(32)), None);
    }
}
