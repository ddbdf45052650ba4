//! Starting and stopping instances: how many tasks a slot has.

use aws_sdk_ecs::error::ProvideErrorMetadata;
use aws_sdk_ecs::operation::update_service::builders::UpdateServiceFluentBuilder;
use aws_sdk_ecs::types::{
    AssignPublicIp, AvailabilityZoneRebalancing, AwsVpcConfiguration, CapacityProviderStrategyItem,
    DeploymentCircuitBreaker, DeploymentConfiguration, LaunchType, LoadBalancer, NetworkConfiguration, PropagateTags,
    ServiceRegistry, Tag,
};
use deployer_core::{AppName, Error, ErrorKind, Launch, Outcome, Reduce, Result, ServiceRelease, Strategy};
use futures_util::future::{try_join_all, try_join3};

use super::scaling::serving;
use super::slots::Slot;
use crate::failure::{failed, incomplete, is};
use crate::naming::{self, tag};
use crate::options::{Capacity, CapacityProvider};
use crate::site::Site;

/// What a revision takes its place with.
struct Place {
    /// The ARN of its task definition.
    definition: String,
    /// Its target groups, and the port of each.
    groups: Vec<(String, u16)>,
    /// The ARN of the registry in which its tasks have their names.
    registry: Option<String>,
}

impl Place {
    fn registries(&self) -> Vec<ServiceRegistry> {
        self.registry.iter().map(|arn| ServiceRegistry::builder().registry_arn(arn).build()).collect()
    }
}

impl Site {
    pub(super) async fn launch(&self, request: &Launch) -> Result<Outcome> {
        let app = &request.release.app;
        let slots = self.slots(app).await?;
        let slots = self.hold_others(request, slots).await?;
        let instances = least(request, &slots);
        if let Some(slot) = slots.iter().find(|slot| slot.holds(&request.revision)) {
            return self.grow(app, slot, instances).await;
        }
        if instances == 0 {
            return Ok(Outcome::AlreadyThere);
        }
        let service = request.service_release().ok_or_else(|| {
            Error::new(ErrorKind::Internal, "the release does not have the service")
                .with_resource(request.service.as_str())
        })?;
        let letter = self.free_letter(&slots, &request.revision)?;
        let groups = self.groups_of(app, &request.service, service, letter);
        let definition = self.definition(&request.release, &request.revision);
        let registry = self.registry(app, &request.service);
        let (definition, groups, registry) = try_join3(definition, groups, registry).await?;
        let place = Place { definition, groups, registry };
        let name = naming::slot(app, &request.service, letter);
        let slot = slots.iter().find(|slot| slot.name == name);
        let changes = self.changing(app, slot);
        match slot {
            Some(slot) => changes.made(self.fill(slot, (request, instances), &place).await?),
            None => self.create_slot((request, instances), letter, &place).await?,
        }
        Ok(Outcome::Created)
    }

    /// The slots, with those of the service's other revisions held: what scales must not while another revision comes.
    async fn hold_others(&self, request: &Launch, slots: Vec<Slot>) -> Result<Vec<Slot>> {
        let app = &request.release.app;
        let others =
            serving(&slots, &request.service).filter(|slot| self.may_scale(slot) && !slot.holds(&request.revision));
        let others: Vec<&Slot> = others.collect();
        if others.is_empty() {
            return Ok(slots);
        }
        let _changes = self.changing(app, None);
        try_join_all(others.into_iter().map(|slot| self.hold(app, slot))).await?;
        self.slots_now(app).await
    }

    /// More tasks in a slot that has the revision already.
    async fn grow(&self, app: &AppName, slot: &Slot, instances: u32) -> Result<Outcome> {
        // What ECS has given up it starts again only in a new deployment.
        let anew = slot.given_up.is_some() && slot.running < instances.max(slot.desired);
        if slot.desired >= instances && !anew {
            return Ok(Outcome::AlreadyThere);
        }
        let changes = self.changing(app, Some(slot));
        if self.may_scale(slot) {
            self.hold(app, slot).await?;
        }
        let call = self
            .update(slot)
            .desired_count(count(instances.max(slot.desired)))
            .set_force_new_deployment(anew.then_some(true));
        let answer = call.send().await.map_err(|error| failed("ecs:UpdateService", slot.name.as_str(), error))?;
        changes.made(slot.after(answer.service()));
        Ok(Outcome::Changed)
    }

