//! `deploy`, and the older keys that say the same: `scale`, `cpus`, `mem_limit`, `mem_reservation`.

use super::cursor::{Cursor, Fields};
use super::report::Report;
use super::{container, keys};
use crate::model::{Restart, ServiceSpec};

pub(super) fn read(report: &mut Report, service: &Fields<'_>, model: &str, spec: &mut ServiceSpec) {
    let deploy = service.get("deploy").and_then(|cursor| report.fields(&cursor, &keys::DEPLOY));
    let resources = deploy.as_ref().and_then(|deploy| deploy.get("resources"));
    let resources = resources.and_then(|cursor| report.fields(&cursor, &keys::RESOURCES));
    let limits = resources.as_ref().and_then(|resources| resources.get("limits"));
    let limits = limits.and_then(|cursor| report.fields(&cursor, &keys::LIMITS));
    let reservations = resources.as_ref().and_then(|resources| resources.get("reservations"));
    let reservations = reservations.and_then(|cursor| report.fields(&cursor, &keys::RESERVATIONS));

    if let Some(mode) = of(&deploy, "mode") {
        // One on each engine is one, where there is one engine.
        report.parsed(&mode, "`replicated` or `global`", |text| matches!(text, "replicated" | "global").then_some(()));
    }
    if service.get("restart").is_none()
        && let Some(cursor) = of(&deploy, "restart_policy")
        && let Some(policy) = restart_policy(report, &cursor)
    {
        spec.workload.restart = policy;
    }
    if let Some(cursor) = agreed(report, service.get("scale"), of(&deploy, "replicas")) {
        spec.replicas = report.number(&cursor).unwrap_or(1);
    }
    let entries = &mut spec.workload.resources;
    // Zero means no limit in Compose.
    let some = |number: u64| (number > 0).then_some(number);
    if let Some(cursor) = agreed(report, service.get("cpus"), of(&limits, "cpus")) {
        report.mark(format!("{model}.resources.cpu_millis"), &cursor);
        entries.cpu_millis = report.cpu_millis(&cursor).and_then(some);
    }
    if let Some(cursor) = agreed(report, service.get("mem_limit"), of(&limits, "memory")) {
        report.mark(format!("{model}.resources.memory_bytes"), &cursor);
        entries.memory_bytes = report.bytes(&cursor).and_then(some);
    }
    if let Some(cursor) = agreed(report, service.get("pids_limit"), of(&limits, "pids")) {
        spec.workload.container.pids_limit = report.number(&cursor);
    }
    if let Some(cursor) = of(&reservations, "devices") {
        spec.workload.container.gpus.extend(container::device_requests(report, &cursor));
    }
    let entries = &mut spec.workload.resources;
    if let Some(cursor) = of(&reservations, "cpus") {
        entries.reserved_cpu_millis = report.cpu_millis(&cursor).and_then(some);
    }
    let reserved = of(&reservations, "memory");
    if let Some(cursor) = agreed(report, service.get("mem_reservation"), reserved) {
        report.mark(format!("{model}.resources.reserved_memory_bytes"), &cursor);
        entries.reserved_memory_bytes = report.bytes(&cursor).and_then(some);
    }
}

/// Swarm's policy, as that of the engine.
fn restart_policy(report: &mut Report, cursor: &Cursor<'_>) -> Option<Restart> {
    let fields = report.fields(cursor, &keys::RESTART_POLICY)?;
    let max_retries = fields.number(report, "max_attempts");
    let Some(condition) = fields.get("condition") else {
        return Some(max_retries.map_or(Restart::Always, |max| Restart::OnFailure { max_retries: Some(max) }));
    };
    report.parsed(&condition, "`none`, `on-failure` or `any`", |text| match text {
        "none" => Some(Restart::No),
        "on-failure" => Some(Restart::OnFailure { max_retries }),
        "any" => Some(Restart::Always),
        _ => None,
    })
}

/// The value of a section that may be missing.
fn of<'a>(fields: &Option<Fields<'a>>, key: &str) -> Option<Cursor<'a>> {
    fields.as_ref().and_then(|fields| fields.get(key))
}

/// One of two keys that say the same; if both are there they must say the same.
fn agreed<'a>(report: &mut Report, old: Option<Cursor<'a>>, new: Option<Cursor<'a>>) -> Option<Cursor<'a>> {
    if let (Some(old), Some(new)) = (&old, &new)
        && old.scalar().map(|scalar| &scalar.text) != new.scalar().map(|scalar| &scalar.text)
    {
        report.error_with_help(old, format!("`{}` says something else", new.path), "keep one of them");
    }
    new.or(old)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{complaints, web};
    use crate::model::Restart;

    #[test]
    fn both_ways_to_say_it_are_read() {
        for keys in [
            "scale: 3\ncpus: 0.5\nmem_limit: 512m\nmem_reservation: 64m",
            "deploy: {replicas: 3, resources: {limits: {cpus: \"0.5\", memory: 512m}, reservations: {memory: 64m}}}",
            "scale: 3\nmem_limit: 512m\ncpus: 0.5\nmem_reservation: 64m\ndeploy: {replicas: 3, resources: {limits: {memory: 512m}}}",
        ] {
            let web = web(keys);
            let resources = web.workload.resources;
            assert_eq!((web.replicas, resources.cpu_millis), (3, Some(500)), "{keys}");
            assert_eq!(resources.memory_bytes, Some(512 << 20), "{keys}");
            assert_eq!(resources.reserved_memory_bytes, Some(64 << 20), "{keys}");
        }
        assert_eq!(web("deploy: {mode: replicated}").replicas, 1);
        assert_eq!(web("cpus: 0\nmem_limit: 0").workload.resources, Default::default(), "zero means no limit");
    }

    #[test]
    fn policies_of_swarm_are_those_of_the_engine() {
        let failures = |max_retries| Restart::OnFailure { max_retries };
        for (policy, expected) in [
            ("{condition: none}", Restart::No),
            ("{condition: any}", Restart::Always),
            ("{condition: on-failure}", failures(None)),
            ("{condition: on-failure, max_attempts: 3}", failures(Some(3))),
            ("{max_attempts: 3}", failures(Some(3))),
        ] {
            let keys = format!("deploy: {{restart_policy: {policy}}}");
            assert_eq!(web(&keys).workload.restart, expected, "{policy}");
            assert_eq!(web(&format!("restart: always\n{keys}")).workload.restart, Restart::Always, "{policy}");
        }
        assert_eq!(web("deploy: {mode: global}").replicas, 1);
    }

    #[test]
    fn wrong_numbers_are_refused() {
        for (keys, expected) in [
            ("scale: 2\ndeploy: {replicas: 3}", "scale: `services.web.deploy.replicas` says something else"),
            ("scale: many", "scale: \"many\" is not a whole number in range"),
            ("deploy: {mode: global-job}", "deploy.mode: \"global-job\" is not `replicated` or `global`"),
            (
                "deploy: {resources: {limits: {cpus: half}}}",
                "deploy.resources.limits.cpus: \"half\" is not a number of cores such as `0.5`",
            ),
            ("mem_limit: 1m", "mem_limit: an instance needs at least 6 MiB of memory"),
            ("mem_limit: 10m\nmem_reservation: 20m", "mem_reservation: more memory is reserved than allowed"),
            (
                "deploy: {restart_policy: {condition: x}}",
                "deploy.restart_policy.condition: \"x\" is not `none`, `on-failure` or `any`",
            ),
        ] {
            assert_eq!(complaints(keys), [expected], "{keys}");
        }
    }
}
