//! The entries of a journal.

use serde::{Deserialize, Serialize};

use super::record::{DeploymentKind, Failure, Verdict};
use crate::backend::{GateAnswer, Outcome, Signal};
use crate::error::ErrorReport;
use crate::model::{AppName, DeploymentId, ReleaseNumber, Timestamp};
use crate::plan::{Plan, StepId};

/// One entry of a journal: what was intended, or what happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The version of this stored form.
    pub format: u16,
    /// Its number in the journal, from 1.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// The fence of the lease under which it was written.
    pub fence: u64,
    /// What it says.
    pub event: JournalEvent,
}

impl Entry {
    /// The version of the stored form that this build writes.
    pub const FORMAT: u16 = 1;

    /// An entry in the current form.
    #[must_use]
    pub fn new(seq: u64, at: Timestamp, fence: u64, event: JournalEvent) -> Self {
        Self { format: Self::FORMAT, seq, at, fence, event }
    }
}

/// What a journal entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum JournalEvent {
    /// The deployment began. Always the first entry, and only that.
    Opened {
        /// Its id.
        deployment: DeploymentId,
        /// The application.
        app: AppName,
        /// What was asked for.
        kind: DeploymentKind,
        /// The release that is to serve.
        target: Option<ReleaseNumber>,
        /// The release that served before.
        baseline: Option<ReleaseNumber>,
        /// Who drives it.
        owner: String,
        /// What will be done.
        plan: Plan,
    },
    /// Another process went on with it.
    Resumed {
        /// Who drives it now.
        owner: String,
    },
    /// A step is about to be tried.
    StepStarted {
        /// The step.
        step: StepId,
        /// The number of the attempt, from 1.
        attempt: u32,
    },
    /// An attempt failed, and another will be made.
    StepRetried {
        /// The step.
        step: StepId,
        /// The attempt that failed.
        attempt: u32,
        /// Why it failed.
        error: ErrorReport,
        /// When the next attempt is due.
        retry_at: Timestamp,
    },
    /// A step is done.
    StepFinished {
        /// The step.
        step: StepId,
        /// What it did.
        outcome: Outcome,
        /// What is worth knowing about it, such as the last lines of a hook's output.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        detail: Vec<String>,
    },
    /// A step failed for good.
    StepFailed {
        /// The step.
        step: StepId,
        /// Why.
        failure: Box<Failure>,
    },
    /// A gate was asked.
    GateAsked {
        /// The step that asks.
        step: StepId,
        /// The gate.
        gate: String,
        /// Its answer, or why it could not be asked.
        answer: std::result::Result<GateAnswer, ErrorReport>,
    },
    /// Somebody wants something of the deployment.
    Signalled {
        /// What.
        signal: Signal,
    },
    /// From here on another plan is followed, which brings back what was there before.
    Diverted {
        /// Why.
        reason: DivertReason,
        /// What will be done.
        plan: Plan,
    },
    /// The deployment ended. Always the last entry.
    Closed {
        /// How.
        verdict: Verdict,
    },
}

/// Why a deployment turns back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum DivertReason {
    /// A step failed for good.
    Failed {
        /// Why.
        cause: Box<Failure>,
    },
    /// Somebody wanted it to stop.
    Cancelled {
        /// Who, and why.
        by: String,
    },
}
