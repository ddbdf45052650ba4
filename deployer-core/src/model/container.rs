//! What only a platform of containers can do for a workload, beside what every backend knows.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::workload::SecretRef;

/// Settings of the containers that a service runs in. Their names and meanings are those of the
/// [Compose Specification](https://github.com/compose-spec/compose-spec/blob/main/05-services.md); an empty value leaves
/// the platform's default. Where a backend cannot do what is asked, [`Orchestrator::check`](crate::Orchestrator::check)
/// says so.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ContainerOptions {
    /// Shares and limits of input and output on block devices.
    #[serde(skip_serializing_if = "is_default")]
    pub blkio_config: BlockIo,
    /// Linux capabilities beside the default ones, such as `NET_ADMIN`.
    #[serde(skip_serializing_if = "is_default")]
    pub cap_add: Vec<String>,
    /// Linux capabilities that are taken away; `ALL` is all.
    #[serde(skip_serializing_if = "is_default")]
    pub cap_drop: Vec<String>,
    /// The cgroup namespace: `host` or `private`.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup: Option<String>,
    /// The cgroup that the containers' own are made in.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup_parent: Option<String>,
    /// The period of the scheduler's quota, in microseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_period: Option<i64>,
    /// Processor time in each period, in microseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_quota: Option<i64>,
    /// The period of the real-time scheduler, in microseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_rt_period: Option<i64>,
    /// Real-time processor time in each period, in microseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_rt_runtime: Option<i64>,
    /// The weight among other containers when there is not enough processor time; 1024 is usual.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_shares: Option<i64>,
    /// The processors that may be used, such as `0-3` or `0,1`.
    #[serde(skip_serializing_if = "is_default")]
    pub cpuset: Option<String>,
    /// Rules of the device cgroup, such as `c 1:3 mr`.
    #[serde(skip_serializing_if = "is_default")]
    pub device_cgroup_rules: Vec<String>,
    /// Devices of the host.
    #[serde(skip_serializing_if = "is_default")]
    pub devices: Vec<Device>,
    /// The addresses of name servers.
    #[serde(skip_serializing_if = "is_default")]
    pub dns: Vec<String>,
    /// Options of the resolver, as in `resolv.conf`.
    #[serde(skip_serializing_if = "is_default")]
    pub dns_opt: Vec<String>,
    /// Domains in which short names are looked for.
    #[serde(skip_serializing_if = "is_default")]
    pub dns_search: Vec<String>,
    /// The NIS domain name.
    #[serde(skip_serializing_if = "is_default")]
    pub domainname: Option<String>,
    /// Further lines of `/etc/hosts`, as `name:address`; the address `host-gateway` is that of the host.
    #[serde(skip_serializing_if = "is_default")]
    pub extra_hosts: Vec<String>,
    /// Graphics cards and the like.
    #[serde(skip_serializing_if = "is_default")]
    pub gpus: Vec<DeviceRequest>,
    /// Further groups of the user, by name or number.
    #[serde(skip_serializing_if = "is_default")]
    pub group_add: Vec<String>,
    /// The namespace of shared memory: `none`, `private`, `shareable` or `host`.
    #[serde(skip_serializing_if = "is_default")]
    pub ipc: Option<String>,
    /// Where the output goes.
    #[serde(skip_serializing_if = "is_default")]
    pub logging: Option<Logging>,
    /// How readily memory is swapped out, from 0 to 100.
    #[serde(skip_serializing_if = "is_default")]
    pub mem_swappiness: Option<i64>,
    /// Memory and swap together, in bytes; -1 is no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub memswap_limit: Option<i64>,
    /// Keeps the kernel from killing it when memory runs out.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_kill_disable: bool,
    /// How likely the kernel kills it when memory runs out, from -1000 to 1000.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_score_adj: Option<i64>,
    /// The namespace of processes: `host`.
    #[serde(skip_serializing_if = "is_default")]
    pub pid: Option<String>,
    /// The most processes and threads; -1 is no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub pids_limit: Option<i64>,
    /// The platform that the image is for, such as `linux/amd64`. The one where the service runs must be it.
    #[serde(skip_serializing_if = "is_default")]
    pub platform: Option<String>,
    /// All capabilities and devices of the host.
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
    /// The name of the runtime of containers, such as `runc`.
    #[serde(skip_serializing_if = "is_default")]
    pub runtime: Option<String>,
    /// Options of SELinux, AppArmor and seccomp, and `no-new-privileges:true`.
    #[serde(skip_serializing_if = "is_default")]
    pub security_opt: Vec<String>,
    /// The size of `/dev/shm` in bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub shm_size: Option<u64>,
    /// Keeps standard input open.
    #[serde(skip_serializing_if = "is_default")]
    pub stdin_open: bool,
    /// Options of the storage driver.
    #[serde(skip_serializing_if = "is_default")]
    pub storage_opt: BTreeMap<String, String>,
    /// Parameters of the kernel, such as `net.core.somaxconn`.
    #[serde(skip_serializing_if = "is_default")]
    pub sysctls: BTreeMap<String, String>,
    /// Gives it a terminal.
    #[serde(skip_serializing_if = "is_default")]
    pub tty: bool,
    /// Limits of the shell's `ulimit`, by name such as `nofile`.
    #[serde(skip_serializing_if = "is_default")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// The namespace of users: `host`.
    #[serde(skip_serializing_if = "is_default")]
    pub userns_mode: Option<String>,
    /// The namespace of host names: `host`.
    #[serde(skip_serializing_if = "is_default")]
    pub uts: Option<String>,
}

