//! What of a world can be compared with another: what runs and where traffic goes, without ids and times.

use std::collections::BTreeMap;
use std::fmt;

use deployer_core::{AppName, Digest, Release, RevisionId, Route, ServiceName};

use super::World;

/// What there is of an application, without what differs between two runs that came to the same end: ids, names, times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shape {
    /// Its revisions that have instances or a pool.
    pub revisions: BTreeMap<RevisionId, RevisionShape>,
    /// The routes of the services that have an entry.
    pub routes: BTreeMap<ServiceName, Vec<Route>>,
    /// One-off tasks that are left.
    pub tasks: usize,
    /// What another tool has started, by name, and whether it runs.
    pub inherited: BTreeMap<String, bool>,
    /// Whether networks are there.
    pub networks: bool,
}

/// What there is of a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RevisionShape {
    /// Instances in any state.
    pub instances: u32,
    /// Those that serve.
    pub serving: u32,
    /// The percentage of new requests; none if there is no pool.
    pub weight: Option<u8>,
    /// Targets that are given requests and answer them.
    pub in_rotation: u32,
    /// The images that run.
    pub images: Vec<Digest>,
}

impl Shape {
    /// The revisions that have traffic, or instances where there is no traffic to have.
    fn serves(&self, service: &ServiceName) -> impl Iterator<Item = (&RevisionId, &RevisionShape)> {
        let routed = self.routes.contains_key(service);
        let ours = self.revisions.iter().filter(move |(revision, _)| revision.service() == service);
        ours.filter(move |(_, shape)| if routed { shape.weight > Some(0) } else { shape.instances > 0 })
    }

    /// The same without the revisions that have a pool and no traffic, and without tasks.
    #[must_use]
    pub fn without_standby(&self) -> Self {
        let mut shape = self.clone();
        shape.revisions.retain(|_, revision| revision.weight != Some(0));
        shape.tasks = 0;
        shape
    }

    /// What of a release does not serve, or serves beside it; of none, what there is at all. What stands by without
    /// traffic is not mentioned.
    #[must_use]
    pub fn differences(&self, release: Option<&Release>) -> Vec<String> {
        let mut found = Vec::new();
        let Some(release) = release else {
            let instances: u32 = self.revisions.values().map(|shape| shape.instances).sum();
            if instances > 0 || !self.routes.is_empty() {
                found.push(format!("nothing should be there, but there is\n{self}"));
            }
            return found;
        };
        for (name, service) in &release.services {
            let wanted = service.revision(name);
            let shape = self.revisions.get(&wanted).cloned().unwrap_or_default();
            if (shape.instances, shape.serving) != (service.replicas, service.replicas) {
                let (instances, serving) = (shape.instances, shape.serving);
                found
                    .push(format!("{serving} of {instances} instances of {wanted} serve, {} should", service.replicas));
            }
            if service.replicas > 0 && service.listens() {
                if shape.weight != Some(100) {
                    found.push(format!("{wanted} has {:?} % of the traffic", shape.weight));
                }
                if shape.in_rotation != service.replicas {
                    found.push(format!(
                        "{} of {} instances of {wanted} are in rotation",
                        shape.in_rotation, service.replicas
                    ));
                }
            }
            if let Some(other) = shape.images.iter().find(|image| **image != service.image.digest) {
                found.push(format!("an instance of {wanted} runs {}", other.short()));
            }
            let others = self.serves(name).filter(|(revision, _)| **revision != wanted);
            found.extend(others.map(|(revision, _)| format!("{revision} serves as well")));
        }
        let ours = self.inherited.keys();
        found.extend(ours.map(|name| format!("{name}, which another tool has started, is still there")));
        let gone = self.revisions.iter().filter(|(revision, _)| !release.services.contains_key(revision.service()));
        found.extend(gone.map(|(revision, _)| format!("{revision} is of no service of the release")));
        found
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (revision, shape) in &self.revisions {
            let RevisionShape { instances, serving, in_rotation, .. } = shape;
            let weight = shape.weight.map_or_else(|| "no pool".to_owned(), |weight| format!("{weight} %"));
            writeln!(f, "  {revision}: {instances} instances, {serving} serving, {weight}, {in_rotation} in rotation")?;
        }
        for (service, routes) in &self.routes {
            writeln!(f, "  entry {service} with {} routes", routes.len())?;
        }
        for (name, running) in &self.inherited {
            writeln!(f, "  {name} of another tool {}", if *running { "runs" } else { "does not run" })?;
        }
        write!(f, "  {} tasks, {}", self.tasks, if self.networks { "networks" } else { "no networks" })
    }
}

impl World {
    /// What there is of an application, to be compared.
    #[must_use]
    pub fn shape(&self, app: &str) -> Shape {
        let state = self.lock();
        let mut shape = Shape::default();
        for instance in state.instances.values().filter(|instance| instance.app.as_str() == app) {
            let row = shape.revisions.entry(instance.revision.clone()).or_default();
            row.instances += 1;
            row.serving += u32::from(instance.serves());
            row.images.push(instance.image.digest.clone());
        }
        for ((_, service), entry) in state.routing.iter().filter(|((owner, _), _)| owner.as_str() == app) {
            let mut routes = entry.routes.clone();
            routes.sort();
            shape.routes.insert(service.clone(), routes);
            for (revision, pool) in &entry.pools {
                let row = shape.revisions.entry(revision.clone()).or_default();
                row.weight = Some(pool.weight);
                row.in_rotation = state.targets_in_service(pool);
            }
        }
        shape.tasks = state.tasks.keys().filter(|(owner, _)| owner.as_str() == app).count();
        let inherited = state.inherited.iter().filter(|(owner, _)| owner.as_str() == app).flat_map(|(_, all)| all);
        shape.inherited = inherited.map(|one| (one.name.clone(), one.running)).collect();
        shape.networks = state.shared.iter().any(|(owner, shared)| owner.as_str() == app && shared.ready);
        shape
    }

    /// Everything of an application that somebody else could disturb: each instance with its start and its image, and
    /// what is routed where.
    pub(crate) fn belongings(&self, app: &AppName) -> String {
        let shape = self.shape(app.as_str());
        let state = self.lock();
        let instances = state.instances.values().filter(|one| one.app == *app).map(|one| {
            let runs = state.images.can_run(&one.image.digest);
            format!("{} started at {:?}, image there: {runs}", one.id, one.started_at)
        });
        let volumes = state.shared.get(app).map(|shared| shared.volumes.clone());
        format!("{shape} [{}] {volumes:?}", instances.collect::<Vec<_>>().join("; "))
    }

    /// How often the one-off tasks of an application were executed, by what they are called without the deployment.
    #[must_use]
    pub fn executions_by_hook(&self, app: &str) -> BTreeMap<String, u32> {
        let state = self.lock();
        let mut hooks = BTreeMap::new();
        for ((_, task), count) in state.executions.iter().filter(|((owner, _), _)| owner.as_str() == app) {
            let name = task.0.rsplit_once('-').map_or(task.0.as_str(), |(name, _)| name);
            *hooks.entry(name.to_owned()).or_default() += count;
        }
        hooks
    }
}
