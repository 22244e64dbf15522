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
    match fetch(&plan, &reporter, &Until::new(stop, plan.deadline)).await {
        Ok(()) => Exit::Success,
        Err(failure) => {
            reporter.failed(&failure);
            failure.exit()
        }
    }
}

/// Fetches what is planned.
///
/// # Errors
/// Why it is not there, or not whole.
pub async fn fetch(plan: &Plan, reporter: &Reporter, until: &Until) -> Result<(), Failure> {
    let mut download = Download::new(plan, reporter);
    let mut retries = Retries::new(plan.retry);
    loop {
        let before = download.fetched();
        let ended = until.bound(download.attempt()).await;
        let ended = settled(&mut download, ended).await;
        let failure = match ended {
            Ok(End::Same) => return Ok(()),
            // What an earlier run left may have been forged on its way here; the origin can tell which of it.
            Ok(End::Whole) if download.is_doubtful() => continue,
            Ok(End::Whole) => return download.finish().await,
            Err(failure) => failure,
        };
        let attempt = Attempt { stood: download.has_stood(), advanced: download.fetched() > before };
        if let Err(lost) = download.keep().await {
            download.release();
            return Err(lost);
        }
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

/// What came before a failure is verified and written too. Only somebody who stops a run does not want to wait for a
/// reader of its output.
async fn settled(download: &mut Download<'_>, ended: Result<End, Failure>) -> Result<End, Failure> {
    let stopped = matches!(ended, Err(Failure::Interrupted | Failure::Deadline { .. }));
    if stopped && download.is_stream() {
        return ended;
    }
    download.settle().await.and(ended)
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
