//! The published suites on this backend: Docker Engine and HAProxy as a place to run, SQLite as a store. They fail where
//! there is no engine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod docker;
#[path = "../site/left.rs"]
mod left;
mod sqlite;

use std::process::ExitCode;

use deployer_testkit::conformance::Conformance;

fn main() -> ExitCode {
    Conformance::new().store(sqlite::Sqlite).site(docker::Host).run()
}
