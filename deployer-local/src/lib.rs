//! Deployer's backend for one host: Docker Engine, HAProxy and SQLite.

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

pub use backend::{LocalBackend, LocalOptions};
pub use balancer::{HaproxyBalancer, IngressOptions, TlsOptions};
pub use builder::DockerBuilder;
pub use engine::Engine;
pub use orchestrator::DockerOrchestrator;
pub use provenance::git_state;
pub use registry::EngineRegistry;
pub use secrets::HostSecrets;
#[cfg(feature = "sqlite")]
pub use store::SqliteStore;
