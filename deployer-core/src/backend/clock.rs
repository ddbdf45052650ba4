//! Time, as the engine sees it.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;

use crate::model::Timestamp;

/// Tells the time and lets it pass. The engine takes time from nowhere else, so that tests can hand it a virtual one.
#[async_trait]
pub trait Clock: Debug + Send + Sync {
    /// The time of day, as others see it too. Somebody may set it, back as well.
    fn now(&self) -> Timestamp;

    /// How much time has passed since some moment that stays the same as long as the clock lives. Nobody sets it: what
    /// is waited for is measured by it.
    fn elapsed(&self) -> Duration;

    /// Returns when so much time has passed. Cancel safe.
    async fn sleep(&self, duration: Duration);
}

/// This computer's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_system(SystemTime::now())
    }

    fn elapsed(&self) -> Duration {
        static BEGIN: OnceLock<Instant> = OnceLock::new();
        BEGIN.get_or_init(Instant::now).elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
