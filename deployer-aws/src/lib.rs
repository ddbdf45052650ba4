//! Deployer's backend for Amazon ECS, ECR and Elastic Load Balancing.
//!
//! [`AwsBackend`] puts the parts together; each can be used on its own with other parts. [`Environment`] makes what it
//! needs in an account, [`policy`] tells what programs must be allowed. No AWS account was reachable when this was written:
//! see `docs/aws.md` for what was proven on what, and what was not.

mod backend;
mod cache;
mod discovery;
mod ecr;
mod ecs;
mod elb;
mod environment;
mod failure;
mod gate;
mod naming;
mod options;
pub mod policy;
mod preflight;
mod secrets;
mod site;
mod store;

/// The manual's examples, compiled here.
#[cfg(doctest)]
#[doc = include_str!("../../docs/aws.md")]
mod manual {}

pub use backend::{AwsBackend, config_from_env};
pub use ecr::{EcrOptions, EcrRegistry, Severity};
pub use ecs::EcsOrchestrator;
pub use elb::ElbBalancer;
pub use environment::{
    DriftedProperty, DriftedResource, Environment, EnvironmentDrift, EnvironmentNetwork, EnvironmentOutputs,
    EnvironmentPlan, EnvironmentSpec, Grant, KeptResource, Machines, Nat, Replacement, ResourceAction, ResourceChange,
};
pub use gate::{AlarmGate, AlreadyFiring, TrafficGate};
pub use options::{Architecture, AwsOptions, Capacity, CapacityProvider, Namespace};
pub use secrets::AwsSecrets;
pub use store::DynamoStore;
