//! The loop around `decide`: observe, decide, append, act. The only part that does I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::act::Act;
use super::append::append;
use super::ask::Ask;
use super::calls::{Access, BACKOFF, Calls};
use super::decide::{Command, Decision, View, decide};
use super::diagnose;
use super::event::{EventKind, Events};
use super::looks::{Look, Looks, Pace, observe};
use super::watch::Watch;
use crate::backend::{
    Append, Backend, Gate, GateAnswer, GateQuestion, Lease, LogQuery, ObserveApp, ObservedInstance, Outcome,
    RemoveTask, Signal, TargetRegistration,
};
use crate::error::{ErrorKind, Result, Retry};
use crate::journal::{
    DeploymentKind, DeploymentRecord, DivertReason, Entry, Failure, JournalEvent, State, StepState, Verdict,
};
use crate::model::{GateCheck, GateSpec, InstanceId, Release, ReleaseNumber, RevisionId, Timestamp};
use crate::plan::{Action, Observed, PlanRequest, StepId, StepWeight, plan_back};

/// How often signals are looked for, and no more often than the platform is looked at.
const SIGNALS: Duration = Duration::from_millis(250);
/// How long that may take: the driver waits for it.
const SIGNALS_TIMEOUT: Duration = Duration::from_secs(4);
/// For how long nothing is judged by what was seen before.
const BLIND: Duration = Duration::from_secs(60);
/// How long removing a task may take. The driver waits for it, and has a lease to renew meanwhile.
const TASK: Duration = Duration::from_secs(4);
/// How often it is looked at most until two looks agree on what there is.
const LOOKS_FOR_PLAN: u32 = 5;
/// How many lines of output are kept as evidence.
const EVIDENCE_LINES: u32 = 20;

/// What drives one deployment, as long as this process holds the lease.
pub(crate) struct Driver {
    pub(crate) backend: Backend,
    pub(crate) calls: Calls,
    pub(crate) gates: Arc<BTreeMap<String, Arc<dyn Gate>>>,
    pub(crate) events: Events,
    pub(crate) lease: Lease,
    pub(crate) state: State,
    pub(crate) releases: Arc<BTreeMap<ReleaseNumber, Arc<Release>>>,
    looks: Arc<Looks>,
    watch: Watch,
    observed: Arc<Observed>,
    /// When that was looked at.
    seen_at: Timestamp,
    /// Whether no call has ended since what is observed was looked at.
    is_current: bool,
    /// How far looks are spread out, because the platform throttles them.
    pace: Pace,
    /// Whether a step has begun to wait since the last look.
    unseen: bool,
    /// Revisions that stood by before this deployment, and stay if it is brought back.
    warm: BTreeSet<RevisionId>,
    cancelled: watch::Receiver<Option<String>>,
    tasks: JoinSet<Finished>,
    signals_every: Duration,
    signals_at: Timestamp,
    renew_at: Timestamp,
}

/// A call that has ended.
enum Finished {
    Step { step: StepId, attempt: u32, result: Result<Outcome> },
    Gate { step: StepId, gate: String, answer: Result<GateAnswer> },
}

/// What a turn leaves to be done.
pub(crate) enum Next {
    /// Another turn is due now, or when a call ends, or at this time, whatever comes first.
    Turn { wake_at: Option<Timestamp> },
    /// The deployment has ended.
    Ended,
}

impl Driver {
    #[expect(clippy::too_many_arguments, reason = "made in one place, from parts that have nothing else in common")]
    pub(crate) fn new(
        backend: Backend,
        calls: Calls,
        gates: Arc<BTreeMap<String, Arc<dyn Gate>>>,
        events: Events,
        lease: Lease,
        state: State,
        releases: BTreeMap<ReleaseNumber, Arc<Release>>,
        observed: Observed,
        warm: BTreeSet<RevisionId>,
        cancelled: watch::Receiver<Option<String>>,
    ) -> Self {
        let calls = calls.under(&lease);
        let now = calls.now();
        // It may have been taken a while ago.
        let lease_third = lease.ttl / 3;
        let age = lease.ttl.saturating_sub(lease.expires_at.since(calls.clock.now()));
        let way = if state.diverted.is_some() { state.record.baseline } else { state.record.target };
        let looks = Arc::new(Looks::new(&state.record.app, &releases, way));
        let signals_every = SIGNALS.max(backend.orchestrator.capabilities().poll);
        Self {
            backend,
            calls,
            gates,
            events,
            lease,
            state,
            releases: Arc::new(releases),
            looks,
            watch: Watch::default(),
            observed: Arc::new(observed),
            seen_at: now,
            is_current: false,
            pace: Pace::default(),
            unseen: false,
            warm,
            cancelled,
            tasks: JoinSet::new(),
            signals_every,
            signals_at: now - signals_every,
            renew_at: now - age + lease_third,
        }
    }

