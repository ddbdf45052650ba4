//! Properties of the pure parts, over random apps, states and histories.
//!
//! Each runs a few hundred cases in an ordinary test run; `PROPTEST_CASES=100000 cargo nextest run -p deployer-core
//! properties` runs as many as one likes. A case that failed is kept under `proptest-regressions` and tried first.

mod apps;
mod found;
pub(crate) mod histories;
mod journal;
mod plans;
mod stage;
mod stored;
