//! Every simulated request is accounted for.

use std::collections::BTreeMap;
use std::time::Duration;

use deployer_core::{Route, ServiceSpec, TargetRegistration};
use deployer_testkit::{Behaviour, LossReason, Options, Traffic, World, simulate};

use crate::fixture::{Driver, revision, spec};

fn traffic() -> Traffic {
    Traffic::to_route(None, "/cart").per_second(20).taking(Duration::from_millis(500))
}

fn reasons(world: &World) -> BTreeMap<LossReason, usize> {
    let mut reasons = BTreeMap::new();
    for lost in world.traffic_report().lost {
        *reasons.entry(lost.reason).or_default() += 1;
    }
    reasons
}

#[test]
fn requests_are_served_and_counted() {
    simulate(async {
        let world = World::new();
        world.on_image("shop:v1", Behaviour::healthy().with_errors_permille(100));
        let driver = Driver::new(world).await;
        let release = driver.serve("shop:v1", 2).await;
        driver.world.start_traffic(traffic());
        driver.sleep(10).await;
        let report = driver.world.traffic_report();
        // One at once and one each 50 ms; the last ten are still being worked on.
        assert_eq!((report.sent, report.answered(), report.in_flight), (201, 191, 10));
        assert_eq!(report.errors, BTreeMap::from([(revision(&release), 19)]));
        let counters = driver.routing().await.pools.remove(0).counters.unwrap();
        assert_eq!((counters.requests, counters.errors), (191, 19));
        assert_eq!(counters.mean_latency, Some(Duration::from_millis(500)));
        let in_flight: Vec<_> = driver.routing().await.pools[0].targets.iter().map(|target| target.in_flight).collect();
        assert_eq!(in_flight, [Some(5), Some(5)]);
        driver.world.stop_traffic();
        driver.sleep(1).await;
        assert_eq!(driver.world.traffic_report().answered(), 201);
        driver.world.assert_no_requests_lost();
    });
}

#[test]
fn weights_divide_new_requests() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let first = driver.serve("shop:v1", 1).await;
        let second = driver.release(spec("shop:v2")).await;
        driver.launch(&second, 1).await.unwrap();
        driver.sleep(2).await;
        driver.register(&second, 1).await.unwrap();
        driver.weigh(&[(&first, 90), (&second, 10)]).await.unwrap();
        driver.world.start_traffic(traffic());
        driver.sleep(10).await;
        driver.world.stop_traffic();
        driver.sleep(1).await;
        let served = driver.world.traffic_report().served;
        assert_eq!(served, BTreeMap::from([(revision(&first), 181), (revision(&second), 20)]));
    });
}

/// Replaces one revision by the other under traffic: in, weights, out of rotation, and wait unless it is `hasty`.
async fn replace(world: World, hasty: bool) -> World {
    let driver = Driver::new(world).await;
    let first = driver.serve("shop:v1", 2).await;
    driver.world.start_traffic(traffic());
    driver.sleep(1).await;
    let second = driver.release(spec("shop:v2")).await;
    driver.launch(&second, 2).await.unwrap();
    driver.sleep(2).await;
    driver.register(&second, 2).await.unwrap();
    driver.weigh(&[(&second, 100)]).await.unwrap();
    driver.register(&first, 0).await.unwrap();
    if !hasty {
        driver.sleep(1).await;
    }
    driver.reduce(&first, 0).await;
    driver.sleep(5).await;
    driver.world.clone()
}

#[test]
fn replacing_in_the_right_order_loses_nothing() {
    let world = simulate(replace(World::new(), false));
    world.assert_no_requests_lost();
    world.assert_no_violations();
    world.assert_capacity_at_least("shop", "web", 2);
    world.assert_serving("shop", "web", "shop:v2", 2);
}

#[test]
fn stopping_before_requests_are_done_loses_them() {
    let world = simulate(replace(World::new(), true));
    assert_eq!(reasons(&world), BTreeMap::from([(LossReason::InstanceEnded, 10)]));
}

#[test]
fn programs_that_finish_their_requests_forgive_haste() {
    let world = World::new();
    world.on_image("shop:v1", Behaviour::healthy().finishing_requests());
    simulate(replace(world, true)).assert_no_requests_lost();
}

#[test]
fn an_orchestrator_that_drains_lets_requests_finish() {
    simulate(async {
        let options = Options::default().with_targets(TargetRegistration::Orchestrator);
        let driver = Driver::new(World::with_options(options)).await;
        let release = driver.release(spec("shop:v1")).await;
        driver.prepare(&release).await;
        driver.launch(&release, 2).await.unwrap();
        driver.sleep(2).await;
        driver.weigh(&[(&release, 100)]).await.unwrap();
        driver.world.start_traffic(traffic());
        driver.sleep(1).await;
        driver.reduce(&release, 1).await;
        driver.sleep(1).await;
        driver.world.assert_no_requests_lost();
        driver.world.assert_no_violations();
        driver.world.assert_serving("shop", "web", "shop:v1", 1);
    });
}

#[test]
fn a_crash_loses_what_was_in_flight_and_what_comes_until_it_is_noticed() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        driver.serve("shop:v1", 2).await;
        driver.world.start_traffic(traffic());
        driver.sleep(5).await;
        driver.world.kill_instance("shop", "web", 1);
        driver.sleep(20).await;
        // Half of the ten in flight, then every other of the nineteen that come in less than a second.
        let expected = BTreeMap::from([(LossReason::InstanceEnded, 5), (LossReason::TargetDead, 9)]);
        assert_eq!(reasons(&driver.world), expected);
        driver.world.assert_no_violations();
    });
}

#[test]
fn dropping_a_target_with_requests_loses_them() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let release = driver.serve("shop:v1", 1).await;
        driver.world.start_traffic(traffic());
        driver.sleep(5).await;
        driver.set_targets(&release, Vec::new()).await.unwrap();
        driver.world.stop_traffic();
        assert_eq!(reasons(&driver.world), BTreeMap::from([(LossReason::TargetDropped, 10)]));
    });
}

#[test]
fn requests_without_a_place_to_go_are_refused_with_the_reason() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let one = || Traffic::to_service("shop", "web").per_second(1);
        let next = |reason| {
            driver.world.start_traffic(one());
            let report = driver.world.traffic_report();
            driver.world.stop_traffic();
            assert_eq!(report.lost.last().map(|lost| lost.reason), Some(reason));
        };
        next(LossReason::NoEntry);
        let release = driver.release(spec("shop:v1")).await;
        driver.prepare(&release).await;
        next(LossReason::NoWeight);
        driver.set_targets(&release, Vec::new()).await.unwrap();
        driver.weigh(&[(&release, 100)]).await.unwrap();
        next(LossReason::NoTarget);
        assert_eq!(driver.world.traffic_report().sent, 3);
    });
}

#[test]
fn the_most_particular_route_takes_a_request() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let service =
            ServiceSpec::image("shop:v1").with_route(Route::new(80).with_host("shop.example").with_path("/api"));
        let release = driver.release(service).await;
        driver.prepare(&release).await;
        let reason = |host, path: &str| {
            driver.world.start_traffic(Traffic::to_route(host, path));
            let report = driver.world.traffic_report();
            driver.world.stop_traffic();
            report.lost.last().unwrap().reason
        };
        assert_eq!(reason(Some("Shop.Example"), "/api/x"), LossReason::NoWeight);
        assert_eq!(reason(Some("shop.example"), "/apix"), LossReason::NoEntry);
        assert_eq!(reason(None, "/api"), LossReason::NoEntry);
    });
}
