//! An orchestrator whose instances exist in the world's books only.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use deployer_core::{
    AppName, AppSpec, Clock, Effect, EnsureApp, ErrorKind, InheritedState, InstanceId, Launch, LogLine, LogQuery,
    LogStream, ObserveApp, ObservedApp, Orchestrator, OrchestratorCapabilities, Outcome, Problem, Problems,
    PruneRevisions, Reduce, Release, RemoveApp, RemoveTask, Result, Retry, RevisionId, ServiceName, ServiceRelease,
    SetInherited, SmokeAnswer, SmokeRequest, StartTask, TargetRegistration, Timestamp,
};
use futures_core::Stream;

use crate::world::instances::{Instance, Life, has_check};
use crate::world::routing::{Pool, check_pools};
use crate::world::state::{State, Task};
use crate::world::strict::Rule;
use crate::world::{World, failure};

/// Runs the instances of a [`World`].
#[derive(Clone, Debug)]
pub struct FakeOrchestrator {
    world: World,
}

impl FakeOrchestrator {
    pub(crate) fn new(world: World) -> Self {
        Self { world }
    }

    /// Tells the instances beyond the first `keep` to end; answers which those are, and when the last will have ended.
    fn begin_reduce(&self, request: &Reduce) -> Result<(Vec<InstanceId>, Timestamp)> {
        let resource = request.revision.to_string();
        let inputs = format!("{} {resource} keep {}", request.app, request.keep);
        let mut state = self.world.enter(&request.app, "orchestrator.reduce", &resource, &request.call, &inputs)?;
        let all = state.instances_that_stay(&request.app, &request.revision);
        let going = all.get(request.keep as usize..).unwrap_or_default().to_vec();
        let now = state.now;
        let drains = state.options.targets == TargetRegistration::Orchestrator;
        let drain = if drains { state.options.drain } else { Duration::ZERO };
        let propagation = state.options.propagation;
        for id in &going {
            let Some(instance) = state.instances.get(id) else { continue };
            let requests = state.traffic.in_flight_of(id);
            if !drains && requests > 0 && instance.life == Life::Running && state.is_in_rotation(instance) {
                let detail = format!("{} was stopped in rotation with {requests} requests in flight", instance.name);
                state.violate(Rule::OutOfRotationFirst, detail);
            }
            let busy = state.traffic.busy_until(id).map_or(Duration::ZERO, |until| until.since(now));
            if let Some(instance) = state.instances.get_mut(id) {
                instance.stop(now, busy, drain, propagation);
            }
        }
        state.settle();
        let ends = going.iter().filter_map(|id| match state.instances.get(id)?.life {
            Life::Stopping { until } => Some(until),
            _ => None,
        });
        let last = ends.max().unwrap_or(now);
        Ok((going, if drains { now } else { last }))
    }
}

/// The service of a release that a call is about, checked against what the call says.
fn service_of<'a>(
    state: &mut State,
    operation: &'static str,
    release: &'a Release,
    service: &ServiceName,
) -> Result<&'a ServiceRelease> {
    let found = release.services.get(service).ok_or_else(|| {
        failure(operation, service.as_str(), ErrorKind::InvalidInput, "the release has no such service")
    })?;
    let (image, digest) = (&found.image.reference, &found.image.digest);
    if !state.images.rows.contains_key(digest) {
        state.violate(Rule::ImageIsKnown, format!("{operation} {service} with {image}, {digest}"));
    }
    if !state.images.can_run(digest) {
        let error = failure(operation, service.as_str(), ErrorKind::NotFound, "the image is gone");
        return Err(error.with_context("image", image.clone()));
    }
    if !state.shared.get(&release.app).is_some_and(|shared| shared.ready) {
        let message = "the application's network does not exist";
        return Err(failure(operation, service.as_str(), ErrorKind::NotFound, message)
            .with_help("make it with `Orchestrator::ensure_app`"));
    }
    Ok(found)
}

#[async_trait]
impl Orchestrator for FakeOrchestrator {
    fn capabilities(&self) -> OrchestratorCapabilities {
        let state = self.world.lock();
        let mut capabilities = OrchestratorCapabilities::default();
        capabilities.drains = state.options.targets == TargetRegistration::Orchestrator;
        capabilities.poll = state.options.poll;
        capabilities
    }

