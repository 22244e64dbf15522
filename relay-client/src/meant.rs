//! What was meant by a command line that cannot be followed: its words are sorted into hops, a name and options, and put where they
//! belong. Nothing in here reads a file or dials, and nothing is done that was not typed: what was meant is only told.

use clap::{Arg, Command};
use relay_proto::address::Hop;
use relay_proto::text::is_unsafe;
use std::fmt::Write as _;

/// What a first word asks for, in the words of this program and of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Fetch,
    List,
    Trace,
    Send,
}

impl Verb {
    fn of(word: &str) -> Option<Verb> {
        Some(match word {
            "get" | "fetch" | "download" | "pull" | "cp" => Verb::Fetch,
            "list" | "ls" | "dir" => Verb::List,
            "trace" | "ping" | "traceroute" | "check" => Verb::Trace,
            "push" | "put" | "send" | "upload" => Verb::Send,
            _ => return None,
        })
    }
}

/// What to tell whoever typed these words behind the name of this `command`, in lines; none when they do not show what was meant.
#[must_use]
pub fn meant(words: &[String], command: &Command) -> Option<String> {
    let verb = words.first().and_then(|word| Verb::of(word));
    if verb == Some(Verb::Send) {
        return Some("files are fetched, not sent; see --help for what this program does\n".to_owned());
    }
    let sorted = Sorted::of(words.get(usize::from(verb.is_some())..)?, command)?;
    let line = sorted.line(verb, command)?;
    let is_plain = !line.chars().any(is_unsafe) && line != shown(words);
    is_plain.then(|| {
        format!("it is not written like this; probably this was meant:\n  relay-client {line}\n\nFor more information, try '--help'.\n")
    })
}

/// The words, as what they are.
#[derive(Default)]
struct Sorted {
    hops: Vec<String>,
    name: Option<String>,
    options: Vec<String>,
}

impl Sorted {
    fn of(words: &[String], command: &Command) -> Option<Sorted> {
        let mut sorted = Sorted::default();
        let mut words = words.iter().map(String::as_str).peekable();
        while let Some(word) = words.next() {
            let (flag, value) =
                word.split_once('=').map_or((word, None), |(flag, value)| (flag, Some(value)));
            match flag {
                "--get" => sorted.name(value.or_else(|| words.next())?)?,
                "--via" => sorted.hops.extend(hops(value.or_else(|| words.next())?)?),
                flag if flag.len() > 1 && flag.starts_with('-') => {
                    sorted.options.push(word.to_owned());
                    if value.is_none() && takes_value(command, flag) {
                        sorted.options.push(words.next()?.to_owned());
                    }
                }
                _ => {
                    let port = words.peek().filter(|next| is_port(next) && hops(word).is_none());
                    match port {
                        Some(port) => {
                            sorted.hops.extend(hops(&format!("{word}:{port}"))?);
                            words.next();
                        }
                        None => sorted.word(word)?,
                    }
                }
            }
        }
        Some(sorted)
    }

    /// A word that no option takes.
    fn word(&mut self, word: &str) -> Option<()> {
        let is_relay = word.strip_prefix("relay://").or_else(|| word.strip_prefix("http://"));
        let place = is_relay.unwrap_or(word);
        if let Some(hops) = hops(place) {
            self.hops.extend(hops);
            return Some(());
        }
        match place.split_once('/') {
            Some((hop, name)) if hops(hop).is_some() => {
                self.hops.push(hop.to_owned());
                if name.is_empty() { Some(()) } else { self.name(name) }
            }
            _ => self.name(word),
        }
    }

    /// The file's name, of which there can be one.
    fn name(&mut self, name: &str) -> Option<()> {
        self.name.replace(name.to_owned()).is_none().then_some(())
    }

    /// The right line behind the program's name.
    fn line(&self, verb: Option<Verb>, command: &Command) -> Option<String> {
        if self.hops.is_empty() {
            return None;
        }
        let mut words = Vec::new();
        match (verb, &self.name) {
            (Some(Verb::Trace), _) => words.push("trace".to_owned()),
            (Some(Verb::List), Some(name)) => words.extend(["list", "--get", name].map(str::to_owned)),
            (_, None) => words.push("list".to_owned()),
            (_, Some(name)) => words.extend(["--get", name].map(str::to_owned)),
        }
        words.extend(self.hops.iter().flat_map(|hop| ["--via".to_owned(), hop.clone()]));
        words.extend(self.options.iter().cloned());
        let typed = std::iter::once(command.get_name().to_owned()).chain(words.iter().cloned());
        command.clone().try_get_matches_from(typed).is_ok().then(|| shown(&words))
    }
}

/// One hop, or several with commas between them.
fn hops(text: &str) -> Option<Vec<String>> {
    text.split(',').map(|hop| hop.parse::<Hop>().ok().map(|_| hop.to_owned())).collect()
}

fn is_port(word: &str) -> bool {
    word.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Whether a value stands behind this flag.
fn takes_value(command: &Command, flag: &str) -> bool {
    let is_it = |argument: &&Arg| match flag.strip_prefix("--") {
        Some(long) => argument.get_long() == Some(long),
        None => argument.get_short().is_some_and(|short| flag == format!("-{short}")),
    };
    command.get_arguments().find(is_it).is_some_and(|argument| argument.get_action().takes_values())
}

/// Words as a shell takes them.
fn shown(words: &[String]) -> String {
    let mut line = String::new();
    for word in words {
        let gap = if line.is_empty() { "" } else { " " };
        let is_plain =
            !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "-_./:@%+=,[]".contains(c));
        // Writing to a string cannot fail.
        let _ = if is_plain {
            write!(line, "{gap}{word}")
        } else {
            write!(line, "{gap}'{}'", word.replace('\'', "'\\''"))
        };
    }
    line
}

#[cfg(test)]
mod tests {
    use super::meant;
    use crate::cli::Cli;
    use clap::CommandFactory;

    fn check(typed: &[&str], expected: Option<&str>) {
        let typed: Vec<String> = typed.iter().map(|&word| word.to_owned()).collect();
        let told = meant(&typed, &Cli::command());
        let line = told.as_deref().and_then(|told| told.lines().nth(1)).map(str::trim_start);
        assert_eq!(line, expected.map(|line| format!("relay-client {line}")).as_deref(), "{typed:?}");
    }

    #[test]
    fn words_go_where_they_belong() {
        check(&["my file", "h:1"], Some("--get 'my file' --via h:1"));
        check(&["fetch", "h:1", "--timeout", "5", "a"], Some("--get a --via h:1 --timeout 5"));
        check(&["get", "h:1,g:2", "a", "--quiet"], Some("--get a --via h:1 --via g:2 --quiet"));
        check(&["dir", "h:1", "docs/"], Some("list --get docs/ --via h:1"));
        check(&["relay://h:1/d/a"], Some("--get d/a --via h:1"));
        check(&["check", "h:1", "g", "2"], Some("trace --via h:1 --via g:2"));
    }

    #[test]
    fn nothing_is_told_where_nothing_is_known() {
        check(&["route.txt"], None);
        check(&["route.txt", "--jsom"], None);
        check(&["a", "b", "h:1"], None);
        check(&["--get", "a", "--via", "h:1", "--wrong"], None);
        check(&["--get", "a", "--via", "h:1"], None);
        check(&["a\u{1b}[2J", "h:1"], None);
        check(&[], None);
    }
}
