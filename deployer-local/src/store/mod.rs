//! The release store in one SQLite file, for several processes on one host.

mod failure;
mod journals;
mod leases;
mod owners;
mod releases;
mod schema;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use deployer_core::{
    AcquireLease, AppName, Append, DeploymentId, DeploymentQuery, DeploymentRecord, Entry, Error, ErrorKind, Lease,
    LeaseHolder, Release, ReleaseNumber, ReleaseQuery, ReleaseStore, Result, SendSignal, Signal, Timestamp,
};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use failure::sqlite;
use owners::Owners;

/// Keeps releases, journals and leases in one SQLite file.
///
/// Several processes of one host may use the file at once, and several clones of a handle within one process. Every
/// write is on the disk before it is acknowledged. The file must be on a local file system.
///
/// A lease ends with the process of its owner, however that ends: the owner holds an operating system lock on a file in
/// the directory `<file>.owners`, so whoever comes next need not wait for the lease to expire.
#[derive(Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    // One connection: SQLite has one writer at a time in any case, and reads take microseconds.
    state: Mutex<State>,
}

struct State {
    connection: Connection,
    owners: Owners,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the store in this file. The file and its directory are made if there are none. Blocks for a moment.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if a newer version wrote the file, [`ErrorKind::InvalidInput`] if it is another
    /// program's database, [`ErrorKind::Corrupt`] if it is none.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let open = || {
            if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
                std::fs::create_dir_all(directory).map_err(failure::files)?;
            }
            // The working directory may change while the store is open; SQLite's own file names are made once too.
            let path = std::path::absolute(path).map_err(failure::files)?;
            let owners = Owners::beside(&path);
            let connection = schema::open(&path, &owners)?;
            Ok(Self { inner: Arc::new(Inner { path, state: Mutex::new(State { connection, owners }) }) })
        };
        open().map_err(|error: Error| error.with_operation("store.open").with_resource(path.display().to_string()))
    }

    /// Runs blocking work on the connection, off the async threads.
    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&mut State) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || {
            // A panic cannot leave a transaction behind: dropping one rolls it back.
            let mut state = inner.state.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut state)
        });
        match done.await {
            Ok(result) => result.map_err(|error| error.with_operation(operation)),
            Err(error) => Err(Error::new(ErrorKind::Internal, "the work on the release store did not end")
                .with_operation(operation)
                .with_source(error)),
        }
    }

    /// Like [`run`](Self::run), in one write transaction: all or nothing, and nobody else writes meanwhile.
    async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>, &mut Owners) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(operation, |State { connection, owners }| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
            let result = work(&transaction, owners)?;
            transaction.commit().map_err(sqlite)?;
            Ok(result)
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(operation, |state| work(&state.connection)).await
    }
}

/// SQLite's integers are signed.
fn to_sql(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, "a number is too large for the release store")
            .with_resource(number.to_string())
            .with_source(error)
    })
}

fn from_sql(what: &'static str, number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|error| failure::corrupt(what, error))
}

#[async_trait]
impl ReleaseStore for SqliteStore {
    async fn acquire_lease(&self, request: AcquireLease) -> Result<Lease> {
        self.write("store.acquire_lease", move |transaction, owners| leases::acquire(transaction, owners, request))
            .await
    }

    async fn renew_lease(&self, lease: &Lease, now: Timestamp) -> Result<Lease> {
        let lease = lease.clone();
        self.write("store.renew_lease", move |transaction, owners| leases::renew(transaction, owners, lease, now)).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        let lease = lease.clone();
        self.write("store.release_lease", move |transaction, _| leases::release(transaction, &lease)).await
    }

    async fn lease_holder(&self, app: &AppName) -> Result<Option<LeaseHolder>> {
        let app = app.clone();
        // A write transaction, because owners are probed only in one.
        self.write("store.lease_holder", move |transaction, owners| leases::holder(transaction, owners, &app)).await
    }

    async fn put_release(&self, release: Release, fence: u64) -> Result<Release> {
        self.write("store.put_release", move |transaction, _| releases::put(transaction, release, fence)).await
    }

    async fn release(&self, app: &AppName, number: ReleaseNumber) -> Result<Option<Release>> {
        let app = app.clone();
        self.read("store.release", move |connection| releases::get(connection, &app, number)).await
    }

    async fn releases(&self, query: ReleaseQuery) -> Result<Vec<Release>> {
        self.read("store.releases", move |connection| releases::list(connection, &query)).await
    }

    async fn remove_releases(&self, app: &AppName, numbers: &[ReleaseNumber], fence: u64) -> Result<()> {
        let (app, numbers) = (app.clone(), numbers.to_vec());
        self.write("store.remove_releases", move |transaction, _| releases::remove(transaction, &app, &numbers, fence))
            .await
    }

    async fn append(&self, request: Append) -> Result<()> {
        self.write("store.append", move |transaction, _| journals::append(transaction, &request)).await
    }

    async fn journal(&self, deployment: &DeploymentId, from: u64) -> Result<Vec<Entry>> {
        let deployment = deployment.clone();
        self.read("store.journal", move |connection| journals::entries(connection, &deployment, from)).await
    }

    async fn deployments(&self, query: DeploymentQuery) -> Result<Vec<DeploymentRecord>> {
        self.read("store.deployments", move |connection| journals::records(connection, &query)).await
    }

    async fn send_signal(&self, request: SendSignal) -> Result<()> {
        self.write("store.send_signal", move |transaction, _| journals::send_signal(transaction, &request)).await
    }

    async fn signals(&self, deployment: &DeploymentId) -> Result<Vec<Signal>> {
        let deployment = deployment.clone();
        self.read("store.signals", move |connection| journals::signals(connection, &deployment)).await
    }

    async fn apps(&self) -> Result<Vec<AppName>> {
        self.read("store.apps", releases::apps).await
    }

    async fn forget_app(&self, app: &AppName, fence: u64) -> Result<()> {
        let app = app.clone();
        self.write("store.forget_app", move |transaction, _| {
            leases::check_fence(transaction, &app, fence)?;
            journals::forget(transaction, &app)?;
            releases::forget(transaction, &app)
        })
        .await
    }
}
