//! Instances and tasks as containers of one Docker Engine.

mod container;
mod files;
mod inherited;
mod launch;
mod logs;
mod observe;
mod options;
mod probe;
mod reduce;
mod refusal;
mod shared;
mod smoke;
mod state;
mod task;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bollard::errors::Error as DockerError;
use bollard::models::ContainerSummary;
use bollard::query_parameters::ListContainersOptionsBuilder;
use deployer_core::{
    AppSpec, Balancing, EnsureApp, Launch, LogQuery, LogStream, ObserveApp, ObservedApp, Orchestrator,
    OrchestratorCapabilities, Outcome, Problem, Problems, Reduce, RemoveApp, RemoveTask, Result, Secrets, SetInherited,
    SmokeAnswer, SmokeRequest, StartTask,
};

use crate::engine::{Engine, classify};
use crate::naming;
use crate::network::Networks;
use crate::reach::Reach;

/// Runs instances as containers of one Docker Engine. Clones share what they remember.
#[derive(Clone, Debug)]
pub struct DockerOrchestrator {
    engine: Engine,
    networks: Networks,
    reach: Reach,
    secrets: Arc<dyn Secrets>,
    memory: Arc<Memory>,
}

/// What is remembered between calls: nothing that a new process could not do without.
#[derive(Default)]
struct Memory {
    prober: probe::Prober,
    looks: observe::Looks,
    exits: observe::PastExits,
    // Held while a task is created and started: see `task`.
    tasks: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Memory {
    /// Forgets a container that is gone.
    fn forget(&self, container: &str) {
        self.prober.forget(container);
        self.looks.forget(container);
        self.exits.forget(container);
    }
}

impl DockerOrchestrator {
    pub(crate) fn new(engine: Engine, networks: Networks, reach: Reach, secrets: Arc<dyn Secrets>) -> Self {
        Self { engine, networks, reach, secrets, memory: Arc::default() }
    }

    /// Runs instances on this engine, for a [`Backend`](deployer_core::Backend) whose other parts are not ours.
    #[must_use]
    pub fn on_engine(engine: Engine, secrets: Arc<dyn Secrets>) -> Self {
        Self::new(engine.clone(), Networks::new(engine), Reach::default(), secrets)
    }

    /// Reports services that are for another platform than the engine's.
    async fn check_platforms(&self, spec: &AppSpec, problems: &mut Problems) -> Result<()> {
        let wanted = spec
            .services
            .iter()
            .filter_map(|(name, service)| Some((name, service.workload.container.platform.as_ref()?)));
        let wanted: Vec<_> = wanted.collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let version = self.engine.docker().version().await;
        let version = version.map_err(|error| classify("orchestrator.check", "engine", error))?;
        let own = format!("{}/{}", version.os.unwrap_or_default(), version.arch.unwrap_or_default());
        for (name, platform) in wanted {
            // The variant of an architecture is a matter of the image.
            if !is_for(platform, &own) {
                let message = format!("the service is for {platform}, and this engine is {own}");
                let problem = Problem::error(format!("services.{name}.platform"), message);
                problems.push(problem.with_help("name an image for the platform of the engine"));
            }
        }
        Ok(())
    }

    /// All containers with these labels, whatever they do.
    async fn containers(
        &self,
        operation: &'static str,
        resource: &str,
        labels: &[(&str, &str)],
    ) -> Result<Vec<ContainerSummary>> {
        let filters = naming::label_filter(labels);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = self.engine.docker().list_containers(Some(options)).await;
        listed.map_err(|error| classify(operation, resource, error))
    }
}

/// Whether a platform such as `linux/arm64/v8` is this one, by any of the names that architectures have.
fn is_for(platform: &str, own: &str) -> bool {
    let usual = |name| match name {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let parts: Vec<&str> = platform.split('/').map(usual).collect();
    let (os, architecture) = own.split_once('/').unwrap_or((own, ""));
    match parts.as_slice() {
        // The engine takes a single name for either.
        [one] => *one == os || *one == architecture,
        [first, second, ..] => *first == os && *second == architecture,
        [] => false,
    }
}

/// The value of a container's label.
fn label<'a>(container: &'a ContainerSummary, name: &str) -> Option<&'a str> {
    container.labels.as_ref()?.get(name).map(String::as_str)
}

