//! What would change: change sets, and plans made of them.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_cloudformation::types::{
    Capability, Change, ChangeAction, ChangeSetStatus, ChangeSetType, Replacement as Replaced, Tag,
};
use deployer_core::{Digest, Effect, Error, ErrorKind, Result, Retry};
use serde_json::Value;

use super::Environment;
use super::spec::EnvironmentSpec;
use super::stack::{Standing, resource, status};
use super::template::TAG;
use super::watch::{Pause, classified};
use crate::failure::{failed, is};

/// What CloudFormation gives as the reason of a change set that would change nothing.
const NOTHING: [&str; 2] = ["didn't contain changes", "No updates are to be performed"];

/// What applying a spec would change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnvironmentPlan {
    /// The environment.
    pub name: String,
    /// Whether it is not there yet.
    pub new: bool,
    /// What would happen to resources, by logical id.
    pub changes: Vec<ResourceChange>,
}

impl EnvironmentPlan {
    /// Whether applying would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl fmt::Display for EnvironmentPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match (self.new, self.changes.len()) {
            (true, count) => write!(f, "environment {name} would be made, with {count} resources")?,
            (false, 0) => return write!(f, "environment {name} is as it shall be"),
            (false, count) => write!(f, "environment {name} would change in {count} resources")?,
        }
        for change in &self.changes {
            write!(f, "\n  {change}")?;
        }
        Ok(())
    }
}

/// What would happen to one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourceChange {
    /// What would happen.
    pub action: ResourceAction,
    /// Its name in the template.
    pub logical_id: String,
    /// Its type, such as `AWS::ECS::Cluster`.
    pub kind: String,
    /// Whether it would be made anew.
    pub replacement: Replacement,
    /// The properties and attributes that would change.
    pub properties: Vec<String>,
}

impl fmt::Display for ResourceChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match &self.action {
            ResourceAction::Add => "add",
            ResourceAction::Modify => "modify",
            ResourceAction::Remove => "remove",
            ResourceAction::Import => "import",
            ResourceAction::Other(name) => name,
        };
        write!(f, "{action} {} ({})", self.logical_id, self.kind)?;
        match self.replacement {
            Replacement::No => {}
            Replacement::Perhaps => write!(f, ", perhaps made anew")?,
            Replacement::Yes => write!(f, ", made anew")?,
        }
        if !self.properties.is_empty() {
            write!(f, ": {}", self.properties.join(", "))?;
        }
        Ok(())
    }
}

/// What would happen to a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResourceAction {
    /// It would be made.
    Add,
    /// It would be changed.
    Modify,
    /// It would be removed, or left where it is if it is to be kept.
    Remove,
    /// It is there, such as the table of an earlier environment, and would be taken over.
    Import,
    /// Something else, in CloudFormation's words.
    Other(String),
}

/// Whether a resource would be made anew, and the old one removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replacement {
    /// It stays.
    No,
    /// That depends on values which are not known yet.
    Perhaps,
    /// It would be made anew.
    Yes,
}

/// A change set that is ready to be executed.
pub(super) struct Prepared {
    pub(super) arn: String,
    pub(super) stack: String,
    pub(super) changes: Vec<ResourceChange>,
}

impl Environment {
    /// What applying a spec would change. Nothing is changed: the change set that is made for it is deleted again.
    ///
    /// Of an environment that is not there, or whose creation has failed, all resources of the template are told, and
    /// AWS is not asked whether it could make them.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a spec that cannot be; [`Conflict`](ErrorKind::Conflict) while
    /// something is under way; [`AlreadyExists`](ErrorKind::AlreadyExists) for a stack that is no environment.
    pub async fn plan(&self, spec: &EnvironmentSpec) -> Result<EnvironmentPlan> {
        let template = spec.template()?;
        let found = self.environment(&spec.name).await?;
        let there = found.filter(|(_, standing)| !matches!(standing, Standing::Absent | Standing::Wreck));
        let Some((stack, standing)) = there else {
            return Ok(EnvironmentPlan { name: spec.name.clone(), new: true, changes: additions(&template) });
        };
        if standing != Standing::Settled {
            return Err(Error::new(ErrorKind::Conflict, "the environment cannot be compared now")
                .with_resource(resource(&spec.name))
                .with_context("stack", status(&stack).to_owned())
                .with_help("apply it, which awaits what is under way"));
        }
        let changes = match self.prepare(spec, &template, ChangeSetType::Update).await? {
            Some(prepared) => {
                self.discard(&spec.name, &prepared.arn).await?;
                prepared.changes
            }
            None => Vec::new(),
        };
        Ok(EnvironmentPlan { name: spec.name.clone(), new: false, changes })
    }

