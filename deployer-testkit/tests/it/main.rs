//! The rules of each fake.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod balancer;
mod capacity;
mod clock;
mod faults;
mod fixture;
mod images;
mod orchestrator;
mod store;
mod strict;
mod traffic;
