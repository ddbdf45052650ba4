//! The engine of Deployer: model, planner, journal, driver, and the traits that backends implement.

mod backend;
#[cfg(feature = "compose")]
pub mod compose;
mod error;
mod journal;
mod model;
mod plan;

pub use backend::*;
pub use error::{Effect, Error, ErrorKind, ErrorReport, Result, Retry};
pub use journal::*;
pub use model::*;
pub use plan::*;
