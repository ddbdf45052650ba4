//! What a release says of the load balancer is so while it serves, and again after a rollback.

use std::time::Duration;

use deployer_core::{AppSpec, Balancing, DeployOptions, Deployer, Route, Strategy};
use deployer_testkit::simulate;

use crate::cloud::scenarios::{HOST, app, web};
use crate::simulated_aws;

fn spec(version: &str, balancing: Balancing, drain: u64) -> AppSpec {
    let keep_warm = Duration::from_secs(3_600);
    let strategy = Strategy::BlueGreen { bake: Duration::ZERO, keep_warm };
    app([("web", web(version, strategy).with_drain(Duration::from_secs(drain)).with_balancing(balancing))])
}

#[test]
fn what_a_release_says_of_the_load_balancer_comes_back_with_it() {
    let (world, name, wire) = simulated_aws();
    // Of the target group that gets the requests: attributes, and the healthy threshold.
    let serves = || {
        wire.cloud(|cloud| {
            let rule = cloud.rules.values().find(|rule| rule.forward().iter().any(|(_, weight)| *weight > 0)).unwrap();
            let (arn, _) = rule.forward().iter().find(|(_, weight)| *weight > 0).unwrap();
            let group = &cloud.groups[arn];
            let attribute = |key: &str| group.attributes.get(key).cloned().unwrap_or_default();
            let settings = group.settings.get("HealthyThresholdCount").cloned().unwrap_or_default();
            let keys = ["deregistration_delay.timeout_seconds", "slow_start.duration_seconds", "stickiness.enabled"];
            (keys.map(attribute), settings, rule.sticky)
        })
    };
    let text = |values: [&str; 3]| values.map(str::to_owned);
    let registered = || wire.requests().iter().filter(|one| one.operation == "RegisterTaskDefinition").count();
    simulate(async {
        let deployer = Deployer::builder(wire.backend(&wire.process())).clock(world.clock()).owner("test").build();
        let deploy = async |spec: AppSpec| {
            let record = deployer.deploy(spec, DeployOptions::default()).finished().await.unwrap();
            assert!(record.verdict.as_ref().unwrap().is_promoted(), "{record:?}");
        };
        deploy(spec("v1", Balancing::default(), 2)).await;
        assert_eq!(serves(), (text(["2", "0", "false"]), "2".to_owned(), None));

        // Another release of the same revision: nothing is started for it.
        let (made, minute) = (registered(), Duration::from_secs(60));
        let balancing = Balancing::default().with_slow_start(minute).with_sticky(minute).with_thresholds(3, 4);
        deploy(spec("v1", balancing.clone(), 9)).await;
        assert_eq!(serves(), (text(["9", "60", "true"]), "3".to_owned(), Some(1)));
        let back = deployer.rollback(&name, None).finished().await.unwrap();
        assert!(back.verdict.as_ref().unwrap().is_promoted(), "{back:?}");
        // ELB keeps callers with a target group for a second more, which moves nobody anywhere else.
        assert_eq!(serves(), (text(["2", "0", "false"]), "2".to_owned(), Some(1)));
        assert_eq!(registered(), made);

        // With a new revision, and back to the standby of the one before.
        deploy(spec("v2", balancing, 9)).await;
        assert_eq!(serves(), (text(["9", "60", "true"]), "3".to_owned(), Some(1)));
        let back = deployer.rollback(&name, None).finished().await.unwrap();
        assert!(back.verdict.as_ref().unwrap().is_promoted(), "{back:?}");
        assert_eq!(serves(), (text(["2", "0", "false"]), "2".to_owned(), Some(1)));

        // A route that only the older release has is made again in front of target groups that still keep callers.
        let mut older = spec("v3", Balancing::default(), 2);
        let api = Route::new(8080).with_host(HOST).with_path("/api");
        older.services.values_mut().for_each(|web| web.routes.push(api.clone()));
        deploy(older).await;
        deploy(spec("v4", Balancing::default().with_sticky(minute), 2)).await;
        let rules = || wire.cloud(|cloud| cloud.rules.values().map(|rule| rule.sticky).collect::<Vec<_>>());
        assert_eq!(rules(), [Some(1)]);
        let back = deployer.rollback(&name, None).finished().await.unwrap();
        assert!(back.verdict.as_ref().unwrap().is_promoted(), "{back:?}");
        assert_eq!(rules(), [Some(1), Some(1)]);
    });
    assert_eq!(wire.cloud(|cloud| cloud.broken.clone()), Vec::<String>::new());
}

#[test]
fn what_somebody_else_has_put_into_a_rule_is_told_and_stays() {
    let (world, _, wire) = simulated_aws();
    simulate(async {
        let deployer = Deployer::builder(wire.backend(&wire.process())).clock(world.clock()).owner("test").build();
        let first = deployer.deploy(spec("v1", Balancing::default(), 2), DeployOptions::default()).finished().await;
        assert!(first.unwrap().verdict.unwrap().is_promoted());
        let theirs = wire.cloud(|cloud| {
            let mut group = cloud.groups.values().next().unwrap().clone();
            (group.arn, group.name) = (group.arn.replace("targetgroup/", "targetgroup/theirs-"), "theirs".to_owned());
            (group.tags, group.targets) = Default::default();
            let rule = cloud.rules.values_mut().next().unwrap();
            let mut forward = rule.forward().to_vec();
            forward.push((group.arn.clone(), 30));
            rule.forwards.push((cloud.now, forward));
            let arn = group.arn.clone();
            cloud.groups.insert(arn.clone(), group);
            arn
        });
        let second = deployer.deploy(spec("v2", Balancing::default(), 2), DeployOptions::default()).finished().await;
        let verdict = second.unwrap().verdict.unwrap();
        assert!(!verdict.is_promoted(), "{verdict}");
        let told = verdict.to_string();
        assert!(told.contains("somebody else's target group") && told.contains(&theirs), "{told}");
        let kept = wire.cloud(|cloud| cloud.rules.values().next().unwrap().forward().to_vec());
        assert!(kept.contains(&(theirs.clone(), 30)), "{kept:?}");
    });
    assert_eq!(wire.cloud(|cloud| cloud.broken.clone()), Vec::<String>::new());
}
