//! What a response is stored under: the absolute URI that it was asked for by (RFC 9111 §2), as a text and as a short
//! hash of it. Entries keep the text, so that two texts with one hash can never be taken for each other.
//!
//! A key may have a realm behind its URI: what was fetched in one realm is not there for requests of another.

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

    /// The key for an absolute URI in this realm.
    pub fn within(uri: &str, realm: &str) -> Self {
        // No URI has a space.
        Self::new(format!("{uri} {realm}"))
    }

    /// The key for another URI in the same realm.
    pub fn beside(&self, uri: String) -> Self {
        match self.text.split_once(' ') {
            Some((_, realm)) => Self::within(&uri, realm),
            None => Self::new(uri),
        }
    }

    /// The text without the realm.
    pub fn uri(&self) -> &str {
        self.text.split_once(' ').map_or(&self.text, |(uri, _)| uri)
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

    #[test]
    fn realms_keep_things_apart() {
        let key = Key::within("http://a/x", "one");
        assert_eq!(key.uri(), "http://a/x");
        assert_ne!(key.id(), Key::within("http://a/x", "two").id());
        assert_ne!(key.id(), Key::new("http://a/x").id());
        assert_eq!(key.beside("http://a/y".to_owned()), Key::within("http://a/y", "one"));
        assert_eq!(Key::new("http://a/x").beside("http://a/y".to_owned()), Key::new("http://a/y"));
    }
}
