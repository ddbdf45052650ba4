//! How much of each service can serve, at every moment.

use std::collections::BTreeMap;

use deployer_core::{AppName, ServiceName, Timestamp};

use super::state::State;

/// The serving capacity of each service since it was first there, or since the watch was started anew.
#[derive(Clone, Debug, Default)]
pub(crate) struct CapacityWatch(BTreeMap<AppName, BTreeMap<ServiceName, Row>>);

#[derive(Clone, Copy, Debug)]
struct Row {
    current: u32,
    least: (u32, Timestamp),
}

impl Row {
    fn new(count: u32, now: Timestamp) -> Self {
        Self { current: count, least: (count, now) }
    }

    fn note(&mut self, count: u32, now: Timestamp) {
        self.current = count;
        if count < self.least.0 {
            self.least = (count, now);
        }
    }
}

impl CapacityWatch {
    pub(crate) fn least(&self, app: &str, service: &str) -> Option<(u32, Timestamp)> {
        let mut rows = self.0.iter().filter(|(owner, _)| owner.as_str() == app).flat_map(|(_, rows)| rows);
        rows.find(|(name, _)| name.as_str() == service).map(|(_, row)| row.least)
    }

    /// Forgets the past.
    pub(crate) fn start_anew(&mut self, now: Timestamp) {
        for row in self.0.values_mut().flat_map(BTreeMap::values_mut) {
            *row = Row::new(row.current, now);
        }
    }

    fn has(&self, app: &AppName, service: &ServiceName) -> bool {
        self.0.get(app).is_some_and(|rows| rows.contains_key(service))
    }
}

impl State {
    /// Notes the capacity of every service as it is now. Called after every single change, so that a dip is seen
    /// however short it is.
    pub(crate) fn note_capacity(&mut self) {
        let mut watch = std::mem::take(&mut self.capacity);
        let mut counts: BTreeMap<(&AppName, &ServiceName), u32> = BTreeMap::new();
        for ((app, service), entry) in &self.routing {
            let weighted = entry.pools.values().filter(|pool| pool.weight > 0);
            counts.insert((app, service), weighted.map(|pool| self.targets_in_service(pool)).sum());
        }
        for instance in self.instances.values().filter(|instance| instance.serves()) {
            let service = instance.revision.service();
            if !self.routing.contains_key(&(instance.app.clone(), service.clone())) {
                *counts.entry((&instance.app, service)).or_default() += 1;
            }
        }
        // What has never served has no capacity to lose.
        let new = counts.iter().filter(|((app, service), count)| **count > 0 && !watch.has(app, service));
        let new: Vec<_> = new.map(|((app, service), count)| ((*app).clone(), (*service).clone(), *count)).collect();
        for (app, rows) in &mut watch.0 {
            for (service, row) in rows {
                row.note(counts.get(&(app, service)).copied().unwrap_or(0), self.now);
            }
        }
        for (app, service, count) in new {
            watch.0.entry(app).or_default().insert(service, Row::new(count, self.now));
        }
        self.capacity = watch;
    }
}
