//! Every key of the Compose Specification and of `x-deployer`, with what becomes of it. Nothing is dropped silently:
//! a key has its effect, is translated, is ignored with a warning, or is refused.

use Fate::{Deployed, Ignored, Refused, Translated};

/// What becomes of a key of a Compose file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It has the effect that the specification says.
    Deployed,
    /// It has its effect in another way, or with a restriction; the text says which.
    Translated(&'static str),
    /// It changes nothing that matters to a deployment; why is in the text, and in a warning.
    Ignored(&'static str),
    /// It would change how the service runs, and cannot be done; the text says what to do instead.
    Refused(&'static str),
}

impl Fate {
    /// Whether it is read.
    pub(super) fn is_read(self) -> bool {
        matches!(self, Deployed | Translated(_))
    }
}

/// A key, with what becomes of it on Docker and on ECS.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    name: &'static str,
    /// On Docker; a key that is refused or ignored there is so by the reader, whatever the backend.
    fate: Fate,
    /// On ECS, where it is another.
    ecs: Option<Fate>,
}

const fn key(name: &'static str, fate: Fate) -> Key {
    Key { name, fate, ecs: None }
}

impl Key {
    /// What becomes of it on ECS, where that is something else.
    const fn ecs(self, fate: Fate) -> Self {
        Self { ecs: Some(fate), ..self }
    }
}

/// A mapping with fixed keys.
#[derive(Debug)]
pub(super) struct Section {
    /// Its name for messages.
    pub(super) name: &'static str,
    /// Whether keys that begin with `x-` are allowed, as almost everywhere in Compose.
    pub(super) extensible: bool,
    keys: &'static [Key],
}

impl Section {
    const fn compose(name: &'static str, keys: &'static [Key]) -> Self {
        Self { name, extensible: true, keys }
    }

    const fn own(name: &'static str, keys: &'static [Key]) -> Self {
        Self { name, extensible: false, keys }
    }

    pub(super) fn fate(&self, key: &str) -> Option<Fate> {
        self.keys.iter().find(|known| known.name == key).map(|known| known.fate)
    }

    pub(super) fn supports(&self, key: &str) -> bool {
        self.fate(key).is_some_and(Fate::is_read)
    }

    /// The keys, each with what becomes of it on Docker and on ECS.
    pub(super) fn fates(&self) -> impl Iterator<Item = (&'static str, Fate, Fate)> {
        self.keys.iter().map(|key| (key.name, key.fate, key.ecs.unwrap_or(key.fate)))
    }

    pub(super) fn known(&self) -> impl Iterator<Item = &'static str> {
        self.of_fate(|_| true)
    }

    fn of_fate(&self, wanted: impl Fn(Fate) -> bool) -> impl Iterator<Item = &'static str> {
        self.keys.iter().filter(move |key| wanted(key.fate)).map(|key| key.name)
    }

    pub(super) fn supported(&self) -> impl Iterator<Item = &'static str> {
        self.of_fate(Fate::is_read)
    }

    #[cfg(test)]
    pub(super) fn ignored(&self) -> impl Iterator<Item = &'static str> {
        self.of_fate(|fate| matches!(fate, Ignored(_)))
    }

    #[cfg(test)]
    pub(super) fn refused(&self) -> impl Iterator<Item = &'static str> {
        self.of_fate(|fate| matches!(fate, Refused(_)))
    }
}

const NOT_YET: &str = "remove it; it is not supported yet";
const ADDRESSES: &str = "remove it: replicas and revisions need addresses of their own";
const NOT_ON_ECS: Fate = Refused("ECS has no such setting");
const EC2_ONLY: Fate = Translated("on EC2; refused on Fargate");
const EFS: Fate = Translated("`driver: efs` with `driver_opts: {file-system: fs-...}`");

pub(super) const TOP: Section = Section::compose(
    "the file",
    &[
        key("configs", Deployed),
        key("include", Deployed),
        key("name", Deployed),
        key("networks", Deployed).ecs(Ignored("security groups keep instances apart")),
        key("secrets", Deployed),
        key("services", Deployed),
        key("volumes", Deployed),
        key("version", Ignored("Compose files have had no version since 2020")),
        key("models", Refused(NOT_YET)),
    ],
);

