// A queue of one run is what most of these are about.
#![allow(clippy::single_range_in_vec_init)]

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn with_pace(queue: &Queue, id: WorkerId, chunk: Duration) {
    let mut inner = queue.inner.borrow_mut();
    inner.workers.get_mut(&id).unwrap().pace.chunk = Some(chunk);
}

fn enter(queue: &Queue, id: WorkerId, chunk_ms: u64) {
    queue.enter(id, Duration::from_millis(1));
    with_pace(queue, id, Duration::from_millis(chunk_ms));
}

#[tokio::test(start_paused = true)]
async fn a_lonely_connection_takes_all_in_order() {
    let queue = Queue::new([0..3, 5..100], 1);
    queue.enter(0, Duration::ZERO);
    let (mut asked, mut next) = (VecDeque::new(), 0);
    loop {
        while let Some(run) = queue.claim(0, u64::MAX) {
            assert!(run.end - run.start <= MAX_SEGMENT);
            asked.extend(run);
        }
        let Some(index) = asked.pop_front() else { break };
        assert_eq!(index, if next == 3 { 5 } else { next });
        next = index + 1;
        assert!(queue.received(0, index));
    }
    assert_eq!((next, queue.free()), (100, 0));
}

#[tokio::test(start_paused = true)]
async fn the_first_connection_leaves_work_to_those_that_are_to_come() {
    let queue = Queue::new([0..16], 5);
    queue.enter(0, Duration::from_millis(1));
    queue.adopt(0, 0..FIRST_SEGMENT);
    assert_eq!(queue.claim(0, u64::MAX), None);
    for id in 1..=4 {
        queue.enter(id, Duration::from_millis(1));
        let first = FIRST_SEGMENT + 2 * (id as u64 - 1);
        assert_eq!(queue.claim(id, u64::MAX), Some(first..first + 1));
        assert_eq!(queue.claim(id, u64::MAX), Some(first + 1..first + 2));
        assert_eq!(queue.claim(id, u64::MAX), None);
    }
    // However fast its first chunks came.
    let queue = Queue::new([0..40], 4);
    enter(&queue, 0, 1);
    queue.adopt(0, 0..FIRST_SEGMENT);
    assert!(queue.received(0, 0));
    while queue.claim(0, u64::MAX).is_some() {}
    assert!(queue.free() >= 24, "{} of 40 chunks are left", queue.free());
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_and_waits_is_left_for_others() {
    let queue = Queue::new([0..40], 2);
    assert_eq!(queue.left(), 40);
    enter(&queue, 0, 2000);
    queue.adopt(0, 0..8);
    assert_eq!((queue.free(), queue.left()), (32, 39));
    assert!(queue.received(0, 0));
    assert_eq!(queue.left(), 38);
    enter(&queue, 1, 2000);
    queue.adopt(1, 8..40);
    assert_eq!((queue.free(), queue.left()), (0, 6 + 31));
    // And another one gets some of it, though nothing is free.
    enter(&queue, 2, 2000);
    assert!(queue.claim(2, u64::MAX).is_some_and(|run| run.end == 40));
}

#[tokio::test(start_paused = true)]
async fn segments_follow_the_pace() {
    let queue = Queue::new([0..1_000_000], 1);
    enter(&queue, 0, 5);
    enter(&queue, 1, 2000);
    assert_eq!(queue.claim(0, u64::MAX), Some(0..64));
    assert_eq!(queue.claim(1, u64::MAX), Some(64..65));
    assert_eq!(queue.claim(1, u64::MAX), Some(65..66));
    assert_eq!(queue.claim(1, u64::MAX), None);
    assert_eq!(queue.claim(0, 70), Some(66..70));
    assert_eq!(queue.claim(0, 70), None);
}

#[tokio::test(start_paused = true)]
async fn the_last_chunks_are_fetched_twice_when_that_is_sooner() {
    let queue = Queue::new([0..4], 1);
    enter(&queue, 0, 1000);
    queue.adopt(0, 0..4);
    enter(&queue, 1, 10);
    // Of the four seconds that the slow one needs, the fast one spares all but the first chunk's.
    assert_eq!(queue.claim(1, u64::MAX), Some(1..4));
    assert_eq!(queue.claim(1, u64::MAX), None);
    assert!(queue.received(1, 1));
    assert!(queue.received(0, 0));
    assert!(!queue.received(0, 1));
    assert!(queue.received(1, 2) && queue.received(1, 3));
    assert!(!queue.received(0, 2));
    // As fast as the other one, it does not help.
    let queue = Queue::new([0..1], 1);
    enter(&queue, 0, 10);
    queue.adopt(0, 0..1);
    enter(&queue, 1, 10);
    assert_eq!(queue.claim(1, u64::MAX), None);
    // A connection that has stopped does not keep the others waiting.
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(queue.claim(1, u64::MAX), Some(0..1));
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_connection_was_asked_for_is_free_again() {
    let queue = Queue::new([0..10], 1);
    enter(&queue, 0, 1000);
    enter(&queue, 1, 10);
    queue.adopt(0, 0..10);
    assert!(queue.received(0, 0));
    let doubled = queue.claim(1, u64::MAX).unwrap();
    assert_eq!(doubled.end, 10);
    queue.leave(0);
    assert_eq!(queue.free(), doubled.start - 1);
    queue.leave(1);
    assert_eq!(queue.free(), 9);
    queue.enter(2, Duration::ZERO);
    assert_eq!(queue.claim(2, u64::MAX).map(|run| run.start), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_chunk_is_free_again_unless_somebody_brings_it() {
    let queue = Queue::new([0..2], 1);
    enter(&queue, 0, 1000);
    queue.adopt(0, 0..2);
    assert!(queue.received(0, 0));
    queue.give_back(0);
    assert_eq!(queue.free(), 1);
    enter(&queue, 1, 10);
    assert_eq!(queue.claim(1, u64::MAX), Some(0..1));
    assert!(queue.received(1, 0));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(queue.claim(1, u64::MAX), Some(1..2));
    assert!(queue.received(1, 1));
    queue.give_back(1);
    assert_eq!(queue.free(), 0);
    assert!(queue.received(0, 1), "the other one is still to come");
}

/// What can happen to a queue.
#[derive(Debug, Clone)]
enum Step {
    Enter(usize),
    Leave(usize),
    Claim(usize),
    Receive(usize),
    Damage(u64),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_usize).prop_map(Step::Enter),
        (0..4_usize).prop_map(Step::Leave),
        (0..4_usize).prop_map(Step::Claim),
        (0..4_usize).prop_map(Step::Claim),
        (0..4_usize).prop_map(Step::Receive),
        (0..4_usize).prop_map(Step::Receive),
        (0..4_usize).prop_map(Step::Receive),
        any::<u64>().prop_map(Step::Damage),
        (0..3000_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever happens: every chunk that is not here is free or asked for, none is both, and none is lost.
    #[test]
    fn no_chunk_is_lost(steps in proptest::collection::vec(step(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(check(steps))?;
    }
}

async fn check(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let all: BTreeSet<u64> = (0..5).chain(9..60).collect();
    let queue = Queue::new([0..5, 9..60], 1);
    let mut here = BTreeSet::new();
    let mut asked: BTreeMap<usize, VecDeque<u64>> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Enter(id) if !asked.contains_key(&id) => {
                queue.enter(id, Duration::from_millis(1));
                asked.insert(id, VecDeque::new());
            }
            Step::Leave(id) => {
                queue.leave(id);
                asked.remove(&id);
            }
            Step::Claim(id) => {
                if let (Some(run), Some(asked)) = (queue.claim(id, u64::MAX), asked.get_mut(&id)) {
                    asked.extend(run);
                }
            }
            Step::Receive(id) => {
                if let Some(index) = asked.get_mut(&id).and_then(VecDeque::pop_front) {
                    let is_first = queue.received(id, index);
                    prop_assert_eq!(is_first, here.insert(index), "{}", index);
                }
            }
            Step::Damage(pick) if !here.is_empty() => {
                let index = *here.iter().nth(usize::try_from(pick).unwrap_or(0) % here.len()).unwrap();
                here.remove(&index);
                queue.give_back(index);
            }
            Step::Pass(ms) => tokio::time::advance(Duration::from_millis(ms)).await,
            _ => {}
        }
        let inner = queue.inner.borrow();
        let free: Vec<u64> = inner.free.iter().cloned().flatten().collect();
        let on_its_way: BTreeSet<u64> = asked.values().flatten().copied().collect();
        prop_assert!(free.is_sorted());
        prop_assert!(free.iter().all(|index| !here.contains(index) && !on_its_way.contains(index)));
        let known: BTreeSet<u64> = free.into_iter().chain(on_its_way).chain(here.iter().copied()).collect();
        prop_assert_eq!(&known, &all);
    }
    Ok(())
}
