//! From a wish to a deployment under way: lease, release, plan, journal's opening, driver.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::act::SHORT;
use super::append::append;
use super::calls::{Access, Attempts, Calls};
use super::driver::Driver;
use super::event::{EventKind, Events};
use super::history::History;
use super::looks::observe;
use super::prepare::Prepare;
use crate::backend::{
    AcquireLease, Append, Backend, DeploymentQuery, Gate, Lease, ObserveApp, ReleaseQuery, Secrets, Signal,
};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{DeploymentKind, DeploymentRecord, Entry, JournalEvent, State, Verdict};
use crate::model::{
    AppName, AppSpec, DeploymentId, InstanceId, PinnedImage, Problems, Provenance, Release, ReleaseNumber, RevisionId,
    ServiceName, ServiceRelease, Timestamp,
};
use crate::plan::{Observed, Plan, PlanRequest, plan_back, plan_forward};

/// How many records are read at a time to know an application's history.
const PAGE: u32 = 200;
/// How many promoted releases are enough to know of, and how many records are read at the most to find them.
const ENOUGH: usize = 20;
const MOST: usize = 20_000;
/// How long a deployment that was told to stop where it is may take to do so.
const PATIENCE: Duration = Duration::from_secs(600);

/// What a deployer works with.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    pub(crate) backend: Backend,
    pub(crate) calls: Calls,
    pub(crate) secrets: Arc<dyn Secrets>,
    pub(crate) gates: Arc<BTreeMap<String, Arc<dyn Gate>>>,
    pub(crate) owner: String,
    pub(crate) lease_ttl: Duration,
}

/// One run: what a deployer works with, and the deployment that it works on.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) tools: Tools,
    pub(crate) app: AppName,
    pub(crate) id: DeploymentId,
    pub(crate) events: Events,
    /// Who wants it to be cancelled, if anybody in this process does.
    pub(crate) cancelled: watch::Receiver<Option<String>>,
}

/// What a plan was computed from and for.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    pub(crate) baseline: Option<ReleaseNumber>,
    observed: Observed,
    warm: BTreeSet<RevisionId>,
}

/// What a preview was made from: its plan, and the release that served.
pub(crate) type Basis = (Plan, Option<ReleaseNumber>);

impl Tools {
    pub(crate) fn now(&self) -> Timestamp {
        self.calls.clock.now()
    }

    /// The deployments of an application, newest first, as they will be when the one that is under way was given up in favour
    /// of this one.
    pub(crate) async fn history_before(&self, app: &AppName, id: &DeploymentId) -> Result<History> {
        let mut history = self.history(app).await?;
        if let Some(open) = history.open() {
            let read = || self.backend.store.journal(&open.id, 1);
            let entries = self.calls.insist("store.journal", &open.id, Access::Read, SHORT, read).await?;
            let state = State::fold(&entries)?;
            let verdict = state.record.verdict.clone().unwrap_or_else(|| state.abandoned(id.as_str()));
            history.close(verdict);
        }
        Ok(history)
    }

    pub(crate) async fn history(&self, app: &AppName) -> Result<History> {
        let mut records = Vec::new();
        loop {
            let mut query = DeploymentQuery::new(app.clone(), PAGE);
            if let Some(last) = records.last() {
                let last: &DeploymentRecord = last;
                query = query.before(last.id.clone());
            }
            let read = || self.backend.store.deployments(query.clone());
            let page = self.calls.insist("store.deployments", app, Access::Read, SHORT, read).await?;
            let complete = page.len() < PAGE as usize;
            records.extend(page);
            let history = History(records);
            if complete || history.good().len() >= ENOUGH || history.0.len() >= MOST {
                return Ok(history);
            }
            records = history.0;
        }
    }

    pub(crate) async fn release(&self, app: &AppName, number: ReleaseNumber) -> Result<Option<Release>> {
        let read = || self.backend.store.release(app, number);
        self.calls.insist("store.release", format!("{app} {number}"), Access::Read, SHORT, read).await
    }