    /// The revision into a slot in which nothing runs. Answers how the slot is then.
    async fn fill(&self, slot: &Slot, (request, instances): (&Launch, u32), place: &Place) -> Result<Option<Slot>> {
        let mut call = self
            .update(slot)
            .task_definition(&place.definition)
            .desired_count(count(instances))
            .network_configuration(self.network()?)
            // Crashes are counted from here, even if the slot had this revision before.
            .force_new_deployment(true);
        if slot.groups != place.groups {
            call = call.set_load_balancers(Some(load_balancers(request, &place.groups)));
        }
        if let Capacity::Providers(providers) = &self.options.capacity {
            // The slot may be older than they are.
            call = call.set_capacity_provider_strategy(Some(strategy(providers)?));
        }
        if slot.registry != place.registry {
            call = call.set_service_registries(Some(place.registries()));
        }
        if !place.groups.is_empty() {
            call = call.health_check_grace_period_seconds(grace_seconds(request));
        }
        match call.send().await {
            Ok(answer) => Ok(slot.after(answer.service())),
            Err(error) if is(&error, &["ServiceNotActiveException"]) => Err(draining(&slot.name, &error)),
            Err(error) => Err(failed("ecs:UpdateService", slot.name.as_str(), error)),
        }
    }

    fn update(&self, slot: &Slot) -> UpdateServiceFluentBuilder {
        self.ecs.update_service().cluster(&self.options.cluster).service(&slot.name)
    }

    async fn create_slot(&self, (request, instances): (&Launch, u32), letter: char, place: &Place) -> Result<()> {
        let app = &request.release.app;
        let name = naming::slot(app, &request.service, letter);
        let tag = |key: &str, value: String| Tag::builder().key(key).value(value).build();
        let mut call = self
            .ecs
            .create_service()
            .cluster(&self.options.cluster)
            .service_name(&name)
            .task_definition(&place.definition)
            .desired_count(count(instances))
            .client_token(naming::token(&[&name, &place.definition, &request.call.key]))
            .network_configuration(self.network()?)
            .deployment_configuration(deployment_configuration()?)
            .set_load_balancers(Some(load_balancers(request, &place.groups)))
            .set_service_registries(Some(place.registries()))
            // Instances that are moved between zones while a revision has to prove itself would be failures of it.
            .availability_zone_rebalancing(AvailabilityZoneRebalancing::Disabled)
            .propagate_tags(PropagateTags::Service)
            .enable_ecs_managed_tags(true)
            .tags(tag(tag::APP, app.to_string()))
            .tags(tag(tag::SERVICE, request.service.to_string()))
            .tags(tag(tag::SLOT, letter.to_string()));
        if !place.groups.is_empty() {
            call = call.health_check_grace_period_seconds(grace_seconds(request));
        }
        call = match &self.options.capacity {
            Capacity::Fargate => call.launch_type(LaunchType::Fargate),
            Capacity::Ec2 => call.launch_type(LaunchType::Ec2),
            Capacity::Providers(providers) => call.set_capacity_provider_strategy(Some(strategy(providers)?)),
        };
        // Before it is there: nobody may hear of it, should the reply be lost.
        self.remember_slot(app, &name);
        // Nothing has stopped in it yet.
        self.memory().searched.insert(name.clone(), String::new());
        match call.send().await {
            Ok(_) => {}
            Err(error) if is_draining(&error) => return Err(draining(&name, &error)),
            Err(error) => return Err(failed("ecs:CreateService", name.as_str(), error)),
        }
        Ok(())
    }

