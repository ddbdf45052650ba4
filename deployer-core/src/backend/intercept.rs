//! One hook around every backend call.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::error::{Error, Result};

/// Which call is about to be made, or has been.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallInfo {
    /// The call's number, from 1 in the order in which calls begin; no other call of the same deployer has it.
    pub number: u64,
    /// The operation, such as `orchestrator.launch`.
    pub operation: &'static str,
    /// What it is about.
    pub resource: String,
    /// Whether it changes anything.
    pub mutating: bool,
}

impl CallInfo {
    /// A call of this operation on this resource.
    #[must_use]
    pub fn new(number: u64, operation: &'static str, resource: impl Into<String>, mutating: bool) -> Self {
        Self { number, operation, resource: resource.into(), mutating }
    }
}

/// Sees every call that the engine makes to a backend or the store: for metrics, recording and fault injection.
///
/// Spans of `tracing` are made by the engine itself.
#[async_trait]
pub trait Intercept: Debug + Send + Sync {
    /// Called before the call is made. An error is returned to the engine in place of the call, which is not made.
    ///
    /// # Errors
    /// Whatever the engine shall see instead of making the call.
    async fn before(&self, call: &CallInfo) -> Result<()>;

    /// Called after the call, with its error if it failed. An error replaces the call's own result.
    ///
    /// # Errors
    /// Whatever the engine shall see instead of the call's result.
    async fn after(&self, call: &CallInfo, error: Option<&Error>) -> Result<()>;
}
