//! The way to a new release.
//!
//! Four stretches: capacity (every service's new instances are started in dependency order and become ready), traffic
//! (begins only when everything of the first stretch is ready), proof, and clean-up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::observed::Observed;
use super::planner::{Draft, PlanRequest, change, in_order, is_scaled, reaches, serving, wanted};
use super::rolling;
use super::step::{Action, ChangeKind, Plan, ServiceChange, StepId, StepWeight};
use crate::backend::ObservedInstance;
use crate::model::{
    Condition, GatePoint, GateSpec, HookPoint, Release, ReleaseNumber, RevisionId, ServiceName, ServiceRelease,
    Strategy,
};

/// How long it may take until what was done is observed to serve.
pub(super) const VERIFY_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn plan(request: &PlanRequest<'_>, target: &Release) -> Plan {
    let mut forward = Forward::new(request, target);
    let unchanged = request.baseline.is_some_and(|baseline| baseline.content_hash() == target.content_hash())
        && forward.lanes.values().all(|lane| lane.kind == ChangeKind::Keep);
    // Whatever scales may have been left alone by a deployment that was cut short.
    let scaled = target.services.values().any(|service| is_scaled(request, service));
    if unchanged && !scaled && !leaves_over(request, target) {
        let verify = Action::Verify { release: target.number, timeout: VERIFY_TIMEOUT };
        forward.draft.step(&[], verify);
    } else {
        forward.capacity();
        forward.traffic();
        let proof = forward.proof();
        forward.clean_up(proof);
    }
    let changes = forward.changes();
    forward.draft.finish(changes)
}

/// Whether something is there that an earlier deployment should have cleaned up.
fn leaves_over(request: &PlanRequest<'_>, target: &Release) -> bool {
    let observed = request.observed;
    let listens = |name: &ServiceName| target.services.get(name).is_some_and(ServiceRelease::listens);
    let pools = observed.routing.iter().flat_map(|routing| &routing.pools).map(|pool| &pool.revision);
    let mut revisions = pools.chain(observed.app.instances.iter().map(|instance| &instance.revision));
    let current = target.revisions();
    observed.app.inherited.iter().any(|one| target.services.contains_key(&one.service))
        || revisions
            .any(|revision| current.get(revision.service()) != Some(revision) && !request.warm.contains(revision))
        || observed.routing.iter().any(|routing| !listens(&routing.service))
}

/// What happens to one service of the target.
struct Lane<'a> {
    name: &'a ServiceName,
    service: &'a ServiceRelease,
    revision: RevisionId,
    kind: ChangeKind,
    /// How many instances it shall have.
    wanted: u32,
    /// The revision that is replaced, and how many instances it has.
    old: Option<(RevisionId, u32)>,
    strategy: Strategy,
    /// What a service that depends on this one waits for, by how much it wants.
    started: Vec<StepId>,
    available: Vec<StepId>,
    /// What must be done before any traffic moves.
    ready: Vec<StepId>,
    /// Whether traffic has moved as far as it will already.
    moved: bool,
    /// What must be done before the deployment is proven.
    end: Vec<StepId>,
}

impl Lane<'_> {
    fn is_recreated(&self) -> bool {
        self.kind == ChangeKind::Replace && self.strategy == Strategy::Recreate
    }

    fn gates(&self, point: GatePoint) -> Vec<GateSpec> {
        self.service.gates.iter().filter(|gate| gate.at == point).cloned().collect()
    }
}

struct Forward<'a> {
    request: &'a PlanRequest<'a>,
    target: &'a Release,
    draft: Draft<'a>,
    order: Vec<&'a ServiceName>,
    lanes: BTreeMap<&'a ServiceName, Lane<'a>>,
    prepare: Vec<StepId>,
}

impl<'a> Forward<'a> {
    fn new(request: &'a PlanRequest<'a>, target: &'a Release) -> Self {
        let mut draft = Draft::new(request);
        let lanes = target.services.iter().map(|(name, service)| (name, lane(request, &mut draft, name, service)));
        let lanes = lanes.collect();
        Self { request, target, draft, order: in_order(target), lanes, prepare: Vec::new() }
    }

