//! The rules that every spec must keep, whatever the backend.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::container::{File, FileContent};
use super::name::ServiceName;
use super::problem::{Problem, Problems};
use super::rollout::{GateCheck, GatePoint, Probe, Strategy};
use super::scaling::{Scaling, ScalingTarget};
use super::spec::{AppSpec, ImageSource, ServiceSpec};
use super::workload::{MountSource, Transport};

pub(super) fn check(app: &AppSpec) -> Problems {
    let mut problems = Problems::default();
    if app.services.is_empty() {
        problems.push(Problem::error("services", "an application needs at least one service"));
    }
    for (name, service) in &app.services {
        Checker { app, name, service, problems: &mut problems }.check();
    }
    check_cycles(app, &mut problems);
    check_shared_entries(app, &mut problems);
    problems
}

struct Checker<'a> {
    app: &'a AppSpec,
    name: &'a ServiceName,
    service: &'a ServiceSpec,
    problems: &'a mut Problems,
}

impl Checker<'_> {
    fn error(&mut self, path: impl AsRef<str>, message: impl Into<String>) -> &mut Problem {
        let path = format!("services.{}.{}", self.name, path.as_ref());
        self.problems.push(Problem::error(path, message));
        let last = self.problems.0.len() - 1;
        &mut self.problems.0[last]
    }

    fn help(&mut self, path: impl AsRef<str>, message: impl Into<String>, help: &str) {
        self.error(path, message).help = Some(help.to_owned());
    }

    fn check(&mut self) {
        self.image();
        self.ports();
        self.mounts_and_networks();
        self.numbers();
        self.dependencies();
        self.routes();
        self.strategy();
        self.gates();
        self.hooks();
        self.balancing();
        self.scaling();
    }

    fn image(&mut self) {
        match &self.service.image {
            ImageSource::Reference(reference) => {
                let bad = reference.is_empty() || reference.contains(char::is_whitespace) || reference.starts_with('-');
                if bad {
                    self.help("image", format!("{reference:?} is not an image reference"), "name it like `redis:7`");
                }
            }
            ImageSource::Build(build) => {
                if build.context.as_os_str().is_empty() {
                    self.error("build.context", "the build context is empty");
                }
            }
        }
    }

    fn ports(&mut self) {
        let mut seen = BTreeSet::new();
        let mut published = BTreeSet::new();
        for (index, port) in self.service.workload.ports.iter().enumerate() {
            let path = format!("ports[{index}]");
            if port.target == 0 {
                self.error(&path, "a port is a number from 1 to 65535");
            }
            if !seen.insert((port.target, port.transport == Transport::Udp, port.published)) {
                self.error(&path, format!("port {} is listed twice", port.target));
            }
            if let Some(entry) = port.published {
                if !published.insert((entry, port.transport == Transport::Udp)) {
                    self.error(&path, format!("host port {} is published twice", entry.port));
                }
                if port.transport == Transport::Udp && self.service.replicas > 1 {
                    self.help(
                        &path,
                        "a UDP port of the host leads to one instance: the load balancer routes TCP and HTTP",
                        "have one replica, or leave the port internal",
                    );
                }
            }
        }
    }

    fn mounts_and_networks(&mut self) {
        let mut targets = BTreeSet::new();
        for (index, mount) in self.service.workload.mounts.iter().enumerate() {
            let path = format!("volumes[{index}]");
            if !mount.target.starts_with('/') {
                self.error(&path, format!("{:?} is not an absolute path inside the container", mount.target));
            }
            if !targets.insert(mount.target.trim_end_matches('/')) {
                self.error(&path, format!("{} is mounted twice", mount.target));
            }
            match &mount.source {
                MountSource::Volume(volume) if !self.app.volumes.contains_key(volume) => {
                    self.help(
                        &path,
                        format!("the volume {volume:?} is not declared"),
                        "declare it under the top-level `volumes`",
                    );
                }
                MountSource::Bind(source) if !source.starts_with('/') => {
                    self.error(&path, format!("{source:?} is not an absolute path on the host"));
                }
                _ => {}
            }
        }
        self.files();
        for (network, attachment) in &self.service.workload.networks {
            let fixed = attachment.ipv4_address.or(attachment.ipv6_address);
            if let Some(address) = fixed.filter(|_| self.service.replicas > 1) {
                let replicas = self.service.replicas;
                self.help(
                    format!("networks.{network}"),
                    format!("{replicas} replicas cannot all have the address {address}"),
                    "have one replica, or use the service's name",
                );
            }
            if network != "default" && !self.app.networks.contains_key(network) {
                self.help(
                    format!("networks.{network}"),
                    format!("the network {network:?} is not declared"),
                    "declare it under the top-level `networks`",
                );
            }
        }
    }

    fn files(&mut self) {
        let mut targets = BTreeSet::new();
        for (index, file) in self.service.workload.files.iter().enumerate() {
            let path = format!("files[{index}]");
            if !file.target.starts_with('/') || file.target.ends_with('/') {
                self.error(&path, format!("{:?} is not an absolute path of a file inside the container", file.target));
            }
            if !targets.insert(file.target.as_str()) {
                self.error(&path, format!("two files are put at {}", file.target));
            }
            if file.mode > 0o7777 {
                self.error(&path, format!("{:o} is no mode of a file", file.mode));
            }
            if let FileContent::Text(text) = &file.content
                && text.len() > File::MAX_BYTES
            {
                let message = format!("the file has {} bytes, {} are the most", text.len(), File::MAX_BYTES);
                self.help(&path, message, "put it into the image, or mount it");
            }
        }
    }

    fn numbers(&mut self) {
        let workload = &self.service.workload;
        let resources = workload.resources;
        if resources.memory_bytes.is_some_and(|bytes| bytes < 6 << 20) {
            self.error("resources.memory_bytes", "an instance needs at least 6 MiB of memory");
        }
        if resources.reserved_memory_bytes > resources.memory_bytes && resources.memory_bytes.is_some() {
            self.error("resources.reserved_memory_bytes", "more memory is reserved than allowed");
        }
        if resources.cpu_millis == Some(0) {
            self.error("resources.cpu_millis", "an instance cannot run without processor time");
        }
        let readiness = &self.service.readiness;
        if readiness.deadline.is_zero() {
            self.error("readiness.deadline", "instances need some time to become ready");
        }
        if let Some(Probe::Http { path, .. }) = &readiness.probe
            && !path.starts_with('/')
        {
            self.error("readiness.probe.path", format!("{path:?} does not begin with `/`"));
        }
        if readiness.probe.as_ref().is_some_and(|probe| probe.port() == 0) {
            self.error("readiness.probe.port", "a port is a number from 1 to 65535");
        }
        if let Some(check) = &workload.check
            && (check.interval < Duration::from_millis(1) || check.timeout < Duration::from_millis(1))
        {
            self.error("check.interval", "interval and timeout of a check are at least 1 ms");
        }
    }

    fn dependencies(&mut self) {
        for dependency in self.service.depends_on.keys() {
            let path = format!("depends_on.{dependency}");
            if dependency == self.name {
                self.error(path, "a service cannot depend on itself");
            } else if !self.app.services.contains_key(dependency) {
                self.error(path, format!("there is no service {dependency}"));
            }
        }
    }

    fn routes(&mut self) {
        for (index, route) in self.service.routes.iter().enumerate() {
            if !route.path.starts_with('/') {
                self.error(format!("routes[{index}].path"), format!("{:?} does not begin with `/`", route.path));
            }
            if route.path.contains(['?', '#', ' ']) {
                self.error(format!("routes[{index}].path"), "a path has no query, fragment or space");
            }
            if let Some(host) = &route.host
                && (host.is_empty() || host.contains(['/', ' ', '*', ':']))
            {
                self.help(
                    format!("routes[{index}].host"),
                    format!("{host:?} is not a host name"),
                    "write the name alone, without scheme and port",
                );
            }
            if route.port == 0 {
                self.error(format!("routes[{index}].port"), "a port is a number from 1 to 65535");
            }
        }
    }

    fn strategy(&mut self) {
        match &self.service.strategy {
            Strategy::Rolling { surge: 0, unavailable: 0 } => self.help(
                "strategy",
                "a rolling deployment with neither surge nor unavailable instances cannot move",
                "set surge to at least 1",
            ),
            Strategy::Canary { steps } => {
                let rising = steps.windows(2).all(|pair| pair[0].weight < pair[1].weight);
                if steps.is_empty() {
                    self.error("strategy.steps", "a canary needs at least one step");
                }
                if !rising || steps.iter().any(|step| !(1..=100).contains(&step.weight)) {
                    self.error("strategy.steps", "the weights of the steps rise, from 1 to 100");
                }
            }
            Strategy::Linear { step, .. } if !(1..=100).contains(step) => {
                self.error("strategy.step", "a step is 1 to 100 per cent of the traffic");
            }
            _ => {}
        }
    }

    fn gates(&mut self) {
        let mut names = BTreeSet::new();
        for (index, gate) in self.service.gates.iter().enumerate() {
            let path = format!("gates[{index}]");
            if !names.insert(&gate.name) || gate.name.is_empty() {
                self.error(&path, format!("a gate needs a name of its own, {:?} is not", gate.name));
            }
            if gate.interval < Duration::from_millis(10) {
                self.error(&path, "a gate is asked every 10 ms at the most");
            }
            let counters = matches!(gate.check, GateCheck::ErrorRate { .. } | GateCheck::Latency { .. });
            if counters && gate.at == GatePoint::BeforeTraffic {
                self.help(&path, "there is nothing to count before the revision has traffic", "ask it while holding");
            }
            if counters && self.service.routes.is_empty() {
                self.help(&path, "the load balancer counts only requests that come in over a route", "add a route");
            }
            if let GateCheck::Smoke { path: request, .. } = &gate.check
                && !request.starts_with('/')
            {
                self.error(&path, format!("{request:?} does not begin with `/`"));
            }
        }
    }

    fn hooks(&mut self) {
        let mut names = BTreeSet::new();
        for (index, hook) in self.service.hooks.iter().enumerate() {
            let path = format!("hooks[{index}]");
            let plain = ServiceName::new(hook.name.as_str()).is_ok();
            if !plain || !names.insert(&hook.name) {
                self.error(&path, format!("a hook needs a plain name of its own, {:?} is not", hook.name));
            }
            if hook.timeout.is_zero() {
                self.error(&path, "a hook needs some time to run");
            }
        }
    }

    fn balancing(&mut self) {
        let balancing = &self.service.balancing;
        let thresholds = [("healthy_after", balancing.healthy_after), ("unhealthy_after", balancing.unhealthy_after)];
        for (key, _) in thresholds.into_iter().filter(|(_, probes)| *probes == Some(0)) {
            self.error(format!("balancing.{key}"), "it takes one probe at least");
        }
    }

    fn scaling(&mut self) {
        let Some(scaling) = &self.service.scaling else { return };
        let Scaling { min, max, .. } = *scaling;
        if min == 0 {
            self.help("scaling.min", "a service that scales has one instance at the least", "nothing would wake it");
        }
        if min > max {
            self.error("scaling", format!("at least {min} instances are more than {max} at the most"));
        } else if !(min..=max).contains(&self.service.replicas) {
            let replicas = self.service.replicas;
            let message = format!("{replicas} replicas are not within {min} and {max}");
            self.help("scaling", message, "the replicas are what it begins with");
        }
        if scaling.targets.is_empty() && scaling.schedules.is_empty() {
            self.help("scaling", "nothing says when the number changes", "name a target or a schedule");
        }
        self.scaling_targets(scaling);
        self.scaling_schedules(scaling);
    }

    fn scaling_targets(&mut self, scaling: &Scaling) {
        let mut kinds = BTreeSet::new();
        for target in &scaling.targets {
            let path = format!("scaling.{}", target.name());
            if !kinds.insert(target.name()) {
                self.error(&path, format!("{} is aimed at twice", target.name()));
            }
            match target {
                ScalingTarget::Cpu { percent } | ScalingTarget::Memory { percent } if !(1..=100).contains(percent) => {
                    self.error(&path, format!("{percent} is not a percentage from 1 to 100"));
                }
                ScalingTarget::Requests { per_minute: 0 } => {
                    self.error(&path, "no number of instances brings the requests to none");
                }
                ScalingTarget::Requests { .. } if self.service.routes.is_empty() => {
                    let message = "the load balancer counts only requests that come in over a route";
                    self.help(&path, message, "add a route");
                }
                _ => {}
            }
        }
    }

    fn scaling_schedules(&mut self, scaling: &Scaling) {
        let mut names = BTreeSet::new();
        for (index, schedule) in scaling.schedules.iter().enumerate() {
            let path = format!("scaling.schedules[{index}]");
            let plain = ServiceName::new(schedule.name.as_str()).is_ok();
            if !plain || !names.insert(&schedule.name) {
                self.error(&path, format!("a schedule needs a plain name of its own, {:?} is not", schedule.name));
            }
            if let Some(timezone) = schedule.timezone.as_ref().filter(|timezone| !is_timezone(timezone)) {
                self.help(&path, format!("{timezone:?} is not a time zone"), "name it like `Europe/Berlin`");
            }
            if schedule.min.is_none() && schedule.max.is_none() {
                self.error(&path, "a schedule changes the fewest or the most instances, or both");
            }
            let (min, max) = (schedule.min.unwrap_or(scaling.min), schedule.max.unwrap_or(scaling.max));
            if min == 0 || min > max {
                self.error(&path, format!("from {min} to {max} instances is no range, and 1 is the least"));
            }
        }
    }
}

