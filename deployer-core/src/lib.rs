//! The engine of Deployer: model, planner, journal, driver, and the traits that backends implement.

mod backend;
#[cfg(feature = "compose")]
pub mod compose;
mod deployer;
mod engine;
mod error;
mod journal;
mod model;
mod plan;

pub use backend::*;
pub use deployer::{DeployOptions, Deployer, DeployerBuilder, Preview};
pub use engine::{
    AppStatus, Deployment, Event, EventKind, Pruned, Retention, RevisionStatus, ServiceStatus, Signalled,
};
pub use error::{Effect, Error, ErrorKind, ErrorReport, Result, Retry};
pub use journal::*;
pub use model::*;
pub use plan::{
    Action, ChangeKind, Observed, Plan, PlanRequest, ServiceChange, Step, StepId, StepWeight, plan_back, plan_forward,
};
