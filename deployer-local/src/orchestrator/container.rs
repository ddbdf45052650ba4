//! What a container is created with: a service of a release in the engine's words.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig, Mount as EngineMount,
    MountBindOptions, MountTmpfsOptions, MountType, MountVolumeOptions, NetworkingConfig, PortBinding, PortMap,
    RestartPolicy, RestartPolicyNameEnum,
};
use deployer_core::{
    CheckCommand, ContainerCheck, Digest, EnvValue, Error, ErrorKind, Mount, MountSource, NetworkAttachment, Release,
    Restart, Result, RevisionId, Secrets, ServiceName, ServiceRelease, TaskId, Transport, Workload,
};
use futures_util::future::try_join_all;

use super::{files, options};
use crate::naming::{self, compose, ours};

/// The network that a service is in which names none.
const DEFAULT_NETWORK: &str = "default";

/// A service of a release, with everything that its containers have in common.
#[derive(Debug)]
pub(super) struct Blueprint<'a> {
    release: &'a Release,
    name: &'a ServiceName,
    service: &'a ServiceRelease,
    /// The networks, the one first by which the containers are reached.
    pub(super) attachments: Vec<Attachment>,
}

/// A network that containers are in, and as what.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    /// The engine's name of the network.
    pub(super) network: String,
    /// The addresses in it that others of the release have for themselves.
    pub(super) taken: Vec<Ipv4Addr>,
    /// The names beside the container's own, and what else the service is there.
    wanted: NetworkAttachment,
}

impl Attachment {
    /// Whether the release says what address its instance has.
    pub(super) fn is_fixed(&self) -> bool {
        self.wanted.ipv4_address.is_some()
    }
}

/// What a container is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose<'a> {
    /// The instance of a revision with this ordinal, and its number within the service.
    Instance { revision: &'a RevisionId, ordinal: u32, number: u32 },
    /// A one-off task that runs this command.
    Task { task: &'a TaskId, command: &'a [String] },
}

impl Purpose<'_> {
    fn is_task(&self) -> bool {
        matches!(self, Self::Task { .. })
    }
}

/// The keys of the networks that a service is in, the one first by which it is reached.
pub(super) fn network_keys(service: &ServiceRelease) -> Vec<&str> {
    let mut keys: Vec<&str> = service.workload.networks.keys().map(String::as_str).collect();
    if keys.is_empty() {
        keys.push(DEFAULT_NETWORK);
    }
    // The sort is stable: beside the default network first, the order stays that of the names.
    keys.sort_by_key(|key| *key != DEFAULT_NETWORK);
    keys
}

/// The keys of the named volumes that a service mounts.
pub(super) fn volume_keys(service: &ServiceRelease) -> impl Iterator<Item = &str> {
    service.workload.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Volume(key) => Some(key.as_str()),
        _ => None,
    })
}

