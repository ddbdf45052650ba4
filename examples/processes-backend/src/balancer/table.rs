//! The table of entries, pools and weights: every rule of the trait, and nothing that waits or could fail.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use deployer_core::{AppName, ErrorKind, Outcome, PoolVersion, RevisionId, Route, ServiceName};
use serde::{Deserialize, Serialize};

use super::wire::{Entrances, Listener, Refusal, TargetRow};

/// Everything that the proxy must know again after it was killed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table {
    apps: BTreeMap<AppName, BTreeMap<ServiceName, Entry>>,
    /// Rises with every change that somebody could have looked for.
    changes: u64,
}

/// One service that listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    routes: Vec<Since<Route>>,
    listeners: Vec<Since<Listener>>,
    /// The change that set the weights.
    version: u64,
    pub(crate) pools: BTreeMap<RevisionId, Pool>,
}

/// Something with the change that made it: of two services of one application that have the same entrance for a
/// while, the one that got it last takes over as soon as it has traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Since<T> {
    what: T,
    change: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pool {
    pub(crate) weight: u8,
    /// Where the proxy looks whether a target is up.
    pub(crate) port: u16,
    pub(crate) targets: Vec<TargetRow>,
}

impl Entry {
    fn weights(&self) -> BTreeMap<RevisionId, u8> {
        let weighted = self.pools.iter().filter(|(_, pool)| pool.weight > 0);
        weighted.map(|(revision, pool)| (revision.clone(), pool.weight)).collect()
    }

    pub(crate) fn routes(&self) -> Vec<Route> {
        self.routes.iter().map(|route| route.what.clone()).collect()
    }

    pub(crate) fn version(&self) -> PoolVersion {
        PoolVersion(self.version.to_string())
    }

    /// Whether single requests are routed, and can be counted.
    pub(crate) fn speaks_http(&self) -> bool {
        !self.routes.is_empty() || self.listeners.iter().any(|listener| listener.what.http)
    }

    fn has_traffic(&self) -> bool {
        self.pools.values().any(|pool| pool.weight > 0)
    }
}

fn same_route(one: &Route, other: &Route) -> bool {
    one.host == other.host && one.path == other.path
}

/// Whether two programs cannot listen on both.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

impl Table {
    pub(crate) fn is_empty(&self) -> bool {
        self.apps.values().all(BTreeMap::is_empty)
    }

    pub(crate) fn services(&self, app: &AppName) -> impl Iterator<Item = (&ServiceName, &Entry)> {
        self.apps.get(app).into_iter().flatten()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&AppName, &ServiceName, &Entry)> {
        self.apps.iter().flat_map(|(app, services)| services.iter().map(move |(name, entry)| (app, name, entry)))
    }

    pub(crate) fn entry(&self, app: &AppName, service: &ServiceName) -> Option<&Entry> {
        self.apps.get(app)?.get(service)
    }

