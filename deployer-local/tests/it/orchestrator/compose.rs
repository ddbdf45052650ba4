//! The real Compose on what was launched.

use deployer_core::{Mount, Orchestrator, StartTask, TaskId};

use crate::compose_tool::docker_compose;
use crate::engine::{TestApp, call, named, until};

const FILE: &str = "version: '3'
services:
  worker:
    image: busybox:1.36
    volumes: ['data:/data']
volumes:
  data: {}
";

#[tokio::test]
async fn docker_compose_works_on_what_was_launched() {
    let app = TestApp::new("compose").await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("docker-compose.yml"), FILE).unwrap();
    let script = "echo hello from $HOSTNAME; trap exit TERM; while :; do sleep 1 & wait; done";
    let service = || app.shell(script).with_mount(Mount::volume("data", "/data"));
    let one = app.release([("worker", service())]);
    let two = app.release([("worker", service().with_env("VERSION", "2"))]);
    app.run(&one, "worker", 2).await;
    app.run(&two, "worker", 1).await;
    let command = vec!["true".to_owned()];
    let task = StartTask::new(call(), TaskId("migrate".into()), one, named("worker"), command);
    app.orchestrator.start_task(task).await.unwrap();
    until(async || Some(super::logs::texts(&app).await).filter(|lines| lines.len() == 3)).await;

    let compose = |arguments: &[&str]| docker_compose(directory.path(), app.name.as_str(), &[], arguments);
    let ps = compose(&["ps"]);
    assert_eq!(ps.matches(" Up ").count(), 3, "{ps}");
    let logs = compose(&["logs"]);
    assert_eq!(logs.matches("hello from").count(), 3, "{logs}");
    let instances = app.instances().await;
    assert!(instances.iter().all(|instance| ps.contains(&instance.name)), "{ps}");
    compose(&["down", "--volumes"]);
    assert_eq!(app.instances().await, []);
    assert!(app.docker.inspect_volume(&format!("{}_data", app.name)).await.is_err());
    let networks = app.docker.list_networks(None::<bollard::query_parameters::ListNetworksOptions>).await.unwrap();
    assert!(networks.iter().all(|network| network.name.as_deref() != Some(&format!("{}_default", app.name))));
}