/// Whether it can be the name of a time zone.
fn is_timezone(name: &str) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || "_+-/".contains(c);
    !name.is_empty() && name.len() <= 64 && name.chars().all(valid)
}

/// Reports each service that waits for itself through others, once for each cycle.
fn check_cycles(app: &AppSpec, problems: &mut Problems) {
    fn visit<'a>(
        app: &'a AppSpec,
        name: &'a ServiceName,
        path: &mut Vec<&'a ServiceName>,
        done: &mut BTreeSet<&'a ServiceName>,
        problems: &mut Problems,
    ) {
        if let Some(start) = path.iter().position(|seen| *seen == name) {
            let cycle: Vec<&str> = path[start..].iter().chain([&name]).map(|name| name.as_str()).collect();
            if cycle.len() > 2 {
                let at = format!("services.{name}.depends_on");
                problems.push(Problem::error(at, format!("services wait for each other: {}", cycle.join(" -> "))));
            }
            return;
        }
        if !done.contains(name) {
            path.push(name);
            if let Some((_, service)) = app.services.get_key_value(name) {
                for dependency in service.depends_on.keys() {
                    if let Some((dependency, _)) = app.services.get_key_value(dependency) {
                        visit(app, dependency, path, done, problems);
                    }
                }
            }
            path.pop();
            done.insert(name);
        }
    }
    let mut done = BTreeSet::new();
    for name in app.services.keys() {
        visit(app, name, &mut Vec::new(), &mut done, problems);
    }
}