    async fn check(&self, spec: &AppSpec) -> Result<Problems> {
        let state = self.world.reach("orchestrator.check", spec.name.as_str())?;
        let mut problems = Problems::default();
        for (name, service) in &spec.services {
            if let Some(why) = state.unsupported.get(name.as_str()) {
                problems.push(Problem::error(format!("services.{name}"), why.clone()));
            }
            if let Some(most) = state.options.most_instances.filter(|most| service.replicas > *most) {
                let message = format!("{} instances would be more than the quota of {most}", service.replicas);
                problems.push(Problem::error(format!("services.{name}.replicas"), message));
            }
        }
        Ok(problems)
    }

    async fn ensure_app(&self, request: EnsureApp) -> Result<Outcome> {
        const OPERATION: &str = "orchestrator.ensure_app";
        let release = &request.release;
        let app = &release.app;
        let inputs = format!("{app} {}", self.world.content_of(release));
        let mut state = self.world.enter(app, OPERATION, app.as_str(), &request.call, &inputs)?;
        self.world.check_release(&mut state, OPERATION, release);
        let shared = state.shared.entry(app.clone()).or_default();
        let before = shared.clone();
        shared.ready = true;
        shared.networks.insert("default".into());
        shared.networks.extend(release.networks.keys().cloned());
        shared.volumes.extend(release.volumes.keys().cloned());
        Ok(match (before.ready, before == *shared) {
            (false, _) => Outcome::Created,
            (true, true) => Outcome::AlreadyThere,
            (true, false) => Outcome::Changed,
        })
    }

    async fn observe(&self, request: ObserveApp) -> Result<ObservedApp> {
        let mut state = self.world.reach("orchestrator.observe", request.app.as_str())?;
        if state.is_stale("orchestrator.observe")
            && let Some(last) = state.answered.app(&request.app, state.now)
        {
            return Ok(last);
        }
        let mut revisions: BTreeMap<&RevisionId, Vec<&Instance>> = BTreeMap::new();
        for instance in state.instances.values().filter(|instance| instance.app == request.app) {
            revisions.entry(&instance.revision).or_default().push(instance);
        }
        let mut groups: Vec<Vec<_>> = Vec::new();
        for (revision, mut instances) in revisions {
            instances.sort_by_key(|instance| instance.ordinal);
            let probe = request.probe.get(revision);
            groups.push(instances.into_iter().map(|instance| instance.observed(probe)).collect());
        }
        let now = state.now;
        let tasks = state.tasks.iter().filter(|((app, _), _)| *app == request.app);
        let mut tasks: Vec<_> = tasks.map(|((_, id), task)| task.observed(id, now)).collect();
        // Only the order within a revision is promised.
        state.random.shuffle(&mut groups);
        state.random.shuffle(&mut tasks);
        let inherited = state.inherited.get(&request.app).cloned().unwrap_or_default();
        let instances = groups.into_iter().flatten().collect();
        let observed = ObservedApp::new(instances, tasks).with_inherited(inherited);
        let answer = (now, observed.clone());
        state.answered.apps.insert(request.app, answer);
        Ok(observed)
    }

    async fn launch(&self, request: Launch) -> Result<Outcome> {
        const OPERATION: &str = "orchestrator.launch";
        let Launch { call, release, service, revision, instances, .. } = &request;
        let resource = revision.to_string();
        let inputs = format!("{} {} {service} {revision} {instances}", release.app, self.world.content_of(release));
        let mut state = self.world.enter(&release.app, OPERATION, &resource, call, &inputs)?;
        self.world.check_release(&mut state, OPERATION, release);
        let found = service_of(&mut state, OPERATION, release, service)?;
        let inherited = state.inherited.get(&release.app).into_iter().flatten();
        if let Some(name) = inherited.filter(|one| one.service == *service && one.running).map(|one| &one.name).next() {
            let detail = format!("{revision} is started beside {name}");
            state.violate(Rule::InheritedIsStopped, detail);
        }
        let should_be = found.revision(service);
        if should_be != *revision {
            let detail = format!("{service} of {} is {should_be}, not {revision}", release.number);
            state.violate(Rule::RevisionIsOfRelease, detail);
        }
        let there = state.instances_that_stay(&release.app, revision).len();
        let missing = (*instances as usize).saturating_sub(there);
        state.check_quota(OPERATION, "instances", state.instances.len() + missing, state.options.most_instances)?;
        if state.options.targets == TargetRegistration::Orchestrator {
            check_pools(&state, OPERATION, &release.app, revision)?;
        }
        state.definitions.entry(release.app.clone()).or_default().insert(revision.clone());
        let outcome = start_missing(&mut state, &request, found)?;
        if state.options.targets == TargetRegistration::Orchestrator
            && let Some(entry) = state.routing.get_mut(&(release.app.clone(), service.clone()))
        {
            entry.pools.entry(revision.clone()).or_insert_with(Pool::default);
        }
        state.settle();
        let failed = state.instances_of(&release.app, revision);
        let error = failed.iter().find_map(|id| {
            let instance = state.instances.get(id)?;
            let pending = instance.life == Life::Pending;
            let words = instance.exit.as_ref().and_then(|exit| exit.error.clone());
            words.filter(|_| pending).map(|words| (instance.name.clone(), words))
        });
        match error {
            // The instance was made, as with Docker; it just did not start.
            Some((name, words)) => Err(failure(OPERATION, &name, ErrorKind::Workload, words).with_effect(Effect::Done)),
            None => Ok(outcome),
        }
    }

