//! Deployer's backend for one host: Docker Engine, HAProxy and SQLite.

mod balancer;
mod engine;
mod naming;
mod proxy;
mod reach;

pub use balancer::{HaproxyBalancer, IngressOptions, TlsOptions};
pub use engine::Engine;
