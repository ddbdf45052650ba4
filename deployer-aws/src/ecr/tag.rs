//! Further tags of images.

use aws_sdk_ecr::types::{Image, ImageIdentifier};
use deployer_core::{Error, ErrorKind, PinnedImage, Result, Retry};

use super::EcrRegistry;
use super::repository::PUBLISHED;
use crate::failure::{failed, is};

const OPERATION: &str = "registry.tag";

impl EcrRegistry {
    /// Gives an image of this registry a further tag, such as the version by which people know it, without pulling it.
    ///
    /// An image with a tag that somebody gave it stays when its releases are pruned, and when a lifecycle policy lets go of what
    /// has no tag: whoever deploys images from repositories of others, whose tags move on, keeps with it what a rollback needs.
    /// A tag that another image has is left there, unless somebody else gives it at the same moment in a repository whose tags can
    /// be moved. Repeating it changes nothing. The [policy](crate::policy) of this crate allows it in repositories with the prefix
    /// of [`EcrOptions`](crate::EcrOptions); others take `ecr:BatchGetImage` and `ecr:PutImage`.
    ///
    /// ```no_run
    /// use deployer_core::ErrorKind;
    ///
    /// # async fn known_as(images: deployer_aws::EcrRegistry, release: deployer_core::Release) -> deployer_core::Result<()> {
    /// for (name, service) in &release.services {
    ///     let tag = format!("{}-{name}-{}", release.app, release.number.0);
    ///     match images.tag(&service.image, &tag).await {
    ///         // Another registry's image is that one's to keep.
    ///         Err(error) if error.kind() == ErrorKind::NotFound => {}
    ///         done => done?,
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the image is not there, or is another registry's;
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if another image has the tag; [`InvalidInput`](ErrorKind::InvalidInput) if it is
    /// no tag, or one of those under which images are published; what asking ECR can fail with.
    pub async fn tag(&self, image: &PinnedImage, tag: &str) -> Result<()> {
        let location = image.location.as_str();
        let says = |kind, message: &'static str| {
            Error::new(kind, message)
                .with_operation(OPERATION)
                .with_resource(location)
                .with_context("tag", tag.to_owned())
                .with_retry(Retry::Never)
        };
        if !is_tag(tag) {
            let help = "up to 128 letters, digits and `_.-`, and no `.` or `-` at the beginning";
            return Err(says(ErrorKind::InvalidInput, "that is no tag").with_help(help));
        }
        if tag.starts_with(PUBLISHED) {
            return Err(says(ErrorKind::InvalidInput, "tags that begin so are those of published images"));
        }
        let ours = self.host_of(location).await?.and(super::repository_of(location));
        let repository = ours.ok_or_else(|| says(ErrorKind::NotFound, "the image is not one of this registry"))?;
        let taken = || says(ErrorKind::AlreadyExists, "another image has the tag");
        let known = match self.tagged(repository, image, tag).await? {
            Tagged::This => return Ok(()),
            Tagged::Another => return Err(taken()),
            Tagged::None(known) => known.ok_or_else(|| says(ErrorKind::NotFound, "there is no such image in ECR"))?,
        };
        let put = self.0.client.put_image().repository_name(repository).image_tag(tag);
        let put = put.image_digest(image.digest.as_str()).set_image_manifest(known.image_manifest().map(str::to_owned));
        let put = put.set_image_manifest_media_type(known.image_manifest_media_type().map(str::to_owned));
        match put.send().await {
            Ok(_) => Ok(()),
            // An attempt of which nobody heard has done it, or somebody else was quicker.
            Err(error) if is(&error, &["ImageAlreadyExistsException", "ImageTagAlreadyExistsException"]) => {
                match self.tagged(repository, image, tag).await? {
                    Tagged::This => Ok(()),
                    _ => Err(taken()),
                }
            }
            Err(error) => Err(failed("ecr:PutImage", repository, error)),
        }
    }

    /// Which image of a repository has a tag.
    async fn tagged(&self, repository: &str, image: &PinnedImage, tag: &str) -> Result<Tagged> {
        let by_digest = ImageIdentifier::builder().image_digest(image.digest.as_str()).build();
        let by_tag = ImageIdentifier::builder().image_tag(tag).build();
        let call = self.0.client.batch_get_image().repository_name(repository).image_ids(by_digest).image_ids(by_tag);
        let found = match call.send().await {
            Ok(found) => found.images.unwrap_or_default(),
            Err(error) if is(&error, &["RepositoryNotFoundException"]) => Vec::new(),
            Err(error) => return Err(failed("ecr:BatchGetImage", repository, error)),
        };
        let is_it = |one: &Image| one.image_id().and_then(|id| id.image_digest()) == Some(image.digest.as_str());
        let has_tag = |one: &&Image| one.image_id().and_then(|id| id.image_tag()) == Some(tag);
        Ok(match found.iter().find(has_tag) {
            Some(one) if is_it(one) => Tagged::This,
            Some(_) => Tagged::Another,
            None => Tagged::None(found.into_iter().find(is_it)),
        })
    }
}

/// Which image has a tag.
enum Tagged {
    This,
    Another,
    /// None; and the image that shall have it, if it is there.
    None(Option<Image>),
}

/// What the OCI Distribution Specification takes for a tag:
/// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests>.
fn is_tag(tag: &str) -> bool {
    let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let inner = |c: char| first(c) || c == '.' || c == '-';
    tag.len() <= 128 && tag.starts_with(first) && tag.chars().all(inner)
}
