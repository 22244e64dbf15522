//! Where the forward proxy may go: what `--allow-proxy` names, and nothing else.
//!
//! A rule names hosts, and what may be dialled are addresses. So a name is looked at first, looked up once if a rule
//! could match, and then every address that came back is judged by itself; the one that passed is the one that is dialled. Rules
//! that name no address (`*`, `*.example.org`) reach public addresses only, whatever a name server says.

use ipnet::IpNet;
use relay_trust::address::{Kind, canonical, is_localhost, kind};
use relay_trust::next_hop::contains;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// One `--allow-proxy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowProxy {
    hosts: Hosts,
    port: Option<u16>,
}

/// What is wrong with an `--allow-proxy`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no HOST[:PORT]: {why}; write a name, *.name, an address, a network like 10.0.0.0/8, or * for all public hosts"
)]
pub struct BadAllowProxy {
    text: String,
    why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    /// Everything that is public.
    Public,
    /// What ends with this, a dot included; public only.
    Below(String),
    /// Exactly this name; private addresses too, for the operator named the host.
    Name(String),
    /// These addresses, whatever name led to them; but name servers are not asked because of it.
    Net(IpNet),
}

/// Whether a host may be dialled, as far as its name tells.
pub fn could_match(rules: &[AllowProxy], host: &str, port: u16) -> bool {
    let host = plain_name(host);
    rules.iter().filter(|rule| rule.has_port(port)).any(|rule| match &rule.hosts {
        Hosts::Public | Hosts::Net(_) => true,
        Hosts::Below(end) => host.ends_with(end.as_str()),
        Hosts::Name(name) => host == *name,
    })
}

/// Whether name servers may be asked for a host. Where only addresses are allowed, a client would otherwise have the node tell
/// its questions to whoever answers for a name; such a host must be known to the machine itself.
pub fn may_ask_for(rules: &[AllowProxy], host: &str, port: u16) -> bool {
    let names = rules.iter().filter(|rule| !matches!(rule.hosts, Hosts::Net(_))).cloned();
    could_match(&names.collect::<Vec<_>>(), host, port)
}

/// Whether an address may be dialled for a host.
pub fn permits(rules: &[AllowProxy], host: &str, port: u16, address: IpAddr) -> bool {
    let host = plain_name(host);
    let kind = kind(address);
    rules.iter().filter(|rule| rule.has_port(port)).any(|rule| match &rule.hosts {
        Hosts::Public => kind == Kind::Public,
        Hosts::Below(end) => kind == Kind::Public && host.ends_with(end.as_str()),
        Hosts::Name(name) if host == *name => match kind {
            Kind::Public | Kind::Private => true,
            Kind::Loopback => is_localhost(name),
            Kind::Local => false,
        },
        Hosts::Name(_) => false,
        Hosts::Net(net) => contains(net, address),
    })
}

impl AllowProxy {
    /// Whether it names no host at all.
    pub fn is_everything(&self) -> bool {
        self.hosts == Hosts::Public
    }

    fn has_port(&self, port: u16) -> bool {
        self.port.is_none_or(|only| only == port)
    }
}

impl FromStr for AllowProxy {
    type Err = BadAllowProxy;

    fn from_str(text: &str) -> Result<Self, BadAllowProxy> {
        let bad = |why| BadAllowProxy { text: text.to_owned(), why };
        let (host, port) = split_port(text).map_err(bad)?;
        Ok(Self { hosts: hosts(host).map_err(bad)?, port })
    }
}

impl fmt::Display for AllowProxy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hosts {
            Hosts::Public => out.write_str("*")?,
            Hosts::Below(end) => write!(out, "*{end}")?,
            Hosts::Name(name) => out.write_str(name)?,
            Hosts::Net(IpNet::V6(net)) => write!(out, "[{net}]")?,
            Hosts::Net(net) => write!(out, "{net}")?,
        }
        self.port.map_or(Ok(()), |port| write!(out, ":{port}"))
    }
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), &'static str> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("a bracket is not closed")?;
        return match rest.strip_prefix(':') {
            Some(number) => Ok((host, Some(port(number)?))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("something stands behind the bracket"),
        };
    }
    match text.split_once(':') {
        // More than one colon: an IPv6 address without brackets has no port.
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((host, number)) => Ok((host, Some(port(number)?))),
        None => Ok((text, None)),
    }
}

fn port(number: &str) -> Result<u16, &'static str> {
    match number.parse() {
        Ok(port) if port > 0 && !number.starts_with('+') => Ok(port),
        _ => Err("a port is a number from 1 to 65535"),
    }
}

fn hosts(host: &str) -> Result<Hosts, &'static str> {
    if host == "*" {
        return Ok(Hosts::Public);
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(Hosts::Net(IpNet::from(canonical(address))));
    }
    if host.contains('/') {
        return host.parse().map(|net: IpNet| Hosts::Net(net.trunc())).map_err(|_| "this is not a network");
    }
    let (is_below, name) = host.strip_prefix('*').map_or((false, host), |rest| (true, rest));
    let name = plain_name(name);
    let labels = name.strip_prefix('.').filter(|_| is_below).unwrap_or(&name);
    let is_name = !labels.is_empty()
        && labels.split('.').all(|label| !label.is_empty())
        && labels.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    match (is_name, is_below) {
        (false, _) => Err("this is not a host's name"),
        (true, true) if name.starts_with('.') => Ok(Hosts::Below(name)),
        (true, true) => Err("a * stands for whole labels: *.example.org"),
        (true, false) => Ok(Hosts::Name(name)),
    }
}

