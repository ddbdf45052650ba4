//! What runs inside the instances of a service: everything that makes one revision differ from another.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::container::{ContainerOptions, File, FileContent, is_default};
use super::time::millis;

/// How a service's instances run. Two services with the same image digest and equal workloads are the same revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Workload {
    /// Replaces the image's entrypoint; an empty list clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    /// Environment variables.
    pub env: BTreeMap<String, EnvValue>,
    /// Ports that the instances listen on.
    pub ports: Vec<Port>,
    /// Volumes, host paths and temporary file systems.
    pub mounts: Vec<Mount>,
    /// Files that are put into the instances before they start.
    #[serde(skip_serializing_if = "is_default")]
    pub files: Vec<File>,
    /// Networks of the application, and what the service is on each. Empty means the default network.
    pub networks: BTreeMap<String, NetworkAttachment>,
    /// Limits and reservations.
    pub resources: Resources,
    /// A check that runs inside the instance.
    pub check: Option<ContainerCheck>,
    /// How an instance is asked to stop.
    pub stop: Stop,
    /// What the platform does when an instance exits.
    pub restart: Restart,
    /// The user (and group) to run as, such as `1000:1000`.
    pub user: Option<String>,
    /// The working directory.
    pub working_dir: Option<String>,
    /// The host name inside the instance.
    pub hostname: Option<String>,
    /// Runs an init process as process 1 that forwards signals and reaps children.
    pub init: bool,
    /// Makes the root file system read-only.
    pub read_only: bool,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
    /// What only a platform of containers can do for it.
    #[serde(skip_serializing_if = "is_default")]
    pub container: ContainerOptions,
}

impl Workload {
    /// What two revisions must never have at the same time, in words: writable named volumes, addresses of its own, and
    /// ports of the host that no load balancer stands before.
    #[must_use]
    pub fn exclusive_claims(&self) -> Vec<String> {
        let volumes = self.exclusive_volumes().map(|volume| format!("the volume {volume}"));
        let addresses = self.networks.values().flat_map(|network| [&network.ipv4_address, &network.ipv6_address]);
        let addresses = addresses.flatten().map(|address| format!("the address {address}"));
        let ports = self.ports.iter().filter(|port| port.transport == Transport::Udp);
        let ports = ports.filter_map(|port| Some(format!("the port {}/udp of the host", port.published?.port)));
        volumes.chain(addresses).chain(ports).collect()
    }

    /// The secrets that its instances are given.
    pub(crate) fn secrets_mut(&mut self) -> impl Iterator<Item = &mut SecretRef> {
        let in_env = self.env.values_mut().filter_map(|value| match value {
            EnvValue::Secret(secret) => Some(secret),
            EnvValue::Plain(_) => None,
        });
        in_env.chain(self.files.iter_mut().filter_map(|file| match &mut file.content {
            FileContent::Secret(secret) => Some(secret),
            FileContent::Text(_) => None,
        }))
    }

    /// The mounts that two revisions must never use at the same time: writable named volumes.
    pub fn exclusive_volumes(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter(|mount| !mount.read_only).filter_map(|mount| match &mount.source {
            MountSource::Volume(name) => Some(name.as_str()),
            _ => None,
        })
    }
}

/// A service on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "AttachmentForm", into = "AttachmentForm")]
#[non_exhaustive]
pub struct NetworkAttachment {
    /// The names that it has there beside its own.
    pub aliases: Vec<String>,
    /// The address of its only instance; none lets the platform choose.
    pub ipv4_address: Option<IpAddr>,
    /// The IPv6 address of its only instance; none lets the platform choose.
    pub ipv6_address: Option<IpAddr>,
    /// Further addresses that are valid on the link only.
    pub link_local_ips: Vec<IpAddr>,
    /// Options of the network's driver.
    pub driver_opts: BTreeMap<String, String>,
}

