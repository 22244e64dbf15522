//! What is seen of a run over a directory: counts, and what became of each file.

use super::sift::{Bad, BadKind, Item};
use crate::event::Event;
use crate::exit::Exit;
use crate::left_out::LeftOut;
use crate::progress::Reporter;
use crate::show;
use relay_proto::file::Page;
use relay_proto::limits::MAX_NAME;
use relay_proto::text::clean;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counts, and tells.
pub struct View {
    reporter: Reporter,
    tally: Mutex<Tally>,
}

/// The counts of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Files that are wanted, as far as they are listed.
    pub files: u64,
    /// Their bytes.
    pub size: u64,
    /// Files that were fetched.
    pub fetched: u64,
    /// How many of them took the place of older ones.
    pub replaced: u64,
    /// Files that were here already.
    pub same: u64,
    /// Files and directories that could not be had.
    pub failed: u64,
    /// Files that are done with, well or not.
    pub settled_files: u64,
    /// Failures that people were to be shown, or were not for there were too many.
    pub shown: u64,
    /// Bytes of files that are done with.
    pub settled: u64,
    /// Bytes that came of files that are not done with yet.
    pub coming: u64,
    /// Bytes that were fetched, for files that are whole.
    pub bytes: u64,
    /// What the origin does not give.
    pub left_out: LeftOut,
}

/// The most failures that are told one by one to people; the rest is counted. Programs get them all.
const MAX_TOLD: u64 = 20;

impl View {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(reporter: Reporter) -> View {
        View { reporter, tally: Mutex::default() }
    }

    /// Who tells.
    #[must_use]
    pub fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    /// The counts so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins.
    pub fn begin(&self, name: String, target: &Path) {
        // So that the first progress is told after an interval.
        self.reporter.is_due();
        self.reporter.event(&Event::Tree { name, path: show::path(target) });
    }

    /// These files are wanted.
    pub fn listed(&self, items: &[Item]) {
        let mut tally = self.lock();
        tally.files += items.len() as u64;
        // Sizes are an origin's claims.
        tally.size = items.iter().fold(tally.size, |sum, item| sum.saturating_add(item.size));
    }

    /// All is listed.
    pub fn listed_all(&self) {
        let tally = self.tally();
        self.reporter.event(&Event::Listed { files: tally.files, size: tally.size });
        self.progress();
    }

    /// Bytes of a file came.
    pub fn came(&self, bytes: u64) {
        self.lock().coming += bytes;
        self.progress();
    }

    /// Bytes that came are not counted any more: their file is done with, or they were in vain.
    pub fn gone(&self, bytes: u64) {
        let mut tally = self.lock();
        tally.coming = tally.coming.saturating_sub(bytes);
    }

    /// A file is whole; `fetched` bytes of it came in this run.
    pub fn done(&self, item: &Item, size: u64, fetched: u64, hash: String) {
        let replaced = item.replaces.is_some();
        {
            let mut tally = self.lock();
            tally.settle(item, size);
            tally.fetched += 1;
            tally.replaced += u64::from(replaced);
            tally.bytes += fetched;
        }
        self.reporter.event(&Event::FileDone { path: item.path.to_string(), size, hash, replaced });
        self.progress();
    }

    /// A file was here already.
    pub fn same(&self, item: &Item, by: &'static str) {
        {
            let mut tally = self.lock();
            tally.settle(item, item.size);
            tally.same += 1;
        }
        self.reporter.event(&Event::FileSame { path: item.path.to_string(), size: item.size, by });
        self.progress();
    }

    /// A listed file cannot be had.
    pub fn failed(&self, item: &Item, kind: &'static str, message: &str) {
        {
            let mut tally = self.lock();
            tally.settle(item, item.size);
            tally.failed += 1;
        }
        self.tell_bad(item.path.as_str(), kind, message, false);
    }

    /// An entry that cannot be saved. People are spared what follows from what they were told.
    pub fn bad(&self, bad: &Bad) {
        let kind = {
            let mut tally = self.lock();
            match bad.kind {
                BadKind::Failed => {
                    tally.files += 1;
                    tally.settled_files += 1;
                    tally.failed += 1;
                    Exit::Local
                }
                BadKind::Unreadable => {
                    tally.left_out.unreadable += 1;
                    Exit::Origin
                }
                BadKind::Linked => {
                    tally.left_out.linked_directories += 1;
                    Exit::Local
                }
            }
        };
        self.tell_bad(&bad.name, kind.word(), &bad.why, bad.is_told);
    }

    /// What a page counts without naming it.
    pub fn left_out(&self, page: &Page) {
        self.lock().left_out.add(page);
    }

    fn tell_bad(&self, path: &str, kind: &'static str, message: &str, told: bool) {
        let shown = {
            let mut tally = self.lock();
            tally.shown += u64::from(!told);
            tally.shown
        };
        let for_programs = self.reporter.is_for_programs();
        if for_programs || !told && shown <= MAX_TOLD {
            let path = clean(path, MAX_NAME);
            // Some failures name their file themselves.
            let message = message.strip_prefix(&format!("{path}: ")).unwrap_or(message).to_owned();
            self.reporter.event(&Event::FileFailed { path, kind, message });
        } else if !told && shown == MAX_TOLD + 1 {
            self.reporter.note("further failures are only counted; --json names them all".to_owned());
        }
        self.progress();
    }

    /// The run has ended. Where nothing was done before it failed, people are told the failure alone.
    pub fn end(&self, target: &Path, is_whole: bool) {
        let tally = self.tally();
        if !is_whole && tally == Tally::default() && !self.reporter.is_for_programs() {
            return;
        }
        let Tally { files, fetched, replaced, same, failed, left_out, bytes, .. } = tally;
        self.reporter.event(&Event::TreeDone {
            path: show::path(target),
            files: files.saturating_add(left_out.sum()),
            fetched,
            replaced,
            same,
            failed,
            unnameable: left_out.unnameable,
            unreadable: left_out.unreadable,
            links: left_out.all_links(),
            left: files.saturating_sub(fetched + same + failed),
            bytes,
            seconds: self.reporter.elapsed().as_secs_f64(),
        });
    }

    fn progress(&self) {
        if !self.reporter.is_due() {
            return;
        }
        let tally = self.tally();
        let seconds = self.reporter.elapsed().as_secs_f64().max(1e-3);
        self.reporter.event(&Event::TreeProgress {
            files: tally.settled_files,
            of: tally.files,
            bytes: tally.settled + tally.coming,
            size: tally.size,
            rate: ((tally.bytes + tally.coming) as f64 / seconds) as u64,
        });
    }
}

impl Tally {
    /// The file turned out to have `size` bytes, whatever was listed.
    fn settle(&mut self, item: &Item, size: u64) {
        self.size = self.size.saturating_sub(item.size).saturating_add(size);
        self.settled = self.settled.saturating_add(size);
        self.settled_files += 1;
    }
}
