//! What Deployer is tested with, published so that others can test with it too.
//!
//! - Strict fakes of Deployer's traits over one simulated world with a virtual clock: [`World`].
//! - [`load`] sends requests at a constant rate and accounts for each of them, which is how "no request is lost" is
//!   shown rather than said.

mod clock;
mod fakes;
pub mod load;
mod scenario;
mod world;

pub use clock::simulate;
pub use fakes::{FakeBalancer, FakeBuilder, FakeOrchestrator, FakeRegistry, MemoryStore};
pub use scenario::Behaviour;
pub use world::strict::{Rule, Violation};
pub use world::traffic::{LossReason, LostRequest, Traffic, TrafficReport};
pub use world::{Options, World};
