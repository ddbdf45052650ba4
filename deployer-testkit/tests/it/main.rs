//! The rules of each fake.

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