    async fn reduce(&self, request: Reduce) -> Result<Outcome> {
        let (going, until) = self.begin_reduce(&request)?;
        if going.is_empty() {
            return Ok(Outcome::AlreadyThere);
        }
        let now = self.world.now();
        if until > now {
            self.world.clock().sleep(until.since(now)).await;
        }
        let mut state = self.world.lock();
        // Those that are still draining are removed by the world itself when they have ended.
        for id in going {
            if state.instances.get(&id).is_some_and(|instance| !instance.is_alive()) {
                state.instances.remove(&id);
            }
        }
        state.settle();
        Ok(Outcome::Changed)
    }

    async fn start_task(&self, request: StartTask) -> Result<Outcome> {
        const OPERATION: &str = "orchestrator.start_task";
        let StartTask { call, task, release, service, command, .. } = &request;
        let inputs = format!("{} {} {service} {command:?}", release.app, self.world.content_of(release));
        let mut state = self.world.enter(&release.app, OPERATION, &task.0, call, &inputs)?;
        self.world.check_release(&mut state, OPERATION, release);
        let found = service_of(&mut state, OPERATION, release, service)?;
        let key = (release.app.clone(), task.clone());
        if state.tasks.contains_key(&key) {
            return Ok(Outcome::AlreadyThere);
        }
        let behaviour = state.behaviours.of_task(service, found, command);
        let (instance, _) = state.new_instance_id();
        let now = state.now;
        let (takes, code) = behaviour.task;
        let start_error = behaviour.start_error.clone();
        let row = Task {
            instance,
            service: service.clone(),
            started_at: now,
            ends_at: now + takes,
            code,
            start_error: start_error.clone(),
            lines: behaviour.lines,
        };
        state.tasks.insert(key.clone(), row);
        if let Some(words) = start_error {
            return Err(failure(OPERATION, &task.0, ErrorKind::Workload, words).with_effect(Effect::Done));
        }
        let executions = state.executions.entry(key).or_default();
        *executions += 1;
        if *executions > 1 {
            let detail = format!("{task} of {} was executed {executions} times", release.app);
            state.violate(Rule::TaskRunsOnce, detail);
        }
        Ok(Outcome::Created)
    }

    async fn remove_task(&self, request: RemoveTask) -> Result<Outcome> {
        let RemoveTask { call, app, task, .. } = &request;
        let mut state = self.world.enter(app, "orchestrator.remove_task", &task.0, call, app.as_str())?;
        let removed = state.tasks.remove(&(app.clone(), task.clone()));
        Ok(if removed.is_some() { Outcome::Changed } else { Outcome::AlreadyThere })
    }

    async fn set_inherited(&self, request: SetInherited) -> Result<Outcome> {
        const OPERATION: &str = "orchestrator.set_inherited";
        let SetInherited { call, app, instances, state: wanted, .. } = &request;
        let inputs = format!("{app} {instances:?} {wanted:?}");
        let mut state = self.world.enter(app, OPERATION, app.as_str(), call, &inputs)?;
        let there = state.inherited.entry(app.clone()).or_default();
        let before = there.clone();
        match wanted {
            InheritedState::Removed => there.retain(|one| !instances.contains(&one.id)),
            InheritedState::Stopped | InheritedState::Running => {
                let running = *wanted == InheritedState::Running;
                if let Some(gone) = instances.iter().find(|id| running && !there.iter().any(|one| one.id == **id)) {
                    return Err(failure(OPERATION, gone.as_str(), ErrorKind::NotFound, "it is gone"));
                }
                let these = there.iter_mut().filter(|one| instances.contains(&one.id));
                these.for_each(|one| one.running = running);
            }
        }
        Ok(if before == *there { Outcome::AlreadyThere } else { Outcome::Changed })
    }

