//! The stories that are played on the simulated AWS.

use std::time::Duration;

use deployer_core::{
    AppSpec, CanaryStep, Hook, HookPoint, ImageSource, Port, ReleaseNumber, Route, Scaling, ScalingSchedule,
    ScalingTarget, SecretRef, ServiceSpec, Strategy,
};

use super::Profile;
use super::images_api::REGISTRY;

pub(crate) const APP: &str = "shop";
pub(crate) const HOST: &str = "shop.example";
/// A published port.
pub(crate) const PUBLISHED: &str = "5432";
const SECOND: Duration = Duration::from_secs(1);

/// What somebody does with an application.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Deploy(Box<AppSpec>),
    Rollback(Option<ReleaseNumber>),
    Destroy,
}

/// A story about one application.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) profile: Profile,
    /// Deployed before, one after the other.
    pub(crate) served: Vec<AppSpec>,
    pub(crate) act: Act,
    pub(crate) ends: &'static str,
    /// Whether requests come from the beginning to the end, none of which may be lost.
    pub(crate) traffic: bool,
}

impl Scenario {
    fn new(name: &'static str, act: Act) -> Self {
        Self { name, profile: Profile::default(), served: Vec::new(), act, ends: "promoted", traffic: true }
    }

    fn serving(mut self, spec: AppSpec) -> Self {
        self.served.push(spec);
        self
    }

    fn ending(mut self, verdict: &'static str) -> Self {
        self.ends = verdict;
        self
    }

    fn without_traffic(mut self) -> Self {
        self.traffic = false;
        self
    }

    /// While it is acted, users come in a rush that takes more tasks.
    fn in_a_rush(mut self) -> Self {
        self.profile.rush = 5;
        self
    }

    /// In a namespace in which services have names.
    fn named(mut self) -> Self {
        self.profile.names = true;
        self
    }

    /// Where there is a Network Load Balancer.
    fn published(mut self) -> Self {
        self.profile.publishes = true;
        self
    }

    /// With images in ECR, records in DynamoDB and secrets, on the simulated AWS as all the rest.
    fn whole(mut self) -> Self {
        self.profile.whole = true;
        self.served = self.served.into_iter().map(in_ecr).collect();
        if let Act::Deploy(spec) = self.act {
            self.act = deploy(in_ecr(*spec));
        }
        self
    }

    fn where_draining_counts(mut self) -> Self {
        self.profile.draining_counts = true;
        self
    }
}

pub(crate) fn web(version: &str, strategy: Strategy) -> ServiceSpec {
    ServiceSpec::image("web:v1")
        .with_env("VERSION", version)
        .with_replicas(2)
        .with_route(Route::new(8080).with_host(HOST))
        .with_http_probe("/healthz", 8080)
        .with_ready_deadline(60 * SECOND)
        .with_drain(2 * SECOND)
        .with_strategy(strategy)
}

