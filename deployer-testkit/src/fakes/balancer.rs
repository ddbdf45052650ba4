//! A load balancer whose pools exist in the world's books only.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use deployer_core::{
    AppName, BalancerCapabilities, EnsureRoutes, Error, ErrorKind, InstanceId, LoadBalancer, ObservedRouting, Outcome,
    Published, Result, RetainRoutes, RevisionId, Route, ServiceName, SetTargets, SetWeights, TargetRegistration,
};

use crate::world::routing::{Entry, Pool, TargetRow, check_pools};
use crate::world::state::State;
use crate::world::strict::Rule;
use crate::world::traffic::LossReason;
use crate::world::{World, failure};

/// Brings the simulated requests of a [`World`] to its instances.
#[derive(Clone, Debug)]
pub struct FakeBalancer {
    world: World,
}

impl FakeBalancer {
    pub(crate) fn new(world: World) -> Self {
        Self { world }
    }
}

/// Refuses what somebody else has.
fn check_free(state: &State, app: &AppName, routes: &[Route], published: &[Published]) -> Result<()> {
    let taken = |what: String, by: &str| {
        let message = "the entry is taken";
        failure("balancer.ensure", &what, ErrorKind::Exhausted, message).with_context("taken by", by)
    };
    for ((owner, service), entry) in state.routing.iter().filter(|((owner, _), _)| owner != app) {
        let by = format!("{owner}/{service}");
        let same_entry = |route: &&Route| {
            let mut theirs = entry.routes.iter();
            theirs.any(|other| other.host == route.host && other.path == route.path)
        };
        if let Some(route) = routes.iter().find(same_entry) {
            let what = format!("{}{}", route.host.as_deref().unwrap_or("*"), route.path);
            let message = "another application has this route";
            return Err(failure("balancer.ensure", &what, ErrorKind::AlreadyExists, message).with_context("has it", by));
        }
        if let Some(port) = published.iter().find(|port| entry.published.iter().any(|other| clash(**port, *other))) {
            return Err(taken(format!("port {}", port.port), &by));
        }
    }
    for (foreign, program) in &state.foreign_ports {
        if published.iter().any(|port| clash(*port, *foreign)) {
            return Err(taken(format!("port {}", foreign.port), program));
        }
    }
    Ok(())
}

/// Whether two programs cannot listen on both: an entry without an address is on all of them.
fn clash(one: Published, other: Published) -> bool {
    one.port == other.port && (one.ip.is_none() || other.ip.is_none() || one.ip == other.ip)
}

fn no_entry(operation: &'static str, service: &ServiceName) -> Error {
    failure(operation, service.as_str(), ErrorKind::NotFound, "the service has no entry")
        .with_help("make it with `LoadBalancer::ensure`")
}

#[async_trait]
impl LoadBalancer for FakeBalancer {
    fn capabilities(&self) -> BalancerCapabilities {
        let options = &self.world.lock().options;
        BalancerCapabilities::new(options.targets).with_propagation(options.propagation)
    }

    async fn ensure(&self, request: EnsureRoutes) -> Result<Outcome> {
        const OPERATION: &str = "balancer.ensure";
        let release = &request.release;
        let app = &release.app;
        let inputs = format!("{app} {}", self.world.content_of(release));
        let mut state = self.world.enter(app, OPERATION, app.as_str(), &request.call, &inputs)?;
        self.world.check_release(&mut state, OPERATION, release);
        let listening = release.services.iter().filter(|(_, service)| !service.listening_ports().is_empty());
        let wanted: Vec<(&ServiceName, &[Route], Vec<Published>)> = listening
            .map(|(name, service)| {
                let published = service.workload.ports.iter().filter_map(|port| port.published).collect();
                (name, service.routes.as_slice(), published)
            })
            .collect();
        for (_, routes, published) in &wanted {
            check_free(&state, app, routes, published)?;
        }
        let mut outcome = Outcome::AlreadyThere;
        for (name, routes, published) in wanted {
            let key = (app.clone(), name.clone());
            outcome = outcome.and(match state.routing.get_mut(&key) {
                None => {
                    let entry = Entry { routes: routes.to_vec(), published, ..Entry::default() };
                    state.routing.insert(key, entry);
                    Outcome::Created
                }
                Some(entry) => {
                    // Adds and updates only: what the release does not have any more stays until `retain`.
                    let before = (entry.routes.len(), entry.published.len());
                    let new_routes: Vec<Route> =
                        routes.iter().filter(|route| !entry.routes.contains(route)).cloned().collect();
                    entry
                        .routes
                        .retain(|old| !new_routes.iter().any(|route| route.host == old.host && route.path == old.path));
                    let changed = !new_routes.is_empty();
                    entry.routes.extend(new_routes);
                    let new_ports = published.into_iter().filter(|port| !entry.published.contains(port));
                    let new_ports: Vec<Published> = new_ports.collect();
                    entry.published.extend(new_ports);
                    let same = !changed && before == (entry.routes.len(), entry.published.len());
                    if same { Outcome::AlreadyThere } else { Outcome::Changed }
                }
            });
        }
        state.settle();
        Ok(outcome)
    }

