//! The published suites: the store's on DynamoDB and all others on ECS, ECR and an ALB, on the emulator that
//! `scripts/aws-emulator` starts. They fail where there is none.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod dynamo;
mod emulator;
#[path = "../stage/mod.rs"]
mod stage;

use std::process::ExitCode;

use deployer_testkit::conformance::Conformance;

fn main() -> ExitCode {
    Conformance::new().store(dynamo::Dynamo).site(emulator::Emulator).run()
}
