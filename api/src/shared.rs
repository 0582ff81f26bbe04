//! Answers that several viewers want at the same time: worked out once, kept for a moment, bounded in number and bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::Answer;

/// Most answers kept.
const ANSWERS_MAX: usize = 256;
/// Most bytes of answers kept.
const BYTES_MAX: usize = 32 << 20;

/// How much memory a kept answer takes.
pub trait Weight {
    /// Its bytes, about.
    fn bytes(&self) -> usize;
}

/// Answers by question. Nothing in it survives a restart, and anything in it may be dropped at any time.
pub struct Shared<T> {
    slots: Mutex<HashMap<String, Arc<Slot<T>>>>,
    turn: AtomicU64,
}

/// One question. Whoever works on it holds the lock; the others wait for the same answer.
struct Slot<T> {
    last: tokio::sync::Mutex<Option<Made<T>>>,
    used: AtomicU64,
    bytes: AtomicUsize,
}

/// An answer, a problem included, and when the work on it began.
struct Made<T> {
    began: Instant,
    answer: Answer<Arc<T>>,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Shared { slots: Mutex::new(HashMap::new()), turn: AtomicU64::new(0) }
    }
}

impl<T: Weight> Shared<T> {
    /// The answer to `key`: one that was begun at most `age_ms` before this call, or else what `work` gives.
    pub async fn get(&self, key: String, age_ms: u64, work: impl Future<Output = Answer<T>>) -> Answer<Arc<T>> {
        let arrived = Instant::now();
        let slot = self.slot(key);
        let mut last = slot.last.lock().await;
        let young = |made: &&Made<T>| made.began + Duration::from_millis(age_ms) >= arrived;
        if let Some(made) = last.as_ref().filter(young) {
            return made.answer.clone();
        }
        let began = Instant::now();
        let answer = work.await.map(Arc::new);
        slot.bytes.store(answer.as_ref().map_or(0, |answer| answer.bytes()), Ordering::Relaxed);
        *last = Some(Made { began, answer: answer.clone() });
        drop(last);
        self.let_go();
        answer
    }

    fn slot(&self, key: String) -> Arc<Slot<T>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let new = || {
            Arc::new(Slot {
                last: tokio::sync::Mutex::new(None),
                used: AtomicU64::new(turn),
                bytes: AtomicUsize::new(0),
            })
        };
        let slot = self.slots.lock().entry(key).or_insert_with(new).clone();
        slot.used.store(turn, Ordering::Relaxed);
        slot
    }

    /// Lets go of what was used longest ago until the bounds hold.
    fn let_go(&self) {
        let mut slots = self.slots.lock();
        let mut bytes: usize = slots.values().map(|slot| slot.bytes.load(Ordering::Relaxed)).sum();
        while slots.len() > ANSWERS_MAX || bytes > BYTES_MAX {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.used.load(Ordering::Relaxed));
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { return };
            let gone = slots.remove(&key);
            bytes -= gone.map_or(0, |slot| slot.bytes.load(Ordering::Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;
    use crate::error::Problem;

    impl Weight for usize {
        fn bytes(&self) -> usize {
            *self
        }
    }

    #[tokio::test]
    async fn who_asks_at_the_same_time_gets_one_answer() {
        let (shared, count) = (Shared::<usize>::default(), AtomicUsize::new(0));
        let work = || async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(count.fetch_add(1, Ordering::Relaxed) + 1)
        };
        let answers = join_all((0..20).map(|_| shared.get("q".into(), 1_000, work()))).await;
        assert!(answers.iter().all(|answer| **answer.as_ref().unwrap() == 1));
        assert_eq!(*shared.get("other".into(), 1_000, work()).await.unwrap(), 2);
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(*shared.get("q".into(), 0, work()).await.unwrap(), 3, "an old answer is not taken");
    }

    #[tokio::test]
    async fn a_problem_is_shared_and_a_caller_who_left_does_no_harm() {
        let shared = Shared::<usize>::default();
        let problem = || async { Err(Problem::busy("full: wait")) };
        assert!(shared.get("q".into(), 1_000, problem()).await.is_err());
        assert!(shared.get("q".into(), 1_000, async { Ok(1) }).await.is_err());
        let left = shared.get("r".into(), 1_000, std::future::pending());
        assert!(tokio::time::timeout(Duration::from_millis(5), left).await.is_err());
        assert_eq!(*shared.get("r".into(), 1_000, async { Ok(1) }).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn number_and_bytes_are_bounded() {
        let shared = Shared::<usize>::default();
        for key in 0..ANSWERS_MAX + 50 {
            shared.get(key.to_string(), 0, async { Ok(1) }).await.unwrap();
        }
        assert_eq!(shared.slots.lock().len(), ANSWERS_MAX);
        shared.get("large".into(), 0, async { Ok(BYTES_MAX - 10) }).await.unwrap();
        assert!(shared.slots.lock().len() <= 11);
        assert!(shared.slots.lock().contains_key("large"));
    }
}
