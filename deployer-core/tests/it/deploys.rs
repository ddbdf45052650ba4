//! Deployments that go well, by every strategy.

use std::sync::Arc;
use std::time::Duration;

use deployer_core::{
    AppSpec, CanaryStep, Deployer, GateCheck, GatePoint, GateSpec, Hook, HookPoint, JournalEvent, OnInconclusive,
    ReleaseNumber, Retention, Route, ServiceSpec, Strategy, TargetRegistration, Verdict,
};
use deployer_testkit::{Behaviour, Options, simulate};

use crate::shop::{
    Counted, app, assert_traffic, blue_green, check_numbers, deploy, deploy_watched, deploy_well, journal, only, shop,
    traffic, web, world, world_with,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn every_strategy_ends_with_the_new_version_serving_and_no_request_lost() {
    let strategies = [
        Strategy::Rolling { surge: 1, unavailable: 0 },
        Strategy::Rolling { surge: 0, unavailable: 1 },
        Strategy::Rolling { surge: 3, unavailable: 0 },
        blue_green(0),
        Strategy::BlueGreen { bake: 5 * SECOND, keep_warm: 60 * SECOND },
        Strategy::Canary {
            steps: vec![CanaryStep { weight: 10, hold: SECOND }, CanaryStep { weight: 50, hold: SECOND }],
        },
        Strategy::Linear { step: 30, interval: SECOND },
    ];
    for strategy in strategies {
        let (world, deployer) = world();
        simulate(async {
            let version = |version| only(web(version).with_strategy(strategy.clone()));
            deploy_well(&deployer, version(1)).await;
            world.assert_serving("shop", "web", "web:v1", 3);
            traffic(&world);
            world.watch_capacity();
            let (record, events) = deploy_watched(&deployer, version(2)).await;
            assert!(record.unwrap().verdict.unwrap().is_promoted(), "{strategy:?}");
            check_numbers(&events);
            assert_traffic(&deployer, 2).await;
            let least = if matches!(strategy, Strategy::Rolling { unavailable: 1, .. }) { 2 } else { 3 };
            world.assert_capacity_at_least("shop", "web", least);
            world.stop_traffic();
            assert!(world.traffic_report().answered() > 20, "{strategy:?}: {:?}", world.traffic_report());
            world.assert_no_requests_lost();
            world.assert_no_violations();
        });
    }
}

#[test]
fn the_same_works_where_the_orchestrator_registers_and_drains() {
    for strategy in [Strategy::Rolling { surge: 1, unavailable: 0 }, blue_green(60)] {
        let (world, deployer) = world_with(Options::default().with_targets(TargetRegistration::Orchestrator));
        simulate(async {
            let version = |version| only(web(version).with_strategy(strategy.clone()));
            deploy_well(&deployer, version(1)).await;
            traffic(&world);
            deploy_well(&deployer, version(2)).await;
            let record = deployer.rollback(&app(), None).finished().await.unwrap();
            assert!(record.verdict.unwrap().is_promoted());
            assert_traffic(&deployer, 1).await;
            world.stop_traffic();
            world.assert_no_requests_lost();
            world.assert_no_violations();
        });
    }
}

#[test]
fn recreate_stops_the_old_before_it_starts_the_new() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, shop(web(1), 1, 1)).await;
        let verdict = deploy(&deployer, shop(web(1), 1, 2)).await;
        assert!(verdict.is_promoted(), "{verdict}");
        world.assert_serving("shop", "cache", "cache:2", 1);
        world.assert_serving("shop", "web", "web:v1", 3);
        // Two revisions on one volume would be a violation.
        world.assert_no_violations();
    });
}

#[test]
fn a_volume_goes_from_one_service_to_another_without_being_written_by_both() {
    let (world, deployer) = world();
    simulate(async {
        let named = |name: &str| AppSpec::new("shop").unwrap().with_service(name, crate::shop::cache(1)).unwrap();
        deploy_well(&deployer, named("cache")).await;
        deploy_well(&deployer, named("store")).await;
        world.assert_serving("shop", "store", "cache:1", 1);
        assert!(!world.describe().contains("cache@"), "{}", world.describe());
        deployer.rollback(&app(), None).finished().await.unwrap();
        world.assert_serving("shop", "cache", "cache:1", 1);
        world.assert_no_violations();
    });
}

#[test]
fn what_has_not_changed_is_left_alone() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, shop(web(1), 1, 1)).await;
        let before = world.describe();
        let (record, events) = deploy_watched(&deployer, shop(web(1), 1, 1)).await;
        let record = record.unwrap();
        assert_eq!(record.target, Some(ReleaseNumber(1)), "nothing new is released");
        assert!(record.verdict.unwrap().is_promoted());
        let acted = journal(&events).iter().filter(|event| matches!(event, JournalEvent::StepStarted { .. })).count();
        assert_eq!(acted, 1, "there is nothing to do but to verify");
        assert_eq!(world.describe(), before);
    });
}

