//! The application that the tests deploy.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use deployer_core::{
    AppName, AppSpec, CallInfo, DeployOptions, Deployer, DeploymentRecord, Event, EventKind, Intercept, JournalEvent,
    Mount, Next, Result, Route, ServiceSpec, Strategy, Verdict,
};
use deployer_testkit::{Options, Traffic, World};

/// The name of the application.
pub(crate) fn app() -> AppName {
    AppName::new("shop").unwrap()
}

/// A world with images `web:v1` to `web:v5` and `cache:1`, and a deployer for it.
pub(crate) fn world() -> (World, Deployer) {
    world_with(Options::default())
}

pub(crate) fn world_with(options: Options) -> (World, Deployer) {
    let world = World::with_options(options);
    for version in 1..=5 {
        world.add_image(&format!("web:v{version}"));
        world.add_image(&format!("worker:v{version}"));
    }
    world.add_image("cache:1");
    world.add_image("cache:2");
    let deployer = Deployer::builder(world.backend()).clock(world.clock()).owner("test").build();
    (world, deployer)
}

/// The routed service, three instances of this version.
pub(crate) fn web(version: u32) -> ServiceSpec {
    ServiceSpec::image(format!("web:v{version}"))
        .with_replicas(3)
        .with_port(8080)
        .with_route(Route::new(8080).with_host("shop.example"))
        .with_http_probe("/healthz", 8080)
        .with_ready_deadline(Duration::from_secs(30))
}

/// A service that writes to a volume.
pub(crate) fn cache(version: u32) -> ServiceSpec {
    ServiceSpec::image(format!("cache:{version}")).with_port(6379).with_mount(Mount::volume("data", "/data"))
}

/// The routed service alone.
pub(crate) fn only(web: ServiceSpec) -> AppSpec {
    AppSpec::new("shop").unwrap().with_service("web", web).unwrap()
}

/// The routed service, a worker, and the cache that both depend on.
pub(crate) fn shop(web: ServiceSpec, worker: u32, cache_version: u32) -> AppSpec {
    let worker = ServiceSpec::image(format!("worker:v{worker}")).with_dependency("cache").unwrap();
    AppSpec::new("shop")
        .unwrap()
        .with_service("cache", cache(cache_version))
        .unwrap()
        .with_service("web", web.with_dependency("cache").unwrap())
        .unwrap()
        .with_service("worker", worker)
        .unwrap()
}

/// Requests to the routed service for as long as the world lives.
pub(crate) fn traffic(world: &World) {
    let traffic = Traffic::to_route(Some("shop.example"), "/").per_second(40).taking(Duration::from_millis(300));
    world.start_traffic(traffic);
}

/// Deploys, and answers the record together with all events.
pub(crate) async fn deploy_watched(deployer: &Deployer, spec: AppSpec) -> (Result<DeploymentRecord>, Vec<Event>) {
    let mut deployment = deployer.deploy(spec, DeployOptions::default());
    let mut events = Vec::new();
    while let Some(event) = deployment.next_event().await {
        events.push(event);
    }
    (deployment.finished().await, events)
}

/// Deploys, and answers the verdict.
pub(crate) async fn deploy(deployer: &Deployer, spec: AppSpec) -> Verdict {
    let record = deployer.deploy(spec, DeployOptions::default()).finished().await.unwrap();
    record.verdict.unwrap()
}

/// Deploys what must be promoted.
pub(crate) async fn deploy_well(deployer: &Deployer, spec: AppSpec) {
    let verdict = deploy(deployer, spec).await;
    assert_eq!(verdict, Verdict::Promoted { leftovers: Vec::new() });
}

/// Checks that all traffic of the routed service goes to three instances of what this release has.
pub(crate) async fn assert_traffic(deployer: &Deployer, release: u64) {
    let status = deployer.status(&app()).await.unwrap();
    let web = status.services.iter().find(|service| service.service.as_str() == "web").unwrap();
    let weighted: Vec<_> = web.revisions.iter().filter(|revision| revision.weight > Some(0)).collect();
    assert_eq!(weighted.len(), 1, "{status:?}");
    assert_eq!((weighted[0].release.0, weighted[0].weight), (release, Some(100)), "{status:?}");
    assert_eq!(weighted[0].instances.iter().filter(|instance| instance.is_ready()).count(), 3, "{status:?}");
}

/// Blue/green without bake.
pub(crate) fn blue_green(keep_warm: u64) -> Strategy {
    Strategy::BlueGreen { bake: Duration::ZERO, keep_warm: Duration::from_secs(keep_warm) }
}

/// What was written to the journal, in order.
pub(crate) fn journal(events: &[Event]) -> Vec<&JournalEvent> {
    events.iter().filter_map(Event::journal).collect()
}

/// Checks what must hold of every stream of events.
pub(crate) fn check_numbers(events: &[Event]) {
    let numbers: Vec<u64> = events.iter().map(|event| event.index).collect();
    let expected: Vec<u64> = (1..).take(events.len()).collect();
    assert_eq!(numbers, expected);
    for event in events {
        let text = serde_json::to_string(event).unwrap();
        assert_eq!(&serde_json::from_str::<Event>(&text).unwrap(), event);
    }
    let closed = events.iter().filter(|event| {
        matches!(&event.kind, EventKind::Journal { entry } if matches!(entry.event, JournalEvent::Closed { .. }))
    });
    assert_eq!(closed.count(), 1);
}

/// Counts how often a call is made.
#[derive(Debug)]
pub(crate) struct Counted {
    operation: &'static str,
    times: AtomicU32,
}

impl Counted {
    pub(crate) const fn new(operation: &'static str) -> Self {
        Self { operation, times: AtomicU32::new(0) }
    }

    pub(crate) fn times(&self) -> u32 {
        self.times.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Intercept for Counted {
    async fn intercept(&self, call: &CallInfo, next: &mut Next<'_>) -> Result<()> {
        self.times.fetch_add(u32::from(call.operation == self.operation), Ordering::Relaxed);
        next.run().await
    }
}
