//! Deployer's backend for one host: Docker Engine, HAProxy and SQLite.
//!
//! ```no_run
//! use deployer_core::compose::ComposeReader;
//! use deployer_core::{DeployOptions, Deployer};
//! use deployer_local::{LocalBackend, LocalOptions};
//!
//! # async fn example() -> deployer_core::Result<()> {
//! let backend = LocalBackend::connect(LocalOptions::new("/var/lib/deployer")).await?;
//! let deployer = Deployer::new(backend);
//! let app = ComposeReader::new().with_env_map(std::env::vars()).read_file("compose.yaml")?;
//! let record = deployer.deploy(app.spec, DeployOptions::default()).finished().await?;
//! println!("{}", record.verdict.expect("a deployment that has ended has a verdict"));
//! # Ok(())
//! # }
//! ```
//!
//! - **Builder**: BuildKit where the engine has it, else the classic builder. `.dockerignore` is applied here, since the
//!   engine does not apply it to an uploaded context. Build secrets need the feature `build-secrets`.
//! - **Registry**: the engine's own image store; images that were built keep a name of ours, so that nothing else prunes
//!   them.
//! - **Orchestrator**: containers with the labels of Compose, so that its tool lists, logs and stops them, and with
//!   addresses that survive a restart.
//! - **Load balancer**: one HAProxy as ingress for all applications of the host, and a small one for each service that
//!   answers to the service's name inside its application. Traffic goes on when the deploying process has ended. Where
//!   the engine is not this host's own (Docker Desktop, rootless), proxies and probes are reached through the engine's
//!   API alone, and a new published port is a pause of about a second: see [`Placement`]. A socket that is forwarded from
//!   another host cannot be told from one of our own: choose [`Placement::Relayed`] for it.
//! - **Store**: releases, journals and leases in one SQLite file that several processes share. Leave the feature `sqlite`
//!   out to hand in a store of your own.
//!
//! The HAProxy image (`haproxy:2.6-alpine` unless [`IngressOptions::image`] says otherwise) must be on the engine or
//! be pullable. `bollard` logs request bodies, environment values included, at the level `debug` of the `log` facade: do
//! not enable that level for it where secrets are in use.

mod backend;
mod balancer;
mod builder;
mod context;
mod credentials;
mod engine;
mod image_name;
mod naming;
mod network;
mod orchestrator;
mod provenance;
mod proxy;
mod reach;
mod registry;
mod secrets;
#[cfg(feature = "sqlite")]
mod store;
mod subnet;
mod time;

/// The guide's examples, compiled and run here because this crate knows all that they use.
#[cfg(doctest)]
#[doc = include_str!("../../docs/testing.md")]
mod guide {}

pub use backend::{LocalBackend, LocalOptions};
pub use balancer::{HaproxyBalancer, IngressOptions, Placement, TlsOptions};
pub use builder::DockerBuilder;
pub use engine::Engine;
pub use orchestrator::DockerOrchestrator;
pub use provenance::git_state;
pub use registry::EngineRegistry;
pub use secrets::HostSecrets;
#[cfg(feature = "sqlite")]
pub use store::SqliteStore;
