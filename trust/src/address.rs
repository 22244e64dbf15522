//! What an address leads to: in which form it is dialled and compared, where it may end up, and whose it is.
//!
//! The same machine has many addresses, and some hide another within. Whoever denies by addresses must look at the one where
//! the packets may end up; whoever allows, at the one that is dialled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whose an address is, in the order of how much harm can be done through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Anybody can reach it.
    Public,
    /// It belongs to some network of somebody's own (RFC 1918, RFC 6598, RFC 4193).
    Private,
    /// It belongs to one link, to many hosts at once, or to nobody.
    Local,
    /// This machine.
    Loopback,
}

/// The form in which an address is dialled: an IPv4 address that came as IPv6 (RFC 4291, section 2.5.5.2) is IPv4 again, and
/// the unspecified address, which reaches the machine itself, is loopback.
#[must_use]
pub fn canonical(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

/// Where packets to an address may end up. It is canonical, and an IPv4 address that is embedded in an IPv6 one is taken
/// out, whoever would translate or unwrap it on the way. It says what harm an address can do, not what it is: nothing is
/// allowed because of it.
#[must_use]
pub fn destination(address: IpAddr) -> IpAddr {
    match canonical(address) {
        IpAddr::V6(v6) => embedded(v6).map_or(IpAddr::V6(v6), |v4| canonical(v4.into())),
        v4 => v4,
    }
}

/// Whose an address is, by its [`destination`].
#[must_use]
pub fn kind(address: IpAddr) -> Kind {
    match destination(address) {
        IpAddr::V4(address) => kind_of_v4(address),
        IpAddr::V6(address) => kind_of_v6(address),
    }
}

/// Whether an address hides one of this machine, of its links or of nobody within: an embedded IPv4 address can take an
/// address out of a network that contains it, and never brings it into one.
#[must_use]
pub fn hides_local(address: IpAddr) -> bool {
    destination(address) != canonical(address) && matches!(kind(address), Kind::Loopback | Kind::Local)
}

/// Whether a name is one of those that always mean the machine itself (RFC 6761, section 6.3).
#[must_use]
pub fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// The IPv4 address that an IPv6 address leads to.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, high, low] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (a, b, c, d, e, f) {
        // Translated, well-known prefix: RFC 6052, section 2.1.
        (0x64, 0xff9b, 0, 0, 0, 0) => Some(v4(high, low)),
        // IPv4-translated: RFC 2765, section 2.1.
        (0, 0, 0, 0, 0xffff, 0) => Some(v4(high, low)),
        // IPv4-compatible: RFC 4291, section 2.5.5.1. :: and ::1 are none.
        (0, 0, 0, 0, 0, 0) if high != 0 => Some(v4(high, low)),
        // 6to4: RFC 3056, section 2.
        (0x2002, ..) => Some(v4(b, c)),
        // Teredo, the client's address, inverted: RFC 4380, section 4.
        (0x2001, 0, ..) => Some(v4(!high, !low)),
        // ISATAP, under any prefix: RFC 5214, section 6.1.
        (_, _, _, _, 0 | 0x200, 0x5efe) => Some(v4(high, low)),
        _ => None,
    }
}

fn kind_of_v4(address: Ipv4Addr) -> Kind {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0 | 127, ..) => Kind::Loopback,
        // Link-local; multicast, reserved, broadcast.
        (169, 254, _) | (224.., ..) => Kind::Local,
        (100, 64..=127, _) => Kind::Private,
        // Protocol assignments and benchmarking networks are nobody's public host (RFC 6890).
        (192, 0, 0) | (198, 18..=19, _) => Kind::Private,
        _ if address.is_private() => Kind::Private,
        _ => Kind::Public,
    }
}

