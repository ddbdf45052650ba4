//! Keeping images.

use std::fs;
use std::path::Path;

use async_trait::async_trait;
use deployer_core::{
    AppName, BuiltImage, Digest, Error, ErrorKind, PinnedImage, PruneImages, PublishImage, Registry, ResolveImage,
    Result,
};

use super::{CONFIG, ImageConfig, ROOT, content, put};
use crate::failure::{blocking, io};
use crate::files::{self, Durable};
use crate::layout::Layout;
use crate::orchestrator::images_in_use;

/// Keeps images as directories.
#[derive(Clone, Debug)]
pub(crate) struct DirectoryRegistry {
    layout: Layout,
}

impl DirectoryRegistry {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout }
    }

    /// Takes a directory in as an image of this name.
    pub(crate) fn import(&self, name: &str, directory: &Path, config: &ImageConfig) -> Result<Digest> {
        let draft = self.layout.build_draft();
        let imported = (|| {
            files::copy_tree(directory, &draft.join(ROOT))?;
            files::replace(&draft.join(CONFIG), config, Durable::No)?;
            let digest = content::digest(&draft)?;
            fs::create_dir_all(self.layout.images())?;
            put(&draft, &self.layout.image(&digest))?;
            files::replace(&self.layout.image_name(name), &digest, Durable::No)?;
            Ok(digest)
        })();
        imported.map_err(io(format!("take {} in", directory.display())))
    }

    fn publish_now(&self, app: &AppName, image: &BuiltImage) -> Result<PinnedImage> {
        let (built, place) = (self.layout.build(&image.digest), self.layout.image(&image.digest));
        if built.is_dir() {
            fs::create_dir_all(self.layout.images()).map_err(io("make room for images"))?;
            put(&built, &place).map_err(io("publish the image"))?;
        }
        let config = ImageConfig::of(&self.layout, &image.digest)?;
        let marked = files::replace(&place.join("for").join(app.as_str()), app, Durable::No);
        marked.map_err(io("note for whom the image is"))?;
        let named = files::replace(&self.layout.image_name(&image.reference), &image.digest, Durable::No);
        named.map_err(io("name the image"))?;
        Ok(pinned(&image.reference, image.digest.clone(), &config))
    }

    /// Removes what nobody needs. What other applications have published and what runs is not this application's to
    /// remove.
    fn prune_now(&self, request: &PruneImages) -> Result<Vec<String>> {
        let in_use = images_in_use(&self.layout).map_err(io("look which images are in use"))?;
        let mut removed = Vec::new();
        for name in files::names(&self.layout.images()).map_err(io("list the images"))? {
            let Ok(digest) = Digest::new(format!("sha256:{name}")) else { continue };
            let users = self.layout.image(&digest).join("for");
            let (own, kept) = (users.join(request.app.as_str()), request.keep.contains(&digest));
            if kept || !own.exists() || in_use.contains(&digest) {
                continue;
            }
            let others = files::names(&users).map_err(io("look for whom the image is"))?.len() > 1;
            let done = if others {
                files::absent(fs::remove_file(own)).map(|_| ())
            } else {
                files::remove_tree(&self.layout.image(&digest)).map(|_| ())
            };
            done.map_err(io("remove an image"))?;
            if !others {
                removed.push(digest.to_string());
            }
        }
        Ok(removed)
    }
}

/// What runs is found by its digest alone.
fn pinned(reference: &str, digest: Digest, config: &ImageConfig) -> PinnedImage {
    PinnedImage::new(reference, digest.to_string(), digest).with_exposed_ports(config.ports.clone())
}

#[async_trait]
impl Registry for DirectoryRegistry {
    async fn resolve(&self, request: ResolveImage) -> Result<PinnedImage> {
        let this = self.clone();
        blocking(move || {
            let reference = &request.reference;
            let named: Option<Digest> = match Digest::new(reference) {
                Ok(digest) => Some(digest),
                Err(_) => files::read(&this.layout.image_name(reference)).map_err(io("look the image up"))?,
            };
            let unknown = || {
                Error::new(ErrorKind::NotFound, "there is no image of this name")
                    .with_help("build it, or take it in with `deployer-processes import NAME DIRECTORY`")
            };
            let digest = named.ok_or_else(unknown)?;
            let config = ImageConfig::of(&this.layout, &digest).map_err(|error| match error.kind() {
                ErrorKind::NotFound => unknown(),
                _ => error,
            })?;
            Ok(pinned(reference, digest, &config))
        })
        .await
    }

    async fn publish(&self, request: PublishImage) -> Result<PinnedImage> {
        let this = self.clone();
        blocking(move || this.publish_now(&request.app, &request.image)).await
    }

    async fn missing(&self, images: &[PinnedImage]) -> Result<Vec<PinnedImage>> {
        let present = |image: &PinnedImage| self.layout.image(&image.digest).join(CONFIG).try_exists();
        let mut missing = Vec::new();
        for image in images {
            if !present(image).map_err(io("look for an image"))? {
                missing.push(image.clone());
            }
        }
        Ok(missing)
    }

    async fn prune(&self, request: PruneImages) -> Result<Vec<String>> {
        let this = self.clone();
        blocking(move || this.prune_now(&request)).await
    }
}
