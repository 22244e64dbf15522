//! Which congestion control the connections of a chain use (tcp(7), `TCP_CONGESTION`).
//!
//! It is the sender's choice, connection by connection. On long links with loss it decides about nearly everything: one
//! stream of BBR fills a link on which one of Reno gets a twentieth.

use socket2::SockRef;
use std::fmt;
use std::io;
use std::str::FromStr;

/// What `auto` takes where it can be had.
const BEST: &str = "bbr";
/// The longest name, in bytes (Linux's `TCP_CA_NAME_MAX`, less its NUL).
const MAX_NAME: usize = 15;

/// What somebody asked for: `auto`, or an algorithm by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CongestionWish {
    /// BBR where the kernel lets this process have it, else the system's own.
    Auto,
    /// This one, or an error.
    Named(Algorithm),
}

/// The name of an algorithm: at most 15 letters, digits, `-` and `_`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Algorithm {
    bytes: [u8; MAX_NAME],
    len: usize,
}

/// A text that cannot be an algorithm's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write auto or the name of an algorithm, such as bbr, cubic or reno")]
pub struct NoAlgorithm;

/// An algorithm that this process cannot have.
#[derive(Debug, thiserror::Error)]
#[error("the congestion control {algorithm} cannot be had: {why}")]
pub struct CongestionError {
    /// Which.
    pub algorithm: Algorithm,
    /// Why, and what could be had instead.
    pub why: String,
}

impl FromStr for CongestionWish {
    type Err = NoAlgorithm;

    fn from_str(text: &str) -> Result<CongestionWish, NoAlgorithm> {
        if text == "auto" { Ok(CongestionWish::Auto) } else { text.parse().map(CongestionWish::Named) }
    }
}

impl FromStr for Algorithm {
    type Err = NoAlgorithm;

    fn from_str(text: &str) -> Result<Algorithm, NoAlgorithm> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let mut bytes = [0; MAX_NAME];
        let place = bytes.get_mut(..text.len()).filter(|place| !place.is_empty()).ok_or(NoAlgorithm)?;
        place.copy_from_slice(text.as_bytes());
        if text.bytes().all(is_name) { Ok(Algorithm { bytes, len: text.len() }) } else { Err(NoAlgorithm) }
    }
}

impl Algorithm {
    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What sockets get: an algorithm that was tried and can be had, or the system's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Congestion(Option<Algorithm>);

impl Congestion {
    /// The system's own; no socket is touched.
    pub const SYSTEM: Congestion = Congestion(None);

    /// What a wish comes to on this machine; no wish is the system's own. It tries it on a socket that goes nowhere.
    ///
    /// # Errors
    /// An algorithm that was named and cannot be had.
    pub fn of(wish: Option<CongestionWish>) -> Result<Congestion, CongestionError> {
        match wish {
            None => Ok(Congestion::SYSTEM),
            Some(CongestionWish::Auto) => {
                let best = BEST.parse().ok().filter(|best| try_out(best).is_ok());
                Ok(Congestion(best))
            }
            Some(CongestionWish::Named(algorithm)) => match try_out(&algorithm) {
                Ok(()) => Ok(Congestion(Some(algorithm))),
                Err(error) => Err(CongestionError { algorithm, why: explain(&error) }),
            },
        }
    }

    /// The algorithm that sockets get; none: the system's own.
    #[must_use]
    pub fn algorithm(&self) -> Option<Algorithm> {
        self.0
    }

    /// Gives it to a socket. What a listening socket has goes to those that it accepts.
    ///
    /// It could be had when it was chosen; a socket that refuses it now works without it, so that is only logged.
    pub fn apply(&self, socket: &SockRef<'_>) {
        if let Some(algorithm) = &self.0
            && let Err(error) = set(socket, algorithm)
        {
            tracing::debug!(%error, %algorithm, "a socket does not take its congestion control");
        }
    }
}

fn try_out(algorithm: &Algorithm) -> io::Result<()> {
    let socket = |domain| socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP));
    let socket = socket(socket2::Domain::IPV4).or_else(|_| socket(socket2::Domain::IPV6))?;
    set(&SockRef::from(&socket), algorithm)
}

#[cfg(any(target_os = "linux", target_os = "freebsd"))]
fn set(socket: &SockRef<'_>, algorithm: &Algorithm) -> io::Result<()> {
    socket.set_tcp_congestion(algorithm.as_str().as_bytes())
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
fn set(_: &SockRef<'_>, _: &Algorithm) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has one for all sockets"))
}

/// The algorithm of a socket, where the system tells.
#[must_use]
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
pub fn algorithm_of(socket: &SockRef<'_>) -> Option<Algorithm> {
    let name = socket.tcp_congestion().ok()?;
    std::str::from_utf8(&name).ok()?.trim_end_matches('\0').parse().ok()
}

/// The algorithm of a socket; this system does not tell.
#[must_use]
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
pub fn algorithm_of(_: &SockRef<'_>) -> Option<Algorithm> {
    None
}

fn explain(error: &io::Error) -> String {
    /// What every process may have, and what the kernel has at all (ip-sysctl in the kernel's documentation).
    const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
    const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "the kernel does not have it".to_owned(),
        io::ErrorKind::PermissionDenied => "the kernel does not let this user have it".to_owned(),
        _ => error.to_string(),
    };
    let listed = |path| std::fs::read_to_string(path).ok().map(|names| names.trim().to_owned());
    match (listed(AVAILABLE), listed(ALLOWED)) {
        (Some(available), Some(allowed)) => {
            format!("{reason}; it has {available}, of which every user may have {allowed}")
        }
        _ => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(text: &str) -> Option<CongestionWish> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn names() {
        assert_eq!("auto".parse(), Ok(CongestionWish::Auto));
        for name in ["reno", "bbr", "a-name_of_15_char"].map(|name| name.get(..15).unwrap_or(name)) {
            assert_eq!(name.parse::<Algorithm>().unwrap().to_string(), name);
        }
        for bad in ["", "b b", "reno\0", "sixteen-letters-", "é"] {
            assert_eq!(bad.parse::<CongestionWish>(), Err(NoAlgorithm), "{bad:?}");
        }
    }

    #[test]
    fn no_wish_changes_nothing() {
        assert_eq!(Congestion::of(None).unwrap(), Congestion::SYSTEM);
    }

    #[test]
    fn auto_never_fails() {
        let chosen = Congestion::of(wish("auto")).unwrap().algorithm();
        assert!(chosen.is_none_or(|algorithm| algorithm.as_str() == BEST));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_can_be_had_is_had() {
        // The one algorithm that every kernel has and every process may take.
        let reno = Congestion::of(wish("reno")).unwrap();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let socket = SockRef::from(&socket);
        reno.apply(&socket);
        assert_eq!(algorithm_of(&socket), reno.algorithm());
    }

    #[test]
    fn what_cannot_be_had_is_told() {
        let error = Congestion::of(wish("nosuch")).unwrap_err().to_string();
        assert!(error.contains("nosuch"), "{error}");
        if cfg!(target_os = "linux") {
            assert!(error.contains("reno"), "tells what there is: {error}");
        }
    }
}