    async fn prune(&self, request: PruneRevisions) -> Result<Vec<String>> {
        let PruneRevisions { call, app, keep, .. } = &request;
        let kept: Vec<&str> = keep.iter().map(RevisionId::hash).collect();
        let mut state = self.world.enter(app, "orchestrator.prune", app.as_str(), call, &kept.join(" "))?;
        let mut stays = keep.clone();
        let instances = state.instances.values().filter(|instance| instance.app == *app);
        stays.extend(instances.map(|instance| instance.revision.clone()));
        let Some(written) = state.definitions.get_mut(app) else { return Ok(Vec::new()) };
        let gone: Vec<RevisionId> = written.difference(&stays).cloned().collect();
        written.retain(|revision| stays.contains(revision));
        Ok(gone.iter().map(ToString::to_string).collect())
    }

    async fn remove_app(&self, request: RemoveApp) -> Result<Outcome> {
        const OPERATION: &str = "orchestrator.remove_app";
        let RemoveApp { call, app, volumes, .. } = &request;
        let mut state = self.world.enter(app, OPERATION, app.as_str(), call, &format!("{app} {volumes}"))?;
        let instance = state.instances.values().find(|instance| instance.app == *app).map(|one| one.name.clone());
        let task = state.tasks.keys().find(|(owner, _)| owner == app).map(|(_, task)| task.0.clone());
        if let Some(user) = instance.or(task) {
            return Err(failure(OPERATION, app.as_str(), ErrorKind::Conflict, "something still uses the networks")
                .with_context("used by", user)
                .with_retry(Retry::Soon));
        }
        state.definitions.remove(app);
        let Some(shared) = state.shared.get_mut(app) else { return Ok(Outcome::AlreadyThere) };
        let before = shared.clone();
        shared.ready = false;
        shared.networks.clear();
        if *volumes {
            shared.volumes.clear();
        }
        Ok(if before == *shared { Outcome::AlreadyThere } else { Outcome::Changed })
    }

    async fn smoke(&self, request: SmokeRequest) -> Result<Vec<SmokeAnswer>> {
        let state = self.world.reach("orchestrator.smoke", &request.revision.to_string())?;
        let ids = state.instances_of(&request.app, &request.revision);
        let running = ids.iter().filter_map(|id| state.instances.get(id)).filter(|one| one.life == Life::Running);
        Ok(running
            .map(|instance| SmokeAnswer {
                instance: instance.id.clone(),
                answer: match (instance.ready, &instance.sick) {
                    (true, None) => Ok(instance.behaviour.answer.clone()),
                    (true, Some(detail)) => Err(detail.clone()),
                    (false, _) => Err("connection refused".into()),
                },
            })
            .collect())
    }

    async fn logs(&self, query: LogQuery) -> Result<LogStream> {
        let state = self.world.reach("orchestrator.logs", query.app.as_str())?;
        let lines = matching_lines(&state, &query);
        let clock = query.follow.then(|| self.world.clock());
        Ok(Box::pin(Lines {
            world: self.world.clone(),
            query,
            lines: lines.into(),
            seen: state.now,
            clock,
            sleep: None,
        }))
    }
}

