//! Images: directories, addressed by a digest of everything that is in them.
//!
//! ```text
//! images/<digest>/image.json     what to run unless the service says otherwise
//! images/<digest>/root/          the files
//! images/<digest>/for/shop       there if the image was published for the application `shop`
//! ```
//!
//! An instance gets a copy of the files, so that nothing it writes changes the image.

mod builder;
mod content;
mod recipe;
mod registry;

use std::collections::BTreeMap;
use std::path::Path;

use deployer_core::{Digest, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

pub(crate) use builder::DirectoryBuilder;
pub(crate) use registry::DirectoryRegistry;

use crate::failure::io;
use crate::files;
use crate::layout::Layout;

/// What an image says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ImageConfig {
    /// What comes before the command.
    pub(crate) entrypoint: Vec<String>,
    /// What runs, unless the service has a command of its own.
    pub(crate) command: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    /// The TCP ports that it listens on.
    pub(crate) ports: Vec<u16>,
    /// The signal that asks it to stop.
    pub(crate) stop_signal: Option<String>,
    /// Where its files see themselves, below their root.
    pub(crate) working_dir: Option<String>,
}

impl ImageConfig {
    /// What the image of this digest says about itself.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if it is not there any more.
    pub(crate) fn of(layout: &Layout, digest: &Digest) -> Result<Self> {
        let config = files::read(&layout.image(digest).join(CONFIG)).map_err(io("read the image"))?;
        config.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the image is gone").with_context("image", digest.short().to_owned())
        })
    }
}

/// The file with the [`ImageConfig`].
const CONFIG: &str = "image.json";
/// The directory with an image's files.
pub(crate) const ROOT: &str = "root";

/// Moves a finished image to where it belongs, unless one of the same content is there.
fn put(draft: &Path, place: &Path) -> std::io::Result<()> {
    match std::fs::rename(draft, place) {
        // A directory that is not empty is in the way: the same content, since its name is its digest.
        Err(_) if place.join(CONFIG).exists() => files::remove_tree(draft).map(|_| ()),
        result => result,
    }
}
