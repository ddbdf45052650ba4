//! The entries that releases claim: who has which, and what a release changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use deployer_core::{
    AppName, AppProtocol, Error, ErrorKind, NetworkAttachment, Published, Release, Result, Route, ServiceRelease,
};

use super::IngressOptions;
use super::state::{AppState, PoolState, PublishedEntry, RouteEntry, ServiceState, State, same_route};
use crate::naming;

/// The address that a published port listens on.
fn address(published: Published, default: IpAddr) -> SocketAddr {
    SocketAddr::new(published.ip.unwrap_or(default), published.port)
}

/// The published addresses of a service, each with the port that it leads to.
fn published(service: &ServiceRelease, default: IpAddr) -> BTreeMap<SocketAddr, (u16, AppProtocol)> {
    let ports = service.listening_ports();
    let ports = ports.iter().filter_map(|port| Some((address(port.published?, default), (port.target, port.protocol))));
    ports.collect()
}

/// The ports on which other services reach it.
fn internal(service: &ServiceRelease) -> BTreeMap<u16, AppProtocol> {
    let mut ports = BTreeMap::new();
    for port in service.listening_ports() {
        let protocol = ports.entry(port.target).or_insert(port.protocol);
        if port.protocol == AppProtocol::Http {
            *protocol = AppProtocol::Http;
        }
    }
    ports
}

/// The engine's names of the networks of a service, and its names on each.
fn networks(release: &Release, name: &str, service: &ServiceRelease) -> BTreeMap<String, Vec<String>> {
    let default = BTreeMap::from([("default".to_owned(), NetworkAttachment::default())]);
    let keys = if service.workload.networks.is_empty() { &default } else { &service.workload.networks };
    let named = keys.iter().map(|(key, attachment)| {
        let mut names = vec![name.to_owned()];
        names.extend(attachment.aliases.iter().filter(|alias| *alias != name).cloned());
        (naming::network(&release.app, key, release.networks.get(key)), names)
    });
    named.collect()
}

/// Fails if another application has an entry that the release wants.
pub(super) fn expect_unclaimed(state: &State, release: &Release, options: &IngressOptions) -> Result<()> {
    let others: Vec<(&AppName, &AppState)> = state.apps.iter().filter(|(app, _)| **app != release.app).collect();
    for service in release.services.values() {
        for route in &service.routes {
            let same = |state: &ServiceState| state.routes.iter().any(|entry| same_route(&entry.route, route));
            if let Some((app, _)) = others.iter().find(|(_, services)| services.values().any(same)) {
                let host = route.host.as_deref().unwrap_or("any host");
                return Err(Error::new(ErrorKind::AlreadyExists, format!("the application {app} has this route"))
                    .with_resource(format!("{host} {}", route.path))
                    .with_help("choose another host or path, or remove the other application"));
            }
        }
        for wanted in published(service, options.publish_on).keys() {
            let same = |state: &ServiceState| state.published.iter().any(|entry| overlap(entry.address, *wanted));
            let owner = others.iter().find(|(_, services)| services.values().any(same));
            let entries = [Some(options.http), options.tls.as_ref().map(|tls| tls.address)];
            let owner = match owner {
                Some((app, _)) => format!("the application {app}"),
                None if entries.iter().flatten().any(|entry| overlap(*entry, *wanted)) => {
                    "the ingress's own entry for routes".to_owned()
                }
                None => continue,
            };
            return Err(Error::new(ErrorKind::Exhausted, format!("{wanted} is taken by {owner}"))
                .with_help("publish the port at another one of the host"));
        }
    }
    Ok(())
}

/// Whether two sockets cannot listen at the same time.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// Fails if two addresses have the same port: behind the engine's own way to a container they cannot be told apart.
pub(super) fn expect_one_address_each(addresses: &BTreeSet<SocketAddr>) -> Result<()> {
    let mut ports = BTreeMap::new();
    for address in addresses {
        if let Some(other) = ports.insert(address.port(), address) {
            let message = format!("one port at two addresses of the host: {other} and {address}");
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_help("publish at ports of different numbers: this engine is reached through its API only"));
        }
    }
    Ok(())
}

/// Adds the entries of a release.
pub(super) fn add(state: &mut State, release: &Release, options: &IngressOptions) {
    let State { apps, claims, .. } = state;
    let mut app = apps.remove(&release.app).unwrap_or_default();
    for (name, service) in &release.services {
        let internal = internal(service);
        if internal.is_empty() {
            continue;
        }
        let mut entry = app.remove(name).unwrap_or_default();
        for route in &service.routes {
            let rival = latest(app.values().flat_map(|other| &other.routes), |own| {
                same_route(&own.route, route).then_some(own.claim)
            });
            match entry.routes.iter_mut().find(|own| same_route(&own.route, route)) {
                Some(own) => {
                    own.route = route.clone();
                    renew(&mut own.claim, rival, claims);
                }
                None => {
                    *claims += 1;
                    entry.routes.push(RouteEntry { route: route.clone(), claim: *claims });
                }
            }
        }
        for (address, (_, protocol)) in published(service, options.publish_on) {
            let rival = latest(app.values().flat_map(|other| &other.published), |own| {
                (own.address == address).then_some(own.claim)
            });
            match entry.published.iter_mut().find(|own| own.address == address) {
                Some(own) => {
                    own.protocol = protocol;
                    renew(&mut own.claim, rival, claims);
                }
                None => {
                    *claims += 1;
                    entry.published.push(PublishedEntry { address, protocol, claim: *claims });
                }
            }
        }
        entry.internal.extend(internal);
        // A revision that stays may have got other entries with this release.
        if let Some(pool) = entry.pools.get_mut(&service.revision(name)) {
            set_ports(pool, service, options);
        }
        for (network, names) in networks(release, name.as_str(), service) {
            let known = entry.networks.entry(network).or_default();
            for alias in names {
                if !known.contains(&alias) {
                    known.push(alias);
                }
            }
        }
        app.insert(name.clone(), entry);
    }
    if !app.is_empty() {
        apps.insert(release.app.clone(), app);
    }
}

fn latest<T>(entries: impl Iterator<Item = T>, claim: impl Fn(T) -> Option<u64>) -> Option<u64> {
    entries.filter_map(claim).max()
}

/// Claims an entry anew if somebody else has claimed it since.
fn renew(claim: &mut u64, rival: Option<u64>, claims: &mut u64) {
    if rival.is_some_and(|rival| rival > *claim) {
        *claims += 1;
        *claim = *claims;
    }
}

/// Removes the entries of an application that the release does not have.
pub(super) fn retain(app: &mut AppState, release: &Release, options: &IngressOptions) {
    app.retain(|name, entry| {
        let Some(service) = release.services.get(name) else { return false };
        entry.routes.retain(|own| service.routes.iter().any(|route| same_route(route, &own.route)));
        let published = published(service, options.publish_on);
        entry.published.retain(|own| published.contains_key(&own.address));
        entry.internal = internal(service);
        entry.networks = networks(release, name.as_str(), service);
        !entry.internal.is_empty()
    });
}

/// Notes where the targets of a revision listen.
pub(super) fn set_ports(pool: &mut PoolState, service: &ServiceRelease, options: &IngressOptions) {
    pool.routes = service.routes.clone();
    let published = published(service, options.publish_on);
    pool.published = published.into_iter().map(|(address, (port, _))| (address, port)).collect();
    pool.internal = internal(service).into_keys().collect();
}

/// The routes of a service.
pub(super) fn routes(service: &ServiceState) -> Vec<Route> {
    service.routes.iter().map(|entry| entry.route.clone()).collect()
}
