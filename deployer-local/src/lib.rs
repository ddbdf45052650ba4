//! Deployer's backend for one host: Docker Engine, HAProxy and SQLite.

mod context;
mod engine;
mod naming;
mod reach;
#[cfg(feature = "sqlite")]
mod store;

pub use engine::Engine;
#[cfg(feature = "sqlite")]
pub use store::SqliteStore;
