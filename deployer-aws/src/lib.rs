//! Deployer's backend for Amazon ECS, ECR and Application Load Balancers.
//!
//! This crate is empty so far: it holds the place of the AWS backend in the workspace, which will implement the five
//! traits of `deployer-core` (image builder, registry, orchestrator, load balancer, release store).
