use std::sync::Arc;

use deployer_core::{ErrorKind, ObservedTask, Orchestrator, Outcome, Release, RemoveTask, Result, StartTask, TaskId};

use crate::engine::{TestApp, call, named, until};

fn start(release: &Arc<Release>, id: &str, script: &str) -> StartTask {
    let command = ["sh", "-c", script].map(String::from).to_vec();
    StartTask::new(call(), TaskId(id.into()), Arc::clone(release), named("web"), command)
}

async fn ended(app: &TestApp, id: &str) -> ObservedTask {
    until(async || app.observe().await.tasks.into_iter().find(|task| task.task.0 == id && task.exit.is_some())).await
}

#[tokio::test]
async fn a_task_runs_once_however_often_it_is_asked_for() {
    let app = TestApp::new("task").await;
    let release = app.release([("web", app.idle().with_env("WHO", "me"))]);
    app.ensure(&release).await.unwrap();
    let ask = || app.orchestrator.start_task(start(&release, "d1/migrate", "echo ran as $WHO; exit 4"));
    let (a, b): (Result<Outcome>, Result<Outcome>) = tokio::join!(ask(), ask());
    let mut outcomes = [a.unwrap(), b.unwrap()];
    outcomes.sort_by_key(|outcome| *outcome != Outcome::Created);
    assert_eq!(outcomes, [Outcome::Created, Outcome::AlreadyThere]);
    let task = ended(&app, "d1/migrate").await;
    assert_eq!(task.exit.unwrap().code, Some(4));
    assert_eq!(ask().await.unwrap(), Outcome::AlreadyThere, "it has ended, and is not started again");
    assert_eq!(super::logs::texts(&app).await, ["ran as me"]);
    assert_eq!(app.instances().await, [], "a task is no instance");

    let forget =
        || app.orchestrator.remove_task(RemoveTask::new(call(), app.name.clone(), TaskId("d1/migrate".into())));
    assert_eq!(forget().await.unwrap(), Outcome::Changed);
    assert_eq!(forget().await.unwrap(), Outcome::AlreadyThere);
    assert_eq!(app.observe().await.tasks, []);
}

#[tokio::test]
async fn a_task_whose_start_was_cut_off_is_started_once() {
    let app = TestApp::new("taskcut").await;
    let release = app.release([("web", app.idle())]);
    app.ensure(&release).await.unwrap();
    for millis in [3, 10, 30, 100, 300] {
        let id = format!("t{millis}");
        let ask = || app.orchestrator.start_task(start(&release, &id, "echo ran"));
        let _ = tokio::time::timeout(std::time::Duration::from_millis(millis), ask()).await;
        until(async || ask().await.ok()).await;
        ended(&app, &id).await;
    }
    assert_eq!(super::logs::texts(&app).await, ["ran"; 5]);
}

#[tokio::test]
async fn a_running_task_is_removed_at_once() {
    let app = TestApp::new("taskrm").await;
    let release = app.release([("web", app.idle())]);
    app.ensure(&release).await.unwrap();
    app.orchestrator.start_task(start(&release, "slow", "sleep 600")).await.unwrap();
    let running = app.observe().await.tasks.remove(0);
    assert!(running.started_at.is_some() && running.exit.is_none());
    let request = RemoveTask::new(call(), app.name.clone(), running.task);
    assert_eq!(app.orchestrator.remove_task(request).await.unwrap(), Outcome::Changed);
    assert_eq!(app.observe().await.tasks, []);
}

#[tokio::test]
async fn a_task_without_its_program_says_so() {
    let app = TestApp::new("tasknope").await;
    let release = app.release([("web", app.idle())]);
    app.ensure(&release).await.unwrap();
    let mut request = start(&release, "t", "");
    request.command = vec!["/nope".into()];
    let error = app.orchestrator.start_task(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Workload);
    assert!(error.message().starts_with("exec: \"/nope\""), "{error}");
    let exit = ended(&app, "t").await.exit.unwrap();
    assert!(exit.unrecoverable);
}
