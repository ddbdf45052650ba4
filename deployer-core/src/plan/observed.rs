//! What is there, from the orchestrator and the load balancer together.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::backend::{ObservedApp, ObservedInstance, ObservedRouting, TargetState};
use crate::model::{Digest, ReleaseNumber, RevisionId, ServiceName};

/// Everything that is there of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Observed {
    /// Instances and tasks.
    pub app: ObservedApp,
    /// Routes, pools and weights.
    pub routing: Vec<ObservedRouting>,
}

impl Observed {
    /// What the two have observed.
    #[must_use]
    pub fn new(app: ObservedApp, routing: Vec<ObservedRouting>) -> Self {
        Self { app, routing }
    }

    /// The instances of a revision, by rising ordinal.
    pub fn instances(&self, revision: &RevisionId) -> impl Iterator<Item = &ObservedInstance> {
        self.app.instances.iter().filter(move |instance| instance.revision == *revision)
    }

    /// How many instances a revision has, whatever they do.
    #[must_use]
    pub fn count(&self, revision: &RevisionId) -> u32 {
        u32::try_from(self.instances(revision).count()).unwrap_or(u32::MAX)
    }

    /// How many instances of a revision are ready.
    #[must_use]
    pub fn ready(&self, revision: &RevisionId) -> u32 {
        u32::try_from(self.instances(revision).filter(|instance| instance.is_ready()).count()).unwrap_or(u32::MAX)
    }

    /// How many of a revision's first instances are ready: of those that stay when it is reduced to so many.
    #[must_use]
    pub fn ready_among(&self, revision: &RevisionId, first: u32) -> u32 {
        let ready = self.instances(revision).take(first as usize).filter(|instance| instance.is_ready());
        u32::try_from(ready.count()).unwrap_or(u32::MAX)
    }

    /// How many instances of a revision get new requests, by the weight of its pool and whether they answer or not.
    #[must_use]
    pub fn in_rotation(&self, revision: &RevisionId) -> u32 {
        let pool = self.routing(revision.service()).and_then(|routing| routing.pool(revision));
        let targets = pool.into_iter().flat_map(|pool| &pool.targets);
        let serving = targets.filter(|target| target.state != TargetState::Draining);
        u32::try_from(serving.count()).unwrap_or(u32::MAX)
    }

    /// Whether every ready instance of a revision gets new requests, by the weight of its pool.
    pub(super) fn is_all_in_rotation(&self, revision: &RevisionId) -> bool {
        let pool = self.routing(revision.service()).and_then(|routing| routing.pool(revision));
        let mut ready = self.instances(revision).filter(|instance| instance.is_ready());
        ready.all(|instance| {
            let mut targets = pool.into_iter().flat_map(|pool| &pool.targets);
            targets.any(|target| target.instance == instance.id && target.state != TargetState::Draining)
        })
    }

    /// How traffic reaches a service, if the load balancer knows it.
    #[must_use]
    pub fn routing(&self, service: &ServiceName) -> Option<&ObservedRouting> {
        self.routing.iter().find(|routing| routing.service == *service)
    }

    /// The weights of a service's revisions that have any.
    #[must_use]
    pub fn weights(&self, service: &ServiceName) -> BTreeMap<RevisionId, u8> {
        self.routing(service).map(ObservedRouting::weights).unwrap_or_default()
    }

    /// Whether the traffic of some service goes only to revisions of which no instance is ready.
    pub(crate) fn is_dark(&self) -> bool {
        self.routing.iter().any(|routing| {
            let weights = routing.weights();
            !weights.is_empty() && weights.keys().all(|revision| self.ready(revision) == 0)
        })
    }

    /// The revisions of a service that have instances, with the release each came with.
    #[must_use]
    pub fn revisions(&self, service: &ServiceName) -> BTreeMap<RevisionId, ReleaseNumber> {
        let mut revisions = BTreeMap::new();
        for instance in &self.app.instances {
            if instance.revision.service() == service {
                let release = revisions.entry(instance.revision.clone()).or_insert(instance.release);
                *release = instance.release.max(*release);
            }
        }
        revisions
    }

    /// Every service that has instances or an entry in the load balancer.
    #[must_use]
    pub fn services(&self) -> BTreeSet<ServiceName> {
        let running = self.app.instances.iter().map(|instance| instance.revision.service().clone());
        running.chain(self.routing.iter().map(|routing| routing.service.clone())).collect()
    }

    /// A hash of what plans depend on: which revisions have how many instances, the weights, and what another tool has
    /// started. What changes by itself (health, counters) is not in it.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        let mut instances: BTreeMap<&RevisionId, BTreeSet<u32>> = BTreeMap::new();
        for instance in &self.app.instances {
            instances.entry(&instance.revision).or_default().insert(instance.ordinal);
        }
        let instances: Vec<_> = instances.into_iter().collect();
        let weights: BTreeMap<_, Vec<_>> =
            self.routing.iter().map(|routing| (&routing.service, routing.weights().into_iter().collect())).collect();
        let inherited: BTreeSet<_> = self.app.inherited.iter().map(|one| (&one.id, one.running)).collect();
        let basis = if inherited.is_empty() {
            serde_json::to_vec(&(instances, weights))
        } else {
            serde_json::to_vec(&(instances, weights, inherited))
        };
        Digest::of(&basis.unwrap_or_default())
    }
}
