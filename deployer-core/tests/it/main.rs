//! The engine, driven through the public API against the simulated world.

mod deploys;
mod failures;
mod interruptions;
mod plans;
mod shop;
