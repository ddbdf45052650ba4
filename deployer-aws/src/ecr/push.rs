//! Pushing what was built, through the Docker Engine that has built it.

use std::time::Duration;

use bollard::errors::Error as DockerError;
use bollard::models::{ImageConfig, ImageInspect};
use bollard::query_parameters::{PushImageOptionsBuilder, RemoveImageOptions, TagImageOptionsBuilder};
use deployer_core::{
    CheckCommand, ContainerCheck, Digest, Effect, Error, ErrorKind, PinnedImage, Progress, PublishImage, Result, Retry,
};
use futures_util::StreamExt as _;
use futures_util::future::try_join;

use super::repository::tag_of;
use super::scan::Scanned;
use super::{EcrRegistry, Found, platform};

const OPERATION: &str = "registry.publish";

impl EcrRegistry {
    /// The registry's host, if the reference is an image of it.
    pub(super) async fn host_of(&self, reference: &str) -> Result<Option<String>> {
        let ours = |host: &str| reference.strip_prefix(host).is_some_and(|rest| rest.starts_with('/'));
        if let Some(host) = &self.0.options.host {
            return Ok(ours(host).then(|| host.clone()));
        }
        // Only what looks like ECR is worth asking which account this is.
        if !reference.split('/').next().is_some_and(|host| host.contains(".dkr.ecr.")) {
            return Ok(None);
        }
        let (_, host) = self.login().await?;
        Ok(ours(&host).then_some(host))
    }

    /// An image of another registry, which the engine asks for its digest without pulling it.
    pub(super) async fn resolve_elsewhere(&self, reference: &str) -> Result<PinnedImage> {
        const OPERATION: &str = "registry.resolve";
        let found = self.0.docker.inspect_registry_image(reference, None).await;
        let found = found.map_err(|error| docker(OPERATION, reference, error))?;
        platform::check(self.0.options.architecture, reference, &platform::of(found.platforms))?;
        let digest = found.descriptor.digest.unwrap_or_default();
        let digest = Digest::new(digest).map_err(|error| error.with_operation(OPERATION).with_resource(reference))?;
        let name = reference.split_once('@').map_or(reference, |(name, _)| name);
        // A colon before a slash is a port's.
        let name = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(name, _)| name);
        Ok(PinnedImage::new(reference, format!("{name}@{digest}"), digest))
    }

    /// What an image of ECR is for, as the engine tells; nothing if it cannot.
    pub(super) async fn platforms(&self, location: &str) -> Vec<String> {
        let Ok((credentials, _)) = self.login().await else { return Vec::new() };
        let found = self.0.docker.inspect_registry_image(location, Some(credentials)).await;
        found.map(|found| platform::of(found.platforms)).unwrap_or_default()
    }

    pub(super) async fn push(&self, request: &PublishImage) -> Result<PinnedImage> {
        let PublishImage { app, service, image, .. } = request;
        let built = self.inspect(image.digest.as_str()).await?;
        let is_for = platform::name(built.os, built.architecture);
        platform::check(self.0.options.architecture, &image.reference, is_for.as_slice())?;
        let (config, names) = (built.config.unwrap_or_default(), built.repo_tags.unwrap_or_default());
        let (login, repository) = try_join(self.login(), self.ensure_repository(app, service)).await?;
        let (credentials, host) = login;
        let tag = tag_of(&image.digest);
        let pinned = |digest: Digest| {
            let location = format!("{host}/{repository}@{digest}");
            PinnedImage::new(&image.reference, location, digest)
                .with_exposed_ports(exposed_ports(&config))
                .with_check(check(&config))
        };
        // Its tag says what is in it: what was pushed before need not be again.
        let id = aws_sdk_ecr::types::ImageIdentifier::builder().image_tag(&tag).build();
        if let Some(Found { digest, .. }) = self.find(&repository, id).await? {
            self.check_scan(&Scanned { repository: &repository, digest: &digest }, &*request.progress).await?;
            return Ok(pinned(digest));
        }
        let name = format!("{host}/{repository}");
        let options = TagImageOptionsBuilder::new().repo(&name).tag(&tag).build();
        let tagged = self.0.docker.tag_image(image.digest.as_str(), Some(options)).await;
        tagged.map_err(|error| docker(OPERATION, &image.reference, error))?;
        let options = PushImageOptionsBuilder::new().tag(&tag).build();
        let mut pushed = self.0.docker.push_image(&name, Some(options), Some(credentials));
        while let Some(item) = pushed.next().await {
            let item = item.map_err(|error| docker(OPERATION, &name, error))?;
            if let Some(message) = item.error_detail.and_then(|detail| detail.message) {
                return Err(docker(OPERATION, &name, DockerError::DockerStreamError { error: message }));
            }
            let amount = item.progress_detail.unwrap_or_default();
            let bytes = |bytes: Option<i64>| bytes.and_then(|bytes| u64::try_from(bytes).ok());
            let status = item.status.unwrap_or_default();
            let progress = Progress::new(format!("push {service}"), status);
            request.progress.progress(progress.with_bytes(bytes(amount.current), bytes(amount.total)));
        }
        let id = aws_sdk_ecr::types::ImageIdentifier::builder().image_tag(&tag).build();
        let Found { digest, .. } = self.find(&repository, id).await?.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "ECR does not know yet what was pushed a moment ago")
                .with_operation(OPERATION)
                .with_resource(format!("{name}:{tag}"))
        })?;
        if names.iter().any(|other| *other != format!("{name}:{tag}")) {
            // The engine needs this name no more, and keeps the image under its own. Nothing depends on it.
            let _stays = self.0.docker.remove_image(&format!("{name}:{tag}"), None::<RemoveImageOptions>, None).await;
        }
        self.check_scan(&Scanned { repository: &repository, digest: &digest }, &*request.progress).await?;
        Ok(pinned(digest))
    }

    /// What an image that was built says of itself.
    async fn inspect(&self, id: &str) -> Result<ImageInspect> {
        self.0.docker.inspect_image(id).await.map_err(|error| match error {
            DockerError::DockerResponseServerError { status_code: 404, .. } => {
                Error::new(ErrorKind::NotFound, "the image that was built is not on this host any more")
                    .with_operation(OPERATION)
                    .with_resource(id)
                    .with_help("build it again")
            }
            error => docker(OPERATION, id, error),
        })
    }
}

