//! Answers that are good for a moment: what is looked at by several at once, or again a moment later, is asked for once.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use deployer_core::Result;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Answers by key.
pub(crate) struct Cache<T> {
    cells: Lock<HashMap<String, Arc<Cell<T>>>>,
}

struct Cell<T> {
    /// Rises with every change of this process of which is not known what it has done.
    changes: AtomicU64,
    held: Mutex<Option<Held<T>>>,
}

struct Held<T> {
    value: T,
    until: Instant,
    changes: u64,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { cells: Lock::default() }
    }
}

impl<T> fmt::Debug for Cache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

impl<T: Clone> Cache<T> {
    fn cell(&self, key: &str) -> Arc<Cell<T>> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = cells.get(key) {
            return Arc::clone(cell);
        }
        let cell = Arc::new(Cell { changes: AtomicU64::new(0), held: Mutex::new(None) });
        cells.insert(key.to_owned(), Arc::clone(&cell));
        cell
    }

    /// The answer that is held, or a new one, which says how long it may be held. Who asks while it is being fetched waits
    /// for it. Cancel safe.
    pub(crate) async fn get(&self, key: &str, fetch: impl Future<Output = Result<(T, Duration)>>) -> Result<T> {
        let cell = self.cell(key);
        let mut held = cell.held.lock().await;
        let changes = cell.changes.load(Ordering::Acquire);
        if let Some(held) = held.as_ref().filter(|held| held.changes == changes && Instant::now() < held.until) {
            return Ok(held.value.clone());
        }
        let asked = Instant::now();
        let (value, good_for) = fetch.await?;
        // What was changed meanwhile may be in it or not: then it is good for this once.
        *held = Some(Held { value: value.clone(), until: asked + good_for, changes });
        Ok(value)
    }

    /// Something is about to be changed: nothing is good any more that was held until this is dropped, unless it is told
    /// what was [made](Changing::made) of it.
    pub(crate) fn changing(&self, key: &str) -> Changing<T> {
        Changing { cell: self.cell(key), made: false }
    }
}

/// A change that is under way. A request that nobody waits for any more may have its effect, so it ends when it is
/// dropped, for whatever reason.
#[must_use]
pub(crate) struct Changing<T> {
    cell: Arc<Cell<T>>,
    made: bool,
}

impl<T> Changing<T> {
    /// The change was made: what is held is good as before, once this is applied to it and says that it is. Not so if
    /// somebody fetches it at this moment, or something else was changed.
    pub(crate) fn made(mut self, apply: impl FnOnce(&mut T) -> bool) {
        let Ok(mut held) = self.cell.held.try_lock() else { return };
        let changes = self.cell.changes.load(Ordering::Acquire);
        if let Some(held) = held.as_mut().filter(|held| held.changes == changes) {
            self.made = apply(&mut held.value);
        }
    }
}

impl<T> Drop for Changing<T> {
    fn drop(&mut self) {
        if !self.made {
            self.cell.changes.fetch_add(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_held_until_it_is_old_or_something_changes() {
        let (cache, asked) = (Cache::default(), Cell::new(0));
        let ask = async || {
            let fetch = async {
                asked.set(asked.get() + 1);
                Ok((asked.get(), Duration::from_secs(1)))
            };
            cache.get("web", fetch).await.unwrap()
        };
        assert_eq!((ask().await, ask().await), (1, 1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((ask().await, ask().await), (2, 2));
        let changing = cache.changing("web");
        assert_eq!(ask().await, 2);
        drop(changing);
        assert_eq!((ask().await, ask().await), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_of_a_change_need_not_be_asked_for() {
        let cache = Cache::default();
        let ask = async |answer: u32| cache.get("web", async { Ok((answer, Duration::from_secs(1))) }).await.unwrap();
        let add = |value: &mut u32| {
            *value += 10;
            true
        };
        assert_eq!(ask(1).await, 1);
        cache.changing("web").made(add);
        assert_eq!(ask(2).await, 11);
        // It is no younger for that.
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(ask(3).await, 3);
        let (one, other) = (cache.changing("web"), cache.changing("web"));
        one.made(add);
        assert_eq!(ask(4).await, 13);
        drop(other);
        assert_eq!(ask(5).await, 5);
        // Nor is it good if it had nothing to apply the change to.
        cache.changing("web").made(|_| false);
        assert_eq!(ask(6).await, 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_beside_one_of_which_nothing_is_known_is_asked_for() {
        let cache = Cache::default();
        let ask = async |answer: u32| cache.get("web", async { Ok((answer, Duration::from_secs(1))) }).await.unwrap();
        assert_eq!(ask(1).await, 1);
        let (one, other) = (cache.changing("web"), cache.changing("web"));
        drop(other);
        one.made(|_| true);
        assert_eq!(ask(2).await, 2);
        // What is being fetched may be from before the change.
        drop(cache.changing("web"));
        let fetched = cache.get("web", async {
            cache.changing("web").made(|_| true);
            Ok((3, Duration::from_secs(1)))
        });
        assert_eq!(fetched.await.unwrap(), 3);
        assert_eq!(ask(4).await, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_as_old_as_its_question() {
        let cache = Cache::default();
        let slow = cache.get("web", async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            Ok((1, Duration::from_secs(1)))
        });
        assert_eq!(slow.await.unwrap(), 1);
        tokio::time::advance(Duration::from_millis(600)).await;
        assert_eq!(cache.get("web", async { Ok((2, Duration::from_secs(1))) }).await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_while_it_is_fetched_is_fetched_again() {
        let cache = Cache::default();
        let first = cache.get("web", async {
            drop(cache.changing("web"));
            Ok((1, Duration::from_secs(1)))
        });
        assert_eq!(first.await.unwrap(), 1);
        assert_eq!(cache.get("web", async { Ok((2, Duration::from_secs(1))) }).await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_at_the_same_time_shares_the_answer() {
        let (cache, asked) = (Cache::default(), Cell::new(0));
        let ask = || {
            cache.get("web", async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                asked.set(asked.get() + 1);
                Ok((asked.get(), Duration::from_secs(1)))
            })
        };
        let (one, other) = tokio::join!(ask(), ask());
        assert_eq!((one.unwrap(), other.unwrap()), (1, 1));
    }
}
