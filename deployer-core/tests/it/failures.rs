//! Deployments that fail: what was there before serves again, nothing is left over, and the verdict says why.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deployer_core::{
    AppSpec, CanaryStep, ErrorKind, Gate, GateAnswer, GateCheck, GatePoint, GateQuestion, GateSpec, Hook, HookPoint,
    Result, Strategy, Verdict,
};
use deployer_testkit::{Behaviour, World, simulate};

use crate::shop::{app, blue_green, deploy, deploy_well, only, shop, traffic, web, world};

const SECOND: Duration = Duration::from_secs(1);

/// Deploys version 1, then this, which must be rolled back; answers the verdict's text.
async fn rolled_back(world: &World, deployer: &deployer_core::Deployer, spec: AppSpec) -> String {
    deploy_well(deployer, only(web(1))).await;
    traffic(world);
    world.watch_capacity();
    let verdict = deploy(deployer, spec).await;
    world.stop_traffic();
    assert_eq!(verdict.word(), "rolled-back", "{verdict}");
    world.assert_serving("shop", "web", "web:v1", 3);
    world.assert_capacity_at_least("shop", "web", 3);
    assert!(!world.describe().contains("web:v2"), "{}", world.describe());
    world.assert_no_requests_lost();
    world.assert_no_violations();
    verdict.to_string()
}

#[test]
fn what_does_not_start_is_rolled_back_with_the_evidence() {
    let logged = Behaviour::crash_loop(3).with_log("FATAL: DATABASE_URL has no scheme");
    for (behaviour, expected) in [
        (logged, vec!["exited with code 3", "FATAL: DATABASE_URL has no scheme"]),
        (Behaviour::crash_loop(127), vec!["exited with code 127", "does not exist in the image"]),
        (Behaviour::out_of_memory(SECOND), vec!["for want of memory"]),
        (Behaviour::never_healthy("GET /healthz answered 503"), vec!["0 of 3 instances", "GET /healthz answered 503"]),
        (Behaviour::start_error("exec: \"/nope\": no such file or directory"), vec!["/nope"]),
    ] {
        let (world, deployer) = world();
        simulate(async {
            world.on_image("web:v2", behaviour);
            let text = rolled_back(&world, &deployer, only(web(2))).await;
            for part in expected {
                assert!(text.contains(part), "{part:?} is not in: {text}");
            }
        });
    }
}

#[test]
fn what_stood_by_before_still_does_afterwards() {
    let (world, deployer) = world();
    simulate(async {
        for version in 1..=2 {
            deploy_well(&deployer, only(web(version).with_strategy(crate::shop::blue_green(600)))).await;
        }
        world.on_image("web:v3", Behaviour::crash_loop(3));
        let verdict = deploy(&deployer, only(web(3))).await;
        assert_eq!(verdict.word(), "rolled-back");
        crate::shop::assert_traffic(&deployer, 2).await;
        let status = deployer.status(&app()).await.unwrap();
        let standing_by = status.services[0].revisions.iter().find(|revision| revision.release.0 == 1).unwrap();
        assert_eq!((standing_by.weight, standing_by.instances.len()), (Some(0), 3));
    });
}

#[test]
fn a_crash_loop_is_not_waited_for_until_the_deadline() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        world.on_image("web:v2", Behaviour::crash_loop(1));
        let before = world.now();
        let verdict = deploy(&deployer, only(web(2).with_ready_deadline(600 * SECOND))).await;
        assert_eq!(verdict.word(), "rolled-back");
        assert!(world.now().since(before) < 30 * SECOND, "{:?}", world.now().since(before));
    });
}

#[test]
fn a_crash_while_it_bakes_is_rolled_back() {
    let (world, deployer) = world();
    simulate(async {
        world.on_image("web:v2", Behaviour::crash_after(5 * SECOND, 134));
        let baking = Strategy::BlueGreen { bake: 20 * SECOND, keep_warm: Duration::ZERO };
        deploy_well(&deployer, only(web(1))).await;
        let verdict = deploy(&deployer, only(web(2).with_strategy(baking))).await;
        assert!(verdict.to_string().contains("crashed while it had 100 % of the traffic"), "{verdict}");
        world.assert_serving("shop", "web", "web:v1", 3);
    });
}

#[test]
fn a_canary_with_errors_is_rolled_back_by_its_gate() {
    let (world, deployer) = world();
    simulate(async {
        world.on_image("web:v2", Behaviour::healthy().with_errors_permille(300));
        let gate = GateCheck::ErrorRate { max_permille: 50, min_requests: 20 };
        let spec = only(
            web(2)
                .with_strategy(Strategy::Canary { steps: vec![CanaryStep { weight: 20, hold: 10 * SECOND }] })
                .with_gate(GateSpec::new("errors", GatePoint::Holding, gate)),
        );
        deploy_well(&deployer, only(web(1))).await;
        traffic(&world);
        let verdict = deploy(&deployer, spec).await;
        assert!(verdict.to_string().contains("gate errors says no"), "{verdict}");
        world.assert_serving("shop", "web", "web:v1", 3);
    });
}

