//! Which next hops a node relays to, or relays somebody to. Nothing is relayed that no rule allows.

use crate::address::{Kind, canonical, hides_local, is_localhost, kind};
use ipnet::IpNet;
use relay_proto::address::{Hop, Host};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// One rule of `--allow-next`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowNext {
    what: What,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// Everything but loopback and link-local addresses.
    Any,
    /// A name, lower case, without a trailing dot. Whoever else answers for it, it never leads to this machine or its links,
    /// unless it is localhost.
    Name(String),
    Network(IpNet),
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write a host, host:port, an address or a network like 10.1.0.0/16, or *")]
pub struct AllowNextError;

impl FromStr for AllowNext {
    type Err = AllowNextError;

    fn from_str(text: &str) -> Result<AllowNext, AllowNextError> {
        let text = text.trim();
        if let Some(what) = What::parse(text) {
            return Ok(AllowNext { what, port: None });
        }
        let (host, port) = text.rsplit_once(':').ok_or(AllowNextError)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(AllowNextError)?;
        Ok(AllowNext { what: What::parse(host).ok_or(AllowNextError)?, port: Some(port) })
    }
}

impl What {
    fn parse(text: &str) -> Option<What> {
        if text == "*" {
            return Some(What::Any);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(What::Network(IpNet::from(canonical(address))));
        }
        if let Ok(network) = text.parse::<IpNet>() {
            let network = network.trunc();
            // A network of one address is that address, in the form in which addresses are compared.
            let is_one = network.prefix_len() == network.max_prefix_len();
            return Some(What::Network(if is_one {
                IpNet::from(canonical(network.addr()))
            } else {
                network
            }));
        }
        let host = Host::try_from(text.to_owned()).ok()?;
        // Dots alone are no host, and what is an address or no name without the dot behind it is none with it.
        let name = plain_name(host.as_str());
        let is_name = Host::try_from(name.clone()).is_ok() && name.parse::<IpAddr>().is_err();
        is_name.then_some(What::Name(name))
    }
}

impl fmt::Display for AllowNext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Any => f.write_str("*")?,
            What::Name(name) => f.write_str(name)?,
            What::Network(net) if net.prefix_len() < net.max_prefix_len() => write!(f, "{net}")?,
            What::Network(net) if net.addr().is_ipv6() && self.port.is_some() => {
                write!(f, "[{}]", net.addr())?;
            }
            What::Network(net) => write!(f, "{}", net.addr())?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Where a hop's name may be looked up; more comes behind less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lookup {
    /// Nowhere: no rule could match, whatever it leads to.
    Denied,
    /// Among the names that this machine knows itself.
    Known,
    /// Wherever the system looks.
    Anywhere,
}

/// All rules of a node, or all of somebody in its access rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHopPolicy {
    rules: Vec<AllowNext>,
    /// Whether a network takes what is in it, this machine's addresses too; otherwise those have to be named one by one.
    networks_lead_home: bool,
}

impl NextHopPolicy {
    /// The rules that were configured; without any, loopback addresses alone.
    #[must_use]
    pub fn new(rules: Vec<AllowNext>) -> NextHopPolicy {
        if !rules.is_empty() {
            return NextHopPolicy { rules, networks_lead_home: true };
        }
        let network = |address: IpAddr, bits| IpNet::new(address, bits).ok();
        let v4 = network(Ipv4Addr::LOCALHOST.into(), 8).map(|net| net.trunc());
        let v6 = network(Ipv6Addr::LOCALHOST.into(), 128);
        let loopback = [v4, v6].into_iter().flatten();
        NextHopPolicy {
            networks_lead_home: true,
            rules: loopback.map(|net| AllowNext { what: What::Network(net), port: None }).collect(),
        }
    }

    /// No rule at all: every next hop is denied.
    #[must_use]
    pub fn nowhere() -> NextHopPolicy {
        NextHopPolicy::of_access(Vec::new())
    }

    /// What access rules give somebody: without rules nothing, and no network leads to this machine or its links. One of its
    /// addresses, or `localhost`, can be named.
    #[must_use]
    pub fn of_access(rules: Vec<AllowNext>) -> NextHopPolicy {
        NextHopPolicy { rules, networks_lead_home: false }
    }

