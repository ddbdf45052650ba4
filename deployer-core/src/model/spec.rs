//! The application as its owner describes it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::balancing::Balancing;
use super::container::is_default;
use super::name::{AppName, ServiceName};
use super::problem::Problems;
use super::rollout::{Condition, GateSpec, Hook, Readiness, Route, Strategy};
use super::scaling::Scaling;
use super::time::opt_millis;
use super::workload::{ContainerCheck, EnvValue, Mount, Port, Resources, SecretRef, Workload};
use crate::error::Result;

/// An application to deploy.
///
/// ```
/// use deployer_core::{AppSpec, Route, ServiceSpec, Strategy};
/// use std::time::Duration;
///
/// # fn main() -> deployer_core::Result<()> {
/// let app = AppSpec::new("shop")?
///     .with_service("cache", ServiceSpec::image("redis:7").with_port(6379))?
///     .with_service(
///         "web",
///         ServiceSpec::image("shop/web:42")
///             .with_replicas(3)
///             .with_env("CACHE", "redis://cache:6379")
///             .with_route(Route::new(8080).with_host("shop.example"))
///             .with_http_probe("/healthz", 8080)
///             .with_strategy(Strategy::Canary {
///                 steps: vec![deployer_core::CanaryStep { weight: 10, hold: Duration::from_secs(60) }],
///             })
///             .with_dependency("cache")?,
///     )?;
/// app.validate()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AppSpec {
    /// Its name.
    pub name: AppName,
    /// Its services.
    pub services: BTreeMap<ServiceName, ServiceSpec>,
    /// Its networks beside the default one.
    #[serde(default)]
    pub networks: BTreeMap<String, NetworkSpec>,
    /// Its named volumes.
    #[serde(default)]
    pub volumes: BTreeMap<String, VolumeSpec>,
}

impl AppSpec {
    /// An application without services.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the name breaks the rules of [`AppName`].
    pub fn new(name: impl Into<String>) -> Result<Self> {
        Ok(Self {
            name: AppName::new(name)?,
            services: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
        })
    }

    /// Adds a service, or replaces the one of that name. Named volumes that it mounts are declared if they are not yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the name breaks the rules of [`ServiceName`].
    pub fn with_service(mut self, name: impl Into<String>, service: ServiceSpec) -> Result<Self> {
        for mount in &service.workload.mounts {
            if let super::workload::MountSource::Volume(volume) = &mount.source {
                self.volumes.entry(volume.clone()).or_default();
            }
        }
        self.services.insert(ServiceName::new(name)?, service);
        Ok(self)
    }

    /// Checks the whole spec.
    ///
    /// # Errors
    /// Every [`Problem`](super::Problem) at once, each with its path, if one of them is an error.
    pub fn validate(&self) -> Result<Problems, Problems> {
        let problems = super::validate::check(self);
        if problems.has_errors() { Err(problems) } else { Ok(problems) }
    }
}

/// A service whose image is still to be built or pinned.
pub type ServiceSpec = Service<ImageSource>;

/// One long-running workload with replicas. `I` says how its image is named: an [`ImageSource`] in a spec, a
/// [`PinnedImage`](super::PinnedImage) in a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Service<I> {
    /// What it runs.
    pub image: I,
    /// How its instances run.
    #[serde(default)]
    pub workload: Workload,
    /// How many instances it has.
    pub replicas: u32,
    /// What must be there before it is started.
    #[serde(default)]
    pub depends_on: BTreeMap<ServiceName, Condition>,
    /// Where traffic from outside enters.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// When an instance counts as ready.
    #[serde(default)]
    pub readiness: Readiness,
    /// How it moves from one revision to the next.
    #[serde(default)]
    pub strategy: Strategy,
    /// Questions that must be answered with yes on the way.
    #[serde(default)]
    pub gates: Vec<GateSpec>,
    /// Work at named points.
    #[serde(default)]
    pub hooks: Vec<Hook>,
    /// How long requests in flight may take to finish once an instance is out of rotation. None means 10 s where
    /// single requests are routed (HTTP) and 1 s where whole connections are.
    #[serde(default, with = "opt_millis", skip_serializing_if = "Option::is_none")]
    pub drain: Option<Duration>,
    /// How the platform changes the number of instances by itself; none means never. Then `replicas` is the number that the
    /// service begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
    /// How the load balancer treats its instances.
    #[serde(default, skip_serializing_if = "Balancing::is_default")]
    pub balancing: Balancing,
}

