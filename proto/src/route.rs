//! Route files: which file, through which hops.
//!
//! Two forms, told apart by the first characters. Text: the file's name on the first line, then a hop a line; lines that
//! start with `#`, and what follows ` #` behind a hop, are comments; a line `or` ends a route, and another whole route to the same file follows. JSON:
//! `{"file": …, "hops": [{"host": …, "port": …}, …], "hash": "b3:…"}`, or an array of such objects. Every error has its place,
//! so that the caller can show the line with a caret.

use crate::address::{Hop, HopError, HopErrorKind, Host};
use crate::digest::FileHash;
use crate::file::RequestedName;
use crate::limits::{MAX_HOPS, MAX_NAME, MAX_ROUTE_FILE, MAX_ROUTE_LINE, MAX_ROUTES};
use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A file and the hops that lead to it: 1 to [`MAX_HOPS`], the last one being the origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    file: RequestedName,
    hops: Vec<Hop>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<FileHash>,
}

impl Route {
    /// A route from its parts, as the command line gives them.
    ///
    /// # Errors
    /// An empty or too long name, no hop, too many hops.
    pub fn new(file: &str, hops: Vec<Hop>, hash: Option<FileHash>) -> Result<Route, RouteErrorKind> {
        Ok(Route { file: file_name(file)?, hops: checked_hops(hops)?, hash })
    }

    /// The file's name at the origin.
    #[must_use]
    pub fn file(&self) -> &RequestedName {
        &self.file
    }

    /// The hops, in order; the last one is the origin.
    #[must_use]
    pub fn hops(&self) -> &[Hop] {
        &self.hops
    }

    /// The hop that number `position` of the route names, from 1; beyond the route's end its last.
    #[must_use]
    pub fn hop(&self, position: usize) -> &Hop {
        // A route has at least one hop; that was checked when it was made.
        &self.hops[position.clamp(1, self.hops.len()) - 1]
    }

    /// What the file's hash must be, when the route says so.
    #[must_use]
    pub fn hash(&self) -> Option<FileHash> {
        self.hash
    }

    /// The bytes of a route file as UTF-8, when a mark (U+FEFF at the begin) says that they are UTF-16, as PowerShell's `>` writes it;
    /// else, and when they are not even that, the bytes themselves. Places of errors are those of what is returned.
    #[must_use]
    pub fn as_utf8(bytes: &[u8]) -> Cow<'_, [u8]> {
        let read = match bytes {
            [0xff, 0xfe, ..] => u16::from_le_bytes as fn([u8; 2]) -> u16,
            [0xfe, 0xff, ..] => u16::from_be_bytes,
            _ => return Cow::Borrowed(bytes),
        };
        let (pairs, odd) = bytes.as_chunks::<2>();
        let text: Result<String, _> = char::decode_utf16(pairs.iter().map(|pair| read(*pair))).collect();
        match text {
            Ok(text) if odd.is_empty() => Cow::Owned(text.into_bytes()),
            _ => Cow::Borrowed(bytes),
        }
    }

    /// Reads a route file in either form, which must hold one route.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(bytes: &[u8]) -> Result<Route, RouteError> {
        let mut routes = Route::parse_all(bytes)?.into_iter();
        match (routes.next(), routes.next()) {
            (Some(route), None) => Ok(route),
            _ => Err(RouteError { kind: RouteErrorKind::SeveralRoutes, span: 0..0 }),
        }
    }

    /// Reads a route file in either form: 1 to [`MAX_ROUTES`] routes to the same file.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse_all(bytes: &[u8]) -> Result<Vec<Route>, RouteError> {
        if let Some(at) = bytes.iter().take(MAX_ROUTE_FILE).position(|byte| *byte == 0) {
            return Err(RouteError { kind: RouteErrorKind::ZeroByte, span: at..at + 1 });
        }
        if bytes.len() > MAX_ROUTE_FILE {
            return Err(RouteError { kind: RouteErrorKind::LongFile, span: 0..0 });
        }
        let bom = if bytes.starts_with("\u{feff}".as_bytes()) { 3 } else { 0 };
        let text = core::str::from_utf8(bytes).map_err(|e| {
            let at = e.valid_up_to();
            RouteError { kind: RouteErrorKind::NotUtf8, span: at..at + e.error_len().unwrap_or(1) }
        })?;
        let body = text.get(bom..).unwrap_or_default();
        let parsed = if is_json(body) { parse_json(body) } else { parse_text(body) };
        parsed.map_err(|e| RouteError { kind: e.kind, span: e.span.start + bom..e.span.end + bom })
    }
}

