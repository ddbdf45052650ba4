//! One-off tasks.

use bollard::query_parameters::InspectContainerOptions;
use deployer_core::{Outcome, RemoveTask, Result, StartTask};
use futures_util::future::join_all;

use super::container::{Blueprint, Purpose};
use super::launch::Creation;
use super::{DockerOrchestrator, state};
use crate::engine::classify;
use crate::naming::ours;

const START_TASK: &str = "orchestrator.start-task";
const REMOVE_TASK: &str = "orchestrator.remove-task";

impl DockerOrchestrator {
    /// Starts a task unless it has been started before.
    ///
    /// The engine gives a name once, so a task is created once. That it is also started once takes more, because the
    /// engine would start one again that has ended: whoever finds it created looks whether it was ever started. The
    /// engine holds that answer back while a start is under way, and within this process one call comes after another.
    pub(super) async fn start_once(&self, request: &StartTask) -> Result<Outcome> {
        let blueprint = Blueprint::of(&request.release, &request.service)?;
        let purpose = Purpose::Task { task: &request.task, command: &request.command };
        let name = blueprint.container_name(purpose);
        let _turn = self.memory.tasks.lock().await;
        let outcome = match self.create(START_TASK, &blueprint, purpose, Vec::new()).await? {
            Creation::Created => Outcome::Created,
            Creation::Existed => {
                let inspected = self.engine.docker().inspect_container(&name, None::<InspectContainerOptions>).await;
                let inspected = inspected.map_err(|error| classify(START_TASK, &name, error))?;
                if inspected.state.as_ref().and_then(state::started).is_some() {
                    return Ok(Outcome::AlreadyThere);
                }
                Outcome::Changed
            }
        };
        self.fill_and_start(START_TASK, &blueprint, &name).await?;
        Ok(outcome)
    }

    pub(super) async fn forget_task(&self, request: &RemoveTask) -> Result<Outcome> {
        let (app, task) = (request.app.as_str(), request.task.0.as_str());
        let of_task = [(ours::APP, app), (ours::ROLE, ours::ROLE_TASK), (ours::TASK, task)];
        let found = self.containers(REMOVE_TASK, task, &of_task).await?;
        let ids = found.iter().filter_map(|container| container.id.as_deref());
        let removed: Vec<()> =
            join_all(ids.map(|id| self.discard(REMOVE_TASK, id))).await.into_iter().collect::<Result<_>>()?;
        Ok(if removed.is_empty() { Outcome::AlreadyThere } else { Outcome::Changed })
    }
}
