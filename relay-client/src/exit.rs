//! The exit codes: one for each kind of failure, declared once, with the text of `--help`.

use std::process::ExitCode;

macro_rules! exits {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $word:literal, $text:literal;)*) => {
        /// How a run ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Exit { $($(#[$doc])* $name,)* }

        impl Exit {
            /// Every way to end, for tables and tests.
            pub const ALL: &'static [Exit] = &[$(Exit::$name,)*];

            /// The exit code.
            #[must_use]
            pub fn code(self) -> u8 {
                match self { $(Exit::$name => $code,)* }
            }

            /// One word for programs.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Exit::$name => $word,)* }
            }

            /// What it means, for people.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Exit::$name => $text,)* }
            }
        }
    };
}

exits! {
    /// The file is there, whole and verified.
    Success = 0, "success", "the file is there, whole and verified (or was already)";
    /// Wrong arguments or a bad route; nothing was dialled.
    Usage = 2, "usage", "wrong arguments or a bad route; nothing was dialled";
    /// A hop was not reached, or the chain broke.
    Unreachable = 3, "unreachable", "a hop could not be reached, is no relay node, or the connection was lost";
    /// A node refused.
    Denied = 4, "denied", "a node refused to relay to the next hop";
    /// The origin does not offer what was asked for.
    NotFound = 5, "not_found", "the origin does not offer the file, or it is no directory and was asked for as one";
    /// A limit on time ended it.
    TimedOut = 6, "timed_out", "a hop stayed silent (--timeout), or the deadline passed (--deadline)";
    /// What came is not what was promised or expected.
    Damaged = 7, "damaged", "the bytes are not those that were promised or expected, or the file changed meanwhile";
    /// This machine could not take the file.
    Local = 8, "local", "this machine could not read, write or lock a file: disk full, not permitted, in use";
    /// The origin failed.
    Origin = 9, "origin", "the origin could not answer: overloaded, failing, or breaking the protocol";
    /// Some of a directory could not be had, or not be listed.
    Incomplete = 10, "incomplete", "some of a directory could not be fetched or listed (it is named, or counted where it has no name); all else is there";
    /// The origin proved another key than expected, or none.
    Key = 11, "key", "the origin did not prove the key that is pinned or known, or encryption is missing; nothing was asked of it";
    /// Ctrl-C or SIGTERM.
    Interrupted = 130, "interrupted", "interrupted by Ctrl-C or SIGTERM; what was verified is kept in NAME.part";
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// The table of `--help`.
#[must_use]
pub fn table() -> String {
    Exit::ALL.iter().map(|exit| format!("  {:>3}  {}\n", exit.code(), exit.text())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_and_word_is_its_own() {
        let codes: HashSet<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        let words: HashSet<&str> = Exit::ALL.iter().map(|exit| exit.word()).collect();
        assert_eq!((codes.len(), words.len()), (Exit::ALL.len(), Exit::ALL.len()));
    }
}
