//! Every key of the Compose Specification and of `x-deployer`, with what becomes of it. Nothing is dropped silently:
//! a key is supported, ignored with a warning, or refused.

use super::cursor::{Cursor, Field};
use super::report::Report;
use crate::model::Problem;
use Fate::{Ignored, Refused, Supported};

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is read into the model.
    Supported,
    /// It changes nothing that matters to a deployment; why is in the warning.
    Ignored(&'static str),
    /// It would change how the service runs, and cannot be done; the text says what to do instead.
    Refused(&'static str),
}

/// A mapping with fixed keys.
#[derive(Debug)]
pub(super) struct Section {
    /// Its name for messages.
    pub(super) name: &'static str,
    /// Whether keys that begin with `x-` are allowed, as almost everywhere in Compose.
    extensible: bool,
    keys: &'static [(&'static str, Fate)],
}

impl Section {
    const fn compose(name: &'static str, keys: &'static [(&'static str, Fate)]) -> Self {
        Self { name, extensible: true, keys }
    }

    const fn own(name: &'static str, keys: &'static [(&'static str, Fate)]) -> Self {
        Self { name, extensible: false, keys }
    }

    pub(super) fn fate(&self, key: &str) -> Option<Fate> {
        self.keys.iter().find(|(known, _)| *known == key).map(|(_, fate)| *fate)
    }

    pub(super) fn supports(&self, key: &str) -> bool {
        self.fate(key) == Some(Supported)
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> impl Iterator<Item = &'static str> {
        self.of_fate(|_| true)
    }

    #[cfg(test)]
    fn of_fate(&self, wanted: impl Fn(Fate) -> bool) -> impl Iterator<Item = &'static str> {
        self.keys.iter().filter(move |(_, fate)| wanted(*fate)).map(|(key, _)| *key)
    }

    #[cfg(test)]
    pub(super) fn supported(&self) -> impl Iterator<Item = &'static str> {
        self.of_fate(|fate| fate == Supported)
    }

    #[cfg(test)]
    pub(super) fn ignored(&self) -> impl Iterator<Item = &'static str> {
        self.of_fate(|fate| matches!(fate, Ignored(_)))
    }

    #[cfg(test)]
    pub(super) fn refused(&self) -> impl Iterator<Item = &'static str> {
        self.of_fate(|fate| matches!(fate, Refused(_)))
    }

    /// The known key that this one was probably meant to be.
    fn nearest(&self, key: &str) -> Option<&'static str> {
        nearest(key, self.keys.iter().map(|(known, _)| *known))
    }
}

const NOT_YET: &str = "remove it; it is not supported yet";
const NO_ISOLATION: &str = "remove it; services run with the engine's defaults for isolation";
const SECRET_HELP: &str = "give the value to the `Secrets` of the deployment, and name it under `x-deployer.secrets`";

pub(super) const TOP: Section = Section::compose(
    "the file",
    &[
        ("include", Supported),
        ("name", Supported),
        ("services", Supported),
        ("networks", Supported),
        ("volumes", Supported),
        ("secrets", Supported),
        ("version", Ignored("Compose files have had no version since 2020")),
        ("configs", Refused("put the content into the image, or mount a file")),
        ("models", Refused(NOT_YET)),
    ],
);

