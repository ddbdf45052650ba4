//! What the proxy knows while it runs: the table, and how each target is doing.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deployer_core::{
    AppName, Counters, InstanceId, ObservedPool, ObservedRouting, ObservedTarget, RevisionId, ServiceName, TargetState,
};
use tokio::sync::Notify;

use crate::balancer::table::Table;
use crate::balancer::wire::TargetRow;

/// The share of the newest answer in the mean time to answer.
const NEWEST: f64 = 0.05;

/// The table with what belongs to it only while the process lives.
#[derive(Debug)]
pub(crate) struct Board {
    pub(super) ingress: SocketAddr,
    inner: Mutex<Inner>,
    targets_changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    table: Table,
    targets: HashMap<InstanceId, Live>,
    pools: HashMap<(AppName, RevisionId), Traffic>,
    picks: u64,
}

#[derive(Debug, Default)]
struct Live {
    in_flight: u64,
    last_pick: u64,
    /// Whether it answered when somebody last tried; nothing, if nobody has yet.
    up: Option<Result<(), String>>,
}

#[derive(Debug, Default)]
struct Traffic {
    /// Smooth weighted round robin: the pool with the most credit is next, and pays for it.
    credit: i64,
    counters: Counters,
}

/// A request or connection on its way to a target. It counts as in flight until this is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    board: Arc<Board>,
    pub(super) app: AppName,
    pub(super) revision: RevisionId,
    pub(super) instance: InstanceId,
    pub(super) address: IpAddr,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inner = self.board.lock();
        if let Some(live) = inner.targets.get_mut(&self.instance) {
            live.in_flight = live.in_flight.saturating_sub(1);
        }
        inner.forget_gone();
    }
}

