//! Which of a name's addresses is connected: they are tried at short intervals, and the first that answers counts (RFC 8305, "Happy
//! Eyeballs"). Neither looks names up nor decides which addresses are allowed.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use relay_proto::address::Hop;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long an address may take before the next one is tried beside it (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Of so many names it is remembered which address worked.
const MAX_REMEMBERED: usize = 256;

/// Why no address was connected.
#[derive(Debug)]
pub(crate) enum Unreached {
    /// There was none to try.
    Nothing,
    /// The time was up before one was tried.
    TooLate,
    /// This one was waited for the longest when the time was up.
    TimedOut(SocketAddr),
    /// This one failed last.
    Failed(SocketAddr, io::Error),
    /// This process or this system may open no further socket.
    TooManyFiles(io::Error),
}

/// Connects to the first of these addresses that answers. One that fails lets the next one begin at once, and one that swallows packets
/// costs the others 250 ms.
///
/// # Errors
/// The last failure, or at the deadline the address that was waited for the longest.
pub(crate) async fn first<T, F>(
    addresses: &[SocketAddr],
    deadline: Instant,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<(SocketAddr, T), Unreached>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.iter().copied();
    let (mut tried, mut running) = (VecDeque::new(), FuturesUnordered::new());
    let mut last = Unreached::Nothing;
    let mut next_at = Instant::now();
    loop {
        let has_more = waiting.len() > 0;
        if running.is_empty() && !has_more {
            return Err(last);
        }
        tokio::select! {
            biased;
            Some((address, connected)) = running.next() => {
                let error = match connected {
                    Ok(connection) => return Ok((address, connection)),
                    Err(error) => error,
                };
                tried.retain(|other| *other != address);
                if is_out_of_descriptors(&error) {
                    // Further ones would need more of what there is none of.
                    waiting = [].iter().copied();
                    last = Unreached::TooManyFiles(error);
                } else {
                    last = Unreached::Failed(address, error);
                }
            }
            () = sleep_until(next_at), if has_more => {}
            () = sleep_until(deadline) => {
                return Err(tried.pop_front().map_or(Unreached::TooLate, Unreached::TimedOut));
            }
        }
        if let Some(address) = waiting.next() {
            tried.push_back(address);
            let connecting = connect(address);
            running.push(async move { (address, connecting.await) });
            next_at = Instant::now() + ATTEMPT_DELAY;
        }
    }
}

/// Whether the process or the system has no descriptor left (errno(3): `EMFILE`, `ENFILE`; the numbers are those of every Unix).
fn is_out_of_descriptors(error: &io::Error) -> bool {
    cfg!(unix) && matches!(error.raw_os_error(), Some(23 | 24))
}

/// The order in which addresses are tried: what worked the last time, then both families by turns, each as the resolver sorted it, from
/// the one on that it put first (RFC 8305, section 4).
pub(crate) fn in_order(addresses: Vec<SocketAddr>, worked: Option<SocketAddr>) -> Vec<SocketAddr> {
    let is_first_family = addresses.first().map(SocketAddr::is_ipv6);
    let (ones, others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| Some(address.is_ipv6()) == is_first_family);
    let (mut ones, mut others) = (ones.into_iter(), others.into_iter());
    let mut ordered = Vec::new();
    loop {
        let pair = [ones.next(), others.next()];
        if pair == [None, None] {
            break;
        }
        ordered.extend(pair.into_iter().flatten());
    }
    // Sorting is stable.
    ordered.sort_by_key(|address| Some(*address) != worked);
    ordered
}

/// Which address of a name worked last: a bounded number of names, the oldest are forgotten.
pub(crate) struct Worked(Mutex<VecDeque<(Hop, SocketAddr)>>);

impl Worked {
    pub(crate) const fn new() -> Worked {
        Worked(Mutex::new(VecDeque::new()))
    }

    pub(crate) fn of(&self, hop: &Hop) -> Option<SocketAddr> {
        let remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.iter().find(|(other, _)| other == hop).map(|(_, address)| *address)
    }