pub(super) const SERVICE: Section = Section::compose(
    "a service",
    &[
        ("build", Supported),
        ("command", Supported),
        ("cpus", Supported),
        ("depends_on", Supported),
        ("deploy", Supported),
        ("entrypoint", Supported),
        ("env_file", Supported),
        ("environment", Supported),
        ("expose", Supported),
        ("extends", Supported),
        ("healthcheck", Supported),
        ("hostname", Supported),
        ("image", Supported),
        ("init", Supported),
        ("labels", Supported),
        ("mem_limit", Supported),
        ("mem_reservation", Supported),
        ("networks", Supported),
        ("ports", Supported),
        ("profiles", Supported),
        ("read_only", Supported),
        ("restart", Supported),
        ("scale", Supported),
        ("stop_grace_period", Supported),
        ("stop_signal", Supported),
        ("tmpfs", Supported),
        ("user", Supported),
        ("volumes", Supported),
        ("working_dir", Supported),
        ("x-deployer", Supported),
        ("annotations", Ignored("annotations are for other tools")),
        ("attach", Ignored("deployments do not follow the output of services")),
        ("container_name", Ignored("revisions run side by side, so each container has a name of its own")),
        ("develop", Ignored("it is for work on the source, not for deployments")),
        ("logging", Ignored("the engine's own settings for logs apply")),
        ("pull_policy", Ignored("images are pinned by digest, and fetched when they are not there")),
        ("pull_refresh_after", Ignored("images are pinned by digest")),
        ("stdin_open", Ignored("nobody can type into a deployed service")),
        ("blkio_config", Refused(NOT_YET)),
        ("cap_add", Refused(NO_ISOLATION)),
        ("cap_drop", Refused(NO_ISOLATION)),
        ("cgroup", Refused(NO_ISOLATION)),
        ("cgroup_parent", Refused(NO_ISOLATION)),
        ("configs", Refused("put the content into the image, or mount a file")),
        ("cpu_count", Refused("use `cpus`")),
        ("cpu_percent", Refused("use `cpus`")),
        ("cpu_period", Refused("use `cpus`")),
        ("cpu_quota", Refused("use `cpus`")),
        ("cpu_rt_period", Refused(NOT_YET)),
        ("cpu_rt_runtime", Refused(NOT_YET)),
        ("cpu_shares", Refused("use `cpus`")),
        ("cpuset", Refused("use `cpus`")),
        ("credential_spec", Refused(NOT_YET)),
        ("device_cgroup_rules", Refused(NOT_YET)),
        ("devices", Refused(NOT_YET)),
        ("dns", Refused(NOT_YET)),
        ("dns_opt", Refused(NOT_YET)),
        ("dns_search", Refused(NOT_YET)),
        ("domainname", Refused("use `hostname`")),
        ("external_links", Refused("join an external network instead")),
        ("extra_hosts", Refused(NOT_YET)),
        ("gpus", Refused(NOT_YET)),
        ("group_add", Refused(NOT_YET)),
        ("ipc", Refused(NO_ISOLATION)),
        ("isolation", Refused(NO_ISOLATION)),
        ("label_file", Refused("use `labels`")),
        ("links", Refused("services of one network reach each other by name; for an alias use `networks`")),
        ("mac_address", Refused(NOT_YET)),
        ("mem_swappiness", Refused(NOT_YET)),
        ("memswap_limit", Refused(NOT_YET)),
        ("models", Refused(NOT_YET)),
        ("network_mode", Refused("use `networks`: replicas and revisions need addresses of their own")),
        ("oom_kill_disable", Refused(NOT_YET)),
        ("oom_score_adj", Refused(NOT_YET)),
        ("pid", Refused(NO_ISOLATION)),
        ("pids_limit", Refused(NOT_YET)),
        ("platform", Refused("name an image for the platform of the engine")),
        ("post_start", Refused("use a hook of `x-deployer` at the point post-deploy")),
        ("pre_start", Refused("use a hook of `x-deployer` at the point pre-deploy")),
        ("pre_stop", Refused("use a hook of `x-deployer` at the point pre-stop")),
        ("privileged", Refused(NO_ISOLATION)),
        ("provider", Refused(NOT_YET)),
        ("runtime", Refused(NOT_YET)),
        ("secrets", Refused(SECRET_HELP)),
        ("security_opt", Refused(NO_ISOLATION)),
        ("shm_size", Refused(NOT_YET)),
        ("storage_opt", Refused(NOT_YET)),
        ("sysctls", Refused(NOT_YET)),
        ("tty", Refused("nobody looks at the terminal of a deployed service; use a command that stays without one")),
        ("ulimits", Refused(NOT_YET)),
        ("use_api_socket", Refused(NOT_YET)),
        ("userns_mode", Refused(NO_ISOLATION)),
        ("uts", Refused(NO_ISOLATION)),
        ("volumes_from", Refused("mount a named volume in both services")),
    ],
);

pub(super) const INCLUDE: Section =
    Section::compose("an `include`", &[("env_file", Supported), ("path", Supported), ("project_directory", Supported)]);

pub(super) const EXTENDS: Section = Section::compose("`extends`", &[("file", Supported), ("service", Supported)]);

