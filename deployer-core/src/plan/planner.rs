//! What both planners share: the request, the list of steps under construction, the order of services.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::difference;
use super::observed::Observed;
use super::step::{Action, ChangeKind, Plan, ServiceChange, Step, StepId, StepWeight};
use super::{backward, forward};
use crate::backend::{Inherited, InheritedState, TaskId};
use crate::model::{
    AppName, DeploymentId, Hook, HookPoint, InstanceId, Release, ReleaseNumber, RevisionId, ServiceName,
    ServiceRelease, Strategy,
};

/// How long requests in flight may take where nothing else is known.
const USUAL_DRAIN: Duration = Duration::from_secs(10);

/// What a plan is computed from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlanRequest<'a> {
    /// The application.
    pub app: &'a AppName,
    /// The deployment; hooks' task ids are made from it.
    pub deployment: &'a DeploymentId,
    /// The release that shall serve; none, if nothing shall be left.
    pub target: Option<&'a Release>,
    /// The release that serves now, as far as the store knows.
    pub baseline: Option<&'a Release>,
    /// The release that served before the baseline, whose revisions may still be up without traffic.
    pub standby: Option<&'a Release>,
    /// What is there.
    pub observed: &'a Observed,
    /// Revisions without traffic that stay up so that a rollback to them is only a weight change.
    pub warm: &'a BTreeSet<RevisionId>,
    /// Whether the orchestrator takes instances out of rotation by itself.
    pub drains: bool,
    /// Whether calls between services by name follow the load balancer's weights.
    pub internal: bool,
    /// Whether volumes go too when nothing shall be left.
    pub volumes: bool,
    /// Whether the revisions of the baseline have served, so that their stop scripts run before they are stopped.
    pub baseline_served: bool,
    /// Whether the orchestrator changes the number of instances by itself where a service wants that.
    pub scales: bool,
    /// Whether traffic is better off on half of the wanted capacity than where it is now.
    pub haste: bool,
    /// What another tool has started and a deployment has stopped that did not come to its end: it runs again if this one
    /// is given up too.
    pub stopped: &'a BTreeSet<InstanceId>,
}

static NOTHING: BTreeSet<InstanceId> = BTreeSet::new();

impl<'a> PlanRequest<'a> {
    /// A request with nothing warm, for an orchestrator that does not drain.
    #[must_use]
    pub fn new(
        app: &'a AppName,
        deployment: &'a DeploymentId,
        target: Option<&'a Release>,
        baseline: Option<&'a Release>,
        observed: &'a Observed,
        warm: &'a BTreeSet<RevisionId>,
    ) -> Self {
        Self {
            app,
            deployment,
            target,
            baseline,
            observed,
            warm,
            standby: None,
            drains: false,
            internal: true,
            volumes: false,
            baseline_served: true,
            scales: false,
            haste: true,
            stopped: &NOTHING,
        }
    }

    /// Says whether the orchestrator takes instances out of rotation by itself.
    #[must_use]
    pub fn with_drains(mut self, drains: bool) -> Self {
        self.drains = drains;
        self
    }

    /// Says whether calls between services by name follow the load balancer's weights.
    #[must_use]
    pub fn with_internal(mut self, internal: bool) -> Self {
        self.internal = internal;
        self
    }

    /// Says whether the orchestrator changes the number of instances by itself where a service wants that.
    #[must_use]
    pub fn with_scales(mut self, scales: bool) -> Self {
        self.scales = scales;
        self
    }

    /// Says which release served before the baseline.
    #[must_use]
    pub fn with_standby(mut self, standby: Option<&'a Release>) -> Self {
        self.standby = standby;
        self
    }

    /// Says that the baseline is a release that failed before it served in earnest.
    #[must_use]
    pub fn with_failed_baseline(mut self) -> Self {
        self.baseline_served = false;
        self
    }

