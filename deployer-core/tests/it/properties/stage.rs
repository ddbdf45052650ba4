//! Executes plans abstractly: counts, readiness, pools and weights, and the `after` of every step; no time and no calls.
//! Written from what the actions of a step mean, not from how the engine makes its calls.

use std::collections::{BTreeMap, BTreeSet};

use deployer_core::{
    Action, Health, InstanceId, InstancePhase, Observed, ObservedApp, ObservedInstance, ObservedPool, ObservedRouting,
    ObservedTarget, PoolVersion, Release, ReleaseNumber, RevisionId, ServiceName, ServiceRelease, TargetState,
};

/// One instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) ready: bool,
    pub(crate) pooled: Pooled,
}

/// What the load balancer does with an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pooled {
    No,
    InService,
    Draining,
}

/// What is there of an application.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stage {
    releases: Vec<Release>,
    /// Whether the orchestrator registers and drains instances by itself.
    pub(crate) drains: bool,
    running: BTreeMap<RevisionId, (ReleaseNumber, Vec<Instance>)>,
    weights: BTreeMap<ServiceName, BTreeMap<RevisionId, u8>>,
    pools: BTreeSet<RevisionId>,
}

impl Stage {
    pub(crate) fn new(releases: Vec<Release>, drains: bool) -> Self {
        let (running, weights, pools) = Default::default();
        Self { releases, drains, running, weights, pools }
    }

    /// Adds instances of a revision.
    pub(crate) fn put(&mut self, revision: RevisionId, release: ReleaseNumber, mut instances: Vec<Instance>) {
        if self.drains {
            for instance in &mut instances {
                instance.pooled = Pooled::No;
            }
        }
        if instances.iter().any(|instance| instance.pooled != Pooled::No) {
            self.pools.insert(revision.clone());
        }
        if !instances.is_empty() {
            self.running.insert(revision, (release, instances));
        }
    }

    /// Makes the load balancer know a service.
    pub(crate) fn route(&mut self, service: ServiceName, weights: BTreeMap<RevisionId, u8>) {
        self.pools.extend(weights.keys().cloned());
        self.weights.insert(service, weights);
    }

    /// Leaves of every volume only one revision that writes to it.
    pub(crate) fn separate_volumes(&mut self) {
        let mut taken = BTreeSet::new();
        let keep: BTreeSet<RevisionId> = self
            .running
            .keys()
            .filter(|revision| self.volumes(revision).into_iter().all(|volume| taken.insert(volume)))
            .cloned()
            .collect();
        self.running.retain(|revision, _| keep.contains(revision));
    }

    /// Removes every revision but these that writes to a volume.
    pub(crate) fn forget_writers_but(&mut self, known: &[RevisionId]) {
        let writers: Vec<RevisionId> =
            self.running.keys().filter(|r| !known.contains(r) && !self.volumes(r).is_empty()).cloned().collect();
        for revision in writers {
            self.running.remove(&revision);
        }
    }

    /// Whether a revision has no traffic.
    pub(crate) fn is_idle(&self, revision: &RevisionId) -> bool {
        !self.weights(revision.service()).contains_key(revision)
    }

    pub(crate) fn weights(&self, service: &ServiceName) -> BTreeMap<RevisionId, u8> {
        self.weights.get(service).cloned().unwrap_or_default()
    }

    pub(crate) fn routed(&self) -> impl Iterator<Item = (&ServiceName, &BTreeMap<RevisionId, u8>)> {
        self.weights.iter()
    }

    pub(crate) fn revisions(&self) -> impl Iterator<Item = &RevisionId> {
        self.running.keys()
    }

    fn instances(&self, revision: &RevisionId) -> &[Instance] {
        self.running.get(revision).map_or(&[], |(_, instances)| instances)
    }

    pub(crate) fn count(&self, revision: &RevisionId) -> u32 {
        u32::try_from(self.instances(revision).len()).unwrap()
    }

