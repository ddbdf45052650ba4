//! What may follow what: the one table of a journal's legal transitions, and of the reasons to refuse an entry.
//!
//! Every entry is judged by [`Transition::of`] before [`State`] takes it, and nowhere else. First its frame: form,
//! number and fence, and that the deployment has not ended. Then what it says, against the state it meets:
//!
//! ```text
//! StepStarted   pending -> started (start)      started -> started (restart)    retrying -> started (retry)
//! StepRetried   started -> retrying (postpone)
//! StepFinished  started -> finished (finish)
//! StepFailed    started -> failed (fail)        retrying -> failed (give-up)
//! GateAsked     started: pass, fail, inconclusive, or it could not be asked
//! Diverted      not diverted: after a failure, or a cancellation
//! Closed        by what was reached: see `closing`
//! ```

use std::fmt;

use super::entry::{DivertReason, Entry, JournalEvent};
use super::record::Verdict;
use super::state::{State, StepState};
use crate::backend::{GateAnswer, Signal};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::StepId;

/// An enum without fields that knows all its values and the text of each.
macro_rules! table {
    (
        $(#[$meta:meta])* $name:ident, $(#[$text_meta:meta])* $text:ident:
        $($(#[$variant_meta:meta])* $variant:ident = $value:literal,)+
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            $(#[$text_meta])*
            #[must_use]
            pub const fn $text(self) -> &'static str {
                match self {
                    $(Self::$variant => $value,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.$text())
            }
        }
    };
}

table! {
    /// What an entry that may follow does to its deployment.
    Transition,
    /// A short stable name, such as `restart-step`.
    name:
    /// The deployment begins.
    Open = "open",
    /// Another process goes on with it.
    Resume = "resume",
    /// A step begins.
    StartStep = "start-step",
    /// A step is begun anew that a process began which is gone.
    RestartStep = "restart-step",
    /// A step is tried again after an attempt that failed.
    RetryStep = "retry-step",
    /// An attempt has failed, and another is due later.
    PostponeStep = "postpone-step",
    /// A step is done.
    FinishStep = "finish-step",
    /// A step fails for good while it is under way.
    FailStep = "fail-step",
    /// A step fails for good while it waits for its next attempt.
    GiveUpStep = "give-up-step",
    /// A gate answers yes.
    PassGate = "pass-gate",
    /// A gate answers no.
    FailGate = "fail-gate",
    /// A gate cannot tell.
    LeaveGateOpen = "leave-gate-open",
    /// A gate cannot be asked.
    MissGate = "miss-gate",
    /// Somebody wants the deployment to be cancelled.
    TakeCancel = "take-cancel",
    /// Somebody lets it pass its approval gates.
    TakePromote = "take-promote",
    /// Somebody wants it to stop in favour of another one.
    TakeSupersede = "take-supersede",
    /// It turns back because a step failed.
    DivertAfterFailure = "divert-after-failure",
    /// It turns back because somebody wanted it to.
    DivertAfterCancel = "divert-after-cancel",
    /// It ends with every step done.
    ClosePromoted = "close-promoted",
    /// It ends with the release verified to serve, and its clean-up interrupted.
    ClosePromotedUnclean = "close-promoted-unclean",
    /// It ends with what was there before, after a failure.
    CloseRolledBack = "close-rolled-back",
    /// It ends with what was there before, after a cancellation.
    CloseCancelled = "close-cancelled",
    /// It ends where it is: another deployment goes on.
    CloseSuperseded = "close-superseded",
    /// It ends with a failure on the way forward that is not brought back.
    CloseStuckForward = "close-stuck-forward",
    /// It ends with a failure on the way back.
    CloseStuckBack = "close-stuck-back",
}

table! {
    /// Why an entry may not follow.
    Refusal,
    /// The rule that it breaks, in words.
    reason:
    /// The journal would begin with something else than its opening.
    NotOpened = "a journal begins with its opening",
    /// The first entry has another number than 1.
    NotFirst = "a journal begins with entry 1",
    /// A later version wrote it.
    UnknownForm = "it is in a form that this version does not know",
    /// Its number is not the one after the last.
    NotNext = "its number is not the next one",
    /// Somebody wrote it who had lost the lease.
    StaleFence = "its fence is lower than the one before",
    /// It comes after the end.
    Ended = "the deployment has ended",
    /// It opens what is open.
    OpenedTwice = "the deployment was opened before",
    /// It is about a step that the plan does not have.
    NoSuchStep = "the plan has no such step",
    /// It starts a step too early.
    WaitsForStep = "a step that it waits for is not done",
    /// It starts a step that is done or has failed.
    StepEnded = "the step has ended",
    /// It starts a step with an attempt that is not the one after the last.
    AttemptNotNext = "the attempt's number is not the next one",
    /// It postpones an attempt that is not the one under way.
    AttemptNotUnderWay = "the attempt is not under way",
    /// It is about a step that has not begun, or has ended.
    StepNotUnderWay = "the step is not under way",
    /// It has the answer of a gate that the step does not ask.
    NoSuchGate = "the step has no such gate",
    /// It takes a signal for the second time.
    SignalTakenTwice = "the signal was taken before",
    /// It turns back for the second time.
    DivertedTwice = "the deployment has turned back before",
    /// It ends the deployment in a way that was not reached.
    VerdictNotReached = "the verdict does not follow from what happened",
}

impl Refusal {
    /// The error of a journal with an entry that is refused.
    pub(super) fn of(self, entry: &Entry) -> Error {
        Error::new(ErrorKind::Corrupt, self.reason())
            .with_operation("journal.apply")
            .with_resource(format!("entry {}", entry.seq))
            .with_context("fence", entry.fence.to_string())
    }
}

impl Transition {
    /// What an entry does to a deployment in this state; `None` is the state before the journal's first entry.
    ///
    /// # Errors
    /// Why it may not follow.
    pub fn of(state: Option<&State>, entry: &Entry) -> Result<Self, Refusal> {
        let Some(state) = state else { return opening(entry) };
        if entry.format > Entry::FORMAT {
            return Err(Refusal::UnknownForm);
        }
        if Some(entry.seq) != state.record.last_seq.checked_add(1) {
            return Err(Refusal::NotNext);
        }
        if entry.fence < state.fence {
            return Err(Refusal::StaleFence);
        }
        if state.record.verdict.is_some() {
            return Err(Refusal::Ended);
        }
        match &entry.event {
            JournalEvent::Opened { .. } => Err(Refusal::OpenedTwice),
            JournalEvent::Resumed { .. } => Ok(Self::Resume),
            JournalEvent::StepStarted { step, attempt } => starting(state, *step, *attempt),
            JournalEvent::StepRetried { step, attempt, .. } => match step_state(state, *step)? {
                StepState::Started { attempt: started, .. } if started == attempt => Ok(Self::PostponeStep),
                _ => Err(Refusal::AttemptNotUnderWay),
            },
            JournalEvent::StepFinished { step, .. } => match step_state(state, *step)? {
                StepState::Started { .. } => Ok(Self::FinishStep),
                _ => Err(Refusal::StepNotUnderWay),
            },
            JournalEvent::StepFailed { step, .. } => match step_state(state, *step)? {
                StepState::Started { .. } => Ok(Self::FailStep),
                StepState::Retrying { .. } => Ok(Self::GiveUpStep),
                _ => Err(Refusal::StepNotUnderWay),
            },
            JournalEvent::GateAsked { step, gate, answer } => {
                let planned = state.plan.step(*step).ok_or(Refusal::NoSuchStep)?;
                if !planned.gates().any(|spec| spec.name == *gate) {
                    return Err(Refusal::NoSuchGate);
                }
                match (step_state(state, *step)?, answer) {
                    (StepState::Started { .. }, Ok(GateAnswer::Pass { .. })) => Ok(Self::PassGate),
                    (StepState::Started { .. }, Ok(GateAnswer::Fail { .. })) => Ok(Self::FailGate),
                    (StepState::Started { .. }, Ok(GateAnswer::Inconclusive { .. })) => Ok(Self::LeaveGateOpen),
                    (StepState::Started { .. }, Err(_)) => Ok(Self::MissGate),
                    _ => Err(Refusal::StepNotUnderWay),
                }
            }
            JournalEvent::Signalled { signal } => match signal {
                _ if state.signals.contains(signal) => Err(Refusal::SignalTakenTwice),
                Signal::Cancel { .. } => Ok(Self::TakeCancel),
                Signal::Promote { .. } => Ok(Self::TakePromote),
                Signal::Supersede { .. } => Ok(Self::TakeSupersede),
            },
            JournalEvent::Diverted { reason, .. } => match (&state.diverted, reason) {
                (Some(_), _) => Err(Refusal::DivertedTwice),
                (None, DivertReason::Failed { .. }) => Ok(Self::DivertAfterFailure),
                (None, DivertReason::Cancelled { .. }) => Ok(Self::DivertAfterCancel),
            },
            JournalEvent::Closed { verdict } => closing(state, verdict),
        }
    }

    /// What each entry of a whole journal does, in order.
    ///
    /// # Errors
    /// As for [`State::fold`].
    pub fn of_journal(entries: &[Entry]) -> Result<Vec<Self>> {
        let (first, rest) =
            entries.split_first().ok_or_else(|| Error::new(ErrorKind::Corrupt, "the journal is empty"))?;
        let mut state = State::open(first)?;
        let rest = rest.iter().map(|entry| state.advance(entry).map_err(|refusal| refusal.of(entry)));
        std::iter::once(Ok(Self::Open)).chain(rest).collect()
    }
}

fn opening(entry: &Entry) -> Result<Transition, Refusal> {
    match &entry.event {
        JournalEvent::Opened { .. } if entry.format > Entry::FORMAT => Err(Refusal::UnknownForm),
        JournalEvent::Opened { .. } if entry.seq != 1 => Err(Refusal::NotFirst),
        JournalEvent::Opened { .. } => Ok(Transition::Open),
        _ => Err(Refusal::NotOpened),
    }
}

fn starting(state: &State, step: StepId, attempt: u32) -> Result<Transition, Refusal> {
    let planned = state.plan.step(step).ok_or(Refusal::NoSuchStep)?;
    if !planned.after.iter().all(|after| state.is_settled(*after)) {
        return Err(Refusal::WaitsForStep);
    }
    let (transition, last) = match step_state(state, step)? {
        StepState::Pending => (Transition::StartStep, 0),
        StepState::Started { attempt, .. } => (Transition::RestartStep, *attempt),
        StepState::Retrying { attempt, .. } => (Transition::RetryStep, *attempt),
        StepState::Finished { .. } | StepState::Failed { .. } => return Err(Refusal::StepEnded),
    };
    if Some(attempt) == last.checked_add(1) { Ok(transition) } else { Err(Refusal::AttemptNotNext) }
}

fn closing(state: &State, verdict: &Verdict) -> Result<Transition, Refusal> {
    let (complete, failed) = (state.is_complete(), state.failed().is_some());
    match (verdict, &state.diverted) {
        (Verdict::Superseded { .. }, _) => Ok(Transition::CloseSuperseded),
        (Verdict::Promoted { .. }, None) if complete => Ok(Transition::ClosePromoted),
        (Verdict::Promoted { .. }, None) if state.is_verified() => Ok(Transition::ClosePromotedUnclean),
        (Verdict::RolledBack { .. }, Some(DivertReason::Failed { .. })) if complete => Ok(Transition::CloseRolledBack),
        (Verdict::Cancelled { .. }, Some(DivertReason::Cancelled { .. })) if complete => Ok(Transition::CloseCancelled),
        (Verdict::NeedsAttention { .. }, None) if failed => Ok(Transition::CloseStuckForward),
        (Verdict::NeedsAttention { .. }, Some(_)) if failed => Ok(Transition::CloseStuckBack),
        _ => Err(Refusal::VerdictNotReached),
    }
}

fn step_state(state: &State, step: StepId) -> Result<&StepState, Refusal> {
    state.step_state(step).ok_or(Refusal::NoSuchStep)
}
