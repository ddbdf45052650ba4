//! Deployer's backend for Amazon ECS, ECR and Application Load Balancers.
//!
//! So far it holds the release store on DynamoDB, which other backends can use as well. The other traits of
//! `deployer-core` (image builder, registry, orchestrator, load balancer) are to come.

mod environment;
mod failure;
mod options;
pub mod policy;
mod store;

/// The manual's examples, compiled here.
#[cfg(doctest)]
#[doc = include_str!("../../docs/aws.md")]
mod manual {}

pub use environment::{
    DriftedProperty, DriftedResource, Environment, EnvironmentDrift, EnvironmentNetwork, EnvironmentOutputs,
    EnvironmentPlan, EnvironmentSpec, Grant, KeptResource, Machines, Nat, Replacement, ResourceAction, ResourceChange,
};
pub use options::{Architecture, AwsOptions, Capacity, CapacityProvider};
pub use store::DynamoStore;
