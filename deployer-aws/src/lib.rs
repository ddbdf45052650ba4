//! Deployer's backend for Amazon ECS, ECR and Application Load Balancers.
//!
//! So far it holds the release store on DynamoDB, which other backends can use as well. The other traits of
//! `deployer-core` (image builder, registry, orchestrator, load balancer) are to come.

mod store;

pub use store::DynamoStore;
