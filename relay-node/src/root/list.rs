//! Who makes a page of a listing, and when.

use super::desk::Crowded;
use super::page::{ListEntry, ListPage, ListQuery, MAX_LIST_PAGE};
use super::walk::{Demand, Walk};
use super::{DocumentRoot, RootError};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// How long somebody waits for a page, its turn included. Less than a client waits for a byte, unless told otherwise.
const LIST_LIMIT: Duration = Duration::from_secs(8);
/// How often whoever waits looks whether the disk answers.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Makes a page, going on with the walk that ended where it begins, if that is still there.
pub(super) fn page(
    root: &DocumentRoot,
    query: ListQuery<'_>,
    fits: &mut dyn FnMut(&ListEntry) -> bool,
    go_on: &dyn Fn(Option<&[u8]>) -> bool,
) -> Result<ListPage, RootError> {
    let kept = query.after.and_then(|_| root.kept.take(query));
    let mut walk = kept.unwrap_or_else(|| Walk::new(query));
    let page = walk.page(root, Demand { limit: query.limit.min(MAX_LIST_PAGE), fits, go_on })?;
    if page.next.is_some() {
        root.kept.put(walk);
    }
    Ok(page)
}

/// The same, when it is the peer's turn.
pub(super) async fn page_in_turn(
    root: &Arc<DocumentRoot>,
    query: ListQuery<'_>,
    peer: Option<IpAddr>,
    mut fits: impl FnMut(&ListEntry) -> bool + Send + 'static,
) -> Result<ListPage, RootError> {
    if root.hung.find(query.prefix).is_some() {
        return Err(RootError::Hung);
    }
    let (maker, prefix, after) = (Arc::clone(root), query.prefix.to_owned(), query.after.map(<[u8]>::to_vec));
    let ListQuery { limit, recursive, any_bytes, .. } = query;
    let (done, mut page_made) = oneshot::channel();
    let ticket = root.desk.submit(peer, move |task| {
        let query = ListQuery { prefix: &prefix, after: after.as_deref(), limit, recursive, any_bytes };
        // Whoever waited may be gone.
        drop(done.send(page(&maker, query, &mut fits, &|place| task.go_on(place))));
    });
    let ticket = ticket.map_err(|Crowded| RootError::Busy)?;
    let waiting = async {
        loop {
            tokio::select! {
                biased;
                page = &mut page_made => {
                    return page.unwrap_or_else(|_| Err(RootError::Io(io::Error::other("a listing failed inside"))));
                }
                () = sleep(LOOK_EVERY) => root.desk.tend(),
            }
            if ticket.is_silent() {
                return Err(RootError::Hung);
            }
        }
    };
    timeout(LIST_LIMIT, waiting).await.unwrap_or(Err(RootError::Busy))
}
