//! Plans for random apps, strategies and observed states, executed abstractly in many orders.

use std::collections::{BTreeMap, BTreeSet};

use deployer_core::{
    Action, AppName, ChangeKind, Condition, DeploymentId, HookPoint, Plan, PlanRequest, Release, RevisionId,
    ServiceName, ServiceRelease, StepId, Strategy as Rollout, plan_back, plan_forward,
};
use proptest::prelude::*;

use super::apps::{Case, case};
use super::stage::Stage;

/// What a plan is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A new release.
    Forward,
    /// An earlier release, from one that has served.
    Rollback,
    /// What was there before, from a release that has failed.
    Divert,
    /// What was there before, from a release that somebody has stopped.
    Cancel,
}

/// A plan with what it was made from.
struct Planned<'a> {
    way: Way,
    target: &'a Release,
    baseline: Option<&'a Release>,
    warm: BTreeSet<RevisionId>,
    plan: Plan,
}

fn planned<'a>(case: &'a Case, stage: &Stage, way: Way) -> Option<Planned<'a>> {
    let (target, baseline) = match way {
        Way::Forward | Way::Rollback => (&case.target, case.baseline.as_ref()),
        // Where nothing was there before, nothing is left.
        Way::Divert | Way::Cancel => (case.baseline.as_ref()?, Some(&case.target)),
    };
    // As the engine asks: a rollback leaves nothing standing by.
    let warm = if way == Way::Rollback { BTreeSet::new() } else { case.warm.clone() };
    let (app, id) = (AppName::new("shop").unwrap(), DeploymentId::new("d1").unwrap());
    let observed = stage.observed();
    let request = PlanRequest::new(&app, &id, Some(target), baseline, &observed, &warm).with_drains(stage.drains);
    let plan = match way {
        Way::Forward => plan_forward(&request.with_standby(case.standby.as_ref())),
        Way::Rollback => plan_back(&request.with_standby(case.standby.as_ref())),
        Way::Divert => plan_back(&request.with_failed_baseline()),
        Way::Cancel => plan_back(&request.with_failed_baseline().with_haste(false)),
    };
    Some(Planned { way, target, baseline, warm, plan })
}

/// Which of the steps that may begin is done next.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// As they are listed.
    First,
    /// The last listed.
    Last,
    /// Whatever takes capacity or moves traffic, as early as it may.
    TakesFirst,
    /// Whatever takes capacity or moves traffic, as late as it can.
    GivesFirst,
    /// By a seed.
    Random(u64),
}

impl Order {
    fn pick(&mut self, plan: &Plan, ready: &[StepId]) -> StepId {
        let takes = |id: &StepId| {
            let action = &plan.step(*id).unwrap().action;
            matches!(action, Action::Drain { .. } | Action::Reduce { .. } | Action::Shift { .. })
        };
        let found = match self {
            Self::First => ready.first(),
            Self::Last => ready.last(),
            Self::TakesFirst => ready.iter().find(|id| takes(id)).or(ready.last()),
            Self::GivesFirst => ready.iter().find(|id| !takes(id)).or(ready.last()),
            Self::Random(seed) => {
                *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ready.get((*seed >> 33) as usize % ready.len())
            }
        };
        *found.unwrap()
    }
}

/// What must hold while and after a plan is executed.
struct Promises<'a> {
    planned: &'a Planned<'a>,
    /// What was there before.
    before: Stage,
    kinds: BTreeMap<ServiceName, ChangeKind>,
    /// The least that must serve of each service until the release is verified.
    floor: BTreeMap<ServiceName, u32>,
}

impl<'a> Promises<'a> {
    fn new(planned: &'a Planned<'a>, before: &Stage) -> Self {
        let kinds = planned.plan.changes.iter().map(|change| (change.service.clone(), change.kind)).collect();
        let mut promises = Self { planned, before: before.clone(), kinds, floor: BTreeMap::new() };
        let services: BTreeSet<ServiceName> = promises.kinds.keys().cloned().collect();
        promises.floor = services.into_iter().map(|name| (name.clone(), promises.least(&name))).collect();
        promises
    }