    /// Takes turns until the deployment has ended.
    pub(crate) async fn run(mut self) -> Result<DeploymentRecord> {
        let span = tracing::info_span!("deployment", app = %self.state.record.app, id = %self.state.record.id);
        async move {
            let mut results = Vec::new();
            loop {
                match self.turn(results).await? {
                    Next::Ended => return Ok(self.state.record),
                    Next::Turn { wake_at } => results = self.wait(wake_at).await,
                }
            }
        }
        .instrument(span)
        .await
    }

    /// Waits for a call to end, for a cancellation, or for the time to look again.
    async fn wait(&mut self, wake_at: Option<Timestamp>) -> Vec<Finished> {
        let now = self.calls.now();
        let mut until = self.renew_at;
        until = until.min(self.signals_at + self.signals_every);
        if let Some(wake_at) = wake_at {
            until = until.min(wake_at);
        }
        let pause = until.since(now);
        let mut results = Vec::new();
        tokio::select! {
            biased;
            Some(result) = self.tasks.join_next() => results.extend(flatten(result)),
            Ok(()) = self.cancelled.changed() => {}
            () = self.calls.clock.sleep(pause) => {}
        }
        while let Some(result) = self.tasks.try_join_next() {
            results.extend(flatten(result));
        }
        results
    }

    /// One turn: takes the results of calls, looks at the world if a step waits for something in it, decides, appends to
    /// the journal, and makes calls.
    async fn turn(&mut self, results: Vec<Finished>) -> Result<Next> {
        self.renew_lease().await?;
        let mut entries = Vec::new();
        for result in results {
            self.take(result, &mut entries).await?;
        }
        self.take_signals(&mut entries).await?;
        self.unseen |= !self.watch.waiting.is_empty();
        // What was just written may allow more, and all of it goes into one append.
        let mut acts = Vec::new();
        let mut asks = Vec::new();
        let wake_at = loop {
            if std::mem::take(&mut self.unseen) {
                self.look_and_append(&mut entries).await?;
            }
            let decision = self.decide();
            if decision.commands.is_empty() {
                break decision.wake_at;
            }
            let mut again = false;
            for command in decision.commands {
                again |= self.obey(command, &mut entries, &mut acts, &mut asks).await?;
            }
            if !again {
                break decision.wake_at;
            }
        };
        self.append(entries).await?;
        if self.state.record.verdict.is_some() {
            return Ok(Next::Ended);
        }
        for (step, attempt) in acts {
            self.act(step, attempt);
        }
        for (step, gate, revision, weight) in asks {
            self.ask(step, gate, revision, weight);
        }
        Ok(Next::Turn { wake_at })
    }

    fn decide(&self) -> Decision {
        let now = self.calls.now();
        decide(&View {
            state: &self.state,
            observed: &self.observed,
            watch: &self.watch,
            releases: &self.releases,
            poll: self.pace.spread(self.backend.orchestrator.capabilities().poll),
            propagation: self.backend.balancer.capabilities().propagation,
            internal: self.backend.balancer.capabilities().internal,
            registers: self.backend.balancer.capabilities().targets == TargetRegistration::Engine,
            scales: self.backend.orchestrator.capabilities().scales,
            now,
            seen: self.seen_at,
            is_current: self.is_current,
            // A world that cannot be looked at for long is not waited for without end.
            missed: if now.since(self.seen_at) < BLIND { self.seen_at } else { now },
        })
    }

