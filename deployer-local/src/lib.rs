//! Deployer's backend for one host: Docker Engine, HAProxy and SQLite.

mod engine;
mod naming;
mod reach;

pub use engine::Engine;
