//! The way back to a release that was good, or to nothing. Not an undo of what was done: it is computed from what is
//! there. Traffic first, onto capacity that is observed to be healthy, then capacity, then clean-up.

use std::collections::BTreeMap;

use super::forward::VERIFY_TIMEOUT;
use super::planner::{Draft, PlanRequest, change, in_order, is_scaled, serving, wanted};
use super::step::{Action, ChangeKind, Plan, ServiceChange, StepId, StepWeight};
use crate::backend::Inherited;
use crate::model::{Condition, Release, RevisionId, ServiceName, ServiceRelease};

pub(super) fn plan(request: &PlanRequest<'_>) -> Plan {
    let mut draft = Draft::new(request);
    match request.target {
        Some(target) => to_release(&mut draft, request, target),
        None => to_nothing(&mut draft, request),
    }
    let changes = changes(request);
    draft.finish(changes)
}

/// What dependents of a service wait for.
#[derive(Default)]
struct Progress {
    started: Vec<StepId>,
    available: Vec<StepId>,
}

fn to_release(draft: &mut Draft<'_>, request: &PlanRequest<'_>, target: &Release) {
    let prepare = draft.step(&[], Action::Prepare { release: target.number });
    let mut progress: BTreeMap<&ServiceName, Progress> = BTreeMap::new();
    let mut ends = vec![prepare];
    for name in in_order(target) {
        let service = &target.services[name];
        let mut waits = vec![prepare];
        for (dependency, condition) in &service.depends_on {
            if let Some(dependency) = progress.get(dependency) {
                waits.extend(match condition {
                    Condition::Started => &dependency.started,
                    Condition::Healthy => &dependency.available,
                });
            }
        }
        // A service that is brought back already loses what it ran before only when that has taken over.
        for rival in draft.rivals(name, service) {
            waits.extend(progress.get(rival.service()).into_iter().flat_map(|done| &done.available));
        }
        let done = bring_back(draft, request, target, (name, service), waits);
        ends.extend(&done.available);
        progress.insert(name, done);
    }
    ends.extend(draft.ways_made());
    let verify = Action::Verify { release: target.number, timeout: VERIFY_TIMEOUT };
    let proof = draft.step(&ends, verify);
    // What has just failed is no standby, even if it was one before.
    let failed = request.baseline.filter(|_| !request.baseline_served).map(Release::revisions).unwrap_or_default();
    let warm: Vec<RevisionId> =
        request.warm.iter().filter(|revision| !failed.values().any(|failed| failed == *revision)).cloned().collect();
    let mut ends = vec![proof];
    ends.extend(draft.give_back(&[proof], StepWeight::CleanUp));
    // What the target itself has taken over from is still there if its own clean-up was cut short. Where something is
    // started again, what had ended by itself stays beside it.
    let replaced = |one: &Inherited| request.stopped.is_empty() && !one.running;
    ends.extend(draft.discard_inherited(&[proof], target, replaced));
    for name in request.observed.services() {
        let current = target.services.get(&name).map(|service| service.revision(&name));
        ends.extend(fewer(draft, target, &name, proof));
        for (revision, release) in request.observed.revisions(&name) {
            if Some(&revision) != current.as_ref() && !warm.contains(&revision) && !draft.is_gone(&revision) {
                ends.push(draft.retire(&[proof], StepWeight::CleanUp, &revision, release));
            }
        }
    }
    let pools = target.revisions().into_values().chain(warm).collect();
    draft.add(&ends, StepWeight::CleanUp, Action::Tidy { release: Some(target.number), pools });
}

/// Stops the instances that are more than the release wants, unless those that would stay are not ready.
fn fewer(draft: &mut Draft<'_>, target: &Release, name: &ServiceName, proof: StepId) -> Option<StepId> {
    let service = target.services.get(name)?;
    let (revision, keep) = (service.revision(name), wanted(draft.request, name, service));
    let observed = draft.request.observed;
    if observed.count(&revision) > keep && observed.ready_among(&revision, keep) < keep {
        let count = observed.count(&revision);
        draft.notes.push(format!("{name} keeps its {count} instances: those that would stay are not all ready"));
        return None;
    }
    draft.fewer(&[proof], StepWeight::CleanUp, target, name)
}

