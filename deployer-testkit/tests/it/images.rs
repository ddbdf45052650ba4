//! The rules of builder and registry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deployer_core::{
    BuildImage, BuildSpec, BuiltImage, Digest, ErrorKind, PinnedImage, PruneImages, PublishImage, ResolveImage, Result,
};
use deployer_testkit::{Rule, World, simulate};

use crate::fixture::{Driver, Silence, app, spec, web};

async fn resolve(driver: &Driver, reference: &str) -> Result<PinnedImage> {
    let request = ResolveImage::new(driver.call(), reference, Arc::new(Silence));
    driver.backend.registry.resolve(request).await
}

async fn build(driver: &Driver, spec: BuildSpec) -> Result<BuiltImage> {
    let request = BuildImage::new(driver.call(), app(), web(), spec, BTreeMap::new(), Arc::new(Silence));
    driver.backend.builder.build(request).await
}

async fn publish(driver: &Driver, image: BuiltImage) -> Result<PinnedImage> {
    let request = PublishImage::new(driver.call(), app(), web(), image, Arc::new(Silence));
    driver.backend.registry.publish(request).await
}

#[test]
fn references_are_pinned_to_what_they_name_now() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let first = resolve(&driver, "shop:v1").await.unwrap();
        assert_eq!(resolve(&driver, "shop:v1").await.unwrap(), first);
        assert_eq!(first.location, format!("shop@{}", first.digest));
        driver.world.replace_image("shop:v1", &[8080]);
        let moved = resolve(&driver, "shop:v1").await.unwrap();
        assert_ne!(moved.digest, first.digest);
        assert_eq!(moved.exposed_ports, [8080]);
        assert_eq!(resolve(&driver, &first.location).await.unwrap().digest, first.digest);
        assert_eq!(resolve(&driver, "shop:v99").await.unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn equal_builds_make_equal_images_until_the_files_change() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let first = build(&driver, BuildSpec::new("./web")).await.unwrap();
        assert_eq!(build(&driver, BuildSpec::new("./web")).await.unwrap(), first);
        let other = build(&driver, BuildSpec::new("./web").with_arg("A", "1")).await.unwrap();
        assert_ne!(other.digest, first.digest);
        driver.world.touch_context("./web");
        assert_ne!(build(&driver, BuildSpec::new("./web")).await.unwrap().digest, first.digest);
        driver.world.break_build("web", Some("RUN make: exit code 2"));
        let broken = build(&driver, BuildSpec::new("./web")).await.unwrap_err();
        assert_eq!((broken.kind(), broken.message()), (ErrorKind::Workload, "RUN make: exit code 2"));
    });
}

#[test]
fn a_built_image_runs_once_it_is_published_and_until_it_is_pruned() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let built = build(&driver, BuildSpec::new("./web")).await.unwrap();
        let pinned = PinnedImage::new(built.reference.clone(), "x", built.digest.clone());
        let missing = || async { driver.backend.registry.missing(std::slice::from_ref(&pinned)).await.unwrap() };
        assert_eq!(missing().await.len(), 1);
        let unknown = BuiltImage::new(Digest::of(b"?"), "?");
        assert_eq!(publish(&driver, unknown).await.unwrap_err().kind(), ErrorKind::NotFound);
        let published = publish(&driver, built.clone()).await.unwrap();
        assert_eq!(published.digest, built.digest);
        assert!(missing().await.is_empty());
        let prune =
            |keep: BTreeSet<Digest>| driver.backend.registry.prune(PruneImages::new(driver.call(), app(), keep));
        assert!(prune(BTreeSet::from([built.digest.clone()])).await.unwrap().is_empty());
        assert_eq!(prune(BTreeSet::new()).await.unwrap().len(), 1);
        assert_eq!(missing().await.len(), 1);
    });
}

#[test]
fn what_runs_or_was_not_published_is_not_pruned() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let built = build(&driver, BuildSpec::new("./web")).await.unwrap();
        let published = publish(&driver, built).await.unwrap();
        let mut release = driver.unstored(spec("shop:v1")).await;
        release.services.get_mut(&web()).unwrap().image = published;
        let release = driver.backend.store.put_release(release, driver.lease.fence).await.unwrap();
        let release = Arc::new(release);
        driver.prepare(&release).await;
        driver.launch(&release, 1).await.unwrap();
        let prune = || driver.backend.registry.prune(PruneImages::new(driver.call(), app(), BTreeSet::new()));
        assert!(prune().await.unwrap().is_empty());
        driver.reduce(&release, 0).await;
        assert_eq!(prune().await.unwrap().len(), 1);
        resolve(&driver, "shop:v1").await.unwrap();
    });
}

#[test]
fn a_lost_image_cannot_be_run_and_an_unknown_one_is_a_violation() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let release = driver.release(spec("shop:v1")).await;
        driver.prepare(&release).await;
        driver.world.lose_image("shop:v1");
        assert_eq!(driver.launch(&release, 1).await.unwrap_err().kind(), ErrorKind::NotFound);
        driver.world.assert_no_violations();
        let mut release = driver.unstored(spec("shop:v2")).await;
        release.services.get_mut(&web()).unwrap().image.digest = Digest::of(b"made up");
        let release = driver.backend.store.put_release(release, driver.lease.fence).await.unwrap();
        assert_eq!(driver.launch(&Arc::new(release), 1).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(driver.world.violations()[0].rule, Rule::ImageIsKnown);
    });
}
