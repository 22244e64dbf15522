//! When a failed attempt is followed by another one, and after which pause.

use crate::failure::Failure;
use relay_chain::requests::AnswerError;
use relay_proto::code::{FailureCode, Status};
use std::time::Duration;
use tokio::time::Instant;

/// How often a chain that once stood is tried again, unless told otherwise.
pub const DEFAULT_RETRIES: u32 = 5;
/// The pause before the second attempt; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// How often and how long to try again.
#[derive(Debug, Clone, Copy, Default)]
pub struct RetryLimits {
    /// The most attempts that follow each other without a new chunk. None: [`DEFAULT_RETRIES`], and none before a chain stood.
    pub retries: Option<u32>,
    /// No attempt begins later than this after the first failure.
    pub max_time: Option<Duration>,
}

/// The attempts of a run.
pub struct Retries {
    limits: RetryLimits,
    failed: u32,
    first_failure: Option<Instant>,
}

/// What happened until an attempt failed.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// A chain stood, in this attempt or an earlier one of the run.
    pub stood: bool,
    /// It brought chunks that were not there before.
    pub advanced: bool,
    /// How many versions of the file something was brought of that are no more. What came of them was no progress, so each costs one try.
    pub discarded: u32,
}

/// Another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// Wait so long.
    pub pause: Duration,
    /// Which one it is since the last chunk, from 1.
    pub number: u32,
    /// How many there may be.
    pub of: u32,
}

impl Retries {
    /// None so far.
    #[must_use]
    pub fn new(limits: RetryLimits) -> Retries {
        Retries { limits, failed: 0, first_failure: None }
    }

    /// Whether to try again after `failure`.
    pub fn after(&mut self, failure: &Failure, attempt: Attempt) -> Option<Again> {
        let of = self.limits.retries.unwrap_or(if attempt.stood { DEFAULT_RETRIES } else { 0 });
        if attempt.advanced {
            self.failed = 0;
        }
        let failed = self.failed.max(attempt.discarded);
        if !may_change(failure) || failed >= of {
            return None;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << failed.min(16)).min(MAX_PAUSE);
        let waited = self.first_failure.get_or_insert_with(Instant::now).elapsed();
        if self.limits.max_time.is_some_and(|max| waited + pause > max) {
            return None;
        }
        self.failed = failed + 1;
        Some(Again { pause, number: self.failed, of })
    }
}

/// The pause before a connection is tried again beside others, which has failed so often in turn before.
#[must_use]
pub fn pause_after(failed: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failed.min(16)).min(MAX_PAUSE_BESIDE)
}

/// How long a route may take to answer before the next one is tried as well.
pub const HEAD_START: Duration = Duration::from_secs(1);

/// The longest pause of a connection that is tried again while others work.
const MAX_PAUSE_BESIDE: Duration = Duration::from_secs(60);

/// Whether the same attempt may end otherwise in a while.
#[must_use]
pub fn may_change(failure: &Failure) -> bool {
    match failure {
        Failure::Walk(error) => {
            !matches!(error.code, FailureCode::Denied | FailureCode::TooManyHops | FailureCode::BadRequest)
        }
        Failure::Broken { error, .. } => !matches!(error, AnswerError::Protocol(_)),
        Failure::Refused { status, .. } => *status == Status::REQUEST_TIMEOUT || status.code() >= 500,
        // A size stands in a head, which no hash covers; it may have been the other one that was damaged.
        Failure::Damaged { .. } | Failure::OtherVersion { chunk: None, .. } => true,
        Failure::NoRoute { failed, is_left } => {
            *is_left || failed.iter().any(|route| !route.is_gone && may_change(&route.failure))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOOD: Attempt = Attempt { stood: true, advanced: false, discarded: 0 };

    fn pauses(limits: RetryLimits, attempt: Attempt, failure: &Failure) -> Vec<u64> {
        let mut retries = Retries::new(limits);
        std::iter::from_fn(|| retries.after(failure, attempt).map(|again| again.pause.as_secs()))
            .take(9)
            .collect()
    }

    #[test]
    fn pauses_grow_and_end() {
        let damaged = Failure::Damaged { index: 0 };
        assert_eq!(pauses(RetryLimits::default(), STOOD, &damaged), [1, 2, 4, 8, 16]);
        let seven = RetryLimits { retries: Some(7), max_time: None };
        assert_eq!(pauses(seven, STOOD, &damaged), [1, 2, 4, 8, 16, 30, 30]);
        let short = RetryLimits { retries: Some(7), max_time: Some(Duration::from_secs(3)) };
        assert_eq!(pauses(short, STOOD, &damaged), [1, 2]);
        let advancing = Attempt { advanced: true, ..STOOD };
        assert_eq!(pauses(RetryLimits::default(), advancing, &damaged), [1; 9]);
    }

    #[test]
    fn what_will_not_change_is_not_tried_again() {
        assert!(pauses(RetryLimits::default(), STOOD, &Failure::Interrupted).is_empty());
        assert!(pauses(RetryLimits::default(), STOOD, &Failure::ChangedMidway).is_empty());
        let never_stood = Attempt { stood: false, ..STOOD };
        let damaged = Failure::Damaged { index: 0 };
        assert!(pauses(RetryLimits::default(), never_stood, &damaged).is_empty());
        assert_eq!(pauses(RetryLimits { retries: Some(1), max_time: None }, never_stood, &damaged), [1]);
    }
}