fn kind_of_v6(address: Ipv6Addr) -> Kind {
    match address.segments() {
        _ if address.is_loopback() || address.is_unspecified() => Kind::Loopback,
        [0xfe80..=0xfebf | 0xff00.., ..] => Kind::Local,
        // Unique local, and what was site-local once.
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Kind::Private,
        // A network's own translation prefixes (RFC 8215): where they lead is known to that network alone.
        [0x64, 0xff9b, 1, ..] => Kind::Private,
        _ => Kind::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_addresses_lead() {
        let table = [
            // address, dialled as, leads to, whose
            ("192.0.2.1", "192.0.2.1", "192.0.2.1", Kind::Public),
            ("127.0.0.1", "127.0.0.1", "127.0.0.1", Kind::Loopback),
            ("127.255.0.1", "127.255.0.1", "127.255.0.1", Kind::Loopback),
            ("0.0.0.0", "127.0.0.1", "127.0.0.1", Kind::Loopback),
            ("0.1.2.3", "0.1.2.3", "0.1.2.3", Kind::Loopback),
            ("10.1.2.3", "10.1.2.3", "10.1.2.3", Kind::Private),
            ("172.16.0.1", "172.16.0.1", "172.16.0.1", Kind::Private),
            ("172.32.0.1", "172.32.0.1", "172.32.0.1", Kind::Public),
            ("192.168.0.1", "192.168.0.1", "192.168.0.1", Kind::Private),
            ("100.64.0.1", "100.64.0.1", "100.64.0.1", Kind::Private),
            ("100.128.0.1", "100.128.0.1", "100.128.0.1", Kind::Public),
            ("192.0.0.8", "192.0.0.8", "192.0.0.8", Kind::Private),
            ("198.19.0.1", "198.19.0.1", "198.19.0.1", Kind::Private),
            ("169.254.169.254", "169.254.169.254", "169.254.169.254", Kind::Local),
            ("224.0.0.1", "224.0.0.1", "224.0.0.1", Kind::Local),
            ("255.255.255.255", "255.255.255.255", "255.255.255.255", Kind::Local),
            ("::", "::1", "::1", Kind::Loopback),
            ("::1", "::1", "::1", Kind::Loopback),
            ("2001:db8::1", "2001:db8::1", "2001:db8::1", Kind::Public),
            ("fe80::1", "fe80::1", "fe80::1", Kind::Local),
            ("ff02::1", "ff02::1", "ff02::1", Kind::Local),
            ("fd00::1", "fd00::1", "fd00::1", Kind::Private),
            ("fec0::1", "fec0::1", "fec0::1", Kind::Private),
            ("::ffff:127.0.0.1", "127.0.0.1", "127.0.0.1", Kind::Loopback),
            ("::ffff:0.0.0.0", "127.0.0.1", "127.0.0.1", Kind::Loopback),
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.1", Kind::Private),
            ("::127.0.0.1", "::127.0.0.1", "127.0.0.1", Kind::Loopback),
            ("::ffff:0:127.0.0.1", "::ffff:0:127.0.0.1", "127.0.0.1", Kind::Loopback),
            ("64:ff9b::127.0.0.1", "64:ff9b::127.0.0.1", "127.0.0.1", Kind::Loopback),
            ("64:ff9b::0.0.0.0", "64:ff9b::", "127.0.0.1", Kind::Loopback),
            ("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.1", "192.0.2.1", Kind::Public),
            ("64:ff9b:1::1", "64:ff9b:1::1", "64:ff9b:1::1", Kind::Private),
            ("2002:7f00:1::1", "2002:7f00:1::1", "127.0.0.1", Kind::Loopback),
            ("2002:a00:1::1", "2002:a00:1::1", "10.0.0.1", Kind::Private),
            ("2001:0:102:304::80ff:fffe", "2001:0:102:304::80ff:fffe", "127.0.0.1", Kind::Loopback),
            ("2001:db8::5efe:127.0.0.1", "2001:db8::5efe:7f00:1", "127.0.0.1", Kind::Loopback),
            ("2001:db8::200:5efe:10.0.0.1", "2001:db8::200:5efe:a00:1", "10.0.0.1", Kind::Private),
            ("2001:4860:4860::8888", "2001:4860:4860::8888", "2001:4860:4860::8888", Kind::Public),
        ];
        for (address, dialled, leads_to, whose) in table {
            let ip = |text: &str| text.parse::<IpAddr>().unwrap();
            assert_eq!(canonical(ip(address)), ip(dialled), "{address} dialled");
            assert_eq!(destination(ip(address)), ip(leads_to), "{address} leads to");
            assert_eq!(kind(ip(address)), whose, "{address}");
            let is_hidden = canonical(ip(address)) != destination(ip(address)) && whose >= Kind::Local;
            assert_eq!(hides_local(ip(address)), is_hidden, "{address}");
        }
    }

    #[test]
    fn names_of_this_machine() {
        for name in ["localhost", "LOCALHOST.", "a.localhost"] {
            assert!(is_localhost(name), "{name}");
        }
        for name in ["localhost.example", "notlocalhost", "", "."] {
            assert!(!is_localhost(name), "{name}");
        }
    }
}
