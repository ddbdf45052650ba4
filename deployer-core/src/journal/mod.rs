//! The durable record of a deployment: what was intended and what happened.

mod entry;
mod record;
mod state;
mod transition;

pub use entry::{DivertReason, Entry, JournalEvent};
pub use record::{DeploymentKind, DeploymentRecord, Evidence, Failure, Verdict};
pub use state::{GateState, State, StepState};
pub use transition::{Refusal, Transition};
