//! Known nodes: which key was proved at the end of which way, and what is expected there from then on.
//!
//! The file has one node a line: the way, the key, the day on which it was first seen, and, for a key that the old one announced,
//! `after` and the old one. Comments and blank lines stay where they are. A key comes in only by the caller's word that it was
//! proved in a pipe to that very node; nothing in here can know, and nothing in here writes a file.

use crate::day::{Day, DayError};
use crate::key::{KeyTextError, PublicKey};
use crate::succession::NextKey;
use crate::tls::Expected;
use crate::way::{Way, WayError};
use std::fmt;

/// The largest file of known nodes that should be read, in bytes.
pub const MAX_KNOWN_FILE: usize = 4 * 1024 * 1024;

/// One known node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The way to it.
    pub way: Way,
    /// Its key.
    pub key: PublicKey,
    /// When that key was first seen, or from when it follows another.
    pub since: Day,
    /// The key that announced this one, as long as this one has not been proved itself.
    pub after: Option<PublicKey>,
}

impl fmt::Display for Known {
    /// Its line in the file, without a line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.way, self.key, self.since)?;
        self.after.map_or(Ok(()), |old| write!(f, " after {old}"))
    }
}

/// The known nodes of a file, with its comments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownNodes {
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    /// A comment or a blank line, as it was.
    Other(String),
    Known(Known),
}

impl KnownNodes {
    /// Reads a file.
    ///
    /// # Errors
    /// Every line that cannot be read. A file with one such line is of no use: it might be the line that warns.
    pub fn parse(text: &str) -> Result<KnownNodes, KnownErrors> {
        let (mut lines, mut errors) = (Vec::new(), Vec::new());
        for (index, line) in text.lines().enumerate() {
            match parse_line(line) {
                Ok(line) => lines.push(line),
                Err(kind) => errors.push(KnownError { line: index + 1, kind }),
            }
        }
        if errors.is_empty() { Ok(KnownNodes { lines }) } else { Err(KnownErrors(errors)) }
    }

    /// Every known node, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = &Known> {
        self.lines.iter().filter_map(|line| match line {
            Line::Known(known) => Some(known),
            Line::Other(_) => None,
        })
    }

    /// What is known of the node at the end of `way`: usually one key, none before the first contact.
    pub fn at<'a>(&'a self, way: &'a Way) -> impl Iterator<Item = &'a Known> {
        self.iter().filter(move |known| known.way == *way)
    }

    /// What to expect at the end of `way`, whose pins, when there are any, decide alone.
    #[must_use]
    pub fn expect(&self, way: &Way, pins: &[PublicKey]) -> Expectation {
        if !pins.is_empty() {
            return Expectation::Pinned(pins.to_vec());
        }
        let known: Vec<Known> = self.at(way).cloned().collect();
        if known.is_empty() { Expectation::Unknown } else { Expectation::Known(known) }
    }

    /// Takes in a key that was proved at the end of `way` for the first time, on `today`. Its line can be appended to the file. A
    /// way that is known already keeps what it has, and gives none.
    pub fn remember(&mut self, way: &Way, key: PublicKey, today: Day) -> Option<Known> {
        if self.at(way).next().is_some() {
            return None;
        }
        let known = Known { way: way.clone(), key, since: today, after: None };
        self.lines.push(Line::Known(known.clone()));
        Some(known)
    }

    /// Takes in what `old`, which must be known at the end of `way`, announced inside TLS. Says whether that changed anything.
    pub fn announce(&mut self, way: &Way, old: &PublicKey, next: &NextKey) -> bool {
        let knows_old = self.at(way).any(|known| known.key == *old && known.after.is_none());
        if !knows_old || !next.is_signed_by(old) || self.at(way).any(|known| known.key == next.key()) {
            return false;
        }
        // A node has one next key at a time: the newest announcement counts.
        self.lines.retain(|line| !matches!(line, Line::Known(k) if k.way == *way && k.after == Some(*old)));
        let known = Known { way: way.clone(), key: next.key(), since: next.from(), after: Some(*old) };
        self.lines.push(Line::Known(known));
        true
    }

    /// Takes in that `key`, which another had announced, was proved at the end of `way`: from now on it is the known one, and the
    /// one that announced it is not. Gives that old one.
    pub fn follow(&mut self, way: &Way, key: &PublicKey) -> Option<PublicKey> {
        let old = self.at(way).find(|known| known.key == *key)?.after?;
        self.lines.retain(|line| !matches!(line, Line::Known(k) if k.way == *way && k.key == old));
        for line in &mut self.lines {
            if let Line::Known(known) = line
                && known.way == *way
                && known.key == *key
            {
                known.after = None;
            }
        }
        Some(old)
    }

    /// Takes out everything known of the node at the end of `way`, and gives it.
    pub fn forget(&mut self, way: &Way) -> Vec<Known> {
        let gone = self.at(way).cloned().collect();
        self.lines.retain(|line| !matches!(line, Line::Known(known) if known.way == *way));
        gone
    }
}