    /// Carries out a command as far as it is a matter of the journal, and answers whether more may be decided at once.
    async fn obey(
        &mut self,
        command: Command,
        entries: &mut Vec<Entry>,
        acts: &mut Vec<(StepId, u32)>,
        asks: &mut Vec<(StepId, GateSpec, RevisionId, u8)>,
    ) -> Result<bool> {
        match command {
            Command::Act { step, attempt } => {
                self.write(entries, JournalEvent::StepStarted { step, attempt })?;
                if self.state.plan.step(step).is_some_and(|step| makes_call(&step.action)) {
                    self.watch.running.insert(step);
                    self.watch.waiting.remove(&step);
                    acts.push((step, attempt));
                    Ok(false)
                } else {
                    let (now, outcome) = (self.calls.now(), Outcome::AlreadyThere);
                    self.watch.begin(step, outcome, now, &self.state.plan, &self.observed);
                    // What it waits for may be true already, but that has to be looked at first.
                    self.unseen = true;
                    Ok(true)
                }
            }
            Command::Finish { step, outcome, mut detail, output_of } => {
                if let Some(instance) = output_of {
                    detail.extend(self.output(instance).await);
                }
                self.watch.waiting.remove(&step);
                self.write(entries, JournalEvent::StepFinished { step, outcome, detail })?;
                Ok(true)
            }
            Command::Fail { step, mut failure, output_of } => {
                self.add_output(&mut failure, output_of).await;
                self.watch.waiting.remove(&step);
                self.write(entries, JournalEvent::StepFailed { step, failure })?;
                Ok(true)
            }
            Command::Answer { step, gate, answer } => {
                self.write(entries, JournalEvent::GateAsked { step, gate, answer: Ok(answer) })?;
                Ok(true)
            }
            Command::Ask { step, gate, revision, weight } => {
                self.watch.running.insert(step);
                asks.push((step, gate, revision, weight));
                Ok(false)
            }
            Command::Register { release, revision, instances } => {
                // What was decided so far is not held up by it.
                self.append(std::mem::take(entries)).await?;
                self.watch.registers(self.calls.now());
                let act = self.calls_of(format!("{}-register", self.state.record.id));
                if let Err(error) = act.register(release, &revision, &instances).await {
                    tracing::warn!(%error, "instances that have come back cannot be put into rotation now");
                }
                Ok(false)
            }
            Command::Divert { reason } => {
                self.divert(reason, entries).await?;
                Ok(true)
            }
            Command::Close { mut verdict } => {
                let left = if self.may_have_tasks() { self.forget_tasks().await? } else { Vec::new() };
                if let Verdict::Promoted { leftovers } = &mut verdict {
                    leftovers.extend(left);
                }
                self.write(entries, JournalEvent::Closed { verdict })?;
                Ok(false)
            }
        }
    }

    /// Follows another plan from here on: the one that brings back what was there before.
    async fn divert(&mut self, reason: DivertReason, entries: &mut Vec<Entry>) -> Result<()> {
        // What was decided so far is safe before anything else is asked.
        self.append(std::mem::take(entries)).await?;
        self.observed = self.observe_for_plan().await?;
        self.seen_at = self.calls.now();
        // One that still runs must not go on beside what is done now.
        self.renew_lease().await?;
        self.remove_tasks(&self.observed).await;
        let record = &self.state.record;
        let baseline = record.baseline.and_then(|number| self.releases.get(&number)).map(Arc::clone);
        let target = record.target.and_then(|number| self.releases.get(&number)).map(Arc::clone);
        let (baseline, target) = (baseline.as_deref(), target.as_deref());
        let request = PlanRequest::new(&record.app, &record.id, baseline, target, &self.observed, &self.warm);
        let capabilities = self.backend.orchestrator.capabilities();
        let internal = self.backend.balancer.capabilities().internal;
        // What somebody merely stopped is as good as it was; what failed had better have no traffic.
        let failed = matches!(reason, DivertReason::Failed { .. });
        let standing_by = failed || !matches!(record.kind, DeploymentKind::Rollback { .. });
        let request = if standing_by { request.with_failed_baseline() } else { request };
        let request = request.with_haste(failed).with_drains(capabilities.drains).with_scales(capabilities.scales);
        self.looks = Arc::new(Looks::new(&record.app, &self.releases, record.baseline));
        let stopped = self.state.plan.inherited();
        let plan = plan_back(&request.with_internal(internal).with_stopped(&stopped));
        self.watch.clear();
        self.write(entries, JournalEvent::Diverted { reason, plan })
    }