    /// Starts every service's new instances, those that are recreated last.
    fn capacity(&mut self) {
        let release = self.target.number;
        let vacated = self.draft.take_over(self.target);
        self.prepare = vec![self.draft.step(&vacated, Action::Prepare { release })];
        let stops = |lane: &&Lane<'_>| lane.is_recreated() || !self.draft.rivals(lane.name, lane.service).is_empty();
        let recreated: BTreeSet<&ServiceName> = self.lanes.values().filter(stops).map(|lane| lane.name).collect();
        let late: BTreeSet<&ServiceName> =
            self.order.iter().copied().filter(|name| reaches(self.target, name, &recreated)).collect();
        for name in self.order.clone() {
            if !late.contains(name) {
                self.start(name, &[]);
            }
        }
        // What is recreated has a gap in its service: nothing that can fail before is left for after.
        let others_ready: Vec<StepId> = self.lanes.values().flat_map(|lane| lane.ready.clone()).collect();
        for name in self.order.clone() {
            if late.contains(name) {
                let after = if recreated.contains(name) { others_ready.as_slice() } else { &[] };
                self.start(name, after);
            }
        }
    }

    /// What a service waits for before anything of it starts.
    fn waits(&self, name: &ServiceName) -> Vec<StepId> {
        let mut after = self.prepare.clone();
        for (dependency, condition) in &self.target.services[name].depends_on {
            if let Some(lane) = self.lanes.get(dependency) {
                after.extend(match condition {
                    Condition::Started => &lane.started,
                    Condition::Healthy => &lane.available,
                });
            }
        }
        after
    }

    fn start(&mut self, name: &'a ServiceName, after: &[StepId]) {
        let mut waits = self.waits(name);
        waits.extend(after);
        let Some(mut lane) = self.lanes.remove(name) else { return };
        if lane.kind != ChangeKind::Keep {
            // Its volume may have been another service's, which must be gone first.
            for rival in self.draft.rivals(name, lane.service) {
                let fallback = self.old_release(&rival);
                waits = self.draft.make_way(&waits, &rival, fallback);
            }
        }
        match lane.kind {
            ChangeKind::Keep | ChangeKind::Remove => {}
            ChangeKind::Scale => {
                if lane.service.is_exclusive() {
                    waits = self.alone(&lane, waits);
                }
                self.scale_up(&mut lane, waits);
            }
            ChangeKind::Add | ChangeKind::Replace if lane.is_recreated() => self.recreate(&mut lane, waits),
            ChangeKind::Add | ChangeKind::Replace => {
                let waits = self.pre_deploy(&lane, waits);
                self.launch(&mut lane, waits);
            }
        }
        self.lanes.insert(name, lane);
    }

    fn pre_deploy(&mut self, lane: &Lane<'a>, after: Vec<StepId>) -> Vec<StepId> {
        let service = (lane.name, lane.service);
        self.draft.hooks(after, StepWeight::Required, self.target.number, service, HookPoint::PreDeploy)
    }

    /// Starts the first new instances, waits for them, and asks what is asked before traffic.
    fn launch(&mut self, lane: &mut Lane<'a>, after: Vec<StepId>) {
        let first = match (&lane.strategy, &lane.old) {
            (Strategy::Rolling { surge, unavailable }, Some((old, _))) => {
                let first = self.batches(lane, old, *surge, *unavailable);
                first.first().map_or(0, |batch| batch.new)
            }
            _ => lane.wanted,
        };
        if first == 0 && lane.wanted > 0 {
            // A rolling deployment that may not exceed the wanted number makes room first, with the traffic.
            (lane.started, lane.available) = (after.clone(), after.clone());
            lane.ready = after;
            return;
        }
        let (launched, healthy) = self.instances(lane, &after, first);
        lane.started = vec![launched];
        let ready = self.ask(lane, healthy);
        lane.ready.clone_from(&ready);
        lane.available.clone_from(&ready);
        let needed = self.target.services.values().any(|service| service.depends_on.contains_key(lane.name));
        let vacant = self.request.observed.weights(lane.name).is_empty();
        if lane.service.is_balanced(self.request.internal) && (lane.is_recreated() || (vacant && needed)) {
            // Nobody serves its callers now: there is no traffic to hold back.
            let shifted = self.weights(lane, &ready, 100, first);
            lane.available = vec![shifted];
            lane.ready = vec![shifted];
            // What rolls has only begun.
            lane.moved = first == lane.wanted;
        }
    }

