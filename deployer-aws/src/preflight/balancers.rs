//! Load balancers: whether they are there, and have room for what is new.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_elasticloadbalancingv2::types::{Limit, LoadBalancer, LoadBalancerStateEnum, LoadBalancerTypeEnum};
use deployer_core::{AppSpec, Error, Problem, Problems, Result, ServiceSpec};
use futures_util::future::{try_join, try_join_all, try_join3};

use super::SLOTS;
use crate::elb::{Match, Taken};
use crate::failure::{failed, is};
use crate::naming;
use crate::site::Site;

const LISTENER: &str = "environment.listener";
const NETWORK_BALANCER: &str = "environment.network-balancer";

/// The load balancers that an application needs, as far as they are there and of the right kind.
#[derive(Debug, Default)]
pub(super) struct Balancers {
    pub(super) routes: Option<LoadBalancer>,
    pub(super) published: Option<LoadBalancer>,
}

impl Balancers {
    pub(super) fn all(&self) -> impl Iterator<Item = &LoadBalancer> {
        self.routes.iter().chain(&self.published)
    }
}

impl Site {
    /// The load balancers that an application needs, and what is wrong with those.
    pub(super) async fn balancers(&self, spec: &AppSpec) -> Result<(Balancers, Problems)> {
        let needed = |requests: bool| {
            let all = spec.services.values().flat_map(Match::all_of);
            all.map(|(what, _)| what).any(|what| matches!(what, Match::Requests { .. }) == requests)
        };
        let listener = self.options.listener.as_deref().filter(|_| needed(true));
        let network = self.options.network_balancer.as_deref().filter(|_| needed(false));
        let routes = async {
            let Some(listener) = listener else { return Ok(None) };
            let Some(arn) = self.balancer_of(listener).await? else { return Ok(None) };
            self.balancer(&arn).await
        };
        let published = async {
            match network {
                Some(arn) => self.balancer(arn).await,
                None => Ok(None),
            }
        };
        let (routes, published) = try_join(routes, published).await?;
        let mut problems = Problems::default();
        let application = (LoadBalancerTypeEnum::Application, "Application Load Balancer");
        let routes = self.usable(routes, LISTENER, listener.map(|arn| ("listener", arn)), application, &mut problems);
        let of_network = (LoadBalancerTypeEnum::Network, "Network Load Balancer");
        let network = network.map(|arn| ("load balancer", arn));
        let published = self.usable(published, NETWORK_BALANCER, network, of_network, &mut problems);
        Ok((Balancers { routes, published }, problems))
    }

    /// A load balancer, if it is there and of the kind that is needed.
    fn usable(
        &self,
        found: Option<LoadBalancer>,
        path: &str,
        wanted: Option<(&str, &str)>,
        (kind, called): (LoadBalancerTypeEnum, &str),
        problems: &mut Problems,
    ) -> Option<LoadBalancer> {
        let (what, arn) = wanted?;
        let Some(balancer) = found else {
            problems.push(
                Problem::error(path, format!("there is no {what} {arn}"))
                    .with_help("check region and account, or apply the environment"),
            );
            return None;
        };
        let name = balancer.load_balancer_name().unwrap_or_default();
        if balancer.r#type() != Some(&kind) {
            problems.push(Problem::error(path, format!("the load balancer {name:?} is no {called}")));
            return None;
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
        Some(balancer)
    }

    /// The ARN of a listener's load balancer.
    async fn balancer_of(&self, listener: &str) -> Result<Option<String>> {
        let found = match self.elb.describe_listeners().listener_arns(listener).send().await {
            Ok(found) => found,
            Err(error) if is(&error, &["ListenerNotFound", "ListenerNotFoundException"]) => return Ok(None),
            Err(error) => return Err(failed("elasticloadbalancing:DescribeListeners", listener, error)),
        };
        Ok(found.listeners().first().and_then(|listener| listener.load_balancer_arn()).map(str::to_owned))
    }

