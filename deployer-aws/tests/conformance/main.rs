//! The published suites: the store's on DynamoDB and all others on ECS, ECR and an ALB, on the emulator that `scripts/aws-emulator` starts, or wherever
//! `AWS_ENDPOINT_URL` says. It fails where there is none.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod dynamo;
mod emulator;

use std::process::ExitCode;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use deployer_testkit::conformance::Conformance;

/// The emulator's configuration. Nobody's account is ever touched: the credentials are good for nothing.
pub(crate) fn config() -> SdkConfig {
    let endpoint = std::env::var("DEPLOYER_AWS_EMULATOR").unwrap_or_else(|_| "http://127.0.0.1:4566".to_owned());
    let credentials = Credentials::new("test", "test", None, None, "the emulator's");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

fn main() -> ExitCode {
    Conformance::new().store(dynamo::Dynamo).site(emulator::Emulator).run()
}
