//! Looking at what is there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bollard::models::{ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum as ListedState};
use bollard::query_parameters::{EventsOptionsBuilder, InspectContainerOptions};
use deployer_core::{ExitDetail, ObserveApp, ObservedApp, ObservedInstance, Result, RevisionId};
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;

use super::inherited::inherited;
use super::state::{self, Probed};
use super::{DockerOrchestrator, answered, label};
use crate::engine::classify;
use crate::naming::{compose, ours};

const OBSERVE: &str = "orchestrator.observe";

/// What the engine said about containers the last time, each with what the list said about it then.
#[derive(Default)]
pub(super) struct Looks(Mutex<HashMap<String, (String, Arc<ContainerInspectResponse>)>>);

impl Looks {
    fn get(&self, container: &str, listed: &str) -> Option<Arc<ContainerInspectResponse>> {
        let looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looks.get(container).filter(|(then, _)| then == listed).map(|(_, look)| Arc::clone(look))
    }

    fn put(&self, container: &str, listed: String, look: &Arc<ContainerInspectResponse>) {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looks.insert(container.to_owned(), (listed, Arc::clone(look)));
    }

    pub(super) fn forget(&self, container: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(container);
    }
}

/// What the list says about a container, if everything else about it can only change together with that.
///
/// Every start makes new endpoints, and a change of health or a pause is in the status. Not so the reason why one could
/// not be started, and the output of a check that does not pass yet.
fn settled(listed: &ContainerSummary) -> Option<String> {
    let status = listed.status.as_deref()?;
    let state = listed.state.filter(|state| matches!(state, ListedState::RUNNING | ListedState::EXITED))?;
    if status.contains("(health: ") || status.contains("(unhealthy)") {
        return None;
    }
    let networks = listed.network_settings.as_ref()?.networks.as_ref()?;
    let mut endpoints: Vec<String> = networks
        .iter()
        .map(|(name, endpoint)| format!("{name}={}", endpoint.endpoint_id.as_deref().unwrap_or_default()))
        .collect();
    endpoints.sort();
    Some(format!("{state} {status} {}", endpoints.join(" ")))
}

/// Exits of containers that run again: the engine shows an exit only until it starts the container the next time.
#[derive(Default)]
pub(super) struct PastExits(Mutex<HashMap<String, (i64, ExitDetail)>>);

impl PastExits {
    fn get(&self, container: &str, restarts: i64) -> Option<ExitDetail> {
        let exits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        exits.get(container).filter(|(of, _)| *of == restarts).map(|(_, exit)| exit.clone())
    }

    fn put(&self, container: String, restarts: i64, exit: ExitDetail) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(container, (restarts, exit));
    }

    pub(super) fn forget(&self, container: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(container);
    }
}

impl DockerOrchestrator {
    pub(super) async fn observe_containers(&self, request: &ObserveApp) -> Result<ObservedApp> {
        let app = request.app.as_str();
        // What we make has Compose's labels too.
        let listed = self.containers(OBSERVE, app, &[(compose::PROJECT, app)]).await?;
        let inherited = listed.iter().filter_map(inherited).collect();
        let (instances, tasks): (Vec<_>, Vec<_>) = listed
            .into_iter()
            .filter(|container| label(container, ours::APP) == Some(app))
            .filter(|container| matches!(label(container, ours::ROLE), Some(ours::ROLE_INSTANCE | ours::ROLE_TASK)))
            .partition(|container| label(container, ours::ROLE) == Some(ours::ROLE_INSTANCE));
        let instances = try_join_all(instances.iter().map(|container| self.instance(request, container)));
        let tasks = try_join_all(tasks.iter().map(async |container| {
            let inspected = self.look(container).await?;
            Ok(inspected.and_then(|inspected| state::task(container.labels.as_ref()?, &inspected)))
        }));
        let (instances, tasks) = futures_util::future::try_join(instances, tasks).await?;
        let mut instances: Vec<ObservedInstance> = instances.into_iter().flatten().collect();
        instances.sort_by(|a, b| (&a.revision, a.ordinal).cmp(&(&b.revision, b.ordinal)));
        Ok(ObservedApp::new(instances, tasks.into_iter().flatten().collect()).with_inherited(inherited))
    }

    async fn instance(&self, request: &ObserveApp, listed: &ContainerSummary) -> Result<Option<ObservedInstance>> {
        let (Some(inspected), Some(labels)) = (self.look(listed).await?, &listed.labels) else { return Ok(None) };
        let Some(mut instance) = state::instance(labels, &inspected) else {
            tracing::warn!(container = inspected.name, "the labels of this container are not those of an instance");
            return Ok(None);
        };
        if instance.exit.is_none() && instance.crashes > 0 {
            instance.exit = self.past_exit(&inspected).await?;
        }
        let probed = self.probe(request, &instance.revision, &inspected).await;
        (instance.health, instance.health_detail) = state::health(&inspected, &probed);
        Ok(Some(instance))
    }

