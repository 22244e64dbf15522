//! `Cache-Control`, read as RFC 9111 §5.2 says: names without regard to case, values as tokens or quoted strings,
//! commas inside quotes left alone. What cannot be read errs on the side of not reusing a response: a member that is none may
//! have been meant as any directive.

use crate::http::number::number;
use http::HeaderMap;
use http::header::{CACHE_CONTROL, HeaderName};

/// The longest time in seconds that this cache reckons with; RFC 9111 §1.2.2 asks for 2³¹ where a value is larger.
pub const LONGEST_SECONDS: u64 = 1 << 31;

/// The directives of all `Cache-Control` lines of one message, names in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directives {
    list: Vec<(String, Option<String>)>,
    unreadable: bool,
}

impl Directives {
    /// Reads the directives of a message.
    pub fn of(fields: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for line in fields.get_all(CACHE_CONTROL) {
            match line.to_str() {
                Ok(line) => split_outside_quotes(line).map(trimmed).for_each(|part| directives.add(part)),
                Err(_) => directives.unreadable = true,
            }
        }
        directives
    }

    /// Reads the directives of a request: where one cannot be read, the client may not want what is stored.
    pub fn of_request(fields: &HeaderMap) -> Self {
        let mut directives = Self::of(fields);
        if directives.unreadable {
            directives.demand("no-cache");
        }
        directives
    }

    /// Whether something there is no directive.
    pub fn is_unreadable(&self) -> bool {
        self.unreadable
    }

    /// Whether the directive `name` (in lower case) is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.list.iter().any(|(have, _)| have == name)
    }

    /// The seconds that `name` gives: the smallest where it is there more than once, 0 where that is no number,
    /// at most [`LONGEST_SECONDS`], `None` where the directive is missing.
    pub fn seconds(&self, name: &str) -> Option<u64> {
        self.list.iter().filter(|(have, _)| have == name).map(|(_, value)| seconds(value.as_deref())).min()
    }

    /// Leaves the directive `name` out from now on.
    pub fn forget(&mut self, name: &str) {
        self.list.retain(|(have, _)| have != name);
    }

    /// Adds a directive without a value.
    pub fn demand(&mut self, name: &str) {
        if !self.has(name) {
            self.list.push((name.to_owned(), None));
        }
    }

    /// One line that says the same, each directive once and times as plain numbers.
    pub fn to_line(&self) -> String {
        let mut seen: Vec<&str> = Vec::new();
        let mut parts = Vec::new();
        for (name, value) in &self.list {
            if seen.contains(&name.as_str()) {
                continue;
            }
            seen.push(name);
            // Only times keep their values: a list of fields behind no-cache or private is not followed, the
            // directive is taken to mean the whole response, which is always allowed.
            let is_time = value.is_some() && !matches!(name.as_str(), "no-cache" | "private");
            match self.seconds(name) {
                Some(time) if is_time => parts.push(format!("{name}={time}")),
                _ => parts.push(name.clone()),
            }
        }
        parts.join(", ")
    }

    fn add(&mut self, part: &str) {
        if part.is_empty() {
            return;
        }
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (part, None),
        };
        let is_readable = is_token(name) && value.is_none_or(|value| is_token(value) || is_quoted(value));
        self.unreadable |= !is_readable;
        // Its name counts even so.
        self.list.push((name.trim().to_ascii_lowercase(), value.map(|value| unquoted(value.trim()))));
    }
}

/// The members of a comma-separated list, each trimmed, empty ones left out.
pub fn members(fields: &HeaderMap, name: impl http::header::AsHeaderName) -> Vec<&str> {
    fields
        .get_all(name)
        .into_iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|member| !member.is_empty())
        .collect()
}

/// Without the white space around a list's members (RFC 9110 §5.6.3).
pub fn trimmed(member: &str) -> &str {
    member.trim_matches([' ', '\t'])
}