impl<'a> Blueprint<'a> {
    /// The service of this name in a release.
    ///
    /// # Errors
    /// `NotFound` if the release has no such service.
    pub(super) fn of(release: &'a Release, name: &'a ServiceName) -> Result<Self> {
        let service = release.services.get(name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the release has no such service")
                .with_resource(name.as_str())
                .with_context("release", release.number.to_string())
        })?;
        // A service that listens is found by its proxy, which knows who is in rotation.
        let by_name = service.listening_ports().is_empty();
        let attachment = |key: &str| {
            let mut wanted = service.workload.networks.get(key).cloned().unwrap_or_default();
            if by_name {
                wanted.aliases.insert(0, name.as_str().to_owned());
            } else {
                wanted.aliases.clear();
            }
            let addresses =
                release.services.values().filter_map(|other| other.workload.networks.get(key)?.ipv4_address);
            let taken =
                addresses.filter_map(|address| if let IpAddr::V4(address) = address { Some(address) } else { None });
            let network = naming::network(&release.app, key, release.networks.get(key));
            Attachment { network, taken: taken.collect(), wanted }
        };
        let attachments = network_keys(service).into_iter().map(attachment).collect();
        Ok(Self { release, name, service, attachments })
    }

    /// The container's name.
    pub(super) fn container_name(&self, purpose: Purpose<'_>) -> String {
        match purpose {
            Purpose::Instance { revision, ordinal, .. } => naming::instance(&self.release.app, revision, ordinal),
            Purpose::Task { task, .. } => naming::task(&self.release.app, self.name, task),
        }
    }

    /// A hash of what the containers are created with: one with another hash was not made of this.
    pub(super) fn fingerprint(&self) -> String {
        let networks: Vec<_> = self.attachments.iter().map(|each| (&each.network, &each.wanted)).collect();
        let volumes: Vec<_> = volume_keys(self.service).map(|key| self.volume(key)).collect();
        let parts = (&self.service.image.location, &self.service.workload, networks, volumes);
        Digest::of(&serde_json::to_vec(&parts).unwrap_or_default()).short().to_owned()
    }

    /// What its containers run.
    pub(super) fn workload(&self) -> &Workload {
        &self.service.workload
    }

    /// The environment with the values of its secrets, as `NAME=value`.
    ///
    /// # Errors
    /// Those of [`Secrets::reveal`].
    pub(super) async fn environment(&self, secrets: &dyn Secrets) -> Result<Vec<String>> {
        try_join_all(self.service.workload.env.iter().map(async |(name, value)| {
            Ok(match value {
                EnvValue::Plain(value) => format!("{name}={value}"),
                EnvValue::Secret(reference) => format!("{name}={}", secrets.reveal(reference).await?.expose()),
            })
        }))
        .await
    }

    /// The body of the call that creates the container. It is put into the first network only: the others have to be
    /// connected before it is started.
    pub(super) fn body(
        &self,
        purpose: Purpose<'_>,
        environment: Vec<String>,
        address: Option<Ipv4Addr>,
    ) -> ContainerCreateBody {
        let workload = &self.service.workload;
        let first = self.attachments.first().map(|first| first.network.clone());
        let endpoint = first.clone().map(|network| (network, self.endpoint(0, purpose, address)));
        let command = match purpose {
            Purpose::Instance { .. } => workload.command.clone(),
            // A task without a command is the service's own work.
            Purpose::Task { command: [], .. } => workload.command.clone(),
            Purpose::Task { command, .. } => Some(command.to_vec()),
        };
        let check = match purpose {
            Purpose::Instance { .. } => workload.check.as_ref().map(health_config),
            Purpose::Task { .. } => Some(no_check()),
        };
        ContainerCreateBody {
            image: Some(self.service.image.location.clone()),
            // The engine reads an empty list as "the image's", and a list with one empty text as "none".
            entrypoint: workload
                .entrypoint
                .clone()
                .map(|list| if list.is_empty() { vec![String::new()] } else { list }),
            cmd: command,
            env: Some(environment),
            user: workload.user.clone(),
            working_dir: workload.working_dir.clone(),
            hostname: workload.hostname.clone(),
            domainname: workload.container.domainname.clone(),
            tty: Some(workload.container.tty),
            open_stdin: Some(workload.container.stdin_open),
            exposed_ports: Some(self.direct_ports(purpose).map(|(name, _)| name).collect()),
            healthcheck: check,
            stop_signal: workload.stop.signal.clone(),
            stop_timeout: Some(whole_seconds(workload.stop.grace)),
            labels: Some(self.labels(purpose)),
            host_config: Some(self.host_config(purpose, first)),
            networking_config: Some(NetworkingConfig { endpoints_config: Some(endpoint.into_iter().collect()) }),
            ..ContainerCreateBody::default()
        }
    }

    /// How the container is put into the network of this index.
    pub(super) fn endpoint(&self, index: usize, purpose: Purpose<'_>, address: Option<Ipv4Addr>) -> EndpointSettings {
        let mut wanted = self.attachments.get(index).map(|each| each.wanted.clone()).unwrap_or_default();
        if purpose.is_task() {
            // Nobody calls a task, and the service may run beside it.
            (wanted.ipv4_address, wanted.ipv6_address) = (None, None);
        }
        let text = |address: IpAddr| address.to_string();
        let ipam = EndpointIpamConfig {
            ipv4_address: wanted.ipv4_address.or(address.map(IpAddr::from)).map(text),
            ipv6_address: wanted.ipv6_address.map(text),
            link_local_ips: some(wanted.link_local_ips.into_iter().map(text).collect()),
        };
        EndpointSettings {
            ipam_config: Some(ipam).filter(|ipam| *ipam != EndpointIpamConfig::default()),
            aliases: (!purpose.is_task()).then_some(wanted.aliases),
            driver_opts: options::pairs(&wanted.driver_opts),
            ..EndpointSettings::default()
        }
    }

    /// The ports of the host that lead straight to the container, because no load balancer stands before them, each with
    /// where it is bound.
    fn direct_ports(&self, purpose: Purpose<'_>) -> impl Iterator<Item = (String, PortBinding)> {
        let ports = self.service.workload.ports.iter().filter(move |_| !purpose.is_task());
        let udp = ports.filter(|port| port.transport == Transport::Udp);
        udp.filter_map(|port| {
            let published = port.published?;
            let host_ip = published.ip.map(|ip| ip.to_string());
            Some((format!("{}/udp", port.target), PortBinding { host_ip, host_port: Some(published.port.to_string()) }))
        })
    }

    /// The labels by which a container is known to be the one for this purpose.
    pub(super) fn identity(&self, purpose: Purpose<'_>) -> Vec<(&'static str, String)> {
        let mut labels = vec![(ours::APP, self.release.app.to_string())];
        match purpose {
            Purpose::Instance { revision, ordinal, .. } => labels.extend([
                (ours::ROLE, ours::ROLE_INSTANCE.to_owned()),
                (ours::REVISION, revision.to_string()),
                (ours::ORDINAL, ordinal.to_string()),
            ]),
            Purpose::Task { task, .. } => {
                labels.extend([(ours::ROLE, ours::ROLE_TASK.to_owned()), (ours::TASK, task.0.clone())]);
            }
        }
        labels
    }

    fn host_config(&self, purpose: Purpose<'_>, network: Option<String>) -> HostConfig {
        let workload = &self.service.workload;
        let resources = &workload.resources;
        let restart = if purpose.is_task() { Restart::No } else { workload.restart };
        let (binds, mounts): (Vec<&Mount>, Vec<&Mount>) = workload.mounts.iter().partition(|mount| is_bind(mount));
        let mounts = mounts.into_iter().map(|mount| self.mount(mount)).chain(self.holders());
        let mut bindings: PortMap = HashMap::new();
        for (port, binding) in self.direct_ports(purpose) {
            bindings.entry(port).or_default().get_or_insert_default().push(binding);
        }
        let config = HostConfig {
            network_mode: network,
            port_bindings: Some(bindings),
            restart_policy: Some(restart_policy(restart)),
            memory: resources.memory_bytes.map(signed),
            // Without a limit to swap, a workload past its memory is slow for ever instead of killed.
            memory_swap: workload.container.memswap_limit.or(resources.memory_bytes.map(signed)),
            memory_reservation: resources.reserved_memory_bytes.map(signed),
            nano_cpus: resources.cpu_millis.map(|millis| signed(millis.saturating_mul(1_000_000))),
            // The engine's unit: 1024 shares are one core. It refuses fewer than 2.
            cpu_shares: resources.reserved_cpu_millis.map(|millis| signed(millis.saturating_mul(1024) / 1000).max(2)),
            init: workload.init.then_some(true),
            readonly_rootfs: Some(workload.read_only),
            binds: Some(binds.into_iter().map(bind).collect()),
            mounts: Some(mounts.collect()),
            ..HostConfig::default()
        };
        options::apply(&workload.container, config)
    }

    fn mount(&self, mount: &Mount) -> EngineMount {
        let (typ, source) = match &mount.source {
            MountSource::Volume(key) => (MountType::VOLUME, Some(self.volume(key))),
            MountSource::Bind(path) => (MountType::BIND, Some(path.clone())),
            MountSource::Tmpfs { .. } => (MountType::TMPFS, None),
            _ => (MountType::VOLUME, None),
        };
        let tmpfs_options = match &mount.source {
            MountSource::Tmpfs { size_bytes, mode } => Some(MountTmpfsOptions {
                size_bytes: size_bytes.map(signed),
                mode: mode.map(i64::from),
                ..Default::default()
            }),
            _ => None,
        };
        let propagation = mount.propagation.as_ref().and_then(|word| word.parse().ok());
        EngineMount {
            typ: Some(typ),
            source,
            target: Some(mount.target.clone()),
            read_only: Some(mount.read_only),
            tmpfs_options,
            bind_options: propagation
                .map(|propagation| MountBindOptions { propagation: Some(propagation), ..Default::default() }),
            volume_options: mount.no_copy.then(|| MountVolumeOptions { no_copy: Some(true), ..Default::default() }),
            ..EngineMount::default()
        }
    }

    /// Volumes to hold the files of a container whose root cannot be written to, one for each directory. They begin with
    /// what the image has there.
    fn holders(&self) -> Vec<EngineMount> {
        let holder = |directory: &str| EngineMount {
            typ: Some(MountType::VOLUME),
            target: Some(directory.to_owned()),
            ..EngineMount::default()
        };
        files::homes(&self.service.workload).into_iter().map(holder).collect()
    }

    fn volume(&self, key: &str) -> String {
        naming::volume(&self.release.app, key, self.release.volumes.get(key))
    }

    fn labels(&self, purpose: Purpose<'_>) -> HashMap<String, String> {
        let mut labels: HashMap<String, String> = self.service.workload.labels.clone().into_iter().collect();
        let mut set = |name: &str, value: String| labels.insert(name.to_owned(), value);
        set(compose::PROJECT, self.release.app.to_string());
        set(compose::SERVICE, self.name.to_string());
        set(compose::VERSION, env!("CARGO_PKG_VERSION").to_owned());
        set(ours::RELEASE, self.release.number.0.to_string());
        set(ours::CONFIG, self.fingerprint());
        let (number, oneoff, revision) = match purpose {
            Purpose::Instance { revision, number, .. } => (number, "False", revision.clone()),
            Purpose::Task { .. } => (1, "True", self.service.revision(self.name)),
        };
        set(compose::NUMBER, number.to_string());
        set(compose::ONEOFF, oneoff.to_owned());
        set(compose::CONFIG_HASH, revision.hash().to_owned());
        set(ours::REVISION, revision.to_string());
        for (name, value) in self.identity(purpose) {
            set(name, value);
        }
        labels
    }
}

