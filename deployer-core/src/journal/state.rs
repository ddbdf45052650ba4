//! A journal folded into the state of its deployment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entry::{DivertReason, Entry, JournalEvent};
use super::record::{DeploymentRecord, Failure, Verdict};
use super::transition::{Refusal, Transition};
use crate::backend::{GateAnswer, Outcome, Signal};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Timestamp;
use crate::plan::{Action, Plan, Step, StepId, StepWeight};

/// The state of a deployment: the fold of its journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct State {
    /// The deployment in one row.
    pub record: DeploymentRecord,
    /// The fence of the last entry.
    pub fence: u64,
    /// The plan that is followed now.
    pub plan: Plan,
    /// Why the deployment turned back, if it did.
    pub diverted: Option<DivertReason>,
    /// The state of each of the plan's steps.
    pub steps: Vec<StepState>,
    /// What is known of each gate of a step that has started, by step and name.
    pub gates: BTreeMap<StepId, BTreeMap<String, GateState>>,
    /// What was wanted of the deployment from outside, in order.
    pub signals: Vec<Signal>,
}

/// How far a step is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum StepState {
    /// Not begun.
    #[default]
    Pending,
    /// Begun and not ended.
    Started {
        /// The attempt that is under way.
        attempt: u32,
        /// When the first attempt began.
        since: Timestamp,
    },
    /// Failed, and due to be tried again.
    Retrying {
        /// The attempt that failed.
        attempt: u32,
        /// When the first attempt began.
        since: Timestamp,
        /// When the next attempt is due.
        retry_at: Timestamp,
    },
    /// Done.
    Finished {
        /// What it did.
        outcome: Outcome,
        /// When it was done.
        at: Timestamp,
    },
    /// Failed for good.
    Failed {
        /// Why.
        failure: Box<Failure>,
    },
}

/// What a gate has answered so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GateState {
    /// When it was asked last.
    pub asked_at: Timestamp,
    /// How often it answered no.
    pub failures: u32,
    /// How often in a row it could not be asked.
    pub errors_in_a_row: u32,
    /// Its last answer.
    pub last: Option<GateAnswer>,
}

impl State {
    /// Folds a whole journal.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) if it is empty or an entry may not follow those before it.
    pub fn fold(entries: &[Entry]) -> Result<Self> {
        let (first, rest) =
            entries.split_first().ok_or_else(|| Error::new(ErrorKind::Corrupt, "the journal is empty"))?;
        let mut state = Self::open(first)?;
        for entry in rest {
            state.apply(entry)?;
        }
        Ok(state)
    }

    /// The state after a journal's first entry.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) if a journal cannot begin with it.
    pub fn open(entry: &Entry) -> Result<Self> {
        Transition::of(None, entry).map_err(|refusal| refusal.of(entry))?;
        let JournalEvent::Opened { deployment, app, kind, target, baseline, owner, plan } = &entry.event else {
            return Err(Refusal::NotOpened.of(entry));
        };
        Ok(Self {
            record: DeploymentRecord {
                id: deployment.clone(),
                app: app.clone(),
                kind: *kind,
                target: *target,
                baseline: *baseline,
                owner: owner.clone(),
                started_at: entry.at,
                finished_at: None,
                verdict: None,
                last_seq: 1,
            },
            fence: entry.fence,
            steps: vec![StepState::Pending; plan.steps.len()],
            plan: plan.clone(),
            diverted: None,
            gates: BTreeMap::new(),
            signals: Vec::new(),
        })
    }

    /// Adds one entry.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) if it may not follow those before it. The state is then as it was.
    pub fn apply(&mut self, entry: &Entry) -> Result<()> {
        self.advance(entry).map(drop).map_err(|refusal| refusal.of(entry))
    }

    /// Adds one entry, and answers what it did.
    pub(super) fn advance(&mut self, entry: &Entry) -> Result<Transition, Refusal> {
        let transition = Transition::of(Some(self), entry)?;
        self.take(entry);
        self.record.last_seq = entry.seq;
        self.fence = entry.fence;
        Ok(transition)
    }

