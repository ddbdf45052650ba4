//! Further tags of images, on the emulator that `scripts/aws-emulator` starts.

use std::sync::Arc;

use deployer_aws::{EcrOptions, EcrRegistry};
use deployer_core::{
    Call, DeploymentId, ErrorKind, PinnedImage, Progress, ProgressSink, Registry as _, ResolveImage, Timestamp,
};

use crate::stage::{REGISTRY, Stage, config};

struct Silence;

impl ProgressSink for Silence {
    fn progress(&self, _: Progress) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_known_by_a_further_tag() {
    let name = format!("tags-{}", DeploymentId::fresh().as_str().get(24..).unwrap());
    let stage = Stage::new(&name).await.unwrap();
    let images = EcrRegistry::new(&config(), EcrOptions::default().with_host(REGISTRY)).unwrap();
    let resolve = async |reference: String| -> PinnedImage {
        let call = Call::new("tags", Timestamp::from_millis(i64::MAX));
        images.resolve(ResolveImage::new(call, reference, Arc::new(Silence))).await.unwrap()
    };
    let image = resolve(stage.image.clone()).await;
    images.tag(&image, "v1.2.3").await.unwrap();
    images.tag(&image, "v1.2.3").await.unwrap();
    assert_eq!(resolve(format!("{REGISTRY}/{name}:v1.2.3")).await.digest, image.digest);

    let mut other = image.clone();
    other.digest = deployer_core::Digest::of(b"another image");
    assert_eq!(images.tag(&other, "v1.2.3").await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(images.tag(&other, "v2").await.unwrap_err().kind(), ErrorKind::NotFound);
    stage.clear().await.unwrap();
}
