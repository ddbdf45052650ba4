//! Keeping releases, journals and leases.

use std::fmt::{self, Debug};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::journal::{DeploymentRecord, Entry};
use crate::model::{AppName, DeploymentId, Release, ReleaseNumber, Timestamp};

/// Keeps releases, journals and leases. One trait, because fence and append are checked together.
///
/// # What holds
/// - What a method has answered `Ok` to is there after the process, and the machine, is killed.
/// - Fences of one application only rise. A write with a fence lower than the last one granted is refused, whether or
///   not the lease it came with has expired.
/// - Releases never change. Numbers are given from 1 on, without gaps as long as none is removed, and never again.
#[async_trait]
pub trait ReleaseStore: Debug + Send + Sync {
    /// Takes the lease of an application if nobody holds it, if it has expired, or if the store can tell that its owner
    /// is dead. The fence is higher than every one before.
    ///
    /// # Errors
    /// [`Busy`](crate::ErrorKind::Busy), with the holder and the time left in the context.
    ///
    /// # Idempotency
    /// The owner of an unexpired lease may take it again and gets a higher fence.
    async fn acquire_lease(&self, request: AcquireLease) -> Result<Lease>;

    /// Extends a lease by its time to live from now on.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if somebody else has taken it since.
    async fn renew_lease(&self, lease: &Lease, now: Timestamp) -> Result<Lease>;

    /// Gives a lease back. If somebody else has taken it since, nothing happens.
    ///
    /// # Errors
    /// Only if the store cannot be written.
    async fn release_lease(&self, lease: &Lease) -> Result<()>;

    /// Who holds the lease of an application, expired or not.
    ///
    /// # Errors
    /// Only if the store cannot be read.
    async fn lease_holder(&self, app: &AppName) -> Result<Option<LeaseHolder>>;

    /// Keeps a release under the next number, which replaces the one it carries.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if the fence is not the last one granted.
    ///
    /// # Idempotency
    /// The newest release's content put again is not kept twice: it is answered as it is.
    async fn put_release(&self, release: Release, fence: u64) -> Result<Release>;

    /// One release.
    ///
    /// # Errors
    /// Only if the store cannot be read.
    async fn release(&self, app: &AppName, number: ReleaseNumber) -> Result<Option<Release>>;

    /// Releases, newest first.
    ///
    /// # Errors
    /// Only if the store cannot be read.
    async fn releases(&self, query: ReleaseQuery) -> Result<Vec<Release>>;

    /// Removes releases; their numbers are not given again.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if the fence is not the last one granted.
    async fn remove_releases(&self, app: &AppName, numbers: &[ReleaseNumber], fence: u64) -> Result<()>;

    /// Appends entries to the journal of a deployment and keeps its record, both or neither.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if the first entry's sequence number is not the journal's next, or the
    /// fence is not the last one granted. Gaps among the entries, and another application's deployment, are refused too,
    /// as a conflict or as invalid input.
    async fn append(&self, request: Append) -> Result<()>;

    /// The entries of a journal from a sequence number on.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if an entry cannot be read.
    async fn journal(&self, deployment: &DeploymentId, from: u64) -> Result<Vec<Entry>>;

    /// Records of deployments, newest first, by when their journals were opened. Neither the ids nor the times in the
    /// records tell that: a handle may have waited for long, and somebody may have set the clock.
    ///
    /// # Errors
    /// Only if the store cannot be read.
    async fn deployments(&self, query: DeploymentQuery) -> Result<Vec<DeploymentRecord>>;

    /// Leaves a signal for whoever drives a deployment. Needs no lease.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no such deployment.
    ///
    /// # Idempotency
    /// A signal sent again is kept once.
    async fn send_signal(&self, request: SendSignal) -> Result<()>;

    /// The signals left for a deployment so far, in the order in which they came.
    ///
    /// # Errors
    /// Only if the store cannot be read.
    async fn signals(&self, deployment: &DeploymentId) -> Result<Vec<Signal>>;

    /// The names of all applications that the store knows.
    ///
    /// # Errors
    /// Only if the store cannot be read.
    async fn apps(&self) -> Result<Vec<AppName>>;

    /// Forgets an application: releases, deployments, journals, signals. Its fence and the last number given are kept.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if the fence is not the last one granted.
    async fn forget_app(&self, app: &AppName, fence: u64) -> Result<()>;
}

/// Asks for the lease of an application.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AcquireLease {
    /// The application.
    pub app: AppName,
    /// Who asks, in words for people, such as `deployer (pid 4711) on build-3`.
    pub owner: String,
    /// Unlike that of every other owner.
    pub owner_id: String,
    /// How long the lease holds without being renewed.
    pub ttl: Duration,
    /// The time now.
    pub now: Timestamp,
}

