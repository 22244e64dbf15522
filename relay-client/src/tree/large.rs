//! Files that get a download of their own, as if each were asked for alone: with a journal, retries and everything else that
//! [`crate::transfer`] does. Its events are counted into the directory's.

use super::pipe::Shared;
use super::plan::{TreePlan, Way};
use super::sift::{Item, blockade};
use super::view::View;
use crate::beneath::{Directory, Walker, split};
use crate::event::Event;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::plan::{Plan, Target};
use crate::progress::{Reporter, Seen};
use crate::show;
use crate::stop::Until;
use crate::transfer;
use futures_util::stream::{FuturesUnordered, StreamExt};
use relay_chain::requests::AnswerError;
use relay_proto::route::Route;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::spawn_blocking;

/// Downloads at a time. The next one begins while the one before ends, so that the round trips of a beginning cost little; more would
/// only share the same links.
const AT_ONCE: usize = 2;

/// Fetches the large files, by the way number `way`, from 0, as long as it is as good as others. Those that cannot be had are told; the rest goes on.
///
/// # Errors
/// What ends the whole run: no way to the origin any more, a full disk, a deadline, somebody who stops it.
pub async fn fetch_all(shared: &Shared, way: usize, until: &Until) -> Result<(), Failure> {
    let mut running = FuturesUnordered::new();
    let mut result = Ok(());
    loop {
        while result.is_ok()
            && running.len() < AT_ONCE
            && let Some(item) = shared.work.next_large()
        {
            running.push(fetch_one(shared, way, until, item));
        }
        match running.next().await {
            // The others keep what they have before they end.
            Some(done) => result = result.and(done),
            None => return result,
        }
    }
}

async fn fetch_one(shared: &Shared, way: usize, until: &Until, item: Item) -> Result<(), Failure> {
    let (directory, name) = match place(shared, &item).await {
        Ok(place) => place,
        Err(why) => {
            shared.view.failed(&item, Exit::Local.word(), &why);
            return Ok(());
        }
    };
    let plan = plan(shared, way, &item, directory.path_of(&name))?;
    let names = Names { real: directory.path_of(""), shown: directory.path().join("") };
    let counted = Arc::new(Counted::new(item.clone()));
    let ended = {
        let (counted, view, names) = (Arc::clone(&counted), Arc::clone(&shared.view), names.clone());
        let reporter = Reporter::within(move |seen| counted.see(&seen, &view, &names));
        transfer::fetch(&plan, &reporter, until).await
    };
    match ended {
        Ok(()) => {
            // A mark that cannot be set does not spoil the file.
            let _ = directory.set_executable(&name, item.executable);
            Ok(())
        }
        Err(failure) => {
            counted.forget(&shared.view);
            if concerns_all(&failure) {
                shared.work.grown(item);
                return Err(names.in_failure(failure));
            }
            let message = names.in_text(&failure.to_string());
            shared.view.failed(&item, failure.exit().word(), &message);
            Ok(())
        }
    }
}

/// The directory that a file goes to, and its name there.
async fn place(shared: &Shared, item: &Item) -> Result<(Arc<Directory>, String), String> {
    let (root, path) = (Arc::clone(&shared.root), item.path.clone());
    let placed = spawn_blocking(move || {
        let (parent, name) = split(path.as_str());
        let directory =
            Walker::new(root).directory(parent, true).map_err(|error| blockade(parent, &error))?;
        Ok((directory, name.to_owned()))
    });
    placed.await.unwrap_or_else(|error| Err(error.to_string()))
}

fn plan(shared: &Shared, way: usize, item: &Item, target: PathBuf) -> Result<Plan, Failure> {
    let TreePlan { ways, silence, network, retry, connections, checksum, .. } = &shared.plan;
    let route = |way: &Way| {
        let name = way.name_of(item.path.as_str())?;
        let route = Route::new(name.as_str(), way.route.hops().to_vec(), None);
        route.map_err(|error| Failure::Usage(error.to_string()))
    };
    Ok(Plan {
        routes: ways.iter().map(route).collect::<Result<_, _>>()?,
        first: way,
        target: Target::File(target),
        silence: *silence,
        network: network.clone(),
        deadline: None,
        retry: *retry,
        connections: *connections,
        expected: None,
        checksum: *checksum,
    })
}

/// Whether the next file would end in the same way. The download has tried again already, as often as it was to.
fn concerns_all(failure: &Failure) -> bool {
    match failure {
        Failure::Walk(_) | Failure::Key { .. } | Failure::Deadline { .. } | Failure::Interrupted => true,
        Failure::Broken { error, .. } => {
            !matches!(error, AnswerError::Changed | AnswerError::OriginRead | AnswerError::Damaged)
        }
        Failure::NoRoute { failed, .. } => failed.iter().all(|route| concerns_all(&route.failure)),
        Failure::Local { error, .. } => super::is_full(error),
        _ => false,
    }
}

/// How a directory is really opened and how people call it.
#[derive(Clone)]
struct Names {
    real: PathBuf,
    shown: PathBuf,
}

impl Names {
    fn in_text(&self, text: &str) -> String {
        text.replace(&show::path(&self.real), &show::path(&self.shown))
    }

    fn in_failure(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Local { doing, path, error } => {
                let path = path.strip_prefix(&self.real).map(|rest| self.shown.join(rest)).unwrap_or(path);
                Failure::Local { doing, path, error }
            }
            other => other,
        }
    }
}

/// One download's part in the counts of all.
struct Counted {
    item: Item,
    state: Mutex<CountedState>,
}

#[derive(Default)]
struct CountedState {
    /// Whether bytes that are told are bytes of the file, and not of one that is looked at.
    counts: bool,
    /// Bytes that were counted.
    came: u64,
}

impl Counted {
    fn new(item: Item) -> Counted {
        Counted { item, state: Mutex::default() }
    }

    fn see(&self, seen: &Seen<'_>, view: &View, names: &Names) {
        match seen {
            Seen::Bytes(bytes) => {
                let mut state = self.state();
                if state.counts {
                    state.came += bytes;
                    drop(state);
                    view.came(*bytes);
                }
            }
            Seen::TakenBack(bytes) => {
                let mut state = self.state();
                if state.counts {
                    state.came = state.came.saturating_sub(*bytes);
                    drop(state);
                    view.gone(*bytes);
                }
            }
            Seen::Event(event) => self.see_event(event, view, names),
        }
    }

    fn see_event(&self, event: &Event, view: &View, names: &Names) {
        match event {
            Event::File { have, .. } => {
                self.forget(view);
                *self.state() = CountedState { counts: true, came: *have };
                view.came(*have);
            }
            Event::Checking { .. } => self.forget(view),
            Event::Done { size, fetched, hash, .. } => {
                self.forget(view);
                view.done(&self.item, *size, *fetched, hash.clone());
            }
            Event::Same { by, .. } => {
                self.forget(view);
                view.same(&self.item, by);
            }
            Event::Retry { reason, kind, number, of, pause } => view.reporter().event(&Event::Retry {
                reason: format!("{}: {}", self.item.path, names.in_text(reason)),
                kind,
                number: *number,
                of: *of,
                pause: *pause,
            }),
            Event::Note { message } => view.reporter().note(names.in_text(message)),
            // The steps of its chain are those of the first one again.
            _ => {}
        }
    }

    /// What was counted came to nothing, or is counted otherwise from now on.
    fn forget(&self, view: &View) {
        let came = std::mem::take(&mut *self.state()).came;
        view.gone(came);
    }

    fn state(&self) -> MutexGuard<'_, CountedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
