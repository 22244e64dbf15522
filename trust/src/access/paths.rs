//! Which names a rule means: a directory and all in it, patterns, or one file.
//!
//! Names are those of the document root: components between slashes, none of them empty or made of dots. Anything else is
//! matched by no rule.

use globset::{GlobBuilder, GlobMatcher};
use std::fmt;
use std::str::FromStr;

/// The longest rule, in bytes.
const MAX_RULE: usize = 4096;
/// The most components of a rule, which bounds what one name costs.
const MAX_COMPONENTS: usize = 64;

/// One entry of `read` or `write`.
///
/// `photos/` is the directory and everything in it, `/` everything there is. With `*`, `?`, `[…]` or `{…}` it is a pattern, whose
/// wildcards stay within one component, but for `**`, which is any number of them. Everything else is the name of one file.
#[derive(Debug, Clone)]
pub struct PathRule {
    text: String,
    components: Vec<Component>,
}

#[derive(Debug, Clone)]
enum Component {
    /// `**`: any number of components, none included.
    AnyDepth,
    Name(String),
    Pattern(GlobMatcher),
}

impl PathRule {
    /// Whether the rule is for the file or directory of this name.
    #[must_use]
    pub fn takes(&self, name: &str) -> bool {
        self.after(name).is_some_and(|at| at.contains(&self.components.len()))
    }

    /// Whether the rule may be for something in the directory of this name; the empty name is the document root.
    #[must_use]
    pub fn leads_through(&self, directory: &str) -> bool {
        if directory.is_empty() {
            return true;
        }
        self.after(directory).is_some_and(|at| at.iter().any(|at| *at < self.components.len()))
    }

    /// Whether the rule is for everything in the directory of this name, however deep; the empty name is the document root.
    #[must_use]
    pub fn takes_all_in(&self, directory: &str) -> bool {
        let at = if directory.is_empty() { Some(self.with_skips(vec![0])) } else { self.after(directory) };
        let last = self.components.len().saturating_sub(1);
        matches!(self.components.get(last), Some(Component::AnyDepth))
            && at.is_some_and(|at| at.contains(&last))
    }

    /// At which of its components the rule can stand when it has taken all of the name's; none when it is no name. All
    /// possibilities are followed at once, so that no pattern takes long.
    fn after(&self, name: &str) -> Option<Vec<usize>> {
        let mut at = self.with_skips(vec![0]);
        for part in name.split('/') {
            if matches!(part, "" | "." | "..") {
                return None;
            }
            let mut next: Vec<usize> = at
                .iter()
                .filter_map(|&at| match self.components.get(at)? {
                    Component::AnyDepth => Some(at),
                    Component::Name(name) => (name == part).then_some(at + 1),
                    Component::Pattern(pattern) => pattern.is_match(part).then_some(at + 1),
                })
                .collect();
            next.dedup();
            at = self.with_skips(next);
        }
        Some(at)
    }

    /// Adds the places behind every `**` that stands at one of them.
    fn with_skips(&self, mut at: Vec<usize>) -> Vec<usize> {
        let mut index = 0;
        while let Some(&here) = at.get(index) {
            let behind = here + 1;
            if matches!(self.components.get(here), Some(Component::AnyDepth)) && !at.contains(&behind) {
                at.push(behind);
            }
            index += 1;
        }
        at.sort_unstable();
        at
    }
}

impl fmt::Display for PathRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for PathRule {
    fn eq(&self, other: &PathRule) -> bool {
        self.text == other.text
    }
}

impl Eq for PathRule {}

/// Why a text is no rule for names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathRuleError {
    /// Nothing.
    #[error("the empty name means nothing; write / for everything")]
    Empty,
    /// Too long or too deep.
    #[error("a rule has at most {MAX_RULE} bytes and {MAX_COMPONENTS} components")]
    Long,
    /// A component that no name has.
    #[error("no name has an empty component, `.` or `..`, or a backslash; write photos/ or docs/**")]
    Component,
    /// A pattern that does not read.
    #[error("the pattern {0} does not read: {1}")]
    Pattern(String, String),
    /// `**` and something else in one component.
    #[error("`**` stands alone between slashes, as in docs/**")]
    PartOfDepth,
}

impl FromStr for PathRule {
    type Err = PathRuleError;

