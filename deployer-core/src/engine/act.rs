//! The backend calls of each step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::calls::{Access, Calls};
use super::looks::{LOOK, Looks, observe};
use crate::backend::{
    Backend, EnsureApp, EnsureRoutes, Launch, ObserveApp, ObservedTarget, Outcome, Reduce, RemoveApp, RemoveTask,
    RetainRoutes, SetInherited, SetTargets, SetWeights, StartTask, Target, TargetRegistration, TargetState,
};
use crate::error::{Error, ErrorKind, Result, Retry};
use crate::model::{AppName, InstanceId, Release, ReleaseNumber, RevisionId, ServiceName, ServiceRelease};
use crate::plan::{Action, Observed};

/// How long calls may take that change nothing or little.
pub(super) const SHORT: Duration = Duration::from_secs(30);
/// How long calls may take that start or stop something, beside grace periods.
const LONG: Duration = Duration::from_secs(180);

/// What the calls of one step need.
#[derive(Clone, Debug)]
pub(super) struct Act {
    pub(super) backend: Backend,
    pub(super) calls: Calls,
    pub(super) app: AppName,
    pub(super) key: String,
    pub(super) releases: Arc<BTreeMap<ReleaseNumber, Arc<Release>>>,
    pub(super) looks: Arc<Looks>,
    /// Whether a drain on which the step relies has failed.
    pub(super) drain_failed: bool,
}

impl Act {
    /// Makes the calls of a step. Steps that only wait make none.
    pub(super) async fn perform(&self, action: &Action) -> Result<Outcome> {
        match action {
            Action::Prepare { release } => {
                let release = self.release(*release)?;
                let shared = self.ensure_app(&release).await?;
                Ok(shared.and(self.ensure_routes(&release).await?))
            }
            Action::Launch { release, revision, instances } => {
                let release = self.release(*release)?;
                let (service, call) = (revision.service().clone(), self.calls.frame(&self.key, LONG));
                let request = Launch::new(call, release, service, revision.clone(), *instances);
                let launch = || self.backend.orchestrator.launch(request.clone());
                self.calls.make("orchestrator.launch", revision, Access::Change, LONG, launch).await
            }
            Action::RunHook { release, service, task, hook } => {
                let release = self.release(*release)?;
                let call = self.calls.frame(task.to_string(), LONG);
                let request = StartTask::new(call, task.clone(), release, service.clone(), hook.command.clone());
                let start = || self.backend.orchestrator.start_task(request.clone());
                self.calls.make("orchestrator.start_task", task, Access::Change, LONG, start).await
            }
            Action::Shift { service, weights, expected, releases, instances } => {
                self.shift(service, weights, expected, releases, *instances).await
            }
            Action::Drain { release, revision, keep, idle, .. } => self.drain(*release, revision, *keep, *idle).await,
            Action::Reduce { revision, keep, idle } => self.reduce(revision, *keep, *idle).await,
            Action::Tidy { release, pools } => self.tidy(*release, pools).await,
            Action::SetInherited { service, instances, state } => {
                let instances = instances.iter().map(|instance| instance.id.clone()).collect();
                let call = self.calls.frame(&self.key, LONG);
                let request = SetInherited::new(call, self.app.clone(), instances, *state);
                let set = || self.backend.orchestrator.set_inherited(request.clone());
                self.calls.make("orchestrator.set_inherited", service, Access::Change, LONG, set).await
            }
            Action::RemoveApp { volumes } => {
                self.forget_tasks().await?;
                let request = RemoveApp::new(self.calls.frame(&self.key, LONG), self.app.clone(), *volumes);
                let remove = || self.backend.orchestrator.remove_app(request.clone());
                self.calls.make("orchestrator.remove_app", &self.app, Access::Change, LONG, remove).await
            }
            Action::AwaitHealthy { .. } | Action::Ask { .. } | Action::Hold { .. } | Action::Verify { .. } => {
                Ok(Outcome::AlreadyThere)
            }
        }
    }

    /// Stop scripts that have run are in the way of what is removed.
    async fn forget_tasks(&self) -> Result<()> {
        for task in &self.observe().await?.app.tasks {
            let request = RemoveTask::new(self.calls.frame(&self.key, LONG), self.app.clone(), task.task.clone());
            let remove = || self.backend.orchestrator.remove_task(request.clone());
            self.calls.make("orchestrator.remove_task", &task.task, Access::Change, LONG, remove).await?;
        }
        Ok(())
    }