    /// Takes what an entry says that may follow.
    fn take(&mut self, entry: &Entry) {
        match &entry.event {
            JournalEvent::Opened { .. } => {}
            JournalEvent::Resumed { owner } => self.record.owner.clone_from(owner),
            JournalEvent::StepStarted { step, attempt } => {
                let since = self.begun(*step).unwrap_or(entry.at);
                self.set(*step, StepState::Started { attempt: *attempt, since });
            }
            JournalEvent::StepRetried { step, attempt, retry_at, .. } => {
                let since = self.begun(*step).unwrap_or(entry.at);
                self.set(*step, StepState::Retrying { attempt: *attempt, since, retry_at: *retry_at });
            }
            JournalEvent::StepFinished { step, outcome, .. } => {
                self.set(*step, StepState::Finished { outcome: *outcome, at: entry.at });
            }
            JournalEvent::StepFailed { step, failure } => {
                self.set(*step, StepState::Failed { failure: failure.clone() });
            }
            JournalEvent::GateAsked { step, gate, answer } => {
                let state = self.gates.entry(*step).or_default().entry(gate.clone()).or_default();
                state.asked_at = entry.at;
                match answer {
                    Ok(answer) => {
                        state.errors_in_a_row = 0;
                        state.failures += u32::from(matches!(answer, GateAnswer::Fail { .. }));
                        state.last = Some(answer.clone());
                    }
                    Err(_) => state.errors_in_a_row += 1,
                }
            }
            JournalEvent::Signalled { signal } => self.signals.push(signal.clone()),
            JournalEvent::Diverted { reason, plan } => {
                self.diverted = Some(reason.clone());
                self.steps = vec![StepState::Pending; plan.steps.len()];
                self.gates.clear();
                self.plan = plan.clone();
            }
            JournalEvent::Closed { verdict } => {
                self.record.verdict = Some(verdict.clone());
                self.record.finished_at = Some(entry.at);
            }
        }
    }

    /// When the first attempt of a step began that has not ended.
    fn begun(&self, step: StepId) -> Option<Timestamp> {
        match self.step_state(step)? {
            StepState::Started { since, .. } | StepState::Retrying { since, .. } => Some(*since),
            _ => None,
        }
    }

    fn set(&mut self, step: StepId, now: StepState) {
        if let Some(state) = self.steps.get_mut(step.0 as usize) {
            *state = now;
        }
    }

    /// The verdict of a deployment that is given up where it is, in favour of another one: if the wanted release was
    /// verified to serve, only clean-up is missing.
    #[must_use]
    pub fn abandoned(&self, by: impl Into<String>) -> Verdict {
        if self.is_verified() {
            Verdict::Promoted { leftovers: vec!["the clean-up was interrupted".to_owned()] }
        } else {
            Verdict::Superseded { by: by.into() }
        }
    }

