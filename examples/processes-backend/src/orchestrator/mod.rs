//! Instances and tasks as processes of this host, each with a keeper.

mod blueprint;
mod launch;
mod logs;
mod observe;
mod probe;
mod record;
mod reduce;
mod shared;
mod task;
mod unsupported;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use deployer_core::{
    AppName, AppSpec, EnsureApp, Launch, LogQuery, LogStream, ObserveApp, ObservedApp, Orchestrator,
    OrchestratorCapabilities, Outcome, Problems, Reduce, RemoveApp, RemoveTask, Result, Secrets, SmokeAnswer,
    SmokeRequest, StartTask,
};

pub(crate) use record::images_in_use;

use crate::addresses::Addresses;
use crate::failure::{blocking, io};
use crate::files;
use crate::layout::Layout;

/// Runs instances as processes of this host.
#[derive(Clone, Debug)]
pub(crate) struct ProcessOrchestrator {
    layout: Layout,
    addresses: Addresses,
    /// The program that keepers are made of.
    helper: PathBuf,
    secrets: Arc<dyn Secrets>,
    /// Nothing that a new process could not do without: only how often instances are asked depends on it.
    prober: Arc<probe::Prober>,
}

impl ProcessOrchestrator {
    pub(crate) fn new(layout: Layout, helper: PathBuf, secrets: Arc<dyn Secrets>) -> Self {
        let addresses = Addresses::new(layout.clone());
        Self { layout, addresses, helper, secrets, prober: Arc::default() }
    }

    /// Keeps every other deployer from changing the application. Not for those who look, nor while a program stops.
    ///
    /// Whatever goes on when the future is dropped needs a share of it: a lock that is gone before what it guards has
    /// ended guards nothing.
    async fn lock(&self, app: &AppName) -> Result<Arc<File>> {
        let path = self.layout.app_lock(app);
        blocking(move || files::lock(&path).map(Arc::new).map_err(io("lock the application"))).await
    }
}

#[async_trait]
impl Orchestrator for ProcessOrchestrator {
    fn capabilities(&self) -> OrchestratorCapabilities {
        // It leaves draining to the engine, and looking costs reading a few files.
        OrchestratorCapabilities::default()
    }

    async fn check(&self, spec: &AppSpec) -> Result<Problems> {
        Ok(unsupported::problems(spec))
    }

    async fn ensure_app(&self, request: EnsureApp) -> Result<Outcome> {
        self.ensure_shared(&request).await
    }

    async fn observe(&self, request: ObserveApp) -> Result<ObservedApp> {
        self.observe_directories(&request).await
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
