//! A release store in memory that keeps every rule of the trait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use deployer_core::{
    AcquireLease, AppName, Append, DeploymentId, DeploymentQuery, DeploymentRecord, Entry, Error, ErrorKind, Human,
    Lease, LeaseHolder, Release, ReleaseNumber, ReleaseQuery, ReleaseStore, Result, Retry, SendSignal, Signal,
    Timestamp,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Keeps releases, journals and leases until it is dropped, by the same rules as a store on disk. Everything goes in
/// and out as JSON, so that what cannot be stored fails here as well.
///
/// It can be used without a [`World`](crate::World), and several deployers may share it.
#[derive(Debug, Default)]
pub struct MemoryStore {
    books: Mutex<Books>,
}

#[derive(Clone, Debug, Default)]
struct Books {
    leases: BTreeMap<AppName, LeaseRow>,
    dead: BTreeSet<String>,
    releases: BTreeMap<AppName, BTreeMap<ReleaseNumber, String>>,
    /// The last number given, for every application that ever had a release.
    numbers: BTreeMap<AppName, u64>,
    deployments: BTreeMap<DeploymentId, Row>,
    /// How many journals were ever opened.
    opened: usize,
}

#[derive(Clone, Debug)]
struct LeaseRow {
    owner: String,
    owner_id: String,
    fence: u64,
    expires_at: Timestamp,
    held: bool,
}

#[derive(Clone, Debug)]
struct Row {
    app: AppName,
    record: String,
    entries: Vec<String>,
    signals: Vec<Signal>,
    /// Rises with every journal that is opened.
    opened: usize,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another store with the same content.
    pub(crate) fn fork(&self) -> Self {
        Self { books: Mutex::new(self.lock().clone()) }
    }

    /// Makes the holder of an application's lease a process that the store knows to be dead, as after a `kill -9` on this
    /// host: its lease can be taken at once. Answers whether there is a holder.
    pub fn declare_holder_dead(&self, app: &str) -> bool {
        let mut books = self.lock();
        let holder = books.leases.get(app).filter(|row| row.held).map(|row| row.owner_id.clone());
        let found = holder.is_some();
        books.dead.extend(holder);
        found
    }

    /// The whole journal of a deployment.
    pub(crate) fn entries(&self, deployment: &DeploymentId) -> Result<Vec<Entry>> {
        let books = self.lock();
        let Some(row) = books.deployments.get(deployment) else { return Ok(Vec::new()) };
        row.entries.iter().map(|text| decode("store.journal", text)).collect()
    }

    /// Leaves a signal for every deployment of an application that has no verdict yet.
    pub(crate) fn leave_signal(&self, app: &str, signal: &Signal) {
        let mut books = self.lock();
        for row in books.deployments.values_mut().filter(|row| row.app.as_str() == app) {
            let open =
                decode::<DeploymentRecord>("store.send_signal", &row.record).is_ok_and(|it| it.verdict.is_none());
            if open && !row.signals.contains(signal) {
                row.signals.push(signal.clone());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody holds an unexpired lease; nothing if the store has never heard of the application.
    pub(crate) fn is_leased(&self, app: &AppName, now: Timestamp) -> Option<bool> {
        self.lock().leases.get(app).map(|row| row.held && row.expires_at > now)
    }

    /// The release of this number, if there is one; nothing if the store has never heard of the application.
    pub(crate) fn stored(&self, app: &AppName, number: ReleaseNumber) -> Option<Option<Release>> {
        let books = self.lock();
        books.leases.contains_key(app).then(|| {
            let text = books.releases.get(app)?.get(&number)?;
            serde_json::from_str(text).ok()
        })
    }

    /// Whether there is a release of this number; yes, if the store has never heard of the application.
    pub(crate) fn holds(&self, app: &AppName, number: ReleaseNumber) -> bool {
        let books = self.lock();
        let releases = books.releases.get(app);
        !books.leases.contains_key(app) || releases.is_some_and(|releases| releases.contains_key(&number))
    }
}

impl Books {
    fn check_fence(&self, operation: &'static str, app: &AppName, fence: u64) -> Result<()> {
        let last = self.leases.get(app).map_or(0, |row| row.fence);
        if last == fence && fence > 0 {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Conflict, "somebody else has taken the lease since")
            .with_operation(operation)
            .with_resource(app.as_str())
            .with_context("fence", fence.to_string())
            .with_context("last fence granted", last.to_string())
            .with_retry(Retry::Never))
    }
}

/// What is stored: the JSON of a value, once it is sure that it can be read again.
fn encode<T: Serialize + DeserializeOwned + PartialEq>(operation: &'static str, value: &T) -> Result<String> {
    let refused = |message| Error::new(ErrorKind::Internal, message).with_operation(operation);
    let text = serde_json::to_string(value).map_err(|e| refused("cannot be written as JSON").with_source(e))?;
    let again: T = serde_json::from_str(&text).map_err(|e| refused("cannot be read again").with_source(e))?;
    if again == *value { Ok(text) } else { Err(refused("is read as something else than was written")) }
}

fn decode<T: DeserializeOwned>(operation: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "the stored data cannot be read").with_operation(operation).with_source(error)
    })
}