    /// A release that must be there.
    pub(crate) async fn kept_release(&self, app: &AppName, number: ReleaseNumber) -> Result<Release> {
        self.release(app, number).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "there is no such release, or it is not kept any more")
                .with_resource(format!("{app} {number}"))
                .with_help("look at the history for those that are kept")
        })
    }

    /// Refuses a spec that is wrong in itself, or that the backend cannot run; answers what else there is to say of it.
    pub(crate) async fn check(&self, spec: &AppSpec) -> Result<Problems> {
        spec.validate()?;
        let check = || self.backend.orchestrator.check(spec);
        let problems = self.calls.insist("orchestrator.check", &spec.name, Access::Read, SHORT, check).await?;
        for warning in problems.warnings() {
            tracing::warn!(app = %spec.name, %warning, "the backend has something to say about the spec");
        }
        if problems.has_errors() { Err(problems.into()) } else { Ok(problems) }
    }

    /// The same, and whatever of the surroundings would stop it.
    pub(crate) async fn check_beforehand(&self, spec: &AppSpec) -> Result<Problems> {
        let mut problems = self.check(spec).await?;
        let ask = || self.backend.orchestrator.preflight(spec);
        let found = self.calls.insist("orchestrator.preflight", &spec.name, Access::Read, SHORT, ask).await?;
        problems.0.extend(found.0);
        if problems.has_errors() { Err(problems.into()) } else { Ok(problems) }
    }

    /// What is there, with the instances of these releases probed.
    pub(crate) async fn observe(&self, app: &AppName, releases: &[&Release]) -> Result<Observed> {
        let mut probe = BTreeMap::new();
        for (name, service) in releases.iter().flat_map(|release| &release.services) {
            probe.insert(service.revision(name), service.effective_readiness());
        }
        let mut attempts = Attempts::of_a_look();
        loop {
            let request = ObserveApp::new(app.clone()).with_probe(probe.clone());
            match observe(&self.backend, &self.calls, request).await {
                Ok(observed) => return Ok(observed),
                Err(error) => self.calls.pause(error, &mut attempts).await?,
            }
        }
    }

    /// Takes the lease as an owner that never was before: nobody else's is ever taken for our own.
    pub(crate) async fn acquire(&self, app: &AppName, ttl: Duration) -> Result<Lease> {
        let owner_id = DeploymentId::fresh();
        let request = || AcquireLease::new(app.clone(), &self.owner, owner_id.as_str(), ttl, self.now());
        let acquire = || self.backend.store.acquire_lease(request());
        self.calls.insist("store.acquire_lease", app, Access::Fenced, SHORT, acquire).await
    }

    pub(crate) async fn give_back(&self, lease: &Lease) {
        let release = || self.backend.store.release_lease(lease);
        let made = self.calls.insist("store.release_lease", &lease.app, Access::Fenced, SHORT, release);
        if let Err(error) = made.await {
            tracing::warn!(%error, "the lease could not be given back: it expires by itself");
        }
    }

    /// The revisions that were left without traffic by the last promotion and are to stay up for a while yet.
    pub(crate) async fn warm(&self, app: &AppName, history: &History) -> Result<BTreeSet<RevisionId>> {
        let (Some((standby, since)), Some(serving)) = (history.standby(), history.serving()) else {
            return Ok(BTreeSet::new());
        };
        let (Some(old), Some(new)) = (self.release(app, standby).await?, self.release(app, serving).await?) else {
            return Ok(BTreeSet::new());
        };
        let now = self.now();
        let warm = old.services.iter().filter(|(name, _)| {
            new.services.get(*name).is_some_and(|service| now < since + service.strategy.keep_warm())
        });
        Ok(warm.map(|(name, service)| service.revision(name)).collect())
    }

    /// A release that is not kept yet, under the number that it would get.
    pub(crate) async fn draft_release(
        &self,
        spec: &AppSpec,
        services: BTreeMap<ServiceName, ServiceRelease>,
        mut provenance: Provenance,
    ) -> Result<Release> {
        let read = || self.backend.store.releases(ReleaseQuery::new(spec.name.clone(), 1));
        let newest = self.calls.insist("store.releases", &spec.name, Access::Read, SHORT, read).await?;
        let next = newest.first().map_or(1, |release| release.number.0 + 1);
        provenance.created_at = self.now();
        Ok(Release {
            format: Release::FORMAT,
            app: spec.name.clone(),
            number: ReleaseNumber(next),
            services,
            networks: spec.networks.clone(),
            volumes: spec.volumes.clone(),
            provenance,
        })
    }

    /// What another tool has started and the last deployment has stopped without coming to its own end.
    async fn stopped(&self, history: &History, observed: &Observed) -> Result<BTreeSet<InstanceId>> {
        let cut_short = |record: &&DeploymentRecord| {
            matches!(record.verdict, Some(Verdict::Superseded { .. } | Verdict::NeedsAttention { .. }))
        };
        let last = history.0.first().filter(cut_short);
        let Some(last) = last.filter(|_| observed.app.inherited.iter().any(|one| !one.running)) else {
            return Ok(BTreeSet::new());
        };
        let read = || self.backend.store.journal(&last.id, 1);
        let entries = self.calls.insist("store.journal", &last.id, Access::Read, SHORT, read).await?;
        Ok(State::fold(&entries)?.plan.inherited())
    }

    pub(crate) async fn plan(
        &self,
        app: &AppName,
        id: &DeploymentId,
        kind: DeploymentKind,
        target: Option<&Release>,
        history: &History,
    ) -> Result<Planned> {
        let baseline = history.serving();
        let serving = match baseline {
            Some(number) => self.release(app, number).await?,
            None => None,
        };
        let known: Vec<&Release> = target.into_iter().chain(&serving).collect();
        let mut observed = self.observe(app, &known).await?;
        if observed.is_dark() {
            // A plan spares nothing that answers nobody: one look, which may be an old one, is not enough for that.
            observed = self.observe(app, &known).await?;
        }
        let warm = self.warm(app, history).await?;
        let stopped = self.stopped(history, &observed).await?;
        let standby = if matches!(kind, DeploymentKind::Deploy) { &warm } else { &BTreeSet::new() };
        let before = match history.standby() {
            Some((number, _)) => self.release(app, number).await?,
            None => None,
        };
        let request = PlanRequest::new(app, id, target, serving.as_ref(), &observed, standby)
            .with_standby(before.as_ref())
            .with_drains(self.backend.orchestrator.capabilities().drains)
            .with_scales(self.backend.orchestrator.capabilities().scales)
            .with_internal(self.backend.balancer.capabilities().internal);
        let plan = match kind {
            DeploymentKind::Deploy => plan_forward(&request.with_stopped(&stopped)),
            DeploymentKind::Rollback { .. } => plan_back(&request),
            DeploymentKind::Destroy { volumes } => plan_back(&request.with_volumes(volumes)),
        };
        Ok(Planned { plan, baseline, observed, warm })
    }
}

