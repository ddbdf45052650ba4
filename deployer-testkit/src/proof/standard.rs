//! The scenarios with which Deployer's engine is proven.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deployer_core::{
    AppSpec, CanaryStep, Gate, GateAnswer, GateCheck, GatePoint, GateQuestion, GateSpec, Hook, HookPoint, Mount,
    OnInconclusive, ReleaseNumber, Result, Route, ServiceSpec, Strategy, TargetRegistration,
};

use super::scenario::{Act, Scenario};
use crate::scenario::Behaviour;
use crate::world::traffic::Traffic;
use crate::world::{Options, Rate, World};

const APP: &str = "shop";
const SECOND: Duration = Duration::from_secs(1);
const INSTANCES: u32 = 3;

/// All scenarios: every strategy, deploying, failing, cancelling, rolling back, one service and several, with hooks, gates
/// and volumes, several processes at once, in worlds of either kind: a single host, and a cloud in which a change of the
/// load balancer takes its time.
#[must_use]
pub fn standard() -> Vec<Scenario> {
    let mut scenarios = strategies(Options::default(), "");
    let cloud = Options::default()
        .with_targets(TargetRegistration::Orchestrator)
        .with_hosts(3)
        .with_propagation(Duration::from_millis(500))
        .with_drain(Duration::from_secs(1));
    scenarios.extend(strategies(cloud.clone(), "cloud/"));
    scenarios.extend(rollbacks(Options::default(), ""));
    scenarios.extend(rollbacks(cloud.clone(), "cloud/"));
    scenarios.extend(services(Options::default(), ""));
    scenarios.extend(services(cloud, "cloud/"));
    scenarios.extend(gates());
    scenarios.extend(changes());
    scenarios.extend(processes());
    scenarios.extend(limits());
    scenarios.extend(neighbours());
    scenarios.extend(inheritances());
    scenarios
}

/// Images `web:v1` to `web:v5` and others that are ready soon, and broken ones.
fn arrange(world: &World) {
    let soon = || Behaviour::healthy().with_ready_after(Duration::from_millis(40));
    for version in 1..=4 {
        world.on_image(&format!("web:v{version}"), soon());
        world.on_image(&format!("worker:v{version}"), soon());
        world.on_image(&format!("cache:v{version}"), soon());
    }
    world.on_image("web:broken", Behaviour::crash_loop(3).with_log("FATAL: no database"));
    world.on_image("worker:broken", Behaviour::crash_loop(3).with_log("FATAL: no queue"));
    world.on_image("cache:broken", Behaviour::crash_loop(3).with_log("FATAL: bad header"));
    world.on_image("web:never", Behaviour::never_healthy("GET /healthz answered 503"));
    world.on_image("web:errors", soon().with_errors_permille(400));
    world.on_image("web:dies", Behaviour::crash_after(SECOND, 134).with_ready_after(Duration::from_millis(40)));
    world.on_image("web:polite", soon().finishing_requests());
    world.on_image("web:polite-too", soon().finishing_requests());
    let task = |code| Behaviour::task(Duration::from_millis(60), code);
    world.on_command("succeed", task(0));
    world.on_command("fail", task(9));
}

fn web(image: &str, strategy: Strategy) -> ServiceSpec {
    ServiceSpec::image(image)
        .with_replicas(INSTANCES)
        .with_port(8080)
        .with_route(Route::new(8080).with_host("shop.example"))
        .with_http_probe("/healthz", 8080)
        .with_ready_deadline(30 * SECOND)
        .with_strategy(strategy)
}

