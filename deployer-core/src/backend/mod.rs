//! The seams: what a place to run must be able to do, as five traits and three small ones beside them.
//!
//! Rules that hold for every method, so that each does not repeat them:
//!
//! - **Idempotency.** Mutating requests describe the wanted state ("this revision has 3 instances"), not a change.
//!   Calling again with the same request has no further effect and answers [`Outcome::AlreadyThere`]. The
//!   [`Call::key`] is equal for repetitions of one step, so that backends that need a client token have one.
//! - **Observing nothing is not an error.** What does not exist is an empty answer.
//! - **No waiting.** A backend translates, classifies errors and observes. Waiting for health, draining and retrying
//!   belong to the engine, because they are journaled. Stopping an instance may take its grace period.
//! - **Errors.** The [kind](crate::ErrorKind), the [effect](crate::Effect) and the [retry](crate::Retry) advice must be
//!   right: the engine acts on them. A dropped reply is [`Effect::Unknown`](crate::Effect::Unknown).
//! - **Cancel safety.** Dropping a future of a mutating method leaves the effect unknown and must leave nothing that a
//!   repetition of the call would trip over.

mod balancer;
mod builder;
mod clock;
mod gate;
mod intercept;
mod logs;
mod orchestrator;
mod registry;
mod secrets;
mod store;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use balancer::{
    BalancerCapabilities, Counters, EnsureRoutes, LoadBalancer, ObservedPool, ObservedRouting, ObservedTarget,
    PoolVersion, RetainRoutes, SetTargets, SetWeights, Target, TargetRegistration, TargetState,
};
pub use builder::{BuildImage, BuiltImage, ImageBuilder, Progress, ProgressSink};
pub use clock::{Clock, SystemClock};
pub use gate::{Gate, GateAnswer, GateQuestion};
pub use intercept::{CallInfo, Intercept, Invocation, Next};
pub use logs::{LogLine, LogQuery, LogStream, OutputStream};
pub use orchestrator::{
    EnsureApp, ExitDetail, Health, Inherited, InheritedState, InstancePhase, Launch, ObserveApp, ObservedApp,
    ObservedInstance, ObservedTask, Orchestrator, OrchestratorCapabilities, PruneRevisions, Reduce, RemoveApp,
    RemoveTask, SetInherited, SmokeAnswer, SmokeRequest, StartTask, TaskId,
};
pub use registry::{PruneImages, PublishImage, Registry, ResolveImage};
pub use secrets::{NoSecrets, SecretValue, Secrets};
pub use store::{
    AcquireLease, Append, DeploymentQuery, Lease, LeaseHolder, ReleaseQuery, ReleaseStore, SendSignal, Signal,
};

use crate::model::Timestamp;

/// The frame of one mutating call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// Equal for all repetitions of one step, different for all others.
    pub key: String,
    /// When the engine stops waiting for the answer, by its clock, and drops the call. A backend need not look at it.
    pub deadline: Timestamp,
}

impl Call {
    /// A call with this key and deadline.
    #[must_use]
    pub fn new(key: impl Into<String>, deadline: Timestamp) -> Self {
        Self { key: key.into(), deadline }
    }
}

/// What a mutating call really did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It did not exist and was made.
    Created,
    /// Everything was as wanted.
    AlreadyThere,
    /// It existed and was changed.
    Changed,
}

impl Outcome {
    /// What two parts of one call did together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::AlreadyThere, other) => other,
            (this, Self::AlreadyThere) => this,
            (Self::Created, Self::Created) => Self::Created,
            _ => Self::Changed,
        }
    }
}

/// A place to run applications: one implementation of each trait.
#[derive(Clone)]
#[non_exhaustive]
pub struct Backend {
    /// Its name in plans and events, such as `docker on this host`.
    pub name: String,
    /// Builds images.
    pub builder: Arc<dyn ImageBuilder>,
    /// Keeps images.
    pub registry: Arc<dyn Registry>,
    /// Runs instances.
    pub orchestrator: Arc<dyn Orchestrator>,
    /// Brings traffic to instances.
    pub balancer: Arc<dyn LoadBalancer>,
    /// Keeps releases, journals and leases.
    pub store: Arc<dyn ReleaseStore>,
}

impl Backend {
    /// Puts the five parts together.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        builder: Arc<dyn ImageBuilder>,
        registry: Arc<dyn Registry>,
        orchestrator: Arc<dyn Orchestrator>,
        balancer: Arc<dyn LoadBalancer>,
        store: Arc<dyn ReleaseStore>,
    ) -> Self {
        Self { name: name.into(), builder, registry, orchestrator, balancer, store }
    }

    /// The same place with another release store.
    #[must_use]
    pub fn with_store(mut self, store: Arc<dyn ReleaseStore>) -> Self {
        self.store = store;
        self
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("name", &self.name).finish_non_exhaustive()
    }
}