pub(super) const SERVICE: Section = Section::compose(
    "a service",
    &[
        key("annotations", Ignored("annotations are for other tools")),
        key("attach", Ignored("deployments do not follow the output of services")),
        key("blkio_config", Deployed).ecs(NOT_ON_ECS),
        key("build", Deployed),
        key("cap_add", Deployed).ecs(Translated("`linuxParameters`; Fargate adds only `SYS_PTRACE`")),
        key("cap_drop", Deployed),
        key("cgroup", Deployed).ecs(NOT_ON_ECS),
        key("cgroup_parent", Deployed).ecs(NOT_ON_ECS),
        key("command", Deployed),
        key("configs", Deployed).ecs(Refused("put the content into the image or the environment")),
        key("container_name", Ignored("revisions run side by side, so each container has a name of its own")),
        key("cpu_count", Refused("use `cpus`")),
        key("cpu_percent", Refused("use `cpus`")),
        key("cpu_period", Deployed).ecs(NOT_ON_ECS),
        key("cpu_quota", Deployed).ecs(NOT_ON_ECS),
        key("cpu_rt_period", Deployed).ecs(NOT_ON_ECS),
        key("cpu_rt_runtime", Deployed).ecs(NOT_ON_ECS),
        key("cpu_shares", Deployed).ecs(NOT_ON_ECS),
        key("cpus", Deployed).ecs(Translated("the next size that Fargate has")),
        key("cpuset", Deployed).ecs(NOT_ON_ECS),
        key("credential_spec", Refused("it is for Windows")),
        key("depends_on", Deployed),
        key("deploy", Deployed),
        key("develop", Ignored("it is for work on the source, not for deployments")),
        key("device_cgroup_rules", Deployed).ecs(NOT_ON_ECS),
        key("devices", Deployed).ecs(NOT_ON_ECS),
        key("dns", Deployed).ecs(NOT_ON_ECS),
        key("dns_opt", Deployed).ecs(NOT_ON_ECS),
        key("dns_search", Deployed).ecs(NOT_ON_ECS),
        key("domainname", Deployed).ecs(NOT_ON_ECS),
        key("entrypoint", Deployed),
        key("env_file", Deployed),
        key("environment", Deployed),
        key("expose", Deployed),
        key("extends", Deployed),
        key("external_links", Refused("join an external network instead")),
        key("extra_hosts", Deployed).ecs(NOT_ON_ECS),
        key("gpus", Deployed).ecs(NOT_ON_ECS),
        key("group_add", Deployed).ecs(NOT_ON_ECS),
        key("healthcheck", Deployed).ecs(Translated("5 to 300 s apart, 1 to 10 retries")),
        key("hostname", Deployed).ecs(Ignored("AWS names the instances")),
        key("image", Deployed),
        key("init", Deployed),
        key("ipc", Deployed).ecs(NOT_ON_ECS),
        key("isolation", Refused("it is for Windows")),
        key("label_file", Deployed),
        key("labels", Deployed),
        key("links", Translated("names that all services of the common networks can use")),
        key("logging", Deployed).ecs(Ignored("the output goes to the log group of the environment")),
        key("mac_address", Refused(ADDRESSES)),
        key("mem_limit", Deployed).ecs(Translated("the next size that Fargate has")),
        key("mem_reservation", Deployed),
        key("mem_swappiness", Deployed).ecs(NOT_ON_ECS),
        key("memswap_limit", Deployed).ecs(NOT_ON_ECS),
        key("models", Refused(NOT_YET)),
        key("network_mode", Refused("use `networks`: replicas and revisions need addresses of their own")),
        key("networks", Deployed).ecs(Ignored("security groups keep instances apart")),
        key("oom_kill_disable", Deployed).ecs(NOT_ON_ECS),
        key("oom_score_adj", Deployed).ecs(NOT_ON_ECS),
        key("pid", Deployed).ecs(NOT_ON_ECS),
        key("pids_limit", Deployed).ecs(NOT_ON_ECS),
        key("platform", Deployed).ecs(Translated("it has to be that of the environment")),
        key("ports", Deployed).ecs(Translated("published on a Network Load Balancer, where there is one")),
        key("post_start", Refused("use a hook of `x-deployer` at the point post-deploy")),
        key("pre_start", Refused("use a hook of `x-deployer` at the point pre-deploy")),
        key("pre_stop", Refused("use a hook of `x-deployer` at the point pre-stop")),
        key("privileged", Deployed).ecs(EC2_ONLY),
        key("profiles", Deployed),
        key("provider", Refused(NOT_YET)),
        key("pull_policy", Ignored("images are pinned by digest, and fetched when they are not there")),
        key("pull_refresh_after", Ignored("images are pinned by digest")),
        key("read_only", Deployed),
        key("restart", Deployed).ecs(Translated("ECS replaces whatever exits")),
        key("runtime", Deployed).ecs(NOT_ON_ECS),
        key("scale", Deployed),
        key("secrets", Deployed).ecs(Refused("give it as an environment variable: `x-deployer.secrets`")),
        key("security_opt", Deployed).ecs(NOT_ON_ECS),
        key("shm_size", Deployed).ecs(EC2_ONLY),
        key("stdin_open", Deployed),
        key("stop_grace_period", Deployed).ecs(Translated("120 s at most on Fargate")),
        key("stop_signal", Deployed).ecs(Ignored("ECS sends the signal that the image names")),
        key("storage_opt", Deployed).ecs(NOT_ON_ECS),
        key("sysctls", Deployed),
        key("tmpfs", Deployed).ecs(EC2_ONLY),
        key("tty", Deployed),
        key("ulimits", Deployed).ecs(Translated("Fargate has only `nofile`")),
        key("use_api_socket", Refused("mount what the service needs")),
        key("user", Deployed),
        key("userns_mode", Deployed).ecs(NOT_ON_ECS),
        key("uts", Deployed).ecs(NOT_ON_ECS),
        key("volumes", Deployed).ecs(Translated("named ones on EFS; paths of the host on EC2")),
        key("volumes_from", Refused("mount a named volume in both services")),
        key("working_dir", Deployed),
        key("x-deployer", Deployed),
    ],
);

