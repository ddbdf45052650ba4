//! `x-deployer`: what a deployment needs to know and Compose has no words for.

use super::cursor::{Cursor, Fields};
use super::report::Report;
use super::{balancing, gates, keys, scaling, service, strategy};
use crate::model::{EnvValue, Hook, HookPoint, Port, Probe, Readiness, Route, SecretRef, ServiceSpec, Transport};

pub(super) fn read(report: &mut Report, cursor: &Cursor<'_>, model: &str, spec: &mut ServiceSpec) {
    let Some(fields) = report.fields(cursor, &keys::DEPLOYER) else { return };
    routes(report, &fields, model, spec);
    if let Some(cursor) = fields.get("health") {
        report.mark(format!("{model}.readiness"), &cursor);
        health(report, &cursor, model, spec);
    }
    if let Some(cursor) = fields.get("strategy") {
        report.mark(format!("{model}.strategy"), &cursor);
        if let Some(strategy) = strategy::read(report, &cursor, model) {
            spec.strategy = strategy;
        }
    }
    spec.drain = fields.duration(report, "drain");
    if let Some(cursor) = fields.get("balancing") {
        report.mark(format!("{model}.balancing"), &cursor);
        spec.balancing = balancing::read(report, &cursor, model).unwrap_or_default();
    }
    if let Some(cursor) = fields.get("scaling") {
        report.mark(format!("{model}.scaling"), &cursor);
        spec.scaling = scaling::read(report, &cursor, model);
    }
    if let Some(cursor) = fields.get("gates") {
        for item in report.items(&cursor) {
            if let Some(gate) = gates::read(report, &item, &spec.workload.ports) {
                report.mark(format!("{model}.gates[{}]", spec.gates.len()), &item);
                spec.gates.push(gate);
            }
        }
    }
    if let Some(cursor) = fields.get("hooks") {
        for item in report.items(&cursor) {
            if let Some(hook) = hook(report, &item) {
                report.mark(format!("{model}.hooks[{}]", spec.hooks.len()), &item);
                spec.hooks.push(hook);
            }
        }
    }
    if let Some(cursor) = fields.get("secrets") {
        for field in report.entries(&cursor) {
            let Some(name) = report.text(&field.value) else { continue };
            if spec.workload.env.contains_key(field.key) {
                let message = format!("{} has a value in `environment` or `env_file` too", field.key);
                report.error_with_help(&field.value, message, "keep one of them");
            }
            if field.key.is_empty() || field.key.contains(['=', ' ']) {
                report.error(&field.value, "the name of the environment variable is empty or has `=` or a space in it");
            }
            spec.workload.env.insert(field.key.to_owned(), EnvValue::Secret(SecretRef::new(name)));
        }
    }
}

/// The port named there; else the only TCP port that the service declares.
pub(super) fn port(report: &mut Report, fields: &Fields<'_>, ports: &[Port]) -> Option<u16> {
    if let Some(cursor) = fields.get("port") {
        return report.port(&cursor);
    }
    let mut targets: Vec<u16> = ports.iter().filter(|p| p.transport == Transport::Tcp).map(|p| p.target).collect();
    targets.sort_unstable();
    targets.dedup();
    if let [only] = targets[..] {
        return Some(only);
    }
    let why = if targets.is_empty() { "declares none" } else { "declares more than one" };
    report.error_with_help(&fields.cursor, format!("`port` is missing, and the service {why}"), "name the port");
    None
}

fn routes(report: &mut Report, fields: &Fields<'_>, model: &str, spec: &mut ServiceSpec) {
    let mut items: Vec<Cursor<'_>> = fields.get("route").into_iter().collect();
    if let Some(cursor) = fields.get("routes") {
        if !items.is_empty() {
            report.error_with_help(&cursor, "`route` and `routes` exclude each other", "write all of them in `routes`");
        }
        items.extend(report.items(&cursor));
    }
    for item in items {
        let Some(fields) = report.fields(&item, &keys::ROUTE) else { continue };
        let at = format!("{model}.routes[{}]", spec.routes.len());
        report.mark(at.as_str(), &item);
        for key in ["host", "path", "port"] {
            if let Some(cursor) = fields.get(key) {
                report.mark(format!("{at}.{key}"), &cursor);
            }
        }
        let host = fields.text(report, "host");
        let path = fields.text(report, "path");
        if let Some(port) = port(report, &fields, &spec.workload.ports) {
            let route = Route::new(port).with_path(path.unwrap_or_else(|| "/".to_owned()));
            spec.routes.push(Route { host, ..route });
        }
    }
}

