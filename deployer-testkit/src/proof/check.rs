//! What must hold after a run.

use std::collections::BTreeMap;

use deployer_core::{DeploymentRecord, ErrorKind, Release, ReleaseNumber, State, Verdict};

use super::play::{Ended, Stage};
use crate::faults::{Fault, Schedule};
use crate::world::World;
use crate::world::shape::Shape;
use crate::world::strict::Rule;
use crate::world::traffic::LostRequest;

/// Everything that does not hold, in words.
pub(super) fn all(stage: &Stage<'_>, ended: &Ended) -> Vec<String> {
    let mut found = ended.problems.clone();
    found.extend(answer(stage, ended));
    found.extend(verdict(stage, ended));
    found.extend(world(stage, ended));
    found.extend(neighbours(stage, ended));
    found.extend(journals(ended));
    found.extend(hooks(stage, ended));
    found.extend(traffic(stage, ended));
    found.extend(capacity(stage, ended));
    // The last instance of a pool may be killed between a look and the shift that it was for.
    let killed = ended.schedule.any(|fault| *fault == Fault::KillInstance);
    let broken = ended.world.violations().into_iter().filter(|it| !(killed && it.rule == Rule::TrafficHasTargets));
    found.extend(broken.map(|violation| format!("rule broken: {violation}")));
    found
}

/// Of what was not begun, nothing may be seen.
pub(super) fn untouched(stage: &Stage<'_>, world: &World) -> Option<String> {
    let now = world.shape(stage.app.as_str());
    (now != stage.before).then(|| format!("nothing was begun, and yet there is\n{now}\ninstead of\n{}", stage.before))
}

/// Somebody whose process lived through nothing but passing trouble gets an answer that is no error.
fn answer(stage: &Stage<'_>, ended: &Ended) -> Option<String> {
    let schedule = &ended.schedule;
    // Who was held up for longer than the lease is told that somebody else has taken over.
    let held_up = |fault: &Fault| matches!(fault, Fault::Pause { .. });
    let alone = stage.scenario.meanwhile.is_empty();
    if schedule.iter().count() > 1 || !schedule.is_transient() || schedule.any(held_up) || !alone {
        return None;
    }
    match &ended.answer {
        Some(Err(error)) if error.kind() != ErrorKind::Busy => {
            Some(format!("passing trouble became an error: {error}"))
        }
        _ => None,
    }
}

/// The verdicts that may come of these faults beside the one of the undisturbed run.
fn excused(schedule: &Schedule) -> Vec<&'static str> {
    let mut words = Vec::new();
    for (_, fault) in schedule.iter().filter(|(_, fault)| !fault.is_transient()) {
        words.extend(match fault {
            Fault::Cancel => ["cancelled"].as_slice(),
            _ => &["rolled-back", "needs-attention"],
        });
    }
    if schedule.any(|fault| *fault == Fault::Cancel) && schedule.iter().count() > 1 {
        words.push("needs-attention");
    }
    words
}

fn verdict(stage: &Stage<'_>, ended: &Ended) -> Option<String> {
    let word = ended.verdict();
    let allowed = stage.scenario.ends.contains(&word) || excused(&ended.schedule).contains(&word);
    if allowed {
        return None;
    }
    let text = ended.records.last().and_then(|record| record.verdict.as_ref()).map(Verdict::to_string);
    Some(format!("it ended as {}, and should have as {}", text.unwrap_or_default(), stage.scenario.ends.join(" or ")))
}

fn release(ended: &Ended, number: Option<ReleaseNumber>) -> Option<&Release> {
    number.and_then(|number| ended.releases.iter().find(|release| release.number == number))
}

/// The world is what the verdict says, with nothing left over.
fn world(stage: &Stage<'_>, ended: &Ended) -> Vec<String> {
    let mut found = Vec::new();
    let Some(record) = ended.records.last() else { return vec!["there is no record of it".to_owned()] };
    let Some(verdict) = &record.verdict else { return vec!["it has no verdict".to_owned()] };
    let leftovers = matches!(verdict, Verdict::Promoted { leftovers } if !leftovers.is_empty());
    if matches!(verdict, Verdict::NeedsAttention { .. }) {
        // It says that it is not as it should be.
        return found;
    }
    let incomplete = leftovers || !left_over(ended, record).is_empty();
    // Who has interrupted it may have died before he began: then it waits for whoever comes next, and says so.
    let died = |fault: &Fault| matches!(fault, Fault::CrashBefore | Fault::CrashAfter);
    let deserted = !stage.scenario.meanwhile.is_empty() && ended.schedule.any(died);
    if incomplete && ended.schedule.is_transient() && !deserted {
        found.push(format!("passing trouble left something over: {:?}", left_over(ended, record)));
    }
    let serving = release(ended, record.serving());
    if record.serving().is_some() && serving.is_none() {
        found.push(format!("the release that serves is not kept: {:?}", record.serving()));
    }
    if ended.schedule.any(|fault| *fault == Fault::MoveWeights) {
        // Whoever moves weights when all is done moves them for good.
        return found;
    }
    if !incomplete {
        found.extend(ended.shape.differences(serving));
    }
    let expected = match verdict {
        _ if ended.records.len() > 1 || incomplete || !stage.scenario.meanwhile.is_empty() => None,
        Verdict::Promoted { .. } if stage.undisturbed.verdict == "promoted" => Some(&stage.undisturbed.after),
        Verdict::RolledBack { .. } | Verdict::Cancelled { .. } => Some(&stage.before),
        _ => None,
    };
    // What failed for good is no standby any more, even if it was one.
    let excused = |expected: &Shape| {
        !ended.schedule.is_transient() && expected.without_standby() == ended.shape.without_standby()
    };
    if let Some(expected) = expected.filter(|expected| **expected != ended.shape && !excused(expected)) {
        found.push(format!("at the end there is\n{}\ninstead of\n{expected}", ended.shape));
    }
    if ended.shape.tasks > 0 && ended.schedule.is_transient() {
        found.push(format!("{} one-off tasks are left over", ended.shape.tasks));
    }
    found
}