pub(super) const BLKIO: Section = Section::compose(
    "`blkio_config`",
    &[
        key("device_read_bps", Deployed),
        key("device_read_iops", Deployed),
        key("device_write_bps", Deployed),
        key("device_write_iops", Deployed),
        key("weight", Deployed),
        key("weight_device", Deployed),
    ],
);

pub(super) const RATE: Section =
    Section::compose("a limit of a device", &[key("path", Deployed), key("rate", Deployed)]);

pub(super) const WEIGHT: Section =
    Section::compose("the weight of a device", &[key("path", Deployed), key("weight", Deployed)]);

pub(super) const DEVICE: Section =
    Section::compose("a device", &[key("permissions", Deployed), key("source", Deployed), key("target", Deployed)]);

pub(super) const DEVICE_REQUEST: Section = Section::compose(
    "a request for devices",
    &[
        key("capabilities", Deployed),
        key("count", Deployed),
        key("device_ids", Deployed),
        key("driver", Deployed),
        key("options", Deployed),
    ],
);

pub(super) const LOGGING: Section = Section::compose("`logging`", &[key("driver", Deployed), key("options", Deployed)]);

pub(super) const ULIMIT: Section = Section::compose("a limit", &[key("hard", Deployed), key("soft", Deployed)]);

pub(super) const FILE: Section = Section::compose(
    "a file of a service",
    &[
        key("gid", Deployed),
        key("mode", Deployed),
        key("source", Deployed),
        key("target", Deployed),
        key("uid", Deployed),
    ],
);

pub(super) const CONFIG: Section = Section::compose(
    "a config",
    &[
        key("content", Deployed),
        key("environment", Deployed),
        key("file", Deployed),
        key("labels", Ignored("a config is a file in the containers, and has no labels")),
        key("name", Ignored("a config is a file in the containers, and needs no name in the engine")),
        key("external", Refused("name its `file` or write its `content`: only Swarm has configs of its own")),
        key("template_driver", Refused("only Swarm has templates; use variables")),
    ],
);