fn bring_back(
    draft: &mut Draft<'_>,
    request: &PlanRequest<'_>,
    target: &Release,
    (name, service): (&ServiceName, &ServiceRelease),
    mut waits: Vec<StepId>,
) -> Progress {
    let observed = request.observed;
    let revision = service.revision(name);
    let (ready, wanted) = (observed.ready(&revision), wanted(request, name, service));
    let all = BTreeMap::from([(revision.clone(), 100)]);
    let weights = observed.weights(name);
    let others_serve = weights.keys().any(|other| *other != revision && observed.ready(other) > 0);
    let listens = service.is_balanced(request.internal);

    // Traffic goes at once to what is healthy, if it can bear it or is better than what has the traffic now.
    let enough = if request.haste { ready * 2 >= wanted } else { ready >= wanted };
    // What scales and has not failed is left only for as many instances as it has by then: a launch sees how many.
    let careful = is_scaled(request, service) && request.baseline_served && others_serve;
    let at_once = listens && ready > 0 && (enough || !others_serve) && !careful && weights != all;
    let releases = || BTreeMap::from([(revision.clone(), target.number)]);
    let mut done = Progress::default();
    if at_once {
        // What was kept in rotation with no weight, by the routes that it shall have, and finds what it depends on, needs
        // nothing to be prepared.
        let pooled = observed.routing(name).is_some_and(|routing| {
            let routed = service.routes.iter().all(|route| routing.routes.contains(route));
            routed && routing.pool(&revision).is_some()
        });
        let provided = service.depends_on.keys().all(|dependency| is_there(request, target, dependency));
        let after = if pooled && provided { Vec::new() } else { waits.clone() };
        done.available = vec![draft.shift(&after, name, all.clone(), releases(), 0)];
        done.started.clone_from(&done.available);
    }
    for rival in draft.rivals(name, service) {
        waits = draft.make_way(&waits, &rival, target.number);
    }
    if service.is_exclusive() {
        for (other, release) in observed.revisions(name) {
            if other != revision {
                waits = draft.make_way(&waits, &other, release);
            }
        }
    }
    if careful || ready < wanted || observed.count(&revision) < wanted {
        waits.extend(&done.available);
        let launch = Action::Launch { release: target.number, revision: revision.clone(), instances: wanted };
        let launched = draft.step(&waits, launch);
        let healthy = draft.await_healthy(&[launched], (name, service), wanted);
        done.started = vec![launched];
        done.available = vec![healthy];
        if listens {
            done.available = vec![draft.shift(&[healthy], name, all, releases(), wanted)];
        }
    } else if listens && !at_once && (weights == all || (wanted == 0 && !weights.is_empty())) {
        // Instances may have been taken out of rotation on the way forward.
        let healthy = draft.await_healthy(&waits, (name, service), wanted);
        done.available = vec![draft.shift(&[healthy], name, all, releases(), wanted)];
        done.started.clone_from(&done.available);
    }
    done
}

/// Whether a service that others depend on serves as the release wants it.
fn is_there(request: &PlanRequest<'_>, target: &Release, name: &ServiceName) -> bool {
    let observed = request.observed;
    target.services.get(name).is_none_or(|service| {
        let revision = service.revision(name);
        let enough = observed.ready(&revision) >= service.least_instances(request.scales);
        enough && (!service.is_balanced(request.internal) || observed.weights(name).contains_key(&revision))
    })
}

fn to_nothing(draft: &mut Draft<'_>, request: &PlanRequest<'_>) {
    let mut ends = Vec::new();
    for name in request.observed.services() {
        for (revision, release) in request.observed.revisions(&name) {
            ends.push(draft.retire(&[], StepWeight::Required, &revision, release));
        }
    }
    let tidy = Action::Tidy { release: None, pools: Vec::new() };
    let tidied = draft.step(&ends, tidy);
    // Ports and addresses are free again.
    let mut last = draft.give_back(&[tidied], StepWeight::Required);
    last.push(tidied);
    draft.step(&last, Action::RemoveApp { volumes: request.volumes });
}

fn changes(request: &PlanRequest<'_>) -> Vec<ServiceChange> {
    let mut changes = Vec::new();
    let mut names = request.observed.services();
    names.extend(request.target.into_iter().flat_map(|target| target.services.keys().cloned()));
    for name in names {
        let to = request.target.and_then(|target| target.services.get(&name)).map(|service| service.revision(&name));
        let from: Option<RevisionId> = serving(request.observed, &name, request.baseline, None);
        let kind = match (&from, &to) {
            (Some(from), Some(to)) if from == to => ChangeKind::Keep,
            (Some(_), Some(_)) => ChangeKind::Replace,
            (None, Some(_)) => ChangeKind::Add,
            (_, None) => ChangeKind::Remove,
        };
        changes.push(change(request, &name, kind, from, to));
    }
    changes
}
