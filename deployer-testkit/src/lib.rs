//! Strict fakes of Deployer's traits over one simulated world.
mod clock;
mod fakes;
mod faults;
mod scenario;
mod world;

pub use clock::simulate;
pub use fakes::{FakeBalancer, FakeBuilder, FakeOrchestrator, FakeRegistry, MemoryStore};
pub use faults::{At, Fault, FaultPlan};
pub use scenario::Behaviour;
pub use world::strict::{Rule, Violation};
pub use world::traffic::{LossReason, LostRequest, Traffic, TrafficReport};
pub use world::{Options, World};
