//! The route, from a file, from standard input or from flags. Nothing is dialled before it is right, and every error in
//! it is shown at its place.

use crate::cli::RouteArguments;
use crate::failure::Failure;
use crate::show;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use relay_proto::address::Hop;
use relay_proto::limits::MAX_ROUTE_FILE;
use relay_proto::route::{Route, RouteError, RouteErrorKind};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

/// Reads the route that the arguments name. `name` is the file's name where the arguments give the hops alone.
///
/// # Errors
/// [`Failure::Usage`] when there is none or it cannot be read, [`Failure::Route`] when it is wrong.
pub fn read(arguments: &RouteArguments, name: Option<&str>) -> Result<Route, Failure> {
    let mut routes = read_all(arguments, name)?;
    match (routes.pop(), routes.is_empty()) {
        (Some(route), true) => Ok(route),
        _ => Err(Failure::Usage(
            "the route file holds several routes, and this command takes one; put it into a file of its own"
                .to_owned(),
        )),
    }
}

/// Reads all routes to the same file that the arguments name, at least one. `name` as for [`read`].
///
/// # Errors
/// [`Failure::Usage`] when there is none or it cannot be read, [`Failure::Route`] when one is wrong.
pub fn read_all(arguments: &RouteArguments, name: Option<&str>) -> Result<Vec<Route>, Failure> {
    match (&arguments.route, arguments.via.as_slice()) {
        (None, []) => Err(Failure::Usage(
            "no route: name a route file, or give --get NAME and --via HOST:PORT (see --help)".to_owned(),
        )),
        (Some(_), [_, ..]) => {
            Err(Failure::Usage("give either a route file or --via, not both (see --help)".to_owned()))
        }
        (Some(path), []) => from_file(path),
        (None, via) => from_flags(name, via).map(|route| vec![route]),
    }
}

fn from_file(path: &Path) -> Result<Vec<Route>, Failure> {
    let is_stdin = path == Path::new("-");
    let shown = if is_stdin { "standard input".to_owned() } else { show::path(path) };
    let bytes =
        if is_stdin { read_capped(io::stdin().lock()) } else { File::open(path).and_then(read_capped) };
    let bytes = bytes.map_err(|e| Failure::Usage(format!("cannot read the route from {shown}: {e}")))?;
    let text = Route::as_utf8(&bytes);
    Route::parse_all(&text).map_err(|e| Failure::Route(render(&e, &text, &shown)))
}

