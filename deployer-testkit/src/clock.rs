//! The world's time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use deployer_core::{Clock, Timestamp};
use tokio::runtime::{Builder, Handle, Id};
use tokio::time::Instant;

use crate::world::shifted;

/// The time of a [`World`](crate::World). It stands still but for two things: sleeping on a tokio runtime whose time is
/// paused, and [`World::advance`](crate::World::advance).
///
/// A paused runtime moves its time to the next wake-up as soon as every task waits, however many there are; so hours
/// of heartbeats, polls and holds pass in microseconds, in the one order that they would have had. Start the runtime
/// with [`simulate`](crate::simulate) or `#[tokio::test(start_paused = true)]`. On a runtime that is not paused the world's
/// time passes like everybody's, and outside of a runtime not at all.
///
/// A world may outlive a runtime, as when a test kills the deployer's whole process: its time goes on from where it was.
#[derive(Debug)]
pub(crate) struct WorldClock {
    time: Mutex<Time>,
}

#[derive(Clone, Debug)]
struct Time {
    start: Timestamp,
    passed: Duration,
    /// By how many milliseconds the clocks that are shown differ from the world's.
    shown_later: i64,
    /// The runtime that was seen last, and its time then. Two runtimes' times have nothing to do with each other.
    seen: Option<(Id, Instant)>,
}

impl WorldClock {
    pub(crate) fn starting_at(start: Timestamp) -> Self {
        Self { time: Mutex::new(Time { start, passed: Duration::ZERO, shown_later: 0, seen: None }) }
    }

    /// Another clock that shows the same time.
    pub(crate) fn fork(&self) -> Self {
        self.read();
        Self { time: Mutex::new(self.time.lock().unwrap_or_else(PoisonError::into_inner).clone()) }
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.read();
        self.time.lock().unwrap_or_else(PoisonError::into_inner).passed += by;
    }

    /// Sets everybody's clock.
    pub(crate) fn shift(&self, by_millis: i64) {
        self.time.lock().unwrap_or_else(PoisonError::into_inner).shown_later += by_millis;
    }

    /// The world's own time, which nobody sets.
    pub(crate) fn read(&self) -> Timestamp {
        let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(runtime) = Handle::try_current() {
            let (id, instant) = (runtime.id(), Instant::now());
            if let Some((last_id, last)) = time.seen
                && last_id == id
            {
                time.passed += instant.saturating_duration_since(last);
            }
            time.seen = Some((id, instant));
        }
        time.start + time.passed
    }
}

#[async_trait]
impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        let time = self.read();
        shifted(time, self.time.lock().unwrap_or_else(PoisonError::into_inner).shown_later)
    }

    fn elapsed(&self) -> Duration {
        let time = self.read();
        time.since(self.time.lock().unwrap_or_else(PoisonError::into_inner).start)
    }

    async fn sleep(&self, duration: Duration) {
        // Reading marks where on this runtime's time the sleep begins, in case nobody has looked at the clock on it yet.
        self.read();
        tokio::time::sleep(duration).await;
        self.read();
    }
}

/// Runs a future on a runtime of its own whose time is paused, to its end: what it sleeps takes no time.
///
/// ```
/// use std::time::Duration;
/// use deployer_testkit::{World, simulate};
///
/// let world = World::new();
/// let (clock, before) = (world.clock(), world.now());
/// simulate(async { clock.sleep(Duration::from_secs(86_400)).await });
/// assert_eq!(world.now().since(before), Duration::from_secs(86_400));
/// ```
///
/// # Panics
/// If it is called on a runtime, or the future panics.
pub fn simulate<F: Future>(future: F) -> F::Output {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    match runtime {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => panic!("a runtime with nothing but timers cannot be made: {error}"),
    }
}
