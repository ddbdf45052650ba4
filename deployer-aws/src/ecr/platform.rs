//! Whether an image is for the processors that it is to run on.

use bollard::models::OciPlatform;
use deployer_core::{Error, ErrorKind, Result};
use serde::Deserialize;

use crate::options::Architecture;

/// An [image index](https://github.com/opencontainers/image-spec/blob/main/image-index.md), or a manifest list, which is the
/// same.
#[derive(Deserialize)]
struct Index {
    manifests: Vec<Manifest>,
}

#[derive(Deserialize)]
struct Manifest {
    platform: Option<OciPlatform>,
}

/// What the images of an index are for; none if it is the manifest of a single image, which does not say.
pub(super) fn of_index(manifest: &str) -> Option<Vec<String>> {
    let index: Index = serde_json::from_str(manifest).ok()?;
    Some(of(index.manifests.into_iter().filter_map(|manifest| manifest.platform)))
}

/// Platforms as people write them: `linux/amd64`. What is no image, such as an attestation, has none.
pub(super) fn of(platforms: impl IntoIterator<Item = OciPlatform>) -> Vec<String> {
    let named = platforms.into_iter().filter_map(|platform| name(platform.os, platform.architecture));
    named.collect()
}

/// A platform as people write it.
pub(super) fn name(os: Option<String>, architecture: Option<String>) -> Option<String> {
    let known = |part: &String| !part.is_empty() && part != "unknown";
    Some(format!("{}/{}", os.filter(known)?, architecture.filter(known)?))
}

/// Refuses an image that is for other processors. One of which nobody can tell is let through: ECS says so later.
pub(super) fn check(wanted: Option<Architecture>, reference: &str, platforms: &[String]) -> Result<()> {
    let Some(wanted) = wanted.map(Architecture::platform) else { return Ok(()) };
    if platforms.is_empty() || platforms.iter().any(|platform| platform == wanted) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, "the image is for other processors than those of the environment")
        .with_resource(reference)
        .with_context("the image is for", platforms.join(", "))
        .with_context("the environment has", wanted)
        .with_help(format!("build it for {wanted}, or run it in an environment with other processors")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_tells_what_its_images_are_for() {
        let index = r#"{"schemaVersion": 2, "manifests": [
            {"digest": "sha256:1", "platform": {"os": "linux", "architecture": "amd64"}},
            {"digest": "sha256:2", "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
            {"digest": "sha256:3", "platform": {"os": "unknown", "architecture": "unknown"}},
            {"digest": "sha256:4"}]}"#;
        let platforms = of_index(index).unwrap();
        assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
        assert_eq!(of_index(r#"{"schemaVersion": 2, "config": {}, "layers": []}"#), None);
        for wanted in [None, Some(Architecture::X86_64), Some(Architecture::Arm64)] {
            check(wanted, "shop:v1", &platforms).unwrap();
            check(wanted, "shop:v1", &[]).unwrap();
        }
        let error = check(Some(Architecture::Arm64), "shop:v1", &platforms[..1]).unwrap_err();
        assert_eq!((error.kind(), error.resource()), (ErrorKind::InvalidInput, Some("shop:v1")));
        assert_eq!(error.help(), Some("build it for linux/arm64, or run it in an environment with other processors"));
    }
}
