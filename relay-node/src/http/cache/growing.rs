//! A response whose body is still arriving, and everybody who follows it.
//!
//! The body is written to a file and its followers read that file, each at its own pace: a slow one holds up nobody. When
//! the file can grow no more (the disk is full, the response turns out larger than the cache), the rest goes through a window of
//! [`WINDOW`] bytes in memory to those who follow already. Then the slowest decides the pace, and one that takes nothing
//! for [`PATIENCE`] while others wait for it is cut off so that they go on.

use super::entry::Head;
use super::piece::{PIECE, read_piece};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How many bytes wait in memory for the slowest follower once the file can grow no more.
pub const WINDOW: u64 = 1024 * 1024;

/// How long the slowest follower may hold up the others then.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A response on its way.
#[derive(Debug)]
pub struct Growing {
    head: Head,
    length: Option<u64>,
    file: Arc<File>,
    progress: watch::Sender<Progress>,
    window: Mutex<Window>,
    moved: Notify,
    left: Notify,
}

/// How far a body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    in_file: u64,
    arrived: u64,
    end: End,
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It did not yet.
    Open,
    /// All of it is there.
    Whole,
    /// The rest will not come.
    Broken,
}

/// Nobody reads any more.
#[derive(Debug, PartialEq, Eq)]
pub struct NobodyLeft;

#[derive(Debug, Default)]
struct Window {
    /// Where the first chunk begins.
    start: u64,
    chunks: VecDeque<Bytes>,
    followers: HashMap<u64, u64>,
    next: u64,
}

/// One reader of a growing body.
#[derive(Debug)]
pub struct Follower {
    growing: Arc<Growing>,
    progress: watch::Receiver<Progress>,
    id: u64,
    at: u64,
    until: Option<u64>,
}

impl Growing {
    /// A response whose body will be written to `file`; `length` is what was announced.
    pub fn new(head: Head, length: Option<u64>, file: Arc<File>) -> Self {
        let progress = Progress { in_file: 0, arrived: 0, end: End::Open };
        Self {
            head,
            length,
            file,
            progress: watch::Sender::new(progress),
            window: Mutex::default(),
            moved: Notify::new(),
            left: Notify::new(),
        }
    }

    /// Status and fields.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The announced length, or the real one once the body is whole.
    pub fn length(&self) -> Option<u64> {
        let progress = *self.progress.borrow();
        self.length.or((progress.end == End::Whole).then_some(progress.arrived))
    }

    /// How many bytes are there.
    pub fn arrived(&self) -> u64 {
        self.progress.borrow().arrived
    }

    /// Returns when nobody reads along.
    pub async fn unfollowed(&self) {
        loop {
            let left = self.left.notified();
            if self.window().followers.is_empty() {
                return;
            }
            left.await;
        }
    }

    /// Ends the body if nobody reads along: who comes then cannot begin to follow it.
    pub fn give_up_unfollowed(&self) -> bool {
        let window = self.window();
        let is_over = window.followers.is_empty();
        if is_over {
            self.given_up();
        }
        is_over
    }

    /// Follows the body within `range` (all of it: `None`). `None` if its beginning is gone already, or it is broken.
    pub fn follow(self: &Arc<Self>, range: Option<Range<u64>>) -> Option<Follower> {
        let progress = self.progress.subscribe();
        let (at, until) = range.map_or((0, None), |range| (range.start, Some(range.end)));
        let mut window = self.window();
        let state = *self.progress.borrow();
        if state.end == End::Broken || window.start > state.in_file {
            return None;
        }
        let id = window.next;
        window.next += 1;
        window.followers.insert(id, at);
        drop(window);
        Some(Follower { growing: Arc::clone(self), progress, id, at, until })
    }

    /// The file holds `length` bytes now.
    pub fn grown_to(&self, length: u64) {
        // Under the lock, so that nobody who begins to follow sees one without the other.
        let mut window = self.window();
        window.start = length;
        self.progress.send_modify(|progress| {
            progress.in_file = length;
            progress.arrived = length;
        });
    }

