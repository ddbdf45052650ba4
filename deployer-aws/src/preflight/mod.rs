//! What of the account would stop an application.

mod balancers;
mod place;

use deployer_core::{AppSpec, Error, ErrorKind, Problem, Problems, Result};
use futures_util::future::{try_join, try_join4};

use self::balancers::Balancers;
use crate::failure::failed;
use crate::options::Capacity;
use crate::site::Site;

/// How many slots a service takes.
const SLOTS: usize = 2;

/// How many services a cluster may have, and tasks a service, unless AWS has agreed to more, which ECS does not tell:
/// <https://docs.aws.amazon.com/general/latest/gr/ecs-service.html>.
const SERVICES: usize = 5_000;
const TASKS: u32 = 5_000;

/// What this program may not ask for.
fn unseen(path: &str, error: &Error) -> Problem {
    Problem::warning(path, format!("it cannot be looked at beforehand: {error}"))
}

/// What can be found is found at once; what this program may not ask for is a warning.
fn found(path: &str, answer: Result<Problems>) -> Result<Problems> {
    match answer {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(Problems(vec![unseen(path, &error)])),
        other => other,
    }
}

impl Site {
    /// What of the account would stop the application: what is missing, does not fit, is used up, or somebody else's.
    pub(crate) async fn preflight(&self, spec: &AppSpec) -> Result<Problems> {
        let cluster = async { found("environment.cluster", self.cluster_problems(spec).await) };
        let logs = async { found("environment.log-group", self.log_problems().await) };
        let namespace = async { found("environment.namespace", self.namespace_problems().await) };
        let (cluster, way, logs, namespace) = try_join4(cluster, self.way_to_instances(spec), logs, namespace).await?;
        let found = cluster.0.into_iter().chain(way.0).chain(logs.0).chain(namespace.0);
        let mut problems = Problems(found.collect());
        for (name, service) in spec.services.iter().filter(|(_, service)| service.replicas > TASKS) {
            let message = format!("ECS runs {TASKS} instances of a service by default, not {}", service.replicas);
            problems.push(Problem::warning(format!("services.{name}.deploy.replicas"), message));
        }
        Ok(problems)
    }

    /// What is wrong with load balancers, and with the place where instances run.
    async fn way_to_instances(&self, spec: &AppSpec) -> Result<Problems> {
        let path = "environment.listener";
        let (balancers, mut problems) = match self.balancers(spec).await {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                (Balancers::default(), Problems(vec![unseen(path, &error)]))
            }
            answer => answer?,
        };
        let room = async { found(path, self.room_problems(spec, &balancers).await) };
        let (room, place) = try_join(room, self.place_problems(spec, &balancers)).await?;
        problems.0.extend(room.0.into_iter().chain(place.0));
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
