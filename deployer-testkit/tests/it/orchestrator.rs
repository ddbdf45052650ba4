//! The rules of the orchestrator, and what simulated programs do.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use deployer_core::{
    Call, ErrorKind, Health, Hook, HookPoint, InstancePhase, LogQuery, LogStream, ObserveApp, Outcome, Reduce, Release,
    RemoveTask, Restart, SmokeRequest, StartTask, TaskId,
};
use deployer_testkit::{Behaviour, Options, Rule, World, simulate};

use crate::fixture::{Driver, app, revision, spec, web};

async fn driver(world: World) -> (Driver, Arc<Release>) {
    let driver = Driver::new(world).await;
    let release = driver.release(spec("shop:v1")).await;
    driver.prepare(&release).await;
    (driver, release)
}

/// The lines of a stream that does not follow.
async fn lines(driver: &Driver, query: LogQuery) -> Vec<String> {
    let stream = driver.backend.orchestrator.logs(query).await.unwrap();
    ready_lines(&mut { stream })
}

fn ready_lines(stream: &mut LogStream) -> Vec<String> {
    let mut context = Context::from_waker(Waker::noop());
    let mut lines = Vec::new();
    while let Poll::Ready(Some(line)) = stream.as_mut().poll_next(&mut context) {
        lines.push(line.unwrap().text);
    }
    lines
}

#[test]
fn instances_become_ready_in_their_own_time() {
    simulate(async {
        let world = World::new();
        world.on_image("shop:v1", Behaviour::slow_start(Duration::from_secs(40)));
        let (driver, release) = driver(world).await;
        driver.launch(&release, 1).await.unwrap();
        driver.sleep(39).await;
        let young = driver.instances(&release).await.remove(0);
        assert_eq!((young.phase, young.health), (InstancePhase::Running, Health::Starting));
        driver.sleep(1).await;
        let ready = driver.instances(&release).await.remove(0);
        assert!(ready.is_ready());
        assert_eq!(ready.address.as_deref(), Some("10.0.0.1"));
        // Its release wants it probed, and this look does not.
        let unprobed = driver.backend.orchestrator.observe(ObserveApp::new(app())).await.unwrap();
        assert_eq!(unprobed.instances[0].health, Health::Unknown);
    });
}

#[test]
fn a_crash_loop_backs_off_and_keeps_its_last_words() {
    simulate(async {
        let world = World::new();
        world.on_image("shop:v1", Behaviour::crash_loop(3).with_log("FATAL: no database"));
        let (driver, release) = driver(world).await;
        driver.launch(&release, 1).await.unwrap();
        // Runs 50 ms, waits 100; 50, 200; 50, 400; 50, 800: the fourth crash is at 900.
        driver.sleep(1).await;
        let instance = driver.instances(&release).await.remove(0);
        assert_eq!((instance.phase, instance.crashes), (InstancePhase::Restarting, 4));
        assert_eq!(instance.exit.unwrap().code, Some(3));
        let query = LogQuery::new(app()).with_services(vec![web()]).with_tail(2);
        assert_eq!(lines(&driver, query).await, ["FATAL: no database"; 2]);
    });
}

#[test]
fn a_program_may_crash_in_its_first_runs_only() {
    simulate(async {
        let world = World::new();
        world.on_image("shop:v1", Behaviour::crash_after(Duration::from_secs(2), 1).times(1));
        let (driver, release) = driver(world).await;
        driver.launch(&release, 1).await.unwrap();
        driver.sleep(10).await;
        let instance = driver.instances(&release).await.remove(0);
        assert!(instance.is_ready());
        assert_eq!(instance.crashes, 1);
    });
}

#[test]
fn without_a_restart_policy_what_ended_stays_so_until_it_is_launched_again() {
    simulate(async {
        let world = World::new();
        world.on_service("web", Behaviour::out_of_memory(Duration::from_secs(1)).times(1));
        let driver = Driver::new(world).await;
        let mut service = spec("shop:v1");
        service.workload.restart = Restart::No;
        let release = driver.release(service).await;
        driver.prepare(&release).await;
        driver.launch(&release, 1).await.unwrap();
        driver.sleep(60).await;
        let instance = driver.instances(&release).await.remove(0);
        let exit = instance.exit.unwrap();
        assert_eq!((instance.phase, exit.code, exit.out_of_memory), (InstancePhase::Exited, Some(137), true));
        assert_eq!(driver.launch(&release, 1).await.unwrap(), Outcome::Changed);
        driver.sleep(60).await;
        assert!(driver.instances(&release).await[0].is_ready());
    });
}

