//! Repositories, and what is in them.

use std::collections::BTreeSet;

use aws_sdk_ecr::types::{ImageIdentifier, ImageScanningConfiguration, ImageTagMutability, Tag, TagStatus};
use deployer_core::{AppName, Digest, Error, ErrorKind, Result, ServiceName};

use super::{BATCH, EcrRegistry};
use crate::failure::{failed, is};
use crate::naming::tag;

/// Lets go of what no tag names any more; everything that is published has one.
const LIFECYCLE: &str = r#"{"rules":[{"rulePriority":1,"description":"what no tag names any more","selection":{"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":14},"action":{"type":"expire"}}]}"#;

/// What the tags of published images begin with.
pub(super) const PUBLISHED: &str = "deployer-";

impl EcrRegistry {
    /// The repository of a service: 2 to 256 lower-case letters, digits and `-_./`.
    pub(super) fn repository(&self, app: &AppName, service: &ServiceName) -> String {
        format!("{}/{app}/{}", self.0.options.prefix, service.as_str().to_ascii_lowercase())
    }

    /// Makes a repository unless it is there.
    pub(super) async fn ensure_repository(&self, app: &AppName, service: &ServiceName) -> Result<String> {
        let name = self.repository(app, service);
        if self.is_known(&name) {
            return Ok(name);
        }
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
        let tags = [tag(tag::APP, app.as_str()), tag(tag::SERVICE, service.as_str())];
        let tags = tags.into_iter().collect::<std::result::Result<Vec<_>, _>>();
        let tags = tags.map_err(|error| Error::new(ErrorKind::Internal, "a tag is incomplete").with_source(error))?;
        let call = self
            .0
            .client
            .create_repository()
            .repository_name(&name)
            .image_tag_mutability(ImageTagMutability::Immutable)
            .image_scanning_configuration(ImageScanningConfiguration::builder().scan_on_push(true).build())
            .set_tags(Some(tags));
        let is_complete = match call.send().await {
            Ok(_) => false,
            // Whoever has made it may have been stopped before it was complete.
            Err(error) if is(&error, &["RepositoryAlreadyExistsException"]) => self.has_policy(&name).await?,
            Err(error) => return Err(failed("ecr:CreateRepository", name.as_str(), error)),
        };
        if !is_complete {
            let policy = self.0.client.put_lifecycle_policy().repository_name(&name);
            let policy = policy.lifecycle_policy_text(LIFECYCLE).send().await;
            policy.map_err(|error| failed("ecr:PutLifecyclePolicy", name.as_str(), error))?;
        }
        self.remember(&name);
        Ok(name)
    }

    /// Whether a repository has a lifecycle policy, whichever it is.
    async fn has_policy(&self, name: &str) -> Result<bool> {
        match self.0.client.get_lifecycle_policy().repository_name(name).send().await {
            Ok(_) => Ok(true),
            Err(error) if is(&error, &["LifecyclePolicyNotFoundException"]) => Ok(false),
            Err(error) => Err(failed("ecr:GetLifecyclePolicy", name, error)),
        }
    }

    fn is_known(&self, name: &str) -> bool {
        self.known().contains(name)
    }

    fn remember(&self, name: &str) {
        self.known().insert(name.to_owned());
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.0.repositories.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The repositories of an application.
    pub(super) async fn repositories_of(&self, app: &AppName) -> Result<Vec<String>> {
        let prefix = format!("{}/{app}/", self.0.options.prefix);
        let mut names = Vec::new();
        let mut pages = self.0.client.describe_repositories().max_results(1_000).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("ecr:DescribeRepositories", app.as_str(), error))?;
            let found = page.repositories().iter().filter_map(|repository| repository.repository_name());
            let ours = |name: &&str| name.strip_prefix(&prefix).is_some_and(|service| !service.contains('/'));
            names.extend(found.filter(ours).map(str::to_owned));
        }
        Ok(names)
    }

    /// Removes the images of a repository that were published through this crate and are not to be kept.
    pub(super) async fn prune_repository(&self, name: &str, keep: &BTreeSet<Digest>) -> Result<Vec<String>> {
        let filter = aws_sdk_ecr::types::ListImagesFilter::builder().tag_status(TagStatus::Tagged).build();
        let call = self.0.client.list_images().repository_name(name).filter(filter).max_results(1_000);
        let mut ids: Vec<(String, String)> = Vec::new();
        let mut pages = call.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = match page {
                Ok(page) => page,
                Err(error) if is(&error, &["RepositoryNotFoundException"]) => break,
                Err(error) => return Err(failed("ecr:ListImages", name, error)),
            };
            let named = page.image_ids().iter().filter_map(|id| Some((id.image_digest()?, id.image_tag()?)));
            ids.extend(named.map(|(digest, tag)| (digest.to_owned(), tag.to_owned())));
        }
        let kept = |digest: &str| Digest::new(digest).is_ok_and(|digest| keep.contains(&digest));
        let goes: Vec<&(String, String)> =
            ids.iter().filter(|(digest, tag)| !kept(digest) && tag.starts_with(PUBLISHED)).collect();
        let mut removed = Vec::new();
        for batch in goes.chunks(BATCH) {
            let ids = batch.iter().map(|(_, tag)| ImageIdentifier::builder().image_tag(tag).build());
            let call = self.0.client.batch_delete_image().repository_name(name).set_image_ids(Some(ids.collect()));
            call.send().await.map_err(|error| failed("ecr:BatchDeleteImage", name, error))?;
            removed.extend(batch.iter().map(|(_, tag)| format!("{name}:{tag}")));
        }
        Ok(removed)
    }
}

/// The tag with which a digest is published.
pub(super) fn tag_of(digest: &Digest) -> String {
    format!("{PUBLISHED}{}", digest.short())
}
