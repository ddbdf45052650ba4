//! Bringing an environment about.

use aws_sdk_cloudformation::types::{ChangeSetType, Stack};
use deployer_core::{Error, ErrorKind, Outcome, Progress, ProgressSink, Result};
use serde_json::Value;

use super::Environment;
use super::spec::EnvironmentSpec;
use super::stack::{self, Standing, resource};
use crate::failure::failed;

impl Environment {
    /// Makes the environment, or changes it to what the spec says, and awaits that, for as long as CloudFormation takes:
    /// some minutes for a new one. Every event of the stack is one step of progress.
    ///
    /// The table and the log group that an earlier environment of the name has left are taken over. A stack that an
    /// earlier failure has left half made is deleted first.
    ///
    /// # Idempotency
    /// Repeating it changes nothing and answers [`Outcome::AlreadyThere`]. If an earlier call was given up, or another
    /// process is at it, what is under way is awaited first, and if that fails, its failure is told.
    ///
    /// # Errors
    /// The first resource that failed, with its reason: [`PermissionDenied`](ErrorKind::PermissionDenied),
    /// [`AlreadyExists`](ErrorKind::AlreadyExists), [`Exhausted`](ErrorKind::Exhausted) and others. The effect is
    /// [`None`](deployer_core::Effect::None) if everything is as before, but for tables and logs that were made and are
    /// kept. [`InvalidInput`](ErrorKind::InvalidInput) for a spec that cannot be;
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) for a stack of the name that is no environment.
    pub async fn apply(&self, spec: &EnvironmentSpec, progress: &dyn ProgressSink) -> Result<Outcome> {
        let template = spec.template()?;
        loop {
            let found = self.environment(&spec.name).await?;
            let Some((stack, standing)) = found else {
                return self.create(spec, &template, false, progress).await;
            };
            match standing {
                Standing::Absent => return self.create(spec, &template, true, progress).await,
                Standing::Settled => return self.update(spec, &template, &stack, progress).await,
                Standing::UnderWay => {
                    progress.progress(Progress::new(&spec.name, "awaiting what is under way"));
                    self.watch(stack::id(&stack), None, progress).await?.check(&spec.name)?;
                }
                Standing::Wreck => {
                    progress.progress(Progress::new(&spec.name, "removing what an earlier failure has left"));
                    self.remove(&stack, progress).await?.check(&spec.name)?;
                }
                Standing::Stuck => self.bring_back(&stack, progress).await?,
                Standing::Undeleted => {
                    return Err(Error::new(ErrorKind::Conflict, "an earlier deletion has failed half way")
                        .with_resource(resource(&spec.name))
                        .with_context("reason", stack.stack_status_reason().unwrap_or_default().to_owned())
                        .with_retry(deployer_core::Retry::Never)
                        .with_help("delete it first"));
                }
            }
        }
    }

    async fn create(
        &self,
        spec: &EnvironmentSpec,
        template: &Value,
        reviewed: bool,
        progress: &dyn ProgressSink,
    ) -> Result<Outcome> {
        progress.progress(Progress::new(&spec.name, "asking CloudFormation what would be made"));
        let prepared = match self.prepare(spec, template, ChangeSetType::Create).await {
            Ok(prepared) => prepared,
            Err(error) => {
                // Nothing is in the stack, but its name is taken.
                let cleared = if reviewed { Ok(()) } else { self.clear_review(&spec.name).await };
                return Err(match cleared {
                    Ok(()) => error,
                    Err(also) => error.with_context("the empty stack was not deleted", also.to_string()),
                });
            }
        };
        let prepared = prepared.ok_or_else(|| {
            Error::new(ErrorKind::Internal, "CloudFormation sees nothing to be made")
                .with_resource(resource(&spec.name))
        })?;
        let last = self.last_event(&prepared.stack).await?;
        self.execute(&spec.name, &prepared).await?;
        self.watch(&prepared.stack, last, progress).await?.check(&spec.name)?;
        Ok(Outcome::Created)
    }

    async fn update(
        &self,
        spec: &EnvironmentSpec,
        template: &Value,
        stack: &Stack,
        progress: &dyn ProgressSink,
    ) -> Result<Outcome> {
        progress.progress(Progress::new(&spec.name, "asking CloudFormation what would change"));
        let Some(prepared) = self.prepare(spec, template, ChangeSetType::Update).await? else {
            return Ok(Outcome::AlreadyThere);
        };
        let last = self.last_event(stack::id(stack)).await?;
        self.execute(&spec.name, &prepared).await?;
        self.watch(stack::id(stack), last, progress).await?.check(&spec.name)?;
        Ok(Outcome::Changed)
    }

    /// Goes on with bringing back what was before an update that failed.
    async fn bring_back(&self, stack: &Stack, progress: &dyn ProgressSink) -> Result<()> {
        let id = stack::id(stack);
        progress.progress(Progress::new(id, "bringing back what was before an update that failed"));
        let last = self.last_event(id).await?;
        let call = self.client.continue_update_rollback().stack_name(id).send().await;
        call.map_err(|error| failed("cloudformation:ContinueUpdateRollback", resource(id), error))?;
        self.watch(id, last, progress).await?.check_brought_back(id)
    }

    /// Deletes a stack of which nothing was ever made, if there is one.
    pub(super) async fn clear_review(&self, name: &str) -> Result<()> {
        match self.environment(name).await? {
            Some((stack, Standing::Absent)) => {
                let call = self.client.delete_stack().stack_name(stack::id(&stack)).send().await;
                call.map(drop).map_err(|error| failed("cloudformation:DeleteStack", resource(name), error))
            }
            _ => Ok(()),
        }
    }
}
