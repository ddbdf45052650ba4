//! A builder that makes images out of nothing.

use async_trait::async_trait;
use deployer_core::{BuildImage, BuiltImage, Digest, ErrorKind, ImageBuilder, Progress, Result};

use crate::world::images::ImageRow;
use crate::world::{World, failure};

/// Builds images of a [`World`]: the same image from the same [`BuildSpec`](deployer_core::BuildSpec) until the context is
/// [touched](World::touch_context).
#[derive(Clone, Debug)]
pub struct FakeBuilder {
    world: World,
}

impl FakeBuilder {
    pub(crate) fn new(world: World) -> Self {
        Self { world }
    }
}

#[async_trait]
impl ImageBuilder for FakeBuilder {
    async fn build(&self, request: BuildImage) -> Result<BuiltImage> {
        const OPERATION: &str = "builder.build";
        let service = request.service.as_str();
        let spec = serde_json::to_string(&request.build).unwrap_or_default();
        let mut state = self.world.lock();
        state.admit(OPERATION, service, &request.call, &spec)?;
        let context = request.build.context.display().to_string();
        if state.images.missing_contexts.contains(&context) {
            let message = "the build context does not exist";
            return Err(failure(OPERATION, service, ErrorKind::InvalidInput, message).with_context("context", context));
        }
        if let Some(error) = state.images.broken_builds.get(service) {
            return Err(failure(OPERATION, service, ErrorKind::Workload, error.clone()));
        }
        let generation = state.images.generations.get(&context).copied().unwrap_or(0);
        let digest = Digest::of(format!("{spec} #{generation}").as_bytes());
        let reference =
            request.build.tag.clone().unwrap_or_else(|| format!("{}-{service}:{}", request.app, digest.short()));
        let known = state.images.rows.contains_key(&digest);
        if !known {
            let row = ImageRow {
                reference: reference.clone(),
                exposed_ports: Vec::new(),
                runnable: false,
                published_for: None,
            };
            state.images.rows.insert(digest.clone(), row);
        }
        drop(state);
        request.progress.progress(Progress::new("[1/1] RUN make", if known { "cached" } else { "done" }));
        Ok(BuiltImage::new(digest, reference))
    }
}
