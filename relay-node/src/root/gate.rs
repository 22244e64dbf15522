//! Calls that may never return: into a mount beneath the document root whose server is gone, the kernel lets a thread wait for
//! ever (so do FUSE and NFS).
//!
//! What lies on the document root's own mount is asked for first, and the kernel says when a name leads onto another one. Only there a
//! call may hang; so only a few such calls run at once, each has a limit after which its client is told, and the place is remembered.
//! The threads for everything else are never used up by them.

use super::{DocumentRoot, RootError};
use crate::platform::beneath::Reach;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

/// The most calls that look into other mounts at the same time.
pub(super) const ELSEWHERE_AT_ONCE: usize = 32;
/// How long a call waits for its turn to look there.
const TURN: Duration = Duration::from_secs(2);
/// How long such a call may take before its place counts as hung. Less than a client waits for a byte, unless told otherwise.
const NO_ANSWER: Duration = Duration::from_secs(5);
/// How often, and how far apart, a file is tried whose holder is being asked to give up its lease (fcntl(2), `F_SETLEASE`).
const LEASE_TRIES: u32 = 20;
const LEASE_PAUSE: Duration = Duration::from_millis(100);

/// The turns of calls that look into other mounts.
#[derive(Debug)]
pub(super) struct Gate {
    turns: Arc<Semaphore>,
    no_answer: Duration,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate { turns: Arc::new(Semaphore::new(ELSEWHERE_AT_ONCE)), no_answer: NO_ANSWER }
    }
}

impl Gate {
    #[cfg(all(test, target_os = "linux", not(relay_plain)))]
    pub(super) fn impatient() -> Gate {
        Gate { no_answer: Duration::from_millis(1), ..Gate::default() }
    }
}

/// Runs `work` about `name` in the blocking pool: on the document root's own mount, and only when it leads elsewhere, there.
pub(super) async fn patiently<T: Send + 'static>(
    root: &Arc<DocumentRoot>,
    name: &[u8],
    work: impl Fn(Reach) -> Result<T, RootError> + Send + Sync + 'static,
) -> Result<T, RootError> {
    let work = Arc::new(work);
    let mut tries = 0;
    loop {
        if root.hung.find(name).is_some() {
            return Err(RootError::Hung);
        }
        let here = Arc::clone(&work);
        let mut result = joined(spawn_blocking(move || here(Reach::OwnMount)).await);
        if let Err(RootError::Elsewhere) = result {
            result = elsewhere(root, name, &work).await;
        }
        match result {
            Err(RootError::Leased) if tries < LEASE_TRIES => {
                tries += 1;
                sleep(LEASE_PAUSE).await;
            }
            result => return result,
        }
    }
}

async fn elsewhere<T: Send + 'static>(
    root: &Arc<DocumentRoot>,
    name: &[u8],
    work: &Arc<impl Fn(Reach) -> Result<T, RootError> + Send + Sync + 'static>,
) -> Result<T, RootError> {
    let turn = timeout(TURN, Arc::clone(&root.gate.turns).acquire_owned()).await;
    let Ok(Ok(turn)) = turn else { return Err(RootError::Busy) };
    // Others may have found out meanwhile.
    if root.hung.find(name).is_some() {
        return Err(RootError::Hung);
    }
    let is_late = Arc::new(AtomicBool::new(false));
    let place = root.directory()?.way_out(name);
    let (work, was_late, hung, answered) =
        (Arc::clone(work), Arc::clone(&is_late), Arc::clone(&root.hung), place.clone());
    let job = spawn_blocking(move || {
        let result = work(Reach::Anywhere);
        if was_late.load(Ordering::Acquire) {
            hung.forget(&answered);
        }
        drop(turn);
        result
    });
    match timeout(root.gate.no_answer, job).await {
        Ok(done) => joined(done),
        Err(_) => {
            is_late.store(true, Ordering::Release);
            root.hung.note(&place);
            Err(RootError::Hung)
        }
    }
}

