//! What to do next: a pure function of the journal's state, what is observed, and the time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::diagnose;
use super::watch::{UNREADY_TOLERANCE, Waiting, Watch, counters};
use crate::backend::{GateAnswer, InstancePhase, ObservedInstance, Outcome, Signal, TargetState};
use crate::error::ErrorKind;
use crate::journal::{DeploymentKind, DivertReason, Evidence, Failure, State, StepState, Verdict};
use crate::model::{
    GateCheck, GatePoint, GateSpec, Human, InstanceId, OnInconclusive, Readiness, Release, ReleaseNumber, RevisionId,
    Timestamp, Workload,
};
use crate::plan::{Action, Observed, Step, StepId};

/// How long instances may take to be gone once the platform was told to stop them.
const STOP_TIMEOUT: Duration = Duration::from_secs(600);
/// From when on a revision that holds is looked at seldom.
const BAKING: Duration = Duration::from_secs(30);
/// How often a call is made at most that had nothing to do by what the platform answered, which may have been old.
const MISTAKES: u32 = 5;
/// How often in a row a gate may be impossible to ask.
const GATE_ERRORS: u32 = 3;

/// What the driver shall do now.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    /// Make a step's backend call.
    Act { step: StepId, attempt: u32 },
    /// A step is done.
    Finish { step: StepId, outcome: Outcome, detail: Vec<String>, output_of: Option<InstanceId> },
    /// A step has failed for good. The output of these instances is evidence, in the order of the failure's.
    Fail { step: StepId, failure: Box<Failure>, output_of: Vec<InstanceId> },
    /// Ask a gate that takes a call.
    Ask { step: StepId, gate: GateSpec, revision: RevisionId, weight: u8 },
    /// A gate's answer is known from what was observed.
    Answer { step: StepId, gate: String, answer: GateAnswer },
    /// Put instances into rotation that are ready and belong there: they ended, and have come back.
    Register { release: ReleaseNumber, revision: RevisionId, instances: Vec<InstanceId> },
    /// Turn back.
    Divert { reason: DivertReason },
    /// The deployment has ended.
    Close { verdict: Verdict },
}

/// What to do now, and when to look again if nothing happens before.
#[derive(Debug, Default)]
pub(super) struct Decision {
    pub(super) commands: Vec<Command>,
    pub(super) wake_at: Option<Timestamp>,
}

impl Decision {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

/// Everything a decision depends on.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) state: &'a State,
    pub(super) observed: &'a Observed,
    pub(super) watch: &'a Watch,
    pub(super) releases: &'a BTreeMap<ReleaseNumber, Arc<Release>>,
    /// The shortest time after which looking again may help.
    pub(super) poll: Duration,
    /// For how long requests may still go where they went before the load balancer was changed.
    pub(super) propagation: Duration,
    /// Whether calls between services by name follow the load balancer's weights.
    pub(super) internal: bool,
    /// Whether it is the engine that puts instances into rotation.
    pub(super) registers: bool,
    /// Whether the platform changes the number of instances by itself where a service wants that.
    pub(super) scales: bool,
    pub(super) now: Timestamp,
    /// When what is observed was looked at. Nothing has held for longer than that.
    pub(super) seen: Timestamp,
    /// Whether it was looked at after every call that has ended. Where looking fails, it is not.
    pub(super) is_current: bool,
    /// Up to when something may count as missing: when it was looked for, unless looking has failed for long.
    pub(super) missed: Timestamp,
}