fn app(services: impl IntoIterator<Item = (&'static str, ServiceSpec)>) -> AppSpec {
    let empty = AppSpec::new(APP);
    let made = services.into_iter().fold(empty, |app, (name, service)| app?.with_service(name, service));
    made.unwrap_or_else(|error| unreachable!("{error}"))
}

fn only(service: ServiceSpec) -> AppSpec {
    app([("web", service)])
}

fn requests() -> Traffic {
    Traffic::to_route(Some("shop.example"), "/").per_second(40).taking(Duration::from_millis(300))
}

fn scenario(name: String, options: &Options) -> Scenario {
    Scenario::new(name, APP, arrange).in_world(options.clone())
}

fn blue_green() -> Strategy {
    Strategy::default()
}

fn warm() -> Strategy {
    Strategy::BlueGreen { bake: Duration::ZERO, keep_warm: 3_600 * SECOND }
}

fn baking() -> Strategy {
    Strategy::BlueGreen { bake: 2 * SECOND, keep_warm: Duration::ZERO }
}

fn rolling(surge: u32, unavailable: u32) -> Strategy {
    Strategy::Rolling { surge, unavailable }
}

fn canary() -> Strategy {
    Strategy::Canary { steps: vec![CanaryStep { weight: 20, hold: SECOND }, CanaryStep { weight: 50, hold: SECOND }] }
}

fn linear() -> Strategy {
    Strategy::Linear { step: 34, interval: SECOND }
}

/// Every strategy, to a release that is good and to one that is not.
fn strategies(options: Options, world: &str) -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for (name, strategy, kept) in [
        ("recreate", Strategy::Recreate, 0),
        ("rolling", rolling(1, 0), INSTANCES),
        ("rolling-down", rolling(0, 1), INSTANCES - 1),
        ("rolling-wide", rolling(2, 2), INSTANCES - 2),
        ("blue-green", blue_green(), INSTANCES),
        ("baking", baking(), INSTANCES),
        ("warm", warm(), INSTANCES),
        ("canary", canary(), INSTANCES),
        ("linear", linear(), INSTANCES),
    ] {
        let update = |to: &str, ends, what: &str| {
            let scenario = scenario(format!("{world}{name}/{what}"), &options)
                .serving(only(web("web:v1", strategy.clone())))
                .then(Act::deploy(only(web(to, strategy.clone()))))
                .ending(ends)
                .under(requests())
                .keeping("web", kept);
            if strategy == Strategy::Recreate { scenario.losing_requests() } else { scenario }
        };
        scenarios.push(update("web:v2", "promoted", "deploy"));
        scenarios.push(update("web:broken", "rolled-back", "failing"));
    }
    scenarios
}

/// Back to what was there before, warm and cold.
fn rollbacks(options: Options, world: &str) -> Vec<Scenario> {
    let serving = |name: &str, strategy: &Strategy, versions: u32| {
        (1..=versions).fold(scenario(format!("{world}rollback/{name}"), &options), |scenario, version| {
            scenario.serving(only(web(&format!("web:v{version}"), strategy.clone())))
        })
    };
    let usual = |scenario: Scenario| scenario.under(requests()).keeping("web", INSTANCES);
    vec![
        usual(serving("warm", &warm(), 2).then(Act::Rollback(None))),
        usual(serving("cold", &blue_green(), 2).then(Act::Rollback(None))),
        usual(serving("far", &warm(), 3).then(Act::Rollback(Some(ReleaseNumber(1))))),
        usual(serving("rolling", &rolling(1, 0), 2).then(Act::Rollback(None))),
        serving("recreate", &Strategy::Recreate, 2).then(Act::Rollback(None)).under(requests()).losing_requests(),
    ]
}

fn worker(version: &str) -> ServiceSpec {
    let spec = ServiceSpec::image(format!("worker:{version}")).with_replicas(2);
    spec.with_dependency("cache").unwrap_or_else(|error| unreachable!("{error}"))
}

/// A service that writes to a volume.
fn cache(version: &str) -> ServiceSpec {
    ServiceSpec::image(format!("cache:{version}")).with_port(6379).with_mount(Mount::volume("data", "/data"))
}