    /// Says whether traffic is better off on half of the wanted capacity than where it is now: what has it is broken.
    #[must_use]
    pub fn with_haste(mut self, haste: bool) -> Self {
        self.haste = haste;
        self
    }

    /// Says what another tool has started and a deployment has stopped that did not come to its end.
    #[must_use]
    pub fn with_stopped(mut self, stopped: &'a BTreeSet<InstanceId>) -> Self {
        self.stopped = stopped;
        self
    }

    /// Says whether volumes go too when nothing shall be left.
    #[must_use]
    pub fn with_volumes(mut self, volumes: bool) -> Self {
        self.volumes = volumes;
        self
    }
}

/// Plans the way to a new release by the strategies of its services, with hooks and gates.
#[must_use]
pub fn plan_forward(request: &PlanRequest<'_>) -> Plan {
    match request.target {
        Some(target) => forward::plan(request, target),
        None => backward::plan(request),
    }
}

/// Plans the way back to a release that was good, or to nothing: traffic first, onto capacity that is observed to be
/// healthy; without hooks, gates and canary steps.
#[must_use]
pub fn plan_back(request: &PlanRequest<'_>) -> Plan {
    backward::plan(request)
}

/// A plan under construction.
pub(super) struct Draft<'a> {
    pub(super) request: &'a PlanRequest<'a>,
    pub(super) steps: Vec<Step>,
    pub(super) notes: Vec<String>,
    /// The weights that each service has once the steps so far are done.
    weights: BTreeMap<ServiceName, BTreeMap<RevisionId, u8>>,
    /// The revisions that are stopped on the way, each with the step that does it.
    gone: BTreeMap<RevisionId, StepId>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(request: &'a PlanRequest<'a>) -> Self {
        Self { request, steps: Vec::new(), notes: Vec::new(), weights: BTreeMap::new(), gone: BTreeMap::new() }
    }

    /// Adds a required step.
    pub(super) fn step(&mut self, after: &[StepId], action: Action) -> StepId {
        self.add(after, StepWeight::Required, action)
    }

    /// Adds a step of this weight.
    pub(super) fn add(&mut self, after: &[StepId], weight: StepWeight, action: Action) -> StepId {
        let id = StepId(u32::try_from(self.steps.len()).unwrap_or(u32::MAX));
        let after: BTreeSet<StepId> = after.iter().copied().collect();
        self.steps.push(Step { id, after: after.into_iter().collect(), weight, action });
        id
    }

    /// Adds the move of a service's traffic, from the weights that the step before it leaves.
    pub(super) fn shift(
        &mut self,
        after: &[StepId],
        service: &ServiceName,
        weights: BTreeMap<RevisionId, u8>,
        releases: BTreeMap<RevisionId, ReleaseNumber>,
        instances: u32,
    ) -> StepId {
        let before = self.weights.insert(service.clone(), weights.clone());
        let before = before.unwrap_or_else(|| self.request.observed.weights(service));
        let action = Action::Shift { service: service.clone(), weights, expected: vec![before], releases, instances };
        self.step(after, action)
    }

    /// Adds one after the other the hooks of a service for a point, and answers what the next step waits for.
    pub(super) fn hooks(
        &mut self,
        mut after: Vec<StepId>,
        weight: StepWeight,
        release: ReleaseNumber,
        (name, service): (&ServiceName, &ServiceRelease),
        point: HookPoint,
    ) -> Vec<StepId> {
        for hook in service.hooks.iter().filter(|hook| hook.point == point) {
            let action = Action::RunHook {
                release,
                service: name.clone(),
                task: task_id(self.request.deployment, name, release, hook),
                hook: hook.clone(),
            };
            after = vec![self.add(&after, weight, action)];
        }
        after
    }

    /// Adds the way out for a revision that has no traffic any more: out of rotation, stop script, stopped.
    pub(super) fn retire(
        &mut self,
        after: &[StepId],
        weight: StepWeight,
        revision: &RevisionId,
        fallback: ReleaseNumber,
    ) -> StepId {
        let name = revision.service();
        let known = self.release_with(revision);
        // Where the service stays and listens, its traffic has moved to another revision before.
        let stays = self.request.target.and_then(|target| target.services.get(name));
        let idle = weight == StepWeight::CleanUp && stays.is_some_and(ServiceRelease::listens);
        let mut after = self.drain(after, weight, revision, fallback, (0, idle));
        // Only a revision that has served has anything to say on its way out.
        let is = |other: Option<&Release>, release: &Release| other.is_some_and(|other| other.number == release.number);
        if let Some(release) = known
            && ((self.request.baseline_served && is(self.request.baseline, release))
                || is(self.request.standby, release))
            && let Some(service) = release.services.get(name)
        {
            after = self.hooks(after, weight, release.number, (name, service), HookPoint::PreStop);
        }
        self.add(&after, weight, Action::Reduce { revision: revision.clone(), keep: 0, idle })
    }

    /// Adds the way out for a revision that must be gone before something else starts, unless it has been added before.
    /// Answers what that waits for.
    pub(super) fn make_way(&mut self, after: &[StepId], revision: &RevisionId, fallback: ReleaseNumber) -> Vec<StepId> {
        if let Some(step) = self.gone.get(revision) {
            return after.iter().copied().chain([*step]).collect();
        }
        let step = self.retire(after, StepWeight::Required, revision, fallback);
        self.gone.insert(revision.clone(), step);
        vec![step]
    }

    /// The steps that stop revisions on the way.
    pub(super) fn ways_made(&self) -> Vec<StepId> {
        self.gone.values().copied().collect()
    }

    /// Whether a revision is stopped on the way already.
    pub(super) fn is_gone(&self, revision: &RevisionId) -> bool {
        self.gone.contains_key(revision)
    }

    /// Adds the end of the instances that are more than the release wants. Those that stay must be ready by then.
    pub(super) fn fewer(
        &mut self,
        after: &[StepId],
        weight: StepWeight,
        release: &Release,
        name: &ServiceName,
    ) -> Option<StepId> {
        let service = release.services.get(name)?;
        let (revision, keep) = (service.revision(name), wanted(self.request, name, service));
        if self.request.observed.count(&revision) <= keep {
            return None;
        }
        let after = self.drain(after, weight, &revision, release.number, (keep, false));
        Some(self.add(&after, weight, Action::Reduce { revision, keep, idle: false }))
    }

    /// Adds the draining of all instances but `keep`, where somebody has to do it; `idle` says that they must have no
    /// traffic any more.
    pub(super) fn drain(
        &mut self,
        after: &[StepId],
        weight: StepWeight,
        revision: &RevisionId,
        fallback: ReleaseNumber,
        (keep, idle): (u32, bool),
    ) -> Vec<StepId> {
        let release = self.release_with(revision);
        let service = release.and_then(|release| release.services.get(revision.service()));
        let routing = self.request.observed.routing(revision.service());
        // Two releases with the same revision may differ in whether it listens: what is in rotation counts, and what
        // this plan puts there.
        let pooled = routing.and_then(|routing| routing.pool(revision)).is_some_and(|pool| !pool.targets.is_empty())
            || self.weights.get(revision.service()).is_some_and(|weights| weights.contains_key(revision));
        let known = self.releases_with(revision);
        let mut services = known.filter_map(|release| release.services.get(revision.service()));
        let listens = routing.is_some() && (release.is_none() || services.any(ServiceRelease::listens));
        if self.request.drains || !(pooled || listens) {
            return after.to_vec();
        }
        // Of a release that is neither of the two, only what is usual is known.
        let timeout = service.map_or(USUAL_DRAIN, ServiceRelease::effective_drain);
        let release = release.map_or(fallback, |release| release.number);
        vec![self.add(after, weight, Action::Drain { release, revision: revision.clone(), keep, timeout, idle })]
    }

    /// Adds the end of what another tool has started of the target's services, before anything needs its ports, addresses
    /// and volumes; what it has of others is left alone. Answers what the next step waits for.
    pub(super) fn take_over(&mut self, target: &Release) -> Vec<StepId> {
        let stopped = self.request.stopped;
        let inherited = self.inherited(target, |one| one.running || stopped.contains(&one.id));
        let all: Vec<Inherited> = inherited.values().flatten().cloned().collect();
        let Some(first) = all.first() else { return Vec::new() };
        let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        self.notes.push(format!(
            "{} has started {}: stopped first, so that nothing answers until the release does, and started again should it \
             fail",
            first.tool,
            names.join(", ")
        ));
        for one in all.iter().filter(|one| !one.unnamed_volumes.is_empty()) {
            self.notes.push(format!(
                "what {} has written to {} is in a volume without a name, and stays there: the release begins with an empty \
                 one",
                one.name,
                one.unnamed_volumes.join(" and ")
            ));
        }
        let mut steps: BTreeMap<ServiceName, StepId> = BTreeMap::new();
        for service in in_order(target).into_iter().rev() {
            let Some(instances) = inherited.get(service) else { continue };
            let goal = BTreeSet::from([service]);
            let callers = steps.iter().filter(|(other, _)| reaches(target, other, &goal)).map(|(_, step)| *step);
            let callers: Vec<StepId> = callers.collect();
            let action = set_inherited(service, instances, InheritedState::Stopped);
            steps.insert(service.clone(), self.step(&callers, action));
        }
        steps.into_values().collect()
    }

    /// Adds the return of what another tool had started and was stopped on the way to the release that is given up.
    pub(super) fn give_back(&mut self, after: &[StepId], weight: StepWeight) -> Vec<StepId> {
        let Some(given_up) = self.request.baseline else { return Vec::new() };
        let stopped = self.request.stopped;
        let inherited = self.inherited(given_up, |one| stopped.contains(&one.id));
        let mut steps: BTreeMap<ServiceName, StepId> = BTreeMap::new();
        for service in in_order(given_up) {
            let Some(instances) = inherited.get(service) else { continue };
            let needs = |other: &ServiceName| reaches(given_up, service, &BTreeSet::from([other]));
            let needed = steps.iter().filter(|(other, _)| needs(other)).map(|(_, step)| *step);
            let after: Vec<StepId> = after.iter().copied().chain(needed).collect();
            let action = set_inherited(service, instances, InheritedState::Running);
            steps.insert(service.clone(), self.add(&after, weight, action));
        }
        steps.into_values().collect()
    }

    /// Adds the removal of what another tool had started of the target's services, as far as it is not wanted any more.
    pub(super) fn discard_inherited(
        &mut self,
        after: &[StepId],
        target: &Release,
        unwanted: impl Fn(&Inherited) -> bool,
    ) -> Vec<StepId> {
        let inherited = self.inherited(target, unwanted);
        let removed = inherited.iter().map(|(service, instances)| {
            self.add(after, StepWeight::CleanUp, set_inherited(service, instances, InheritedState::Removed))
        });
        removed.collect()
    }

    /// What another tool has started of each service of a release, as far as it is wanted.
    fn inherited(
        &self,
        release: &Release,
        wanted: impl Fn(&Inherited) -> bool,
    ) -> BTreeMap<ServiceName, Vec<Inherited>> {
        let mut found: BTreeMap<ServiceName, Vec<Inherited>> = BTreeMap::new();
        for one in &self.request.observed.app.inherited {
            if release.services.contains_key(&one.service) && wanted(one) {
                found.entry(one.service.clone()).or_default().push(one.clone());
            }
        }
        found
    }

    /// Adds the wait until so many instances of a service are ready.
    pub(super) fn await_healthy(
        &mut self,
        after: &[StepId],
        (name, service): (&ServiceName, &ServiceRelease),
        instances: u32,
    ) -> StepId {
        let (revision, readiness) = (service.revision(name), service.effective_readiness());
        let all = is_scaled(self.request, service) && !matches!(service.strategy, Strategy::Rolling { .. });
        self.step(after, Action::AwaitHealthy { revision, instances, readiness, all })
    }

    /// Revisions of other services that write to a volume of this service and run, those excepted that the target has
    /// itself: services of one release that share a volume do so at their own risk.
    pub(super) fn rivals(&self, name: &ServiceName, service: &ServiceRelease) -> Vec<RevisionId> {
        let volumes: BTreeSet<&str> = service.workload.exclusive_volumes().collect();
        if volumes.is_empty() {
            return Vec::new();
        }
        let stays = |revision: &RevisionId| {
            let service = self.request.target.and_then(|target| target.services.get(revision.service()));
            service.is_some_and(|service| service.revision(revision.service()) == *revision)
        };
        let writes = |revision: &RevisionId| {
            let service = self.release_with(revision).and_then(|release| release.services.get(revision.service()));
            service.is_some_and(|service| service.workload.exclusive_volumes().any(|volume| volumes.contains(volume)))
        };
        let others = self.request.observed.services().into_iter().filter(|other| other != name);
        let revisions = others.flat_map(|other| self.request.observed.revisions(&other).into_keys());
        revisions.filter(|revision| !stays(revision) && writes(revision)).collect()
    }

    /// The services of the target whose volumes a revision of this service writes to that has to go.
    pub(super) fn heirs(&self, name: &ServiceName) -> Vec<&'a ServiceName> {
        let Some(target) = self.request.target else { return Vec::new() };
        let claims = |(other, service): &(&ServiceName, &ServiceRelease)| {
            *other != name && self.rivals(other, service).iter().any(|rival| rival.service() == name)
        };
        target.services.iter().filter(claims).map(|(other, _)| other).collect()
    }

    /// The release, of those that are known, that has this revision.
    pub(super) fn release_with(&self, revision: &RevisionId) -> Option<&'a Release> {
        self.releases_with(revision).next()
    }

    fn releases_with<'r>(&self, revision: &'r RevisionId) -> impl Iterator<Item = &'a Release> + use<'a, 'r> {
        let has = move |release: &&Release| {
            release.services.get(revision.service()).is_some_and(|s| s.revision(revision.service()) == *revision)
        };
        let (baseline, target) = (self.request.baseline, self.request.target);
        baseline.into_iter().chain(target).chain(self.request.standby).filter(has)
    }

    pub(super) fn finish(self, changes: Vec<ServiceChange>) -> Plan {
        Plan {
            app: self.request.app.clone(),
            target: self.request.target.map(|release| release.number),
            changes,
            steps: self.steps,
            notes: self.notes,
            basis: self.request.observed.fingerprint(),
        }
    }
}