#[test]
fn replicas_are_scaled_without_a_new_revision() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        traffic(&world);
        deploy_well(&deployer, only(web(1).with_replicas(5))).await;
        world.assert_serving("shop", "web", "web:v1", 5);
        deploy_well(&deployer, only(web(1).with_replicas(2))).await;
        world.assert_serving("shop", "web", "web:v1", 2);
        world.stop_traffic();
        world.assert_no_requests_lost();
        world.assert_no_violations();
    });
}

#[test]
fn a_missing_instance_is_brought_back() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        assert_eq!(world.kill_instance("shop", "web", 2), 1);
        deploy_well(&deployer, only(web(1))).await;
        world.assert_serving("shop", "web", "web:v1", 3);
    });
}

#[test]
fn a_service_that_is_not_wanted_any_more_goes() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, shop(web(1), 1, 1)).await;
        deploy_well(&deployer, only(web(1))).await;
        assert!(!world.describe().contains("worker"), "{}", world.describe());
        world.assert_serving("shop", "web", "web:v1", 3);
        world.assert_no_violations();
    });
}

#[test]
fn a_warm_rollback_only_moves_weights_and_a_cold_one_starts_instances() {
    for keep_warm in [600, 0] {
        let (world, deployer) = world();
        simulate(async {
            let version = |version| only(web(version).with_strategy(blue_green(keep_warm)));
            world.on_image("web:v1", Behaviour::slow_start(10 * SECOND));
            deploy_well(&deployer, version(1)).await;
            deploy_well(&deployer, version(2)).await;
            traffic(&world);
            let before = world.now();
            let mut rollback = deployer.rollback(&app(), None);
            let mut moved = None;
            while let Some(event) = rollback.next_event().await {
                let shifted = world.describe();
                if moved.is_none() && event.journal().is_some() && shifted.contains("web:v1") {
                    let status = deployer.status(&app()).await.unwrap();
                    let weighted = status.services[0].revisions.iter().find(|revision| revision.weight == Some(100));
                    if weighted.is_some_and(|revision| revision.release == ReleaseNumber(1)) {
                        moved = Some(world.now().since(before));
                    }
                }
            }
            let record = rollback.finished().await.unwrap();
            assert!(record.verdict.unwrap().is_promoted());
            world.assert_serving("shop", "web", "web:v1", 3);
            let moved = moved.unwrap();
            assert_eq!(moved < SECOND, keep_warm > 0, "moved after {moved:?}");
            world.stop_traffic();
            world.assert_no_requests_lost();
        });
    }
}

#[test]
fn rollbacks_go_to_the_last_known_good_or_to_any_kept_release() {
    let (world, deployer) = world();
    simulate(async {
        for version in 1..=3 {
            deploy_well(&deployer, only(web(version))).await;
        }
        let record = deployer.rollback(&app(), None).finished().await.unwrap();
        assert_eq!(record.target, Some(ReleaseNumber(2)));
        world.assert_serving("shop", "web", "web:v2", 3);
        // Not back to the one that was found wanting.
        let record = deployer.rollback(&app(), None).finished().await.unwrap();
        assert_eq!(record.target, Some(ReleaseNumber(1)));
        let record = deployer.rollback(&app(), Some(ReleaseNumber(3))).finished().await.unwrap();
        assert!(record.verdict.unwrap().is_promoted());
        world.assert_serving("shop", "web", "web:v3", 3);
        let error = deployer.rollback(&app(), Some(ReleaseNumber(9))).finished().await.unwrap_err();
        assert_eq!(error.kind(), deployer_core::ErrorKind::NotFound);
    });
}

#[test]
fn hooks_run_once_and_in_their_place() {
    let (world, deployer) = world();
    simulate(async {
        let hooked = |version| {
            web(version)
                .with_hook(Hook::new("migrate", HookPoint::PreDeploy, ["migrate"]))
                .with_hook(Hook::new("warm-up", HookPoint::PostDeploy, ["warm-up"]))
                .with_hook(Hook::new("goodbye", HookPoint::PreStop, ["goodbye"]))
        };
        deploy_well(&deployer, shop(hooked(1), 1, 1)).await;
        let (record, events) = deploy_watched(&deployer, shop(hooked(2), 1, 1)).await;
        assert!(record.unwrap().verdict.unwrap().is_promoted());
        let JournalEvent::Opened { plan, .. } = journal(&events)[0] else { panic!("no opening") };
        let mut order = Vec::new();
        for event in journal(&events) {
            if let JournalEvent::StepFinished { step, .. } = event {
                order.push(plan.step(*step).unwrap().action.to_string());
            }
        }
        let place = |text: &str| order.iter().position(|action| action.contains(text)).unwrap();
        assert!(place("hook migrate") < place("start web@"));
        assert!(place("move the traffic of web") < place("hook warm-up"));
        assert!(place("hook warm-up") < place("verify"));
        assert!(place("hook goodbye") < place("stop web@"));
        assert!(!world.describe().contains("task"), "tasks are forgotten: {}", world.describe());
        world.assert_no_violations();
    });
}

