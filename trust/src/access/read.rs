//! From TOML to rules, with the place of everything that is wrong.

use super::{AccessRules, Who};
use crate::key::PublicKey;
use crate::next_hop::{AllowNext, NextHopPolicy};
use bytesize::ByteSize;
use relay_proto::text::clean;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use toml_edit::{Document, Item, Table, Value};

/// The largest rules file, in bytes.
pub const MAX_ACCESS_FILE: usize = 4 * 1024 * 1024;
/// The longest name of an entry and of a registered node, in bytes.
const MAX_WHO_NAME: usize = 64;
/// How much of a text that is wrong is repeated.
const MAX_REPEATED: usize = 60;
/// The keys of an entry.
const FIELDS: &str = "name, key, token, anyone, read, write, relay, register, expires, connections, rate";

/// What is wrong with a rules file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct AccessError {
    /// The line, from 1.
    pub line: usize,
    /// The character in that line, from 1.
    pub column: usize,
    /// What is wrong and what to do.
    pub message: String,
}

/// Everything that is wrong with a rules file, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessErrors(pub Vec<AccessError>);

impl fmt::Display for AccessErrors {
    /// A line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(index, error)| {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")
        })
    }
}

impl std::error::Error for AccessErrors {}

pub fn parse(text: &str) -> Result<AccessRules, AccessErrors> {
    let mut reader = Reader { text, errors: Vec::new() };
    if text.len() > MAX_ACCESS_FILE {
        reader.wrong(0..0, format!("a rules file has at most {MAX_ACCESS_FILE} bytes"));
        return Err(reader.errors());
    }
    let rules = match Document::parse(text) {
        Ok(document) => reader.rules(document.as_table()),
        Err(error) => {
            // The first line of the library's text says what; the rest draws the place.
            reader.wrong(error.span().unwrap_or(0..0), error.message().trim().replace('\n', "; "));
            AccessRules::default()
        }
    };
    if reader.errors.is_empty() { Ok(rules) } else { Err(reader.errors()) }
}

struct Reader<'a> {
    text: &'a str,
    errors: Vec<(Range<usize>, String)>,
}