    /// Makes a change set; none if nothing would change.
    pub(super) async fn prepare(
        &self,
        spec: &EnvironmentSpec,
        template: &Value,
        kind: ChangeSetType,
    ) -> Result<Option<Prepared>> {
        let name = fresh_name();
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
        let call = self
            .client
            .create_change_set()
            .stack_name(&spec.name)
            .change_set_name(&name)
            .client_token(&name)
            .change_set_type(kind)
            .template_body(template.to_string())
            .capabilities(Capability::CapabilityIam)
            // What an earlier environment of the name has left: its table and its logs.
            .import_existing_resources(true)
            .tags(tag(TAG, &spec.name))
            .set_description(Some("made by Deployer".to_owned()));
        let call = spec.tags.iter().fold(call, |call, (key, value)| call.tags(tag(key, value)));
        let answer = call.send().await;
        let answer = answer.map_err(|error| failed("cloudformation:CreateChangeSet", resource(&spec.name), error))?;
        let (arn, stack) = (answer.id.unwrap_or_default(), answer.stack_id.unwrap_or_default());
        let changes = self.await_change_set(&spec.name, &arn).await?;
        Ok(changes.map(|changes| Prepared { arn, stack, changes }))
    }

    /// Awaits that a change set can be executed; nothing if it would change nothing.
    async fn await_change_set(&self, name: &str, arn: &str) -> Result<Option<Vec<ResourceChange>>> {
        let mut pause = Pause::new();
        loop {
            let mut changes = Vec::new();
            let mut pages = self.client.describe_change_set().change_set_name(arn).into_paginator().send();
            while let Some(page) = pages.next().await {
                let page = page.map_err(|error| failed("cloudformation:DescribeChangeSet", resource(name), error))?;
                changes.extend(page.changes().iter().filter_map(change));
                let reason = page.status_reason().unwrap_or_default();
                match page.status() {
                    Some(ChangeSetStatus::Failed) => {
                        self.discard(name, arn).await?;
                        if NOTHING.iter().any(|words| reason.contains(words)) {
                            return Ok(None);
                        }
                        return Err(classified(reason)
                            .with_effect(Effect::None)
                            .with_resource(resource(name))
                            .with_context("reason", reason.to_owned()));
                    }
                    Some(ChangeSetStatus::CreateComplete) if page.next_token().is_none() => {
                        return Ok(Some(changes));
                    }
                    _ => {}
                }
            }
            pause.wait().await;
        }
    }

    /// Deletes a change set.
    pub(super) async fn discard(&self, name: &str, arn: &str) -> Result<()> {
        match self.client.delete_change_set().change_set_name(arn).send().await {
            Ok(_) => Ok(()),
            Err(error) if is(&error, &["ChangeSetNotFound"]) => Ok(()),
            Err(error) => Err(failed("cloudformation:DeleteChangeSet", resource(name), error)),
        }
    }

    /// Begins what a change set says.
    pub(super) async fn execute(&self, name: &str, prepared: &Prepared) -> Result<()> {
        let call = self.client.execute_change_set().change_set_name(&prepared.arn).client_request_token(fresh_name());
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error) if is(&error, &["InvalidChangeSetStatus", "ChangeSetNotFound"]) => {
                Err(Error::new(ErrorKind::Conflict, "somebody else has changed the environment meanwhile")
                    .with_resource(resource(name))
                    .with_retry(Retry::Soon))
            }
            Err(error) => Err(failed("cloudformation:ExecuteChangeSet", resource(name), error)),
        }
    }
}

/// A name that no change set had before.
fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let digest = Digest::of(format!("{now:?} {process} {count}").as_bytes());
    format!("deployer-{}-{}", now.as_secs(), digest.short())
}

/// The resources of a template, as what would be added.
fn additions(template: &Value) -> Vec<ResourceChange> {
    let resources = template["Resources"].as_object();
    let change = |(id, resource): (&String, &Value)| ResourceChange {
        action: ResourceAction::Add,
        logical_id: id.clone(),
        kind: resource["Type"].as_str().unwrap_or_default().to_owned(),
        replacement: Replacement::No,
        properties: Vec::new(),
    };
    resources.into_iter().flatten().map(change).collect()
}

fn change(change: &Change) -> Option<ResourceChange> {
    let change = change.resource_change()?;
    let action = match change.action()? {
        ChangeAction::Add => ResourceAction::Add,
        ChangeAction::Modify => ResourceAction::Modify,
        ChangeAction::Remove => ResourceAction::Remove,
        ChangeAction::Import => ResourceAction::Import,
        other => ResourceAction::Other(other.as_str().to_lowercase()),
    };
    let replacement = match change.replacement() {
        Some(Replaced::True) => Replacement::Yes,
        Some(Replaced::Conditional) => Replacement::Perhaps,
        _ => Replacement::No,
    };
    let mut properties: Vec<String> = change
        .details()
        .iter()
        .filter_map(|detail| detail.target())
        .filter_map(|target| target.name().or(target.attribute().map(|attribute| attribute.as_str())))
        .map(str::to_owned)
        .collect();
    properties.sort();
    properties.dedup();
    Some(ResourceChange {
        action,
        logical_id: change.logical_resource_id().unwrap_or_default().to_owned(),
        kind: change.resource_type().unwrap_or_default().to_owned(),
        replacement,
        properties,
    })
}