impl Board {
    pub(crate) fn new(ingress: SocketAddr, table: Table) -> Self {
        Self { ingress, inner: Mutex::new(Inner { table, ..Inner::default() }), targets_changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the table, to be changed and put back.
    pub(super) fn table(&self) -> Table {
        self.lock().table.clone()
    }

    /// From now on this table holds; no request sees a part of each.
    pub(super) fn replace(&self, table: Table) {
        let mut inner = self.lock();
        inner.table = table;
        inner.forget_gone();
        self.targets_changed.notify_one();
    }

    /// Something that is read from the table in one go.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Table) -> T) -> T {
        read(&self.lock().table)
    }

    /// Finds a target for a request or connection, by weight and then the one with the least to do. Those that this
    /// one has tried already are left out.
    pub(super) fn pick(self: &Arc<Self>, app: &AppName, service: &ServiceName, tried: &[InstanceId]) -> Option<Ticket> {
        let mut inner = self.lock();
        // One that was down may be up again: better than no target at all.
        let (revision, target) =
            inner.choose(app, service, tried, false).or_else(|| inner.choose(app, service, tried, true))?;
        inner.picks += 1;
        let picks = inner.picks;
        let live = inner.targets.entry(target.instance.clone()).or_default();
        live.in_flight += 1;
        live.last_pick = picks;
        let (board, app) = (Arc::clone(self), app.clone());
        Some(Ticket { board, app, revision, instance: target.instance, address: target.address })
    }

    /// Takes down how a request ended: when the first of the answer came, and whether it was one.
    pub(super) fn answered(&self, ticket: &Ticket, took: Duration, failed: bool) {
        let mut inner = self.lock();
        let traffic = inner.pools.entry((ticket.app.clone(), ticket.revision.clone())).or_default();
        traffic.counters.requests += 1;
        traffic.counters.errors += u64::from(failed);
        let mean = traffic.counters.mean_latency.map_or(took, |mean| mean.mul_f64(1.0 - NEWEST) + took.mul_f64(NEWEST));
        traffic.counters.mean_latency = Some(mean);
    }

    /// Takes down whether a target answers.
    pub(super) fn seen(&self, instance: &InstanceId, answer: Result<(), String>) {
        let mut inner = self.lock();
        if inner.has_target(instance) {
            inner.targets.entry(instance.clone()).or_default().up = Some(answer);
        }
    }

    /// All targets, with where to look whether they answer.
    pub(super) fn targets(&self) -> Vec<(InstanceId, SocketAddr)> {
        let inner = self.lock();
        let pools = inner.table.entries().flat_map(|(_, _, entry)| entry.pools.values());
        pools
            .flat_map(|pool| {
                pool.targets.iter().map(|target| (target.instance.clone(), (target.address, pool.port).into()))
            })
            .collect()
    }

    /// Returns when there are other targets than before. Cancel safe.
    pub(super) async fn targets_changed(&self) {
        self.targets_changed.notified().await;
    }

    pub(super) fn observe(&self, app: &AppName) -> Vec<ObservedRouting> {
        let inner = self.lock();
        let services = inner.table.services(app).map(|(service, entry)| {
            let pools = entry.pools.iter().map(|(revision, pool)| {
                let targets = pool.targets.iter().map(|target| inner.observed(target)).collect();
                let observed = ObservedPool::new(revision.clone(), pool.weight, targets);
                if !entry.speaks_http() {
                    return observed;
                }
                let traffic = inner.pools.get(&(app.clone(), revision.clone()));
                observed.with_counters(traffic.map(|traffic| traffic.counters).unwrap_or_default())
            });
            ObservedRouting::new(service.clone(), entry.version(), entry.routes(), pools.collect())
        });
        services.collect()
    }
}

impl Inner {
    fn choose(
        &mut self,
        app: &AppName,
        service: &ServiceName,
        tried: &[InstanceId],
        even_down: bool,
    ) -> Option<(RevisionId, TargetRow)> {
        let usable = |target: &&TargetRow| {
            let down = matches!(self.targets.get(&target.instance), Some(Live { up: Some(Err(_)), .. }));
            !target.draining && !tried.contains(&target.instance) && (even_down || !down)
        };
        let load = |target: &&TargetRow| {
            self.targets.get(&target.instance).map_or((0, 0), |live| (live.in_flight, live.last_pick))
        };
        let entry = self.table.entry(app, service)?;
        let weighted = entry.pools.iter().filter(|(_, pool)| pool.weight > 0);
        let candidates: Vec<(RevisionId, i64, TargetRow)> = weighted
            .filter_map(|(revision, pool)| {
                let target = pool.targets.iter().filter(usable).min_by_key(load)?;
                Some((revision.clone(), i64::from(pool.weight), target.clone()))
            })
            .collect();
        let sum: i64 = candidates.iter().map(|(_, weight, _)| weight).sum();
        let mut best: Option<(i64, (RevisionId, TargetRow))> = None;
        for (revision, weight, target) in candidates {
            let traffic = self.pools.entry((app.clone(), revision.clone())).or_default();
            traffic.credit += weight;
            if best.as_ref().is_none_or(|(credit, _)| traffic.credit > *credit) {
                best = Some((traffic.credit, (revision, target)));
            }
        }
        let (_, (revision, target)) = best?;
        if let Some(traffic) = self.pools.get_mut(&(app.clone(), revision.clone())) {
            traffic.credit -= sum;
        }
        Some((revision, target))
    }

    fn observed(&self, target: &TargetRow) -> ObservedTarget {
        let live = self.targets.get(&target.instance);
        let (state, reason) = match live.and_then(|live| live.up.as_ref()) {
            _ if target.draining => (TargetState::Draining, None),
            None => (TargetState::Starting, Some("nobody has looked yet".to_owned())),
            Some(Ok(())) => (TargetState::InService, None),
            Some(Err(why)) => (TargetState::Down, Some(why.clone())),
        };
        let in_flight = Some(live.map_or(0, |live| live.in_flight));
        ObservedTarget { instance: target.instance.clone(), state, in_flight, reason }
    }

    fn has_target(&self, instance: &InstanceId) -> bool {
        let pools = self.table.entries().flat_map(|(_, _, entry)| entry.pools.values());
        pools.flat_map(|pool| &pool.targets).any(|target| target.instance == *instance)
    }

    /// Forgets what belongs to nothing any more. A target that was dropped stays until its last request is done.
    fn forget_gone(&mut self) {
        let gone: Vec<InstanceId> = self
            .targets
            .iter()
            .filter(|(instance, live)| live.in_flight == 0 && !self.has_target(instance))
            .map(|(instance, _)| instance.clone())
            .collect();
        for instance in gone {
            self.targets.remove(&instance);
        }
        let Self { table, pools, .. } = self;
        pools.retain(|(app, revision), _| {
            table.entry(app, revision.service()).is_some_and(|entry| entry.pools.contains_key(revision))
        });
    }
}