pub(crate) fn app(services: impl IntoIterator<Item = (&'static str, ServiceSpec)>) -> AppSpec {
    let empty = AppSpec::new(APP);
    let made = services.into_iter().fold(empty, |app, (name, service)| app?.with_service(name, service));
    made.unwrap_or_else(|error| unreachable!("{error}"))
}

fn only(version: &str, strategy: &Strategy) -> AppSpec {
    app([("web", web(version, strategy.clone()))])
}

/// The web service, scaled up to so many tasks.
fn scaled(version: &str, max: u32, strategy: &Strategy) -> ServiceSpec {
    let night = ScalingSchedule::new("night", "0 22 * * *".parse().unwrap_or_else(|error| unreachable!("{error}")));
    let scaling = Scaling::new(2, max)
        .with_target(ScalingTarget::Cpu { percent: 60 })
        .with_target(ScalingTarget::Requests { per_minute: 600 })
        .with_schedule(night.with_bounds(1, 2));
    web(version, strategy.clone()).with_replicas(3).with_scaling(scaling)
}

fn broken(how: &str, strategy: &Strategy) -> AppSpec {
    app([("web", web("broken", strategy.clone()).with_env("BROKEN", how))])
}

/// The web service, with one of its ports published as well.
fn both_ways(version: &str, strategy: &Strategy) -> AppSpec {
    app([(
        "web",
        web(version, strategy.clone()).with_ports(Port::published(8080, PUBLISHED.parse().unwrap_or_default())),
    )])
}

/// The web service with its route at another port.
fn at(port: u16, version: &str, strategy: &Strategy) -> ServiceSpec {
    let mut web = web(version, strategy.clone()).with_http_probe("/healthz", port);
    web.routes = vec![Route::new(port).with_host(HOST)];
    web
}

/// The web service with a second route.
fn with_api(version: &str, strategy: &Strategy) -> AppSpec {
    app([("web", web(version, strategy.clone()).with_route(Route::new(8080).with_host(HOST).with_path("/api")))])
}

/// The same with its images in ECR, and with secrets.
pub(crate) fn in_ecr(mut spec: AppSpec) -> AppSpec {
    for service in spec.services.values_mut() {
        if let ImageSource::Reference(image) = &mut service.image {
            *image = format!("{REGISTRY}/{image}");
        }
        let with = service.clone().with_secret_env("PASSWORD", SecretRef::new("shop/db#password"));
        *service = with.with_secret_env("KEY", SecretRef::new("ssm:/shop/key"));
    }
    spec
}

fn deploy(spec: AppSpec) -> Act {
    Act::Deploy(Box::new(spec))
}

/// A web service that runs a hook, and a worker on which it depends.
fn both(version: &str, migrate: &str) -> AppSpec {
    let worker = ServiceSpec::image("worker:v1").with_env("VERSION", version).with_replicas(1);
    let web = web(version, Strategy::default())
        .with_hook(Hook::new("migrate", HookPoint::PreDeploy, [migrate]))
        .with_dependency("worker");
    app([("web", web.unwrap_or_else(|error| unreachable!("{error}"))), ("worker", worker)])
}

/// An application on the same listener that nobody may touch.
pub(crate) fn neighbour(whole: bool) -> AppSpec {
    let web = ServiceSpec::image("web:v1").with_route(Route::new(8080).with_host("other.example")).with_drain(SECOND);
    let made = AppSpec::new("shop-next-door").and_then(|app| app.with_service("web", web));
    let made = made.unwrap_or_else(|error| unreachable!("{error}"));
    if whole { in_ecr(made) } else { made }
}

/// All scenarios.
pub(crate) fn all() -> Vec<Scenario> {
    let blue_green = Strategy::default();
    let warm = Strategy::BlueGreen { bake: Duration::ZERO, keep_warm: 3_600 * SECOND };
    let rolling = Strategy::Rolling { surge: 1, unavailable: 0 };
    let step = |weight| CanaryStep { weight, hold: 3 * SECOND };
    let canary = Strategy::Canary { steps: vec![step(20), step(50)] };
    let update =
        |name, strategy: &Strategy| Scenario::new(name, deploy(only("v2", strategy))).serving(only("v1", strategy));
    let failing = |name, how, strategy: &Strategy| {
        Scenario::new(name, deploy(broken(how, strategy))).serving(only("v1", strategy)).ending("rolled-back")
    };
    let back = |name, strategy: &Strategy| {
        let scenario = Scenario::new(name, Act::Rollback(None));
        scenario.serving(only("v1", strategy)).serving(only("v2", strategy))
    };
    vec![
        Scenario::new("first", deploy(only("v1", &blue_green))).without_traffic(),
        Scenario::new("first/failing", deploy(broken("exit", &blue_green))).without_traffic().ending("rolled-back"),
        update("blue-green", &blue_green),
        update("blue-green/draining-counts", &blue_green).where_draining_counts(),
        update("warm", &warm),
        update("rolling", &rolling),
        update("canary", &canary),
        failing("blue-green/exits", "exit", &blue_green),
        failing("blue-green/never-ready", "never", &blue_green),
        failing("rolling/exits", "exit", &rolling),
        back("rollback/warm", &warm),
        back("rollback/cold", &blue_green).where_draining_counts(),
        Scenario::new("third", deploy(only("v3", &warm))).serving(only("v1", &warm)).serving(only("v2", &warm)),
        Scenario::new("third/route", deploy(only("v3", &warm)))
            .serving(with_api("v1", &warm))
            .serving(with_api("v2", &warm)),
        Scenario::new("scale", deploy(app([("web", web("v1", blue_green.clone()).with_replicas(4))])))
            .serving(only("v1", &blue_green)),
        Scenario::new("scaled", deploy(app([("web", scaled("v2", 6, &blue_green))])))
            .serving(app([("web", scaled("v1", 6, &blue_green))]))
            .in_a_rush(),
        Scenario::new("scaled/canary", deploy(app([("web", scaled("v2", 6, &canary))])))
            .serving(app([("web", scaled("v1", 6, &canary))]))
            .in_a_rush(),
        Scenario::new("scaled/exits", deploy(app([("web", scaled("v2", 6, &blue_green).with_env("BROKEN", "exit"))])))
            .serving(app([("web", scaled("v1", 6, &blue_green))]))
            .in_a_rush()
            .ending("rolled-back"),
        Scenario::new("scaled/rolling", deploy(app([("web", scaled("v2", 6, &rolling))])))
            .serving(app([("web", scaled("v1", 6, &rolling))])),
        Scenario::new("scaled/rollback", Act::Rollback(None))
            .serving(app([("web", scaled("v1", 6, &warm))]))
            .serving(app([("web", scaled("v2", 6, &warm))]))
            .in_a_rush(),
        Scenario::new("scaled/changes", deploy(app([("web", scaled("v1", 8, &blue_green))])))
            .serving(app([("web", scaled("v1", 6, &blue_green))])),
        Scenario::new("scaled/begins", deploy(app([("web", scaled("v2", 6, &blue_green))])))
            .serving(app([("web", web("v1", blue_green.clone()).with_replicas(3))])),
        Scenario::new("scaled/ends", deploy(app([("web", web("v2", blue_green.clone()).with_replicas(3))])))
            .serving(app([("web", scaled("v1", 6, &blue_green))])),
        Scenario::new("scaled/destroy", Act::Destroy)
            .serving(app([("web", scaled("v1", 6, &blue_green))]))
            .without_traffic(),
        Scenario::new("port", deploy(app([("web", at(9090, "v2", &blue_green))]))).serving(only("v1", &blue_green)),
        Scenario::new("port/alone", deploy(app([("web", at(9090, "v1", &canary))]))).serving(only("v1", &canary)),
        Scenario::new("port/second", {
            let admin = Route::new(9090).with_host(HOST).with_path("/admin");
            deploy(app([("web", web("v1", blue_green.clone()).with_route(admin))]))
        })
        .serving(only("v1", &blue_green)),
        Scenario::new("port/rollback", Act::Rollback(None))
            .serving(only("v1", &warm))
            .serving(app([("web", at(9090, "v2", &warm))])),
        Scenario::new("hook", deploy(both("v2", "succeed"))).serving(both("v1", "succeed")),
        Scenario::new("hook/fails", deploy(both("v2", "fail"))).serving(both("v1", "succeed")).ending("rolled-back"),
        Scenario::new("named", deploy(both("v2", "succeed"))).serving(only("v1", &blue_green)).named(),
        Scenario::new("named/exits", deploy(broken("exit", &blue_green)))
            .serving(only("v1", &blue_green))
            .named()
            .ending("rolled-back"),
        Scenario::new("published", deploy(both_ways("v2", &blue_green)))
            .serving(both_ways("v1", &blue_green))
            .published(),
        Scenario::new("published/canary", deploy(both_ways("v2", &canary)))
            .serving(both_ways("v1", &canary))
            .published(),
        Scenario::new("published/begins", deploy(both_ways("v2", &blue_green)))
            .serving(only("v1", &blue_green))
            .without_traffic()
            .published(),
        Scenario::new("published/rollback", Act::Rollback(None))
            .serving(both_ways("v1", &warm))
            .serving(both_ways("v2", &warm))
            .published(),
        Scenario::new("published/destroy", Act::Destroy)
            .serving(both_ways("v1", &blue_green))
            .without_traffic()
            .published(),
        update("whole", &canary).whole(),
        update("whole/warm", &warm).whole(),
        failing("whole/exits", "exit", &blue_green).whole(),
        back("whole/rollback", &warm).whole(),
        Scenario::new("whole/first", deploy(both("v1", "succeed"))).without_traffic().whole(),
        Scenario::new("whole/destroy", Act::Destroy).serving(both("v1", "succeed")).without_traffic().whole(),
        Scenario::new("named/destroy", Act::Destroy).serving(both("v1", "succeed")).without_traffic().named(),
        Scenario::new("destroy", Act::Destroy).serving(both("v1", "succeed")).without_traffic(),
    ]
}