impl ContainerOptions {
    /// The names of the options that ask for something, in alphabetical order.
    #[must_use]
    pub fn used(&self) -> Vec<String> {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(entries)) => entries.into_iter().map(|(name, _)| name).collect(),
            _ => Vec::new(),
        }
    }
}

impl fmt::Debug for ContainerOptions {
    /// The options that ask for something.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        write!(f, "ContainerOptions {used}")
    }
}

/// Whether a value asks for nothing. What was stored before an option was known reads as it was, and hashes the same.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Shares and limits of input and output on block devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct BlockIo {
    /// The weight among other containers, from 10 to 1000.
    pub weight: Option<u16>,
    /// The weight on single devices, by path.
    pub weight_device: BTreeMap<String, u16>,
    /// Bytes read in a second, by the device's path.
    pub device_read_bps: BTreeMap<String, u64>,
    /// Operations of reading in a second, by the device's path.
    pub device_read_iops: BTreeMap<String, u64>,
    /// Bytes written in a second, by the device's path.
    pub device_write_bps: BTreeMap<String, u64>,
    /// Operations of writing in a second, by the device's path.
    pub device_write_iops: BTreeMap<String, u64>,
}

/// A device of the host inside the containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Device {
    /// Its path on the host.
    pub source: String,
    /// Its path inside.
    pub target: String,
    /// What may be done: some of `r`, `w` and `m` (make nodes).
    pub permissions: String,
}

/// A request for devices that a driver provides, such as graphics cards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct DeviceRequest {
    /// The driver; none means one that has the capabilities.
    pub driver: Option<String>,
    /// How many; -1 is all. None where `device_ids` says which.
    pub count: Option<i64>,
    /// Which ones.
    pub device_ids: Vec<String>,
    /// What they must be able to do, such as `gpu`.
    pub capabilities: Vec<String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
}

/// Where the output of containers goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Logging {
    /// The driver; none means the platform's.
    pub driver: Option<String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
}

/// A limit of the shell's `ulimit`; -1 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// What counts, until the process raises it.
    pub soft: i64,
    /// How far it may be raised.
    pub hard: i64,
}

/// A file that is put into the instances before they start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct File {
    /// What it holds.
    pub content: FileContent,
    /// The absolute path inside the instance.
    pub target: String,
    /// The number of the user whose it is.
    #[serde(default)]
    pub uid: u32,
    /// The number of the group whose it is.
    #[serde(default)]
    pub gid: u32,
    /// What may be done with it, as `chmod` takes it: `0o444` is reading for all.
    #[serde(default = "read_by_all")]
    pub mode: u32,
}

fn read_by_all() -> u32 {
    0o444
}

impl File {
    /// A file with this text, which everybody may read. The text is stored in the release: never put a secret here.
    #[must_use]
    pub fn text(text: impl Into<String>, target: impl Into<String>) -> Self {
        Self { content: FileContent::Text(text.into()), target: target.into(), uid: 0, gid: 0, mode: read_by_all() }
    }

    /// A file with the value of a secret, which everybody inside may read.
    #[must_use]
    pub fn secret(secret: SecretRef, target: impl Into<String>) -> Self {
        let content = FileContent::Secret(secret);
        Self { content, target: target.into(), uid: 0, gid: 0, mode: read_by_all() }
    }

    /// The most bytes of text that a release takes, for one file.
    pub const MAX_BYTES: usize = 512 << 10;
}

/// What a [`File`] holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FileContent {
    /// This text. It is stored in the release and shown: never put a secret here.
    Text(String),
    /// The value of a secret when the instance starts. Only the reference is stored.
    Secret(SecretRef),
}

impl fmt::Debug for FileContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // It may be long.
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Secret(secret) => f.debug_tuple("Secret").field(secret).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_ask_for_nothing_leave_no_trace() {
        let options = ContainerOptions::default();
        assert_eq!(serde_json::to_string(&options).unwrap(), "{}");
        assert_eq!(options.used(), [""; 0]);
        let options = ContainerOptions { tty: true, cap_add: vec!["NET_ADMIN".to_owned()], ..options };
        assert_eq!(options.used(), ["cap_add", "tty"]);
        let back: ContainerOptions = serde_json::from_str(&serde_json::to_string(&options).unwrap()).unwrap();
        assert_eq!(back, options);
    }
}
