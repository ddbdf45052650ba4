//! What processes cannot do. It is refused by name before anything is touched, and never left out in silence.

use std::collections::BTreeMap;

use deployer_core::{
    AppSpec, Error, ErrorKind, MountSource, NetworkSpec, Problem, Problems, Release, Result, ServiceName, Workload,
};

/// Everything in a spec that processes cannot do.
pub(super) fn problems(spec: &AppSpec) -> Problems {
    let workloads = spec.services.iter().map(|(name, service)| (name, &service.workload));
    Problems(found(workloads, &spec.networks).map(|found| found.problem()).collect())
}

/// Refuses a release that nobody may have checked here.
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported), naming the first service and what it wants.
pub(super) fn check(release: &Release) -> Result<()> {
    let workloads = release.services.iter().map(|(name, service)| (name, &service.workload));
    found(workloads, &release.networks).next().map_or(Ok(()), |found| Err(found.error()))
}

/// Something that is wanted and not to be had.
struct Found {
    path: String,
    what: String,
    help: &'static str,
}

impl Found {
    fn problem(self) -> Problem {
        Problem::error(self.path, self.what).with_help(self.help)
    }

    fn error(self) -> Error {
        Error::new(ErrorKind::Unsupported, self.what).with_resource(self.path).with_help(self.help)
    }
}

fn found<'a>(
    workloads: impl Iterator<Item = (&'a ServiceName, &'a Workload)>,
    networks: &'a BTreeMap<String, NetworkSpec>,
) -> impl Iterator<Item = Found> {
    let services = workloads.flat_map(|(service, workload)| {
        wanted(workload).into_iter().map(move |(what, help)| {
            let what = format!("processes of this host have no {what}");
            Found { path: format!("services.{service}"), what, help }
        })
    });
    let networks = networks.iter().filter(|(_, network)| network.internal || network.external).map(|(name, _)| Found {
        path: format!("networks.{name}"),
        what: "processes of this host share its network".to_owned(),
        help: "leave `internal` and `external` out",
    });
    services.chain(networks)
}

/// What a workload wants, and what to do instead.
fn wanted(workload: &Workload) -> Vec<(&'static str, &'static str)> {
    let user_by_name = workload.user.as_deref().is_some_and(|name| user(name).is_none());
    let udp = workload.ports.iter().any(|port| port.transport == deployer_core::Transport::Udp);
    let mounts = &workload.mounts;
    let limited = mounts.iter().any(|mount| matches!(mount.source, MountSource::Tmpfs { size_bytes: Some(_), .. }));
    let read_only = mounts.iter().any(|mount| mount.read_only && !matches!(mount.source, MountSource::Bind(_)));
    let all = [
        (workload.resources.cpu_millis.is_some(), "limit of processor time", "leave it out"),
        (workload.read_only, "read-only root file system", "leave it out, or run it as a user that may not write"),
        (
            workload.hostname.is_some(),
            "host name of their own",
            "leave it out; the instance's name is in the variable INSTANCE",
        ),
        (user_by_name, "users of their own", "name the host's user and group by their numbers, such as 1000:1000"),
        (udp, "proxy for UDP", "leave the port out"),
        (limited, "limited file system in memory", "leave the size out"),
        (read_only, "read-only mounts", "leave it out"),
        (!workload.files.is_empty(), "place for configs and secrets as files", "mount them, or use the environment"),
        (!workload.container.used().is_empty(), "settings of containers", "leave `cap_add` and the like out"),
    ];
    all.into_iter().filter(|(is_wanted, ..)| *is_wanted).map(|(_, what, help)| (what, help)).collect()
}

/// The numbers in `1000` and `1000:1000`.
pub(super) fn user(text: &str) -> Option<(u32, Option<u32>)> {
    match text.split_once(':') {
        None => Some((text.parse().ok()?, None)),
        Some((user, group)) => Some((user.parse().ok()?, Some(group.parse().ok()?))),
    }
}
