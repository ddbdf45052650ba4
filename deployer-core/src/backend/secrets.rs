//! Secret values: found when they are needed, never stored or shown.

use std::fmt::{self, Debug};

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::model::SecretRef;

/// Finds the values of secrets.
#[async_trait]
pub trait Secrets: Debug + Send + Sync {
    /// Adds to a reference the version that is current now, so that a rollback gets the same value. Stores without
    /// versions answer the reference as it is.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no such secret.
    async fn pin(&self, reference: &SecretRef) -> Result<SecretRef>;

    /// The value.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no such secret or not in that version.
    async fn reveal(&self, reference: &SecretRef) -> Result<SecretValue>;
}

/// A secret's value. It does not print, and is not serialisable.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(String);

impl SecretValue {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself. Hand it to what needs it and to nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

/// Knows no secrets: what a program uses that has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSecrets;

fn unknown(reference: &SecretRef) -> Error {
    Error::new(ErrorKind::NotFound, "no secrets are configured")
        .with_resource(reference.name.clone())
        .with_help("hand a `Secrets` implementation to the backend or the deployer")
}

#[async_trait]
impl Secrets for NoSecrets {
    async fn pin(&self, reference: &SecretRef) -> Result<SecretRef> {
        Err(unknown(reference))
    }

    async fn reveal(&self, reference: &SecretRef) -> Result<SecretValue> {
        Err(unknown(reference))
    }
}
