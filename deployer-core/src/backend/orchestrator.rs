//! Running instances.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Call, LogQuery, LogStream, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    AppName, AppSpec, Digest, InstanceId, Problems, Readiness, Release, ReleaseNumber, RevisionId, ServiceName,
    ServiceRelease, Timestamp,
};

/// Runs the instances of revisions, and one-off tasks.
#[async_trait]
pub trait Orchestrator: Debug + Send + Sync {
    /// What the planner must know about it.
    fn capabilities(&self) -> OrchestratorCapabilities;

    /// What of an application this backend cannot run, all of it at once, each with its path in the spec. Asked before
    /// anything is built or touched, and touches nothing. Warnings are logged.
    ///
    /// # Errors
    /// Only if the backend cannot be asked.
    async fn check(&self, spec: &AppSpec) -> Result<Problems>;

    /// What of the surroundings would stop an application that this backend can run, all of it at once: what is missing,
    /// does not fit, is used up, or somebody else's. Asked when somebody [plans](crate::Deployer::plan), and touches nothing.
    /// Backends that need nothing beforehand find nothing.
    ///
    /// # Errors
    /// Only if the backend cannot be asked.
    async fn preflight(&self, spec: &AppSpec) -> Result<Problems> {
        let _ = spec;
        Ok(Problems::default())
    }

    /// Makes what the release's services share exist: networks and volumes. It is the first call with a release, which may
    /// be an old one that nobody has [checked](Self::check) here: what cannot be done is refused again.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if the release wants what this backend does not have, naming the
    /// service and what it wants.
    /// [`NotFound`](crate::ErrorKind::NotFound) if something external is missing,
    /// [`Exhausted`](crate::ErrorKind::Exhausted) if there are no addresses left.
    async fn ensure_app(&self, request: EnsureApp) -> Result<Outcome>;

    /// Everything of an application that is there now, and nothing of anybody else.
    ///
    /// # Errors
    /// Only if the orchestrator cannot be asked.
    async fn observe(&self, request: ObserveApp) -> Result<ObservedApp>;

    /// Makes the revision have at least so many instances, with the ordinals from 1 on; starts missing and exited ones.
    /// Returns when the platform has taken them, not when they are healthy. [`Outcome::Created`] if the revision had no
    /// instance before. A platform that takes first and tries later answers so even if they cannot be started;
    /// [observing](Self::observe) then tells that they are [beyond recovery](ExitDetail::unrecoverable).
    ///
    /// # Errors
    /// [`Workload`](crate::ErrorKind::Workload) if an instance cannot be started as it is described (no such
    /// executable, say), with [`Effect::Done`](crate::Effect::Done) if something is left of it that observing shows and
    /// reducing removes, [`Conflict`](crate::ErrorKind::Conflict), to be retried soon, while one of these ordinals, or what
    /// the application had before it was removed, is still being stopped, [`NotFound`](crate::ErrorKind::NotFound) if the image is gone,
    /// [`Exhausted`](crate::ErrorKind::Exhausted) if a port, address or quota is taken.
    async fn launch(&self, request: Launch) -> Result<Outcome>;

    /// Stops and removes the instances of the revision with the highest ordinals until so many are left. Each gets its
    /// stop signal and its grace period. Returns when they are gone; where the orchestrator
    /// [drains](OrchestratorCapabilities::drains), it may return when the platform has taken it.
    ///
    /// # Errors
    /// Only if the orchestrator cannot be asked or refuses.
    async fn reduce(&self, request: Reduce) -> Result<Outcome>;

    /// Starts a one-off task unless one of this id has been started before, whether it still runs or not. Returns when
    /// the platform has taken it; its end is observed. Rather never than twice: it may be a migration.
    ///
    /// # Errors
    /// As for [`launch`](Self::launch).
    async fn start_task(&self, request: StartTask) -> Result<Outcome>;

    /// Stops a task if it runs, and forgets it.
    ///
    /// # Errors
    /// Only if the orchestrator cannot be asked or refuses.
    async fn remove_task(&self, request: RemoveTask) -> Result<Outcome>;

    /// Stops, starts or removes instances that [another tool](ObservedApp::inherited) has started, at once; stops each with
    /// its stop signal and its grace period. Returns when it is done. Those that are gone are not missed where they are to
    /// stop or to go. Backends that never report any are never asked.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if one that shall run is gone,
    /// [`Workload`](crate::ErrorKind::Workload) or [`Exhausted`](crate::ErrorKind::Exhausted) if it cannot be started.
    async fn set_inherited(&self, request: SetInherited) -> Result<Outcome> {
        let message = "this backend takes nothing over from other tools";
        Err(Error::new(ErrorKind::Unsupported, message).with_resource(request.app.as_str()))
    }

