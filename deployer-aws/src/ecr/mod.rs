//! Images in ECR.

mod platform;
mod push;
mod repository;
mod scan;
mod tag;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_ecr::Client;
use aws_sdk_ecr::types::{ImageFailureCode, ImageIdentifier};
use bollard::Docker;
use deployer_core::{Digest, Error, ErrorKind, PinnedImage, PruneImages, PublishImage, Registry, ResolveImage, Result};
use futures_util::future::try_join_all;
use tokio::time::Instant;

use self::scan::Scanned;
pub use self::scan::Severity;
use self::token::Token;
use crate::failure::{failed, is};
use crate::options::Architecture;
use crate::site::patient;

/// How many images ECR takes in one call:
/// <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_BatchGetImage.html>.
const BATCH: usize = 100;

/// How long an image is believed to be there.
const MOMENT: Duration = Duration::from_secs(5);

/// How images are kept in ECR.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EcrOptions {
    /// What the names of repositories begin with: `prefix/app/service`.
    pub prefix: String,
    /// The registry's host, if it is not the one that ECR tells, as with an emulator.
    pub host: Option<String>,
    /// How bad what ECR finds in an image may be; without it, nobody asks.
    pub worst_finding: Option<Severity>,
    /// The processors that images shall be for; without them, nobody asks.
    pub architecture: Option<Architecture>,
}

impl Default for EcrOptions {
    /// Repositories `deployer/app/service` in the account's registry.
    fn default() -> Self {
        Self { prefix: "deployer".to_owned(), host: None, worst_finding: None, architecture: None }
    }
}

impl EcrOptions {
    /// Sets what the names of repositories begin with.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets the registry's host.
    #[must_use]
    pub fn with_host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Sets how bad what ECR finds in an image may be. Images of the registry are awaited to be scanned when they are resolved
    /// or published, so before anything is started, and refused for what is worse.
    #[must_use]
    pub fn with_worst_finding(mut self, worst: Severity) -> Self {
        self.worst_finding = Some(worst);
        self
    }

    /// Sets the processors that images shall be for. One that is for others is refused when it is resolved or published, as far
    /// as that can be told: by its index, or by the Docker Engine.
    #[must_use]
    pub fn with_architecture(mut self, architecture: Architecture) -> Self {
        self.architecture = Some(architecture);
        self
    }
}

/// Keeps images in the account's ECR registry, one repository for each service.
///
/// Repositories are made when they are missing: scanned on push, with tags that cannot be moved, and with a lifecycle policy
/// that lets go only of what has no tag. Everything that is published has a tag of its own, so that nothing which a release
/// needs goes before it is pruned. What was built is pushed through the Docker Engine that has built it.
#[derive(Clone)]
pub struct EcrRegistry(Arc<Inner>);

struct Inner {
    client: Client,
    docker: Docker,
    options: EcrOptions,
    /// The repositories that are known to be there.
    repositories: Mutex<BTreeSet<String>>,
    token: tokio::sync::Mutex<Option<Token>>,
    /// Images that were there a moment ago, by location.
    seen: Mutex<BTreeMap<String, Instant>>,
}

impl fmt::Debug for EcrRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EcrRegistry").field("options", &self.0.options).finish_non_exhaustive()
    }
}

