//! Everything there is in the world, and how it moves on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use deployer_core::{
    AppName, Digest, ExitDetail, Inherited, InstanceId, ObservedApp, ObservedRouting, ObservedTask, OutputStream,
    Published, Release, ReleaseNumber, RevisionId, ServiceName, TargetRegistration, TaskId, Timestamp,
};

use super::Options;
use super::capacity::CapacityWatch;
use super::images::Images;
use super::instances::{Instance, Life};
use super::random::Random;
use super::routing::{Entry, TargetRow};
use super::strict::{Bucket, KeyBook, Rule, Violation};
use super::traffic::{LossReason, TrafficState};
use crate::scenario::Behaviours;

#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) now: Timestamp,
    /// What everybody's clock shows, which may have been set. Leases and deadlines are by it.
    pub(crate) shown: Timestamp,
    pub(crate) options: Options,
    pub(crate) random: Random,
    pub(crate) images: Images,
    pub(crate) behaviours: Behaviours,
    /// What the services of each application share.
    pub(crate) shared: BTreeMap<AppName, Shared>,
    pub(crate) instances: BTreeMap<InstanceId, Instance>,
    pub(crate) tasks: BTreeMap<(AppName, TaskId), Task>,
    /// How often each task was really executed. Outlives the task.
    pub(crate) executions: BTreeMap<(AppName, TaskId), u32>,
    pub(crate) routing: BTreeMap<(AppName, ServiceName), Entry>,
    /// What another tool has started of each application.
    pub(crate) inherited: BTreeMap<AppName, Vec<Inherited>>,
    /// The revisions of each application that are written down.
    pub(crate) definitions: BTreeMap<AppName, BTreeSet<RevisionId>>,
    /// Ports that other programs listen on.
    pub(crate) foreign_ports: BTreeMap<Published, String>,
    pub(crate) traffic: TrafficState,
    pub(crate) capacity: CapacityWatch,
    pub(crate) violations: Vec<Violation>,
    pub(crate) keys: KeyBook,
    /// The pairs of revisions that were already seen to write one volume together.
    clashes: BTreeSet<(AppName, String, RevisionId, RevisionId)>,
    made: u32,
    /// The instances that somebody killed, and when each time.
    pub(crate) killed: BTreeMap<InstanceId, Vec<Timestamp>>,
    /// The observations that will be answered with what was answered the last time.
    pub(crate) stale: Vec<&'static str>,
    pub(crate) answered: Answered,
    /// The services that cannot run here, and why.
    pub(crate) unsupported: BTreeMap<String, String>,
    pub(crate) bucket: Option<Bucket>,
    /// The hosts that are down, and when they are back.
    pub(crate) hosts_down: BTreeMap<u32, Timestamp>,
    seen: BTreeMap<(AppName, ReleaseNumber), SeenRelease>,
}

/// What is known of a release that calls were made with. To read a large one again for every call would be most of what a
/// simulation costs.
#[derive(Clone, Debug)]
pub(crate) struct SeenRelease {
    release: Arc<Release>,
    pub(crate) content: Digest,
    /// Whether it was found to be what the store has.
    pub(crate) is_stored: bool,
}

/// What was answered to the last observations of each application, and when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered {
    pub(crate) apps: BTreeMap<AppName, (Timestamp, ObservedApp)>,
    pub(crate) routing: BTreeMap<AppName, (Timestamp, Vec<ObservedRouting>)>,
}

/// How far a replica that answers observations may lag behind.
const LAG: Duration = Duration::from_secs(10);

impl Answered {
    pub(crate) fn app(&self, app: &AppName, now: Timestamp) -> Option<ObservedApp> {
        self.apps.get(app).filter(|(at, _)| now.since(*at) <= LAG).map(|(_, answer)| answer.clone())
    }

    pub(crate) fn routing_of(&self, app: &AppName, now: Timestamp) -> Option<Vec<ObservedRouting>> {
        self.routing.get(app).filter(|(at, _)| now.since(*at) <= LAG).map(|(_, answer)| answer.clone())
    }
}

/// What the services of an application share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shared {
    pub(crate) networks: BTreeSet<String>,
    pub(crate) volumes: BTreeSet<String>,
    /// Whether the networks are there; volumes may stay when they are gone.
    pub(crate) ready: bool,
}

