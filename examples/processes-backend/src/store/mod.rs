//! Releases, journals and leases as files that several processes share.
//!
//! ```text
//! store/owners/<digest of the owner>      locked as long as the process lives that holds a lease
//! store/shop/lock                         held while anything of the application is read or written
//! store/shop/books.json                   fence, lease, last release number
//! store/shop/releases/3.json
//! store/shop/journals/<deployment>.jsonl  one line for each append, with the record as it was then
//! store/shop/signals/<deployment>.jsonl
//! ```
//!
//! A store in a database of its own would do as well: [`Backend::with_store`](deployer_core::Backend) takes any. This one
//! shows what every store must keep to. Each promise hangs on one thing:
//!
//! - *One append is all or nothing*: it is one line. What a killed process left half written has no line end, and the
//!   next append cuts it off.
//! - *Fence and append are checked together*: both happen under the application's lock.
//! - *`Ok` means that it is there after a loss of power*: what was written is synced before it is answered.

mod books;
mod journal;
mod owners;
mod releases;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use deployer_core::{
    AcquireLease, AppName, Append, DeploymentId, DeploymentQuery, DeploymentRecord, Entry, Error, ErrorKind, Lease,
    LeaseHolder, Release, ReleaseNumber, ReleaseQuery, ReleaseStore, Result, SendSignal, Signal, Timestamp,
};

use self::owners::Owners;
use crate::failure::{blocking, io};
use crate::files;

/// Keeps releases, journals and leases in a directory.
#[derive(Clone, Debug)]
pub struct FileStore {
    directory: PathBuf,
    owners: Arc<Mutex<Owners>>,
}

/// One application, as long as its lock is held.
struct Books {
    app: AppName,
    directory: PathBuf,
    owners: Arc<Mutex<Owners>>,
    _lock: std::fs::File,
}

impl FileStore {
    /// Keeps them in this directory, which is made when it is needed.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        let owners = Arc::new(Mutex::new(Owners::new(directory.join(".owners"))));
        Self { directory, owners }
    }

    /// Does something to one application that nobody else may disturb.
    async fn with<T: Send + 'static>(
        &self,
        app: &AppName,
        work: impl FnOnce(&Books) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (this, app) = (self.clone(), app.clone());
        blocking(move || {
            let directory = this.directory.join(app.as_str());
            let lock = files::lock(&directory.join("lock")).map_err(io("lock the application's books"))?;
            work(&Books { app, directory, owners: this.owners, _lock: lock })
        })
        .await
    }

    /// The application that a deployment is one of.
    async fn app_of(&self, deployment: &DeploymentId) -> Result<Option<AppName>> {
        let (this, deployment) = (self.clone(), deployment.clone());
        blocking(move || {
            for app in this.known().map_err(io("list the applications"))? {
                if journal::file(&this.directory.join(app.as_str()), &deployment).exists() {
                    return Ok(Some(app));
                }
            }
            Ok(None)
        })
        .await
    }

    /// All applications that ever had a lease.
    fn known(&self) -> std::io::Result<Vec<AppName>> {
        Ok(files::names(&self.directory)?.into_iter().filter_map(|name| AppName::new(name).ok()).collect())
    }
}

impl Books {
    fn owners(&self) -> std::sync::MutexGuard<'_, Owners> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ReleaseStore for FileStore {
    async fn acquire_lease(&self, request: AcquireLease) -> Result<Lease> {
        self.with(&request.app.clone(), move |books| books.acquire(request)).await
    }

    async fn renew_lease(&self, lease: &Lease, now: Timestamp) -> Result<Lease> {
        let lease = lease.clone();
        self.with(&lease.app.clone(), move |books| books.renew(lease, now)).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        let lease = lease.clone();
        self.with(&lease.app.clone(), move |books| books.give_back(&lease)).await
    }

    async fn lease_holder(&self, app: &AppName) -> Result<Option<LeaseHolder>> {
        self.with(app, Books::holder).await
    }

    async fn put_release(&self, release: Release, fence: u64) -> Result<Release> {
        self.with(&release.app.clone(), move |books| books.put_release(release, fence)).await
    }

    async fn release(&self, app: &AppName, number: ReleaseNumber) -> Result<Option<Release>> {
        self.with(app, move |books| books.release(number)).await
    }

    async fn releases(&self, query: ReleaseQuery) -> Result<Vec<Release>> {
        self.with(&query.app.clone(), move |books| books.releases(&query)).await
    }

    async fn remove_releases(&self, app: &AppName, numbers: &[ReleaseNumber], fence: u64) -> Result<()> {
        let numbers = numbers.to_vec();
        self.with(app, move |books| books.remove_releases(&numbers, fence)).await
    }

    async fn append(&self, request: Append) -> Result<()> {
        if let Some(app) = self.app_of(&request.record.id).await?.filter(|app| *app != request.record.app) {
            return Err(Error::new(ErrorKind::InvalidInput, "the deployment is another application's")
                .with_context("application", app.to_string()));
        }
        self.with(&request.record.app.clone(), move |books| books.append(&request)).await
    }

    async fn journal(&self, deployment: &DeploymentId, from: u64) -> Result<Vec<Entry>> {
        let Some(app) = self.app_of(deployment).await? else { return Ok(Vec::new()) };
        let deployment = deployment.clone();
        self.with(&app, move |books| books.journal(&deployment, from)).await
    }

    async fn deployments(&self, query: DeploymentQuery) -> Result<Vec<DeploymentRecord>> {
        self.with(&query.app.clone(), move |books| books.deployments(&query)).await
    }

    async fn send_signal(&self, request: SendSignal) -> Result<()> {
        let app = self.app_of(&request.deployment).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "there is no such deployment").with_resource(request.deployment.as_str())
        })?;
        self.with(&app, move |books| books.send_signal(&request)).await
    }

    async fn signals(&self, deployment: &DeploymentId) -> Result<Vec<Signal>> {
        let Some(app) = self.app_of(deployment).await? else { return Ok(Vec::new()) };
        let deployment = deployment.clone();
        self.with(&app, move |books| books.signals(&deployment)).await
    }

    async fn apps(&self) -> Result<Vec<AppName>> {
        let this = self.clone();
        blocking(move || {
            let mut apps = this.known().map_err(io("list the applications"))?;
            apps.retain(|app| Books::is_known(&this.directory.join(app.as_str())));
            Ok(apps)
        })
        .await
    }

    async fn forget_app(&self, app: &AppName, fence: u64) -> Result<()> {
        self.with(app, move |books| books.forget(fence)).await
    }
}
