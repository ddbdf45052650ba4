//! What a platform does not give: changes that hold at once, calls, instances and pools without end, hosts that stay.

use std::time::Duration;

use deployer_core::{
    AppSpec, DeployOptions, DeploymentRecord, Effect, ErrorKind, ServiceSpec, Strategy, TargetRegistration,
};
use deployer_testkit::{Behaviour, Options, Rate, Traffic, World, simulate};

use crate::fixture::{Driver, revision, spec};

const SECOND: Duration = Duration::from_secs(1);

fn shop(web: ServiceSpec) -> AppSpec {
    AppSpec::new("shop").unwrap().with_service("web", web.with_replicas(2)).unwrap()
}

/// Deploys `shop:v2` where `shop:v1` serves, under traffic.
async fn replace(world: &World) -> DeploymentRecord {
    world.add_image("shop:v2");
    world.with_serving(shop(spec("shop:v1"))).await;
    world.start_traffic(Traffic::to_service("shop", "web").per_second(50).taking(SECOND / 5));
    let record = world.deployer().deploy(shop(spec("shop:v2")), DeployOptions::default()).finished().await.unwrap();
    world.clock().sleep(SECOND).await;
    record
}

#[test]
fn a_change_can_be_seen_before_it_holds() {
    simulate(async {
        let driver = Driver::new(World::with_options(Options::default().with_propagation(3 * SECOND))).await;
        let first = driver.serve("shop:v1", 1).await;
        let second = driver.release(spec("shop:v2")).await;
        driver.launch(&second, 1).await.unwrap();
        driver.sleep(5).await;
        driver.register(&second, 1).await.unwrap();
        driver.weigh(&[(&second, 100)]).await.unwrap();
        assert_eq!(driver.routing().await.weights().into_keys().collect::<Vec<_>>(), [revision(&second)]);
        driver.world.start_traffic(Traffic::to_service("shop", "web").taking(SECOND / 10));
        driver.sleep(2).await;
        let served = driver.world.traffic_report().served;
        assert!(served[&revision(&first)] > 0 && !served.contains_key(&revision(&second)), "{served:?}");
        driver.sleep(2).await;
        driver.world.watch_traffic();
        driver.sleep(2).await;
        let served = driver.world.traffic_report().served;
        assert!(served[&revision(&second)] > 0 && !served.contains_key(&revision(&first)), "{served:?}");
    });
}

#[test]
fn stopping_before_a_change_holds_loses_requests() {
    simulate(async {
        let driver = Driver::new(World::with_options(Options::default().with_propagation(3 * SECOND))).await;
        let first = driver.serve("shop:v1", 1).await;
        let second = driver.release(spec("shop:v2")).await;
        driver.launch(&second, 1).await.unwrap();
        driver.sleep(5).await;
        driver.register(&second, 1).await.unwrap();
        driver.weigh(&[(&second, 100)]).await.unwrap();
        driver.world.start_traffic(Traffic::to_service("shop", "web").taking(SECOND / 10));
        driver.reduce(&first, 0).await;
        driver.sleep(5).await;
        let report = driver.world.traffic_report();
        assert!(report.lost.len() > 10, "{}", report.lost.len());
        assert_eq!(report.sent, report.answered() + report.in_flight + report.lost.len() as u64);
    });
}

#[test]
fn the_engine_waits_until_a_change_holds() {
    for targets in [TargetRegistration::Engine, TargetRegistration::Orchestrator] {
        let world = World::with_options(Options::default().with_targets(targets).with_propagation(3 * SECOND));
        let before = world.now();
        let record = simulate(replace(&world));
        world.assert_promoted(&record);
        world.assert_no_requests_lost();
        world.assert_no_violations();
        assert!(world.now().since(before) > 3 * SECOND);
    }
}

#[test]
fn calls_beyond_the_rate_are_throttled_and_have_no_effect() {
    simulate(async {
        let driver =
            Driver::new(World::with_options(Options::default().with_rate(Rate { burst: 5, per_second: 1 }))).await;
        driver.sleep(10).await;
        let release = driver.release(spec("shop:v1")).await;
        driver.prepare(&release).await;
        assert_eq!(driver.instances(&release).await, []);
        driver.launch(&release, 1).await.unwrap();
        let error = driver.launch(&release, 2).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Throttled, Effect::None));
        driver.sleep(1).await;
        assert_eq!(driver.instances(&release).await.len(), 1);
    });
}

#[test]
fn the_engine_looks_less_often_when_it_is_throttled() {
    let world = World::with_options(Options::default().with_rate(Rate { burst: 12, per_second: 5 }));
    world.with_slow_start("shop:v2", 20 * SECOND);
    let record = simulate(replace(&world));
    world.assert_promoted(&record);
    world.assert_no_requests_lost();
}

#[test]
fn more_than_there_may_be_is_refused_and_brought_back() {
    let world = World::with_options(Options::default().with_quotas(3, 4));
    let record = simulate(replace(&world));
    world.assert_rolled_back(&record).because("4 instances would be more than the quota of 3");
    world.assert_serving("shop", "web", "shop:v1", 2);
    world.assert_no_requests_lost();
    let world = World::with_options(Options::default().with_quotas(9, 1));
    let record = simulate(replace(&world));
    world.assert_rolled_back(&record).because("2 pools would be more than the quota of 1");
}

#[test]
fn a_host_that_goes_down_takes_its_instances_with_it() {
    simulate(async {
        let options = Options::default().with_targets(TargetRegistration::Orchestrator).with_hosts(2);
        let world = World::with_options(options.with_detection(SECOND / 10));
        world.on_service("web", Behaviour::healthy().with_ready_after(SECOND / 10));
        world.with_serving(shop(spec("shop:v1"))).await;
        world.fail_host(0, 60 * SECOND);
        world.clock().sleep(SECOND / 20).await;
        let serving = || world.shape("shop").revisions.into_values().map(|row| row.serving).sum::<u32>();
        assert_eq!(serving(), 1);
        // The other one takes its instances over.
        world.clock().sleep(SECOND).await;
        assert_eq!(serving(), 2);
        world.fail_host(1, 10 * SECOND);
        world.clock().sleep(SECOND).await;
        assert_eq!(serving(), 0);
        let status = world.deployer().status(&"shop".parse().unwrap()).await;
        assert_eq!(status.unwrap_err().kind(), ErrorKind::Unavailable);
        world.clock().sleep(11 * SECOND).await;
        assert_eq!(serving(), 2);
    });
}

#[test]
fn a_connection_stays_with_its_instance_until_that_ends() {
    let world = World::new();
    for image in ["shop:v1", "shop:v2"] {
        world.on_image(image, Behaviour::healthy().finishing_requests());
    }
    simulate(async {
        let rolling = |image: &str| shop(spec(image).with_strategy(Strategy::Rolling { surge: 1, unavailable: 0 }));
        world.with_serving(rolling("shop:v1")).await;
        let requests = Traffic::to_service("shop", "web").per_second(50).taking(SECOND / 5);
        world.start_traffic(requests.over_connections(4));
        let record = world.deployer().deploy(rolling("shop:v2"), DeployOptions::default()).finished().await.unwrap();
        world.assert_promoted(&record);
        world.stop_traffic();
        world.clock().sleep(SECOND).await;
    });
    world.assert_no_requests_lost();
    let report = world.traffic_report();
    assert_eq!((report.refused().count(), report.served.len()), (0, 2));
}