    /// The addresses on which the proxy shall listen, beside the one for routes.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.entries().flat_map(|(_, _, entry)| entry.listeners.iter().map(|listener| listener.what.at))
    }

    pub(crate) fn has_routes(&self) -> bool {
        self.entries().any(|(_, _, entry)| !entry.routes.is_empty())
    }

    /// For whom a connection to this address is.
    pub(crate) fn listener(&self, at: SocketAddr) -> Option<(&AppName, &ServiceName, &Listener)> {
        let all = self.entries().flat_map(|(app, service, entry)| {
            let of_entry = entry.listeners.iter().filter(move |listener| listener.what.at == at);
            of_entry.map(move |listener| ((entry.has_traffic(), listener.change), (app, service, &listener.what)))
        });
        all.max_by_key(|(rank, _)| *rank).map(|(_, found)| found)
    }

    /// For whom a request from outside is, and for which port of the instances.
    pub(crate) fn route(&self, host: &str, path: &str) -> Option<(&AppName, &ServiceName, u16)> {
        let host = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
        let matches = |route: &Route| {
            let host_fits = route.host.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(host));
            let prefix = route.path.trim_end_matches('/');
            let rest = path.strip_prefix(prefix);
            host_fits && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let all = self.entries().flat_map(|(app, service, entry)| {
            let of_entry = entry.routes.iter().filter(move |route| matches(&route.what));
            of_entry.map(move |Since { what, change }| {
                let rank = (what.host.is_some(), what.path.trim_end_matches('/').len(), entry.has_traffic(), *change);
                (rank, (app, service, what.port))
            })
        });
        all.max_by_key(|(rank, _)| *rank).map(|(_, found)| found)
    }

    /// Adds and updates entrances; removes none.
    pub(crate) fn ensure(
        &mut self,
        app: &AppName,
        ingress: SocketAddr,
        wanted: &BTreeMap<ServiceName, Entrances>,
    ) -> Result<Outcome, Refusal> {
        for entrances in wanted.values() {
            self.check_free(app, ingress, entrances)?;
        }
        self.changes += 1;
        let change = self.changes;
        let mut outcome = Outcome::AlreadyThere;
        let services = self.apps.entry(app.clone()).or_default();
        for (service, entrances) in wanted {
            let created = !services.contains_key(service);
            let entry = services.entry(service.clone()).or_default();
            let before = entry.clone();
            for route in &entrances.routes {
                if !entry.routes.iter().any(|known| known.what == *route) {
                    entry.routes.retain(|known| !same_route(&known.what, route));
                    entry.routes.push(Since { what: route.clone(), change });
                }
            }
            for listener in &entrances.listeners {
                if !entry.listeners.iter().any(|known| known.what == *listener) {
                    entry.listeners.retain(|known| known.what.at != listener.at);
                    entry.listeners.push(Since { what: listener.clone(), change });
                }
            }
            outcome = outcome.and(match (created, *entry == before) {
                (true, _) => Outcome::Created,
                (false, true) => Outcome::AlreadyThere,
                (false, false) => Outcome::Changed,
            });
        }
        Ok(outcome)
    }

    /// Refuses what another application has.
    fn check_free(&self, app: &AppName, ingress: SocketAddr, wanted: &Entrances) -> Result<(), Refusal> {
        if let Some(listener) = wanted.listeners.iter().find(|listener| clash(listener.at, ingress)) {
            let message = "the address is the proxy's own, for routes";
            return Err(Refusal::new(ErrorKind::Exhausted, listener.at, message));
        }
        for (owner, service, entry) in self.entries().filter(|(owner, _, _)| *owner != app) {
            let by = format!("{owner}/{service}");
            for route in &wanted.routes {
                if entry.routes.iter().any(|theirs| same_route(&theirs.what, route)) {
                    let name = format!("{}{}", route.host.as_deref().unwrap_or("*"), route.path);
                    let message = "another application has the route";
                    return Err(Refusal::new(ErrorKind::AlreadyExists, name, message).found(by));
                }
            }
            for listener in &wanted.listeners {
                if entry.listeners.iter().any(|theirs| clash(theirs.what.at, listener.at)) {
                    let message = "another application has the address";
                    return Err(Refusal::new(ErrorKind::Exhausted, listener.at, message).found(by));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn set_targets(
        &mut self,
        app: &AppName,
        revision: &RevisionId,
        port: u16,
        mut targets: Vec<TargetRow>,
    ) -> Result<Outcome, Refusal> {
        targets.sort();
        let entry = self.entry_mut(app, revision.service())?;
        let Some(pool) = entry.pools.get_mut(revision) else {
            entry.pools.insert(revision.clone(), Pool { weight: 0, port, targets });
            return Ok(Outcome::Created);
        };
        let wanted = Pool { weight: pool.weight, port, targets };
        let same = *pool == wanted;
        *pool = wanted;
        Ok(if same { Outcome::AlreadyThere } else { Outcome::Changed })
    }

    pub(crate) fn set_weights(
        &mut self,
        app: &AppName,
        service: &ServiceName,
        weights: &BTreeMap<RevisionId, u8>,
        expected: &PoolVersion,
    ) -> Result<Outcome, Refusal> {
        let change = self.changes + 1;
        let entry = self.entry_mut(app, service)?;
        let wanted: BTreeMap<RevisionId, u8> =
            weights.iter().filter(|(_, weight)| **weight > 0).map(|(id, weight)| (id.clone(), *weight)).collect();
        // Before the version is compared: a repetition of a call whose reply was lost brings the version from before it.
        if entry.weights() == wanted {
            return Ok(Outcome::AlreadyThere);
        }
        if entry.version() != *expected {
            let message = "the weights were moved since they were looked at";
            return Err(Refusal::new(ErrorKind::Conflict, service, message).found(entry.version().0));
        }
        if let Some(revision) = wanted.keys().find(|revision| !entry.pools.contains_key(*revision)) {
            return Err(Refusal::new(ErrorKind::NotFound, revision, "the revision has no pool"));
        }
        for (revision, pool) in &mut entry.pools {
            pool.weight = wanted.get(revision).copied().unwrap_or(0);
        }
        entry.version = change;
        self.changes = change;
        Ok(Outcome::Changed)
    }

    /// Removes what is not wanted any more.
    pub(crate) fn retain(
        &mut self,
        app: &AppName,
        wanted: &BTreeMap<ServiceName, Entrances>,
        pools: &[RevisionId],
    ) -> Outcome {
        let Some(services) = self.apps.get_mut(app) else { return Outcome::AlreadyThere };
        let before = services.clone();
        services.retain(|service, _| wanted.contains_key(service));
        for (service, entry) in services.iter_mut() {
            let Some(wanted) = wanted.get(service) else { continue };
            entry.routes.retain(|route| wanted.routes.contains(&route.what));
            entry.listeners.retain(|listener| wanted.listeners.contains(&listener.what));
            let weights = entry.weights();
            entry.pools.retain(|revision, _| pools.contains(revision));
            if weights != entry.weights() {
                self.changes += 1;
                entry.version = self.changes;
            }
        }
        let outcome = if *services == before { Outcome::AlreadyThere } else { Outcome::Changed };
        if services.is_empty() {
            self.apps.remove(app);
        }
        outcome
    }

    fn entry_mut(&mut self, app: &AppName, service: &ServiceName) -> Result<&mut Entry, Refusal> {
        let entry = self.apps.get_mut(app).and_then(|services| services.get_mut(service));
        entry.ok_or_else(|| Refusal::new(ErrorKind::NotFound, service, "the service has no entry"))
    }
}

#[cfg(test)]
mod tests {
    use deployer_core::Digest;

    use super::*;

    fn app(name: &str) -> AppName {
        AppName::new(name).unwrap()
    }

    fn service(name: &str) -> ServiceName {
        ServiceName::new(name).unwrap()
    }

    fn ensure(table: &mut Table, owner: &str, entries: &[(&str, &[Route])]) -> Result<Outcome, Refusal> {
        let entries = entries
            .iter()
            .map(|(name, routes)| (service(name), Entrances { routes: routes.to_vec(), listeners: Vec::new() }));
        table.ensure(&app(owner), "127.0.0.1:80".parse().unwrap(), &entries.collect())
    }

    fn weigh(table: &mut Table, owner: &str, name: &str) {
        let revision = RevisionId::new(service(name), &Digest::of(b""));
        table.set_targets(&app(owner), &revision, 80, Vec::new()).unwrap();
        let version = table.entry(&app(owner), &service(name)).unwrap().version();
        table.set_weights(&app(owner), &service(name), &BTreeMap::from([(revision, 100)]), &version).unwrap();
    }

    fn routed(table: &Table, host: &str, path: &str) -> Option<String> {
        table.route(host, path).map(|(app, service, _)| format!("{app}/{service}"))
    }

    #[test]
    fn the_most_exact_route_is_taken() {
        let mut table = Table::default();
        let (all, api) = ([Route::new(80)], [Route::new(80).with_path("/api")]);
        let host = [Route::new(80).with_host("Shop.example")];
        ensure(&mut table, "a", &[("all", &all), ("api", &api)]).unwrap();
        ensure(&mut table, "b", &[("host", &host)]).unwrap();
        for (host, path, expected) in [
            ("other", "/", Some("a/all")),
            ("other", "/api", Some("a/api")),
            ("other:8080", "/api/x", Some("a/api")),
            ("other", "/apix", Some("a/all")),
            ("shop.example:8080", "/api", Some("b/host")),
        ] {
            assert_eq!(routed(&table, host, path).as_deref(), expected, "{host} {path}");
        }
        assert_eq!(routed(&Table::default(), "other", "/"), None);
    }

    #[test]
    fn a_route_that_moves_is_the_new_services_once_that_has_weight() {
        let mut table = Table::default();
        let route = [Route::new(80)];
        ensure(&mut table, "a", &[("old", &route)]).unwrap();
        weigh(&mut table, "a", "old");
        ensure(&mut table, "a", &[("new", &route)]).unwrap();
        assert_eq!(routed(&table, "", "/").as_deref(), Some("a/old"));
        weigh(&mut table, "a", "new");
        assert_eq!(routed(&table, "", "/").as_deref(), Some("a/new"));
    }
}