/// Whether a route file is JSON: an object, or an array of objects. A name may well begin with a bracket.
fn is_json(body: &str) -> bool {
    let body = body.trim_start();
    let inner = body.strip_prefix('[').map_or(body, str::trim_start);
    inner.starts_with('{')
}

/// What is wrong with a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteErrorKind {
    /// Nothing but comments and blank lines.
    #[error("the route is empty: its first line names the file, then a hop a line")]
    Empty,
    /// No name where it must stand.
    #[error("the file's name is empty")]
    NoName,
    /// A name that no request can carry.
    #[error("the file's name is longer than {MAX_NAME} bytes")]
    LongName,
    /// A name and nothing else.
    #[error("the route has no hop: after the file's name, write a line `host port` for each node")]
    NoHop,
    /// More hops than a route may have.
    #[error("the route has more than {MAX_HOPS} hops")]
    TooManyHops,
    /// A line that is no hop.
    #[error("{0}")]
    Hop(HopErrorKind),
    /// A line that cannot be right.
    #[error("the line is longer than {MAX_ROUTE_LINE} bytes")]
    LongLine,
    /// A file that cannot be a route.
    #[error("the route file is longer than {} KiB", MAX_ROUTE_FILE / 1024)]
    LongFile,
    /// Bytes that are no text.
    #[error("the route is not UTF-8 text, but perhaps Windows-1252 or Latin-1; save it as UTF-8")]
    NotUtf8,
    /// Zero bytes, which no text has, but every second one of another encoding may be.
    #[error(
        "the route has a zero byte; it is perhaps UTF-16 without the mark that says so (save it as UTF-8)"
    )]
    ZeroByte,
    /// A zone where it means nothing.
    #[error(
        "only the first hop has a zone (%): it names an interface of this machine, and the next hops have others"
    )]
    ForeignZone,
    /// A line `or` and nothing behind it.
    #[error("no route follows this `or`: after it comes another whole route, the file's name first")]
    NothingFollows,
    /// More routes than a file may have.
    #[error("there are more than {MAX_ROUTES} routes")]
    TooManyRoutes,
    /// Several routes for something that takes one.
    #[error("several routes, where only one can be used")]
    SeveralRoutes,
    /// Routes to the same file that name different hashes.
    #[error("this route names another hash than a route before it, so they do not lead to the same file")]
    HashesDiffer,
    /// A JSON route that does not read.
    #[error("{0}")]
    Json(String),
}

/// What is wrong with a route file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct RouteError {
    /// What is wrong.
    pub kind: RouteErrorKind,
    /// Which bytes of the file; empty where something is missing.
    pub span: Range<usize>,
}

impl RouteError {
    /// The line and the column of the error in `source`, both from 1; columns count characters.
    #[must_use]
    pub fn line_and_column(&self, source: &[u8]) -> (usize, usize) {
        let before = source.get(..self.span.start.min(source.len())).unwrap_or_default();
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let in_line = String::from_utf8_lossy(before.get(line_start..).unwrap_or_default());
        (line, in_line.trim_start_matches('\u{feff}').chars().count() + 1)
    }
}

