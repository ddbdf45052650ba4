//! Looking at an application, and clearing away what it does not need any more.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::act::SHORT;
use super::calls::{Access, Calls};
use super::run::Tools;
use crate::backend::{
    Call, Lease, LeaseHolder, ObservedInstance, PruneImages, PruneRevisions, Reduce, ReleaseQuery, RemoveTask,
    RetainRoutes, Signal,
};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::DeploymentRecord;
use crate::model::{AppName, DeploymentId, Digest, Release, ReleaseNumber, RevisionId, Route, ServiceName, Timestamp};

/// How long stopping a revision may take.
const STOP: Duration = Duration::from_secs(120);

/// How an application is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AppStatus {
    /// The application.
    pub app: AppName,
    /// The release that serves, by the records.
    pub serving: Option<ReleaseNumber>,
    /// The release that a rollback goes to unless one is named.
    pub last_known_good: Option<ReleaseNumber>,
    /// Its services.
    pub services: Vec<ServiceStatus>,
    /// The deployment that has no verdict yet.
    pub open: Option<DeploymentRecord>,
    /// Who holds the lease.
    pub holder: Option<LeaseHolder>,
    /// Where what is there differs from the release that serves, while no deployment is under way.
    pub drift: Vec<String>,
}

/// How a service is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// The service.
    pub service: ServiceName,
    /// How many instances the release that serves wants; as many as there are, within its bounds, where the platform scales
    /// it.
    pub wanted: u32,
    /// Its routes from outside.
    pub routes: Vec<Route>,
    /// Its revisions.
    pub revisions: Vec<RevisionStatus>,
}

/// How a revision is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RevisionStatus {
    /// The revision.
    pub revision: RevisionId,
    /// The release with which it came.
    pub release: ReleaseNumber,
    /// Whether it is the one that the release that serves wants.
    pub current: bool,
    /// Its percentage of new requests; none, if the service gets no traffic.
    pub weight: Option<u8>,
    /// Its instances.
    pub instances: Vec<ObservedInstance>,
}

/// What must be kept when an application is pruned, beside what serves, what a rollback goes to by default, and what
/// stays up as a warm standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Retention {
    /// How many of the newest good releases are kept.
    pub releases: u32,
}

impl Default for Retention {
    /// Ten good releases.
    fn default() -> Self {
        Self { releases: 10 }
    }
}

impl Retention {
    /// Keeps so many of the newest good releases.
    #[must_use]
    pub const fn releases(releases: u32) -> Self {
        Self { releases }
    }
}

/// What was cleared away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pruned {
    /// Releases that cannot be rolled back to any more.
    pub releases: Vec<ReleaseNumber>,
    /// Revisions that were stopped.
    pub revisions: Vec<RevisionId>,
    /// Images that were removed.
    pub images: Vec<String>,
    /// What the platform had written down of revisions, such as task definitions, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub definitions: Vec<String>,
}

/// What became of a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Signalled {
    /// The deployment that it was left for.
    pub deployment: DeploymentId,
    /// Whether somebody drives that deployment now. If not, resume it: the signal is taken then.
    pub driven: bool,
}

