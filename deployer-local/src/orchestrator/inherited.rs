//! What Docker Compose has started of an application: containers with its labels and without ours.

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as ListedState};
use bollard::query_parameters::RemoveContainerOptionsBuilder;
use deployer_core::{
    Effect, Error, ErrorKind, Inherited, InheritedState, InstanceId, Outcome, Result, ServiceName, SetInherited,
};
use futures_util::future::join_all;

use super::launch::is_gone;
use super::{DockerOrchestrator, label};
use crate::engine::classify;
use crate::naming::{compose, ours};

const SET: &str = "orchestrator.set-inherited";
const TOOL: &str = "Docker Compose";

/// A container that Compose has started as one of a service, if it is one. Those of `run` end by themselves.
pub(super) fn inherited(container: &ContainerSummary) -> Option<Inherited> {
    if label(container, ours::APP).is_some() || label(container, compose::ONEOFF) == Some("True") {
        return None;
    }
    let service = ServiceName::new(label(container, compose::SERVICE)?).ok()?;
    let id = InstanceId::new(container.id.as_deref()?).ok()?;
    let name = container.names.as_deref()?.first()?.trim_start_matches('/');
    let running = matches!(container.state, Some(ListedState::RUNNING | ListedState::RESTARTING | ListedState::PAUSED));
    let unnamed = container.mounts.iter().flatten().filter(|mount| {
        let is_hash = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        mount.typ.as_deref() == Some("volume") && mount.name.as_deref().is_some_and(is_hash)
    });
    let mut unnamed: Vec<String> = unnamed.filter_map(|mount| mount.destination.clone()).collect();
    unnamed.sort();
    Some(Inherited::new(id, name, service, TOOL, running).with_unnamed_volumes(unnamed))
}

impl DockerOrchestrator {
    pub(super) async fn bring_inherited(&self, request: &SetInherited) -> Result<Outcome> {
        let app = request.app.as_str();
        let there = self.containers(SET, app, &[(compose::PROJECT, app)]).await?;
        let there: Vec<(Inherited, &ContainerSummary)> =
            there.iter().filter_map(|container| Some((inherited(container)?, container))).collect();
        let done = join_all(request.instances.iter().map(async |id| {
            match (request.state, there.iter().find(|(one, _)| one.id == *id)) {
                (InheritedState::Running, None) => Err(gone(id)),
                (InheritedState::Stopped | InheritedState::Removed, None) => Ok(Outcome::AlreadyThere),
                (InheritedState::Running, Some((one, _))) if one.running => Ok(Outcome::AlreadyThere),
                (InheritedState::Stopped, Some((one, _))) if !one.running => Ok(Outcome::AlreadyThere),
                (InheritedState::Running, Some((one, _))) => {
                    self.start(SET, &one.name).await.map_err(|error| error.with_effect(Effect::None))?;
                    Ok(Outcome::Changed)
                }
                (InheritedState::Stopped, Some((_, container))) => {
                    self.stop(SET, container).await?;
                    Ok(Outcome::Changed)
                }
                (InheritedState::Removed, Some((_, container))) => {
                    self.stop(SET, container).await?;
                    self.remove_inherited(id).await?;
                    Ok(Outcome::Changed)
                }
            }
        }));
        let done: Vec<Outcome> = done.await.into_iter().collect::<Result<_>>()?;
        Ok(done.into_iter().fold(Outcome::AlreadyThere, Outcome::and))
    }

    /// Its volumes without a name stay: nobody has said that what is in them may go.
    async fn remove_inherited(&self, id: &InstanceId) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default().build();
        match self.engine.docker().remove_container(id.as_str(), Some(options)).await {
            Err(error) if !is_gone(&error) => Err(classify(SET, id.as_str(), error)),
            _ => Ok(()),
        }
    }
}

fn gone(id: &InstanceId) -> Error {
    Error::new(ErrorKind::NotFound, "a container is gone that Docker Compose had started")
        .with_operation(SET)
        .with_resource(id.as_str())
        .with_help("start it again with `docker-compose up`")
}
