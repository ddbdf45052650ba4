//! The rules of each fake, and what embedders do with them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod balancer;
mod capacity;
mod clock;
mod embedder;
mod faults;
mod fixture;
mod images;
mod limits;
mod mocks;
mod orchestrator;
mod store;
mod store_model;
mod stories;
mod strict;
mod traffic;