    /// Asks what is asked before traffic of instances that are ready.
    fn ask(&mut self, lane: &Lane<'a>, healthy: StepId) -> Vec<StepId> {
        let gates = lane.gates(GatePoint::BeforeTraffic);
        if gates.is_empty() {
            return vec![healthy];
        }
        let asks = gates.into_iter().map(|gate| Action::Ask { revision: lane.revision.clone(), gate });
        asks.map(|ask| self.draft.step(&[healthy], ask)).collect()
    }

    fn instances(&mut self, lane: &Lane<'a>, after: &[StepId], instances: u32) -> (StepId, StepId) {
        let revision = lane.revision.clone();
        let launch = Action::Launch { release: self.target.number, revision: revision.clone(), instances };
        let launched = self.draft.step(after, launch);
        // Of those that are there and not wanted, the ready ones are needed until those that stay are ready too.
        let observed = self.request.observed;
        let stay = lane.wanted;
        let instances = match observed.count(&revision) {
            count if count > stay && observed.ready_among(&revision, stay) < stay => count,
            _ => instances,
        };
        let healthy = self.draft.await_healthy(&[launched], (lane.name, lane.service), instances);
        (launched, healthy)
    }

    fn all_traffic(&mut self, lane: &Lane<'a>, after: &[StepId]) -> StepId {
        self.weights(lane, after, 100, lane.wanted)
    }

    /// Moves this percentage of a service's traffic to the new revision, and the rest to the old one.
    fn weights(&mut self, lane: &Lane<'a>, after: &[StepId], weight: u8, instances: u32) -> StepId {
        let mut weights = BTreeMap::from([(lane.revision.clone(), weight)]);
        let mut releases = BTreeMap::from([(lane.revision.clone(), self.target.number)]);
        if let (true, Some((old, _))) = (weight < 100, &lane.old) {
            weights.insert(old.clone(), 100 - weight);
            releases.insert(old.clone(), self.old_release(old));
        }
        // Where the old revision keeps most of the traffic, that is what has to be borne.
        self.draft.shift(after, lane.name, weights, releases, if weight > 50 { instances } else { 0 })
    }

    fn old_release(&self, old: &RevisionId) -> ReleaseNumber {
        let known = self.draft.release_with(old).map(|release| release.number);
        known.or_else(|| self.request.observed.revisions(old.service()).get(old).copied()).unwrap_or(self.target.number)
    }

    fn recreate(&mut self, lane: &mut Lane<'a>, mut after: Vec<StepId>) {
        let exclusive = lane.service.is_exclusive();
        if !exclusive {
            after = self.pre_deploy(lane, after);
        }
        after = self.alone(lane, after);
        if exclusive {
            // The task mounts the volume too: it runs when the old instances are gone.
            after = self.pre_deploy(lane, after);
        }
        self.launch(lane, after);
    }

    /// Stops every other revision of a service.
    fn alone(&mut self, lane: &Lane<'a>, mut after: Vec<StepId>) -> Vec<StepId> {
        for revision in self.request.observed.revisions(lane.name).into_keys() {
            if revision != lane.revision {
                let fallback = self.old_release(&revision);
                after = self.draft.make_way(&after, &revision, fallback);
            }
        }
        after
    }

    fn scale_up(&mut self, lane: &mut Lane<'a>, after: Vec<StepId>) {
        let (launched, healthy) = self.instances(lane, &after, lane.wanted);
        lane.started = vec![launched];
        lane.ready = vec![healthy];
        if lane.service.is_balanced(self.request.internal) {
            lane.ready = vec![self.all_traffic(lane, &[healthy])];
        }
        lane.available.clone_from(&lane.ready);
        lane.moved = true;
    }

    /// Moves the traffic, once everything is ready.
    fn traffic(&mut self) {
        let barrier: BTreeSet<StepId> = self.lanes.values().flat_map(|lane| lane.ready.clone()).collect();
        let barrier: Vec<StepId> = barrier.into_iter().chain(self.prepare.clone()).collect();
        for name in self.order.clone() {
            let Some(mut lane) = self.lanes.remove(name) else { continue };
            if matches!(lane.kind, ChangeKind::Add | ChangeKind::Replace) {
                lane.end = self.move_traffic(&lane, barrier.clone());
            } else if lane.kind == ChangeKind::Scale {
                lane.end.clone_from(&barrier);
            }
            // What is proven is what stays.
            if let Some(reduced) = self.draft.fewer(&lane.end, StepWeight::Required, self.target, name) {
                lane.end = vec![reduced];
            }
            self.lanes.insert(name, lane);
        }
    }