    pub(crate) fn ready(&self, revision: &RevisionId) -> u32 {
        u32::try_from(self.instances(revision).iter().filter(|instance| instance.ready).count()).unwrap()
    }

    /// How many of a revision's first instances are ready.
    pub(crate) fn ready_among(&self, revision: &RevisionId, first: u32) -> u32 {
        let first = self.instances(revision).iter().take(first as usize);
        u32::try_from(first.filter(|instance| instance.ready).count()).unwrap()
    }

    /// How many instances of a revision answer requests, if it has any traffic.
    pub(crate) fn answering(&self, revision: &RevisionId) -> u32 {
        let answers = |i: &&Instance| i.ready && (self.drains || i.pooled == Pooled::InService);
        u32::try_from(self.instances(revision).iter().filter(answers).count()).unwrap()
    }

    /// How many instances of a revision beyond the first so many are in rotation. Where the orchestrator takes them out
    /// by itself, none ever counts.
    pub(crate) fn in_service_beyond(&self, revision: &RevisionId, keep: u32) -> usize {
        let leaving = self.instances(revision).iter().skip(keep as usize);
        leaving.filter(|instance| instance.pooled == Pooled::InService).count()
    }

    /// What serves of a service: instances that answer requests where it listens, and that work where it does not.
    pub(crate) fn capacity(&self, service: &ServiceName) -> u32 {
        match self.weights.get(service) {
            Some(weights) => weights.keys().map(|revision| self.answering(revision)).sum(),
            None => self.working(service),
        }
    }

    /// How many instances of a service are ready, whoever reaches them.
    pub(crate) fn working(&self, service: &ServiceName) -> u32 {
        self.running.keys().filter(|r| r.service() == service).map(|revision| self.ready(revision)).sum()
    }

    /// A service's release with this revision, if a release has it that is known.
    pub(crate) fn service(&self, revision: &RevisionId) -> Option<&ServiceRelease> {
        self.releases.iter().find_map(|release| {
            let service = release.services.get(revision.service())?;
            (service.revision(revision.service()) == *revision).then_some(service)
        })
    }

    /// The volumes that a revision writes to.
    pub(crate) fn volumes(&self, revision: &RevisionId) -> BTreeSet<String> {
        self.service(revision).into_iter().flat_map(|s| s.workload.exclusive_volumes()).map(str::to_owned).collect()
    }

    fn release(&self, number: ReleaseNumber) -> Result<&Release, String> {
        let found = self.releases.iter().find(|release| release.number == number);
        found.ok_or_else(|| format!("release {number} is not known"))
    }

