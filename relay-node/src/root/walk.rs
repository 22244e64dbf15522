//! A walk through the names of a directory, or of a tree, that stops anywhere and goes on from there.
//!
//! Names come in order, so a directory's names have to be sorted, however many they are. A walk has memory for a batch of them,
//! which all directories on its way down share: when there is no room for those of another one, the last names of the others
//! are forgotten and read again when it is their turn. So a walk is bounded in memory, and reads each directory about once for
//! each batch of its names. No descriptor is kept between two pages.

use super::names::{Gathering, Names};
use super::page::{EntryKind, ListEntry, ListPage, ListQuery, components, path_order};
use super::{DocumentRoot, MAX_NAME_BYTES, RootError};
use crate::platform::beneath::{Facts, NAMES_ARE_BYTES, NameKind, OpenDirectory, Reach};
use relay_proto::text::clean;
use std::cmp::Ordering;
use std::ops::ControlFlow;

/// The most that the names of one walk take, in bytes: those of some 200,000 files.
const BATCH: usize = 4 << 20;
/// The most names that are looked at for one page: what is not listed must not make a page cost without end.
pub(super) const PAGE_LOOKS: usize = 4_096;
/// The most names that are read from directories for one page before another directory is entered.
const PAGE_READS: usize = 64 * 1_024;
/// Directories that are open at once, the deepest ones, so that going up one costs nothing.
const MOST_OPEN: usize = 4;
/// A directory that is read gives signs of life each so many names.
const SIGN_OF_LIFE: usize = 1_024;
/// The longest path that is logged, in bytes.
const LOGGED_PATH: usize = 256;

/// Where a walk is. Nothing of it is open.
#[derive(Debug)]
pub(super) struct Walk {
    prefix: Vec<u8>,
    recursive: bool,
    any_bytes: bool,
    /// Where it began: what does not lie behind this was listed before.
    after: Option<Vec<u8>>,
    /// The last name that was passed.
    position: Option<Vec<u8>>,
    /// The directory that it is in, or is about to enter.
    path: Vec<u8>,
    levels: Vec<Level>,
    stage: Stage,
    /// The most that its names take, in bytes.
    batch: usize,
    /// Names that cannot be offered, passed since `position`. They count once that moves on.
    not_offered: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    /// `path` is listed, and entered next.
    Entering,
    Within,
}

/// One directory on the way down.
#[derive(Debug)]
struct Level {
    /// How much of `path` is this directory's.
    path_len: usize,
    names: Names,
}

/// From where on a directory's names are wanted.
enum From {
    Start,
    At(Vec<u8>),
    Behind(Vec<u8>),
}

/// What somebody who waits for a page wants of it.
pub(super) struct Demand<'a> {
    /// The most entries.
    pub(super) limit: usize,
    /// Whether a further entry fits.
    pub(super) fits: &'a mut dyn FnMut(&ListEntry) -> bool,
    /// Told where the walk looks next, if that is elsewhere; false when nobody waits any more.
    pub(super) go_on: &'a dyn Fn(Option<&[u8]>) -> bool,
}

impl Walk {
    /// A walk through what is asked for.
    pub(super) fn new(query: ListQuery<'_>) -> Walk {
        Walk {
            prefix: query.prefix.to_owned(),
            recursive: query.recursive,
            any_bytes: query.any_bytes,
            after: query.after.map(<[u8]>::to_vec),
            position: query.after.map(<[u8]>::to_vec),
            path: Vec::new(),
            levels: Vec::new(),
            stage: Stage::New,
            batch: BATCH,
            not_offered: 0,
        }
    }

    /// The next page. Its `next` is there when the walk has not come to its end.
    pub(super) fn page(&mut self, root: &DocumentRoot, demand: Demand<'_>) -> Result<ListPage, RootError> {
        let page = ListPage::default();
        let run =
            Run { walk: self, root, demand, page, open: Vec::new(), looks: 0, reads: 0, has_moved: false };
        run.run()
    }

