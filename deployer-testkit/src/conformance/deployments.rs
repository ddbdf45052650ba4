//! The suite of whole deployments: an engine on the backend under test, undisturbed, with faults in front of the backend,
//! and while instances are killed. What it ends in is the same each time.

mod disturbance;
mod stories;

pub(super) use stories::cases;