impl NetworkAttachment {
    /// The network, with these further names on it.
    #[must_use]
    pub fn with_aliases<A: Into<String>>(aliases: impl IntoIterator<Item = A>) -> Self {
        Self { aliases: aliases.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

/// How a [`NetworkAttachment`] is stored: names alone as a list of them.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum AttachmentForm {
    Aliases(Vec<String>),
    Whole {
        #[serde(default)]
        aliases: Vec<String>,
        #[serde(default)]
        ipv4_address: Option<IpAddr>,
        #[serde(default)]
        ipv6_address: Option<IpAddr>,
        #[serde(default)]
        link_local_ips: Vec<IpAddr>,
        #[serde(default)]
        driver_opts: BTreeMap<String, String>,
    },
}

impl From<AttachmentForm> for NetworkAttachment {
    fn from(form: AttachmentForm) -> Self {
        match form {
            AttachmentForm::Aliases(aliases) => Self { aliases, ..Self::default() },
            AttachmentForm::Whole { aliases, ipv4_address, ipv6_address, link_local_ips, driver_opts } => {
                Self { aliases, ipv4_address, ipv6_address, link_local_ips, driver_opts }
            }
        }
    }
}

impl From<NetworkAttachment> for AttachmentForm {
    fn from(attachment: NetworkAttachment) -> Self {
        if attachment == NetworkAttachment::with_aliases(attachment.aliases.clone()) {
            return Self::Aliases(attachment.aliases);
        }
        let NetworkAttachment { aliases, ipv4_address, ipv6_address, link_local_ips, driver_opts } = attachment;
        Self::Whole { aliases, ipv4_address, ipv6_address, link_local_ips, driver_opts }
    }
}

/// The value of an environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnvValue {
    /// The value itself. It is stored in the release and shown: never put a secret here.
    Plain(String),
    /// Where the value is to be found when the instance starts. Only the reference is stored.
    Secret(SecretRef),
}

/// Names a secret, with the version that a release pins.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretRef {
    /// The name by which the [`Secrets`](crate::Secrets) of the deployment know it.
    pub name: String,
    /// The version, once it is pinned. Stores without versions leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl SecretRef {
    /// The secret of this name, at whatever version is current when the release is made.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), version: None }
    }
}

/// A port that instances listen on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Port {
    /// The port inside the instance.
    pub target: u16,
    /// TCP or UDP.
    #[serde(default)]
    pub transport: Transport,
    /// What is spoken on it. With HTTP the proxy can move single requests instead of whole connections.
    #[serde(default)]
    pub protocol: AppProtocol,
    /// Where it can be reached from outside the application, if at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
}

impl Port {
    /// A TCP port that only the application's own services reach.
    #[must_use]
    pub fn internal(target: u16) -> Self {
        Self { target, transport: Transport::Tcp, protocol: AppProtocol::Tcp, published: None }
    }

    /// A TCP port that is also reachable on the host's port `published`.
    #[must_use]
    pub fn published(target: u16, published: u16) -> Self {
        Self { published: Some(Published { ip: None, port: published }), ..Self::internal(target) }
    }

    /// Says that HTTP is spoken on it.
    #[must_use]
    pub fn http(mut self) -> Self {
        self.protocol = AppProtocol::Http;
        self
    }
}

/// An address on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Published {
    /// The address to listen on; none means the backend's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The port to listen on.
    pub port: u16,
}

/// The transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// The application protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AppProtocol {
    /// Any stream of bytes: whole connections are routed.
    #[default]
    Tcp,
    /// HTTP/1: single requests are routed.
    Http,
}

/// Something mounted into the instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// The absolute path inside the instance.
    pub target: String,
    /// Whether the instance may not write to it.
    #[serde(default)]
    pub read_only: bool,
    /// Whether the host path is made, as a directory, if it is missing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub create: bool,
    /// Whether a new volume stays empty instead of getting what the image has there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_copy: bool,
    /// How later mounts below a host path are shared, such as `rslave`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub propagation: Option<String>,
    /// How SELinux labels the host path: `z` for all containers, `Z` for this one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub selinux: Option<String>,
}

impl Mount {
    /// This source at this path.
    #[must_use]
    pub fn new(source: MountSource, target: impl Into<String>) -> Self {
        Self {
            source,
            target: target.into(),
            read_only: false,
            create: false,
            no_copy: false,
            propagation: None,
            selinux: None,
        }
    }

    /// The application's named volume at this path.
    #[must_use]
    pub fn volume(name: impl Into<String>, target: impl Into<String>) -> Self {
        Self::new(MountSource::Volume(name.into()), target)
    }

    /// A directory or file of the host at this path.
    #[must_use]
    pub fn bind(host_path: impl Into<String>, target: impl Into<String>) -> Self {
        Self::new(MountSource::Bind(host_path.into()), target)
    }

