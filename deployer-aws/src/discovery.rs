//! Names by which services find each other: Cloud Map.
//!
//! Every service has one Cloud Map service, which is the registry of all its slots: ECS puts the tasks of whichever runs into
//! it and takes them out again. Service Connect cannot do that: its names belong to one ECS service each.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_ecs::types::{ContainerCondition, ContainerDefinition, ContainerDependency};
use aws_sdk_servicediscovery::types::{
    DnsConfig, DnsRecord, FilterCondition, HealthCheckCustomConfig, RecordType, RoutingPolicy, ServiceFilter,
    ServiceFilterName, Tag,
};
use deployer_core::{AppName, Error, ErrorKind, Problem, Problems, Result, Retry, ServiceName};
use futures_util::future::try_join_all;

use crate::failure::{failed, incomplete, is};
use crate::naming::{self, tag};
use crate::options::Namespace;
use crate::site::Site;

/// For how many seconds resolvers keep an answer.
const TIME_TO_LIVE: i64 = 10;

/// How long the list of a namespace is believed. What is made here makes it be asked for again.
const LISTED: Duration = Duration::from_secs(60);

/// The container that lets names be short. No service's container has an underscore in its name.
pub(crate) const SEARCH: &str = "deployer_search";

/// How much memory that takes on machines of one's own, in MiB.
const SEARCH_MEMORY: i32 = 32;

/// The registry of a service.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    arn: String,
    /// Whose it is, if a deployer has made it.
    description: String,
}

/// What is written into a registry, by which it is known whose it is.
fn description(app: &AppName, service: &ServiceName) -> String {
    format!("deployer: {service} of {app}")
}

fn name(app: &AppName, service: &ServiceName) -> String {
    format!("{service}.{app}")
}

impl Site {
    /// The ARN of a service's registry, which is made if it is missing; none without a namespace.
    pub(crate) async fn registry(&self, app: &AppName, service: &ServiceName) -> Result<Option<String>> {
        let Some(namespace) = &self.options.namespace else { return Ok(None) };
        let (name, description) = (name(app, service), description(app, service));
        if let Some(found) = self.registries(namespace).await?.get(&name) {
            return ours(found, &name, &description).map(Some);
        }
        let record = DnsRecord::builder().r#type(RecordType::A).ttl(TIME_TO_LIVE).build().map_err(incomplete)?;
        let dns = DnsConfig::builder().routing_policy(RoutingPolicy::Multivalue).dns_records(record).build();
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build().map_err(incomplete);
        let _changing = self.registries.changing(namespace.id());
        let call = self
            .cloudmap
            .create_service()
            .name(&name)
            .namespace_id(namespace.id())
            .description(&description)
            .dns_config(dns.map_err(incomplete)?)
            // ECS says which tasks are healthy.
            .health_check_custom_config(HealthCheckCustomConfig::builder().build())
            .creator_request_id(naming::token(&[namespace.id(), &name]))
            .tags(tag(tag::APP, app.as_str())?)
            .tags(tag(tag::SERVICE, service.as_str())?);
        match call.send().await {
            Ok(answer) => Ok(answer.service().and_then(|service| service.arn()).map(str::to_owned)),
            Err(error) if is(&error, &["ServiceAlreadyExists"]) => {
                let found = self.list_registries(namespace).await?;
                let found = found.get(&name).ok_or_else(|| {
                    Error::new(ErrorKind::Unavailable, "Cloud Map does not tell of a name that is taken")
                        .with_resource(name.as_str())
                })?;
                ours(found, &name, &description).map(Some)
            }
            Err(error) => Err(failed("servicediscovery:CreateService", name.as_str(), error)),
        }
    }

    /// Removes the registries of an application. Answers whether there were any.
    ///
    /// Cloud Map refuses as long as ECS has not taken the last task out.
    pub(crate) async fn remove_registries(&self, app: &AppName) -> Result<bool> {
        let Some(namespace) = &self.options.namespace else { return Ok(false) };
        let suffix = format!(".{app}");
        let registries = self.list_registries(namespace).await?;
        let of_app = registries.iter().filter_map(|(name, registry)| {
            let service = ServiceName::new(name.strip_suffix(&suffix)?).ok()?;
            (registry.description == description(app, &service)).then_some((name, registry))
        });
        let _changing = self.registries.changing(namespace.id());
        let removals = of_app.map(async |(name, registry)| {
            match self.cloudmap.delete_service().id(naming::last(&registry.arn)).send().await {
                Ok(_) => Ok(()),
                Err(error) if is(&error, &["ServiceNotFound"]) => Ok(()),
                Err(error) => {
                    let in_use = is(&error, &["ResourceInUse"]);
                    let error = failed("servicediscovery:DeleteService", name.as_str(), error);
                    Err(if in_use { error.with_retry(Retry::After(self.options.poll)) } else { error })
                }
            }
        });
        Ok(!try_join_all(removals).await?.is_empty())
    }

