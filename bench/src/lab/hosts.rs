//! The lab's hosts, which are network namespaces, and the links between them.
//!
//! The ends of link n have the addresses 10.77.n.1 and .2. There are no routes beyond: who wants to get further has to go through
//! a relay, as in the networks that this is for.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::link::{Link, MTU, Treatment};
use super::namespace::Namespace;
use crate::platform;
use crate::site::Site;

/// How long packets of a fetch that was ended may still be under way.
const QUIET_LIMIT: Duration = Duration::from_secs(5);

/// A link between two hosts: its delay one way in milliseconds and its rate in Mbit/s.
#[derive(Clone, Copy, Debug)]
pub struct Joint {
    /// The host nearer to the client.
    pub left: usize,
    /// The host nearer to the origin.
    pub right: usize,
    /// Milliseconds, one way.
    pub delay: u64,
    /// Mbit/s.
    pub rate: u64,
}

/// What all links and hosts have in common.
#[derive(Clone, Debug)]
pub struct Network<'a> {
    /// Packets lost at random on each link, in percent, each way.
    pub loss: f64,
    /// Bytes that may wait before a link; none: the bandwidth-delay product of the round trip at the link's rate.
    pub queue: Option<u64>,
    /// Milliseconds that the longest way there and back takes.
    pub round_trip: u64,
    /// Where the randomness of the losses starts.
    pub seed: u64,
    /// The hosts' congestion control.
    pub congestion: &'a str,
}

/// A link that is cut for a while in each fetch.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Which link, from 1.
    pub link: usize,
    /// Seconds from the start of a fetch.
    pub after: f64,
    /// Seconds.
    pub length: f64,
}

/// Namespaces with links between some of them. All of it is gone when this is dropped.
pub struct Hosts {
    hosts: Vec<Namespace>,
    links: Vec<Link>,
    /// Where each link's devices are: a host, and the link's number.
    devices: Vec<(usize, usize)>,
}

impl Hosts {
    /// In a line: host i and i+1 share link i+1.
    pub fn line(delays: &[u64], rates: &[u64], network: &Network<'_>) -> Result<Hosts> {
        let joints = delays.iter().enumerate().map(|(i, &delay)| {
            let rate = *rates.get(i).or(rates.last()).context("no rate is given")?;
            Ok(Joint { left: i, right: i + 1, delay, rate })
        });
        Hosts::join(&joints.collect::<Result<Vec<Joint>>>()?, network)
    }

    /// Makes the hosts and joins them.
    pub fn join(joints: &[Joint], network: &Network<'_>) -> Result<Hosts> {
        let mut hosts = Hosts { hosts: Vec::new(), links: Vec::new(), devices: Vec::new() };
        for _ in 0..=joints.iter().map(|j| j.right).max().unwrap_or(0) {
            let host = Namespace::new()?;
            host.ip(&["link", "set", "lo", "up"])?;
            set_up(&host, network.congestion)?;
            hosts.hosts.push(host);
        }
        for (i, joint) in joints.iter().enumerate() {
            let product = joint.rate * 125_000 * network.round_trip / 1000;
            let treatment = Treatment {
                delay: Duration::from_millis(joint.delay),
                rate: joint.rate * 1_000_000,
                queue: network.queue.unwrap_or(product).max(20 * MTU as u64),
                loss: network.loss / 100.0,
                seed: network.seed.wrapping_mul(1000).wrapping_add(i as u64),
            };
            let left = hosts.device(joint.left, i + 1, 1)?;
            let right = hosts.device(joint.right, i + 1, 2)?;
            hosts.devices.extend([(joint.left, i + 1), (joint.right, i + 1)]);
            hosts.links.push(Link::start(&left, &right, treatment)?);
        }
        Ok(hosts)
    }

