//! What the services of an application share: here, its volumes.

use std::collections::BTreeSet;
use std::fs;

use deployer_core::{EnsureApp, Error, ErrorKind, Outcome, RemoveApp, Result, Retry};
use serde::{Deserialize, Serialize};

use super::{ProcessOrchestrator, record, unsupported};
use crate::failure::io;
use crate::files::{self, Durable};

/// What has been made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Shared {
    volumes: BTreeSet<String>,
}

impl ProcessOrchestrator {
    pub(super) async fn ensure_shared(&self, request: &EnsureApp) -> Result<Outcome> {
        let release = &request.release;
        unsupported::check(release)?;
        let _lock = self.lock(&release.app).await?;
        let path = self.layout.shared(&release.app);
        let before: Option<Shared> = files::read(&path).map_err(io("read what the services share"))?;
        let mut shared = before.clone().unwrap_or_default();
        for (name, volume) in &release.volumes {
            let directory = self.layout.volumes(&release.app).join(name);
            if volume.external && !directory.is_dir() {
                return Err(Error::new(ErrorKind::NotFound, "the external volume does not exist")
                    .with_resource(name.clone())
                    .with_help(format!("make the directory {}", directory.display())));
            }
            fs::create_dir_all(&directory).map_err(io("make a volume"))?;
            shared.volumes.insert(name.clone());
        }
        if before.as_ref() == Some(&shared) {
            return Ok(Outcome::AlreadyThere);
        }
        fs::create_dir_all(self.layout.instances(&release.app)).map_err(io("make room for instances"))?;
        // Last, because everything else is taken to be there if this is.
        files::replace(&path, &shared, Durable::No).map_err(io("write down what the services share"))?;
        Ok(if before.is_none() { Outcome::Created } else { Outcome::Changed })
    }

    pub(super) async fn remove_shared(&self, request: &RemoveApp) -> Result<Outcome> {
        let directory = self.layout.app(&request.app);
        if !directory.exists() {
            return Ok(Outcome::AlreadyThere);
        }
        let _lock = self.lock(&request.app).await?;
        if let Some(user) = record::all(&self.layout, &request.app).map_err(io("look for instances"))?.first() {
            return Err(Error::new(ErrorKind::Conflict, "something still uses what the services share")
                .with_context("used by", user.record.name.clone())
                .with_retry(Retry::Soon));
        }
        let volumes = self.layout.volumes(&request.app);
        let removed = (|| {
            self.addresses.retain_services(&request.app, std::iter::empty())?;
            let ensured = files::absent(fs::remove_file(self.layout.shared(&request.app)))?.is_some();
            if request.volumes {
                files::remove_tree(&volumes)?;
            }
            // The lock goes with the directory: whoever waits for it begins anew.
            let emptied = files::names(&volumes)?.is_empty() && files::remove_tree(&directory)?;
            Ok(ensured || emptied)
        })();
        Ok(if removed.map_err(io("remove what the services shared"))? {
            Outcome::Changed
        } else {
            Outcome::AlreadyThere
        })
    }
}