/// The id of a hook's task: the same however often the step is tried. Old and new release may have hooks of one name.
fn task_id(deployment: &DeploymentId, service: &ServiceName, release: ReleaseNumber, hook: &Hook) -> TaskId {
    let id = deployment.as_str();
    let short = id.get(id.len().saturating_sub(10)..).unwrap_or(id);
    TaskId(format!("{service}-{}-{release}-{short}", hook.name))
}

/// The revision of a service that has traffic now, or instances if it gets no traffic, other than `except`. If there are
/// several it is the baseline's, else the one with the most.
pub(super) fn serving(
    observed: &Observed,
    service: &ServiceName,
    baseline: Option<&Release>,
    except: Option<&RevisionId>,
) -> Option<RevisionId> {
    let weights = observed.weights(service);
    let good = baseline.and_then(|baseline| baseline.services.get(service)).map(|known| known.revision(service));
    if let Some(good) =
        good.filter(|good| Some(good) != except && weights.contains_key(good) && observed.ready(good) > 0)
    {
        return Some(good);
    }
    let weighted = weights.into_iter().filter(|(revision, _)| Some(revision) != except);
    let weighted = weighted.max_by_key(|(_, weight)| *weight).map(|(revision, _)| revision);
    let known = || {
        let revision = baseline?.services.get(service)?.revision(service);
        (Some(&revision) != except && observed.count(&revision) > 0).then_some(revision)
    };
    let running = || {
        let revisions = observed.revisions(service).into_keys().filter(|revision| Some(revision) != except);
        revisions.max_by_key(|revision| observed.count(revision))
    };
    weighted.or_else(known).or_else(running)
}