impl Tools {
    pub(crate) async fn status(&self, app: &AppName) -> Result<AppStatus> {
        let history = self.history(app).await?;
        let serving = history.serving();
        let release = match serving {
            Some(number) => self.release(app, number).await?,
            None => None,
        };
        let known: Vec<&Release> = release.iter().collect();
        let observed = self.observe(app, &known).await?;
        let read = || self.backend.store.lease_holder(app);
        let holder = self.calls.insist("store.lease_holder", app, Access::Read, SHORT, read).await?;
        let mut names = observed.services();
        names.extend(release.iter().flat_map(|release| release.services.keys().cloned()));
        let mut drift = Vec::new();
        let scales = self.backend.orchestrator.capabilities().scales;
        let services = names
            .into_iter()
            .map(|name| {
                let service = release.as_ref().and_then(|release| release.services.get(&name));
                let current = service.map(|service| service.revision(&name));
                let weights = observed.weights(&name);
                let listens = service.is_some_and(crate::model::ServiceRelease::listens);
                let mut revisions = observed.revisions(&name);
                if let (Some(current), Some(number)) = (&current, serving) {
                    revisions.entry(current.clone()).or_insert(number);
                }
                let revisions: Vec<RevisionStatus> = revisions
                    .into_iter()
                    .map(|(revision, release)| RevisionStatus {
                        current: Some(&revision) == current.as_ref(),
                        weight: listens.then(|| weights.get(&revision).copied().unwrap_or(0)),
                        instances: observed.instances(&revision).cloned().collect(),
                        revision,
                        release,
                    })
                    .collect();
                let least = service.map_or(0, |service| service.least_instances(scales));
                let bounds = service.and_then(|service| service.scaling.as_ref()).filter(|_| scales);
                let mut wanted = service.map_or(0, |service| service.replicas);
                if let Some(current) = &current {
                    if let Some(bounds) = bounds {
                        wanted = observed.count(current).clamp(bounds.min, bounds.max.max(bounds.min));
                    }
                    let ready = observed.ready(current);
                    if ready < least {
                        drift.push(format!("{ready} of {least} instances of {current} are ready"));
                    }
                    if listens && weights.get(current) != Some(&100) {
                        drift.push(format!("the traffic of {name} does not go to {current} alone"));
                    }
                } else if !revisions.is_empty() {
                    drift.push(format!("{name} runs and is in no release that serves"));
                }
                let routes = observed.routing(&name).map(|routing| routing.routes.clone()).unwrap_or_default();
                ServiceStatus { service: name, wanted, routes, revisions }
            })
            .collect();
        let open = history.open().cloned();
        if open.is_some() {
            drift.clear();
        }
        let last_known_good = history.last_known_good();
        Ok(AppStatus { app: app.clone(), serving, last_known_good, services, open, holder, drift })
    }

    /// Leaves a signal for the deployment that is under way.
    pub(crate) async fn signal(&self, app: &AppName, signal: Signal) -> Result<Signalled> {
        let open = self.history(app).await?.open().cloned().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "no deployment is under way").with_resource(app.to_string())
        })?;
        let request = crate::backend::SendSignal::new(open.id.clone(), signal, self.now());
        let send = || self.backend.store.send_signal(request.clone());
        self.calls.insist("store.send_signal", &open.id, Access::Fenced, SHORT, send).await?;
        let read = || self.backend.store.lease_holder(app);
        let holder = self.calls.insist("store.lease_holder", app, Access::Read, SHORT, read).await?;
        let driven = holder.is_some_and(|holder| !holder.dead && holder.expires_at > self.now());
        Ok(Signalled { deployment: open.id, driven })
    }

    pub(crate) async fn prune(&self, app: &AppName, retention: Retention) -> Result<Pruned> {
        // No call takes longer than the lease holds.
        let lease = self.acquire(app, self.lease_ttl.max(STOP * 2)).await?;
        let mut pruning = Pruning { tools: self, calls: self.calls.under(&lease), lease, renewed_at: self.now() };
        let result = pruning.prune(app, retention).await;
        self.give_back(&pruning.lease).await;
        result
    }

    async fn all_releases(&self, app: &AppName) -> Result<Vec<Release>> {
        const PAGE: u32 = 100;
        let mut all: Vec<Release> = Vec::new();
        loop {
            let mut query = ReleaseQuery::new(app.clone(), PAGE);
            if let Some(last) = all.last() {
                query = query.before(last.number);
            }
            let read = || self.backend.store.releases(query.clone());
            let page = self.calls.insist("store.releases", app, Access::Read, SHORT, read).await?;
            let done = page.len() < PAGE as usize;
            all.extend(page);
            if done {
                return Ok(all);
            }
        }
    }
}

/// Clearing away, as long as the lease is ours.
struct Pruning<'a> {
    tools: &'a Tools,
    /// Those that are made as long as the lease holds.
    calls: Calls,
    lease: Lease,
    renewed_at: Timestamp,
}

