//! What there is of an application, read from the simulated AWS itself, and what others do to it.

use std::collections::BTreeMap;

use deployer_core::{Digest, RevisionId, Route, ServiceName};
use deployer_testkit::{RevisionShape, Shape};

use super::Cloud;
use super::balancer::{Rule, State};
use super::services::{Service, Status};
use super::tasks::{Definition, Phase, Task};

/// The tags by which things are known.
const APP: &str = "deployer:app";
const SERVICE: &str = "deployer:service";

impl Cloud {
    /// The ECS services of an application that are there.
    pub(crate) fn slots<'a>(&'a self, app: &'a str) -> impl Iterator<Item = &'a Service> {
        self.services.values().filter(move |service| {
            service.status != Status::Inactive && service.tags.get(APP).map(String::as_str) == Some(app)
        })
    }

    pub(crate) fn revision(&self, definition: &str) -> Option<RevisionId> {
        let definition = self.definition(definition)?;
        let service = definition.tags.get(SERVICE)?;
        format!("{service}@{}", definition.family.rsplit_once('-')?.1).parse().ok()
    }

    fn rules_of<'a>(&'a self, app: &'a str) -> impl Iterator<Item = &'a Rule> {
        let ours = move |arn: &String| {
            self.groups.get(arn).is_some_and(|group| group.tags.get(APP).is_some_and(|it| it == app))
        };
        self.rules.values().filter(move |rule| rule.forward().iter().any(|(arn, _)| ours(arn)))
    }

    /// The share of requests that a target group gets, where a rule has it.
    fn share(&self, group: &str) -> Option<u8> {
        let rule = self.rules.values().find(|rule| rule.forward().iter().any(|(arn, _)| arn == group))?;
        let total: u32 = rule.forward().iter().map(|(_, weight)| weight).sum();
        let weight = rule.forward().iter().find(|(arn, _)| arn == group).map_or(0, |(_, weight)| *weight);
        u8::try_from((weight * 100).checked_div(total).unwrap_or(0)).ok()
    }

    /// What there is of an application, to be compared.
    pub(crate) fn shape(&self, app: &str) -> Shape {
        let mut shape = Shape::default();
        for service in self.slots(app) {
            for task in self.tasks_of(&service.name).filter(|task| task.phase < Phase::Stopped) {
                let Some(revision) = self.revision(&task.definition) else { continue };
                let row = shape.revisions.entry(revision).or_default();
                row.instances += 1;
                row.serving += u32::from(task.is_wanted() && self.is_healthy(task));
                let image = self.definition(&task.definition).map(|it| it.image().to_owned()).unwrap_or_default();
                row.images.extend(image.split_once('@').and_then(|(_, digest)| Digest::new(digest).ok()));
            }
            let primary = service.deployments.first().map(|primary| primary.definition.clone()).unwrap_or_default();
            let Some(revision) = self.revision(&primary).filter(|_| service.desired > 0) else { continue };
            self.add_pools(service, shape.revisions.entry(revision).or_default());
        }
        for rule in self.rules_of(app) {
            let owner =
                rule.forward().iter().max_by_key(|(_, weight)| *weight).and_then(|(arn, _)| self.groups.get(arn));
            let Some(group) = owner else { continue };
            let name = group.tags.get(SERVICE).and_then(|name| ServiceName::new(name).ok());
            let port = group.tags.get("deployer:port").and_then(|port| port.parse().ok());
            let (Some(name), Some(port)) = (name, port) else { continue };
            let mut route = Route::new(port).with_path(rule.path());
            route.host = rule.host().map(str::to_owned);
            let routes = shape.routes.entry(name).or_default();
            routes.push(route);
            routes.sort();
        }
        shape.tasks = self.errands_of(app).filter(|task| task.phase < Phase::Stopped).count();
        shape
    }

    fn add_pools(&self, service: &Service, row: &mut RevisionShape) {
        for (arn, ..) in &service.groups {
            let Some(group) = self.groups.get(arn) else { continue };
            row.weight = row.weight.max(self.share(arn));
            let healthy = group.targets.values().filter(|target| target.state == State::Healthy).count();
            row.in_rotation = row.in_rotation.max(u32::try_from(healthy).unwrap_or(u32::MAX));
        }
    }

    /// The one-off tasks of an application.
    pub(crate) fn errands_of<'a>(&'a self, app: &'a str) -> impl Iterator<Item = &'a Task> {
        let ours = move |task: &&Task| task.tags.get(APP).is_some_and(|owner| owner == app);
        self.tasks.values().filter(|task| task.service.is_none()).filter(ours)
    }

