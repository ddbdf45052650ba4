//! Deployer's backend for Amazon ECS, ECR and Application Load Balancers.
//!
//! [`AwsBackend`] puts the parts together; each can be used on its own with other parts. No AWS account was reachable when
//! this was written: see `docs/aws.md` for what was proven on what, and what was not.

mod alb;
mod backend;
mod ecs;
mod failure;
mod naming;
mod options;
mod site;
mod store;

pub use alb::AlbBalancer;
pub use backend::AwsBackend;
pub use ecs::EcsOrchestrator;
pub use options::{Architecture, AwsOptions, Capacity, CapacityProvider};
pub use store::DynamoStore;