    /// Looks until the world answers, and answers twice the same: a plan is never made from a guess, nor from one answer
    /// that may be old. The look before this one counts, if it is not of the same moment.
    async fn observe_for_plan(&mut self) -> Result<Arc<Observed>> {
        let poll = self.backend.orchestrator.capabilities().poll;
        let (mut seen, mut seen_at) = (self.observed.fingerprint(), self.seen_at);
        let (mut pause, mut looks) = (BACKOFF, 0);
        loop {
            let early = (seen_at + poll).since(self.calls.now());
            self.calls.clock.sleep(early).await;
            let asked = self.calls.now();
            match self.look_once().await {
                Ok(Look { at, observed }) => {
                    looks += 1;
                    let now = observed.fingerprint();
                    // Somebody may be at work beside it all the time.
                    if now == seen || looks == LOOKS_FOR_PLAN {
                        return Ok(observed);
                    }
                    (seen, seen_at) = (now, at);
                }
                Err(error) if error.retry() == Retry::Never => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "the world cannot be observed, trying again");
                    // The time that it took counts: clients of platforms learn how many calls they may make from those that
                    // they make, and one that may make few would never learn that there may be more.
                    self.calls.clock.sleep((asked + pause).since(self.calls.now())).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
            self.renew_lease().await?;
        }
    }

    async fn look(&mut self) {
        let seen = self.look_once().await;
        self.saw(seen);
    }

    /// Looks. Whoever listens does not wait with what was decided so far for the platform's answer.
    async fn look_and_append(&mut self, entries: &mut Vec<Entry>) -> Result<()> {
        let (written, seen) = tokio::join!(self.append(std::mem::take(entries)), self.look_once());
        self.saw(seen);
        written
    }

    async fn look_once(&self) -> Result<Look> {
        self.looks.look_soon(&self.backend, &self.calls).await
    }

    /// Takes what was seen from here on.
    fn saw(&mut self, seen: Result<Look>) {
        self.pace.learn(seen.as_ref().err(), self.calls.now());
        match seen {
            Ok(Look { at, observed }) => {
                self.tell_changes(&observed);
                self.observed = observed;
                self.seen_at = at;
                self.is_current = true;
                self.watch.update(&self.state.plan, &self.observed, at);
            }
            // Deadlines go on; the next look may succeed.
            Err(error) => tracing::warn!(%error, "the world cannot be observed now"),
        }
    }

    /// Tells which instances have changed since the last look.
    fn tell_changes(&self, now: &Observed) {
        let before: BTreeMap<&InstanceId, &ObservedInstance> =
            self.observed.app.instances.iter().map(|instance| (&instance.id, instance)).collect();
        let tell = |instance: &ObservedInstance, gone: bool| {
            self.events.send(EventKind::Instance {
                id: instance.id.clone(),
                name: instance.name.clone(),
                revision: instance.revision.clone(),
                phase: (!gone).then_some(instance.phase),
                health: instance.health,
                detail: instance.health_detail.clone(),
            });
        };
        for instance in &now.app.instances {
            let known = before.get(&instance.id);
            if known.is_none_or(|known| known.phase != instance.phase || known.health != instance.health) {
                tell(instance, false);
            }
        }
        let present: BTreeSet<&InstanceId> = now.app.instances.iter().map(|instance| &instance.id).collect();
        for instance in self.observed.app.instances.iter().filter(|instance| !present.contains(&instance.id)) {
            tell(instance, true);
        }
    }

