//! Whole directories: what the origin lists beneath a name, fetched with many files in flight.
//!
//! ```text
//! plan ─▶ pipe: list, get, get … ─▶ sift (what is wanted, what is here) ─▶ work (what is left)
//!              └─ small files ─▶ save: verify, write, one sync a batch, rename
//!         large files ─▶ transfer: a download of their own, as if each were asked for alone
//! ```
//!
//! | module | what belongs in it |
//! | --- | --- |
//! | [`plan`] | what the arguments mean |
//! | [`select`] | `--include` and `--exclude` |
//! | [`names`] | from listed names to paths beneath the target |
//! | [`sift`] | what to do about each listed entry |
//! | [`work`] | what is left to do |
//! | [`pipe`] | one chain with many requests on it |
//! | [`save`] | small files on their way to the disk |
//! | [`large`] | files that get a download of their own |
//! | [`view`] | what is seen of it |
//!
//! One bad file does not stop the others: it is told, counted, and in the exit code. Nothing is deleted here, and nothing is opened
//! for writing but beneath the target directory.

pub mod large;
pub mod names;
pub mod pipe;
pub mod plan;
pub mod save;
pub mod select;
pub mod sift;
pub mod view;
pub mod work;

pub use plan::is_meant;

use crate::beneath::{Directory, FoundKind, Walker, make_directories, split, unmake_directories};
use crate::cli::{Connections, FetchArguments};
use crate::event::Event;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::progress::{Reporter, print_failure};
use crate::retry::{Attempt, HEAD_START, Retries};
use crate::session::aftermath;
use crate::stop::{Stop, Until};
use futures_util::stream::{FuturesUnordered, StreamExt};
use pipe::{Pipe, Shared};
use plan::{TreePlan, Way};
use relay_chain::requests::AnswerError;
use relay_proto::file::Timestamp;
use relay_proto::route::Route;
use save::{Saved, Saver, Unsaved};
use select::Selection;
use sift::Sifter;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};
use view::View;
use work::Work;

/// A chain that takes longer than this to stand is so long that 32 requests ahead do not fill it.
const LONG_CHAIN: Duration = Duration::from_millis(10);
/// Pipes over such a chain. Few: tunnels count connections.
const PIPES: usize = 4;
/// A further pipe is worth its while when so many files wait.
const FILES_A_PIPE: usize = 64;

/// Fetches the directory that the routes name, and says how it went.
pub async fn run(routes: Vec<Route>, arguments: &FetchArguments, stop: &Stop) -> Exit {
    let plan = match TreePlan::of(routes, arguments) {
        Ok(plan) => plan,
        Err(failure) => {
            print_failure(&failure);
            return failure.exit();
        }
    };
    let until = Until::new(stop, plan.deadline);
    let view = Arc::new(View::new(Reporter::new(&arguments.show)));
    let ended = match Tree::open(plan, Arc::clone(&view)) {
        Ok(mut tree) => {
            let ended = tree.fetch(&until).await;
            tree.finish(ended).await
        }
        Err(failure) => Err(failure),
    };
    view.reporter().conclude(ended)
}

/// A run over a directory.
struct Tree {
    shared: Shared,
    saver: Saver,
    /// Which way is used, for the first time or again.
    way: usize,
    /// How many ways have failed in turn.
    failed_ways: usize,
    /// Whether a chain stood.
    stood: bool,
    /// The directories that were made to have the target directory, which is the last one, the outermost first.
    made: Vec<PathBuf>,
}

impl Tree {
    /// Opens the target directory; nothing is dialled yet.
    fn open(plan: TreePlan, view: Arc<View>) -> Result<Tree, Failure> {
        // Wrong patterns are told before there is a directory.
        let selection = Selection::of(&plan.include, &plan.exclude)?;
        let target = plan.target.as_path();
        let (root, made) = open_locked(target)?;
        let root = Arc::new(root);
        let saver = Saver::start(&root).map_err(|e| Failure::local("start threads for", target, e))?;
        let sifter = Sifter::new(Arc::clone(&root), selection, plan.checksum);
        let (intake, sifter) = (saver.intake(), Arc::new(Mutex::new(sifter)));
        let shared = Shared { plan, work: Work::new(), view, intake, sifter, root };
        Ok(Tree { shared, saver, way: 0, failed_ways: 0, stood: false, made })
    }

