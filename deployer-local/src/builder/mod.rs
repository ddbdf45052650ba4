//! Builds images with the Docker Engine: with BuildKit where the engine has it, else with the classic builder.

mod failure;
mod output;
mod request;
#[cfg(feature = "build-secrets")]
mod session;
mod trace;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bollard::query_parameters::TagImageOptionsBuilder;
use deployer_core::{BuildImage, BuildSpec, BuiltImage, Digest, Error, ErrorKind, ImageBuilder, ProgressSink, Result};
use hyper::header::HeaderValue;

use crate::context::BuildContext;
use crate::credentials::Credentials;
use crate::engine::{Engine, classify};
use crate::{image_name, naming::ours};

use failure::Cause;
use output::{Failed, Output};
use request::Request;

const OPERATION: &str = "builder.build";

/// Builds images with the Docker Engine.
///
/// The result is named `deployer/<app>/<service>:<digits of its id>` and labelled with the application, so that
/// [`EngineRegistry`](crate::EngineRegistry) can prune it.
///
/// BuildKit is used without a session, but for builds with secrets. Those need the cargo feature `build-secrets`, and are
/// refused without it; they show no progress. Builds with a size of `/dev/shm` are made by the classic builder.
#[derive(Clone, Debug)]
pub struct DockerBuilder {
    engine: Engine,
}

/// Who builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Classic,
    BuildKit,
}

/// Why a build did not succeed: it failed, or it could not be asked for.
enum Trouble {
    Failed(Failed),
    Error(Error),
}

impl DockerBuilder {
    /// Builds with this engine.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// Builds with the newest builder that can.
    async fn build_somehow(&self, request: &BuildImage) -> Result<String> {
        let spec = request.build.clone();
        let context = blocking(move || BuildContext::gather(&spec)).await??;
        let mut context = Arc::new(context);
        let credentials = blocking(Credentials::of_user).await?;
        // BuildKit takes no note of the size without a session, and does not say so.
        let sized = request.build.shm_size.is_some();
        let mut version = if sized { Version::Classic } else { Version::BuildKit };
        let mut own_frontend = false;
        loop {
            #[cfg(feature = "build-secrets")]
            let built = if request.secrets.is_empty() {
                self.build_once(request, &context, version, credentials.header()).await
            } else {
                self.build_with_secrets(request, &context, &credentials).await
            };
            #[cfg(not(feature = "build-secrets"))]
            let built = self.build_once(request, &context, version, credentials.header()).await;
            let failed = match built {
                Ok(image) => return Ok(image),
                Err(Trouble::Error(error)) => return Err(error),
                Err(Trouble::Failed(failed)) => failed,
            };
            match (version, failed.cause()) {
                (Version::BuildKit, Cause::NoFrontend) if !own_frontend => {
                    own_frontend = true;
                    let spec = request.build.clone();
                    match blocking(move || BuildContext::gather_without_syntax(&spec)).await?? {
                        // The frontend that BuildKit holds itself understands most Dockerfiles.
                        Some(without) => context = Arc::new(without),
                        None => return Err(failed.into_error()),
                    }
                }
                (Version::BuildKit, Cause::NoBuildKit) if request.secrets.is_empty() => version = Version::Classic,
                // BuildKit asks a session for credentials; the classic builder takes them with the request.
                (Version::BuildKit, Cause::Denied) if request.secrets.is_empty() && !credentials.is_empty() => {
                    version = Version::Classic;
                }
                _ => return Err(failed.into_error()),
            }
            tracing::debug!(?version, message = failed.message, "building in another way");
        }
    }

    async fn build_once(
        &self,
        request: &BuildImage,
        context: &Arc<BuildContext>,
        version: Version,
        credentials: Option<HeaderValue>,
    ) -> Result<String, Trouble> {
        let query = query(request, context, version);
        let (archive, unread) = context.stream();
        let sink: &dyn ProgressSink = &*request.progress;
        let mut output = Output::new(sink);
        let sent = Request { query, credentials };
        let answer = sent.send(self.engine.docker(), archive, |message| output.take(message)).await;
        if let Some(error) = unread.take() {
            return Err(Trouble::Error(error));
        }
        match answer {
            Ok(()) => output.end().map_err(Trouble::Failed),
            // The classic builder reads the Dockerfile before it answers.
            Err(bollard::errors::Error::DockerResponseServerError { message, .. }) => {
                Err(Trouble::Failed(output.failure(message)))
            }
            Err(error) => Err(Trouble::Error(classify(OPERATION, request.service.as_str(), error))),
        }
    }