fn hooked(version: &str, pre_deploy: &str) -> ServiceSpec {
    let spec = web(&format!("web:{version}"), blue_green())
        .with_hook(Hook::new("migrate", HookPoint::PreDeploy, [pre_deploy]))
        .with_hook(Hook::new("announce", HookPoint::PostDeploy, ["succeed"]))
        .with_hook(Hook::new("farewell", HookPoint::PreStop, ["succeed"]));
    spec.with_dependency("cache").unwrap_or_else(|error| unreachable!("{error}"))
}

/// Several services with dependencies, hooks and a volume.
fn services(options: Options, world: &str) -> Vec<Scenario> {
    let shop = |web: ServiceSpec, worker_version: &str, cache_version: &str| {
        app([("web", web), ("worker", worker(worker_version)), ("cache", cache(cache_version))])
    };
    let update = |name: &str, to: AppSpec| {
        scenario(format!("{world}services/{name}"), &options)
            .serving(shop(hooked("v1", "succeed"), "v1", "v1"))
            .then(Act::deploy(to))
            .under(requests())
            .keeping("web", INSTANCES)
    };
    let without_worker = app([("web", hooked("v2", "succeed")), ("cache", cache("v1"))]);
    vec![
        update("deploy", shop(hooked("v2", "succeed"), "v2", "v1")),
        update("everything", shop(hooked("v2", "succeed"), "v2", "v2")),
        update("failing-worker", shop(hooked("v2", "succeed"), "broken", "v1")).ending("rolled-back"),
        update("failing-hook", shop(hooked("v2", "fail"), "v2", "v1")).ending("rolled-back"),
        update("failing-volume", shop(hooked("v2", "succeed"), "v1", "broken")).ending("rolled-back"),
        update("removed", without_worker),
        update("rollback", shop(hooked("v2", "succeed"), "v2", "v2"))
            .serving(shop(hooked("v2", "succeed"), "v2", "v2"))
            .then(Act::Rollback(None)),
        update("destroyed", shop(hooked("v2", "succeed"), "v2", "v1"))
            .then(Act::Destroy)
            .losing_requests()
            .keeping("web", 0),
    ]
}

/// Says yes at once.
#[derive(Debug)]
struct Yes;

#[async_trait]
impl Gate for Yes {
    async fn ask(&self, _: GateQuestion) -> Result<GateAnswer> {
        Ok(GateAnswer::Pass { detail: "it is fine".into() })
    }
}

/// Questions before traffic and while a deployment holds.
fn gates() -> Vec<Scenario> {
    let errors = || {
        let check = GateCheck::ErrorRate { max_permille: 50, min_requests: 5 };
        GateSpec::new("errors", GatePoint::Holding, check)
            .with_interval(Duration::from_millis(300))
            .with_on_inconclusive(OnInconclusive::Proceed)
    };
    let smoke = || {
        let check = GateCheck::Smoke { path: "/".into(), port: 8080, status: 200, contains: Some("ok".into()) };
        GateSpec::new("smoke", GatePoint::BeforeTraffic, check)
    };
    let ask = || GateSpec::new("ask", GatePoint::Holding, GateCheck::Callback { name: "yes".into() });
    let approval = || {
        let check = GateCheck::Approval { timeout: 20 * SECOND };
        GateSpec::new("approval", GatePoint::Holding, check)
    };
    let update = |name: &str, to: ServiceSpec| {
        scenario(format!("gates/{name}"), &Options::default())
            .serving(only(web("web:v1", canary())))
            .then(Act::deploy(only(to)))
            .under(requests())
            .keeping("web", INSTANCES)
            .equip(|deployer, _| deployer.gate("yes", Arc::new(Yes)))
    };
    let gated = |image: &str| web(image, canary()).with_gate(smoke()).with_gate(errors()).with_gate(ask());
    // Long enough for errors to be counted, whatever is away for a while.
    let hold = |weight| CanaryStep { weight, hold: 3 * SECOND };
    let long = |service: ServiceSpec| service.with_strategy(Strategy::Canary { steps: vec![hold(20), hold(50)] });
    vec![
        update("pass", gated("web:v2")),
        update("errors", long(gated("web:errors"))).ending("rolled-back"),
        update("never-healthy", gated("web:never").with_ready_deadline(SECOND)).ending("rolled-back"),
        update("approval", web("web:v2", baking()).with_gate(approval()))
            .meanwhile(3 * SECOND, Act::Promote)
            .ending_any(["promoted", "rolled-back"]),
        update("dies", web("web:dies", baking())).ending("rolled-back").losing_requests().keeping("web", 0),
    ]
}