pub(super) const BUILD: Section = Section::compose(
    "`build`",
    &[
        ("args", Supported),
        ("context", Supported),
        ("dockerfile", Supported),
        ("dockerfile_inline", Supported),
        ("labels", Supported),
        ("no_cache", Supported),
        ("secrets", Supported),
        ("target", Supported),
        ("cache_from", Ignored("the engine's own cache is used")),
        ("cache_to", Ignored("the engine's own cache is used")),
        ("pull", Ignored("base images are fetched when they are not there")),
        ("additional_contexts", Refused(NOT_YET)),
        ("entitlements", Refused(NOT_YET)),
        ("extra_hosts", Refused(NOT_YET)),
        ("isolation", Refused(NO_ISOLATION)),
        ("network", Refused(NOT_YET)),
        ("no_cache_filter", Refused("use `no_cache`")),
        ("platforms", Refused("the image is built for the platform of the engine")),
        ("privileged", Refused(NO_ISOLATION)),
        ("provenance", Refused(NOT_YET)),
        ("sbom", Refused(NOT_YET)),
        ("shm_size", Refused(NOT_YET)),
        ("ssh", Refused("give the key as a build secret")),
        ("tags", Refused("the image gets the name in `image`")),
        ("ulimits", Refused(NOT_YET)),
    ],
);

pub(super) const BUILD_SECRET: Section = Section::compose(
    "a build secret",
    &[
        ("source", Supported),
        ("target", Supported),
        ("gid", Refused(NOT_YET)),
        ("mode", Refused(NOT_YET)),
        ("uid", Refused(NOT_YET)),
    ],
);

pub(super) const DEPLOY: Section = Section::compose(
    "`deploy`",
    &[
        ("mode", Supported),
        ("replicas", Supported),
        ("resources", Supported),
        ("endpoint_mode", Ignored("services are reached through the load balancer and by their names")),
        ("labels", Ignored("they are for the service as a whole, not for its containers; see `labels` of the service")),
        ("rollback_config", Ignored("a rollback moves the traffic back at once")),
        ("update_config", Ignored("`x-deployer.strategy` says how a service is updated")),
        ("placement", Refused(NOT_YET)),
        ("restart_policy", Refused("use `restart`")),
    ],
);

pub(super) const RESOURCES: Section =
    Section::compose("`resources`", &[("limits", Supported), ("reservations", Supported)]);

pub(super) const LIMITS: Section =
    Section::compose("`limits`", &[("cpus", Supported), ("memory", Supported), ("pids", Refused(NOT_YET))]);

pub(super) const RESERVATIONS: Section = Section::compose(
    "`reservations`",
    &[
        ("cpus", Supported),
        ("memory", Supported),
        ("devices", Refused(NOT_YET)),
        ("generic_resources", Refused(NOT_YET)),
    ],
);

pub(super) const HEALTHCHECK: Section = Section::compose(
    "`healthcheck`",
    &[
        ("disable", Supported),
        ("interval", Supported),
        ("retries", Supported),
        ("start_period", Supported),
        ("test", Supported),
        ("timeout", Supported),
        (
            "start_interval",
            Ignored("`interval` counts from the start; `x-deployer.health` probes faster than any check"),
        ),
    ],
);

pub(super) const DEPENDENCY: Section = Section::compose(
    "a dependency",
    &[
        ("condition", Supported),
        ("required", Supported),
        ("restart", Ignored("a deployment of one service does not restart those that depend on it")),
    ],
);

pub(super) const ENV_FILE: Section =
    Section::compose("an `env_file`", &[("format", Supported), ("path", Supported), ("required", Supported)]);

pub(super) const PORT: Section = Section::compose(
    "a port",
    &[
        ("app_protocol", Supported),
        ("host_ip", Supported),
        ("protocol", Supported),
        ("published", Supported),
        ("target", Supported),
        ("mode", Ignored("published ports are served by the load balancer")),
        ("name", Ignored("it is a remark for people")),
    ],
);

pub(super) const MOUNT: Section = Section::compose(
    "a volume of a service",
    &[
        ("bind", Supported),
        ("read_only", Supported),
        ("source", Supported),
        ("target", Supported),
        ("tmpfs", Supported),
        ("type", Supported),
        ("volume", Supported),
        ("consistency", Ignored("it means nothing on Linux")),
        ("image", Refused(NOT_YET)),
    ],
);

pub(super) const MOUNT_BIND: Section = Section::compose(
    "`bind`",
    &[
        ("create_host_path", Ignored("the engine decides what to do when the path is missing")),
        ("selinux", Ignored("label the path yourself where SELinux is on")),
        ("propagation", Refused(NOT_YET)),
        ("recursive", Refused(NOT_YET)),
    ],
);

pub(super) const MOUNT_VOLUME: Section = Section::compose(
    "`volume`",
    &[
        ("labels", Refused("put them at the volume in the top-level `volumes`")),
        ("nocopy", Refused(NOT_YET)),
        ("subpath", Refused(NOT_YET)),
    ],
);

