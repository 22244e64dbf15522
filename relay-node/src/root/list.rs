//! Names in order, a page at a time, with memory bounded by the page and not by the directory.

use super::{DocumentRoot, MAX_NAME_DEPTH, RootError, meta_of};
use crate::platform::beneath::{NAMES_ARE_BYTES, NameKind};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// The most entries of one page.
pub const MAX_LIST_PAGE: usize = 1_000;
/// Names of one directory that are held at once, so that a page of few entries does not read the directory often.
const BATCH: usize = MAX_LIST_PAGE;

/// Which names are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct ListQuery<'a> {
    /// What every name begins with: `docs/`, `te`, or nothing. A directory without its slash is not entered.
    pub prefix: &'a [u8],
    /// Only names behind this one, in the order of [`path_order`]; the last name of the page before.
    pub after: Option<&'a [u8]>,
    /// The most entries wanted; at most [`MAX_LIST_PAGE`] are given.
    pub limit: usize,
    /// Whether directories are entered. Linked directories are named and not entered, so a link cannot make a circle.
    pub recursive: bool,
    /// Whether names that are not UTF-8 are wanted, too, where the system has such.
    pub any_bytes: bool,
}

/// A page of names, in the order of [`path_order`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// What was found.
    pub entries: Vec<ListEntry>,
    /// Whether something follows; ask again with the last name as `after`.
    pub more: bool,
    /// How many names cannot be asked for, because they hold a backslash, or are not UTF-8 and such were not wanted. Each is
    /// counted on one page.
    pub not_offered: u64,
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

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
}

pub(super) fn page(root: &DocumentRoot, query: ListQuery<'_>) -> Result<ListPage, RootError> {
    let (directory, beginning) = match query.prefix.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (query.prefix.get(..slash), query.prefix.get(slash + 1..)),
        None => (None, Some(query.prefix)),
    };
    let (directory, beginning) = (directory.unwrap_or_default(), beginning.unwrap_or_default());
    let leads_nowhere = root.directory.is_none()
        || query.prefix.starts_with(b"/")
        || !directory.is_empty() && root.check_name(directory).is_err()
        || query.after.is_some_and(|after| is_past(after, directory));
    let mut walk = Walk {
        root,
        after: query.after,
        limit: query.limit.min(MAX_LIST_PAGE),
        recursive: query.recursive,
        any_bytes: query.any_bytes,
        page: ListPage::default(),
    };
    if !leads_nowhere {
        walk.directory(directory, beginning)?;
    }
    Ok(walk.page)
}

/// Whether everything in the directory comes before `after`.
fn is_past(after: &[u8], directory: &[u8]) -> bool {
    path_order(after, directory) == Ordering::Greater && rest_beneath(after, directory).is_none()
}

/// The part of `path` beneath `directory`.
fn rest_beneath<'a>(path: &'a [u8], directory: &[u8]) -> Option<&'a [u8]> {
    if directory.is_empty() { Some(path) } else { path.strip_prefix(directory)?.strip_prefix(b"/") }
}

struct Walk<'a> {
    root: &'a DocumentRoot,
    after: Option<&'a [u8]>,
    limit: usize,
    recursive: bool,
    any_bytes: bool,
    page: ListPage,
}

/// From where on a directory's names are wanted.
enum From<'a> {
    Start,
    At(&'a [u8]),
    Behind(Vec<u8>),
}

