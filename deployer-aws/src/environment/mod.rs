//! Environments: everything that applications need in an account, as one CloudFormation stack.

mod machines;
mod network;
mod spec;
mod template;

pub use spec::{EnvironmentNetwork, EnvironmentSpec, Grant, Machines, Nat};
