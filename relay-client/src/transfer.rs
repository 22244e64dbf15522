//! The story of one run: attempts, with pauses between them, until the file is whole; then its final name.

use crate::cli::FetchArguments;
use crate::download::{Download, End};
use crate::event::Event;
use crate::exit::Exit;
use crate::failure::{Failure, RouteFailure};
use crate::plan::Plan;
use crate::progress::{Reporter, print_failure};
use crate::retry::{Attempt, Retries};
use crate::session::aftermath;
use crate::stop::{Stop, Until};
use relay_chain::requests::AnswerError;
use relay_proto::route::Route;
use tokio::time::sleep;

/// Fetches the file that the routes name, and says how it went.
pub async fn run(routes: Vec<Route>, arguments: &FetchArguments, stop: &Stop) -> Exit {
    let plan = match Plan::of(routes, arguments) {
        Ok(plan) => plan,
        Err(failure) => {
            print_failure(&failure);
            return failure.exit();
        }
    };
    let reporter = Reporter::new(&arguments.show);
    reporter.conclude(fetch(&plan, &reporter, &Until::new(stop, plan.deadline)).await)
}

/// Fetches what is planned.
///
/// # Errors
/// Why it is not there, or not whole.
pub async fn fetch(plan: &Plan, reporter: &Reporter, until: &Until) -> Result<(), Failure> {
    let mut download = Download::new(plan, reporter);
    let mut retries = Retries::new(plan.retry);
    let (mut before, mut earlier) = (0, Vec::new());
    loop {
        let ended = until.bound(download.attempt()).await;
        let ended = settled(&mut download, ended, until).await;
        let failure = match ended {
            Ok(End::Same) => return Ok(()),
            // What an earlier run left may have been forged on its way here; the origin can tell which of it.
            Ok(End::Whole) if download.is_doubtful() => continue,
            Ok(End::Whole) => return download.finish().await,
            Err(failure) => failure,
        };
        if let Err(lost) = download.keep().await {
            download.release();
            return Err(lost);
        }
        let failure = match failure {
            // A route that has not been tried since needs no pause, and is no second try.
            Failure::NoRoute { failed, is_left: true } => {
                tell_lost(&failed, reporter);
                earlier.extend(failed);
                continue;
            }
            failure => failure.and_before(std::mem::take(&mut earlier)),
        };
        let attempt = Attempt {
            stood: download.has_stood(),
            advanced: download.fetched() > before,
            discarded: download.discarded(),
        };
        before = download.fetched();
        let Some(again) = retries.after(&failure, attempt) else {
            download.release();
            download.tell_kept();
            return Err(explain(failure, plan, until).await);
        };
        reporter.event(&Event::Retry {
            reason: failure.to_string(),
            kind: failure.exit().word(),
            number: again.number,
            of: again.of,
            pause: again.pause.as_secs_f64(),
        });
        let paused = async {
            sleep(again.pause).await;
            Ok(())
        };
        if let Err(end) = until.bound(paused).await {
            download.release();
            download.tell_kept();
            return Err(end.after(failure));
        }
    }
}

fn tell_lost(failed: &[RouteFailure], reporter: &Reporter) {
    for RouteFailure { route, failure, .. } in failed {
        reporter.note(format!("route {route}: {failure}; going on by another route"));
    }
}

/// What came before a failure is verified and written too. Only somebody who stops a run does not want to wait for a
/// reader of its output.
async fn settled(
    download: &mut Download<'_>,
    ended: Result<End, Failure>,
    until: &Until,
) -> Result<End, Failure> {
    let is_stopped = matches!(ended, Err(Failure::Interrupted | Failure::Deadline { .. }));
    let settled = match (download.is_stream(), is_stopped) {
        (true, true) => Ok(()),
        (true, false) => until.bound(download.settle()).await,
        (false, _) => download.settle().await,
    };
    match (settled, ended) {
        (Ok(()), ended) => ended,
        (Err(damage), Err(Failure::NoRoute { failed, .. })) => Err(damage.and_before(failed)),
        (Err(end), Err(failure)) => Err(end.after(failure)),
        (Err(end), Ok(_)) => Err(end),
    }
}

/// Adds to each broken chain's failure where its route stops now.
async fn explain(failure: Failure, plan: &Plan, until: &Until) -> Failure {
    let Failure::NoRoute { failed, is_left } = failure else {
        return explain_one(failure, plan, 0, until).await;
    };
    let mut explained = Vec::new();
    for RouteFailure { route, failure, is_gone } in failed {
        let failure = explain_one(failure, plan, route - 1, until).await;
        explained.push(RouteFailure { route, failure, is_gone });
    }
    Failure::NoRoute { failed: explained, is_left }
}

async fn explain_one(failure: Failure, plan: &Plan, route: usize, until: &Until) -> Failure {
    let lost = |error: &AnswerError| matches!(error, AnswerError::Silent(_) | AnswerError::Read(_));
    match failure {
        Failure::Broken { error, received, .. } if lost(&error) => {
            let aftermath = aftermath(plan.route(route), plan.silence, until).await.ok();
            Failure::Broken { error, received, aftermath }
        }
        failure => failure,
    }
}
