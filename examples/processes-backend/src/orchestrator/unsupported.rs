//! What processes cannot do. It is refused by name before anything is touched, and never left out in silence.

use deployer_core::{Error, ErrorKind, MountSource, Release, Result, Workload};

/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported), naming the service and what it wants.
pub(super) fn check(release: &Release) -> Result<()> {
    for (service, definition) in &release.services {
        if let Some((what, help)) = wanted(&definition.workload) {
            return Err(Error::new(ErrorKind::Unsupported, format!("processes of this host have no {what}"))
                .with_resource(service.as_str())
                .with_help(help));
        }
    }
    if let Some((name, _)) = release.networks.iter().find(|(_, network)| network.internal || network.external) {
        return Err(Error::new(ErrorKind::Unsupported, "processes of this host share its network")
            .with_resource(name.clone())
            .with_help("leave `internal` and `external` out"));
    }
    Ok(())
}

fn wanted(workload: &Workload) -> Option<(&'static str, &'static str)> {
    let resources = &workload.resources;
    if resources.cpu_millis.is_some() {
        return Some(("limit of processor time", "leave it out"));
    }
    if workload.read_only {
        return Some(("read-only root file system", "leave it out, or run it as a user that may not write"));
    }
    if workload.hostname.is_some() {
        return Some(("host name of their own", "leave it out; the instance's name is in the variable INSTANCE"));
    }
    if workload.user.as_deref().is_some_and(|name| user(name).is_none()) {
        return Some(("users of their own", "name the host's user and group by their numbers, such as 1000:1000"));
    }
    let udp = workload.ports.iter().any(|port| port.transport == deployer_core::Transport::Udp);
    if udp {
        return Some(("proxy for UDP", "leave the port out"));
    }
    let limited = |source: &MountSource| matches!(source, MountSource::Tmpfs { size_bytes: Some(_) });
    let mounts = &workload.mounts;
    if mounts.iter().any(|mount| limited(&mount.source)) {
        return Some(("limited file system in memory", "leave the size out"));
    }
    if mounts.iter().any(|mount| mount.read_only && !matches!(mount.source, MountSource::Bind(_))) {
        return Some(("read-only mounts", "leave it out"));
    }
    None
}

/// The numbers in `1000` and `1000:1000`.
pub(super) fn user(text: &str) -> Option<(u32, Option<u32>)> {
    match text.split_once(':') {
        None => Some((text.parse().ok()?, None)),
        Some((user, group)) => Some((user.parse().ok()?, Some(group.parse().ok()?))),
    }
}