/// Starts what is missing of the wanted instances, and what has ended of them.
fn start_missing(state: &mut State, request: &Launch, found: &ServiceRelease) -> Result<Outcome> {
    let Launch { release, revision, instances, .. } = request;
    let now = state.now;
    let by_ordinal: BTreeMap<u32, InstanceId> = state
        .instances_that_stay(&release.app, revision)
        .into_iter()
        .filter_map(|id| state.instances.get(&id).map(|instance| (instance.ordinal, id)))
        .collect();
    let mut outcome = Outcome::AlreadyThere;
    for ordinal in 1..=*instances {
        match by_ordinal.get(&ordinal).and_then(|id| state.instances.get_mut(id)) {
            Some(instance) if matches!(instance.life, Life::Stopping { .. }) => {
                let message = "an instance of this ordinal is being stopped";
                return Err(failure("orchestrator.launch", &instance.name, ErrorKind::Conflict, message));
            }
            Some(instance) if matches!(instance.life, Life::Exited | Life::Pending) => {
                instance.stopped = false;
                instance.start(now);
                outcome = outcome.and(Outcome::Changed);
            }
            Some(_) => {}
            None => {
                let instance = new_instance(state, request, found, ordinal);
                state.instances.insert(instance.id.clone(), instance);
                let made = if by_ordinal.is_empty() { Outcome::Created } else { Outcome::Changed };
                outcome = outcome.and(made);
            }
        }
    }
    Ok(outcome)
}

fn new_instance(state: &mut State, request: &Launch, found: &ServiceRelease, ordinal: u32) -> Instance {
    let Launch { release, service, revision, .. } = request;
    let (id, address) = state.new_instance_id();
    let mut instance = Instance {
        id,
        name: format!("{}-{service}-{}-{ordinal}", release.app, revision.hash()),
        app: release.app.clone(),
        revision: revision.clone(),
        release: release.number,
        ordinal,
        address,
        host: state.emptiest_host(),
        image: found.image.clone(),
        behaviour: state.behaviours.of_service(service, found),
        restart: found.workload.restart,
        grace: found.workload.stop.grace,
        has_check: has_check(found),
        wants_probe: found.readiness.probe.is_some(),
        volumes: found.workload.exclusive_volumes().map(str::to_owned).collect::<BTreeSet<_>>(),
        life: Life::Pending,
        stopped: false,
        takes_until: None,
        ready: false,
        sick: None,
        started_at: None,
        runs: 0,
        crashes: 0,
        exit: None,
        lines: Vec::new(),
    };
    instance.start(state.now);
    // What needs no time to be ready is ready now.
    instance.change(state.now);
    instance
}

fn matching_lines(state: &State, query: &LogQuery) -> Vec<LogLine> {
    let wanted = |app: &AppName, service: &ServiceName, id: &InstanceId| {
        *app == query.app
            && (query.services.is_empty() || query.services.contains(service))
            && query.instance.as_ref().is_none_or(|only| only == id)
    };
    let instances = state.instances.values().filter(|one| wanted(&one.app, one.revision.service(), &one.id));
    let of_instances = instances.map(|one| (one.name.clone(), one.revision.service().clone(), one.output(state.now)));
    let tasks = state.tasks.iter().filter(|((app, _), task)| wanted(app, &task.service, &task.instance));
    let of_tasks = tasks.map(|((_, id), task)| (id.0.clone(), task.service.clone(), task.output(state.now)));
    let mut lines = Vec::new();
    for (name, service, written) in of_instances.chain(of_tasks) {
        let since: Vec<_> =
            written.into_iter().filter(|(at, ..)| query.since.is_none_or(|since| *at >= since)).collect();
        let skipped = query.tail.map_or(0, |tail| since.len().saturating_sub(tail as usize));
        lines.extend(
            since
                .into_iter()
                .skip(skipped)
                .map(|(at, stream, text)| LogLine::new(name.clone(), stream, text).at(at).of(service.clone())),
        );
    }
    lines.sort_by_key(|line| line.at);
    lines
}

/// Lines as they come.
struct Lines {
    world: World,
    query: LogQuery,
    lines: std::collections::VecDeque<LogLine>,
    /// Up to when lines were read.
    seen: Timestamp,
    /// There if more may come.
    clock: Option<Arc<dyn Clock>>,
    sleep: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Stream for Lines {
    type Item = Result<LogLine>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(line) = this.lines.pop_front() {
                return Poll::Ready(Some(Ok(line)));
            }
            let Some(clock) = &this.clock else { return Poll::Ready(None) };
            let sleep = this.sleep.get_or_insert_with(|| {
                let clock = Arc::clone(clock);
                Box::pin(async move { clock.sleep(Duration::from_millis(100)).await })
            });
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            this.sleep = None;
            let state = this.world.lock();
            let mut query = this.query.clone();
            query.tail = None;
            query.since = Some(this.seen + Duration::from_millis(1));
            this.lines = matching_lines(&state, &query).into();
            this.seen = state.now;
        }
    }
}