/// The TCP ports that an image says it listens on.
fn exposed_ports(config: &ImageConfig) -> Vec<u16> {
    let exposed = config.exposed_ports.iter().flatten();
    let mut ports: Vec<u16> = exposed.filter_map(|port| port.strip_suffix("/tcp")?.parse().ok()).collect();
    ports.sort_unstable();
    ports
}

/// The image's own check, which ECS does not heed:
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/healthcheck.html>. What it leaves open is as
/// [Docker](https://docs.docker.com/reference/dockerfile/#healthcheck) has it.
fn check(config: &ImageConfig) -> Option<ContainerCheck> {
    let given = config.healthcheck.as_ref()?;
    let (kind, words) = given.test.as_deref()?.split_first()?;
    let command = match (kind.as_str(), words) {
        ("CMD", words) => CheckCommand::Exec(words.to_vec()),
        ("CMD-SHELL", [line]) => CheckCommand::Shell(line.clone()),
        _ => return None,
    };
    let time = |nanos: Option<i64>| nanos.and_then(|nanos| u64::try_from(nanos).ok()).filter(|nanos| *nanos > 0);
    let mut check = ContainerCheck::new(command);
    check.interval = time(given.interval).map_or(check.interval, Duration::from_nanos);
    check.timeout = time(given.timeout).map_or(check.timeout, Duration::from_nanos);
    check.start_period = time(given.start_period).map_or(check.start_period, Duration::from_nanos);
    let retries = given.retries.and_then(|retries| u32::try_from(retries).ok()).filter(|retries| *retries > 0);
    check.retries = retries.unwrap_or(check.retries);
    Some(check)
}

/// What the engine says, in our words.
fn docker(operation: &'static str, resource: &str, error: DockerError) -> Error {
    let words = error.to_string().to_ascii_lowercase();
    let has = |part: &str| words.contains(part);
    let said = if has("unauthorized") || has("denied") || has("no basic auth") {
        Error::new(ErrorKind::PermissionDenied, "the registry does not allow it")
    } else if has("not found") || has("manifest unknown") || has("no such image") {
        Error::new(ErrorKind::NotFound, "there is no such image")
    } else if has("immutable") || has("already exists") {
        // The same content under the same tag: somebody else was faster.
        Error::new(ErrorKind::Conflict, "the tag is there already").with_retry(Retry::Soon)
    } else {
        Error::new(ErrorKind::Unavailable, "the Docker Engine or the registry failed").with_effect(Effect::Unknown)
    };
    said.with_operation(operation).with_resource(resource).with_source(error)
}

#[cfg(test)]
mod tests {
    use bollard::models::HealthConfig;

    use super::*;

    fn checked(test: &[&str]) -> Option<ContainerCheck> {
        let test = Some(test.iter().map(|word| (*word).to_owned()).collect());
        let health = HealthConfig { test, interval: Some(5_000_000_000), retries: Some(0), ..HealthConfig::default() };
        check(&ImageConfig { healthcheck: Some(health), ..ImageConfig::default() })
    }

    #[test]
    fn the_check_of_an_image_is_read() {
        let exec = checked(&["CMD", "/shop", "check"]).unwrap();
        assert_eq!(exec.command, CheckCommand::Exec(vec!["/shop".to_owned(), "check".to_owned()]));
        let (every, most) = (Duration::from_secs(5), Duration::from_secs(30));
        assert_eq!((exec.interval, exec.timeout, exec.retries, exec.start_period), (every, most, 3, Duration::ZERO));
        let shell = checked(&["CMD-SHELL", "wget -q localhost"]).unwrap();
        assert_eq!(shell.command, CheckCommand::Shell("wget -q localhost".to_owned()));
        assert_eq!((checked(&["NONE"]), checked(&[]), check(&ImageConfig::default())), (None, None, None));
    }
}
