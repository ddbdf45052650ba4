//! Building images.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Call, SecretValue};
use crate::error::Result;
use crate::model::{AppName, BuildSpec, Digest, ServiceName};

/// Builds images from build contexts.
#[async_trait]
pub trait ImageBuilder: Debug + Send + Sync {
    /// Builds one image. Equal contexts and arguments may answer an equal image without building again.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the context or the Dockerfile cannot be read or parsed,
    /// [`Workload`](crate::ErrorKind::Workload) if an instruction fails, with the last lines of its output.
    async fn build(&self, request: BuildImage) -> Result<BuiltImage>;
}

/// Asks for an image.
#[derive(Clone)]
#[non_exhaustive]
pub struct BuildImage {
    /// Key and deadline.
    pub call: Call,
    /// The application it is for.
    pub app: AppName,
    /// The service it is for.
    pub service: ServiceName,
    /// How it is built.
    pub build: BuildSpec,
    /// The values of the build's secrets, by id.
    pub secrets: BTreeMap<String, SecretValue>,
    /// Where progress goes.
    pub progress: Arc<dyn ProgressSink>,
}

impl BuildImage {
    /// Asks for an image.
    #[must_use]
    pub fn new(
        call: Call,
        app: AppName,
        service: ServiceName,
        build: BuildSpec,
        secrets: BTreeMap<String, SecretValue>,
        progress: Arc<dyn ProgressSink>,
    ) -> Self {
        Self { call, app, service, build, secrets, progress }
    }
}

impl Debug for BuildImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildImage").field("app", &self.app).field("service", &self.service).finish_non_exhaustive()
    }
}

/// An image that was built and is known to the builder only.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuiltImage {
    /// The digest of the image's content.
    pub digest: Digest,
    /// The name under which the builder keeps it.
    pub reference: String,
}

impl BuiltImage {
    /// An image of this content under this name.
    #[must_use]
    pub fn new(digest: Digest, reference: impl Into<String>) -> Self {
        Self { digest, reference: reference.into() }
    }
}

/// A step of something that takes a while: building, pulling, pushing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct Progress {
    /// What is being worked on, such as `[2/4] RUN make` or a layer's id.
    pub item: String,
    /// What happens to it, such as `started`, `cached`, `done`, or a line of output.
    pub message: String,
    /// How much of it is done, in bytes, if that is known.
    pub current_bytes: Option<u64>,
    /// How much there is, in bytes, if that is known.
    pub total_bytes: Option<u64>,
}

impl Progress {
    /// Something happened to an item.
    #[must_use]
    pub fn new(item: impl Into<String>, message: impl Into<String>) -> Self {
        Self { item: item.into(), message: message.into(), current_bytes: None, total_bytes: None }
    }

    /// Says how much of how much is done.
    #[must_use]
    pub fn with_bytes(mut self, current: Option<u64>, total: Option<u64>) -> Self {
        self.current_bytes = current;
        self.total_bytes = total;
        self
    }
}

/// Takes progress. Must not block.
pub trait ProgressSink: Send + Sync {
    /// Takes one step.
    fn progress(&self, progress: Progress);
}
