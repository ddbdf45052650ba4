//! Keeping images.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use super::{BuiltImage, Call, ProgressSink};
use crate::error::Result;
use crate::model::{AppName, Digest, PinnedImage, ServiceName};

/// Keeps images where the orchestrator finds them.
#[async_trait]
pub trait Registry: Debug + Send + Sync {
    /// Pins a reference to the digest that it names now, so that the orchestrator can run it.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no such image,
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) if it may not be read.
    async fn resolve(&self, request: ResolveImage) -> Result<PinnedImage>;

    /// Makes an image that was built available to the orchestrator, and keeps it until it is pruned.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if the builder does not have the image any more.
    async fn publish(&self, request: PublishImage) -> Result<PinnedImage>;

    /// Which of these images cannot be run any more.
    ///
    /// # Errors
    /// Only if the registry cannot be asked.
    async fn missing(&self, images: &[PinnedImage]) -> Result<Vec<PinnedImage>>;

    /// Removes the images of an application that are not to be kept, and answers what was removed. Images that were not
    /// published through this trait, or that something still uses, stay.
    ///
    /// # Errors
    /// Only if the registry cannot be asked.
    async fn prune(&self, request: PruneImages) -> Result<Vec<String>>;
}

/// Asks what a reference names now.
#[derive(Clone)]
#[non_exhaustive]
pub struct ResolveImage {
    /// Key and deadline.
    pub call: Call,
    /// The reference, such as `redis:7`.
    pub reference: String,
    /// Where progress goes.
    pub progress: Arc<dyn ProgressSink>,
}

impl ResolveImage {
    /// Asks what a reference names now.
    #[must_use]
    pub fn new(call: Call, reference: impl Into<String>, progress: Arc<dyn ProgressSink>) -> Self {
        Self { call, reference: reference.into(), progress }
    }
}

impl Debug for ResolveImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResolveImage").field("reference", &self.reference).finish_non_exhaustive()
    }
}

/// Asks to make an image available.
#[derive(Clone)]
#[non_exhaustive]
pub struct PublishImage {
    /// Key and deadline.
    pub call: Call,
    /// The application it is for.
    pub app: AppName,
    /// The service it is for.
    pub service: ServiceName,
    /// The image.
    pub image: BuiltImage,
    /// Where progress goes.
    pub progress: Arc<dyn ProgressSink>,
}

impl PublishImage {
    /// Asks to make an image available.
    #[must_use]
    pub fn new(
        call: Call,
        app: AppName,
        service: ServiceName,
        image: BuiltImage,
        progress: Arc<dyn ProgressSink>,
    ) -> Self {
        Self { call, app, service, image, progress }
    }
}

impl Debug for PublishImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishImage").field("image", &self.image).finish_non_exhaustive()
    }
}

/// Asks to remove images.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PruneImages {
    /// Key and deadline.
    pub call: Call,
    /// The application.
    pub app: AppName,
    /// What must stay.
    pub keep: BTreeSet<Digest>,
}

impl PruneImages {
    /// Asks to remove all images of the application but these.
    #[must_use]
    pub fn new(call: Call, app: AppName, keep: BTreeSet<Digest>) -> Self {
        Self { call, app, keep }
    }
}
