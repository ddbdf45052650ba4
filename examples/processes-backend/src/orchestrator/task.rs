//! One-off tasks.

use std::sync::Arc;

use deployer_core::{Outcome, RemoveTask, Result, StartTask};
use futures_util::future::try_join_all;

use super::ProcessOrchestrator;
use super::blueprint::Blueprint;
use super::launch::cannot_start;
use super::record::{self, Role};
use crate::failure::{blocking, io};
use crate::keeper::{Phase, Started};
use crate::naming;

impl ProcessOrchestrator {
    /// Starts a task unless it has been started before: a migration must not run twice, whoever was killed meanwhile.
    pub(super) async fn start_once(&self, request: &StartTask) -> Result<Outcome> {
        let StartTask { task, release, service, command, .. } = request;
        let blueprint = Blueprint::new(self, release, service)?;
        let secrets = blueprint.secrets(&*self.secrets).await?;
        let lock = self.lock(&release.app).await?;
        let all = record::all(&self.layout, &release.app).map_err(io("look for tasks"))?;
        let (outcome, found) = match all.into_iter().find(|found| found.is_task(task)) {
            Some(found) => (Outcome::Changed, found),
            None => {
                let (name, role) = (format!("{}-{task}", release.app), Role::Task { task: task.clone() });
                let (command, share) = (command.clone(), Arc::clone(&lock));
                let make = move || {
                    let made = blueprint.make(naming::fresh_id()?, name, role, Some(&command));
                    drop(share);
                    made
                };
                (Outcome::Created, blocking(make).await?)
            }
        };
        // The keeper writes that it starts the program before it does. So one that was never said to be started was not.
        let status = found.kept.status().map_err(io("look at the task"))?;
        if status.phase != Phase::Pending || status.is_over() {
            return Ok(Outcome::AlreadyThere);
        }
        match found.kept.start(&self.helper, &secrets).await? {
            Started::Running => Ok(outcome),
            Started::Failed => Err(cannot_start(&found)?),
        }
    }

    pub(super) async fn forget_task(&self, request: &RemoveTask) -> Result<Outcome> {
        let RemoveTask { app, task, .. } = request;
        let all = record::all(&self.layout, app).map_err(io("look for tasks"))?;
        let found: Vec<_> = all.into_iter().filter(|found| found.is_task(task)).collect();
        try_join_all(found.iter().map(|found| self.stop_and_remove(app, found))).await?;
        Ok(if found.is_empty() { Outcome::AlreadyThere } else { Outcome::Changed })
    }
}
