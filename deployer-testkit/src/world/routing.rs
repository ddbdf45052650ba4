//! The pools of the world's load balancer.

use std::collections::BTreeMap;
use std::time::Duration;

use deployer_core::{
    AppName, Counters, InstanceId, ObservedPool, ObservedRouting, ObservedTarget, PoolVersion, Published, RevisionId,
    Route, ServiceName, TargetState, Timestamp,
};

use super::state::State;

/// How traffic reaches one service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) routes: Vec<Route>,
    pub(crate) published: Vec<Published>,
    pub(crate) version: u64,
    pub(crate) pools: BTreeMap<RevisionId, Pool>,
}

/// The targets of one revision.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool {
    pub(crate) weight: u8,
    pub(crate) targets: BTreeMap<InstanceId, TargetRow>,
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    /// The time that all answers together took.
    pub(crate) busy: Duration,
    /// How far it is from its fair share of the requests; the pool that is furthest behind gets the next.
    pub(crate) credit: i64,
    /// How many requests were given to its targets, to take them in turn.
    pub(crate) turn: usize,
}

/// One target, and what the balancer knows of it.
#[derive(Clone, Debug)]
pub(crate) struct TargetRow {
    pub(crate) address: String,
    pub(crate) draining: bool,
    /// Whether it has passed a check since it was registered.
    pub(crate) was_up: bool,
    /// Since when it does not answer.
    pub(crate) down_since: Option<Timestamp>,
}

impl TargetRow {
    pub(crate) fn new(address: String, draining: bool) -> Self {
        Self { address, draining, was_up: false, down_since: None }
    }

    /// Whether the balancer gives it new requests. It takes a while to notice that a target is gone.
    pub(crate) fn gets_requests(&self, now: Timestamp, detection: Duration) -> bool {
        let thought_up = self.was_up && self.down_since.is_none_or(|since| now < since + detection);
        !self.draining && thought_up
    }
}

impl Entry {
    pub(crate) fn weights(&self) -> BTreeMap<RevisionId, u8> {
        let weighted = self.pools.iter().filter(|(_, pool)| pool.weight > 0);
        weighted.map(|(revision, pool)| (revision.clone(), pool.weight)).collect()
    }

    pub(crate) fn pool_version(&self) -> PoolVersion {
        PoolVersion(format!("w{}", self.version))
    }

    /// Sets the weights and makes it a new version. Pools that are not named get 0.
    pub(crate) fn weigh(&mut self, weights: &BTreeMap<RevisionId, u8>) {
        for (revision, pool) in &mut self.pools {
            pool.weight = weights.get(revision).copied().unwrap_or(0);
            pool.credit = 0;
        }
        self.version += 1;
    }

    /// The pool whose turn it is, by the weights.
    pub(crate) fn next_pool(&mut self) -> Option<RevisionId> {
        let total: i64 = self.pools.values().map(|pool| i64::from(pool.weight)).sum();
        for pool in self.pools.values_mut() {
            pool.credit += i64::from(pool.weight);
        }
        let weighted = self.pools.iter_mut().filter(|(_, pool)| pool.weight > 0);
        let (revision, pool) = weighted.max_by_key(|(_, pool)| pool.credit)?;
        pool.credit -= total;
        Some(revision.clone())
    }
}

impl State {
    /// Where a target is in its life, as the balancer sees it.
    pub(crate) fn target_state(&self, target: &TargetRow) -> TargetState {
        match (target.draining, target.down_since, target.was_up) {
            (true, ..) => TargetState::Draining,
            (false, None, _) => TargetState::InService,
            (false, Some(_), true) => TargetState::Down,
            (false, Some(_), false) => TargetState::Starting,
        }
    }

    /// How many targets of a pool are given requests and answer them.
    pub(crate) fn targets_in_service(&self, pool: &Pool) -> u32 {
        let serving = pool.targets.iter().filter(|(id, target)| {
            !target.draining && self.instances.get(*id).is_some_and(super::instances::Instance::serves)
        });
        u32::try_from(serving.count()).unwrap_or(u32::MAX)
    }

    pub(crate) fn routing_of(&self, app: &AppName) -> Vec<ObservedRouting> {
        let entries = self.routing.iter().filter(|((owner, _), _)| owner == app);
        entries.map(|((_, service), entry)| self.observed_entry(service, entry)).collect()
    }

    fn observed_entry(&self, service: &ServiceName, entry: &Entry) -> ObservedRouting {
        let pools = entry.pools.iter().map(|(revision, pool)| {
            let targets = pool.targets.iter().map(|(instance, target)| {
                let state = self.target_state(target);
                ObservedTarget {
                    instance: instance.clone(),
                    state,
                    in_flight: Some(self.traffic.in_flight_of(instance)),
                    reason: (state == TargetState::Down).then(|| "does not answer".to_owned()),
                }
            });
            let answered = u32::try_from(pool.requests).unwrap_or(u32::MAX);
            ObservedPool::new(revision.clone(), pool.weight, targets.collect()).with_counters(Counters {
                requests: pool.requests,
                errors: pool.errors,
                mean_latency: pool.busy.checked_div(answered),
            })
        });
        ObservedRouting::new(service.clone(), entry.pool_version(), entry.routes.clone(), pools.collect())
    }

    /// Puts the balancer's knowledge of every target up to date with the instances.
    pub(crate) fn check_targets(&mut self) {
        for entry in self.routing.values_mut() {
            for pool in entry.pools.values_mut() {
                for (id, target) in &mut pool.targets {
                    if self.instances.get(id).is_some_and(super::instances::Instance::serves) {
                        target.was_up = true;
                        target.down_since = None;
                    } else {
                        target.down_since.get_or_insert(self.now);
                    }
                }
            }
        }
    }
}
