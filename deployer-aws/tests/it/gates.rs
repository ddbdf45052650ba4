//! Gates that ask CloudWatch, on the emulator that `scripts/aws-emulator` starts. Its alarms and metrics are its own work: the
//! simulated AWS (`tests/wire/gates.rs`) is not what they were written against.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{ComparisonOperator, Dimension, MetricDatum, StateValue, Statistic, StatisticSet};
use deployer_aws::{AlarmGate, TrafficGate};
use deployer_core::{
    AppSpec, Clock, DeployOptions, Deployer, DeploymentId, Gate, GateCheck, GatePoint, GateQuestion, GateSpec, Route,
    ServiceSpec, SystemClock, Timestamp, Verdict,
};
use deployer_testkit::MemoryStore;

use crate::stage::{Stage, config};

fn cloudwatch() -> Client {
    Client::new(&config())
}

fn name() -> String {
    format!("gates-{}", DeploymentId::fresh().as_str().get(24..).unwrap())
}

/// An alarm and a composite one of it.
async fn alarms(name: &str) -> [String; 2] {
    let alarm = cloudwatch().put_metric_alarm().alarm_name(name).namespace("shop").metric_name("errors");
    let alarm = alarm.comparison_operator(ComparisonOperator::GreaterThanThreshold).threshold(5.0);
    alarm.statistic(Statistic::Sum).period(60).evaluation_periods(1).send().await.unwrap();
    let composite = format!("{name}-all");
    let call = cloudwatch().put_composite_alarm().alarm_name(&composite).alarm_rule(format!("ALARM({name})"));
    call.send().await.unwrap();
    [name.to_owned(), composite]
}

async fn set(alarm: &str, state: StateValue, reason: &str) {
    cloudwatch().set_alarm_state().alarm_name(alarm).state_value(state).state_reason(reason).send().await.unwrap();
}

