//! How a service moves from one revision to the next: strategy, readiness, gates, hooks, routes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::{millis, opt_millis};

/// How traffic and capacity move from the old revision to the new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Strategy {
    /// Stop the old, then start the new. The only one with downtime; forced for a service with a writable volume.
    Recreate,
    /// Replace a few instances at a time.
    Rolling {
        /// How many instances there may be beyond the wanted number.
        surge: u32,
        /// How many instances may be missing from the wanted number.
        unavailable: u32,
    },
    /// Start the whole new revision beside the old one, then move all traffic at once.
    BlueGreen {
        /// How long the new revision must hold with all traffic before the old one goes.
        #[serde(with = "millis")]
        bake: Duration,
        /// How long the old revision stays up without traffic afterwards, so that a rollback is only a weight change.
        #[serde(with = "millis")]
        keep_warm: Duration,
    },
    /// Start the whole new revision, then move traffic in steps of chosen size.
    Canary {
        /// The weights on the way to 100, rising, each with how long it is held.
        steps: Vec<CanaryStep>,
    },
    /// Start the whole new revision, then move traffic in equal steps.
    Linear {
        /// The percentage of traffic moved with each step.
        step: u8,
        /// How long each step is held.
        #[serde(with = "millis")]
        interval: Duration,
    },
}

impl Default for Strategy {
    /// Blue/green without bake or warm standby.
    fn default() -> Self {
        Self::BlueGreen { bake: Duration::ZERO, keep_warm: Duration::ZERO }
    }
}

impl Strategy {
    /// How long the old revision stays up without traffic after a promotion.
    #[must_use]
    pub fn keep_warm(&self) -> Duration {
        match self {
            Self::BlueGreen { keep_warm, .. } => *keep_warm,
            _ => Duration::ZERO,
        }
    }

    /// The strategy's name as it is written in files.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Recreate => "recreate",
            Self::Rolling { .. } => "rolling",
            Self::BlueGreen { .. } => "blue-green",
            Self::Canary { .. } => "canary",
            Self::Linear { .. } => "linear",
        }
    }
}

/// One step of [`Strategy::Canary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryStep {
    /// The percentage of traffic that the new revision gets, 1 to 100.
    pub weight: u8,
    /// How long it is held.
    #[serde(with = "millis")]
    pub hold: Duration,
}

/// When an instance counts as ready, and how long the engine waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Readiness {
    /// A probe from outside the instance. A check inside it ([`ContainerCheck`](super::ContainerCheck)) counts as well.
    pub probe: Option<Probe>,
    /// The time between two probes of an instance that serves; while one is awaited it is probed as fast as helps.
    #[serde(with = "millis")]
    pub interval: Duration,
    /// How long one probe may take.
    #[serde(with = "millis")]
    pub timeout: Duration,
    /// How long an instance must stay ready before it counts. None means not at all where something asks it, and one
    /// second where nothing does: that an instance runs says little in its first moments.
    #[serde(with = "opt_millis")]
    pub min_healthy: Option<Duration>,
    /// How long all instances of a step have to become ready.
    #[serde(with = "millis")]
    pub deadline: Duration,
    /// How long to wait when nothing changes at all; any progress starts it anew.
    #[serde(with = "opt_millis")]
    pub progress_deadline: Option<Duration>,
    /// How many times the instances of the revision may crash, all together, on their way to being ready before it
    /// counts as failed. One that crashes while a deployment holds, with traffic, always counts as failed.
    pub crashes_allowed: u32,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            probe: None,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            min_healthy: None,
            deadline: Duration::from_secs(120),
            progress_deadline: None,
            crashes_allowed: 2,
        }
    }
}

/// A question put to an instance from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Probe {
    /// A GET request must be answered with a status from 200 to 399.
    Http {
        /// The path, beginning with `/`.
        path: String,
        /// The port inside the instance.
        port: u16,
    },
    /// The port must accept a connection.
    Tcp {
        /// The port inside the instance.
        port: u16,
    },
}

impl Probe {
    /// The port it asks.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Http { port, .. } | Self::Tcp { port } => *port,
        }
    }
}

/// Where HTTP traffic from outside enters the application.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Route {
    /// The host name of the request; none matches every name that no other route names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The beginning of the path, by whole segments: `/api` matches `/api` and `/api/x`, not `/apix`.
    pub path: String,
    /// The port inside the instances that gets it.
    pub port: u16,
}

