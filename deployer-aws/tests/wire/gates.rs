//! Gates that ask CloudWatch, on the simulated AWS.

use std::sync::Arc;
use std::time::Duration;

use deployer_aws::{AlarmGate, TrafficGate};
use deployer_core::{
    DeployOptions, Deployer, DeploymentId, ErrorKind, Gate, GateQuestion, RevisionId, Strategy, Timestamp,
};
use deployer_testkit::simulate;

use crate::cloud::http::EPOCH_MILLIS;
use crate::cloud::metrics_api::Alarm;
use crate::cloud::scenarios::{APP, HOST, app, web};
use crate::simulated_aws;

/// A question of a deployment that began so many milliseconds after the simulated AWS.
fn question(revision: &RevisionId, began: u64) -> GateQuestion {
    let id: DeploymentId = format!("{:012x}7000800000000000000a", EPOCH_MILLIS + began).parse().unwrap();
    assert_eq!(id.made_at().map(Timestamp::as_millis), i64::try_from(EPOCH_MILLIS + began).ok());
    GateQuestion::new(APP.parse().unwrap(), id, revision.clone(), 20)
}

#[test]
fn alarms_are_asked_by_name_whatever_they_are_made_of() {
    let (_, _, wire) = simulated_aws();
    simulate(async {
        let revision: RevisionId = "web@0123456789ab".parse().unwrap();
        let config = wire.config(&wire.process());
        let ask =
            async |names: &[&str]| AlarmGate::new(&config, names.iter().copied()).ask(question(&revision, 1_000)).await;
        let set = |name: &str, composite: bool, state: &'static str, since: u64| {
            wire.cloud(|cloud| cloud.alarms.insert(name.to_owned(), Alarm { composite, state, since }));
        };
        set("errors", false, "OK", 1);
        set("all", true, "OK", 1);
        set("rare", false, "INSUFFICIENT_DATA", 1);
        assert_eq!(ask(&["errors", "all"]).await.unwrap().to_string(), "pass: 2 alarms are quiet");
        assert_eq!(ask(&["errors", "rare"]).await.unwrap().to_string(), "inconclusive: too little data for rare");
        set("all", true, "ALARM", 2_000);
        assert_eq!(ask(&["errors", "all"]).await.unwrap().to_string(), "fail: alarm all fires: all is ALARM");
        set("all", true, "ALARM", 500);
        let before =
            "fail: alarm all was firing before the deployment began, since 2026-01-01T00:00:00.500Z: all is ALARM";
        assert_eq!(ask(&["errors", "all"]).await.unwrap().to_string(), before);
        let unknown = ask(&["errors", "eroors"]).await.unwrap_err();
        assert_eq!((unknown.kind(), unknown.resource()), (ErrorKind::NotFound, Some("eroors")));
    });
    assert_eq!(wire.cloud(|cloud| cloud.broken.clone()), Vec::<String>::new());
}

#[test]
fn the_load_balancers_counters_tell_what_became_of_requests_to_the_new_revision() {
    let (world, _, wire) = simulated_aws();
    simulate(async {
        let deployer = Deployer::builder(wire.backend(&wire.process())).clock(world.clock()).owner("test").build();
        let spec = app([("web", web("v1", Strategy::default()))]);
        deployer.deploy(spec, DeployOptions::default()).finished().await.unwrap();
        let status = deployer.status(&APP.parse().unwrap()).await.unwrap();
        let revision = status.services[0].revisions[0].revision.clone();
        let gate = TrafficGate::new(&wire.config(&wire.process()), wire.options())
            .with_max_latency(Duration::from_secs(1))
            .with_clock(Arc::clone(&world.clock()) as _);
        let began = u64::try_from(world.clock().elapsed().as_millis()).unwrap();
        let ask = async || gate.ask(question(&revision, began)).await.unwrap().to_string();
        wire.cloud(|cloud| cloud.start_traffic(HOST, 100));
        let quiet = ask().await;
        assert_eq!(quiet, "inconclusive: 0 of 0 requests failed, 100 requests are needed to tell");
        world.clock().sleep(Duration::from_secs(180)).await;
        let good = ask().await;
        assert!(good.starts_with("pass: 0 of 1") && good.ends_with("they take 300ms on the mean"), "{good}");
        wire.cloud(|cloud| {
            let (now, groups) = (cloud.now, cloud.groups.keys().cloned().collect::<Vec<_>>());
            // What the other slot has failed with is not the revision's fault.
            let serving = groups.iter().find(|arn| arn.ends_with("-a/1") || arn.contains("-a/")).unwrap();
            cloud.counted.add(serving, "HTTPCode_Target_5XX_Count", now, 100.0);
        });
        assert_eq!(ask().await, good, "an answer is held for a moment");
        world.clock().sleep(Duration::from_secs(20)).await;
        let bad = ask().await;
        assert!(bad.starts_with("fail: 100 of 1") && bad.ends_with("at most 1 % may"), "{bad}");
    });
    assert_eq!(wire.cloud(|cloud| cloud.broken.clone()), Vec::<String>::new());
}
