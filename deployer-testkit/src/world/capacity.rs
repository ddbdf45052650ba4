//! How much of each service can serve, at every moment.

use std::collections::BTreeMap;

use deployer_core::{AppName, ServiceName, Timestamp};

use super::state::State;

/// The serving capacity of each service since it was first there, or since the watch was started anew.
#[derive(Clone, Debug, Default)]
pub(crate) struct CapacityWatch {
    current: BTreeMap<(AppName, ServiceName), u32>,
    least: BTreeMap<(AppName, ServiceName), (u32, Timestamp)>,
}

impl CapacityWatch {
    pub(crate) fn least(&self, app: &str, service: &str) -> Option<(u32, Timestamp)> {
        let mut rows = self.least.iter();
        let row = rows.find(|((owner, name), _)| owner.as_str() == app && name.as_str() == service);
        row.map(|(_, least)| *least)
    }

    /// Forgets the past.
    pub(crate) fn start_anew(&mut self, now: Timestamp) {
        self.least = self.current.iter().map(|(key, count)| (key.clone(), (*count, now))).collect();
    }
}

impl State {
    /// Notes the capacity of every service as it is now. Called after every single change, so that a dip is seen
    /// however short it is.
    pub(crate) fn note_capacity(&mut self) {
        let mut counts: BTreeMap<(AppName, ServiceName), u32> =
            self.capacity.current.keys().map(|key| (key.clone(), 0)).collect();
        for instance in self.instances.values().filter(|instance| instance.serves()) {
            let key = (instance.app.clone(), instance.revision.service().clone());
            if !self.routing.contains_key(&key) {
                *counts.entry(key).or_default() += 1;
            }
        }
        for (key, entry) in &self.routing {
            let weighted = entry.pools.values().filter(|pool| pool.weight > 0);
            let serving = weighted.map(|pool| self.targets_in_service(pool)).sum();
            counts.insert(key.clone(), serving);
        }
        for (key, count) in counts {
            let known = self.capacity.least.contains_key(&key);
            // What has never served has no capacity to lose.
            if known || count > 0 {
                let least = self.capacity.least.entry(key.clone()).or_insert((count, self.now));
                if count < least.0 {
                    *least = (count, self.now);
                }
                self.capacity.current.insert(key, count);
            }
        }
    }
}
