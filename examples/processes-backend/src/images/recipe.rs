//! How a build context becomes an image.

use std::path::Path;

use deployer_core::{BuildSpec, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::ImageConfig;
use crate::failure::io;
use crate::files::absent;

/// The recipe's file, unless the spec names another one.
const FILE: &str = "image.json";

/// A recipe: what the image says about itself, and what is run to make it from the context.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Recipe {
    /// Shell lines, run one after the other in the image's root.
    pub(super) run: Vec<String>,
    pub(super) image: ImageConfig,
}

impl Recipe {
    /// The recipe of a build. A context without one is copied as it is.
    pub(super) fn of(build: &BuildSpec) -> Result<Self> {
        let name = Self::file(build);
        let text = match &build.dockerfile_inline {
            Some(text) => text.clone().into_bytes(),
            None => {
                let found = absent(std::fs::read(build.context.join(&name)));
                match found.map_err(io(format!("read the recipe {name}")))? {
                    Some(text) => text,
                    None if name == FILE => return Ok(Self::default()),
                    None => return Err(unreadable(&name, "there is no such file")),
                }
            }
        };
        serde_json::from_slice(&text).map_err(|error| unreadable(&name, &error.to_string()))
    }

    /// The recipe's file below the context. Docker's default name means that nobody has chosen one.
    pub(super) fn file(build: &BuildSpec) -> String {
        if build.dockerfile == Path::new("Dockerfile") {
            FILE.to_owned()
        } else {
            build.dockerfile.display().to_string()
        }
    }
}

fn unreadable(name: &str, why: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("the recipe {name} cannot be read: {why}")).with_help(
        "a recipe is JSON: {\"run\": [\"make\"], \"image\": {\"command\": [\"./server\"], \"ports\": [8080]}}",
    )
}