fn limited(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[async_trait]
impl ReleaseStore for MemoryStore {
    async fn acquire_lease(&self, request: AcquireLease) -> Result<Lease> {
        let mut books = self.lock();
        let AcquireLease { app, owner, owner_id, ttl, now, .. } = request;
        let mut last_fence = 0;
        if let Some(row) = books.leases.get(&app) {
            last_fence = row.fence;
            let alive = row.held && row.expires_at > now && !books.dead.contains(&row.owner_id);
            if alive && row.owner_id != owner_id {
                return Err(Error::new(ErrorKind::Busy, "another deployment of the application is under way")
                    .with_operation("store.acquire_lease")
                    .with_resource(app.as_str())
                    .with_context("held by", row.owner.clone())
                    .with_context("for at most", Human(row.expires_at.since(now)).to_string())
                    .with_help("wait until it has ended, or cancel it"));
            }
        }
        let (fence, expires_at) = (last_fence + 1, now + ttl);
        let row = LeaseRow { owner, owner_id: owner_id.clone(), fence, expires_at, held: true };
        books.leases.insert(app.clone(), row);
        Ok(Lease::new(app, owner_id, fence, ttl, expires_at))
    }

    async fn renew_lease(&self, lease: &Lease, now: Timestamp) -> Result<Lease> {
        let mut books = self.lock();
        books.check_fence("store.renew_lease", &lease.app, lease.fence)?;
        let expires_at = now + lease.ttl;
        match books.leases.get_mut(&lease.app) {
            Some(row) if row.held && row.owner_id == lease.owner_id => row.expires_at = expires_at,
            _ => {
                return Err(Error::new(ErrorKind::Conflict, "the lease was given back")
                    .with_operation("store.renew_lease")
                    .with_resource(lease.app.as_str())
                    .with_retry(Retry::Never));
            }
        }
        Ok(Lease::new(lease.app.clone(), lease.owner_id.clone(), lease.fence, lease.ttl, expires_at))
    }

    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        let mut books = self.lock();
        if let Some(row) = books.leases.get_mut(&lease.app)
            && row.fence == lease.fence
            && row.owner_id == lease.owner_id
        {
            row.held = false;
        }
        Ok(())
    }

    async fn lease_holder(&self, app: &AppName) -> Result<Option<LeaseHolder>> {
        let books = self.lock();
        let row = books.leases.get(app).filter(|row| row.held);
        Ok(row.map(|row| {
            LeaseHolder::new(row.owner.clone(), row.fence, row.expires_at, books.dead.contains(&row.owner_id))
        }))
    }

    async fn put_release(&self, mut release: Release, fence: u64) -> Result<Release> {
        let mut books = self.lock();
        books.check_fence("store.put_release", &release.app, fence)?;
        let newest = books.releases.get(&release.app).and_then(|releases| releases.last_key_value());
        if let Some((_, text)) = newest {
            let newest: Release = decode("store.put_release", text)?;
            if newest.content_hash() == release.content_hash() {
                return Ok(newest);
            }
        }
        let number = books.numbers.get(&release.app).copied().unwrap_or(0) + 1;
        release.number = ReleaseNumber(number);
        let text = encode("store.put_release", &release)?;
        books.numbers.insert(release.app.clone(), number);
        books.releases.entry(release.app.clone()).or_default().insert(release.number, text);
        Ok(release)
    }

    async fn release(&self, app: &AppName, number: ReleaseNumber) -> Result<Option<Release>> {
        let books = self.lock();
        let text = books.releases.get(app).and_then(|releases| releases.get(&number));
        text.map(|text| decode("store.release", text)).transpose()
    }

    async fn releases(&self, query: ReleaseQuery) -> Result<Vec<Release>> {
        let books = self.lock();
        let Some(releases) = books.releases.get(&query.app) else { return Ok(Vec::new()) };
        let wanted = releases.iter().rev().filter(|(number, _)| query.before.is_none_or(|before| **number < before));
        wanted.take(limited(query.limit)).map(|(_, text)| decode("store.releases", text)).collect()
    }

    async fn remove_releases(&self, app: &AppName, numbers: &[ReleaseNumber], fence: u64) -> Result<()> {
        let mut books = self.lock();
        books.check_fence("store.remove_releases", app, fence)?;
        if let Some(releases) = books.releases.get_mut(app) {
            releases.retain(|number, _| !numbers.contains(number));
        }
        Ok(())
    }

    async fn append(&self, request: Append) -> Result<()> {
        let mut books = self.lock();
        let Append { record, fence, entries, .. } = request;
        books.check_fence("store.append", &record.app, fence)?;
        let refused = |kind, message: &'static str| {
            Error::new(kind, message).with_operation("store.append").with_resource(record.id.as_str())
        };
        let known = books.deployments.get(&record.id);
        if known.is_some_and(|row| row.app != record.app) {
            return Err(refused(ErrorKind::InvalidInput, "the deployment is another application's"));
        }
        let mut next = known.map_or(0, |row| row.entries.len() as u64) + 1;
        let mut texts = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            if entry.seq != next && index == 0 {
                return Err(refused(ErrorKind::Conflict, "the journal has moved on")
                    .with_context("next number", next.to_string())
                    .with_context("first number", entry.seq.to_string())
                    .with_retry(Retry::Never));
            }
            if entry.seq != next {
                return Err(refused(ErrorKind::InvalidInput, "the entries are not numbered without gaps"));
            }
            texts.push(encode("store.append", entry)?);
            next += 1;
        }
        if record.last_seq != next - 1 {
            return Err(refused(ErrorKind::InvalidInput, "the record does not name the last entry")
                .with_context("last entry", (next - 1).to_string())
                .with_context("record", record.last_seq.to_string()));
        }
        let text = encode("store.append", &record)?;
        let opened = books.opened + usize::from(known.is_none());
        books.opened = opened;
        let row = books.deployments.entry(record.id.clone()).or_insert_with(|| Row {
            app: record.app.clone(),
            record: String::new(),
            entries: Vec::new(),
            signals: Vec::new(),
            opened,
        });
        row.record = text;
        row.entries.extend(texts);
        Ok(())
    }

    async fn journal(&self, deployment: &DeploymentId, from: u64) -> Result<Vec<Entry>> {
        let books = self.lock();
        let Some(row) = books.deployments.get(deployment) else { return Ok(Vec::new()) };
        let skipped = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
        row.entries.iter().skip(skipped).map(|text| decode("store.journal", text)).collect()
    }

    async fn deployments(&self, query: DeploymentQuery) -> Result<Vec<DeploymentRecord>> {
        let books = self.lock();
        let before = query.before.as_ref().map(|id| books.deployments.get(id).map_or(0, |row| row.opened));
        let of_app = books.deployments.values().filter(|row| row.app == query.app);
        let mut wanted: Vec<&Row> = of_app.filter(|row| before.is_none_or(|before| row.opened < before)).collect();
        wanted.sort_by_key(|row| std::cmp::Reverse(row.opened));
        let wanted = wanted.into_iter().take(limited(query.limit));
        wanted.map(|row| decode("store.deployments", &row.record)).collect()
    }

    async fn send_signal(&self, request: SendSignal) -> Result<()> {
        let mut books = self.lock();
        match books.deployments.get_mut(&request.deployment) {
            Some(row) => {
                if !row.signals.contains(&request.signal) {
                    row.signals.push(request.signal);
                }
                Ok(())
            }
            None => Err(Error::new(ErrorKind::NotFound, "there is no such deployment")
                .with_operation("store.send_signal")
                .with_resource(request.deployment.as_str())),
        }
    }

    async fn signals(&self, deployment: &DeploymentId) -> Result<Vec<Signal>> {
        Ok(self.lock().deployments.get(deployment).map(|row| row.signals.clone()).unwrap_or_default())
    }

    async fn apps(&self) -> Result<Vec<AppName>> {
        let books = self.lock();
        let with_releases = books.releases.iter().filter(|(_, releases)| !releases.is_empty()).map(|(app, _)| app);
        let with_deployments = books.deployments.values().map(|row| &row.app);
        let apps: BTreeSet<&AppName> = with_releases.chain(with_deployments).collect();
        Ok(apps.into_iter().cloned().collect())
    }

    async fn forget_app(&self, app: &AppName, fence: u64) -> Result<()> {
        let mut books = self.lock();
        books.check_fence("store.forget_app", app, fence)?;
        books.releases.remove(app);
        books.deployments.retain(|_, row| row.app != *app);
        Ok(())
    }
}