    async fn balancer(&self, arn: &str) -> Result<Option<LoadBalancer>> {
        match self.elb.describe_load_balancers().load_balancer_arns(arn).send().await {
            Ok(found) => Ok(found.load_balancers.unwrap_or_default().into_iter().next()),
            Err(error) if is(&error, &["LoadBalancerNotFound", "LoadBalancerNotFoundException"]) => Ok(None),
            Err(error) => Err(failed("elasticloadbalancing:DescribeLoadBalancers", arn, error)),
        }
    }

    /// Routes and published ports that others have, and whether there is room for those that are new.
    pub(super) async fn room_problems(&self, spec: &AppSpec, balancers: &Balancers) -> Result<Problems> {
        if balancers.all().next().is_none() {
            return Ok(Problems::default());
        }
        let limits = self.limits().await?;
        let most = |name: &str| limits.get(name).copied();
        let rules = async {
            match &balancers.routes {
                Some(balancer) => self.rule_problems(spec, balancer, most("rules-per-application-load-balancer")).await,
                None => Ok(Problems::default()),
            }
        };
        let groups = async {
            let most = most("target-groups-per-application-load-balancer");
            match &balancers.routes {
                Some(balancer) => self.group_problems(spec, balancer, most).await,
                None => Ok(Problems::default()),
            }
        };
        let ports = async {
            match &balancers.published {
                Some(balancer) => self.port_problems(spec, balancer, most("listeners-per-network-load-balancer")).await,
                None => Ok(Problems::default()),
            }
        };
        let (rules, groups, ports) = try_join3(rules, groups, ports).await?;
        let most = most("targets-per-application-load-balancer");
        let targets = balancers.routes.as_ref().and_then(|balancer| self.target_problem(spec, balancer, most));
        Ok(Problems(rules.0.into_iter().chain(groups.0).chain(ports.0).chain(targets).collect()))
    }

    /// Published ports that others have, and whether there is room for those that are new.
    async fn port_problems(&self, spec: &AppSpec, balancer: &LoadBalancer, most: Option<usize>) -> Result<Problems> {
        let mut problems = Problems::default();
        let name = balancer.load_balancer_name().unwrap_or_default();
        let (rules, mut new) = (self.rules().await?, 0);
        for (service, spec_of_it) in &spec.services {
            let all = Match::all_of(spec_of_it).into_iter().map(|(one, _)| one);
            for port in all.filter(|one| matches!(one, Match::Connections { .. })) {
                match Taken::of(&spec.name, &port, &rules) {
                    Taken::Ours => {}
                    Taken::Free => new += 1,
                    Taken::By(who) => problems.push(taken(format!("services.{service}.ports"), &port, &who)),
                }
            }
        }
        let there = rules.iter().filter(|rule| rule.is_listener()).count();
        if most.is_some_and(|most| there + new > most) {
            let message = format!("the load balancer {name:?} has {there} listeners, and no room for {new} more");
            problems.push(Problem::error(NETWORK_BALANCER, message).with_help("ask AWS to raise the quota"));
        }
        Ok(problems)
    }

    /// Routes that others have, and whether there is room for those that are new.
    async fn rule_problems(&self, spec: &AppSpec, balancer: &LoadBalancer, most: Option<usize>) -> Result<Problems> {
        let mut problems = Problems::default();
        let name = balancer.load_balancer_name().unwrap_or_default();
        let (rules, mut new) = (self.rules().await?, 0);
        for (service_name, service) in &spec.services {
            for (index, route) in service.routes.iter().enumerate() {
                let route = Match::of(route);
                match Taken::of(&spec.name, &route, &rules) {
                    Taken::Ours => {}
                    Taken::Free => new += 1,
                    Taken::By(who) => {
                        problems.push(taken(format!("services.{service_name}.routes[{index}]"), &route, &who));
                    }
                }
            }
        }
        let there = rules.iter().filter(|rule| !rule.is_listener()).count() + self.other_rules(balancer).await?;
        if most.is_some_and(|most| there + new > most) {
            let message = format!("the load balancer {name:?} has {there} rules, and no room for {new} more");
            problems.push(Problem::error(LISTENER, message).with_help("ask AWS to raise the quota"));
        }
        Ok(problems)
    }

