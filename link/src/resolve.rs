//! From a host's name to its addresses: out of the system's hosts file, or by asking its resolver.
//!
//! Whoever asks the resolver blocks a thread until that answers, and anybody can make up names for which it never does. So
//! there are few such questions at once, each peer has a share of them, and names that the machine itself knows never wait
//! behind one.

use crate::shares::Shares;
use relay_trust::address::is_localhost;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// Who wants to know a name's addresses, and where they may be looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Whoever runs this program named the host: wherever the system looks.
    Own,
    /// A peer named it: wherever the system looks, within the peer's share.
    Of(IpAddr),
    /// A peer named it, for whom nobody is asked: this machine's own names alone.
    Known,
}

/// Why a name has no addresses here.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The resolver says so, or fails.
    #[error("{0}")]
    NotFound(io::Error),
    /// It did not answer in time, or too many other questions wait for it.
    #[error("name lookup timed out")]
    TimedOut,
    /// This machine does not know it, and nobody else may be asked.
    #[error("it is none of this machine's names, and no other is looked up")]
    Unknown,
}

/// The addresses of a name, at most [`MAX_ADDRESSES`].
///
/// # Errors
/// See [`ResolveError`].
pub async fn resolve(name: &str, names: Names, deadline: Instant) -> Result<Vec<IpAddr>, ResolveError> {
    SYSTEM.resolve(name, names, deadline).await
}

/// The most questions to the resolver at once in this process.
const MOST_LOOKUPS: usize = 64;
/// The most of them that one peer asks; more of its questions wait in a line of their own.
const MOST_LOOKUPS_OF_PEER: usize = 8;
/// The most addresses of one name that are used.
pub const MAX_ADDRESSES: usize = 16;
/// The largest hosts file that is read, in bytes; of a larger one nothing is known.
const MAX_HOSTS_FILE: u64 = 16 * 1024 * 1024;

static SYSTEM: LazyLock<Resolver> = LazyLock::new(|| Resolver::new(hosts_file(), ask_system));

/// Where names and addresses are listed (hosts(5)).
fn hosts_file() -> Option<&'static Path> {
    cfg!(unix).then(|| Path::new("/etc/hosts"))
}

