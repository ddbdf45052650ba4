//! Stopping instances for good.

use deployer_core::{AppName, Outcome, Reduce, Result};
use futures_util::future::try_join_all;

use super::ProcessOrchestrator;
use super::record::{Found, of_revision};
use crate::failure::{blocking, io};
use crate::files;

impl ProcessOrchestrator {
    pub(super) async fn reduce_instances(&self, request: &Reduce) -> Result<Outcome> {
        let Reduce { app, revision, keep, .. } = request;
        if !self.layout.app(app).exists() {
            return Ok(Outcome::AlreadyThere);
        }
        let going: Vec<Found> = {
            let _lock = self.lock(app).await?;
            let there = of_revision(&self.layout, app, revision).map_err(io("look for instances"))?;
            let mut going = Vec::new();
            for (_, found) in there.into_iter().skip(*keep as usize) {
                found.condemn().map_err(io("condemn an instance"))?;
                going.push(found);
            }
            going
        };
        if going.is_empty() {
            return Ok(Outcome::AlreadyThere);
        }
        // Not under the lock: other revisions need not wait for this one's grace.
        try_join_all(going.iter().map(|found| self.stop_and_remove(app, found))).await?;
        Ok(Outcome::Changed)
    }

    /// Stops the program of an instance or task if it runs, and removes everything of it.
    pub(super) async fn stop_and_remove(&self, app: &AppName, found: &Found) -> Result<()> {
        found.kept.stop(&self.helper).await?;
        let (this, app, found) = (self.clone(), app.clone(), found.clone());
        blocking(move || {
            let removed = files::remove_tree(found.kept.directory());
            removed.map_err(io("remove an instance"))?;
            this.prober.forget(&found.record.id);
            this.addresses
                .release_instance(&app, &found.record.id, found.record.address)
                .map_err(io("give an address back"))
        })
        .await
    }
}
