//! A complete backend for Deployer that is neither Docker nor AWS: applications as processes of this host.
//!
//! It is a model for authors of backends, to be read beside `docs/backends.md`. Each part is small, and none is left out:
//!
//! | part | here | what to look at |
//! | --- | --- | --- |
//! | [`Orchestrator`](deployer_core::Orchestrator) | `orchestrator` | wanted states, one directory for each instance |
//! | | `keeper` | programs that outlive the deployer |
//! | [`LoadBalancer`](deployer_core::LoadBalancer) | `balancer` | the rules as a pure table, and a client |
//! | | `proxy` | weights, draining, requests in flight |
//! | [`ImageBuilder`](deployer_core::ImageBuilder), [`Registry`](deployer_core::Registry) | `images` | directories by digest |
//! | [`ReleaseStore`](deployer_core::ReleaseStore) | `store` | fences, appends, dead owners |
//!
//! It needs Linux: loopback addresses, `/proc` and handles on processes.

mod addresses;
mod backend;
mod balancer;
mod failure;
mod files;
mod helper;
mod images;
mod keeper;
mod layout;
mod naming;
mod orchestrator;
mod process;
mod proxy;
mod store;

pub use backend::{Processes, ProcessesOptions};
pub use helper::run_if_helper;
pub use store::FileStore;
