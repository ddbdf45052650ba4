//! The engine's own image store as the place where images are kept: for one host there is no need for another.

use std::collections::HashSet;
use std::fmt;

use async_trait::async_trait;
use bollard::errors::Error as DockerError;
use bollard::models::ImageInspect;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder,
    TagImageOptionsBuilder,
};
use deployer_core::{
    Digest, Effect, Error, ErrorKind, PinnedImage, Progress, ProgressSink, PruneImages, PublishImage, Registry,
    ResolveImage, Result, Retry,
};
use futures_util::{StreamExt as _, TryStreamExt as _, pin_mut, stream};

use crate::credentials::Credentials;
use crate::engine::{Engine, classify};
use crate::{image_name, naming::ours};

/// How many images are asked for at a time.
const AT_ONCE: usize = 8;

/// Keeps images in the Docker Engine's own store.
///
/// Images that are not there are pulled, with the credentials that `auths` of the Docker client's `config.json` holds.
/// Credential helpers are not run: pull such images with the Docker client first.
#[derive(Clone)]
pub struct EngineRegistry {
    engine: Engine,
}

impl fmt::Debug for EngineRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineRegistry").field("engine", &self.engine.version()).finish_non_exhaustive()
    }
}

impl EngineRegistry {
    /// Keeps images in this engine.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self { engine }
    }

    async fn inspect(&self, operation: &'static str, name: &str) -> Result<Option<ImageInspect>> {
        match self.engine.docker().inspect_image(name).await {
            Ok(image) => Ok(Some(image)),
            Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(error) => Err(classify(operation, name, error)),
        }
    }

    async fn pull(&self, reference: &str, progress: &dyn ProgressSink) -> Result<()> {
        let credentials = tokio::task::spawn_blocking(Credentials::of_user).await.unwrap_or_default();
        let (name, tag) = image_name::split(reference);
        let options = CreateImageOptionsBuilder::new().from_image(name).tag(tag).build();
        let pulled = self.engine.docker().create_image(Some(options), None, credentials.for_image(reference));
        pin_mut!(pulled);
        while let Some(item) = pulled.next().await {
            let item = item.map_err(|error| pull_failed(reference, error))?;
            if let Some(message) = item.error_detail.and_then(|detail| detail.message) {
                let error = DockerError::DockerResponseServerError { status_code: 500, message };
                return Err(pull_failed(reference, error));
            }
            let amount = item.progress_detail.unwrap_or_default();
            let bytes = |bytes: Option<i64>| bytes.and_then(|bytes| u64::try_from(bytes).ok());
            progress.progress(
                Progress::new(item.id.unwrap_or_else(|| reference.to_owned()), item.status.unwrap_or_default())
                    .with_bytes(bytes(amount.current), bytes(amount.total)),
            );
        }
        Ok(())
    }
}

/// Why an image that is not on this host could not be pulled either.
fn pull_failed(reference: &str, error: DockerError) -> Error {
    const OPERATION: &str = "registry.resolve";
    let error = match error {
        DockerError::DockerStreamError { error } => {
            DockerError::DockerResponseServerError { status_code: 500, message: error }
        }
        other => other,
    };
    let words = match &error {
        DockerError::DockerResponseServerError { message, .. } => message.to_ascii_lowercase(),
        _ => return classify(OPERATION, reference, error),
    };
    let has = |part: &str| words.contains(part);
    let offline = ["no such host", "connection refused", "network is unreachable", "i/o timeout", "server misbehaving"]
        .into_iter()
        .any(has);
    if offline {
        Error::new(ErrorKind::NotFound, "the image is not on this host, and its registry cannot be reached")
            .with_operation(OPERATION)
            .with_resource(reference)
            .with_help("build it, or pull it on this host first")
            .with_source(error)
    } else if has("manifest unknown") || has("not found") || has("no such image") {
        Error::new(ErrorKind::NotFound, "there is no such image, neither on this host nor in its registry")
            .with_operation(OPERATION)
            .with_resource(reference)
            .with_help("check its name and tag, or build it")
            .with_source(error)
    } else {
        let error = classify(OPERATION, reference, error);
        match error.kind() {
            ErrorKind::PermissionDenied => {
                error.with_help("check the image's name, or log in to its registry with `docker login`")
            }
            _ => error,
        }
    }
}

fn pinned(operation: &'static str, reference: &str, image: ImageInspect) -> Result<PinnedImage> {
    let id = image.id.unwrap_or_default();
    let digest = Digest::new(id.as_str()).map_err(|error| {
        Error::new(ErrorKind::Internal, "the Docker Engine's image id is no digest")
            .with_operation(operation)
            .with_resource(reference)
            .with_source(error)
    })?;
    let exposed = image.config.and_then(|config| config.exposed_ports).unwrap_or_default();
    let mut ports: Vec<u16> = exposed.iter().filter_map(|port| tcp_port(port)).collect();
    ports.sort_unstable();
    Ok(PinnedImage::new(reference, id, digest).with_exposed_ports(ports))
}

/// The number of a port such as `80/tcp` or `80`.
fn tcp_port(text: &str) -> Option<u16> {
    match text.split_once('/') {
        Some((number, "tcp")) => number.parse().ok(),
        Some(_) => None,
        None => text.parse().ok(),
    }
}

