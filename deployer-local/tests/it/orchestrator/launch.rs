use std::time::Duration;

use bollard::models::{ContainerCreateBody, NetworkDisconnectRequest};
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptions};
use deployer_core::{ErrorKind, InstancePhase, ObservedInstance, Outcome, Retry};

use crate::engine::{TestApp, revision};

fn ordinals(instances: &[ObservedInstance]) -> Vec<u32> {
    instances.iter().map(|instance| instance.ordinal).collect()
}

#[tokio::test]
async fn launching_again_changes_nothing() {
    let app = TestApp::new("again").await;
    let release = app.release([("worker", app.idle())]);
    assert_eq!(app.ensure(&release).await.unwrap(), Outcome::Created);
    assert_eq!(app.ensure(&release).await.unwrap(), Outcome::AlreadyThere);
    assert_eq!(app.launch(&release, "worker", 3).await.unwrap(), Outcome::Created);
    let first = app.instances().await;
    assert_eq!(ordinals(&first), [1, 2, 3]);
    assert!(first.iter().all(|instance| instance.phase == InstancePhase::Running && instance.is_ready()));
    assert!(first.iter().all(|instance| instance.image.as_ref() == Some(&release.services["worker"].image.digest)));
    assert_eq!(app.launch(&release, "worker", 3).await.unwrap(), Outcome::AlreadyThere);
    assert_eq!(app.launch(&release, "worker", 2).await.unwrap(), Outcome::AlreadyThere, "at least so many");
    let again = app.instances().await;
    assert!(first.iter().zip(&again).all(|(a, b)| a.id == b.id && a.started_at == b.started_at));
}

#[tokio::test]
async fn a_call_that_was_dropped_can_be_repeated() {
    let app = TestApp::new("dropped").await;
    let release = app.release([("worker", app.idle())]);
    app.ensure(&release).await.unwrap();
    // Wherever it is cut off, the next call brings it to its end.
    for millis in [5, 20, 60, 150] {
        let _ = tokio::time::timeout(Duration::from_millis(millis), app.launch(&release, "worker", 3)).await;
    }
    let launched = crate::engine::until(async || match app.launch(&release, "worker", 3).await {
        Ok(outcome) => Some(outcome),
        Err(error) if error.retry() == Retry::Soon => None,
        Err(error) => panic!("{error:?}"),
    });
    launched.await;
    let instances = app.instances().await;
    assert_eq!(ordinals(&instances), [1, 2, 3]);
    assert!(instances.iter().all(|instance| instance.is_ready()));
}

#[tokio::test]
async fn what_was_stopped_or_removed_is_repaired() {
    let app = TestApp::new("repair").await;
    let release = app.release([("worker", app.idle())]);
    app.run(&release, "worker", 3).await;
    let before = app.instances().await;
    app.docker.stop_container(before[0].id.as_str(), None::<StopContainerOptions>).await.unwrap();
    let force = RemoveContainerOptionsBuilder::default().force(true).build();
    app.docker.remove_container(before[2].id.as_str(), Some(force)).await.unwrap();
    assert_eq!(app.launch(&release, "worker", 3).await.unwrap(), Outcome::Changed);
    let after = app.instances().await;
    assert_eq!(ordinals(&after), [1, 2, 3]);
    assert!(after.iter().all(|instance| instance.is_ready()));
    assert_eq!((&after[0].id, &after[1].id), (&before[0].id, &before[1].id), "started again, and left alone");
    assert_eq!(after[0].address, before[0].address);
    assert_ne!(after[2].id, before[2].id);
}

#[tokio::test]
async fn a_leftover_that_is_not_as_it_was_made_is_made_anew() {
    let app = TestApp::new("leftover").await;
    let release = app.release([("web", app.idle())]);
    app.run(&release, "web", 1).await;
    let before = app.instances().await.remove(0);
    app.docker.stop_container(before.id.as_str(), None::<StopContainerOptions>).await.unwrap();
    // Somebody has taken it from its network: nobody would find it any more.
    let cut = NetworkDisconnectRequest { container: before.id.to_string(), force: Some(true) };
    app.docker.disconnect_network(&format!("{}_default", app.name), cut).await.unwrap();
    assert_eq!(app.launch(&release, "web", 1).await.unwrap(), Outcome::Changed);
    let after = app.instances().await.remove(0);
    assert_eq!(after.name, before.name);
    assert_ne!(after.id, before.id);
}