    #[cfg(all(test, target_os = "linux", not(relay_plain)))]
    pub(super) fn with_batch(self, batch: usize) -> Walk {
        Walk { batch, ..self }
    }

    /// Whether it goes on with what is asked for.
    pub(super) fn is_at(&self, query: ListQuery<'_>) -> bool {
        self.position.as_deref() == query.after
            && self.prefix == query.prefix
            && self.recursive == query.recursive
            && self.any_bytes == query.any_bytes
    }

    /// What it takes, in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        let levels: usize = self.levels.iter().map(|level| level.names.bytes() + size_of::<Level>()).sum();
        levels + self.path.len() + size_of::<Walk>()
    }

    /// Forgets names until another directory has at least half of the memory. Returns how much it has.
    fn make_room(&mut self) -> usize {
        loop {
            let taken: usize = self.levels.iter().map(|level| level.names.bytes()).sum();
            let largest = self.levels.iter_mut().max_by_key(|level| level.names.bytes());
            if taken <= self.batch / 2 || !largest.is_some_and(|level| level.names.halve()) {
                return self.batch.saturating_sub(taken);
            }
        }
    }

    /// Whether a name lies behind the place where the walk began.
    fn wants(&self, path: &[u8]) -> bool {
        self.after.as_deref().is_none_or(|after| path_order(path, after) == Ordering::Greater)
    }

    /// From where on the names in `path` are wanted.
    fn start(&self) -> From {
        match self.after.as_deref().and_then(|after| rest_beneath(after, &self.path)) {
            Some(rest) => From::At(components(rest).next().unwrap_or_default().to_vec()),
            None => From::Start,
        }
    }

    /// The directory of the prefix, and what the names in there begin with.
    fn top(&self) -> (&[u8], &[u8]) {
        match self.prefix.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => {
                let (directory, beginning) = self.prefix.split_at(slash);
                (directory, beginning.strip_prefix(b"/").unwrap_or_default())
            }
            None => (b"", &self.prefix),
        }
    }

    /// Whether nothing can be there.
    fn leads_nowhere(&self, root: &DocumentRoot) -> bool {
        let (directory, _) = self.top();
        let is_past = |after: &[u8]| {
            path_order(after, directory) == Ordering::Greater && rest_beneath(after, directory).is_none()
        };
        root.directory.is_none()
            || self.prefix.starts_with(b"/")
            || !directory.is_empty() && root.check_name(directory).is_err()
            || self.after.as_deref().is_some_and(is_past)
    }
}

/// The part of `path` beneath `directory`.
fn rest_beneath<'a>(path: &'a [u8], directory: &[u8]) -> Option<&'a [u8]> {
    if directory.is_empty() { Some(path) } else { path.strip_prefix(directory)?.strip_prefix(b"/") }
}

/// A walk at work on a page.
struct Run<'a, 'd> {
    walk: &'a mut Walk,
    root: &'a DocumentRoot,
    demand: Demand<'d>,
    page: ListPage,
    /// Directories that are open, by their place in `levels`.
    open: Vec<(usize, OpenDirectory)>,
    looks: usize,
    reads: usize,
    has_moved: bool,
}

/// What there is of a directory that was to be opened.
enum Entered {
    Open(OpenDirectory),
    /// It may not be read, or its disk fails.
    Unreadable,
    /// It is no directory any more.
    Gone,
}

/// Whether a name has been passed.
enum Passed {
    Yes,
    /// There is no room for it on this page.
    No,
}

impl Run<'_, '_> {
    fn run(mut self) -> Result<ListPage, RootError> {
        loop {
            if !(self.demand.go_on)(None) {
                return Err(RootError::Abandoned);
            }
            if self.has_moved && self.is_tired() {
                return Ok(self.unfinished());
            }
            match self.walk.stage {
                Stage::New => self.begin()?,
                Stage::Entering => self.enter_next()?,
                Stage::Within => {
                    let Some(level) = self.walk.levels.last() else { return Ok(self.end()) };
                    let (has_name, is_cut) = (level.names.peek().is_some(), level.names.is_cut());
                    match (has_name, is_cut) {
                        (true, _) => {
                            if let Passed::No = self.name()? {
                                return Ok(self.unfinished());
                            }
                        }
                        (false, true) => self.refill()?,
                        (false, false) => self.leave(),
                    }
                }
            }
        }
    }

