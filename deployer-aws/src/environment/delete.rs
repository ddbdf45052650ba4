//! Deleting an environment.

use std::fmt;

use aws_sdk_cloudformation::types::Stack;
use deployer_core::{Progress, ProgressSink, Result};

use super::Environment;
use super::stack::{self, Standing, resource};
use super::watch::Ended;
use crate::failure::failed;

/// Something that stays when its environment is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptResource {
    /// Its name in the template, such as `Table`.
    pub logical_id: String,
    /// Its type, such as `AWS::DynamoDB::Table`.
    pub kind: String,
    /// What it is called in the account.
    pub physical_id: String,
}

impl fmt::Display for KeptResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.physical_id, self.kind)
    }
}

impl Environment {
    /// Deletes an environment, awaits that, and answers what was left where it is: the table of releases always, the log
    /// group if the spec said so. An environment of the same name takes them over later.
    ///
    /// Applications have to be removed before: CloudFormation deletes no cluster in which services are.
    ///
    /// # Idempotency
    /// What is not there any more is deleted: nothing is answered as kept then. A deletion that is under way is awaited,
    /// one that has failed is begun anew.
    ///
    /// # Errors
    /// [`AlreadyExists`](deployer_core::ErrorKind::AlreadyExists) for a stack that is no environment;
    /// [`Conflict`](deployer_core::ErrorKind::Conflict) if something in it is still used; the first resource that could not
    /// be deleted, with its reason.
    pub async fn delete(&self, name: &str, progress: &dyn ProgressSink) -> Result<Vec<KeptResource>> {
        let Some((stack, standing)) = self.environment(name).await? else { return Ok(Vec::new()) };
        if standing == Standing::Absent {
            // Without the tag it may be somebody else's who reviews it.
            let ours = !stack.tags().is_empty();
            return if ours { self.clear_review(name).await.map(|()| Vec::new()) } else { Ok(Vec::new()) };
        }
        if standing == Standing::UnderWay && stack::status(&stack) != "DELETE_IN_PROGRESS" {
            progress.progress(Progress::new(name, "awaiting what is under way"));
            // Whatever comes of it is deleted.
            self.watch(stack::id(&stack), None, progress).await?;
        }
        let ended = if stack::status(&stack) == "DELETE_IN_PROGRESS" {
            self.watch(stack::id(&stack), None, progress).await?
        } else {
            self.remove(&stack, progress).await?
        };
        ended.check(name)?;
        Ok(ended.kept)
    }

    /// Deletes a stack and awaits it.
    pub(super) async fn remove(&self, stack: &Stack, progress: &dyn ProgressSink) -> Result<Ended> {
        let id = stack::id(stack);
        let last = self.last_event(id).await?;
        let call = self.client.delete_stack().stack_name(id).send().await;
        call.map_err(|error| failed("cloudformation:DeleteStack", resource(id), error))?;
        self.watch(id, last, progress).await
    }
}