    /// One end of a link: a TUN device in host `host` with the address 10.77.`link`.`end`.
    fn device(&self, host: usize, link: usize, end: usize) -> Result<File> {
        let host = self.hosts.get(host).context("no such host")?;
        let device = device_name(link);
        let file = host.within(|| platform::open_tun(&device).context("cannot make a TUN device"))?;
        let (own, peer) = (format!("10.77.{link}.{end}"), format!("10.77.{link}.{}", 3 - end));
        host.ip(&["addr", "add", &own, "peer", &peer, "dev", &device])?;
        host.ip(&["link", "set", &device, "mtu", &MTU.to_string(), "txqueuelen", "10000", "up"])?;
        Ok(file)
    }

    /// A host by its end of a link, which is the link's right one unless it is the client.
    pub fn site(&self, host: usize, link: usize) -> Result<Site> {
        let host = self.hosts.get(host).context("no such host")?;
        Ok(Site::in_namespace(host.path(), Ipv4Addr::new(10, 77, u8::try_from(link)?, 2)))
    }

    /// Relays and origin of a line, each listening on the link towards the client.
    pub fn sites(&self) -> Vec<Site> {
        (1..self.hosts.len()).filter_map(|i| self.site(i, i).ok()).collect()
    }

    /// Where the client runs.
    pub fn client(&self) -> Result<Site> {
        self.site(0, 0)
    }

    /// Does something, with a link cut for a while when that is asked for.
    pub fn with_cut<T>(&self, cut: Option<Cut>, work: impl FnOnce() -> T) -> T {
        let link = cut.and_then(|cut| Some((cut, self.links.get(cut.link.checked_sub(1)?)?)));
        let Some((cut, link)) = link else { return work() };
        let is_cut = &link.is_cut;
        thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(Duration::from_secs_f64(cut.after.clamp(0.0, 600.0)));
                is_cut.store(true, Ordering::Relaxed);
                thread::sleep(Duration::from_secs_f64(cut.length.clamp(0.0, 600.0)));
                is_cut.store(false, Ordering::Relaxed);
            });
            work()
        })
    }

    /// TCP's bytes, without headers, that the first link has brought to the client so far.
    pub fn delivered(&self) -> u64 {
        self.links.first().map_or(0, |link| link.counts.to_left.load(Ordering::Relaxed))
    }

    /// Returns when nothing is under way any more, for `pause` at least.
    pub fn wait_until_quiet(&self, pause: Duration) {
        let until = Instant::now() + QUIET_LIMIT;
        let carried = || self.links.iter().map(|l| l.counts.carried.load(Ordering::Relaxed)).sum::<u64>();
        let mut before = None;
        while before != Some(carried()) && Instant::now() < until {
            before = Some(carried());
            thread::sleep(pause);
        }
    }

    /// Tells what became of the packets.
    pub fn tell(&self) {
        for (i, link) in self.links.iter().enumerate() {
            let count = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
            eprintln!(
                "link {}: {} packets carried, {} lost, {} beyond the queue, {} while cut",
                i + 1,
                count(&link.counts.carried),
                count(&link.counts.lost),
                count(&link.counts.overflowed),
                count(&link.counts.cut)
            );
        }
    }
}

impl Drop for Hosts {
    /// Takes the devices away, which ends the threads of the links.
    fn drop(&mut self) {
        for &(host, link) in &self.devices {
            let gone = self.hosts.get(host).map(|host| host.ip(&["link", "del", &device_name(link)]));
            if let Some(Err(error)) = gone {
                eprintln!("{error:#}");
            }
        }
    }
}

fn device_name(link: usize) -> String {
    format!("link{link}")
}

/// Sets what the connections of a host use. Settings of the network are those of the thread that asks.
fn set_up(host: &Namespace, congestion: &str) -> Result<()> {
    let known = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap_or_default();
    ensure!(
        known.split_whitespace().any(|k| k == congestion),
        "this kernel has no congestion control {congestion:?}, only: {known}"
    );
    host.within(|| {
        fs::write("/proc/sys/net/ipv4/tcp_congestion_control", congestion)
            .with_context(|| format!("a namespace of this kernel does not take {congestion}"))?;
        // Else a connection begins with what an earlier one, perhaps of a peer, has learned (tcp(7)).
        fs::write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1")
            .context("a namespace of this kernel does not take tcp_no_metrics_save")
    })
}
