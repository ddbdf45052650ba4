//! Deployer's backend for one host: Docker Engine, HAProxy and SQLite.

mod engine;
mod naming;
mod network;
mod orchestrator;
mod reach;
mod subnet;
mod time;

pub use engine::Engine;
pub use orchestrator::DockerOrchestrator;
