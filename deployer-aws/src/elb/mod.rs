//! Traffic through an Application Load Balancer, and a Network Load Balancer for published ports.

mod ensure;
mod groups;
mod rules;
mod weights;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use deployer_core::{
    AppName, BalancerCapabilities, EnsureRoutes, InstanceId, LoadBalancer, ObservedPool, ObservedRouting,
    ObservedTarget, Outcome, Result, RetainRoutes, Route, ServiceName, SetTargets, SetWeights, TargetRegistration,
    TargetState,
};
use futures_util::future::try_join;
use tokio::sync::Mutex;

pub(crate) use self::ensure::Taken;
pub(crate) use self::groups::{Inlet, KnownGroup, Protocol, TargetHealth};
pub(crate) use self::rules::{LiveRule, Match};
use crate::ecs::Slot;
use crate::site::Site;

/// Brings traffic to instances through the rules of a listener of an Application Load Balancer: one rule for each route,
/// with a target group for each slot of the service and the weights between them. A published port is a listener of a Network
/// Load Balancer in the same way.
///
/// ECS registers and deregisters the instances. Calls between services do not pass here.
#[derive(Clone, Debug)]
pub struct ElbBalancer {
    site: Arc<Site>,
    /// ELB has no way to change a rule only if it is as expected: within one process, one at a time does, from its look at
    /// the rules on.
    changing: Arc<Mutex<()>>,
}

impl ElbBalancer {
    pub(crate) fn new(site: Arc<Site>) -> Self {
        Self { site, changing: Arc::default() }
    }
}

/// The rules of one service, and its slots.
#[derive(Debug, Default)]
struct Traffic<'a> {
    rules: Vec<&'a LiveRule>,
    slots: Vec<&'a Slot>,
}

/// What is there of an application, by service.
fn by_service<'a>(app: &AppName, rules: &'a [LiveRule], slots: &'a [Slot]) -> BTreeMap<ServiceName, Traffic<'a>> {
    let mut services: BTreeMap<ServiceName, Traffic<'a>> = BTreeMap::new();
    for rule in rules {
        if let Some(owner) = rule.owner().filter(|owner| owner.app == *app) {
            services.entry(owner.service.clone()).or_default().rules.push(rule);
        }
    }
    for slot in slots {
        if let Some(traffic) = services.get_mut(&slot.service) {
            traffic.slots.push(slot);
        }
    }
    services
}

#[async_trait]
impl LoadBalancer for ElbBalancer {
    fn capabilities(&self) -> BalancerCapabilities {
        BalancerCapabilities::new(TargetRegistration::Orchestrator)
            .with_propagation(self.site.options.propagation)
            .without_internal()
    }

    async fn ensure(&self, request: EnsureRoutes) -> Result<Outcome> {
        self.site.ensure_routes(&request.release, &self.changing).await
    }

    async fn observe(&self, app: &AppName) -> Result<Vec<ObservedRouting>> {
        let (rules, slots) = try_join(self.site.rules(), self.site.slots(app)).await?;
        let services = by_service(app, &rules, &slots);
        let live: BTreeSet<String> = services
            .values()
            .flat_map(|traffic| &traffic.slots)
            .filter(|slot| self.site.has_tasks(app, slot))
            .flat_map(|slot| slot.groups.iter().map(|(arn, _)| arn.clone()))
            .collect();
        let health = self.site.target_health(&live).await?;
        let known = self.site.addresses(app);
        let mut addresses = health.values().flatten().map(|target| &target.address);
        if addresses.any(|address| !known.contains_key(address)) {
            // Nobody has looked at the tasks since they were registered.
            self.site.look_at_tasks(app, &slots).await?;
        }
        let addresses = self.site.addresses(app);
        let routings = services.into_iter().map(|(service, traffic)| {
            let routes: Vec<Route> = traffic.rules.iter().filter_map(|rule| rule.route()).collect();
            let all = weights::of_rules(&traffic.rules, &service);
            let weights = weights::mean(&all);
            let live: Vec<&Slot> = traffic.slots.iter().copied().filter(|slot| !slot.is_idle()).collect();
            let pools = live.iter().map(|slot| {
                let weight = weights.get(&slot.letter).copied().unwrap_or_default();
                ObservedPool::new(slot.revision.clone(), weight, targets(slot, &health, &addresses))
            });
            let pools = pools.collect();
            let of_revisions = |weights: &BTreeMap<char, u8>| {
                let live = live.iter().filter_map(|slot| Some((slot.revision.clone(), *weights.get(&slot.letter)?)));
                live.collect::<BTreeMap<_, _>>()
            };
            let uneven = if all.len() > 1 { all.iter().map(of_revisions).collect() } else { Vec::new() };
            ObservedRouting::new(service, weights::version(&all), routes, pools).with_uneven(uneven)
        });
        Ok(routings.collect())
    }

    async fn set_targets(&self, _request: SetTargets) -> Result<Outcome> {
        // ECS does that, as the capabilities say.
        Ok(Outcome::AlreadyThere)
    }

    async fn set_weights(&self, request: SetWeights) -> Result<Outcome> {
        let _changing = self.changing.lock().await;
        self.site.shift(&request).await
    }

    async fn retain(&self, request: RetainRoutes) -> Result<Outcome> {
        self.site.retain(&request, &self.changing).await
    }
}

/// The targets of a slot by instance: worse than any of the ports of an instance it is not.
fn targets(
    slot: &Slot,
    health: &BTreeMap<String, Vec<TargetHealth>>,
    addresses: &BTreeMap<String, InstanceId>,
) -> Vec<ObservedTarget> {
    let mut targets: BTreeMap<InstanceId, ObservedTarget> = BTreeMap::new();
    for target in slot.groups.iter().filter_map(|(arn, _)| health.get(arn)).flatten() {
        let Some(instance) = addresses.get(&target.address) else { continue };
        let state = match target {
            one if one.is_healthy() => TargetState::InService,
            one if one.is_draining() => TargetState::Draining,
            one if one.is_starting() => TargetState::Starting,
            _ => TargetState::Down,
        };
        let reason = (state != TargetState::InService).then(|| target.words());
        let found = ObservedTarget { instance: instance.clone(), state, in_flight: None, reason };
        let known = targets.entry(instance.clone()).or_insert_with(|| found.clone());
        if known.state == TargetState::InService {
            *known = found;
        }
    }
    targets.into_values().collect()
}

impl Site {
    /// The instances of an application by their addresses. Of several that had an address one after the other, the last.
    fn addresses(&self, app: &AppName) -> BTreeMap<String, InstanceId> {
        let memory = self.memory();
        let mut tasks: Vec<_> = memory.tasks.get(app).into_iter().flat_map(|tasks| tasks.values()).collect();
        tasks.sort_by_key(|task| task.created);
        let addressed =
            tasks.into_iter().filter_map(|task| Some((task.address.clone()?, InstanceId::new(&task.id).ok()?)));
        addressed.collect()
    }
}
