//! Tests of deployments in milliseconds: strict fakes of Deployer's five traits over one simulated world.
//!
//! A [`World`] has images, instances that start, crash and stop in their own time, pools, simulated requests of which every
//! one is accounted for, and a virtual clock: a day of holding and polling passes at once under [`simulate`] or
//! `#[tokio::test(start_paused = true)]`. Its fakes are stricter than real backends: they answer in any order they may,
//! refuse what a backend could refuse, and record as a [`Violation`] what no backend would notice.
//!
//! Say with a [`Behaviour`] what goes wrong in the world, and with a [`FaultPlan`] what goes wrong on the way to it.
//!
//! ```
//! use std::time::Duration;
//! use deployer_core::{AcquireLease, AppName, ReleaseStore, ResolveImage};
//! use deployer_testkit::{Behaviour, Traffic, World, simulate};
//! # struct Silence;
//! # impl deployer_core::ProgressSink for Silence {
//! #     fn progress(&self, _: deployer_core::Progress) {}
//! # }
//!
//! # fn main() -> deployer_core::Result<()> {
//! let world = World::new();
//! world.add_image("shop:v1");
//! world.on_image("shop:v2", Behaviour::crash_loop(3).with_log("FATAL: no database"));
//! world.start_traffic(Traffic::to_route(Some("shop.example"), "/").per_second(50));
//!
//! simulate(async {
//!     // Hand these to a deployer, which does the rest.
//!     let (backend, clock) = (world.backend(), world.clock());
//!     let app = AppName::new("shop")?;
//!     let ttl = Duration::from_secs(30);
//!     let lease = AcquireLease::new(app, "a test", "test-1", ttl, clock.now());
//!     backend.store.acquire_lease(lease).await?;
//!     clock.sleep(Duration::from_secs(3_600)).await;
//!     Ok::<_, deployer_core::Error>(())
//! })?;
//!
//! // Nobody deployed anything: every request was refused, and nothing is there.
//! assert_eq!(world.traffic_report().lost.len(), 180_001);
//! world.assert_nothing_left("shop");
//! world.assert_no_violations();
//! # Ok(())
//! # }
//! ```

mod clock;
mod fakes;
mod faults;
#[cfg(feature = "mockall")]
pub mod mocks;
mod scenario;
mod world;

pub use clock::simulate;
pub use fakes::{FakeBalancer, FakeBuilder, FakeOrchestrator, FakeRegistry, MemoryStore};
pub use faults::{At, Fault, FaultPlan};
pub use scenario::Behaviour;
pub use world::strict::{Rule, Violation};
pub use world::traffic::{LossReason, LostRequest, Traffic, TrafficReport};
pub use world::{Options, World};