/// The first deployment, the same again, other numbers, other routes, and the end.
fn changes() -> Vec<Scenario> {
    let with = |replicas| only(web("web:v1", blue_green()).with_replicas(replicas));
    let named = |name: &str| scenario(name.to_owned(), &Options::default());
    let serving = |name: &str| named(name).serving(with(INSTANCES)).under(requests());
    let elsewhere = web("web:v1", blue_green()).with_route(Route::new(8080).with_host("other.example"));
    vec![
        named("first/deploy").then(Act::deploy(with(INSTANCES))),
        named("first/failing").then(Act::deploy(only(web("web:broken", blue_green())))).ending("rolled-back"),
        named("first/failing-hook")
            .then(Act::deploy(app([("web", hooked("v1", "fail")), ("cache", cache("v1"))])))
            .ending("rolled-back"),
        serving("unchanged").then(Act::deploy(with(INSTANCES))).keeping("web", INSTANCES),
        serving("scale/up").then(Act::deploy(with(INSTANCES + 2))).keeping("web", INSTANCES),
        serving("scale/down").then(Act::deploy(with(INSTANCES - 1))).keeping("web", INSTANCES - 1),
        serving("routes").then(Act::deploy(only(elsewhere))).keeping("web", INSTANCES),
        serving("destroy").then(Act::Destroy).losing_requests(),
    ]
}

/// What another tool has started, in an application that was never deployed and in one that was.
fn inheritances() -> Vec<Scenario> {
    let inherits = |name: &str, to: AppSpec| {
        let after = |world: &World| {
            arrange(world);
            world.inherit(APP, "cache", "shop_cache_1", true);
            world.inherit(APP, "web", "shop_web_1", true);
            world.inherit(APP, "web", "shop_web_2", false);
        };
        let scenario = Scenario::new(format!("inherited/{name}"), APP, after).losing_requests();
        scenario.then(Act::deploy(to)).under(requests())
    };
    let to = |image: &str| app([("web", web(image, blue_green())), ("cache", cache("v1"))]);
    vec![
        inherits("deploy", to("web:v1")),
        inherits("failing", to("web:broken")).ending("rolled-back"),
        inherits("cancel", to("web:v1"))
            .meanwhile(Duration::from_millis(60), Act::Cancel)
            .ending_any(["cancelled", "promoted"]),
        inherits("supersede", to("web:v1")).meanwhile(Duration::from_millis(60), Act::supersede(to("web:v2"))),
        inherits("supersede-failing", to("web:v1"))
            .meanwhile(Duration::from_millis(60), Act::supersede(to("web:broken")))
            .ending_any(["rolled-back", "promoted"]),
    ]
}

/// Several people at once.
fn processes() -> Vec<Scenario> {
    let serving = |name: &str| {
        scenario(name.to_owned(), &Options::default())
            .serving(only(web("web:v1", canary())))
            .then(Act::deploy(only(web("web:v2", canary()))))
            .under(requests())
            .keeping("web", INSTANCES)
    };
    let third = || only(web("web:v3", canary()));
    vec![
        serving("cancel/holding")
            .meanwhile(Duration::from_millis(1_500), Act::Cancel)
            .ending_any(["cancelled", "promoted"]),
        serving("cancel/starting")
            .meanwhile(Duration::from_millis(20), Act::Cancel)
            .ending_any(["cancelled", "promoted"]),
        serving("race/deploy").meanwhile(Duration::ZERO, Act::deploy(third())),
        serving("race/supersede").meanwhile(Duration::from_millis(1_500), Act::supersede(third())),
        serving("race/supersede-at-once").meanwhile(Duration::from_millis(1), Act::supersede(third())),
        serving("race/rollback").meanwhile(Duration::from_millis(500), Act::Rollback(None)),
    ]
}

