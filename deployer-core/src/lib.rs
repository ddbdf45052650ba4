//! The engine of Deployer: model, planner, journal, driver, and the traits that backends implement.

mod backend;
mod engine;
mod error;
mod journal;
mod model;
mod plan;

pub use backend::*;
pub use error::{Effect, Error, ErrorKind, ErrorReport, Result, Retry};
pub use journal::*;
pub use model::*;
pub use plan::{
    Action, ChangeKind, Observed, Plan, PlanRequest, ServiceChange, Step, StepId, StepWeight, plan_back, plan_forward,
};
