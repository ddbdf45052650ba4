//! `x-deployer`: what a deployment needs to know and Compose has no words for.

use std::time::Duration;

use super::yaml::Map;
use crate::model::{Balancing, Hook, HookPoint, Probe, Readiness, Route};

pub(super) fn route(Route { host, path, port }: &Route) -> Map {
    let mut map = Map::default();
    map.put_some("host", host.as_ref());
    map.put_unless("path", path.as_str(), "/");
    map.put("port", *port);
    map
}

pub(super) fn health(readiness: &Readiness) -> Map {
    let Readiness { probe, interval, timeout, min_healthy, deadline, progress_deadline, crashes_allowed } = readiness;
    let default = Readiness::default();
    let mut map = Map::default();
    match probe {
        Some(Probe::Http { path, port }) => {
            let mut http = Map::default();
            http.put_unless("path", path.as_str(), "/");
            http.put("port", *port);
            map.put("http", http);
        }
        Some(Probe::Tcp { port }) => map.put("tcp", Map::from_iter([("port", *port)])),
        None => {}
    }
    map.put_unless("interval", *interval, default.interval);
    map.put_unless("timeout", *timeout, default.timeout);
    map.put_some("min-healthy", *min_healthy);
    map.put_unless("deadline", *deadline, default.deadline);
    map.put_some("progress-deadline", *progress_deadline);
    map.put_unless("crashes-allowed", *crashes_allowed, default.crashes_allowed);
    map
}

pub(super) fn balancing(Balancing { slow_start, sticky, healthy_after, unhealthy_after }: &Balancing) -> Map {
    let mut map = Map::default();
    map.put_unless("slow-start", *slow_start, Duration::ZERO);
    map.put_some("sticky", *sticky);
    map.put_some("healthy-after", healthy_after.map(u32::from));
    map.put_some("unhealthy-after", unhealthy_after.map(u32::from));
    map
}

/// A hook; one without a command runs the service's own.
pub(super) fn hook(Hook { name, point, command, timeout }: &Hook) -> Map {
    let mut map = Map::default();
    map.put("name", name);
    map.put(
        "point",
        match point {
            HookPoint::PreDeploy => "pre-deploy",
            HookPoint::PostDeploy => "post-deploy",
            HookPoint::PreStop => "pre-stop",
        },
    );
    map.put_filled("command", command.as_slice());
    map.put_unless("timeout", *timeout, Hook::new("", *point, [""; 0]).timeout);
    map
}
