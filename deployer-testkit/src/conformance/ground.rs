//! What the cases do with a scope: releases, calls, and looks at what came of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use deployer_core::{
    AcquireLease, AppName, Backend, BuildImage, Call, EnsureApp, EnsureRoutes, ImageSource, InstanceId, Launch, Lease,
    ObserveApp, ObservedInstance, ObservedRouting, ObservedTask, Outcome, PinnedImage, Progress, ProgressSink,
    PublishImage, Reduce, Release, ResolveImage, Result, RevisionId, Route, ServiceName, ServiceRelease, ServiceSpec,
    SetTargets, SetWeights, StartTask, Target, TaskId, VolumeSpec,
};
use tokio::sync::OnceCell;

use super::case::{CaseFailure, CaseResult, check, eventually, same};
use super::profile::Profile;
use super::site::{Entrance, Pace, Program, Scope, Seen};

/// A scope in the hands of one case.
pub(crate) struct Ground {
    pub(super) scope: Arc<dyn Scope>,
    pub(super) backend: Backend,
    pub(super) profile: Profile,
    /// The number from which everything follows that is left to chance.
    pub(super) seed: u64,
    calls: AtomicU32,
    leases: [OnceCell<Lease>; 2],
}

/// Progress that nobody looks at.
pub(super) struct Silence;

impl ProgressSink for Silence {
    fn progress(&self, _: Progress) {}
}

/// The service of most cases.
pub(super) fn web() -> ServiceName {
    named("web")
}

pub(super) fn named(service: &str) -> ServiceName {
    ServiceName::new(service).unwrap_or_else(|error| unreachable!("{error}"))
}

pub(super) fn revision(release: &Release) -> RevisionId {
    release.services.get(&web()).map_or_else(|| unreachable!("every release has the service"), |it| it.revision(&web()))
}

impl Ground {
    pub(super) fn new(scope: Arc<dyn Scope>, profile: Profile, seed: u64) -> Self {
        let backend = scope.backend();
        Self { scope, backend, profile, seed, calls: AtomicU32::new(0), leases: [OnceCell::new(), OnceCell::new()] }
    }

    pub(super) fn app(&self) -> AppName {
        self.scope.app()
    }

    /// The frame of a call that is not a repetition.
    pub(super) fn call(&self) -> Call {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        Call::new(format!("{}-call-{number}", self.app()), self.scope.clock().now() + Duration::from_secs(600))
    }

    /// The lease of an application of the scope, taken when it is first needed: whoever changes anything holds it.
    async fn lease(&self, app: &AppName) -> CaseResult<&Lease> {
        let cell = if *app == self.app() { &self.leases[0] } else { &self.leases[1] };
        let taking = async || {
            let ttl = Duration::from_secs(86_400);
            let now = self.scope.clock().now();
            let request = AcquireLease::new(app.clone(), "the conformance suite", format!("suite of {app}"), ttl, now);
            Ok(self.backend.store.acquire_lease(request).await?)
        };
        cell.get_or_try_init(taking).await
    }

    /// The web service with this program, at a host name of the application's own.
    pub(super) fn service(&self, program: Program, version: &str) -> ServiceSpec {
        let mut service = self.scope.service(program, version);
        for route in &mut service.routes {
            route.host = Some(format!("{}.localhost", self.app()));
        }
        service
    }

    pub(super) fn serves(&self, version: &str) -> ServiceSpec {
        self.service(Program::Serves, version)
    }

    /// The image that a spec names, as the engine prepares it.
    pub(super) async fn pin(
        &self,
        app: &AppName,
        service: &ServiceName,
        image: &ImageSource,
    ) -> CaseResult<PinnedImage> {
        let sink = || Arc::new(Silence);
        match image {
            ImageSource::Reference(reference) => {
                let request = ResolveImage::new(self.call(), reference.clone(), sink());
                Ok(self.backend.registry.resolve(request).await?)
            }
            ImageSource::Build(build) => {
                let (app, service, build) = (app.clone(), service.clone(), build.clone());
                let (secrets, call) = (BTreeMap::new(), self.call());
                let request = BuildImage::new(call, app.clone(), service.clone(), build, secrets, sink());
                let built = self.backend.builder.build(request).await?;
                let request = PublishImage::new(self.call(), app, service, built, sink());
                Ok(self.backend.registry.publish(request).await?)
            }
            other => Err(CaseFailure::new(format!("the suite cannot pin {other:?}"))),
        }
    }

    /// Pins a spec of the web service and keeps it as a release.
    pub(super) async fn release(&self, service: ServiceSpec) -> CaseResult<Arc<Release>> {
        self.release_of(&self.app(), [(web(), service)]).await
    }

