//! What an upstream is told of who sent a request, and whose word on it is believed (RFC 7239, and the `X-Forwarded` fields
//! that were there before it).
//!
//! An upstream may build links and decide rights from these fields. So what a client says of itself goes no further, unless it is a
//! proxy that the operator trusts; and what could get into an answer is part of what that answer is stored under.

use super::list_fields::append_to_list;
use http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use relay_trust::address::canonical;
use std::net::IpAddr;
use std::str::FromStr;

const X_FORWARDED: &str = "x-forwarded-";
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// One `--trust-forwarded`: where the proxies are that stand in front of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustForwarded(IpNet);

impl FromStr for TrustForwarded {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self).map_err(|_| "write an address or a network, like 10.0.0.7 or 10.0.0.0/8")
    }
}

/// Who sent a request.
#[derive(Debug, Clone, Copy)]
pub struct Sender {
    client: Option<IpAddr>,
    is_trusted: bool,
    /// Whether the client asked this node, and not the upstream by its own name.
    asked_us: bool,
}

impl Sender {
    /// Somebody at this address; `asked_us` where the request was for one of the node's own paths.
    pub fn new(client: Option<IpAddr>, trusted: &[TrustForwarded], asked_us: bool) -> Self {
        let client = client.map(canonical);
        let is_trusted = client
            .is_some_and(|client| trusted.iter().any(|TrustForwarded(network)| network.contains(&client)));
        Self { client, is_trusted, asked_us }
    }

    /// Writes into a request's fields what the upstream is told. `Host` must still be the one that came.
    pub fn tell(&self, fields: &mut HeaderMap) {
        if !self.is_trusted {
            forget_claims(fields);
        }
        let Some(client) = self.client else { return };
        append_to_list(fields, X_FORWARDED_FOR, &client.to_string());
        let mut member = match client {
            IpAddr::V4(client) => format!("for={client}"),
            IpAddr::V6(client) => format!("for=\"[{client}]\""),
        };
        if let Some(host) = self.own_host(fields) {
            member.push_str(&format!(";host=\"{host}\""));
            if !fields.contains_key(X_FORWARDED_HOST)
                && let Ok(host) = HeaderValue::from_str(&host)
            {
                fields.insert(X_FORWARDED_HOST, host);
            }
        }
        member.push_str(";proto=http");
        append_to_list(fields, FORWARDED, &member);
        fields.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    }

    /// What an upstream may have built its answer from besides what `Vary` can tell, behind `rules`: the realm of the answer's key.
    /// The addresses are not among it, or every client would have a cache of its own. `fields` are as they came.
    pub fn realm(&self, rules: &str, fields: &HeaderMap) -> String {
        let mut realm = rules.to_owned();
        if let Some(host) = self.own_host(fields) {
            add_part(&mut realm, HOST.as_str(), host.as_bytes());
        }
        for (name, value) in fields.iter().filter(|_| self.is_trusted) {
            if name == FORWARDED {
                add_part(&mut realm, name.as_str(), &without_addresses(value.as_bytes()));
            } else if name.as_str().starts_with(X_FORWARDED) && name != X_FORWARDED_FOR {
                add_part(&mut realm, name.as_str(), value.as_bytes());
            }
        }
        realm
    }

    /// By which name the client knows this node.
    fn own_host(&self, fields: &HeaderMap) -> Option<String> {
        let host = fields.get(HOST).filter(|_| self.asked_us)?.to_str().ok()?;
        let is_plain = !host.is_empty() && !host.contains(['"', '\\']);
        is_plain.then(|| host.to_ascii_lowercase())
    }
}

/// Adds a part that nothing in another part can look like: with its length, and a character for each byte.
fn add_part(realm: &mut String, name: &str, value: &[u8]) {
    realm.push_str(&format!(";{name}:{}:", value.len()));
    realm.extend(value.iter().copied().map(char::from));
}

/// A line of `Forwarded` without the `for` and the `by` of its members (RFC 7239 §4). What is not plainly one of these stays, for
/// an upstream may read it in its own way.
fn without_addresses(line: &[u8]) -> Vec<u8> {
    let pairs = || line.split(|byte| *byte == b',').map(|member| member.split(|byte| *byte == b';'));
    let is_quoted_over_pairs =
        pairs().flatten().any(|pair| pair.iter().filter(|byte| **byte == b'"').count() % 2 == 1);
    if is_quoted_over_pairs {
        return line.to_vec();
    }
    let members: Vec<_> = pairs()
        .map(|member| {
            let kept: Vec<_> = member.map(<[u8]>::trim_ascii).filter(|pair| !is_address(pair)).collect();
            kept.join(&b';')
        })
        .collect();
    members.join(&b',')
}

fn is_address(pair: &[u8]) -> bool {
    let Some(at) = pair.iter().position(|byte| *byte == b'=') else { return false };
    let (name, node) = pair.split_at(at);
    let node = node.strip_prefix(b"=").unwrap_or(node);
    let node = node.strip_prefix(b"\"").and_then(|node| node.strip_suffix(b"\"")).unwrap_or(node);
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".:[]_-".contains(byte);
    let is_named = name.eq_ignore_ascii_case(b"for") || name.eq_ignore_ascii_case(b"by");
    is_named && node.iter().all(is_plain)
}

fn forget_claims(fields: &mut HeaderMap) {
    let claims: Vec<_> = fields.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
    for name in claims {
        fields.remove(name);
    }
}