#[test]
fn a_task_runs_before_those_that_wait_for_it_and_again_when_it_is_another() {
    let (world, deployer) = world();
    world.on_image("worker:v3", Behaviour::task(SECOND, 3).with_log("no such table"));
    simulate(async {
        let waiting = |version, task| {
            let run = Hook::new("run", HookPoint::PreDeploy, [""; 0]);
            let task = ServiceSpec::image(format!("worker:v{task}")).with_replicas(0).with_hook(run);
            let web = web(version).with_dependency("migrate").unwrap();
            only(web).with_service("migrate", task).unwrap()
        };
        let executed = || world.executions_by_hook("shop").values().sum::<u32>();
        let (record, events) = deploy_watched(&deployer, waiting(1, 1)).await;
        assert!(record.unwrap().verdict.unwrap().is_promoted());
        assert_eq!(executed(), 1);
        let finished: Vec<String> = journal(&events)
            .iter()
            .filter_map(|event| match event {
                JournalEvent::StepFinished { step, .. } => Some(step),
                _ => None,
            })
            .map(|step| match journal(&events)[0] {
                JournalEvent::Opened { plan, .. } => plan.step(*step).unwrap().action.to_string(),
                _ => panic!("no opening"),
            })
            .collect();
        let place = |text: &str| finished.iter().position(|action| action.contains(text)).unwrap();
        assert!(place("hook run") < place("start web@"), "{finished:?}");

        // The same again, and only what waits for it is another.
        deploy_well(&deployer, waiting(1, 1)).await;
        deploy_well(&deployer, waiting(2, 1)).await;
        assert_eq!(executed(), 1);
        deploy_well(&deployer, waiting(2, 2)).await;
        assert_eq!(executed(), 2);
        // One that was never proven runs again.
        for executions in [3, 4] {
            let (record, _) = deploy_watched(&deployer, waiting(3, 3)).await;
            let verdict = record.unwrap().verdict.unwrap();
            assert!(!verdict.is_promoted() && verdict.to_string().contains("code 3"), "{verdict}");
            assert_eq!(executed(), executions);
        }
        world.assert_serving("shop", "web", "web:v2", 3);
        world.assert_no_violations();
    });
}

#[test]
fn the_stop_script_of_a_standby_runs_when_it_is_stopped() {
    let (world, deployer) = world();
    simulate(async {
        let kept = |version| {
            let goodbye = Hook::new("goodbye", HookPoint::PreStop, ["goodbye"]);
            only(web(version).with_strategy(blue_green(600)).with_hook(goodbye))
        };
        let ran = |events: &[deployer_core::Event]| {
            let JournalEvent::Opened { plan, .. } = journal(events)[0] else { panic!("no opening") };
            plan.steps.iter().filter(|step| step.action.name() == "run-hook").count()
        };
        deploy_well(&deployer, kept(1)).await;
        let (_, second) = deploy_watched(&deployer, kept(2)).await;
        let (third, events) = deploy_watched(&deployer, kept(3)).await;
        assert!(third.unwrap().verdict.unwrap().is_promoted());
        assert_eq!((ran(&second), ran(&events)), (0, 1));
        world.assert_no_violations();
    });
}

#[test]
fn gates_hold_the_traffic_back_until_they_pass() {
    let (world, deployer) = world();
    simulate(async {
        let smoke = GateCheck::Smoke { path: "/healthz".into(), port: 8080, status: 200, contains: None };
        let errors = GateCheck::ErrorRate { max_permille: 10, min_requests: 50 };
        let gated = |version| {
            web(version)
                .with_strategy(Strategy::Canary { steps: vec![CanaryStep { weight: 50, hold: 3 * SECOND }] })
                .with_gate(GateSpec::new("smoke", GatePoint::BeforeTraffic, smoke.clone()))
                .with_gate(
                    GateSpec::new("errors", GatePoint::Holding, errors.clone())
                        .with_on_inconclusive(OnInconclusive::Fail),
                )
        };
        deploy_well(&deployer, only(web(1))).await;
        traffic(&world);
        let (record, events) = deploy_watched(&deployer, only(gated(2))).await;
        let record = record.unwrap();
        assert!(record.verdict.as_ref().unwrap().is_promoted(), "{:?}", record.verdict);
        let asked = |name: &str| {
            journal(&events)
                .iter()
                .filter(|event| matches!(event, JournalEvent::GateAsked { gate, .. } if gate == name))
                .count()
        };
        assert_eq!(asked("smoke"), 1);
        assert!(asked("errors") >= 2);
    });
}