/// Whether the engine has to be asked in its older way, which makes the path on the host, or labels it.
fn is_bind(mount: &Mount) -> bool {
    matches!(mount.source, MountSource::Bind(_)) && (mount.create || mount.selinux.is_some())
}

/// `SOURCE:TARGET:OPTIONS`.
fn bind(mount: &Mount) -> String {
    let source = match &mount.source {
        MountSource::Bind(path) => path.as_str(),
        _ => "",
    };
    let words = [mount.selinux.as_deref(), mount.propagation.as_deref()];
    let access = if mount.read_only { "ro" } else { "rw" };
    let options: Vec<&str> = std::iter::once(access).chain(words.into_iter().flatten()).collect();
    format!("{source}:{}:{}", mount.target, options.join(","))
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    if list.is_empty() { None } else { Some(list) }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn whole_seconds(duration: Duration) -> i64 {
    signed(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn no_check() -> HealthConfig {
    HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }
}

fn health_config(check: &ContainerCheck) -> HealthConfig {
    let test = match &check.command {
        CheckCommand::Exec(command) => std::iter::once("CMD".to_owned()).chain(command.iter().cloned()).collect(),
        CheckCommand::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
        CheckCommand::Disabled => return no_check(),
    };
    HealthConfig {
        test: Some(test),
        interval: Some(nanos(check.interval)),
        timeout: Some(nanos(check.timeout)),
        retries: Some(check.retries.into()),
        start_period: Some(nanos(check.start_period)),
        start_interval: None,
    }
}

fn restart_policy(restart: Restart) -> RestartPolicy {
    let (name, retries) = match restart {
        Restart::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
        Restart::Always => (RestartPolicyNameEnum::ALWAYS, None),
        Restart::OnFailure { max_retries } => (RestartPolicyNameEnum::ON_FAILURE, max_retries.map(i64::from)),
        Restart::No => (RestartPolicyNameEnum::NO, None),
    };
    RestartPolicy { name: Some(name), maximum_retry_count: retries }
}