#[async_trait]
impl Registry for EngineRegistry {
    async fn resolve(&self, request: ResolveImage) -> Result<PinnedImage> {
        const OPERATION: &str = "registry.resolve";
        let reference = request.reference.as_str();
        image_name::check(reference).map_err(|error| error.with_operation(OPERATION))?;
        if let Some(image) = self.inspect(OPERATION, reference).await? {
            return pinned(OPERATION, reference, image);
        }
        if reference.starts_with("sha256:") {
            return Err(Error::new(ErrorKind::NotFound, "there is no image of this id on this host")
                .with_operation(OPERATION)
                .with_resource(reference)
                .with_help("name the image instead of its id, so that it can be pulled"));
        }
        self.pull(reference, &*request.progress).await?;
        match self.inspect(OPERATION, reference).await? {
            Some(image) => pinned(OPERATION, reference, image),
            None => Err(Error::new(ErrorKind::NotFound, "the image was removed while it was pulled")
                .with_operation(OPERATION)
                .with_resource(reference)
                .with_retry(Retry::Soon)),
        }
    }

    async fn publish(&self, request: PublishImage) -> Result<PinnedImage> {
        const OPERATION: &str = "registry.publish";
        let PublishImage { app, service, image, .. } = &request;
        let gone = || {
            Error::new(ErrorKind::NotFound, "the image that was built is not on this host any more")
                .with_operation(OPERATION)
                .with_resource(image.reference.as_str())
                .with_help("build it again")
        };
        let found = self.inspect(OPERATION, image.digest.as_str()).await?.ok_or_else(gone)?;
        let repository = image_name::repository(app, service);
        let options = TagImageOptionsBuilder::new().repo(&repository).tag(image.digest.short()).build();
        match self.engine.docker().tag_image(image.digest.as_str(), Some(options)).await {
            Ok(()) => pinned(OPERATION, &image.reference, found),
            Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => Err(gone()),
            Err(error) => Err(classify(OPERATION, image.reference.as_str(), error)),
        }
    }

    async fn missing(&self, images: &[PinnedImage]) -> Result<Vec<PinnedImage>> {
        let asked: Vec<_> = images.iter().map(|image| self.inspect("registry.missing", &image.location)).collect();
        let found: Vec<Option<ImageInspect>> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
        let missing = images.iter().zip(found).filter(|(_, found)| found.is_none());
        Ok(missing.map(|(image, _)| image.clone()).collect())
    }

    async fn prune(&self, request: PruneImages) -> Result<Vec<String>> {
        const OPERATION: &str = "registry.prune";
        let app = request.app.as_str();
        let docker = self.engine.docker();
        let prefix = image_name::prefix(&request.app);
        let failed = |error| classify(OPERATION, app, error);
        // Images first: one that a container is made of meanwhile is refused by the engine below.
        let images = docker.list_images(Some(ListImagesOptionsBuilder::new().build())).await.map_err(failed)?;
        let containers = ListContainersOptionsBuilder::new().all(true).build();
        let containers = docker.list_containers(Some(containers)).await.map_err(failed)?;
        let used: HashSet<String> = containers.into_iter().filter_map(|container| container.image_id).collect();
        let kept = |id: &str| used.contains(id) || request.keep.contains(id);
        let mut removed = Vec::new();
        for image in images.into_iter().filter(|image| !kept(&image.id)) {
            let named = image.repo_tags.iter().any(|tag| tag != "<none>:<none>");
            let names: Vec<String> = if named {
                image.repo_tags.into_iter().filter(|tag| tag.starts_with(&prefix)).collect()
            } else if image.labels.get(ours::APP).is_some_and(|label| label == app) {
                vec![image.id]
            } else {
                continue;
            };
            for name in names {
                // Without force, so that what something still needs stays.
                let options = RemoveImageOptionsBuilder::new().force(false).build();
                match docker.remove_image(&name, Some(options), None).await {
                    Ok(_) => removed.push(name),
                    Err(DockerError::DockerResponseServerError { status_code: 404 | 409, .. }) => {}
                    Err(error) => {
                        let effect = if removed.is_empty() { Effect::None } else { Effect::Unknown };
                        return Err(classify(OPERATION, name, error).with_effect(effect));
                    }
                }
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status_code: u16, message: &str) -> ErrorKind {
        let error = DockerError::DockerResponseServerError { status_code, message: message.to_owned() };
        pull_failed("x:1", error).kind()
    }

    #[test]
    fn what_registries_say_is_understood() {
        assert_eq!(kind(500, "Get \"https://r/v2/\": dial tcp: lookup r: no such host"), ErrorKind::NotFound);
        assert_eq!(kind(404, "manifest for x:1 not found: manifest unknown"), ErrorKind::NotFound);
        assert_eq!(kind(404, "pull access denied for x, repository does not exist"), ErrorKind::PermissionDenied);
        assert_eq!(kind(500, "received unexpected HTTP status: 503"), ErrorKind::Unavailable);
        let stream = DockerError::DockerStreamError { error: "unauthorized: x".to_owned() };
        assert_eq!(pull_failed("x:1", stream).kind(), ErrorKind::PermissionDenied);
    }

    #[test]
    fn only_tcp_ports_count() {
        assert_eq!(["80/tcp", "53/udp", "81", "x/tcp"].map(tcp_port), [Some(80), None, Some(81), None]);
    }
}
