//! The ECS services in which revisions run: a few slots for each service, which stay.

use std::collections::BTreeSet;

use aws_sdk_ecs::types::{DeploymentRolloutState, Service, ServiceField, Tag};
use deployer_core::{AppName, Error, ErrorKind, Result, RevisionId, ServiceName};
use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::scaling::Scaled;
use crate::failure::failed;
use crate::naming::{self, tag};
use crate::site::Site;

/// How many services ECS describes in one call: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeServices.html>.
const DESCRIBED: usize = 10;

/// One slot of a service, as it is now.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// The ECS service's ARN and name.
    pub(crate) arn: String,
    pub(crate) name: String,
    /// The service.
    pub(crate) service: ServiceName,
    /// Its letter.
    pub(crate) letter: char,
    /// The ARN of the task definition.
    pub(crate) definition: String,
    /// The revision that the task definition is of.
    pub(crate) revision: RevisionId,
    /// The id of ECS's own deployment, which starts with every launch into an idle slot.
    pub(crate) deployment: String,
    /// Why ECS has given up starting tasks, if it has.
    pub(crate) given_up: Option<String>,
    /// How many tasks there shall be.
    pub(crate) desired: u32,
    /// How many run.
    pub(crate) running: u32,
    /// How many are on their way.
    pub(crate) pending: u32,
    /// The target groups that its tasks are registered with, and the port of each.
    pub(crate) groups: Vec<(String, u16)>,
    /// The registry in which its tasks have their names.
    pub(crate) registry: Option<String>,
    /// The latest thing that ECS says about it.
    pub(crate) event: Option<String>,
    /// How many tasks of the deployment have failed.
    pub(crate) failures: u32,
    /// What Application Auto Scaling has to do with it.
    pub(crate) scaled: Option<Scaled>,
    /// Changes whenever a task comes, goes, or is told of.
    pub(crate) print: String,
}

impl Slot {
    #[cfg(test)]
    pub(crate) fn of(revision: RevisionId, letter: char, groups: Vec<(String, u16)>) -> Self {
        Self {
            arn: String::new(),
            name: String::new(),
            service: revision.service().clone(),
            letter,
            definition: String::new(),
            revision,
            deployment: String::new(),
            given_up: None,
            desired: 1,
            running: 1,
            pending: 0,
            groups,
            registry: None,
            event: None,
            failures: 0,
            scaled: None,
            print: String::new(),
        }
    }

    /// Whether nothing runs in it and nothing shall.
    pub(crate) fn is_idle(&self) -> bool {
        self.desired == 0 && self.running == 0 && self.pending == 0
    }

    /// Whether it was idle when it was like this, and ECS has started nothing in it since, of which it would tell.
    pub(super) fn is_quiet(&self, since: &str) -> bool {
        let (now, since): (Vec<&str>, Vec<&str>) = (self.print.split(' ').collect(), since.split(' ').collect());
        let ([.., told], [_, "0", "0", "0", _, before]) = (&now[..], &since[..]) else { return false };
        self.running + self.pending + self.failures == 0 && !told.is_empty() && told == before
    }

    /// How it is after a change, as ECS answers to that; nothing where Application Auto Scaling has to do with it too.
    pub(super) fn after(&self, answer: Option<&Service>) -> Option<Self> {
        read(&self.service, self.letter, None, answer.filter(|_| self.scaled.is_none())?)
    }

    /// Whether this revision runs in it, or shall.
    pub(crate) fn holds(&self, revision: &RevisionId) -> bool {
        self.revision == *revision && !self.is_idle()
    }
}

impl Site {
    /// The slots of an application, by service and letter, as they were a moment ago.
    pub(crate) async fn slots(&self, app: &AppName) -> Result<Vec<Slot>> {
        self.slots.get(app.as_str(), async { Ok((self.describe_all(app).await?, self.moment())) }).await
    }

    /// The slots of an application as they are now, for everybody.
    pub(crate) async fn slots_now(&self, app: &AppName) -> Result<Vec<Slot>> {
        drop(self.slots.changing(app.as_str()));
        self.slots(app).await
    }

