//! Images for other processors are refused before anything is touched, on the emulator that `scripts/aws-emulator` starts.

use std::sync::Arc;

use bollard::Docker;
use bollard::query_parameters::{ImportImageOptionsBuilder, RemoveImageOptionsBuilder};
use deployer_aws::{Architecture, EcrOptions, EcrRegistry};
use deployer_core::{
    AppName, BuiltImage, Call, DeploymentId, Digest, Error, ErrorKind, Progress, ProgressSink, PublishImage,
    Registry as _, ResolveImage, ServiceName, Timestamp,
};
use futures_util::TryStreamExt as _;
use serde_json::json;

use crate::stage::{REGISTRY, Stage, config};

struct Silence;

impl ProgressSink for Silence {
    fn progress(&self, _: Progress) {}
}

fn registry(architecture: Architecture) -> EcrRegistry {
    let options = EcrOptions::default().with_host(REGISTRY).with_architecture(architecture);
    EcrRegistry::new(&config(), options).unwrap()
}

async fn resolve(registry: &EcrRegistry, reference: &str) -> Result<(), Error> {
    let call = Call::new("platform", Timestamp::from_millis(i64::MAX));
    registry.resolve(ResolveImage::new(call, reference, Arc::new(Silence))).await.map(drop)
}

fn refused(result: Result<(), Error>, is_for: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let report = error.report().to_string();
    assert!(report.contains("other processors") && report.contains(is_for), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_for_other_processors_are_refused() {
    let name = format!("cpu-{}", DeploymentId::fresh().as_str().get(24..).unwrap());
    let stage = Stage::new(&name).await.unwrap();
    let (intel, arm) = (registry(Architecture::X86_64), registry(Architecture::Arm64));

    // A single image, of which the engine tells what it is for.
    resolve(&intel, &stage.image).await.unwrap();
    refused(resolve(&arm, &stage.image).await, "linux/amd64");

    // An index, which says so itself.
    let platform = json!({"os": "linux", "architecture": "arm64"});
    let manifest = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 2,
                          "digest": Digest::of(b"{}").as_str(), "platform": platform});
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": [manifest]}).to_string();
    let call = stage.ecr.put_image().repository_name(&stage.name).image_tag("index").image_manifest(index);
    call.image_manifest_media_type(kind).send().await.unwrap();
    let index = format!("{REGISTRY}/{name}:index");
    resolve(&arm, &index).await.unwrap();
    refused(resolve(&intel, &index).await, "linux/arm64");

    // One that was built here, before anything is made for it.
    let built = load(&stage.docker, &format!("{name}:arm"), "arm64").await;
    let (app, service) = (AppName::new(&name).unwrap(), ServiceName::new("web").unwrap());
    let call = Call::new("platform", Timestamp::from_millis(i64::MAX));
    let publish = |registry: EcrRegistry| {
        let request = PublishImage::new(call.clone(), app.clone(), service.clone(), built.clone(), Arc::new(Silence));
        async move { registry.publish(request).await }
    };
    let published = publish(intel).await;
    let repositories = stage.ecr.describe_repositories().send().await.unwrap();
    // The other one takes it, and the engine is left with the name that it had before.
    let taken = publish(arm).await;
    let names = stage.docker.inspect_image(&format!("{name}:arm")).await.unwrap().repo_tags.unwrap();
    let force = RemoveImageOptionsBuilder::default().force(true).build();
    stage.docker.remove_image(&format!("{name}:arm"), Some(force), None).await.unwrap();
    stage.clear().await.unwrap();
    let repository = taken.unwrap().location;
    let repository = repository.strip_prefix(&format!("{REGISTRY}/")).unwrap().split('@').next().unwrap();
    stage.ecr.delete_repository().repository_name(repository).force(true).send().await.unwrap();
    let of_registry = names.iter().find(|one| one.starts_with(&format!("{REGISTRY}/{repository}:")));
    assert_eq!(of_registry, None, "{names:?}");
    refused(published.map(drop), "linux/arm64");
    let made = repositories.repositories().iter().filter_map(|one| one.repository_name());
    assert!(!made.into_iter().any(|repository| repository.contains(&format!("{name}/"))), "nothing was made");
}

/// An empty image for these processors, as it would come of a build.
async fn load(docker: &Docker, name: &str, architecture: &str) -> BuiltImage {
    let layer = tar::Builder::new(Vec::new()).into_inner().unwrap();
    let rootfs = json!({"type": "layers", "diff_ids": [Digest::of(&layer).as_str()]});
    let config = json!({"architecture": architecture, "os": "linux", "config": {}, "rootfs": rootfs}).to_string();
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).to_string();
    let mut files = tar::Builder::new(Vec::new());
    let parts = [("config.json", config.as_bytes()), ("manifest.json", manifest.as_bytes()), ("layer.tar", &layer)];
    for (path, content) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        files.append_data(&mut header, path, content).unwrap();
    }
    let body = bollard::body_full(files.into_inner().unwrap().into());
    let options = ImportImageOptionsBuilder::default().build();
    docker.import_image(options, body, None).try_collect::<Vec<_>>().await.unwrap();
    let image = docker.inspect_image(name).await.unwrap();
    assert_eq!(image.architecture.as_deref(), Some(architecture));
    BuiltImage::new(Digest::new(image.id.unwrap()).unwrap(), name)
}