fn ask_system(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

struct Resolver {
    hosts: HostsFile,
    ask: fn(&str) -> io::Result<Vec<IpAddr>>,
    lookups: Arc<Semaphore>,
    shares: Shares,
}

impl Resolver {
    fn new(hosts: Option<&'static Path>, ask: fn(&str) -> io::Result<Vec<IpAddr>>) -> Resolver {
        Resolver {
            hosts: HostsFile { path: hosts, read: Mutex::default() },
            ask,
            lookups: Arc::new(Semaphore::new(MOST_LOOKUPS)),
            shares: Shares::new(MOST_LOOKUPS_OF_PEER),
        }
    }

    async fn resolve(
        &self,
        name: &str,
        names: Names,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, ResolveError> {
        let mut found = match (self.hosts.addresses(name), names) {
            (Some(known), _) => known,
            (None, Names::Known) => return Err(ResolveError::Unknown),
            (None, Names::Own) => self.ask_within(name, None, deadline).await?,
            (None, Names::Of(peer)) => self.ask_within(name, Some(peer), deadline).await?,
        };
        found.truncate(MAX_ADDRESSES);
        Ok(found)
    }

    async fn ask_within(
        &self,
        name: &str,
        peer: Option<IpAddr>,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, ResolveError> {
        let answer = timeout_at(deadline, self.ask_in_turn(name.to_owned(), peer)).await;
        answer.map_err(|_| ResolveError::TimedOut)?.map_err(ResolveError::NotFound)
    }

    /// The resolver blocks its thread whoever has given up meanwhile. So the permits stay with the question.
    async fn ask_in_turn(&self, name: String, peer: Option<IpAddr>) -> io::Result<Vec<IpAddr>> {
        let share = match peer {
            Some(peer) => Some(self.shares.of(peer).acquire_owned().await.map_err(io::Error::other)?),
            None => None,
        };
        let permit = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let ask = self.ask;
        let question = move || {
            let found = ask(&name);
            drop((permit, share));
            found
        };
        tokio::task::spawn_blocking(question).await.map_err(io::Error::other)?
    }
}

/// The hosts file, read anew when it has changed.
struct HostsFile {
    path: Option<&'static Path>,
    read: Mutex<Option<ReadHosts>>,
}

struct ReadHosts {
    version: Version,
    names: HashMap<String, Vec<IpAddr>>,
}

/// A file's time and size: another one of them is another version.
type Version = (Option<SystemTime>, u64);

impl HostsFile {
    /// What the file says of a name; loopback for the names that always mean it (RFC 6761, section 6.3).
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let name = plain_name(name);
        let listed = self.path.and_then(|path| self.listed(path, &name));
        let loopback = || vec![IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        listed.or_else(|| is_localhost(&name).then(loopback))
    }

    fn listed(&self, path: &Path, name: &str) -> Option<Vec<IpAddr>> {
        let meta = std::fs::metadata(path).ok()?;
        let version = (meta.modified().ok(), meta.len());
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = read.as_ref().filter(|read| read.version == version) {
            return read.names.get(name).cloned();
        }
        let text = if meta.is_file() && meta.len() <= MAX_HOSTS_FILE {
            std::fs::read(path).unwrap_or_default()
        } else {
            Vec::new()
        };
        let names = names_in(&String::from_utf8_lossy(&text));
        read.insert(ReadHosts { version, names }).names.get(name).cloned()
    }
}

/// The names of a hosts file, each with its addresses in the order of the file.
fn names_in(text: &str) -> HashMap<String, Vec<IpAddr>> {
    let mut names: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for line in text.lines() {
        let line = line.split_once('#').map_or(line, |(before, _)| before);
        let mut words = line.split_whitespace();
        // An address with a zone, or of a form that is no address, names nothing that could be dialled.
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        for name in words {
            let addresses = names.entry(plain_name(name)).or_default();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    names
}

/// Names have no case, and a dot at the end changes nothing.
fn plain_name(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_hosts_file_as_it_is_written() {
        let names = names_in(
            "127.0.0.1\tlocalhost\n::1 localhost ip6-localhost # a comment\n#192.0.2.9 pchost1\n\n\
             192.0.2.1  PCHOST1 pchost1.example\n192.0.2.1 pchost1\nfe80::1%eth0 zone\n0177.0.0.1 octal\n192.0.2.2",
        );
        assert_eq!(names["localhost"], [ip("127.0.0.1"), ip("::1")]);
        assert_eq!(names["pchost1"], [ip("192.0.2.1")]);
        assert_eq!(names["pchost1.example"], [ip("192.0.2.1")]);
        assert_eq!(names.len(), 4);
    }

    #[test]
    fn the_hosts_file_is_read_again_when_it_has_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path: &'static Path = Box::leak(directory.path().join("hosts").into_boxed_path());
        let hosts = HostsFile { path: Some(path), read: Mutex::default() };
        assert_eq!(hosts.addresses("pchost1"), None);
        std::fs::write(path, "192.0.2.1 pchost1").unwrap();
        assert_eq!(hosts.addresses("PcHost1."), Some(vec![ip("192.0.2.1")]));
        std::fs::write(path, "192.0.2.12 pchost1").unwrap();
        assert_eq!(hosts.addresses("pchost1"), Some(vec![ip("192.0.2.12")]));
        assert_eq!(hosts.addresses("a.localhost"), Some(vec![ip("127.0.0.1"), ip("::1")]));
    }

    /// A resolver that never answers; a thread of it ends with the test's process.
    fn hung() -> Resolver {
        Resolver::new(None, |_| {
            loop {
                std::thread::park();
            }
        })
    }

    async fn fails(resolver: &Resolver, name: &str, names: Names) -> bool {
        let soon = Instant::now() + Duration::from_millis(50);
        matches!(resolver.resolve(name, names, soon).await, Err(ResolveError::TimedOut))
    }

    #[test]
    fn who_asks_for_names_that_nobody_answers_takes_a_share_and_no_more() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let resolver = hung();
            let (greedy, other) = (Names::Of(ip("192.0.2.1")), Names::Of(ip("192.0.2.2")));
            for _ in 0..2 * MOST_LOOKUPS {
                let soon = Instant::now() + Duration::from_millis(1);
                let _ = resolver.resolve("never.example", greedy, soon).await;
            }
            assert_eq!(resolver.lookups.available_permits(), MOST_LOOKUPS - MOST_LOOKUPS_OF_PEER);
            assert!(fails(&resolver, "never.example", other).await);
            assert_eq!(resolver.lookups.available_permits(), MOST_LOOKUPS - MOST_LOOKUPS_OF_PEER - 1);
            // What the machine knows itself waits for nobody, for whomever it is.
            let late = Instant::now() + Duration::from_secs(120);
            for names in [greedy, other, Names::Own, Names::Known] {
                let found = resolver.resolve("localhost", names, late).await.unwrap();
                assert_eq!(found, [ip("127.0.0.1"), ip("::1")]);
            }
            let unknown = resolver.resolve("never.example", Names::Known, late).await;
            assert!(matches!(unknown, Err(ResolveError::Unknown)), "{unknown:?}");
        });
        runtime.shutdown_background();
    }
}
