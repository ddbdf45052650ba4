//! Environments: everything that applications need in an account, as one CloudFormation stack.

mod apply;
mod changes;
mod delete;
mod drift;
mod machines;
mod network;
mod outputs;
mod spec;
mod stack;
mod template;
mod watch;

use aws_config::SdkConfig;
use aws_sdk_cloudformation::Client;

pub use changes::{EnvironmentPlan, Replacement, ResourceAction, ResourceChange};
pub use delete::KeptResource;
pub use drift::{DriftedProperty, DriftedResource, EnvironmentDrift};
pub use outputs::EnvironmentOutputs;
pub use spec::{EnvironmentNetwork, EnvironmentSpec, Grant, Machines, Nat};

use crate::site::patient;

/// Makes, changes, examines and deletes environments in the account and region of a configuration.
///
/// An environment is a CloudFormation stack of its name that carries the tag `deployer:environment`; stacks without it are
/// never touched. Everything can be called again after it was interrupted: what CloudFormation is doing meanwhile is
/// awaited, not begun anew.
///
/// What it needs of the account is in [`policy::environment`](crate::policy::environment).
#[derive(Clone, Debug)]
pub struct Environment {
    client: Client,
}

impl Environment {
    /// Environments in the account and region of a host program's configuration.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        Self { client: Client::new(&patient(config)) }
    }
}
