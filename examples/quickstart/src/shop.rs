//! The application: from its Compose file to a spec.

use std::path::{Path, PathBuf};

use deployer_core::compose::{ComposeReader, render};
use deployer_core::{AppName, AppSpec, GitState, ImageSource};

use crate::Result;

/// The host name of its route.
pub(crate) const HOST: &str = "shop.localhost";

/// The directory of the app. An example knows where its sources are; programs take such a path from their caller.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("app")
}

/// A version of the shop under this application name, broken in this way if in any.
pub(crate) fn version(app: &AppName, version: &str, broken: Option<&str>) -> Result<AppSpec> {
    let file = directory().join("compose.yaml");
    let reader = ComposeReader::new()
        .with_project_name(app.as_str())
        .with_env("VERSION", version)
        .with_env("BROKEN", broken.unwrap_or_default());
    let mut spec =
        reader.read_file(&file).map_err(|problems| render(&problems, |name| std::fs::read_to_string(name).ok()))?.spec;
    // The file names the image `shop:v1`, as Compose would; here that could take the name from somebody's own.
    for service in spec.services.values_mut() {
        if let ImageSource::Build(build) = &mut service.image {
            build.tag = None;
        }
    }
    Ok(spec)
}

/// From which state of the sources it is built, for the history.
pub(crate) fn git_state() -> Option<GitState> {
    deployer_local::git_state(&directory())
}
