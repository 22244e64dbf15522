//! Where a hop is: a host and a port, in every form that people and tunnels write.

use crate::limits::MAX_HOST;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::fmt;
use core::hash::{Hash, Hasher};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU16;
use core::ops::Range;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// A host: an IP address, or a name of letters, digits, `.`, `-` and `_` that does not end in a number.
///
/// Nothing else can be sent, so that what reaches an unknown peer in a re-encoded `open` is harmless. What a person wrote may be
/// more ([`Host::from_person`]); it is kept to be shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host {
    sent: Box<str>,
    /// Few hosts have more than what is sent, and errors hold several hosts.
    more: Option<Box<More>>,
}

/// What only a person can write.
#[derive(Debug, Clone)]
enum More {
    /// The network interface of a link-local address, on this machine.
    Zone(String),
    /// A name whose ASCII form is sent.
    Written(String),
}

impl Host {
    /// The name or the address, an IPv6 address without brackets and zone.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.sent
    }

    /// The address, when it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.sent.parse().ok()
    }

    /// The zone of a link-local address (RFC 4007, section 11): an interface's name or number, which means something on this
    /// machine alone. A host that came over the wire has none.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        match self.more.as_deref() {
            Some(More::Zone(zone)) => Some(zone),
            _ => None,
        }
    }

    /// A host as people write it: also an international name, which is sent in its ASCII form (UTS 46), and a link-local IPv6
    /// address with a zone.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_person(text: &str) -> Result<Host, HopErrorKind> {
        if let Some((address, zone)) = text.split_once('%').filter(|(address, _)| address.contains(':')) {
            let address: Ipv6Addr = address.parse().map_err(|_| HopErrorKind::BadIpv6)?;
            let is_zone = (1..=MAX_ZONE).contains(&zone.len())
                && zone.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
            if !is_zone || !address.is_unicast_link_local() {
                return Err(HopErrorKind::BadZone);
            }
            let more = Some(Box::new(More::Zone(String::from(zone))));
            return Ok(Host { more, ..Host::plain(address.to_string()) });
        }
        if text.is_ascii() {
            return Host::try_from(String::from(text));
        }
        if text.len() > MAX_WRITTEN_HOST {
            return Err(HopErrorKind::LongHost);
        }
        let ascii = idna::domain_to_ascii(text).map_err(|_| HopErrorKind::BadName)?;
        let host = Host::try_from(ascii).map_err(|kind| match kind {
            HopErrorKind::BadHost | HopErrorKind::NoHost => HopErrorKind::BadName,
            other => other,
        })?;
        Ok(Host { more: Some(Box::new(More::Written(String::from(text)))), ..host })
    }

    fn plain(sent: String) -> Host {
        Host { sent: sent.into_boxed_str(), more: None }
    }
}

/// The same host, in whichever way it was written.
impl PartialEq for Host {
    fn eq(&self, other: &Host) -> bool {
        (self.as_str(), self.zone()) == (other.as_str(), other.zone())
    }
}

impl Eq for Host {}

impl Hash for Host {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.as_str(), self.zone()).hash(state);
    }
}

/// The longest zone, in bytes; an interface's name has at most 15 on Linux.
const MAX_ZONE: usize = 32;
/// The longest name that is worth its conversion, in bytes of UTF-8: a letter has at most four, and takes at least one in ASCII.
const MAX_WRITTEN_HOST: usize = 4 * MAX_HOST;

/// Whether programs would read a name as a number: its last label is digits alone, or `0x` and hex digits (the URL standard's
/// "ends in a number"). The system's own reader takes those for addresses of many forms, and not everybody for the same.
fn ends_in_number(name: &str) -> bool {
    let last = name.strip_suffix('.').unwrap_or(name).rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()),
    }
}

impl TryFrom<String> for Host {
    type Error = HopErrorKind;

