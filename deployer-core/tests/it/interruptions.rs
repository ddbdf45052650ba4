//! Cancelled, superseded, killed and resumed deployments.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use deployer_core::{
    CallInfo, CanaryStep, DeployOptions, Deployer, Error, ErrorKind, Hook, HookPoint, Intercept, Result, Strategy,
    Verdict,
};
use deployer_testkit::{World, simulate};

use crate::shop::{app, deploy_well, only, shop, traffic, web, world};

const SECOND: Duration = Duration::from_secs(1);

fn canary() -> Strategy {
    Strategy::Canary { steps: vec![CanaryStep { weight: 20, hold: 60 * SECOND }] }
}

#[test]
fn cancelling_brings_back_what_was_there() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        traffic(&world);
        let deployment = deployer.deploy(only(web(2).with_strategy(canary())), DeployOptions::default());
        world.clock().sleep(20 * SECOND).await;
        assert!(deployer.cancel(&app(), "anna").await.unwrap().driven);
        let record = deployment.finished().await.unwrap();
        assert_eq!(record.verdict, Some(Verdict::Cancelled { by: "anna".into() }));
        world.assert_serving("shop", "web", "web:v1", 3);
        assert!(!world.describe().contains("web:v2"), "{}", world.describe());
        world.stop_traffic();
        world.assert_no_requests_lost();
        world.assert_no_violations();
        let error = deployer.cancel(&app(), "anna").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_handle_cancels_its_own_deployment_at_any_moment() {
    for (pause, word) in [(0, "preparing"), (20, "holding")] {
        let (world, deployer) = world();
        simulate(async {
            deploy_well(&deployer, only(web(1))).await;
            let deployment = deployer.deploy(only(web(2).with_strategy(canary())), DeployOptions::default());
            world.clock().sleep(pause * SECOND).await;
            deployment.cancel("anna");
            deployment.cancel("somebody who is late");
            let ended = deployment.finished().await;
            match ended {
                Ok(record) => assert_eq!(record.verdict, Some(Verdict::Cancelled { by: "anna".into() }), "{word}"),
                Err(error) => assert_eq!((error.kind(), word), (ErrorKind::Cancelled, "preparing")),
            }
            world.assert_serving("shop", "web", "web:v1", 3);
            world.assert_no_violations();
        });
    }
}

#[test]
fn a_second_deployment_is_refused_or_supersedes_the_first() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        let first = deployer.deploy(only(web(2).with_strategy(canary())), DeployOptions::default());
        world.clock().sleep(20 * SECOND).await;
        let error = deployer.deploy(only(web(3)), DeployOptions::default()).finished().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        let third = deployer.deploy(only(web(3)), DeployOptions::default().superseding());
        let id = third.id().to_string();
        assert!(third.finished().await.unwrap().verdict.unwrap().is_promoted());
        assert_eq!(first.finished().await.unwrap().verdict, Some(Verdict::Superseded { by: id }));
        world.assert_serving("shop", "web", "web:v3", 3);
        assert!(!world.describe().contains("web:v2"), "{}", world.describe());
    });
}

#[test]
fn a_living_deployment_is_not_taken_from_its_driver() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        let living = deployer.deploy(only(web(2).with_strategy(canary())), DeployOptions::default());
        world.clock().sleep(20 * SECOND).await;
        let second = deployer.resume(&app()).await.unwrap().unwrap();
        assert_eq!(second.finished().await.unwrap_err().kind(), ErrorKind::Busy);
        assert!(living.finished().await.unwrap().verdict.unwrap().is_promoted());
    });
}

#[test]
fn what_was_verified_counts_as_promoted_even_if_the_clean_up_was_killed() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        let mut doomed = deployer.deploy(only(web(2)), DeployOptions::default());
        let mut verified = false;
        while !verified {
            let event = doomed.next_event().await.unwrap();
            verified =
                matches!(event.journal(), Some(deployer_core::JournalEvent::StepStarted { step, .. }) if step.0 > 4);
        }
        drop(doomed);
        world.clock().sleep(20 * SECOND).await;
        let record = deployer.rollback(&app(), None).finished().await.unwrap();
        assert_eq!(record.target.map(|target| target.0), Some(1));
        let history = deployer.history(&app()).await.unwrap();
        assert!(history[1].verdict.as_ref().unwrap().is_promoted(), "{:?}", history[1].verdict);
        world.assert_serving("shop", "web", "web:v1", 3);
    });
}

#[test]
fn a_rollback_from_the_middle_of_a_deployment_goes_to_what_was_there_before() {
    let (world, deployer) = world();
    simulate(async {
        for version in 1..=2 {
            deploy_well(&deployer, only(web(version))).await;
        }
        let doomed = deployer.deploy(only(web(3).with_strategy(canary())), DeployOptions::default());
        world.clock().sleep(20 * SECOND).await;
        drop(doomed);
        world.clock().sleep(20 * SECOND).await;
        let record = deployer.rollback(&app(), None).finished().await.unwrap();
        assert_eq!(record.target.map(|target| target.0), Some(2));
        world.assert_serving("shop", "web", "web:v2", 3);
    });
}

/// Fails every call from the n-th on, before or after its effect: as if the process had been killed there.
#[derive(Debug)]
struct KilledAt {
    call: usize,
    after_effect: bool,
    seen: AtomicUsize,
}