fn health(report: &mut Report, cursor: &Cursor<'_>, model: &str, spec: &mut ServiceSpec) {
    let Some(fields) = report.fields(cursor, &keys::HEALTH) else { return };
    let mut readiness = Readiness::default();
    if let Some(cursor) = fields.get("http") {
        report.mark(format!("{model}.readiness.probe"), &cursor);
        if let Some(probe) = report.fields(&cursor, &keys::HTTP_PROBE) {
            if let Some(cursor) = probe.get("path") {
                report.mark(format!("{model}.readiness.probe.path"), &cursor);
            }
            let path = probe.text(report, "path").unwrap_or_else(|| "/".to_owned());
            if let Some(port) = port(report, &probe, &spec.workload.ports) {
                readiness.probe = Some(Probe::Http { path, port });
            }
        }
    }
    if let Some(cursor) = fields.get("tcp") {
        report.mark(format!("{model}.readiness.probe"), &cursor);
        if fields.get("http").is_some() {
            report.error_with_help(&cursor, "`http` and `tcp` exclude each other", "keep one of them");
        }
        if let Some(probe) = report.fields(&cursor, &keys::TCP_PROBE)
            && let Some(port) = port(report, &probe, &spec.workload.ports)
        {
            readiness.probe = Some(Probe::Tcp { port });
        }
    }
    let mut set = |key: &str, target: &mut std::time::Duration| {
        if let Some(duration) = fields.duration(report, key) {
            *target = duration;
        }
    };
    set("interval", &mut readiness.interval);
    set("timeout", &mut readiness.timeout);
    set("deadline", &mut readiness.deadline);
    readiness.min_healthy = fields.duration(report, "min-healthy");
    readiness.progress_deadline = fields.duration(report, "progress-deadline");
    if let Some(crashes) = fields.number(report, "crashes-allowed") {
        readiness.crashes_allowed = crashes;
    }
    if let Some(cursor) = fields.get("deadline") {
        report.mark(format!("{model}.readiness.deadline"), &cursor);
    }
    spec.readiness = readiness;
}

