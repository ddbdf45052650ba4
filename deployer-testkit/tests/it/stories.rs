//! Ready-made stories and the assertions about how they end.

use std::time::Duration;

use deployer_core::{AppSpec, DeployOptions, DeploymentRecord, Hook, HookPoint, ServiceSpec, Verdict};
use deployer_testkit::{Behaviour, Traffic, World, simulate};

use crate::fixture::spec;

const SECOND: Duration = Duration::from_secs(1);

fn shop(web: ServiceSpec) -> AppSpec {
    AppSpec::new("shop").unwrap().with_service("web", web.with_replicas(2)).unwrap()
}

/// Deploys `shop:v2` where `shop:v1` serves.
fn deploy(world: &World) -> DeploymentRecord {
    deploy_spec(world, spec("shop:v2").with_ready_deadline(30 * SECOND))
}

fn deploy_spec(world: &World, web: ServiceSpec) -> DeploymentRecord {
    world.add_image("shop:v2");
    simulate(async {
        world.with_serving(shop(spec("shop:v1"))).await;
        world.deployer().deploy(shop(web), DeployOptions::default()).finished().await.unwrap()
    })
}

#[test]
fn each_story_ends_as_it_says() {
    type Story = fn(&World);
    let stories: [(Story, &str); 7] = [
        (|world| world.crash_loop("shop:v2", 3), "exited with code 3"),
        (|world| world.crash_after("shop:v2", SECOND / 2, 4), "exited with code 4"),
        (|world| world.out_of_memory("shop:v2", SECOND / 2), "for want of memory"),
        (|world| world.never_healthy("shop:v2", "answered 503"), "answered 503"),
        (|world| world.sick_after("shop:v2", SECOND, "answered 500"), "answered 500"),
        (|world| world.start_error("shop:v2", "no such file"), "no such file"),
        (|world| world.with_slow_start("shop:v2", 31 * SECOND), "0 of 2 instances"),
    ];
    for (tell, reason) in stories {
        let world = World::new();
        tell(&world);
        let record = deploy(&world);
        world.assert_rolled_back(&record).because(reason);
        world.assert_journal_legal(&record);
        world.assert_serving("shop", "web", "shop:v1", 2);
        world.assert_capacity_at_least("shop", "web", 2);
        world.assert_no_violations();
    }
}

#[test]
fn what_is_slow_is_waited_for() {
    let world = World::new();
    world.with_slow_start("shop:v2", 29 * SECOND);
    world.with_slow_stop("shop:v1", 5 * SECOND);
    let before = world.now();
    let record = deploy(&world);
    world.assert_promoted(&record);
    assert!(world.now().since(before) > 34 * SECOND);
    world.assert_serving("shop", "web", "shop:v2", 2);
}

#[test]
fn a_task_that_fails_is_counted_and_shown() {
    let world = World::new();
    world.failing_task("migrate", 9, "relation does not exist");
    let hook = Hook::new("migrate", HookPoint::PreDeploy, ["migrate"]);
    let record = deploy_spec(&world, spec("shop:v2").with_hook(hook));
    world.assert_rolled_back(&record).because("exited with code 9").because("relation does not exist");
    world.assert_hook_ran_once(&record, "migrate");
}

#[test]
fn errors_are_counted_by_revision_and_traffic_is_counted_anew() {
    let world = World::new();
    world.with_errors_permille("shop:v1", 250);
    simulate(async {
        world.with_serving(shop(spec("shop:v1"))).await;
        world.start_traffic(Traffic::to_service("shop", "web").per_second(40).taking(SECOND));
        world.clock().sleep(10 * SECOND).await;
    });
    let report = world.traffic_report();
    assert!(report.answered() >= 360, "{report:?}");
    assert_eq!((report.errors.values().sum::<u64>(), report.in_flight), (report.answered() / 4, 40));

    world.watch_traffic();
    let report = world.traffic_report();
    assert_eq!((report.sent, report.in_flight, report.answered()), (40, 40, 0));
    let watched = world.now();
    world.stop_traffic();
    world.advance(5 * SECOND);
    let report = world.traffic_report();
    assert_eq!((report.sent, report.in_flight, report.answered(), report.lost.len()), (40, 0, 40, 0));
    let (first, last) = report.seen.values().next().unwrap();
    assert!(*first > watched && last.since(watched) <= SECOND, "{report:?}");
}

/// A deployment that was promoted, and its world.
fn promoted() -> (World, DeploymentRecord) {
    let world = World::new();
    let record = deploy(&world);
    (world, record)
}

#[test]
#[should_panic(expected = "deploy of shop should be rolled back, but is promoted\nthe world at")]
fn the_wrong_verdict_is_shown_with_the_world() {
    let (world, record) = promoted();
    world.assert_rolled_back(&record);
}

#[test]
#[should_panic(expected = "deploy of shop should be promoted, but is promoted, with leftovers: web")]
fn leftovers_are_not_overlooked() {
    let (world, mut record) = promoted();
    record.verdict = Some(Verdict::Promoted { leftovers: vec!["web".into()] });
    world.assert_promoted(&record);
}

#[test]
#[should_panic(expected = "the cause should say \"code 4\", but it is: ")]
fn the_wrong_cause_is_shown() {
    let world = World::new();
    world.crash_loop("shop:v2", 3);
    let record = deploy(&world);
    world.assert_rolled_back(&record).because("code 4");
}

#[test]
#[should_panic(expected = "should be shared out as {\"shop:v1\": 100}, but is {\"shop:v2\": 100}")]
fn the_wrong_shares_are_shown() {
    let (world, _) = promoted();
    world.assert_traffic("shop", "web", &[("shop:v1", 100)]);
}

#[test]
#[should_panic(expected = "has a hook migrate")]
fn a_hook_that_was_never_planned_did_not_run_once() {
    let (world, record) = promoted();
    world.assert_hook_ran_once(&record, "migrate");
}

#[test]
#[should_panic(expected = "says another record")]
fn a_record_that_the_journal_does_not_bear_out_is_found() {
    let (world, mut record) = promoted();
    record.last_seq += 1;
    world.assert_journal_legal(&record);
}

#[test]
#[should_panic(expected = "tests/it/stories.rs")]
fn what_cannot_be_serving_names_who_wanted_it() {
    let world = World::new();
    world.on_image("shop:v1", Behaviour::crash_loop(3));
    simulate(world.with_serving(shop(spec("shop:v1"))));
}