#[test]
fn approval_waits_for_somebody() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        let approval = GateCheck::Approval { timeout: 3600 * SECOND };
        let spec = only(web(2).with_gate(GateSpec::new("go", GatePoint::BeforeTraffic, approval)));
        let deployment = deployer.deploy(spec, Default::default());
        world.clock().sleep(60 * SECOND).await;
        assert_traffic(&deployer, 1).await;
        let signalled = deployer.promote(&app(), "anna").await.unwrap();
        assert!(signalled.driven);
        assert!(deployment.finished().await.unwrap().verdict.unwrap().is_promoted());
        world.assert_serving("shop", "web", "web:v2", 3);
    });
}

#[test]
fn destroying_leaves_nothing_and_history_stays() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, shop(web(1), 1, 1)).await;
        let record = deployer.destroy(&app(), true).finished().await.unwrap();
        assert_eq!(record.verdict, Some(Verdict::Promoted { leftovers: Vec::new() }));
        world.assert_nothing_left("shop");
        assert_eq!(deployer.history(&app()).await.unwrap().len(), 2);
        assert_eq!(deployer.status(&app()).await.unwrap().serving, None);
        world.assert_no_violations();
    });
}

#[test]
fn pruning_keeps_what_can_be_rolled_back_to() {
    let (world, deployer) = world();
    simulate(async {
        for version in 1..=4 {
            deploy_well(&deployer, only(web(version).with_strategy(blue_green(60)))).await;
        }
        let pruned = deployer.prune(&app(), Retention::releases(2)).await.unwrap();
        assert_eq!(pruned.releases, [ReleaseNumber(2), ReleaseNumber(1)]);
        assert_eq!((pruned.definitions.len(), world.definitions("shop").len()), (2, 2));
        assert!(pruned.revisions.is_empty(), "the standby stays up for a minute");
        world.clock().sleep(61 * SECOND).await;
        let pruned = deployer.prune(&app(), Retention::releases(1)).await.unwrap();
        assert_eq!(pruned.revisions.len(), 1, "it is stopped after that");
        let record = deployer.rollback(&app(), None).finished().await.unwrap();
        assert_eq!(record.target, Some(ReleaseNumber(3)), "the default is never pruned");
        assert!(record.verdict.unwrap().is_promoted());
        world.assert_no_violations();
    });
}

#[test]
fn a_plan_is_applied_only_while_the_world_is_as_it_was() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        let spec: AppSpec = only(web(2));
        let preview = deployer.plan(&spec, &Default::default()).await.unwrap();
        world.assert_serving("shop", "web", "web:v1", 3);
        let text = serde_json::to_string(&preview).unwrap();
        let preview: deployer_core::Preview = serde_json::from_str(&text).unwrap();
        deploy_well(&deployer, only(web(3))).await;
        let error = deployer.apply(preview).unwrap().finished().await.unwrap_err();
        assert_eq!(error.kind(), deployer_core::ErrorKind::Conflict, "{error}");
        let preview = deployer.plan(&spec, &Default::default()).await.unwrap();
        let record = deployer.apply(preview).unwrap().finished().await.unwrap();
        assert!(record.verdict.unwrap().is_promoted());
        world.assert_serving("shop", "web", "web:v2", 3);
    });
}

#[test]
fn many_services_are_looked_at_together() {
    let looks = |services: u32| {
        let (world, _) = world();
        let looks = Arc::new(Counted::new("orchestrator.observe"));
        let counted = Arc::clone(&looks);
        let deployer = Deployer::builder(world.backend()).clock(world.clock()).intercept(counted).build();
        let app = |version| {
            (0..services).fold(AppSpec::new("shop").unwrap(), |app, number| {
                let route = Route::new(8080).with_host(format!("s{number}.example"));
                let service = ServiceSpec::image(format!("web:v{version}")).with_route(route);
                app.with_service(format!("s{number}"), service.with_strategy(blue_green(0))).unwrap()
            })
        };
        simulate(async {
            deploy_well(&deployer, app(1)).await;
            deploy_well(&deployer, app(2)).await;
        });
        looks.times()
    };
    // What is about to be taken out of rotation or stopped is looked at alone: twice for each service.
    let (one, many) = (looks(1), looks(30));
    assert!(many < one + 3 * 30, "{many} looks at 30 services, {one} at one");
}
