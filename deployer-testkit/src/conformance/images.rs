//! The suites of [`ImageBuilder`](deployer_core::ImageBuilder) and [`Registry`](deployer_core::Registry).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use deployer_core::{
    AppName, BuildImage, BuiltImage, Digest, ErrorKind, ImageSource, PinnedImage, Progress, ProgressSink, PruneImages,
    PublishImage, ResolveImage, Result,
};

use super::case::{Case, CaseResult, begin_and_drop, check, fails, nothing, same};
use super::ground::{Ground, Silence, web};
use super::profile::Need;
use super::site::Build;

/// All cases of both suites.
pub(super) fn cases() -> Vec<Case<Ground>> {
    let builds = |case: Case<Ground>| case.needs(Need::Builds);
    vec![
        builds(Case::new("builder/a-build-answers-an-image-and-tells-of-it", |g| Box::pin(built(g)))),
        builds(Case::new("builder/an-equal-build-is-an-equal-image", |g| Box::pin(built_again(g)))),
        builds(Case::new("builder/another-argument-is-another-image", |g| Box::pin(other_argument(g)))),
        builds(Case::new("builder/a-failing-instruction-is-a-workload-error", |g| Box::pin(failing(g)))),
        builds(Case::new("builder/a-missing-context-is-invalid-input", |g| Box::pin(unreadable(g)))),
        builds(Case::new("builder/build-may-be-dropped-and-repeated", |g| Box::pin(build_dropped(g)))),
        Case::new("registry/resolve-pins-what-can-be-run", |g| Box::pin(resolved(g))),
        Case::new("registry/resolve-again-answers-the-same", |g| Box::pin(resolved_again(g))),
        Case::new("registry/resolve-of-what-is-not-there-is-not-found", |g| Box::pin(unresolved(g))),
        builds(Case::new("registry/publish-makes-an-image-available", |g| Box::pin(published(g)))),
        builds(Case::new("registry/publish-again-answers-the-same", |g| Box::pin(published_again(g)))),
        builds(Case::new("registry/publish-of-what-is-not-there-is-not-found", |g| Box::pin(unpublished(g)))),
        builds(Case::new("registry/missing-tells-what-is-gone", |g| Box::pin(missing(g)))),
        Case::new("registry/missing-of-nothing-is-empty", |g| Box::pin(missing_nothing(g))),
        builds(Case::new("registry/prune-removes-what-is-not-kept", |g| Box::pin(pruned(g)))),
        builds(Case::new("registry/prune-leaves-what-is-used", |g| Box::pin(prune_used(g)))),
        Case::new("registry/prune-leaves-what-it-has-not-published", |g| Box::pin(prune_foreign(g))),
        builds(Case::new("registry/prune-leaves-the-neighbours-images", |g| Box::pin(prune_neighbour(g)))),
        Case::new("registry/prune-of-nothing-is-empty", |g| Box::pin(prune_nothing(g))),
    ]
}

/// Keeps progress.
#[derive(Default)]
struct Told(Mutex<Vec<Progress>>);

impl ProgressSink for Told {
    fn progress(&self, progress: Progress) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(progress);
    }
}

fn building(ground: &Ground, build: Build<'_>, sink: Arc<dyn ProgressSink>) -> BuildImage {
    building_for(ground, ground.app(), build, sink)
}

fn building_for(ground: &Ground, app: AppName, build: Build<'_>, sink: Arc<dyn ProgressSink>) -> BuildImage {
    let spec = ground.scope.build(build);
    BuildImage::new(ground.call(), app, web(), spec, BTreeMap::new(), sink)
}

async fn build(ground: &Ground, what: Build<'_>) -> Result<BuiltImage> {
    ground.backend.builder.build(building(ground, what, Arc::new(Silence))).await
}

async fn publish(ground: &Ground, app: AppName, image: BuiltImage) -> Result<PinnedImage> {
    ground.backend.registry.publish(PublishImage::new(ground.call(), app, web(), image, Arc::new(Silence))).await
}

async fn resolve(ground: &Ground, reference: &str) -> Result<PinnedImage> {
    ground.backend.registry.resolve(ResolveImage::new(ground.call(), reference, Arc::new(Silence))).await
}

/// An image of the application, built and published.
async fn made(ground: &Ground, version: &str) -> CaseResult<PinnedImage> {
    let image = build(ground, Build::Version(version)).await?;
    Ok(publish(ground, ground.app(), image).await?)
}

async fn prune(ground: &Ground, keep: &[&PinnedImage]) -> Result<Vec<String>> {
    let keep: BTreeSet<Digest> = keep.iter().map(|image| image.digest.clone()).collect();
    ground.backend.registry.prune(PruneImages::new(ground.call(), ground.app(), keep)).await
}

async fn built(ground: &Ground) -> CaseResult {
    let told = Arc::new(Told::default());
    let request = building(ground, Build::Version("a"), Arc::<Told>::clone(&told));
    let image = ground.backend.builder.build(request).await?;
    check(!image.reference.is_empty(), "an image has a name")?;
    let told = told.0.lock().unwrap_or_else(PoisonError::into_inner);
    check(!told.is_empty(), "the builder tells what it does")
}

async fn built_again(ground: &Ground) -> CaseResult {
    let first = build(ground, Build::Version("a")).await?;
    same("the digest of an equal build", build(ground, Build::Version("a")).await?.digest, first.digest)
}

async fn other_argument(ground: &Ground) -> CaseResult {
    let first = build(ground, Build::Version("a")).await?;
    let second = build(ground, Build::Version("b")).await?;
    check(first.digest != second.digest, format!("two versions are one image: {first:?}"))
}