impl AcquireLease {
    /// Asks for the lease of an application.
    #[must_use]
    pub fn new(
        app: AppName,
        owner: impl Into<String>,
        owner_id: impl Into<String>,
        ttl: Duration,
        now: Timestamp,
    ) -> Self {
        Self { app, owner: owner.into(), owner_id: owner_id.into(), ttl, now }
    }
}

/// The right to write for an application.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The application.
    pub app: AppName,
    /// Unlike that of every other owner.
    pub owner_id: String,
    /// Rises with every lease granted; goes with every write.
    pub fence: u64,
    /// How long it holds without being renewed.
    pub ttl: Duration,
    /// When it ends unless it is renewed.
    pub expires_at: Timestamp,
}

impl Lease {
    /// A lease that was granted.
    #[must_use]
    pub fn new(app: AppName, owner_id: String, fence: u64, ttl: Duration, expires_at: Timestamp) -> Self {
        Self { app, owner_id, fence, ttl, expires_at }
    }
}

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeaseHolder {
    /// The holder, in words for people.
    pub owner: String,
    /// The fence of the lease.
    pub fence: u64,
    /// When the lease ends unless it is renewed.
    pub expires_at: Timestamp,
    /// Whether the store can tell that the holder is dead: its lease can be taken at once.
    pub dead: bool,
}

impl LeaseHolder {
    /// A holder.
    #[must_use]
    pub fn new(owner: String, fence: u64, expires_at: Timestamp, dead: bool) -> Self {
        Self { owner, fence, expires_at, dead }
    }
}

/// Asks for releases.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReleaseQuery {
    /// The application.
    pub app: AppName,
    /// Only those with lower numbers.
    pub before: Option<ReleaseNumber>,
    /// At most so many.
    pub limit: u32,
}

impl ReleaseQuery {
    /// The newest so many releases of an application.
    #[must_use]
    pub fn new(app: AppName, limit: u32) -> Self {
        Self { app, before: None, limit }
    }

    /// Only those with lower numbers.
    #[must_use]
    pub fn before(mut self, number: ReleaseNumber) -> Self {
        self.before = Some(number);
        self
    }
}

/// Asks for records of deployments.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeploymentQuery {
    /// The application.
    pub app: AppName,
    /// Only those whose journals were opened earlier than this one's.
    pub before: Option<DeploymentId>,
    /// At most so many.
    pub limit: u32,
}

impl DeploymentQuery {
    /// The newest so many deployments of an application.
    #[must_use]
    pub fn new(app: AppName, limit: u32) -> Self {
        Self { app, before: None, limit }
    }

    /// Only those whose journals were opened earlier than this one's.
    #[must_use]
    pub fn before(mut self, deployment: DeploymentId) -> Self {
        self.before = Some(deployment);
        self
    }
}

/// Asks to append to a journal.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Append {
    /// The deployment's record as it is after these entries.
    pub record: DeploymentRecord,
    /// The fence of the lease that allows it.
    pub fence: u64,
    /// The entries, numbered without gaps from the journal's next number on.
    pub entries: Vec<Entry>,
}

impl Append {
    /// Asks to append these entries and keep this record.
    #[must_use]
    pub fn new(record: DeploymentRecord, fence: u64, entries: Vec<Entry>) -> Self {
        Self { record, fence, entries }
    }
}

/// Asks to leave a signal.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SendSignal {
    /// The deployment.
    pub deployment: DeploymentId,
    /// What to do.
    pub signal: Signal,
    /// The time now.
    pub now: Timestamp,
}

impl SendSignal {
    /// Asks to leave a signal for the deployment.
    #[must_use]
    pub fn new(deployment: DeploymentId, signal: Signal, now: Timestamp) -> Self {
        Self { deployment, signal, now }
    }
}

/// What somebody wants a running deployment to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "signal", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Signal {
    /// Stop and bring back what was there.
    Cancel {
        /// Who wants it, and why.
        by: String,
    },
    /// Let it pass its approval gates.
    Promote {
        /// Who wants it.
        by: String,
    },
    /// Stop where it is: another deployment goes on from there.
    Supersede {
        /// The other deployment.
        by: String,
    },
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancel { by } => write!(f, "cancelled by {by}"),
            Self::Promote { by } => write!(f, "promoted by {by}"),
            Self::Supersede { by } => write!(f, "superseded by {by}"),
        }
    }
}
