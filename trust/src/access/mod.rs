//! Access rules: who may read, write, relay and register. What no rule allows is denied.
//!
//! Rules are one TOML file, read whole or not at all. Deciding is a matter of who asks, for what, and when, and of nothing else: a
//! decision can be made again at any time, from the rules then in force. An address, a link's key and a `hello` never say who asks.

mod edit;
mod paths;
mod read;

pub use edit::{EditError, Grant, grant, revoke};
pub use paths::{PathRule, PathRuleError};
pub use read::{AccessError, AccessErrors, MAX_ACCESS_FILE};

use crate::key::PublicKey;
use crate::next_hop::{Lookup, NextHopPolicy};
use crate::token::TokenHash;
use relay_proto::address::Hop;
use std::net::SocketAddr;
use std::time::SystemTime;

/// All rules of a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AccessRules {
    whos: Vec<Who>,
}

/// One `[[who]]`: whom it is for, and what they may.
#[derive(Debug, Clone, PartialEq)]
pub struct Who {
    name: String,
    keys: Vec<PublicKey>,
    tokens: Vec<TokenHash>,
    anyone: bool,
    read: Vec<PathRule>,
    write: Vec<PathRule>,
    relay: NextHopPolicy,
    nodes: Vec<String>,
    register: Vec<String>,
    expires: Option<SystemTime>,
    connections: Option<u32>,
    rate: Option<u64>,
}

impl Who {
    /// Its name, for logs and metrics: letters, digits, `.`, `-`, `_`, `@` and `+`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is for everybody.
    #[must_use]
    pub fn is_anyone(&self) -> bool {
        self.anyone
    }

    /// From when on it gives nothing any more.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    fn holds_at(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|end| now < end)
    }
}

/// What somebody proved: a key in a handshake or a layer, a token presented there, neither, or both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The key that was proved.
    pub key: Option<PublicKey>,
    /// The hash of the token that was presented.
    pub token: Option<TokenHash>,
}

impl Credentials {
    /// Whether nothing was proved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.key.is_none() && self.token.is_none()
    }
}

impl AccessRules {
    /// Reads a rules file.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place. Unknown keys are wrong: one that was meant to limit something must
    /// not be passed over.
    pub fn parse(text: &str) -> Result<AccessRules, AccessErrors> {
        read::parse(text)
    }

    /// Its entries, in the file's order.
    #[must_use]
    pub fn whos(&self) -> &[Who] {
        &self.whos
    }

    /// Who asks, at this moment.
    #[must_use]
    pub fn caller(&self, credentials: &Credentials, now: SystemTime) -> Caller<'_> {
        let mut caller = Caller { known: Vec::new(), anyone: None, expired: None };
        for who in &self.whos {
            // Every token is compared, whether or not one has matched.
            let by_token = credentials
                .token
                .is_some_and(|token| who.tokens.iter().fold(false, |found, own| (*own == token) | found));
            let by_key = credentials.key.is_some_and(|key| who.keys.contains(&key));
            match (by_token || by_key, who.holds_at(now)) {
                (true, true) => caller.known.push(who),
                (true, false) => caller.expired = Some(who),
                (false, true) if who.anyone => caller.anyone = Some(who),
                (false, _) => {}
            }
        }
        caller
    }
}

/// Somebody who asks, as the rules know him at one moment. He may what his own entries say and what anyone may.
#[derive(Debug, Clone)]
pub struct Caller<'a> {
    known: Vec<&'a Who>,
    anyone: Option<&'a Who>,
    expired: Option<&'a Who>,
}

/// How a caller is told that nothing is to be had, so that he cannot tell which names exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// Somebody known: as if nothing of that name were there.
    NotFound,
    /// Nobody known: a key or a token might help.
    Unauthorized,
}

impl<'a> Caller<'a> {
    fn entries(&self) -> impl Iterator<Item = &'a Who> {
        self.known.iter().copied().chain(self.anyone)
    }

    /// Whether some rule knows him by what he proved.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !self.known.is_empty()
    }

    /// The entry that says his name and his limits: his own, or anyone's.
    #[must_use]
    pub fn who(&self) -> Option<&'a Who> {
        self.entries().next()
    }

    /// His name, for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.who().map_or("nobody", Who::name)
    }

    /// The entry that would know him, had it not run out.
    #[must_use]
    pub fn expired(&self) -> Option<&'a Who> {
        self.expired
    }

    /// What he gets for what he may not read or write.
    #[must_use]
    pub fn denial(&self) -> Denial {
        if self.is_known() { Denial::NotFound } else { Denial::Unauthorized }
    }

    /// Whether he may read the file of this name. When it is reached through links, the name that it is reached under has to be
    /// asked for as well.
    #[must_use]
    pub fn may_read(&self, name: &str) -> bool {
        self.entries().any(|who| who.read.iter().any(|rule| rule.takes(name)))
    }

    /// Whether he may see which files that he may read are in this directory; the empty name is the document root.
    #[must_use]
    pub fn may_look_into(&self, directory: &str) -> bool {
        let leads = |rule: &PathRule| rule.leads_through(directory);
        self.entries().any(|who| who.read.iter().any(leads))
    }

    /// Whether he may read everything in this directory; the empty name is the document root.
    #[must_use]
    pub fn may_read_all_in(&self, directory: &str) -> bool {
        self.entries().any(|who| who.read.iter().any(|rule| rule.takes_all_in(directory)))
    }

    /// Whether he may write the file of this name.
    #[must_use]
    pub fn may_write(&self, name: &str) -> bool {
        self.entries().any(|who| who.write.iter().any(|rule| rule.takes(name)))
    }

    /// Where the next hop's name may be looked up for him, before any of its addresses is judged.
    #[must_use]
    pub fn lookup(&self, hop: &Hop) -> Lookup {
        self.entries().map(|who| who.relay.lookup(hop)).max().unwrap_or(Lookup::Denied)
    }

    /// Whether he may be relayed to this next hop at this address.
    #[must_use]
    pub fn may_relay(&self, hop: &Hop, address: SocketAddr) -> bool {
        self.entries().any(|who| who.relay.allows(hop, address))
    }

    /// Whether he may be relayed to any public place, so that it is no secret whether a name has an address.
    #[must_use]
    pub fn may_relay_anywhere(&self) -> bool {
        self.entries().any(|who| who.relay.is_open())
    }

    /// Whether he may be relayed to the node that registered under this name (without `@`).
    #[must_use]
    pub fn may_relay_to_node(&self, name: &str) -> bool {
        self.entries().any(|who| who.nodes.iter().any(|node| node == name))
    }

    /// Whether he may register under this name (without `@`).
    #[must_use]
    pub fn may_register(&self, name: &str) -> bool {
        self.entries().any(|who| who.register.iter().any(|own| own == name))
    }

    /// How many connections he may have at once; none: as many as anybody.
    #[must_use]
    pub fn connections(&self) -> Option<u32> {
        self.who()?.connections
    }

    /// How many bytes he may move a second; none: as many as anybody.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        self.who()?.rate
    }
}

#[cfg(test)]
mod tests;