    /// What of the namespace would stop an application.
    pub(crate) async fn namespace_problems(&self) -> Result<Problems> {
        let mut problems = Problems::default();
        let Some(namespace) = &self.options.namespace else { return Ok(problems) };
        let (path, arn) = ("environment.namespace", &namespace.arn);
        let answer = match self.cloudmap.get_namespace().id(namespace.id()).send().await {
            Ok(answer) => answer,
            Err(error) if is(&error, &["NamespaceNotFound"]) => {
                problems.push(
                    Problem::error(path, format!("there is no namespace {arn}"))
                        .with_help("check region and account, or apply the environment"),
                );
                return Ok(problems);
            }
            Err(error) => return Err(failed("servicediscovery:GetNamespace", arn.as_str(), error)),
        };
        let zone = answer.namespace().and_then(|namespace| namespace.name()).unwrap_or_default();
        if zone != namespace.zone {
            let message = format!("names in the namespace {arn} end in {zone:?}, not in {:?}", namespace.zone);
            problems.push(Problem::error(path, message));
        }
        Ok(problems)
    }

    /// What is in the namespace, by name, as it was a moment ago.
    async fn registries(&self, namespace: &Namespace) -> Result<BTreeMap<String, Registry>> {
        let list = async { Ok((self.list_registries(namespace).await?, LISTED)) };
        self.registries.get(namespace.id(), list).await
    }

    async fn list_registries(&self, namespace: &Namespace) -> Result<BTreeMap<String, Registry>> {
        let filter = ServiceFilter::builder()
            .name(ServiceFilterName::NamespaceId)
            .condition(FilterCondition::Eq)
            .values(namespace.id())
            .build()
            .map_err(incomplete)?;
        let mut found = BTreeMap::new();
        let mut pages = self.cloudmap.list_services().filters(filter).max_results(100).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("servicediscovery:ListServices", namespace.arn.as_str(), error))?;
            found.extend(page.services().iter().filter_map(|service| {
                let description = service.description().unwrap_or_default().to_owned();
                Some((service.name()?.to_owned(), Registry { arn: service.arn()?.to_owned(), description }))
            }));
        }
        Ok(found)
    }

    /// The container that appends the application's part of the namespace to the domains in which its tasks look for names,
    /// and ends: ECS has no setting for it, and all containers of a task have their resolver's file in common.
    pub(crate) fn search(&self, app: &AppName) -> Option<ContainerDefinition> {
        let namespace = self.options.namespace.as_ref()?;
        let domain = format!("{app}.{}", namespace.zone);
        let script = format!(
            "before=$(sed -n 's/^search //p' /etc/resolv.conf) && echo \"search {domain} $before\" >> /etc/resolv.conf"
        );
        let container = ContainerDefinition::builder()
            .name(SEARCH)
            .image(namespace.search_image.as_ref()?)
            .essential(false)
            .entry_point("/bin/sh")
            .command("-c")
            .command(script)
            .user("0")
            .set_memory((!self.options.capacity.is_fargate()).then_some(SEARCH_MEMORY));
        Some(container.build())
    }

    /// That a container starts when names can be short.
    pub(crate) fn after_search(&self, app: &AppName) -> Result<Option<ContainerDependency>> {
        let dependency =
            ContainerDependency::builder().container_name(SEARCH).condition(ContainerCondition::Success).build();
        self.search(app).map(|_| dependency.map_err(incomplete)).transpose()
    }
}

/// The ARN of a registry, if it is the service's.
fn ours(registry: &Registry, name: &str, description: &str) -> Result<String> {
    if registry.description == description {
        return Ok(registry.arn.clone());
    }
    Err(Error::new(ErrorKind::Conflict, "somebody else has a service of this name in the namespace")
        .with_resource(name)
        .with_context("service", registry.arn.clone())
        .with_help("remove it, or deploy into another namespace")
        .with_retry(Retry::Never))
}