    /// Forgets what the platform has written down of an application's revisions that are not to be kept and of which nothing
    /// runs, such as task definitions; answers what was forgotten, by name. Who launches one again writes it down again.
    /// Backends that write nothing down but instances are never out of date.
    ///
    /// # Errors
    /// Only if the orchestrator cannot be asked or refuses.
    async fn prune(&self, request: PruneRevisions) -> Result<Vec<String>> {
        let _ = request;
        Ok(Vec::new())
    }

    /// Removes what the services of an application shared, and forgets all its revisions. Its instances are gone already.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if something still uses it, naming what.
    async fn remove_app(&self, request: RemoveApp) -> Result<Outcome>;

    /// Sends a GET request to every running instance of a revision, past the load balancer.
    ///
    /// # Errors
    /// Only if the question cannot be put; an instance that does not answer is in the answer.
    async fn smoke(&self, request: SmokeRequest) -> Result<Vec<SmokeAnswer>>;

    /// What instances and tasks have written. The stream ends at the last line unless it is asked to follow; then it goes
    /// on until it is dropped, or, if it is about one instance or task only, until that one ends.
    ///
    /// # Errors
    /// Only if the orchestrator cannot be asked.
    async fn logs(&self, query: LogQuery) -> Result<LogStream>;
}

/// What planner and driver must know about an orchestrator. The default is one that leaves draining to the engine and
/// can be looked at as often as helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OrchestratorCapabilities {
    /// The orchestrator takes an instance out of rotation and lets it finish its requests by itself when it is reduced.
    pub drains: bool,
    /// The shortest time after which looking again may show something new.
    pub poll: Duration,
    /// The orchestrator changes the number of instances by itself where a service has
    /// [`scaling`](crate::Service::scaling). It must leave the number alone from [`ensure_app`](Orchestrator::ensure_app)
    /// on where another revision is to serve, and whenever it is asked to change it itself, until the load balancer is
    /// asked to [retain](crate::LoadBalancer::retain) a release: then it scales the revisions of that, and no others. If
    /// there were more instances by then than anybody had seen before, a launch makes as many of the new revision, except
    /// where that one comes in batches.
    pub scales: bool,
}

impl Default for OrchestratorCapabilities {
    fn default() -> Self {
        Self { drains: false, poll: Duration::from_millis(15), scales: false }
    }
}

/// Asks for what the services of a release share.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EnsureApp {
    /// Key and deadline.
    pub call: Call,
    /// The release.
    pub release: Arc<Release>,
}

impl EnsureApp {
    /// Asks for what the services of this release share.
    #[must_use]
    pub fn new(call: Call, release: Arc<Release>) -> Self {
        Self { call, release }
    }
}

/// Asks what is there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ObserveApp {
    /// The application.
    pub app: AppName,
    /// The revisions to probe, and how. Instances of others have only their own check to tell their health.
    pub probe: BTreeMap<RevisionId, Readiness>,
}

impl ObserveApp {
    /// Asks what is there, without probing.
    #[must_use]
    pub fn new(app: AppName) -> Self {
        Self { app, probe: BTreeMap::new() }
    }

    /// Probes these revisions as well.
    #[must_use]
    pub fn with_probe(mut self, probe: BTreeMap<RevisionId, Readiness>) -> Self {
        self.probe = probe;
        self
    }
}

/// Asks for instances.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Launch {
    /// Key and deadline.
    pub call: Call,
    /// The release that the revision belongs to.
    pub release: Arc<Release>,
    /// The service.
    pub service: ServiceName,
    /// The revision.
    pub revision: RevisionId,
    /// How many instances there shall be at least.
    pub instances: u32,
}

impl Launch {
    /// Asks for so many instances of the release's revision of this service.
    #[must_use]
    pub fn new(call: Call, release: Arc<Release>, service: ServiceName, revision: RevisionId, instances: u32) -> Self {
        Self { call, release, service, revision, instances }
    }

    /// The service as the release has it.
    #[must_use]
    pub fn service_release(&self) -> Option<&ServiceRelease> {
        self.release.services.get(&self.service)
    }
}

/// Asks to stop instances.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reduce {
    /// Key and deadline.
    pub call: Call,
    /// The application.
    pub app: AppName,
    /// The revision.
    pub revision: RevisionId,
    /// How many instances stay: those with the lowest ordinals.
    pub keep: u32,
}