    /// Hands a chunk to the followers past the file. Waits while the window is full.
    pub async fn pass(&self, chunk: Bytes) -> Result<(), NobodyLeft> {
        loop {
            let moved = self.moved.notified();
            if self.try_pass(&chunk)? {
                return Ok(());
            }
            if tokio::time::timeout(PATIENCE, moved).await.is_err() {
                self.cut_slowest();
            }
        }
    }

    /// No more will come.
    pub fn ended(&self, end: End) {
        self.progress.send_modify(|progress| progress.end = end);
    }

    /// No more will come, unless the end was told before.
    pub fn given_up(&self) {
        self.progress.send_if_modified(|progress| {
            let left_open = progress.end == End::Open;
            if left_open {
                progress.end = End::Broken;
            }
            left_open
        });
    }

    fn try_pass(&self, chunk: &Bytes) -> Result<bool, NobodyLeft> {
        let mut window = self.window();
        let slowest = window.followers.values().min().copied().ok_or(NobodyLeft)?;
        window.let_go_before(slowest);
        if window.length() > 0 && window.length() + chunk.len() as u64 > WINDOW {
            return Ok(false);
        }
        window.chunks.push_back(chunk.clone());
        let arrived = window.start + window.length();
        drop(window);
        self.progress.send_modify(|progress| progress.arrived = arrived);
        Ok(true)
    }

    fn cut_slowest(&self) {
        let mut window = self.window();
        let slowest = window.followers.values().min().copied();
        // Patience protects others: who holds up nobody but itself may take its connection's time.
        if let Some(slowest) = slowest.filter(|slowest| window.followers.values().any(|at| at > slowest)) {
            window.followers.retain(|_, at| *at > slowest);
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    fn length(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.len() as u64).sum()
    }

    fn let_go_before(&mut self, position: u64) {
        while let Some(first) = self.chunks.front()
            && self.start + first.len() as u64 <= position
        {
            self.start += first.len() as u64;
            self.chunks.pop_front();
        }
    }

    fn at(&self, position: u64) -> Option<Bytes> {
        let mut start = self.start;
        for chunk in &self.chunks {
            let end = start + chunk.len() as u64;
            if position >= start && position < end {
                return usize::try_from(position - start).ok().map(|skip| chunk.slice(skip..));
            }
            start = end;
        }
        None
    }
}

impl Follower {
    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.until.is_some_and(|until| self.at >= until) {
                return Ok(None);
            }
            let progress = *self.progress.borrow_and_update();
            if self.at < progress.arrived {
                return self.take(progress).await.map(Some);
            }
            match progress.end {
                End::Whole => return Ok(None),
                End::Broken => {
                    return Err(io::Error::other("the upstream broke off in the middle of the body"));
                }
                End::Open if self.progress.changed().await.is_err() => {
                    return Err(io::Error::other("the response was given up"));
                }
                End::Open => {}
            }
        }
    }

    async fn take(&mut self, progress: Progress) -> io::Result<Bytes> {
        let most = self.until.unwrap_or(u64::MAX).saturating_sub(self.at);
        let bytes = if self.at < progress.in_file {
            read_piece(&self.growing.file, self.at, most.min(progress.in_file - self.at)).await?
        } else {
            self.take_from_window(most)?
        };
        if bytes.is_empty() {
            return Err(io::Error::other("the cache's file is shorter than it was"));
        }
        self.at += bytes.len() as u64;
        self.tell();
        Ok(bytes)
    }

    fn take_from_window(&self, most: u64) -> io::Result<Bytes> {
        let window = self.growing.window();
        let chunk = window.at(self.at).filter(|_| window.followers.contains_key(&self.id));
        let mut chunk = chunk.ok_or_else(|| io::Error::other("this reader was too slow for the others"))?;
        drop(window);
        chunk.truncate(usize::try_from(most).unwrap_or(PIECE).min(chunk.len()));
        Ok(chunk)
    }

    fn tell(&self) {
        if let Some(at) = self.growing.window().followers.get_mut(&self.id) {
            *at = self.at;
        }
        self.growing.moved.notify_one();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut window = self.growing.window();
        window.followers.remove(&self.id);
        let was_last = window.followers.is_empty();
        drop(window);
        self.growing.moved.notify_one();
        if was_last {
            self.growing.left.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
