//! Instances on ECS.

mod check;
mod definition;
mod errand;
mod fargate;
mod launch;
mod logs;
mod observe;
mod remove;
mod scaling;
mod slots;
mod smoke;
mod task;

use std::sync::Arc;

use async_trait::async_trait;
use deployer_core::{
    AppSpec, EnsureApp, Launch, LogQuery, LogStream, ObserveApp, ObservedApp, Orchestrator, OrchestratorCapabilities,
    Outcome, Problems, PruneRevisions, Reduce, RemoveApp, RemoveTask, Result, SmokeAnswer, SmokeRequest, StartTask,
};

pub(crate) use self::definition::KnownDefinition;
pub(crate) use self::scaling::Scaled;
pub(crate) use self::slots::Slot;
pub(crate) use self::task::KnownTask;
use crate::site::Site;

/// Runs instances as tasks of ECS services.
///
/// Every service has two ECS services, its *slots*, which stay: a revision runs in one of them, and the next one in the
/// other. A third one is made where a standby still holds the second. A revision's task definition is registered once;
/// the name of its family says which revision it is. It is deregistered when its revision is pruned.
///
/// Where a service has [`scaling`](deployer_core::Service::scaling), the slot of the revision that serves is a scalable target
/// of Application Auto Scaling. It is none from the beginning of a deployment that moves the service to its end, and the new
/// revision starts with as many instances as serve then.
///
/// ECS chooses which instances go when there shall be fewer, and numbers none: ordinals are the order of age. What crashes
/// is replaced by a task with another id, which is counted as a restart of the one before.
#[derive(Clone, Debug)]
pub struct EcsOrchestrator {
    site: Arc<Site>,
}

impl EcsOrchestrator {
    pub(crate) fn new(site: Arc<Site>) -> Self {
        Self { site }
    }
}

#[async_trait]
impl Orchestrator for EcsOrchestrator {
    fn capabilities(&self) -> OrchestratorCapabilities {
        let mut capabilities = OrchestratorCapabilities::default();
        capabilities.drains = true;
        capabilities.poll = self.site.options.poll;
        capabilities.scales = true;
        capabilities
    }

    async fn check(&self, spec: &AppSpec) -> Result<Problems> {
        let mut problems = Problems::default();
        for (name, service) in &spec.services {
            let path = format!("services.{name}");
            problems.0.extend(self.site.cannot_run(&path, service, |volume| spec.volumes.get(volume)).0);
        }
        Ok(problems)
    }

    async fn preflight(&self, spec: &AppSpec) -> Result<Problems> {
        self.site.preflight(spec).await
    }

    async fn ensure_app(&self, request: EnsureApp) -> Result<Outcome> {
        self.site.refuse(&request.release)?;
        let held = self.site.hold_for(&request.release).await?;
        Ok(if held { Outcome::Changed } else { Outcome::AlreadyThere })
    }

    async fn observe(&self, request: ObserveApp) -> Result<ObservedApp> {
        self.site.observe_app(&request).await
    }

    async fn launch(&self, request: Launch) -> Result<Outcome> {
        self.site.launch(&request).await
    }

    async fn reduce(&self, request: Reduce) -> Result<Outcome> {
        self.site.reduce(&request).await
    }

    async fn start_task(&self, request: StartTask) -> Result<Outcome> {
        self.site.start_task(&request).await
    }

    async fn remove_task(&self, request: RemoveTask) -> Result<Outcome> {
        self.site.remove_task(&request).await
    }

    async fn prune(&self, request: PruneRevisions) -> Result<Vec<String>> {
        self.site.prune_definitions(&request.app, &request.keep).await
    }

    async fn remove_app(&self, request: RemoveApp) -> Result<Outcome> {
        self.site.remove_app(&request).await
    }

    async fn smoke(&self, request: SmokeRequest) -> Result<Vec<SmokeAnswer>> {
        self.site.ask_instances(&request).await
    }

    async fn logs(&self, query: LogQuery) -> Result<LogStream> {
        self.site.read_logs(query).await
    }
}
