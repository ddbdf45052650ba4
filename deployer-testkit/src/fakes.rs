//! The five traits over one world.

mod balancer;
mod builder;
mod orchestrator;
mod registry;
mod store;

pub use balancer::FakeBalancer;
pub use builder::FakeBuilder;
pub use orchestrator::FakeOrchestrator;
pub use registry::FakeRegistry;
pub use store::MemoryStore;