fn hook(report: &mut Report, cursor: &Cursor<'_>) -> Option<Hook> {
    let fields = report.fields(cursor, &keys::HOOK)?;
    let name = fields.require(report, "name").and_then(|cursor| report.text(&cursor));
    let point = fields.require(report, "point").and_then(|cursor| {
        report.parsed(&cursor, "`pre-deploy`, `post-deploy` or `pre-stop`", |text| match text {
            "pre-deploy" => Some(HookPoint::PreDeploy),
            "post-deploy" => Some(HookPoint::PostDeploy),
            "pre-stop" => Some(HookPoint::PreStop),
            _ => None,
        })
    });
    // Without one it is the service's own.
    let command = match fields.get("command") {
        Some(cursor) => service::command(report, &cursor).inspect(|command| {
            if command.is_empty() {
                report.error_with_help(&cursor, "the command is empty", "leave it out to run the service's own");
            }
        }),
        None => Some(Vec::new()),
    };
    let timeout = fields.duration(report, "timeout");
    let hook = Hook::new(name?, point?, command?);
    Some(match timeout {
        Some(timeout) => hook.with_timeout(timeout),
        None => hook,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{complaints, web};
    use super::*;

    fn with(deployer: &str) -> ServiceSpec {
        web(&format!("expose: [8080]\nx-deployer: {{{deployer}}}"))
    }

    fn wrong(deployer: &str) -> Vec<String> {
        complaints(&format!("expose: [8080]\nx-deployer: {{{deployer}}}"))
    }

    #[test]
    fn routes_are_read() {
        let route = || Route::new(8080);
        for (deployer, expected) in [
            ("route: {}", vec![route()]),
            (
                "route: {host: a.example, path: /x, port: 81}",
                vec![Route::new(81).with_host("a.example").with_path("/x")],
            ),
            ("routes: [{path: /a}, {path: /b}]", vec![route().with_path("/a"), route().with_path("/b")]),
        ] {
            assert_eq!(with(deployer).routes, expected, "{deployer}");
        }
    }

    #[test]
    fn health_is_read() {
        let readiness = with("health: {http: {path: /h}}").readiness;
        let probe = Some(Probe::Http { path: "/h".into(), port: 8080 });
        assert_eq!(readiness, Readiness { probe, ..Readiness::default() });
        assert_eq!(with("health: {tcp: {}}").readiness.probe, Some(Probe::Tcp { port: 8080 }));
        assert_eq!(with("health: {tcp: {port: 81}}").readiness.probe, Some(Probe::Tcp { port: 81 }));
        let readiness = with("health: {interval: 5s, crashes-allowed: 0, progress-deadline: 20s}").readiness;
        assert_eq!((readiness.interval, readiness.crashes_allowed), (Duration::from_secs(5), 0));
        assert_eq!(readiness.progress_deadline, Some(Duration::from_secs(20)));
        assert_eq!(with("drain: 3s").drain, Some(Duration::from_secs(3)));
        assert_eq!(with("").drain, None);
    }

    #[test]
    fn hooks_and_secrets_are_read() {
        let hooks = with("hooks: [{name: m, point: pre-deploy, command: [/shop, migrate], timeout: 30s}]").hooks;
        let expected = Hook::new("m", HookPoint::PreDeploy, ["/shop", "migrate"]);
        assert_eq!(hooks, [expected.with_timeout(Duration::from_secs(30))]);
        let hooks =
            with("hooks: [{name: a, point: post-deploy, command: x y}, {name: b, point: pre-stop, command: z}]");
        assert_eq!(hooks.hooks[0].command, ["x", "y"]);
        assert_eq!(hooks.hooks[1].point, HookPoint::PreStop);
        assert_eq!(with("hooks: [{name: a, point: pre-deploy}]").hooks[0].command, [""; 0], "the service's own");
        let env = with("secrets: {PASSWORD: db-password}").workload.env;
        assert_eq!(env["PASSWORD"], EnvValue::Secret(SecretRef::new("db-password")));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (deployer, expected) in [
            ("route: {port: 0}", "x-deployer.route.port: \"0\" is not a port from 1 to 65535"),
            ("route: {path: x}", "x-deployer.route.path: \"x\" does not begin with `/`"),
            ("routes: [{host: a:1}]", "x-deployer.routes[0].host: \"a:1\" is not a host name"),
            ("routes: [{}, {}]", "x-deployer.routes[1]: web has the same route"),
            ("route: {}, routes: [{path: /x}]", "x-deployer.routes: `route` and `routes` exclude each other"),
            ("health: {http: {}, tcp: {}}", "x-deployer.health.tcp: `http` and `tcp` exclude each other"),
            ("health: {http: {path: h}}", "x-deployer.health.http.path: \"h\" does not begin with `/`"),
            ("health: {deadline: 0s}", "x-deployer.health.deadline: instances need some time to become ready"),
            (
                "health: {deadline: soon}",
                "x-deployer.health.deadline: \"soon\" is not a duration such as `1m30s` or `200ms`",
            ),
            ("hooks: [{point: pre-deploy, command: x}]", "x-deployer.hooks[0]: `name` is missing"),
            (
                "hooks: [{name: x, point: before, command: x}]",
                "x-deployer.hooks[0].point: \"before\" is not `pre-deploy`, `post-deploy` or `pre-stop`",
            ),
            ("hooks: [{name: x, point: pre-stop, command: []}]", "x-deployer.hooks[0].command: the command is empty"),
            ("hooks: {name: x}", "x-deployer.hooks: a list is needed here, not a mapping"),
            ("secrets: {A: [x]}", "x-deployer.secrets.A: text is needed here, not a list"),
        ] {
            assert_eq!(wrong(deployer), [expected], "{deployer}");
        }
        assert_eq!(
            complaints("x-deployer: {route: {}}"),
            ["x-deployer.route: `port` is missing, and the service declares none"]
        );
        assert_eq!(
            complaints("expose: [1, 2]\nx-deployer: {route: {}}"),
            ["x-deployer.route: `port` is missing, and the service declares more than one"]
        );
        assert_eq!(
            complaints("environment: [A=b]\nx-deployer: {secrets: {A: x}}"),
            ["x-deployer.secrets.A: A has a value in `environment` or `env_file` too"]
        );
    }
}