    fn move_traffic(&mut self, lane: &Lane<'a>, after: Vec<StepId>) -> Vec<StepId> {
        let listens = lane.service.is_balanced(self.request.internal);
        let replaces = lane.old.is_some() && !lane.moved;
        let none = lane.wanted == 0;
        match &lane.strategy {
            Strategy::Rolling { surge, unavailable } if replaces && !none => {
                self.roll(lane, after, *surge, *unavailable)
            }
            Strategy::Canary { steps } if replaces && listens => {
                let steps: Vec<_> = steps.iter().map(|step| (step.weight, step.hold)).collect();
                self.step_by_step(lane, after, &steps)
            }
            Strategy::Linear { step, interval } if replaces && listens => {
                let weights = (1..).map(|n| step.saturating_mul(n)).take_while(|weight| *weight < 100);
                let steps: Vec<_> = weights.map(|weight| (weight, *interval)).collect();
                self.step_by_step(lane, after, &steps)
            }
            strategy => {
                let bake = match strategy {
                    Strategy::BlueGreen { bake, .. } => *bake,
                    _ => Duration::ZERO,
                };
                let after = if listens && !lane.moved { vec![self.all_traffic(lane, &after)] } else { after };
                self.hold(lane, after, 100, bake)
            }
        }
    }

    fn step_by_step(&mut self, lane: &Lane<'a>, mut after: Vec<StepId>, steps: &[(u8, Duration)]) -> Vec<StepId> {
        for (weight, hold) in steps {
            after = vec![self.weights(lane, &after, *weight, lane.wanted)];
            after = self.hold(lane, after, *weight, *hold);
        }
        if steps.last().is_none_or(|(weight, _)| *weight < 100) {
            after = vec![self.all_traffic(lane, &after)];
        }
        after
    }

    fn roll(&mut self, lane: &Lane<'a>, mut after: Vec<StepId>, surge: u32, unavailable: u32) -> Vec<StepId> {
        let Some((old, count)) = lane.old.clone() else { return after };
        let fallback = self.old_release(&old);
        let (mut new, mut left) = (0, count);
        let batches = self.batches(lane, &old, surge, unavailable);
        let observed = self.request.observed;
        let shares = shares_traffic(observed, &old);
        let makes_room = batches.first().is_some_and(|batch| batch.new == 0);
        if makes_room
            && lane.service.is_balanced(self.request.internal)
            && shares
            && !self.request.drains
            && !observed.is_all_in_rotation(&old)
        {
            // Which of them stay is not up to anybody: all that can serve must do so before some go.
            let (weights, releases) = (BTreeMap::from([(old.clone(), 100)]), BTreeMap::from([(old.clone(), fallback)]));
            after = vec![self.draft.shift(&after, lane.name, weights, releases, 0)];
        }
        for (index, batch) in batches.iter().enumerate() {
            // The first batch was started with everybody else's.
            if batch.new > new && index > 0 {
                let (_, healthy) = self.instances(lane, &after, batch.new);
                after = if new == 0 { self.ask(lane, healthy) } else { vec![healthy] };
            }
            // Those that stay share the traffic, and of them only the ready ones answer.
            let rest = if batch.new == lane.wanted || !shares { 0 } else { observed.ready_among(&old, batch.old) };
            let weight = rolling::share(batch.new, rest);
            if lane.service.is_balanced(self.request.internal) && weight > 0 {
                after = vec![self.weights(lane, &after, weight, batch.new)];
            }
            if batch.new > 0 {
                after = self.hold(lane, after, weight, Duration::ZERO);
            }
            if batch.new < lane.wanted && batch.old < left {
                // The last old ones go when the new ones have all traffic; where room is made first, they may have it.
                let idle = batch.old == 0 && batch.new > 0 && lane.service.is_balanced(self.request.internal);
                after = self.draft.drain(&after, StepWeight::Required, &old, fallback, (batch.old, idle));
                let reduce = Action::Reduce { revision: old.clone(), keep: batch.old, idle };
                after = vec![self.draft.step(&after, reduce)];
            }
            (new, left) = (batch.new, batch.old);
        }
        after
    }

