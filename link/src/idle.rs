//! When nothing moves: the wait behind every idle and no-progress limit of the relay face.

use std::time::Duration;
use tokio::time::sleep;

/// How often a limit's span is looked at.
const LOOKS: u32 = 4;

/// Returns when `state` has been the same for `limit`, or up to a quarter more. It wakes a few times in that span, whatever
/// moves, so that moving costs nothing.
pub async fn idle_for<T: PartialEq>(limit: Duration, state: impl Fn() -> T) {
    let mut last = None;
    let mut unchanged = 0;
    while unchanged < LOOKS {
        sleep(limit / LOOKS).await;
        let now = Some(state());
        unchanged = if now == last { unchanged + 1 } else { 0 };
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn ends_only_after_the_limit_without_a_change() {
        let limit = Duration::from_secs(4);
        let start = Instant::now();
        idle_for(limit, || start.elapsed().as_secs().min(20)).await;
        assert_eq!(start.elapsed().as_secs(), 24);
    }
}
