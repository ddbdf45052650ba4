//! The published suites on this backend: Docker Engine and HAProxy as a place to run, SQLite as a store. They fail where
//! there is no engine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod docker;
#[path = "../site/left.rs"]
mod left;
mod sqlite;

use std::process::ExitCode;

use deployer_testkit::conformance::Conformance;

/// Another number has other faults strike and other instances killed.
fn seed() -> u64 {
    std::env::var("DEPLOYER_CONFORMANCE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn main() -> ExitCode {
    Conformance::new().seed(seed()).store(sqlite::Sqlite).site(docker::Host).run()
}