    fn from_str(text: &str) -> Result<PathRule, PathRuleError> {
        if text.is_empty() {
            return Err(PathRuleError::Empty);
        }
        let (names, is_directory) = match text.strip_suffix('/') {
            Some(names) => (names, true),
            None => (text, false),
        };
        let mut components = Vec::new();
        // `/` alone: the document root, which has no components.
        if !(is_directory && names.is_empty()) {
            components = names.split('/').map(component).collect::<Result<_, _>>()?;
        }
        if is_directory {
            components.push(Component::AnyDepth);
        }
        if text.len() > MAX_RULE || components.len() > MAX_COMPONENTS {
            return Err(PathRuleError::Long);
        }
        Ok(PathRule { text: text.to_owned(), components })
    }
}

fn component(text: &str) -> Result<Component, PathRuleError> {
    if matches!(text, "" | "." | "..") || text.contains('\\') {
        return Err(PathRuleError::Component);
    }
    if text == "**" {
        return Ok(Component::AnyDepth);
    }
    if text.contains("**") {
        return Err(PathRuleError::PartOfDepth);
    }
    if !text.contains(['*', '?', '[', ']', '{', '}']) {
        return Ok(Component::Name(text.to_owned()));
    }
    let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(false).build();
    let fail = |error: globset::Error| PathRuleError::Pattern(text.to_owned(), error.kind().to_string());
    Ok(Component::Pattern(glob.map_err(fail)?.compile_matcher()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy, prop_oneof, proptest};

    fn rule(text: &str) -> PathRule {
        text.parse().unwrap()
    }

    fn check(text: &str, takes: &[&str], not: &[&str]) {
        for name in takes {
            assert!(rule(text).takes(name), "{text} takes {name}");
        }
        for name in not {
            assert!(!rule(text).takes(name), "{text} does not take {name}");
        }
    }

    #[test]
    fn what_rules_take() {
        check(
            "photos/",
            &["photos", "photos/a", "photos/b/c"],
            &["", "photo", "photosx", "x/photos", "Photos/a"],
        );
        check("/", &["a", "a/b"], &["", "/a", "a//b", "a/", ".", "a/../b"]);
        check("notes.txt", &["notes.txt"], &["notes.txt/a", "a/notes.txt", "notesxtxt"]);
        check("docs/**", &["docs", "docs/a", "docs/a/b"], &["doc", "docsx"]);
        check("*.txt", &["a.txt", ".txt"], &["a/b.txt", "a.txt/b"]);
        check("**/*.txt", &["a.txt", "a/b.txt", "a/b/c.txt"], &["a.txt/b"]);
        check("a/*/c", &["a/b/c"], &["a/c", "a/b/b/c", "a/b/c/d"]);
        check("a/**/c", &["a/c", "a/b/c", "a/b/b/c"], &["c", "a"]);
        check("a?c", &["abc"], &["a/c", "ac"]);
        check("[ab]/x{1,2}", &["a/x1", "b/x2"], &["c/x1", "a/x3"]);
        check("photos/*/", &["photos/a", "photos/a/b"], &["photos"]);
        check("**", &["a", "a/b"], &["", "a/"]);
    }

    #[test]
    fn through_which_directories_rules_lead() {
        let leads = |text: &str, directory: &str| rule(text).leads_through(directory);
        for directory in ["", "a", "a/b", "a/b/c"] {
            assert!(leads("a/b/", directory), "{directory}");
        }
        for directory in ["b", "a/c", "/", "a/", "a/.."] {
            assert!(!leads("a/b/", directory), "{directory}");
        }
        assert!(leads("a/*/c", "a/x") && !leads("a/*/c", "a/x/c") && !leads("a/*/c", "a/x/d"));
        assert!(leads("**/c", "x/y/z"));
        assert!(leads("notes.txt", "") && !leads("notes.txt", "notes.txt"));
    }

    #[test]
    fn of_which_directories_rules_take_all() {
        let all = |text: &str, directory: &str| rule(text).takes_all_in(directory);
        for directory in ["a/b", "a/b/c", "a/b/c/d"] {
            assert!(
                all("a/b/", directory) && all("a/b/**", directory) && all("a/*/", directory),
                "{directory}"
            );
        }
        for directory in ["", "a", "b", "a/bc", "a/b/..", "/a/b"] {
            assert!(!all("a/b/", directory), "{directory}");
        }
        assert!(all("/", "") && all("/", "a") && all("**", ""));
        assert!(!all("*", "") && !all("**/*.txt", "") && !all("a/b", "a/b") && !all("a/b", "a"));
    }

    #[test]
    fn what_is_no_rule() {
        let bad = |text: &str| text.parse::<PathRule>().unwrap_err();
        assert_eq!(bad(""), PathRuleError::Empty);
        for text in ["/a", "a//b", "//", "./a", "a/../b", "..", "a\\b"] {
            assert_eq!(bad(text), PathRuleError::Component, "{text}");
        }
        assert_eq!(bad("a**"), PathRuleError::PartOfDepth);
        assert!(matches!(bad("a[b"), PathRuleError::Pattern(..)));
        assert!(matches!(bad("a/{b/c}"), PathRuleError::Pattern(..)), "no alternative spans components");
        assert_eq!(bad(&"a/".repeat(65)), PathRuleError::Long);
        assert_eq!(bad(&"a".repeat(4097)), PathRuleError::Long);
    }

    /// `**` followed by `**` must not multiply: this would take a naive matcher longer than anybody lives.
    #[test]
    fn no_pattern_takes_long() {
        let text = vec!["**/a*"; 31].join("/");
        let name = vec!["aa"; 1300].join("/");
        assert!(!rule(&format!("{text}/b")).takes(&name));
    }

    /// The plain reading: a rule takes a name when its first component takes the name's first and the rest takes the rest.
    fn plainly_takes(rule: &[&str], name: &[&str]) -> bool {
        match (rule, name) {
            ([], []) => true,
            (["**", rest @ ..], _) => (0..=name.len()).any(|skipped| plainly_takes(rest, &name[skipped..])),
            ([first, rest @ ..], [part, parts @ ..]) => {
                let first: Vec<char> = first.chars().collect();
                let part: Vec<char> = part.chars().collect();
                plainly_matches(&first, &part) && plainly_takes(rest, parts)
            }
            _ => false,
        }
    }

    fn plainly_matches(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['*', rest @ ..], _) => (0..=text.len()).any(|skipped| plainly_matches(rest, &text[skipped..])),
            (['?', rest @ ..], [_, others @ ..]) => plainly_matches(rest, others),
            ([same, rest @ ..], [other, others @ ..]) => same == other && plainly_matches(rest, others),
            _ => false,
        }
    }

    fn a_component() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("**".to_owned()),
            "[ab*?.]{1,3}"
                .prop_filter("no name", |text| { !text.contains("**") && text != "." && text != ".." })
        ]
    }

    proptest! {
        #[test]
        fn rules_take_what_their_plain_reading_takes(
            components in proptest::collection::vec(a_component(), 1..5),
            name in "[ab]{1,2}(/[ab.]{1,2}){0,4}",
        ) {
            let text = components.join("/");
            let parts: Vec<&str> = name.split('/').collect();
            let is_name = parts.iter().all(|part| !matches!(*part, "." | ".."));
            let plain: Vec<&str> = components.iter().map(String::as_str).collect();
            proptest::prop_assert_eq!(rule(&text).takes(&name), is_name && plainly_takes(&plain, &parts));
            let mut in_directory = plain.clone();
            in_directory.push("**");
            proptest::prop_assert_eq!(
                rule(&format!("{text}/")).takes(&name),
                is_name && plainly_takes(&in_directory, &parts)
            );
        }

        #[test]
        fn of_what_rules_take_all_they_take_each(
            components in proptest::collection::vec(a_component(), 1..4),
            directory in "[ab]{1,2}(/[ab]{1,2}){0,2}",
            name in "[ab]{1,2}(/[ab]{1,2}){0,3}",
        ) {
            let rule = rule(&format!("{}/", components.join("/")));
            if rule.takes_all_in(&directory) {
                let inside = format!("{directory}/{name}");
                proptest::prop_assert!(rule.takes(&inside));
            }
        }

        /// What is in a directory that no rule leads through, no rule takes.
        #[test]
        fn what_rules_take_they_lead_to(
            components in proptest::collection::vec(a_component(), 1..5),
            name in "[ab]{1,2}(/[ab]{1,2}){0,4}",
        ) {
            let rule = rule(&components.join("/"));
            if rule.takes(&name) {
                for (slash, _) in name.match_indices('/') {
                    proptest::prop_assert!(rule.leads_through(&name[..slash]));
                }
            }
        }
    }
}