    fn wanted(&self, name: &ServiceName) -> Option<(&ServiceRelease, RevisionId)> {
        self.planned.target.services.get(name).map(|service| (service, service.revision(name)))
    }

    /// Whether a service has to stop for a while, because a volume that it writes to is handed over.
    fn has_gap(&self, name: &ServiceName) -> bool {
        let hands_over = || {
            let volumes: BTreeSet<String> =
                self.before.revisions().filter(|r| r.service() == name).flat_map(|r| self.before.volumes(r)).collect();
            let current = self.wanted(name).map(|(_, revision)| revision);
            let stays = current.is_some_and(|revision| {
                self.before.revisions().filter(|r| r.service() == name).all(|r| *r == revision)
            });
            !stays
                && self.planned.target.services.iter().any(|(other, service)| {
                    other != name && service.workload.exclusive_volumes().any(|volume| volumes.contains(volume))
                })
        };
        let recreated = self.wanted(name).is_some_and(|(service, _)| {
            service.is_exclusive() || (self.planned.way == Way::Forward && service.strategy == Rollout::Recreate)
        });
        let moves = matches!(self.kinds.get(name), Some(ChangeKind::Replace | ChangeKind::Add | ChangeKind::Remove));
        let shared = self.wanted(name).is_some_and(|(service, revision)| {
            let mut others = self.before.revisions().filter(|other| other.service() == name);
            service.is_exclusive() && others.any(|other| *other != revision)
        });
        shared || (moves && (recreated || hands_over()))
    }

    /// Whether a strategy allows that nothing serves for a while: it may miss all instances, or it has to make room
    /// first among old ones of which some are not ready, and cannot choose which of them go.
    fn may_go_dark(&self, name: &ServiceName) -> bool {
        let (Way::Forward, Some((service, revision))) = (self.planned.way, self.wanted(name)) else { return false };
        let Rollout::Rolling { surge, unavailable } = service.strategy else { return false };
        let old = self.before.revisions().filter(|r| r.service() == name && **r != revision);
        let (count, ready) =
            old.fold((0, 0), |(count, ready), r| (count + self.before.count(r), ready + self.before.ready(r)));
        // Those new ones that are there already take up room as well.
        let full = count + self.before.count(&revision).min(service.replicas) >= service.replicas + surge;
        unavailable >= service.replicas || (ready < count && full)
    }

    /// What serves of a service. One that shall listen no more only has to work.
    fn capacity(&self, name: &ServiceName, stage: &Stage) -> u32 {
        match self.wanted(name) {
            Some((service, _)) if !service.listens() => stage.working(name),
            _ => stage.capacity(name),
        }
    }

    fn least(&self, name: &ServiceName) -> u32 {
        let before = self.capacity(name, &self.before);
        let reached = self.before.routed().any(|(routed, _)| routed == name);
        if !reached && self.wanted(name).is_some_and(|(service, _)| service.listens()) {
            // Nobody could call it.
            return 0;
        }
        let Some((service, _)) = self.wanted(name) else {
            return if self.has_gap(name) { 0 } else { before };
        };
        if self.has_gap(name) || self.may_go_dark(name) {
            return 0;
        }
        let promised = match (self.planned.way, &service.strategy, self.kinds.get(name)) {
            (Way::Forward, Rollout::Rolling { unavailable, .. }, Some(ChangeKind::Replace)) => {
                service.replicas.saturating_sub(*unavailable)
            }
            (Way::Forward | Way::Cancel, ..) => service.replicas,
            // Traffic moves back at once where that can be borne.
            _ => service.replicas.div_ceil(2),
        };
        before.min(promised)
    }