pub(super) const RESTART_POLICY: Section = Section::compose(
    "`restart_policy`",
    &[
        key("condition", Translated("the engine's restart policy")),
        key("max_attempts", Translated("the engine's restart policy")),
        key("delay", Ignored("the engine waits longer each time")),
        key("window", Ignored("the engine counts a restart as good after 10 s")),
    ],
);

pub(super) const IPAM: Section =
    Section::compose("`ipam`", &[key("config", Deployed), key("driver", Deployed), key("options", Deployed)]);

pub(super) const IPAM_CONFIG: Section = Section::compose(
    "a subnet",
    &[key("aux_addresses", Deployed), key("gateway", Deployed), key("ip_range", Deployed), key("subnet", Deployed)],
);

pub(super) const INCLUDE: Section = Section::compose(
    "an `include`",
    &[key("env_file", Deployed), key("path", Deployed), key("project_directory", Deployed)],
);

pub(super) const EXTENDS: Section = Section::compose("`extends`", &[key("file", Deployed), key("service", Deployed)]);

pub(super) const BUILD: Section = Section::compose(
    "`build`",
    &[
        key("args", Deployed),
        key("context", Deployed),
        key("dockerfile", Deployed),
        key("dockerfile_inline", Deployed),
        key("labels", Deployed),
        key("no_cache", Deployed),
        key("secrets", Deployed),
        key("target", Deployed),
        key("cache_from", Ignored("the engine's own cache is used")),
        key("cache_to", Ignored("the engine's own cache is used")),
        key("pull", Ignored("base images are fetched when they are not there")),
        key("additional_contexts", Refused(NOT_YET)),
        key("entitlements", Refused(NOT_YET)),
        key("extra_hosts", Deployed),
        key("isolation", Refused(NOT_YET)),
        key("network", Deployed),
        key("no_cache_filter", Refused("use `no_cache`")),
        key("platforms", Refused("the image is built for the platform of the engine")),
        key("privileged", Refused(NOT_YET)),
        key("provenance", Refused(NOT_YET)),
        key("sbom", Refused(NOT_YET)),
        key("shm_size", Deployed),
        key("ssh", Refused("give the key as a build secret")),
        key("tags", Deployed),
        key("ulimits", Refused(NOT_YET)),
    ],
);

pub(super) const BUILD_SECRET: Section = Section::compose(
    "a build secret",
    &[
        key("source", Deployed),
        key("target", Deployed),
        key("gid", Refused(NOT_YET)),
        key("mode", Refused(NOT_YET)),
        key("uid", Refused(NOT_YET)),
    ],
);

pub(super) const DEPLOY: Section = Section::compose(
    "`deploy`",
    &[
        key("mode", Deployed),
        key("replicas", Deployed),
        key("resources", Deployed),
        key("endpoint_mode", Ignored("services are reached through the load balancer and by their names")),
        key(
            "labels",
            Ignored("they are for the service as a whole, not for its containers; see `labels` of the service"),
        ),
        key("rollback_config", Ignored("a rollback moves the traffic back at once")),
        key("update_config", Ignored("`x-deployer.strategy` says how a service is updated")),
        key("placement", Ignored("there is one engine, which runs all services")),
        key("restart_policy", Translated("`restart`")),
    ],
);

pub(super) const RESOURCES: Section =
    Section::compose("`resources`", &[key("limits", Deployed), key("reservations", Deployed)]);

pub(super) const LIMITS: Section = Section::compose(
    "`limits`",
    &[key("cpus", Deployed), key("memory", Deployed), key("pids", Deployed).ecs(NOT_ON_ECS)],
);

pub(super) const RESERVATIONS: Section = Section::compose(
    "`reservations`",
    &[
        key("cpus", Deployed),
        key("memory", Deployed),
        key("devices", Deployed).ecs(NOT_ON_ECS),
        key("generic_resources", Refused(NOT_YET)),
    ],
);

pub(super) const HEALTHCHECK: Section = Section::compose(
    "`healthcheck`",
    &[
        key("disable", Deployed),
        key("interval", Deployed),
        key("retries", Deployed),
        key("start_period", Deployed),
        key("test", Deployed),
        key("timeout", Deployed),
        key(
            "start_interval",
            Ignored("`interval` counts from the start; `x-deployer.health` probes faster than any check"),
        ),
    ],
);