fn file_name(name: &str) -> Result<RequestedName, RouteErrorKind> {
    if name.is_empty() {
        return Err(RouteErrorKind::NoName);
    }
    RequestedName::try_from(name).map_err(|_| RouteErrorKind::LongName)
}

fn checked_hops(hops: Vec<Hop>) -> Result<Vec<Hop>, RouteErrorKind> {
    if hops.iter().skip(1).any(|hop| hop.host.zone().is_some()) {
        return Err(RouteErrorKind::ForeignZone);
    }
    match hops.len() {
        0 => Err(RouteErrorKind::NoHop),
        1..=MAX_HOPS => Ok(hops),
        _ => Err(RouteErrorKind::TooManyHops),
    }
}

/// What separates two routes of a file.
const OR: &str = "or";

fn parse_text(text: &str) -> Result<Vec<Route>, RouteError> {
    let mut routes = Vec::new();
    let mut current = TextRoute::default();
    let mut last_or = None;
    for (at, line) in meaningful_lines(text) {
        // A name may hold what would be a comment behind a hop.
        let line = if current.file.is_some() { without_comment(line) } else { line };
        let whole = at..at + line.len();
        // Before a name it is a name.
        if line == OR && current.file.is_some() {
            routes.push(current.finish().map_err(|kind| RouteError { kind, span: whole.clone() })?);
            (current, last_or) = (TextRoute::default(), Some(whole));
        } else if routes.len() == MAX_ROUTES {
            return Err(RouteError { kind: RouteErrorKind::TooManyRoutes, span: whole });
        } else {
            current.line(at, line)?;
        }
    }
    if let (Some(or), None) = (last_or, &current.file) {
        return Err(RouteError { kind: RouteErrorKind::NothingFollows, span: or });
    }
    let end = text.trim_end().len();
    routes.push(current.finish().map_err(|kind| RouteError { kind, span: end..end })?);
    Ok(routes)
}

/// A route of the text form, as far as it was read.
#[derive(Default)]
struct TextRoute {
    file: Option<RequestedName>,
    hops: Vec<Hop>,
}

impl TextRoute {
    fn line(&mut self, at: usize, line: &str) -> Result<(), RouteError> {
        let fail = |kind, span| RouteError { kind, span };
        let whole = at..at + line.len();
        if line.len() > MAX_ROUTE_LINE {
            return Err(fail(RouteErrorKind::LongLine, at..at + 1));
        }
        if self.file.is_none() {
            // `./` lets a name begin with what would otherwise be a comment or JSON.
            let name = line.strip_prefix("./").unwrap_or(line);
            self.file = Some(file_name(name).map_err(|kind| fail(kind, whole))?);
            return Ok(());
        }
        if self.hops.len() == MAX_HOPS {
            return Err(fail(RouteErrorKind::TooManyHops, whole));
        }
        let place = |span: Range<usize>| at + span.start..at + span.end;
        let hop: Hop =
            line.parse().map_err(|e: HopError| fail(RouteErrorKind::Hop(e.kind), place(e.span)))?;
        if hop.host.zone().is_some() && !self.hops.is_empty() {
            return Err(fail(RouteErrorKind::ForeignZone, whole));
        }
        self.hops.push(hop);
        Ok(())
    }

    fn finish(self) -> Result<Route, RouteErrorKind> {
        let file = self.file.ok_or(RouteErrorKind::Empty)?;
        Ok(Route { file, hops: checked_hops(self.hops)?, hash: None })
    }
}

/// A line without what stands behind a `#` that follows white space.
fn without_comment(line: &str) -> &str {
    let is_space_before =
        |at: usize| line.get(..at).is_some_and(|before| before.ends_with(char::is_whitespace));
    let comment = line.match_indices('#').find(|(at, _)| is_space_before(*at));
    comment.and_then(|(at, _)| line.get(..at)).map_or(line, str::trim_end)
}