/// Whether the platform changes the number of a service's instances.
pub(super) fn is_scaled(request: &PlanRequest<'_>, service: &ServiceRelease) -> bool {
    request.scales && service.scaling.is_some()
}

/// How many instances a service shall have: as many as the release says; where the platform scales it, as many as there are
/// if it serves already, else no fewer than serve now.
pub(super) fn wanted(request: &PlanRequest<'_>, name: &ServiceName, service: &ServiceRelease) -> u32 {
    let Some(scaling) = service.scaling.as_ref().filter(|_| request.scales) else { return service.replicas };
    let observed = request.observed;
    let weights = observed.weights(name);
    let serves = |revision: &RevisionId| weights.is_empty() || weights.contains_key(revision);
    let serving: Vec<RevisionId> = observed.revisions(name).into_keys().filter(serves).collect();
    if serving == [service.revision(name)] {
        // Its bounds may have changed.
        return observed.count(&serving[0]).clamp(scaling.min, scaling.max.max(scaling.min));
    }
    let counts = serving.iter().map(|revision| observed.count(revision));
    let baseline = request.baseline.and_then(|baseline| baseline.services.get(name));
    let rolls = |service: &ServiceRelease| matches!(service.strategy, Strategy::Rolling { .. });
    // What rolls is served by both together; otherwise each could bear it alone.
    let now = if rolls(service) || baseline.is_some_and(rolls) { counts.sum() } else { counts.max().unwrap_or(0) };
    service.replicas.max(now)
}

