//! Removing what an application had.

use std::collections::BTreeSet;

use aws_sdk_ecs::types::TaskDefinitionFamilyStatus;
use deployer_core::{AppName, Error, ErrorKind, InstancePhase, ObserveApp, Outcome, RemoveApp, Result, RevisionId};

use super::slots::value;
use crate::failure::{failed, is};
use crate::naming::{self, tag};
use crate::site::Site;

impl Site {
    /// Deletes the application's slots, names and task definitions. Its volumes are on file systems that it does not own,
    /// and stay.
    pub(super) async fn remove_app(&self, request: &RemoveApp) -> Result<Outcome> {
        let observed = self.observe_app(&ObserveApp::new(request.app.clone())).await?;
        let using = observed.instances.iter().find(|instance| instance.phase != InstancePhase::Exited);
        if let Some(instance) = using {
            return Err(Error::new(ErrorKind::Conflict, "instances of the application still run")
                .with_resource(request.app.as_str())
                .with_context("instance", instance.name.clone())
                .with_context("id", instance.id.to_string()));
        }
        let slots = self.slots(&request.app).await?;
        self.delete_slots(&request.app, &slots).await?;
        let named = self.remove_registries(&request.app).await?;
        let forgotten = self.prune_definitions(&request.app, &BTreeSet::new()).await?;
        Ok(if slots.is_empty() && !named && forgotten.is_empty() { Outcome::AlreadyThere } else { Outcome::Changed })
    }

    /// Deregisters the task definitions of an application's revisions that are not to be kept and do not run. Whoever still
    /// refers to one goes on with it; new tasks cannot.
    pub(super) async fn prune_definitions(&self, app: &AppName, keep: &BTreeSet<RevisionId>) -> Result<Vec<String>> {
        let slots = self.slots_now(app).await?;
        let runs =
            |family: &str| slots.iter().any(|slot| !slot.is_idle() && naming::family_of(&slot.definition) == family);
        let kept = |hash: &str| keep.iter().any(|revision| revision.hash() == hash);
        let mut surplus = self.list_families(app).await?;
        surplus.retain(|family| naming::revision_of(family).is_some_and(|hash| !kept(hash)) && !runs(family));
        let mut forgotten = Vec::new();
        for family in surplus {
            if let Some(arn) = self.our_definition(app, &family).await? {
                self.deregister_definition(&arn).await?;
                forgotten.push(family);
            }
        }
        Ok(forgotten)
    }

    /// The names of families that may be the application's.
    async fn list_families(&self, app: &AppName) -> Result<Vec<String>> {
        let call = self.ecs.list_task_definition_families().family_prefix(naming::slot_prefix(app));
        let mut pages = call.status(TaskDefinitionFamilyStatus::Active).max_results(100).into_paginator().send();
        let mut families = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("ecs:ListTaskDefinitionFamilies", app.as_str(), error))?;
            families.extend(page.families.unwrap_or_default());
        }
        Ok(families)
    }

    /// The ARN of a family's task definition, if it is the application's in this cluster.
    async fn our_definition(&self, app: &AppName, family: &str) -> Result<Option<String>> {
        let Some(answer) = self.describe_definition(family).await? else { return Ok(None) };
        let has = |key: &str, wanted: &str| value(answer.tags(), key) == Some(wanted);
        let ours = has(tag::APP, app.as_str()) && has(tag::CLUSTER, self.options.cluster_name());
        let arn = answer.task_definition().and_then(|definition| definition.task_definition_arn());
        Ok(arn.filter(|_| ours).map(str::to_owned))
    }

    async fn deregister_definition(&self, arn: &str) -> Result<()> {
        match self.ecs.deregister_task_definition().task_definition(arn).send().await {
            Ok(_) => Ok(()),
            // It has gone meanwhile.
            Err(error) if is(&error, &["ClientException"]) => Ok(()),
            Err(error) => Err(failed("ecs:DeregisterTaskDefinition", arn, error)),
        }
    }
}
