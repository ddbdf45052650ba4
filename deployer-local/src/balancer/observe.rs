//! What the proxies do, in the words of the traits.

use std::collections::BTreeMap;
use std::time::Duration;

use deployer_core::{
    AppName, Counters, Digest, ObservedPool, ObservedRouting, ObservedTarget, PoolVersion, RevisionId, ServiceName,
    TargetState,
};

use super::entries;
use super::layout::{is_of, server_name, standby_name};
use super::state::{PoolState, ServiceState, TargetEntry};
use crate::proxy::{Config, Live, LiveServer, differs};

/// One proxy as it was found: what it shall do, what it does, and what its earlier workers still work on.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) wanted: Config,
    pub(super) live: Option<Live>,
    pub(super) leaving: BTreeMap<(String, String), u64>,
}

impl Seen {
    /// Whether it runs, or need not.
    pub(super) fn runs(&self) -> bool {
        self.live.is_some() || self.wanted.entries.is_empty()
    }

    /// Whether it does other things than it shall, weights aside.
    pub(super) fn differs(&self) -> bool {
        self.live.as_ref().is_some_and(|live| differs(live, &self.wanted))
    }
}

/// One service in both of its proxies.
#[derive(Debug)]
pub(super) struct Sight<'a> {
    pub(super) app: &'a AppName,
    pub(super) name: &'a ServiceName,
    pub(super) service: &'a ServiceState,
    pub(super) ingress: &'a Seen,
    pub(super) proxy: &'a Seen,
}

impl<'a> Sight<'a> {
    /// The servers of this service that a proxy has.
    fn rows(&self, seen: &'a Seen, ingress: bool) -> impl Iterator<Item = (&'a (String, String), &'a LiveServer)> {
        let (app, name) = (self.app, self.name);
        let servers = seen.live.iter().flat_map(|live| &live.servers);
        servers.filter(move |((backend, _), _)| !ingress || is_of(backend, app, name))
    }

    fn all(&self) -> impl Iterator<Item = (&'a (String, String), &'a LiveServer)> {
        self.rows(self.ingress, true).chain(self.rows(self.proxy, false))
    }

    /// The weights that somebody has changed by hand, as text; empty if nobody has.
    fn by_hand(&self) -> String {
        let wanted = |(backend, name): &(String, String)| {
            let find = |config: &Config| Some(config.backends.get(backend)?.servers.get(name)?.weight);
            find(&self.ingress.wanted).or_else(|| find(&self.proxy.wanted))
        };
        let changed = self.all().filter(|(key, live)| wanted(key).is_some_and(|weight| weight != live.weight));
        changed.map(|((backend, name), live)| format!("{backend}/{name}={};", live.weight)).collect()
    }

    /// The counter of weight changes, and a hash of what was changed past it.
    pub(super) fn version(&self) -> PoolVersion {
        let by_hand = self.by_hand();
        let counter = self.service.version;
        PoolVersion(if by_hand.is_empty() {
            counter.to_string()
        } else {
            format!("{counter}+{}", Digest::of(by_hand.as_bytes()).short())
        })
    }

    /// Whether somebody has changed weights by hand.
    pub(super) fn is_changed_by_hand(&self) -> bool {
        !self.by_hand().is_empty()
    }

    pub(super) fn routing(&self) -> ObservedRouting {
        let weights = self.weights();
        let pools = self.service.pools.iter().map(|(revision, pool)| {
            let targets = pool.targets.iter().map(|target| self.target(revision, target)).collect();
            let observed = ObservedPool::new(revision.clone(), weights[revision], targets);
            match self.counters(revision, pool) {
                Some(counters) => observed.with_counters(counters),
                None => observed,
            }
        });
        let pools = pools.collect();
        ObservedRouting::new(self.name.clone(), self.version(), entries::routes(self.service), pools)
    }

