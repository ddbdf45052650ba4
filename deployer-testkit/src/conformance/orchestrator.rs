//! The suite of [`Orchestrator`](deployer_core::Orchestrator).

mod instances;
mod output;
mod shared;
mod tasks;

use super::case::Case;
use super::ground::Ground;

/// All cases of the suite.
pub(super) fn cases() -> Vec<Case<Ground>> {
    [shared::cases(), instances::cases(), tasks::cases(), output::cases()].into_iter().flatten().collect()
}
