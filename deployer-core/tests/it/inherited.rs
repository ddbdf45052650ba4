//! Applications that another tool has started before.

use deployer_core::{DeployOptions, Verdict};
use deployer_testkit::{Behaviour, Traffic, World, simulate};

use crate::shop::{app, deploy, deploy_well, only, shop, web, world};

/// Two services that run, an instance that has ended, and one of a service that no release has.
fn inherit(world: &World) {
    for (service, name, running) in [
        ("cache", "shop_cache_1", true),
        ("web", "shop_web_1", true),
        ("web", "shop_web_2", false),
        ("admin", "shop_admin_1", true),
    ] {
        world.inherit("shop", service, name, running);
    }
}

fn inherited(world: &World) -> Vec<(String, bool)> {
    world.shape("shop").inherited.into_iter().collect()
}

#[test]
fn what_another_tool_has_started_makes_way_and_is_removed() {
    let (world, deployer) = world();
    inherit(&world);
    simulate(async {
        let plan = deployer.plan(&shop(web(1), 1, 1), &DeployOptions::default()).await.unwrap().to_string();
        let noted = "another tool has started shop_cache_1, shop_web_1: stopped first, so that nothing answers until the \
                     release does, and started again should it fail";
        assert!(plan.contains(noted), "{plan}");
        // Who depends on another goes first.
        let order: Vec<usize> =
            ["stop shop_web_1", "stop shop_cache_1", "make networks", "remove shop_web_1, shop_web_2"]
                .iter()
                .map(|step| plan.find(step).unwrap_or_else(|| panic!("no {step} in {plan}")))
                .collect();
        assert!(order.is_sorted(), "{plan}");

        deploy_well(&deployer, shop(web(1), 1, 1)).await;
        world.assert_serving("shop", "web", "web:v1", 3);
        assert_eq!(inherited(&world), [("shop_admin_1".to_owned(), true)], "it is of no service of the release");
        world.assert_no_violations();
        let again = deployer.plan(&shop(web(1), 1, 1), &DeployOptions::default()).await.unwrap();
        assert!(again.plan.is_empty(), "{again}");
    });
}

#[test]
fn a_deployment_that_fails_starts_again_what_it_has_stopped() {
    let (world, deployer) = world();
    inherit(&world);
    let before = inherited(&world);
    world.on_image("web:v2", Behaviour::crash_loop(3));
    simulate(async {
        let verdict = deploy(&deployer, shop(web(2), 1, 1)).await;
        assert!(matches!(verdict, Verdict::RolledBack { .. }), "{verdict}");
        assert_eq!(inherited(&world), before);
        world.assert_no_violations();
    });
}

#[test]
fn what_is_started_beside_a_release_that_serves_makes_way_too() {
    let (world, deployer) = world();
    world.on_image("web:v2", Behaviour::crash_loop(3));
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        world.inherit("shop", "web", "shop_web_1", true);
        world.inherit("shop", "web", "shop_web_2", false);
        let before = inherited(&world);
        let verdict = deploy(&deployer, only(web(2))).await;
        assert!(matches!(verdict, Verdict::RolledBack { .. }), "{verdict}");
        assert_eq!(inherited(&world), before);

        world.start_traffic(Traffic::to_route(Some("shop.example"), "/").per_second(20));
        // Nothing differs from the release that serves, but it serves alone from then on.
        deploy_well(&deployer, only(web(1))).await;
        assert_eq!(inherited(&world), []);
        world.assert_serving("shop", "web", "web:v1", 3);
        world.stop_traffic();
        world.assert_no_requests_lost();
        world.assert_no_violations();
    });
}

#[test]
fn destroying_an_application_leaves_alone_what_is_not_its_own() {
    let (world, deployer) = world();
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        inherit(&world);
        let before = inherited(&world);
        let record = deployer.destroy(&app(), false).finished().await.unwrap();
        assert!(record.verdict.unwrap().is_promoted());
        assert_eq!(inherited(&world), before);
    });
}
