//! A release: the complete, immutable snapshot that a rollback brings back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::name::{AppName, Digest, ReleaseNumber, RevisionId, ServiceName};
use super::rollout::{HookPoint, Probe, Readiness};
use super::spec::{NetworkSpec, Service, VolumeSpec};
use super::time::Timestamp;
use super::workload::{AppProtocol, CheckCommand, ContainerCheck, Port, Transport};

/// A service whose image is pinned by digest.
pub type ServiceRelease = Service<PinnedImage>;

/// An image that cannot change any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PinnedImage {
    /// The name that a person would recognise, such as `redis:7`. Never used to find the image.
    pub reference: String,
    /// What the backend runs: a name that includes the digest, or the engine's image id.
    pub location: String,
    /// The digest of the content: a registry's manifest digest, or the engine's image id where there is no registry.
    pub digest: Digest,
    /// The TCP ports that the image says it listens on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed_ports: Vec<u16>,
    /// The image's own check (`HEALTHCHECK`), where the registry knows it and the platform would not heed it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<ContainerCheck>,
}

impl PinnedImage {
    /// An image by what to show, what to run and its digest.
    #[must_use]
    pub fn new(reference: impl Into<String>, location: impl Into<String>, digest: Digest) -> Self {
        let (reference, location) = (reference.into(), location.into());
        Self { reference, location, digest, exposed_ports: Vec::new(), check: None }
    }

    /// Says what ports the image listens on.
    #[must_use]
    pub fn with_exposed_ports(mut self, ports: Vec<u16>) -> Self {
        self.exposed_ports = ports;
        self
    }

    /// Says what check the image has.
    #[must_use]
    pub fn with_check(mut self, check: Option<ContainerCheck>) -> Self {
        self.check = check;
        self
    }
}

impl ServiceRelease {
    /// The revision that runs this service: equal for equal images and workloads, and ports with routes, whatever the
    /// release. A platform may have to make instances for the ports at which traffic comes.
    #[must_use]
    pub fn revision(&self, service: &ServiceName) -> RevisionId {
        let ports: BTreeSet<u16> = self.routes.iter().map(|route| route.port).collect();
        let all = if ports.is_empty() {
            serde_json::to_vec(&(&self.image.digest, &self.workload))
        } else {
            serde_json::to_vec(&(&self.image.digest, &self.workload, ports))
        };
        RevisionId::new(service.clone(), &Digest::of(&all.unwrap_or_default()))
    }

    /// The TCP ports that other services reach: declared ones, routed ones, and those the image says it listens on.
    #[must_use]
    pub fn listening_ports(&self) -> Vec<Port> {
        let mut ports: Vec<Port> =
            self.workload.ports.iter().filter(|port| port.transport == Transport::Tcp).cloned().collect();
        for port in &self.image.exposed_ports {
            if ports.iter().all(|known| known.target != *port) {
                ports.push(Port::internal(*port));
            }
        }
        for route in &self.routes {
            match ports.iter_mut().find(|port| port.target == route.port) {
                Some(port) => port.protocol = AppProtocol::Http,
                None => ports.push(Port::internal(route.port).http()),
            }
        }
        ports
    }

    /// The check that runs inside instances: the service's, or else the image's own; none, if it is disabled.
    #[must_use]
    pub fn container_check(&self) -> Option<&ContainerCheck> {
        let check = self.workload.check.as_ref().or(self.image.check.as_ref());
        check.filter(|check| check.command != CheckCommand::Disabled)
    }

    /// When an instance counts as ready: as the owner says, else when the routed or first declared port accepts
    /// connections.
    #[must_use]
    pub fn effective_readiness(&self) -> Readiness {
        let mut readiness = self.readiness.clone();
        if readiness.probe.is_none() {
            let declared = self.workload.ports.iter().find(|port| port.transport == Transport::Tcp);
            let port = self.routes.first().map(|route| route.port).or(declared.map(|port| port.target));
            readiness.probe = port.map(|port| Probe::Tcp { port });
        }
        let disabled = |check: &ContainerCheck| check.command == CheckCommand::Disabled;
        let asked = readiness.probe.is_some() || self.workload.check.as_ref().is_some_and(|check| !disabled(check));
        let unasked = Duration::from_secs(1);
        readiness.min_healthy.get_or_insert(if asked { Duration::ZERO } else { unasked });
        readiness
    }

    /// How long requests in flight may take once an instance is out of rotation.
    #[must_use]
    pub fn effective_drain(&self) -> Duration {
        let http = self.listening_ports().iter().any(|port| port.protocol == AppProtocol::Http);
        self.drain.unwrap_or(if http { Duration::from_secs(10) } else { Duration::from_secs(1) })
    }

    /// How many instances it has at the least: its replicas, or its lower bound if the platform scales it.
    #[must_use]
    pub fn least_instances(&self, scales: bool) -> u32 {
        self.scaling.as_ref().filter(|_| scales).map_or(self.replicas, |scaling| scaling.min)
    }

    /// Whether other services or routes reach it.
    #[must_use]
    pub fn listens(&self) -> bool {
        !self.listening_ports().is_empty()
    }

