//! The hashes of the first origin, against which the chunks of all others are checked. They are asked for only once there is another
//! origin.

use super::question::{is_same_version, misfit};
use super::queue::Queue;
use crate::failure::Failure;
use crate::plan::Plan;
use crate::session::{Session, request};
use relay_proto::chunk::ChunkRange;
use relay_proto::digest::ChunkHash;
use relay_proto::file::{Conditions, FileFacts, Hashes};
use std::cell::{Cell, RefCell};
use tokio::sync::Notify;

/// What the first origin says about each chunk, as far as that is known.
#[derive(Default)]
pub(super) struct Authority {
    /// The route to the first origin, from 0.
    pub(super) route: usize,
    hashes: RefCell<Vec<ChunkHash>>,
    is_asked: Cell<bool>,
    asked: Notify,
}

impl Authority {
    /// The authority at the end of a route.
    pub(super) fn new(route: usize) -> Authority {
        Authority { route, ..Authority::default() }
    }

    /// Somebody needs the hashes. Returns whether that is the first one.
    pub(super) fn ask(&self) -> bool {
        self.asked.notify_one();
        !self.is_asked.replace(true)
    }

    /// The hashes of all chunks below this one are known.
    pub(super) fn known(&self) -> u64 {
        self.hashes.borrow().len() as u64
    }

    pub(super) fn hash(&self, index: u64) -> Option<ChunkHash> {
        usize::try_from(index).ok().and_then(|index| self.hashes.borrow().get(index).copied())
    }

    /// Fetches the hashes once somebody needs them; goes on where it stopped when it is called again.
    ///
    /// # Errors
    /// Why they do not come.
    pub(super) async fn learn(&self, plan: &Plan, version: &FileFacts, queue: &Queue) -> Result<(), Failure> {
        if !self.is_asked.get() {
            self.asked.notified().await;
        }
        let route = plan.route(self.route);
        let whole = ChunkRange::whole(version.size.bytes());
        let first = self.known();
        if first == whole.end() {
            return Ok(());
        }
        let range = Some(relay_proto::chunk::AskedRange { first, end: None });
        let conditions = Conditions { if_match: Some(version.entity_tag.clone()), ..Conditions::default() };
        let asked = request(&Hashes { name: route.file().clone(), range, conditions })?;
        let mut session = Session::walk(route, plan.silence, &plan.network, &asked, |_| {}).await?;
        let head = session.head().await?;
        if !head.status.is_success() {
            return Err(session.refused(&head));
        }
        let body = session.body(&head)?;
        if ChunkRange::new(first, whole.end()) != Some(body.chunks) || !is_same_version(&body.file, version) {
            return Err(misfit(&session));
        }
        for index in body.chunks.first()..body.chunks.end() {
            let hash = session.answers().hash().await.map_err(|error| session.broken(error))?;
            self.hashes.borrow_mut().push(hash);
            if index.is_multiple_of(WAKE_EVERY) {
                queue.wake();
            }
        }
        queue.wake();
        Ok(())
    }
}

/// Hashes after which those that wait for them may go on.
const WAKE_EVERY: u64 = 16;