    /// Does what a step says. With `eager`, what is launched is ready at once, else when it is waited for, and no more of
    /// it than that.
    ///
    /// # Errors
    /// Why the step cannot be done: a deployment would fail, or wait for ever.
    pub(crate) fn perform(&mut self, action: &Action, eager: bool) -> Result<(), String> {
        match action {
            Action::Prepare { release } => {
                let listening = self.release(*release)?.services.iter().filter(|(_, service)| service.listens());
                let listening: Vec<ServiceName> = listening.map(|(name, _)| name.clone()).collect();
                for name in listening {
                    self.weights.entry(name).or_default();
                }
            }
            Action::Launch { release, revision, instances } => {
                let service = self.release(*release)?.services.get(revision.service());
                if service.map(|service| service.revision(revision.service())).as_ref() != Some(revision) {
                    return Err(format!("release {release} does not have {revision}"));
                }
                if *instances > 0 {
                    let running = &mut self.running.entry(revision.clone()).or_insert((*release, Vec::new())).1;
                    let missing = (*instances as usize).saturating_sub(running.len());
                    running.extend(std::iter::repeat_n(Instance { ready: eager, pooled: Pooled::No }, missing));
                }
            }
            Action::AwaitHealthy { revision, instances, .. } => {
                if self.count(revision) < *instances {
                    return Err(format!("{} of {instances} instances of {revision} are there", self.count(revision)));
                }
                // No more than it is waited for, and the last ones first: those are the first to go.
                let missing = if eager { self.count(revision) } else { instances.saturating_sub(self.ready(revision)) };
                let running = self.running.get_mut(revision).into_iter().flat_map(|(_, instances)| instances);
                let unready = running.rev().filter(|instance| !instance.ready);
                unready.take(missing as usize).for_each(|instance| instance.ready = true);
            }
            Action::RunHook { release, service, .. } => {
                if !self.release(*release)?.services.contains_key(service) {
                    return Err(format!("release {release} has no {service}"));
                }
            }
            Action::Shift { service, weights, expected, releases, instances } => {
                self.shift(service, weights, expected, releases, *instances)?;
            }
            // Time passes, and nothing else.
            Action::Ask { .. } | Action::Hold { .. } => {}
            Action::Drain { revision, idle: true, .. } | Action::Reduce { revision, idle: true, .. }
                if !self.is_idle(revision) =>
            {
                return Err(format!("{revision} has traffic that it should not have any more"));
            }
            Action::Drain { revision, keep, .. } => {
                for (index, instance) in self.running.get_mut(revision).into_iter().flat_map(|r| &mut r.1).enumerate() {
                    if instance.pooled != Pooled::No {
                        let leaves = index >= *keep as usize;
                        instance.pooled = if leaves { Pooled::Draining } else { Pooled::InService };
                    }
                }
            }
            Action::Reduce { revision, keep, .. } => {
                if let Some((_, instances)) = self.running.get_mut(revision) {
                    instances.truncate(*keep as usize);
                    for instance in instances.iter_mut().filter(|instance| instance.pooled == Pooled::Draining) {
                        instance.pooled = Pooled::InService;
                    }
                    if instances.is_empty() {
                        self.running.remove(revision);
                    }
                }
            }
            Action::Verify { release, .. } => self.verify(self.release(*release)?)?,
            Action::Tidy { release, pools } => self.tidy(*release, pools)?,
            Action::RemoveApp { .. } => {
                if let Some(left) = self.running.keys().next() {
                    return Err(format!("{left} still runs"));
                }
            }
            other => return Err(format!("what {} means is not known", other.name())),
        }
        Ok(())
    }

    fn shift(
        &mut self,
        service: &ServiceName,
        weights: &BTreeMap<RevisionId, u8>,
        expected: &[BTreeMap<RevisionId, u8>],
        releases: &BTreeMap<RevisionId, ReleaseNumber>,
        instances: u32,
    ) -> Result<(), String> {
        let Some(current) = self.weights.get(service).cloned() else {
            return Err(format!("the load balancer does not know {service}"));
        };
        let wanted: BTreeMap<_, _> = weights.clone().into_iter().filter(|(_, weight)| *weight > 0).collect();
        if wanted.values().map(|weight| u32::from(*weight)).sum::<u32>() != 100 {
            return Err(format!("the weights of {service} do not sum up to 100"));
        }
        let most = wanted.values().max();
        for (revision, weight) in &wanted {
            let release = releases.get(revision).ok_or_else(|| format!("nobody knows the ports of {revision}"))?;
            // Of a revision that no release has any more, only the fallback's ports are known.
            let replicas = self.release(*release).ok().and_then(|r| r.services.get(service)).map_or(0, |s| s.replicas);
            let needed = if Some(weight) == most { instances.max(1) } else { 1 };
            if replicas > 0 && self.ready(revision) < needed {
                let ready = self.ready(revision);
                return Err(format!("{ready} of {needed} instances of {revision} are ready to take the traffic"));
            }
            self.pools.insert(revision.clone());
            if !self.drains {
                for instance in self.running.get_mut(revision).into_iter().flat_map(|(_, instances)| instances) {
                    instance.pooled = if instance.ready { Pooled::InService } else { Pooled::No };
                }
            }
        }
        if current != wanted && !expected.contains(&current) {
            return Err(format!("the weights of {service} are {current:?}, and {expected:?} was expected"));
        }
        self.weights.insert(service.clone(), wanted);
        Ok(())
    }