pub(super) const MOUNT_TMPFS: Section = Section::compose("`tmpfs`", &[("size", Supported), ("mode", Refused(NOT_YET))]);

pub(super) const SERVICE_NETWORK: Section = Section::compose(
    "a network of a service",
    &[
        ("aliases", Supported),
        ("gw_priority", Refused(NOT_YET)),
        ("driver_opts", Refused(NOT_YET)),
        ("interface_name", Refused(NOT_YET)),
        ("ipv4_address", Refused("use the service's name: replicas and revisions need addresses of their own")),
        ("ipv6_address", Refused("use the service's name: replicas and revisions need addresses of their own")),
        ("link_local_ips", Refused(NOT_YET)),
        ("mac_address", Refused(NOT_YET)),
        ("priority", Refused(NOT_YET)),
    ],
);

pub(super) const NETWORK: Section = Section::compose(
    "a network",
    &[
        ("driver", Supported),
        ("driver_opts", Supported),
        ("external", Supported),
        ("internal", Supported),
        ("labels", Supported),
        ("name", Supported),
        ("attachable", Ignored("only Swarm's networks know it")),
        ("enable_ipv4", Refused(NOT_YET)),
        ("enable_ipv6", Refused(NOT_YET)),
        ("ipam", Refused("make the network yourself, and mark it as `external: true`")),
    ],
);

pub(super) const VOLUME: Section = Section::compose(
    "a volume",
    &[
        ("driver", Supported),
        ("driver_opts", Supported),
        ("external", Supported),
        ("labels", Supported),
        ("name", Supported),
    ],
);

const EXTERNAL_SECRET: &str =
    "write `external: true`, and give the value to the `Secrets` of the deployment: a spec never holds one";

pub(super) const SECRET: Section = Section::compose(
    "a secret",
    &[
        ("external", Supported),
        ("name", Supported),
        ("driver", Refused(EXTERNAL_SECRET)),
        ("driver_opts", Refused(EXTERNAL_SECRET)),
        ("environment", Refused(EXTERNAL_SECRET)),
        ("file", Refused(EXTERNAL_SECRET)),
        ("labels", Refused(EXTERNAL_SECRET)),
        ("template_driver", Refused(EXTERNAL_SECRET)),
    ],
);

pub(super) const DEPLOYER: Section = Section::own(
    "`x-deployer`",
    &[
        ("drain", Supported),
        ("gates", Supported),
        ("health", Supported),
        ("hooks", Supported),
        ("route", Supported),
        ("routes", Supported),
        ("scaling", Supported),
        ("secrets", Supported),
        ("strategy", Supported),
    ],
);

pub(super) const SCALING: Section = Section::own(
    "`scaling`",
    &[
        ("cpu", Supported),
        ("max", Supported),
        ("memory", Supported),
        ("min", Supported),
        ("requests", Supported),
        ("schedules", Supported),
    ],
);

pub(super) const SCHEDULE: Section = Section::own(
    "a schedule",
    &[("cron", Supported), ("max", Supported), ("min", Supported), ("name", Supported), ("timezone", Supported)],
);

pub(super) const ROUTE: Section =
    Section::own("a route", &[("host", Supported), ("path", Supported), ("port", Supported)]);

pub(super) const HEALTH: Section = Section::own(
    "`health`",
    &[
        ("crashes-allowed", Supported),
        ("deadline", Supported),
        ("http", Supported),
        ("interval", Supported),
        ("min-healthy", Supported),
        ("progress-deadline", Supported),
        ("tcp", Supported),
        ("timeout", Supported),
    ],
);

pub(super) const HTTP_PROBE: Section = Section::own("`http`", &[("path", Supported), ("port", Supported)]);

pub(super) const TCP_PROBE: Section = Section::own("`tcp`", &[("port", Supported)]);

pub(super) const RECREATE: Section = Section::own("the strategy recreate", &[("type", Supported)]);

pub(super) const ROLLING: Section =
    Section::own("the strategy rolling", &[("surge", Supported), ("type", Supported), ("unavailable", Supported)]);

pub(super) const BLUE_GREEN: Section =
    Section::own("the strategy blue-green", &[("bake", Supported), ("keep-warm", Supported), ("type", Supported)]);

pub(super) const CANARY: Section = Section::own("the strategy canary", &[("steps", Supported), ("type", Supported)]);

pub(super) const CANARY_STEP: Section = Section::own("a step", &[("hold", Supported), ("weight", Supported)]);