impl Reduce {
    /// Asks to stop all instances of the revision but so many.
    #[must_use]
    pub fn new(call: Call, app: AppName, revision: RevisionId, keep: u32) -> Self {
        Self { call, app, revision, keep }
    }
}

/// Identifies a one-off task within its application, equal for all repetitions of one step.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub String);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Asks for a one-off task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StartTask {
    /// Key and deadline.
    pub call: Call,
    /// The task.
    pub task: TaskId,
    /// The release whose image, environment and networks it gets.
    pub release: Arc<Release>,
    /// The service whose image, environment and networks it gets.
    pub service: ServiceName,
    /// What runs instead of the service's command; empty means that command itself.
    pub command: Vec<String>,
}

impl StartTask {
    /// Asks for a one-off task.
    #[must_use]
    pub fn new(call: Call, task: TaskId, release: Arc<Release>, service: ServiceName, command: Vec<String>) -> Self {
        Self { call, task, release, service, command }
    }
}

/// Asks to forget a task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RemoveTask {
    /// Key and deadline.
    pub call: Call,
    /// The application.
    pub app: AppName,
    /// The task.
    pub task: TaskId,
}

impl RemoveTask {
    /// Asks to forget this task.
    #[must_use]
    pub fn new(call: Call, app: AppName, task: TaskId) -> Self {
        Self { call, app, task }
    }
}

/// Asks to stop, start or remove what another tool has started.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SetInherited {
    /// Key and deadline.
    pub call: Call,
    /// The application.
    pub app: AppName,
    /// Which.
    pub instances: Vec<InstanceId>,
    /// What they shall do.
    pub state: InheritedState,
}

impl SetInherited {
    /// Asks that these instances be in this state.
    #[must_use]
    pub fn new(call: Call, app: AppName, instances: Vec<InstanceId>, state: InheritedState) -> Self {
        Self { call, app, instances, state }
    }
}

/// What becomes of an instance that another tool has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InheritedState {
    /// It is there, and does not run.
    Stopped,
    /// It runs.
    Running,
    /// It is gone. Its volumes stay, also those without a name.
    Removed,
}

/// Asks to forget revisions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PruneRevisions {
    /// Key and deadline.
    pub call: Call,
    /// The application.
    pub app: AppName,
    /// What must stay.
    pub keep: BTreeSet<RevisionId>,
}

impl PruneRevisions {
    /// Asks to forget all revisions of the application but these.
    #[must_use]
    pub fn new(call: Call, app: AppName, keep: BTreeSet<RevisionId>) -> Self {
        Self { call, app, keep }
    }
}

/// Asks to remove what services shared.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RemoveApp {
    /// Key and deadline.
    pub call: Call,
    /// The application.
    pub app: AppName,
    /// Whether its volumes, and with them its data, go too.
    pub volumes: bool,
}

impl RemoveApp {
    /// Asks to remove what the services of this application shared.
    #[must_use]
    pub fn new(call: Call, app: AppName, volumes: bool) -> Self {
        Self { call, app, volumes }
    }
}

/// Asks every instance of a revision the same question.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SmokeRequest {
    /// When the engine stops waiting.
    pub deadline: Timestamp,
    /// The application.
    pub app: AppName,
    /// The revision.
    pub revision: RevisionId,
    /// The port inside the instance.
    pub port: u16,
    /// The path of the GET request.
    pub path: String,
}

impl SmokeRequest {
    /// Asks every instance of the revision for this path.
    #[must_use]
    pub fn new(deadline: Timestamp, app: AppName, revision: RevisionId, port: u16, path: String) -> Self {
        Self { deadline, app, revision, port, path }
    }
}

/// What one instance answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmokeAnswer {
    /// The instance.
    pub instance: InstanceId,
    /// The status and up to 64 KiB of the body, or why there is none.
    pub answer: std::result::Result<(u16, String), String>,
}

/// What is there of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ObservedApp {
    /// Its instances, those of one revision by rising ordinal.
    pub instances: Vec<ObservedInstance>,
    /// Its one-off tasks.
    pub tasks: Vec<ObservedTask>,
    /// What another tool has started for it. A deployment takes over from that, and starts it again if it fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherited: Vec<Inherited>,
}

impl ObservedApp {
    /// What is there.
    #[must_use]
    pub fn new(instances: Vec<ObservedInstance>, tasks: Vec<ObservedTask>) -> Self {
        Self { instances, tasks, inherited: Vec::new() }
    }

    /// Adds what another tool has started.
    #[must_use]
    pub fn with_inherited(mut self, inherited: Vec<Inherited>) -> Self {
        self.inherited = inherited;
        self
    }
}