/// A one-off task.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) instance: InstanceId,
    pub(crate) service: ServiceName,
    pub(crate) started_at: Timestamp,
    pub(crate) ends_at: Timestamp,
    pub(crate) code: i64,
    pub(crate) start_error: Option<String>,
    pub(crate) lines: Vec<(Duration, OutputStream, String)>,
}

impl Task {
    pub(crate) fn exit(&self, now: Timestamp) -> Option<ExitDetail> {
        if let Some(error) = &self.start_error {
            let mut exit = ExitDetail::default();
            exit.error = Some(error.clone());
            exit.unrecoverable = true;
            exit.at = Some(self.started_at);
            return Some(exit);
        }
        (self.ends_at <= now).then(|| {
            let mut exit = ExitDetail::code(self.code);
            exit.at = Some(self.ends_at);
            exit
        })
    }

    pub(crate) fn output(&self, now: Timestamp) -> Vec<(Timestamp, OutputStream, String)> {
        let until = now.min(self.ends_at);
        let lines = self.lines.iter().map(|(after, stream, text)| (self.started_at + *after, *stream, text.clone()));
        lines.filter(|(at, ..)| *at <= until).collect()
    }

    pub(crate) fn observed(&self, task: &TaskId, now: Timestamp) -> ObservedTask {
        ObservedTask::new(task.clone(), self.instance.clone(), Some(self.started_at), self.exit(now))
    }
}