pub(super) const LINEAR: Section =
    Section::own("the strategy linear", &[("interval", Supported), ("step", Supported), ("type", Supported)]);

pub(super) const GATE: Section = Section::own(
    "a gate",
    &[
        ("approval", Supported),
        ("at", Supported),
        ("callback", Supported),
        ("error-rate", Supported),
        ("failures-allowed", Supported),
        ("interval", Supported),
        ("latency", Supported),
        ("name", Supported),
        ("on-inconclusive", Supported),
        ("smoke", Supported),
    ],
);

pub(super) const SMOKE: Section = Section::own(
    "`smoke`",
    &[("contains", Supported), ("path", Supported), ("port", Supported), ("status", Supported)],
);

pub(super) const ERROR_RATE: Section = Section::own("`error-rate`", &[("max", Supported), ("min-requests", Supported)]);

pub(super) const LATENCY: Section = Section::own("`latency`", &[("max", Supported), ("min-requests", Supported)]);

pub(super) const APPROVAL: Section = Section::own("`approval`", &[("timeout", Supported)]);

pub(super) const CALLBACK: Section = Section::own("`callback`", &[("name", Supported)]);

pub(super) const HOOK: Section = Section::own(
    "a hook",
    &[("command", Supported), ("name", Supported), ("point", Supported), ("timeout", Supported)],
);

/// Reports every key of the mapping that is not supported.
pub(super) fn check(report: &mut Report, map: &Cursor<'_>, section: &Section) {
    for Field { key, key_at, value } in map.entries() {
        match section.fate(key) {
            Some(Supported) => {}
            Some(Ignored(why)) => {
                report.warn_at(&value.path, key_at, format!("`{key}` has no effect: {why}"), None);
            }
            // Null and `false` ask for what is so anyway.
            Some(Refused(_)) if value.is_null() || value.scalar().is_some_and(|scalar| scalar.text == "false") => {}
            Some(Refused(instead)) => {
                report.problem(&value.path, key_at, format!("`{key}` is not supported"), instead.to_owned());
            }
            None if section.extensible && key == "x-deployer" => {
                let help = "move it into a service".to_owned();
                report.problem(&value.path, key_at, format!("`x-deployer` is no key of {}", section.name), help);
            }
            None if section.extensible && key.starts_with("x-") => {
                let own = section.keys.iter().map(|(known, _)| *known).filter(|known| known.starts_with("x-"));
                if let Some(meant) = nearest(key, own) {
                    let help = format!("if `{meant}` was meant, correct it");
                    report.warn_at(&value.path, key_at, format!("`{key}` is of no known tool"), Some(help));
                }
            }
            None => {
                if report.is_full() {
                    report.add(Problem::error(value.path, "unknown key"));
                    continue;
                }
                let help = match section.nearest(key) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => {
                        let known = section.keys.iter().filter(|(_, fate)| *fate == Supported);
                        let names: Vec<String> = known.map(|(name, _)| format!("`{name}`")).collect();
                        format!("{} may have {}", section.name, names.join(", "))
                    }
                };
                report.problem(&value.path, key_at, format!("`{key}` is no key of {}", section.name), help);
            }
        }
    }
}

/// The candidate nearest to `word`, if one is so near that it was probably meant.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Long words are no typing errors of short ones, and measuring them would take long.
    if word.len() > 40 {
        return None;
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let word = plain(word);
    let near = |candidate: &&str| distance(&word, &plain(candidate));
    let best = candidates.into_iter().min_by_key(near)?;
    (near(&best) <= (best.len() / 3).clamp(1, 3)).then_some(best)
}

/// How many characters must be added, removed, replaced or swapped with their neighbour to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = last[j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names_are_found() {
        for (word, expected) in [
            ("imag", Some("image")),
            ("Image", Some("image")),
            ("prots", Some("ports")),
            ("healtcheck", Some("healthcheck")),
            ("depends-on", Some("depends_on")),
            ("enviroment", Some("environment")),
            ("zzz", None),
            ("", None),
        ] {
            assert_eq!(SERVICE.nearest(word), expected, "{word}");
        }
    }

    #[test]
    fn no_key_is_in_a_table_twice() {
        for section in [&TOP, &SERVICE, &BUILD, &DEPLOY, &MOUNT, &NETWORK, &GATE, &SCALING, &SCHEDULE] {
            let mut names: Vec<&str> = section.keys.iter().map(|(name, _)| *name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), section.keys.len(), "{}", section.name);
        }
    }
}