fn spec(stage: &Stage, version: &str, gates: bool) -> AppSpec {
    let mut web = ServiceSpec::image(&stage.image)
        .with_command(["/shop", "web"])
        .with_env("VERSION", version)
        .with_replicas(1)
        .with_route(Route::new(8080))
        .with_http_probe("/healthz", 8080);
    if gates {
        let check = GateCheck::Callback { name: "alarms".into() };
        web = web.with_gate(GateSpec::new("quiet", GatePoint::BeforeTraffic, check));
    }
    AppSpec::new("shop").unwrap().with_service("web", web).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_ends_where_an_alarm_fires() {
    let stage = Stage::new(&name()).await.unwrap();
    let names = alarms(&stage.name).await;
    let backend = stage.backend(&config(), stage.options(), Arc::new(MemoryStore::new())).unwrap();
    let deployer =
        Deployer::builder(backend).gate("alarms", Arc::new(AlarmGate::new(&config(), names.clone()))).build();
    let deploy = async |version: &str| {
        let record = deployer.deploy(spec(&stage, version, true), DeployOptions::default()).finished().await.unwrap();
        record.verdict.unwrap()
    };

    for alarm in &names {
        set(alarm, StateValue::Ok, "quiet").await;
    }
    let quiet = deploy("v1").await;
    assert!(matches!(quiet, Verdict::Promoted { .. }), "{quiet}");
    set(&names[0], StateValue::Alarm, "six errors in a minute").await;
    let refused = deploy("v2").await.to_string();
    assert!(refused.contains(&names[0]) && refused.contains("six errors in a minute"), "{refused}");
    assert!(refused.contains("was firing before the deployment began"), "{refused}");
    set(&names[0], StateValue::Ok, "quiet again").await;
    set(&names[1], StateValue::Ok, "quiet again").await;
    let mended = deploy("v2").await;
    assert!(matches!(mended, Verdict::Promoted { .. }), "{mended}");
    for name in names.iter().rev() {
        cloudwatch().delete_alarms().alarm_names(name).send().await.unwrap();
    }
    stage.clear().await.unwrap();
}

/// Some minutes later.
#[derive(Debug)]
struct Later(Duration);

#[async_trait]
impl Clock for Later {
    fn now(&self) -> Timestamp {
        SystemClock.now() + self.0
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed() + self.0
    }

    async fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_balancers_counters_of_the_new_revision_are_asked_for() {
    let stage = Stage::new(&name()).await.unwrap();
    let deployer = Deployer::new(stage.backend(&config(), stage.options(), Arc::new(MemoryStore::new())).unwrap());
    let deployed = deployer.deploy(spec(&stage, "v1", false), DeployOptions::default()).finished().await.unwrap();
    assert!(matches!(deployed.verdict, Some(Verdict::Promoted { .. })), "{deployed:?}");
    let app = "shop".parse().unwrap();
    let status = deployer.status(&app).await.unwrap();
    let revision = status.services[0].revisions[0].revision.clone();
    let rules = stage.elb.describe_rules().listener_arn(&stage.listener).send().await.unwrap();
    let forwards = rules.rules().iter().flat_map(|rule| rule.actions()).filter_map(|action| action.forward_config());
    let weighted: Vec<_> =
        forwards.flat_map(|config| config.target_groups()).filter(|group| group.weight() > Some(0)).collect();
    let [group] = weighted.as_slice() else { panic!("{weighted:?}") };

    let group = group.target_group_arn().unwrap().rsplit(':').next().unwrap();
    let balancer = stage.listener.split_once(":listener/").unwrap().1.rsplit_once('/').unwrap().0;
    let dimension = |name: &str, value: &str| Dimension::builder().name(name).value(value).build();
    // What the load balancer counts by itself on AWS; in the second minute after now.
    let count = async |metric: &str, sum: f64, samples: f64, minute: u32| {
        let minute = Timestamp::from_millis((SystemClock.now().as_millis() / 60_000 + i64::from(minute)) * 60_000);
        let counted = StatisticSet::builder().sum(sum).sample_count(samples).minimum(0.0).maximum(1.0).build();
        let datum = MetricDatum::builder().metric_name(metric).statistic_values(counted);
        let datum = datum.dimensions(dimension("LoadBalancer", balancer)).dimensions(dimension("TargetGroup", group));
        let datum = datum.timestamp(DateTime::from_millis(minute.as_millis())).build();
        cloudwatch().put_metric_data().namespace("AWS/ApplicationELB").metric_data(datum).send().await.unwrap();
    };
    let ask = async || {
        let gate = TrafficGate::new(&config(), stage.options())
            .with_clock(Arc::new(Later(Duration::from_secs(180))))
            .with_max_latency(Duration::from_secs(1))
            .with_max_in_flight(4);
        let question = GateQuestion::new(app.clone(), deployed.id.clone(), revision.clone(), 100);
        gate.ask(question).await.unwrap().to_string()
    };
    assert_eq!(ask().await, "inconclusive: 0 of 0 requests failed, 100 requests are needed to tell");
    // Others were called in the minute in which the deployment began.
    count("RequestCount", 5_000.0, 5_000.0, 0).await;
    count("RequestCount", 400.0, 400.0, 2).await;
    count("TargetResponseTime", 120.0, 400.0, 2).await;
    let good = "pass: 0 of 400 requests failed, they take 300ms on the mean, 2.0 are in flight on the mean";
    assert_eq!(ask().await, good);
    count("TargetResponseTime", 180.0, 200.0, 2).await;
    let slow =
        "fail: 0 of 400 requests failed, they take 500ms on the mean, 5.0 are in flight on the mean, at most 4 allowed";
    assert_eq!(ask().await, slow);
    count("HTTPCode_Target_5XX_Count", 5.0, 5.0, 2).await;
    assert_eq!(ask().await, "fail: 5 of 400 requests failed, at most 1 % may");
    stage.clear().await.unwrap();
}
