//! Files that are put into containers before they start.
//!
//! The engine takes them as an archive, whoever's host it runs on. They stay in the container for as long as it exists.

use std::collections::BTreeSet;

use bollard::body_full;
use bollard::query_parameters::UploadToContainerOptionsBuilder;
use deployer_core::{Effect, Error, ErrorKind, File, FileContent, Result, Workload};
use futures_util::future::try_join_all;
use hyper::body::Bytes;
use tar::{Builder, Header};

use super::DockerOrchestrator;
use super::container::Blueprint;
use super::refusal::refused;

/// The directories that need a volume for files to be put into, because the root cannot be written to.
pub(super) fn homes(workload: &Workload) -> BTreeSet<&str> {
    let files = workload.files.iter().filter(|_| workload.read_only);
    files.map(|file| directory(&file.target)).filter(|home| *home != "/" && !is_mounted(workload, home)).collect()
}

/// The first file that no way leads to: right in a root that cannot be written to.
pub(super) fn out_of_reach(workload: &Workload) -> Option<usize> {
    workload.files.iter().position(|file| workload.read_only && directory(&file.target) == "/")
}

/// Whether a directory is in something that is mounted.
fn is_mounted(workload: &Workload, directory: &str) -> bool {
    workload.mounts.iter().any(|mount| {
        let rest = directory.strip_prefix(mount.target.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

fn directory(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((directory, _)) => directory,
    }
}

impl DockerOrchestrator {
    /// Puts the files of a service into a container. Putting them there again changes nothing.
    pub(super) async fn put_files(&self, operation: &'static str, blueprint: &Blueprint<'_>, name: &str) -> Result<()> {
        let workload = blueprint.workload();
        if workload.files.is_empty() {
            return Ok(());
        }
        let contents = try_join_all(workload.files.iter().map(async |file| match &file.content {
            FileContent::Text(text) => Ok(text.clone()),
            FileContent::Secret(secret) => Ok(self.secrets.reveal(secret).await?.expose().to_owned()),
            _ => Err(Error::new(ErrorKind::Unsupported, "this content of a file is not known").with_resource(name)),
        }))
        .await?;
        let files: Vec<(&File, String)> = workload.files.iter().zip(contents).collect();
        // Where the root cannot be written to, the engine takes them only for the volume that they go to.
        let places = if workload.read_only {
            files.iter().map(|(file, _)| directory(&file.target)).collect()
        } else {
            BTreeSet::from(["/"])
        };
        for place in places {
            let here = files.iter().filter(|(file, _)| !workload.read_only || directory(&file.target) == place);
            let archive = archive(here, place).map_err(|error| {
                let error = Error::new(ErrorKind::InvalidInput, "the files cannot be packed").with_source(error);
                error.with_operation(operation).with_resource(name).with_effect(Effect::Done)
            })?;
            let options = UploadToContainerOptionsBuilder::new().path(place).build();
            let put =
                self.engine.docker().upload_to_container(name, Some(options), body_full(Bytes::from(archive))).await;
            put.map_err(|error| refused(operation, name, error, Effect::Done))?;
        }
        Ok(())
    }
}

/// An archive that is unpacked at `place`.
fn archive<'a>(files: impl Iterator<Item = &'a (&'a File, String)>, place: &str) -> std::io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    for (file, content) in files {
        let path = file.target.strip_prefix(place).unwrap_or(&file.target).trim_start_matches('/');
        let mut header = Header::new_gnu();
        header.set_mode(file.mode);
        header.set_uid(file.uid.into());
        header.set_gid(file.gid.into());
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content.as_bytes())?;
    }
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use deployer_core::Mount;

    use super::*;

    #[test]
    fn only_a_root_that_cannot_be_written_to_needs_volumes() {
        let mut workload = Workload::default();
        workload.files = vec![File::text("", "/etc/app/a"), File::text("", "/data/x/b"), File::text("", "/c")];
        workload.mounts = vec![Mount::volume("data", "/data/")];
        assert_eq!((homes(&workload).len(), out_of_reach(&workload)), (0, None));
        workload.read_only = true;
        assert_eq!(homes(&workload).into_iter().collect::<Vec<_>>(), ["/etc/app"]);
        assert_eq!(out_of_reach(&workload), Some(2));
    }
}
