//! `Cache-Status` (RFC 9211): what the cache did, as one member behind those of caches nearer to the origin.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt::Write as _;

/// How this cache calls itself.
pub const CACHE_NAME: &str = "relay-node";

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Why a request went on to the origin (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// The cache takes no part in such requests.
    Bypass,
    /// The method is not one that can be answered from a cache.
    Method,
    /// Nothing is stored for the URI.
    UriMiss,
    /// Nothing is stored for the request's fields.
    VaryMiss,
    /// The client asked for it.
    Request,
    /// What is stored is stale.
    Stale,
}

/// What the cache did.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    forward: Option<Forward>,
    status: Option<u16>,
    stored: bool,
    collapsed: bool,
    seconds_to_live: Option<i64>,
    detail: Option<&'static str>,
}

impl Told {
    /// It answered from what was stored.
    pub fn hit() -> Self {
        Self {
            forward: None,
            status: None,
            stored: false,
            collapsed: false,
            seconds_to_live: None,
            detail: None,
        }
    }

    /// It asked the origin.
    pub fn forwarded(forward: Forward) -> Self {
        Self { forward: Some(forward), ..Self::hit() }
    }

    /// The origin answered with this status, not the one that is sent on.
    pub fn status(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }

    /// The answer is kept.
    pub fn stored(self) -> Self {
        Self { stored: true, ..self }
    }

    /// Another request's answer was used.
    pub fn collapsed(self) -> Self {
        Self { collapsed: true, ..self }
    }

    /// For how long the answer is fresh.
    pub fn lives(self, seconds: i64) -> Self {
        Self { seconds_to_live: Some(seconds), ..self }
    }

    /// More about it, a token.
    pub fn because(self, detail: &'static str) -> Self {
        Self { detail: Some(detail), ..self }
    }

    /// Adds the member to an answer's fields.
    pub fn add_to(self, fields: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(&self.text()) {
            fields.append(CACHE_STATUS, value);
        }
    }

    fn text(self) -> String {
        let mut text = String::from(CACHE_NAME);
        match self.forward {
            None => text.push_str("; hit"),
            Some(forward) => {
                text.push_str("; fwd=");
                text.push_str(forward.token());
            }
        }
        if let Some(status) = self.status {
            // Writing to a String cannot fail.
            _ = write!(text, "; fwd-status={status}");
        }
        if self.stored {
            text.push_str("; stored");
        }
        if self.collapsed {
            text.push_str("; collapsed");
        }
        if let Some(seconds) = self.seconds_to_live {
            _ = write!(text, "; ttl={seconds}");
        }
        if let Some(detail) = self.detail {
            _ = write!(text, "; detail={detail}");
        }
        text
    }
}

impl Forward {
    fn token(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_read_as_the_rfc_writes_them() {
        assert_eq!(Told::hit().lives(376).text(), "relay-node; hit; ttl=376");
        assert_eq!(Told::forwarded(Forward::UriMiss).stored().text(), "relay-node; fwd=uri-miss; stored");
        assert_eq!(
            Told::forwarded(Forward::Stale).status(304).lives(-2).because("x").text(),
            "relay-node; fwd=stale; fwd-status=304; ttl=-2; detail=x"
        );
        assert_eq!(
            Told::forwarded(Forward::VaryMiss).collapsed().text(),
            "relay-node; fwd=vary-miss; collapsed"
        );
    }
}