    async fn describe_all(&self, app: &AppName) -> Result<Vec<Slot>> {
        let listed = self.memory().listed(app);
        let names = match listed {
            Some(names) => names,
            None => {
                let mut names = self.list_slots(app).await?;
                let mut memory = self.memory();
                // A list may be old: what was known before is described as well, which costs nothing if it is gone.
                names.extend(memory.slots.remove(app).into_iter().flat_map(|(_, known)| known));
                memory.slots.insert(app.clone(), (Instant::now(), names.clone()));
                names
            }
        };
        let names: Vec<String> = names.into_iter().collect();
        let described = try_join_all(names.chunks(DESCRIBED).map(|names| self.describe_slots(app, names))).await?;
        let mut slots: Vec<Slot> = described.into_iter().flatten().collect();
        self.recall_scaling(app, &mut slots);
        slots.sort_by(|one, other| (&one.service, one.letter).cmp(&(&other.service, other.letter)));
        Ok(slots)
    }

    /// Brings together what ECS tells of the scaling of slots and what was written down a moment ago.
    fn recall_scaling(&self, app: &AppName, slots: &mut [Slot]) {
        let mut memory = self.memory();
        for slot in slots.iter_mut() {
            if let Some(marked) = memory.marked(app, &slot.name) {
                slot.scaled = marked;
            }
        }
        if slots.iter().any(|slot| slot.scaled.is_some()) {
            memory.scaled.entry(app.clone()).or_default();
        }
    }

    /// The names of ECS services that may be the application's.
    async fn list_slots(&self, app: &AppName) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        let prefix = naming::slot_prefix(app);
        let mut pages =
            self.ecs.list_services().cluster(&self.options.cluster).max_results(100).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("ecs:ListServices", self.cluster(), error))?;
            let ours = page.service_arns().iter().map(|arn| naming::last(arn)).filter(|name| name.starts_with(&prefix));
            names.extend(ours.map(str::to_owned));
        }
        Ok(names)
    }

    async fn describe_slots(&self, app: &AppName, names: &[String]) -> Result<Vec<Slot>> {
        let call = self
            .ecs
            .describe_services()
            .cluster(&self.options.cluster)
            .set_services(Some(names.to_vec()))
            .include(ServiceField::Tags);
        let answer = call.send().await.map_err(|error| failed("ecs:DescribeServices", self.cluster(), error))?;
        Ok(answer.services().iter().filter_map(|service| slot(app, service)).collect())
    }

    pub(crate) fn cluster(&self) -> String {
        format!("cluster {}", self.options.cluster)
    }

    /// Remembers that a slot was made.
    pub(crate) fn remember_slot(&self, app: &AppName, name: &str) {
        if let Some((_, names)) = self.memory().slots.get_mut(app) {
            names.insert(name.to_owned());
        }
    }

    /// Deletes slots in which nothing runs.
    pub(crate) async fn delete_slots(&self, app: &AppName, slots: &[Slot]) -> Result<()> {
        let deletions = slots.iter().map(async |slot| {
            let call = self.ecs.delete_service().cluster(&self.options.cluster).service(&slot.name);
            match call.send().await {
                Ok(_) => Ok(()),
                Err(error)
                    if crate::failure::is(&error, &["ServiceNotFoundException", "ServiceNotActiveException"]) =>
                {
                    Ok(())
                }
                Err(error) => Err(failed("ecs:DeleteService", slot.name.as_str(), error)),
            }
        });
        let _changes = self.changing(app, None);
        try_join_all(deletions).await?;
        let mut memory = self.memory();
        if let Some((_, names)) = memory.slots.get_mut(app) {
            names.retain(|name| slots.iter().all(|slot| slot.name != *name));
        }
        if let Some(scaled) = memory.scaled.get_mut(app) {
            scaled.retain(|name, _| slots.iter().all(|slot| slot.name != *name));
        }
        Ok(())
    }

    /// The letter of a slot for a revision that does not run yet: one in which nothing runs, or the next new one.
    pub(crate) fn free_letter(&self, slots: &[Slot], revision: &RevisionId) -> Result<char> {
        let of_service: Vec<&Slot> = slots.iter().filter(|slot| slot.service == *revision.service()).collect();
        let idle = |slot: &&&Slot| slot.is_idle();
        // One that has held it before has its settings.
        let before = of_service.iter().filter(idle).find(|slot| slot.revision == *revision);
        if let Some(slot) = before.or_else(|| of_service.iter().find(idle)) {
            return Ok(slot.letter);
        }
        let new = naming::SLOTS.into_iter().find(|letter| of_service.iter().all(|slot| slot.letter != *letter));
        new.ok_or_else(|| {
            Error::new(ErrorKind::Exhausted, "every slot of the service has a revision that runs")
                .with_resource(revision.service().as_str())
                .with_help("prune, or deploy with less warm standby: the load balancer takes five revisions at most")
        })
    }
}