    /// Whether the node relays to anybody: an open relay.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.rules.iter().any(|rule| match &rule.what {
            What::Any => true,
            What::Network(network) => network.prefix_len() == 0,
            What::Name(_) => false,
        })
    }

    /// Where the hop's name may be looked up, before any of its addresses is judged. Rules that hold addresses alone make no
    /// caller's name worth a question to anybody else.
    #[must_use]
    pub fn lookup(&self, hop: &Hop) -> Lookup {
        let rules = self.rules.iter().filter(|rule| rule.takes_port(hop.port.get()));
        let each = rules.map(|rule| match (&rule.what, hop.host.ip()) {
            (What::Any, None) => Lookup::Anywhere,
            (What::Name(name), None) if *name == plain_name(hop.host.as_str()) => Lookup::Anywhere,
            (What::Network(_), None) => Lookup::Known,
            (_, Some(address)) if self.takes_address(rule, address) => Lookup::Known,
            _ => Lookup::Denied,
        });
        each.max().unwrap_or(Lookup::Denied)
    }

    /// Whether `address`, which `hop`'s name resolved to, may be dialled.
    #[must_use]
    pub fn allows(&self, hop: &Hop, address: SocketAddr) -> bool {
        self.rules.iter().filter(|rule| rule.takes_port(address.port())).any(|rule| match &rule.what {
            What::Name(name) if hop.host.ip().is_none() && *name == plain_name(hop.host.as_str()) => {
                match kind(address.ip()) {
                    Kind::Public | Kind::Private => true,
                    Kind::Loopback => is_localhost(name),
                    Kind::Local => false,
                }
            }
            _ => self.takes_address(rule, address.ip()),
        })
    }

    fn takes_address(&self, rule: &AllowNext, address: IpAddr) -> bool {
        let is_ours = matches!(kind(address), Kind::Loopback | Kind::Local);
        match &rule.what {
            What::Any => !is_ours,
            What::Network(network) => {
                let is_one = network.prefix_len() == network.max_prefix_len();
                contains(network, address) && (is_one || self.networks_lead_home || !is_ours)
            }
            What::Name(_) => false,
        }
    }
}

impl AllowNext {
    fn takes_port(&self, port: u16) -> bool {
        self.port.is_none_or(|only| only == port)
    }
}

impl fmt::Display for NextHopPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rules.is_empty() {
            return f.write_str("nobody");
        }
        for (index, rule) in self.rules.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{rule}")?;
        }
        Ok(())
    }
}

/// Whether a network that was configured holds this address. One that names a single address means just that one.
#[must_use]
pub fn contains(network: &IpNet, address: IpAddr) -> bool {
    let is_one = network.prefix_len() == network.max_prefix_len();
    network.contains(&canonical(address)) && (is_one || !hides_local(address))
}