    /// Forbids the instance to write to it.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }
}

/// What a [`Mount`] mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MountSource {
    /// A named volume of the application.
    Volume(String),
    /// A volume without a name that lives as long as the instance.
    Anonymous,
    /// An absolute path on the host.
    Bind(String),
    /// A file system in memory, with a size limit in bytes.
    Tmpfs {
        /// The most it may hold.
        size_bytes: Option<u64>,
        /// What may be done with its directory, as `chmod` takes it; none means the platform's default.
        #[serde(default, skip_serializing_if = "is_default")]
        mode: Option<u32>,
    },
}

/// Limits and reservations of one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Resources {
    /// The most processor time, in thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// The most memory; an instance that wants more is killed.
    pub memory_bytes: Option<u64>,
    /// Processor time set aside, in thousandths of a core.
    pub reserved_cpu_millis: Option<u64>,
    /// Memory set aside.
    pub reserved_memory_bytes: Option<u64>,
}

/// A check that runs inside the instance, as in a Dockerfile's `HEALTHCHECK`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ContainerCheck {
    /// What runs; exit code 0 means healthy.
    pub command: CheckCommand,
    /// The time between two checks.
    #[serde(with = "millis")]
    pub interval: Duration,
    /// How long one check may take.
    #[serde(with = "millis")]
    pub timeout: Duration,
    /// How many failures in a row make the instance unhealthy.
    pub retries: u32,
    /// How long after the start failures do not count.
    #[serde(with = "millis")]
    pub start_period: Duration,
}

impl ContainerCheck {
    /// A check with Compose's defaults: every 30 s, 30 s to answer, three failures, no start period.
    #[must_use]
    pub fn new(command: CheckCommand) -> Self {
        let default = Duration::from_secs(30);
        Self { command, interval: default, timeout: default, retries: 3, start_period: Duration::ZERO }
    }

    /// Sets the time between two checks.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }
}

/// What a [`ContainerCheck`] runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckCommand {
    /// A program with its arguments.
    Exec(Vec<String>),
    /// A line for the image's shell.
    Shell(String),
    /// No check, even if the image has one.
    Disabled,
}

/// How an instance is asked to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Stop {
    /// The signal, such as `SIGTERM`; none means the image's, else `SIGTERM`.
    pub signal: Option<String>,
    /// How long it has before it is killed.
    #[serde(with = "millis")]
    pub grace: Duration,
}

impl Default for Stop {
    fn default() -> Self {
        Self { signal: None, grace: Duration::from_secs(10) }
    }
}

/// What the platform does when an instance exits by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Starts it again, unless it was stopped on purpose.
    #[default]
    UnlessStopped,
    /// Starts it again.
    Always,
    /// Starts it again if its exit code is not 0, at most this often.
    OnFailure {
        /// The most restarts; none means no limit.
        max_retries: Option<u32>,
    },
    /// Leaves it as it is.
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_with_names_alone_are_stored_as_before() {
        let stored = |attachment: &NetworkAttachment| serde_json::to_string(attachment).unwrap();
        let plain = NetworkAttachment::with_aliases(["www"]);
        assert_eq!(stored(&plain), r#"["www"]"#);
        let address = Some("10.1.2.3".parse().unwrap());
        let whole = NetworkAttachment { ipv4_address: address, ..plain.clone() };
        for attachment in [plain, whole] {
            assert_eq!(serde_json::from_str::<NetworkAttachment>(&stored(&attachment)).unwrap(), attachment);
        }
    }

    #[test]
    fn what_only_one_revision_can_have_is_named() {
        let mut workload = Workload::default();
        assert_eq!(workload.exclusive_claims(), [""; 0]);
        workload.mounts = vec![Mount::volume("data", "/d"), Mount::volume("more", "/m").read_only()];
        workload.networks.insert(
            "n".to_owned(),
            NetworkAttachment { ipv4_address: Some("10.1.2.3".parse().unwrap()), ..NetworkAttachment::default() },
        );
        workload.ports = vec![Port::published(80, 80), Port { transport: Transport::Udp, ..Port::published(53, 5353) }];
        let claims = workload.exclusive_claims();
        assert_eq!(claims, ["the volume data", "the address 10.1.2.3", "the port 5353/udp of the host"]);
    }
}
