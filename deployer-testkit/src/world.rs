//! The simulated world: one place where everything is that the fakes act on.

mod assertions;
mod capacity;
mod hands;
pub(crate) mod images;
pub(crate) mod instances;
pub(crate) mod random;
pub(crate) mod routing;
pub(crate) mod shape;
pub(crate) mod state;
mod stories;
pub(crate) mod strict;
pub(crate) mod traffic;
pub(crate) mod verdicts;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deployer_core::{
    AppName, Backend, Call, Clock, Deployer, Digest, Error, ErrorKind, Inherited, Published, Release, Result,
    RevisionId, ServiceName, TargetRegistration, TaskId, Timestamp,
};

pub(crate) use self::hands::shifted;
pub use self::shape::{RevisionShape, Shape};
use self::state::State;
use self::strict::{Rule, Violation};
use self::traffic::{Traffic, TrafficReport};
use crate::clock::WorldClock;
use crate::fakes::{FakeBalancer, FakeBuilder, FakeOrchestrator, FakeRegistry, MemoryStore};
use crate::scenario::Behaviour;

/// A simulated place to run applications: images, instances, pools, requests, and a clock of its own.
///
/// Cloning it is cheap and makes another handle to the same world.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    clock: Arc<WorldClock>,
    state: Mutex<State>,
    store: Arc<MemoryStore>,
}

/// What kind of world it is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Decides the order of answers that have none.
    pub seed: u64,
    /// Who puts instances into pools. With [`TargetRegistration::Orchestrator`] the orchestrator also takes them out of
    /// rotation and lets them finish, and [`drains`](deployer_core::OrchestratorCapabilities::drains) says so.
    pub targets: TargetRegistration,
    /// How long the load balancer takes to notice that a target does not answer. Requests given to it until then are
    /// lost.
    pub detection: Duration,
    /// How long an orchestrator that drains lets an instance finish its requests.
    pub drain: Duration,
    /// How long a change of weights or targets takes to reach whatever passes requests on. They can be observed at once;
    /// requests go where they went before until then. Nothing unless it is set.
    pub propagation: Duration,
    /// How many hosts there are to run instances on; one unless it is set. Many hosts are a cluster whose calls are
    /// answered as long as one of them is up.
    pub hosts: u32,
    /// How many instances there may be of all applications together; no limit unless it is set.
    pub most_instances: Option<u32>,
    /// How many pools there may be of all applications together; no limit unless it is set.
    pub most_pools: Option<u32>,
    /// How many calls are answered; the others are refused as throttled. No limit unless it is set.
    pub rate: Option<Rate>,
    /// How often the engine shall look while it waits for something. Looking takes most of the time that a simulation
    /// takes.
    pub poll: Duration,
}

/// How many calls of orchestrator, load balancer and registry are answered: a token bucket, as cloud platforms have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many calls can be made at once after a while without any.
    pub burst: u32,
    /// How many more can be made each second.
    pub per_second: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            targets: TargetRegistration::Engine,
            detection: Duration::from_secs(1),
            drain: Duration::from_secs(10),
            propagation: Duration::ZERO,
            hosts: 1,
            most_instances: None,
            most_pools: None,
            rate: None,
            poll: Duration::from_millis(100),
        }
    }
}

impl Options {
    /// Sets the seed that decides the order of answers that have none.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets who puts instances into pools.
    #[must_use]
    pub fn with_targets(mut self, targets: TargetRegistration) -> Self {
        self.targets = targets;
        self
    }

    /// Sets how long the load balancer takes to notice that a target does not answer.
    #[must_use]
    pub fn with_detection(mut self, detection: Duration) -> Self {
        self.detection = detection;
        self
    }