    async fn observe(&self, app: &AppName) -> Result<Vec<ObservedRouting>> {
        let mut state = self.world.reach("balancer.observe", app.as_str())?;
        if state.is_stale("balancer.observe")
            && let Some(last) = state.answered.routing_of(app, state.now)
        {
            return Ok(last);
        }
        let mut routing = state.routing_of(app);
        state.random.shuffle(&mut routing);
        for entry in &mut routing {
            state.random.shuffle(&mut entry.pools);
            for pool in &mut entry.pools {
                state.random.shuffle(&mut pool.targets);
            }
        }
        let answer = (state.now, routing.clone());
        state.answered.routing.insert(app.clone(), answer);
        Ok(routing)
    }

    async fn set_targets(&self, request: SetTargets) -> Result<Outcome> {
        const OPERATION: &str = "balancer.set_targets";
        let SetTargets { call, app, revision, targets, .. } = &request;
        // A repetition may find other instances ready: the targets are not among what a key stands for.
        let mut state = self.world.enter(app, OPERATION, &revision.to_string(), call, &format!("{app} {revision}"))?;
        if state.options.targets == TargetRegistration::Orchestrator {
            state.violate(Rule::TargetsAreRegisteredOnce, format!("targets of {revision} were set by the engine"));
            let message = "the orchestrator registers the targets";
            return Err(failure(OPERATION, &revision.to_string(), ErrorKind::Unsupported, message));
        }
        for target in targets {
            let instance = state.instances.get(&target.instance);
            let fits = instance.is_some_and(|one| one.address == target.address && one.revision == *revision);
            if !fits {
                let detail = format!("{} at {} is no instance of {revision}", target.instance, target.address);
                state.violate(Rule::TargetExists, detail);
            }
        }
        let key = (app.clone(), revision.service().clone());
        check_pools(&state, OPERATION, app, revision)?;
        let Some(entry) = state.routing.get_mut(&key) else { return Err(no_entry(OPERATION, revision.service())) };
        let created = !entry.pools.contains_key(revision);
        let pool = entry.pools.entry(revision.clone()).or_default();
        let before: BTreeMap<InstanceId, (String, bool)> =
            pool.targets.iter().map(|(id, row)| (id.clone(), (row.address.clone(), row.draining))).collect();
        let wanted: BTreeMap<InstanceId, (String, bool)> =
            targets.iter().map(|target| (target.instance.clone(), (target.address.clone(), target.draining))).collect();
        pool.targets.retain(|id, _| wanted.contains_key(id));
        for (id, (address, draining)) in &wanted {
            let row = pool.targets.entry(id.clone()).or_insert_with(|| TargetRow::new(address.clone(), *draining));
            row.address.clone_from(address);
            row.draining = *draining;
        }
        let dropped: Vec<InstanceId> = before.keys().filter(|id| !wanted.contains_key(*id)).cloned().collect();
        drop_targets(&mut state, &dropped);
        state.settle();
        Ok(if created {
            Outcome::Created
        } else if before == wanted {
            Outcome::AlreadyThere
        } else {
            Outcome::Changed
        })
    }

