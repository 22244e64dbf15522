//! What is left to do: what to list next, which files to ask for, which came to nothing for now. Several pipes take from it; what a
//! pipe did not get answered when it broke goes back.

use super::names::SafePath;
use super::sift::{Item, SMALL};
use crate::failure::Failure;
use relay_proto::file::{Page, Timestamp};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Listed files that wait to be asked for; while there are as many, no further page is asked for. So the memory for a tree grows with its
/// directories and its large files, and not with its small ones.
const LIST_AHEAD: usize = 20_000;

/// A request.
#[derive(Debug, Clone)]
pub enum Question {
    /// The page of the listing behind this path.
    List(Option<String>),
    /// A small file.
    Get(Item),
    /// The hashes of a small file, to compare them with what is here.
    Compare(Item),
}

/// What is left to do.
pub struct Work {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    /// The last path of the page before.
    cursor: Option<String>,
    listing: Listing,
    listed: u64,
    waiting: VecDeque<Item>,
    large: VecDeque<Item>,
    deferred: Vec<(Item, Failure)>,
    directories: Vec<(SafePath, Timestamp)>,
    /// A pipe broke, so no further one is to be built in this round.
    is_broken: bool,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Listing {
    #[default]
    Wanted,
    Asked,
    Done,
}

impl Work {
    /// Everything is still to be listed.
    #[must_use]
    pub fn new() -> Work {
        Work { state: Mutex::default(), changed: watch::Sender::new(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next request, when there is one now.
    pub fn next(&self) -> Option<Question> {
        let mut state = self.state();
        if state.listing == Listing::Wanted && state.waiting.len() < LIST_AHEAD {
            state.listing = Listing::Asked;
            return Some(Question::List(state.cursor.clone()));
        }
        let item = state.waiting.pop_front()?;
        Some(if item.compare { Question::Compare(item) } else { Question::Get(item) })
    }

    /// A request that was not answered.
    pub fn give_back(&self, question: Question) {
        let mut state = self.state();
        match question {
            Question::List(_) => state.listing = Listing::Wanted,
            Question::Get(item) | Question::Compare(item) => state.waiting.push_front(item),
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// A page came, and this is what it amounts to; another one follows behind the path `cursor`.
    pub fn listed(
        &self,
        page: &Page,
        cursor: Option<String>,
        items: Vec<Item>,
        directories: Vec<(SafePath, Timestamp)>,
    ) {
        let mut state = self.state();
        state.listed += page.entries.len() as u64;
        state.listing = if cursor.is_some() { Listing::Wanted } else { Listing::Done };
        state.cursor = cursor;
        state.directories.extend(directories);
        for item in items {
            if item.size <= SMALL { state.waiting.push_back(item) } else { state.large.push_back(item) }
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// A file that is to be asked for once more, after the others.
    pub fn again(&self, item: Item) {
        self.state().waiting.push_back(item);
        self.changed.send_replace(());
    }

    /// A small file that has become a large one.
    pub fn grown(&self, item: Item) {
        self.state().large.push_back(item);
    }

    /// A file that the origin could not answer for now.
    pub fn defer(&self, item: Item, failure: Failure) {
        self.state().deferred.push((item, failure));
    }

    /// What was deferred.
    pub fn take_deferred(&self) -> Vec<(Item, Failure)> {
        std::mem::take(&mut self.state().deferred)
    }

    /// A large file.
    pub fn next_large(&self) -> Option<Item> {
        self.state().large.pop_front()
    }

    /// Waits until there is something to ask; false when there will be nothing.
    pub async fn more(&self) -> bool {
        let mut changed = self.changed.subscribe();
        loop {
            {
                let state = self.state();
                if !state.waiting.is_empty() || state.listing == Listing::Wanted {
                    return true;
                }
                if state.listing == Listing::Done {
                    return false;
                }
            }
            if changed.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Waits until so many small files wait that another pipe is worth its while; false when that will not happen.
    pub async fn is_much(&self, files: usize) -> bool {
        let mut changed = self.changed.subscribe();
        loop {
            {
                let state = self.state();
                if state.waiting.len() >= files {
                    return true;
                }
                if state.listing == Listing::Done || state.is_broken {
                    return false;
                }
            }
            if changed.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Says whether a pipe broke, and so that no further one is to be built.
    pub fn set_broken(&self, is_broken: bool) {
        self.state().is_broken = is_broken;
        self.changed.send_replace(());
    }

    /// Whether no small file and no page is left to be asked for.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        let state = self.state();
        state.waiting.is_empty() && state.listing == Listing::Done
    }

    /// Whether nothing is listed yet.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.state().listed == 0
    }

    /// The directories that are wanted, with their times.
    #[must_use]
    pub fn directories(&self) -> Vec<(SafePath, Timestamp)> {
        self.state().directories.clone()
    }
}

impl Default for Work {
    fn default() -> Work {
        Work::new()
    }
}
