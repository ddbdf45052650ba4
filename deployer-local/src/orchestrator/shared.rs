//! What the services of an application share: networks and volumes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bollard::errors::Error as DockerError;
use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::{
    InspectNetworkOptions, ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveVolumeOptions,
};
use deployer_core::{Effect, EnsureApp, Error, ErrorKind, Outcome, Release, RemoveApp, Result};

use super::{DockerOrchestrator, answered, container};
use crate::engine::classify;
use crate::naming::{self, compose, ours};

const ENSURE: &str = "orchestrator.ensure-app";
const REMOVE: &str = "orchestrator.remove-app";

impl DockerOrchestrator {
    pub(super) async fn ensure_shared(&self, request: &EnsureApp) -> Result<Outcome> {
        let release = &*request.release;
        let mut outcome = Outcome::AlreadyThere;
        let networks: BTreeSet<&str> = release.services.values().flat_map(container::network_keys).collect();
        for key in networks {
            outcome = outcome.and(self.networks.ensure(&release.app, key, release.networks.get(key), &[]).await?);
        }
        let volumes: BTreeSet<&str> = release.services.values().flat_map(container::volume_keys).collect();
        for key in volumes {
            outcome = outcome.and(self.ensure_volume(release, key).await?);
        }
        Ok(outcome)
    }

    async fn ensure_volume(&self, release: &Release, key: &str) -> Result<Outcome> {
        let spec = release.volumes.get(key);
        let name = naming::volume(&release.app, key, spec);
        match self.engine.docker().inspect_volume(&name).await {
            Ok(_) => return Ok(Outcome::AlreadyThere),
            Err(error) if answered(&error, 404) => {}
            Err(error) => return Err(classify(ENSURE, name, error)),
        }
        if spec.is_some_and(|spec| spec.external) {
            return Err(Error::new(ErrorKind::NotFound, "no such volume, and it is declared external")
                .with_operation(ENSURE)
                .with_help(format!("create it with `docker volume create {name}`, or drop `external`"))
                .with_resource(name));
        }
        let mut labels: BTreeMap<String, String> = spec.map(|spec| spec.labels.clone()).unwrap_or_default();
        let app = release.app.as_str();
        let known = [(compose::PROJECT, app), (compose::VOLUME, key), (ours::APP, app)];
        labels.extend(known.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let request = VolumeCreateRequest {
            name: Some(name.clone()),
            driver: spec.and_then(|spec| spec.driver.clone()),
            driver_opts: spec.map(|spec| spec.driver_opts.clone().into_iter().collect()),
            labels: Some(labels.into_iter().collect()),
            ..VolumeCreateRequest::default()
        };
        let created = self.engine.docker().create_volume(request).await;
        created.map_err(|error| classify(ENSURE, name, error))?;
        Ok(Outcome::Created)
    }

    pub(super) async fn remove_shared(&self, request: &RemoveApp) -> Result<Outcome> {
        let app = request.app.as_str();
        let failed = |error: DockerError| classify(REMOVE, app, error);
        let docker = self.engine.docker();
        // What Compose had made before the application was taken over from it has its labels, as all of ours has.
        let filters = naming::label_filter(&[(compose::PROJECT, app)]);
        let mut removed = 0_usize;
        let mut used = Vec::new();

        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        for network in docker.list_networks(Some(options)).await.map_err(failed)? {
            let (name, id) = (network.name.unwrap_or_default(), network.id.unwrap_or_default());
            let ours = network.labels.is_some_and(|labels| labels.contains_key(ours::APP));
            // Containers that do not run need it when they are started again, and do not keep the engine from removing it.
            if !ours && !self.containers_by("network", &id).await.map_err(failed)?.is_empty() {
                continue;
            }
            match docker.remove_network(&id).await {
                Ok(()) => removed += 1,
                Err(error) if answered(&error, 404) => {}
                Err(error) => match self.containers_in(&id).await.map_err(failed)? {
                    users if users.is_empty() => return Err(classify(REMOVE, name, error)),
                    users => used.push((format!("network {name}"), users)),
                },
            }
        }
        if request.volumes {
            let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
            let listed = docker.list_volumes(Some(options)).await.map_err(failed)?;
            for volume in listed.volumes.unwrap_or_default() {
                match docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await {
                    Ok(()) => removed += 1,
                    Err(error) if answered(&error, 404) => {}
                    Err(error) if answered(&error, 409) => {
                        let users = self.containers_by("volume", &volume.name).await.map_err(failed)?;
                        used.push((format!("volume {}", volume.name), users));
                    }
                    Err(error) => return Err(classify(REMOVE, volume.name, error)),
                }
            }
        }
        if !used.is_empty() {
            return Err(still_used(app, &used, removed));
        }
        Ok(if removed == 0 { Outcome::AlreadyThere } else { Outcome::Changed })
    }

    async fn containers_in(&self, network: &str) -> Result<Vec<String>, DockerError> {
        let inspected = self.engine.docker().inspect_network(network, None::<InspectNetworkOptions>).await?;
        let mut names: Vec<String> =
            inspected.containers.into_iter().flatten().filter_map(|(_, endpoint)| endpoint.name).collect();
        names.sort();
        Ok(names)
    }

    /// The names of containers, running or not, by their network or volume.
    async fn containers_by(&self, what: &str, name: &str) -> Result<Vec<String>, DockerError> {
        let filters = HashMap::from([(what.to_owned(), vec![name.to_owned()])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = self.engine.docker().list_containers(Some(options)).await?;
        let first = |names: Vec<String>| names.into_iter().next();
        let names = listed.into_iter().filter_map(|container| first(container.names?));
        Ok(names.map(|name| name.trim_start_matches('/').to_owned()).collect())
    }
}

fn still_used(app: &str, used: &[(String, Vec<String>)], removed: usize) -> Error {
    let list: Vec<String> = used.iter().map(|(what, users)| format!("{what} by {}", users.join(", "))).collect();
    Error::new(ErrorKind::Conflict, format!("still in use: {}", list.join("; ")))
        .with_operation(REMOVE)
        .with_resource(app)
        .with_effect(if removed == 0 { Effect::None } else { Effect::Done })
        .with_help("stop and remove these containers, or disconnect them, and try again")
}
