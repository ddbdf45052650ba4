//! Removing what an application had.

use deployer_core::{Error, ErrorKind, InstancePhase, ObserveApp, Outcome, RemoveApp, Result};

use crate::site::Site;

impl Site {
    /// Deletes the application's slots and names. Its volumes are on file systems that it does not own, and stay.
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
        Ok(if slots.is_empty() && !named { Outcome::AlreadyThere } else { Outcome::Changed })
    }
}