    /// Whether enough was done for one page.
    fn is_tired(&self) -> bool {
        self.looks >= PAGE_LOOKS || self.reads >= PAGE_READS && self.walk.stage == Stage::Entering
    }

    fn unfinished(mut self) -> ListPage {
        self.page.next.clone_from(&self.walk.position);
        self.settle()
    }

    fn end(mut self) -> ListPage {
        self.page.not_offered += std::mem::take(&mut self.walk.not_offered);
        self.settle()
    }

    fn settle(self) -> ListPage {
        self.root.note_work(self.looks, self.reads);
        self.page
    }

    fn begin(&mut self) -> Result<(), RootError> {
        self.walk.stage = Stage::Within;
        if self.walk.leads_nowhere(self.root) {
            return Ok(());
        }
        let directory = self.walk.top().0.to_owned();
        self.walk.path.clone_from(&directory);
        match self.enter(&directory)? {
            Entered::Open(open) => {
                self.open.push((0, open));
                self.descend()
            }
            Entered::Unreadable => {
                self.page.unreadable += u64::from(self.walk.after.is_none());
                Ok(())
            }
            Entered::Gone => Ok(()),
        }
    }

    fn enter_next(&mut self) -> Result<(), RootError> {
        self.walk.stage = Stage::Within;
        let depth = self.walk.levels.len();
        if self.open.last().is_none_or(|(level, _)| *level != depth) {
            let path = self.walk.path.clone();
            match self.enter(&path)? {
                Entered::Open(open) => self.keep_open(depth, open),
                // It was readable when it was listed.
                Entered::Unreadable | Entered::Gone => {
                    self.back_to_level();
                    return Ok(());
                }
            }
        }
        self.descend()
    }

    /// Goes down into the directory that was opened last.
    fn descend(&mut self) -> Result<(), RootError> {
        let from = self.walk.start();
        let names = self.read(&from)?;
        self.walk.levels.push(Level { path_len: self.walk.path.len(), names });
        Ok(())
    }

    /// Reads the further names of the directory that the walk is in.
    fn refill(&mut self) -> Result<(), RootError> {
        let last = self.walk.levels.last().and_then(|level| level.names.last()).unwrap_or_default().to_vec();
        if !self.reopen()? {
            self.leave();
            return Ok(());
        }
        if let Some(level) = self.walk.levels.last_mut() {
            level.names = Names::default();
        }
        let names = self.read(&From::Behind(last))?;
        if let Some(level) = self.walk.levels.last_mut() {
            level.names = names;
        }
        Ok(())
    }

    fn leave(&mut self) {
        self.walk.levels.pop();
        self.back_to_level();
    }

    fn back_to_level(&mut self) {
        let depth = self.walk.levels.len();
        self.walk.path.truncate(self.walk.levels.last().map_or(0, |level| level.path_len));
        self.open.retain(|(level, _)| *level < depth);
    }

    /// Sees to it that the directory of the last level is open. False when it cannot be opened any more.
    fn reopen(&mut self) -> Result<bool, RootError> {
        let level = self.walk.levels.len().saturating_sub(1);
        if self.open.last().is_some_and(|(open, _)| *open == level) {
            return Ok(true);
        }
        let path = self.walk.path.clone();
        match self.enter(&path)? {
            Entered::Open(open) => {
                self.keep_open(level, open);
                Ok(true)
            }
            Entered::Unreadable | Entered::Gone => Ok(false),
        }
    }

    fn keep_open(&mut self, level: usize, open: OpenDirectory) {
        if self.open.len() >= MOST_OPEN {
            self.open.remove(0);
        }
        self.open.push((level, open));
    }

