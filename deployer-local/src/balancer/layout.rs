//! From what is kept to the configuration of each proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use deployer_core::{AppName, AppProtocol, Digest, InstanceId, RevisionId, Route, ServiceName};

use super::state::{PoolState, ServiceState, State, route_key, same_route};
use super::weights;
use super::{IngressOptions, Placement};
use crate::proxy::{Backend, Config, Entry, EntryKind, RouteRule, Server};

/// The backend of a route. Names of services have no colon, so that each name is read in one way only.
fn route_backend(app: &AppName, service: &ServiceName, route: &Route) -> String {
    let (host, path) = route_key(route);
    let key = Digest::of(format!("{}{path}", host.as_deref().unwrap_or("*")).as_bytes());
    format!("{app}:{service}:route:{}", key.short())
}

fn published_backend(app: &AppName, service: &ServiceName, address: SocketAddr) -> String {
    format!("{app}:{service}:published:{}:{}", address.ip(), address.port())
}

fn internal_backend(port: u16) -> String {
    format!("internal:{port}")
}

/// A server's name: the digits of the revision, and enough of the instance's id to tell it apart.
pub(super) fn server_name(revision: &RevisionId, instance: &InstanceId) -> String {
    let id = instance.as_str();
    let hexadecimal = id.len() >= 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hexadecimal {
        format!("{}-{}", revision.hash(), &id[..12])
    } else {
        format!("{}-{}", revision.hash(), Digest::of(id.as_bytes()).short())
    }
}

/// The name of the server that takes requests for an instance while nothing that has weight answers.
pub(super) fn standby_name(server: &str) -> String {
    format!("{server}-standby")
}

/// The servers of one backend: the targets of every pool that has a port for it. Those of a pool that had its weight
/// taken away are there twice: with no weight, and as a backup. Whether a server is a backup cannot be changed while the
/// proxy runs.
fn servers(service: &ServiceState, port: impl Fn(&PoolState) -> Option<u16>) -> BTreeMap<String, Server> {
    let pools: Vec<(&RevisionId, &PoolState, u16)> =
        service.pools.iter().filter_map(|(revision, pool)| Some((revision, pool, port(pool)?))).collect();
    let sizes: Vec<(u8, usize)> = pools.iter().map(|(_, pool, _)| (pool.weight, pool.active().count())).collect();
    let mut servers = BTreeMap::new();
    for ((revision, pool, port), weights) in pools.into_iter().zip(weights::scale(&sizes)) {
        let mut weights = weights.into_iter();
        for target in &pool.targets {
            let weight = if target.draining { 0 } else { weights.next().unwrap_or(0) };
            let address = SocketAddr::from((target.address, port));
            let server = Server { address, weight, draining: target.draining, backup: false };
            let name = server_name(revision, &target.instance);
            if pool.standby && !target.draining {
                servers.insert(standby_name(&name), Server { weight: weights::LARGEST, backup: true, ..server });
            }
            servers.insert(name, server);
        }
    }
    servers
}

