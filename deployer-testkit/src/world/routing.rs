//! The pools of the world's load balancer.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use deployer_core::{
    AppName, Counters, InstanceId, ObservedPool, ObservedRouting, ObservedTarget, PoolVersion, Published, Result,
    RevisionId, Route, ServiceName, TargetState, Timestamp,
};

use super::state::State;
use super::traffic::LossReason;

/// How traffic reaches one service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) routes: Vec<Route>,
    pub(crate) published: Vec<Published>,
    pub(crate) version: u64,
    pub(crate) pools: BTreeMap<RevisionId, Pool>,
    pub(crate) front: Front,
}

/// What decides where requests go. It may lag behind the pools: a change takes its time to reach all parts of a large
/// load balancer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Front {
    pools: BTreeMap<RevisionId, FrontPool>,
    /// Changes that are on their way, and when they arrive.
    coming: VecDeque<(Timestamp, Table)>,
}

/// The weight of each pool, and its targets with whether they drain.
type Table = BTreeMap<RevisionId, (u8, BTreeMap<InstanceId, bool>)>;

#[derive(Clone, Debug, Default)]
struct FrontPool {
    weight: u8,
    targets: BTreeMap<InstanceId, bool>,
    /// How far it is from its fair share of the requests; the pool that is furthest behind gets the next.
    credit: i64,
    /// How many requests were given to its targets, to take them in turn.
    turn: usize,
}

impl Front {
    /// Whether this is what it knows, or will know when everything that is on its way has arrived.
    fn knows(&self, pools: &BTreeMap<RevisionId, Pool>) -> bool {
        let same = |targets: &BTreeMap<InstanceId, bool>, pool: &Pool| {
            let theirs = pool.targets.iter().map(|(id, target)| (id, &target.draining));
            targets.iter().eq(theirs)
        };
        match self.coming.back() {
            Some((_, table)) => {
                table.len() == pools.len()
                    && table.iter().zip(pools).all(|((one, (weight, targets)), (other, pool))| {
                        one == other && *weight == pool.weight && same(targets, pool)
                    })
            }
            None => {
                self.pools.len() == pools.len()
                    && self.pools.iter().zip(pools).all(|((one, known), (other, pool))| {
                        one == other && known.weight == pool.weight && same(&known.targets, pool)
                    })
            }
        }
    }

    /// Takes a change that has arrived.
    fn take(&mut self, table: Table) {
        let weights = |pools: &BTreeMap<RevisionId, FrontPool>| {
            let all = pools.iter().map(|(revision, pool)| (revision.clone(), pool.weight));
            all.filter(|(_, weight)| *weight > 0).collect::<Vec<_>>()
        };
        let before = weights(&self.pools);
        self.pools.retain(|revision, _| table.contains_key(revision));
        for (revision, (weight, targets)) in table {
            let pool = self.pools.entry(revision).or_default();
            (pool.weight, pool.targets) = (weight, targets);
        }
        if before != weights(&self.pools) {
            self.pools.values_mut().for_each(|pool| pool.credit = 0);
        }
    }

    /// The pool whose turn it is, by the weights.
    fn next_pool(&mut self) -> Option<(&RevisionId, &mut FrontPool)> {
        let total: i64 = self.pools.values().map(|pool| i64::from(pool.weight)).sum();
        for pool in self.pools.values_mut() {
            pool.credit += i64::from(pool.weight);
        }
        let weighted = self.pools.iter_mut().filter(|(_, pool)| pool.weight > 0);
        let (revision, pool) = weighted.max_by_key(|(_, pool)| pool.credit)?;
        pool.credit -= total;
        Some((revision, pool))
    }
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

    /// Whether the balancer thinks that it answers. It takes a while to notice that a target is gone.
    fn seems_up(&self, now: Timestamp, detection: Duration) -> bool {
        self.was_up && self.down_since.is_none_or(|since| now < since + detection)
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
        }
        self.version += 1;
    }

    /// The revision and target that get the request that comes now.
    pub(crate) fn choose(
        &mut self,
        now: Timestamp,
        detection: Duration,
    ) -> Result<(RevisionId, InstanceId), LossReason> {
        while self.front.coming.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, table)) = self.front.coming.pop_front()
        {
            self.front.take(table);
        }
        let (revision, pool) = self.front.next_pool().ok_or(LossReason::NoWeight)?;
        let known = self.pools.get(revision);
        let seems_up = |id: &InstanceId| {
            // One that was dropped gets requests until everybody knows.
            known.and_then(|pool| pool.targets.get(id)).is_none_or(|target| target.seems_up(now, detection))
        };
        let open = pool.targets.iter().filter(|(id, draining)| !**draining && seems_up(id)).map(|(id, _)| id);
        let open: Vec<&InstanceId> = open.collect();
        let turn = pool.turn;
        pool.turn = turn.wrapping_add(1);
        let chosen = open.get(turn.checked_rem(open.len()).unwrap_or(0)).ok_or(LossReason::NoTarget)?;
        Ok((revision.clone(), (*chosen).clone()))
    }

    /// Sends what has changed on its way to where requests are passed on.
    fn propagate(&mut self, now: Timestamp, takes: Duration) {
        if self.front.knows(&self.pools) {
            return;
        }
        let table = |pool: &Pool| {
            let targets = pool.targets.iter().map(|(id, target)| (id.clone(), target.draining));
            (pool.weight, targets.collect())
        };
        let table: Table = self.pools.iter().map(|(revision, pool)| (revision.clone(), table(pool))).collect();
        if takes.is_zero() {
            self.front.take(table);
        } else {
            self.front.coming.push_back((now + takes, table));
        }
    }
}

/// Refuses the pool of a revision if it would be one too many.
pub(crate) fn check_pools(state: &State, operation: &'static str, app: &AppName, revision: &RevisionId) -> Result<()> {
    let key = (app.clone(), revision.service().clone());
    if state.routing.get(&key).is_some_and(|entry| entry.pools.contains_key(revision)) {
        return Ok(());
    }
    let count: usize = state.routing.values().map(|entry| entry.pools.len()).sum();
    state.check_quota(operation, "pools", count + 1, state.options.most_pools)
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

    /// Puts the balancer's knowledge of every target up to date with the instances, and lets changes go their way.
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
            entry.propagate(self.now, self.options.propagation);
        }
    }
}