impl ServiceSpec {
    fn new(image: ImageSource) -> Self {
        Self {
            image,
            workload: Workload::default(),
            replicas: 1,
            depends_on: BTreeMap::new(),
            routes: Vec::new(),
            readiness: Readiness::default(),
            strategy: Strategy::default(),
            gates: Vec::new(),
            hooks: Vec::new(),
            drain: None,
            scaling: None,
            balancing: Balancing::default(),
        }
    }

    /// A service that runs this image, such as `redis:7`.
    #[must_use]
    pub fn image(reference: impl Into<String>) -> Self {
        Self::new(ImageSource::Reference(reference.into()))
    }

    /// A service that runs what this build context builds.
    #[must_use]
    pub fn build(build: BuildSpec) -> Self {
        Self::new(ImageSource::Build(build))
    }
}

impl<I> Service<I> {
    /// The same service with another image.
    pub fn with_image<J>(self, image: J) -> Service<J> {
        Service {
            image,
            workload: self.workload,
            replicas: self.replicas,
            depends_on: self.depends_on,
            routes: self.routes,
            readiness: self.readiness,
            strategy: self.strategy,
            gates: self.gates,
            hooks: self.hooks,
            drain: self.drain,
            scaling: self.scaling,
            balancing: self.balancing,
        }
    }

    /// Sets how many instances it has.
    #[must_use]
    pub fn with_replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// Replaces the image's command.
    #[must_use]
    pub fn with_command<A: Into<String>>(mut self, command: impl IntoIterator<Item = A>) -> Self {
        self.workload.command = Some(command.into_iter().map(Into::into).collect());
        self
    }

    /// Sets an environment variable to a value that is no secret.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.workload.env.insert(name.into(), EnvValue::Plain(value.into()));
        self
    }

    /// Sets an environment variable to a secret.
    #[must_use]
    pub fn with_secret_env(mut self, name: impl Into<String>, secret: SecretRef) -> Self {
        self.workload.env.insert(name.into(), EnvValue::Secret(secret));
        self
    }

    /// Adds a TCP port that the application's other services reach.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.workload.ports.push(Port::internal(port));
        self
    }

    /// Adds a port, internal or published.
    #[must_use]
    pub fn with_ports(mut self, port: Port) -> Self {
        self.workload.ports.push(port);
        self
    }

    /// Adds a mount.
    #[must_use]
    pub fn with_mount(mut self, mount: Mount) -> Self {
        self.workload.mounts.push(mount);
        self
    }

    /// Sets limits and reservations.
    #[must_use]
    pub fn with_resources(mut self, resources: Resources) -> Self {
        self.workload.resources = resources;
        self
    }

    /// Sets a check that runs inside the instance.
    #[must_use]
    pub fn with_check(mut self, check: ContainerCheck) -> Self {
        self.workload.check = Some(check);
        self
    }

    /// Sets how long an instance has between the stop signal and being killed.
    #[must_use]
    pub fn with_stop_grace(mut self, grace: Duration) -> Self {
        self.workload.stop.grace = grace;
        self
    }

    /// Adds a route for traffic from outside.
    #[must_use]
    pub fn with_route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// An instance is ready when a GET request of this path is answered with a status from 200 to 399.
    #[must_use]
    pub fn with_http_probe(mut self, path: impl Into<String>, port: u16) -> Self {
        self.readiness.probe = Some(super::rollout::Probe::Http { path: path.into(), port });
        self
    }

    /// Sets how long the instances have to become ready.
    #[must_use]
    pub fn with_ready_deadline(mut self, deadline: Duration) -> Self {
        self.readiness.deadline = deadline;
        self
    }

    /// Sets how it moves from one revision to the next.
    #[must_use]
    pub fn with_strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Adds a gate.
    #[must_use]
    pub fn with_gate(mut self, gate: GateSpec) -> Self {
        self.gates.push(gate);
        self
    }

    /// Adds a hook.
    #[must_use]
    pub fn with_hook(mut self, hook: Hook) -> Self {
        self.hooks.push(hook);
        self
    }

    /// Sets how long requests in flight may take to finish once an instance is out of rotation.
    #[must_use]
    pub fn with_drain(mut self, drain: Duration) -> Self {
        self.drain = Some(drain);
        self
    }

    /// Sets how the load balancer treats its instances.
    #[must_use]
    pub fn with_balancing(mut self, balancing: Balancing) -> Self {
        self.balancing = balancing;
        self
    }

    /// Lets the platform change the number of instances by itself.
    #[must_use]
    pub fn with_scaling(mut self, scaling: Scaling) -> Self {
        self.scaling = Some(scaling);
        self
    }

    /// Starts it only when the named service is ready.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the name breaks the rules of [`ServiceName`].
    pub fn with_dependency(mut self, service: impl Into<String>) -> Result<Self> {
        self.depends_on.insert(ServiceName::new(service)?, Condition::Healthy);
        Ok(self)
    }
}

