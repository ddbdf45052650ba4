use deployer_core::{Effect, ErrorKind, InstancePhase, Mount, Resources, Restart, Retry};

use crate::engine::{TestApp, until};

fn memory(bytes: u64) -> Resources {
    let mut resources = Resources::default();
    resources.memory_bytes = Some(bytes);
    resources
}

#[tokio::test]
async fn an_exit_has_its_code() {
    let app = TestApp::new("exit").await;
    let mut service = app.shell("exit 3");
    service.workload.restart = Restart::No;
    let release = app.release([("job", service)]);
    app.run(&release, "job", 1).await;
    let gone = app.first_once(|instance| instance.phase == InstancePhase::Exited).await;
    let exit = gone.exit.unwrap();
    assert_eq!((exit.code, exit.out_of_memory, exit.unrecoverable), (Some(3), false, false));
    assert!(exit.at >= gone.started_at);
    assert_eq!(gone.crashes, 1);
}

#[tokio::test]
async fn a_crash_loop_is_counted_and_its_exit_remembered() {
    let app = TestApp::new("loop").await;
    let release = app.release([("job", app.shell("sleep 0.2; exit 7"))]);
    app.run(&release, "job", 1).await;
    for phase in [InstancePhase::Restarting, InstancePhase::Running] {
        let seen = app.first_once(|instance| instance.phase == phase && instance.crashes >= 1).await;
        assert_eq!(seen.exit.clone().expect("it has exited before").code, Some(7), "{phase:?}");
        assert_eq!(seen.is_ready(), phase == InstancePhase::Running);
    }
}

#[tokio::test]
async fn running_out_of_memory_is_recognised() {
    let app = TestApp::new("oom").await;
    let mut service = app.shell("x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done").with_resources(memory(16 << 20));
    service.workload.restart = Restart::No;
    let release = app.release([("job", service)]);
    app.run(&release, "job", 1).await;
    let gone = app.first_once(|instance| instance.phase == InstancePhase::Exited).await;
    let exit = gone.exit.unwrap();
    assert!(exit.out_of_memory && exit.unrecoverable, "{exit:?}");
}

#[tokio::test]
async fn a_missing_executable_is_the_workloads_fault() {
    let app = TestApp::new("nope").await;
    let mut service = app.idle();
    service.workload.entrypoint = Some(vec!["/nope".into()]);
    let release = app.release([("web", service)]);
    app.ensure(&release).await.unwrap();
    let error = app.launch(&release, "web", 2).await.unwrap_err();
    assert_eq!((error.kind(), error.effect(), error.retry()), (ErrorKind::Workload, Effect::Done, Retry::Never));
    assert_eq!(error.message(), "exec: \"/nope\": stat /nope: no such file or directory");
    assert!(error.help().is_some());
    let instances = app.instances().await;
    assert_eq!(instances.len(), 2);
    for instance in instances {
        let exit = instance.exit.unwrap();
        assert_eq!(instance.phase, InstancePhase::Pending);
        assert_eq!((exit.error.as_deref(), exit.unrecoverable), (Some(error.message()), true));
    }
}

#[tokio::test]
async fn what_the_engine_refuses_to_create_leaves_nothing() {
    let app = TestApp::new("refused").await;
    let tiny = app.idle().with_resources(memory(1 << 20));
    let nowhere = app.idle().with_mount(Mount::bind("/nowhere/at/all", "/x"));
    for (service, words) in [(tiny, "memory limit"), (nowhere, "bind source path does not exist")] {
        let release = app.release([("web", service)]);
        app.ensure(&release).await.unwrap();
        let error = app.launch(&release, "web", 1).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Workload, Effect::None), "{error}");
        assert!(error.message().contains(words) && error.help().is_some(), "{error:?}");
        assert_eq!(app.instances().await, []);
    }
}

#[tokio::test]
async fn an_image_that_is_gone_is_not_found() {
    let app = TestApp::new("gone").await;
    let mut service = app.idle();
    service.image.location = format!("sha256:{}", "0".repeat(64));
    let release = app.release([("web", service)]);
    app.ensure(&release).await.unwrap();
    let error = app.launch(&release, "web", 1).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::NotFound, Effect::None), "{error:?}");
    assert!(error.help().is_some());
}

#[tokio::test]
async fn a_command_that_is_not_there_shows_after_the_start() {
    let app = TestApp::new("cmd127").await;
    let mut service = app.shell("no-such-command");
    service.workload.restart = Restart::OnFailure { max_retries: Some(1) };
    let release = app.release([("web", service)]);
    app.run(&release, "web", 1).await;
    let gone = until(async || app.instances().await.into_iter().find(|each| each.phase == InstancePhase::Exited)).await;
    let exit = gone.exit.unwrap();
    assert_eq!((exit.code, exit.unrecoverable, gone.crashes), (Some(127), true, 2));
}