/// The lines that are neither blank nor comments, without the space around them, each with the place of its first byte.
fn meaningful_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut next = 0;
    text.split('\n').filter_map(move |line| {
        let start = next;
        next += line.len() + 1;
        let lead = line.len() - line.trim_start().len();
        let line = line.trim();
        (!line.is_empty() && !line.starts_with('#')).then_some((start + lead, line))
    })
}

fn parse_json(text: &str) -> Result<Vec<Route>, RouteError> {
    let parsed = if text.trim_start().starts_with('[') {
        serde_json::from_str::<JsonRoutes>(text).map(|json| json.0)
    } else {
        serde_json::from_str::<JsonRoute>(text).map(|json| [json.0].into())
    };
    parsed.map_err(|e| {
        let at = offset_of(text, e.line(), e.column());
        // The reader adds the place in its own words; the place is the span's business.
        let message = e.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        RouteError { kind: RouteErrorKind::Json(String::from(message)), span: at..(at + 1).min(text.len()) }
    })
}

/// An array of routes. Each is checked as it is read, so that an error is raised where the reader stands.
struct JsonRoutes(Vec<Route>);

impl<'de> Deserialize<'de> for JsonRoutes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(JsonRoutesVisitor)
    }
}

struct JsonRoutesVisitor;