    fn try_from(text: String) -> Result<Host, HopErrorKind> {
        if text.is_empty() {
            return Err(HopErrorKind::NoHost);
        }
        if text.contains(':') {
            return match text.parse::<Ipv6Addr>() {
                Ok(address) => Ok(Host::plain(address.to_string())),
                Err(_) => Err(HopErrorKind::BadIpv6),
            };
        }
        if text.len() > MAX_HOST {
            return Err(HopErrorKind::LongHost);
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
            return Err(HopErrorKind::BadHost);
        }
        if ends_in_number(&text) && text.parse::<Ipv4Addr>().is_err() {
            return Err(HopErrorKind::BadIpv4);
        }
        Ok(Host::plain(text))
    }
}

impl From<Host> for String {
    /// With its zone, which only a route file can hold.
    fn from(host: Host) -> String {
        match host.zone() {
            Some(zone) => alloc::format!("{}%{zone}", host.sent),
            None => host.sent.into_string(),
        }
    }
}

/// One hop of a route: where a node listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hop {
    /// The node's host.
    pub host: Host,
    /// Its port, which is never 0.
    pub port: NonZeroU16,
}

impl Hop {
    /// A hop from its two parts.
    ///
    /// # Errors
    /// What is wrong with the host or the port.
    pub fn new(host: &str, port: u16) -> Result<Hop, HopErrorKind> {
        let port = NonZeroU16::new(port).ok_or(HopErrorKind::BadPort)?;
        Ok(Hop { host: Host::try_from(String::from(host))?, port })
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Host { sent, more } = &self.host;
        match more.as_deref() {
            Some(More::Zone(zone)) => write!(f, "[{sent}%{zone}]:{}", self.port),
            Some(More::Written(name)) => write!(f, "{name}:{}", self.port),
            None if sent.contains(':') => write!(f, "[{sent}]:{}", self.port),
            None => write!(f, "{sent}:{}", self.port),
        }
    }
}

/// What is wrong with a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HopErrorKind {
    /// Nothing where the host must stand.
    #[error("the host is missing")]
    NoHost,
    /// Nothing where the port must stand.
    #[error("the port is missing: write `host port` or `host:port`")]
    NoPort,
    /// A port that is none.
    #[error("this is no port: a port is a number from 1 to 65535")]
    BadPort,
    /// A host longer than a name can be.
    #[error("the host is longer than {MAX_HOST} characters")]
    LongHost,
    /// A character that a host cannot have.
    #[error("a host has only letters, digits, `.`, `-` and `_`")]
    BadHost,
    /// Letters that make no international name.
    #[error("this is no name of a host, nor an international one")]
    BadName,
    /// A number where a name or an IPv4 address must stand.
    #[error("an address is four decimal numbers, as in 192.0.2.1, and no name ends in a number")]
    BadIpv4,
    /// A zone that is none, or behind an address that has none.
    #[error("only a link-local address has a zone, an interface's name or number: fe80::1%eth0")]
    BadZone,
    /// Colons, but no IPv6 address.
    #[error("this is no IPv6 address; write [address]:port")]
    BadIpv6,
    /// A scheme other than `tcp://`.
    #[error("only tcp:// leads to a node; write host:port or tcp://host:port")]
    BadScheme,
    /// More than a host and a port.
    #[error("something follows the port; a hop is a host and a port alone")]
    Trailing,
}

/// What is wrong with a hop's text, and which bytes of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct HopError {
    /// What is wrong.
    pub kind: HopErrorKind,
    /// The bytes of the text that are wrong; empty and at the end when something is missing there.
    pub span: Range<usize>,
}

impl FromStr for Hop {
    type Err = HopError;

    /// Reads `host port`, `host:port`, `[v6]:port` and `tcp://host:port`. White space around it is not part of it.
    fn from_str(text: &str) -> Result<Hop, HopError> {
        let parts = Parts::of(text)?;
        let fail = |kind, span: &Range<usize>| HopError { kind, span: span.clone() };
        let host_text = text.get(parts.host.clone()).unwrap_or_default();
        let port_text = text.get(parts.port.clone()).unwrap_or_default();
        let host = Host::from_person(host_text).map_err(|kind| fail(kind, &parts.host))?;
        if port_text.is_empty() {
            return Err(fail(HopErrorKind::NoPort, &parts.port));
        }
        let digits = port_text.len() <= 5 && port_text.bytes().all(|b| b.is_ascii_digit());
        let port = port_text.parse().ok().filter(|_| digits);
        let port = port.ok_or_else(|| fail(HopErrorKind::BadPort, &parts.port))?;
        Ok(Hop { host, port })
    }
}