    /// Checks a step against what was there before and after it.
    fn check(&self, action: &Action, before: &Stage, now: &Stage, verified: bool) -> Result<(), String> {
        for (name, floor) in &self.floor {
            let capacity = self.capacity(name, now);
            let gone = verified && !self.planned.target.services.contains_key(name);
            if capacity < *floor && !gone {
                return Err(format!("{capacity} instances serve {name}, {floor} were promised"));
            }
        }
        for (service, weights) in now.routed() {
            let sum: u32 = weights.values().map(|weight| u32::from(*weight)).sum();
            if sum != 100 && sum != 0 {
                return Err(format!("the weights of {service} sum up to {sum}"));
            }
        }
        match action {
            Action::Launch { revision, .. } => {
                self.check_volumes(revision, now)?;
                self.check_surge(revision.service(), now)?;
                if !before.revisions().any(|there| there == revision) {
                    self.check_dependencies(revision, before)?;
                }
            }
            Action::Shift { service, weights, .. } => {
                self.check_stranded(service, before, now)?;
                self.check_barrier(service, weights, before)?;
            }
            Action::Ask { revision, .. } => {
                let wanted = self.wanted(revision.service()).map_or(0, |(wanted, _)| wanted.replicas);
                if wanted > 0 && now.ready(revision) == 0 {
                    return Err(format!("nothing of {revision} is ready to be asked about"));
                }
            }
            Action::Hold { revision, weight, .. } => {
                // Of releases with one revision, only the target says whether it listens.
                let listens = self.wanted(revision.service()).is_some_and(|(wanted, _)| wanted.listens());
                let has = now.weights(revision.service()).get(revision).copied().unwrap_or(0);
                if listens && has != *weight {
                    return Err(format!("{revision} has {has} % while it is held with {weight} %"));
                }
            }
            Action::Drain { revision, .. } => self.check_stranded(revision.service(), before, now)?,
            Action::Reduce { revision, keep, .. } => {
                let leaving = before.in_service_beyond(revision, *keep);
                if leaving > 0 {
                    return Err(format!("{leaving} instances of {revision} are stopped while they are in rotation"));
                }
                self.check_stranded(revision.service(), before, now)?;
            }
            Action::RunHook { service, hook, .. } if hook.point == HookPoint::PreDeploy => {
                let (_, revision) = self.wanted(service).ok_or("the hook of nobody")?;
                self.check_volumes(&revision, now)?;
                if now.count(&revision) > self.before.count(&revision) {
                    return Err(format!("{service} has started before its pre-deploy hook"));
                }
                self.check_dependencies(&revision, now)?;
            }
            Action::RunHook { service, hook, .. } if hook.point == HookPoint::PostDeploy => {
                let (wanted, revision) = self.wanted(service).ok_or("the hook of nobody")?;
                let all = now.weights(service) == BTreeMap::from([(revision.clone(), 100)]);
                if wanted.listens() && !all {
                    return Err(format!("{service} does not have all traffic at its post-deploy hook"));
                }
                if now.ready(&revision) < wanted.replicas {
                    return Err(format!("{service} is not ready at its post-deploy hook"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Traffic must not be left with a revision of which nothing answers while another one could take it.
    fn check_stranded(&self, service: &ServiceName, before: &Stage, now: &Stage) -> Result<(), String> {
        let stranded = |stage: &Stage| {
            let weights = stage.weights(service);
            let mut dead = weights.keys().filter(|revision| stage.answering(revision) == 0);
            let other = |dead: &RevisionId| {
                stage.revisions().any(|r| r.service() == service && r != dead && stage.ready(r) > 0)
            };
            dead.find(|dead| other(dead)).cloned()
        };
        let empty = self.wanted(service).is_none_or(|(wanted, _)| wanted.replicas == 0 || !wanted.listens());
        match (stranded(before), stranded(now)) {
            (None, Some(dead)) if !empty && !self.has_gap(service) && !self.may_go_dark(service) => {
                Err(format!("the traffic of {dead} is answered by nobody, and others are ready"))
            }
            _ => Ok(()),
        }
    }

    /// Two revisions must never write to one volume; services of one release may share it, at their own risk.
    fn check_volumes(&self, revision: &RevisionId, now: &Stage) -> Result<(), String> {
        let volumes = now.volumes(revision);
        let ours = |r: &RevisionId| self.wanted(r.service()).is_some_and(|(_, wanted)| wanted == *r);
        let rival = now.revisions().find(|other| {
            *other != revision && !ours(other) && now.volumes(other).iter().any(|volume| volumes.contains(volume))
        });
        rival.map_or(Ok(()), |rival| Err(format!("{revision} and {rival} write to one volume")))
    }

    fn check_surge(&self, name: &ServiceName, now: &Stage) -> Result<(), String> {
        let Some((service, revision)) = self.wanted(name) else { return Err(format!("nobody wants {name}")) };
        let (count, before) = (now.count(&revision), self.before.count(&revision));
        if count > service.replicas.max(before) {
            return Err(format!("{count} instances of {revision} are there, {} are wanted", service.replicas));
        }
        if self.planned.way != Way::Forward || self.kinds.get(name) != Some(&ChangeKind::Replace) {
            return Ok(());
        }
        let old = self.planned.plan.changes.iter().find(|change| change.service == *name).and_then(|c| c.from.clone());
        let Some(old) = old else { return Ok(()) };
        let all = |stage: &Stage| stage.count(&revision) + stage.count(&old);
        let most = match service.strategy {
            _ if self.has_gap(name) => service.replicas,
            Rollout::Rolling { surge, .. } => service.replicas + surge,
            _ => return Ok(()),
        };
        if all(now) > most.max(all(&self.before)) {
            return Err(format!("{} instances of {name} are there, at most {most} may be", all(now)));
        }
        Ok(())
    }

    /// What a service depends on must be there before anything of it is started.
    fn check_dependencies(&self, revision: &RevisionId, now: &Stage) -> Result<(), String> {
        let Some((service, _)) = self.wanted(revision.service()) else { return Ok(()) };
        for (dependency, condition) in &service.depends_on {
            let Some((wanted, needed)) = self.wanted(dependency) else { continue };
            let rolls = self.planned.way == Way::Forward && matches!(wanted.strategy, Rollout::Rolling { .. });
            let there = match condition {
                _ if wanted.replicas == 0 => true,
                // While it rolls, the old revision serves as well.
                _ if rolls => now.revisions().any(|r| r.service() == dependency),
                Condition::Started => now.count(&needed) > 0,
                Condition::Healthy => now.ready(&needed) > 0,
            };
            if !there {
                return Err(format!("{revision} starts before {dependency}, on which it depends"));
            }
        }
        Ok(())
    }

    /// No traffic before every new revision is healthy.
    fn check_barrier(
        &self,
        name: &ServiceName,
        weights: &BTreeMap<RevisionId, u8>,
        before: &Stage,
    ) -> Result<(), String> {
        let (Way::Forward, Some((_, revision))) = (self.planned.way, self.wanted(name)) else { return Ok(()) };
        let moves = |name: &ServiceName| matches!(self.kinds.get(name), Some(ChangeKind::Add | ChangeKind::Replace));
        let needed = self.planned.target.services.values().any(|service| service.depends_on.contains_key(name));
        let vacant = self.before.weights(name).is_empty();
        if !moves(name) || !weights.contains_key(&revision) || self.has_gap(name) || (vacant && needed) {
            return Ok(());
        }
        for (other, service) in self.planned.target.services.iter().filter(|(other, _)| moves(other)) {
            let new = service.revision(other);
            let least = match service.strategy {
                Rollout::Rolling { surge, .. } if !self.has_gap(other) => {
                    let old: u32 =
                        self.before.revisions().filter(|r| r.service() == other).map(|r| self.before.count(r)).sum();
                    u32::from(service.replicas + surge > old && service.replicas > 0)
                }
                _ => service.replicas,
            };
            if before.ready(&new) < least {
                let ready = before.ready(&new);
                return Err(format!("the traffic of {name} moves when {ready} of {least} of {new} are ready"));
            }
        }
        Ok(())
    }

    /// Whether the way back leaves more instances than are wanted, because those that would stay were not ready.
    fn keeps_more(&self, revision: &RevisionId, wanted: u32) -> bool {
        let back = self.planned.way != Way::Forward;
        back && self.before.count(revision) > wanted && self.before.ready_among(revision, wanted) < wanted
    }

    /// What may stand by when the release is promoted: what a rollback goes to, which the baseline says. Only if nothing
    /// of that is there, it is what had the traffic.
    fn previous(&self, name: &ServiceName) -> Option<RevisionId> {
        let good =
            self.planned.baseline.and_then(|baseline| baseline.services.get(name)).map(|good| good.revision(name));
        let change = || self.planned.plan.changes.iter().find(|change| change.service == *name);
        good.filter(|good| self.before.count(good) > 0).or_else(|| change()?.from.clone())
    }

    /// What must be there at the end: the target and nothing else.
    fn check_end(&self, end: &Stage) -> Result<(), String> {
        let planned = self.planned;
        for (name, service) in &planned.target.services {
            let revision = service.revision(name);
            let (count, ready) = (end.count(&revision), end.ready(&revision));
            if self.keeps_more(&revision, service.replicas) && ready >= service.replicas {
                continue;
            }
            if (count, ready) != (service.replicas, service.replicas) {
                return Err(format!("{count} of {revision} are there, {ready} ready, {} wanted", service.replicas));
            }
            if service.listens()
                && service.replicas > 0
                && end.weights(name) != BTreeMap::from([(revision.clone(), 100)])
            {
                return Err(format!("the traffic of {name} does not go to {revision} alone"));
            }
        }
        let target = planned.target.revisions();
        for revision in end.revisions() {
            let name = revision.service();
            let keeps_old = planned.way == Way::Forward
                && !self.has_gap(name)
                && self.wanted(name).is_some_and(|(service, _)| !service.strategy.keep_warm().is_zero());
            let is_old = self.previous(name).as_ref() == Some(revision);
            let stands_by = planned.warm.contains(revision) || (keeps_old && is_old);
            if target.get(name) != Some(revision) && !stands_by {
                return Err(format!("{revision} is left over"));
            }
            if target.get(name) != Some(revision) && !end.is_idle(revision) {
                return Err(format!("{revision} stands by and has traffic"));
            }
        }
        for (service, _) in end.routed() {
            if !planned.target.services.get(service).is_some_and(ServiceRelease::listens) {
                return Err(format!("the entry of {service} is left over"));
            }
        }
        Ok(())
    }
}

/// Whether the steps are a graph without cycles, listed in an order in which they can be done.
fn check_shape(plan: &Plan) -> Result<(), String> {
    for (index, step) in plan.steps.iter().enumerate() {
        if step.id.0 as usize != index {
            return Err(format!("step {index} has the number {}", step.id));
        }
        if step.after.iter().any(|after| *after >= step.id) {
            return Err(format!("step {index} waits for itself or a later one"));
        }
        if step.after.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(format!("step {index} waits for a step twice"));
        }
    }
    Ok(())
}

fn check_hooks(planned: &Planned<'_>) -> Result<(), String> {
    let mut tasks = BTreeSet::new();
    let mut run = BTreeSet::new();
    for step in &planned.plan.steps {
        let Action::RunHook { service, hook, task, release } = &step.action else { continue };
        if !tasks.insert(task) {
            return Err(format!("the hook {} of {service} runs twice", hook.name));
        }
        if planned.way != Way::Forward && hook.point != HookPoint::PreStop {
            return Err(format!("the hook {} of {service} runs on the way back", hook.name));
        }
        if hook.point != HookPoint::PreStop {
            if *release != planned.target.number {
                return Err(format!("the hook {} of {service} runs with release {release}", hook.name));
            }
            run.insert((service.clone(), hook.name.clone()));
        }
    }
    if planned.way != Way::Forward || planned.plan.is_empty() {
        return Ok(());
    }
    for change in &planned.plan.changes {
        let Some(service) = planned.target.services.get(&change.service) else { continue };
        for hook in &service.hooks {
            let runs = match (hook.point, change.kind) {
                (HookPoint::PreStop, _) => continue,
                (HookPoint::PreDeploy, kind) => matches!(kind, ChangeKind::Add | ChangeKind::Replace),
                (HookPoint::PostDeploy, kind) => kind != ChangeKind::Keep,
            };
            if run.contains(&(change.service.clone(), hook.name.clone())) != runs {
                return Err(format!("the hook {} of {} runs or does not, against the rule", hook.name, change.service));
            }
        }
    }
    Ok(())
}

/// Executes a plan in one order, and checks everything on the way. Answers what is there at the end.
fn execute(promises: &Promises<'_>, mut order: Order, eager: bool) -> Result<Stage, String> {
    let plan = &promises.planned.plan;
    let mut stage = promises.before.clone();
    let mut done = BTreeSet::new();
    let mut trace = Vec::new();
    let mut verified = false;
    while done.len() < plan.steps.len() {
        let open = plan.steps.iter().filter(|step| !done.contains(&step.id));
        let ready: Vec<StepId> =
            open.filter(|step| step.after.iter().all(|after| done.contains(after))).map(|step| step.id).collect();
        let id = order.pick(plan, &ready);
        let action = &plan.step(id).unwrap().action;
        trace.push(id.to_string());
        let before = stage.clone();
        verified |= matches!(action, Action::Verify { .. });
        let result = stage.perform(action, eager).and_then(|()| promises.check(action, &before, &stage, verified));
        result.map_err(|error| format!("{error}\nin step {id}, by {order:?}: {}", trace.join(" ")))?;
        done.insert(id);
    }
    promises.check_end(&stage).map_err(|error| format!("{error}\nat the end, by {order:?}: {}", trace.join(" ")))?;
    Ok(stage)
}

/// Checks all that is promised of a plan, in many orders of its steps. Answers one of the ends.
fn check(planned: &Planned<'_>, before: &Stage, seed: u64) -> Result<Stage, String> {
    check_shape(&planned.plan)?;
    check_hooks(planned)?;
    let promises = Promises::new(planned, before);
    let mut end = None;
    for (order, eager) in [
        (Order::First, false),
        (Order::Last, true),
        (Order::TakesFirst, false),
        (Order::TakesFirst, true),
        (Order::GivesFirst, true),
        (Order::Random(seed), false),
        (Order::Random(seed.rotate_left(17)), true),
        (Order::Random(!seed), false),
    ] {
        end = Some(execute(&promises, order, eager)?);
    }
    end.ok_or_else(|| "nothing was executed".to_owned())
}

fn fails(planned: &Planned<'_>, before: &Stage, error: &str) -> TestCaseError {
    let mut there = String::new();
    for revision in before.revisions() {
        let (count, ready, answering) = (before.count(revision), before.ready(revision), before.answering(revision));
        there += &format!("  {revision}: {count} there, {ready} ready, {answering} in rotation\n");
    }
    for (service, weights) in before.routed() {
        there += &format!("  {service}: {weights:?}\n");
    }
    let revisions = |release: Option<&Release>| release.map(Release::revisions);
    let (to, from) = (revisions(Some(planned.target)), revisions(planned.baseline));
    TestCaseError::fail(format!("{error}\n{:?} from {from:?} to {to:?}\nbefore:\n{there}{}", planned.way, planned.plan))
}

/// Whether a plan from what a plan has led to does nothing but verify.
fn check_again(case: &Case, planned: &Planned<'_>, end: &Stage) -> Result<(), TestCaseError> {
    let (app, id) = (AppName::new("shop").unwrap(), DeploymentId::new("d2").unwrap());
    let observed = end.observed();
    let target = Some(planned.target);
    // What has been left standing by is what does so from now on.
    let current = planned.target.revisions();
    let left = end.revisions().filter(|revision| current.get(revision.service()) != Some(revision));
    let warm: BTreeSet<RevisionId> = left.chain(&planned.warm).cloned().collect();
    let request = PlanRequest::new(&app, &id, target, target, &observed, &warm).with_drains(end.drains);
    let again = plan_forward(&request);
    let promises = Promises::new(planned, &case.stage);
    let mut services = planned.target.services.iter();
    if again.is_empty() || services.any(|(name, s)| promises.keeps_more(&s.revision(name), s.replicas)) {
        return Ok(());
    }
    let again = Planned { way: Way::Forward, plan: again, warm, ..*planned };
    Err(fails(&again, end, "there is still something to do"))
}

/// Plans a way and checks everything that is promised of it.
pub(crate) fn way_is_safe(case: &Case, way: Way, seed: u64) -> Result<(), TestCaseError> {
    let Some(planned) = planned(case, &case.stage, way) else { return Ok(()) };
    let end = check(&planned, &case.stage, seed).map_err(|error| fails(&planned, &case.stage, &error))?;
    check_again(case, &planned, &end)
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn the_way_forward_keeps_every_promise_in_any_order(case in case(), seed in any::<u64>()) {
        way_is_safe(&case, Way::Forward, seed)?;
    }

    #[test]
    fn the_way_back_keeps_every_promise_in_any_order(case in case(), seed in any::<u64>()) {
        way_is_safe(&case, Way::Rollback, seed)?;
    }

    #[test]
    fn a_deployment_that_turns_back_anywhere_keeps_every_promise(case in case(), seed in any::<u64>(), turns in any::<u16>()) {
        let Some(forward) = planned(&case, &case.stage, Way::Forward) else { return Ok(()) };
        let mut stage = case.stage.clone();
        // Any number of steps, by any order, is done before it turns back.
        let mut order = Order::Random(seed);
        let mut done = BTreeSet::new();
        for _ in 0..usize::from(turns) % (forward.plan.steps.len() + 1) {
            let open = forward.plan.steps.iter().filter(|step| !done.contains(&step.id));
            let ready: Vec<StepId> =
                open.filter(|step| step.after.iter().all(|after| done.contains(after))).map(|step| step.id).collect();
            let id = order.pick(&forward.plan, &ready);
            let action = &forward.plan.step(id).unwrap().action;
            // What was verified is not turned back.
            if matches!(action, Action::Verify { .. }) || stage.perform(action, seed % 2 == 0).is_err() {
                break;
            }
            done.insert(id);
        }
        // What only an older release knows is not looked at on the way back: it lost its volumes when that was replaced.
        let known: Vec<RevisionId> =
            case.target.revisions().into_values().chain(case.baseline.iter().flat_map(|b| b.revisions().into_values())).collect();
        stage.forget_writers_but(&known);
        let case = Case { stage, ..case };
        way_is_safe(&case, if seed % 3 == 0 { Way::Cancel } else { Way::Divert }, seed)?;
    }

    #[test]
    fn nothing_of_an_application_is_left_when_nothing_shall_be(case in case(), seed in any::<u64>()) {
        let (app, id) = (AppName::new("shop").unwrap(), DeploymentId::new("d1").unwrap());
        let observed = case.stage.observed();
        let request = PlanRequest::new(&app, &id, None, case.baseline.as_ref(), &observed, &case.warm);
        let plan = plan_back(&request.with_standby(case.standby.as_ref()).with_drains(case.stage.drains));
        check_shape(&plan).map_err(TestCaseError::fail)?;
        for mut order in [Order::First, Order::Last, Order::TakesFirst, Order::Random(seed)] {
            let mut stage = case.stage.clone();
            let mut done = BTreeSet::new();
            while done.len() < plan.steps.len() {
                let open = plan.steps.iter().filter(|step| !done.contains(&step.id));
                let ready: Vec<StepId> =
                    open.filter(|step| step.after.iter().all(|after| done.contains(after))).map(|step| step.id).collect();
                let id = order.pick(&plan, &ready);
                let action = &plan.step(id).unwrap().action;
                if let Action::Reduce { revision, keep, .. } = action {
                    prop_assert_eq!(stage.in_service_beyond(revision, *keep), 0, "{} is in rotation\n{}", revision, &plan);
                }
                stage.perform(action, false).map_err(|error| TestCaseError::fail(format!("{error}\n{plan}")))?;
                done.insert(id);
            }
            prop_assert_eq!(stage.revisions().count() + stage.routed().count(), 0, "{}", &plan);
        }
    }
}
