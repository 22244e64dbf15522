//! The client's end: a layer for every hop whose key is known, from the last to the first.

use super::answer::AnswerOpener;
use super::content::{Bytes, Content, Secret};
use super::{Aead, INFO, Kdf, Kem, agreement_key, hash_of, signed};
use crate::key::{PublicKey, Purpose, SecretKey};
use crate::token::Token;
use hpke::{OpModeS, Serializable, setup_sender};
use relay_proto::address::Hop;
use relay_proto::hop::ConnectionId;
use relay_proto::sealed::SealedLayer;
use std::time::SystemTime;
use zeroize::Zeroizing;

/// A hop whose key is known.
#[derive(Debug, Clone, Copy)]
pub struct Stop<'a> {
    /// Where it is.
    pub hop: &'a Hop,
    /// Its key.
    pub key: &'a PublicKey,
    /// What proves to it that the client may be relayed.
    pub proof: Proof<'a>,
}

/// What a hop is shown so that it relays.
#[derive(Debug, Clone, Copy)]
pub enum Proof<'a> {
    /// Nothing: it relays for anyone, or is the origin, whose layer grants nothing.
    None,
    /// The client's key signs for this hop and this pipe.
    Key(&'a SecretKey),
    /// A token. Layers have no forward secrecy, so it should be good for relaying alone.
    Token(&'a Token),
}

/// A route as it goes into an `open`, and what opens its answers.
#[derive(Debug)]
pub struct SealedRoute {
    /// A layer for every stop, in order.
    pub layers: Vec<SealedLayer>,
    /// What opens each stop's answers, in order.
    pub answers: Vec<AnswerOpener>,
}

/// Why a route cannot be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// A key that nothing can be sealed to.
    #[error("nothing can be sealed to {0}: it is no Ed25519 key that anybody can have")]
    Key(PublicKey),
    /// The hops in plain do not fit the last layer.
    #[error("the hops behind the last known key are too many for a layer")]
    Long,
}

/// Seals the route along `stops`, and from there along `plain`, whose keys are not known, at the time that the client's clock
/// shows. Without stops there is nothing to seal, and no layer.
///
/// # Errors
/// A key that is none, or too many hops in plain.
pub fn seal(
    id: ConnectionId,
    stops: &[Stop<'_>],
    plain: &[Hop],
    now: SystemTime,
) -> Result<SealedRoute, SealError> {
    let at = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (mut layers, mut answers) = (Vec::new(), Vec::new());
    for (index, stop) in stops.iter().enumerate().rev() {
        let content = content(id, stop, stops.get(index + 1), plain, at, hash_of(&layers));
        let json = content.encode().ok_or(SealError::Long)?;
        let (layer, opener) = seal_one(id, stop.key, &json)?;
        layers.insert(0, layer);
        answers.insert(0, opener);
    }
    Ok(SealedRoute { layers, answers })
}

fn content(
    id: ConnectionId,
    stop: &Stop<'_>,
    next: Option<&Stop<'_>>,
    plain: &[Hop],
    at: u64,
    behind: [u8; 32],
) -> Content {
    let mut content = Content {
        at,
        behind: Bytes(behind),
        next: next.map(|next| next.hop.clone()),
        key: next.map(|next| *next.key),
        hops: None,
        client: None,
        signature: None,
        token: None,
    };
    if let (None, Some((first, others))) = (next, plain.split_first()) {
        content.next = Some(first.clone());
        content.hops = Some(others.to_vec());
    }
    match stop.proof {
        Proof::None => {}
        Proof::Key(secret) => {
            content.client = Some(secret.public());
            content.signature = Some(Bytes(secret.sign(Purpose::Layer, &signed(stop.key, id, &behind))));
        }
        Proof::Token(token) => content.token = Some(Secret(Zeroizing::new(token.expose().to_owned()))),
    }
    content
}

pub(super) fn seal_one(
    id: ConnectionId,
    key: &PublicKey,
    json: &[u8],
) -> Result<(SealedLayer, AnswerOpener), SealError> {
    let no_key = || SealError::Key(*key);
    let recipient = agreement_key(key).ok_or_else(no_key)?;
    let (encapsulated, mut context) =
        setup_sender::<Aead, Kdf, Kem>(&OpModeS::Base, &recipient, INFO).map_err(|_| no_key())?;
    let ciphertext = context.seal(json, id.to_string().as_bytes()).map_err(|_| no_key())?;
    let bytes = [encapsulated.to_bytes().as_slice(), &ciphertext].concat();
    let layer = SealedLayer::new(bytes).ok_or(SealError::Long)?;
    Ok((layer, AnswerOpener::of(id, &context).ok_or_else(no_key)?))
}