#[test]
fn what_cannot_start_fails_the_launch_and_is_seen_pending() {
    simulate(async {
        let world = World::new();
        world.on_env("MODE", "broken", Behaviour::start_error("exec: \"/nope\": no such file or directory"));
        let driver = Driver::new(world).await;
        let release = driver.release(spec("shop:v1").with_env("MODE", "broken")).await;
        driver.prepare(&release).await;
        let error = driver.launch(&release, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Workload);
        assert!(error.to_string().contains("/nope"), "{error}");
        let instance = driver.instances(&release).await.remove(0);
        assert_eq!(instance.phase, InstancePhase::Pending);
        assert!(instance.exit.unwrap().unrecoverable);
    });
}

#[test]
fn checks_tell_their_words() {
    simulate(async {
        let world = World::new();
        world.on_image("shop:v1", Behaviour::never_healthy("HTTP 503: no database"));
        world.on_image("shop:v2", Behaviour::sick_after(Duration::from_secs(5), "HTTP 500"));
        let (driver, first) = driver(world).await;
        let second = driver.release(spec("shop:v2")).await;
        driver.launch(&first, 1).await.unwrap();
        driver.launch(&second, 1).await.unwrap();
        driver.sleep(4).await;
        let never = driver.instances(&first).await.remove(0);
        assert_eq!(never.health, Health::Unhealthy);
        assert_eq!(never.health_detail.as_deref(), Some("HTTP 503: no database"));
        assert!(driver.instances(&second).await[0].is_ready());
        driver.sleep(1).await;
        assert_eq!(driver.instances(&second).await[0].health_detail.as_deref(), Some("HTTP 500"));
    });
}

#[test]
fn stopping_takes_what_the_program_needs_and_at_most_its_grace() {
    simulate(async {
        let world = World::new();
        world.on_image("shop:v1", Behaviour::slow_stop(Duration::from_secs(4)));
        world.on_image("shop:v2", Behaviour::slow_stop(Duration::from_secs(400)));
        let (driver, first) = driver(world).await;
        let second = driver.release(spec("shop:v2")).await;
        for (release, takes) in [(&first, 4), (&second, 10)] {
            driver.launch(release, 2).await.unwrap();
            driver.sleep(2).await;
            let before = driver.world.now();
            driver.reduce(release, 0).await;
            assert_eq!(driver.world.now().since(before).as_secs(), takes);
            assert!(driver.instances(release).await.is_empty());
        }
    });
}

#[test]
fn a_reduce_that_is_dropped_half_way_can_be_repeated() {
    simulate(async {
        let world = World::new();
        world.on_image("shop:v1", Behaviour::slow_stop(Duration::from_secs(5)));
        let (driver, release) = driver(world).await;
        driver.launch(&release, 1).await.unwrap();
        driver.sleep(2).await;
        let request = Reduce::new(driver.call(), app(), revision(&release), 0);
        let reduce = driver.backend.orchestrator.reduce(request.clone());
        assert!(tokio::time::timeout(Duration::from_secs(1), reduce).await.is_err());
        assert_eq!(driver.instances(&release).await[0].phase, InstancePhase::Stopping);
        let early = driver.launch(&release, 1).await.unwrap_err();
        assert_eq!(early.kind(), ErrorKind::Conflict);
        driver.sleep(10).await;
        assert_eq!(driver.instances(&release).await[0].phase, InstancePhase::Exited);
        assert_eq!(driver.backend.orchestrator.reduce(request).await.unwrap(), Outcome::Changed);
        assert!(driver.instances(&release).await.is_empty());
    });
}

