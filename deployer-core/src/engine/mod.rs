//! Driving deployments: the only part that calls backends, sleeps or spawns.

mod act;
mod append;
mod ask;
mod calls;
mod decide;
mod deployment;
mod diagnose;
mod driver;
mod event;
mod history;
mod looks;
mod prepare;
mod run;
mod upkeep;
mod watch;

pub use deployment::Deployment;
pub use event::{Event, EventKind};
pub use upkeep::{AppStatus, Pruned, Retention, RevisionStatus, ServiceStatus, Signalled};

pub(crate) use calls::{Access, Calls};
pub(crate) use event::Events;
pub(crate) use prepare::Prepare;
pub(crate) use run::{Run, Tools};