impl Route {
    /// Everything that comes in goes to this port of the service.
    #[must_use]
    pub fn new(port: u16) -> Self {
        Self { host: None, path: "/".into(), port }
    }

    /// Only requests for this host name.
    #[must_use]
    pub fn with_host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Only requests whose path begins so.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }
}

/// What must be true of a service before one that depends on it is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Its instances have been started.
    #[default]
    Started,
    /// Its instances are ready.
    Healthy,
}

/// A question that must be answered with yes before a deployment goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GateSpec {
    /// Its name in events and verdicts, unique within the service.
    pub name: String,
    /// What is asked.
    pub check: GateCheck,
    /// When it is asked.
    pub at: GatePoint,
    /// The time between two questions.
    #[serde(with = "millis")]
    pub interval: Duration,
    /// How many times the answer may be no before the deployment fails.
    pub failures_allowed: u32,
    /// What to do when nobody could tell until the end.
    pub on_inconclusive: OnInconclusive,
}

impl GateSpec {
    /// A gate asked every second; the first no fails the deployment, and so does never getting a clear answer.
    #[must_use]
    pub fn new(name: impl Into<String>, at: GatePoint, check: GateCheck) -> Self {
        Self {
            name: name.into(),
            check,
            at,
            interval: Duration::from_secs(1),
            failures_allowed: 0,
            on_inconclusive: OnInconclusive::Fail,
        }
    }

    /// Sets the time between two questions.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets how many times the answer may be no.
    #[must_use]
    pub fn with_failures_allowed(mut self, failures: u32) -> Self {
        self.failures_allowed = failures;
        self
    }

    /// Sets what to do when nobody could tell until the end.
    #[must_use]
    pub fn with_on_inconclusive(mut self, policy: OnInconclusive) -> Self {
        self.on_inconclusive = policy;
        self
    }
}

/// When a gate is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatePoint {
    /// When the new revision is ready and has no traffic yet.
    BeforeTraffic,
    /// Again and again while the deployment holds with traffic on the new revision.
    Holding,
}

/// What to do when a gate was inconclusive until the end of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnInconclusive {
    /// Fail the deployment.
    Fail,
    /// Go on as if it had passed.
    Proceed,
}

/// What a gate asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GateCheck {
    /// Sends a GET request to every instance of the new revision and looks at the answer.
    Smoke {
        /// The path, beginning with `/`.
        path: String,
        /// The port inside the instance.
        port: u16,
        /// The status that must come back.
        status: u16,
        /// Text that the body must contain.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        contains: Option<String>,
    },
    /// The share of answers with a status of 500 and above, by the load balancer's counters since the hold began.
    ErrorRate {
        /// The largest share that passes, in thousandths.
        max_permille: u16,
        /// Inconclusive below this many requests.
        min_requests: u64,
    },
    /// The mean time to answer, by the load balancer's counters.
    Latency {
        /// The longest mean that passes.
        #[serde(with = "millis")]
        max: Duration,
        /// Inconclusive below this many requests.
        min_requests: u64,
    },
    /// Waits until somebody promotes the deployment.
    Approval {
        /// How long to wait.
        #[serde(with = "millis")]
        timeout: Duration,
    },
    /// Asks a [`Gate`](crate::Gate) that the embedding program registered under this name.
    Callback {
        /// The name.
        name: String,
    },
}

/// Work at a named point of a deployment: a one-off task with the service's image, environment and networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Hook {
    /// Its name, unique within the service.
    pub name: String,
    /// When it runs.
    pub point: HookPoint,
    /// The command that replaces the service's; an empty one is the service's own.
    pub command: Vec<String>,
    /// How long it may take.
    #[serde(with = "millis")]
    pub timeout: Duration,
}

impl Hook {
    /// A hook with five minutes' time.
    pub fn new<I, S>(name: impl Into<String>, point: HookPoint, command: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self {
            name: name.into(),
            point,
            command: command.into_iter().map(Into::into).collect(),
            timeout: Duration::from_secs(300),
        }
    }

    /// Sets how long it may take.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// When a [`Hook`] runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookPoint {
    /// With the new image, after what the service depends on is there and before its new instances start; exactly once.
    PreDeploy,
    /// With the new image, when the new revision has all traffic and has held; failing it rolls back.
    PostDeploy,
    /// With the old image, when the old revision has no traffic any more and before its instances are stopped.
    PreStop,
}
