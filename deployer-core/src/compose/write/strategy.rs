//! `x-deployer.strategy`: how a service moves from one revision to the next.

use std::time::Duration;

use super::yaml::Map;
use crate::model::{CanaryStep, Strategy};

/// The strategy; nothing for the one that is taken for granted.
pub(super) fn strategy(strategy: &Strategy) -> Map {
    let mut map = Map::default();
    if *strategy == Strategy::default() {
        return map;
    }
    map.put("type", strategy.name());
    match strategy {
        Strategy::Recreate => {}
        Strategy::Rolling { surge, unavailable } => {
            map.put_unless("surge", *surge, 1);
            map.put_unless("unavailable", *unavailable, 0);
        }
        Strategy::BlueGreen { bake, keep_warm } => {
            map.put_unless("bake", *bake, Duration::ZERO);
            map.put_unless("keep-warm", *keep_warm, Duration::ZERO);
        }
        Strategy::Canary { steps } => map.put("steps", steps.iter().map(step).collect::<Vec<_>>()),
        Strategy::Linear { step, interval } => {
            map.put("step", format!("{step}%"));
            map.put("interval", *interval);
        }
    }
    map
}

fn step(CanaryStep { weight, hold }: &CanaryStep) -> Map {
    let mut map = Map::default();
    map.put("weight", format!("{weight}%"));
    map.put_unless("hold", *hold, Duration::ZERO);
    map
}
