//! Bringing traffic to instances.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Call, Outcome};
use crate::error::Result;
use crate::model::{AppName, InstanceId, Release, RevisionId, Route, ServiceName, ServiceRelease};

/// Keeps, for every service that listens, one pool of targets for each revision and the weights between the pools.
///
/// It serves routes from outside and, where the orchestrator does not do that itself, calls between services by name:
/// both follow the same weights and targets.
#[async_trait]
pub trait LoadBalancer: Debug + Send + Sync {
    /// What the planner must know about it.
    fn capabilities(&self) -> BalancerCapabilities;

    /// Makes every entry that the release needs exist: routes, published ports, internal names. Adds and updates only;
    /// weights and targets stay as they are. All of it or nothing. A route or port that moves from one service of the
    /// application to another is the new one's as soon as that has weight.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if another application has the same route,
    /// [`Exhausted`](crate::ErrorKind::Exhausted) if an address is taken by another application or program, naming which
    /// if that can be told.
    async fn ensure(&self, request: EnsureRoutes) -> Result<Outcome>;

    /// What is there for an application: one element for each service that has an entry.
    ///
    /// # Errors
    /// Only if the balancer cannot be asked.
    async fn observe(&self, app: &AppName) -> Result<Vec<ObservedRouting>>;

    /// Makes the pool of a revision hold exactly these targets. A pool that did not exist begins with weight 0. Targets
    /// that are draining get no new requests and keep those in flight; targets left out are dropped at once, and what they
    /// still work on may be cut off. Does not change the version of the weights.
    ///
    /// Called only where [`BalancerCapabilities::targets`] is [`TargetRegistration::Engine`].
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if the service has no entry.
    async fn set_targets(&self, request: SetTargets) -> Result<Outcome>;

    /// Sets the weights of a service's pools in one step: no request sees a mixture of before and after. Pools that are
    /// not named get weight 0.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if the version is not the expected one: somebody else moved weights. Not
    /// if the weights are the wanted ones already: a repetition expects a version that its own effect has outdated.
    /// [`NotFound`](crate::ErrorKind::NotFound) if the service has no entry, or a revision that is to get weight no pool.
    async fn set_weights(&self, request: SetWeights) -> Result<Outcome>;

    /// Removes every entry and pool of the application that the release does not have; all of them without a release.
    ///
    /// # Errors
    /// Only if the balancer cannot be asked or fails to write.
    async fn retain(&self, request: RetainRoutes) -> Result<Outcome>;
}

/// What the planner must know about a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BalancerCapabilities {
    /// Who puts instances into pools.
    pub targets: TargetRegistration,
    /// For how long after a change of weights or targets requests may still go where they went before; zero where a
    /// change holds for every request that comes after it was answered. So long the engine waits before it relies on a
    /// change: nothing that may still get requests is stopped.
    pub propagation: Duration,
    /// Whether calls between services by name follow weights and targets as well. Where they do not, the platform takes
    /// them to any instance that is ready, and a service without routes has no entry, no weights and no share of traffic.
    pub internal: bool,
}

impl BalancerCapabilities {
    /// Capabilities of a balancer whose targets are registered so.
    #[must_use]
    pub const fn new(targets: TargetRegistration) -> Self {
        Self { targets, propagation: Duration::ZERO, internal: true }
    }

    /// Says that calls between services by name are none of its business.
    #[must_use]
    pub const fn without_internal(mut self) -> Self {
        self.internal = false;
        self
    }

    /// Sets for how long requests may still go where they went before a change.
    #[must_use]
    pub const fn with_propagation(mut self, propagation: Duration) -> Self {
        self.propagation = propagation;
        self
    }
}

/// Who puts instances into pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetRegistration {
    /// The engine does, through [`LoadBalancer::set_targets`].
    Engine,
    /// The orchestrator does when it starts and stops instances.
    Orchestrator,
}

/// Asks for the entries of a release.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EnsureRoutes {
    /// Key and deadline.
    pub call: Call,
    /// The release whose services need entries.
    pub release: Arc<Release>,
}

impl EnsureRoutes {
    /// Asks for the entries of this release.
    #[must_use]
    pub fn new(call: Call, release: Arc<Release>) -> Self {
        Self { call, release }
    }
}

/// Asks for a pool with exactly these targets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SetTargets {
    /// Key and deadline.
    pub call: Call,
    /// The application.
    pub app: AppName,
    /// The revision whose pool it is.
    pub revision: RevisionId,
    /// The service as that revision has it; its ports and routes say where the targets listen.
    pub service: Arc<ServiceRelease>,
    /// The targets.
    pub targets: Vec<Target>,
}

impl SetTargets {
    /// Asks for a pool with exactly these targets.
    #[must_use]
    pub fn new(
        call: Call,
        app: AppName,
        revision: RevisionId,
        service: Arc<ServiceRelease>,
        targets: Vec<Target>,
    ) -> Self {
        Self { call, app, revision, service, targets }
    }
}