    /// Which way is used, from 0.
    fn way_number(&self) -> usize {
        // A plan has at least one way; that was checked when it was made.
        self.way % self.shared.plan.ways.len().max(1)
    }

    fn current_way(&self) -> &Way {
        &self.shared.plan.ways[self.way_number()]
    }

    /// Rounds, with pauses between them, until nothing is left to do.
    async fn fetch(&mut self, until: &Until) -> Result<(), Failure> {
        let mut retries = Retries::new(self.shared.plan.retry);
        self.shared.view.begin(self.current_way().name(), &self.shared.plan.target);
        loop {
            let before = self.done();
            let (ended, was_tried_again) = match until.bound(self.small_files()).await {
                Ok(()) => (large::fetch_all(&self.shared, self.way_number(), until).await, true),
                ended => (ended, false),
            };
            // A large file's own download has tried again and gone other ways, as often as it was to.
            let is_final = was_tried_again && ended.is_err();
            let deferred = self.shared.work.take_deferred();
            let failure = match (&ended, deferred.first()) {
                (Ok(()), None) => return Ok(()),
                (Ok(()), Some((_, refusal))) => refusal,
                (Err(failure), _) => failure,
            };
            let advanced = self.done() > before;
            if !is_final && self.goes_another_way(failure, advanced) {
                deferred.into_iter().for_each(|(item, _)| self.shared.work.again(item));
                continue;
            }
            let attempt = Attempt { stood: self.stood, advanced, discarded: 0 };
            let again = if is_final { None } else { retries.after(failure, attempt) };
            let Some(again) = again else {
                for (item, refusal) in deferred {
                    self.shared.view.failed(&item, refusal.exit().word(), &refusal.to_string());
                }
                return match ended {
                    Ok(()) => Ok(()),
                    Err(failure) => Err(self.explain(failure, until).await),
                };
            };
            self.shared.view.reporter().event(&Event::Retry {
                reason: failure.to_string(),
                kind: failure.exit().word(),
                number: again.number,
                of: again.of,
                pause: again.pause.as_secs_f64(),
            });
            deferred.into_iter().for_each(|(item, _)| self.shared.work.again(item));
            let paused = async {
                sleep(again.pause).await;
                Ok(())
            };
            if let Err(end) = until.bound(paused).await {
                return Err(match ended {
                    Ok(()) => end,
                    Err(failure) => end.after(failure),
                });
            }
        }
    }

    /// Whether the next round goes by another way at once; so it does until every way has failed in turn.
    fn goes_another_way(&mut self, failure: &Failure, advanced: bool) -> bool {
        let ways = self.shared.plan.ways.len();
        if !matches!(
            failure,
            Failure::Walk(_) | Failure::Key { .. } | Failure::Broken { .. } | Failure::Refused { .. }
        ) {
            return false;
        }
        let old = self.way % ways.max(1) + 1;
        self.way += 1;
        self.failed_ways = if advanced { 1 } else { self.failed_ways + 1 };
        if self.failed_ways >= ways {
            self.failed_ways = 0;
            return false;
        }
        let new = self.way % ways.max(1) + 1;
        self.shared.view.reporter().note(format!("route {old}: {failure}; going on by route {new}"));
        true
    }

    /// What counts as progress between two failures.
    fn done(&self) -> u64 {
        let tally = self.shared.view.tally();
        tally.fetched + tally.same
    }

