//! The engine of Deployer: a program hands it an application, and it builds the images, starts the new version beside
//! the old one, checks it, moves the traffic, and keeps it or brings back what was there before.
//!
//! This crate knows no backend. It holds the [model](AppSpec), the [planner](plan_forward), the [journal](State), the
//! driver behind [`Deployer`], and the [five traits](Backend) that a place to run implements. `deployer-local`
//! implements them on Docker; `deployer-testkit` has strict fakes over a simulated world, as used here:
//!
//! ```
//! use deployer_core::{AppSpec, DeployOptions, Deployer, Route, ServiceSpec};
//! use deployer_testkit::{Behaviour, World, simulate};
//!
//! # fn main() -> deployer_core::Result<()> {
//! let world = World::new();
//! world.add_image("shop/web:1");
//! world.add_image("shop/web:2");
//! world.on_image("shop/web:2", Behaviour::crash_loop(3).with_log("FATAL: no database"));
//! let deployer = Deployer::builder(world.backend()).clock(world.clock()).build();
//!
//! let version = |image: &str| {
//!     let web = ServiceSpec::image(image).with_replicas(3).with_route(Route::new(8080)).with_http_probe("/", 8080);
//!     AppSpec::new("shop")?.with_service("web", web)
//! };
//! let (good, bad) = (version("shop/web:1")?, version("shop/web:2")?);
//! simulate(async {
//!     let record = deployer.deploy(good, DeployOptions::default()).finished().await?;
//!     assert_eq!(record.verdict.map(|verdict| verdict.word()), Some("promoted"));
//!
//!     let mut deployment = deployer.deploy(bad, DeployOptions::default());
//!     while let Some(event) = deployment.next_event().await {
//!         println!("{}", event.kind);
//!     }
//!     let verdict = deployment.finished().await?.verdict.expect("a deployment that has ended has a verdict");
//!     assert_eq!(verdict.word(), "rolled-back");
//!     assert!(verdict.to_string().contains("FATAL: no database"));
//!     Ok(())
//! })
//! # }
//! ```
//!
//! # How a deployment runs
//!
//! ```text
//! AppSpec --prepare--> Release --plan(observed, strategy)--> Plan
//!                                                          |
//!        +-------------------------------------------------v---+
//!        |  journal --fold--> State                            |
//!        |  decide(State, Observed, now) -> commands           |  pure
//!        |  driver: renew lease, append, call, observe         |  the only I/O
//!        +-----------------------------------------------------+
//! ```
//!
//! - A [`Release`] is a complete, immutable snapshot with every image pinned by digest. A [revision](RevisionId) is
//!   named by a hash of what it runs, so a service that has not changed is left alone.
//! - A [`Plan`] is data: steps with their inputs pinned, each with the steps that it waits for. What does not wait for
//!   each other runs at the same time. The way back is another plan from the same planner, computed from what is
//!   observed, never an undo of what was done.
//! - The journal's append is the only commit point. Every step's call describes the wanted state, so that a process that
//!   was killed anywhere is continued by [`Deployer::resume`] with the same end.
//! - A [`Verdict`] is not an error: `Err` means that the engine could not do its job. [`Verdict::Promoted`] is said only
//!   after observing that the wanted digests are what serves.
//!
//! # Feature
//!
//! `compose` adds the module `compose`, which reads Compose files into an [`AppSpec`].

mod backend;
#[cfg(feature = "compose")]
pub mod compose;
mod deployer;
mod engine;
mod error;
mod journal;
mod model;
mod plan;

pub use backend::*;
pub use deployer::{DeployOptions, Deployer, DeployerBuilder, Preview};
pub use engine::{
    AppStatus, Deployment, Event, EventKind, Pruned, Retention, RevisionStatus, ServiceStatus, Signalled,
};
pub use error::{Effect, Error, ErrorKind, ErrorReport, Result, Retry};
pub use journal::*;
pub use model::*;
pub use plan::{
    Action, ChangeKind, Observed, Plan, PlanRequest, ServiceChange, Step, StepId, StepWeight, plan_back, plan_forward,
};
