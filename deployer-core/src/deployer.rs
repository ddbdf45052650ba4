//! The front door: what embedding programs call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::backend::{
    Backend, Clock, Gate, Intercept, LogQuery, LogStream, NoSecrets, ReleaseQuery, Secrets, Signal, SystemClock,
};
use crate::engine::{Access, AppStatus, Calls, Deployment, Events, Prepare, Pruned, Retention, Run, Signalled, Tools};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{DeploymentKind, DeploymentRecord, Entry};
use crate::model::{AppName, AppSpec, DeploymentId, GitState, Problems, Provenance, Release, ReleaseNumber};
use crate::plan::Plan;

/// How long looking something up may take.
const READ: Duration = Duration::from_secs(30);

/// Deploys applications to one [`Backend`], and brings them back.
///
/// Cheap to clone. Deployments run on the Tokio runtime in which they are begun; several applications can be deployed at
/// once, one deployment for each.
#[derive(Clone, Debug)]
pub struct Deployer {
    tools: Tools,
}

/// Puts a [`Deployer`] together.
#[derive(Clone, Debug)]
#[must_use]
pub struct DeployerBuilder {
    backend: Backend,
    clock: Arc<dyn Clock>,
    intercept: Option<Arc<dyn Intercept>>,
    secrets: Arc<dyn Secrets>,
    gates: BTreeMap<String, Arc<dyn Gate>>,
    owner: String,
    lease_ttl: Duration,
}

impl DeployerBuilder {
    /// Registers a gate that releases ask by this name.
    pub fn gate(mut self, name: impl Into<String>, gate: Arc<dyn Gate>) -> Self {
        self.gates.insert(name.into(), gate);
        self
    }

    /// Sets where secrets are pinned and where those of builds are found.
    pub fn secrets(mut self, secrets: Arc<dyn Secrets>) -> Self {
        self.secrets = secrets;
        self
    }

    /// Sets the clock; without it, this computer's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets what sees every backend call.
    pub fn intercept(mut self, intercept: Arc<dyn Intercept>) -> Self {
        self.intercept = Some(intercept);
        self
    }

    /// Sets how this program is called where somebody asks who holds a lease or began a deployment.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = owner.into();
        self
    }

    /// Sets how long a lease holds when it is not renewed: the longest that others wait for a deployer that was killed.
    /// 15 seconds without it.
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.lease_ttl = ttl;
        self
    }

    /// The deployer.
    #[must_use]
    pub fn build(self) -> Deployer {
        Deployer {
            tools: Tools {
                backend: self.backend,
                calls: Calls::new(self.clock, self.intercept),
                secrets: self.secrets,
                gates: Arc::new(self.gates),
                owner: self.owner,
                lease_ttl: self.lease_ttl,
            },
        }
    }
}

/// How a new release is deployed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DeployOptions {
    /// Who deploys.
    pub author: Option<String>,
    /// Why.
    pub message: Option<String>,
    /// The state of the sources.
    pub git: Option<GitState>,
    /// Whether a deployment that is under way is stopped where it is, and this one goes on from there. Otherwise it is
    /// an error of kind [`Busy`](ErrorKind::Busy).
    pub supersede: bool,
}

impl DeployOptions {
    /// Says who deploys.
    #[must_use]
    pub fn with_author(mut self, author: impl Into<String>) -> Self {
        self.author = Some(author.into());
        self
    }

    /// Says why.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Says from which state of the sources.
    #[must_use]
    pub fn with_git(mut self, git: Option<GitState>) -> Self {
        self.git = git;
        self
    }

    /// Stops a deployment that is under way where it is, and goes on from there.
    #[must_use]
    pub fn superseding(mut self) -> Self {
        self.supersede = true;
        self
    }

    fn provenance(&self) -> Provenance {
        Provenance {
            author: self.author.clone(),
            message: self.message.clone(),
            git: self.git.clone(),
            ..Provenance::default()
        }
    }
}

/// What a deployment would do. It can be looked at, kept, and [applied](Deployer::apply).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Preview {
    /// What was asked for.
    pub kind: DeploymentKind,
    /// Where it would be done.
    pub backend: String,
    /// The release that would serve, under the number that it would get; none, if nothing would be left.
    pub release: Option<Release>,
    /// The release that serves now.
    pub baseline: Option<ReleaseNumber>,
    /// The steps.
    pub plan: Plan,
    /// What the backend has to say of the spec, such as what will have no effect.
    #[serde(default)]
    pub warnings: Problems,
}

impl std::fmt::Display for Preview {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}: ", self.kind.word(), self.backend)?;
        if let Some(baseline) = self.baseline {
            write!(f, "from {baseline}, ")?;
        }
        self.plan.fmt(f)?;
        self.warnings.warnings().try_for_each(|warning| write!(f, "\n  {warning}"))
    }
}