/// Decides.
pub(super) fn decide(view: &View<'_>) -> Decision {
    let mut decision = Decision::default();
    let state = view.state;
    if state.record.verdict.is_some() {
        return decision;
    }
    let idle = view.watch.running.is_empty();
    let superseded = state.signals.iter().find_map(|signal| match signal {
        Signal::Supersede { by } => Some(by.clone()),
        _ => None,
    });
    let cancelled = state.signals.iter().find_map(|signal| match signal {
        Signal::Cancel { by } => Some(by.clone()),
        _ => None,
    });
    if let Some(by) = superseded {
        if idle {
            decision.commands.push(Command::Close { verdict: state.abandoned(by) });
        }
        return decision;
    }
    if let Some((_, failure)) = state.failed() {
        // Calls of the plan that is given up must not overlap with those of the one to come.
        if idle {
            let cause = Box::new(failure.clone());
            decision.commands.push(match (&state.diverted, state.record.kind) {
                // What somebody wants to be gone is not brought back.
                (None, DeploymentKind::Destroy { .. }) => {
                    Command::Close { verdict: Verdict::NeedsAttention { cause, rollback: None } }
                }
                (None, _) => Command::Divert { reason: DivertReason::Failed { cause } },
                (Some(reason), _) => Command::Close { verdict: needs_attention(reason, cause) },
            });
        }
        return decision;
    }
    if let (Some(by), None, false) = (cancelled, &state.diverted, state.is_verified()) {
        if idle {
            decision.commands.push(Command::Divert { reason: DivertReason::Cancelled { by } });
        }
        return decision;
    }
    if state.is_complete() {
        decision.commands.push(Command::Close { verdict: verdict(state) });
        return decision;
    }
    for step in &state.plan.steps {
        consider(view, step, &mut decision);
    }
    // Not beside a call that may set the same targets.
    if idle && decision.commands.is_empty() && view.registers && view.watch.may_register(view.now) {
        decision.commands.extend(missing_targets(view));
    }
    decision
}

/// An instance that was not ready when targets were set last is in none of the pools. Once it is ready it belongs there
/// again, unless it is one that shall go; until then the others have its work.
fn missing_targets(view: &View<'_>) -> Option<Command> {
    let pools = view.observed.routing.iter().flat_map(|routing| &routing.pools);
    pools.filter(|pool| pool.weight > 0).find_map(|pool| {
        let revision = &pool.revision;
        let known = view.releases.values().find(|release| {
            let service = release.services.get(revision.service());
            service.is_some_and(|service| service.revision(revision.service()) == *revision)
        })?;
        let mut stays = u32::MAX;
        for step in &view.state.plan.steps {
            match &step.action {
                // It is for that step to say when the revision is ready.
                Action::AwaitHealthy { revision: awaited, .. }
                    if awaited == revision && !view.state.is_settled(step.id) =>
                {
                    return None;
                }
                Action::Drain { revision: leaving, keep, .. } | Action::Reduce { revision: leaving, keep, .. }
                    if leaving == revision && view.state.step_state(step.id) != Some(&StepState::Pending) =>
                {
                    stays = stays.min(*keep);
                }
                _ => {}
            }
        }
        let missing = view.observed.instances(revision).take(stays as usize).filter(|instance| {
            let pooled = pool.targets.iter().any(|target| target.instance == instance.id);
            !pooled && instance.is_ready() && instance.address.is_some()
        });
        let instances: Vec<InstanceId> = missing.map(|instance| instance.id.clone()).collect();
        let nobody = instances.is_empty();
        (!nobody).then(|| Command::Register { release: known.number, revision: revision.clone(), instances })
    })
}

fn verdict(state: &State) -> Verdict {
    match &state.diverted {
        None => Verdict::Promoted { leftovers: state.leftovers() },
        Some(DivertReason::Failed { cause }) => Verdict::RolledBack { cause: cause.clone() },
        Some(DivertReason::Cancelled { by }) => Verdict::Cancelled { by: by.clone() },
    }
}

fn needs_attention(reason: &DivertReason, rollback: Box<Failure>) -> Verdict {
    let cause = match reason {
        DivertReason::Failed { cause } => cause.clone(),
        DivertReason::Cancelled { by } => {
            Box::new(Failure::new("go on", ErrorKind::Conflict, format!("it was cancelled by {by}")))
        }
    };
    Verdict::NeedsAttention { cause, rollback: Some(rollback) }
}

fn consider(view: &View<'_>, step: &Step, decision: &mut Decision) {
    if view.watch.running.contains(&step.id) {
        return;
    }
    match view.state.step_state(step.id) {
        Some(StepState::Pending) if step.after.iter().all(|after| view.state.is_settled(*after)) => {
            decision.commands.push(Command::Act { step: step.id, attempt: 1 });
        }
        Some(StepState::Retrying { attempt, retry_at, .. }) => {
            if *retry_at <= view.now {
                decision.commands.push(Command::Act { step: step.id, attempt: attempt + 1 });
            } else {
                decision.wake(*retry_at);
            }
        }
        Some(StepState::Started { attempt, since }) => match view.watch.waiting.get(&step.id) {
            // Begun by a process that is gone: the call is made again, and finds what the first one did.
            None => decision.commands.push(Command::Act { step: step.id, attempt: attempt + 1 }),
            Some(waiting) => {
                let wait = Wait { view, step, waiting, attempt: *attempt, since: *since };
                wait.consider(decision);
            }
        },
        _ => {}
    }
}

