//! What stands in a layer, as JSON. It is padded with spaces, so that its length says little about the names in it.

use crate::key::{PublicKey, SIGNATURE_LEN};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use relay_proto::address::Hop;
use relay_proto::limits::MAX_HOPS;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A layer's JSON is padded to a multiple of so many bytes.
const PADDING: usize = 256;

/// Where a node sends an `open` on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onward {
    /// The next hop.
    pub next: Hop,
    /// Its key, when it is known.
    pub key: Option<PublicKey>,
    /// What it gets.
    pub beyond: Beyond,
}

/// What the next hop gets in its `open`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beyond {
    /// The layers behind this one.
    Layers,
    /// Hops in plain, because no key is known from the next hop on.
    Plain(Vec<Hop>),
}

/// A layer's JSON.
#[derive(Serialize, Deserialize)]
pub struct Content {
    /// When the client made it, in seconds since 1970, by its own clock.
    pub at: u64,
    /// The hash of the layers behind.
    pub behind: Bytes<32>,
    /// The next hop; none: this node is the origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Hop>,
    /// The next hop's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PublicKey>,
    /// The hops behind the next one, when it gets them in plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hops: Option<Vec<Hop>>,
    /// Who wants this pipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<PublicKey>,
    /// His word for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Bytes<SIGNATURE_LEN>>,
    /// Or his token for relaying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

impl Content {
    /// Its JSON with its padding.
    pub fn encode(&self) -> Option<Zeroizing<Vec<u8>>> {
        let mut json = Zeroizing::new(serde_json::to_vec(self).ok()?);
        let padded = json.len().next_multiple_of(PADDING);
        json.resize(padded, b' ');
        Some(json)
    }

    /// Reads what was opened. `behind` says how many layers came behind it.
    pub fn decode(json: &[u8], behind: usize) -> Option<Content> {
        let content: Content = serde_json::from_slice(json).ok()?;
        let fits = match (&content.next, &content.hops) {
            (None, None) => behind == 0 && content.key.is_none(),
            (None, Some(_)) => false,
            (Some(_), None) => behind > 0,
            (Some(_), Some(hops)) => behind == 0 && hops.len() < MAX_HOPS,
        };
        let is_signed = content.client.is_some() == content.signature.is_some();
        (fits && is_signed).then_some(content)
    }

    /// Where it goes on to.
    pub fn onward(&self) -> Option<Onward> {
        let beyond = self.hops.clone().map_or(Beyond::Layers, Beyond::Plain);
        Some(Onward { next: self.next.clone()?, key: self.key, beyond })
    }
}

/// So many bytes, in base64url without padding.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes<const N: usize>(pub [u8; N]);

impl<const N: usize> From<Bytes<N>> for String {
    fn from(bytes: Bytes<N>) -> String {
        URL_SAFE_NO_PAD.encode(bytes.0)
    }
}

impl<const N: usize> TryFrom<String> for Bytes<N> {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| "not base64url")?;
        bytes.try_into().map(Bytes).map_err(|_| "another number of bytes")
    }
}

/// A text that is wiped when it goes.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub Zeroizing<String>);
