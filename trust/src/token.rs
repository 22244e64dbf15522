//! Tokens: secrets that stand for a person, and the hashes by which a node knows them.
//!
//! A token is shown once, when it is made. A node keeps its hash only, so its rules file gives nobody away. What is compared are
//! hashes, and in constant time.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use std::str::FromStr;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// What every token begins with, so that programs that look for leaked secrets find it.
const PREFIX: &str = "relaytoken_";
/// Characters behind the prefix: 32 bytes in base64url without padding.
const ENCODED: usize = 43;

/// 32 random bytes, written `relaytoken_` and 43 characters of base64url. It cannot be printed, and is wiped when it goes.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// A new token of the system's randomness.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate() -> Result<Token, TokenError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|_| TokenError::NoRandomness)?;
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + ENCODED));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(bytes.as_slice(), &mut text);
        Ok(Token(text))
    }

    /// The token itself, to be handed to its owner or to a node over TLS, and to nobody else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// By what a node knows it: the BLAKE3 hash of its text, prefix included.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(*blake3::hash(self.0.as_bytes()).as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl FromStr for Token {
    type Err = TokenError;

    /// Reads a token; white space around it, as a file has, is not part of it.
    fn from_str(text: &str) -> Result<Token, TokenError> {
        let text = text.trim_ascii();
        let encoded = text.strip_prefix(PREFIX).ok_or(TokenError::Text)?;
        if encoded.len() != ENCODED {
            return Err(TokenError::Text);
        }
        URL_SAFE_NO_PAD.decode(encoded).map(Zeroizing::new).map_err(|_| TokenError::Text)?;
        Ok(Token(Zeroizing::new(text.to_owned())))
    }
}

/// Why there is no token. The text that was none is not in it: it might be one but for a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The system's random numbers failed.
    #[error("the system gives no random bytes")]
    NoRandomness,
    /// No token's form.
    #[error(
        "this is no token: one is written {PREFIX} and {ENCODED} letters, digits, `-` and `_`; was it cut?"
    )]
    Text,
}

/// A token's hash, written `b3:` and 64 hex digits. Equality takes the same time for all hashes.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl PartialEq for TokenHash {
    fn eq(&self, other: &TokenHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b3:{}", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no token's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenHashError {
    /// No hash's form.
    #[error("a token's hash is written b3: and 64 hex digits; `relay-node grant` writes it")]
    Text,
    /// The secret itself, where it must not stand. It is not repeated.
    #[error(
        "this is a token itself; only its hash belongs here. Whoever read this file has the token: make a new one"
    )]
    Secret,
}

impl FromStr for TokenHash {
    type Err = TokenHashError;

    fn from_str(text: &str) -> Result<TokenHash, TokenHashError> {
        if text.contains(PREFIX) {
            return Err(TokenHashError::Secret);
        }
        let hex = text.strip_prefix("b3:").ok_or(TokenHashError::Text)?;
        blake3::Hash::from_hex(hex).map(|hash| TokenHash(*hash.as_bytes())).map_err(|_| TokenHashError::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "relaytoken_11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    #[test]
    fn a_token_is_read_as_it_was_made() {
        let made = Token::generate().unwrap();
        assert_eq!(made.expose().len(), PREFIX.len() + ENCODED);
        let read: Token = format!("  {}\r\n", made.expose()).parse().unwrap();
        assert_eq!(read.hash(), made.hash());
        assert_ne!(Token::generate().unwrap().hash(), made.hash());
    }

    #[test]
    fn what_is_no_token_is_not_repeated() {
        let cut = &TOKEN[..TOKEN.len() - 1];
        let stray = TOKEN.replace('o', "p");
        for text in ["", "relaytoken_", cut, &stray, &TOKEN[11..], &TOKEN.to_uppercase()] {
            let error = text.parse::<Token>().unwrap_err();
            assert_eq!(error, TokenError::Text, "{text}");
            assert!(!error.to_string().contains("11qYAY"));
        }
    }

    #[test]
    fn no_secret_is_printed() {
        let token: Token = TOKEN.parse().unwrap();
        assert_eq!(format!("{token:?}"), "Token(…)");
    }

    #[test]
    fn a_hash_is_what_b3sum_prints() {
        let hash = TOKEN.parse::<Token>().unwrap().hash();
        assert_eq!(hash.to_string(), format!("b3:{}", blake3::hash(TOKEN.as_bytes()).to_hex()));
        assert_eq!(hash.to_string().parse::<TokenHash>(), Ok(hash));
        assert_eq!("b3:00".parse::<TokenHash>(), Err(TokenHashError::Text));
        let error = TOKEN.parse::<TokenHash>().unwrap_err();
        assert_eq!(error, TokenHashError::Secret);
        assert!(!error.to_string().contains("11qYAY"));
    }
}