/// A step that waits for something to become true.
struct Wait<'a> {
    view: &'a View<'a>,
    step: &'a Step,
    waiting: &'a Waiting,
    /// How often its call was made.
    attempt: u32,
    since: Timestamp,
}

impl Wait<'_> {
    fn consider(&self, decision: &mut Decision) {
        let elapsed = self.view.missed.since(self.begun());
        match &self.step.action {
            Action::AwaitHealthy { revision, instances, readiness, all } => {
                let there = self.view.observed.count(revision);
                let wanted = if *all { there.max(*instances) } else { *instances };
                self.healthy(decision, revision, wanted, readiness);
            }
            Action::RunHook { task, hook, service, release } => {
                let found = self.view.observed.app.tasks.iter().find(|observed| observed.task == *task);
                let instance = found.map(|found| found.instance.clone());
                match found.and_then(|found| found.exit.as_ref()) {
                    Some(exit) if exit.code == Some(0) && !exit.out_of_memory => {
                        self.finish(decision, Vec::new(), instance);
                    }
                    Some(exit) => {
                        let what = diagnose::describe_exit(exit);
                        let summary = format!("the hook {} of {service} {what}", hook.name);
                        let mut failure = self.failure(ErrorKind::Workload, summary);
                        failure.evidence = vec![Evidence::new(task.to_string(), what, Vec::new())];
                        let workload = self.workload(*release, service);
                        failure.hint = diagnose::hint_for_exit(exit, &workload);
                        self.fail(decision, failure, instance.into_iter().collect());
                    }
                    None if elapsed >= hook.timeout => {
                        let time = Human(hook.timeout);
                        let summary = format!("the hook {} of {service} did not end within {time}", hook.name);
                        let mut failure = self.failure(ErrorKind::Timeout, summary);
                        let what = "still runs".to_owned();
                        failure.evidence = vec![Evidence::new(task.to_string(), what, Vec::new())];
                        failure.hint = Some("raise the hook's timeout if it needs longer".to_owned());
                        self.fail(decision, failure, instance.into_iter().collect());
                    }
                    None => self.look_again(decision, self.begun() + hook.timeout),
                }
            }
            Action::Ask { revision, gate } => {
                let weight = self.view.observed.weights(revision.service()).get(revision).copied().unwrap_or(0);
                let patience = gate.interval.saturating_mul(10).max(Duration::from_secs(10));
                let verdict = self.gate(decision, gate, revision, weight, patience);
                if verdict == Some(true) {
                    self.finish(decision, Vec::new(), None);
                }
            }
            Action::Hold { revision, weight, duration, gates, .. } => {
                self.hold(decision, revision, *weight, *duration, gates);
            }
            Action::Shift { .. } if !self.is_settling(decision) => self.finish(decision, Vec::new(), None),
            Action::Drain { revision, keep, timeout, .. } => {
                let (known, left) = self.in_flight(revision, *keep);
                // Nothing is in flight now, and yet something may come.
                if self.is_settling(decision) {
                } else if known && left == 0 && self.view.is_current {
                    self.finish(decision, Vec::new(), None);
                } else if elapsed >= *timeout {
                    let requests = if known { left.to_string() } else { "an unknown number of".to_owned() };
                    let detail = format!("{requests} requests were in flight after {}", Human(*timeout));
                    self.finish(decision, vec![detail], None);
                } else {
                    self.look_again(decision, self.begun() + *timeout);
                }
            }
            Action::Reduce { revision, keep, .. } => {
                let left = self.view.observed.count(revision);
                if left <= *keep {
                    self.reduced(decision);
                } else if self.was_mistaken(revision, *keep) {
                    decision.commands.push(Command::Act { step: self.step.id, attempt: self.attempt + 1 });
                } else if elapsed >= STOP_TIMEOUT {
                    let summary = format!("{left} instances of {revision} are still there, {keep} should be");
                    let failure = self.failure(ErrorKind::Timeout, summary);
                    let left: Vec<_> = self.view.observed.instances(revision).skip(*keep as usize).collect();
                    self.fail_with(decision, failure, &left);
                } else {
                    self.look_again(decision, self.begun() + STOP_TIMEOUT);
                }
            }
            Action::Verify { release, timeout } => match self.mismatch(*release) {
                None => self.finish(decision, Vec::new(), None),
                Some(mismatch) if self.view.missed >= self.begun() + *timeout => {
                    let failure = self.failure(ErrorKind::Conflict, mismatch);
                    self.fail(decision, failure, Vec::new());
                }
                Some(_) => self.look_again(decision, self.begun() + *timeout),
            },
            _ => {}
        }
    }

    /// No more instances are there than shall be. Where the call had nothing to stop, it may have decided that by an old
    /// answer, and so may one look: two of them are believed.
    fn reduced(&self, decision: &mut Decision) {
        let since = self.waiting.holds_since.unwrap_or(self.view.seen);
        if self.waiting.outcome != Outcome::AlreadyThere || self.view.seen.since(since) >= self.view.poll {
            self.finish(decision, Vec::new(), None);
        } else {
            self.wake(decision, since + self.view.poll);
        }
    }

    /// Whether a call had nothing to stop, and yet instances run on that should have been.
    fn was_mistaken(&self, revision: &RevisionId, keep: u32) -> bool {
        let mut leaving = self.view.observed.instances(revision).skip(keep as usize);
        self.waiting.outcome == Outcome::AlreadyThere
            && self.attempt < MISTAKES
            && self.view.seen.since(self.waiting.since) >= self.view.poll
            && leaving.any(|instance| instance.phase != InstancePhase::Stopping)
    }

    /// Whether a change of the load balancer does not hold for all requests yet.
    fn is_settling(&self, decision: &mut Decision) -> bool {
        let settled = self.begun() + self.view.propagation;
        let settling = self.view.now < settled;
        if settling {
            decision.wake(settled);
        }
        settling
    }

    /// Since when this process watches the step: neither what a process that is gone did not see counts, nor the time
    /// that the call took.
    fn begun(&self) -> Timestamp {
        self.since.max(self.waiting.since)
    }

    fn healthy(&self, decision: &mut Decision, revision: &RevisionId, wanted: u32, readiness: &Readiness) {
        let view = self.view;
        let instances: Vec<&ObservedInstance> = view.observed.instances(revision).collect();
        if let Some(since) = self.waiting.holds_since {
            let long_enough = readiness.min_healthy.unwrap_or_default();
            if view.seen.since(since) >= long_enough {
                return self.finish(decision, Vec::new(), None);
            }
            // Only time is missing: a look now and then is enough to see it break.
            let look = view.now + view.poll.max(Duration::from_millis(100));
            return self.wake(decision, look.min(since + long_enough));
        }
        // An instance that is ready may have crashed at some time of its life: that is no matter here.
        let unready = || instances.iter().copied().filter(|instance| !instance.is_ready());
        let looping = unready().map(|instance| instance.crashes).sum::<u32>() > readiness.crashes_allowed;
        let hopeless: Vec<&ObservedInstance> =
            unready().filter(|instance| is_hopeless(instance) || (looping && instance.crashes > 0)).collect();
        if let Some(first) = hopeless.first() {
            let summary = format!("{} of {revision}: {}", first.name, diagnose::describe(first));
            let mut failure = self.failure(ErrorKind::Workload, summary);
            failure.hint =
                first.exit.as_ref().and_then(|exit| diagnose::hint_for_exit(exit, &self.workload_of(revision)));
            return self.fail_with(decision, failure, &hopeless);
        }
        let deadline = self.begun() + readiness.deadline;
        let progress = readiness.progress_deadline.map(|deadline| self.waiting.progress_at() + deadline);
        let stalled = progress.is_some_and(|progress| view.missed >= progress);
        if view.missed >= deadline || stalled {
            let unready: Vec<_> = instances.iter().copied().filter(|instance| !instance.is_ready()).collect();
            let ready = view.observed.ready(revision);
            let time = if stalled {
                format!("nothing changed for {}", Human(readiness.progress_deadline.unwrap_or_default()))
            } else {
                format!("not within {}", Human(readiness.deadline))
            };
            let summary = format!("{ready} of {wanted} instances of {revision} became ready, {time}");
            let mut failure = self.failure(ErrorKind::Timeout, summary);
            failure.hint = unready.first().and_then(|first| diagnose::hint_for_unready(first, readiness));
            return self.fail_with(decision, failure, &unready);
        }
        self.look_again(decision, progress.map_or(deadline, |progress| progress.min(deadline)));
    }

    fn hold(&self, decision: &mut Decision, revision: &RevisionId, weight: u8, duration: Duration, gates: &[GateSpec]) {
        let view = self.view;
        let crashed: Vec<&ObservedInstance> = view
            .observed
            .instances(revision)
            .filter(|instance| {
                let before = self.waiting.crashes.get(&instance.id).copied().unwrap_or(0);
                instance.crashes > before || matches!(instance.phase, InstancePhase::Exited | InstancePhase::Restarting)
            })
            .collect();
        if let Some(first) = crashed.first() {
            let summary =
                format!("{} crashed while it had {weight} % of the traffic: {}", first.name, diagnose::describe(first));
            let mut failure = self.failure(ErrorKind::Workload, summary);
            failure.hint =
                first.exit.as_ref().and_then(|exit| diagnose::hint_for_exit(exit, &self.workload_of(revision)));
            return self.fail_with(decision, failure, &crashed);
        }
        if let Some(since) = self.waiting.unready_since {
            if view.missed.since(since) >= UNREADY_TOLERANCE {
                let unready: Vec<_> = view.observed.instances(revision).filter(|i| !i.is_ready()).collect();
                let summary = format!("instances of {revision} are not ready any more, with {weight} % of the traffic");
                let failure = self.failure(ErrorKind::Workload, summary);
                return self.fail_with(decision, failure, &unready);
            }
            self.wake(decision, since + UNREADY_TOLERANCE);
        }
        let end = self.begun() + duration;
        let mut passed = true;
        for gate in gates {
            let patience = duration + gate.interval.saturating_mul(10).max(Duration::from_secs(10));
            passed &= self.gate(decision, gate, revision, weight, patience) == Some(true);
        }
        if passed && view.seen >= end {
            self.finish(decision, Vec::new(), None);
        } else if view.seen < end {
            self.look_again(decision, end);
        } else {
            self.look_again(decision, view.now + Duration::from_millis(250));
        }
    }

    /// Whether a gate has passed: nothing is known as long as it waits for an answer. A gate that fails the deployment
    /// puts that into the decision.
    fn gate(
        &self,
        decision: &mut Decision,
        gate: &GateSpec,
        revision: &RevisionId,
        weight: u8,
        patience: Duration,
    ) -> Option<bool> {
        let view = self.view;
        let state = view.state.gates.get(&self.step.id).and_then(|gates| gates.get(&gate.name));
        let name = &gate.name;
        if let GateCheck::Approval { timeout } = gate.check {
            return self.approval(decision, gate, timeout, state.is_some());
        }
        if let Some(state) = state {
            let last = state.last.as_ref();
            let detail = last.map(GateAnswer::detail).unwrap_or_default();
            let late = view.now.since(self.begun()) >= patience;
            // Not having been able to ask is counted by itself.
            let unclear = matches!(last, Some(GateAnswer::Inconclusive { .. }));
            let failed = if state.failures > gate.failures_allowed {
                Some((ErrorKind::Workload, format!("gate {name} says no: {detail}")))
            } else if state.errors_in_a_row >= GATE_ERRORS {
                Some((ErrorKind::Unavailable, format!("gate {name} could not be asked {GATE_ERRORS} times in a row")))
            } else if unclear && late && gate.on_inconclusive == OnInconclusive::Fail {
                Some((ErrorKind::Timeout, format!("gate {name} could not tell until the end: {detail}")))
            } else {
                None
            };
            if let Some((kind, summary)) = failed {
                self.fail(decision, self.failure(kind, summary), Vec::new());
                return Some(false);
            }
        }
        // One question at a time, and none once the step has failed.
        let occupied = decision.commands.iter().any(|command| match command {
            Command::Ask { step, .. } | Command::Fail { step, .. } => *step == self.step.id,
            _ => false,
        });
        let due = state.map_or(self.since, |state| state.asked_at + gate.interval);
        if due <= view.now && !occupied {
            decision.commands.push(self.question(gate, revision, weight));
        } else {
            decision.wake(due.max(view.now + view.poll));
        }
        match state.and_then(|state| state.last.as_ref()) {
            Some(GateAnswer::Pass { .. }) => Some(true),
            Some(GateAnswer::Inconclusive { .. }) if gate.on_inconclusive == OnInconclusive::Proceed => {
                // Before traffic there is time to wait for a better answer; a hold ends with its time.
                (gate.at == GatePoint::Holding || view.now.since(self.begun()) >= patience).then_some(true)
            }
            _ => None,
        }
    }

    fn approval(&self, decision: &mut Decision, gate: &GateSpec, timeout: Duration, asked: bool) -> Option<bool> {
        let by = self.view.state.signals.iter().find_map(|signal| match signal {
            Signal::Promote { by } => Some(by),
            _ => None,
        });
        match by {
            Some(by) => {
                if !asked {
                    let answer = GateAnswer::Pass { detail: format!("approved by {by}") };
                    let (step, gate) = (self.step.id, gate.name.clone());
                    decision.commands.push(Command::Answer { step, gate, answer });
                }
                Some(true)
            }
            None if self.view.now.since(self.since) >= timeout => {
                let summary = format!("nobody approved gate {} within {}", gate.name, Human(timeout));
                self.fail(decision, self.failure(ErrorKind::Timeout, summary), Vec::new());
                Some(false)
            }
            None => {
                decision.wake(self.since + timeout);
                None
            }
        }
    }

    fn question(&self, gate: &GateSpec, revision: &RevisionId, weight: u8) -> Command {
        let step = self.step.id;
        let since = || {
            let before = self.waiting.counters.unwrap_or_default();
            let now = counters(self.view.observed, revision).unwrap_or_default();
            let latency = now.mean_latency;
            (now.requests.saturating_sub(before.requests), now.errors.saturating_sub(before.errors), latency)
        };
        let answer = match &gate.check {
            GateCheck::ErrorRate { max_permille, min_requests } => {
                let (requests, errors, _) = since();
                let permille = (errors * 1_000).checked_div(requests).unwrap_or(0);
                let detail = format!("{errors} of {requests} requests failed");
                if requests < *min_requests {
                    GateAnswer::Inconclusive { detail: format!("{detail}, {min_requests} requests are needed to tell") }
                } else if permille > u64::from(*max_permille) {
                    GateAnswer::Fail { detail: format!("{detail}, at most {} % may", f64::from(*max_permille) / 10.0) }
                } else {
                    GateAnswer::Pass { detail }
                }
            }
            GateCheck::Latency { max, min_requests } => {
                let (requests, _, latency) = since();
                match latency {
                    Some(latency) if requests >= *min_requests => {
                        let detail =
                            format!("requests take {} on the mean, at most {} allowed", Human(latency), Human(*max));
                        if latency > *max { GateAnswer::Fail { detail } } else { GateAnswer::Pass { detail } }
                    }
                    _ => {
                        let detail = format!("{requests} requests so far, {min_requests} are needed to tell");
                        GateAnswer::Inconclusive { detail }
                    }
                }
            }
            _ => return Command::Ask { step, gate: gate.clone(), revision: revision.clone(), weight },
        };
        Command::Answer { step, gate: gate.name.clone(), answer }
    }

    /// How many requests are in flight on the instances that are to go, and whether that is known.
    fn in_flight(&self, revision: &RevisionId, keep: u32) -> (bool, u64) {
        let observed = self.view.observed;
        let Some(pool) = observed.routing(revision.service()).and_then(|routing| routing.pool(revision)) else {
            return (true, 0);
        };
        let staying: BTreeSet<&InstanceId> =
            observed.instances(revision).take(keep as usize).map(|instance| &instance.id).collect();
        let leaving = pool.targets.iter().filter(|target| !staying.contains(&target.instance));
        leaving.fold((true, 0), |(known, sum), target| match target.in_flight {
            Some(count) => (known, sum + count),
            None => (false, sum),
        })
    }

    /// What of a release does not serve as it should.
    fn mismatch(&self, number: ReleaseNumber) -> Option<String> {
        let Some(release) = self.view.releases.get(&number) else {
            return Some(format!("release {number} is not known"));
        };
        release.services.iter().find_map(|(name, service)| {
            let revision = service.revision(name);
            let observed = self.view.observed;
            let ready = observed.ready(&revision);
            let least = service.least_instances(self.view.scales);
            if ready < least {
                return Some(format!("{ready} of {least} instances of {revision} are ready"));
            }
            let wrong =
                observed.instances(&revision).find(|i| i.image.as_ref().is_some_and(|d| *d != service.image.digest));
            if let Some(wrong) = wrong {
                return Some(format!("{} runs another image than {number} has", wrong.name));
            }
            if !service.is_balanced(self.view.internal) {
                return None;
            }
            let weights = observed.weights(name);
            if service.replicas > 0 && weights != BTreeMap::from([(revision.clone(), 100)]) {
                return Some(format!("the traffic of {name} does not go to {revision} alone"));
            }
            let pool = observed.routing(name)?.pool(&revision)?;
            let serves = |state| match state {
                TargetState::InService => true,
                // Only the image says that it listens: it need not.
                TargetState::Down | TargetState::Starting => !service.declares_ports(),
                TargetState::Draining => false,
            };
            let serving = pool.targets.iter().filter(|target| serves(target.state)).count();
            (serving < least as usize).then(|| format!("{serving} of {least} instances of {revision} are in rotation"))
        })
    }

    fn workload(&self, release: ReleaseNumber, service: &crate::model::ServiceName) -> Workload {
        let service = self.view.releases.get(&release).and_then(|release| release.services.get(service));
        service.map(|service| service.workload.clone()).unwrap_or_default()
    }

    fn workload_of(&self, revision: &RevisionId) -> Workload {
        let found = self.view.releases.values().find_map(|release| {
            let service = release.services.get(revision.service())?;
            (service.revision(revision.service()) == *revision).then(|| service.workload.clone())
        });
        found.unwrap_or_default()
    }

    fn failure(&self, kind: ErrorKind, summary: String) -> Failure {
        let mut failure = Failure::new(self.step.action.to_string(), kind, summary);
        failure.service = self.step.action.service().cloned();
        failure
    }

    fn fail_with(&self, decision: &mut Decision, mut failure: Failure, instances: &[&ObservedInstance]) {
        failure.evidence = diagnose::evidence(instances.iter().copied());
        self.fail(decision, failure, instances.iter().map(|instance| instance.id.clone()).collect());
    }

    fn fail(&self, decision: &mut Decision, failure: Failure, output_of: Vec<InstanceId>) {
        let command = Command::Fail { step: self.step.id, failure: Box::new(failure), output_of };
        // One failure of a step is enough.
        let failed = |other: &Command| matches!(other, Command::Fail { step, .. } if *step == self.step.id);
        if !decision.commands.iter().any(failed) {
            decision.commands.push(command);
        }
    }

    fn finish(&self, decision: &mut Decision, detail: Vec<String>, output_of: Option<InstanceId>) {
        let outcome = Outcome::Changed;
        decision.commands.push(Command::Finish { step: self.step.id, outcome, detail, output_of });
    }

    /// Looks again as soon as that may help, and at `latest` at the latest. What is awaited is seen a sixteenth of the waiting
    /// time late at most, or a look late where that is more; while a deployment holds, nothing is expected.
    fn look_again(&self, decision: &mut Decision, latest: Timestamp) {
        let elapsed = self.view.now.since(self.waiting.since);
        let poll = match &self.step.action {
            Action::Hold { .. } if elapsed < BAKING => self.view.poll.max(Duration::from_millis(250)),
            Action::Hold { .. } => self.view.poll.max(Duration::from_millis(250)).saturating_mul(4),
            _ => (elapsed / 16).clamp(self.view.poll, self.view.poll.saturating_mul(16)),
        };
        self.wake(decision, latest.min(self.view.now + poll));
    }

    /// Looks again at this time; if it is past already, as soon as a look may show something new.
    fn wake(&self, decision: &mut Decision, at: Timestamp) {
        decision.wake(if at > self.view.now { at } else { self.view.now + self.view.poll });
    }
}

/// Whether an instance can only fail again.
fn is_hopeless(instance: &ObservedInstance) -> bool {
    instance.phase == InstancePhase::Exited || instance.exit.as_ref().is_some_and(|exit| exit.unrecoverable)
}
