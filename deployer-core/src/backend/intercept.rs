//! One hook around every backend call.

use std::fmt::{self, Debug};

use async_trait::async_trait;

use crate::error::Result;

/// Which call is about to be made.
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

/// Stands around every call that the engine makes to a backend or the store: for metrics, recording and fault injection.
///
/// Spans of `tracing` are made by the engine itself. The deadline of a call holds for the hook and the call together.
///
/// ```
/// use async_trait::async_trait;
/// use deployer_core::{CallInfo, Intercept, Next, Result};
///
/// /// Prints what fails.
/// #[derive(Debug)]
/// struct Failures;
///
/// #[async_trait]
/// impl Intercept for Failures {
///     async fn intercept(&self, call: &CallInfo, next: &mut Next<'_>) -> Result<()> {
///         let result = next.run().await;
///         if let Err(error) = &result {
///             eprintln!("{} {}: {error}", call.operation, call.resource);
///         }
///         result
///     }
/// }
/// ```
#[async_trait]
pub trait Intercept: Debug + Send + Sync {
    /// Makes the call with [`Next::run`], as often as it likes: once usually, not at all to refuse it, twice to play a
    /// network that delivers a request again. The engine gets the last answer that a run had if this returns `Ok`.
    ///
    /// # Errors
    /// Whatever the engine shall see instead of the call's own result; the call's own error, passed on.
    ///
    /// # Cancel safety
    /// The future is dropped at the call's deadline, wherever it waits.
    async fn intercept(&self, call: &CallInfo, next: &mut Next<'_>) -> Result<()>;
}

/// The call that an [`Intercept`] stands around.
pub struct Next<'a>(&'a mut dyn Invocation);

/// A call that can be made, and made again. The engine's are of its own making; others are for testing an [`Intercept`].
#[async_trait]
pub trait Invocation: Send {
    /// Makes the call, and keeps its answer.
    ///
    /// # Errors
    /// The call's own.
    async fn invoke(&mut self) -> Result<()>;
}

impl<'a> Next<'a> {
    /// The way to this call.
    #[must_use]
    pub fn new(invocation: &'a mut dyn Invocation) -> Self {
        Self(invocation)
    }

    /// Makes the call. Its answer is kept for the engine.
    ///
    /// # Errors
    /// The call's own.
    pub async fn run(&mut self) -> Result<()> {
        self.0.invoke().await
    }
}

impl Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
    }
}