    /// Pins specs and keeps them as a release of an application.
    pub(super) async fn release_of<const N: usize>(
        &self,
        app: &AppName,
        specs: [(ServiceName, ServiceSpec); N],
    ) -> CaseResult<Arc<Release>> {
        let mut services: BTreeMap<ServiceName, ServiceRelease> = BTreeMap::new();
        let mut volumes: BTreeMap<String, VolumeSpec> = BTreeMap::new();
        for (name, spec) in specs {
            let image = self.pin(app, &name, &spec.image).await?;
            let service = spec.with_image(image);
            volumes.extend(service.workload.exclusive_volumes().map(|key| (key.to_owned(), VolumeSpec::default())));
            services.insert(name, service);
        }
        let release = serde_json::json!({
            "format": Release::FORMAT, "app": app, "number": 0, "services": services, "volumes": volumes,
            "provenance": {},
        });
        let release: Release =
            serde_json::from_value(release).map_err(|error| CaseFailure::new(format!("a release: {error}")))?;
        let fence = self.lease(app).await?.fence;
        Ok(Arc::new(self.backend.store.put_release(release, fence).await?))
    }

    /// Makes what services share, and the entries.
    pub(super) async fn prepare(&self, release: &Arc<Release>) -> CaseResult {
        let request = EnsureApp::new(self.call(), Arc::clone(release));
        self.backend.orchestrator.ensure_app(request).await?;
        let request = EnsureRoutes::new(self.call(), Arc::clone(release));
        self.backend.balancer.ensure(request).await?;
        Ok(())
    }

    /// A release of the web service, prepared.
    pub(super) async fn prepared(&self, service: ServiceSpec) -> CaseResult<Arc<Release>> {
        let release = self.release(service).await?;
        self.prepare(&release).await?;
        Ok(release)
    }

    pub(super) async fn launch(&self, release: &Arc<Release>, instances: u32) -> Result<Outcome> {
        self.backend.orchestrator.launch(self.launching(release, instances)).await
    }

    pub(super) fn launching(&self, release: &Arc<Release>, instances: u32) -> Launch {
        Launch::new(self.call(), Arc::clone(release), web(), revision(release), instances)
    }

    pub(super) async fn reduce(&self, release: &Release, keep: u32) -> Result<Outcome> {
        self.backend.orchestrator.reduce(self.reducing(release, keep)).await
    }

    pub(super) fn reducing(&self, release: &Release, keep: u32) -> Reduce {
        Reduce::new(self.call(), release.app.clone(), revision(release), keep)
    }

    /// Reduces, and waits until what had to go is gone: an orchestrator that drains does that later.
    pub(super) async fn reduced(&self, release: &Release, keep: u32) -> CaseResult {
        self.reduce(release, keep).await?;
        let revision = revision(release);
        eventually(&self.scope.clock(), "the instances that had to go are gone", async || {
            let left = self.seen().await?.instances.iter().filter(|seen| seen.revision == revision).count();
            Ok((left <= keep as usize).then_some(()))
        })
        .await
    }

    pub(super) fn task(&self, release: &Arc<Release>, id: &str, command: Vec<String>) -> StartTask {
        StartTask::new(self.call(), TaskId(id.to_owned()), Arc::clone(release), web(), command)
    }

    /// The instances of the web service in a release, probed.
    pub(super) async fn instances(&self, release: &Release) -> CaseResult<Vec<ObservedInstance>> {
        let revision = revision(release);
        let readiness = release.services.get(&web()).map(ServiceRelease::effective_readiness).unwrap_or_default();
        let request = ObserveApp::new(release.app.clone()).with_probe(BTreeMap::from([(revision.clone(), readiness)]));
        let observed = self.backend.orchestrator.observe(request).await?;
        Ok(observed.instances.into_iter().filter(|instance| instance.revision == revision).collect())
    }

    /// The tasks of the application.
    pub(super) async fn tasks(&self) -> CaseResult<Vec<ObservedTask>> {
        Ok(self.backend.orchestrator.observe(ObserveApp::new(self.app())).await?.tasks)
    }

    /// The instances once so many are ready.
    pub(super) async fn ready(&self, release: &Release, instances: usize) -> CaseResult<Vec<ObservedInstance>> {
        eventually(&self.scope.clock(), "all instances are ready", async || {
            let all = self.instances(release).await?;
            Ok((all.iter().filter(|instance| instance.is_ready()).count() == instances).then_some(all))
        })
        .await
    }

    /// Launches so many instances, and answers them when they are ready.
    pub(super) async fn running(&self, release: &Arc<Release>, instances: u32) -> CaseResult<Vec<ObservedInstance>> {
        self.launch(release, instances).await?;
        self.ready(release, instances as usize).await
    }