    async fn ensure_app(&self, release: &Arc<Release>) -> Result<Outcome> {
        let request = EnsureApp::new(self.calls.frame(&self.key, LONG), Arc::clone(release));
        let ensure = || self.backend.orchestrator.ensure_app(request.clone());
        self.calls.make("orchestrator.ensure_app", &self.app, Access::Change, LONG, ensure).await
    }

    async fn ensure_routes(&self, release: &Arc<Release>) -> Result<Outcome> {
        let request = EnsureRoutes::new(self.calls.frame(&self.key, LONG), Arc::clone(release));
        let ensure = || self.backend.balancer.ensure(request.clone());
        self.calls.make("balancer.ensure", &self.app, Access::Change, LONG, ensure).await
    }

    async fn shift(
        &self,
        service: &ServiceName,
        weights: &BTreeMap<RevisionId, u8>,
        expected: &[BTreeMap<RevisionId, u8>],
        releases: &BTreeMap<RevisionId, ReleaseNumber>,
        instances: u32,
    ) -> Result<Outcome> {
        let most = weights.values().max();
        let mut outcome = Outcome::AlreadyThere;
        let observed = self.observe().await?;
        let mut routing = observed.routing(service).cloned();
        if self.registers() {
            for revision in weights.iter().filter(|(_, weight)| **weight > 0).map(|(revision, _)| revision) {
                let Some(release) = releases.get(revision) else { continue };
                let release = self.release(*release)?;
                let wanted = release.services.get(service).map_or(0, |service| service.replicas);
                let targets: Vec<Target> = ready_targets(&observed, revision);
                let needed = if weights.get(revision) == most { instances.max(1) } else { 1 };
                if wanted > 0 && targets.len() < needed as usize {
                    let message = format!("{} of {needed} instances are ready to take the traffic", targets.len());
                    let error = Error::new(ErrorKind::Conflict, message);
                    return Err(error.with_resource(revision.to_string()).with_retry(Retry::Soon));
                }
                outcome = outcome.and(self.set_targets(&release, revision, targets, SHORT).await?);
            }
        }
        if outcome != Outcome::AlreadyThere {
            let observe = || self.backend.balancer.observe(&self.app);
            let fresh = self.calls.make("balancer.observe", &self.app, Access::Read, SHORT, observe).await?;
            routing = fresh.into_iter().find(|routing| routing.service == *service);
        }
        let routing = routing.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the load balancer does not know the service")
                .with_resource(service.as_str())
        })?;
        let current = routing.weights();
        let wanted: BTreeMap<_, _> = weights
            .iter()
            .filter(|(_, weight)| **weight > 0)
            .map(|(revision, weight)| (revision.clone(), *weight))
            .collect();
        if current == wanted {
            return Ok(outcome);
        }
        // A change that was stopped in the midst is gone on with.
        let known = |weights: &BTreeMap<_, _>| *weights == wanted || expected.contains(weights);
        let halfway = !routing.uneven.is_empty() && routing.uneven.iter().all(known);
        if !halfway && !expected.contains(&current) {
            let list = |weights: &BTreeMap<RevisionId, u8>| {
                let list: Vec<String> =
                    weights.iter().map(|(revision, weight)| format!("{revision} {weight} %")).collect();
                if list.is_empty() { "nothing".to_owned() } else { list.join(", ") }
            };
            return Err(Error::new(ErrorKind::Conflict, "somebody else has moved the traffic")
                .with_resource(service.as_str())
                .with_context("found", list(&current))
                .with_context("expected", expected.iter().map(list).collect::<Vec<_>>().join(" or "))
                .with_help("find out who moves weights by hand, then deploy again")
                // What was seen may be old: another look has to say so too.
                .with_retry(Retry::After(self.backend.orchestrator.capabilities().poll)));
        }
        let call = self.calls.frame(&self.key, SHORT);
        let request = SetWeights::new(call, self.app.clone(), service.clone(), wanted, routing.version);
        let set = || self.backend.balancer.set_weights(request.clone());
        self.calls.make("balancer.set_weights", service, Access::Change, SHORT, set).await?;
        Ok(outcome.and(Outcome::Changed))
    }

    /// Removes what nothing needs. What somebody has given traffic again by hand stays, and is reported.
    async fn tidy(&self, release: Option<ReleaseNumber>, pools: &[RevisionId]) -> Result<Outcome> {
        let release = release.map(|release| self.release(release)).transpose()?;
        let mut stays = pools.to_vec();
        let mut busy = None;
        if let Some(release) = &release {
            let observe = || self.backend.balancer.observe(&self.app);
            let routing = self.calls.make("balancer.observe", &self.app, Access::Read, SHORT, observe).await?;
            let kept = routing.iter().filter(|routing| release.services.contains_key(&routing.service));
            for pool in kept.flat_map(|routing| &routing.pools).filter(|pool| !pools.contains(&pool.revision)) {
                // Its instances could not be stopped, which was reported, or somebody wants them to serve.
                let works = |target: &ObservedTarget| {
                    target.state == TargetState::InService || target.in_flight.is_some_and(|requests| requests > 0)
                };
                if pool.weight > 0 || pool.targets.iter().any(works) {
                    stays.push(pool.revision.clone());
                }
                if pool.weight > 0 {
                    busy = Some(pool.revision.clone());
                }
            }
        }
        // What stays may be another in the next attempt, which then is another request.
        let extra: Vec<&str> = stays.iter().skip(pools.len()).map(RevisionId::hash).collect();
        let key = [self.key.as_str()].into_iter().chain(extra).collect::<Vec<_>>().join("-");
        let request = RetainRoutes::new(self.calls.frame(key, LONG), self.app.clone(), release, stays);
        let retain = || self.backend.balancer.retain(request.clone());
        let outcome = self.calls.make("balancer.retain", &self.app, Access::Change, LONG, retain).await?;
        busy.map_or(Ok(outcome), |revision| Err(has_traffic(&revision)))
    }

    async fn drain(&self, release: ReleaseNumber, revision: &RevisionId, keep: u32, idle: bool) -> Result<Outcome> {
        if !self.registers() {
            return Ok(Outcome::AlreadyThere);
        }
        let Ok(release) = self.release(release) else { return Ok(Outcome::AlreadyThere) };
        let observed = self.observe_alone().await?;
        let Some(pool) = observed.routing(revision.service()).and_then(|routing| routing.pool(revision)) else {
            return Ok(Outcome::AlreadyThere);
        };
        if idle && pool.weight > 0 {
            return Err(has_traffic(revision));
        }
        let mut targets = Vec::new();
        for (index, instance) in observed.instances(revision).enumerate() {
            let pooled = pool.targets.iter().any(|target| target.instance == instance.id);
            if let (Some(address), true) = (&instance.address, pooled) {
                let draining = index >= keep as usize;
                targets.push(Target { instance: instance.id.clone(), address: address.clone(), draining });
            }
        }
        self.set_targets(&release, revision, targets, SHORT).await
    }

    /// Puts instances into rotation beside what is there.
    pub(super) async fn register(
        &self,
        release: ReleaseNumber,
        revision: &RevisionId,
        instances: &[InstanceId],
    ) -> Result<Outcome> {
        let release = self.release(release)?;
        let observed = self.observe().await?;
        let Some(pool) = observed.routing(revision.service()).and_then(|routing| routing.pool(revision)) else {
            return Ok(Outcome::AlreadyThere);
        };
        let targets = observed.instances(revision).filter_map(|instance| {
            let known = pool.targets.iter().find(|target| target.instance == instance.id);
            let draining = known.is_some_and(|target| target.state == TargetState::Draining);
            let address = instance.address.clone().filter(|_| known.is_some() || instances.contains(&instance.id))?;
            Some(Target { instance: instance.id.clone(), address, draining })
        });
        self.set_targets(&release, revision, targets.collect(), LOOK).await
    }

    async fn reduce(&self, revision: &RevisionId, keep: u32, idle: bool) -> Result<Outcome> {
        self.check_drained(revision, keep, idle).await?;
        let grace = self.service_of(revision).map_or(Duration::ZERO, |(_, service)| service.workload.stop.grace);
        let timeout = LONG + grace;
        let request = Reduce::new(self.calls.frame(&self.key, timeout), self.app.clone(), revision.clone(), keep);
        let reduce = || self.backend.orchestrator.reduce(request.clone());
        let outcome = self.calls.make("orchestrator.reduce", revision, Access::Change, timeout, reduce).await?;
        let Some((release, service)) = self.service_of(revision) else { return Ok(outcome) };
        if !self.registers() || !service.listens() {
            return Ok(outcome);
        }
        // What is gone leaves the pool, and what stays is in rotation again should it have been draining.
        let observed = self.observe().await?;
        let Some(pool) = observed.routing(revision.service()).and_then(|routing| routing.pool(revision)) else {
            return Ok(outcome);
        };
        // One that was left out because it was not ready is not let in by the back door.
        let pooled = |id: &InstanceId| pool.targets.iter().any(|target| target.instance == *id);
        let staying = observed.instances(revision).take(keep as usize).filter(|instance| pooled(&instance.id));
        let targets = staying.filter_map(|instance| {
            let address = instance.address.clone()?;
            Some(Target { instance: instance.id.clone(), address, draining: false })
        });
        Ok(outcome.and(self.set_targets(&release, revision, targets.collect(), SHORT).await?))
    }

    /// Nothing is stopped that is given requests, even if the step that was to take it out of rotation could not.
    async fn check_drained(&self, revision: &RevisionId, keep: u32, idle: bool) -> Result<()> {
        let listens = self.service_of(revision).is_some_and(|(_, service)| service.listens());
        if !listens || !(self.registers() || idle) {
            return Ok(());
        }
        let observed = self.observe_alone().await?;
        let Some(pool) = observed.routing(revision.service()).and_then(|routing| routing.pool(revision)) else {
            return Ok(());
        };
        if idle && pool.weight > 0 {
            return Err(has_traffic(revision));
        }
        if !self.registers() {
            return Ok(());
        }
        let leaving: BTreeSet<&InstanceId> =
            observed.instances(revision).skip(keep as usize).map(|instance| &instance.id).collect();
        let busy = |target: &&ObservedTarget| {
            // Where nobody has waited for its requests to end, they must have.
            let works = self.drain_failed && target.in_flight.is_some_and(|requests| requests > 0);
            leaving.contains(&target.instance) && (target.state == TargetState::InService || works)
        };
        let Some(target) = pool.targets.iter().find(busy) else { return Ok(()) };
        Err(Error::new(ErrorKind::Conflict, "an instance that is to be stopped is in rotation or has requests")
            .with_resource(revision.to_string())
            .with_context("instance", target.instance.to_string())
            // What was seen may be old.
            .with_retry(Retry::Soon))
    }

    async fn set_targets(
        &self,
        release: &Arc<Release>,
        revision: &RevisionId,
        targets: Vec<Target>,
        timeout: Duration,
    ) -> Result<Outcome> {
        let Some(service) = release.services.get(revision.service()) else { return Ok(Outcome::AlreadyThere) };
        let (app, service) = (self.app.clone(), Arc::new(service.clone()));
        let call = self.calls.frame(&self.key, timeout);
        let request = SetTargets::new(call, app, revision.clone(), service, targets);
        let set = || self.backend.balancer.set_targets(request.clone());
        self.calls.make("balancer.set_targets", revision, Access::Change, timeout, set).await
    }

    /// Whether the engine puts instances into pools.
    fn registers(&self) -> bool {
        self.backend.balancer.capabilities().targets == TargetRegistration::Engine
    }

    async fn observe(&self) -> Result<Arc<Observed>> {
        Ok(self.looks.look(&self.backend, &self.calls).await?.observed)
    }

    /// A look that nobody shares, right before something is taken out of rotation or stopped: the calls of other steps between
    /// it and that would be time for somebody to give it traffic by hand.
    async fn observe_alone(&self) -> Result<Observed> {
        observe(&self.backend, &self.calls, ObserveApp::new(self.app.clone())).await
    }

    fn release(&self, number: ReleaseNumber) -> Result<Arc<Release>> {
        let release = self.releases.get(&number).map(Arc::clone);
        release.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("release {number} is not kept any more")))
    }

    fn service_of(&self, revision: &RevisionId) -> Option<(Arc<Release>, &ServiceRelease)> {
        self.releases.values().find_map(|release| {
            let service = release.services.get(revision.service())?;
            (service.revision(revision.service()) == *revision).then(|| (Arc::clone(release), service))
        })
    }
}

fn has_traffic(revision: &RevisionId) -> Error {
    Error::new(ErrorKind::Conflict, "somebody has given traffic to a revision that is to go")
        .with_resource(revision.to_string())
        .with_help("find out who moves weights by hand, then deploy again")
        // What is seen may be a moment old.
        .with_retry(Retry::Soon)
}

fn ready_targets(observed: &Observed, revision: &RevisionId) -> Vec<Target> {
    let ready = observed.instances(revision).filter(|instance| instance.is_ready());
    let targets = ready.filter_map(|instance| {
        let address = instance.address.clone()?;
        Some(Target { instance: instance.id.clone(), address, draining: false })
    });
    targets.collect()
}
