//! Cancelled, superseded, killed and resumed deployments. The proof loop (`scripts/proof`) kills them everywhere.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deployer_core::{
    Action, CallInfo, CanaryStep, Clock, DeployOptions, Deployer, DeploymentKind, ErrorKind, Intercept, JournalEvent,
    Next, ReleaseNumber, Result, RevisionStatus, Strategy, Verdict,
};
use deployer_testkit::proof::{Proof, standard};
use deployer_testkit::{Options, simulate};

use crate::shop::{Counted, app, deploy_well, only, traffic, web, world, world_with};

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
fn signals_are_looked_for_as_often_as_the_platform_and_a_handle_is_heard_at_once() {
    let mut options = Options::default();
    options.poll = 5 * SECOND;
    let (world, deployer) = world_with(options);
    let looks = Arc::new(Counted::new("store.signals"));
    let counted = Arc::clone(&looks);
    let counting = Deployer::builder(world.backend()).clock(world.clock()).intercept(counted).build();
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        let mut deployment = counting.deploy(only(web(2).with_strategy(canary())), DeployOptions::default());
        world.clock().sleep(52 * SECOND).await;
        let looks = looks.times();
        assert!((9..=11).contains(&looks), "{looks} in 52 s");
        let at = world.now();
        deployment.cancel("anna");
        let mut heard = None;
        while let Some(event) = deployment.next_event().await {
            if matches!(event.journal(), Some(JournalEvent::Signalled { .. })) {
                heard = Some(event.at);
            }
        }
        assert_eq!(heard, Some(at));
    });
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
fn what_stands_by_after_a_superseded_deployment_is_what_was_good_and_not_what_had_the_traffic() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        let kept = |version, bake| {
            let strategy = Strategy::BlueGreen { bake: bake * SECOND, keep_warm: 600 * SECOND };
            only(web(version).with_strategy(strategy))
        };
        let second = deployer.deploy(kept(2, 60), DeployOptions::default());
        world.clock().sleep(20 * SECOND).await;
        let status = deployer.status(&app()).await.unwrap();
        let moved = |revision: &RevisionStatus| (revision.release, revision.weight) == (ReleaseNumber(2), Some(100));
        assert!(status.services[0].revisions.iter().any(moved), "{status:?}");
        let third = deployer.deploy(kept(3, 0), DeployOptions::default().superseding());
        assert!(third.finished().await.unwrap().verdict.unwrap().is_promoted());
        assert_eq!(second.finished().await.unwrap().verdict.unwrap().word(), "superseded");
        assert!(!world.describe().contains("web:v2"), "{}", world.describe());
        assert!(world.describe().contains("web:v1"), "{}", world.describe());
        assert_eq!(deployer.status(&app()).await.unwrap().last_known_good, Some(ReleaseNumber(1)));
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

/// A store that takes its time to say who holds a lease.
#[derive(Debug)]
struct Slow(Arc<dyn Clock>);

#[async_trait]
impl Intercept for Slow {
    async fn intercept(&self, call: &CallInfo, next: &mut Next<'_>) -> Result<()> {
        next.run().await?;
        if call.operation == "store.lease_holder" {
            self.0.sleep(3 * SECOND).await;
        }
        Ok(())
    }
}

#[test]
fn a_slow_store_is_asked_for_the_lease_once_more_after_it_has_ended() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        let doomed = deployer.deploy(only(web(2).with_strategy(canary())), DeployOptions::default());
        world.clock().sleep(20 * SECOND).await;
        drop(doomed);
        let slow = Deployer::builder(world.backend()).clock(world.clock()).intercept(Arc::new(Slow(world.clock())));
        let resumed = slow.build().resume(&app()).await.unwrap().unwrap();
        assert!(resumed.finished().await.unwrap().verdict.unwrap().is_promoted());
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
fn a_rollback_that_was_killed_in_its_clean_up_has_brought_what_it_went_to() {
    let (world, deployer) = world();
    simulate(async {
        for version in 1..=3 {
            deploy_well(&deployer, only(web(version))).await;
        }
        let mut doomed = deployer.rollback(&app(), None);
        let mut verification = None;
        loop {
            let event = doomed.next_event().await.unwrap();
            match event.journal() {
                Some(JournalEvent::Opened { plan, .. }) => {
                    let mut steps = plan.steps.iter();
                    verification = steps.find(|step| matches!(step.action, Action::Verify { .. })).map(|step| step.id);
                }
                Some(JournalEvent::StepFinished { step, .. }) if Some(*step) == verification => break,
                _ => {}
            }
        }
        drop(doomed);
        world.clock().sleep(20 * SECOND).await;
        let preview = deployer.plan_rollback(&app(), None).await.unwrap();
        assert_eq!(preview.release.map(|release| release.number.0), Some(1));
        assert_eq!(preview.kind, DeploymentKind::Rollback { from: Some(ReleaseNumber(2)) });
        let record = deployer.rollback(&app(), None).finished().await.unwrap();
        assert_eq!((record.kind, record.target.map(|target| target.0)), (preview.kind, Some(1)));
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
        let preview = deployer.plan_rollback(&app(), None).await.unwrap();
        assert_eq!(preview.release.map(|release| release.number.0), Some(2));
        let record = deployer.rollback(&app(), None).finished().await.unwrap();
        assert_eq!(record.target.map(|target| target.0), Some(2));
        world.assert_serving("shop", "web", "web:v2", 3);
    });
}

/// What the proof loop has found by chance. The numbers of calls may come to lie elsewhere; the whole loop strikes everywhere.
#[test]
fn what_has_broken_before_does_not_break_again() {
    let found = [
        // A rollback that had superseded a deployment and was lost before it began could not be made again.
        "race/rollback | call 40: clock set by 3600000 ms; call 51: pause of 40000 ms",
        // What another tool had started was left over, because the clean-up of the release that serves was cut short.
        "inherited/supersede-failing | call 52: away for 500 ms",
        "inherited/supersede-failing | call 53: hangs",
    ];
    let proof = Proof::of(standard());
    for line in found {
        let (scenario, schedule) = line.split_once(" | ").unwrap();
        let broken = proof.replay(scenario, &schedule.parse().unwrap(), &mut |_| {});
        assert!(broken.is_empty(), "{line}: {broken:#?}");
    }
}