impl KilledAt {
    fn new(call: usize, after_effect: bool) -> Arc<Self> {
        Arc::new(Self { call, after_effect, seen: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Intercept for KilledAt {
    async fn before(&self, _: &CallInfo) -> Result<()> {
        let number = self.seen.fetch_add(1, Ordering::SeqCst);
        if number > self.call || (number == self.call && !self.after_effect) {
            // A process that is killed never comes back from here.
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn after(&self, _: &CallInfo, _: Option<&Error>) -> Result<()> {
        if self.after_effect && self.seen.load(Ordering::SeqCst) == self.call + 1 {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// Deploys version 2 over version 1 with a deployer that dies at a call, then lets another go on.
async fn killed_at(world: &World, call: usize, after_effect: bool) -> bool {
    let spec = |version| {
        let web = web(version).with_hook(Hook::new("migrate", HookPoint::PreDeploy, ["migrate"]));
        shop(web, version, 1)
    };
    let healthy = Deployer::builder(world.backend()).clock(world.clock()).owner("healthy").build();
    deploy_well(&healthy, spec(1)).await;
    traffic(world);
    let killer = KilledAt::new(call, after_effect);
    let doomed = Deployer::builder(world.backend())
        .clock(world.clock())
        .lease_ttl(3 * SECOND)
        .intercept(Arc::<KilledAt>::clone(&killer))
        .build();
    let deployment = doomed.deploy(spec(2), DeployOptions::default());
    // Long enough for everything that it can still do.
    world.clock().sleep(15 * SECOND).await;
    let reached = killer.seen.load(Ordering::SeqCst) > call;
    drop(deployment);
    let resumed = healthy.resume(&app()).await.unwrap();
    if let Some(resumed) = resumed {
        let verdict = resumed.finished().await.unwrap().verdict.unwrap();
        assert!(verdict.is_promoted(), "killed at {call}: {verdict}");
    } else {
        world.clock().sleep(20 * SECOND).await;
        deploy_well(&healthy, spec(2)).await;
    }
    world.assert_serving("shop", "web", "web:v2", 3);
    world.assert_serving("shop", "worker", "worker:v2", 1);
    world.assert_serving("shop", "cache", "cache:1", 1);
    assert!(!world.describe().contains("web:v1"), "killed at {call}: {}", world.describe());
    world.stop_traffic();
    world.assert_no_requests_lost();
    world.assert_no_violations();
    reached
}

/// Kills a deployer at every call there is, one after the other.
fn killed_everywhere(after_effect: bool) {
    let mut call = 0;
    while simulate(killed_at(&world().0, call, after_effect)) {
        call += 1;
    }
    assert!(call > 30, "only {call} calls were made");
}

#[test]
fn killed_before_any_call_and_resumed_it_ends_the_same() {
    killed_everywhere(false);
}

#[test]
fn killed_after_the_effect_of_any_call_and_resumed_it_ends_the_same() {
    killed_everywhere(true);
}

/// Fails one call in a way that leaves its effect unknown, and goes on.
#[derive(Debug)]
struct LosesReply {
    call: usize,
    seen: AtomicUsize,
}

#[async_trait]
impl Intercept for LosesReply {
    async fn before(&self, _: &CallInfo) -> Result<()> {
        Ok(())
    }

    async fn after(&self, call: &CallInfo, _: Option<&Error>) -> Result<()> {
        // What fails before there is a deployment is for the caller to try again.
        if !call.mutating || call.operation.starts_with("registry") || call.operation == "store.acquire_lease" {
            return Ok(());
        }
        if self.seen.fetch_add(1, Ordering::SeqCst) == self.call {
            return Err(Error::new(ErrorKind::Unavailable, "the reply was lost"));
        }
        Ok(())
    }
}

#[test]
fn a_lost_reply_changes_nothing() {
    let mut call = 0;
    loop {
        let (world, _) = world();
        let seen = simulate(async {
            let healthy = Deployer::builder(world.backend()).clock(world.clock()).build();
            deploy_well(&healthy, shop(web(1), 1, 1)).await;
            traffic(&world);
            let lossy = Arc::new(LosesReply { call, seen: AtomicUsize::new(0) });
            let deployer = Deployer::builder(world.backend())
                .clock(world.clock())
                .intercept(Arc::<LosesReply>::clone(&lossy))
                .build();
            let result = deployer.deploy(shop(web(2), 2, 1), DeployOptions::default()).finished().await;
            let record = match result {
                Ok(record) => record,
                // The release may be kept without a deployment: the next try uses it.
                Err(error) if error.operation() == Some("store.put_release") => {
                    healthy.deploy(shop(web(2), 2, 1), DeployOptions::default()).finished().await.unwrap()
                }
                Err(error) => panic!("lost reply {call}: {error}"),
            };
            let verdict = record.verdict.unwrap();
            assert_eq!(verdict, Verdict::Promoted { leftovers: Vec::new() }, "lost reply {call}");
            world.assert_serving("shop", "web", "web:v2", 3);
            assert!(!world.describe().contains("web:v1"), "lost reply {call}: {}", world.describe());
            world.stop_traffic();
            world.assert_no_requests_lost();
            world.assert_no_violations();
            lossy.seen.load(Ordering::SeqCst)
        });
        if seen <= call {
            break;
        }
        call += 1;
    }
    assert!(call > 20, "only {call} calls were made");
}