    pub(super) async fn seen(&self) -> CaseResult<Seen> {
        self.seen_of(&self.app()).await
    }

    pub(super) async fn seen_of(&self, app: &AppName) -> CaseResult<Seen> {
        Ok(self.scope.seen(app).await?.sorted())
    }

    /// Targets for these instances; those with higher ordinals than this one drain.
    pub(super) fn targets(instances: &[ObservedInstance], serving: u32) -> Vec<Target> {
        let addressed = instances.iter().filter_map(|one| Some((one, one.address.clone()?)));
        addressed
            .map(|(one, address)| Target { instance: one.id.clone(), address, draining: one.ordinal > serving })
            .collect()
    }

    pub(super) fn setting(&self, release: &Release, targets: Vec<Target>) -> SetTargets {
        let service = release.services.get(&web()).cloned().unwrap_or_else(|| unreachable!("it has the service"));
        SetTargets::new(self.call(), release.app.clone(), revision(release), Arc::new(service), targets)
    }

    /// How traffic reaches the web service.
    pub(super) async fn routing(&self) -> CaseResult<ObservedRouting> {
        let all = self.backend.balancer.observe(&self.app()).await?;
        let found = all.into_iter().find(|routing| routing.service == web());
        found.ok_or_else(|| CaseFailure::new("the service has no entry"))
    }

    pub(super) async fn weigh(&self, weights: &[(&Release, u8)]) -> CaseResult<Outcome> {
        let expected = self.routing().await?.version;
        let weights = weights.iter().map(|(release, weight)| (revision(release), *weight)).collect();
        let request = SetWeights::new(self.call(), self.app(), web(), weights, expected);
        Ok(self.backend.balancer.set_weights(request).await?)
    }

    /// Puts instances into their pool, and waits until the balancer thinks so.
    pub(super) async fn register(&self, release: &Release, instances: &[ObservedInstance]) -> CaseResult {
        if self.profile.targets == deployer_core::TargetRegistration::Engine {
            let request = self.setting(release, Self::targets(instances, u32::MAX));
            self.backend.balancer.set_targets(request).await?;
        }
        self.in_service(release, instances.len()).await
    }

    /// Waits until so many targets of a pool are in service.
    pub(super) async fn in_service(&self, release: &Release, targets: usize) -> CaseResult {
        eventually(&self.scope.clock(), "the targets are in service", async || {
            let routing = self.routing().await?;
            let pool = routing.pool(&revision(release));
            let serving = |state| state == deployer_core::TargetState::InService;
            let serving = pool.map_or(0, |pool| pool.targets.iter().filter(|it| serving(it.state)).count());
            Ok((serving == targets).then_some(()))
        })
        .await
    }

    /// A release of the web service that serves with so many instances and has all traffic.
    pub(super) async fn serving(&self, service: ServiceSpec, instances: u32) -> CaseResult<Arc<Release>> {
        let release = self.prepared(service.with_replicas(instances)).await?;
        let running = self.running(&release, instances).await?;
        self.register(&release, &running).await?;
        self.weigh(&[(&release, 100)]).await?;
        Ok(release)
    }

    /// Where the web service of a release is reached from outside.
    pub(super) fn entrance(release: &Release) -> Entrance {
        let service = release.services.get(&web());
        let route: Option<&Route> = service.and_then(|service| service.routes.first());
        route.map_or_else(|| Entrance::Name(web()), |route| Entrance::Route(route.clone()))
    }

    pub(super) async fn ask(&self, entrance: &Entrance) -> Result<String, String> {
        self.scope.request(&self.app(), entrance, Pace::Quick).await
    }

    /// Fails unless every one of so many requests is answered by this version.
    pub(super) async fn answered_by(&self, entrance: &Entrance, version: &str, requests: usize) -> CaseResult {
        for number in 1..=requests {
            let answer = self.ask(entrance).await;
            let what = format!("the answer to request {number} of {requests} at {entrance:?}");
            same(&what, answer, Ok(version.to_owned()))?;
        }
        Ok(())
    }

    /// Kills an instance, and waits until its program does not run or has been started again.
    pub(super) async fn killed(&self, id: &InstanceId) -> CaseResult {
        let find =
            async || -> CaseResult<_> { Ok(self.seen().await?.instances.into_iter().find(|seen| seen.id == *id)) };
        let before = find().await?;
        check(before.as_ref().is_some_and(|seen| seen.running), "an instance that is to be killed must run")?;
        self.scope.kill(id).await?;
        eventually(&self.scope.clock(), "the killed instance ended", async || {
            Ok((find().await? != before).then_some(()))
        })
        .await
    }
}
