//! The suites that every backend has to pass, published for whoever writes one.
//!
//! There is a suite for each of the five traits and one for whole deployments. A backend passes them, or says of each
//! case that it cannot pass why not. The engine acts on what the traits promise, so a backend that passes works with it,
//! and one that does not will lose somebody's requests some day.
//!
//! # A test of ten lines
//!
//! A test without Rust's own harness, named in the backend's `Cargo.toml`:
//!
//! ```toml
//! [dev-dependencies]
//! deployer-testkit = "0.1"
//!
//! [[test]]
//! name = "conformance"
//! harness = false
//! ```
//!
//! and in `tests/conformance.rs` nothing but this, with sites and benches of the backend's own in place of the simulated
//! world's:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use deployer_testkit::conformance::{Conformance, Simulated};
//!
//! fn main() -> ExitCode {
//!     Conformance::new()
//!         .site(Simulated::single_host())
//!         .site(Simulated::cluster())
//!         .run()
//! }
//! ```
//!
//! `cargo test` and `cargo nextest` list every case as a test: `world::orchestrator/launch-again-changes-nothing`. The
//! command line is that of a Rust test, so `cargo test --test conformance balancer/` runs one suite. Cases run at the
//! same time, each with names of its own.
//!
//! # What there is to write
//!
//! - For a release store: a [`StoreBench`], which makes room for a store and opens it.
//! - For everything else: a [`Site`], which makes a [`Scope`] for each case. A scope hands out the backend under test,
//!   programs that behave as a case asks (one that serves, one that exits, one that ignores its stop signal, ...), and is
//!   an *independent oracle*: it says what there is without asking the backend. On Docker it asks the engine itself, and
//!   sends real requests; for processes it reads the host's process table.
//! - A [`Profile`] for each: what the backend [has not](Profile::lacking), each with the reason, and what it is known to
//!   [get wrong](Profile::known_gap).
//!
//! A scope cleans up after itself in any event, also when a case has failed. What it needs and is not there, such as an
//! engine, is a failure: nothing is skipped for want of it.
//!
//! # What comes of a case
//!
//! | outcome | shown as |
//! | --- | --- |
//! | passed | `ok` |
//! | failed | `FAILED`, with what was found, what was expected, and the place in the suite |
//! | not applicable | `ignored`, with the reason in the test's name: `[not applicable, no builder: ...]` |
//! | fails, and is known to | `ignored`, with the reason in the name: `[known gap, ...]` |
//! | passes, and is known to fail | `FAILED`: take it off the list |
//!
//! (`nextest` shows a known gap that fails as passed; the reason is in its name.)
//!
//! # Ids
//!
//! The ids of cases never change, so that lists of known gaps stay true. They begin with the suite: `builder/`,
//! `registry/`, `orchestrator/`, `balancer/`, `store/` or `deployment/`. The cases of whole deployments are run three
//! times: undisturbed, as `deployment-with-faults/` with seeded [faults](crate::FaultPlan) in front of the backend (calls
//! that fail before or after their effect, lost requests and replies, calls made twice, the death of the deployer), and
//! as `deployment-with-kills/` while instances are killed. What they end in is the same. A failure prints what was done;
//! [`Conformance::seed`] has it done differently.
//!
//! What a case checks is in the documentation of the trait that its id names: every sentence there has its case, and what
//! no sentence says, no case asks for.

mod balancer;
mod bench;
mod case;
mod client;
mod deployments;
mod ground;
mod images;
mod orchestrator;
mod profile;
mod runner;
mod simulated;
mod site;
mod store;
mod writer;

pub use bench::StoreBench;
pub use case::{CaseFailure, CaseResult};
pub use profile::{Need, Profile};
pub use runner::Conformance;
pub use simulated::Simulated;
pub use site::{Build, Entrance, Pace, Program, Scope, Seen, SeenInstance, SeenTask, Site, TaskProgram};