impl Pruning<'_> {
    /// Makes sure that nobody else deploys meanwhile. Called before every change.
    async fn keep_lease(&mut self) -> Result<()> {
        let now = self.tools.now();
        if now >= self.renewed_at + self.lease.ttl / 3 {
            let renew = || self.tools.backend.store.renew_lease(&self.lease, now);
            let made = self.tools.calls.insist("store.renew_lease", &self.lease.app, Access::Fenced, SHORT, renew);
            self.lease = made.await?;
            self.calls.renewed(&self.lease);
            self.renewed_at = now;
        }
        Ok(())
    }

    fn frame(&self, timeout: Duration) -> Call {
        self.calls.frame(&self.lease.owner_id, timeout)
    }

    async fn prune(&mut self, app: &AppName, retention: Retention) -> Result<Pruned> {
        let tools = self.tools;
        let history = tools.history(app).await?;
        if let Some(open) = history.open() {
            return Err(Error::new(ErrorKind::Busy, "a deployment has no verdict yet")
                .with_resource(open.id.to_string())
                .with_help("resume or cancel it first"));
        }
        let all = tools.all_releases(app).await?;
        let serving = history.serving();
        let good = history.good();
        let mut keep: BTreeSet<ReleaseNumber> = good.iter().take(retention.releases as usize).copied().collect();
        keep.extend(serving);
        if retention.releases > 0 {
            keep.extend(history.last_known_good());
        }
        let warm = tools.warm(app, &history).await?;
        keep.extend(history.standby().filter(|_| !warm.is_empty()).map(|(release, _)| release));

        let mut pruned = Pruned::default();
        let current = all.iter().find(|release| Some(release.number) == serving);
        let running = self.stop_unneeded(app, current, &warm, &mut pruned).await?;

        pruned.releases = all.iter().map(|release| release.number).filter(|number| !keep.contains(number)).collect();
        self.keep_lease().await?;
        let remove = || tools.backend.store.remove_releases(app, &pruned.releases, self.lease.fence);
        self.calls.insist("store.remove_releases", app, Access::Fenced, SHORT, remove).await?;
        let kept: Vec<&Release> = all.iter().filter(|release| keep.contains(&release.number)).collect();
        let mut revisions: BTreeSet<RevisionId> =
            kept.iter().flat_map(|release| release.revisions().into_values()).collect();
        revisions.extend(running.iter().map(|instance| instance.revision.clone()));
        let request = || PruneRevisions::new(self.frame(SHORT), app.clone(), revisions.clone());
        let prune = || tools.backend.orchestrator.prune(request());
        pruned.definitions = self.calls.insist("orchestrator.prune", app, Access::Change, SHORT, prune).await?;
        self.keep_lease().await?;
        let services = kept.into_iter().flat_map(|release| release.services.values());
        let mut images: BTreeSet<Digest> = services.map(|service| service.image.digest.clone()).collect();
        images.extend(running.into_iter().filter_map(|instance| instance.image));
        let request = || PruneImages::new(self.frame(SHORT), app.clone(), images.clone());
        let prune = || tools.backend.registry.prune(request());
        pruned.images = self.calls.insist("registry.prune", app, Access::Change, SHORT, prune).await?;
        Ok(pruned)
    }

    /// Stops revisions that neither serve nor stand by, and forgets tasks. Answers the instances that stay.
    async fn stop_unneeded(
        &mut self,
        app: &AppName,
        current: Option<&Release>,
        warm: &BTreeSet<RevisionId>,
        pruned: &mut Pruned,
    ) -> Result<Vec<ObservedInstance>> {
        let tools = self.tools;
        let observed = tools.observe(app, &[]).await?;
        for task in &observed.app.tasks {
            self.keep_lease().await?;
            let request = || RemoveTask::new(self.frame(SHORT), app.clone(), task.task.clone());
            let remove = || tools.backend.orchestrator.remove_task(request());
            self.calls.insist("orchestrator.remove_task", &task.task, Access::Change, SHORT, remove).await?;
        }
        let mut pools: BTreeSet<RevisionId> =
            current.map(Release::revisions).unwrap_or_default().into_values().collect();
        pools.extend(warm.iter().cloned());
        let present: BTreeSet<&RevisionId> = observed.app.instances.iter().map(|instance| &instance.revision).collect();
        for revision in present {
            let serves = observed.weights(revision.service()).contains_key(revision);
            if pools.contains(revision) || serves {
                continue;
            }
            self.keep_lease().await?;
            let request = || Reduce::new(self.frame(STOP), app.clone(), revision.clone(), 0);
            let reduce = || tools.backend.orchestrator.reduce(request());
            self.calls.insist("orchestrator.reduce", revision, Access::Change, STOP, reduce).await?;
            pruned.revisions.push(revision.clone());
        }
        if let Some(current) = current {
            let release = Some(std::sync::Arc::new(current.clone()));
            let pools: Vec<RevisionId> = pools.into_iter().collect();
            self.keep_lease().await?;
            let request = || RetainRoutes::new(self.frame(SHORT), app.clone(), release.clone(), pools.clone());
            let retain = || tools.backend.balancer.retain(request());
            self.calls.insist("balancer.retain", app, Access::Change, SHORT, retain).await?;
        }
        let stays = |instance: &ObservedInstance| !pruned.revisions.contains(&instance.revision);
        Ok(observed.app.instances.into_iter().filter(stays).collect())
    }
}
