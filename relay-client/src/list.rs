//! `relay-client list`: what the origin offers.

use crate::cli::ListArguments;
use crate::console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::left_out::LeftOut;
use crate::plan::{network, silence};
use crate::platform::standard_output;
use crate::progress::{Reporter, conclude};
use crate::route_source;
use crate::session::Network;
use crate::session::{Session, request};
use crate::show;
use crate::stop::{Stop, Until};
use crate::tree::sift::is_behind;
use relay_chain::requests::AnswerError;
use relay_proto::file::{Entry, EntryKind, List, Page, RequestedName};
use relay_proto::route::Route;
use serde::Serialize;
use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// Lists what the origin offers.
pub async fn run(arguments: &ListArguments, stop: &Stop) -> Exit {
    conclude(list(arguments, stop).await, arguments.json)
}

async fn list(arguments: &ListArguments, stop: &Stop) -> Result<(), Failure> {
    let (route, prefix) = source(arguments)?;
    let prefix =
        RequestedName::try_from(prefix.as_str()).map_err(|e| Failure::Usage(format!("the prefix: {e}")))?;
    let silence = silence(arguments.time.timeout)?;
    let network = network(&arguments.network, &arguments.trust, std::slice::from_ref(&route))?;
    let listing = Listing { route: &route, prefix, recursive: arguments.recursive, silence, network };
    let show: fn(&Page) -> io::Result<()> = if arguments.json { print_page_json } else { print_page };
    let left_out = Until::new(stop, arguments.time.deadline).bound(listing.print(show)).await?;
    if left_out.links > 0 {
        let links = left_out.links;
        console::message(&format!("{links} links lead nowhere or out of what is offered, and are left out"));
    }
    if left_out.is_a_loss() { Err(Failure::Unlisted(left_out)) } else { Ok(()) }
}

/// The route and the prefix. With `--via` there is no route file, so the first argument is the prefix.
fn source(arguments: &ListArguments) -> Result<(Route, String), Failure> {
    let given = &arguments.route;
    if given.via.is_empty() {
        return Ok((route_source::read(given, None)?, arguments.prefix.clone().unwrap_or_default()));
    }
    if arguments.prefix.is_some() {
        return Err(Failure::Usage("give either a route file or --via, not both (see --help)".to_owned()));
    }
    let named = given.get.clone().map(PathBuf::from).or_else(|| given.route.clone());
    let prefix = named.map(PathBuf::into_os_string).unwrap_or_default();
    let prefix = prefix.into_string().map_err(|_| Failure::Usage("the prefix is not UTF-8".to_owned()))?;
    Ok((route_source::from_flags(Some("-"), &given.via)?, prefix))
}

/// What to ask, page by page.
struct Listing<'a> {
    route: &'a Route,
    prefix: RequestedName,
    recursive: bool,
    silence: Duration,
    network: Network,
}

impl Listing<'_> {
    /// Shows every page; returns what is not in them.
    async fn print(&self, show: fn(&Page) -> io::Result<()>) -> Result<LeftOut, Failure> {
        let reporter = Reporter::silent();
        let first = self.request(None)?;
        let mut session =
            Session::connect(self.route, self.silence, &self.network, &first, &reporter).await?;
        let (mut left_out, mut after) = (LeftOut::default(), None);
        loop {
            let head = session.head().await?;
            if !head.status.is_success() {
                return Err(session.refused(&head));
            }
            let page = session.answers().page().await.map_err(|e| session.broken(e))?;
            let advances =
                |(after, next): (&RequestedName, &RequestedName)| is_behind(next.as_str(), after.as_str());
            if !after.as_ref().zip(page.next.as_ref()).is_none_or(advances) {
                return Err(session.broken(AnswerError::Protocol("a listing that does not advance")));
            }
            left_out.add(&page);
            left_out.unreadable += page.entries.iter().filter(|entry| entry.unreadable).count() as u64;
            show(&page).map_err(console::lost)?;
            let Some(next) = page.next else { return Ok(left_out) };
            session.send(&self.request(Some(next.clone()))?).await?;
            after = Some(next);
        }
    }

    fn request(&self, after: Option<RequestedName>) -> Result<Vec<u8>, Failure> {
        request(&List { prefix: self.prefix.clone(), after, recursive: self.recursive })
    }
}

fn print_page(page: &Page) -> io::Result<()> {
    let mut out = BufWriter::new(standard_output()?);
    for entry in &page.entries {
        writeln!(out, "{}", Row(entry))?;
    }
    out.flush()
}

/// An entry for people: size, time, name. A directory's name ends in `/`.
struct Row<'a>(&'a Entry);

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row(entry) = self;
        let time = modified(entry).map(|time| humantime::format_rfc3339_seconds(time).to_string());
        let time = time.unwrap_or_else(|| "-".to_owned());
        match entry.kind {
            EntryKind::File => {
                write!(f, "{:>12}  {time:<20}  {}", show::bytes(entry.size.bytes()), entry.name)
            }
            EntryKind::Directory => {
                let name = entry.name.to_string();
                let note = match (entry.unreadable, entry.linked) {
                    (true, _) => "  (the origin cannot read it)",
                    (_, true) => "  (a link, not entered)",
                    _ => "",
                };
                write!(f, "{:>12}  {time:<20}  {}/{note}", "-", name.trim_end_matches('/'))
            }
        }
    }
}

/// The years that can be written with four digits.
const SHOWN_TIMES: std::ops::Range<i64> = 0..253_402_300_800;

/// The entry's time, when it can be shown.
fn modified(entry: &Entry) -> Option<SystemTime> {
    let seconds = Some(entry.modified.seconds()).filter(|seconds| SHOWN_TIMES.contains(seconds))?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// An entry for programs: as it came, for JSON escapes what must not reach a terminal raw.
#[derive(Serialize)]
struct EntryEvent<'a> {
    event: &'static str,
    #[serde(flatten)]
    entry: &'a Entry,
}

fn print_page_json(page: &Page) -> io::Result<()> {
    let mut out = BufWriter::new(standard_output()?);
    for entry in &page.entries {
        serde_json::to_writer(&mut out, &EntryEvent { event: "entry", entry })?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_proto::file::{Size, Timestamp};

    fn entry(name: &str, kind: EntryKind, seconds: i64) -> Entry {
        Entry {
            name: RequestedName::try_from(name).unwrap(),
            kind,
            size: Size::try_from(1536).unwrap(),
            modified: Timestamp::new(seconds, 0).unwrap(),
            executable: false,
            linked: false,
            unreadable: false,
        }
    }

    #[test]
    fn rows() {
        let row = |entry: &Entry| Row(entry).to_string();
        assert_eq!(row(&entry("a b", EntryKind::File, 0)), "    1.50 KiB  1970-01-01T00:00:00Z  a b");
        assert_eq!(row(&entry("d", EntryKind::Directory, 0)), "           -  1970-01-01T00:00:00Z  d/");
        for seconds in [i64::MIN, -1, i64::MAX] {
            assert_eq!(row(&entry("a", EntryKind::File, seconds)), "    1.50 KiB  -                     a");
        }
        assert!(!row(&entry("a\x1b[2J\u{202e}b", EntryKind::File, 0)).contains(relay_proto::text::is_unsafe));
    }
}
