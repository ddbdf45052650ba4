//! What of an application cannot run on ECS.

use deployer_core::{
    Error, ErrorKind, MountSource, Probe, Problem, Problems, Release, Restart, Result, Service, VolumeSpec,
};

use super::definition::{LONGEST_STOP, file_system, size};
use crate::site::Site;

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
            problems.push(Problem::error(format!("{path}.stop_grace_period"), message).with_help("shorten it, or run on EC2"));
        }
        for (index, mount) in workload.mounts.iter().enumerate() {
            let path = format!("{path}.volumes[{index}]");
            match &mount.source {
                MountSource::Volume(name) if volume(name).and_then(file_system).is_none() => problems.push(
                    Problem::error(path, format!("the volume {name:?} outlives its instances, and ECS keeps such on EFS only"))
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
        for (index, port) in workload.ports.iter().enumerate().filter(|(_, port)| port.published.is_some()) {
            let message = format!("port {} cannot be published: the load balancer serves routes only", port.target);
            problems.push(
                Problem::error(format!("{path}.ports[{index}]"), message)
                    .with_help("give the service a route, or leave the published port out"),
            );
        }
        if !service.routes.is_empty() && self.options.listener.is_none() {
            problems.push(
                Problem::error(format!("{path}.routes"), "the environment has no listener that could serve a route")
                    .with_help("name one with `AwsOptions::with_listener`"),
            );
        }
        self.no_effect(path, service, &mut problems);
        problems
    }

    fn no_effect<I>(&self, path: &str, service: &Service<I>, problems: &mut Problems) {
        let workload = &service.workload;
        let mut warn = |key: &str, message: &str| problems.push(Problem::warning(format!("{path}.{key}"), message));
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
            Some(Probe::Http { port, .. } | Probe::Tcp { port }) => service.routes.iter().all(|route| route.port != *port),
            None => false,
        };
        if unseen && workload.check.is_none() {
            warn("readiness.probe", "only the load balancer asks instances, at ports with routes: this one counts as ready when it runs");
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
