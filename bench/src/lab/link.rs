//! A link of the lab: packets carried between two TUN devices with delay, a rate limit, random loss and cuts.
//!
//! Each direction has a thread that takes packets in, decides their fate, and one that hands them out in time. The queue in
//! front of the rate limit holds about a bandwidth-delay product of the whole path; what does not fit is dropped, as routers do.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::random::Random;

/// The largest packet of the lab's devices.
pub const MTU: usize = 1500;

/// How a link treats packets, the same both ways.
#[derive(Clone, Copy, Debug)]
pub struct Treatment {
    /// One way.
    pub delay: Duration,
    /// Bits a second.
    pub rate: u64,
    /// Bytes that may wait for the rate limit.
    pub queue: u64,
    /// Packets lost at random, of 1.
    pub loss: f64,
    /// Where the randomness starts.
    pub seed: u64,
}

/// What became of the packets.
#[derive(Debug, Default)]
pub struct Counts {
    /// Handed out.
    pub carried: AtomicU64,
    /// Lost at random.
    pub lost: AtomicU64,
    /// Dropped before the rate limit.
    pub overflowed: AtomicU64,
    /// Dropped because the link was cut.
    pub cut: AtomicU64,
    /// Bytes of TCP's streams, without headers, that were handed to the left end.
    pub to_left: AtomicU64,
}

/// A link that works until its devices vanish.
#[derive(Debug)]
pub struct Link {
    /// Carries nothing while this is set.
    pub is_cut: Arc<AtomicBool>,
    /// Both directions together.
    pub counts: Arc<Counts>,
}

impl Link {
    /// Starts to carry packets between the devices.
    pub fn start(left: &File, right: &File, treatment: Treatment) -> Result<Link> {
        let link = Link { is_cut: Arc::default(), counts: Arc::default() };
        for (is_to_left, from, to) in [(false, left, right), (true, right, left)] {
            let seed = if is_to_left { treatment.seed ^ 0x5bd1_e995 } else { treatment.seed };
            let (take, give) = channel();
            let gate = Gate {
                treatment,
                random: Random(seed),
                free_at: Instant::now(),
                is_cut: Arc::clone(&link.is_cut),
                counts: Arc::clone(&link.counts),
            };
            let (from, to, counts) = (from.try_clone()?, to.try_clone()?, Arc::clone(&link.counts));
            thread::spawn(move || take_in(from, gate, &take));
            thread::spawn(move || hand_out(to, &give, &counts, is_to_left));
        }
        Ok(link)
    }
}

type Parcel = (Instant, Vec<u8>);

fn take_in(mut from: File, mut gate: Gate, out: &Sender<Parcel>) {
    let mut buffer = [0; 2 * MTU];
    // A device that vanishes ends the loop, and with it the other thread.
    while let Ok(n) = from.read(&mut buffer) {
        let Some(packet) = buffer.get(..n) else { return };
        if let Some(at) = gate.admit(n as u64, Instant::now())
            && out.send((at, packet.to_vec())).is_err()
        {
            return;
        }
    }
}

fn hand_out(mut to: File, parcels: &Receiver<Parcel>, counts: &Counts, is_to_left: bool) {
    while let Ok((at, packet)) = parcels.recv() {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        // A device that is not up yet, or not any more, loses packets as any other does.
        if to.write(&packet).is_ok() {
            counts.carried.fetch_add(1, Ordering::Relaxed);
            if is_to_left {
                counts.to_left.fetch_add(payload(&packet).unwrap_or(0), Ordering::Relaxed);
            }
        }
    }
}

/// How many bytes of its stream a packet of TCP over IPv4 carries; none for any other packet (RFC 791, 3.1; RFC 9293, 3.1).
fn payload(packet: &[u8]) -> Option<u64> {
    let words = |byte: u8| u64::from(byte) * 4;
    let (&first, &protocol) = (packet.first()?, packet.get(9)?);
    if first >> 4 != 4 || protocol != 6 {
        return None;
    }
    let header = words(first & 15);
    let offset = words(packet.get(usize::try_from(header).ok()? + 12)? >> 4);
    (packet.len() as u64).checked_sub(header + offset)
}

