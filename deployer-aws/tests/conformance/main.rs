//! The published suite of stores on DynamoDB: on the emulator that `scripts/aws-emulator` starts, or wherever
//! `AWS_ENDPOINT_URL` says. It fails where there is none.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod dynamo;

use std::process::ExitCode;

use deployer_testkit::conformance::Conformance;

fn main() -> ExitCode {
    Conformance::new().store(dynamo::Dynamo).run()
}
