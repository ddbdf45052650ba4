//! How a load balancer treats the instances of a service.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::{millis, opt_millis};

/// How a load balancer treats the instances of a service, where it can be told. The default is what the load balancer does by
/// itself. A rollback brings it back with everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Balancing {
    /// Over how long the share of requests of an instance that is new rises to that of the others. Zero means at once.
    #[serde(with = "millis")]
    pub slow_start: Duration,
    /// How long a caller's requests go to the instance that answered the first of them, as long as that serves; none means
    /// not at all.
    #[serde(with = "opt_millis")]
    pub sticky: Option<Duration>,
    /// How many probes in a row make an instance one that serves.
    pub healthy_after: Option<u8>,
    /// How many failed probes in a row take an instance that serves out of rotation.
    pub unhealthy_after: Option<u8>,
}

impl Balancing {
    /// Sets over how long the share of an instance that is new rises.
    #[must_use]
    pub fn with_slow_start(mut self, time: Duration) -> Self {
        self.slow_start = time;
        self
    }

    /// Lets callers stay with an instance for so long.
    #[must_use]
    pub fn with_sticky(mut self, time: Duration) -> Self {
        self.sticky = Some(time);
        self
    }

    /// Sets how many probes in a row make an instance one that serves, and how many one that does not.
    #[must_use]
    pub fn with_thresholds(mut self, healthy_after: u8, unhealthy_after: u8) -> Self {
        (self.healthy_after, self.unhealthy_after) = (Some(healthy_after), Some(unhealthy_after));
        self
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