    fn enter(&mut self, path: &[u8]) -> Result<Entered, RootError> {
        self.looks += 1;
        if self.root.hung.find(path).is_some() {
            return Ok(Entered::Unreadable);
        }
        if !(self.demand.go_on)(Some(path)) {
            return Err(RootError::Abandoned);
        }
        let entered = self.root.directory()?.enter(path).map_err(RootError::from_io);
        match entered {
            Ok(open) => Ok(Entered::Open(open)),
            Err(RootError::NotFound { .. }) => Ok(Entered::Gone),
            Err(RootError::Denied) => Ok(Entered::Unreadable),
            Err(RootError::Io(error)) => {
                tracing::error!(path = logged(path), %error, "a directory cannot be listed");
                Ok(Entered::Unreadable)
            }
            Err(error) => Err(error),
        }
    }

    /// The first of the wanted names of the directory that was opened last.
    fn read(&mut self, from: &From) -> Result<Names, RootError> {
        let (top, beginning) = self.walk.top();
        let beginning = if self.walk.path == top { beginning.to_vec() } else { Vec::new() };
        let mut gathering = Gathering::new(self.walk.make_room());
        let Some((_, directory)) = self.open.last_mut() else { return Ok(Names::default()) };
        let (root, go_on) = (self.root, self.demand.go_on);
        let (mut count, mut is_wanted) = (0_usize, true);
        let done = directory.visit(&mut |name, kind| {
            count += 1;
            if count.is_multiple_of(SIGN_OF_LIFE) && !go_on(None) {
                is_wanted = false;
                return ControlFlow::Break(());
            }
            let name = name.as_encoded_bytes();
            let is_meant = kind != NameKind::Other && name.starts_with(&beginning) && from.includes(name);
            if is_meant && !root.is_hidden(name) {
                gathering.add(name, kind);
            }
            ControlFlow::Continue(())
        });
        self.reads += count;
        if !is_wanted {
            return Err(RootError::Abandoned);
        }
        if let Err(error) = done {
            tracing::error!(path = logged(&self.walk.path), %error, "a directory cannot be read to its end");
            self.page.unreadable += 1;
        }
        Ok(gathering.finish())
    }

    /// Passes the next name of the directory, if there is room for it on the page.
    fn name(&mut self) -> Result<Passed, RootError> {
        let Some((name, kind)) = self.walk.levels.last().and_then(|level| level.names.peek()) else {
            return Ok(Passed::Yes);
        };
        let is_long = self.walk.path.len() + 1 + name.len() > MAX_NAME_BYTES;
        if is_long || !is_offered(name, self.walk.any_bytes) {
            self.walk.not_offered += 1;
            self.advance(None);
            return Ok(Passed::Yes);
        }
        let name = name.to_vec();
        let path = match self.walk.path.as_slice() {
            b"" => name.clone(),
            directory => [directory, &name].join(&b'/'),
        };
        match self.facts(&path, &name, kind)? {
            Told::Entry(entry) => self.entry(entry),
            Told::DeadLink => {
                self.page.links += u64::from(self.walk.wants(&path));
                self.advance(Some(path));
                Ok(Passed::Yes)
            }
            Told::Nothing => {
                self.advance(Some(path));
                Ok(Passed::Yes)
            }
            Told::Failure => {
                self.page.unreadable += u64::from(self.walk.wants(&path));
                self.advance(Some(path));
                Ok(Passed::Yes)
            }
        }
    }

    fn entry(&mut self, mut entry: ListEntry) -> Result<Passed, RootError> {
        let is_wanted = self.walk.wants(&entry.name);
        if is_wanted && self.page.entries.len() >= self.demand.limit {
            return Ok(Passed::No);
        }
        let enters = self.walk.recursive && entry.kind == EntryKind::Directory && !entry.linked;
        let entered = if enters { Some(self.enter(&entry.name)?) } else { None };
        entry.unreadable = matches!(entered, Some(Entered::Unreadable));
        if is_wanted && !(self.demand.fits)(&entry) && !self.page.entries.is_empty() {
            return Ok(Passed::No);
        }
        self.advance(Some(entry.name.clone()));
        if let Some(Entered::Open(open)) = entered {
            self.walk.path.clone_from(&entry.name);
            self.walk.stage = Stage::Entering;
            self.keep_open(self.walk.levels.len(), open);
        }
        if entry.kind == EntryKind::File {
            self.root.regular.note(&entry.name);
        }
        if is_wanted {
            self.page.entries.push(entry);
        }
        Ok(Passed::Yes)
    }