    /// Whether every step has ended, and no required one failed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.plan.steps.iter().all(|step| self.is_settled(step.id))
    }

    /// The first required step that failed for good, with its failure.
    #[must_use]
    pub fn failed(&self) -> Option<(&Step, &Failure)> {
        self.plan.steps.iter().find_map(|step| match self.steps.get(step.id.0 as usize) {
            Some(StepState::Failed { failure }) if step.weight == StepWeight::Required => Some((step, &**failure)),
            _ => None,
        })
    }

    /// What clean-up steps could not do.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let failed = self.plan.steps.iter().filter_map(|step| match self.steps.get(step.id.0 as usize) {
            Some(StepState::Failed { failure }) if step.weight == StepWeight::CleanUp => Some(failure),
            _ => None,
        });
        failed.map(|failure| failure.summary.clone()).collect()
    }

    /// Whether what comes after this step may begin: it is done, or it was mere clean-up that failed.
    #[must_use]
    pub fn is_settled(&self, step: StepId) -> bool {
        let index = step.0 as usize;
        match (self.steps.get(index), self.plan.steps.get(index)) {
            (Some(StepState::Finished { .. }), _) => true,
            (Some(StepState::Failed { .. }), Some(step)) => step.weight == StepWeight::CleanUp,
            _ => false,
        }
    }

    /// Whether the wanted release was verified to serve: from here on a deployment cannot be cancelled any more.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.diverted.is_none()
            && self.plan.steps.iter().any(|step| {
                matches!(step.action, Action::Verify { .. })
                    && matches!(self.steps.get(step.id.0 as usize), Some(StepState::Finished { .. }))
            })
    }

    /// The state of one step.
    #[must_use]
    pub fn step_state(&self, step: StepId) -> Option<&StepState> {
        self.steps.get(step.0 as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::DeploymentKind;
    use crate::model::{AppName, DeploymentId, Digest};
    use crate::plan::Action;

    fn plan(weights: &[StepWeight]) -> Plan {
        let app = AppName::new("shop").unwrap();
        let steps = weights.iter().enumerate().map(|(index, weight)| {
            let id = u32::try_from(index).unwrap();
            let after = id.checked_sub(1).map(StepId).into_iter().collect();
            Step { id: StepId(id), after, weight: *weight, action: Action::RemoveApp { volumes: false } }
        });
        let steps = steps.collect();
        Plan { app, target: None, changes: Vec::new(), steps, notes: Vec::new(), basis: Digest::of(b"") }
    }

    fn opened(plan: Plan) -> JournalEvent {
        JournalEvent::Opened {
            deployment: DeploymentId::new("d1").unwrap(),
            app: plan.app.clone(),
            kind: DeploymentKind::Deploy,
            target: None,
            baseline: None,
            owner: "me".into(),
            plan,
        }
    }

    fn journal(events: Vec<JournalEvent>) -> Vec<Entry> {
        let numbered = events.into_iter().zip(1..);
        numbered.map(|(event, seq)| Entry::new(seq, Timestamp::from_millis(0), 1, event)).collect()
    }

    fn started(step: u32, attempt: u32) -> JournalEvent {
        JournalEvent::StepStarted { step: StepId(step), attempt }
    }

    fn finished(step: u32) -> JournalEvent {
        JournalEvent::StepFinished { step: StepId(step), outcome: Outcome::Changed, detail: Vec::new() }
    }

    fn failed(step: u32) -> JournalEvent {
        let failure = Box::new(Failure::new("remove", ErrorKind::Unavailable, "no answer"));
        JournalEvent::StepFailed { step: StepId(step), failure }
    }

    fn closed(verdict: Verdict) -> JournalEvent {
        JournalEvent::Closed { verdict }
    }

    const REQUIRED: StepWeight = StepWeight::Required;

    #[test]
    fn an_undisturbed_journal_folds_to_promoted() {
        let promoted = closed(Verdict::Promoted { leftovers: Vec::new() });
        let events = vec![opened(plan(&[REQUIRED, REQUIRED])), started(0, 1), finished(0), started(1, 1), finished(1)];
        let mut entries = journal(events.into_iter().chain([promoted]).collect());
        let state = State::fold(&entries).unwrap();
        assert!(state.record.verdict.unwrap().is_promoted());
        entries.push(Entry::new(7, Timestamp::from_millis(0), 1, started(1, 2)));
        assert!(State::fold(&entries).unwrap_err().to_string().contains("the deployment has ended"));
    }

    #[test]
    fn what_may_not_follow_is_refused() {
        let promoted = || closed(Verdict::Promoted { leftovers: Vec::new() });
        let open = || opened(plan(&[REQUIRED, REQUIRED]));
        for (events, why) in [
            (vec![started(0, 1)], "begins with its opening"),
            (vec![open(), open()], "opened before"),
            (vec![open(), started(1, 1)], "waits for is not done"),
            (vec![open(), started(0, 2)], "number is not the next"),
            (vec![open(), started(7, 1)], "no such step"),
            (vec![open(), finished(0)], "not under way"),
            (vec![open(), started(0, 1), finished(0), failed(0)], "not under way"),
            (vec![open(), promoted()], "does not follow"),
            (vec![open(), started(0, 1), failed(0), promoted()], "does not follow"),
        ] {
            let error = State::fold(&journal(events)).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_gap_and_a_lower_fence_are_refused() {
        let mut state = State::fold(&journal(vec![opened(plan(&[REQUIRED]))])).unwrap();
        let before = state.clone();
        let now = Timestamp::from_millis(0);
        assert!(state.apply(&Entry::new(3, now, 1, started(0, 1))).is_err());
        assert!(state.apply(&Entry::new(2, now, 0, started(0, 1))).is_err());
        assert_eq!(state, before);
    }

    #[test]
    fn failed_clean_up_is_a_leftover() {
        let events = vec![opened(plan(&[StepWeight::CleanUp])), started(0, 1), failed(0)];
        let state = State::fold(&journal(events)).unwrap();
        assert!(state.is_complete() && state.failed().is_none());
        assert_eq!(state.leftovers(), ["no answer"]);
    }

    #[test]
    fn turning_back_follows_the_new_plan() {
        let cause = Box::new(Failure::new("launch", ErrorKind::Workload, "it crashes"));
        let reason = DivertReason::Failed { cause: cause.clone() };
        let back = JournalEvent::Diverted { reason, plan: plan(&[REQUIRED]) };
        let rolled_back = closed(Verdict::RolledBack { cause });
        let events = vec![
            opened(plan(&[REQUIRED, REQUIRED])),
            started(0, 1),
            failed(0),
            back,
            started(0, 1),
            started(0, 2),
            finished(0),
            rolled_back,
        ];
        let state = State::fold(&journal(events)).unwrap();
        assert_eq!(state.record.verdict.unwrap().word(), "rolled-back");
    }
}