/// An instance that another tool has started, such as a container of Docker Compose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Inherited {
    /// Its id in the backend.
    pub id: InstanceId,
    /// The name that a person would use.
    pub name: String,
    /// The service that it is an instance of.
    pub service: ServiceName,
    /// The tool, such as `Docker Compose`.
    pub tool: String,
    /// Whether it runs, or is about to run again.
    pub running: bool,
    /// The paths in it of volumes without a name: what it has written there is nobody else's to find.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unnamed_volumes: Vec<String>,
}

impl Inherited {
    /// An instance of this service, without volumes that have no name.
    #[must_use]
    pub fn new(
        id: InstanceId,
        name: impl Into<String>,
        service: ServiceName,
        tool: impl Into<String>,
        running: bool,
    ) -> Self {
        let (name, tool) = (name.into(), tool.into());
        Self { id, name, service, tool, running, unnamed_volumes: Vec::new() }
    }

    /// Names the paths of its volumes without a name.
    #[must_use]
    pub fn with_unnamed_volumes(mut self, paths: Vec<String>) -> Self {
        self.unnamed_volumes = paths;
        self
    }
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ObservedInstance {
    /// Its id in the backend. It stays over restarts, and no later instance of the same ordinal has it.
    pub id: InstanceId,
    /// The name that a person would use, such as `shop-web-3f9a1c-1`.
    pub name: String,
    /// Its revision.
    pub revision: RevisionId,
    /// The release with which the revision came.
    pub release: ReleaseNumber,
    /// Its number within the revision, from 1.
    pub ordinal: u32,
    /// What it does.
    pub phase: InstancePhase,
    /// Whether it is ready, by every check there is for it.
    pub health: Health,
    /// What the last check said, if it did not pass.
    pub health_detail: Option<String>,
    /// Where the load balancer reaches it: an address without a port, because all instances of a service listen on the
    /// same ports.
    pub address: Option<String>,
    /// When it was last started.
    pub started_at: Option<Timestamp>,
    /// How often it exited by itself since it was last launched.
    pub crashes: u32,
    /// How it exited last, if it ever did.
    pub exit: Option<ExitDetail>,
    /// The image it runs.
    pub image: Option<Digest>,
}

impl ObservedInstance {
    /// An instance of which nothing more is known yet.
    #[must_use]
    pub fn new(
        id: InstanceId,
        name: impl Into<String>,
        revision: RevisionId,
        release: ReleaseNumber,
        ordinal: u32,
        phase: InstancePhase,
    ) -> Self {
        Self {
            id,
            name: name.into(),
            revision,
            release,
            ordinal,
            phase,
            health: Health::Unknown,
            health_detail: None,
            address: None,
            started_at: None,
            crashes: 0,
            exit: None,
            image: None,
        }
    }

    /// Whether it can be given traffic: running, healthy, and with an address.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase == InstancePhase::Running && self.health == Health::Healthy
    }
}

/// What an instance does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstancePhase {
    /// The platform has taken it and not started it yet, or could not start it.
    Pending,
    /// It runs.
    Running,
    /// It exited, and the platform is about to start it again.
    Restarting,
    /// It is being stopped.
    Stopping,
    /// It exited and stays so.
    Exited,
}

/// Whether an instance is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Nobody asked, or it does not run.
    Unknown,
    /// Not yet, and that is no fault yet.
    Starting,
    /// Every check there is passes; or there is none, and it runs.
    Healthy,
    /// A check fails.
    Unhealthy,
}

/// How an instance or task ended, or why it could not be started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExitDetail {
    /// The exit code, if it ran.
    pub code: Option<i64>,
    /// Whether it was killed for want of memory.
    pub out_of_memory: bool,
    /// The platform's own words, such as `exec: "/nope": no such file or directory`.
    pub error: Option<String>,
    /// Whether starting it again can only end the same way.
    pub unrecoverable: bool,
    /// When it ended.
    pub at: Option<Timestamp>,
}

impl ExitDetail {
    /// An ordinary exit with this code.
    #[must_use]
    pub fn code(code: i64) -> Self {
        Self { code: Some(code), ..Self::default() }
    }
}

/// A one-off task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ObservedTask {
    /// The task.
    pub task: TaskId,
    /// Its id in the backend; its output is found by it.
    pub instance: InstanceId,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// How it ended, if it has.
    pub exit: Option<ExitDetail>,
}

impl ObservedTask {
    /// A task that runs, or has ended.
    #[must_use]
    pub fn new(task: TaskId, instance: InstanceId, started_at: Option<Timestamp>, exit: Option<ExitDetail>) -> Self {
        Self { task, instance, started_at, exit }
    }
}