impl Reader<'_> {
    fn wrong(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.errors.push((span, message.into()));
    }

    fn errors(mut self) -> AccessErrors {
        self.errors.sort_by_key(|(span, _)| span.start);
        let place = |(span, message): (Range<usize>, String)| {
            let before = self.text.get(..span.start).unwrap_or_default();
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            AccessError {
                line: before.matches('\n').count() + 1,
                column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
                message,
            }
        };
        AccessErrors(self.errors.into_iter().map(place).collect())
    }

    fn rules(&mut self, table: &Table) -> AccessRules {
        let mut whos = Vec::new();
        for (key, item) in table {
            match (key, item) {
                ("who", Item::ArrayOfTables(tables)) => {
                    whos.extend(tables.iter().map(|table| self.who(table)));
                }
                ("who", _) => self.wrong(span_of_key(table, key), "write each entry as [[who]]"),
                _ => self.wrong(
                    span_of_key(table, key),
                    format!("a rules file has only [[who]], not {}", shown(key)),
                ),
            }
        }
        AccessRules { whos: self.distinct(whos) }
    }

    /// Refuses what two entries claim: then nobody could say whose name and limits count, or what revoking one takes away.
    fn distinct(&mut self, whos: Vec<(Who, Range<usize>)>) -> Vec<Who> {
        let (mut names, mut keys, mut tokens) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut anyone: Option<String> = None;
        for (who, span) in &whos {
            if !who.name.is_empty() && names.insert(who.name.clone(), ()).is_some() {
                self.wrong(span.clone(), format!("there is another entry named {}", who.name));
            }
            for key in &who.keys {
                if let Some(other) = keys.insert(*key, who.name.clone()) {
                    self.wrong(span.clone(), format!("{key} stands in the entry {other} already"));
                }
            }
            for token in &who.tokens {
                if let Some(other) = tokens.insert(token.to_string(), who.name.clone()) {
                    self.wrong(
                        span.clone(),
                        format!("the token {token} stands in the entry {other} already"),
                    );
                }
            }
            if who.anyone
                && let Some(other) = anyone.replace(who.name.clone())
            {
                self.wrong(span.clone(), format!("the entry {other} is for anyone already"));
            }
        }
        whos.into_iter().map(|(who, _)| who).collect()
    }

    fn who(&mut self, table: &Table) -> (Who, Range<usize>) {
        let span = table.span().unwrap_or(0..0);
        let errors_before = self.errors.len();
        let mut who = Who {
            name: String::new(),
            keys: Vec::new(),
            tokens: Vec::new(),
            anyone: false,
            read: Vec::new(),
            write: Vec::new(),
            relay: NextHopPolicy::of_access(Vec::new()),
            nodes: Vec::new(),
            register: Vec::new(),
            expires: None,
            connections: None,
            rate: None,
        };
        for (key, item) in table {
            match key {
                "name" => who.name = self.one::<WhoName>(item).map_or_else(String::new, |name| name.0),
                "key" => who.keys = self.one_or_several::<PublicKey>(item),
                "token" => who.tokens = self.one_or_several(item),
                "anyone" => who.anyone = self.anyone(item),
                "read" => who.read = self.several(item),
                "write" => who.write = self.several(item),
                "relay" => (who.relay, who.nodes) = self.relay(item),
                "register" => {
                    who.register = self.several::<NodeName>(item).into_iter().map(|n| n.0).collect();
                }
                "expires" => who.expires = self.expires(item),
                "connections" => who.connections = self.connections(item),
                "rate" => who.rate = self.one::<Rate>(item).map(|rate| rate.0),
                _ => {
                    let message = format!("an entry has no {}; it may have {FIELDS}", shown(key));
                    self.wrong(span_of_key(table, key), message);
                }
            }
        }
        if errors_before == self.errors.len() {
            self.is_somebody(&who, span.clone());
        }
        (who, span)
    }

    fn is_somebody(&mut self, who: &Who, span: Range<usize>) {
        let has_secret = !who.keys.is_empty() || !who.tokens.is_empty();
        if who.name.is_empty() {
            self.wrong(span, "an entry needs a name, as in name = \"anna\"");
        } else if who.anyone && has_secret {
            self.wrong(span, "an entry for anyone has neither key nor token");
        } else if !who.anyone && !has_secret {
            self.wrong(span, "an entry needs a key, a token, or anyone = true");
        }
    }

    fn text(&mut self, item: &Item) -> Option<String> {
        match item {
            Item::Value(Value::String(text)) => Some(text.value().clone()),
            _ => {
                self.wrong(span_of(item), "write a text in quotes");
                None
            }
        }
    }

    fn one<T: FromStr<Err: fmt::Display>>(&mut self, item: &Item) -> Option<T> {
        let text = self.text(item)?;
        text.parse().map_err(|error: T::Err| self.wrong(span_of(item), error.to_string())).ok()
    }

    fn one_or_several<T: FromStr<Err: fmt::Display>>(&mut self, item: &Item) -> Vec<T> {
        match item {
            Item::Value(Value::Array(_)) => self.several(item),
            _ => self.one(item).into_iter().collect(),
        }
    }

    fn several<T: FromStr<Err: fmt::Display>>(&mut self, item: &Item) -> Vec<T> {
        let Item::Value(Value::Array(array)) = item else {
            self.wrong(span_of(item), "write a list, as in [\"one\", \"two\"]");
            return Vec::new();
        };
        array.iter().filter_map(|value| self.one(&Item::Value(value.clone()))).collect()
    }

    fn relay(&mut self, item: &Item) -> (NextHopPolicy, Vec<String>) {
        let (mut hops, mut nodes) = (Vec::new(), Vec::new());
        for target in self.several(item) {
            match target {
                Target::Next(rule) => hops.push(rule),
                Target::Node(name) => nodes.push(name.0),
            }
        }
        (NextHopPolicy::of_access(hops), nodes)
    }

    fn anyone(&mut self, item: &Item) -> bool {
        if item.as_bool() == Some(true) {
            return true;
        }
        self.wrong(span_of(item), "write anyone = true, or leave it out");
        false
    }

    fn connections(&mut self, item: &Item) -> Option<u32> {
        let number = item.as_integer().and_then(|number| u32::try_from(number).ok()).filter(|n| *n > 0);
        if number.is_none() {
            self.wrong(span_of(item), "write how many connections at once, 1 or more");
        }
        number
    }

    fn expires(&mut self, item: &Item) -> Option<SystemTime> {
        // A date alone, or a time without its offset, is another instant for everybody who reads it.
        let instant = item
            .as_datetime()
            .filter(|datetime| datetime.offset.is_some())
            .and_then(|datetime| OffsetDateTime::parse(&datetime.to_string(), &Rfc3339).ok());
        if instant.is_none() {
            self.wrong(
                span_of(item),
                "write a time with its offset and without quotes: 2027-01-01T00:00:00Z",
            );
        }
        // Before 1970 is over as well, and not every system can hold it.
        instant.map(|instant| SystemTime::from(instant.max(OffsetDateTime::UNIX_EPOCH)))
    }
}

fn span_of(item: &Item) -> Range<usize> {
    item.span().unwrap_or(0..0)
}

fn span_of_key(table: &Table, key: &str) -> Range<usize> {
    table.key(key).and_then(|key| key.span()).unwrap_or(0..0)
}

/// Somebody's text, fit to be repeated in an error.
fn shown(text: &str) -> String {
    format!("`{}`", clean(text, MAX_REPEATED))
}

/// The name of an entry.
struct WhoName(String);

impl FromStr for WhoName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<WhoName, &'static str> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'@' | b'+');
        if text.is_empty() || text.len() > MAX_WHO_NAME || !text.bytes().all(fits) {
            return Err("a name is 1 to 64 letters, digits, `.`, `-`, `_`, `@` and `+`");
        }
        Ok(WhoName(text.to_owned()))
    }
}

/// The name of a registered node, in lower case, without its `@`.
struct NodeName(String);

impl FromStr for NodeName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<NodeName, &'static str> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > MAX_WHO_NAME || !text.bytes().all(fits) {
            return Err("a registered node's name is 1 to 64 small letters, digits and `-`, without @");
        }
        Ok(NodeName(text.to_owned()))
    }
}

/// One entry of `relay`.
enum Target {
    Next(AllowNext),
    Node(NodeName),
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Target, &'static str> {
        if let Some(name) = text.strip_prefix('@') {
            return name.parse().map(Target::Node);
        }
        let rule = text.parse().map_err(|_| {
            "write a host, host:port, an address, a network like 10.1.0.0/16, *, or @name for a registered node"
        });
        rule.map(Target::Next)
    }
}

/// Bytes a second.
struct Rate(u64);

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Rate, &'static str> {
        let size = text.strip_suffix("/s").and_then(|size| size.trim_end().parse::<ByteSize>().ok());
        let bytes = size.map(|size| size.as_u64()).filter(|bytes| *bytes > 0);
        bytes.map(Rate).ok_or("write a rate like \"20MiB/s\"")
    }
}
