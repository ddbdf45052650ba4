//! Tests of what is not a backend trait: the environment and the policies.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod clusters;
mod environments;
mod fates;
mod gates;
mod names;
mod platforms;
mod policies;
mod preflight;
mod scans;
mod secrets;
mod stacks;
#[path = "../stage/mod.rs"]
mod stage;
mod tags;
mod template;