impl Walk<'_> {
    /// Adds what is in one directory until the page is full.
    fn directory(&mut self, directory: &[u8], beginning: &[u8]) -> Result<(), RootError> {
        if components(directory).count() >= MAX_NAME_DEPTH {
            return Ok(());
        }
        let mut from = match self.after.and_then(|after| rest_beneath(after, directory)) {
            Some(rest) => From::At(components(rest).next().unwrap_or_default()),
            None => From::Start,
        };
        loop {
            let batch = self.smallest_names(directory, beginning, &from)?;
            let last = batch.names.last().map(|(name, _)| name.clone());
            for (name, kind) in batch.names {
                self.name(directory, &name, kind)?;
                if self.page.more {
                    return Ok(());
                }
            }
            match last {
                Some(last) if batch.is_cut => from = From::Behind(last),
                _ => return Ok(()),
            }
        }
    }

    /// Adds one name, and what is in it.
    fn name(&mut self, directory: &[u8], name: &[u8], kind: NameKind) -> Result<(), RootError> {
        let path = if directory.is_empty() { name.to_owned() } else { [directory, b"/", name].concat() };
        let Some(entry) = self.entry(path, kind)? else {
            return Ok(());
        };
        let enters = self.recursive && entry.kind == EntryKind::Directory && kind == NameKind::Directory;
        let path = enters.then(|| entry.name.clone());
        let is_wanted = self.after.is_none_or(|after| path_order(&entry.name, after) == Ordering::Greater);
        if is_wanted {
            if self.page.entries.len() >= self.limit {
                self.page.more = true;
                return Ok(());
            }
            self.page.entries.push(entry);
        }
        match path {
            Some(path) => self.directory(&path, b""),
            None => Ok(()),
        }
    }

    /// What the name stands for, or `None` when it cannot be had.
    fn entry(&self, path: Vec<u8>, kind: NameKind) -> Result<Option<ListEntry>, RootError> {
        if kind == NameKind::Other {
            return Ok(None);
        }
        let metadata = match self.root.directory()?.metadata_beneath(&path).map_err(RootError::from_io) {
            Ok(metadata) => metadata,
            Err(RootError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let meta = meta_of(&metadata);
        let entry = ListEntry {
            name: path,
            kind: if metadata.is_dir() { EntryKind::Directory } else { EntryKind::File },
            size: if metadata.is_dir() { 0 } else { meta.size },
            modified: meta.modified,
            executable: metadata.is_file() && meta.executable,
            linked: metadata.is_dir() && kind == NameKind::Link,
        };
        Ok((metadata.is_dir() || metadata.is_file()).then_some(entry))
    }

    /// The first names of a directory, found in one pass over it with a heap that never holds more than a batch.
    fn smallest_names(
        &mut self,
        directory: &[u8],
        beginning: &[u8],
        from: &From<'_>,
    ) -> Result<Batch, RootError> {
        let mut heap = BinaryHeap::new();
        let mut is_cut = false;
        let mut not_offered = 0;
        let done = self.root.directory()?.visit_names(directory, &mut |name, kind| {
            let name = name.as_encoded_bytes();
            if kind == NameKind::Other || !name.starts_with(beginning) {
                return;
            }
            if !self.is_offered(name) {
                not_offered += 1;
                return;
            }
            if self.root.is_hidden(name) || !from.includes(name) {
                return;
            }
            push_bounded(&mut heap, name, kind, &mut is_cut);
        });
        match done.map_err(RootError::from_io) {
            Ok(()) | Err(RootError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        self.count(not_offered, from);
        let names = heap.into_sorted_vec().into_iter().map(|Candidate { name, kind }| (name, kind)).collect();
        Ok(Batch { names, is_cut })
    }

    fn is_offered(&self, name: &[u8]) -> bool {
        let is_readable = self.any_bytes && NAMES_ARE_BYTES || str::from_utf8(name).is_ok();
        is_readable && !name.contains(&b'\\')
    }

    /// Counts a directory's other names on the page that begins it, and so on one page only.
    fn count(&mut self, not_offered: u64, from: &From<'_>) {
        if !matches!(from, From::Start) || not_offered == 0 {
            return;
        }
        if self.page.entries.len() < self.limit {
            self.page.not_offered += not_offered;
        } else {
            self.page.more = true;
        }
    }
}

struct Batch {
    names: Vec<(Vec<u8>, NameKind)>,
    is_cut: bool,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    name: Vec<u8>,
    kind: NameKind,
}

/// Keeps the smallest names; the text of a name that is too great is never copied.
fn push_bounded(heap: &mut BinaryHeap<Candidate>, name: &[u8], kind: NameKind, is_cut: &mut bool) {
    if heap.len() >= BATCH {
        *is_cut = true;
        if heap.peek().is_none_or(|greatest| name >= greatest.name.as_slice()) {
            return;
        }
        heap.pop();
    }
    heap.push(Candidate { name: name.to_owned(), kind });
}

impl From<'_> {
    fn includes(&self, name: &[u8]) -> bool {
        match self {
            From::Start => true,
            From::At(first) => name >= *first,
            From::Behind(last) => name > last.as_slice(),
        }
    }
}