/// Whether a field of this name, in lower case, tells where a request comes from.
pub(super) fn is_claim(name: &str) -> bool {
    name == FORWARDED.as_str() || name.starts_with(X_FORWARDED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(*name, HeaderValue::from_static(value));
        }
        fields
    }

    const CLAIMS: [(&str, &str); 6] = [
        ("host", "Node.test:8000"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-prefix", "/evil"),
        ("forwarded", "for=192.0.2.1;host=evil"),
    ];

    fn sender(trusted: &[&str], asked_us: bool) -> Sender {
        let trusted: Vec<TrustForwarded> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        Sender::new(Some("::ffff:127.0.0.1".parse().unwrap()), &trusted, asked_us)
    }

    #[test]
    fn what_a_client_claims_is_replaced_by_what_is_known() {
        let mut told = fields(&CLAIMS);
        sender(&["10.0.0.0/8"], true).tell(&mut told);
        assert_eq!(told["x-forwarded-for"], "127.0.0.1");
        assert_eq!(told["x-forwarded-host"], "node.test:8000");
        assert_eq!(told["x-forwarded-proto"], "http");
        assert_eq!(told["forwarded"], "for=127.0.0.1;host=\"node.test:8000\";proto=http");
        assert_eq!(told.get("x-forwarded-prefix"), None);
        let mut told = fields(&CLAIMS);
        sender(&[], false).tell(&mut told);
        assert_eq!((told.get("x-forwarded-host"), told.len()), (None, 4), "{told:?}");
        let mut told = HeaderMap::new();
        Sender::new(Some("2001:db8::1".parse().unwrap()), &[], false).tell(&mut told);
        assert_eq!(told["forwarded"], "for=\"[2001:db8::1]\";proto=http");
        let mut told = fields(&CLAIMS);
        Sender::new(None, &[], true).tell(&mut told);
        assert_eq!(told.len(), 1, "nobody knows");
    }

    #[test]
    fn what_a_trusted_proxy_says_is_added_to() {
        for trusted in ["127.0.0.1", "127.0.0.0/8"] {
            let mut told = fields(&CLAIMS);
            sender(&[trusted], true).tell(&mut told);
            assert_eq!(told["x-forwarded-for"], "192.0.2.1, 127.0.0.1");
            assert_eq!(
                (&told["x-forwarded-host"], &told["x-forwarded-proto"]),
                (&"evil".parse().unwrap(), &"https".parse().unwrap())
            );
            assert_eq!(
                told["forwarded"],
                "for=192.0.2.1;host=evil, for=127.0.0.1;host=\"node.test:8000\";proto=http"
            );
        }
        assert!(
            "10.0.0.0/33".parse::<TrustForwarded>().is_err() && "host".parse::<TrustForwarded>().is_err()
        );
    }

    #[test]
    fn keys_differ_by_what_may_be_in_an_answer() {
        let key = |sender: Sender, lines: &[(&'static str, &'static str)]| sender.realm("", &fields(lines));
        let untrusted = sender(&[], true);
        assert_eq!(key(untrusted, &CLAIMS), ";host:14:node.test:8000");
        assert_eq!(key(untrusted, &[("host", "NODE.test:8000")]), key(untrusted, &CLAIMS));
        assert_ne!(key(untrusted, &[("host", "other")]), key(untrusted, &CLAIMS));
        let trusted = sender(&["127.0.0.1"], true);
        assert_ne!(key(trusted, &CLAIMS), key(trusted, &CLAIMS[..5]));
        let (host, address) = (CLAIMS[0], ("x-forwarded-for", "192.0.2.9"));
        assert_eq!(key(trusted, &[host, address]), key(trusted, &[host]));
        assert_eq!(key(sender(&[], false), &CLAIMS), "");
        assert_eq!(sender(&[], false).realm("rules", &fields(&CLAIMS)), "rules");
    }

    /// Both characters may stand in a host (RFC 3986, 3.2.2).
    #[test]
    fn no_host_looks_like_what_a_proxy_says() {
        let trusted = sender(&["127.0.0.1"], true);
        let forged = fields(&[("host", "site;x-forwarded-proto=https")]);
        let said = fields(&[("host", "site"), ("x-forwarded-proto", "https")]);
        assert_ne!(trusted.realm("", &forged), trusted.realm("", &said));
        let longer = fields(&[("host", "site;x-forwarded-proto:5:https")]);
        assert_ne!(trusted.realm("", &longer), trusted.realm("", &said));
    }

    #[test]
    fn clients_behind_a_trusted_proxy_share_what_differs_by_their_addresses_only() {
        let trusted = sender(&["127.0.0.1"], true);
        let key = |line: &'static str| trusted.realm("", &fields(&[("forwarded", line)]));
        let one = key("for=192.0.2.1;host=a;proto=https");
        for same in [
            "for=192.0.2.2;host=a;proto=https",
            "For=\"[2001:db8::1]:4711\"; host=a; proto=https",
            "host=a;proto=https;for=_hidden;by=10.0.0.1",
        ] {
            assert_eq!(key(same), one, "{same}");
        }
        for other in [
            "for=192.0.2.1;host=b;proto=https",
            "for=192.0.2.1;host=a;proto=http",
            "for=192.0.2.1, for=192.0.2.1;host=a;proto=https",
            "for=\"x;host=b\";host=a;proto=https",
            "for=\"x,for=y\";host=a;proto=https",
        ] {
            assert_ne!(key(other), one, "{other}");
        }
        assert_ne!(key("host=\"a,for=x,b\""), key("host=\"a,,b\""));
    }
}