/// Which bytes of a hop's text are its host and its port.
struct Parts {
    host: Range<usize>,
    port: Range<usize>,
}

impl Parts {
    fn of(text: &str) -> Result<Parts, HopError> {
        let start = text.len() - text.trim_start().len();
        let end = text.trim_end().len().max(start);
        let body = text.get(start..end).unwrap_or_default();
        let Some((scheme, rest)) = body.split_once("://") else {
            return Parts::of_address(body, start);
        };
        if !scheme.eq_ignore_ascii_case("tcp") {
            return Err(HopError { kind: HopErrorKind::BadScheme, span: start..start + scheme.len() + 3 });
        }
        Parts::of_address(rest.strip_suffix('/').unwrap_or(rest), start + scheme.len() + 3)
    }

    /// `body` is the address without spaces around it, and starts at byte `at` of the text.
    fn of_address(body: &str, at: usize) -> Result<Parts, HopError> {
        let end = at + body.len();
        if let Some(inner) = body.strip_prefix('[') {
            let close = inner.find(']').ok_or(HopError { kind: HopErrorKind::BadIpv6, span: at..end })?;
            if !inner.get(..close).is_some_and(|host| host.contains(':')) {
                return Err(HopError { kind: HopErrorKind::BadIpv6, span: at + 1..at + 1 + close });
            }
            let rest = body.get(close + 2..).unwrap_or_default();
            let port = rest.strip_prefix(':').unwrap_or(rest).trim_start();
            return Ok(Parts { host: at + 1..at + 1 + close, port: end - port.len()..end });
        }
        if let Some(space) = body.find(char::is_whitespace) {
            let port = body.get(space..).unwrap_or_default().trim_start();
            let port_start = end - port.len();
            if let Some(more) = port.find(char::is_whitespace) {
                // The white space may be several bytes long.
                let behind = port.get(more..).unwrap_or_default().trim_start();
                return Err(HopError { kind: HopErrorKind::Trailing, span: end - behind.len()..end });
            }
            let host = body.get(..space).unwrap_or_default();
            if host.matches(':').count() == 1 {
                // `host:port port`: one colon makes no IPv6 address.
                return Err(HopError { kind: HopErrorKind::Trailing, span: port_start..end });
            }
            return Ok(Parts { host: at..at + space, port: port_start..end });
        }
        match body.rfind(':') {
            // Several colons without brackets: an IPv6 address, and where its port starts cannot be told.
            Some(colon) if body.find(':') != Some(colon) => Ok(Parts { host: at..end, port: end..end }),
            Some(colon) => Ok(Parts { host: at..at + colon, port: at + colon + 1..end }),
            None => Ok(Parts { host: at..end, port: end..end }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn good(text: &str, expected: &str) {
        let hop: Hop = text.parse().unwrap_or_else(|e: HopError| panic!("{text}: {e}"));
        assert_eq!(hop.to_string(), expected);
    }

    fn bad(text: &str, kind: HopErrorKind, wrong: &str) {
        let error = text.parse::<Hop>().expect_err(text);
        assert_eq!(error.kind, kind, "{text}");
        assert_eq!(&text[error.span], wrong, "{text}");
    }

    #[test]
    fn every_form() {
        good("pchost1 12000", "pchost1:12000");
        good("  pchost1\t 12000  ", "pchost1:12000");
        good("pchost1:12000", "pchost1:12000");
        good("tcp://0.tcp.ngrok.io:12345", "0.tcp.ngrok.io:12345");
        good("TCP://host:1/", "host:1");
        good("[::1]:12000", "[::1]:12000");
        good("[0:0::1] 12000", "[::1]:12000");
        good("::1 12000", "[::1]:12000");
        good("127.0.0.1:65535", "127.0.0.1:65535");
        good("my_host-1.example. 1", "my_host-1.example.:1");
        good("fe80::1%eth0 12000", "[fe80::1%eth0]:12000");
        good("[fe80:0::1%2]:12000", "[fe80::1%2]:12000");
        good("münchen.example 12000", "münchen.example:12000");
        good("0x.example:1", "0x.example:1");
        good("1.2.3.4a 1", "1.2.3.4a:1");
    }

    #[test]
    fn an_international_name_is_shown_as_written_and_sent_in_ascii() {
        let hop: Hop = "MÜNCHEN.example 12000".parse().expect("a hop");
        assert_eq!(hop.host.as_str(), "xn--mnchen-3ya.example");
        assert_eq!(
            serde_json::to_string(&hop).expect("JSON"),
            r#"{"host":"xn--mnchen-3ya.example","port":12000}"#
        );
        assert_eq!(Ok(hop), "xn--mnchen-3ya.example:12000".parse());
    }

    #[test]
    fn what_comes_over_the_wire_has_no_form_of_its_own() {
        for host in ["fe80::1%eth0", "münchen.example", "127.1", "0177.0.0.1", "::1%lo"] {
            let json = format!(r#"{{"host":"{host}","port":1}}"#);
            assert!(serde_json::from_str::<Hop>(&json).is_err(), "{host}");
        }
    }

    #[test]
    fn what_is_no_hop() {
        bad("pchost1:12000 5", HopErrorKind::Trailing, "5");
        bad("", HopErrorKind::NoHost, "");
        bad(":80", HopErrorKind::NoHost, "");
        bad("pchost1", HopErrorKind::NoPort, "");
        bad("pchost1:", HopErrorKind::NoPort, "");
        bad("pchost1 port", HopErrorKind::BadPort, "port");
        bad("pchost1 0", HopErrorKind::BadPort, "0");
        bad("pchost1 65536", HopErrorKind::BadPort, "65536");
        bad("pchost1 +80", HopErrorKind::BadPort, "+80");
        bad("pchost1 000080", HopErrorKind::BadPort, "000080");
        bad("pchost1 80 90", HopErrorKind::Trailing, "90");
        bad("pc host 80", HopErrorKind::Trailing, "80");
        bad("pchost1 80\u{2003}90", HopErrorKind::Trailing, "90");
        bad("pchost1\u{a0}80\u{85}\u{3000}90 ", HopErrorKind::Trailing, "90");
        bad("h!st 80", HopErrorKind::BadHost, "h!st");
        bad("h\u{fffd}st 80", HopErrorKind::BadName, "h\u{fffd}st");
        bad("hö st 80", HopErrorKind::Trailing, "80");
        bad("xn--\u{fc} 80", HopErrorKind::BadName, "xn--\u{fc}");
        for number in [
            "0177.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "0X",
            "00127.0.0.1",
            "1.2.3.4.5",
            "127.0.0.1.",
        ] {
            bad(&format!("{number} 80"), HopErrorKind::BadIpv4, number);
        }
        bad("pchost.256:80", HopErrorKind::BadIpv4, "pchost.256");
        bad("fe80::1% 80", HopErrorKind::BadZone, "fe80::1%");
        bad("fe80::1%a/b 80", HopErrorKind::BadZone, "fe80::1%a/b");
        bad("::1%lo 80", HopErrorKind::BadZone, "::1%lo");
        bad("pchost%eth0 80", HopErrorKind::BadHost, "pchost%eth0");
        bad("http://host:80", HopErrorKind::BadScheme, "http://");
        bad("::1", HopErrorKind::NoPort, "");
        bad("1:2:3 80", HopErrorKind::BadIpv6, "1:2:3");
        bad("[::1:80", HopErrorKind::BadIpv6, "[::1:80");
        bad("[::1]", HopErrorKind::NoPort, "");
        bad("[host]:80", HopErrorKind::BadIpv6, "host");
        bad("[::1]:80x", HopErrorKind::BadPort, "80x");
    }
}