/// Whether the labels have all of these values.
fn has_labels(labels: Option<&HashMap<String, String>>, wanted: &[(&str, String)]) -> bool {
    wanted.iter().all(|(name, value)| labels.and_then(|labels| labels.get(*name)) == Some(value))
}

/// Whether the engine answered with this status.
fn answered(error: &DockerError, status: u16) -> bool {
    matches!(error, DockerError::DockerResponseServerError { status_code, .. } if *status_code == status)
}

#[async_trait]
impl Orchestrator for DockerOrchestrator {
    fn capabilities(&self) -> OrchestratorCapabilities {
        OrchestratorCapabilities::default()
    }

    async fn check(&self, spec: &AppSpec) -> Result<Problems> {
        let mut problems = Problems::default();
        self.check_platforms(spec, &mut problems).await?;
        for (name, service) in &spec.services {
            if let Some(index) = files::out_of_reach(&service.workload) {
                let message = "the file is right in the root, which `read_only` forbids to write to";
                let problem = Problem::error(format!("services.{name}.files[{index}]"), message);
                problems.push(problem.with_help("put it into a directory, or leave `read_only` out"));
            }
        }
        for (name, _) in spec.services.iter().filter(|(_, service)| service.scaling.is_some()) {
            let message = "nothing scales instances on one host: this has no effect, and the replicas stay as they are";
            problems.push(Problem::warning(format!("services.{name}.scaling"), message));
        }
        for (name, _) in spec.services.iter().filter(|(_, service)| service.balancing != Balancing::default()) {
            let message =
                "the proxies of one host ask every instance all the time and treat all alike: this has no effect";
            problems.push(Problem::warning(format!("services.{name}.balancing"), message));
        }
        Ok(problems)
    }

    async fn ensure_app(&self, request: EnsureApp) -> Result<Outcome> {
        self.ensure_shared(&request).await
    }

    async fn observe(&self, request: ObserveApp) -> Result<ObservedApp> {
        self.observe_containers(&request).await
    }

    async fn launch(&self, request: Launch) -> Result<Outcome> {
        self.launch_instances(&request).await
    }

    async fn reduce(&self, request: Reduce) -> Result<Outcome> {
        self.reduce_instances(&request).await
    }

    async fn start_task(&self, request: StartTask) -> Result<Outcome> {
        self.start_once(&request).await
    }

    async fn remove_task(&self, request: RemoveTask) -> Result<Outcome> {
        self.forget_task(&request).await
    }

    async fn set_inherited(&self, request: SetInherited) -> Result<Outcome> {
        self.bring_inherited(&request).await
    }

    async fn remove_app(&self, request: RemoveApp) -> Result<Outcome> {
        self.remove_shared(&request).await
    }

    async fn smoke(&self, request: SmokeRequest) -> Result<Vec<SmokeAnswer>> {
        self.ask_instances(&request).await
    }

    async fn logs(&self, query: LogQuery) -> Result<LogStream> {
        self.open_logs(query).await
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn platforms_have_several_names() {
        for (platform, is_for) in [
            ("linux/amd64", true),
            ("linux/x86_64", true),
            ("linux/amd64/v2", true),
            ("amd64", true),
            ("linux", true),
            ("linux/arm64", false),
            ("linux/aarch64", false),
            ("windows/amd64", false),
            ("wasi/wasm", false),
        ] {
            assert_eq!(super::is_for(platform, "linux/amd64"), is_for, "{platform}");
        }
        assert!(super::is_for("linux/aarch64/v8", "linux/arm64"));
    }
}