    pub(crate) fn remember(&self, hop: &Hop, address: SocketAddr) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.retain(|(other, _)| other != hop);
        remembered.push_front((hop.clone(), address));
        remembered.truncate(MAX_REMEMBERED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// How each address answers: after so many milliseconds, by an error after so many, or never.
    async fn race(answers: &[(&str, Option<Result<u64, u64>>)]) -> (Result<String, String>, Duration) {
        let begun = Instant::now();
        let addresses: Vec<SocketAddr> = answers.iter().map(|(text, _)| address(text)).collect();
        let connect = |to: SocketAddr| {
            let answer = answers.iter().find(|(text, _)| address(text) == to).unwrap().1;
            async move {
                let (Ok(after) | Err(after)) = match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                };
                tokio::time::sleep(Duration::from_millis(after)).await;
                if answer == Some(Ok(after)) { Ok(()) } else { Err(ErrorKind::ConnectionRefused.into()) }
            }
        };
        let first = first(&addresses, begun + Duration::from_secs(10), connect).await;
        let ended =
            first.map(|(address, ())| address.to_string()).map_err(|unreached| format!("{unreached:?}"));
        (ended, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_swallows_packets_costs_250_milliseconds() {
        let (first, took) = race(&[("[::1]:1", None), ("127.0.0.1:1", Some(Ok(3)))]).await;
        assert_eq!((first.as_deref(), took.as_millis() / 10), (Ok("127.0.0.1:1"), 25));
        let (first, took) = race(&[("[::1]:1", Some(Ok(260))), ("127.0.0.1:1", Some(Ok(100)))]).await;
        assert_eq!(
            (first.as_deref(), took.as_millis() / 10),
            (Ok("[::1]:1"), 26),
            "it goes on beside the next"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_fails_costs_nothing() {
        let (first, took) = race(&[("[::1]:1", Some(Err(2))), ("127.0.0.1:1", Some(Ok(3)))]).await;
        assert_eq!((first.as_deref(), took < ATTEMPT_DELAY), (Ok("127.0.0.1:1"), true));
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_last_is_told_and_at_the_deadline_what_was_waited_for() {
        let (failed, _) = race(&[("[::1]:1", Some(Err(2))), ("127.0.0.1:1", Some(Err(3)))]).await;
        assert!(failed.unwrap_err().starts_with("Failed(127.0.0.1:1, "));
        let (failed, took) = race(&[("[::1]:1", Some(Err(2))), ("127.0.0.1:1", None)]).await;
        assert_eq!((failed.unwrap_err().as_str(), took.as_secs()), ("TimedOut(127.0.0.1:1)", 10));
    }

    #[test]
    fn the_families_take_turns_behind_what_worked() {
        let [a, b, c] = ["[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1"].map(address);
        let [x, y] = ["192.0.2.1:1", "192.0.2.2:1"].map(address);
        assert_eq!(in_order(vec![a, b, c, x, y], None), [a, x, b, y, c]);
        assert_eq!(in_order(vec![x, y, a], None), [x, a, y]);
        assert_eq!(in_order(vec![a, b, x], Some(x)), [x, a, b]);
        assert_eq!(in_order(vec![a, b], Some(x)), [a, b], "it is no address of the name any more");
    }

    #[test]
    fn what_worked_is_remembered_for_a_bounded_number_of_names() {
        let worked = Worked::new();
        let hop = |number: usize| format!("h{number}:1").parse::<Hop>().unwrap();
        for number in 0..=MAX_REMEMBERED {
            worked.remember(&hop(number), address("192.0.2.1:1"));
        }
        worked.remember(&hop(7), address("192.0.2.2:1"));
        assert_eq!((worked.of(&hop(0)), worked.of(&hop(7))), (None, Some(address("192.0.2.2:1"))));
        assert_eq!(worked.of(&hop(1)), Some(address("192.0.2.1:1")));
    }
}