    /// The batches in which a service rolls.
    fn batches(&self, lane: &Lane<'a>, old: &RevisionId, surge: u32, unavailable: u32) -> Vec<rolling::Batch> {
        let observed = self.request.observed;
        let old: Vec<bool> = observed.instances(old).map(ObservedInstance::is_ready).collect();
        rolling::batches(&old, observed.count(&lane.revision), lane.wanted, surge, unavailable)
    }

    /// Holds for a while and asks gates, if there is any need to.
    fn hold(&mut self, lane: &Lane<'a>, after: Vec<StepId>, weight: u8, duration: Duration) -> Vec<StepId> {
        let gates = lane.gates(GatePoint::Holding);
        if duration.is_zero() && gates.is_empty() {
            return after;
        }
        let instances = match lane.strategy {
            // While it rolls, the number changes.
            Strategy::Rolling { .. } if weight < 100 => 1,
            _ => lane.wanted,
        };
        let hold = Action::Hold { revision: lane.revision.clone(), weight, duration, instances, gates };
        vec![self.draft.step(&after, hold)]
    }

    /// Runs what is run at the end, and observes that all is as it should be.
    fn proof(&mut self) -> StepId {
        let mut ends = self.prepare.clone();
        for name in self.order.clone() {
            let (service, end) = match self.lanes.get(name) {
                Some(lane) => (lane.service, if lane.end.is_empty() { self.prepare.clone() } else { lane.end.clone() }),
                None => continue,
            };
            let changed = self.lanes.get(name).is_some_and(|lane| lane.kind != ChangeKind::Keep);
            ends.extend(if changed {
                let release = self.target.number;
                self.draft.hooks(end, StepWeight::Required, release, (name, service), HookPoint::PostDeploy)
            } else {
                end
            });
        }
        self.draft.step(&ends, Action::Verify { release: self.target.number, timeout: VERIFY_TIMEOUT })
    }

    /// Stops what is not needed any more.
    fn clean_up(&mut self, proof: StepId) {
        let mut ends = vec![proof];
        let mut pools: Vec<RevisionId> = self.lanes.values().map(|lane| lane.revision.clone()).collect();
        for service in self.request.observed.services() {
            let lane = self.lanes.get(&service);
            let keep_warm = lane.is_some_and(|lane| {
                // Two revisions that write to one volume are never there together.
                let side_by_side = !matches!(lane.strategy, Strategy::Recreate | Strategy::Rolling { .. })
                    && !lane.service.is_exclusive();
                side_by_side && !lane.strategy.keep_warm().is_zero()
            });
            // What a rollback would go to. Where this deployment supersedes another, what has the traffic may not be it.
            let good = self.request.baseline.and_then(|release| release.services.get(&service));
            let good = good.map(|known| known.revision(&service));
            let good = good.filter(|revision| self.request.observed.count(revision) > 0);
            let old = good.or_else(|| lane.and_then(|lane| lane.old.as_ref().map(|(old, _)| old.clone())));
            let unchanged = lane.is_some_and(|lane| matches!(lane.kind, ChangeKind::Keep | ChangeKind::Scale));
            let current = lane.map(|lane| lane.revision.clone());
            for (revision, release) in self.request.observed.revisions(&service) {
                let stays = (keep_warm && Some(&revision) == old.as_ref())
                    || (unchanged && self.request.warm.contains(&revision));
                if Some(&revision) == current.as_ref() || self.draft.is_gone(&revision) {
                    continue;
                }
                if stays {
                    pools.push(revision);
                } else {
                    ends.push(self.draft.retire(&[proof], StepWeight::CleanUp, &revision, release));
                }
            }
        }
        ends.extend(self.draft.discard_inherited(&[proof], self.target, |_| true));
        pools.sort();
        pools.dedup();
        let tidy = Action::Tidy { release: Some(self.target.number), pools };
        self.draft.add(&ends, StepWeight::CleanUp, tidy);
    }

