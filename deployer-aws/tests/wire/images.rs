//! Further tags of images in ECR.

use deployer_aws::{EcrOptions, EcrRegistry};
use deployer_core::{AppName, Call, ErrorKind, PinnedImage, Registry as _, ResolveImage, Timestamp};
use deployer_testkit::{World, simulate};

use crate::cloud::http::{Wire, no_engine};
use crate::cloud::images_api::REGISTRY;
use crate::cloud::scenarios::APP;
use crate::cloud::strike::Strikes;
use crate::cloud::{Cloud, Profile};

#[test]
fn an_image_gets_a_further_tag_without_being_pulled() {
    let (world, app): (World, AppName) = (World::new(), APP.parse().unwrap());
    let mut cloud = Cloud::with_profile(Profile { whole: true, ..Profile::default() });
    let (first, second) = (cloud.push_image("shop", "one"), cloud.push_image("shop", "two"));
    let lost: Strikes = "PutImage 1: reply lost, each time; PutImage 4: reply lost".parse().unwrap();
    let wire = Wire::new(&world, &app, cloud, &lost);
    simulate(async {
        let config = wire.config(&wire.process());
        let images = EcrRegistry::with_engine(&config, EcrOptions::default(), no_engine());
        let (one, two) = (resolve(&images, &first).await, resolve(&images, &second).await);

        // Whether it was done is not known; the next attempt finds it.
        assert_eq!(images.tag(&one, "v1.2.3").await.unwrap_err().kind(), ErrorKind::Unavailable);
        images.tag(&one, "v1.2.3").await.unwrap();
        assert_eq!(resolve(&images, &format!("{REGISTRY}/shop:v1.2.3")).await.digest, one.digest);
        let put = || wire.requests().iter().filter(|request| request.operation == "PutImage").count();
        let before = put();
        images.tag(&one, "v1.2.3").await.unwrap();
        assert_eq!(put(), before, "nothing is to be done");

        // The client sends it again by itself.
        images.tag(&two, "v2.0.0").await.unwrap();
        assert!(put() > before + 1, "it was not sent again");

        let refused = async |image: &PinnedImage, tag: &str| images.tag(image, tag).await.unwrap_err().kind();
        assert_eq!(refused(&two, "v1.2.3").await, ErrorKind::AlreadyExists);
        assert_eq!(refused(&one, "deployer-0123").await, ErrorKind::InvalidInput);
        assert_eq!(refused(&one, "not a tag").await, ErrorKind::InvalidInput);
        wire.cloud(|cloud| cloud.lose_image(two.digest.as_str()));
        assert_eq!(refused(&two, "v2").await, ErrorKind::NotFound);
        let elsewhere = PinnedImage::new("redis", format!("redis@{}", one.digest), one.digest.clone());
        assert_eq!(refused(&elsewhere, "v3").await, ErrorKind::NotFound);
    });
    assert_eq!(wire.cloud(|cloud| cloud.broken.clone()), Vec::<String>::new());
}

#[test]
fn a_token_that_is_about_to_end_is_renewed() {
    let (world, app): (World, AppName) = (World::new(), APP.parse().unwrap());
    let mut cloud = Cloud::with_profile(Profile { whole: true, ..Profile::default() });
    let image = cloud.push_image("shop", "one");
    let wire = Wire::new(&world, &app, cloud, &Strikes::default());
    simulate(async {
        let images = EcrRegistry::with_engine(&wire.config(&wire.process()), EcrOptions::default(), no_engine());
        let asked = async |lasts: u64| {
            wire.cloud(|cloud| cloud.token_lasts = Some(lasts));
            resolve(&images, &image).await;
            wire.requests().iter().filter(|request| request.operation == "GetAuthorizationToken").count()
        };
        // A push may take longer than what is left of it.
        assert_eq!((asked(600).await, asked(12 * 3_600).await, asked(600).await), (1, 2, 2));
    });
}

async fn resolve(images: &EcrRegistry, reference: &str) -> PinnedImage {
    let call = Call::new("images", Timestamp::from_millis(i64::MAX));
    images.resolve(ResolveImage::new(call, reference, std::sync::Arc::new(Silence))).await.unwrap()
}

struct Silence;

impl deployer_core::ProgressSink for Silence {
    fn progress(&self, _: deployer_core::Progress) {}
}