/// Names have no case, and a dot at the end changes nothing.
fn plain_name(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Vec<AllowProxy> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn allowed(texts: &[&str], host: &str, port: u16, address: &str) -> bool {
        let rules = rules(texts);
        could_match(&rules, host, port) && permits(&rules, host, port, address.parse().unwrap())
    }

    #[test]
    fn what_is_named_may_be_reached() {
        let table: &[(&[&str], &str, u16, &str, bool)] = &[
            (&[], "example.org", 80, "93.184.216.34", false),
            (&["*"], "example.org", 80, "93.184.216.34", true),
            (&["*:443"], "example.org", 80, "93.184.216.34", false),
            (&["*"], "example.org", 80, "127.0.0.1", false),
            (&["*"], "example.org", 80, "10.1.2.3", false),
            (&["*"], "example.org", 80, "169.254.169.254", false),
            (&["*"], "example.org", 80, "100.64.0.1", false),
            (&["*"], "example.org", 80, "0.0.0.0", false),
            (&["*"], "example.org", 80, "0.1.2.3", false),
            (&["*"], "example.org", 80, "255.255.255.255", false),
            (&["*"], "example.org", 80, "::", false),
            (&["*"], "example.org", 80, "::1", false),
            (&["*"], "example.org", 80, "fe80::1", false),
            (&["*"], "example.org", 80, "fd00::1", false),
            (&["*"], "example.org", 80, "::ffff:127.0.0.1", false),
            (&["*"], "example.org", 80, "::7f00:1", false),
            (&["*"], "example.org", 80, "64:ff9b::a00:1", false),
            (&["*"], "example.org", 80, "2002:7f00:1::", false),
            (&["*"], "example.org", 80, "2001:4860:4860::8888", true),
            (&["*.example.org"], "files.EXAMPLE.org", 80, "93.184.216.34", true),
            (&["*.example.org"], "example.org", 80, "93.184.216.34", false),
            (&["*.example.org"], "badexample.org", 80, "93.184.216.34", false),
            (&["*.example.org"], "files.example.org", 80, "192.168.0.1", false),
            (&["files.lab:8080"], "files.lab.", 8080, "192.168.0.1", true),
            (&["files.lab:8080"], "files.lab", 8081, "192.168.0.1", false),
            (&["files.lab"], "files.lab", 80, "127.0.0.1", false),
            (&["files.lab"], "files.lab", 80, "169.254.0.1", false),
            (&["localhost"], "localhost", 80, "127.0.0.1", true),
            (&["127.0.0.1:8080"], "localhost", 8080, "127.0.0.1", true),
            (&["127.0.0.1:8080"], "127.0.0.1", 8081, "127.0.0.1", false),
            (&["127.0.0.1"], "0.0.0.0", 80, "0.0.0.0", true),
            (&["127.0.0.1"], "127.0.0.2", 80, "127.0.0.2", false),
            (&["[::1]:80"], "::1", 80, "::1", true),
            (&["::1"], "127.0.0.1", 80, "127.0.0.1", false),
            (&["10.0.0.0/8"], "x.lab", 80, "10.200.0.1", true),
            (&["[fd00::/8]:80"], "x.lab", 80, "fd12::1", true),
            (&["::ffff:127.0.0.1"], "127.0.0.1", 80, "127.0.0.1", true),
            (&["127.0.0.0/8"], "64:ff9b::7f00:1", 80, "64:ff9b::7f00:1", false),
            (&["64:ff9b::/96"], "64:ff9b::7f00:1", 80, "64:ff9b::7f00:1", false),
            (&["64:ff9b::7f00:1"], "64:ff9b::7f00:1", 80, "64:ff9b::7f00:1", true),
        ];
        for (rules, host, port, address, expected) in table {
            assert_eq!(
                allowed(rules, host, *port, address),
                *expected,
                "{rules:?} {host}:{port} at {address}"
            );
        }
    }

    #[test]
    fn names_that_no_rule_knows_are_not_even_looked_up() {
        assert!(!could_match(&rules(&["files.lab", "*.example.org"]), "internal.corp", 80));
        let net = rules(&["10.0.0.0/8"]);
        assert!(could_match(&net, "internal.corp", 80) && !may_ask_for(&net, "internal.corp", 80));
        for named in ["*", "*.corp", "internal.corp"] {
            let rules = rules(&["10.0.0.0/8", named]);
            assert!(may_ask_for(&rules, "internal.corp", 80), "{named}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in [
            "",
            ":80",
            "a:0",
            "a:99999",
            "a:+80",
            "a:x",
            "[::1",
            "[::1]x",
            "a b",
            "*a.org",
            "a..b",
            "10.0.0.0/99",
            "*.",
            "http://a",
        ] {
            assert!(text.parse::<AllowProxy>().is_err(), "{text:?}");
        }
        for text in ["*", "*:443", "*.a.org:80", "a.org", "10.0.0.0/8:80", "[::1/128]:80"] {
            assert_eq!(text.parse::<AllowProxy>().unwrap().to_string(), text);
        }
    }
}