    /// Whether a load balancer brings it traffic, which also takes calls between services if it says so.
    #[must_use]
    pub fn is_balanced(&self, internal: bool) -> bool {
        let published = || self.workload.ports.iter().any(|port| port.published.is_some());
        self.listens() && (internal || !self.routes.is_empty() || published())
    }

    /// Whether its owner says that it listens. An image may say so of a program that this service does not run.
    #[must_use]
    pub fn declares_ports(&self) -> bool {
        !self.routes.is_empty() || self.workload.ports.iter().any(|port| port.transport == Transport::Tcp)
    }

    /// Whether it is there for its work before a deployment alone: it has no instances, but a hook at that point.
    #[must_use]
    pub fn is_task(&self) -> bool {
        self.replicas == 0 && self.hooks.iter().any(|hook| hook.point == HookPoint::PreDeploy)
    }

    /// Whether two revisions of it must never run at the same time.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        !self.workload.exclusive_claims().is_empty()
    }
}

/// A complete, immutable snapshot of an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Release {
    /// The version of this stored form.
    pub format: u16,
    /// The application.
    pub app: AppName,
    /// Its number, one after the other within the application.
    pub number: ReleaseNumber,
    /// Its services.
    pub services: BTreeMap<ServiceName, ServiceRelease>,
    /// Its networks beside the default one.
    #[serde(default)]
    pub networks: BTreeMap<String, NetworkSpec>,
    /// Its named volumes.
    #[serde(default)]
    pub volumes: BTreeMap<String, VolumeSpec>,
    /// Where it came from.
    pub provenance: Provenance,
}

impl Release {
    /// The version of the stored form that this build writes.
    pub const FORMAT: u16 = 1;

    /// A hash of everything but number and provenance: equal for releases that deploy the same.
    #[must_use]
    pub fn content_hash(&self) -> Digest {
        let content = (&self.app, &self.services, &self.networks, &self.volumes);
        Digest::of(&serde_json::to_vec(&content).unwrap_or_default())
    }

    /// The revisions that run it.
    #[must_use]
    pub fn revisions(&self) -> BTreeMap<ServiceName, RevisionId> {
        self.services.iter().map(|(name, service)| (name.clone(), service.revision(name))).collect()
    }
}

/// Where a release came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Provenance {
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub author: Option<String>,
    /// Why, in the author's words.
    pub message: Option<String>,
    /// The state of the sources it was built from.
    pub git: Option<GitState>,
}

/// The state of a git work tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GitState {
    /// The commit's full hash.
    pub commit: String,
    /// The tag that points at it, if one does.
    pub tag: Option<String>,
    /// Whether the work tree had changes that the commit does not have.
    pub dirty: bool,
}

impl GitState {
    /// The state of a work tree.
    #[must_use]
    pub fn new(commit: impl Into<String>, tag: Option<String>, dirty: bool) -> Self {
        Self { commit: commit.into(), tag, dirty }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Route, ServiceSpec};

    fn check(line: &str) -> ContainerCheck {
        ContainerCheck::new(CheckCommand::Shell(line.to_owned()))
    }

    fn release(own: Option<ContainerCheck>, of_image: Option<ContainerCheck>) -> ServiceRelease {
        let image = PinnedImage::new("web:v1", "web", Digest::of(b"web")).with_check(of_image);
        let mut spec = ServiceSpec::image("web:v1");
        spec.workload.check = own;
        spec.with_image(image)
    }

    #[test]
    fn a_route_at_another_port_is_another_revision_and_another_host_is_not() {
        let web = "web".parse().unwrap();
        let revision = |routes: &[Route]| {
            let mut release = release(None, None);
            release.routes = routes.to_vec();
            release.revision(&web)
        };
        let plain = Route::new(8080);
        let same = [plain.clone().with_host("shop.example"), plain.clone().with_path("/api")];
        assert_eq!(revision(&same), revision(std::slice::from_ref(&plain)));
        let others = [vec![], vec![Route::new(9090)], vec![plain.clone(), Route::new(9090)]].map(|all| revision(&all));
        assert!(!others.contains(&revision(&[plain])) && others[1] != others[2], "{others:?}");
    }

    #[test]
    fn the_check_of_a_service_goes_before_that_of_its_image() {
        let line = |release: &ServiceRelease| release.container_check().map(|check| check.command.clone());
        let shell = |line: &str| Some(CheckCommand::Shell(line.to_owned()));
        assert_eq!(line(&release(Some(check("own")), Some(check("image")))), shell("own"));
        assert_eq!(line(&release(None, Some(check("image")))), shell("image"));
        assert_eq!(line(&release(None, None)), None);
        let disabled = ContainerCheck::new(CheckCommand::Disabled);
        assert_eq!(line(&release(Some(disabled), Some(check("image")))), None);
    }

    #[test]
    fn the_check_of_an_image_makes_no_other_revision() {
        let name = ServiceName::new("web").unwrap();
        let with = release(None, Some(check("image")));
        assert_eq!(with.revision(&name), release(None, None).revision(&name));
    }
}
