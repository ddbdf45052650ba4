//! Builds that use secrets: BuildKit asks for their values over a session.
//!
//! The client's session hands out the content of files, so each value is in a file of this user alone while the build
//! runs. It has no progress to offer, and takes the build context as a whole.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use bollard::grpc::build::{ImageBuildFrontendOptions, ImageBuildLoadInput, SecretSource};
use bollard::grpc::driver::Build as _;
use bollard::grpc::driver::moby::Moby;
use bollard::grpc::error::GrpcError;
use bollard::query_parameters::RemoveImageOptionsBuilder;
use deployer_core::{BuildImage, Error, ErrorKind, SecretValue};
use futures_util::TryStreamExt as _;
use hyper::body::Bytes;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::output::Failed;
use super::{DockerBuilder, OPERATION, Trouble, blocking, labels};
use crate::context::BuildContext;
use crate::credentials::Credentials;
use crate::engine::classify;
use crate::image_name;

impl DockerBuilder {
    /// Builds an image whose instructions may read the request's secrets, and answers its id.
    pub(super) async fn build_with_secrets(
        &self,
        request: &BuildImage,
        context: &Arc<BuildContext>,
        credentials: &Credentials,
    ) -> Result<String, Trouble> {
        let (archive, unread) = context.stream();
        let archive: Vec<Bytes> = match archive.try_collect().await {
            Ok(archive) => archive,
            Err(error) => {
                return Err(Trouble::Error(unread.take().unwrap_or_else(|| {
                    Error::new(ErrorKind::Internal, "the build context was not read").with_source(error)
                })));
            }
        };
        let values = request.secrets.clone();
        let files = blocking(move || SecretFiles::write(&values)).await.map_err(Trouble::Error)?;
        let files = files.map_err(|error| {
            Trouble::Error(
                Error::new(ErrorKind::Unavailable, "the build's secrets cannot be kept for it").with_source(error),
            )
        })?;
        let mut options = ImageBuildFrontendOptions::builder().dockerfile(context.dockerfile().as_ref());
        for (key, value) in labels(request) {
            options = options.label(key, value);
        }
        for (name, value) in &request.build.args {
            options = options.buildarg(name, value);
        }
        for (id, path) in &files.paths {
            options = options.set_secret(id, &SecretSource::File(path.clone()));
        }
        if let Some(target) = &request.build.target {
            options = options.target(target);
        }
        let options = options.nocache(request.build.no_cache).build();
        // The session answers no id, so the image needs a name for a moment.
        let name = format!("{}:building-{}", image_name::repository(&request.app, &request.service), Uuid::now_v7());
        let input = ImageBuildLoadInput::Upload(Bytes::from(archive.concat()));
        let credentials = credentials.clone();
        let (driver, building, runtime) = (Moby::new(self.engine.docker()), name.clone(), Handle::current());
        // The client's future stays on one thread, so it gets one. The files go when it ends, whoever still waits.
        let built = blocking(move || {
            let _files = files;
            let registries: HashMap<&str, _> = credentials.all().collect();
            runtime.block_on(driver.docker_build(&building, options, input, Some(registries), None))
        });
        let built = built.await.map_err(Trouble::Error)?;
        built.map_err(trouble)?;
        let failed = |error| Trouble::Error(classify(OPERATION, request.service.as_str(), error));
        let image = self.engine.docker().inspect_image(&name).await.map_err(failed)?.id.unwrap_or_default();
        let lasting =
            deployer_core::Digest::new(&image).map(|id| image_name::image(&request.app, &request.service, &id));
        self.tag(&image, &lasting.map_err(Trouble::Error)?).await.map_err(Trouble::Error)?;
        let untag = RemoveImageOptionsBuilder::new().build();
        self.engine.docker().remove_image(&name, Some(untag), None).await.map_err(failed)?;
        Ok(image)
    }
}

fn trouble(error: GrpcError) -> Trouble {
    match error {
        GrpcError::TonicStatus { err } => {
            Trouble::Failed(Failed { message: err.message().to_owned(), ..Failed::default() })
        }
        GrpcError::DockerError { err } => Trouble::Error(classify(OPERATION, "session", err)),
        error => Trouble::Error(
            Error::new(ErrorKind::Unavailable, "the session with the Docker Engine's BuildKit failed")
                .with_source(error),
        ),
    }
}

/// Files that only this user may read, gone when this is dropped.
struct SecretFiles {
    directory: PathBuf,
    paths: BTreeMap<String, PathBuf>,
}

impl SecretFiles {
    /// Blocks for a moment.
    fn write(values: &BTreeMap<String, SecretValue>) -> io::Result<Self> {
        let mut files = Self {
            directory: std::env::temp_dir().join(format!("deployer-{}", Uuid::now_v7())),
            paths: BTreeMap::new(),
        };
        let mut directory = DirBuilder::new();
        let mut file = OpenOptions::new();
        file.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
            directory.mode(0o700);
            file.mode(0o600);
        }
        directory.create(&files.directory)?;
        for (number, (id, value)) in values.iter().enumerate() {
            let path = files.directory.join(number.to_string());
            file.open(&path)?.write_all(value.expose().as_bytes())?;
            files.paths.insert(id.clone(), path);
        }
        Ok(files)
    }
}

impl Drop for SecretFiles {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::warn!(%error, directory = %self.directory.display(), "the files of a build's secrets are left");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn files_are_private_and_go_away() {
        use std::os::unix::fs::PermissionsExt as _;
        let values = BTreeMap::from([("../token".to_owned(), SecretValue::new("hush"))]);
        let files = SecretFiles::write(&values).unwrap();
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let path = files.paths["../token"].clone();
        assert_eq!(fs::read_to_string(&path).unwrap(), "hush");
        assert_eq!((mode(&path), mode(&files.directory)), (0o600, 0o700));
        let directory = files.directory.clone();
        drop(files);
        assert!(!directory.exists());
    }
}
