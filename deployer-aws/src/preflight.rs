//! What of the account would stop an application.

use std::collections::BTreeMap;

use aws_sdk_elasticloadbalancingv2::types::{Limit, LoadBalancer, LoadBalancerStateEnum, LoadBalancerTypeEnum};
use deployer_core::{AppSpec, ErrorKind, Problem, Problems, Result, ServiceSpec};
use futures_util::future::{try_join, try_join4};

use crate::elb::{Match, Taken};
use crate::failure::{failed, is};
use crate::naming;
use crate::options::Capacity;
use crate::site::Site;

/// How many slots a service takes.
const SLOTS: usize = 2;

/// How many services a cluster may have, and tasks a service, unless AWS has agreed to more, which ECS does not tell:
/// <https://docs.aws.amazon.com/general/latest/gr/ecs-service.html>.
const SERVICES: usize = 5_000;
const TASKS: u32 = 5_000;

/// What can be found is found at once; what this program may not ask for is a warning.
fn found(path: &str, answer: Result<Problems>) -> Result<Problems> {
    match answer {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let mut problems = Problems::default();
            problems.push(Problem::warning(path, format!("it cannot be looked at beforehand: {error}")));
            Ok(problems)
        }
        other => other,
    }
}

impl Site {
    /// What of the account would stop the application: what is missing, does not fit, is used up, or somebody else's.
    pub(crate) async fn preflight(&self, spec: &AppSpec) -> Result<Problems> {
        let cluster = async { found("environment.cluster", self.cluster_problems(spec).await) };
        let balancer = async { found("environment.listener", self.balancer_problems(spec).await) };
        let logs = async { found("environment.log-group", self.log_problems().await) };
        let namespace = async { found("environment.namespace", self.namespace_problems().await) };
        let (cluster, balancer, logs, namespace) = try_join4(cluster, balancer, logs, namespace).await?;
        let found = cluster.0.into_iter().chain(balancer.0).chain(logs.0).chain(namespace.0);
        let mut problems = Problems(found.collect());
        if self.options.subnets.is_empty() {
            problems.push(
                Problem::error("environment.subnets", "there is no subnet in which instances could run")
                    .with_help("name some with `AwsOptions::with_subnets`"),
            );
        }
        for (name, service) in spec.services.iter().filter(|(_, service)| service.replicas > TASKS) {
            let message = format!("ECS runs {TASKS} instances of a service by default, not {}", service.replicas);
            problems.push(Problem::warning(format!("services.{name}.deploy.replicas"), message));
        }
        Ok(problems)
    }

    async fn cluster_problems(&self, spec: &AppSpec) -> Result<Problems> {
        let mut problems = Problems::default();
        let path = "environment.cluster";
        let name = &self.options.cluster;
        let call = self.ecs.describe_clusters().clusters(name);
        let answer = call.send().await.map_err(|error| failed("ecs:DescribeClusters", self.cluster(), error))?;
        let Some(cluster) = answer.clusters().iter().find(|cluster| cluster.status() == Some("ACTIVE")) else {
            problems.push(
                Problem::error(path, format!("there is no cluster {name:?}, or it is not active"))
                    .with_help("check region and account, or apply the environment"),
            );
            return Ok(problems);
        };
        let role = &self.options.execution_role;
        let account = cluster.cluster_arn().and_then(|arn| arn.split(':').nth(4));
        if self.options.account().is_some_and(|of_role| account.is_some_and(|account| account != of_role)) {
            problems.push(
                Problem::error("environment.execution-role", format!("{role} is a role of another account"))
                    .with_help("ECS takes roles of the cluster's account only"),
            );
        }
        match &self.options.capacity {
            Capacity::Fargate => {}
            Capacity::Ec2 if cluster.registered_container_instances_count() == 0 => problems.push(
                Problem::error(path, format!("no machine has joined the cluster {name:?}"))
                    .with_help("start machines, or use a capacity provider, which starts them when they are needed"),
            ),
            Capacity::Ec2 => {}
            Capacity::Providers(providers) => {
                let there = cluster.capacity_providers();
                for provider in providers.iter().filter(|provider| !there.contains(&provider.name)) {
                    let message = format!("the cluster {name:?} has no capacity provider {:?}", provider.name);
                    problems.push(Problem::error("environment.capacity", message));
                }
            }
        }
        let services = usize::try_from(cluster.active_services_count()).unwrap_or_default();
        let ours = self.slots(&spec.name).await?.len();
        if services + (spec.services.len() * SLOTS).saturating_sub(ours) > SERVICES {
            let message = format!("the cluster {name:?} has {services} services, and by default room for {SERVICES}");
            problems.push(Problem::warning(path, message).with_help("use another cluster, or ask AWS for more"));
        }
        Ok(problems)
    }