/// What a platform does not give: changes that hold at once, as many calls, instances and pools as one likes, and requests
/// that each come over a connection of their own.
fn limits() -> Vec<Scenario> {
    let update = |name: String, options: &Options, strategy: Strategy, to: &str| {
        scenario(name, options)
            .serving(only(web("web:v1", strategy.clone())))
            .then(Act::deploy(only(web(to, strategy))))
            .under(requests())
    };
    let late = Options::default().with_propagation(Duration::from_millis(600));
    let throttled = Options::default().with_rate(Rate { burst: 12, per_second: 6 });
    let small = Options::default().with_quotas(INSTANCES + 2, 2);
    let mut scenarios = Vec::new();
    for (name, strategy) in [("rolling", rolling(1, 0)), ("blue-green", blue_green()), ("canary", canary())] {
        let kept = |scenario: Scenario| scenario.keeping("web", INSTANCES);
        scenarios.push(kept(update(format!("late/{name}"), &late, strategy.clone(), "web:v2")));
        // Nobody takes a connection away from an instance; it must finish what it has begun when it is told to end.
        let polite = |image| web(image, strategy.clone()).with_drain(SECOND);
        let (old, new) = (polite("web:polite"), polite("web:polite-too"));
        let connections = scenario(format!("connections/{name}"), &Options::default())
            .serving(only(old))
            .then(Act::deploy(only(new)))
            .under(requests())
            .under(requests().over_connections(6));
        scenarios.push(kept(connections));
    }
    for (name, strategy) in [("rolling", rolling(1, 0)), ("blue-green", blue_green())] {
        let scenario = update(format!("throttled/{name}"), &throttled, strategy, "web:v2");
        scenarios.push(scenario.keeping("web", INSTANCES));
    }
    scenarios.push(update("late/failing".into(), &late, blue_green(), "web:broken").ending("rolled-back"));
    scenarios.push(
        update("late/rollback".into(), &late, warm(), "web:v2")
            .serving(only(web("web:v2", warm())))
            .then(Act::Rollback(None)),
    );
    scenarios.push(update("quota/rolling".into(), &small, rolling(1, 0), "web:v2").keeping("web", INSTANCES));
    let too_many = update("quota/blue-green".into(), &small, blue_green(), "web:v2");
    scenarios.push(too_many.ending("rolled-back").keeping("web", INSTANCES));
    scenarios
}

/// Another application with the same images.
fn neighbours() -> Vec<Scenario> {
    let other = || {
        let route = Route::new(8080).with_host("other.example");
        let service = ServiceSpec::image("web:v1").with_replicas(2).with_port(8080).with_route(route);
        let service = service.with_mount(Mount::volume("data", "/data"));
        AppSpec::new("other")
            .and_then(|app| app.with_service("web", service))
            .unwrap_or_else(|error| unreachable!("{error}"))
    };
    let beside = |name: &str, act: Act| {
        let others_requests = Traffic::to_route(Some("other.example"), "/").per_second(10);
        let serving = app([("web", web("web:v1", blue_green())), ("cache", cache("v1"))]);
        scenario(format!("beside/{name}"), &Options::default())
            .beside(other())
            .serving(serving)
            .then(act)
            .under(others_requests)
    };
    let to = |image: &str| Act::deploy(app([("web", web(image, blue_green())), ("cache", cache("v2"))]));
    vec![
        beside("deploy", to("web:v2")),
        beside("failing", to("web:broken")).ending("rolled-back"),
        beside("destroy", Act::Destroy),
    ]
}
