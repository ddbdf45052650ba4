//! What nobody may do is recorded.

use std::sync::Arc;
use std::time::Duration;

use deployer_core::{Call, ErrorKind, Launch, Mount, Reduce, RetainRoutes};
use deployer_testkit::{Rule, Traffic, World, simulate};

use crate::fixture::{Driver, app, revision, spec, web};

fn rules(world: &World) -> Vec<Rule> {
    world.violations().into_iter().map(|violation| violation.rule).collect()
}

#[test]
fn releases_are_those_of_the_store() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let stored = driver.release(spec("shop:v1")).await;
        driver.prepare(&stored).await;
        let mut changed = (*stored).clone();
        changed.services.get_mut(&web()).unwrap().replicas = 7;
        driver.launch(&Arc::new(changed), 1).await.unwrap();
        assert_eq!(rules(&driver.world), [Rule::ReleaseIsStored]);
        let unstored = Arc::new(driver.unstored(spec("shop:v2")).await);
        driver.launch(&unstored, 1).await.unwrap();
        assert_eq!(rules(&driver.world), [Rule::ReleaseIsStored; 2]);
    });
}

#[test]
fn a_revision_is_its_releases() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let first = driver.release(spec("shop:v1")).await;
        let second = driver.release(spec("shop:v2")).await;
        driver.prepare(&first).await;
        let request = Launch::new(driver.call(), Arc::clone(&first), web(), revision(&second), 1);
        driver.backend.orchestrator.launch(request).await.unwrap();
        assert_eq!(rules(&driver.world), [Rule::RevisionIsOfRelease]);
    });
}

#[test]
fn traffic_is_not_moved_to_where_nobody_is() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        driver.serve("shop:v1", 1).await;
        let second = driver.release(spec("shop:v2")).await;
        driver.launch(&second, 1).await.unwrap();
        driver.register(&second, 1).await.unwrap();
        // Its instance is not ready yet.
        driver.weigh(&[(&second, 100)]).await.unwrap();
        assert_eq!(rules(&driver.world), [Rule::TrafficHasTargets]);
    });
}

#[test]
fn weights_add_up() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let release = driver.serve("shop:v1", 1).await;
        driver.weigh(&[(&release, 90)]).await.unwrap();
        assert_eq!(rules(&driver.world), [Rule::WeightsAddUp]);
        driver.weigh(&[(&release, 0)]).await.unwrap();
        assert_eq!(rules(&driver.world).len(), 1);
    });
}

#[test]
fn out_of_rotation_first() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let release = driver.serve("shop:v1", 1).await;
        driver.world.start_traffic(Traffic::to_service("shop", "web").taking(Duration::from_secs(1)));
        driver.sleep(3).await;
        driver.reduce(&release, 0).await;
        assert_eq!(rules(&driver.world), [Rule::OutOfRotationFirst]);
    });
}

#[test]
fn drained_first() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let release = driver.serve("shop:v1", 1).await;
        driver.world.start_traffic(Traffic::to_service("shop", "web").taking(Duration::from_secs(1)));
        driver.sleep(3).await;
        driver.set_targets(&release, Vec::new()).await.unwrap();
        assert_eq!(rules(&driver.world), [Rule::DrainedFirst]);
    });
}

#[test]
fn a_pool_with_weight_is_not_removed() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let release = driver.serve("shop:v1", 1).await;
        let retain = RetainRoutes::new(driver.call(), app(), Some(release), Vec::new());
        driver.backend.balancer.retain(retain).await.unwrap();
        assert_eq!(rules(&driver.world), [Rule::PoolIsIdle]);
    });
}

#[test]
fn a_key_goes_with_the_same_inputs() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let release = driver.serve("shop:v1", 2).await;
        let call = driver.call();
        let reduce = |keep| {
            let request = Reduce::new(call.clone(), app(), revision(&release), keep);
            driver.backend.orchestrator.reduce(request)
        };
        reduce(1).await.unwrap();
        reduce(1).await.unwrap();
        assert_eq!(reduce(0).await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(rules(&driver.world), [Rule::KeyNamesOneRequest]);
        assert_eq!(driver.instances(&release).await.len(), 1);
    });
}

#[test]
fn calls_are_made_before_their_deadline() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let release = driver.serve("shop:v1", 1).await;
        let call = Call::new("late", driver.world.now());
        driver.sleep(1).await;
        let request = Reduce::new(call, app(), revision(&release), 1);
        driver.backend.orchestrator.reduce(request).await.unwrap();
        assert_eq!(rules(&driver.world), [Rule::DeadlineAhead]);
        assert!(driver.world.violations()[0].detail.ends_with("1000 ms too late"));
    });
}

#[test]
fn changes_need_the_lease() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let release = driver.serve("shop:v1", 1).await;
        driver.backend.store.release_lease(&driver.lease).await.unwrap();
        driver.launch(&release, 1).await.unwrap();
        assert_eq!(rules(&driver.world), [Rule::LeaseIsHeld]);
    });
}

#[test]
fn a_volume_has_one_writer() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let with_data = |image: &str| spec(image).with_mount(Mount::volume("data", "/data"));
        let first = driver.release(with_data("shop:v1")).await;
        let second = driver.release(with_data("shop:v2")).await;
        driver.prepare(&first).await;
        driver.launch(&first, 1).await.unwrap();
        driver.reduce(&first, 0).await;
        driver.launch(&second, 1).await.unwrap();
        driver.world.assert_no_violations();
        driver.launch(&first, 1).await.unwrap();
        driver.sleep(60).await;
        assert_eq!(rules(&driver.world), [Rule::VolumeHasOneWriter]);
    });
}

#[test]
#[should_panic(expected = "weights add up to 100 or are all 0: the weights of web add up to 90")]
fn the_assertion_names_the_rule() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let release = driver.serve("shop:v1", 1).await;
        driver.weigh(&[(&release, 90)]).await.unwrap();
        driver.world.assert_no_violations();
    });
}
