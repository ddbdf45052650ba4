//! What the author of a place to run writes.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use deployer_core::{
    AppName, Backend, BuildSpec, Clock, InstanceId, PinnedImage, RevisionId, Route, ServiceName, ServiceSpec,
};

use super::case::CaseResult;
use super::profile::Profile;

/// Hands out scopes to the cases of all suites but the store's.
#[async_trait]
pub trait Site: Debug + Send + Sync {
    /// What the place is and has.
    fn profile(&self) -> Profile;

    /// A scope for one case: nothing of it is there yet, and no other case, here or in another process, has its names.
    ///
    /// # Errors
    /// Why there can be none, such as a missing engine; the case fails then.
    async fn scope(&self) -> CaseResult<Arc<dyn Scope>>;
}

/// Two applications of one case, the backend under test, programs that behave as a case asks, and an oracle: whoever
/// answers [`seen`](Self::seen), [`has_image`](Self::has_image) and [`request`](Self::request) must not ask the backend
/// under test, or it proves nothing.
#[async_trait]
pub trait Scope: Debug + Send + Sync {
    /// The backend under test. Called often; answers the same one each time.
    fn backend(&self) -> Backend;

    /// The time that the backend lives in.
    fn clock(&self) -> Arc<dyn Clock>;

    /// The application of the case.
    fn app(&self) -> AppName;

    /// Another application at the same place, for cases in which two meet.
    fn neighbour(&self) -> AppName;

    /// A service of one instance that runs this program. Its versions differ in what they answer, and are different
    /// revisions; the same program and version are the same revision each time. It says where the program listens and how
    /// it is probed, and has one route, `/` for every host. Cases change its replicas, routes, strategy and hooks.
    fn service(&self, program: Program, version: &str) -> ServiceSpec;

    /// The command of a one-off task of such a service.
    fn task(&self, task: TaskProgram) -> Vec<String>;

    /// The reference of an image that the registry can resolve.
    fn image(&self) -> String;

    /// The reference of an image that nobody has.
    fn missing_image(&self) -> String;

    /// How to build an image. Called unless [`Need::Builds`](super::Need::Builds) is lacking.
    fn build(&self, build: Build<'_>) -> BuildSpec;

    /// A port of the host that nobody listens on. Called unless [`Need::PublishedPorts`](super::Need::PublishedPorts) is
    /// lacking.
    fn free_port(&self) -> u16;

    /// Whether an image can be run, by who runs them.
    ///
    /// # Errors
    /// Why that cannot be told; the case fails then.
    async fn has_image(&self, image: &PinnedImage) -> CaseResult<bool>;

    /// Takes an image away, past the registry.
    ///
    /// # Errors
    /// Why that cannot be done; the case fails then.
    async fn lose_image(&self, image: &PinnedImage) -> CaseResult;

    /// Sends one request as a client does and waits for its answer: the version of the program that answered it with a
    /// status of 200, or what became of it instead.
    async fn request(&self, app: &AppName, entrance: &Entrance, pace: Pace) -> Result<String, String>;

    /// What there is of an application.
    ///
    /// # Errors
    /// Why that cannot be told; the case fails then.
    async fn seen(&self, app: &AppName) -> CaseResult<Seen>;

    /// Kills the program of an instance, as the machine would for want of memory: at once, and without anybody having
    /// asked for it.
    ///
    /// # Errors
    /// Why that cannot be done. That it does not run any more is not an error.
    async fn kill(&self, instance: &InstanceId) -> CaseResult;

    /// Removes everything of both applications. Called after every case, also one that failed or panicked.
    ///
    /// # Errors
    /// What could not be removed, or what the place noticed of rules that were broken; the case fails then.
    async fn clean_up(&self) -> CaseResult;
}

/// How the instances of a service behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Program {
    /// Is ready soon after its start and answers requests with its version. When it is asked to stop, it finishes those it
    /// works on, then ends.
    Serves,
    /// Writes a line that begins with `FATAL` and exits with code 3, soon after every start.
    Exits,
    /// Runs, and never passes its probe.
    NeverReady,
    /// Serves, and does not end when it is asked to: it has to be killed.
    IgnoresStop,
    /// Has a command that the image does not have.
    CannotStart,
}

/// How a one-off task behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TaskProgram {
    /// Writes the line `done` and ends with code 0, within a few seconds.
    Succeeds,
    /// Writes the line `FATAL: no database` and ends with code 7, within a few seconds.
    Fails,
    /// Goes on for minutes.
    Lasts,
}

/// What is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Build<'a> {
    /// An image; another one for each version.
    Version(&'a str),
    /// One of whose instructions writes `FATAL: no compiler` and fails.
    Fails,
    /// One whose build context does not exist.
    Unreadable,
}

/// Where a request enters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entrance {
    /// From outside, through this route.
    Route(Route),
    /// From outside, at this port of the host.
    Published(u16),
    /// From inside the application, by the service's name.
    Name(ServiceName),
}

/// How long a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pace {
    /// It is answered at once.
    Quick,
    /// The program works on it for one to three seconds.
    Slow,
}

/// What the oracle sees of one application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// Its instances, running or not, in any order.
    pub instances: Vec<SeenInstance>,
    /// Its tasks that are not forgotten, running or not, in any order.
    pub tasks: Vec<SeenTask>,
    /// What its services share and what brings traffic to them, by name: networks, entries, proxies. In any order.
    pub shared: Vec<String>,
    /// What keeps its data, by name. In any order.
    pub volumes: Vec<String>,
}

impl Seen {
    /// Nothing at all.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Puts everything in order, so that what was seen at two times can be compared.
    #[must_use]
    pub(crate) fn sorted(mut self) -> Self {
        self.instances.sort();
        self.tasks.sort();
        self.shared.sort();
        self.volumes.sort();
        self
    }
}

/// An instance as the oracle sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeenInstance {
    /// Its revision.
    pub revision: RevisionId,
    /// Its number within the revision.
    pub ordinal: u32,
    /// Its id in the backend.
    pub id: InstanceId,
    /// Whether its program runs.
    pub running: bool,
    /// Changes with every start of its program, such as a process id or the time of its start.
    pub start: String,
}

/// A one-off task as the oracle sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeenTask {
    /// Its id in the backend.
    pub id: InstanceId,
    /// Whether its program runs.
    pub running: bool,
    /// Changes with every start of its program.
    pub start: String,
}
