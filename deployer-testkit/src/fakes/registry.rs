//! A registry that knows the images of the world.

use std::collections::BTreeSet;

use async_trait::async_trait;
use deployer_core::{ErrorKind, PinnedImage, Progress, PruneImages, PublishImage, Registry, ResolveImage, Result};

use crate::world::images::pinned;
use crate::world::{World, failure};

/// Keeps the images of a [`World`].
#[derive(Clone, Debug)]
pub struct FakeRegistry {
    world: World,
}

impl FakeRegistry {
    pub(crate) fn new(world: World) -> Self {
        Self { world }
    }
}

#[async_trait]
impl Registry for FakeRegistry {
    async fn resolve(&self, request: ResolveImage) -> Result<PinnedImage> {
        const OPERATION: &str = "registry.resolve";
        let reference = request.reference.as_str();
        let mut state = self.world.reach(OPERATION, reference)?;
        state.admit(OPERATION, reference, &request.call, reference)?;
        let image = state.images.pin(reference);
        drop(state);
        let image = image.ok_or_else(|| {
            failure(OPERATION, reference, ErrorKind::NotFound, "there is no such image")
                .with_help("add it to the simulated world with `World::add_image`")
        })?;
        request.progress.progress(Progress::new(reference, "done"));
        Ok(image)
    }

    async fn publish(&self, request: PublishImage) -> Result<PinnedImage> {
        const OPERATION: &str = "registry.publish";
        let reference = request.image.reference.as_str();
        let mut state = self.world.reach(OPERATION, reference)?;
        state.admit(OPERATION, reference, &request.call, request.image.digest.as_str())?;
        let Some(row) = state.images.rows.get_mut(&request.image.digest) else {
            return Err(failure(OPERATION, reference, ErrorKind::NotFound, "the builder does not have the image"));
        };
        row.runnable = true;
        row.published_for = Some(request.app.clone());
        let image = pinned(reference, &request.image.digest, row);
        drop(state);
        request.progress.progress(Progress::new(reference, "done"));
        Ok(image)
    }

    async fn missing(&self, images: &[PinnedImage]) -> Result<Vec<PinnedImage>> {
        let state = self.world.reach("registry.missing", "images")?;
        Ok(images.iter().filter(|image| !state.images.can_run(&image.digest)).cloned().collect())
    }

    async fn prune(&self, request: PruneImages) -> Result<Vec<String>> {
        let app = request.app.as_str();
        let kept: Vec<&str> = request.keep.iter().map(deployer_core::Digest::short).collect();
        let mut state = self.world.enter(&request.app, "registry.prune", app, &request.call, &kept.join(" "))?;
        let used: BTreeSet<_> = state.instances.values().map(|instance| instance.image.digest.clone()).collect();
        Ok(state.images.prune(&request.app, &request.keep, &used))
    }
}