    /// Sets how long an orchestrator that drains lets an instance finish its requests.
    #[must_use]
    pub fn with_drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }

    /// Sets how long a change of weights or targets takes to reach whatever passes requests on.
    #[must_use]
    pub fn with_propagation(mut self, propagation: Duration) -> Self {
        self.propagation = propagation;
        self
    }

    /// Sets how many hosts there are.
    #[must_use]
    pub fn with_hosts(mut self, hosts: u32) -> Self {
        self.hosts = hosts.max(1);
        self
    }

    /// Sets how many instances and how many pools there may be.
    #[must_use]
    pub fn with_quotas(mut self, instances: u32, pools: u32) -> Self {
        (self.most_instances, self.most_pools) = (Some(instances), Some(pools));
        self
    }

    /// Sets how many calls are answered.
    #[must_use]
    pub fn with_rate(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// An empty world like a single host: the engine registers targets.
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(Options::default())
    }

    /// An empty world of this kind.
    #[must_use]
    pub fn with_options(options: Options) -> Self {
        // 2026-01-01: any fixed day will do; a real one reads better in failures than 1970.
        let start = Timestamp::from_millis(1_767_225_600_000);
        Self(Arc::new(Inner {
            clock: Arc::new(WorldClock::starting_at(start)),
            state: Mutex::new(State::new(start, options)),
            store: Arc::new(MemoryStore::new()),
        }))
    }

    /// Another world that is as this one is now, with a clock and a store of its own. What was prepared once can be
    /// tried many times.
    #[must_use]
    pub fn fork(&self) -> Self {
        let state = self.lock().clone();
        let (clock, store) = (Arc::new(self.0.clock.fork()), Arc::new(self.0.store.fork()));
        Self(Arc::new(Inner { clock, state: Mutex::new(state), store }))
    }

    /// Fakes of all five traits that act on this world.
    #[must_use]
    pub fn backend(&self) -> Backend {
        Backend::new(
            "simulated world",
            Arc::new(FakeBuilder::new(self.clone())),
            Arc::new(FakeRegistry::new(self.clone())),
            Arc::new(FakeOrchestrator::new(self.clone())),
            Arc::new(FakeBalancer::new(self.clone())),
            self.store(),
        )
    }

    /// A deployer for this world, with nothing set but [`backend`](Self::backend) and [`clock`](Self::clock). Whoever has
    /// gates, secrets or a [`FaultPlan`](crate::FaultPlan) hands these two to [`Deployer::builder`].
    #[must_use]
    pub fn deployer(&self) -> Deployer {
        Deployer::builder(self.backend()).clock(self.clock()).build()
    }

    /// The store of [`backend`](Self::backend).
    #[must_use]
    pub fn store(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.0.store)
    }

    /// The world's clock, to hand to the engine.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::<WorldClock>::clone(&self.0.clock)
    }

    /// The time in the world, which no setting of clocks changes.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.clock.read()
    }

    /// Lets time pass at once, without waiting; sleepers are not woken earlier for it. For tests that are not async, and
    /// for making the clock jump under a deployment.
    pub fn advance(&self, by: Duration) {
        self.0.clock.advance(by);
        drop(self.lock());
    }

    /// Adds an image under this reference to the registry, unless there is one.
    pub fn add_image(&self, reference: &str) -> Digest {
        let mut state = self.lock();
        let known = state.images.digest_of(reference).cloned();
        known.unwrap_or_else(|| state.images.push(reference))
    }

    /// Puts a new image behind a reference, one that says it listens on these ports. The old one can still be run by its
    /// digest; the new one behaves as its service does until [`on_image`](Self::on_image) says otherwise.
    pub fn replace_image(&self, reference: &str, ports: &[u16]) -> Digest {
        let mut state = self.lock();
        let digest = state.images.push(reference);
        if let Some(row) = state.images.rows.get_mut(&digest) {
            row.exposed_ports = ports.to_vec();
        }
        digest
    }

    /// Loses the image of this reference: it can be neither resolved nor run any more.
    pub fn lose_image(&self, reference: &str) {
        let mut state = self.lock();
        if let Some(digest) = state.images.digest_of(reference).cloned()
            && let Some(row) = state.images.rows.get_mut(&digest)
        {
            row.runnable = false;
        }
    }

    /// Says how the image of this reference behaves, and adds the image if it is not there yet.
    pub fn on_image(&self, reference: &str, behaviour: Behaviour) {
        let mut state = self.lock();
        let known = state.images.digest_of(reference).cloned();
        let digest = known.unwrap_or_else(|| state.images.push(reference));
        state.behaviours.by_image.push((digest, behaviour));
    }

    /// Says how services behave that have this environment variable with this value, whatever their image.
    pub fn on_env(&self, name: impl Into<String>, value: impl Into<String>, behaviour: Behaviour) {
        self.lock().behaviours.by_env.push((name.into(), value.into(), behaviour));
    }

    /// Says how a service behaves whose image has no behaviour of its own.
    pub fn on_service(&self, service: impl Into<String>, behaviour: Behaviour) {
        self.lock().behaviours.by_service.push((service.into(), behaviour));
    }

    /// Says how one-off tasks behave whose command has this word.
    pub fn on_command(&self, word: impl Into<String>, behaviour: Behaviour) {
        self.lock().behaviours.by_command.push((word.into(), behaviour));
    }

    /// Makes builds for this service fail with this line, or succeed again without one.
    pub fn break_build(&self, service: impl Into<String>, error: Option<&str>) {
        let mut state = self.lock();
        match error {
            Some(error) => state.images.broken_builds.insert(service.into(), error.into()),
            None => state.images.broken_builds.remove(&service.into()),
        };
    }

    /// Makes a build context one that does not exist.
    pub fn lose_context(&self, context: impl Into<String>) {
        self.lock().images.missing_contexts.insert(context.into());
    }

    /// Changes the files in a build context, so that the next build makes another image.
    pub fn touch_context(&self, context: impl Into<String>) {
        *self.lock().images.generations.entry(context.into()).or_default() += 1;
    }

    /// Makes a service one that cannot run here, for this reason: what a backend says that does not have what it wants.
    pub fn cannot_run(&self, service: impl Into<String>, why: impl Into<String>) {
        self.lock().unsupported.insert(service.into(), why.into());
    }

    /// Puts an instance into the world that another tool has started for a service, which runs or has ended.
    ///
    /// # Panics
    /// If one of the names is none.
    pub fn inherit(&self, app: &str, service: &str, name: &str, running: bool) {
        let (Ok(app), Ok(service)) = (AppName::new(app), ServiceName::new(service)) else {
            panic!("{app} or {service} is no name");
        };
        let mut state = self.lock();
        let (id, _) = state.new_instance_id();
        let inherited = Inherited::new(id, name, service, "another tool", running);
        state.inherited.entry(app).or_default().push(inherited);
    }

    /// Lets another program listen on a port of the host.
    pub fn occupy_port(&self, port: u16, program: impl Into<String>) {
        self.lock().foreign_ports.insert(Published { ip: None, port }, program.into());
    }

    /// Begins to send requests, from now on.
    pub fn start_traffic(&self, traffic: Traffic) {
        let mut state = self.lock();
        let now = state.now;
        state.traffic.start(traffic, now);
    }

    /// Sends no more requests; those in flight go on.
    pub fn stop_traffic(&self) {
        self.lock().traffic.stop();
    }

    /// What became of every request so far, or since [`watch_traffic`](Self::watch_traffic).
    #[must_use]
    pub fn traffic_report(&self) -> TrafficReport {
        self.lock().traffic.report()
    }

    /// Counts requests from now on, and forgets those that have ended; those in flight count as sent.
    pub fn watch_traffic(&self) {
        self.lock().traffic.start_anew();
    }

    /// The least number of a service's instances that could serve (ready, in rotation, in a pool with weight) at any
    /// moment since it first could, or since [`watch_capacity`](Self::watch_capacity), and when that was.
    #[must_use]
    pub fn least_capacity(&self, app: &str, service: &str) -> Option<(u32, Timestamp)> {
        self.lock().capacity.least(app, service)
    }

    /// Watches the capacity of all services from now on, and forgets what was before.
    pub fn watch_capacity(&self) {
        let mut state = self.lock();
        let now = state.now;
        state.capacity.start_anew(now);
    }

    /// How often a one-off task was really executed.
    #[must_use]
    pub fn executions(&self, app: &str, task: &TaskId) -> u32 {
        let state = self.lock();
        let mut rows = state.executions.iter();
        rows.find(|((owner, id), _)| owner.as_str() == app && id == task).map_or(0, |(_, count)| *count)
    }

    /// The revisions of an application that are written down: launched once, and not forgotten since.
    #[must_use]
    pub fn definitions(&self, app: &str) -> Vec<RevisionId> {
        let state = self.lock();
        let written = state.definitions.iter().filter(|(owner, _)| owner.as_str() == app);
        written.flat_map(|(_, revisions)| revisions).cloned().collect()
    }

    /// Every rule that was broken so far.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.lock().violations.clone()
    }

    /// The world as it is now.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        let now = self.0.clock.read();
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.advance(now);
        state.shown = self.0.clock.now();
        state
    }

    /// The world as it is now, for a call that its platform may refuse to answer.
    pub(crate) fn reach(&self, operation: &'static str, resource: &str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        state.spend(operation, resource)?;
        Ok(state)
    }

    /// The world as it is now, for a change to an application.
    pub(crate) fn enter(
        &self,
        app: &AppName,
        operation: &'static str,
        resource: &str,
        call: &Call,
        inputs: &str,
    ) -> Result<MutexGuard<'_, State>> {
        let mut state = self.reach(operation, resource)?;
        if self.0.store.is_leased(app, state.shown) == Some(false) {
            state.violate(Rule::LeaseIsHeld, format!("{operation} {resource} without an unexpired lease of {app}"));
        }
        state.admit(operation, resource, call, inputs)?;
        Ok(state)
    }

    /// The hash of a release's content.
    pub(crate) fn content_of(&self, release: &Arc<Release>) -> Digest {
        self.lock().seen(release).content.clone()
    }

    /// Checks a release against the store, as far as the store has anything to do with its application.
    pub(crate) fn check_release(&self, state: &mut State, operation: &str, release: &Arc<Release>) {
        let seen = state.seen(release);
        if seen.is_stored && self.0.store.holds(&release.app, release.number) {
            return;
        }
        let Some(stored) = self.0.store.stored(&release.app, release.number) else { return };
        seen.is_stored = stored.as_ref() == Some(release);
        if !seen.is_stored {
            let what = if stored.is_some() { "another content" } else { "no release" };
            let detail = format!("{operation} with {} of {}: the store has {what}", release.number, release.app);
            state.violate(Rule::ReleaseIsStored, detail);
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

/// A fake's error, with what every error of a backend must have.
pub(crate) fn failure(operation: &'static str, resource: &str, kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::new(kind, message.into()).with_operation(operation).with_resource(resource)
}