    async fn tag(&self, image: &str, name: &str) -> Result<()> {
        let (repository, tag) = image_name::split(name);
        let options = TagImageOptionsBuilder::new().repo(repository).tag(tag).build();
        self.engine.docker().tag_image(image, Some(options)).await.map_err(|error| classify(OPERATION, name, error))
    }
}

#[async_trait]
impl ImageBuilder for DockerBuilder {
    async fn build(&self, request: BuildImage) -> Result<BuiltImage> {
        let resource = format!("{}/{}", request.app, request.service);
        let named = |error: Error| error.with_operation(OPERATION).with_resource(resource.clone());
        check_secrets(&request).map_err(named)?;
        let image = self.build_somehow(&request).await.map_err(named)?;
        let digest = Digest::new(&image).map_err(|error| {
            named(Error::new(ErrorKind::Internal, "the Docker Engine's image id is no digest").with_source(error))
        })?;
        let name = image_name::image(&request.app, &request.service, &digest);
        self.tag(&image, &name).await?;
        for tag in request.build.tag.iter().chain(&request.build.tags) {
            self.tag(&image, tag).await?;
        }
        Ok(BuiltImage::new(digest, name))
    }
}

/// Refuses what this build of the crate cannot do.
fn check_secrets(request: &BuildImage) -> Result<()> {
    if let Some(id) = request.build.secrets.keys().find(|id| !request.secrets.contains_key(*id)) {
        return Err(Error::new(ErrorKind::InvalidInput, format!("the value of the build secret {id} is not given")));
    }
    if request.secrets.is_empty() {
        return Ok(());
    }
    let BuildSpec { extra_hosts, network, shm_size, .. } = &request.build;
    if !extra_hosts.is_empty() || network.is_some() || shm_size.is_some() {
        let message = "a build with secrets cannot have `extra_hosts`, `network` or `shm_size`";
        return Err(Error::new(ErrorKind::Unsupported, message).with_help("leave them out"));
    }
    if cfg!(feature = "build-secrets") {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, "this program was built without the means to hand secrets to a build")
        .with_help("turn on the cargo feature `build-secrets` of deployer-local, or give the secret to the service"))
}

/// The image's labels.
fn labels(request: &BuildImage) -> BTreeMap<&str, &str> {
    let own = request.build.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    own.chain([(ours::APP, request.app.as_str())]).collect()
}

fn query(request: &BuildImage, context: &BuildContext, version: Version) -> Vec<(&'static str, String)> {
    let build = &request.build;
    let mut query = vec![
        ("dockerfile", context.dockerfile().to_owned()),
        ("version", if version == Version::BuildKit { "2" } else { "1" }.to_owned()),
        ("rm", "1".to_owned()),
        // A build that fails leaves a container behind otherwise.
        ("forcerm", "1".to_owned()),
        ("labels", serde_json::json!(labels(request)).to_string()),
        ("buildargs", serde_json::json!(build.args).to_string()),
    ];
    if build.no_cache {
        query.push(("nocache", "1".to_owned()));
    }
    if let Some(target) = &build.target {
        query.push(("target", target.clone()));
    }
    if !build.extra_hosts.is_empty() {
        query.push(("extrahosts", build.extra_hosts.join(",")));
    }
    if let Some(network) = &build.network {
        query.push(("networkmode", network.clone()));
    }
    if let Some(size) = build.shm_size {
        query.push(("shmsize", size.to_string()));
    }
    query
}

/// Runs blocking work off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Error::new(ErrorKind::Internal, "the work on the build context did not end").with_source(error)
    })
}

#[cfg(test)]
mod tests;
