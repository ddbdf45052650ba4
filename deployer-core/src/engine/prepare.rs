//! From a spec to what a release is made of: images built or found and pinned, secrets pinned.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::calls::{Access, Calls};
use super::event::{EventKind, Events};
use crate::backend::{Backend, BuildImage, BuiltImage, PublishImage, ResolveImage, Secrets};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{AppName, AppSpec, BuildSpec, ImageSource, PinnedImage, ServiceName, ServiceRelease, ServiceSpec};

/// How long building, pulling or pushing one image may take.
const IMAGE: Duration = Duration::from_secs(60 * 60);

/// Pins everything that a spec leaves open.
#[derive(Clone, Debug)]
pub(crate) struct Prepare {
    pub(crate) backend: Backend,
    pub(crate) calls: Calls,
    pub(crate) secrets: Arc<dyn Secrets>,
    pub(crate) events: Events,
    pub(crate) key: String,
}

impl Prepare {
    /// Pins all services of a spec, as many at once as there are; equal builds are done once.
    pub(crate) async fn services(&self, spec: &AppSpec) -> Result<BTreeMap<ServiceName, ServiceRelease>> {
        let mut builds: Vec<(BuildSpec, ServiceName)> = Vec::new();
        for (name, service) in &spec.services {
            if let ImageSource::Build(build) = &service.image
                && !builds.iter().any(|(known, _)| known == build)
            {
                builds.push((build.clone(), name.clone()));
            }
        }
        let mut building = JoinSet::new();
        for (build, service) in builds {
            let (this, app) = (self.clone(), spec.name.clone());
            building.spawn(async move {
                let built = this.build(&app, &service, &build).await;
                built.map(|image| (build, image))
            });
        }
        let built = collect(building).await?;

        let mut pinning = JoinSet::new();
        for (name, service) in &spec.services {
            let (this, app, name, service) = (self.clone(), spec.name.clone(), name.clone(), service.clone());
            let built = match &service.image {
                ImageSource::Build(build) => {
                    built.iter().find(|(known, _)| known == build).map(|(_, image)| image.clone())
                }
                ImageSource::Reference(_) => None,
            };
            pinning.spawn(async move {
                let pinned = this.service(&app, &name, service, built).await;
                pinned.map(|service| (name, service))
            });
        }
        Ok(collect(pinning).await?.into_iter().collect())
    }

    async fn build(&self, app: &AppName, service: &ServiceName, build: &BuildSpec) -> Result<BuiltImage> {
        let mut secrets = BTreeMap::new();
        for (id, reference) in &build.secrets {
            let reveal = || self.secrets.reveal(reference);
            let value = self.calls.insist("secrets.reveal", &reference.name, Access::Read, IMAGE, reveal).await?;
            secrets.insert(id.clone(), value);
        }
        let progress = self.events.preparing(service);
        let request = || {
            let call = self.calls.frame(format!("{}-{service}", self.key), IMAGE);
            let (build, secrets, progress) = (build.clone(), secrets.clone(), Arc::clone(&progress));
            BuildImage::new(call, app.clone(), service.clone(), build, secrets, progress)
        };
        let made = || self.backend.builder.build(request());
        self.calls.insist("builder.build", service, Access::Change, IMAGE, made).await
    }

    async fn service(
        &self,
        app: &AppName,
        name: &ServiceName,
        mut service: ServiceSpec,
        built: Option<BuiltImage>,
    ) -> Result<ServiceRelease> {
        for reference in service.workload.secrets_mut() {
            let pin = || self.secrets.pin(reference);
            *reference = self.calls.insist("secrets.pin", &reference.name, Access::Read, IMAGE, pin).await?;
        }
        let image = self.image(app, name, &service.image, built).await?;
        let text = format!("{} is {}", image.reference, image.digest.short());
        self.events.send(EventKind::Pinned { service: name.clone(), image: text });
        Ok(service.with_image(image))
    }

    async fn image(
        &self,
        app: &AppName,
        service: &ServiceName,
        source: &ImageSource,
        built: Option<BuiltImage>,
    ) -> Result<PinnedImage> {
        let call = || self.calls.frame(format!("{}-{service}-image", self.key), IMAGE);
        let progress = self.events.preparing(service);
        match (source, built) {
            (ImageSource::Reference(reference), _) => {
                let request = || ResolveImage::new(call(), reference.clone(), Arc::clone(&progress));
                let resolve = || self.backend.registry.resolve(request());
                self.calls.insist("registry.resolve", reference, Access::Change, IMAGE, resolve).await
            }
            (ImageSource::Build(_), Some(image)) => {
                let reference = image.reference.clone();
                let request = || {
                    let (app, service, progress) = (app.clone(), service.clone(), Arc::clone(&progress));
                    PublishImage::new(call(), app, service, image.clone(), progress)
                };
                let publish = || self.backend.registry.publish(request());
                self.calls.insist("registry.publish", reference, Access::Change, IMAGE, publish).await
            }
            (ImageSource::Build(_), None) => {
                Err(Error::new(ErrorKind::Internal, "an image that was built is lost").with_resource(service.as_str()))
            }
        }
    }
}

/// The results of all tasks, or the first error; the rest is then given up.
async fn collect<T: 'static>(mut tasks: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut results = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok(result) => results.push(result?),
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
    Ok(results)
}