    /// The name is passed. One that cannot be told has no `path`.
    fn advance(&mut self, path: Option<Vec<u8>>) {
        if let Some(level) = self.walk.levels.last_mut() {
            level.names.advance();
        }
        if let Some(path) = path {
            // On the way to the place where the walk began, it is not behind that yet.
            if self.walk.wants(&path) {
                self.has_moved = true;
                self.walk.position = Some(path);
                self.page.not_offered += std::mem::take(&mut self.walk.not_offered);
            }
        }
    }

    /// What the name stands for.
    fn facts(&mut self, path: &[u8], name: &[u8], kind: NameKind) -> Result<Told, RootError> {
        self.looks += 1;
        if kind == NameKind::Link {
            return self.link(path);
        }
        if !self.reopen()? {
            return Ok(Told::Nothing);
        }
        let Some((_, directory)) = self.open.last() else { return Ok(Told::Nothing) };
        match directory.facts(name).map_err(RootError::from_io) {
            Ok(facts) => Ok(Told::of(path, facts, false)),
            Err(RootError::NotFound { .. }) => Ok(Told::Nothing),
            Err(error) => told_failure(path, error),
        }
    }

    fn link(&mut self, path: &[u8]) -> Result<Told, RootError> {
        if !(self.demand.go_on)(Some(path)) {
            return Err(RootError::Abandoned);
        }
        match self.root.directory()?.metadata_beneath(path, Reach::Anywhere).map_err(RootError::from_io) {
            Ok(metadata) => Ok(Told::of(path, Facts::of(&metadata), true)),
            Err(RootError::NotFound { .. } | RootError::Denied) => Ok(Told::DeadLink),
            Err(error) => told_failure(path, error),
        }
    }
}

/// Whether a name can be told to whoever asks.
fn is_offered(name: &[u8], any_bytes: bool) -> bool {
    !name.contains(&b'\\') && (any_bytes && NAMES_ARE_BYTES || str::from_utf8(name).is_ok())
}

fn logged(path: &[u8]) -> String {
    clean(&String::from_utf8_lossy(path), LOGGED_PATH)
}

/// What a name turned out to be.
enum Told {
    Entry(ListEntry),
    /// A link that leads nowhere, or out.
    DeadLink,
    /// Nothing that could be offered, or nothing any more.
    Nothing,
    /// The disk does not tell.
    Failure,
}

impl Told {
    fn of(path: &[u8], facts: Facts, is_link: bool) -> Told {
        let (kind, size) = match facts.kind {
            NameKind::File => (EntryKind::File, facts.size),
            NameKind::Directory => (EntryKind::Directory, 0),
            NameKind::Link | NameKind::Other => return Told::Nothing,
        };
        Told::Entry(ListEntry {
            name: path.to_owned(),
            kind,
            size,
            modified: facts.modified,
            executable: kind == EntryKind::File && facts.executable,
            linked: kind == EntryKind::Directory && is_link,
            unreadable: false,
        })
    }
}

fn told_failure(path: &[u8], error: RootError) -> Result<Told, RootError> {
    match error {
        RootError::Denied => Ok(Told::Failure),
        RootError::Io(error) => {
            tracing::error!(path = logged(path), %error, "a name of a directory cannot be looked at");
            Ok(Told::Failure)
        }
        error => Err(error),
    }
}

impl From {
    fn includes(&self, name: &[u8]) -> bool {
        match self {
            From::Start => true,
            From::At(first) => name >= first.as_slice(),
            From::Behind(last) => name > last.as_slice(),
        }
    }
}