impl fmt::Display for KnownNodes {
    /// The file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| match line {
            Line::Other(text) => writeln!(f, "{text}"),
            Line::Known(known) => writeln!(f, "{known}"),
        })
    }
}

/// Whose key is expected at the end of a way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// One of these, by the route.
    Pinned(Vec<PublicKey>),
    /// One of these, by earlier contact.
    Known(Vec<Known>),
    /// Nothing vouches for any key: this would be the first contact.
    Unknown,
}

impl Expectation {
    /// What the handshake is to hold the node to. For an unknown node it holds it to nothing, and the caller has to decide
    /// about the key that was proved before it sends or takes anything else.
    #[must_use]
    pub fn for_tls(&self) -> Expected {
        match self {
            Expectation::Pinned(keys) => Expected::OneOf(keys.clone()),
            Expectation::Known(known) => Expected::OneOf(known.iter().map(|known| known.key).collect()),
            Expectation::Unknown => Expected::Any,
        }
    }

    /// Whether a pin or an earlier contact vouches for the node.
    #[must_use]
    pub fn is_vouched_for(&self) -> bool {
        *self != Expectation::Unknown
    }

    /// How the caller may call a key that was proved; none when another was expected.
    #[must_use]
    pub fn standing(&self, proved: &PublicKey) -> Option<Standing> {
        match self {
            Expectation::Pinned(keys) => keys.contains(proved).then_some(Standing::Pinned),
            Expectation::Known(known) => {
                let known = known.iter().find(|known| known.key == *proved)?;
                Some(match known.after {
                    None => Standing::Known { since: known.since },
                    Some(old) => Standing::Follows { old, since: known.since },
                })
            }
            Expectation::Unknown => Some(Standing::FirstContact),
        }
    }
}

/// Why a key is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The route names it.
    Pinned,
    /// It was proved here before.
    Known {
        /// When it was first seen.
        since: Day,
    },
    /// The key that was known announced it.
    Follows {
        /// The key before it.
        old: PublicKey,
        /// From when on, by the old key's word.
        since: Day,
    },
    /// Nothing but this one handshake.
    FirstContact,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KnownErrorKind {
    /// Not three fields, nor five with `after`.
    #[error("a line has a way, a key and a day: pchost1:12000>pchost2:11000 ed25519:… 2026-11-27")]
    Fields,
    /// The way.
    #[error("{0}")]
    Way(WayError),
    /// A way that is not in its normal form, so that it would never be found.
    #[error("this way is written {0}")]
    OtherForm(Way),
    /// A key.
    #[error("{0}")]
    Key(KeyTextError),
    /// The day.
    #[error("{0}")]
    Day(DayError),
}

/// What is wrong with a line, and which.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {kind}")]
pub struct KnownError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub kind: KnownErrorKind,
}

/// Every line that is wrong, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownErrors(pub Vec<KnownError>);

impl fmt::Display for KnownErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(index, error)| {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")
        })
    }
}

impl std::error::Error for KnownErrors {}