pub(super) const DEPENDENCY: Section = Section::compose(
    "a dependency",
    &[
        key("condition", Deployed),
        key("required", Deployed),
        key("restart", Ignored("a deployment of one service does not restart those that depend on it")),
    ],
);

pub(super) const ENV_FILE: Section =
    Section::compose("an `env_file`", &[key("format", Deployed), key("path", Deployed), key("required", Deployed)]);

pub(super) const PORT: Section = Section::compose(
    "a port",
    &[
        key("app_protocol", Deployed),
        key("host_ip", Deployed),
        key("protocol", Deployed),
        key("published", Deployed),
        key("target", Deployed),
        key("mode", Ignored("published ports are served by the load balancer")),
        key("name", Ignored("it is a remark for people")),
    ],
);

pub(super) const MOUNT: Section = Section::compose(
    "a volume of a service",
    &[
        key("bind", Deployed),
        key("read_only", Deployed),
        key("source", Deployed),
        key("target", Deployed),
        key("tmpfs", Deployed),
        key("type", Deployed),
        key("volume", Deployed),
        key("consistency", Ignored("it means nothing on Linux")),
        key("image", Refused(NOT_YET)),
    ],
);

pub(super) const MOUNT_BIND: Section = Section::compose(
    "`bind`",
    &[
        key("create_host_path", Deployed),
        key("selinux", Deployed),
        key("propagation", Deployed),
        key("recursive", Refused(NOT_YET)),
    ],
);

pub(super) const MOUNT_VOLUME: Section = Section::compose(
    "`volume`",
    &[
        key("labels", Refused("put them at the volume in the top-level `volumes`")),
        key("nocopy", Deployed),
        key("subpath", Refused(NOT_YET)),
    ],
);

pub(super) const MOUNT_TMPFS: Section = Section::compose("`tmpfs`", &[key("size", Deployed), key("mode", Deployed)]);

pub(super) const SERVICE_NETWORK: Section = Section::compose(
    "a network of a service",
    &[
        key("aliases", Deployed),
        key("gw_priority", Refused(NOT_YET)),
        key("driver_opts", Deployed),
        key("interface_name", Refused(NOT_YET)),
        key("ipv4_address", Translated("the service is stopped before its new revision starts")),
        key("ipv6_address", Translated("the service is stopped before its new revision starts")),
        key("link_local_ips", Deployed),
        key("mac_address", Refused(ADDRESSES)),
        key("priority", Ignored("the default network comes first, then the others by name")),
    ],
);

pub(super) const NETWORK: Section = Section::compose(
    "a network",
    &[
        key("driver", Deployed),
        key("driver_opts", Deployed),
        key("external", Deployed),
        key("internal", Deployed),
        key("labels", Deployed),
        key("name", Deployed),
        key("attachable", Deployed),
        key("enable_ipv4", Refused(NOT_YET)),
        key("enable_ipv6", Deployed),
        key("ipam", Deployed),
    ],
);

pub(super) const VOLUME: Section = Section::compose(
    "a volume",
    &[
        key("driver", Deployed).ecs(EFS),
        key("driver_opts", Deployed).ecs(EFS),
        key("external", Deployed),
        key("labels", Deployed),
        key("name", Deployed),
    ],
);

const SWARM_SECRET: &str =
    "give the value by `file`, `environment`, or `external: true` and the `Secrets` of the deployment";

pub(super) const SECRET: Section = Section::compose(
    "a secret",
    &[
        key("environment", Deployed),
        key("external", Deployed),
        key("file", Deployed),
        key("name", Deployed),
        key("labels", Ignored("a secret is a file in the containers, and has no labels")),
        key("driver", Refused(SWARM_SECRET)),
        key("driver_opts", Refused(SWARM_SECRET)),
        key("template_driver", Refused(SWARM_SECRET)),
    ],
);

pub(super) const DEPLOYER: Section = Section::own(
    "`x-deployer`",
    &[
        key("balancing", Deployed),
        key("drain", Deployed),
        key("gates", Deployed),
        key("health", Deployed),
        key("hooks", Deployed),
        key("route", Deployed),
        key("routes", Deployed),
        key("scaling", Deployed),
        key("secrets", Deployed),
        key("strategy", Deployed),
    ],
);

