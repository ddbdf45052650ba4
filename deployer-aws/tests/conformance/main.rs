//! The published suites: the store's on DynamoDB and all others on ECS, ECR and an ALB, on the emulator that
//! `scripts/aws-emulator` starts, and on the simulated AWS. The former fail where there is none.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[expect(dead_code, reason = "the proof uses what is not used here")]
#[path = "../cloud/mod.rs"]
mod cloud;
mod dynamo;
mod emulator;
mod simulated;
#[path = "../stage/mod.rs"]
mod stage;

use std::process::ExitCode;

use deployer_testkit::conformance::Conformance;

fn main() -> ExitCode {
    Conformance::new()
        .store(dynamo::Dynamo)
        .store(simulated::Tables::default())
        .site(emulator::Emulator)
        .site(simulated::Simulated)
        .run()
}
