//! Tests of the local backend against a real Docker Engine and real files, linked as one binary. They fail where there
//! is no engine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[cfg(feature = "sqlite")]
mod awesome;
mod balancer;
mod compose_tool;
mod engine;
mod fuzz;
mod images;
mod orchestrator;
#[cfg(feature = "sqlite")]
mod store;
#[cfg(feature = "sqlite")]
mod store_model;
#[cfg(feature = "sqlite")]
mod whole;
