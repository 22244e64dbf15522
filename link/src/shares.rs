//! Fair shares: of what all peers use together, no single one gets more than its part.
//!
//! A peer is an address, and for IPv6 a network of 64 bits, because every home has one of those. What is counted here is not
//! authenticated in any way: it bounds what one machine can take, and grants nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::Semaphore;

/// Shares of one kind. Only peers that hold or wait for something take memory here.
#[derive(Debug)]
pub struct Shares {
    each: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    by_peer: HashMap<IpAddr, Weak<Semaphore>>,
    /// Those who hold nothing any more are forgotten when there are so many.
    sweep_at: usize,
}

/// The fewest peers for whom a sweep is worth its time.
const SWEEP_FROM: usize = 64;

impl Shares {
    /// At most `each` for every peer at once.
    #[must_use]
    pub fn new(each: usize) -> Shares {
        Shares { each, held: Mutex::default() }
    }

    /// The permits of this peer. Whoever holds one of them, or this, is counted.
    #[must_use]
    pub fn of(&self, peer: IpAddr) -> Arc<Semaphore> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = counted_as(peer);
        if let Some(share) = held.by_peer.get(&peer).and_then(Weak::upgrade) {
            return share;
        }
        if held.by_peer.len() >= held.sweep_at.max(SWEEP_FROM) {
            held.by_peer.retain(|_, share| share.strong_count() > 0);
            held.sweep_at = held.by_peer.len() * 2;
        }
        let share = Arc::new(Semaphore::new(self.each));
        held.by_peer.insert(peer, Arc::downgrade(&share));
        share
    }

    /// How many peers are remembered.
    #[cfg(test)]
    fn peers(&self) -> usize {
        self.held.lock().unwrap().by_peer.len()
    }
}

/// What a peer's address is counted as: an IPv4 address as itself, in whichever form it came, an IPv6 address as its network
/// of 64 bits.
#[must_use]
pub fn counted_as(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_peer_has_its_own_share() {
        let shares = Shares::new(2);
        let held: Vec<_> = (0..2).map(|_| shares.of(ip("192.0.2.1")).try_acquire_owned().unwrap()).collect();
        assert!(shares.of(ip("192.0.2.1")).try_acquire_owned().is_err());
        assert!(shares.of(ip("::ffff:192.0.2.1")).try_acquire_owned().is_err(), "the same in another form");
        let other = shares.of(ip("2001:db8::1")).try_acquire_owned().unwrap();
        let _same = shares.of(ip("2001:db8::ffff:1")).try_acquire_owned().unwrap();
        assert!(shares.of(ip("2001:db8::2")).try_acquire_owned().is_err(), "one network of 64 bits");
        assert!(shares.of(ip("2001:db8:0:1::1")).try_acquire_owned().is_ok());
        drop((held, other));
        assert!(shares.of(ip("192.0.2.1")).try_acquire_owned().is_ok());
        assert!(shares.of(ip("2001:db8::2")).try_acquire_owned().is_ok());
    }

    #[test]
    fn who_holds_nothing_takes_no_memory_for_long() {
        let shares = Shares::new(1);
        let held = shares.of(ip("192.0.2.1")).try_acquire_owned().unwrap();
        for number in 0..100_000_u32 {
            assert!(shares.of(IpAddr::from(number.to_be_bytes())).try_acquire_owned().is_ok());
        }
        assert!(shares.peers() <= 2 * SWEEP_FROM, "{}", shares.peers());
        assert!(shares.of(ip("192.0.2.1")).try_acquire_owned().is_err(), "but who holds is remembered");
        drop(held);
    }
}