#[test]
fn a_task_runs_once_whatever_is_repeated() {
    simulate(async {
        let world = World::new();
        world.on_command("migrate", Behaviour::task(Duration::from_secs(5), 1).with_log("relation exists"));
        let (driver, release) = driver(world).await;
        let hook = Hook::new("migrate", HookPoint::PreDeploy, ["migrate", "up"]);
        let task = TaskId("d1-migrate".into());
        let start = |call: Call| {
            let request = StartTask::new(call, task.clone(), Arc::clone(&release), web(), hook.command.clone());
            driver.backend.orchestrator.start_task(request)
        };
        let call = driver.call();
        assert_eq!(start(call.clone()).await.unwrap(), Outcome::Created);
        assert_eq!(start(call).await.unwrap(), Outcome::AlreadyThere);
        let observe = || driver.backend.orchestrator.observe(ObserveApp::new(app()));
        driver.sleep(4).await;
        assert_eq!(observe().await.unwrap().tasks[0].exit, None);
        driver.sleep(1).await;
        let ended = observe().await.unwrap().tasks.remove(0);
        assert_eq!(ended.exit.unwrap().code, Some(1));
        let query = LogQuery::new(app()).with_instance(ended.instance);
        assert_eq!(lines(&driver, query).await, ["relation exists"]);
        assert_eq!(start(driver.call()).await.unwrap(), Outcome::AlreadyThere);
        assert_eq!(driver.world.executions("shop", &task), 1);
        driver.world.assert_no_violations();

        let remove = RemoveTask::new(driver.call(), app(), task.clone());
        assert_eq!(driver.backend.orchestrator.remove_task(remove.clone()).await.unwrap(), Outcome::Changed);
        assert_eq!(driver.backend.orchestrator.remove_task(remove).await.unwrap(), Outcome::AlreadyThere);
        start(driver.call()).await.unwrap();
        assert_eq!(driver.world.executions("shop", &task), 2);
        assert_eq!(driver.world.violations()[0].rule, Rule::TaskRunsOnce);
    });
}

#[test]
fn smoke_requests_reach_every_running_instance() {
    simulate(async {
        let world = World::new();
        world.on_image("shop:v1", Behaviour::healthy().with_answer(204, "fine"));
        let (driver, release) = driver(world).await;
        driver.launch(&release, 2).await.unwrap();
        let smoke = || {
            let request = SmokeRequest::new(driver.world.now(), app(), revision(&release), 80, "/".into());
            driver.backend.orchestrator.smoke(request)
        };
        assert!(smoke().await.unwrap().iter().all(|answer| answer.answer.is_err()));
        driver.sleep(1).await;
        let answers = smoke().await.unwrap();
        assert_eq!(answers.len(), 2);
        assert!(answers.iter().all(|answer| answer.answer == Ok((204, "fine".into()))));
    });
}

#[test]
fn following_logs_get_what_is_written_later() {
    simulate(async {
        let world = World::new();
        let later = Duration::from_secs(30);
        let talking = Behaviour::healthy().with_log("hello").with_line_after(
            later,
            deployer_core::OutputStream::Stdout,
            "still here",
        );
        world.on_image("shop:v1", talking);
        let (driver, release) = driver(world).await;
        driver.launch(&release, 1).await.unwrap();
        let mut stream = driver.backend.orchestrator.logs(LogQuery::new(app()).following()).await.unwrap();
        let started = driver.world.now();
        let mut seen = Vec::new();
        for _ in 0..2 {
            let line = std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await.unwrap().unwrap();
            seen.push((line.at.unwrap().since(started), line.text));
        }
        assert_eq!(seen, [(Duration::ZERO, "hello".to_owned()), (later, "still here".to_owned())]);
    });
}

#[test]
fn order_is_the_seeds() {
    let order = |seed| {
        simulate(async {
            let (driver, first) = driver(World::with_options(Options::default().with_seed(seed))).await;
            driver.launch(&first, 2).await.unwrap();
            for image in ["shop:v2", "shop:v3"] {
                let release = driver.release(spec(image)).await;
                driver.launch(&release, 2).await.unwrap();
            }
            let seen = driver.backend.orchestrator.observe(ObserveApp::new(app())).await.unwrap();
            let names: Vec<String> = seen.instances.into_iter().map(|instance| instance.name).collect();
            names
        })
    };
    assert_eq!(order(5), order(5));
    let orders: std::collections::BTreeSet<Vec<String>> = (0..20).map(order).collect();
    assert!(orders.len() > 1, "every seed gives the same order");
}