impl State {
    pub(crate) fn new(now: Timestamp, options: Options) -> Self {
        Self {
            now,
            shown: now,
            random: Random::seeded(options.seed),
            options,
            images: Images::default(),
            behaviours: Behaviours::default(),
            shared: BTreeMap::new(),
            instances: BTreeMap::new(),
            tasks: BTreeMap::new(),
            executions: BTreeMap::new(),
            routing: BTreeMap::new(),
            inherited: BTreeMap::new(),
            definitions: BTreeMap::new(),
            foreign_ports: BTreeMap::new(),
            traffic: TrafficState::default(),
            capacity: CapacityWatch::default(),
            violations: Vec::new(),
            keys: KeyBook::default(),
            clashes: BTreeSet::new(),
            made: 0,
            killed: BTreeMap::new(),
            stale: Vec::new(),
            answered: Answered::default(),
            unsupported: BTreeMap::new(),
            bucket: None,
            hosts_down: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Lets everything happen that is due until then, in the order in which it is due.
    pub(crate) fn advance(&mut self, to: Timestamp) {
        loop {
            let next = self.instances.values().filter_map(Instance::next_change).min().filter(|at| *at <= to);
            let until = next.unwrap_or(to).max(self.now);
            self.run_traffic(until);
            self.now = until;
            if next.is_none() {
                break;
            }
            for instance in self.instances.values_mut() {
                if instance.next_change().is_some_and(|at| at <= until) {
                    instance.change(until);
                }
            }
            self.settle();
        }
    }

    /// Draws the consequences of a change of instances, targets or weights.
    pub(crate) fn settle(&mut self) {
        let ended: Vec<InstanceId> = self
            .instances
            .values()
            .filter(|instance| !instance.is_alive())
            .map(|instance| instance.id.clone())
            .collect();
        for id in &ended {
            self.lose_requests(id, LossReason::InstanceEnded);
        }
        if self.options.targets == TargetRegistration::Orchestrator {
            self.follow_instances();
        }
        self.check_targets();
        self.note_capacity();
        self.check_volumes();
    }

    /// What is known of this release; what was known of another one with its number is forgotten.
    pub(crate) fn seen(&mut self, release: &Arc<Release>) -> &mut SeenRelease {
        let key = (release.app.clone(), release.number);
        if self.seen.get(&key).is_none_or(|seen| !Arc::ptr_eq(&seen.release, release)) {
            let (release, content) = (Arc::clone(release), release.content_hash());
            self.seen.insert(key.clone(), SeenRelease { release, content, is_stored: false });
        }
        self.seen.get_mut(&key).unwrap_or_else(|| unreachable!("it was just put there"))
    }

    pub(crate) fn new_instance_id(&mut self) -> (InstanceId, String) {
        self.made += 1;
        let number = self.made;
        let address = format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255);
        // The rule for ids cannot refuse this form.
        let id = InstanceId::new(format!("i-{number:06}")).unwrap_or_else(|error| unreachable!("{error}"));
        (id, address)
    }

    /// Whether a host is up now.
    fn is_host_up(&self, host: u32) -> bool {
        self.hosts_down.get(&host).is_none_or(|back| *back <= self.now)
    }

    /// Whether any host is up now.
    pub(crate) fn is_up(&self) -> bool {
        self.hosts_down.is_empty() || (0..self.options.hosts).any(|host| self.is_host_up(host))
    }

    /// The host that is up and has the fewest instances; the first one if none is up.
    pub(crate) fn emptiest_host(&self) -> u32 {
        let used = |host: u32| self.instances.values().filter(|one| one.is_alive() && one.host == host).count();
        (0..self.options.hosts).filter(|host| self.is_host_up(*host)).min_by_key(|host| used(*host)).unwrap_or(0)
    }

    /// Whether this observation shall be answered as the last time.
    pub(crate) fn is_stale(&mut self, operation: &str) -> bool {
        let index = self.stale.iter().position(|stale| *stale == operation);
        index.map(|index| self.stale.remove(index)).is_some()
    }

    /// The instances of a revision by rising ordinal.
    pub(crate) fn instances_of(&self, app: &AppName, revision: &RevisionId) -> Vec<InstanceId> {
        let ours = self.instances.values().filter(|instance| instance.app == *app && instance.revision == *revision);
        let mut ids: Vec<(u32, InstanceId)> = ours.map(|instance| (instance.ordinal, instance.id.clone())).collect();
        ids.sort();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// Those of them whose place is taken. In a cluster, one that drains does not keep another from starting in its place.
    pub(crate) fn instances_that_stay(&self, app: &AppName, revision: &RevisionId) -> Vec<InstanceId> {
        let mut ids = self.instances_of(app, revision);
        if self.options.targets == TargetRegistration::Orchestrator {
            ids.retain(|id| !self.instances.get(id).is_some_and(|one| matches!(one.life, Life::Stopping { .. })));
        }
        ids
    }

    pub(crate) fn is_in_rotation(&self, instance: &Instance) -> bool {
        let entry = self.routing.get(&(instance.app.clone(), instance.revision.service().clone()));
        let pool = entry.and_then(|entry| entry.pools.get(&instance.revision)).filter(|pool| pool.weight > 0);
        pool.and_then(|pool| pool.targets.get(&instance.id)).is_some_and(|target| !target.draining)
    }

    /// Keeps the pools as an orchestrator does that registers its instances itself: in when they run, draining while
    /// they are stopped, out when they are gone.
    fn follow_instances(&mut self) {
        let gone: Vec<InstanceId> = self
            .instances
            .values()
            .filter(|instance| instance.life == Life::Exited && instance.stopped)
            .map(|instance| instance.id.clone())
            .collect();
        for id in gone {
            self.instances.remove(&id);
        }
        for ((app, _), entry) in &mut self.routing {
            for (revision, pool) in &mut entry.pools {
                pool.targets.retain(|id, _| self.instances.get(id).is_some_and(Instance::is_alive));
                for instance in self.instances.values().filter(|instance| instance.is_alive()) {
                    if instance.app == *app && instance.revision == *revision {
                        let new = || TargetRow::new(instance.address.clone(), false);
                        let target = pool.targets.entry(instance.id.clone()).or_insert_with(new);
                        target.draining |= matches!(instance.life, Life::Stopping { .. });
                    }
                }
            }
        }
    }

    fn check_volumes(&mut self) {
        let mut writers: BTreeMap<(&AppName, &str), BTreeSet<&RevisionId>> = BTreeMap::new();
        for instance in self.instances.values().filter(|instance| instance.is_alive()) {
            for volume in &instance.volumes {
                writers.entry((&instance.app, volume)).or_default().insert(&instance.revision);
            }
        }
        let mut found = Vec::new();
        for ((app, volume), revisions) in writers {
            let revisions: Vec<&RevisionId> = revisions.into_iter().collect();
            for pair in revisions.windows(2) {
                if let [one, other] = pair
                    && one.service() == other.service()
                {
                    found.push((app.clone(), volume.to_owned(), (*one).clone(), (*other).clone()));
                }
            }
        }
        for clash in found {
            let detail = format!("{} and {} both write to {} of {}", clash.2, clash.3, clash.1, clash.0);
            if self.clashes.insert(clash) {
                self.violate(Rule::VolumeHasOneWriter, detail);
            }
        }
    }
}
