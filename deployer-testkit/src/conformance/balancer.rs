//! The suite of [`LoadBalancer`](deployer_core::LoadBalancer).

mod routes;
mod targets;
mod weights;

use super::case::Case;
use super::ground::Ground;

/// All cases of the suite.
pub(super) fn cases() -> Vec<Case<Ground>> {
    [routes::cases(), targets::cases(), weights::cases()].into_iter().flatten().collect()
}