    /// The listing and all small files, over one pipe or a few, until everything was asked for or the last pipe has broken.
    async fn small_files(&mut self) -> Result<(), Failure> {
        while !self.shared.work.is_asked() {
            self.shared.work.set_broken(false);
            let from = self.way_number();
            let Tree { shared, saver, stood, way, .. } = self;
            let (number, (first, took)) = first_pipe(shared, from).await?;
            if number != from {
                let (slow, quick) = (from + 1, number + 1);
                let note = format!("route {slow} does not answer for long; going on by route {quick}");
                shared.view.reporter().note(note);
            }
            (*stood, *way) = (true, number);
            let way = &shared.plan.ways[number];
            let mut pipes = FuturesUnordered::new();
            pipes.push(run_pipe(shared, way, Some(first), 0));
            let count = match shared.plan.connections {
                Connections::Auto if took > LONG_CHAIN => PIPES,
                Connections::Auto => 1,
                Connections::Fixed(count) => count,
            };
            pipes.extend((1..count).map(|number| run_pipe(shared, way, None, number)));
            let mut result = Ok(());
            while !pipes.is_empty() || saver.is_busy() {
                saver.set_last(pipes.is_empty());
                tokio::select! {
                    Some(ended) = pipes.next(), if !pipes.is_empty() => {
                        if ended.is_err() {
                            shared.work.set_broken(true);
                        }
                        result = result.and(ended);
                    }
                    saved = saver.saved() => settle(shared, saved)?,
                }
            }
            drop(pipes);
            // What one pipe could not do, another one may have done.
            if !self.shared.work.is_asked() {
                result?;
            }
        }
        Ok(())
    }

    /// Adds to a broken chain's failure where the route stops now.
    async fn explain(&self, failure: Failure, until: &Until) -> Failure {
        match failure {
            Failure::Broken {
                error: error @ (AnswerError::Silent(_) | AnswerError::Read(_)),
                received,
                ..
            } => {
                let route = &self.current_way().route;
                let aftermath = aftermath(route, self.shared.plan.silence, until).await.ok();
                Failure::Broken { error, received, aftermath }
            }
            failure => failure,
        }
    }

    /// Settles what is still on its way, sets the directories' times, and sees to it that all names survive a power cut.
    async fn finish(&mut self, ended: Result<(), Failure>) -> Result<(), Failure> {
        let mut ended = ended;
        self.saver.set_last(true);
        while self.saver.is_busy() {
            let settled = settle(&self.shared, self.saver.saved().await);
            ended = ended.and(settled);
        }
        let (root, touched) = (Arc::clone(&self.shared.root), self.saver.touched());
        let directories = self.shared.work.directories();
        let is_whole = ended.is_ok();
        let synced = spawn_blocking(move || {
            let mut walker = Walker::new(Arc::clone(&root));
            let synced =
                sync_names(&root, &mut walker, &touched, directories.iter().map(|(path, _)| path.as_str()));
            if is_whole {
                directories.iter().for_each(|(path, time)| set_time(&mut walker, path.as_str(), *time));
            }
            synced
        });
        let Shared { plan, view, .. } = &self.shared;
        let synced = synced.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        ended = ended.and(synced.map_err(|e| Failure::local("sync", &plan.target, e)));
        view.end(&plan.target, ended.is_ok());
        let tally = view.tally();
        let here = tally.fetched + tally.same;
        if ended.is_err() && here > 0 {
            view.reporter().note(format!("{here} files are here; the same command goes on with the others"));
        }
        if ended.is_err() {
            // Only empty ones go: nothing is in the way of what is asked for next.
            unmake_directories(&self.made);
        }
        ended?;
        let (failed, left_out) = (tally.failed, tally.left_out);
        if failed > 0 || left_out.is_a_loss() {
            return Err(Failure::Incomplete { failed, of: here + failed, left_out });
        }
        Ok(())
    }
}

