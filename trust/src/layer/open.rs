//! A node's end: the first layer opened, checked against those behind it, its signature too.

use super::answer::AnswerSealer;
use super::content::{Content, Onward};
use super::{Aead, ENCAPSULATED, INFO, Kdf, Kem, agreement_secret, hash_of, signed};
use crate::access::Credentials;
use crate::key::{PublicKey, Purpose, SecretKey, verify};
use crate::token::{Token, TokenHash};
use hpke::{Deserializable, Kem as KemTrait, OpModeR, setup_receiver};
use relay_proto::hop::ConnectionId;
use relay_proto::sealed::SealedLayer;
use zeroize::Zeroizing;

/// What a node reads in its layer. It has been proved that the layer was made for this node and this id, and that the layers
/// behind it are those that its maker put there; not when, nor that it comes for the first time.
#[derive(Debug)]
pub struct OpenedLayer {
    /// Where to go on to; none: this node is the origin.
    pub onward: Option<Onward>,
    /// When the client made it, in seconds since 1970, by its own clock: for [`super::check_time`].
    pub at: u64,
    /// The layer's hash: for [`super::Replays`].
    pub hash: [u8; 32],
    /// The client's key, whose signature held.
    pub client: Option<PublicKey>,
    /// The hash of the token for relaying.
    pub token: Option<TokenHash>,
    /// Seals what this node answers.
    pub answers: AnswerSealer,
}

impl OpenedLayer {
    /// Who asks to be relayed.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        Credentials { key: self.client, token: self.token }
    }
}

/// Why a layer is refused. The caller tells its own log; a peer hears only that the layer is of no use here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// There is none.
    #[error("the open has no layer for this node")]
    Missing,
    /// It was made for another key or another id, or was changed.
    #[error(
        "the layer does not open: it was made for another key or another connection, or was changed on the way"
    )]
    Closed,
    /// It opens, and says nothing that can be followed.
    #[error("the layer opens, but cannot be read")]
    Unreadable,
    /// The layers behind it are not those that it names.
    #[error("the layers behind this one were changed on the way")]
    Changed,
    /// The client's signature does not hold.
    #[error("the layer's signature does not hold")]
    Signature,
    /// What stands where a token must stand is none.
    #[error("the layer's token is none")]
    Token,
}

/// Opens the first of `layers`, those of an `open` with this `id`.
///
/// # Errors
/// When it was not made for this node, this id and the layers behind it.
pub fn open(secret: &SecretKey, id: ConnectionId, layers: &[SealedLayer]) -> Result<OpenedLayer, LayerError> {
    let (first, behind) = layers.split_first().ok_or(LayerError::Missing)?;
    let (json, answers) = unseal(secret, id, first).ok_or(LayerError::Closed)?;
    let content = Content::decode(&json, behind.len()).ok_or(LayerError::Unreadable)?;
    if content.behind.0 != hash_of(behind) {
        return Err(LayerError::Changed);
    }
    if let (Some(client), Some(signature)) = (&content.client, &content.signature)
        && !verify(client, Purpose::Layer, &signed(&secret.public(), id, &content.behind.0), &signature.0)
    {
        return Err(LayerError::Signature);
    }
    let token = content.token.as_ref().map(|token| token.0.parse::<Token>());
    let token = token.transpose().map_err(|_| LayerError::Token)?;
    Ok(OpenedLayer {
        onward: content.onward(),
        at: content.at,
        hash: hash_of(std::slice::from_ref(first)),
        client: content.client,
        token: token.map(|token| token.hash()),
        answers,
    })
}

fn unseal(
    secret: &SecretKey,
    id: ConnectionId,
    layer: &SealedLayer,
) -> Option<(Zeroizing<Vec<u8>>, AnswerSealer)> {
    let (encapsulated, ciphertext) = layer.as_bytes().split_at_checked(ENCAPSULATED)?;
    let encapsulated = <Kem as KemTrait>::EncappedKey::from_bytes(encapsulated).ok()?;
    let secret = agreement_secret(secret)?;
    let mut context = setup_receiver::<Aead, Kdf, Kem>(&OpModeR::Base, &secret, &encapsulated, INFO).ok()?;
    let json = context.open(ciphertext, id.to_string().as_bytes()).ok()?;
    Some((Zeroizing::new(json), AnswerSealer::of(id, &context)?))
}
