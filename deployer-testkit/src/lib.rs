//! What Deployer is tested with, published so that others can test with it too.
//!
//! - [`World`]: strict fakes of Deployer's five traits over one simulated world with a virtual clock, for tests that take
//!   milliseconds. It has images, instances that start, crash and stop in their own time, pools, and simulated requests
//!   of which every one is accounted for. It is stricter than real backends: it answers in any order that it may, and
//!   records as a [`Violation`] what a real one would not notice. A story such as [`World::crash_loop`], or a
//!   [`Behaviour`], says what goes wrong in the world, a [`FaultPlan`] what goes wrong on the way to it.
//! - [`proof`]: every fault at every call of a scenario, and whether everything that is promised holds all the same.
//! - [`conformance`]: the suites that a backend has to pass, as named cases that its author runs with a test of ten lines.
//! - [`load`] sends requests at a constant rate and accounts for each of them, which is how "no request is lost" is
//!   shown rather than said on a real backend.
//! - [`model`] is what a release store must do, to compare one with.
//! - `mocks`, with the feature `mockall`: mocks of the traits for tests that expect single calls.
//!
//! `docs/testing.md` is the guide for programs that embed Deployer.
//!
//! ```
//! use std::time::Duration;
//! use deployer_core::{AppSpec, DeployOptions, Route, ServiceSpec};
//! use deployer_testkit::{Behaviour, Traffic, World, simulate};
//!
//! # fn main() -> deployer_core::Result<()> {
//! let shop = |image: &str| {
//!     let web = ServiceSpec::image(image).with_replicas(2).with_route(Route::new(8080)).with_http_probe("/", 8080);
//!     AppSpec::new("shop")?.with_service("web", web)
//! };
//! let world = World::new();
//! world.on_image("shop:v2", Behaviour::crash_loop(3).with_log("FATAL: no database"));
//!
//! let record = simulate(async {
//!     world.with_serving(shop("shop:v1")?).await;
//!     world.start_traffic(Traffic::to_route(None, "/").per_second(50).taking(Duration::from_millis(200)));
//!     world.deployer().deploy(shop("shop:v2")?, DeployOptions::default()).finished().await
//! })?;
//!
//! world.assert_rolled_back(&record).because("FATAL: no database");
//! world.assert_serving("shop", "web", "shop:v1", 2);
//! world.assert_capacity_at_least("shop", "web", 2);
//! world.assert_no_requests_lost();
//! world.assert_no_violations();
//! # Ok(())
//! # }
//! ```

mod clock;
pub mod conformance;
mod fakes;
mod faults;
pub mod load;
#[cfg(feature = "mockall")]
pub mod mocks;
pub mod model;
pub mod proof;
mod scenario;
mod world;

pub use clock::simulate;
pub use fakes::{FakeBalancer, FakeBuilder, FakeOrchestrator, FakeRegistry, MemoryStore};
pub use faults::{At, Fault, FaultPlan, Process, Schedule};
pub use scenario::Behaviour;
pub use world::strict::{Rule, Violation};
pub use world::traffic::{LossReason, LostRequest, Traffic, TrafficReport};
pub use world::verdicts::Cause;
pub use world::{Options, Rate, RevisionShape, Shape, World};
