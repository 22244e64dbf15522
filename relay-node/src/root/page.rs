//! Names in order, a page at a time: what is asked and what is found. How it is found is not told here.

use std::cmp::Ordering;

/// The most entries of one page.
pub const MAX_LIST_PAGE: usize = 1_000;

/// Which names are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct ListQuery<'a> {
    /// What every name begins with: `docs/`, `te`, or nothing. A directory without its slash is not entered.
    pub prefix: &'a [u8],
    /// Only names behind this one, in the order of [`path_order`]: the `next` of the page before.
    pub after: Option<&'a [u8]>,
    /// The most entries wanted; at most [`MAX_LIST_PAGE`] are given.
    pub limit: usize,
    /// Whether directories are entered. Linked directories are named and not entered, so a link cannot make a circle.
    pub recursive: bool,
    /// Whether names that are not UTF-8 are wanted, too, where the system has such.
    pub any_bytes: bool,
}

/// A page of names, in the order of [`path_order`]. Its counts concern what was passed since the page before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// What was found.
    pub entries: Vec<ListEntry>,
    /// Something may follow: ask again with this as `after`. It is the last name that was passed, and need not be an entry's:
    /// a page ends, also without any entry, when it has cost enough.
    pub next: Option<Vec<u8>>,
    /// How many names cannot be asked for, because they hold a backslash, would be too long, or are not UTF-8 and such
    /// were not wanted.
    pub not_offered: u64,
    /// How many links lead nowhere, or out of what is offered.
    pub links: u64,
    /// How many things cannot be read and have no entry: the directory of the prefix itself, or what the disk does not tell about.
    pub unreadable: u64,
}

/// One name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEntry {
    /// The path relative to the document root, without a slash at the end.
    pub name: Vec<u8>,
    /// File or directory; nothing else is listed.
    pub kind: EntryKind,
    /// In bytes; 0 for a directory.
    pub size: u64,
    /// Seconds since 1970 and nanoseconds.
    pub modified: (i64, u32),
    /// Whether anybody may execute the file; false for a directory.
    pub executable: bool,
    /// Whether it is a link to a directory, which is not entered.
    pub linked: bool,
    /// Whether it is a directory that was to be entered and may not be read.
    pub unreadable: bool,
}

/// What a listed name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

/// The order of a listing: names by their bytes, and what is in a directory right behind it (`a`, `a/b`, `a-b`).
#[must_use]
pub fn path_order(left: &[u8], right: &[u8]) -> Ordering {
    components(left).cmp(components(right))
}

pub(super) fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
}