impl Run {
    /// Brings a spec to a new release.
    pub(crate) async fn deploy(
        mut self,
        spec: AppSpec,
        provenance: Provenance,
        supersede: bool,
    ) -> Result<DeploymentRecord> {
        self.tools.check(&spec).await?;
        let prepare = Prepare {
            backend: self.tools.backend.clone(),
            calls: self.tools.calls.clone(),
            secrets: Arc::clone(&self.tools.secrets),
            events: self.events.clone(),
            key: self.id.to_string(),
        };
        let services = tokio::select! {
            services = prepare.services(&spec) => services?,
            // Nobody asks any more once the handle is gone, and neither does the task exist then.
            Ok(by) = self.cancelled.wait_for(Option::is_some) => {
                let by = by.clone().unwrap_or_default();
                let error = Error::new(ErrorKind::Cancelled, format!("cancelled by {by} before anything was touched"));
                return Err(error.with_resource(self.app.to_string()));
            }
        };
        let release = self.tools.draft_release(&spec, services, provenance).await?;
        self.release(release, None, supersede).await
    }

    /// Brings a release that was prepared already, if what its plan was made from is still so.
    pub(crate) async fn release(
        self,
        release: Release,
        basis: Option<Basis>,
        supersede: bool,
    ) -> Result<DeploymentRecord> {
        let lease = self.lease(supersede).await?;
        let result = async {
            let history = self.settle(&lease).await?;
            let put = || self.tools.backend.store.put_release(release.clone(), lease.fence);
            let put = self.tools.calls.insist("store.put_release", &self.app, Access::Fenced, SHORT, put).await?;
            self.events.send(EventKind::Released { release: put.number });
            // They were pinned before the lease was taken.
            self.check_images(&put).await?;
            let kind = DeploymentKind::Deploy;
            let planned = self.tools.plan(&self.app, &self.id, kind, Some(&put), &history).await?;
            planned.check(basis.as_ref())?;
            self.open(kind, Some(put.number), planned, &lease).await
        };
        let result = result.await;
        self.tools.give_back(&lease).await;
        result
    }

