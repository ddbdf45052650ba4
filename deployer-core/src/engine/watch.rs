//! What this process has seen since it took over: what the journal does not need to know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::calls::Attempts;
use crate::backend::{Counters, Outcome};
use crate::error::Error;
use crate::model::{InstanceId, RevisionId, Timestamp};
use crate::plan::{Action, Observed, Plan, StepId};

/// How long an instance may be unready while a deployment holds before that counts as a failure.
pub(super) const UNREADY_TOLERANCE: Duration = Duration::from_secs(2);

/// How often instances that have come back are put into rotation at most.
const REGISTER_INTERVAL: Duration = Duration::from_secs(1);

/// What this process has seen of the steps that are under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// Steps whose backend call is being made right now.
    pub(super) running: BTreeSet<StepId>,
    /// Steps whose backend call, if they need one, has been made: they wait for something to become true.
    pub(super) waiting: BTreeMap<StepId, Waiting>,
    /// Steps whose call has failed and is made again.
    failed: BTreeMap<StepId, Attempts>,
    /// When instances that had come back were put into rotation last, or that was tried.
    registered_at: Option<Timestamp>,
}

/// What has been seen of one step that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// Since when this process watches it.
    pub(super) since: Timestamp,
    /// What its call did, if it makes one.
    pub(super) outcome: Outcome,
    /// Since when its condition has held without a break, as far as it must hold for a time.
    pub(super) holds_since: Option<Timestamp>,
    /// Since when too few instances have been ready without a break.
    pub(super) unready_since: Option<Timestamp>,
    /// How often each instance had crashed when the watch began.
    pub(super) crashes: BTreeMap<InstanceId, u32>,
    /// What had gone through the pool when the watch began.
    pub(super) counters: Option<Counters>,
    /// What was seen last that counts as progress, and when it changed.
    progress: (Vec<(InstanceId, u32, bool)>, Timestamp),
}

impl Watch {
    /// Forgets everything: another plan is followed.
    pub(super) fn clear(&mut self) {
        self.running.clear();
        self.waiting.clear();
        self.failed.clear();
    }

    /// Whether instances that have come back may be put into rotation: what could not be done is not tried all the time.
    pub(super) fn may_register(&self, now: Timestamp) -> bool {
        self.registered_at.is_none_or(|at| now.since(at) >= REGISTER_INTERVAL)
    }

    pub(super) fn registers(&mut self, now: Timestamp) {
        self.registered_at = Some(now);
    }

    /// Counts a failure of a step's call, and answers how long to wait before it is made again, if that makes sense. What
    /// a process that is gone has tried does not count: its host may have been the trouble.
    pub(super) fn failed(&mut self, step: StepId, error: &Error) -> Option<Duration> {
        self.failed.entry(step).or_default().failed(error)
    }

    /// Begins to watch a step, from what was seen last: what happens from here on is seen as a change.
    pub(super) fn begin(&mut self, step: StepId, outcome: Outcome, now: Timestamp, plan: &Plan, observed: &Observed) {
        self.waiting.entry(step).or_insert_with(|| {
            let held = plan.step(step).and_then(|step| match &step.action {
                Action::Hold { revision, .. } => Some(revision),
                _ => None,
            });
            let crashes = held.into_iter().flat_map(|revision| observed.instances(revision));
            Waiting {
                since: now,
                outcome,
                holds_since: None,
                unready_since: None,
                crashes: crashes.map(|instance| (instance.id.clone(), instance.crashes)).collect(),
                counters: held.and_then(|revision| counters(observed, revision)),
                progress: (Vec::new(), now),
            }
        });
    }

    /// Takes a look at the world into account.
    pub(super) fn update(&mut self, plan: &Plan, observed: &Observed, now: Timestamp) {
        for (id, waiting) in &mut self.waiting {
            let Some(step) = plan.step(*id) else { continue };
            match &step.action {
                Action::AwaitHealthy { revision, instances, all, .. } => {
                    let seen: Vec<_> = observed
                        .instances(revision)
                        .map(|instance| (instance.id.clone(), instance.crashes, instance.is_ready()))
                        .collect();
                    // One that has crashed and is up again between two looks has not held.
                    let crashed = seen.iter().any(|(id, crashes, _)| {
                        waiting.progress.0.iter().any(|(known, before, _)| known == id && crashes > before)
                    });
                    let wanted = if *all { observed.count(revision).max(*instances) } else { *instances };
                    let enough = observed.ready(revision) >= wanted;
                    let held_since = waiting.holds_since.filter(|_| !crashed);
                    waiting.holds_since = enough.then(|| held_since.unwrap_or(now));
                    if seen != waiting.progress.0 {
                        waiting.progress = (seen, now);
                    }
                }
                Action::Reduce { revision, keep, .. } => {
                    let few = observed.count(revision) <= *keep;
                    waiting.holds_since = few.then(|| waiting.holds_since.unwrap_or(now));
                }
                Action::Hold { revision, instances, .. } => {
                    let enough = observed.ready(revision) >= *instances;
                    waiting.unready_since = (!enough).then(|| waiting.unready_since.unwrap_or(now));
                }
                _ => {}
            }
        }
    }
}

impl Waiting {
    /// When something last changed that counts as progress.
    pub(super) fn progress_at(&self) -> Timestamp {
        self.progress.1
    }
}

/// What has gone through the pool of a revision.
pub(super) fn counters(observed: &Observed, revision: &RevisionId) -> Option<Counters> {
    observed.routing(revision.service())?.pool(revision)?.counters
}