/// A pipe by way number `from`, or by one of the next that stands while those before it take long; and by which.
async fn first_pipe(shared: &Shared, from: usize) -> Result<(usize, (Pipe<'_>, Duration)), Failure> {
    let ways = &shared.plan.ways;
    let mut waiting = (0..ways.len()).map(|step| (from + step) % ways.len());
    let dial = |number| async move {
        let way: &Way = &ways[number];
        (number, Pipe::connect(shared, way, shared.view.reporter()).await)
    };
    let mut dialling: FuturesUnordered<_> = waiting.next().map(dial).into_iter().collect();
    let (mut failed, mut next_at) = (None, Instant::now() + HEAD_START);
    loop {
        tokio::select! {
            biased;
            Some((number, connected)) = dialling.next() => {
                let failure = match connected {
                    Ok(pipe) => return Ok((number, pipe)),
                    Err(failure) => failure,
                };
                if number == from || failed.is_none() {
                    failed = Some(failure);
                }
            }
            () = sleep_until(next_at), if waiting.len() > 0 => {
                dialling.extend(waiting.next().map(dial));
                next_at = Instant::now() + HEAD_START;
            }
        }
        // Who asked goes on with the next way.
        if dialling.is_empty()
            && let Some(failure) = failed.take()
        {
            return Err(failure);
        }
    }
}

/// One pipe, from its chain to its last answer. A further one waits until there is enough to do for it, and nobody watches its hops.
async fn run_pipe<'a>(
    shared: &'a Shared,
    way: &'a Way,
    first: Option<Pipe<'a>>,
    number: usize,
) -> Result<(), Failure> {
    if let Some(first) = first {
        return first.run().await;
    }
    if !shared.work.is_much(FILES_A_PIPE * number).await {
        return Ok(());
    }
    let (pipe, _) = Pipe::connect(shared, way, &Reporter::silent()).await?;
    pipe.run().await
}

/// What became of a received file. A full disk ends the run, for it would refuse every other file, too.
fn settle(shared: &Shared, saved: Saved) -> Result<(), Failure> {
    let Saved { mut item, size, result } = saved;
    let Shared { plan, view, work, .. } = shared;
    view.gone(size);
    match result {
        Ok(hash) => view.done(&item, size, size, hash.to_string()),
        Err(Unsaved::Damaged { index }) => {
            let damaged = Failure::Damaged { index };
            item.failed += 1;
            if item.failed < pipe::MAX_TRIES {
                view.reporter().note(format!("{}: {damaged}; it is fetched again", item.path));
                work.again(item);
            } else {
                view.failed(&item, damaged.exit().word(), &damaged.to_string());
            }
        }
        Err(Unsaved::Refused { error: Some(error), .. }) if is_full(&error) => {
            return Err(Failure::local("write", &plan.target.join(item.path.as_str()), error));
        }
        Err(Unsaved::Refused { why, .. }) => view.failed(&item, Exit::Local.word(), &why),
    }
    Ok(())
}

/// Whether nothing more can be written here.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

/// Opens the target directory, made with those above it when it is not there, and locks it against other runs; and which ones were made.
fn open_locked(target: &Path) -> Result<(Directory, Vec<PathBuf>), Failure> {
    loop {
        let made = make_directories(target).map_err(|e| Failure::local("make the directory", target, e))?;
        let root = Directory::open(target);
        if made.is_empty() && root.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            continue;
        }
        let root = root.map_err(|e| Failure::local("open the directory", target, e))?;
        match root.lock() {
            Ok(true) => {}
            Ok(false) => return Err(Failure::InUse(target.to_owned())),
            Err(error) => return Err(Failure::local("lock", target, error)),
        }
        // A run that failed may have removed the directory that it had made, between opening and locking.
        if root.is_still_there().map_err(|e| Failure::local("look at", target, e))? {
            return Ok((root, made));
        }
    }
}

/// Gives a directory its time, if it has another one. A time that cannot be set does not spoil the directory.
fn set_time(walker: &mut Walker, path: &str, time: Timestamp) {
    let (parent, name) = split(path);
    let Ok(directory) = walker.directory(parent, false) else { return };
    let found = directory.look(name);
    if found.is_ok_and(|found| {
        found.is_some_and(|found| found.kind == FoundKind::Directory && found.modified != Some(time))
    }) {
        let _ = directory.set_time(name, time);
    }
}

/// Makes the names of new files, and of the directories on the way to them, survive a power cut.
fn sync_names<'a>(
    root: &Directory,
    walker: &mut Walker,
    touched: &'a BTreeSet<String>,
    directories: impl Iterator<Item = &'a str>,
) -> io::Result<()> {
    if touched.is_empty() || root.sync_file_system().is_ok() {
        return Ok(());
    }
    let mut places: BTreeSet<&str> = directories.map(|path| split(path).0).collect();
    for mut path in touched.iter().map(String::as_str) {
        while places.insert(path) && !path.is_empty() {
            path = split(path).0;
        }
    }
    places.into_iter().try_for_each(|path| walker.directory(path, false)?.sync())
}