/// Whether it is a token (RFC 9110 §5.6.2), which is what a field's name is, too.
pub fn is_token(text: &str) -> bool {
    HeaderName::from_bytes(text.as_bytes()).is_ok()
}

/// Whether it is one string in quotes and nothing else (RFC 9110 §5.6.4).
fn is_quoted(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('"') else { return false };
    let mut escaped = false;
    let end = rest.find(|character| {
        let ends = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        ends
    });
    end.is_some_and(|end| end + 1 == rest.len())
}

fn seconds(value: Option<&str>) -> u64 {
    value.and_then(delta_seconds).unwrap_or(0)
}

/// A time in seconds as fields give it (RFC 9111 §1.2.2), at most [`LONGEST_SECONDS`]; `None` for what is no number.
pub fn delta_seconds(value: &str) -> Option<u64> {
    number(value).map(|seconds| seconds.min(LONGEST_SECONDS))
}

fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else { return value.to_owned() };
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    let mut plain = String::with_capacity(inner.len());
    let mut escaped = false;
    for character in inner.chars() {
        escaped = character == '\\' && !escaped;
        if !escaped {
            plain.push(character);
        }
    }
    plain
}

/// What stands between the commas of a line, but for those in quotes.
pub fn split_outside_quotes(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    line.split(move |character: char| {
        let splits = character == ',' && !quoted;
        if character == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && character == '\\' && !escaped;
        splits
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn directives(lines: &[&'static str]) -> Directives {
        let mut fields = HeaderMap::new();
        for line in lines {
            fields.append(CACHE_CONTROL, HeaderValue::from_static(line));
        }
        Directives::of(&fields)
    }

    #[test]
    fn names_have_no_case_and_lines_add_up() {
        let read = directives(&["No-Store, MAX-AGE=5", "must-revalidate"]);
        assert!(read.has("no-store") && read.has("must-revalidate"));
        assert_eq!(read.seconds("max-age"), Some(5));
        assert_eq!(read.to_line(), "no-store, max-age=5, must-revalidate");
    }

    #[test]
    fn quotes_hide_commas() {
        let read = directives(&[r#"private="set-cookie, x\", no-store", max-age="60""#]);
        assert!(read.has("private") && !read.has("no-store"));
        assert_eq!(read.seconds("max-age"), Some(60));
    }

    #[test]
    fn times_that_are_none_are_over_and_long_ones_are_cut() {
        assert_eq!(directives(&["max-age=abc"]).seconds("max-age"), Some(0));
        assert_eq!(directives(&["max-age=-1"]).seconds("max-age"), Some(0));
        assert_eq!(directives(&["max-age="]).seconds("max-age"), Some(0));
        assert_eq!(
            directives(&["max-age=99999999999999999999999"]).seconds("max-age"),
            Some(LONGEST_SECONDS)
        );
        assert_eq!(directives(&["max-age=9, max-age=7"]).seconds("max-age"), Some(7));
        assert_eq!(directives(&["public"]).seconds("max-age"), None);
    }

    #[test]
    fn what_is_no_directive_is_noticed() {
        for line in [
            "private; max-age=0",
            "no-store no-cache",
            "private; x",
            "max-age=60, \"private\"",
            "max-age=60, x=\"private",
            "max-age=60, x=\"private\\\"",
            "max-age=60, x=\"a\"b",
            "max-age=60, x=a b",
            "max-age = 60",
            "max-age=",
            "=60",
        ] {
            assert!(directives(&[line]).is_unreadable(), "{line}");
        }
        for line in ["", ", max-age=60 ,\t,", "x=\"a\\\"; b\", y=a.b", "no-cache=\"\"", "max-age=-1"] {
            assert!(!directives(&[line]).is_unreadable(), "{line}");
        }
    }

    #[test]
    fn bytes_outside_ascii_are_noticed() {
        let mut fields = HeaderMap::new();
        fields.insert(CACHE_CONTROL, HeaderValue::from_bytes(b"max-age=5\xff").unwrap());
        assert!(Directives::of(&fields).is_unreadable());
    }
}