    fn verify(&self, release: &Release) -> Result<(), String> {
        for (name, service) in &release.services {
            let revision = service.revision(name);
            if self.ready(&revision) < service.replicas {
                return Err(format!("{} of {} of {revision} are ready", self.ready(&revision), service.replicas));
            }
            if service.listens() && service.replicas > 0 {
                if self.weights(name) != BTreeMap::from([(revision.clone(), 100)]) {
                    return Err(format!("the traffic of {name} does not go to {revision} alone"));
                }
                if self.answering(&revision) < service.replicas {
                    return Err(format!("only {} of {revision} are in rotation", self.answering(&revision)));
                }
            }
        }
        Ok(())
    }

    fn tidy(&mut self, release: Option<ReleaseNumber>, pools: &[RevisionId]) -> Result<(), String> {
        let release = release.map(|number| self.release(number).cloned()).transpose()?;
        let stays = |name: &ServiceName| {
            release.as_ref().and_then(|release| release.services.get(name)).is_some_and(ServiceRelease::listens)
        };
        for (name, weights) in &self.weights {
            for revision in weights.keys() {
                // Where the release keeps a service without an entry, requests to it are not wanted any more.
                let known = release.as_ref().is_some_and(|release| release.services.contains_key(name));
                let removed = if known { stays(name) && !pools.contains(revision) } else { true };
                if removed && self.answering(revision) > 0 {
                    return Err(format!("the pool of {revision} is removed while it serves"));
                }
            }
        }
        self.weights.retain(|name, _| stays(name));
        for weights in self.weights.values_mut() {
            weights.retain(|revision, _| pools.contains(revision));
        }
        let kept = |revision: &RevisionId| stays(revision.service()) && pools.contains(revision);
        self.pools.retain(kept);
        for (revision, (_, instances)) in &mut self.running {
            if !kept(revision) {
                instances.iter_mut().for_each(|instance| instance.pooled = Pooled::No);
            }
        }
        Ok(())
    }

    /// What a backend would answer that looks at it.
    pub(crate) fn observed(&self) -> Observed {
        let mut instances = Vec::new();
        let mut routing = Vec::new();
        for (revision, (release, running)) in &self.running {
            for (ordinal, instance) in (1..).zip(running) {
                let name = format!("{}-{}-{ordinal}", revision.service(), revision.hash());
                let id = InstanceId::new(name.clone()).unwrap();
                let mut observed =
                    ObservedInstance::new(id, name, revision.clone(), *release, ordinal, InstancePhase::Running);
                observed.health = if instance.ready { Health::Healthy } else { Health::Starting };
                observed.address = Some("10.0.0.1".into());
                instances.push(observed);
            }
        }
        for (service, weights) in &self.weights {
            let pools = self.pools.iter().filter(|revision| revision.service() == service);
            let pools = pools.map(|revision| {
                let targets = (1..).zip(self.instances(revision)).filter_map(|(ordinal, instance)| {
                    let state = match instance.pooled {
                        _ if self.drains && instance.ready => TargetState::InService,
                        Pooled::InService => TargetState::InService,
                        Pooled::Draining => TargetState::Draining,
                        Pooled::No => return None,
                    };
                    let instance = InstanceId::new(format!("{service}-{}-{ordinal}", revision.hash())).unwrap();
                    Some(ObservedTarget { instance, state, in_flight: Some(0), reason: None })
                });
                let weight = weights.get(revision).copied().unwrap_or(0);
                ObservedPool::new(revision.clone(), weight, targets.collect())
            });
            let version = PoolVersion("1".into());
            routing.push(ObservedRouting::new(service.clone(), version, Vec::new(), pools.collect()));
        }
        Observed::new(ObservedApp::new(instances, Vec::new()), routing)
    }
}
