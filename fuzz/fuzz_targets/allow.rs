//! Rules for next hops: a rule reads what it writes, and `*` never lets a loopback or link-local address pass.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_proto::address::Hop;
use relay_trust::next_hop::{AllowNext, Lookup, NextHopPolicy};
use std::net::{IpAddr, SocketAddr};

fuzz_target!(|input: ([u8; 16], bool, &str)| {
    let (bytes, is_v4, text) = input;
    let ip = match bytes.split_first_chunk::<4>() {
        Some((four, _)) if is_v4 => IpAddr::from(*four),
        _ => IpAddr::from(bytes),
    };
    let Ok(hop) = Hop::new(&ip.to_string(), 1) else { return };
    if let Ok(rule) = text.parse::<AllowNext>() {
        assert_eq!(rule.to_string().parse::<AllowNext>().as_ref(), Ok(&rule), "{text:?}");
        let policy = NextHopPolicy::new(vec![rule]);
        let address = SocketAddr::new(ip, 1);
        let may_match = policy.lookup(&hop) != Lookup::Denied;
        assert!(!policy.allows(&hop, address) || may_match, "a rule that may not match allows");
    }
    let everything = NextHopPolicy::new(vec!["*".parse().expect("a rule")]);
    let inner = ip.to_canonical();
    let is_local = inner.is_loopback() || inner.is_unspecified();
    assert!(!(is_local && everything.allows(&hop, SocketAddr::new(ip, 1))), "{ip} passed");
});