    /// Makes the call of a step in the background.
    fn act(&mut self, step: StepId, attempt: u32) {
        let Some(planned) = self.state.plan.step(step).cloned() else { return };
        let way = if self.state.diverted.is_some() { "b" } else { "f" };
        let mut act = self.calls_of(format!("{}-{way}-{step}", self.state.record.id));
        act.drain_failed = planned.after.iter().any(|before| {
            let drains = self.state.plan.step(*before).is_some_and(|step| matches!(step.action, Action::Drain { .. }));
            drains && matches!(self.state.step_state(*before), Some(StepState::Failed { .. }))
        });
        let span = tracing::info_span!("step", step = step.0, action = planned.action.name(), attempt);
        let work = async move {
            let result = act.perform(&planned.action).await;
            Finished::Step { step, attempt, result }
        };
        self.tasks.spawn(work.instrument(span));
    }

    /// What makes calls with this key.
    fn calls_of(&self, key: String) -> Act {
        Act {
            backend: self.backend.clone(),
            calls: self.calls.clone(),
            app: self.state.record.app.clone(),
            key,
            releases: Arc::clone(&self.releases),
            looks: Arc::clone(&self.looks),
            drain_failed: false,
        }
    }

    /// Asks a gate in the background.
    fn ask(&mut self, step: StepId, gate: GateSpec, revision: RevisionId, weight: u8) {
        let callback = match &gate.check {
            GateCheck::Callback { name } => self.gates.get(name).map(Arc::clone),
            _ => None,
        };
        let ask = Ask {
            backend: self.backend.clone(),
            calls: self.calls.clone(),
            question: GateQuestion::new(self.state.record.app.clone(), self.state.record.id.clone(), revision, weight),
            callback,
        };
        self.tasks.spawn(async move {
            let answer = ask.put(&gate).await;
            Finished::Gate { step, gate: gate.name, answer }
        });
    }

    /// Takes the result of a call into the journal.
    async fn take(&mut self, finished: Finished, entries: &mut Vec<Entry>) -> Result<()> {
        let now = self.calls.now();
        match finished {
            Finished::Gate { step, gate, answer } => {
                self.watch.running.remove(&step);
                let asks = self.state.plan.step(step).is_some_and(|step| step.gates().any(|spec| spec.name == gate));
                if !asks || !matches!(self.state.step_state(step), Some(StepState::Started { .. })) {
                    // It comes too late to matter: its step has ended, or the plan is given up.
                    return Ok(());
                }
                let answer = answer.map_err(|error| error.report());
                self.write(entries, JournalEvent::GateAsked { step, gate, answer })
            }
            Finished::Step { step, attempt, result } => {
                self.watch.running.remove(&step);
                self.is_current = false;
                let Some(planned) = self.state.plan.step(step).cloned() else { return Ok(()) };
                if let Err(error) = &result {
                    self.pace.learn(Some(error), now);
                }
                match result {
                    Ok(outcome) => {
                        if self.waits(&planned.action) {
                            self.watch.begin(step, outcome, now, &self.state.plan, &self.observed);
                            return Ok(());
                        }
                        self.write(entries, JournalEvent::StepFinished { step, outcome, detail: Vec::new() })
                    }
                    Err(error) => match self.watch.failed(step, &error) {
                        Some(pause) => {
                            let retry_at = now + pause;
                            let error = error.report();
                            self.write(entries, JournalEvent::StepRetried { step, attempt, error, retry_at })
                        }
                        None => {
                            let mut failure = diagnose::of_error(planned.action.to_string(), &error);
                            failure.service = planned.action.service().cloned();
                            self.add_evidence(&planned.action, &mut failure).await;
                            if planned.weight == StepWeight::CleanUp {
                                tracing::warn!(%error, step = step.0, "clean-up failed, a later deployment tries again");
                            }
                            self.write(entries, JournalEvent::StepFailed { step, failure: Box::new(failure) })
                        }
                    },
                }
            }
        }
    }

    /// Adds what is known of the instances that a failed launch left.
    async fn add_evidence(&mut self, action: &Action, failure: &mut Failure) {
        let Action::Launch { revision, .. } = action else { return };
        self.look().await;
        let failed: Vec<ObservedInstance> =
            self.observed.instances(revision).filter(|instance| instance.exit.is_some()).take(3).cloned().collect();
        failure.evidence = diagnose::evidence(&failed);
        self.add_output(failure, failed.into_iter().map(|instance| instance.id)).await;
    }

