//! An application, its calls, and the steps that most tests begin with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use deployer_core::{
    AcquireLease, AppName, AppSpec, Backend, Call, EnsureApp, EnsureRoutes, ImageSource, Launch, Lease, ObserveApp,
    ObservedInstance, ObservedRouting, Outcome, Progress, ProgressSink, Reduce, Release, ReleaseNumber, ResolveImage,
    Result, RevisionId, Route, ServiceName, ServiceRelease, ServiceSpec, SetTargets, SetWeights, Target,
};
use deployer_testkit::World;

pub(crate) struct Silence;

impl ProgressSink for Silence {
    fn progress(&self, _: Progress) {}
}

pub(crate) fn app() -> AppName {
    AppName::new("shop").unwrap()
}

pub(crate) fn web() -> ServiceName {
    ServiceName::new("web").unwrap()
}

pub(crate) fn spec(image: &str) -> ServiceSpec {
    ServiceSpec::image(image).with_route(Route::new(80)).with_http_probe("/", 80)
}

/// A world with three images of one application, and the calls of somebody who holds its lease.
pub(crate) struct Driver {
    pub(crate) world: World,
    pub(crate) backend: Backend,
    pub(crate) lease: Lease,
    calls: std::sync::atomic::AtomicU32,
}

impl Driver {
    pub(crate) async fn new(world: World) -> Self {
        for image in ["shop:v1", "shop:v2", "shop:v3"] {
            world.add_image(image);
        }
        let ttl = Duration::from_secs(1_000_000);
        let request = AcquireLease::new(app(), "a test", "test", ttl, world.now());
        let backend = world.backend();
        let lease = backend.store.acquire_lease(request).await.unwrap();
        Self { world, backend, lease, calls: 0.into() }
    }

    pub(crate) fn call(&self) -> Call {
        let number = self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Call::new(format!("key-{number}"), self.world.now() + Duration::from_secs(600))
    }

    /// Pins a spec and keeps it as a release.
    pub(crate) async fn release(&self, service: ServiceSpec) -> Arc<Release> {
        let release = self.unstored(service).await;
        Arc::new(self.backend.store.put_release(release, self.lease.fence).await.unwrap())
    }

    pub(crate) async fn unstored(&self, service: ServiceSpec) -> Release {
        let app = AppSpec::new("shop").unwrap().with_service("web", service).unwrap();
        let mut services = BTreeMap::new();
        for (name, service) in app.services {
            let ImageSource::Reference(reference) = service.image.clone() else { panic!("not a reference") };
            let request = ResolveImage::new(self.call(), reference, Arc::new(Silence));
            let image = self.backend.registry.resolve(request).await.unwrap();
            services.insert(name, service.with_image(image));
        }
        release_of(services)
    }

    /// Makes networks and entries.
    pub(crate) async fn prepare(&self, release: &Arc<Release>) {
        let networks = EnsureApp::new(self.call(), Arc::clone(release));
        self.backend.orchestrator.ensure_app(networks).await.unwrap();
        let routes = EnsureRoutes::new(self.call(), Arc::clone(release));
        self.backend.balancer.ensure(routes).await.unwrap();
    }

    pub(crate) async fn launch(&self, release: &Arc<Release>, instances: u32) -> Result<Outcome> {
        let request = Launch::new(self.call(), Arc::clone(release), web(), revision(release), instances);
        self.backend.orchestrator.launch(request).await
    }

    pub(crate) async fn reduce(&self, release: &Release, keep: u32) -> Outcome {
        let request = Reduce::new(self.call(), app(), revision(release), keep);
        self.backend.orchestrator.reduce(request).await.unwrap()
    }

    pub(crate) async fn instances(&self, release: &Release) -> Vec<ObservedInstance> {
        let readiness = release.services[&web()].readiness.clone();
        let probe = BTreeMap::from([(revision(release), readiness)]);
        let seen = self.backend.orchestrator.observe(ObserveApp::new(app()).with_probe(probe)).await.unwrap();
        seen.instances.into_iter().filter(|instance| instance.revision == revision(release)).collect()
    }

    /// Puts all instances of a revision into its pool, draining those with ordinals beyond `keep`.
    pub(crate) async fn register(&self, release: &Release, keep: u32) -> Result<Outcome> {
        let targets = self.instances(release).await.into_iter().filter_map(|instance| {
            let draining = instance.ordinal > keep;
            instance.address.map(|address| Target { instance: instance.id, address, draining })
        });
        self.set_targets(release, targets.collect()).await
    }

    pub(crate) async fn set_targets(&self, release: &Release, targets: Vec<Target>) -> Result<Outcome> {
        let service = Arc::new(release.services[&web()].clone());
        let request = SetTargets::new(self.call(), app(), revision(release), service, targets);
        self.backend.balancer.set_targets(request).await
    }

    pub(crate) async fn routing(&self) -> ObservedRouting {
        self.backend.balancer.observe(&app()).await.unwrap().remove(0)
    }

    pub(crate) async fn weigh(&self, weights: &[(&Release, u8)]) -> Result<Outcome> {
        let weights = weights.iter().map(|(release, weight)| (revision(release), *weight)).collect();
        let expected = self.routing().await.version;
        self.backend.balancer.set_weights(SetWeights::new(self.call(), app(), web(), weights, expected)).await
    }

    pub(crate) async fn sleep(&self, seconds: u64) {
        self.world.clock().sleep(Duration::from_secs(seconds)).await;
    }

    /// Brings so many instances of an image all the way into service.
    pub(crate) async fn serve(&self, image: &str, instances: u32) -> Arc<Release> {
        let release = self.release(spec(image).with_replicas(instances)).await;
        self.prepare(&release).await;
        self.launch(&release, instances).await.unwrap();
        self.sleep(2).await;
        self.register(&release, instances).await.unwrap();
        self.weigh(&[(&release, 100)]).await.unwrap();
        release
    }
}

pub(crate) fn revision(release: &Release) -> RevisionId {
    release.services[&web()].revision(&web())
}

/// A release that is not numbered yet.
pub(crate) fn release_of(services: BTreeMap<ServiceName, ServiceRelease>) -> Release {
    let mut release: Release = serde_json::from_value(serde_json::json!({
        "format": Release::FORMAT, "app": "shop", "number": 0, "services": {}, "provenance": {},
    }))
    .unwrap();
    release.number = ReleaseNumber(0);
    release.services = services;
    release
}
