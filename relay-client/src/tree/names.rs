//! From names that an origin lists to paths beneath the target directory. Whatever is listed, nothing else than a path of plain
//! components comes out of here.

use crate::plan::is_windows_name;
use crate::unfinished::is_unfinished;
use relay_proto::text::is_unsafe;
use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

/// A path beneath the target directory: components separated by `/`, each of them a plain name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SafePath(String);

impl SafePath {
    /// The path of what is listed as `name` when everything that starts with `prefix` was asked for.
    ///
    /// # Errors
    /// Why it cannot be saved, for people.
    pub fn of(name: &str, prefix: &str) -> Result<SafePath, &'static str> {
        let path = name.strip_prefix(prefix).ok_or("it does not begin with what was asked for")?;
        for component in path.split('/') {
            check(component, cfg!(windows))?;
        }
        Ok(SafePath(path.to_owned()))
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a component names a file or a directory in one directory, and nothing else.
fn check(component: &str, windows: bool) -> Result<(), &'static str> {
    if component.is_empty() {
        Err("a component of it is empty")
    } else if component == "." || component == ".." {
        Err("it leads to another directory")
    } else if component.chars().any(|c| c == '\\' || is_unsafe(c)) {
        Err("it has a backslash, or a control or bidirectional character")
    } else if windows && !is_windows_name(component) {
        Err("Windows keeps such names for itself")
    } else if is_unfinished(component) {
        Err("unfinished downloads are kept under such names")
    } else {
        Ok(())
    }
}

/// Notices names that differ only in case, for some file systems do not tell these apart. Holds eight bytes a name.
#[derive(Debug, Default)]
pub struct Cases {
    seen: HashSet<u64>,
    hasher: RandomState,
}

impl Cases {
    /// Whether this path differs only in case from one that was asked about before.
    pub fn collides(&mut self, path: &SafePath) -> bool {
        let folded: String = path.as_str().chars().flat_map(char::to_lowercase).collect();
        !self.seen.insert(self.hasher.hash_one(folded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (name, prefix, path) in [
            ("docs/a", "docs/", "a"),
            ("a/b c/ü", "", "a/b c/ü"),
            ("d/..a/...", "d/", "..a/..."),
            ("d/aux.c", "d/", "aux.c"),
            // A Persian word and a family, which are written with joiners.
            ("d/می\u{200c}خواهم", "d/", "می\u{200c}خواهم"),
            ("👨\u{200d}👩\u{200d}👧", "", "👨\u{200d}👩\u{200d}👧"),
        ] {
            assert_eq!(SafePath::of(name, prefix).map(|path| path.0).as_deref(), Ok(path));
        }
    }

    #[test]
    fn nothing_else_becomes_a_path() {
        let bad = [
            "",
            "/",
            "..",
            ".",
            "../x",
            "a/../../x",
            "a/..",
            "/etc/passwd",
            "a//b",
            "a/",
            "./a",
            "a\\b",
            "..\\x",
            "C:\\x",
            "a\0b",
            "a\nb",
            "a\x1b[2J",
            "a\u{202e}b",
            "\u{200f}",
            "x.part",
            "d/x.PART",
            "x.part.journal",
            "x.part.journal.new",
            "x.part/y",
        ];
        for name in bad {
            assert!(SafePath::of(name, "").is_err(), "{name:?}");
            assert!(SafePath::of(&format!("docs/{name}"), "docs/").is_err(), "{name:?}");
        }
        for name in ["docs", "doc/x", "other", "/docs/x", "../docs/x", "Docs/x"] {
            assert!(SafePath::of(name, "docs/").is_err(), "{name:?}");
        }
    }

    proptest::proptest! {
        /// Whatever is listed: what becomes a path has nothing but plain components, and as many as it shows.
        #[test]
        fn a_path_stays_where_it_is_put(name in "(/|\\.|\\.\\.|a|\\\\|C:|\\PC|\\x00){0,12}", prefix in "(d/)?") {
            if let Ok(path) = SafePath::of(&format!("{prefix}{name}"), &prefix) {
                let path = std::path::Path::new(path.as_str());
                let plain = |component| matches!(component, std::path::Component::Normal(_));
                proptest::prop_assert!(path.components().all(plain), "{path:?}");
                proptest::prop_assert_eq!(path.components().count(), name.split('/').count());
            }
        }
    }

    #[test]
    fn windows_keeps_some_names() {
        for name in ["CON", "nul.txt", "com1", "a:b", "a.", "aux.c", "d:stream"] {
            assert!(check(name, true).is_err() && check(name, false).is_ok(), "{name}");
        }
    }

    #[test]
    fn names_that_differ_only_in_case() {
        let mut cases = Cases::default();
        let mut collides = |name| cases.collides(&SafePath::of(name, "").unwrap());
        assert!(!collides("Makefile") && !collides("d/Makefile") && !collides("other"));
        assert!(collides("makefile") && collides("D/makeFILE"));
        assert!(!collides("Ärger") && collides("ärger"));
    }
}
