//! Deployer's backend for one host: Docker Engine, HAProxy and SQLite.

mod engine;
mod naming;
mod network;
mod reach;
mod subnet;

pub use engine::Engine;
