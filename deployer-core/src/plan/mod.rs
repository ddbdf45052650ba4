//! From what is wanted and what is observed to the steps between them. Pure: no clock, no I/O.

mod backward;
mod difference;
mod forward;
mod observed;
mod planner;
mod rolling;
mod step;

pub use observed::Observed;
pub use planner::{PlanRequest, plan_back, plan_forward};
pub use step::{Action, ChangeKind, Plan, ServiceChange, Step, StepId, StepWeight};
