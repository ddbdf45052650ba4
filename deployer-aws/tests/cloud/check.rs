//! What must hold after a run on the simulated AWS, with every allowance and its reason.

use deployer_core::{ErrorKind, Release, ReleaseNumber, State, Verdict};
use deployer_testkit::{Fault, Shape};

use super::play::{Ended, Stage};
use super::scenarios::{APP, Act};
use super::strike::Strikes;

/// Everything that does not hold, in words.
pub(crate) fn all(stage: &Stage, ended: &Ended) -> Vec<String> {
    let mut found = ended.problems.clone();
    found.extend(answer(ended));
    found.extend(verdict(stage, ended));
    found.extend(world(stage, ended));
    found.extend(journals(ended));
    found.extend(errands(stage, ended));
    found.extend(traffic(stage, ended));
    let (name, before) = &stage.neighbour;
    let now = ended.wire.cloud(|cloud| cloud.belongings(name));
    if now != *before {
        found.push(format!("{name} has nothing to do with it, and has\n{now}\ninstead of\n{before}"));
    }
    found.extend(ended.wire.cloud(|cloud| cloud.broken.clone()));
    found
}

/// Somebody whose process lived through nothing but passing trouble gets an answer that is no error.
fn answer(ended: &Ended) -> Option<String> {
    let strikes = &ended.strikes;
    // Who was held up for longer than the lease is told that somebody else has taken over.
    if strikes.0.len() > 1 || !strikes.is_transient() || strikes.any(|fault| matches!(fault, Fault::Pause { .. })) {
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
fn excused(strikes: &Strikes) -> Vec<&'static str> {
    let mut words = Vec::new();
    for (_, strike) in strikes.0.iter().filter(|(_, strike)| !strike.fault.is_transient()) {
        words.extend(match strike.fault {
            Fault::Cancel => ["cancelled"].as_slice(),
            _ => &["rolled-back", "needs-attention"],
        });
    }
    if strikes.any(|fault| *fault == Fault::Cancel) && strikes.0.len() > 1 {
        words.push("needs-attention");
    }
    words
}

fn verdict(stage: &Stage, ended: &Ended) -> Option<String> {
    let word = ended.verdict();
    if stage.scenario.ends == word || excused(&ended.strikes).contains(&word) {
        return None;
    }
    let text = ended.records.last().and_then(|record| record.verdict.as_ref()).map(|verdict| format!("{verdict}"));
    Some(format!("it ended as {}, and should have as {}", text.unwrap_or_default(), stage.scenario.ends))
}

fn release(ended: &Ended, number: Option<ReleaseNumber>) -> Option<&Release> {
    number.and_then(|number| ended.releases.iter().find(|release| release.number == number))
}

/// AWS is as the verdict says, with nothing left over.
fn world(stage: &Stage, ended: &Ended) -> Vec<String> {
    let mut found = Vec::new();
    let Some(record) = ended.records.last() else { return vec!["there is no record of it".to_owned()] };
    let Some(verdict) = &record.verdict else { return vec!["it has no verdict".to_owned()] };
    if matches!(verdict, Verdict::NeedsAttention { .. }) {
        // It says that it is not as it should be.
        return found;
    }
    let said = matches!(verdict, Verdict::Promoted { leftovers } if !leftovers.is_empty());
    let left = left_over(ended);
    let incomplete = said || !left.is_empty();
    if incomplete && ended.strikes.is_transient() {
        found.push(format!("passing trouble left something over: {left:?}"));
    }
    let serving = release(ended, record.serving());
    if record.serving().is_some() && serving.is_none() {
        found.push(format!("the release that serves is not kept: {:?}", record.serving()));
    }
    if ended.strikes.any(|fault| *fault == Fault::MoveWeights) {
        // Whoever moves weights when all is done moves them for good.
        return found;
    }
    if !incomplete {
        found.extend(ended.shape.differences(serving));
        let destroyed = matches!(stage.scenario.act, Act::Destroy) && ended.verdict() == "promoted";
        found.extend(ended.wire.cloud(|cloud| cloud.leavings(APP, destroyed)));
        found.extend(ended.wire.cloud(|cloud| cloud.names_differ(APP, destroyed)));
        found.extend(ended.wire.cloud(|cloud| cloud.records_differ()));
        found.extend(
            serving.into_iter().flat_map(|release| ended.wire.cloud(|cloud| cloud.scaling_differs(APP, release))),
        );
    }
    found.extend(shape(stage, ended, verdict).filter(|_| !incomplete));
    if ended.shape.tasks > 0 && ended.strikes.is_transient() {
        found.push(format!("{} one-off tasks are left over", ended.shape.tasks));
    }
    found
}

/// What is there is what an undisturbed run leaves, or what was there before.
fn shape(stage: &Stage, ended: &Ended, verdict: &Verdict) -> Option<String> {
    let expected = match verdict {
        _ if ended.records.len() > 1 => None,
        Verdict::Promoted { .. } if stage.scenario.ends == "promoted" => Some(&stage.undisturbed.after),
        Verdict::RolledBack { .. } | Verdict::Cancelled { .. } => Some(&stage.before),
        _ => None,
    }?;
    let same = |one: &Shape, other: &Shape| one.revisions == other.revisions && one.routes == other.routes;
    // What failed for good is no standby any more, even if it was one.
    let (less, least) = (expected.without_standby(), ended.shape.without_standby());
    let excused = !ended.strikes.is_transient() && same(&less, &least);
    // An undisturbed run has nothing to be compared with yet.
    let first = stage.undisturbed.requests.is_empty() && ended.verdict() == "promoted";
    let wrong = !same(expected, &ended.shape) && !excused && !first;
    wrong.then(|| format!("at the end there is\n{}\ninstead of\n{expected}", ended.shape))
}

/// What the journals say could not be cleared away.
fn left_over(ended: &Ended) -> Vec<String> {
    ended
        .journals
        .last()
        .and_then(|entries| State::fold(entries).ok())
        .map(|state| state.leftovers())
        .unwrap_or_default()
}

/// Journals are legal, and say what the records say.
fn journals(ended: &Ended) -> Vec<String> {
    let mut found = Vec::new();
    for (record, entries) in ended.records.iter().zip(&ended.journals) {
        match State::fold(entries) {
            Err(error) => found.push(format!("the journal of {} is not legal: {error}", record.id)),
            Ok(state) if state.record != *record => found.push(format!("the record of {} is another one", record.id)),
            Ok(_) if record.verdict.is_none() => found.push(format!("{} has no verdict", record.id)),
            Ok(_) => {}
        }
    }
    found
}

/// One-off tasks ran as often as in the undisturbed run, if it came to the same end.
fn errands(stage: &Stage, ended: &Ended) -> Option<String> {
    let first = stage.undisturbed.requests.is_empty();
    if ended.records.len() > 1 || ended.verdict() != stage.scenario.ends || first {
        return None;
    }
    let ran = ended.wire.cloud(|cloud| cloud.errands(APP));
    let usual = &stage.undisturbed.errands;
    let more = ran.iter().any(|(hook, count)| usual.get(hook).is_none_or(|usual| count > usual));
    let fewer = ran != *usual && (ended.verdict() == "promoted" && ended.strikes.is_transient());
    (more || fewer).then(|| format!("hooks ran {ran:?} times instead of {usual:?}"))
}

/// No request is lost but those that were in the hands of an instance that somebody killed.
fn traffic(stage: &Stage, ended: &Ended) -> Option<String> {
    if !stage.scenario.traffic {
        return None;
    }
    let moved = ended.strikes.any(|fault| *fault == Fault::MoveWeights);
    if moved && ended.strikes.any(|fault| *fault == Fault::Stale) {
        // A stale answer shows the weights of before: nobody can know that they were moved.
        return None;
    }
    if ended.wire.acted_unseen() {
        // ELB has no way to change ECS only if weights are as they were seen.
        return None;
    }
    let (sent, lost) = ended.wire.cloud(|cloud| (cloud.traffic.sent, cloud.traffic.lost.clone()));
    let ours: Vec<_> = lost.into_iter().filter(|lost| !lost.by_hand).collect();
    let first = ours.first()?;
    let at = first.at as f64 / 1_000.0;
    Some(format!("{} of {sent} requests were lost, the first at {at:.1} s: {}", ours.len(), first.why))
}