    /// Adds what the first of the instances wrote that the evidence is about, in its order. All are asked at once: a
    /// platform takes its time to answer about an instance that it starts again and again.
    async fn add_output(&self, failure: &mut Failure, instances: impl IntoIterator<Item = InstanceId>) {
        let mut asked = JoinSet::new();
        for (index, instance) in instances.into_iter().take(3).enumerate() {
            let output = self.output(instance);
            asked.spawn(async move { (index, output.await) });
        }
        while let Some(answered) = asked.join_next().await {
            if let Ok((index, lines)) = answered
                && let Some(evidence) = failure.evidence.get_mut(index)
            {
                evidence.last_lines = lines;
            }
        }
    }

    /// The last lines that an instance wrote; none, if they cannot be had.
    fn output(&self, instance: InstanceId) -> impl Future<Output = Vec<String>> + Send + use<> {
        let query =
            LogQuery::new(self.state.record.app.clone()).with_instance(instance.clone()).with_tail(EVIDENCE_LINES);
        let (backend, calls) = (self.backend.clone(), self.calls.clone());
        async move {
            let read = || async {
                let mut stream = backend.orchestrator.logs(query.clone()).await?;
                let mut lines = Vec::new();
                while let Some(line) = std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await {
                    let line = line?;
                    lines.push((line.stream, line.text));
                }
                Ok(lines)
            };
            let made = calls.insist("orchestrator.logs", instance, Access::Read, Duration::from_secs(2), read);
            diagnose::last_lines(made.await.unwrap_or_default(), EVIDENCE_LINES as usize)
        }
    }

    /// Whether a step waits for something to become true after its call, if it makes one.
    fn waits(&self, action: &Action) -> bool {
        match action {
            Action::RunHook { .. } | Action::Drain { .. } | Action::Reduce { .. } => true,
            Action::Shift { .. } => !self.backend.balancer.capabilities().propagation.is_zero(),
            _ => !makes_call(action),
        }
    }

    async fn take_signals(&mut self, entries: &mut Vec<Entry>) -> Result<()> {
        let now = self.calls.now();
        let by = self.cancelled.borrow().clone();
        let mut signals: Vec<Signal> = by.map(|by| Signal::Cancel { by }).into_iter().collect();
        if now >= self.signals_at + self.signals_every {
            self.signals_at = now;
            signals.extend(self.stored_signals().await);
        }
        for signal in signals {
            // A cancellation that comes too late has nothing to cancel, and one is enough.
            let cancels = |signal: &Signal| matches!(signal, Signal::Cancel { .. });
            let void = cancels(&signal) && (self.state.is_verified() || self.state.signals.iter().any(cancels));
            if !void && !self.state.signals.contains(&signal) {
                self.write(entries, JournalEvent::Signalled { signal })?;
            }
        }
        Ok(())
    }

    /// The signals that were left for this deployment; none, if they cannot be read now.
    async fn stored_signals(&self) -> Vec<Signal> {
        let id = &self.state.record.id;
        let read = || self.backend.store.signals(id);
        match self.calls.make("store.signals", id, Access::Read, SIGNALS_TIMEOUT, read).await {
            Ok(signals) => signals,
            Err(error) => {
                tracing::warn!(%error, "signals cannot be read now");
                Vec::new()
            }
        }
    }

    /// Whether one-off tasks may have been started: by the plan, or by the one that was given up for it.
    fn may_have_tasks(&self) -> bool {
        let hooks = |action: &Action| matches!(action, Action::RunHook { .. });
        self.state.diverted.is_some() || self.state.plan.steps.iter().any(|step| hooks(&step.action))
    }

