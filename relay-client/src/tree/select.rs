//! `--include` and `--exclude`: which of the listed paths are wanted.

use crate::failure::Failure;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Which paths are wanted. What a pattern means is told by `--help`.
#[derive(Debug)]
pub struct Selection {
    /// None: all.
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl Selection {
    /// A selection by patterns; without `include` everything is wanted that is not excluded.
    ///
    /// # Errors
    /// [`Failure::Usage`] for what is no pattern.
    pub fn of(include: &[String], exclude: &[String]) -> Result<Selection, Failure> {
        let include = if include.is_empty() { None } else { Some(set("--include", include)?) };
        Ok(Selection { include, exclude: set("--exclude", exclude)? })
    }

    /// Whether a file, by its path relative to the fetched directory, is wanted.
    #[must_use]
    pub fn wants_file(&self, path: &str) -> bool {
        self.include.as_ref().is_none_or(|include| include.is_match(path)) && !self.exclude.is_match(path)
    }

    /// The same for a directory, whatever is in it.
    #[must_use]
    pub fn wants_directory(&self, path: &str) -> bool {
        // A pattern with a slash at its end matches what is in the directory; the path with its slash is the least of that.
        let entered = format!("{path}/");
        let matches = |set: &GlobSet| set.is_match(path) || set.is_match(&entered);
        self.include.as_ref().is_none_or(matches) && !matches(&self.exclude)
    }
}

fn set(flag: &str, patterns: &[String]) -> Result<GlobSet, Failure> {
    let wrong = |pattern: &str, error: &globset::Error| {
        Failure::Usage(format!("{flag} {pattern}: {}; see --help for what a pattern is", error.kind()))
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        for form in forms(pattern) {
            let glob = GlobBuilder::new(&form).literal_separator(true).backslash_escape(true).build();
            set.add(glob.map_err(|error| wrong(pattern, &error))?);
        }
    }
    set.build().map_err(|error| wrong("", &error))
}

/// A pattern without a slash, but for one at its end, stands for a name in any directory; and what is in a directory that matches
/// matches with it.
fn forms(pattern: &str) -> Vec<String> {
    let body = pattern.trim_end_matches('/');
    let anchored = match body.strip_prefix('/') {
        Some(rest) => rest.to_owned(),
        None if body.contains('/') => body.to_owned(),
        None => format!("**/{body}"),
    };
    let beneath = format!("{anchored}/**");
    if pattern.ends_with('/') { vec![beneath] } else { vec![anchored, beneath] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(include: &[&str], exclude: &[&str], wanted: &[&str], unwanted: &[&str]) {
        let own = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        let selection = Selection::of(&own(include), &own(exclude)).unwrap();
        for path in wanted {
            assert!(selection.wants_file(path), "{include:?} {exclude:?}: {path} is wanted");
        }
        for path in unwanted {
            assert!(!selection.wants_file(path), "{include:?} {exclude:?}: {path} is not wanted");
        }
    }

    #[test]
    fn patterns() {
        check(&[], &[], &["a", "a/b"], &[]);
        check(&["*.jpg"], &[], &["a.jpg", "d/e/a.jpg", "x.jpg/inside"], &["a.JPG", "a.jpg.txt", "d/a.png"]);
        check(&["/*.jpg"], &[], &["a.jpg"], &["d/a.jpg"]);
        check(&["d/*.jpg"], &[], &["d/a.jpg"], &["a.jpg", "d/e/a.jpg", "x/d/a.jpg"]);
        check(&["d/**/*.jpg"], &[], &["d/a.jpg", "d/e/f/a.jpg"], &["a.jpg"]);
        check(&[], &["cache"], &["a", "mycache"], &["cache", "cache/a", "d/cache/e/f"]);
        check(&[], &["cache/"], &["a"], &["cache/a", "d/cache/e/f"]);
        check(&[], &["[ab]?", "*.{o,a}"], &["a", "ccc", "x.c"], &["a1", "d/b2", "d/x.o", "lib.a"]);
        check(&["*.c", "docs"], &["old"], &["x.c", "docs/a/b"], &["old/x.c", "docs/old/a", "x.h"]);
    }

    #[test]
    fn directories() {
        let own = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        for pattern in ["cache", "cache/"] {
            let selection = Selection::of(&[], &own(&[pattern])).unwrap();
            assert!(
                !selection.wants_directory("cache") && !selection.wants_directory("d/cache/e"),
                "{pattern}"
            );
            assert!(selection.wants_directory("d") && selection.wants_directory("mycache"), "{pattern}");
            let selection = Selection::of(&own(&[pattern]), &[]).unwrap();
            assert!(selection.wants_directory("cache") && !selection.wants_directory("d"), "{pattern}");
        }
    }

    #[test]
    fn what_is_no_pattern() {
        for pattern in ["[a", "{a,b", "a\\"] {
            let failure = Selection::of(&[], &[pattern.to_owned()]).unwrap_err();
            assert!(
                matches!(&failure, Failure::Usage(text) if text.contains("--exclude") && text.contains(pattern)),
                "{failure}"
            );
        }
    }
}
