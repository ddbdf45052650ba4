//! An application of a test's own on the real engine, removed with everything it left behind when the test ends.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder,
};
use deployer_core::{
    AppName, Call, Digest, EnsureApp, Launch, NoSecrets, ObserveApp, ObservedApp, ObservedInstance, Orchestrator,
    Outcome, PinnedImage, Reduce, Release, Result, RevisionId, ServiceName, ServiceRelease, ServiceSpec, Timestamp,
    VolumeSpec,
};
use deployer_local::{DockerOrchestrator, Engine};

/// The image that every test runs. `scripts/images` makes it available.
const IMAGE: &str = "busybox:1.36";

/// An application on the engine.
pub(crate) struct TestApp {
    pub(crate) name: AppName,
    pub(crate) docker: Docker,
    pub(crate) orchestrator: DockerOrchestrator,
    image: PinnedImage,
}

impl TestApp {
    /// An application of this name and this process's own suffix.
    pub(crate) async fn new(name: &str) -> Self {
        let engine = Engine::connect().await.expect("a Docker Engine must run");
        Self::with(name, DockerOrchestrator::on_engine(engine, Arc::new(NoSecrets))).await
    }

    pub(crate) async fn with(name: &str, orchestrator: DockerOrchestrator) -> Self {
        let docker = Docker::connect_with_defaults().expect("a Docker Engine must run");
        let docker = docker.negotiate_version().await.expect("a Docker Engine must run");
        let image = docker.inspect_image(IMAGE).await.expect("run scripts/images first");
        let id = image.id.expect("an image has an id");
        let image = PinnedImage::new(IMAGE, &*id, Digest::new(&*id).unwrap());
        let name = AppName::new(format!("it-{name}-{}", std::process::id())).unwrap();
        Self { name, docker, orchestrator, image }
    }

    /// A service that runs this command with the image's shell.
    pub(crate) fn shell(&self, script: &str) -> ServiceRelease {
        ServiceSpec::image(IMAGE).with_image(self.image.clone()).with_command(["sh", "-c", script])
    }

    /// A service that does nothing until it is told to stop.
    pub(crate) fn idle(&self) -> ServiceRelease {
        self.shell("trap exit TERM; while :; do sleep 1 & wait; done")
    }

    /// A release of these services.
    pub(crate) fn release<const N: usize>(&self, services: [(&str, ServiceRelease); N]) -> Arc<Release> {
        let services: HashMap<&str, ServiceRelease> = services.into();
        let mut volumes: HashMap<String, VolumeSpec> = HashMap::new();
        for service in services.values() {
            volumes.extend(service.workload.exclusive_volumes().map(|key| (key.to_owned(), VolumeSpec::default())));
        }
        let json = serde_json::json!({
            "format": Release::FORMAT, "app": self.name, "number": 1, "services": services, "volumes": volumes,
            "provenance": {},
        });
        Arc::new(serde_json::from_value(json).unwrap())
    }

    pub(crate) async fn ensure(&self, release: &Arc<Release>) -> Result<Outcome> {
        self.orchestrator.ensure_app(EnsureApp::new(call(), Arc::clone(release))).await
    }

    pub(crate) async fn launch(&self, release: &Arc<Release>, service: &str, instances: u32) -> Result<Outcome> {
        let (service, revision) = (named(service), revision(release, service));
        self.orchestrator.launch(Launch::new(call(), Arc::clone(release), service, revision, instances)).await
    }

    /// Makes networks and volumes, and so many instances.
    pub(crate) async fn run(&self, release: &Arc<Release>, service: &str, instances: u32) {
        self.ensure(release).await.unwrap();
        self.launch(release, service, instances).await.unwrap();
    }

    pub(crate) async fn reduce(&self, revision: &RevisionId, keep: u32) -> Outcome {
        let request = Reduce::new(call(), self.name.clone(), revision.clone(), keep);
        self.orchestrator.reduce(request).await.unwrap()
    }

    pub(crate) async fn observe(&self) -> ObservedApp {
        self.orchestrator.observe(ObserveApp::new(self.name.clone())).await.unwrap()
    }

    pub(crate) async fn instances(&self) -> Vec<ObservedInstance> {
        self.observe().await.instances
    }

    /// The first instance, once it is as described.
    pub(crate) async fn first_once(&self, is: impl Fn(&ObservedInstance) -> bool) -> ObservedInstance {
        until(async || self.instances().await.into_iter().next().filter(&is)).await
    }

    /// What the engine says about a container.
    pub(crate) async fn inspect(&self, name: &str) -> bollard::models::ContainerInspectResponse {
        self.docker.inspect_container(name, None::<InspectContainerOptions>).await.unwrap()
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        let (docker, app) = (self.docker.clone(), self.name.to_string());
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(clean(&docker, &app));
        });
        if cleaning.join().is_err() {
            eprintln!("things of {} may be left on the engine", self.name);
        }
    }
}

/// Removes everything that is labelled as this application's, ours or Compose's.
async fn clean(docker: &Docker, app: &str) {
    let labels = ["deployer.app", "com.docker.compose.project", "it.app"];
    let filters = labels.map(|label| HashMap::from([("label".to_owned(), vec![format!("{label}={app}")])]));
    // Networks and volumes can go only when no container uses them.
    for filter in &filters {
        let containers = ListContainersOptionsBuilder::default().all(true).filters(filter).build();
        for container in docker.list_containers(Some(containers)).await.unwrap() {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            let _ = docker.remove_container(&container.id.unwrap(), Some(options)).await;
        }
    }
    for filter in &filters {
        let networks = ListNetworksOptionsBuilder::default().filters(filter).build();
        for network in docker.list_networks(Some(networks)).await.unwrap() {
            let _ = docker.remove_network(&network.id.unwrap()).await;
        }
        let volumes = ListVolumesOptionsBuilder::default().filters(filter).build();
        for volume in docker.list_volumes(Some(volumes)).await.unwrap().volumes.unwrap_or_default() {
            let options = RemoveVolumeOptionsBuilder::default().force(true).build();
            let _ = docker.remove_volume(&volume.name, Some(options)).await;
        }
    }
}

pub(crate) fn call() -> Call {
    Call::new("test", Timestamp::from_millis(i64::MAX))
}

pub(crate) fn named(service: &str) -> ServiceName {
    ServiceName::new(service).unwrap()
}

pub(crate) fn revision(release: &Release, service: &str) -> RevisionId {
    release.services[service].revision(&named(service))
}

/// Asks again and again until there is an answer. The limit only keeps a broken test from hanging.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(ask: impl Fn() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.expect("it did not come to that")
}