/// Where a service's image comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "an application has few of them, and a box would be in everybody's way")]
pub enum ImageSource {
    /// An image that exists already.
    Reference(String),
    /// A build context to build it from.
    Build(BuildSpec),
}

/// How an image is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct BuildSpec {
    /// The directory that is sent to the builder.
    pub context: PathBuf,
    /// The Dockerfile, relative to the context.
    pub dockerfile: PathBuf,
    /// The Dockerfile's text itself, instead of a file.
    pub dockerfile_inline: Option<String>,
    /// Build arguments. They end up in the image's history: never put a secret here.
    pub args: BTreeMap<String, String>,
    /// The stage to build.
    pub target: Option<String>,
    /// Further lines of `/etc/hosts` while it is built, as `name:address`.
    #[serde(skip_serializing_if = "is_default")]
    pub extra_hosts: Vec<String>,
    /// The network that `RUN` has: `none`, `host`, or one of the engine's.
    #[serde(skip_serializing_if = "is_default")]
    pub network: Option<String>,
    /// The size of `/dev/shm` in bytes while it is built.
    #[serde(skip_serializing_if = "is_default")]
    pub shm_size: Option<u64>,
    /// Secrets that `RUN --mount=type=secret` may read, by id.
    pub secrets: BTreeMap<String, SecretRef>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Whether to build every layer anew.
    pub no_cache: bool,
    /// The name to give the image besides the one that the engine gives it.
    pub tag: Option<String>,
    /// Further names of the image.
    #[serde(skip_serializing_if = "is_default")]
    pub tags: Vec<String>,
}

impl Default for BuildSpec {
    fn default() -> Self {
        Self {
            context: PathBuf::from("."),
            dockerfile: PathBuf::from("Dockerfile"),
            dockerfile_inline: None,
            args: BTreeMap::new(),
            target: None,
            extra_hosts: Vec::new(),
            network: None,
            shm_size: None,
            secrets: BTreeMap::new(),
            labels: BTreeMap::new(),
            no_cache: false,
            tag: None,
            tags: Vec::new(),
        }
    }
}

impl BuildSpec {
    /// Builds this directory's `Dockerfile`.
    #[must_use]
    pub fn new(context: impl Into<PathBuf>) -> Self {
        Self { context: context.into(), ..Self::default() }
    }

    /// Sets a build argument.
    #[must_use]
    pub fn with_arg(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.args.insert(name.into(), value.into());
        self
    }

    /// Sets the stage to build.
    #[must_use]
    pub fn with_target(mut self, target: impl Into<String>) -> Self {
        self.target = Some(target.into());
        self
    }
}

/// A network of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct NetworkSpec {
    /// The name in the backend; none means one made of the application's name and this one.
    pub name: Option<String>,
    /// It exists already and is never created or removed.
    pub external: bool,
    /// No way out of it.
    pub internal: bool,
    /// The driver; none means the backend's default.
    pub driver: Option<String>,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
    /// Lets containers join that no deployment made, where the driver asks for leave.
    #[serde(skip_serializing_if = "is_default")]
    pub attachable: bool,
    /// Gives it IPv6 addresses.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_ipv6: bool,
    /// Its addresses; none lets the backend choose.
    #[serde(skip_serializing_if = "is_default")]
    pub ipam: Option<Ipam>,
}

/// The management of a network's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Ipam {
    /// The driver; none means the backend's default.
    pub driver: Option<String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Its subnets.
    pub pools: Vec<IpamPool>,
}

/// A subnet of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct IpamPool {
    /// The subnet, such as `172.28.0.0/16`.
    pub subnet: Option<String>,
    /// The part of it from which the backend chooses addresses.
    pub ip_range: Option<String>,
    /// The address of its gateway.
    pub gateway: Option<String>,
    /// Addresses that are never given to an instance, by the name of whose they are.
    pub aux_addresses: BTreeMap<String, String>,
}

/// A named volume of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct VolumeSpec {
    /// The name in the backend; none means one made of the application's name and this one.
    pub name: Option<String>,
    /// It exists already and is never created or removed.
    pub external: bool,
    /// The driver; none means the backend's default.
    pub driver: Option<String>,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
}