fn plain_name(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the rules allow `hop` when its name resolves to `address`.
    fn allows(rules: &[&str], hop: &str, address: &str) -> bool {
        let policy = NextHopPolicy::new(rules.iter().map(|rule| rule.parse().unwrap()).collect());
        let hop: Hop = hop.parse().unwrap();
        let address = SocketAddr::new(address.parse().unwrap(), hop.port.get());
        policy.lookup(&hop) != Lookup::Denied && policy.allows(&hop, address)
    }

    #[test]
    fn nothing_configured_is_loopback_alone() {
        assert!(allows(&[], "127.0.0.1:80", "127.0.0.1"));
        assert!(allows(&[], "[::1]:80", "::1"));
        assert!(allows(&[], "localhost:80", "127.0.0.2"));
        assert!(allows(&[], "0.0.0.0:80", "0.0.0.0"), "the unspecified address is this machine");
        assert!(allows(&[], "[::ffff:127.0.0.1]:80", "::ffff:127.0.0.1"));
        assert!(!allows(&[], "pchost1:80", "192.0.2.1"));
        assert!(!allows(&[], "169.254.1.1:80", "169.254.1.1"));
    }

    #[test]
    fn rules_replace_the_default() {
        assert!(!allows(&["pchost1"], "127.0.0.1:80", "127.0.0.1"));
        assert!(allows(&["pchost1"], "PCHOST1.:80", "192.0.2.1"));
        assert!(!allows(&["pchost1:81"], "pchost1:80", "192.0.2.1"));
        assert!(allows(&["pchost1:80"], "pchost1:80", "192.0.2.1"));
        assert!(allows(&["192.0.2.0/24"], "any.example:80", "192.0.2.77"));
        assert!(allows(&["192.0.2.0/24"], "[::ffff:192.0.2.1]:80", "::ffff:192.0.2.1"));
        assert!(!allows(&["192.0.2.0/24"], "any.example:80", "192.0.3.1"));
        assert!(allows(&["[2001:db8::1]:80"], "[2001:db8::1]:80", "2001:db8::1"));
        assert!(!allows(&["192.0.2.1"], "pchost1:80", "192.0.2.2"));
        // A network of one address is written, and compared, as that address.
        assert!(allows(&["::ffff:192.0.2.1/128"], "192.0.2.1:80", "192.0.2.1"));
        assert!(allows(&["::/128"], "[::]:80", "::"));
    }

    #[test]
    fn a_star_leaves_out_this_machine() {
        assert!(allows(&["*"], "pchost1:80", "192.0.2.1"));
        for local in [
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "::",
            "169.254.0.1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "224.0.0.1",
            "64:ff9b::127.0.0.1",
            "2002:7f00:1::1",
        ] {
            assert!(!allows(&["*"], "pchost1:80", local), "{local}");
        }
        assert!(allows(&["*", "127.0.0.0/8"], "pchost1:80", "127.0.0.1"));
        assert!(allows(&["*:80"], "pchost1:80", "192.0.2.1"));
        assert!(!allows(&["*:80"], "pchost1:81", "192.0.2.1"));
    }

    #[test]
    fn a_name_does_not_lead_to_this_machine() {
        assert!(allows(&["pchost1"], "pchost1:80", "10.0.0.1"));
        for local in
            ["127.0.0.1", "127.0.1.1", "::1", "0.0.0.0", "169.254.169.254", "fe80::1", "::ffff:127.0.0.1"]
        {
            assert!(!allows(&["pchost1"], "pchost1:80", local), "{local}");
            // But the address itself can be named.
            assert!(allows(&["pchost1", local], "pchost1:80", local), "{local}");
        }
        assert!(allows(&["localhost"], "localhost:80", "127.0.0.1"));
        assert!(!allows(&["localhost"], "localhost:80", "169.254.0.1"));
    }

    #[test]
    fn an_embedded_address_denies_and_never_allows() {
        for hiding in ["64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1", "2001:db8::5efe:7f00:1"] {
            let hop = format!("[{hiding}]:80");
            for rules in
                [&[] as &[&str], &["127.0.0.0/8"], &["127.0.0.1"], &["*"], &["::/0"], &["64:ff9b::/96"]]
            {
                assert!(!allows(rules, &hop, hiding), "{hiding} by {rules:?}");
                assert!(!allows(rules, "any.example:80", hiding), "a name for {hiding} by {rules:?}");
            }
            assert!(allows(&[hiding], &hop, hiding), "{hiding} by itself");
        }
        assert!(!allows(&["192.0.2.0/24"], "[64:ff9b::192.0.2.1]:80", "64:ff9b::192.0.2.1"));
        assert!(allows(&["64:ff9b::/96"], "[64:ff9b::192.0.2.1]:80", "64:ff9b::192.0.2.1"));
        assert!(
            allows(&["127.0.0.0/8"], "[::ffff:127.0.0.1]:80", "::ffff:127.0.0.1"),
            "that is its other form"
        );
    }

    #[test]
    fn a_name_that_no_rule_can_match_is_not_looked_up() {
        let policy = NextHopPolicy::new(vec!["pchost1".parse().unwrap()]);
        assert_eq!(policy.lookup(&"pchost2:80".parse().unwrap()), Lookup::Denied);
        assert_eq!(policy.lookup(&"pchost1:80".parse().unwrap()), Lookup::Anywhere);
        // Addresses alone: the machine's own names may lead to them, and nobody is asked for others.
        for rules in
            [&[] as &[&str], &["10.0.0.0/8"], &["pchost1", "10.0.0.0/8"], &["pchost1:81", "0.0.0.0/0"]]
        {
            let policy = NextHopPolicy::new(rules.iter().map(|rule| rule.parse().unwrap()).collect());
            assert_eq!(policy.lookup(&"any.example:80".parse().unwrap()), Lookup::Known, "{rules:?}");
        }
        let policy = NextHopPolicy::new(vec!["*".parse().unwrap()]);
        assert_eq!(policy.lookup(&"any.example:80".parse().unwrap()), Lookup::Anywhere);
    }

    #[test]
    fn text_forms() {
        for text in [
            "*",
            "*:80",
            "pchost1",
            "pchost1:80",
            "10.0.0.0/8",
            "192.0.2.1",
            "192.0.2.1:80",
            "[2001:db8::1]:80",
        ] {
            assert_eq!(text.parse::<AllowNext>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            ".",
            "...:1",
            "0.128.0.0.",
            "7095516155..",
            "a b",
            "pchost1:0",
            "pchost1:x",
            "10.0.0.0/99",
            "http://a",
        ] {
            assert_eq!(bad.parse::<AllowNext>(), Err(AllowNextError), "{bad}");
        }
    }
}
