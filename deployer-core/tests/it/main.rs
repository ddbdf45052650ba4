//! The engine, driven through the public API against the simulated world.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod deploys;
mod failures;
mod fuzz;
mod golden;
mod inherited;
mod interruptions;
mod plans;
mod properties;
mod scaling;
mod shop;
mod transitions;