/// The services of a release, each after those that it depends on.
pub(super) fn in_order(release: &Release) -> Vec<&ServiceName> {
    fn visit<'a>(
        release: &'a Release,
        name: &'a ServiceName,
        seen: &mut BTreeSet<&'a ServiceName>,
        order: &mut Vec<&'a ServiceName>,
    ) {
        if seen.insert(name)
            && let Some(service) = release.services.get(name)
        {
            for dependency in service.depends_on.keys() {
                visit(release, dependency, seen, order);
            }
            order.push(name);
        }
    }
    let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
    for name in release.services.keys() {
        visit(release, name, &mut seen, &mut order);
    }
    order
}

/// Whether a service is one of these or depends on one of them, directly or not.
pub(super) fn reaches(release: &Release, service: &ServiceName, goal: &BTreeSet<&ServiceName>) -> bool {
    let mut known = BTreeSet::from([service]);
    let mut next = vec![service];
    while let Some(service) = next.pop() {
        if goal.contains(service) {
            return true;
        }
        let dependencies = release.services.get(service).into_iter().flat_map(|service| service.depends_on.keys());
        next.extend(dependencies.filter(|dependency| known.insert(dependency)));
    }
    false
}

fn set_inherited(service: &ServiceName, instances: &[Inherited], state: InheritedState) -> Action {
    Action::SetInherited { service: service.clone(), instances: instances.to_vec(), state }
}

/// What a plan means for a service, with what differs between the releases.
pub(super) fn change(
    request: &PlanRequest<'_>,
    service: &ServiceName,
    kind: ChangeKind,
    from: Option<RevisionId>,
    to: Option<RevisionId>,
) -> ServiceChange {
    let of = |release: Option<&Release>| release.and_then(|release| release.services.get(service).cloned());
    let differences = match (of(request.baseline), of(request.target)) {
        (Some(old), Some(new)) => difference::between(&old, &new),
        _ => Vec::new(),
    };
    ServiceChange { service: service.clone(), kind, from, to, differences }
}