/// The value of a tag.
pub(crate) fn value<'a>(tags: &'a [Tag], key: &str) -> Option<&'a str> {
    tags.iter().find(|tag| tag.key() == Some(key)).and_then(Tag::value)
}

/// A service that is one of the application's slots.
fn slot(app: &AppName, service: &Service) -> Option<Slot> {
    let tags = service.tags();
    let ours = value(tags, tag::APP) == Some(app.as_str()) && service.status() == Some("ACTIVE");
    let (name, letter) = (value(tags, tag::SERVICE)?, value(tags, tag::SLOT)?.chars().next()?);
    let name = ServiceName::new(name).ok().filter(|_| ours)?;
    read(&name, letter, value(tags, tag::SCALING).map(Scaled::read), service)
}

/// What ECS tells of a slot beside its tags, which tell these.
fn read(name: &ServiceName, letter: char, scaled: Option<Scaled>, service: &Service) -> Option<Slot> {
    let definition = service.task_definition()?;
    let hash = naming::revision_of(naming::family_of(definition))?;
    let revision = format!("{name}@{hash}").parse().ok()?;
    let count = |count: i32| u32::try_from(count).unwrap_or_default();
    let primary = service.deployments().iter().find(|deployment| deployment.status() == Some("PRIMARY"));
    let failed = primary.filter(|primary| primary.rollout_state() == Some(&DeploymentRolloutState::Failed));
    let groups = service
        .load_balancers()
        .iter()
        .filter_map(|group| Some((group.target_group_arn()?.to_owned(), u16::try_from(group.container_port()?).ok()?)));
    let event = service.events().first();
    let (desired, running, pending) =
        (count(service.desired_count()), count(service.running_count()), count(service.pending_count()));
    let failures = count(primary.map_or(0, |primary| primary.failed_tasks()));
    let deployment = primary.and_then(|primary| primary.id()).unwrap_or_default().to_owned();
    let told = event.and_then(|event| event.id()).unwrap_or_default();
    Some(Slot {
        arn: service.service_arn()?.to_owned(),
        name: service.service_name()?.to_owned(),
        scaled,
        service: name.clone(),
        letter,
        definition: definition.to_owned(),
        revision,
        print: format!("{deployment} {desired} {running} {pending} {failures} {told}"),
        deployment,
        given_up: failed.map(|failed| failed.rollout_state_reason().unwrap_or("the deployment has failed").to_owned()),
        desired,
        running,
        pending,
        failures,
        groups: groups.collect(),
        registry: service.service_registries().first().and_then(|one| one.registry_arn()).map(str::to_owned),
        event: event.and_then(|event| event.message()).map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::{Deployment, ServiceEvent};

    use super::*;

    /// A slot that has so many tasks, of those that it shall have, and of which ECS has told this last.
    fn web(desired: i32, running: i32, told: &str) -> Slot {
        let deployment = Deployment::builder().id("ecs-svc/1").status("PRIMARY").build();
        let service = Service::builder()
            .service_arn("arn:aws:ecs:eu-west-1:123456789012:service/c/shop-web-a")
            .service_name("shop-web-a")
            .task_definition("arn:aws:ecs:eu-west-1:123456789012:task-definition/shop-web-12-0123456789ab:1")
            .desired_count(desired)
            .running_count(running)
            .deployments(deployment)
            .events(ServiceEvent::builder().id(told).message("(service shop-web-a) was told of").build());
        read(&ServiceName::new("web").unwrap(), 'a', None, &service.build()).unwrap()
    }

    #[test]
    fn only_what_was_idle_and_of_which_nothing_is_told_since_is_quiet() {
        let (idle, filled, started) = (web(0, 0, "one"), web(2, 0, "one"), web(2, 0, "two"));
        assert!(filled.is_quiet(&idle.print));
        assert!(!started.is_quiet(&idle.print), "something was started");
        assert!(!web(2, 1, "one").is_quiet(&idle.print), "something runs");
        assert!(!started.is_quiet(&started.print), "what was started may have crashed");
        assert!(!filled.is_quiet(""), "nobody has looked at it");
        assert!(!web(2, 0, "").is_quiet(&web(0, 0, "").print), "nothing is known of what was told");
    }
}
