//! The suites that every backend has to pass.

mod bench;
mod case;
mod profile;
mod runner;
mod store;
mod writer;

pub use bench::StoreBench;
pub use case::{CaseFailure, CaseResult};
pub use profile::{Need, Profile};
pub use runner::Conformance;
