//! What became of each route in a run, which outlives attempts: what went wrong on it, whether it is still used, and what is left to
//! say when none is.

use crate::failure::{Failure, RouteFailure};

/// What became of a route.
#[derive(Default)]
pub(super) struct RouteFate {
    /// It is not used any more in this run.
    pub(super) is_gone: bool,
    /// What went wrong last in this attempt.
    pub(super) failure: Option<Failure>,
    /// It failed in this round, which ends when all routes have.
    pub(super) has_failed: bool,
    /// The same in words, with the hop that it is about; it stays when the failure is told elsewhere.
    told: Option<(String, Option<usize>)>,
    /// How often its origin answered first and no chunk came of it.
    pub(super) barren: u32,
}

impl RouteFate {
    /// It failed.
    pub(super) fn fail(&mut self, failure: Failure) {
        (self.failure, self.has_failed) = (Some(failure), true);
    }

    /// A chunk came on it and is in its place.
    pub(super) fn bore(&mut self) {
        self.barren = 0;
    }

    /// Keeps the words of the last failure.
    pub(super) fn remember(&mut self) {
        if let Some(failure) = &self.failure {
            self.told = Some((failure.to_string(), failure.position()));
        }
    }

    /// What went wrong last, in words, and the hop that it is about.
    pub(super) fn told(&mut self) -> Option<(String, Option<usize>)> {
        self.remember();
        self.told.clone()
    }
}

/// Leaves a route out for the rest of the run, unless it is the last one: that is tried again as long as a lonely one would be.
pub(super) fn blame(fates: &mut [RouteFate], route: usize, failure: Failure) {
    let is_gone = !is_last(fates, route);
    if let Some(fate) = fates.get_mut(route) {
        fate.is_gone = is_gone;
        fate.fail(failure);
    }
}

pub(super) fn is_last(fates: &[RouteFate], route: usize) -> bool {
    let mut others = fates.iter().enumerate().filter(|(other, _)| *other != route);
    others.all(|(_, fate)| fate.is_gone)
}

/// Begins an attempt: nothing has gone wrong in it yet. Once all routes have failed, each gets another chance.
pub(super) fn begin_attempt(fates: &mut [RouteFate]) {
    let is_over = fates.iter().all(|fate| fate.is_gone || fate.has_failed);
    for fate in fates.iter_mut().filter(|fate| !fate.is_gone) {
        fate.remember();
        fate.failure = None;
        fate.has_failed &= !is_over;
    }
}

/// The routes that are not gone, in the order in which they are asked: those first that have not failed in this round, and then those
/// that have not answered and brought nothing; otherwise from `first` on.
pub(super) fn usable(fates: &[RouteFate], first: usize) -> Vec<usize> {
    let from_first = (0..fates.len()).map(|step| (first + step) % fates.len());
    let mut usable: Vec<usize> = from_first.filter(|route| !is_gone(fates, *route)).collect();
    // Sorting is stable.
    usable.sort_by_key(|route| fates.get(*route).map(|fate| (fate.has_failed, fate.barren)));
    usable
}

fn is_gone(fates: &[RouteFate], route: usize) -> bool {
    fates.get(route).is_none_or(|fate| fate.is_gone)
}

/// What is left to say when no route is: one route's failure as it is, several together. The routes that are not gone have
/// none any more.
pub(super) fn no_route(fates: &mut [RouteFate]) -> Failure {
    let is_lonely = fates.len() == 1;
    let is_left = fates.iter().any(|fate| !fate.is_gone && !fate.has_failed);
    fates.iter_mut().for_each(RouteFate::remember);
    let failed = fates.iter_mut().enumerate().filter_map(|(route, fate)| {
        Some(RouteFailure { route: route + 1, failure: fate.failure.take()?, is_gone: fate.is_gone })
    });
    let mut failed: Vec<RouteFailure> = failed.collect();
    match failed.pop() {
        Some(only) if is_lonely => only.failure,
        last => {
            failed.extend(last);
            Failure::NoRoute { failed, is_left }
        }
    }
}