    /// Brings back a release that was kept.
    pub(crate) async fn rollback(self, to: Option<ReleaseNumber>, basis: Option<Basis>) -> Result<DeploymentRecord> {
        let lease = self.lease(false).await?;
        let result = async {
            let history = self.settle(&lease).await?;
            let number = to.or_else(|| history.way_back()).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "there is no earlier release that was good")
                    .with_resource(self.app.to_string())
                    .with_help("name a release, or deploy a new one")
            })?;
            let target = self.tools.kept_release(&self.app, number).await?;
            self.check_images(&target).await?;
            let from = history.serving().filter(|serving| *serving != number);
            let kind = DeploymentKind::Rollback { from };
            let planned = self.tools.plan(&self.app, &self.id, kind, Some(&target), &history).await?;
            planned.check(basis.as_ref())?;
            self.open(kind, Some(number), planned, &lease).await
        };
        let result = result.await;
        self.tools.give_back(&lease).await;
        result
    }

    /// Removes everything of the application.
    pub(crate) async fn destroy(self, volumes: bool) -> Result<DeploymentRecord> {
        let lease = self.lease(false).await?;
        let result = async {
            let history = self.settle(&lease).await?;
            let kind = DeploymentKind::Destroy { volumes };
            let planned = self.tools.plan(&self.app, &self.id, kind, None, &history).await?;
            self.open(kind, None, planned, &lease).await
        };
        let result = result.await;
        self.tools.give_back(&lease).await;
        result
    }

    /// Goes on with a deployment that another process began.
    pub(crate) async fn resume(self) -> Result<DeploymentRecord> {
        let lease = self.patient_lease(Duration::ZERO).await?;
        let result = async {
            let read = || self.tools.backend.store.journal(&self.id, 1);
            let entries = self.tools.calls.insist("store.journal", &self.id, Access::Read, SHORT, read).await?;
            let mut state = State::fold(&entries)?;
            if state.record.verdict.is_some() {
                return Ok(state.record);
            }
            let resumed = JournalEvent::Resumed { owner: self.tools.owner.clone() };
            self.write(&mut state, &lease, vec![resumed]).await?;
            let observed = self.tools.observe(&self.app, &[]).await?;
            let warm = self.tools.warm(&self.app, &self.tools.history(&self.app).await?).await?;
            self.drive(state, lease.clone(), observed, warm).await
        };
        let result = result.await;
        self.tools.give_back(&lease).await;
        result
    }

    /// Every image of a release that is brought back must still be there: that is told before anything is touched.
    async fn check_images(&self, release: &Release) -> Result<()> {
        let images: Vec<PinnedImage> = release.services.values().map(|service| service.image.clone()).collect();
        let ask = || self.tools.backend.registry.missing(&images);
        let missing = self.tools.calls.insist("registry.missing", &self.app, Access::Read, SHORT, ask).await?;
        if missing.is_empty() {
            return Ok(());
        }
        let names: Vec<String> =
            missing.iter().map(|image| format!("{} ({})", image.reference, image.digest.short())).collect();
        Err(Error::new(
            ErrorKind::NotFound,
            format!("images of release {} are gone: {}", release.number, names.join(", ")),
        )
        .with_resource(self.app.to_string())
        .with_help("choose another release, or deploy again from the sources"))
    }

    /// Takes the lease. If another deployment is under way and may be superseded, it is told to stop where it is.
    async fn lease(&self, supersede: bool) -> Result<Lease> {
        let busy = match self.tools.acquire(&self.app, self.tools.lease_ttl).await {
            Err(error) if error.kind() == ErrorKind::Busy && supersede => error,
            result => return result,
        };
        let Some(other) = self.tools.history(&self.app).await?.open().cloned() else { return Err(busy) };
        let signal = Signal::Supersede { by: self.id.to_string() };
        let request = crate::backend::SendSignal::new(other.id.clone(), signal, self.tools.now());
        let send = || self.tools.backend.store.send_signal(request.clone());
        self.tools.calls.insist("store.send_signal", &other.id, Access::Fenced, SHORT, send).await?;
        self.patient_lease(PATIENCE).await
    }

    /// Takes the lease as soon as it is free, waiting for a holder that does not renew it, and this much longer for one
    /// that does.
    async fn patient_lease(&self, patience: Duration) -> Result<Lease> {
        let mut deadline = None;
        loop {
            let asked = self.tools.now();
            let busy = match self.tools.acquire(&self.app, self.tools.lease_ttl).await {
                Err(error) if error.kind() == ErrorKind::Busy => error,
                result => return result,
            };
            let read = || self.tools.backend.store.lease_holder(&self.app);
            let holder = self.tools.calls.insist("store.lease_holder", &self.app, Access::Read, SHORT, read).await?;
            let Some(holder) = holder else { continue };
            let deadline = *deadline.get_or_insert_with(|| {
                let until = holder.expires_at + Duration::from_millis(50) + patience;
                self.events.send(EventKind::WaitingForLease { holder: holder.owner.clone(), until });
                until
            });
            // A slow store may answer after the lease has ended what was true before: only then is it asked in vain.
            if asked >= deadline {
                return Err(busy.with_help("the other deployment is alive: wait for it, or cancel it"));
            }
            self.tools.calls.clock.sleep(deadline.since(self.tools.now()).min(Duration::from_millis(250))).await;
        }
    }

    /// Ends a deployment that nobody drives any more: this one goes on from where it was.
    async fn settle(&self, lease: &Lease) -> Result<History> {
        let history = self.tools.history(&self.app).await?;
        let Some(open) = history.open().cloned() else { return Ok(history) };
        let read = || self.tools.backend.store.journal(&open.id, 1);
        let entries = self.tools.calls.insist("store.journal", &open.id, Access::Read, SHORT, read).await?;
        let mut state = State::fold(&entries)?;
        if state.record.verdict.is_none() {
            let verdict = state.abandoned(self.id.as_str());
            self.write(&mut state, lease, vec![JournalEvent::Closed { verdict }]).await?;
        }
        self.tools.history(&self.app).await
    }

    /// Opens the journal and drives the deployment to its end.
    async fn open(
        &self,
        kind: DeploymentKind,
        target: Option<ReleaseNumber>,
        planned: Planned,
        lease: &Lease,
    ) -> Result<DeploymentRecord> {
        let opened = JournalEvent::Opened {
            deployment: self.id.clone(),
            app: self.app.clone(),
            kind,
            target,
            baseline: planned.baseline,
            owner: self.tools.owner.clone(),
            plan: planned.plan,
        };
        let entry = Entry::new(1, self.tools.now(), lease.fence, opened);
        let state = State::open(&entry)?;
        let request = Append::new(state.record.clone(), lease.fence, vec![entry.clone()]);
        append(&self.tools.backend, &self.tools.calls, request).await?;
        self.events.send(EventKind::Journal { entry: Box::new(entry) });
        self.drive(state, lease.clone(), planned.observed, planned.warm).await
    }

    async fn drive(
        &self,
        state: State,
        lease: Lease,
        observed: Observed,
        warm: BTreeSet<RevisionId>,
    ) -> Result<DeploymentRecord> {
        let mut releases = BTreeMap::new();
        let mut wanted: BTreeSet<ReleaseNumber> =
            state.record.target.into_iter().chain(state.record.baseline).collect();
        wanted.extend(observed.app.instances.iter().map(|instance| instance.release));
        for number in wanted {
            if let Some(release) = self.tools.release(&self.app, number).await? {
                releases.insert(number, Arc::new(release));
            }
        }
        let driver = Driver::new(
            self.tools.backend.clone(),
            self.tools.calls.clone(),
            Arc::clone(&self.tools.gates),
            self.events.clone(),
            lease,
            state,
            releases,
            observed,
            warm,
            self.cancelled.clone(),
        );
        driver.run().await
    }

    async fn write(&self, state: &mut State, lease: &Lease, events: Vec<JournalEvent>) -> Result<()> {
        let mut entries = Vec::new();
        for event in events {
            let entry = Entry::new(state.record.last_seq + 1, self.tools.now(), lease.fence, event);
            state.apply(&entry)?;
            entries.push(entry);
        }
        let request = Append::new(state.record.clone(), lease.fence, entries.clone());
        append(&self.tools.backend, &self.tools.calls, request).await?;
        for entry in entries {
            self.events.send(EventKind::Journal { entry: Box::new(entry) });
        }
        Ok(())
    }
}

impl Planned {
    /// Refuses if what a preview was made from is not so any more.
    fn check(&self, basis: Option<&Basis>) -> Result<()> {
        let what = match basis {
            Some((before, _)) if before.basis != self.plan.basis => "instances or weights changed",
            Some((_, baseline)) if *baseline != self.baseline => "another release serves now",
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Conflict, "the world has moved since the plan was made")
            .with_resource(self.plan.app.to_string())
            .with_context("what", what)
            .with_help("plan again, and look at the new plan")
            .with_retry(crate::error::Retry::Never))
    }
}
