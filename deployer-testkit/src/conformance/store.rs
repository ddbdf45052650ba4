//! The suite of [`ReleaseStore`].

mod journals;
mod leases;
mod processes;
mod releases;
mod signals;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use deployer_core::{
    AcquireLease, AppName, Append, DeploymentId, DeploymentKind, DeploymentRecord, Entry, JournalEvent, Lease, Release,
    ReleaseStore, Timestamp,
};

use super::bench::StoreBench;
use super::case::{Case, CaseFailure, CaseResult};

/// A store for one case.
pub(crate) struct StoreGround {
    pub(super) bench: Arc<dyn StoreBench>,
    /// The name of the bench, by which another process finds it.
    pub(super) bench_name: String,
    pub(super) place: String,
    pub(super) store: Arc<dyn ReleaseStore>,
    apps: AtomicU32,
}

/// How long the leases of the suite hold.
const TTL: Duration = Duration::from_secs(30);

/// The suite's time: leases know no other than what they are told.
fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_767_225_600_000 + millis)
}

impl StoreGround {
    pub(super) fn new(
        bench: Arc<dyn StoreBench>,
        bench_name: String,
        place: String,
        store: Arc<dyn ReleaseStore>,
    ) -> Self {
        Self { bench, bench_name, place, store, apps: AtomicU32::new(0) }
    }

    /// An application that nobody else knows.
    fn app(&self) -> AppName {
        let id = DeploymentId::fresh();
        let number = self.apps.fetch_add(1, Ordering::Relaxed);
        app_named(&format!("conf-{}-{number}", &id.as_str()[id.as_str().len() - 12..]))
    }

    /// Another handle on the same store.
    async fn another_handle(&self) -> CaseResult<Arc<dyn ReleaseStore>> {
        self.bench.open(&self.place).await
    }

    /// An application and its lease.
    async fn leased(&self) -> CaseResult<(AppName, Lease)> {
        let app = self.app();
        let lease = self.store.acquire_lease(wanted(&app, "first", 0)).await?;
        Ok((app, lease))
    }

    /// An application, its lease, and a deployment of it with one entry.
    async fn begun(&self) -> CaseResult<(AppName, Lease, DeploymentId)> {
        let (app, lease) = self.leased().await?;
        let id = DeploymentId::fresh();
        self.store.append(append(&app, &id, lease.fence, vec![entry(1, lease.fence, "first")])).await?;
        Ok((app, lease, id))
    }
}

/// A name that keeps the rules.
fn app_named(name: &str) -> AppName {
    AppName::new(name).unwrap_or_else(|error| unreachable!("{error}"))
}

/// Asks for the lease of an application at this time.
fn wanted(app: &AppName, owner: &str, now: i64) -> AcquireLease {
    AcquireLease::new(app.clone(), format!("{owner} of the suite"), owner, TTL, at(now))
}

fn entry(seq: u64, fence: u64, owner: &str) -> Entry {
    Entry::new(seq, at(5), fence, JournalEvent::Resumed { owner: owner.to_owned() })
}

/// Entries with these numbers.
fn entries(numbers: std::ops::RangeInclusive<u64>, fence: u64) -> Vec<Entry> {
    numbers.map(|seq| entry(seq, fence, "first")).collect()
}

/// The record of a deployment after so many entries.
fn record(app: &AppName, id: &DeploymentId, last_seq: u64) -> DeploymentRecord {
    let record = serde_json::json!({
        "id": id, "app": app, "kind": DeploymentKind::Deploy, "target": 1, "baseline": null, "owner": "the suite",
        "started_at": at(0), "finished_at": null, "verdict": null, "last_seq": last_seq,
    });
    serde_json::from_value(record).unwrap_or_else(|error| unreachable!("{error}"))
}

fn append(app: &AppName, id: &DeploymentId, fence: u64, entries: Vec<Entry>) -> Append {
    let last = entries.last().map_or(0, |entry| entry.seq);
    Append::new(record(app, id, last), fence, entries)
}

/// A release that differs from others by its image, with the suite's message.
fn release(app: &AppName, image: &str) -> Release {
    released(app, image, "of the suite")
}

fn released(app: &AppName, image: &str, message: &str) -> Release {
    let digest = deployer_core::Digest::of(image.as_bytes());
    let release = serde_json::json!({
        "format": Release::FORMAT, "app": app, "number": 0, "provenance": { "message": message },
        "services": { "web": { "replicas": 1, "image": {
            "reference": image, "location": format!("{image}@{digest}"), "digest": digest,
        } } },
    });
    serde_json::from_value(release).unwrap_or_else(|error| unreachable!("{error}"))
}

/// All cases of the suite.
pub(super) fn cases() -> Vec<Case<StoreGround>> {
    [leases::cases(), releases::cases(), journals::cases(), signals::cases(), processes::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// Waits for what a case does several times at once, each on a handle of its own.
async fn at_once<T: Send + 'static>(calls: Vec<impl Future<Output = T> + Send + 'static>) -> CaseResult<Vec<T>> {
    let mut running = tokio::task::JoinSet::new();
    for call in calls {
        running.spawn(call);
    }
    let mut answers = Vec::new();
    while let Some(answer) = running.join_next().await {
        answers.push(answer.map_err(|error| CaseFailure::new(error.to_string()))?);
    }
    Ok(answers)
}