    async fn set_weights(&self, request: SetWeights) -> Result<Outcome> {
        const OPERATION: &str = "balancer.set_weights";
        let SetWeights { call, app, service, weights, expected, .. } = &request;
        let inputs = format!("{app} {service} {weights:?}");
        let mut state = self.world.enter(app, OPERATION, service.as_str(), call, &inputs)?;
        let sum: u32 = weights.values().map(|weight| u32::from(*weight)).sum();
        if sum != 100 && sum != 0 {
            state.violate(Rule::WeightsAddUp, format!("the weights of {service} add up to {sum}"));
        }
        let key = (app.clone(), service.clone());
        let Some(entry) = state.routing.get(&key) else { return Err(no_entry(OPERATION, service)) };
        let wanted: BTreeMap<RevisionId, u8> =
            weights.iter().filter(|(_, weight)| **weight > 0).map(|(id, weight)| (id.clone(), *weight)).collect();
        if entry.weights() == wanted {
            return Ok(Outcome::AlreadyThere);
        }
        if entry.pool_version() != *expected {
            return Err(failure(OPERATION, service.as_str(), ErrorKind::Conflict, "somebody else moved the weights")
                .with_context("expected", expected.0.clone())
                .with_context("found", entry.pool_version().0));
        }
        if let Some(revision) = wanted.keys().find(|revision| !entry.pools.contains_key(*revision)) {
            let message = "the revision has no pool";
            return Err(failure(OPERATION, &revision.to_string(), ErrorKind::NotFound, message));
        }
        let serving: BTreeSet<&RevisionId> =
            entry.pools.iter().filter(|(_, pool)| state.targets_in_service(pool) > 0).map(|(id, _)| id).collect();
        let nowhere: Vec<String> = wanted
            .keys()
            .filter(|revision| !serving.contains(revision) && !serving.is_empty())
            .map(|revision| format!("{revision} gets traffic and has no target in service, while another pool has"))
            .collect();
        for detail in nowhere {
            state.violate(Rule::TrafficHasTargets, detail);
        }
        if let Some(entry) = state.routing.get_mut(&key) {
            entry.weigh(&wanted);
        }
        state.settle();
        Ok(Outcome::Changed)
    }

    async fn retain(&self, request: RetainRoutes) -> Result<Outcome> {
        const OPERATION: &str = "balancer.retain";
        let RetainRoutes { call, app, release, pools, .. } = &request;
        let stays = release.as_ref().map_or_else(String::new, |release| self.world.content_of(release).to_string());
        let inputs = format!("{app} {stays} {pools:?}");
        let mut state = self.world.enter(app, OPERATION, app.as_str(), call, &inputs)?;
        if let Some(release) = release {
            self.world.check_release(&mut state, OPERATION, release);
        }
        let mut outcome = Outcome::AlreadyThere;
        let mut removed: Vec<(RevisionId, Pool, bool)> = Vec::new();
        let keys: Vec<_> = state.routing.keys().filter(|(owner, _)| owner == app).cloned().collect();
        for key in keys {
            let service = release.as_ref().and_then(|release| release.services.get(&key.1));
            let service = service.filter(|service| !service.listening_ports().is_empty());
            if let Some(service) = service {
                let Some(entry) = state.routing.get_mut(&key) else { continue };
                let before = (entry.routes.len(), entry.published.len(), entry.pools.len());
                entry.routes.retain(|route| service.routes.contains(route));
                let published: Vec<Published> =
                    service.workload.ports.iter().filter_map(|port| port.published).collect();
                entry.published.retain(|port| published.contains(port));
                let going: Vec<RevisionId> = entry.pools.keys().filter(|id| !pools.contains(id)).cloned().collect();
                for revision in going {
                    if let Some(pool) = entry.pools.remove(&revision) {
                        removed.push((revision, pool, true));
                    }
                }
                if before != (entry.routes.len(), entry.published.len(), entry.pools.len()) {
                    outcome = Outcome::Changed;
                }
            } else if let Some(entry) = state.routing.remove(&key) {
                removed.extend(entry.pools.into_iter().map(|(revision, pool)| (revision, pool, false)));
                outcome = Outcome::Changed;
            }
        }
        for (revision, pool, service_stays) in removed {
            if service_stays && pool.weight > 0 {
                state.violate(Rule::PoolIsIdle, format!("the pool of {revision} has {} %", pool.weight));
            }
            let targets: Vec<InstanceId> = pool.targets.into_keys().collect();
            drop_targets(&mut state, &targets);
        }
        state.settle();
        Ok(outcome)
    }
}

/// Loses what dropped targets were working on.
fn drop_targets(state: &mut State, dropped: &[InstanceId]) {
    for id in dropped {
        let requests = state.traffic.in_flight_of(id);
        if requests > 0 {
            state.violate(Rule::DrainedFirst, format!("{id} was dropped with {requests} requests in flight"));
            state.lose_requests(id, LossReason::TargetDropped);
        }
    }
}
