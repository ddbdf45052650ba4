//! The suites that every backend has to pass.

mod balancer;
mod bench;
mod case;
mod deployments;
mod ground;
mod images;
mod orchestrator;
mod profile;
mod runner;
mod simulated;
mod site;
mod store;
mod writer;

pub use bench::StoreBench;
pub use case::{CaseFailure, CaseResult};
pub use profile::{Need, Profile};
pub use runner::Conformance;
pub use simulated::Simulated;
pub use site::{Build, Entrance, Pace, Program, Scope, Seen, SeenInstance, SeenTask, Site, TaskProgram};
