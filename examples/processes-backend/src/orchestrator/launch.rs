//! Starting instances.

use std::sync::Arc;

use deployer_core::{Effect, Error, ErrorKind, Launch, Outcome, Result, Retry};
use futures_util::future::try_join_all;

use super::ProcessOrchestrator;
use super::blueprint::Blueprint;
use super::record::{Found, Role, of_revision};
use crate::failure::{blocking, io};
use crate::files;
use crate::keeper::{Phase, Started};
use crate::naming;

impl ProcessOrchestrator {
    pub(super) async fn launch_instances(&self, request: &Launch) -> Result<Outcome> {
        let Launch { release, service, revision, instances, .. } = request;
        let blueprint = Blueprint::new(self, release, service)?;
        let secrets = blueprint.secrets(&*self.secrets).await?;
        let lock = self.lock(&release.app).await?;
        let mut there = Vec::new();
        for (ordinal, found) in of_revision(&self.layout, &release.app, revision).map_err(io("look for instances"))? {
            if found.is_condemned().map_err(io("look at an instance"))? {
                self.bury(&found)?;
            } else {
                there.push((ordinal, found));
            }
        }
        let (none_before, mut outcome) = (there.is_empty(), Outcome::AlreadyThere);
        let mut wanted = Vec::new();
        for ordinal in 1..=*instances {
            wanted.push(match there.iter().find(|(number, _)| *number == ordinal) {
                Some((_, found)) => {
                    let status = found.kept.status().map_err(io("look at an instance"))?;
                    if matches!(status.phase, Phase::Pending | Phase::Exited) {
                        outcome = outcome.and(Outcome::Changed);
                    }
                    found.clone()
                }
                None => {
                    outcome = outcome.and(if none_before { Outcome::Created } else { Outcome::Changed });
                    let (blueprint, name) = (blueprint.clone(), naming::instance(&release.app, revision, ordinal));
                    let role = Role::Instance { revision: revision.clone(), ordinal };
                    let share = Arc::clone(&lock);
                    let make = move || {
                        let made = blueprint.make(naming::fresh_id()?, name, role, None);
                        drop(share);
                        made
                    };
                    blocking(make).await?
                }
            });
        }
        // A keeper that is there is left alone. All at once: each takes the time that a process takes to start.
        let starts = wanted.iter().map(|found| found.kept.start(&self.helper, &secrets));
        let started = try_join_all(starts).await.map_err(|error| error.with_effect(Effect::Unknown))?;
        match wanted.iter().zip(started).find(|(_, started)| *started == Started::Failed) {
            Some((found, _)) => Err(cannot_start(found)?),
            None => Ok(outcome),
        }
    }

    /// Removes what a deployer that was killed has left of an instance that it stopped.
    fn bury(&self, found: &Found) -> Result<()> {
        if found.kept.is_alive().map_err(io("look at an instance"))? {
            return Err(Error::new(ErrorKind::Conflict, "an instance of this ordinal is still being stopped")
                .with_context("instance", found.record.name.clone())
                .with_retry(Retry::Soon));
        }
        files::remove_tree(found.kept.directory()).map_err(io("remove an instance")).map(|_| ())
    }
}

/// Why a program could not be started.
pub(super) fn cannot_start(found: &Found) -> Result<Error> {
    let exit = found.kept.status().map_err(io("look at the instance"))?.exit.unwrap_or_default();
    let words = exit.error.unwrap_or_else(|| "it could not be started".to_owned());
    // It is there, it just does not run: observing shows it, and reducing removes it.
    Ok(Error::new(ErrorKind::Workload, words)
        .with_context("instance", found.record.name.clone())
        .with_help("check the command, and that the image has the program and may execute it")
        .with_effect(Effect::Done))
}
