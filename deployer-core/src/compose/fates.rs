//! What becomes of every key, for people and tools.

use super::keys::{self, Fate, Section};

/// What becomes of a key of the Compose Specification.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyFate {
    /// Where it stands, such as `services.*.ports[].target`: `*` is any name and `[]` any item.
    pub path: String,
    /// What becomes of it on Docker.
    pub docker: Fate,
    /// What becomes of it on ECS.
    pub ecs: Fate,
}

/// Every key of the Compose Specification, with what becomes of it. Keys below one that is ignored or refused are not
/// listed: they share its fate.
///
/// ```
/// use deployer_core::compose::{Fate, fates};
///
/// let all = fates();
/// let key = all.iter().find(|key| key.path == "services.*.cap_add").unwrap();
/// assert_eq!(key.docker, Fate::Deployed);
/// ```
#[must_use]
pub fn fates() -> Vec<KeyFate> {
    let mut all: Vec<KeyFate> = Vec::new();
    for (parent, section) in SECTIONS {
        // What is refused or ignored as a whole is so in its parts.
        let whole = all.iter().find(|key| key.path == parent.trim_end_matches("[]").trim_end_matches(".*"));
        let whole = whole.map(|key| key.ecs).filter(|fate| !fate.is_read());
        let dot = if parent.is_empty() { "" } else { "." };
        let key =
            |(name, docker, ecs)| KeyFate { path: format!("{parent}{dot}{name}"), docker, ecs: whole.unwrap_or(ecs) };
        let keys: Vec<KeyFate> = section.fates().filter(|(name, ..)| *name != "x-deployer").map(key).collect();
        all.extend(keys);
    }
    all
}

/// The tables of mappings with fixed keys, by their paths.
pub(super) const SECTIONS: &[(&str, &Section)] = &[
    ("", &keys::TOP),
    ("include[]", &keys::INCLUDE),
    ("services.*", &keys::SERVICE),
    ("services.*.blkio_config", &keys::BLKIO),
    ("services.*.blkio_config.device_read_bps[]", &keys::RATE),
    ("services.*.blkio_config.device_read_iops[]", &keys::RATE),
    ("services.*.blkio_config.device_write_bps[]", &keys::RATE),
    ("services.*.blkio_config.device_write_iops[]", &keys::RATE),
    ("services.*.blkio_config.weight_device[]", &keys::WEIGHT),
    ("services.*.build", &keys::BUILD),
    ("services.*.build.secrets[]", &keys::BUILD_SECRET),
    ("services.*.configs[]", &keys::FILE),
    ("services.*.depends_on.*", &keys::DEPENDENCY),
    ("services.*.deploy", &keys::DEPLOY),
    ("services.*.deploy.resources", &keys::RESOURCES),
    ("services.*.deploy.resources.limits", &keys::LIMITS),
    ("services.*.deploy.resources.reservations", &keys::RESERVATIONS),
    ("services.*.deploy.resources.reservations.devices[]", &keys::DEVICE_REQUEST),
    ("services.*.deploy.restart_policy", &keys::RESTART_POLICY),
    ("services.*.devices[]", &keys::DEVICE),
    ("services.*.env_file[]", &keys::ENV_FILE),
    ("services.*.extends", &keys::EXTENDS),
    ("services.*.gpus[]", &keys::DEVICE_REQUEST),
    ("services.*.healthcheck", &keys::HEALTHCHECK),
    ("services.*.logging", &keys::LOGGING),
    ("services.*.networks.*", &keys::SERVICE_NETWORK),
    ("services.*.ports[]", &keys::PORT),
    ("services.*.secrets[]", &keys::FILE),
    ("services.*.ulimits.*", &keys::ULIMIT),
    ("services.*.volumes[]", &keys::MOUNT),
    ("services.*.volumes[].bind", &keys::MOUNT_BIND),
    ("services.*.volumes[].tmpfs", &keys::MOUNT_TMPFS),
    ("services.*.volumes[].volume", &keys::MOUNT_VOLUME),
    ("networks.*", &keys::NETWORK),
    ("networks.*.ipam", &keys::IPAM),
    ("networks.*.ipam.config[]", &keys::IPAM_CONFIG),
    ("volumes.*", &keys::VOLUME),
    ("configs.*", &keys::CONFIG),
    ("secrets.*", &keys::SECRET),
];

/// The tables of the mappings below `x-deployer`, by their paths in it; `type=x` is a strategy of this type.
#[cfg(test)]
pub(super) const EXTENSION: &[(&str, &Section)] = &[
    ("", &keys::DEPLOYER),
    ("balancing", &keys::BALANCING),
    ("gates[]", &keys::GATE),
    ("gates[].approval", &keys::APPROVAL),
    ("gates[].callback", &keys::CALLBACK),
    ("gates[].error-rate", &keys::ERROR_RATE),
    ("gates[].latency", &keys::LATENCY),
    ("gates[].smoke", &keys::SMOKE),
    ("health", &keys::HEALTH),
    ("health.http", &keys::HTTP_PROBE),
    ("health.tcp", &keys::TCP_PROBE),
    ("hooks[]", &keys::HOOK),
    ("route", &keys::ROUTE),
    ("routes[]", &keys::ROUTE),
    ("scaling", &keys::SCALING),
    ("scaling.schedules[]", &keys::SCHEDULE),
    ("strategy.type=blue-green", &keys::BLUE_GREEN),
    ("strategy.type=canary", &keys::CANARY),
    ("strategy.type=canary.steps[]", &keys::CANARY_STEP),
    ("strategy.type=linear", &keys::LINEAR),
    ("strategy.type=recreate", &keys::RECREATE),
    ("strategy.type=rolling", &keys::ROLLING),
];