fn parse_line(line: &str) -> Result<Line, KnownErrorKind> {
    let body = line.trim();
    if body.is_empty() || body.starts_with('#') {
        // A lone CR at the end would be half a line end when the file is written.
        return Ok(Line::Other(line.trim_end_matches('\r').to_owned()));
    }
    let fields: Vec<&str> = body.split_ascii_whitespace().collect();
    let (way, key, since, after) = match fields.as_slice() {
        [way, key, since] => (way, key, since, None),
        [way, key, since, "after", old] => (way, key, since, Some(old)),
        _ => return Err(KnownErrorKind::Fields),
    };
    let written = *way;
    let way: Way = written.parse().map_err(KnownErrorKind::Way)?;
    if way.as_str() != written {
        return Err(KnownErrorKind::OtherForm(way));
    }
    let key = key.parse().map_err(KnownErrorKind::Key)?;
    let since = since.parse().map_err(KnownErrorKind::Day)?;
    let after = after.map(|old| old.parse()).transpose().map_err(KnownErrorKind::Key)?;
    Ok(Line::Known(Known { way, key, since, after }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SecretKey;
    use proptest::prelude::{any, proptest};

    const FILE: &str = "# mine\n\
        pchost1:12000>pchost2:11000 ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo 2026-11-27\n\
        \n\
        pchost2:11000 ed25519:PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw 2026-11-28\n";

    fn way(text: &str) -> Way {
        text.parse().unwrap()
    }

    fn day(text: &str) -> Day {
        text.parse().unwrap()
    }

    #[test]
    fn a_file_comes_back_as_it_was() {
        let nodes = KnownNodes::parse(FILE).unwrap();
        assert_eq!(nodes.to_string(), FILE);
        assert_eq!(nodes.iter().count(), 2);
        assert_eq!(KnownNodes::parse("").unwrap(), KnownNodes::default());
    }

    /// `localhost:11000` behind two relays are two machines.
    #[test]
    fn a_node_is_known_by_its_whole_way() {
        let nodes = KnownNodes::parse(FILE).unwrap();
        let through = nodes.expect(&way("PCHOST1:12000>pchost2.:11000"), &[]);
        let direct = nodes.expect(&way("pchost2:11000"), &[]);
        assert!(through.is_vouched_for() && direct.is_vouched_for());
        assert_ne!(through.for_tls(), direct.for_tls());
        assert_eq!(nodes.expect(&way("pchost1:12000"), &[]), Expectation::Unknown);
        assert_eq!(nodes.expect(&way("pchost3:1>pchost2:11000"), &[]).for_tls(), Expected::Any);
    }

    #[test]
    fn a_pin_decides_alone() {
        let nodes = KnownNodes::parse(FILE).unwrap();
        let known = nodes.at(&way("pchost2:11000")).next().unwrap().key;
        let pin = SecretKey::generate().unwrap().public();
        let pinned = nodes.expect(&way("pchost2:11000"), &[pin]);
        assert_eq!(pinned.for_tls(), Expected::OneOf(vec![pin]));
        assert_eq!(pinned.standing(&pin), Some(Standing::Pinned));
        assert_eq!(pinned.standing(&known), None);
        let unpinned = nodes.expect(&way("pchost2:11000"), &[]);
        assert_eq!(unpinned.standing(&known), Some(Standing::Known { since: day("2026-11-28") }));
        assert_eq!(unpinned.standing(&pin), None);
    }

    #[test]
    fn the_first_contact_is_remembered_once() {
        let mut nodes = KnownNodes::parse(FILE).unwrap();
        let (new, other) = (SecretKey::generate().unwrap().public(), SecretKey::generate().unwrap().public());
        assert_eq!(nodes.expect(&way("new:1"), &[]).standing(&new), Some(Standing::FirstContact));
        let line = nodes.remember(&way("new:1"), new, day("2026-12-01")).unwrap().to_string();
        assert_eq!(nodes.to_string(), format!("{FILE}{line}\n"));
        assert_eq!(nodes.remember(&way("new:1"), other, day("2026-12-02")), None);
        assert_eq!(nodes.expect(&way("new:1"), &[]).for_tls(), Expected::OneOf(vec![new]));
    }

    #[test]
    fn forgetting_takes_one_way_and_leaves_the_rest() {
        let mut nodes = KnownNodes::parse(FILE).unwrap();
        let gone = nodes.forget(&way("pchost2:11000"));
        assert_eq!(gone.len(), 1);
        assert_eq!(nodes.to_string(), FILE.lines().take(3).map(|l| format!("{l}\n")).collect::<String>());
        assert_eq!(nodes.forget(&way("pchost2:11000")), []);
    }

    #[test]
    fn an_announced_key_is_followed_and_replaces_the_old_one() {
        let (old, next, later) =
            (SecretKey::generate().unwrap(), SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let here = way("a:1>b:2");
        let mut nodes = KnownNodes::default();
        nodes.remember(&here, old.public(), day("2026-11-01"));
        let announced = NextKey::new(&old, next.public(), day("2026-12-01"));
        assert!(nodes.announce(&here, &old.public(), &announced));
        assert!(!nodes.announce(&here, &old.public(), &announced), "nothing new");
        let file = nodes.to_string();
        assert!(file.ends_with(&format!(" {} 2026-12-01 after {}\n", next.public(), old.public())), "{file}");
        assert_eq!(KnownNodes::parse(&file).unwrap(), nodes);
        let expectation = nodes.expect(&here, &[]);
        assert_eq!(expectation.standing(&old.public()), Some(Standing::Known { since: day("2026-11-01") }));
        let follows = Standing::Follows { old: old.public(), since: day("2026-12-01") };
        assert_eq!(expectation.standing(&next.public()), Some(follows));

        // The node thinks again, before it changed.
        assert!(nodes.announce(&here, &old.public(), &NextKey::new(&old, later.public(), day("2026-12-02"))));
        assert_eq!(nodes.expect(&here, &[]).standing(&next.public()), None);

        assert_eq!(nodes.follow(&here, &old.public()), None, "the old one has not changed");
        assert_eq!(nodes.follow(&here, &later.public()), Some(old.public()));
        assert_eq!(nodes.to_string(), format!("a:1>b:2 {} 2026-12-02\n", later.public()));
    }

    #[test]
    fn nobody_else_announces_a_key() {
        let (old, next, thief) =
            (SecretKey::generate().unwrap(), SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let here = way("b:2");
        let mut nodes = KnownNodes::default();
        nodes.remember(&here, old.public(), day("2026-11-01"));
        let before = nodes.clone();
        let forged = NextKey::new(&thief, next.public(), day("2026-12-01"));
        assert!(!nodes.announce(&here, &old.public(), &forged), "signed by another");
        assert!(!nodes.announce(&here, &thief.public(), &forged), "by one that is not known");
        let good = NextKey::new(&old, next.public(), day("2026-12-01"));
        assert!(!nodes.announce(&way("c:3"), &old.public(), &good), "for a way on which nobody is known");
        assert_eq!(nodes, before);
        // One that was announced, but never proved, announces nobody.
        assert!(nodes.announce(&here, &old.public(), &good));
        let chained = NextKey::new(&next, thief.public(), day("2026-12-02"));
        assert!(!nodes.announce(&here, &next.public(), &chained));
    }

    #[test]
    fn every_wrong_line_is_named() {
        let key = "ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let text = format!(
            "# fine\na:1 {key} 2026-11-27\na:1\nA:1 {key} 2026-11-27\na:0 {key} 2026-11-27\n\
            a:1 {key}x 2026-11-27\na:1 {key} today\na:1 {key} 2026-11-27 before {key}\n"
        );
        let errors = KnownNodes::parse(&text).unwrap_err();
        let expected = "line 3: a line has a way, a key and a day: pchost1:12000>pchost2:11000 ed25519:… 2026-11-27\n\
            line 4: this way is written a:1\n\
            line 5: a:0: this is no port: a port is a number from 1 to 65535\n\
            line 6: a key has 43 characters behind ed25519:, this has 44; was it cut?\n\
            line 7: a day is written 2026-11-27\n\
            line 8: a line has a way, a key and a day: pchost1:12000>pchost2:11000 ed25519:… 2026-11-27";
        assert_eq!(errors.to_string(), expected);
    }

    proptest! {
        #[test]
        fn whatever_reads_is_written_and_read_again(text in any::<String>(), cut in 0..FILE.len(), junk in "[ -~\\n]{0,40}") {
            let mixed = format!("{}{junk}{}", &FILE[..cut], &FILE[cut..]);
            for text in [text, mixed] {
                if let Ok(nodes) = KnownNodes::parse(&text) {
                    proptest::prop_assert_eq!(KnownNodes::parse(&nodes.to_string()), Ok(nodes));
                }
            }
        }
    }
}
