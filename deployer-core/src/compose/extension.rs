//! `x-deployer`: what a deployment needs to know and Compose has no words for.

use super::cursor::{Cursor, Fields};
use super::report::Report;
use super::{gates, keys, service, strategy};
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
    set("min-healthy", &mut readiness.min_healthy);
    set("deadline", &mut readiness.deadline);
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
    let command = fields.require(report, "command").and_then(|cursor| service::command(report, &cursor));
    let timeout = fields.duration(report, "timeout");
    let hook = Hook::new(name?, point?, command?);
    Some(match timeout {
        Some(timeout) => hook.with_timeout(timeout),
        None => hook,
    })
}