/// One instance in a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The instance.
    pub instance: InstanceId,
    /// Where it is reached: an address without a port, because all instances of a service listen on the same ports.
    pub address: String,
    /// Whether it shall get no new requests.
    pub draining: bool,
}

/// Asks for weights.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SetWeights {
    /// Key and deadline.
    pub call: Call,
    /// The application.
    pub app: AppName,
    /// The service.
    pub service: ServiceName,
    /// The percentage of new requests for each pool.
    pub weights: BTreeMap<RevisionId, u8>,
    /// The version that was observed before; the call fails if it is not the current one.
    pub expected: PoolVersion,
}

impl SetWeights {
    /// Asks for these weights if the version is still the expected one.
    #[must_use]
    pub fn new(
        call: Call,
        app: AppName,
        service: ServiceName,
        weights: BTreeMap<RevisionId, u8>,
        expected: PoolVersion,
    ) -> Self {
        Self { call, app, service, weights, expected }
    }
}

/// Asks to remove what a release does not have.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RetainRoutes {
    /// Key and deadline.
    pub call: Call,
    /// The application.
    pub app: AppName,
    /// What stays; nothing, if there is none.
    pub release: Option<Arc<Release>>,
    /// The revisions whose pools stay.
    pub pools: Vec<RevisionId>,
}

impl RetainRoutes {
    /// Asks to keep only the entries of this release and the pools of these revisions.
    #[must_use]
    pub fn new(call: Call, app: AppName, release: Option<Arc<Release>>, pools: Vec<RevisionId>) -> Self {
        Self { call, app, release, pools }
    }
}

/// An opaque token that changes whenever somebody changes the weights of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PoolVersion(pub String);

/// How traffic reaches one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ObservedRouting {
    /// The service.
    pub service: ServiceName,
    /// The version of its weights.
    pub version: PoolVersion,
    /// Its routes from outside.
    pub routes: Vec<Route>,
    /// Its pools.
    pub pools: Vec<ObservedPool>,
    /// The different weights that its routes and ports have, if they do not all have the same: whoever changed them was stopped in
    /// the midst, or somebody else has changed some. The pools have the mean then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uneven: Vec<BTreeMap<RevisionId, u8>>,
}

impl ObservedRouting {
    /// A service with an entry and no pools yet.
    #[must_use]
    pub fn new(service: ServiceName, version: PoolVersion, routes: Vec<Route>, pools: Vec<ObservedPool>) -> Self {
        Self { service, version, routes, pools, uneven: Vec::new() }
    }

    /// Adds the different weights of its routes and ports.
    #[must_use]
    pub fn with_uneven(mut self, uneven: Vec<BTreeMap<RevisionId, u8>>) -> Self {
        self.uneven = uneven;
        self
    }

    /// The weights of the pools that have any.
    #[must_use]
    pub fn weights(&self) -> BTreeMap<RevisionId, u8> {
        let weighted = self.pools.iter().filter(|pool| pool.weight > 0);
        weighted.map(|pool| (pool.revision.clone(), pool.weight)).collect()
    }

    /// The pool of a revision, if there is one.
    #[must_use]
    pub fn pool(&self, revision: &RevisionId) -> Option<&ObservedPool> {
        self.pools.iter().find(|pool| pool.revision == *revision)
    }
}

/// The targets of one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ObservedPool {
    /// The revision.
    pub revision: RevisionId,
    /// Its percentage of new requests.
    pub weight: u8,
    /// Its targets.
    pub targets: Vec<ObservedTarget>,
    /// What has gone through it, if that is counted.
    pub counters: Option<Counters>,
}

impl ObservedPool {
    /// A pool with these targets.
    #[must_use]
    pub fn new(revision: RevisionId, weight: u8, targets: Vec<ObservedTarget>) -> Self {
        Self { revision, weight, targets, counters: None }
    }

    /// Adds what has gone through it.
    #[must_use]
    pub fn with_counters(mut self, counters: Counters) -> Self {
        self.counters = Some(counters);
        self
    }
}

/// One target as the load balancer sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedTarget {
    /// The instance.
    pub instance: InstanceId,
    /// What the balancer does with it.
    pub state: TargetState,
    /// Requests or connections that it is working on; none if the balancer cannot tell.
    pub in_flight: Option<u64>,
    /// Why it is not in service, in the balancer's words.
    pub reason: Option<String>,
}

/// What the load balancer does with a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetState {
    /// Registered, and its health is not known yet.
    Starting,
    /// Gets requests by the weight of its pool.
    InService,
    /// Gets no new requests and finishes those in flight.
    Draining,
    /// Does not answer the balancer's own check.
    Down,
}

/// What has gone through a pool since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests answered.
    pub requests: u64,
    /// Requests answered with a status of 500 and above, or not at all.
    pub errors: u64,
    /// The mean time to answer over the latest requests.
    pub mean_latency: Option<Duration>,
}
