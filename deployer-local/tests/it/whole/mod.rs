//! Whole deployments of the quickstart's shop on the real engine, under load: what a user is promised, seen from outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod broken;
mod inherited;
mod inside;
mod interrupted;
mod killed;
mod php;
mod removal;
#[path = "../../site/mod.rs"]
pub(crate) mod site;
mod versions;
mod volumes;