pub(super) const BALANCING: Section = Section::own(
    "`balancing`",
    &[
        key("healthy-after", Deployed),
        key("slow-start", Deployed),
        key("sticky", Deployed),
        key("unhealthy-after", Deployed),
    ],
);

pub(super) const SCALING: Section = Section::own(
    "`scaling`",
    &[
        key("cpu", Deployed),
        key("max", Deployed),
        key("memory", Deployed),
        key("min", Deployed),
        key("requests", Deployed),
        key("schedules", Deployed),
    ],
);

pub(super) const SCHEDULE: Section = Section::own(
    "a schedule",
    &[
        key("cron", Deployed),
        key("max", Deployed),
        key("min", Deployed),
        key("name", Deployed),
        key("timezone", Deployed),
    ],
);

pub(super) const ROUTE: Section =
    Section::own("a route", &[key("host", Deployed), key("path", Deployed), key("port", Deployed)]);

pub(super) const HEALTH: Section = Section::own(
    "`health`",
    &[
        key("crashes-allowed", Deployed),
        key("deadline", Deployed),
        key("http", Deployed),
        key("interval", Deployed),
        key("min-healthy", Deployed),
        key("progress-deadline", Deployed),
        key("tcp", Deployed),
        key("timeout", Deployed),
    ],
);

pub(super) const HTTP_PROBE: Section = Section::own("`http`", &[key("path", Deployed), key("port", Deployed)]);

pub(super) const TCP_PROBE: Section = Section::own("`tcp`", &[key("port", Deployed)]);

pub(super) const RECREATE: Section = Section::own("the strategy recreate", &[key("type", Deployed)]);

pub(super) const ROLLING: Section = Section::own(
    "the strategy rolling",
    &[key("surge", Deployed), key("type", Deployed), key("unavailable", Deployed)],
);

pub(super) const BLUE_GREEN: Section = Section::own(
    "the strategy blue-green",
    &[key("bake", Deployed), key("keep-warm", Deployed), key("type", Deployed)],
);

pub(super) const CANARY: Section =
    Section::own("the strategy canary", &[key("steps", Deployed), key("type", Deployed)]);

pub(super) const CANARY_STEP: Section = Section::own("a step", &[key("hold", Deployed), key("weight", Deployed)]);

pub(super) const LINEAR: Section =
    Section::own("the strategy linear", &[key("interval", Deployed), key("step", Deployed), key("type", Deployed)]);

pub(super) const GATE: Section = Section::own(
    "a gate",
    &[
        key("approval", Deployed),
        key("at", Deployed),
        key("callback", Deployed),
        key("error-rate", Deployed),
        key("failures-allowed", Deployed),
        key("interval", Deployed),
        key("latency", Deployed),
        key("name", Deployed),
        key("on-inconclusive", Deployed),
        key("smoke", Deployed),
    ],
);

pub(super) const SMOKE: Section = Section::own(
    "`smoke`",
    &[key("contains", Deployed), key("path", Deployed), key("port", Deployed), key("status", Deployed)],
);

pub(super) const ERROR_RATE: Section =
    Section::own("`error-rate`", &[key("max", Deployed), key("min-requests", Deployed)]);

pub(super) const LATENCY: Section = Section::own("`latency`", &[key("max", Deployed), key("min-requests", Deployed)]);

pub(super) const APPROVAL: Section = Section::own("`approval`", &[key("timeout", Deployed)]);

pub(super) const CALLBACK: Section = Section::own("`callback`", &[key("name", Deployed)]);

pub(super) const HOOK: Section = Section::own(
    "a hook",
    &[key("command", Deployed), key("name", Deployed), key("point", Deployed), key("timeout", Deployed)],
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_in_a_table_twice() {
        for section in [&TOP, &SERVICE, &BUILD, &DEPLOY, &MOUNT, &NETWORK, &GATE, &SCALING, &SCHEDULE] {
            let mut names: Vec<&str> = section.known().collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), section.keys.len(), "{}", section.name);
        }
    }
}