/// Reports what two services of one application claim for themselves.
fn check_shared_entries(app: &AppSpec, problems: &mut Problems) {
    let mut routes = BTreeMap::new();
    let mut published = BTreeMap::new();
    let mut volumes: BTreeMap<&str, &ServiceName> = BTreeMap::new();
    for (name, service) in &app.services {
        for (index, route) in service.routes.iter().enumerate() {
            let key = (route.host.as_deref().map(str::to_ascii_lowercase), route.path.trim_end_matches('/'));
            if let Some(other) = routes.insert(key, name) {
                let at = format!("services.{name}.routes[{index}]");
                problems.push(Problem::error(at, format!("{other} has the same route")));
            }
        }
        for (index, port) in service.workload.ports.iter().enumerate() {
            if let Some(entry) = port.published
                && let Some(other) = published.insert((entry.ip, entry.port), name)
                && other != name
            {
                let at = format!("services.{name}.ports[{index}]");
                problems.push(Problem::error(at, format!("{other} publishes host port {} too", entry.port)));
            }
        }
        for volume in service.workload.exclusive_volumes() {
            if let Some(other) = volumes.insert(volume, name)
                && other != name
            {
                let at = format!("services.{name}.volumes");
                let message = format!("{other} writes to the volume {volume:?} too");
                problems.push(Problem::warning(at, message).with_help("mount it read-only in all services but one"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rollout::Route;
    use super::super::scaling::ScalingSchedule;
    use super::*;

    #[test]
    fn every_problem_is_reported_at_once() {
        let web = ServiceSpec::image("bad image")
            .with_port(80)
            .with_port(80)
            .with_route(Route::new(0).with_path("x"))
            .with_strategy(Strategy::Rolling { surge: 0, unavailable: 0 })
            .with_dependency("db")
            .unwrap();
        let app = AppSpec::new("shop").unwrap().with_service("web", web).unwrap();
        let problems = app.validate().unwrap_err();
        let paths: Vec<&str> = problems.0.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "services.web.image",
                "services.web.ports[1]",
                "services.web.depends_on.db",
                "services.web.routes[0].path",
                "services.web.routes[0].port",
                "services.web.strategy",
            ]
        );
    }

    #[test]
    fn cycles_are_named() {
        let service = |on: &str| ServiceSpec::image("x").with_dependency(on).unwrap();
        let app = AppSpec::new("shop").unwrap();
        let app = app.with_service("a", service("b")).unwrap().with_service("b", service("a")).unwrap();
        let problems = app.validate().unwrap_err();
        assert_eq!(problems.to_string(), "error: services.a.depends_on: services wait for each other: a -> b -> a");
    }

    #[test]
    fn scaling_keeps_its_bounds() {
        let problems = |scaling: Scaling| {
            let service = ServiceSpec::image("x").with_replicas(2).with_scaling(scaling);
            let app = AppSpec::new("shop").unwrap().with_service("web", service).unwrap();
            check(&app).0.into_iter().map(|problem| (problem.path, problem.message)).collect::<Vec<_>>()
        };
        let cpu = |percent| ScalingTarget::Cpu { percent };
        let night = || ScalingSchedule::new("night", "0 22 * * *".parse().unwrap());
        assert_eq!(problems(Scaling::new(1, 4).with_target(cpu(60)).with_schedule(night().with_bounds(1, 2))), []);
        let day = night().with_bounds(3, 2).with_timezone("nowhere at all");
        for (scaling, path, message) in [
            (Scaling::new(3, 4).with_target(cpu(1)), "scaling", "2 replicas are not within 3 and 4"),
            (Scaling::new(5, 4).with_target(cpu(1)), "scaling", "at least 5 instances are more than 4 at the most"),
            (Scaling::new(1, 4), "scaling", "nothing says when the number changes"),
            (
                Scaling::new(0, 4).with_target(cpu(1)),
                "scaling.min",
                "a service that scales has one instance at the least",
            ),
            (Scaling::new(1, 4).with_target(cpu(101)), "scaling.cpu", "101 is not a percentage from 1 to 100"),
            (Scaling::new(1, 4).with_target(cpu(1)).with_target(cpu(2)), "scaling.cpu", "cpu is aimed at twice"),
            (
                Scaling::new(1, 4).with_target(ScalingTarget::Requests { per_minute: 100 }),
                "scaling.requests",
                "the load balancer counts only requests that come in over a route",
            ),
            (
                Scaling::new(1, 4).with_schedule(night()),
                "scaling.schedules[0]",
                "a schedule changes the fewest or the most instances, or both",
            ),
            (Scaling::new(1, 4).with_schedule(day), "scaling.schedules[0]", "\"nowhere at all\" is not a time zone"),
        ] {
            let found = problems(scaling);
            assert_eq!(found[0], (format!("services.web.{path}"), message.to_owned()), "{found:?}");
        }
    }

    #[test]
    fn two_services_cannot_have_one_route() {
        let service = || ServiceSpec::image("x").with_route(Route::new(80).with_host("Shop.example"));
        let app = AppSpec::new("shop").unwrap();
        let app = app.with_service("a", service()).unwrap().with_service("b", service()).unwrap();
        assert_eq!(app.validate().unwrap_err().to_string(), "error: services.b.routes[0]: a has the same route");
    }
}