#[test]
fn a_failing_hook_is_rolled_back_before_anything_starts() {
    for (point, outcome) in
        [(HookPoint::PreDeploy, "exited with code 9"), (HookPoint::PostDeploy, "exited with code 9")]
    {
        let (world, deployer) = world();
        simulate(async {
            world.on_command("migrate", Behaviour::task(SECOND, 9).with_log("relation does not exist"));
            let spec = only(web(2).with_hook(Hook::new("migrate", point, ["migrate"])));
            let text = rolled_back(&world, &deployer, spec).await;
            assert!(text.contains(outcome) && text.contains("relation does not exist"), "{text}");
        });
    }
}

#[test]
fn a_hook_that_does_not_end_fails_by_its_timeout() {
    let (world, deployer) = world();
    simulate(async {
        world.on_command("migrate", Behaviour::task(3600 * SECOND, 0));
        let hook = Hook::new("migrate", HookPoint::PreDeploy, ["migrate"]).with_timeout(5 * SECOND);
        let text = rolled_back(&world, &deployer, only(web(2).with_hook(hook))).await;
        assert!(text.contains("did not end within 5s"), "{text}");
        assert!(!world.describe().contains("task"), "{}", world.describe());
    });
}

#[test]
fn one_service_that_fails_brings_all_back() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, shop(web(1), 1, 1)).await;
        traffic(&world);
        world.on_image("worker:v2", Behaviour::crash_loop(1));
        let verdict = deploy(&deployer, shop(web(2), 2, 1)).await;
        assert_eq!(verdict.word(), "rolled-back");
        world.assert_serving("shop", "web", "web:v1", 3);
        world.assert_serving("shop", "worker", "worker:v1", 1);
        world.assert_serving("shop", "cache", "cache:1", 1);
        world.stop_traffic();
        let report = world.traffic_report();
        assert!(report.lost.is_empty(), "{:?}", report.lost);
        world.assert_no_violations();
    });
}

#[test]
fn a_failing_database_is_brought_back_on_its_volume() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, shop(web(1), 1, 1)).await;
        world.on_image("cache:2", Behaviour::crash_loop(1));
        let verdict = deploy(&deployer, shop(web(2), 1, 2)).await;
        assert_eq!(verdict.word(), "rolled-back", "{verdict}");
        world.assert_serving("shop", "cache", "cache:1", 1);
        world.assert_serving("shop", "web", "web:v1", 3);
        world.assert_no_violations();
    });
}

#[test]
fn a_first_deployment_that_fails_leaves_nothing() {
    let (world, deployer) = world();
    simulate(async {
        world.on_image("web:v1", Behaviour::crash_loop(1));
        let verdict = deploy(&deployer, only(web(1))).await;
        assert_eq!(verdict.word(), "rolled-back");
        world.assert_nothing_left("shop");
    });
}

#[test]
fn an_image_that_is_missing_is_an_error_before_anything_is_touched() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        let before = world.describe();
        let spec =
            AppSpec::new("shop").unwrap().with_service("web", deployer_core::ServiceSpec::image("nope:1")).unwrap();
        let error = deployer.deploy(spec, Default::default()).finished().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(world.describe(), before);
        assert_eq!(deployer.history(&app()).await.unwrap().len(), 1);
    });
}

#[test]
fn what_the_backend_cannot_run_is_refused_before_anything_is_touched() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        let before = world.describe();
        world.cannot_run("web", "this platform has no GPUs");
        // It is not even looked for.
        let mut spec = only(web(2));
        spec.services.get_mut("web").unwrap().image = deployer_core::ImageSource::Reference("nope:1".into());
        let planned = deployer.plan(&spec, &Default::default()).await.unwrap_err();
        let error = deployer.deploy(spec, Default::default()).finished().await.unwrap_err();
        for error in [planned, error] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let text = error.report().to_string();
            assert!(text.contains("services.web: this platform has no GPUs"), "{text}");
        }
        assert_eq!(world.describe(), before);
        assert_eq!(deployer.history(&app()).await.unwrap().len(), 1);
    });
}

#[test]
fn when_the_way_back_fails_too_somebody_has_to_look() {
    let (world, deployer) = world();
    simulate(async {
        let recreate = |version| only(web(version).with_strategy(Strategy::Recreate));
        deploy_well(&deployer, recreate(1)).await;
        world.on_image("web:v1", Behaviour::crash_loop(2));
        world.on_image("web:v2", Behaviour::crash_loop(1));
        let verdict = deploy(&deployer, recreate(2)).await;
        let Verdict::NeedsAttention { cause, rollback } = verdict else { panic!("{verdict}") };
        assert!(cause.to_string().contains("exited with code 1"), "{cause}");
        assert!(rollback.unwrap().to_string().contains("exited with code 2"));
    });
}