    async fn probe(&self, request: &ObserveApp, revision: &RevisionId, container: &ContainerInspectResponse) -> Probed {
        let readiness = request.probe.get(revision);
        let probe = readiness.and_then(|readiness| Some((readiness, readiness.probe.as_ref()?)));
        let (Some((readiness, probe)), Some(address), Some(id)) =
            (probe, state::address(container), container.id.as_deref())
        else {
            return Probed::Passes;
        };
        let started = container.state.as_ref().and_then(state::started);
        let path = self.reach.to(&request.app, revision.service());
        self.memory.prober.ask(&path, id, started, address, probe, readiness).await
    }

    /// Everything about a container, from memory if the list says that nothing about it has changed.
    async fn look(&self, listed: &ContainerSummary) -> Result<Option<Arc<ContainerInspectResponse>>> {
        let (id, settled) = (listed.id.as_deref().unwrap_or_default(), settled(listed));
        if let Some(known) = settled.as_deref().and_then(|listed| self.memory.looks.get(id, listed)) {
            return Ok(Some(known));
        }
        let Some(look) = self.inspect(listed).await?.map(Arc::new) else { return Ok(None) };
        if let Some(listed) = settled {
            self.memory.looks.put(id, listed, &look);
        }
        Ok(Some(look))
    }

    /// Everything about a container; none if it is gone since it was listed.
    pub(super) async fn inspect(&self, listed: &ContainerSummary) -> Result<Option<ContainerInspectResponse>> {
        let id = listed.id.as_deref().unwrap_or_default();
        match self.engine.docker().inspect_container(id, None::<InspectContainerOptions>).await {
            Ok(mut inspected) => {
                // The values of secrets are among them, and what is looked at is kept.
                inspected.config.iter_mut().for_each(|config| config.env = None);
                Ok(Some(inspected))
            }
            Err(error) if answered(&error, 404) => {
                self.memory.forget(id);
                Ok(None)
            }
            Err(error) => Err(classify(OBSERVE, id, error)),
        }
    }

    /// How a container that runs again ended the last time. The engine's events still have it, for a while.
    async fn past_exit(&self, container: &ContainerInspectResponse) -> Result<Option<ExitDetail>> {
        let (Some(id), Some(restarts), Some(state)) =
            (container.id.clone(), container.restart_count, container.state.as_ref())
        else {
            return Ok(None);
        };
        if let Some(known) = self.memory.exits.get(&id, restarts) {
            return Ok(Some(known));
        }
        let (Some(finished), Some(started)) = (state::finished(state), state::started(state)) else { return Ok(None) };
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let filters: HashMap<String, Vec<String>> = HashMap::from([
            ("type".to_owned(), words(&["container"])),
            ("container".to_owned(), words(&[&id])),
            ("event".to_owned(), words(&["die", "oom"])),
        ]);
        // Both ends are in the past of the engine's own clock, so that it answers at once. Whole seconds before the end
        // take in what the engine notes shortly before it.
        let options = EventsOptionsBuilder::default()
            .since(&(finished.seconds() - 1).to_string())
            .until(&started.query())
            .filters(&filters)
            .build();
        let events: Vec<_> = self
            .engine
            .docker()
            .events(Some(options))
            .try_collect()
            .await
            .map_err(|error| classify(OBSERVE, id.as_str(), error))?;
        let out_of_memory = events.iter().any(|event| event.action.as_deref() == Some("oom"));
        let code = events
            .iter()
            .rev()
            .find(|event| event.action.as_deref() == Some("die"))
            .and_then(|event| event.actor.as_ref()?.attributes.as_ref()?.get("exitCode")?.parse().ok());
        let exit = state::detail(code, out_of_memory, None, Some(finished));
        if code.is_some() {
            self.memory.exits.put(id, restarts, exit.clone());
        }
        Ok(Some(exit))
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerSummaryNetworkSettings, EndpointSettings};

    use super::*;

    fn listed(state: ListedState, status: &str, endpoint: &str) -> ContainerSummary {
        let endpoint = EndpointSettings { endpoint_id: Some(endpoint.into()), ..Default::default() };
        let networks = Some(HashMap::from([("shop_default".into(), endpoint)]));
        ContainerSummary {
            state: Some(state),
            status: Some(status.into()),
            network_settings: Some(ContainerSummaryNetworkSettings { networks }),
            ..Default::default()
        }
    }

    #[test]
    fn a_restart_within_the_same_second_is_noticed() {
        let before = settled(&listed(ListedState::RUNNING, "Up 1 second", "e1"));
        assert_eq!(before, settled(&listed(ListedState::RUNNING, "Up 1 second", "e1")));
        assert_ne!(before, settled(&listed(ListedState::RUNNING, "Up 1 second", "e2")));
        assert_ne!(before, settled(&listed(ListedState::RUNNING, "Up 1 second (Paused)", "e1")));
    }

    #[test]
    fn what_the_list_does_not_tell_is_asked_every_time() {
        for (state, status) in [
            (ListedState::CREATED, "Created"),
            (ListedState::RESTARTING, "Restarting (1) 1 second ago"),
            (ListedState::RUNNING, "Up 1 second (health: starting)"),
            (ListedState::RUNNING, "Up 1 second (unhealthy)"),
        ] {
            assert_eq!(settled(&listed(state, status, "e1")), None, "{status}");
        }
    }
}