struct Gate {
    treatment: Treatment,
    random: Random,
    /// When the last admitted packet will have left the rate limit.
    free_at: Instant,
    is_cut: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

impl Gate {
    /// When a packet comes out at the far end, or `None` when it does not.
    fn admit(&mut self, bytes: u64, now: Instant) -> Option<Instant> {
        let dropped = |count: &AtomicU64| {
            count.fetch_add(1, Ordering::Relaxed);
            None
        };
        if self.is_cut.load(Ordering::Relaxed) {
            return dropped(&self.counts.cut);
        }
        if self.random.below_one() < self.treatment.loss {
            return dropped(&self.counts.lost);
        }
        let start = self.free_at.max(now);
        if start - now > self.time_of(self.treatment.queue) {
            return dropped(&self.counts.overflowed);
        }
        self.free_at = start + self.time_of(bytes);
        Some(self.free_at + self.treatment.delay)
    }

    fn time_of(&self, bytes: u64) -> Duration {
        Duration::from_nanos(bytes.saturating_mul(8_000_000_000) / self.treatment.rate.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(rate: u64, queue: u64, loss: f64) -> Gate {
        let delay = Duration::from_millis(10);
        Gate {
            treatment: Treatment { delay, rate, queue, loss, seed: 7 },
            random: Random(7),
            free_at: Instant::now(),
            is_cut: Arc::default(),
            counts: Arc::default(),
        }
    }

    #[test]
    fn packets_leave_at_the_rate_and_arrive_after_the_delay() {
        let mut gate = gate(8_000, 10_000, 0.0);
        let now = gate.free_at;
        // 1,000 bytes take a second at 8,000 bits a second.
        assert_eq!(gate.admit(1000, now), Some(now + Duration::from_millis(1010)));
        assert_eq!(gate.admit(500, now), Some(now + Duration::from_millis(1510)));
        let later = now + Duration::from_secs(60);
        assert_eq!(gate.admit(1000, later), Some(later + Duration::from_millis(1010)));
    }

    #[test]
    fn a_full_queue_drops_and_a_cut_link_carries_nothing() {
        let mut gate = gate(8_000, 1500, 0.0);
        let now = gate.free_at;
        assert!(gate.admit(1000, now).is_some() && gate.admit(1000, now).is_some());
        assert_eq!(gate.admit(1000, now), None);
        assert_eq!(gate.counts.overflowed.load(Ordering::Relaxed), 1);
        gate.is_cut.store(true, Ordering::Relaxed);
        assert_eq!(gate.admit(1, now + Duration::from_secs(60)), None);
    }

    #[test]
    fn a_packet_s_part_of_the_stream_is_counted_without_headers() {
        // 20 bytes of IP, 32 of TCP with options, then the stream.
        let mut packet = vec![0; 20 + 32 + 1000];
        (packet[0], packet[9], packet[20 + 12]) = (0x45, 6, 0x80);
        assert_eq!(payload(&packet), Some(1000));
        for end in 0..52 {
            assert_eq!(payload(&packet[..end]), None, "{end}");
        }
        assert_eq!(payload(&packet[..52]), Some(0));
        for (at, other) in [(0, 0x65), (9, 17)] {
            let before = std::mem::replace(&mut packet[at], other);
            assert_eq!(payload(&packet), None);
            packet[at] = before;
        }
    }

    #[test]
    fn about_the_share_that_was_asked_for_is_lost_the_same_each_time() {
        let lost = || {
            let mut gate = gate(u64::MAX, u64::MAX / 16_000_000_000, 0.01);
            let now = gate.free_at;
            (0..100_000).filter(|_| gate.admit(1, now).is_none()).count()
        };
        let first = lost();
        assert!((900..1100).contains(&first), "{first}");
        assert_eq!(lost(), first);
    }
}
