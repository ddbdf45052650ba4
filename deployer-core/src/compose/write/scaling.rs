//! `x-deployer.scaling`: how the platform changes the number of instances by itself.

use super::yaml::Map;
use crate::model::{Scaling, ScalingSchedule, ScalingTarget};

pub(super) fn scaling(Scaling { min, max, targets, schedules }: &Scaling) -> Map {
    let mut map = Map::default();
    map.put("min", *min);
    map.put("max", *max);
    for target in targets {
        map.put(
            target.name(),
            match target {
                ScalingTarget::Cpu { percent } | ScalingTarget::Memory { percent } => format!("{percent}%"),
                ScalingTarget::Requests { per_minute } => format!("{per_minute}/m"),
            },
        );
    }
    map.put_filled("schedules", schedules.iter().map(schedule).collect::<Vec<_>>());
    map
}

fn schedule(ScalingSchedule { name, cron, timezone, min, max }: &ScalingSchedule) -> Map {
    let mut map = Map::default();
    map.put("name", name);
    map.put("cron", cron.as_str());
    map.put_some("timezone", timezone.as_ref());
    map.put_some("min", *min);
    map.put_some("max", *max);
    map
}