impl<'de> Visitor<'de> for JsonRoutesVisitor {
    type Value = JsonRoutes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of routes: [{\"file\": …, \"hops\": […]}, …]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<JsonRoutes, A::Error> {
        let (mut routes, mut hash) = (Vec::new(), None);
        while let Some(JsonRoute(route)) = array.next_element()? {
            if routes.len() == MAX_ROUTES {
                return Err(de::Error::custom(RouteErrorKind::TooManyRoutes));
            }
            if route.hash.is_some_and(|own| *hash.get_or_insert(own) != own) {
                return Err(de::Error::custom(RouteErrorKind::HashesDiffer));
            }
            routes.push(route);
        }
        Ok(JsonRoutes(routes))
    }
}

/// Which byte of `text` stands at `line` and `column`, as serde_json counts them: both from 1, columns in bytes.
fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split('\n').take(line.saturating_sub(1)).map(|line| line.len() + 1).sum();
    let mut at = (before + column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Reads the JSON form. Written by hand so that each error is raised while the reader stands where it is wrong.
struct JsonRoute(Route);

impl<'de> Deserialize<'de> for JsonRoute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(JsonRouteVisitor)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum RouteField {
    File,
    Hops,
    Hash,
}

struct JsonRouteVisitor;

impl<'de> Visitor<'de> for JsonRouteVisitor {
    type Value = JsonRoute;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a route: {\"file\": …, \"hops\": [{\"host\": …, \"port\": …}]}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonRoute, A::Error> {
        let (mut file, mut hops, mut hash) = (None, None, None);
        while let Some(field) = map.next_key()? {
            match field {
                RouteField::File if file.is_some() => return Err(de::Error::duplicate_field("file")),
                RouteField::Hops if hops.is_some() => return Err(de::Error::duplicate_field("hops")),
                RouteField::Hash if hash.is_some() => return Err(de::Error::duplicate_field("hash")),
                RouteField::File => {
                    let name = map.next_value::<String>()?;
                    file = Some(file_name(&name).map_err(de::Error::custom)?);
                }
                RouteField::Hops => {
                    let list = map.next_value::<Vec<JsonHop>>()?.into_iter().map(|hop| hop.0).collect();
                    hops = Some(checked_hops(list).map_err(de::Error::custom)?);
                }
                RouteField::Hash => hash = Some(map.next_value::<FileHash>()?),
            }
        }
        let file = file.ok_or_else(|| de::Error::missing_field("file"))?;
        let hops = hops.ok_or_else(|| de::Error::missing_field("hops"))?;
        Ok(JsonRoute(Route { file, hops, hash }))
    }
}

/// A hop as an object, or as a text in any form that a line may have.
struct JsonHop(Hop);

impl<'de> Deserialize<'de> for JsonHop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonHopVisitor)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum HopField {
    Host,
    Port,
}

struct JsonHopVisitor;

impl<'de> Visitor<'de> for JsonHopVisitor {
    type Value = JsonHop;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a hop: {\"host\": …, \"port\": …} or \"host:port\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<JsonHop, E> {
        text.parse().map(JsonHop).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonHop, A::Error> {
        let (mut host, mut port) = (None, None);
        while let Some(field) = map.next_key()? {
            match field {
                HopField::Host if host.is_some() => return Err(de::Error::duplicate_field("host")),
                HopField::Port if port.is_some() => return Err(de::Error::duplicate_field("port")),
                HopField::Host => {
                    let name = map.next_value::<String>()?;
                    host = Some(Host::from_person(&name).map_err(de::Error::custom)?);
                }
                HopField::Port => {
                    let number = map.next_value::<u64>()?;
                    let number = u16::try_from(number).ok().and_then(core::num::NonZeroU16::new);
                    port = Some(number.ok_or_else(|| de::Error::custom(HopErrorKind::BadPort))?);
                }
            }
        }
        let host = host.ok_or_else(|| de::Error::missing_field("host"))?;
        let port = port.ok_or_else(|| de::Error::missing_field("port"))?;
        Ok(JsonHop(Hop { host, port }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::ChunkHash;
    use alloc::format;

    fn good(source: &str, file: &str, hops: &[&str]) {
        let route = Route::parse(source.as_bytes()).unwrap_or_else(|e| panic!("{source:?}: {e}"));
        assert_eq!(route.file().as_str(), file, "{source:?}");
        let got: Vec<String> = route.hops().iter().map(ToString::to_string).collect();
        assert_eq!(got, hops, "{source:?}");
    }

    /// Checks that `source` is refused at `line:column`, with a message that contains `message`.
    fn bad(source: impl AsRef<[u8]>, place: (usize, usize), message: &str) {
        let source = source.as_ref();
        let error = Route::parse(source).expect_err(message);
        let shown = String::from_utf8_lossy(&source[..source.len().min(80)]);
        assert_eq!(error.line_and_column(source), place, "{shown:?}: {error}");
        assert!(error.to_string().contains(message), "{shown:?}: {error}");
    }

    #[test]
    fn text_routes() {
        let hops = ["pchost1:12000", "pchost2:11000"];
        good("myfile\npchost1 12000\npchost2 11000\n", "myfile", &hops);
        good("myfile\r\npchost1 12000\r\npchost2 11000\r\n", "myfile", &hops);
        good("\u{feff}myfile\npchost1 12000\npchost2 11000", "myfile", &hops);
        good("# a comment\n\n my file \n # b\n\tpchost1:12000\n\n tcp://pchost2:11000 \n#", "my file", &hops);
        good("./#1 {a}\nh 1\n", "#1 {a}", &["h:1"]);
        good("./{x\nh 1\n", "{x", &["h:1"]);
        good("a\n[::1]:1\n[::1]:1\n", "a", &["[::1]:1", "[::1]:1"]);
        good("my file # 1\r\nh 1\t# the lab's # bastion\r\ng 2 #\n", "my file # 1", &["h:1", "g:2"]);
        good("a\nfe80::1%eth0 1\nmünchen.example 2\n", "a", &["[fe80::1%eth0]:1", "münchen.example:2"]);
    }

    #[test]
    fn utf_16_with_its_mark() {
        let text = "\u{feff}m\u{fc} \u{1f600}\r\npchost1 12000\r\n";
        let le: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in [le.as_slice(), &be, text.as_bytes()] {
            let route = Route::parse(&Route::as_utf8(bytes)).expect("a route");
            assert_eq!(route.file().as_str(), "m\u{fc} \u{1f600}");
        }
        // Cut within a character, or without its mark, it is what it is.
        for bytes in [&le[..le.len() - 1], &le[2..]] {
            assert_eq!(&*Route::as_utf8(bytes), bytes);
            assert!(Route::parse(bytes).is_err());
        }
    }

    #[test]
    fn json_routes() {
        let hops = ["pchost1:12000", "[::1]:11000"];
        let json = r#"{"file": "my file", "hops": [{"host": "pchost1", "port": 12000}, {"host": "::1", "port": 11000}]}"#;
        good(json, "my file", &hops);
        good(&format!("\u{feff}\n {json}\n"), "my file", &hops);
        good(r#"{"hops": ["pchost1 12000", "[::1]:11000"], "file": "my file"}"#, "my file", &hops);
        let hash = FileHash::of_chunks(&[]);
        let with_hash = format!(r#"{{"file": "a", "hops": ["h:1"], "hash": "{hash}"}}"#);
        assert_eq!(Route::parse(with_hash.as_bytes()).expect("a route").hash(), Some(hash));
        let again = serde_json::to_vec(&Route::parse(json.as_bytes()).expect("a route")).expect("JSON");
        good(core::str::from_utf8(&again).expect("text"), "my file", &hops);
        let special = r#"{"file": "a", "hops": [{"host": "fe80::1%eth0", "port": 1}, {"host": "münchen.example", "port": 2}]}"#;
        good(special, "a", &["[fe80::1%eth0]:1", "münchen.example:2"]);
        let route = Route::parse(special.as_bytes()).expect("a route");
        assert_eq!(Route::parse(&serde_json::to_vec(&route).expect("JSON")), Ok(route));
    }

    /// Checks that `source` holds these routes: names, then hops.
    fn several(source: &str, expected: &[(&str, &[&str])]) {
        let routes = Route::parse_all(source.as_bytes()).unwrap_or_else(|e| panic!("{source:?}: {e}"));
        let got: Vec<(&str, Vec<String>)> = routes
            .iter()
            .map(|route| (route.file().as_str(), route.hops().iter().map(ToString::to_string).collect()))
            .collect();
        let expected: Vec<(&str, Vec<String>)> = expected
            .iter()
            .map(|(file, hops)| (*file, hops.iter().map(|hop| String::from(*hop)).collect()))
            .collect();
        assert_eq!(got, expected, "{source:?}");
    }

    #[test]
    fn several_routes() {
        several("f\na 1\nb 2\nor\nd/f\nc 3\n", &[("f", &["a:1", "b:2"]), ("d/f", &["c:3"])]);
        several("\u{feff}f\r\na 1\r\n# x\r\n or \r\n\r\nf\r\nb 1\r\n", &[("f", &["a:1"]), ("f", &["b:1"])]);
        several("or\na 1\nor\nor\nb 1\n", &[("or", &["a:1"]), ("or", &["b:1"])]);
        several("[draft\na 1\n", &[("[draft", &["a:1"])]);
        several(
            r#" [ {"file": "f", "hops": ["a:1"]}, {"file": "g", "hops": ["b:2"]} ]"#,
            &[("f", &["a:1"]), ("g", &["b:2"])],
        );
        bad_of_several("f\na 1\nor\n", (3, 1), "no route follows");
        bad_of_several("f\nor\nf\na 1\n", (2, 1), "no hop");
        bad_of_several("f\na 1\nor\nf\n", (4, 2), "no hop");
        bad_of_several("f\na 1\nor\nf\nb x\n", (5, 3), "this is no port");
        bad_of_several(&format!("f\na 1\n{}", "or\nf\na 1\n".repeat(16)), (49, 1), "more than 16 routes");
        bad_of_several(
            "[{\"file\": \"f\", \"hops\": [\"a:1\"]},\n {\"file\": \"f\"}]",
            (2, 14),
            "missing field",
        );
        let object = |hash: &[ChunkHash]| {
            format!(r#"{{"file": "f", "hops": ["a:1"], "hash": "{}"}}"#, FileHash::of_chunks(hash))
        };
        let (empty, other) = (object(&[]), object(&[ChunkHash::from_bytes([1; 32])]));
        bad_of_several(&format!("[{empty},\n{other}]"), (2, 110), "another hash");
        let same = format!("[{empty}, {empty}]");
        assert_eq!(Route::parse_all(same.as_bytes()).expect("routes").len(), 2);
        assert_eq!(Route::parse(same.as_bytes()).expect_err("two").kind, RouteErrorKind::SeveralRoutes);
    }

    fn bad_of_several(source: &str, place: (usize, usize), message: &str) {
        let error = Route::parse_all(source.as_bytes()).expect_err(message);
        assert_eq!(error.line_and_column(source.as_bytes()), place, "{source:?}: {error}");
        assert!(error.to_string().contains(message), "{source:?}: {error}");
    }

    #[test]
    fn bad_text_routes() {
        bad("", (1, 1), "the route is empty");
        bad("\n# only\n", (2, 7), "the route is empty");
        bad("myfile\n", (1, 7), "no hop");
        bad("./\nh 1", (1, 1), "name is empty");
        bad("myfile\npchost1\n", (2, 8), "port is missing");
        bad("myfile\npchost1 12x\n", (2, 9), "this is no port");
        bad("myfile\n  pchost1 70000\n", (2, 11), "this is no port");
        bad("myfile\nok 1\nhttp://pchost 1\n", (3, 1), "only tcp://");
        bad("myfile\r\npchost1 1# first\r\n", (2, 12), "something follows the port");
        bad("\u{feff}myfile\nb!d 1\n", (2, 1), "a host has only");
        bad("f\nh 1\nfe80::1%eth0 1\n", (3, 1), "only the first hop has a zone");
        bad("f\n127.1 1\n", (2, 1), "four decimal numbers");
        bad(b"m\0y\0\n\0", (1, 2), "perhaps UTF-16");
        bad(b"my\nh 1\nh\xff 1\n", (3, 2), "not UTF-8");
        bad(format!("f\n{}", "h 1\n".repeat(65)), (66, 1), "more than 64 hops");
        bad("x".repeat(4097), (1, 1), "longer than 4096");
        bad(format!("f\n{} 1", "x".repeat(5000)), (2, 1), "line is longer");
        bad(format!("f\n{} 1", "x".repeat(254)), (2, 1), "host is longer");
        bad("x\n".repeat(600_000), (1, 1), "1024 KiB");
    }

    #[test]
    fn bad_json_routes() {
        bad("{", (1, 1), "EOF");
        bad(r#"{"file": "a"}"#, (1, 13), "missing field `hops`");
        bad("{\"file\": \"a\",\n \"hops\": []}", (2, 12), "no hop");
        bad("{\"file\": \"\",\n \"hops\": []}", (1, 11), "name is empty");
        bad("{\"file\": \"a\",\n \"hops\": [{\"host\": \"h\", \"port\": 0}]}", (2, 34), "this is no port");
        bad("{\"file\": \"a\",\n \"hops\": [{\"host\": \"h\"}]}", (2, 23), "missing field `port`");
        bad("{\"file\": \"a\",\n \"hops\": [\"h\"]}", (2, 13), "port is missing");
        bad(r#"{"file": "a", "hops": ["h:1", "[fe80::1%1]:1"]}"#, (1, 47), "only the first hop has a zone");
        bad(r#"{"file": "a", "hop": []}"#, (1, 19), "unknown field `hop`");
        bad(r#"{"file": "a", "hops": ["h:1"]} x"#, (1, 32), "trailing");
        let many = format!(r#"{{"file": "a", "hops": [{}"h:1"]}}"#, r#""h:1","#.repeat(64));
        assert!(Route::parse(many.as_bytes()).expect_err("too many").to_string().contains("more than 64"));
    }
}
