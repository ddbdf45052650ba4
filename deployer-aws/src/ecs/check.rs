//! What of an application cannot run on ECS.

use std::collections::BTreeSet;
use std::time::Duration;

use deployer_core::{
    Balancing, ContainerOptions, EnvValue, Error, ErrorKind, MountSource, Probe, Problem, Problems, Release, Restart,
    Result, Service, Transport, VolumeSpec,
};

use super::definition::{EPHEMERAL_STORAGE, LONGEST_STOP, file_system, plain, size};
use crate::elb::{Inlet, Match};
use crate::secrets::is_unversioned;
use crate::site::Site;

/// How many target groups an ECS service may have:
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/register-multiple-targetgroups.html>.
const INLETS: usize = 5;

impl Site {
    /// What of a service cannot run here.
    pub(super) fn cannot_run<'a, I>(
        &self,
        path: &str,
        service: &Service<I>,
        volume: impl Fn(&str) -> Option<&'a VolumeSpec>,
    ) -> Problems {
        let mut problems = Problems::default();
        let fargate = self.options.capacity.is_fargate();
        let workload = &service.workload;
        if let Err(error) = size(&workload.resources, fargate) {
            let problem = Problem::error(format!("{path}.resources"), error.to_string());
            problems.push(problem.with_help(error.help().unwrap_or_default()));
        }
        if fargate && workload.stop.grace > LONGEST_STOP {
            let message = format!("Fargate gives an instance {} s to stop at most", LONGEST_STOP.as_secs());
            problems.push(
                Problem::error(format!("{path}.stop_grace_period"), message).with_help("shorten it, or run on EC2"),
            );
        }
        for (index, mount) in workload.mounts.iter().enumerate() {
            let path = format!("{path}.volumes[{index}]");
            match &mount.source {
                MountSource::Volume(name) if volume(name).and_then(file_system).is_none() => problems.push(
                    Problem::error(
                        path,
                        format!("the volume {name:?} outlives its instances, and ECS keeps such on EFS only"),
                    )
                    .with_help("declare it with `driver: efs` and `driver_opts: {file-system: fs-...}`"),
                ),
                MountSource::Bind(_) if fargate => problems.push(
                    Problem::error(path, "Fargate has no host whose files could be mounted")
                        .with_help("put the files into the image, keep them on EFS, or run on EC2"),
                ),
                MountSource::Tmpfs { .. } if fargate => problems.push(
                    Problem::error(path, "Fargate has no file systems in memory")
                        .with_help("mount a volume without a name: it lives as long as the instance"),
                ),
                _ => {}
            }
        }
        if let Some(text) = workload.labels.get(EPHEMERAL_STORAGE)
            && !(fargate && text.parse().is_ok_and(|gibibytes| (21..=200).contains(&gibibytes)))
        {
            let message =
                format!("{text:?} is not what Fargate gives, which is 21 to 200 GiB; EC2 gives what machines have");
            problems.push(Problem::error(format!("{path}.labels.{EPHEMERAL_STORAGE}"), message));
        }
        balancing(path, service, &mut problems);
        self.published_ports(path, service, &mut problems);
        if !service.routes.is_empty() && self.options.listener.is_none() {
            problems.push(
                Problem::error(format!("{path}.routes"), "the environment has no listener that could serve a route")
                    .with_help("name one with `AwsOptions::with_listener`"),
            );
        }
        if !workload.files.is_empty() {
            problems.push(
                Problem::error(format!("{path}.files"), "ECS puts no files into instances")
                    .with_help("give configs and secrets in the environment, or put the content into the image"),
            );
        }
        self.container_options(path, &workload.container, &mut problems);
        self.no_effect(path, service, &mut problems);
        problems
    }

    /// Ports that cannot be published, and more ways to a service than it can have.
    fn published_ports<I>(&self, path: &str, service: &Service<I>, problems: &mut Problems) {
        for (index, port) in service.workload.ports.iter().enumerate() {
            let Some(published) = &port.published else { continue };
            let (what, help) = if port.transport == Transport::Udp {
                ("a UDP port cannot be published", "leave the published port out")
            } else if published.ip.is_some() {
                ("there is no host on one of whose addresses a port could listen", "leave the address or the port out")
            } else if self.options.network_balancer.is_none() {
                (
                    "the environment has no load balancer on which a port could be published",
                    "give the service a route, name one with `AwsOptions::with_network_balancer`, or leave the port out",
                )
            } else {
                continue;
            };
            let message = format!("port {}: {what}", port.target);
            problems.push(Problem::error(format!("{path}.ports[{index}]"), message).with_help(help));
        }
        let inlets: BTreeSet<Inlet> = Match::all_of(service).into_iter().map(|(_, inlet)| inlet).collect();
        if inlets.len() > INLETS {
            let message = format!("traffic comes in at {} ports, and ECS lets it at {INLETS}", inlets.len());
            problems.push(
                Problem::error(path.to_owned(), message)
                    .with_help("a port that has routes and is published counts twice; divide the service"),
            );
        }
    }

    /// Options of containers that a task definition cannot have.
    fn container_options(&self, path: &str, options: &ContainerOptions, problems: &mut Problems) {
        let fargate = self.options.capacity.is_fargate();
        for name in options.used() {
            let why = match name.as_str() {
                // What comes out goes to the log group; what goes in and how it looks is said in the definition.
                "cap_drop" | "sysctls" | "stdin_open" | "tty" => continue,
                "logging" => {
                    let message = "the output goes to the log group of the environment; this has no effect";
                    problems.push(Problem::warning(format!("{path}.logging"), message));
                    continue;
                }
                "cap_add" if fargate => options
                    .cap_add
                    .iter()
                    .find(|name| plain(name) != "SYS_PTRACE")
                    .map(|name| format!("Fargate adds only the capability SYS_PTRACE, not {name}")),
                "ulimits" if fargate => options
                    .ulimits
                    .keys()
                    .find(|name| *name != "nofile")
                    .map(|name| format!("Fargate has only the limit nofile, not {name}")),
                "privileged" | "shm_size" if fargate => Some(format!("Fargate has no `{name}`")),
                "cap_add" | "ulimits" | "privileged" | "shm_size" => None,
                "platform" => {
                    let own = self.options.architecture.platform();
                    let other = options.platform.as_ref().filter(|platform| !platform.starts_with(own));
                    other.map(|platform| format!("the service is for {platform}, and the environment is {own}"))
                }
                _ => Some(format!("ECS has no `{name}`")),
            };
            if let Some(why) = why {
                problems
                    .push(Problem::error(format!("{path}.{name}"), why).with_help("leave it out, or run it elsewhere"));
            }
        }
    }

    fn no_effect<I>(&self, path: &str, service: &Service<I>, problems: &mut Problems) {
        let workload = &service.workload;
        let mut warn = |key: &str, message: &str| problems.push(Problem::warning(format!("{path}.{key}"), message));
        for (name, value) in &workload.env {
            if matches!(value, EnvValue::Secret(secret) if is_unversioned(secret)) {
                let message = "ECS gives instances the newest value of a parameter, also those that it starts later or that a \
                               rollback brings back; Secrets Manager keeps versions apart";
                warn(&format!("environment.{name}"), message);
            }
        }
        if workload.hostname.is_some() {
            warn("hostname", "instances on ECS have the names that AWS gives them");
        }
        if workload.stop.signal.is_some() {
            warn("stop_signal", "ECS sends the signal that the image names; this one has no effect");
        }
        if matches!(workload.restart, Restart::No | Restart::OnFailure { .. }) {
            warn("restart", "ECS replaces whatever exits");
        }
        if workload.networks.keys().any(|network| network != "default") {
            warn("networks", "instances on ECS are kept apart by security groups; networks have no effect");
        }
        let unseen = match &service.readiness.probe {
            Some(Probe::Http { port, .. } | Probe::Tcp { port }) => {
                Match::all_of(service).iter().all(|(_, inlet)| inlet.port != *port)
            }
            None => false,
        };
        if unseen && workload.check.is_none() {
            warn(
                "readiness.probe",
                "only the load balancer asks instances, at ports with routes and published ones: this one counts as ready when it runs",
            );
        }
    }

    /// Refuses a release that cannot run here.
    pub(super) fn refuse(&self, release: &Release) -> Result<()> {
        let mut problems = Problems::default();
        for (name, service) in &release.services {
            let found = self.cannot_run(&format!("services.{name}"), service, |volume| release.volumes.get(volume));
            problems.0.extend(found.errors().cloned());
        }
        if problems.has_errors() {
            return Err(Error::new(ErrorKind::Unsupported, "ECS cannot run the release")
                .with_context("because", problems.to_string())
                .with_source(problems));
        }
        Ok(())
    }
}

/// What the load balancer takes:
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-target-group-attributes.html>.
fn balancing<I>(path: &str, service: &Service<I>, problems: &mut Problems) {
    let Balancing { slow_start, sticky, healthy_after, unhealthy_after, .. } = &service.balancing;
    let mut refuse =
        |key: &str, message: &str| problems.push(Problem::error(format!("{path}.balancing.{key}"), message));
    let seconds = Duration::from_secs;
    if !slow_start.is_zero() && !(seconds(30)..=seconds(900)).contains(slow_start) {
        refuse("slow_start", "the load balancer takes 30 s to 15 min for it");
    }
    if sticky.is_some_and(|sticky| !(seconds(1)..=seconds(604_800)).contains(&sticky)) {
        refuse("sticky", "the load balancer takes 1 s to 7 days for it");
    }
    for (key, probes) in [("healthy_after", healthy_after), ("unhealthy_after", unhealthy_after)] {
        if probes.is_some_and(|probes| !(2..=10).contains(&probes)) {
            refuse(key, "the load balancer takes 2 to 10 probes");
        }
    }
}
