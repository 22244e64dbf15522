//! Layers: an `open` of which each node can read its own part only, and answers that only the client can read.
//!
//! The parts lie side by side in a flat list, each sealed to one node with HPKE (RFC 9180, base mode) and bound to the pipe's id. Each
//! says where to go next, when it was made, and what lies behind it, so that no part can be moved, swapped or used again later.
//! Clocks, files and the wire are the caller's; nothing in here decides who may do what.
//!
//! ```text
//! client                                   node 1                                     node 2
//!   | seal(id, stops) ── layers 1, 2 ───────▶ open(secret, id, layers) ── layer 2 ──────▶ open(…): the origin
//!   | AnswerOpener 1 ◀── sealed hello ─────── AnswerSealer
//!   | AnswerOpener 2 ◀── passed on unread ─────────────────── sealed hello ────────────── AnswerSealer
//! ```

mod answer;
mod content;
mod open;
mod replay;
mod seal;

pub use answer::{AnswerOpener, AnswerSealer};
pub use content::{Beyond, Onward};
pub use open::{LayerError, OpenedLayer, open};
pub use replay::{ALLOWED_DIFFERENCE, ReplayError, Replays, Seen, TimeError, check_time};
pub use seal::{Proof, SealError, SealedRoute, Stop, seal};

use crate::key::{PublicKey, SecretKey, point_of};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem as KemTrait};
use relay_proto::hop::ConnectionId;
use relay_proto::sealed::SealedLayer;

/// The suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305 (RFC 9180, section 7).
type Kem = X25519HkdfSha256;
type Kdf = HkdfSha256;
type Aead = ChaCha20Poly1305;

/// HPKE's `info`: what the key schedule is for.
const INFO: &[u8] = b"relay-chain layer v1";
/// Bytes of the encapsulated key in front of a layer's ciphertext.
const ENCAPSULATED: usize = 32;

/// What a layer says of those behind it: the BLAKE3 hash of each one's length (4 bytes, the most significant first) and bytes.
fn hash_of(layers: &[SealedLayer]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for layer in layers {
        // A layer is far shorter than 4 GiB.
        hasher.update(&u32::try_from(layer.as_bytes().len()).unwrap_or(u32::MAX).to_be_bytes());
        hasher.update(layer.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// What a client signs in a layer: this hop's key, the id as it is written, the hash of the layers behind.
fn signed(hop: &PublicKey, id: ConnectionId, behind: &[u8; 32]) -> Vec<u8> {
    [&hop.as_bytes()[..], id.to_string().as_bytes(), behind].concat()
}

/// The X25519 form of a hop's key (RFC 7748, section 4.1), to which its layers are sealed.
fn agreement_key(key: &PublicKey) -> Option<<Kem as KemTrait>::PublicKey> {
    let montgomery = point_of(key)?.to_montgomery();
    <Kem as KemTrait>::PublicKey::from_bytes(montgomery.as_bytes()).ok()
}

/// The secret half of that form.
fn agreement_secret(key: &SecretKey) -> Option<<Kem as KemTrait>::PrivateKey> {
    <Kem as KemTrait>::PrivateKey::from_bytes(key.agreement_scalar().as_slice()).ok()
}

/// Reads what stands in a layer, behind which so many others came, and checks that what was read is written and read again. For
/// fuzz targets alone: without the sealing, which no input gets through.
#[cfg(any(fuzzing, feature = "fuzzing"))]
#[must_use]
pub fn read_content(json: &[u8], behind: usize) -> Option<Option<Onward>> {
    let content = content::Content::decode(json, behind)?;
    let again = content.encode().and_then(|json| content::Content::decode(&json, behind));
    debug_assert!(again.is_some_and(|again| again.onward() == content.onward()), "written and not read");
    Some(content.onward())
}

#[cfg(test)]
mod tests;
