//! From what is wanted and what is observed to the steps between them. Pure: no clock, no I/O.

mod step;

pub use step::{Action, ChangeKind, Plan, ServiceChange, Step, StepId, StepWeight};