#[tokio::test]
async fn reducing_keeps_the_lowest_ordinals() {
    let app = TestApp::new("reduce").await;
    let release = app.release([("worker", app.idle())]);
    app.run(&release, "worker", 4).await;
    let before = app.instances().await;
    let revision = revision(&release, "worker");
    assert_eq!(app.reduce(&revision, 2).await, Outcome::Changed);
    let left = app.instances().await;
    assert_eq!(ordinals(&left), [1, 2]);
    assert!(left.iter().zip(&before).all(|(a, b)| a.id == b.id && a.started_at == b.started_at));
    assert_eq!(app.reduce(&revision, 2).await, Outcome::AlreadyThere);
    assert_eq!(app.reduce(&revision, 0).await, Outcome::Changed);
    assert_eq!(app.instances().await, []);
    assert_eq!(app.reduce(&revision, 0).await, Outcome::AlreadyThere);
}

#[tokio::test]
async fn every_instance_gets_its_stop_signal_and_grace() {
    let app = TestApp::new("grace").await;
    let mut service = app.shell("trap 'sleep 2; echo clean > /data/end; exit' USR1; while :; do sleep 1 & wait; done");
    service.workload.stop.signal = Some("SIGUSR1".into());
    let service =
        service.with_stop_grace(Duration::from_secs(30)).with_mount(deployer_core::Mount::volume("data", "/data"));
    let release = app.release([("worker", service)]);
    app.run(&release, "worker", 1).await;
    app.reduce(&revision(&release, "worker"), 0).await;
    let reader = app.release([(
        "reader",
        app.shell("cat /data/end; exec sleep 60").with_mount(deployer_core::Mount::volume("data", "/data")),
    )]);
    app.run(&reader, "reader", 1).await;
    let lines = crate::engine::until(async || Some(super::logs::texts(&app).await).filter(|lines| !lines.is_empty()));
    assert_eq!(lines.await, ["clean"]);
}

#[tokio::test]
async fn numbers_are_unique_across_revisions() {
    let app = TestApp::new("numbers").await;
    let one = app.release([("worker", app.idle())]);
    let two = app.release([("worker", app.idle().with_env("VERSION", "2"))]);
    app.run(&one, "worker", 2).await;
    app.run(&two, "worker", 2).await;
    let mut numbers = Vec::new();
    for instance in app.instances().await {
        let labels = app.inspect(instance.id.as_str()).await.config.unwrap().labels.unwrap();
        numbers.push(labels["com.docker.compose.container-number"].clone());
    }
    numbers.sort();
    assert_eq!(numbers, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn somebody_elses_containers_are_left_alone() {
    let app = TestApp::new("foreign").await;
    let release = app.release([("worker", app.idle())]);
    app.run(&release, "worker", 1).await;
    let mine = app.instances().await.remove(0);
    // The name that the second instance will want, in somebody else's hands.
    let name = format!("{}2", mine.name.strip_suffix('1').unwrap());
    let body = ContainerCreateBody {
        image: Some(release.services["worker"].image.location.clone()),
        cmd: Some(vec!["sleep".into(), "600".into()]),
        labels: Some([("it.app".to_owned(), app.name.to_string())].into()),
        ..Default::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let foreign = app.docker.create_container(Some(options), body).await.unwrap().id;
    let error = app.launch(&release, "worker", 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains(&name), "{error}");
    assert!(error.help().unwrap().contains(&name));
    assert_eq!(ordinals(&app.instances().await), [1]);
    app.reduce(&revision(&release, "worker"), 0).await;
    let state = app.inspect(&foreign).await.state.unwrap();
    assert_eq!(state.status, Some(bollard::models::ContainerStateStatusEnum::CREATED));
}