    /// Everything of an application that somebody else could disturb.
    pub(crate) fn belongings(&self, app: &str) -> String {
        let mut text = self.shape(app).to_string();
        for service in self.slots(app) {
            let mut tasks: Vec<&str> = self.tasks_of(&service.name).map(|task| task.id.as_str()).collect();
            tasks.sort_unstable();
            text += &format!("\n  {} has {} tasks: {}", service.name, service.desired, tasks.join(" "));
        }
        for definition in self.definitions_of(app) {
            text += &format!("\n  {} is active", definition.arn);
        }
        for rule in self.rules_of(app) {
            text += &format!("\n  rule {} of {}: {:?}", rule.priority, rule.path(), rule.forward());
        }
        text
    }

    /// The task definitions of an application that are active.
    pub(crate) fn definitions_of(&self, app: &str) -> impl Iterator<Item = &Definition> {
        let ours = move |definition: &&Definition| definition.tags.get(APP).is_some_and(|owner| owner == app);
        self.definitions.values().flatten().filter(|definition| definition.active).filter(ours)
    }

    /// What of an application is there and should not be, whatever its shape.
    pub(crate) fn leavings(&self, app: &str, destroyed: bool) -> Vec<String> {
        let mut found = Vec::new();
        let ours = |tags: &super::Tags| tags.get(APP).is_some_and(|owner| owner == app);
        for group in self.groups.values().filter(|group| ours(&group.tags)) {
            if !self.in_a_rule(&group.arn) {
                found.push(format!("no rule refers to the target group {}", group.name));
            }
        }
        let rules: Vec<&Rule> = self.rules_of(app).collect();
        for (index, rule) in rules.iter().enumerate() {
            if rules.iter().take(index).any(|other| other.conditions == rule.conditions) {
                found.push(format!("there are two rules for {:?}", rule.conditions));
            }
        }
        let gone = |name: &&String| self.services.get(*name).is_none_or(|service| service.status != Status::Active);
        found.extend(self.targets.keys().filter(gone).map(|name| format!("what is scaled is gone: {name}")));
        if destroyed {
            found.extend(self.slots(app).map(|service| format!("the ECS service {} is there", service.name)));
            found.extend(rules.iter().map(|rule| format!("the rule {} is there", rule.arn)));
            let written = self.definitions_of(app);
            found.extend(written.map(|definition| format!("the task definition {} is active", definition.family)));
        }
        found
    }

    /// How often one-off tasks of an application ran, by what they are called without the deployment.
    pub(crate) fn errands(&self, app: &str) -> BTreeMap<String, u32> {
        let mut errands = BTreeMap::new();
        for task in self.tasks.values().filter(|task| task.tags.get(APP).is_some_and(|owner| owner == app)) {
            if let Some(id) = task.tags.get("deployer:task") {
                let name = id.rsplit_once('-').map_or(id.as_str(), |(name, _)| name);
                *errands.entry(name.to_owned()).or_default() += 1;
            }
        }
        errands
    }

    /// Kills one of an application's instances.
    pub(crate) fn kill_one(&mut self, app: &str, number: usize) {
        let names: Vec<String> = self.slots(app).map(|service| service.name.clone()).collect();
        let running =
            |task: &&Task| task.phase == Phase::Running && task.service.as_ref().is_some_and(|it| names.contains(it));
        let ids: Vec<String> = self.tasks.values().filter(running).map(|task| task.id.clone()).collect();
        if let Some(id) = ids.get(number % ids.len().max(1)) {
            self.kill_by_hand(id);
        }
    }

    /// Moves weights of an application among target groups with targets that serve.
    pub(crate) fn move_weights(&mut self, app: &str, number: usize) {
        let arns: Vec<String> = self.rules_of(app).map(|rule| rule.arn.clone()).collect();
        let now = self.now;
        for arn in arns {
            let Some(rule) = self.rules.get(&arn) else { continue };
            let serves = |group: &String| {
                let targets = self.groups.get(group).into_iter().flat_map(|group| group.targets.values());
                targets.filter(|target| target.state == State::Healthy).count() > 0
            };
            let healthy: Vec<&String> =
                rule.forward().iter().map(|(group, _)| group).filter(|arn| serves(arn)).collect();
            let Some(chosen) = healthy.get(number % healthy.len().max(1)) else { continue };
            let weights =
                rule.forward().iter().map(|(group, _)| (group.clone(), if group == *chosen { 100 } else { 0 }));
            let weights: Vec<(String, u32)> = weights.collect();
            if let Some(rule) = self.rules.get_mut(&arn) {
                rule.forwards.push((now, weights));
            }
        }
    }
}