    async fn balancer_problems(&self, spec: &AppSpec) -> Result<Problems> {
        let (mut routed, published) = try_join(self.routed_problems(spec), self.published_problems(spec)).await?;
        routed.0.extend(published.0);
        Ok(routed)
    }

    /// What is wrong with the Network Load Balancer, and published ports that others have.
    async fn published_problems(&self, spec: &AppSpec) -> Result<Problems> {
        let mut problems = Problems::default();
        let mut published = Vec::new();
        for (name, service) in &spec.services {
            let all = Match::all_of(service).into_iter().map(|(one, _)| one);
            published.extend(all.filter(|one| matches!(one, Match::Connections { .. })).map(|one| (name, one)));
        }
        let Some(arn) = self.options.network_balancer.as_deref().filter(|_| !published.is_empty()) else {
            return Ok(problems);
        };
        let path = "environment.network-balancer";
        let found = match self.elb.describe_load_balancers().load_balancer_arns(arn).send().await {
            Ok(found) => found.load_balancers.unwrap_or_default().into_iter().next(),
            Err(error) if is(&error, &["LoadBalancerNotFound", "LoadBalancerNotFoundException"]) => None,
            Err(error) => return Err(failed("elasticloadbalancing:DescribeLoadBalancers", arn, error)),
        };
        let Some(balancer) = found else {
            problems.push(
                Problem::error(path, format!("there is no load balancer {arn}"))
                    .with_help("check region and account, or apply the environment"),
            );
            return Ok(problems);
        };
        let name = balancer.load_balancer_name().unwrap_or_default();
        if balancer.r#type() != Some(&LoadBalancerTypeEnum::Network) {
            problems.push(Problem::error(path, format!("the load balancer {name:?} is no Network Load Balancer")));
            return Ok(problems);
        }
        let (rules, limits) = try_join(self.rules(), self.limits()).await?;
        let mut new = 0;
        for (service, port) in published {
            match Taken::of(&spec.name, &port, &rules) {
                Taken::Ours => {}
                Taken::Free => new += 1,
                Taken::By(who) => problems.push(taken(format!("services.{service}.ports"), &port, &who)),
            }
        }
        let there = rules.iter().filter(|rule| rule.is_listener()).count();
        if limits.get("listeners-per-network-load-balancer").is_some_and(|most| there + new > *most) {
            let message = format!("the load balancer {name:?} has {there} listeners, and no room for {new} more");
            problems.push(Problem::error(path, message).with_help("ask AWS to raise the quota"));
        }
        Ok(problems)
    }

    /// What is wrong with the listener of routes, and routes that others have.
    async fn routed_problems(&self, spec: &AppSpec) -> Result<Problems> {
        let mut problems = Problems::default();
        let routed = spec.services.values().any(|service| !service.routes.is_empty());
        let Some(listener) = self.options.listener.as_deref().filter(|_| routed) else { return Ok(problems) };
        let path = "environment.listener";
        let Some(balancer) = self.balancer_of(listener).await? else {
            problems.push(
                Problem::error(path, format!("there is no listener {listener}"))
                    .with_help("check region and account, or apply the environment"),
            );
            return Ok(problems);
        };
        let name = balancer.load_balancer_name().unwrap_or_default();
        if balancer.r#type() != Some(&LoadBalancerTypeEnum::Application) {
            problems.push(Problem::error(path, format!("the load balancer {name:?} is no Application Load Balancer")));
        }
        let state = balancer.state().and_then(|state| state.code());
        if state.is_some_and(|state| matches!(state, LoadBalancerStateEnum::Failed)) {
            problems.push(Problem::error(path, format!("the load balancer {name:?} has failed")));
        }
        let vpc = &self.options.vpc;
        if balancer.vpc_id().is_some_and(|of_balancer| of_balancer != vpc) {
            let message = format!("the load balancer {name:?} is in another network than instances, which is {vpc}");
            problems.push(Problem::error(path, message));
        }
        let arn = balancer.load_balancer_arn().unwrap_or_default();
        let limits = self.limits().await?;
        let most = |name: &str| limits.get(name).copied();
        let (rules, groups) = try_join(
            self.rule_problems(spec, name, most("rules-per-application-load-balancer")),
            self.group_problems(spec, arn, name, most("target-groups-per-application-load-balancer")),
        )
        .await?;
        problems.0.extend(rules.0.into_iter().chain(groups.0));
        Ok(problems)
    }

    /// The load balancer of a listener.
    async fn balancer_of(&self, listener: &str) -> Result<Option<LoadBalancer>> {
        let found = match self.elb.describe_listeners().listener_arns(listener).send().await {
            Ok(found) => found,
            Err(error) if is(&error, &["ListenerNotFound", "ListenerNotFoundException"]) => return Ok(None),
            Err(error) => return Err(failed("elasticloadbalancing:DescribeListeners", listener, error)),
        };
        let Some(arn) = found.listeners().first().and_then(|listener| listener.load_balancer_arn()) else {
            return Ok(None);
        };
        let found = self.elb.describe_load_balancers().load_balancer_arns(arn).send().await;
        let found = found.map_err(|error| failed("elasticloadbalancing:DescribeLoadBalancers", arn, error))?;
        Ok(found.load_balancers.unwrap_or_default().into_iter().next())
    }

    /// Routes that others have, and whether there is room for those that are new.
    async fn rule_problems(&self, spec: &AppSpec, balancer: &str, most: Option<usize>) -> Result<Problems> {
        let mut problems = Problems::default();
        let (rules, mut new) = (self.rules().await?, 0);
        for (name, service) in &spec.services {
            for (index, route) in service.routes.iter().enumerate() {
                let route = Match::of(route);
                match Taken::of(&spec.name, &route, &rules) {
                    Taken::Ours => {}
                    Taken::Free => new += 1,
                    Taken::By(who) => {
                        problems.push(taken(format!("services.{name}.routes[{index}]"), &route, &who));
                    }
                }
            }
        }
        let there = rules.iter().filter(|rule| !rule.is_listener()).count();
        if most.is_some_and(|most| there + new > most) {
            let message = format!("the load balancer {balancer:?} has {there} rules, and no room for {new} more");
            problems.push(Problem::error("environment.listener", message).with_help("ask AWS to raise the quota"));
        }
        Ok(problems)
    }

    /// Whether there is room for the target groups that are new.
    async fn group_problems(&self, spec: &AppSpec, arn: &str, balancer: &str, most: Option<usize>) -> Result<Problems> {
        let mut problems = Problems::default();
        let ports = |service: &ServiceSpec| {
            let mut ports: Vec<u16> = service.routes.iter().map(|route| route.port).collect();
            ports.sort_unstable();
            ports.dedup();
            ports.len() * SLOTS
        };
        let needed: usize = spec.services.values().map(ports).sum();
        let (mut used, mut ours) = (0, 0);
        let prefix = naming::target_group_prefix(&spec.name);
        let mut pages = self.elb.describe_target_groups().load_balancer_arn(arn).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("elasticloadbalancing:DescribeTargetGroups", balancer, error))?;
            used += page.target_groups().len();
            let named = |name: Option<&str>| name.is_some_and(|name| name.starts_with(&prefix));
            ours += page.target_groups().iter().filter(|group| named(group.target_group_name())).count();
        }
        let new = needed.saturating_sub(ours);
        if most.is_some_and(|most| used + new > most) {
            let message =
                format!("the load balancer {balancer:?} has {used} target groups, and no room for {new} more");
            problems.push(
                Problem::error("environment.listener", message)
                    .with_help("use another load balancer: each service with routes takes two target groups a port"),
            );
        }
        Ok(problems)
    }

    /// The account's quotas of load balancers, by AWS's names:
    /// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeAccountLimits.html>.
    async fn limits(&self) -> Result<BTreeMap<String, usize>> {
        let answer = self.elb.describe_account_limits().send().await;
        let answer = answer.map_err(|error| failed("elasticloadbalancing:DescribeAccountLimits", "account", error))?;
        let limit = |limit: &Limit| Some((limit.name()?.to_owned(), limit.max()?.parse().ok()?));
        Ok(answer.limits().iter().filter_map(limit).collect())
    }

    async fn log_problems(&self) -> Result<Problems> {
        let mut problems = Problems::default();
        let Some(name) = self.options.log_group.as_deref() else { return Ok(problems) };
        let mut pages = self.logs.describe_log_groups().log_group_name_prefix(name).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("logs:DescribeLogGroups", name, error))?;
            if page.log_groups().iter().any(|group| group.log_group_name() == Some(name)) {
                return Ok(problems);
            }
        }
        problems.push(
            Problem::error("environment.log-group", format!("there is no log group {name:?}: no instance could start"))
                .with_help("make it, or apply the environment"),
        );
        Ok(problems)
    }
}

/// Somebody else has a route or a published port.
fn taken(path: String, what: &Match, who: &str) -> Problem {
    Problem::error(path, format!("somebody else has the {} {what}: {who}", what.kind()))
        .with_help(format!("choose another {}, or remove the other one", what.choice()))
}