    pub(super) async fn reduce(&self, request: &Reduce) -> Result<Outcome> {
        let slots = self.slots(&request.app).await?;
        let Some(slot) = slots.iter().find(|slot| slot.holds(&request.revision)) else {
            return Ok(Outcome::AlreadyThere);
        };
        if slot.desired <= request.keep {
            return Ok(Outcome::AlreadyThere);
        }
        let changes = self.changing(&request.app, Some(slot));
        if self.may_scale(slot) {
            self.hold(&request.app, slot).await?;
        }
        let call = self.update(slot).desired_count(count(request.keep));
        let answer = call.send().await.map_err(|error| failed("ecs:UpdateService", slot.name.as_str(), error))?;
        changes.made(slot.after(answer.service()));
        Ok(Outcome::Changed)
    }

    pub(super) fn network(&self) -> Result<NetworkConfiguration> {
        let public = if self.options.public_addresses { AssignPublicIp::Enabled } else { AssignPublicIp::Disabled };
        let groups = Some(self.options.security_groups.clone()).filter(|groups| !groups.is_empty());
        let network = AwsVpcConfiguration::builder()
            .set_subnets(Some(self.options.subnets.clone()))
            .set_security_groups(groups)
            .assign_public_ip(public)
            .build()
            .map_err(incomplete)?;
        Ok(NetworkConfiguration::builder().awsvpc_configuration(network).build())
    }
}

/// How many tasks there shall be: as many as are asked for, and where the service scales, no fewer than serve now, unless
/// the new ones come in batches.
fn least(request: &Launch, slots: &[Slot]) -> u32 {
    let scales = |service: &ServiceRelease| {
        service.scaling.is_some() && !matches!(service.strategy, Strategy::Rolling { .. }) && request.instances > 0
    };
    if !request.service_release().is_some_and(scales) {
        return request.instances;
    }
    let others = serving(slots, &request.service).filter(|slot| !slot.holds(&request.revision));
    others.map(|slot| slot.desired).fold(request.instances, u32::max)
}

/// All tasks of a launch at once, and none beyond. The verdict is the engine's; ECS only stops trying for ever, should
/// nobody be there to give one.
fn deployment_configuration() -> Result<DeploymentConfiguration> {
    let breaker = DeploymentCircuitBreaker::builder().enable(true).rollback(false).build();
    let configuration = DeploymentConfiguration::builder()
        .deployment_circuit_breaker(breaker)
        .maximum_percent(200)
        .minimum_healthy_percent(100);
    Ok(configuration.build())
}

fn strategy(providers: &[CapacityProvider]) -> Result<Vec<CapacityProviderStrategyItem>> {
    let item = |provider: &CapacityProvider| {
        CapacityProviderStrategyItem::builder()
            .capacity_provider(&provider.name)
            .weight(provider.weight.into())
            .base(count(provider.base))
            .build()
            .map_err(incomplete)
    };
    providers.iter().map(item).collect()
}

fn load_balancers(request: &Launch, groups: &[(String, u16)]) -> Vec<LoadBalancer> {
    let of = |(arn, port): &(String, u16)| {
        LoadBalancer::builder()
            .target_group_arn(arn)
            .container_name(naming::container(&request.service))
            .container_port((*port).into())
            .build()
    };
    groups.iter().map(of).collect()
}

/// ECS stops what the load balancer finds unhealthy; it must not before the engine has lost patience with it.
fn grace_seconds(request: &Launch) -> i32 {
    let readiness = request.service_release().map(ServiceRelease::effective_readiness).unwrap_or_default();
    i32::try_from(readiness.deadline.as_secs()).unwrap_or(i32::MAX)
}

/// One of that name was made with other words, or is being deleted.
fn is_draining(error: &impl ProvideErrorMetadata) -> bool {
    let words = error.message().unwrap_or_default();
    words.contains("Draining") || words.contains("not idempotent")
}

fn draining(name: &str, error: &impl ProvideErrorMetadata) -> Error {
    Error::new(ErrorKind::Conflict, "an ECS service of that name is there, or still drains")
        .with_resource(name)
        .with_context("AWS said", error.message().unwrap_or_default())
        .with_retry(deployer_core::Retry::Soon)
}

pub(super) fn count(instances: u32) -> i32 {
    i32::try_from(instances).unwrap_or(i32::MAX)
}