impl Deployer {
    /// A deployer for this backend, with nothing else set.
    #[must_use]
    pub fn new(backend: Backend) -> Self {
        Self::builder(backend).build()
    }

    /// Puts a deployer for this backend together.
    pub fn builder(backend: Backend) -> DeployerBuilder {
        DeployerBuilder {
            backend,
            clock: Arc::new(SystemClock),
            intercept: None,
            secrets: Arc::new(NoSecrets),
            gates: BTreeMap::new(),
            owner: format!("deployer (pid {})", std::process::id()),
            lease_ttl: Duration::from_secs(15),
        }
    }

    /// Previews what deploying a spec would do. Images are built or pulled, since the plan pins them; nothing that runs
    /// is touched. What of the surroundings would stop it is found here, all of it at once:
    /// [`Orchestrator::preflight`](crate::Orchestrator::preflight).
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) with every problem of the spec as its source; what preparing and
    /// observing can fail with.
    pub async fn plan(&self, spec: &AppSpec, options: &DeployOptions) -> Result<Preview> {
        let warnings = self.tools.check_beforehand(spec).await?;
        let id = DeploymentId::fresh();
        let (events, _) = Events::new(spec.name.clone(), id.clone(), Arc::clone(&self.tools.calls.clock));
        let services = self.prepare(&events, &id).services(spec).await?;
        let release = self.tools.draft_release(spec, services, options.provenance()).await?;
        Ok(Preview { warnings, ..self.preview(&spec.name, &id, DeploymentKind::Deploy, Some(release)).await? })
    }

    /// Previews what rolling back would do: to the last known good release, from the middle of a deployment to what served
    /// before it, or to this one.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such release; what observing can fail with.
    pub async fn plan_rollback(&self, app: &AppName, to: Option<ReleaseNumber>) -> Result<Preview> {
        let id = DeploymentId::fresh();
        let history = self.tools.history_before(app, &id).await?;
        let number = to.or_else(|| history.way_back()).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "there is no earlier release that was good").with_resource(app.to_string())
        })?;
        let release = self.tools.kept_release(app, number).await?;
        let from = history.serving().filter(|serving| *serving != number);
        self.preview(app, &id, DeploymentKind::Rollback { from }, Some(release)).await
    }

    /// Previews what destroying an application would do.
    ///
    /// # Errors
    /// What observing can fail with.
    pub async fn plan_destroy(&self, app: &AppName, volumes: bool) -> Result<Preview> {
        self.preview(app, &DeploymentId::fresh(), DeploymentKind::Destroy { volumes }, None).await
    }

    async fn preview(
        &self,
        app: &AppName,
        id: &DeploymentId,
        kind: DeploymentKind,
        release: Option<Release>,
    ) -> Result<Preview> {
        let history = self.tools.history_before(app, id).await?;
        let planned = self.tools.plan(app, id, kind, release.as_ref(), &history).await?;
        let backend = self.tools.backend.name.clone();
        let (baseline, plan, warnings) = (planned.baseline, planned.plan, Problems::default());
        Ok(Preview { kind, backend, release, baseline, plan, warnings })
    }

    /// Does what a preview of a deploy or rollback says, if what it was made from is still so.
    ///
    /// The deployment fails with [`Conflict`](ErrorKind::Conflict) before anything is touched if other instances run,
    /// other weights are set or another release serves than when it was planned.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a preview of a destruction.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn apply(&self, preview: Preview) -> Result<Deployment> {
        let Some(release) = preview.release else {
            return Err(Error::new(ErrorKind::InvalidInput, "a destruction is not applied from a preview")
                .with_help("call `Deployer::destroy`"));
        };
        let (app, basis) = (release.app.clone(), Some((preview.plan, preview.baseline)));
        Ok(match preview.kind {
            DeploymentKind::Rollback { .. } => {
                self.begin(app, None, move |run| run.rollback(Some(release.number), basis))
            }
            _ => self.begin(app, None, move |run| run.release(release, basis, false)),
        })
    }

    /// Deploys a spec: builds, pins, starts, checks, moves traffic, and keeps it or brings back what was there before.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn deploy(&self, spec: AppSpec, options: DeployOptions) -> Deployment {
        let (provenance, supersede) = (options.provenance(), options.supersede);
        self.begin(spec.name.clone(), None, move |run| run.deploy(spec, provenance, supersede))
    }

    /// Rolls back to the last known good release, from the middle of a deployment to what served before it, or to this one.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn rollback(&self, app: &AppName, to: Option<ReleaseNumber>) -> Deployment {
        self.begin(app.clone(), None, move |run| run.rollback(to, None))
    }

    /// Removes everything of an application: instances, routes, networks and, if asked for, volumes with their data.
    /// Releases and history are kept.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn destroy(&self, app: &AppName, volumes: bool) -> Deployment {
        self.begin(app.clone(), None, move |run| run.destroy(volumes))
    }

    /// Goes on with the deployment of an application that has no verdict yet, if there is one: its process was killed,
    /// or gave up. Waits for the lease of the old process to end if the store cannot tell that it is dead.
    ///
    /// # Errors
    /// What reading the store can fail with.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub async fn resume(&self, app: &AppName) -> Result<Option<Deployment>> {
        let open = self.tools.history(app).await?.open().map(|record| record.id.clone());
        Ok(open.map(|id| self.begin(app.clone(), Some(id), Run::resume)))
    }

    /// Asks the deployment of an application that is under way, in whatever process, to stop and to bring back what was there before.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if none is under way.
    pub async fn cancel(&self, app: &AppName, by: impl Into<String> + Send) -> Result<Signalled> {
        self.tools.signal(app, Signal::Cancel { by: by.into() }).await
    }

    /// Lets the deployment that is under way pass its approval gates.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if none is under way.
    pub async fn promote(&self, app: &AppName, by: impl Into<String> + Send) -> Result<Signalled> {
        self.tools.signal(app, Signal::Promote { by: by.into() }).await
    }

    /// How an application is: what serves, what runs, and where the two differ from what was released.
    ///
    /// # Errors
    /// What reading the store and observing can fail with.
    pub async fn status(&self, app: &AppName) -> Result<AppStatus> {
        self.tools.status(app).await
    }

    /// The deployments of an application, newest first.
    ///
    /// # Errors
    /// What reading the store can fail with.
    pub async fn history(&self, app: &AppName) -> Result<Vec<DeploymentRecord>> {
        Ok(self.tools.history(app).await?.0)
    }

    /// The releases of an application that are kept, newest first.
    ///
    /// # Errors
    /// What reading the store can fail with.
    pub async fn releases(&self, app: &AppName, limit: u32) -> Result<Vec<Release>> {
        let read = || self.tools.backend.store.releases(ReleaseQuery::new(app.clone(), limit));
        self.tools.calls.insist("store.releases", app, Access::Read, READ, read).await
    }

    /// The journal of a deployment.
    ///
    /// # Errors
    /// What reading the store can fail with.
    pub async fn journal(&self, deployment: &DeploymentId) -> Result<Vec<Entry>> {
        let read = || self.tools.backend.store.journal(deployment, 1);
        self.tools.calls.insist("store.journal", deployment, Access::Read, READ, read).await
    }

    /// The names of all applications that the store knows.
    ///
    /// # Errors
    /// What reading the store can fail with.
    pub async fn apps(&self) -> Result<Vec<AppName>> {
        let read = || self.tools.backend.store.apps();
        self.tools.calls.insist("store.apps", "all", Access::Read, READ, read).await
    }

    /// What instances and tasks have written.
    ///
    /// # Errors
    /// What the orchestrator can fail with.
    pub async fn logs(&self, query: LogQuery) -> Result<LogStream> {
        let read = || self.tools.backend.orchestrator.logs(query.clone());
        self.tools.calls.insist("orchestrator.logs", &query.app, Access::Read, READ, read).await
    }

    /// Clears away what an application cannot be rolled back to any more: releases, images, revisions that were kept
    /// warm for long enough. Never what serves, nor what a rollback goes to by default.
    ///
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) if a deployment has no verdict yet; what the backend and the store can fail with.
    pub async fn prune(&self, app: &AppName, retention: Retention) -> Result<Pruned> {
        self.tools.prune(app, retention).await
    }

    fn prepare(&self, events: &Events, id: &DeploymentId) -> Prepare {
        Prepare {
            backend: self.tools.backend.clone(),
            calls: self.tools.calls.clone(),
            secrets: Arc::clone(&self.tools.secrets),
            events: events.clone(),
            key: id.to_string(),
        }
    }

    fn begin<F, W>(&self, app: AppName, id: Option<DeploymentId>, work: W) -> Deployment
    where
        F: Future<Output = Result<DeploymentRecord>> + Send + 'static,
        W: FnOnce(Run) -> F,
    {
        let id = id.unwrap_or_else(DeploymentId::fresh);
        let (events, receiver) = Events::new(app.clone(), id.clone(), Arc::clone(&self.tools.calls.clock));
        let (cancel, cancelled) = watch::channel(None);
        let run = Run { tools: self.tools.clone(), app: app.clone(), id: id.clone(), events, cancelled };
        let task = tokio::spawn(work(run));
        Deployment::new(app, id, receiver, cancel, task)
    }
}