fn joined<T>(done: Result<Result<T, RootError>, tokio::task::JoinError>) -> Result<T, RootError> {
    done.unwrap_or_else(|error| Err(RootError::Io(io::Error::other(error))))
}

#[cfg(test)]
#[cfg(all(target_os = "linux", not(relay_plain)))]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const PATIENCE: Duration = Duration::from_secs(120);

    fn root(gate: Gate) -> (tempfile::TempDir, Arc<DocumentRoot>) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("mount")).unwrap();
        let root = DocumentRoot { gate, ..DocumentRoot::open(directory.path(), false).unwrap() };
        (directory, Arc::new(root))
    }

    /// Work that does not end before `end` is dropped.
    fn hanging(end: mpsc::Receiver<()>) -> impl Fn(Reach) -> Result<(), RootError> + Send + Sync {
        let end = std::sync::Mutex::new(end);
        move |reach| match reach {
            Reach::OwnMount => Err(RootError::Elsewhere),
            Reach::Anywhere => {
                let _ = end.lock().unwrap().recv_timeout(PATIENCE);
                Ok(())
            }
        }
    }

    #[tokio::test]
    async fn a_place_that_does_not_answer_is_remembered_until_it_does() {
        let (_directory, root) = root(Gate::impatient());
        let (end, ended) = mpsc::channel();
        let result = patiently(&root, b"mount/a", hanging(ended)).await;
        assert!(matches!(result, Err(RootError::Hung)), "{result:?}");
        let untouched = |_: Reach| -> Result<(), RootError> { panic!("nothing looks there meanwhile") };
        let result = patiently(&root, b"mount/b", untouched).await;
        assert!(matches!(result, Err(RootError::Hung)), "{result:?}");
        assert!(patiently(&root, b"beside", |_| Ok(())).await.is_ok());
        drop(end);
        while root.hung.find(b"mount/b").is_some() {
            tokio::task::yield_now().await;
        }
        assert!(patiently(&root, b"mount/b", |_| Ok(())).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_threads_hang_and_the_rest_goes_on() {
        let (_directory, root) = root(Gate::default());
        let (begun, begins) = mpsc::channel();
        let (ends, _jobs): (Vec<_>, Vec<_>) = (0..600)
            .map(|number| {
                let (end, ended) = mpsc::channel();
                let (root, begun, hanging) = (Arc::clone(&root), begun.clone(), hanging(ended));
                let name = format!("mount/{number}/a");
                let job = tokio::spawn(async move {
                    let work = move |reach| {
                        if reach == Reach::Anywhere {
                            begun.send(()).unwrap();
                        }
                        hanging(reach)
                    };
                    patiently(&root, name.as_bytes(), work).await
                });
                (end, job)
            })
            .unzip();
        let mut count = 0;
        while count < ELSEWHERE_AT_ONCE {
            count += begins.try_iter().count();
            tokio::task::yield_now().await;
        }
        for number in 0..100 {
            assert!(patiently(&root, format!("{number}").as_bytes(), |_| Ok(())).await.is_ok());
        }
        assert!(begins.try_recv().is_err(), "more look there than may");
        drop(ends);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leased_file_is_tried_for_a_while() {
        let (_directory, root) = root(Gate::default());
        let tries = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let until = |last: u32| {
            let tries = Arc::clone(&tries);
            tries.store(0, Ordering::Relaxed);
            move |_: Reach| {
                if tries.fetch_add(1, Ordering::Relaxed) < last { Err(RootError::Leased) } else { Ok(()) }
            }
        };
        assert!(patiently(&root, b"a", until(3)).await.is_ok());
        let result = patiently(&root, b"a", until(1_000)).await;
        assert!(matches!(result, Err(RootError::Leased)), "{result:?}");
        assert_eq!(tries.load(Ordering::Relaxed), LEASE_TRIES + 1);
    }
}