    /// How many rules the load balancer's other listeners have: the quota is for all together.
    async fn other_rules(&self, balancer: &LoadBalancer) -> Result<usize> {
        let arn = balancer.load_balancer_arn().unwrap_or_default();
        let listeners = self.elb.describe_listeners().load_balancer_arn(arn).send().await;
        let listeners = listeners.map_err(|error| failed("elasticloadbalancing:DescribeListeners", arn, error))?;
        let others = listeners.listeners().iter().filter_map(|listener| listener.listener_arn());
        let others = others.filter(|listener| Some(*listener) != self.options.listener.as_deref());
        let counts = others.map(async |listener| {
            let rules = self.elb.describe_rules().listener_arn(listener).send().await;
            let rules = rules.map_err(|error| failed("elasticloadbalancing:DescribeRules", listener, error))?;
            Ok::<_, Error>(rules.rules().iter().filter(|rule| rule.is_default() != Some(true)).count())
        });
        Ok(try_join_all(counts).await?.into_iter().sum())
    }

    /// Whether all instances can be targets, while both revisions of a service run.
    fn target_problem(&self, spec: &AppSpec, balancer: &LoadBalancer, most: Option<usize>) -> Option<Problem> {
        let of_service = |service: &ServiceSpec| {
            let most = service.scaling.as_ref().map_or(service.replicas, |scaling| scaling.max);
            usize::try_from(most).unwrap_or(usize::MAX).saturating_mul(routed_ports(service) * SLOTS)
        };
        let needed = spec.services.values().map(of_service).fold(0_usize, usize::saturating_add);
        let (name, most) = (balancer.load_balancer_name().unwrap_or_default(), most?);
        let message =
            || format!("the load balancer {name:?} has room for {most} targets, and a deployment needs {needed}");
        (needed > most).then(|| Problem::error(LISTENER, message()).with_help("ask AWS to raise the quota"))
    }

    /// Whether there is room for the target groups that are new.
    async fn group_problems(&self, spec: &AppSpec, balancer: &LoadBalancer, most: Option<usize>) -> Result<Problems> {
        let mut problems = Problems::default();
        let name = balancer.load_balancer_name().unwrap_or_default();
        let arn = balancer.load_balancer_arn().unwrap_or_default();
        let needed: usize = spec.services.values().map(|service| routed_ports(service) * SLOTS).sum();
        let (mut used, mut ours) = (0, 0);
        let prefix = naming::target_group_prefix(&spec.name);
        let mut pages = self.elb.describe_target_groups().load_balancer_arn(arn).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("elasticloadbalancing:DescribeTargetGroups", name, error))?;
            used += page.target_groups().len();
            let named = |name: Option<&str>| name.is_some_and(|name| name.starts_with(&prefix));
            ours += page.target_groups().iter().filter(|group| named(group.target_group_name())).count();
        }
        let new = needed.saturating_sub(ours);
        if most.is_some_and(|most| used + new > most) {
            let message = format!("the load balancer {name:?} has {used} target groups, and no room for {new} more");
            problems.push(
                Problem::error(LISTENER, message)
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
}

/// How many ports of a service have routes.
fn routed_ports(service: &ServiceSpec) -> usize {
    service.routes.iter().map(|route| route.port).collect::<BTreeSet<_>>().len()
}

/// Somebody else has a route or a published port.
fn taken(path: String, what: &Match, who: &str) -> Problem {
    Problem::error(path, format!("somebody else has the {} {what}: {who}", what.kind()))
        .with_help(format!("choose another {}, or remove the other one", what.choice()))
}