    fn changes(&self) -> Vec<ServiceChange> {
        let mut changes: Vec<ServiceChange> = self
            .lanes
            .values()
            .map(|lane| {
                let old = lane.old.as_ref().map(|(old, _)| old.clone());
                let from = old.or_else(|| (lane.kind != ChangeKind::Add).then(|| lane.revision.clone()));
                change(self.request, lane.name, lane.kind, from, Some(lane.revision.clone()))
            })
            .collect();
        for service in self.request.observed.services() {
            if !self.target.services.contains_key(&service) {
                let from = serving(self.request.observed, &service, self.request.baseline, None);
                changes.push(change(self.request, &service, ChangeKind::Remove, from, None));
            }
        }
        changes
    }
}

/// Whether an old revision can keep a share of the traffic: only one that has some now, and answers.
fn shares_traffic(observed: &Observed, old: &RevisionId) -> bool {
    observed.weights(old.service()).contains_key(old) && observed.ready(old) > 0
}

/// Decides what happens to a service.
fn lane<'a>(
    request: &PlanRequest<'_>,
    draft: &mut Draft<'_>,
    name: &'a ServiceName,
    service: &'a ServiceRelease,
) -> Lane<'a> {
    let observed = request.observed;
    let revision = service.revision(name);
    let weights = observed.weights(name);
    let old = serving(observed, name, request.baseline, Some(&revision));
    let before = request.baseline.and_then(|baseline| baseline.services.get(name));
    let same = |before: &ServiceRelease| before.revision(name) == revision;
    // A task has run if the baseline has it.
    let ran = !service.is_task() || before.is_some_and(same);
    let has_all = ran
        && if service.is_balanced(request.internal) {
            weights == BTreeMap::from([(revision.clone(), 100)]) || (service.replicas == 0 && weights.is_empty())
        } else {
            // Without traffic, the baseline says which revision is the current one.
            (observed.count(&revision) > 0 || service.replicas == 0) && before.is_none_or(same)
        };
    // What was cut short may have left instances out of rotation.
    let (wanted, least) = (wanted(request, name, service), service.least_instances(request.scales));
    let in_rotation =
        request.drains || !service.is_balanced(request.internal) || observed.in_rotation(&revision) >= least;
    let (ready, count) = (observed.ready(&revision), observed.count(&revision));
    let complete = ready >= least && count == wanted && in_rotation;
    let kind = match (&old, has_all) {
        (_, true) if complete => ChangeKind::Keep,
        (_, true) => ChangeKind::Scale,
        (Some(_), false) => ChangeKind::Replace,
        (None, false) => ChangeKind::Add,
    };
    let old = old.filter(|_| kind == ChangeKind::Replace).map(|old| {
        let count = observed.count(&old);
        (old, count)
    });
    let mut strategy = service.strategy.clone();
    if kind == ChangeKind::Replace && service.is_exclusive() && strategy != Strategy::Recreate {
        draft.notes.push(format!(
            "{name} cannot share {} with its new revision: it is stopped before that starts, instead of {}",
            service.workload.exclusive_claims().join(" and "),
            strategy.name()
        ));
        strategy = Strategy::Recreate;
    }
    let heirs = draft.heirs(name);
    if let (ChangeKind::Replace, Some(heir), false) = (kind, heirs.first(), strategy == Strategy::Recreate) {
        draft.notes.push(format!(
            "{name} leaves its volume to {heir}: it is stopped before that starts, instead of {}",
            strategy.name()
        ));
        strategy = Strategy::Recreate;
    }
    let shares = old.as_ref().is_none_or(|(old, _)| shares_traffic(observed, old));
    if !shares
        && service.is_balanced(request.internal)
        && matches!(strategy, Strategy::Canary { .. } | Strategy::Linear { .. })
    {
        draft.notes.push(format!(
            "no instance of {name} is there to share its traffic: it is replaced at once, without holds"
        ));
        strategy = Strategy::default();
    }
    if kind == ChangeKind::Replace
        && !service.is_balanced(request.internal)
        && matches!(strategy, Strategy::Canary { .. } | Strategy::Linear { .. })
    {
        draft.notes.push(format!("{name} has no traffic to move in steps: it is replaced at once, without holds"));
    }
    Lane {
        name,
        service,
        revision,
        kind,
        wanted,
        old,
        strategy,
        started: Vec::new(),
        available: Vec::new(),
        ready: Vec::new(),
        moved: false,
        end: Vec::new(),
    }
}