#[test]
fn somebody_who_moves_weights_is_reported() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        let canary = Strategy::Canary {
            steps: vec![CanaryStep { weight: 10, hold: 60 * SECOND }, CanaryStep { weight: 50, hold: SECOND }],
        };
        let mut deployment = deployer.deploy(only(web(2).with_strategy(canary)), Default::default());
        world.clock().sleep(20 * SECOND).await;
        let status = deployer.status(&app()).await.unwrap();
        let weights =
            status.services[0].revisions.iter().map(|r| (r.revision.clone(), if r.current { 30 } else { 70 }));
        assert!(world.move_weights_by_hand("shop", "web", &weights.collect()));
        while deployment.next_event().await.is_some() {}
        let verdict = deployment.finished().await.unwrap().verdict.unwrap();
        assert!(verdict.to_string().contains("somebody else has moved the traffic"), "{verdict}");
        world.assert_serving("shop", "web", "web:v1", 3);
    });
}

/// A gate that says yes, no, or cannot be asked.
#[derive(Debug)]
struct Says(Option<bool>);

#[async_trait]
impl Gate for Says {
    async fn ask(&self, question: GateQuestion) -> Result<GateAnswer> {
        assert_eq!(question.weight, 0, "it is asked before traffic");
        let detail = "the callback's reason".to_owned();
        match self.0 {
            Some(true) => Ok(GateAnswer::Pass { detail }),
            Some(false) => Ok(GateAnswer::Fail { detail }),
            None => Err(deployer_core::Error::new(ErrorKind::Unavailable, "the metrics do not answer")),
        }
    }
}

#[test]
fn callbacks_answer_yes_no_or_cannot_be_asked() {
    for (answer, verdict, expected) in [
        (Some(true), "promoted", "promoted"),
        (Some(false), "rolled-back", "the callback's reason"),
        (None, "rolled-back", "could not be asked"),
    ] {
        let (world, _) = world();
        let deployer = deployer_core::Deployer::builder(world.backend())
            .clock(world.clock())
            .gate("check", Arc::new(Says(answer)))
            .build();
        simulate(async {
            let callback = GateCheck::Callback { name: "check".into() };
            let spec = only(web(1).with_gate(GateSpec::new("check", GatePoint::BeforeTraffic, callback)));
            let found = deploy(&deployer, spec).await;
            assert_eq!(found.word(), verdict);
            assert!(found.to_string().contains(expected), "{found}");
        });
    }
}

#[test]
fn the_standby_of_what_served_before_outlives_a_failure() {
    let (world, deployer) = world();
    simulate(async {
        let version = |version| only(web(version).with_strategy(blue_green(600)));
        deploy_well(&deployer, version(1)).await;
        deploy_well(&deployer, version(2)).await;
        world.on_image("web:v3", Behaviour::crash_loop(3));
        assert_eq!(deploy(&deployer, version(3)).await.word(), "rolled-back");
        let status = deployer.status(&app()).await.unwrap();
        let revisions = &status.services[0].revisions;
        let up: BTreeMap<u64, Option<u8>> = revisions.iter().map(|up| (up.release.0, up.weight)).collect();
        assert_eq!(
            up,
            BTreeMap::from([(1, Some(0)), (2, Some(100))]),
            "version 1 is still warm, of version 3 nothing is left"
        );
        world.assert_no_violations();
    });
}

/// A gate that takes its time to say yes or no.
#[derive(Debug)]
struct Slow(Arc<dyn deployer_core::Clock>, Duration, bool);

#[async_trait]
impl Gate for Slow {
    async fn ask(&self, _: GateQuestion) -> Result<GateAnswer> {
        self.0.sleep(self.1).await;
        let detail = format!("after {:?}", self.1);
        Ok(if self.2 { GateAnswer::Pass { detail } } else { GateAnswer::Fail { detail } })
    }
}

#[test]
fn gates_of_one_hold_do_not_get_in_each_others_way() {
    for (fast, verdict) in [(true, "promoted"), (false, "rolled-back")] {
        let (world, _) = world();
        let gate = |millis, passes| Arc::new(Slow(world.clock(), Duration::from_millis(millis), passes));
        let deployer = deployer_core::Deployer::builder(world.backend())
            .clock(world.clock())
            .gate("fast", gate(5, fast))
            .gate("slow", gate(1_500, true))
            .build();
        simulate(async {
            let ask = |name: &str| GateSpec::new(name, GatePoint::Holding, GateCheck::Callback { name: name.into() });
            deploy_well(&deployer, only(web(1))).await;
            let found = deploy(&deployer, only(web(2).with_gate(ask("fast")).with_gate(ask("slow")))).await;
            assert_eq!(found.word(), verdict, "{found}");
            world.assert_no_violations();
        });
    }
}