impl EcrRegistry {
    /// A registry by the configuration of the host program; images are pushed through the Docker Engine that `DOCKER_HOST`
    /// names, or the one on the default socket.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if `DOCKER_HOST` is not understood.
    pub fn new(config: &SdkConfig, options: EcrOptions) -> Result<Self> {
        let docker = Docker::connect_with_defaults().map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "the Docker Engine's address is not understood").with_source(error)
        })?;
        Ok(Self::with_engine(config, options, docker))
    }

    /// A registry to which images are pushed through this engine.
    #[must_use]
    pub fn with_engine(config: &SdkConfig, options: EcrOptions, docker: Docker) -> Self {
        let (repositories, token, seen) = (Mutex::default(), tokio::sync::Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { client: Client::new(&patient(config)), docker, options, repositories, token, seen }))
    }

    /// What a tag or digest names, without pulling the image.
    async fn find(&self, repository: &str, image: ImageIdentifier) -> Result<Option<Found>> {
        let call = self.0.client.batch_get_image().repository_name(repository).image_ids(image);
        let answer = match call.send().await {
            Ok(answer) => answer,
            Err(error) if is(&error, &["RepositoryNotFoundException"]) => return Ok(None),
            Err(error) => return Err(failed("ecr:BatchGetImage", repository, error)),
        };
        let Some(image) = answer.images().first() else { return Ok(None) };
        let Some(digest) = image.image_id().and_then(|id| id.image_digest()) else { return Ok(None) };
        let manifest = image.image_manifest().unwrap_or_default().to_owned();
        Ok(Some(Found { digest: Digest::new(digest)?, manifest }))
    }

    fn saw(&self, location: &str) {
        self.seen().insert(location.to_owned(), Instant::now());
    }

    /// Whether an image was there a moment ago: what has just been resolved need not be looked for.
    fn has_seen(&self, location: &str) -> bool {
        self.seen().get(location).is_some_and(|at| at.elapsed() < MOMENT)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Instant>> {
        self.0.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Which of a repository's images are not there.
    async fn gone(&self, repository: &str, images: &[&PinnedImage]) -> Result<Vec<PinnedImage>> {
        let mut gone = Vec::new();
        for images in images.chunks(BATCH) {
            let ids = images.iter().map(|image| ImageIdentifier::builder().image_digest(image.digest.as_str()).build());
            let call = self.0.client.batch_get_image().repository_name(repository).set_image_ids(Some(ids.collect()));
            let answer = match call.send().await {
                Ok(answer) => answer,
                Err(error) if is(&error, &["RepositoryNotFoundException"]) => {
                    gone.extend(images.iter().map(|image| (*image).clone()));
                    continue;
                }
                Err(error) => return Err(failed("ecr:BatchGetImage", repository, error)),
            };
            let missing: BTreeSet<&str> = answer
                .failures()
                .iter()
                .filter(|failure| failure.failure_code() == Some(&ImageFailureCode::ImageNotFound))
                .filter_map(|failure| failure.image_id().and_then(|id| id.image_digest()))
                .collect();
            gone.extend(images.iter().filter(|image| missing.contains(image.digest.as_str())).map(|it| (*it).clone()));
        }
        Ok(gone)
    }
}

/// An image in ECR.
struct Found {
    digest: Digest,
    manifest: String,
}

/// The repository of an image of the registry, from what comes behind the host.
fn repository_of(location: &str) -> Option<&str> {
    let (_, rest) = location.split_once('/')?;
    let name = rest.split_once('@').map_or(rest, |(name, _)| name);
    Some(name.rsplit_once(':').map_or(name, |(name, _)| name))
}

#[async_trait]
impl Registry for EcrRegistry {
    async fn resolve(&self, request: ResolveImage) -> Result<PinnedImage> {
        let reference = request.reference.as_str();
        let Some(host) = self.host_of(reference).await? else {
            return self.resolve_elsewhere(reference).await;
        };
        let not_found = || {
            Error::new(ErrorKind::NotFound, "there is no such image in ECR")
                .with_operation("registry.resolve")
                .with_resource(reference)
                .with_help("check repository, tag, account and region, or push it first")
        };
        let rest = reference.get(host.len() + 1..).unwrap_or_default();
        let (repository, image) = match rest.split_once('@') {
            Some((name, digest)) => (name, ImageIdentifier::builder().image_digest(digest)),
            None => {
                let (name, tag) = rest.rsplit_once(':').unwrap_or((rest, "latest"));
                (name, ImageIdentifier::builder().image_tag(tag))
            }
        };
        let Found { digest, manifest } = self.find(repository, image.build()).await?.ok_or_else(not_found)?;
        let location = format!("{host}/{repository}@{digest}");
        if self.0.options.architecture.is_some() {
            let platforms = match platform::of_index(&manifest) {
                Some(platforms) => platforms,
                None => self.platforms(&location).await,
            };
            platform::check(self.0.options.architecture, reference, &platforms)?;
        }
        self.check_scan(&Scanned { repository, digest: &digest }, &*request.progress).await?;
        self.saw(&location);
        Ok(PinnedImage::new(reference, location, digest))
    }

    async fn publish(&self, request: PublishImage) -> Result<PinnedImage> {
        self.push(&request).await
    }

    async fn missing(&self, images: &[PinnedImage]) -> Result<Vec<PinnedImage>> {
        let mut by_repository: BTreeMap<&str, Vec<&PinnedImage>> = BTreeMap::new();
        for image in images.iter().filter(|image| !self.has_seen(&image.location)) {
            // What is kept elsewhere is somebody else's to keep.
            if self.host_of(&image.location).await?.is_some()
                && let Some(repository) = repository_of(&image.location)
            {
                by_repository.entry(repository).or_default().push(image);
            }
        }
        let gone = by_repository.iter().map(|(repository, images)| self.gone(repository, images));
        Ok(try_join_all(gone).await?.into_iter().flatten().collect())
    }

    async fn prune(&self, request: PruneImages) -> Result<Vec<String>> {
        let repositories = self.repositories_of(&request.app).await?;
        let pruned = repositories.into_iter().map(async |name| self.prune_repository(&name, &request.keep).await);
        Ok(try_join_all(pruned).await?.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::repository_of;

    #[test]
    fn repositories_of_locations() {
        assert_eq!(repository_of("127.0.0.1:4566/deployer/shop/web@sha256:00"), Some("deployer/shop/web"));
        assert_eq!(repository_of("registry/shop:v1"), Some("shop"));
        assert_eq!(repository_of("redis"), None);
    }
}