/// At most one byte more than a route file may have, so that the parser sees that it is too long.
fn read_capped(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MAX_ROUTE_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A route whose hops are `via`.
///
/// # Errors
/// As for [`read`].
pub fn from_flags(name: Option<&str>, via: &[String]) -> Result<Route, Failure> {
    let mut hops = Vec::new();
    for text in via {
        let hop = text.parse::<Hop>().map_err(|e| {
            let error = RouteError { kind: RouteErrorKind::Hop(e.kind), span: e.span };
            Failure::Route(render(&error, text.as_bytes(), "--via"))
        })?;
        hops.push(hop);
    }
    let name = name.ok_or_else(|| Failure::Usage("--via needs --get NAME, the file's name".to_owned()))?;
    Route::new(name, hops, None).map_err(|e| Failure::Usage(format!("--get, --via: {e}")))
}

/// An error of a route with its place, its line and a caret. `name` is where the route came from.
fn render(error: &RouteError, source: &[u8], name: &str) -> String {
    let (number, _) = error.line_and_column(source);
    let line = Line::around(source, &error.span);
    let message = error.to_string();
    let snippet = Snippet::source(line.text.as_str())
        .line_start(number)
        .path(name)
        .annotation(AnnotationKind::Primary.span(line.span));
    Renderer::plain().render(&[Level::ERROR.primary_title(message.as_str()).element(snippet)])
}

/// The line of an error, as text.
struct Line {
    text: String,
    span: Range<usize>,
}

/// The longest piece of a line that is shown, in bytes before and after the error.
const MAX_AROUND: usize = 4096;

impl Line {
    fn around(source: &[u8], span: &Range<usize>) -> Line {
        let start = span.start.min(source.len());
        let (before, after) = source.split_at(start);
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let before = before.get(line_start..).unwrap_or_default();
        let before = before.strip_prefix("\u{feff}".as_bytes()).unwrap_or(before);
        let line_end = after.iter().position(|b| *b == b'\n').unwrap_or(after.len()).min(MAX_AROUND);
        let (after, _) = after.split_at(line_end);
        let after = after.strip_suffix(b"\r").unwrap_or(after);
        let wrong_len = span.end.saturating_sub(start).min(after.len());
        let (wrong, after) = after.split_at(wrong_len);

        let mut text = printable(before);
        let from = text.len();
        text.push_str(&printable(wrong));
        let to = text.len();
        text.push_str(&printable(after));
        Line { text: text.trim_end().to_owned(), span: from..to }.within()
    }

    /// With a span that lies within the text.
    fn within(mut self) -> Line {
        self.span.start = self.span.start.min(self.text.len());
        self.span.end = self.span.end.clamp(self.span.start, self.text.len());
        self
    }
}

/// Text whose every character has a width and does nothing to a terminal. Tabs stay, for the renderer knows them.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars()
        .map(|c| if c != '\t' && relay_proto::text::is_unsafe(c) { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: impl AsRef<[u8]>, expected: &str) {
        let source = source.as_ref();
        let error = Route::parse(source).expect_err(expected);
        assert_eq!(render(&error, source, "route.txt"), expected);
    }

    #[test]
    fn carets() {
        check(
            "myfile\npchost1\n",
            "error: the port is missing: write `host port` or `host:port`\n \
             --> route.txt:2:8\n  |\n2 | pchost1\n  |        ^",
        );
        check(
            "\u{feff}myfile\r\n  pchost1 70000\r\n",
            "error: this is no port: a port is a number from 1 to 65535\n \
             --> route.txt:2:11\n  |\n2 |   pchost1 70000\n  |           ^^^^^",
        );
        check(
            b"my\nh 1\nh\xff 1\n",
            "error: the route is not UTF-8 text, but perhaps Windows-1252 or Latin-1; save it as UTF-8\n --> route.txt:3:2\n  |\n3 | h\u{fffd} 1\n  |  ^",
        );
        check(
            "",
            "error: the route is empty: its first line names the file, then a hop a line\n \
             --> route.txt:1:1\n  |\n1 |\n  | ^",
        );
    }

    #[test]
    fn a_hostile_line_does_nothing_to_a_terminal() {
        let source = b"a\nh\x1b[31m\xe2\x80\xae 80\n";
        let error = Route::parse(source).expect_err("a bad host");
        let shown = render(&error, source, "r");
        assert!(!shown.chars().any(|c| c != '\n' && relay_proto::text::is_unsafe(c)), "{shown:?}");
    }

    #[test]
    fn a_long_line_stays_readable() {
        let source = format!("f\n{} 1", "x".repeat(100_000));
        let error = Route::parse(source.as_bytes()).expect_err("too long");
        let shown = render(&error, source.as_bytes(), "r");
        assert!(shown.len() < 10_000 && shown.contains("--> r:2:1"), "{}", shown.len());
    }

    #[test]
    fn flags() {
        let via = ["h:1".to_owned(), "g:x".to_owned()];
        let shown = from_flags(Some("f"), &via).expect_err("a bad port").to_string();
        assert!(shown.contains("--> --via:1:3") && shown.contains("this is no port"), "{shown}");
        assert_eq!(from_flags(Some("f"), &via[..1]).expect("a route").hops().len(), 1);
        assert!(from_flags(None, &via[..1]).is_err());
    }
}
