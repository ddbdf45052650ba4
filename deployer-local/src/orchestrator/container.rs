//! What a container is created with: a service of a release in the engine's words.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig, Mount as EngineMount,
    MountTmpfsOptions, MountType, NetworkingConfig, RestartPolicy, RestartPolicyNameEnum,
};
use deployer_core::{
    CheckCommand, ContainerCheck, Digest, EnvValue, Error, ErrorKind, Mount, MountSource, Release, Restart, Result,
    RevisionId, Secrets, ServiceName, ServiceRelease, TaskId,
};
use futures_util::future::try_join_all;

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

/// A network that containers are in, and by what names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    /// The engine's name of the network.
    pub(super) network: String,
    /// The names beside the container's own.
    aliases: Vec<String>,
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
            let mut aliases = Vec::new();
            if by_name {
                aliases.push(name.as_str().to_owned());
                aliases.extend(service.workload.networks.get(key).into_iter().flatten().cloned());
            }
            Attachment { network: naming::network(&release.app, key, release.networks.get(key)), aliases }
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
        let networks: Vec<_> = self.attachments.iter().map(|each| (&each.network, &each.aliases)).collect();
        let volumes: Vec<_> = volume_keys(self.service).map(|key| self.volume(key)).collect();
        let parts = (&self.service.image.location, &self.service.workload, networks, volumes);
        Digest::of(&serde_json::to_vec(&parts).unwrap_or_default()).short().to_owned()
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
        let ipam_config =
            address.map(|address| EndpointIpamConfig { ipv4_address: Some(address.to_string()), ..Default::default() });
        // Nobody calls a task.
        let aliases = self.attachments.get(index).filter(|_| !purpose.is_task()).map(|each| each.aliases.clone());
        EndpointSettings { ipam_config, aliases, ..EndpointSettings::default() }
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
        HostConfig {
            network_mode: network,
            restart_policy: Some(restart_policy(restart)),
            memory: resources.memory_bytes.map(signed),
            // Without a limit to swap, a workload past its memory is slow for ever instead of killed.
            memory_swap: resources.memory_bytes.map(signed),
            memory_reservation: resources.reserved_memory_bytes.map(signed),
            nano_cpus: resources.cpu_millis.map(|millis| signed(millis.saturating_mul(1_000_000))),
            // The engine's unit: 1024 shares are one core. It refuses fewer than 2.
            cpu_shares: resources.reserved_cpu_millis.map(|millis| signed(millis.saturating_mul(1024) / 1000).max(2)),
            init: workload.init.then_some(true),
            readonly_rootfs: Some(workload.read_only),
            mounts: Some(workload.mounts.iter().map(|mount| self.mount(mount)).collect()),
            ..HostConfig::default()
        }
    }

    fn mount(&self, mount: &Mount) -> EngineMount {
        let (typ, source) = match &mount.source {
            MountSource::Volume(key) => (MountType::VOLUME, Some(self.volume(key))),
            MountSource::Bind(path) => (MountType::BIND, Some(path.clone())),
            MountSource::Tmpfs { .. } => (MountType::TMPFS, None),
            _ => (MountType::VOLUME, None),
        };
        let tmpfs_options = match &mount.source {
            MountSource::Tmpfs { size_bytes } => {
                Some(MountTmpfsOptions { size_bytes: size_bytes.map(signed), ..Default::default() })
            }
            _ => None,
        };
        EngineMount {
            typ: Some(typ),
            source,
            target: Some(mount.target.clone()),
            read_only: Some(mount.read_only),
            tmpfs_options,
            ..EngineMount::default()
        }
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