/// The configuration of the ingress.
pub(super) fn ingress(state: &State, options: &IngressOptions) -> Config {
    let relayed = options.placement == Some(Placement::Relayed);
    let mut config = Config { threads: None, descriptors: 50_000, relayed, ..Config::default() };
    // In networks of the engine the address is the engine's to listen on, and it leads to the port.
    let bind = |address: SocketAddr| if relayed { format!(":{}", address.port()) } else { address.to_string() };
    let services = || {
        state.apps.iter().flat_map(|(app, services)| services.iter().map(move |(name, service)| (app, name, service)))
    };
    // Two services of one application may claim one entry while it moves from one to the other. It is the latest
    // claimant's among those that have instances in rotation, and the latest's if none has.
    let mut routes: BTreeMap<RouteKey, (bool, u64, String)> = BTreeMap::new();
    let mut owners: BTreeMap<RouteKey, &AppName> = BTreeMap::new();
    let mut published: BTreeMap<SocketAddr, (bool, u64, String)> = BTreeMap::new();
    for (app, name, service) in services() {
        let live = service.is_live();
        for entry in &service.routes {
            let backend = route_backend(app, name, &entry.route);
            let port =
                |pool: &PoolState| pool.routes.iter().find(|own| same_route(own, &entry.route)).map(|own| own.port);
            let servers = servers(service, port);
            config.backends.insert(backend.clone(), Backend { protocol: AppProtocol::Http, servers });
            let (host, path) = route_key(&entry.route);
            owners.insert((host.clone(), path.to_owned()), app);
            claim(&mut routes, (host, path.to_owned()), (live, entry.claim, backend));
        }
        for entry in &service.published {
            let backend = published_backend(app, name, entry.address);
            let port = |pool: &PoolState| pool.published.iter().find(|own| own.0 == entry.address).map(|own| own.1);
            let servers = servers(service, port);
            config.backends.insert(backend.clone(), Backend { protocol: entry.protocol, servers });
            claim(&mut published, entry.address, (live, entry.claim, backend));
        }
    }
    let live: Vec<RouteKey> = routes.iter().filter(|(_, (live, ..))| *live).map(|(key, _)| key.clone()).collect();
    for ((host, path), (is_live, _, backend)) in routes {
        // A new route whose service is not in rotation yet leaves its requests to what has answered them so far.
        let served = |(other, prefix): &RouteKey| {
            let same_app = owners.get(&(other.clone(), prefix.clone())) == owners.get(&(host.clone(), path.clone()));
            same_app && (other.is_none() || *other == host) && is_below(&path, prefix)
        };
        if is_live || !live.iter().any(served) {
            config.routes.push(RouteRule { host: host.clone(), path: path.clone(), backend });
        }
    }
    if !config.routes.is_empty() {
        let entry = |address: SocketAddr, tls| Entry { bind: bind(address), tls, kind: EntryKind::Routes };
        config.entries.insert("entry:http".to_owned(), entry(options.http, false));
        if let Some(tls) = &options.tls {
            config.entries.insert("entry:https".to_owned(), entry(tls.address, true));
        }
    }
    for (address, (_, _, name)) in published {
        let kind = EntryKind::Backend { name, outside: true };
        let entry = Entry { bind: bind(address), tls: false, kind };
        config.entries.insert(format!("entry:{}:{}", address.ip(), address.port()), entry);
    }
    config
}

/// The host and the path, without a trailing slash, that a route leads on.
type RouteKey = (Option<String>, String);

/// Whether a path begins with another by whole segments.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn claim<K: Ord>(entries: &mut BTreeMap<K, (bool, u64, String)>, key: K, by: (bool, u64, String)) {
    let entry = entries.entry(key).or_insert_with(|| by.clone());
    if (by.0, by.1) > (entry.0, entry.1) {
        *entry = by;
    }
}

/// The addresses of the host at which traffic enters.
pub(super) fn addresses(state: &State, options: &IngressOptions) -> BTreeSet<SocketAddr> {
    let services = || state.apps.values().flat_map(BTreeMap::values);
    let mut addresses: BTreeSet<SocketAddr> =
        services().flat_map(|service| &service.published).map(|entry| entry.address).collect();
    if services().any(|service| !service.routes.is_empty()) {
        addresses.insert(options.http);
        addresses.extend(options.tls.as_ref().map(|tls| tls.address));
    }
    addresses
}

/// The engine's names of the networks that lead to services with an entry from outside.
pub(super) fn networks(state: &State) -> BTreeSet<String> {
    let services = state.apps.values().flat_map(BTreeMap::values);
    let open = services.filter(|service| !service.routes.is_empty() || !service.published.is_empty());
    open.flat_map(|service| service.networks.keys().cloned()).collect()
}

/// The configuration of a service's own proxy.
pub(super) fn service_proxy(service: &ServiceState, options: &IngressOptions) -> Config {
    let relayed = options.placement == Some(Placement::Relayed);
    let mut config = Config { threads: Some(1), descriptors: 8_000, relayed, ..Config::default() };
    for (port, protocol) in &service.internal {
        let name = internal_backend(*port);
        let servers = servers(service, |pool| pool.internal.contains(port).then_some(*port));
        config.backends.insert(name.clone(), Backend { protocol: *protocol, servers });
        let kind = EntryKind::Backend { name, outside: false };
        config.entries.insert(format!("entry:{port}"), Entry { bind: format!(":{port}"), tls: false, kind });
    }
    config
}

/// Whether a backend of the ingress is one of this service's.
pub(super) fn is_of(backend: &str, app: &AppName, service: &ServiceName) -> bool {
    let mut parts = backend.splitn(3, ':');
    parts.next() == Some(app.as_str()) && parts.next() == Some(service.as_str())
}