    /// The percentages of the pools: those that were set, or what comes of the weights that somebody set by hand.
    fn weights(&self) -> BTreeMap<&'a RevisionId, u8> {
        let service = self.service;
        if !self.is_changed_by_hand() {
            return service.pools.iter().map(|(revision, pool)| (revision, pool.weight)).collect();
        }
        let sum = |pool: (&RevisionId, &PoolState)| -> u64 {
            let names: Vec<String> = pool.1.active().map(|target| server_name(pool.0, &target.instance)).collect();
            self.all().filter(|((_, name), _)| names.contains(name)).map(|(_, live)| u64::from(live.weight)).sum()
        };
        let sums: Vec<(&RevisionId, u64)> = service.pools.iter().map(|(id, pool)| (id, sum((id, pool)))).collect();
        let total = sums.iter().map(|(_, sum)| sum).sum::<u64>().max(1);
        let percent = |sum: u64| u8::try_from((sum * 100 + total / 2) / total).unwrap_or(100);
        sums.into_iter().map(|(revision, sum)| (revision, percent(sum))).collect()
    }

    fn target(&self, revision: &RevisionId, target: &TargetEntry) -> ObservedTarget {
        let name = server_name(revision, &target.instance);
        let standby = standby_name(&name);
        let rows: Vec<_> = self.all().filter(|((_, server), _)| *server == name).collect();
        let works = |server: &String| *server == name || *server == standby;
        let leaving = self.ingress.leaving.iter().filter(|((backend, _), _)| is_of(backend, self.app, self.name));
        let leaving = leaving.chain(&self.proxy.leaving).filter(|((_, server), _)| works(server));
        let working = self.all().filter(|((_, server), _)| works(server));
        let in_flight = working.map(|(_, live)| live.traffic.in_flight).sum::<u64>()
            + leaving.map(|(_, in_flight)| in_flight).sum::<u64>();
        let wanted = |config: &Config| config.backends.values().any(|backend| backend.servers.contains_key(&name));
        let silent = [self.ingress, self.proxy].iter().any(|seen| seen.live.is_none() && wanted(&seen.wanted));
        // Images name ports that nothing of theirs listens on: where one port for other services answers, one that is
        // closed takes nothing out of rotation.
        let inside: Vec<_> = self.rows(self.proxy, false).filter(|((_, server), _)| *server == name).collect();
        let answers = inside.iter().any(|(_, live)| !live.down && !live.maintenance);
        let closed = |key: &(String, String), live: &LiveServer| {
            answers && live.traffic.check.starts_with("L4CON") && inside.iter().any(|(other, _)| *other == key)
        };
        let down = rows.iter().find(|(key, live)| live.down && !live.maintenance && !closed(key, live));
        let (state, reason) = if target.draining {
            (TargetState::Draining, None)
        } else if silent {
            (TargetState::Down, Some("the proxy does not run".to_owned()))
        } else if let Some(((backend, _), live)) = down {
            (TargetState::Down, Some(format!("{backend}: {}", live.traffic.check.trim())))
        } else if rows.iter().any(|(_, live)| live.maintenance) {
            (TargetState::Starting, None)
        } else {
            (TargetState::InService, None)
        };
        ObservedTarget { instance: target.instance.clone(), state, in_flight: Some(in_flight), reason }
    }

    /// What has gone through a pool from outside; from inside, where nothing enters from outside.
    fn counters(&self, revision: &RevisionId, pool: &PoolState) -> Option<Counters> {
        let name = |target: &TargetEntry| server_name(revision, &target.instance);
        let names: Vec<String> = pool.targets.iter().map(name).flat_map(|name| [standby_name(&name), name]).collect();
        let outside = !self.service.routes.is_empty() || !self.service.published.is_empty();
        let seen = if outside { self.ingress } else { self.proxy };
        let rows: Vec<_> = self
            .rows(seen, outside)
            .filter(|((_, name), _)| names.contains(name))
            .map(|(_, live)| &live.traffic)
            .collect();
        if rows.is_empty() {
            return None;
        }
        let requests: u64 = rows.iter().map(|row| row.requests).sum();
        let errors = rows.iter().map(|row| row.errors).sum();
        let millis: u64 = rows.iter().map(|row| row.mean_millis.saturating_mul(row.requests)).sum();
        let mean_latency = millis.checked_div(requests).map(Duration::from_millis);
        Some(Counters { requests, errors, mean_latency })
    }
}
