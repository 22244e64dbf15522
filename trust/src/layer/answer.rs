//! The sealed part of `hello` and `failed`: what a node says to the client alone, in a size that says nothing.
//!
//! Each of the two has a key of its own, which HPKE's context exports to both ends and which seals one message; so the node takes
//! the key away with its use, and no nonce can come twice.

use super::{Aead, Kdf, Kem};
use chacha20poly1305::aead::{Aead as _, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use hpke::aead::{AeadCtxR, AeadCtxS};
use relay_proto::hop::{ConnectionId, Failed, Hello};
use relay_proto::limits::MAX_ANSWER;
use relay_proto::sealed::SealedAnswer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use zeroize::Zeroizing;

/// A `hello`'s JSON is padded to so many bytes.
const HELLO_LEN: usize = 256;
/// A `failed`'s JSON is padded to so many bytes, which its longest message and name take.
const FAILED_LEN: usize = 2560;
const _: () = assert!(FAILED_LEN + 16 == MAX_ANSWER, "the largest answer with its tag");

type AnswerKey = Zeroizing<[u8; 32]>;

/// The two keys of a layer's answers.
struct AnswerKeys {
    hello: AnswerKey,
    failed: AnswerKey,
}

impl AnswerKeys {
    /// `export` is that of a layer's context.
    fn of(export: impl Fn(&[u8], &mut [u8]) -> bool) -> Option<AnswerKeys> {
        let key = |label: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            export(label, key.as_mut_slice()).then_some(key)
        };
        Some(AnswerKeys { hello: key(b"relay-chain hello v1")?, failed: key(b"relay-chain failed v1")? })
    }
}

/// A node's end: seals one `hello` and one `failed`.
pub struct AnswerSealer {
    id: ConnectionId,
    hello: Option<AnswerKey>,
    failed: Option<AnswerKey>,
}

impl AnswerSealer {
    pub(super) fn of(id: ConnectionId, context: &AeadCtxR<Aead, Kdf, Kem>) -> Option<AnswerSealer> {
        let keys = AnswerKeys::of(|label, out| context.export(label, out).is_ok())?;
        Some(AnswerSealer { id, hello: Some(keys.hello), failed: Some(keys.failed) })
    }

    /// Seals the one `hello`; none when there was one before.
    pub fn hello(&mut self, hello: &Hello) -> Option<SealedAnswer> {
        seal(&self.hello.take()?, self.id, hello, HELLO_LEN)
    }

    /// Seals the one `failed`; none when there was one before.
    pub fn failed(&mut self, failed: &Failed) -> Option<SealedAnswer> {
        seal(&self.failed.take()?, self.id, failed, FAILED_LEN)
    }
}

impl fmt::Debug for AnswerSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnswerSealer({})", self.id)
    }
}

/// The client's end, for one node.
pub struct AnswerOpener {
    id: ConnectionId,
    keys: AnswerKeys,
}

impl AnswerOpener {
    pub(super) fn of(id: ConnectionId, context: &AeadCtxS<Aead, Kdf, Kem>) -> Option<AnswerOpener> {
        AnswerKeys::of(|label, out| context.export(label, out).is_ok()).map(|keys| AnswerOpener { id, keys })
    }

    /// What this node said in its `hello`; none when it was not this node that said it, or not now.
    #[must_use]
    pub fn hello(&self, sealed: &SealedAnswer) -> Option<Hello> {
        open(&self.keys.hello, self.id, sealed)
    }

    /// What this node said in its `failed`; none when it was not this node that said it, or not now.
    #[must_use]
    pub fn failed(&self, sealed: &SealedAnswer) -> Option<Failed> {
        open(&self.keys.failed, self.id, sealed)
    }
}

impl fmt::Debug for AnswerOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnswerOpener({})", self.id)
    }
}

fn seal(key: &AnswerKey, id: ConnectionId, answer: &impl Serialize, length: usize) -> Option<SealedAnswer> {
    let mut json = serde_json::to_vec(answer).ok()?;
    if json.len() > length {
        return None;
    }
    json.resize(length, b' ');
    let cipher = ChaCha20Poly1305::new(&Key::from(**key));
    let id = id.to_string();
    let sealed = cipher.encrypt(&Nonce::default(), Payload { msg: &json, aad: id.as_bytes() });
    SealedAnswer::new(sealed.ok()?)
}

fn open<T: DeserializeOwned>(key: &AnswerKey, id: ConnectionId, sealed: &SealedAnswer) -> Option<T> {
    let cipher = ChaCha20Poly1305::new(&Key::from(**key));
    let id = id.to_string();
    let payload = Payload { msg: sealed.as_bytes(), aad: id.as_bytes() };
    let json = cipher.decrypt(&Nonce::default(), payload).ok()?;
    serde_json::from_slice(&json).ok()
}