async fn failing(ground: &Ground) -> CaseResult {
    let error = fails("building it", build(ground, Build::Fails).await, ErrorKind::Workload)?;
    let words = format!("{} {:?}", error.report(), error.context());
    check(words.contains("FATAL: no compiler"), format!("the error must have the last lines of the output: {words}"))
}

async fn unreadable(ground: &Ground) -> CaseResult {
    fails("building it", build(ground, Build::Unreadable).await, ErrorKind::InvalidInput).map(drop)
}

async fn build_dropped(ground: &Ground) -> CaseResult {
    let request = building(ground, Build::Version("a"), Arc::new(Silence));
    for polls in [1, 3, 9, 27] {
        begin_and_drop(ground.backend.builder.build(request.clone()), polls).await;
    }
    let image = ground.backend.builder.build(request).await?;
    publish(ground, ground.app(), image).await?;
    Ok(())
}

async fn resolved(ground: &Ground) -> CaseResult {
    let image = resolve(ground, &ground.scope.image()).await?;
    same("the reference that is shown", image.reference.clone(), ground.scope.image())?;
    check(ground.scope.has_image(&image).await?, "a resolved image can be run")?;
    nothing("missing images", &ground.backend.registry.missing(&[image]).await?)
}

async fn resolved_again(ground: &Ground) -> CaseResult {
    let request = ResolveImage::new(ground.call(), ground.scope.image(), Arc::new(Silence));
    let first = ground.backend.registry.resolve(request.clone()).await?;
    same("a repetition", ground.backend.registry.resolve(request).await?, first)
}

async fn unresolved(ground: &Ground) -> CaseResult {
    let answer = resolve(ground, &ground.scope.missing_image()).await;
    let error = fails("resolving an image that nobody has", answer, ErrorKind::NotFound)?;
    same("the advice on retrying", error.retry(), deployer_core::Retry::Never)
}

async fn published(ground: &Ground) -> CaseResult {
    let built = build(ground, Build::Version("a")).await?;
    let image = publish(ground, ground.app(), built.clone()).await?;
    check(ground.scope.has_image(&image).await?, "a published image can be run")?;
    nothing("missing images", &ground.backend.registry.missing(&[image]).await?)
}

async fn published_again(ground: &Ground) -> CaseResult {
    let built = build(ground, Build::Version("a")).await?;
    let request = PublishImage::new(ground.call(), ground.app(), web(), built, Arc::new(Silence));
    let first = ground.backend.registry.publish(request.clone()).await?;
    same("a repetition", ground.backend.registry.publish(request).await?, first)
}

async fn unpublished(ground: &Ground) -> CaseResult {
    let unknown = BuiltImage::new(Digest::of(ground.app().as_str().as_bytes()), ground.scope.missing_image());
    let answer = publish(ground, ground.app(), unknown).await;
    fails("publishing an image that the builder does not have", answer, ErrorKind::NotFound).map(drop)
}

async fn missing(ground: &Ground) -> CaseResult {
    let (first, second) = (made(ground, "a").await?, made(ground, "b").await?);
    let both = [first.clone(), second.clone()];
    nothing("missing images", &ground.backend.registry.missing(&both).await?)?;
    ground.scope.lose_image(&second).await?;
    same("the missing images", ground.backend.registry.missing(&both).await?, [second])
}

async fn missing_nothing(ground: &Ground) -> CaseResult {
    nothing("missing images", &ground.backend.registry.missing(&[]).await?)
}

async fn pruned(ground: &Ground) -> CaseResult {
    let (first, second) = (made(ground, "a").await?, made(ground, "b").await?);
    nothing("removed images where all are kept", &prune(ground, &[&first, &second]).await?)?;
    same("how many were removed", prune(ground, &[&second]).await?.len(), 1)?;
    check(!ground.scope.has_image(&first).await?, "what is not kept is gone")?;
    check(ground.scope.has_image(&second).await?, "what is kept is there")?;
    nothing("removed images of a repetition", &prune(ground, &[&second]).await?)?;
    same("the missing images", ground.backend.registry.missing(&[first.clone(), second.clone()]).await?, [first])
}

async fn prune_used(ground: &Ground) -> CaseResult {
    let mut service = ground.serves("a");
    service.image = ImageSource::Build(ground.scope.build(Build::Version("a")));
    let release = ground.prepared(service).await?;
    ground.launch(&release, 1).await?;
    nothing("removed images", &prune(ground, &[]).await?)?;
    let image = release.services.get(&web()).map(|service| service.image.clone()).ok_or("it has the service")?;
    check(ground.scope.has_image(&image).await?, "what is used is there")?;
    ground.reduced(&release, 0).await?;
    same("how many were removed", prune(ground, &[]).await?.len(), 1)?;
    check(!ground.scope.has_image(&image).await?, "what is not used any more is gone")
}

async fn prune_foreign(ground: &Ground) -> CaseResult {
    let image = resolve(ground, &ground.scope.image()).await?;
    nothing("removed images", &prune(ground, &[]).await?)?;
    check(ground.scope.has_image(&image).await?, "what was only resolved is there")
}

async fn prune_neighbour(ground: &Ground) -> CaseResult {
    let request = building_for(ground, ground.scope.neighbour(), Build::Version("a"), Arc::new(Silence));
    let built = ground.backend.builder.build(request).await?;
    let theirs = publish(ground, ground.scope.neighbour(), built).await?;
    nothing("removed images", &prune(ground, &[]).await?)?;
    check(ground.scope.has_image(&theirs).await?, "the neighbour's image is there")
}

async fn prune_nothing(ground: &Ground) -> CaseResult {
    nothing("removed images of an unknown application", &prune(ground, &[]).await?)
}