/// Other applications are as they were: the same instances, which were not started anew, and the same pools.
fn neighbours(stage: &Stage<'_>, ended: &Ended) -> Vec<String> {
    let changed = stage.beside.iter().filter_map(|(app, before)| {
        let now = ended.world.belongings(app);
        (now != *before).then(|| format!("{app} has nothing to do with it, and has {now} instead of {before}"))
    });
    changed.collect()
}

/// What the journal says could not be cleared away.
fn left_over(ended: &Ended, record: &DeploymentRecord) -> Vec<String> {
    let entries = ended.world.store().entries(&record.id).unwrap_or_default();
    State::fold(&entries).map(|state| state.leftovers()).unwrap_or_default()
}

/// Journals are legal, and say what the records say.
fn journals(ended: &Ended) -> Vec<String> {
    let mut found = Vec::new();
    for record in &ended.records {
        let Ok(entries) = ended.world.store().entries(&record.id) else {
            found.push(format!("the journal of {} cannot be read", record.id));
            continue;
        };
        match State::fold(&entries) {
            Err(error) => found.push(format!("the journal of {} is not legal: {error}", record.id)),
            Ok(state) if state.record != *record => found.push(format!("the record of {} is another one", record.id)),
            Ok(_) if record.verdict.is_none() => found.push(format!("{} has no verdict", record.id)),
            Ok(_) => {}
        }
    }
    found
}

/// What ran in the undisturbed run ran as often, if it came to the same end.
fn hooks(stage: &Stage<'_>, ended: &Ended) -> Option<String> {
    if ended.records.len() > 1 || ended.verdict() != stage.undisturbed.verdict || !stage.scenario.meanwhile.is_empty() {
        return None;
    }
    let ran: BTreeMap<String, u32> = ended.world.executions_by_hook(stage.app.as_str());
    let more = ran.iter().any(|(hook, count)| stage.undisturbed.hooks.get(hook).is_none_or(|usual| count > usual));
    // A deployment that fails for another reason may not have come so far, and clean-up may fail for good.
    let as_often =
        ran == stage.undisturbed.hooks || (!more && (ended.verdict() != "promoted" || !ended.schedule.is_transient()));
    (!as_often).then(|| format!("hooks ran {ran:?} times instead of {:?}", stage.undisturbed.hooks))
}

/// No request is lost but those that were in the hands of an instance that somebody killed.
fn traffic(stage: &Stage<'_>, ended: &Ended) -> Option<String> {
    if !stage.scenario.lossless {
        return None;
    }
    let report = ended.world.traffic_report();
    if ended.schedule.any(|fault| *fault == Fault::MoveWeights) && ended.schedule.any(|fault| *fault == Fault::Stale) {
        // A stale answer shows the weights of before: nobody can know that they were moved.
        return None;
    }
    let kills = ended.schedule.any(|fault| *fault == Fault::KillInstance);
    let ours: Vec<&LostRequest> =
        report.lost.iter().filter(|lost| !(kills && ended.world.was_lost_by_kill(lost))).collect();
    let first = ours.first()?;
    Some(format!("{} of {} requests were lost, the first: {first}", ours.len(), report.sent))
}

fn capacity(stage: &Stage<'_>, ended: &Ended) -> Vec<String> {
    // On the way back from what failed, speed is more than numbers.
    let cancelled = |fault: &Fault| fault.is_transient() || *fault == Fault::Cancel;
    if ended.schedule.iter().any(|(_, fault)| !cancelled(fault)) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (service, promised) in &stage.scenario.capacity {
        match ended.world.least_capacity(stage.app.as_str(), service) {
            Some((least, at)) if least < *promised => {
                found.push(format!("{least} instances of {service} served at {at}, {promised} are promised"));
            }
            Some(_) => {}
            None => found.push(format!("{service} never served")),
        }
    }
    found
}