    /// Looks for the one-off tasks of this deployment, and forgets them. Answers what may be left over.
    async fn forget_tasks(&mut self) -> Result<Vec<String>> {
        let request = ObserveApp::new(self.state.record.app.clone());
        let (begun, mut pause) = (self.calls.now(), BACKOFF);
        let observed = loop {
            match observe(&self.backend, &self.calls, request.clone()).await {
                Ok(observed) => break observed,
                Err(error) if error.retry() == Retry::Never || self.calls.now().since(begun) >= BLIND => {
                    tracing::warn!(%error, "it cannot be seen whether tasks are left over");
                    return Ok(vec![format!("it cannot be seen whether one-off tasks are left over: {error}")]);
                }
                Err(error) => tracing::warn!(%error, "one-off tasks cannot be seen, trying again"),
            }
            self.calls.clock.sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
            self.renew_lease().await?;
        };
        self.renew_lease().await?;
        Ok(self.remove_tasks(&observed).await)
    }

    /// Forgets the one-off tasks of this deployment. Answers those that cannot be removed; a later prune finds them.
    async fn remove_tasks(&self, observed: &Observed) -> Vec<String> {
        let app = self.state.record.app.clone();
        let id = self.state.record.id.as_str();
        let suffix = id.get(id.len().saturating_sub(10)..).unwrap_or(id);
        let mut left = Vec::new();
        for task in observed.app.tasks.iter().filter(|task| task.task.0.ends_with(suffix)) {
            let request =
                || RemoveTask::new(self.calls.frame(task.task.to_string(), TASK), app.clone(), task.task.clone());
            let remove = || self.backend.orchestrator.remove_task(request());
            let made = self.calls.insist("orchestrator.remove_task", &task.task, Access::Change, TASK, remove);
            if let Err(error) = made.await {
                tracing::warn!(%error, task = %task.task, "a task is left over");
                left.push(format!("the one-off task {} is left over: {error}", task.task));
            }
        }
        left
    }

    async fn renew_lease(&mut self) -> Result<()> {
        // Others see by the time of day whether it has expired, and somebody may have set that.
        let (now, shown) = (self.calls.now(), self.calls.clock.now());
        if now < self.renew_at && shown + self.lease.ttl / 3 < self.lease.expires_at {
            return Ok(());
        }
        let renew = || self.backend.store.renew_lease(&self.lease, self.calls.clock.now());
        let timeout = self.lease.ttl / 3;
        let made = self.calls.make("store.renew_lease", &self.lease.app, Access::Fenced, timeout, renew);
        match made.await {
            Ok(lease) => {
                self.calls.renewed(&lease);
                self.lease = lease;
                self.renew_at = now + self.lease.ttl / 3;
                Ok(())
            }
            // It holds for a while yet, and a later turn tries again.
            Err(error) if error.kind() != ErrorKind::Conflict && shown < self.lease.expires_at => {
                tracing::warn!(%error, "the lease cannot be renewed now");
                self.renew_at = self.calls.now() + SIGNALS;
                Ok(())
            }
            Err(error) => Err(error.with_help("another process has taken over: this one stops here")),
        }
    }

    /// Applies an event to the state, and notes its entry to be appended.
    fn write(&mut self, entries: &mut Vec<Entry>, event: JournalEvent) -> Result<()> {
        let seq = self.state.record.last_seq + 1;
        let entry = Entry::new(seq, self.calls.now(), self.lease.fence, event);
        self.state.apply(&entry)?;
        entries.push(entry);
        Ok(())
    }

    async fn append(&self, entries: Vec<Entry>) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let request = Append::new(self.state.record.clone(), self.lease.fence, entries.clone());
        append(&self.backend, &self.calls, request).await?;
        for entry in entries {
            self.events.send(EventKind::Journal { entry: Box::new(entry) });
        }
        Ok(())
    }
}

/// Whether a step makes a backend call when it begins.
fn makes_call(action: &Action) -> bool {
    !matches!(action, Action::AwaitHealthy { .. } | Action::Ask { .. } | Action::Hold { .. } | Action::Verify { .. })
}

fn flatten(result: std::result::Result<Finished, tokio::task::JoinError>) -> Option<Finished> {
    match result {
        Ok(finished) => Some(finished),
        Err(error) => {
            if let Ok(panic) = error.try_into_panic() {
                std::panic::resume_unwind(panic);
            }
            None
        }
    }
}
