use std::sync::Arc;

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{CreateContainerOptionsBuilder, StartContainerOptions};
use deployer_core::{ErrorKind, Mount, NetworkAttachment, NetworkSpec, Orchestrator, Outcome, RemoveApp, VolumeSpec};

use crate::engine::{TestApp, call, revision};

fn remove(app: &TestApp, volumes: bool) -> RemoveApp {
    RemoveApp::new(call(), app.name.clone(), volumes)
}

#[tokio::test]
async fn what_is_shared_goes_when_it_is_told_to() {
    let app = TestApp::new("shared").await;
    let release = app.release([("db", app.idle().with_mount(Mount::volume("data", "/data")))]);
    assert_eq!(app.ensure(&release).await.unwrap(), Outcome::Created);
    let (network, volume) = (format!("{}_default", app.name), format!("{}_data", app.name));
    let labels = app.docker.inspect_volume(&volume).await.unwrap().labels;
    assert_eq!(labels["com.docker.compose.volume"], "data");
    assert_eq!(app.orchestrator.remove_app(remove(&app, false)).await.unwrap(), Outcome::Changed);
    assert!(
        app.docker.inspect_network(&network, None::<bollard::query_parameters::InspectNetworkOptions>).await.is_err()
    );
    assert!(app.docker.inspect_volume(&volume).await.is_ok(), "the data stays");
    assert_eq!(app.orchestrator.remove_app(remove(&app, true)).await.unwrap(), Outcome::Changed);
    assert!(app.docker.inspect_volume(&volume).await.is_err());
    assert_eq!(app.orchestrator.remove_app(remove(&app, true)).await.unwrap(), Outcome::AlreadyThere);
}

#[tokio::test]
async fn what_somebody_still_uses_stays_and_is_named() {
    let app = TestApp::new("used").await;
    let release = app.release([("db", app.idle().with_mount(Mount::volume("data", "/data")))]);
    app.run(&release, "db", 1).await;
    app.reduce(&revision(&release, "db"), 0).await;
    let name = format!("{}-somebody", app.name);
    let body = ContainerCreateBody {
        image: Some(release.services["db"].image.location.clone()),
        cmd: Some(vec!["sleep".into(), "600".into()]),
        labels: Some([("it.app".to_owned(), app.name.to_string())].into()),
        host_config: Some(HostConfig {
            network_mode: Some(format!("{}_default", app.name)),
            binds: Some(vec![format!("{}_data:/data", app.name)]),
            ..Default::default()
        }),
        ..Default::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    app.docker.create_container(Some(options), body).await.unwrap();
    app.docker.start_container(&name, None::<StartContainerOptions>).await.unwrap();
    let error = app.orchestrator.remove_app(remove(&app, true)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(error.message().matches(&name).count(), 2, "for the network and for the volume: {error}");
    assert_eq!(app.inspect(&name).await.state.unwrap().running, Some(true));
}

#[tokio::test]
async fn something_external_has_to_be_there() {
    let app = TestApp::new("external").await;
    let mut service = app.idle();
    service.workload.networks = [("outside".into(), NetworkAttachment::default())].into();
    let mut release = (*app.release([("web", service)])).clone();
    let mut spec = NetworkSpec::default();
    spec.external = true;
    spec.name = Some(format!("{}-outside", app.name));
    release.networks = [("outside".into(), spec)].into();
    let error = app.ensure(&Arc::new(release)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.help().unwrap().contains(&format!("docker network create {}-outside", app.name)));

    let mut release = (*app.release([("web", app.idle().with_mount(Mount::volume("data", "/data")))])).clone();
    let mut spec = VolumeSpec::default();
    spec.external = true;
    spec.name = Some(format!("{}-outside", app.name));
    release.volumes = [("data".into(), spec)].into();
    assert_eq!(app.ensure(&Arc::new(release)).await.unwrap_err().kind(), ErrorKind::NotFound);
}
