//! Driving deployments: the only part that calls backends, sleeps or spawns.

mod act;
mod calls;
mod decide;
mod diagnose;
mod driver;
mod event;
mod watch;

pub use event::{Event, EventKind};
