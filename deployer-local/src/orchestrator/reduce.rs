//! Stopping and removing containers.

use std::time::Duration;

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as ListedState};
use bollard::query_parameters::{RemoveContainerOptionsBuilder, StopContainerOptions};
use deployer_core::{Outcome, Reduce, Result};
use futures_util::future::join_all;

use super::launch::is_gone;
use super::{DockerOrchestrator, label};
use crate::engine::classify;
use crate::naming::ours;

const REDUCE: &str = "orchestrator.reduce";

/// The engine's grace period where the container says nothing.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// What stopping may take beyond the grace period on a busy machine.
const MARGIN: Duration = Duration::from_secs(110);

impl DockerOrchestrator {
    pub(super) async fn reduce_instances(&self, request: &Reduce) -> Result<Outcome> {
        let (app, revision) = (request.app.as_str(), request.revision.to_string());
        let of_revision = [(ours::APP, app), (ours::ROLE, ours::ROLE_INSTANCE), (ours::REVISION, revision.as_str())];
        let mut present = self.containers(REDUCE, &revision, &of_revision).await?;
        let ordinal = |container: &ContainerSummary| -> Option<u32> { label(container, ours::ORDINAL)?.parse().ok() };
        present.sort_by_key(ordinal);
        let keep = usize::try_from(request.keep).unwrap_or(usize::MAX);
        let leaving = present.iter().skip(keep).map(|container| self.stop_and_remove(container));
        let done: Vec<()> = join_all(leaving).await.into_iter().collect::<Result<_>>()?;
        Ok(if done.is_empty() { Outcome::AlreadyThere } else { Outcome::Changed })
    }

    async fn stop_and_remove(&self, container: &ContainerSummary) -> Result<()> {
        self.stop(REDUCE, container).await?;
        self.discard(REDUCE, container.id.as_deref().unwrap_or_default()).await
    }

    /// Stops a container that runs, with its own signal and grace period. One that is gone is no error.
    pub(super) async fn stop(&self, operation: &'static str, container: &ContainerSummary) -> Result<()> {
        use ListedState::{CREATED, DEAD, EXITED, REMOVING};
        if matches!(container.state, Some(CREATED | DEAD | EXITED | REMOVING)) {
            return Ok(());
        }
        let Some(inspected) = self.inspect(container).await? else { return Ok(()) };
        let grace = inspected.config.and_then(|config| config.stop_timeout);
        let grace = grace.and_then(|seconds| u64::try_from(seconds).ok()).map_or(DEFAULT_GRACE, Duration::from_secs);
        // The engine answers when the container has stopped.
        let patient = self.engine.docker().clone().with_timeout(grace.saturating_add(MARGIN));
        let id = container.id.as_deref().unwrap_or_default();
        match patient.stop_container(id, None::<StopContainerOptions>).await {
            Err(error) if !is_gone(&error) => Err(classify(operation, id, error)),
            _ => Ok(()),
        }
    }

    /// Removes a container and its volumes without a name, without asking it to stop. One that is gone is no error.
    pub(super) async fn discard(&self, operation: &'static str, container: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.engine.docker().remove_container(container, Some(options)).await {
            Err(error) if !is_gone(&error) => Err(classify(operation, container, error)),
            _ => {
                self.memory.forget(container);
                Ok(())
            }
        }
    }
}
